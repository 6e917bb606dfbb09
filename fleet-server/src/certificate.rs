//! The device certification authority. Every field of a certificate is the server's own; a request gives only its public key.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sealift_protocol::digest::{Digest, encode_hex};
use sealift_protocol::id::{DeviceId, TenantId, UnixMillis};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// The authority is replaced together with the trust bundle, by people; ten years leave time for that.
const AUTHORITY_LIFE_MS: i64 = 10 * 365 * DAY_MS;

/// A device that was offline for a season still has its identity; a stolen one is revoked, not waited for.
pub(crate) const DEVICE_LIFE_MS: i64 = 90 * DAY_MS;

/// The server issues its own certificate anew when it starts with less than a third of this left.
const SERVER_LIFE_MS: i64 = 397 * DAY_MS;

/// The common name of the server's certificate. It has no colon, so it is no device.
pub(crate) const SERVER_NAME: &str = "fleet-server";

/// Devices' clocks may be behind the server's by an hour.
const BACKDATED_MS: i64 = 3_600 * 1_000;

/// A PKCS #10 request with a P-256 key is 500 bytes; with names and extensions a few thousand.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// An uncompressed point on P-256 (SEC 1, section 2.3.3).
const P256_POINT_BYTES: usize = 65;

/// Why a certificate was not made or not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// Not PKCS #10, a wrong signature, or extensions that no device needs.
    #[error("certificate request is refused")]
    Request(#[source] rcgen::Error),
    /// Larger than any request of ours.
    #[error("certificate request has {0} bytes, at most {REQUEST_BYTES_MAX} are allowed")]
    RequestSize(usize),
    /// RSA, another curve, another signature algorithm.
    #[error("certificate request is not for a P-256 key")]
    RequestKey,
    /// The authority's own certificate or key.
    #[error("the device CA cannot be used")]
    Authority(#[source] rcgen::Error),
    /// The authority's certificate is not PEM.
    #[error("the device CA is not a PEM certificate")]
    AuthorityForm(#[source] rustls_pki_types::pem::Error),
    /// A certificate could not be signed.
    #[error("cannot issue a certificate for {0}")]
    Issue(String, #[source] rcgen::Error),
    /// A host that is neither an address nor a DNS name.
    #[error("`{0}` is not a host name")]
    Host(String),
    /// No random bytes from the system.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
}

/// Signs devices' and servers' certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate_der: CertificateDer<'static>,
}

/// A certificate made for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceCertificate {
    /// The certificate, then the authority's, PEM.
    pub(crate) chain_pem: String,
    /// Its serial number, lower-case hex without leading zeros.
    pub(crate) serial: String,
    /// When it expires.
    pub(crate) expires_at: UnixMillis,
}

/// A certificate and its key, PEM.
pub(crate) struct ServerCertificate {
    /// The certificate, then the authority's.
    pub(crate) chain_pem: String,
    /// The private key, PKCS #8.
    pub(crate) key_pem: String,
}

impl Authority {
    /// Makes a new authority; the second value is its private key, PKCS #8 PEM.
    pub(crate) fn generate(
        tenant: &TenantId,
        now: UnixMillis,
    ) -> Result<(Self, String), CertificateError> {
        let key = p256_key().map_err(CertificateError::Authority)?;
        let mut params = params(&format!("Sealift device CA of {tenant}"), now, AUTHORITY_LIFE_MS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(random_serial()?);
        let certificate = params.self_signed(&key).map_err(CertificateError::Authority)?;
        let key_pem = key.serialize_pem();
        Ok((Self::open(&certificate.pem(), &key_pem)?, key_pem))
    }

    /// Opens an authority from its certificate and key, PEM.
    pub(crate) fn open(certificate_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::from_pem(key_pem).map_err(CertificateError::Authority)?;
        let certificate_der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(CertificateError::AuthorityForm)?;
        let issuer =
            Issuer::from_ca_cert_der(&certificate_der, key).map_err(CertificateError::Authority)?;
        Ok(Self { issuer, certificate_pem: certificate_pem.to_owned(), certificate_der })
    }

    /// Its certificate, PEM.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 of its certificate's DER: what an enrolment token pins.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.certificate_der)
    }

    /// Issues a certificate for `identity` and the public key of a request whose signature proves possession of the private one.
    pub(crate) fn issue_device(
        &self,
        identity: &Identity,
        request_pem: &str,
        now: UnixMillis,
    ) -> Result<DeviceCertificate, CertificateError> {
        let request = read_request(request_pem)?;
        let serial = random_serial()?;
        let mut params = params(&identity.common_name(), now, DEVICE_LIFE_MS);
        let uri = Ia5String::try_from(identity.uri()).map_err(CertificateError::Authority)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial.clone());
        let certificate = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(|source| CertificateError::Issue(identity.common_name(), source))?;
        Ok(DeviceCertificate {
            chain_pem: self.chain(&certificate.pem()),
            serial: encode_hex(&serial.to_bytes()).trim_start_matches('0').to_owned(),
            expires_at: now.plus(DEVICE_LIFE_MS),
        })
    }

    /// Issues a certificate for the server itself, with a new key: valid for `hosts`, and as a client of an external broker.
    pub(crate) fn issue_server(
        &self,
        hosts: &[String],
        now: UnixMillis,
    ) -> Result<ServerCertificate, CertificateError> {
        let mut params = params(SERVER_NAME, now, SERVER_LIFE_MS);
        params.subject_alt_names =
            hosts.iter().map(|host| host_name(host)).collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(random_serial()?);
        let refused = |source| CertificateError::Issue(SERVER_NAME.to_owned(), source);
        let key = p256_key().map_err(refused)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(refused)?;
        let chain_pem = self.chain(&certificate.pem());
        Ok(ServerCertificate { chain_pem, key_pem: key.serialize_pem() })
    }

    fn chain(&self, certificate_pem: &str) -> String {
        format!("{}\n{}\n", certificate_pem.trim_end(), self.certificate_pem.trim_end())
    }
}

/// Whether a server's certificate should be replaced at `now`: unreadable, for other hosts, or less than a third of its life left.
pub(crate) fn is_server_certificate_stale(
    certificate_pem: &str,
    hosts: &[String],
    now: UnixMillis,
) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(certificate_pem.as_bytes()) else { return true };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return true };
    let expires_at = UnixMillis(certificate.validity().not_after.timestamp().saturating_mul(1_000));
    let named = certificate.subject_alternative_name().ok().flatten();
    let named = named.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let is_named = |host: &String| named.iter().any(|name| names_host(name, host));
    expires_at.since(now) < SERVER_LIFE_MS / 3
        || named.len() != hosts.len()
        || !hosts.iter().all(is_named)
}

fn names_host(name: &GeneralName<'_>, host: &str) -> bool {
    match (name, host.parse::<IpAddr>()) {
        (GeneralName::DNSName(name), Err(_)) => *name == host,
        (GeneralName::IPAddress(bytes), Ok(IpAddr::V4(address))) => *bytes == address.octets(),
        (GeneralName::IPAddress(bytes), Ok(IpAddr::V6(address))) => *bytes == address.octets(),
        _ => false, // other kinds of names are no hosts
    }
}

/// Which device a certificate names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    /// Whose device.
    pub(crate) tenant: TenantId,
    /// The device.
    pub(crate) device: DeviceId,
}

/// A device's certificate as it was presented; the handshake has checked its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Presented {
    /// Which device it names.
    pub(crate) identity: Identity,
    /// Its serial number, lower-case hex without leading zeros.
    pub(crate) serial: String,
}

impl Identity {
    /// `<tenant>:<device>`: the common name, the MQTT client id and the MQTT user name.
    pub(crate) fn common_name(&self) -> String {
        format!("{}:{}", self.tenant, self.device)
    }

    /// Parses `<tenant>:<device>`.
    pub(crate) fn parse(common_name: &str) -> Option<Self> {
        let (tenant, device) = common_name.split_once(':')?;
        Some(Self { tenant: TenantId::parse(tenant).ok()?, device: DeviceId::parse(device).ok()? })
    }

    fn uri(&self) -> String {
        format!("urn:sealift:{}:{}", self.tenant, self.device)
    }
}

impl Presented {
    /// Reads the identity from a certificate; none if its name and its URI are not those of one device.
    pub(crate) fn read(certificate_der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate_der).ok()?;
        let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
        let identity = Identity::parse(name)?;
        let names = certificate.subject_alternative_name().ok()??;
        let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else { return None };
        let serial = certificate.tbs_certificate.serial.to_str_radix(16);
        (*uri == identity.uri()).then_some(Self { identity, serial })
    }
}

fn read_request(pem: &str) -> Result<CertificateSigningRequestParams, CertificateError> {
    if pem.len() > REQUEST_BYTES_MAX {
        return Err(CertificateError::RequestSize(pem.len()));
    }
    let request =
        CertificateSigningRequestParams::from_pem(pem).map_err(CertificateError::Request)?;
    // The library names the algorithm by the signature alone, so the point's length is looked at as well.
    let key = &request.public_key;
    let is_p256 = *key.algorithm() == rcgen::PKCS_ECDSA_P256_SHA256
        && key.der_bytes().len() == P256_POINT_BYTES;
    if is_p256 { Ok(request) } else { Err(CertificateError::RequestKey) }
}

fn params(common_name: &str, now: UnixMillis, life_ms: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.use_authority_key_identifier_extension = true;
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now.plus(-BACKDATED_MS));
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(now.plus(life_ms));
    params
}

fn since_1970(at: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
}

fn p256_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
}

/// 126 random bits: positive, and without a leading zero byte (RFC 5280, section 4.1.2.2).
fn random_serial() -> Result<SerialNumber, CertificateError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(CertificateError::Random)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn host_name(host: &str) -> Result<SanType, CertificateError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let is_name = rustls_pki_types::DnsName::try_from(host).is_ok();
    let name = Ia5String::try_from(host).ok().filter(|_| is_name);
    name.map(SanType::DnsName).ok_or_else(|| CertificateError::Host(host.to_owned()))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn authority() -> Authority {
        Authority::generate(&TenantId::parse("main").unwrap(), NOW).unwrap().0
    }

    fn identity() -> Identity {
        Identity::parse("main:cam-1").unwrap()
    }

    fn request(edit: impl Fn(&mut CertificateParams), key: &KeyPair) -> String {
        let mut params = CertificateParams::default();
        edit(&mut params);
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    fn issue(request: &str) -> Result<DeviceCertificate, CertificateError> {
        authority().issue_device(&identity(), request, NOW)
    }

    fn read(issued: &DeviceCertificate) -> (CertificateDer<'static>, Presented) {
        let der = CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap();
        let presented = Presented::read(&der).unwrap();
        (der, presented)
    }

    #[test]
    fn a_certificate_names_the_device_and_nothing_of_the_request() {
        let key = p256_key().unwrap();
        let greedy = request(
            |params| {
                params.distinguished_name.push(DnType::CommonName, "main:cam-2");
                params.subject_alt_names =
                    vec![SanType::URI("urn:sealift:main:cam-2".try_into().unwrap())];
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            },
            &key,
        );

        let issued = issue(&greedy).unwrap();

        let (der, presented) = read(&issued);
        assert_eq!(presented, Presented { identity: identity(), serial: issued.serial.clone() });
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert!(!certificate.is_ca());
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let (own, foreign) = (p256_key().unwrap(), p256_key().unwrap());
        let pem = request(|_| (), &own);
        let der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes());
        let mut der = der.unwrap().to_vec();
        let point = own.public_key_raw().to_vec();
        let at = der.windows(point.len()).position(|window| window == point).unwrap();
        der[at..at + point.len()].copy_from_slice(foreign.public_key_raw());
        let body = base64::engine::general_purpose::STANDARD.encode(&der);
        let forged = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"
        );

        assert!(matches!(issue(&forged), Err(CertificateError::Request(_))));
    }

    #[test]
    fn keys_on_other_curves_and_large_requests_are_refused() {
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(matches!(issue(&request(|_| (), &p384)), Err(CertificateError::RequestKey)));
        let large = "x".repeat(REQUEST_BYTES_MAX + 1);
        assert!(matches!(issue(&large), Err(CertificateError::RequestSize(_))));
    }

    #[test]
    fn a_server_certificate_is_stale_in_its_last_third_and_for_other_hosts() {
        let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let issued = authority().issue_server(&hosts, NOW).unwrap().chain_pem;
        assert!(!is_server_certificate_stale(&issued, &hosts, NOW));
        let late = NOW.plus(SERVER_LIFE_MS * 2 / 3 + 2 * DAY_MS);
        assert!(is_server_certificate_stale(&issued, &hosts, late));
        assert!(is_server_certificate_stale(&issued, &hosts[..2], NOW));
        let others = ["localhost", "127.0.0.1", "fleet.local"].map(str::to_owned);
        assert!(is_server_certificate_stale(&issued, &others, NOW));
        assert!(authority().issue_server(&["not a host".to_owned()], NOW).is_err());
    }
}

//! The device certification authority. Every field of a certificate is the server's own; a request gives only its public key.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevocationReason, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sealift_protocol::digest::{Digest, decode_hex, encode_hex};
use sealift_protocol::id::{TenantId, UnixMillis};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::store::certificates::Ended;

mod presented;
mod request;

pub(crate) use presented::{Claim, Identity, Presented, Timeliness, Whose, validity};
pub(crate) use request::{Request, RequestError};

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// The authority is replaced together with the trust bundle, by people; ten years leave time for that.
const AUTHORITY_LIFE_MS: i64 = 10 * 365 * DAY_MS;

/// Days that a device's certificate may live: long enough to be offline for a month and still renew, short enough that a stolen one
/// that nobody missed ends.
pub(crate) const DEVICE_LIFE_DAYS: RangeInclusive<u16> = 30..=90;

/// The server issues its own certificate anew when it starts with less than a third of this left.
const SERVER_LIFE_MS: i64 = 397 * DAY_MS;

/// The common name of the server's certificate. It has no colon, so it is no device.
pub(crate) const SERVER_NAME: &str = "fleet-server";

/// Devices' clocks may be behind the server's by an hour.
const BACKDATED_MS: i64 = 3_600 * 1_000;

/// A revocation list is good for this long; brokers read a new one whenever devices are revoked.
const REVOCATION_LIST_LIFE_MS: i64 = 7 * DAY_MS;

/// Why a certificate was not made or not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The request.
    #[error("certificate request is refused")]
    Request(#[from] RequestError),
    /// The clock shows a time outside the authority's own life: nothing that is signed now would be good.
    #[error("the device CA is not valid at {0}, which is what this server's clock shows")]
    Clock(UnixMillis),
    /// The authority's own certificate or key.
    #[error("the device CA cannot be used")]
    Authority(#[source] rcgen::Error),
    /// The authority's certificate is not PEM.
    #[error("the device CA is not a PEM certificate")]
    AuthorityForm(#[source] rustls_pki_types::pem::Error),
    /// The authority's certificate is not X.509.
    #[error("the device CA is not an X.509 certificate")]
    NotOne,
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
    device_life_ms: i64,
    valid: RangeInclusive<UnixMillis>,
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
        let valid = presented::validity(&certificate_der).ok_or(CertificateError::NotOne)?;
        let issuer =
            Issuer::from_ca_cert_der(&certificate_der, key).map_err(CertificateError::Authority)?;
        let certificate_pem = certificate_pem.to_owned();
        let device_life_ms = i64::from(*DEVICE_LIFE_DAYS.end()) * DAY_MS;
        Ok(Self { issuer, certificate_pem, certificate_der, device_life_ms, valid })
    }

    /// The same, for devices' certificates of another life.
    pub(crate) fn for_days(self, days: u16) -> Self {
        Self { device_life_ms: i64::from(days) * DAY_MS, ..self }
    }

    /// Its certificate, PEM.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 of its certificate's DER: what an enrolment token pins.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.certificate_der)
    }

    /// Issues a certificate for `identity` and the public key of a request, whose signature proved possession of the private one.
    ///
    /// RFC 5280, section 4.2, and RFC 2986, section 3: an authority may change or refuse what a request asks for. Rule: name,
    /// alternative name, usages, serial number and validity are the server's own; the request gives the public key and nothing else.
    pub(crate) fn issue_device(
        &self,
        identity: &Identity,
        request: &Request,
        now: UnixMillis,
    ) -> Result<DeviceCertificate, CertificateError> {
        let expires_at = now.plus(self.device_life_ms);
        let names = (identity.common_name(), identity.uri());
        self.issue_client(names, request, now, expires_at)
    }

    /// Issues the certificate of a claim, with which devices may ask to be enrolled and nothing else.
    pub(crate) fn issue_claim(
        &self,
        claim: &Claim,
        request: &Request,
        now: UnixMillis,
        expires_at: UnixMillis,
    ) -> Result<DeviceCertificate, CertificateError> {
        self.issue_client((claim.common_name(), claim.uri()), request, now, expires_at)
    }

    fn issue_client(
        &self,
        (name, uri): (String, String),
        request: &Request,
        now: UnixMillis,
        expires_at: UnixMillis,
    ) -> Result<DeviceCertificate, CertificateError> {
        self.check_clock(now)?;
        let serial = random_serial()?;
        let mut params = params(&name, now, expires_at.since(now));
        let uri = Ia5String::try_from(uri).map_err(CertificateError::Authority)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial.clone());
        let certificate = params
            .signed_by(request.public_key(), &self.issuer)
            .map_err(|source| CertificateError::Issue(name, source))?;
        Ok(DeviceCertificate {
            chain_pem: self.chain(&certificate.pem()),
            serial: encode_hex(&serial.to_bytes()).trim_start_matches('0').to_owned(),
            expires_at,
        })
    }

    /// RFC 5280, section 6.1.3 (a)(2): a certificate counts only while its issuer's is valid. Rule: a clock of 1970 or 2099 signs nothing.
    fn check_clock(&self, now: UnixMillis) -> Result<(), CertificateError> {
        if self.valid.contains(&now) { Ok(()) } else { Err(CertificateError::Clock(now)) }
    }

    /// Signs a list of certificates that are not good any more (RFC 5280, section 5), PEM: for brokers that ask nobody.
    pub(crate) fn revocation_list(
        &self,
        ended: &[Ended],
        now: UnixMillis,
    ) -> Result<String, CertificateError> {
        let revoked = ended.iter().filter_map(|Ended { serial, at }| {
            // Serial numbers have 16 bytes, and the first of them is not 0.
            let serial = decode_hex(serial)?;
            Some(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial),
                revocation_time: date_time_ymd(1970, 1, 1) + since_1970(*at),
                reason_code: Some(RevocationReason::Unspecified),
                invalidity_date: None,
            })
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(1970, 1, 1) + since_1970(now.plus(-BACKDATED_MS)),
            next_update: date_time_ymd(1970, 1, 1) + since_1970(now.plus(REVOCATION_LIST_LIFE_MS)),
            crl_number: SerialNumber::from(u64::try_from(now.0).unwrap_or(0)),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).map_err(CertificateError::Authority)?;
        signed.pem().map_err(CertificateError::Authority)
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
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn authority() -> Authority {
        Authority::generate(&TenantId::parse("main").unwrap(), NOW).unwrap().0
    }

    fn identity() -> Identity {
        Identity::parse("main:cam-1").unwrap()
    }

    fn issue(now: UnixMillis) -> Result<DeviceCertificate, CertificateError> {
        let key = p256_key().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let request = Request::read(&pem, &[]).unwrap();
        authority().for_days(30).issue_device(&identity(), &request, now)
    }

    fn read(issued: &DeviceCertificate) -> (CertificateDer<'static>, Presented) {
        let der = CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap();
        let presented = Presented::read(&der).unwrap();
        (der, presented)
    }

    #[test]
    fn every_field_of_a_devices_certificate_is_the_servers() {
        let issued = issue(NOW).unwrap();

        let (der, presented) = read(&issued);
        assert_eq!(presented.whose, Whose::Device(identity()));
        assert_eq!(presented.serial, issued.serial);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert!(!certificate.is_ca());
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert_eq!(issued.expires_at, NOW.plus(30 * DAY_MS));
    }

    #[test]
    fn time_makes_a_certificate_early_timely_expired_and_lapsed() {
        let (_, presented) = read(&issue(NOW).unwrap());
        let (day, end) = (DAY_MS, NOW.plus(30 * DAY_MS));
        for (at, timeliness) in [
            (UnixMillis(0), Timeliness::Early),
            (NOW.plus(-BACKDATED_MS - 1_000), Timeliness::Early),
            (NOW.plus(-BACKDATED_MS), Timeliness::Timely),
            (end, Timeliness::Timely),
            (end.plus(1_000), Timeliness::Expired),
            (end.plus(30 * day), Timeliness::Expired),
            (end.plus(30 * day + 1_000), Timeliness::Lapsed),
            (UnixMillis(4_070_908_800_000), Timeliness::Lapsed),
        ] {
            assert_eq!(presented.timeliness(at), timeliness, "{at}");
        }
    }

    #[test]
    fn a_clock_of_1970_or_2099_signs_nothing() {
        for wrong in [UnixMillis(0), NOW.plus(-2 * DAY_MS), UnixMillis(4_070_908_800_000)] {
            assert!(matches!(issue(wrong), Err(CertificateError::Clock(_))), "{wrong}");
        }
    }

    #[test]
    fn a_claim_is_no_device() {
        let key = p256_key().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let request = Request::read(&pem, &[]).unwrap();
        let claim = Claim { tenant: identity().tenant, id: "c-1".to_owned() };

        let issued = authority().issue_claim(&claim, &request, NOW, NOW.plus(DAY_MS)).unwrap();

        let (der, presented) = read(&issued);
        assert_eq!(presented.whose, Whose::Claim(claim));
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let name = certificate.subject().iter_common_name().next().unwrap().as_str().unwrap();
        assert_eq!(Identity::parse(name), None);
    }

    #[test]
    fn a_revocation_list_names_what_ended() {
        use x509_parser::revocation_list::CertificateRevocationList;
        let issued = issue(NOW).unwrap();
        let ended = [Ended { serial: issued.serial.clone(), at: NOW }];

        let pem = authority().revocation_list(&ended, NOW).unwrap();

        let der = rustls_pki_types::CertificateRevocationListDer::from_pem_slice(pem.as_bytes());
        let der = der.unwrap();
        let (_, list) = CertificateRevocationList::from_der(&der).unwrap();
        let serials: Vec<_> =
            list.iter_revoked_certificates().map(|it| it.serial().to_str_radix(16)).collect();
        assert_eq!(serials, [issued.serial]);
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

//! Certificate requests: what one may hold, and what makes it be refused.

use rcgen::{CertificateSigningRequestParams, PublicKey, PublicKeyData as _};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use sealift_protocol::digest::Digest;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256,
};
use x509_parser::prelude::FromDer as _;

/// A PKCS #10 request with a P-256 key is 500 bytes; with names and extensions a few thousand.
const BYTES_MAX: usize = 16 << 10;

/// An uncompressed point on P-256 (SEC 1, section 2.3.3).
const P256_POINT_BYTES: usize = 65;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// Larger than any request of ours.
    #[error("request has {0} bytes, at most {BYTES_MAX} are allowed")]
    Size(usize),
    /// Not PKCS #10 in PEM.
    #[error("it is not a PKCS #10 request in PEM")]
    Form,
    /// RSA, another curve, another signature algorithm.
    #[error("it is not for a P-256 key signed with ECDSA and SHA-256")]
    Key,
    /// Signed by another key than the one in it.
    #[error("its signature does not prove that the asker has the key")]
    Signature,
    /// It names somebody else.
    #[error("it asks for the name `{0}`, and only the server gives names")]
    Name(String),
    /// It asks for extensions: another name, to be an authority, other usages.
    #[error("it asks for extensions or attributes, and only the server decides on those")]
    Extensions,
}

/// A request that asks for nothing but a certificate for its key, and proves that the asker has that key.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    public_key: PublicKey,
}

impl RequestError {
    /// The stable code of the refusal.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Size(_) => "csr.size",
            Self::Form => "csr.form",
            Self::Key => "csr.key",
            Self::Signature => "csr.signature",
            Self::Name(_) => "csr.name",
            Self::Extensions => "csr.extensions",
        }
    }
}

impl Request {
    /// Reads a request by which somebody who may be called `own` asks for a certificate.
    pub(crate) fn read(pem: &str, own: &[&str]) -> Result<Self, RequestError> {
        if pem.len() > BYTES_MAX {
            return Err(RequestError::Size(pem.len()));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| RequestError::Form)?;
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Form)?;
        if !rest.is_empty() {
            return Err(RequestError::Form);
        }
        check_key(&request)?;
        // RFC 2986, section 3: the signature is by the subject's private key, so that nobody gets a certificate for another's key.
        let signed = CertificateSigningRequestParams::from_der(&der);
        let signed = signed.map_err(|error| {
            // Its form and its key were looked at above, so that all other errors are about the signature.
            let is_extension = matches!(error, rcgen::Error::UnsupportedExtension);
            if is_extension { RequestError::Extensions } else { RequestError::Signature }
        })?;
        check_name(&request, own)?;
        // RFC 2986, section 4.1: attributes carry what the asker would like in the certificate. Rule: there are none.
        if request.certification_request_info.iter_attributes().next().is_some() {
            return Err(RequestError::Extensions);
        }
        Ok(Self { public_key: signed.public_key })
    }

    /// The key that it is for.
    pub(super) const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// SHA-256 of the key that it is for.
    pub(crate) fn key(&self) -> Digest {
        Digest::of(self.public_key.der_bytes())
    }
}

/// RFC 5480, section 2.1.1: the curve is named in the key's parameters. Rule: P-256 by that name, one point of its size, and a
/// signature by ECDSA with SHA-256; no RSA of any length, no other curve.
fn check_key(request: &X509CertificationRequest<'_>) -> Result<(), RequestError> {
    let key = &request.certification_request_info.subject_pki;
    let curve = key.algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok());
    let is_p256 = key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve.is_some_and(|curve| curve == OID_EC_P256)
        && key.subject_public_key.data.len() == P256_POINT_BYTES
        && request.signature_algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256;
    if is_p256 { Ok(()) } else { Err(RequestError::Key) }
}

/// Rule: the subject is empty, or one common name that is the asker's own.
fn check_name(request: &X509CertificationRequest<'_>, own: &[&str]) -> Result<(), RequestError> {
    let subject = &request.certification_request_info.subject;
    let mut parts = subject.iter_attributes();
    let Some(first) = parts.next() else { return Ok(()) };
    let is_alone = parts.next().is_none();
    let common_name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
    let text = first.as_str().unwrap_or("?");
    match common_name {
        Some(name) if is_alone && own.contains(&name) => Ok(()),
        Some(_) | None => Err(RequestError::Name(text.chars().take(120).collect())),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
        ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    };

    use super::*;

    fn p256() -> KeyPair {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
    }

    fn plain() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
    }

    fn pem(params: &CertificateParams, key: &KeyPair) -> String {
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    fn read(pem: &str) -> Result<Request, RequestError> {
        Request::read(pem, &["cam-1", "main:cam-1"])
    }

    fn refused(edit: impl Fn(&mut CertificateParams)) -> &'static str {
        let mut params = plain();
        edit(&mut params);
        read(&pem(&params, &p256())).unwrap_err().code()
    }

    #[test]
    fn a_plain_request_is_read_and_its_key_kept() {
        let key = p256();
        let request = read(&pem(&plain(), &key)).unwrap();
        assert_eq!(request.key(), Digest::of(key.public_key_raw()));
    }

    #[test]
    fn the_askers_own_name_is_allowed() {
        let mut params = plain();
        params.distinguished_name.push(DnType::CommonName, "main:cam-1");
        assert!(read(&pem(&params, &p256())).is_ok());
    }

    #[test]
    fn attack_a_foreign_name_in_the_subject() {
        let foreign =
            |name: &str| refused(|params| params.distinguished_name.push(DnType::CommonName, name));
        assert_eq!(foreign("main:cam-2"), "csr.name");
        assert_eq!(foreign("fleet-server"), "csr.name");
        assert_eq!(
            refused(|params| {
                params.distinguished_name.push(DnType::CommonName, "main:cam-1");
                params.distinguished_name.push(DnType::OrganizationName, "fleet-server");
            }),
            "csr.name"
        );
    }

    #[test]
    fn attack_a_foreign_alternative_name() {
        let code = refused(|params| {
            let uri = "urn:sealift:main:cam-2".try_into().unwrap();
            params.subject_alt_names = vec![SanType::URI(uri)];
        });
        assert_eq!(code, "csr.extensions");
    }

    #[test]
    fn attack_to_be_an_authority() {
        let code = refused(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(code, "csr.extensions");
    }

    #[test]
    fn attack_other_usages_and_unknown_extensions() {
        let usages = |params: &mut CertificateParams| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        };
        assert_eq!(refused(usages), "csr.extensions");
        let unknown = |params: &mut CertificateParams| {
            let extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1], vec![5, 0]);
            params.custom_extensions = vec![extension];
        };
        assert_eq!(refused(unknown), "csr.extensions");
    }

    #[test]
    fn attack_a_key_of_another_kind() {
        for algorithm in [
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA256,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ED25519,
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            assert_eq!(read(&pem(&plain(), &key)).unwrap_err(), RequestError::Key);
        }
    }

    #[test]
    fn attack_an_rsa_key_of_1024_bits() {
        // openssl req -new -newkey rsa:1024 -nodes -subj / -keyout /dev/null
        let weak = include_str!("../../tests/edge/rsa-1024.csr.pem");
        assert_eq!(read(weak).unwrap_err(), RequestError::Key);
        let usual = include_str!("../../tests/edge/rsa-2048.csr.pem");
        assert_eq!(read(usual).unwrap_err(), RequestError::Key);
    }

    #[test]
    fn attack_the_key_of_somebody_else() {
        let (own, foreign) = (p256(), p256());
        let der = plain().serialize_request(&own).unwrap().der().to_vec();
        let forged = replaced(der, own.public_key_raw(), foreign.public_key_raw());
        assert_eq!(read(&armoured(&forged)).unwrap_err(), RequestError::Signature);
    }

    #[test]
    fn attack_bytes_behind_large_and_empty_requests() {
        let mut der = plain().serialize_request(&p256()).unwrap().der().to_vec();
        der.push(0);
        assert_eq!(read(&armoured(&der)).unwrap_err(), RequestError::Form);
        assert_eq!(read("").unwrap_err(), RequestError::Form);
        let large = "x".repeat(BYTES_MAX + 1);
        assert_eq!(read(&large).unwrap_err(), RequestError::Size(BYTES_MAX + 1));
    }

    fn replaced(mut der: Vec<u8>, old: &[u8], new: &[u8]) -> Vec<u8> {
        let at = der.windows(old.len()).position(|window| window == old).unwrap();
        der[at..at + old.len()].copy_from_slice(new);
        der
    }

    fn armoured(der: &[u8]) -> String {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
    }
}

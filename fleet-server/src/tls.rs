//! TLS settings: who shows which certificate, and who must.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientCertVerifierBuilder, NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use sealift_protocol::id::UnixMillis;

use crate::certificate;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Read(std::path::PathBuf, #[source] std::io::Error),
    /// A file is not what it should be.
    #[error("{0} is not a {1} in PEM")]
    Pem(std::path::PathBuf, &'static str, #[source] rustls_pki_types::pem::Error),
    /// The CA of the clients cannot be used.
    #[error("{0} cannot be used as a CA")]
    Ca(std::path::PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The key does not fit the certificate.
    #[error("the key in {0} does not fit the certificate")]
    Key(std::path::PathBuf, #[source] rustls::Error),
}

/// The devices' port: a certificate of the device CA is checked if one comes. Its absence, and a time that is not its own, are left to
/// the routes to refuse: those who may renew it have to be told apart, and the others to be told why.
pub(crate) fn devices_config(
    certificate: &Path,
    key: &Path,
    device_ca: &Path,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = verifier(device_ca, ClientCertVerifierBuilder::allow_unauthenticated)?;
    let config = ServerConfig::builder()
        .with_client_cert_verifier(Arc::new(AtItsTime(verifier)))
        .with_single_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|error| TlsError::Key(key.to_owned(), error))?;
    Ok(with_http(config))
}

/// The operators' port.
pub(crate) fn operators_config(
    certificate: &Path,
    key: &Path,
) -> Result<Arc<ServerConfig>, TlsError> {
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|error| TlsError::Key(key.to_owned(), error))?;
    Ok(with_http(config))
}

/// The broker's port: a certificate of the device CA, of its time, is a must. No session of TLS is resumed, since whoever comes back shows
/// its certificate again, and nothing is kept for it.
pub(crate) fn broker_config(
    certificate: &Path,
    key: &Path,
    device_ca: &Path,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = verifier(device_ca, |must| must)?;
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|error| TlsError::Key(key.to_owned(), error))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn verifier(
    device_ca: &Path,
    how: impl FnOnce(ClientCertVerifierBuilder) -> ClientCertVerifierBuilder,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let unusable = |error| TlsError::Ca(device_ca.to_owned(), error);
    let builder = how(WebPkiClientVerifier::builder(Arc::new(roots(device_ca)?)));
    builder.build().map_err(|error: VerifierBuilderError| unusable(error.into()))
}

/// The connection to an external broker.
pub(crate) fn client_config(
    ca: &Path,
    certificate: &Path,
    key: &Path,
) -> Result<ClientConfig, TlsError> {
    ClientConfig::builder()
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|error| TlsError::Key(key.to_owned(), error))
}

/// RFC 5280, section 6.1: the path is checked for one moment in time. Rule: if a certificate is good for everything but the time, it is
/// checked for the nearest moment of its own validity instead. Nobody gets in by that alone: [`crate::renewal`] asks for the time.
#[derive(Debug)]
struct AtItsTime(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AtItsTime {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let refused = match self.0.verify_client_cert(end_entity, intermediates, now) {
            Err(Error::InvalidCertificate(reason)) if is_of_time(&reason) => reason,
            other => return other,
        };
        let moment = nearest_moment(end_entity, now).ok_or(Error::InvalidCertificate(refused))?;
        self.0.verify_client_cert(end_entity, intermediates, moment)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

const fn is_of_time(reason: &CertificateError) -> bool {
    matches!(
        reason,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    )
}

fn nearest_moment(certificate: &[u8], now: UnixTime) -> Option<UnixTime> {
    let valid = certificate::validity(certificate)?;
    let seconds = |at: UnixMillis| u64::try_from(at.0 / 1_000).ok();
    let (first, last) = (seconds(*valid.start())?, seconds(*valid.end())?);
    let nearest = now.as_secs().max(first).min(last);
    Some(UnixTime::since_unix_epoch(Duration::from_secs(nearest)))
}

fn with_http(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn roots(ca: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| TlsError::Ca(ca.to_owned(), Box::new(error)))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = fs::read(path).map_err(|error| TlsError::Read(path.to_owned(), error))?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    certificates.map_err(|error| TlsError::Pem(path.to_owned(), "certificate", error))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = fs::read(path).map_err(|error| TlsError::Read(path.to_owned(), error))?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| TlsError::Pem(path.to_owned(), "private key", error))
}

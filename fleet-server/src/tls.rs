//! TLS settings: who shows which certificate, and who must.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

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

/// The devices' port: a certificate of the device CA is checked if one comes, and its absence is left to the routes to refuse.
pub(crate) fn devices_config(
    certificate: &Path,
    key: &Path,
    device_ca: &Path,
) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |error| TlsError::Ca(device_ca.to_owned(), error);
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots(device_ca)?))
        .allow_unauthenticated()
        .build()
        .map_err(|error| unusable(error.into()))?;
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
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

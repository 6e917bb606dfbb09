//! TLS for applications on other machines: certificates from files, read again when they change, so that renewing them stops nothing.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::ServeTls;

/// Time for a handshake: slow ones hold a place among the connections.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How often it is looked whether the files have changed, at most: with a connection.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// RFC 7301: what may be spoken inside, the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The settings of a port, as its files have them now.
#[derive(Debug)]
pub struct Certificates {
    files: ServeTls,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    looked: Option<Instant>,
    changed: Vec<Option<SystemTime>>,
    config: Option<Arc<ServerConfig>>,
}

/// Why files make no settings.
#[derive(Debug)]
struct Unusable {
    file: std::path::PathBuf,
    reason: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.reason)
    }
}

impl Certificates {
    /// Reads the files. Those that cannot be used are told of, and read again when they change: a model is not held up by them.
    pub fn new(files: ServeTls) -> Self {
        let certificates = Self { files, now: Mutex::default() };
        certificates.config();
        certificates
    }

    /// Does the handshake; none if it fails, or while there is no certificate.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.config()?);
        match timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake with an application failed");
                None
            }
            Err(_late) => None,
        }
    }

    fn config(&self) -> Option<Arc<ServerConfig>> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return now.config.clone();
        }
        now.looked = Some(Instant::now());
        let changed = self.changed();
        if now.changed != changed {
            match load(&self.files) {
                Ok(config) => now.config = Some(config),
                Err(error) => {
                    let is_served = now.config.is_some();
                    tracing::error!(%error, is_served, "files of [serve_tls] cannot be used; mend them, they are read again");
                }
            }
            now.changed = changed;
        }
        now.config.clone()
    }

    fn changed(&self) -> Vec<Option<SystemTime>> {
        let ServeTls { certificate, key, client_ca, .. } = &self.files;
        let files = [Some(certificate), Some(key), client_ca.as_ref()].into_iter().flatten();
        files.map(|file| file.metadata().and_then(|file| file.modified()).ok()).collect()
    }
}

fn load(files: &ServeTls) -> Result<Arc<ServerConfig>, Unusable> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| at(&files.key, &error))?;
    let builder = ServerConfig::builder();
    // RFC 8446, section 4.4.2.4: whoever has to show a certificate and shows none, or another's, is turned away in the handshake.
    let builder = match &files.client_ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(path)? {
                roots.add(root).map_err(|error| at(path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| at(path, &error))?)
        }
        None => builder.with_no_client_auth(),
    };
    let config = builder.with_single_cert(chain, key);
    let mut config = config.map_err(|error| at(&files.key, &error))?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| at(path, &error))?;
    if read.is_empty() {
        return Err(at(path, &"there is no certificate in it"));
    }
    Ok(read)
}

fn at(file: &Path, reason: &dyn fmt::Display) -> Unusable {
    Unusable { file: file.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests;

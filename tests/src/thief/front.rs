//! HTTPS with the server's stolen key: forged files where there are any, otherwise what the stolen server has.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use rcgen::{CertificateParams, KeyPair};
use reqwest::Method;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::fleet::Api;
use crate::https::{acceptor, answer, header, read_head};

pub(super) struct Front {
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    /// What is answered instead of what the stolen server has, by path.
    forged: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Shows a certificate of an authority that the thief has made up.
    is_impostor: AtomicBool,
    own: TlsAcceptor,
    impostor: TlsAcceptor,
    stolen: Api,
}

impl Front {
    /// Listens where devices look for their server.
    pub(super) async fn open(port: u16, keys: &Path, stolen: Api) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_file_iter(keys.join("server.pem"))?;
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(keys.join("server-key.pem"))?;
        let state = Arc::new(State {
            forged: Mutex::default(),
            is_impostor: AtomicBool::new(false),
            own: acceptor(chain, key)?,
            impostor: made_up()?,
            stolen,
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                // A device that hangs up has refused; its own log says why.
                tokio::spawn(async move { drop(state.serve(stream).await) });
            }
        });
        Ok(Self { state, task })
    }

    /// Answers `path` with these bytes.
    pub(super) fn forge(&self, path: impl Into<String>, bytes: Vec<u8>) {
        self.state.forged().insert(path.into(), bytes);
    }

    /// Shows the certificate of a made-up authority.
    pub(super) fn impersonate(&self) {
        self.state.is_impostor.store(true, Ordering::Relaxed);
    }

    /// Ends an attempt. Forged metadata stay: a device that has taken some would only see older ones.
    pub(super) fn relent(&self) {
        self.state.is_impostor.store(false, Ordering::Relaxed);
        self.state.forged().retain(|path, _| path.starts_with("/tuf/"));
    }

    /// A document of the stolen server.
    pub(super) async fn stolen(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let response = self.state.stolen.request(Method::GET, path).send().await?;
        ensure!(response.status().is_success(), "{path}: {}", response.status());
        Ok(response.bytes().await?.to_vec())
    }

    pub(super) async fn stolen_json(&self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.stolen(path).await?)?)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn forged(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.forged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, stream: TcpStream) -> anyhow::Result<()> {
        let is_impostor = self.is_impostor.load(Ordering::Relaxed);
        let acceptor = if is_impostor { &self.impostor } else { &self.own };
        let mut stream = acceptor.accept(stream).await?;
        let head = read_head(&mut stream).await?;
        let path = head.split_whitespace().nth(1).context("a path")?.to_owned();
        let forged = self.forged().get(&path).cloned();
        let (status, body) = match forged {
            Some(bytes) => (200, bytes),
            None if path == "/directive" => (204, Vec::new()),
            None => self.relay(&path, &head).await?,
        };
        answer(&mut stream, status, &body).await
    }

    async fn relay(&self, path: &str, head: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut request = self.stolen.request(Method::GET, path);
        if let Some(range) = header(head, "range") {
            request = request.header("range", range);
        }
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.bytes().await?.to_vec()))
    }
}

/// A certificate for the server's own name, which no authority of the fleet has signed.
fn made_up() -> anyhow::Result<TlsAcceptor> {
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let certificate = params.self_signed(&key)?;
    let der = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    acceptor(vec![certificate.der().clone()], der)
}

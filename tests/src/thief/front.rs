//! HTTPS with the server's stolen key: forged files where there are any, otherwise what the stolen server has.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use rcgen::{CertificateParams, KeyPair};
use reqwest::Method;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::fleet::Api;

/// A request without a body: a line and a few headers.
const HEAD_BYTES_MAX: usize = 16 << 10;

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
        let range = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("range: ").map(str::to_owned));
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.bytes().await?.to_vec()))
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < HEAD_BYTES_MAX, "a head without end");
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head)?)
}

async fn answer(
    stream: &mut (impl AsyncWrite + Unpin),
    status: u16,
    body: &[u8],
) -> anyhow::Result<()> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.shutdown().await?;
    Ok(())
}

fn acceptor(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> anyhow::Result<TlsAcceptor> {
    // A second provider cannot be installed: there is one in the tree.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A certificate for the server's own name, which no authority of the fleet has signed.
fn made_up() -> anyhow::Result<TlsAcceptor> {
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let certificate = params.self_signed(&key)?;
    let der = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    acceptor(vec![certificate.der().clone()], der)
}

//! What answers a device, byte by byte, as the story wants it: honest, slow, endless, short, forged.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use sealift_protocol::digest::Digest;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::Built;
use crate::https::{answer, header, read_head};

/// How a path is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// The right bytes, and then more without end, under a head without a length.
    Endless,
    /// A byte, and the next after this pause, under an honest head.
    Trickle(Duration),
    /// An honest head, so many bytes, and the connection ends.
    Cut(usize),
    /// An honest head, the bytes before this place of the whole, and then nothing more on an open connection.
    Stalled(usize),
    /// So many bytes more than there are, under a head that declares them.
    Longer(usize),
    /// So many bytes fewer than there are, under a head that declares that.
    Shorter(usize),
    /// Another byte at this place of the whole.
    Flipped(usize),
    /// Refused with this status.
    Status(u16),
    /// Taken, and never answered.
    Silent,
    /// The whole, whatever part was asked for.
    Unranged,
    /// The bytes from another place than was asked for, under a head that says so.
    Misplaced,
    /// An honest head, and bytes only as fast as this many in a second.
    Throttled(usize),
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its path.
    pub path: String,
    /// The value of its `Range`.
    pub range: Option<String>,
    /// The value of its `If-Range`.
    pub if_range: Option<String>,
}

/// What is served, and how.
#[derive(Default)]
pub(super) struct Files {
    /// By path; blobs and documents of images by digest.
    pub(super) documents: BTreeMap<String, Arc<Vec<u8>>>,
    conduct: BTreeMap<String, Conduct>,
    asked: Vec<Asked>,
}

/// Answers a request with a body.
type Post = Arc<dyn Fn(&[u8]) -> anyhow::Result<Vec<u8>> + Send + Sync>;

struct Shared {
    files: Mutex<Files>,
    tls: Option<TlsAcceptor>,
    post: Option<Post>,
}

/// A listening server.
pub struct Wire {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    pub(super) async fn listen(
        tls: Option<TlsAcceptor>,
        post: Option<Post>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { files: Mutex::default(), tls, post });
        let served = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&served);
                // A device that hangs up has refused; its own log says why.
                tokio::spawn(async move { drop(shared.connection(stream).await) });
            }
        });
        Ok(Self { shared, address, task })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Has everything of an image.
    pub(super) fn show(&self, built: &Built) {
        let mut files = self.files();
        for bytes in &built.blobs {
            files.documents.insert(Digest::of(bytes).to_string(), Arc::new(bytes.clone()));
        }
    }

    pub(super) fn files(&self) -> MutexGuard<'_, Files> {
        self.shared.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers what has this digest in this way, from now on.
    pub fn behave(&self, digest: Digest, conduct: Conduct) {
        self.behave_at(&digest.to_string(), conduct);
    }

    /// The same for a path.
    pub fn behave_at(&self, path: &str, conduct: Conduct) {
        self.files().conduct.insert(path.to_owned(), conduct);
    }

    /// Is honest again.
    pub fn relent(&self) {
        self.files().conduct.clear();
    }

    /// Everything that was asked for, in order.
    pub fn all_asked(&self) -> Vec<Asked> {
        self.files().asked.clone()
    }

    /// What was asked for what has this digest, in order.
    pub fn asked(&self, digest: Digest) -> Vec<Asked> {
        let name = digest.to_string();
        self.all_asked().into_iter().filter(|asked| key(&asked.path) == name).collect()
    }
}

/// Blobs and documents of an image are the same under whatever name they are asked for.
fn key(path: &str) -> &str {
    if path.starts_with("/v2/") { path.rsplit('/').next().unwrap_or(path) } else { path }
}

impl Shared {
    async fn connection(&self, stream: TcpStream) -> anyhow::Result<()> {
        match &self.tls {
            Some(tls) => self.answer(tls.accept(stream).await?).await,
            None => self.answer(stream).await,
        }
    }

    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> anyhow::Result<()> {
        let head = read_head(&mut stream).await?;
        let mut words = head.split_whitespace();
        let (method, path) = (words.next().context("a method")?, words.next().context("a path")?);
        if method == "POST" {
            return self.answer_post(&mut stream, &head).await;
        }
        let asked = Asked {
            path: path.to_owned(),
            range: header(&head, "range"),
            if_range: header(&head, "if-range"),
        };
        let (bytes, conduct) = self.look_up(asked.clone());
        let missing = if path == "/directive" { 204 } else { 404 };
        let Some(bytes) = bytes else { return answer(&mut stream, missing, b"").await };
        Reply { bytes: &bytes, name: key(path), asked: &asked }.send(&mut stream, conduct).await
    }

    fn look_up(&self, asked: Asked) -> (Option<Arc<Vec<u8>>>, Option<Conduct>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let name = key(&asked.path).to_owned();
        files.asked.push(asked);
        (files.documents.get(&name).cloned(), files.conduct.get(&name).copied())
    }

    async fn answer_post<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        head: &str,
    ) -> anyhow::Result<()> {
        let length: usize = header(head, "content-length").context("a length")?.parse()?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        match &self.post {
            Some(post) => answer(stream, 200, &post(&body)?).await,
            None => answer(stream, 404, b"").await,
        }
    }
}

/// What is answered to one request.
struct Reply<'a> {
    bytes: &'a [u8],
    name: &'a str,
    asked: &'a Asked,
}

impl Reply<'_> {
    async fn send<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        conduct: Option<Conduct>,
    ) -> anyhow::Result<()> {
        let total = self.bytes.len();
        let (mut bytes, mut place) = (self.bytes.to_vec(), self.place());
        match conduct {
            Some(Conduct::Flipped(at)) => bytes[at.min(total - 1)] ^= 1,
            Some(Conduct::Unranged) => place = None,
            Some(Conduct::Misplaced) => place = place.map(|(from, to)| (from - 1, to - 1)),
            _ => {} // the others are about the head, or the pace
        }
        let (from, to) = place.unwrap_or((0, total));
        let mut body = bytes[from..to].to_vec();
        match conduct {
            Some(Conduct::Status(status)) => return answer(stream, status, b"").await,
            Some(Conduct::Silent) => return std::future::pending().await,
            Some(Conduct::Longer(more)) => body.extend(vec![b'x'; more]),
            Some(Conduct::Shorter(fewer)) => body.truncate(body.len().saturating_sub(fewer)),
            _ => {} // the others have an honest length, or none
        }
        let status = if place.is_some() { 206 } else { 200 };
        let place = place.map_or_else(String::new, |(from, to)| {
            format!("content-range: bytes {from}-{}/{total}\r\n", to.saturating_sub(1))
        });
        let length = if conduct == Some(Conduct::Endless) {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let name = self.name;
        let head = format!(
            "HTTP/1.1 {status} x\r\nconnection: close\r\netag: \"{name}\"\r\n{place}{length}"
        );
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        if let Some(Conduct::Stalled(until)) = conduct {
            stream.write_all(&body[..until.saturating_sub(from).min(body.len())]).await?;
            stream.flush().await?;
            return std::future::pending().await;
        }
        send_body(stream, &body, conduct).await
    }

    /// The part that is asked for.
    fn place(&self) -> Option<(usize, usize)> {
        let etag = format!("\"{}\"", self.name);
        if self.asked.if_range.as_ref().is_some_and(|known| *known != etag) {
            return None;
        }
        let (from, to) = self.asked.range.as_ref()?.strip_prefix("bytes=")?.split_once('-')?;
        let total = self.bytes.len();
        let to = to.parse::<usize>().map_or(total, |last| (last + 1).min(total));
        Some((from.parse().ok().filter(|from| *from < to)?, to))
    }
}

async fn send_body<S: AsyncWrite + Unpin>(
    stream: &mut S,
    body: &[u8],
    conduct: Option<Conduct>,
) -> anyhow::Result<()> {
    match conduct {
        Some(Conduct::Trickle(pause)) => {
            for byte in body {
                stream.write_all(&[*byte]).await?;
                stream.flush().await?;
                sleep(pause).await;
            }
        }
        Some(Conduct::Throttled(bytes_in_a_second)) => {
            let step = (bytes_in_a_second / 20).max(1);
            for part in body.chunks(step) {
                stream.write_all(part).await?;
                stream.flush().await?;
                sleep(Duration::from_millis(50)).await;
            }
        }
        Some(Conduct::Cut(bytes)) => stream.write_all(&body[..bytes.min(body.len())]).await?,
        Some(Conduct::Endless) => {
            let more = vec![b'x'; 16 << 10];
            // In one piece: no reader can tell by what comes together where the signed bytes end.
            stream.write_all(&[body, &more].concat()).await?;
            loop {
                stream.write_all(&more).await?;
            }
        }
        _ => stream.write_all(body).await?, // in one go
    }
    stream.shutdown().await?;
    Ok(())
}

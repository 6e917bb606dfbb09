//! Clients that take as little as they can, so that what is measured is the other end: requests made once, sent again and again.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use sealift_protocol::local::{ANSWER_BYTES_MAX, LENGTH_BYTES, body_length};

/// A request that is not answered in this time ends the measurement.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What is asked, and how.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// HTTP/1.1, kept alive; the whole request.
    Http(SocketAddr, Vec<u8>),
    /// gRPC over HTTP/2 without TLS: path and framed message.
    Grpc(SocketAddr, String, Vec<u8>),
    /// The Unix socket; the whole frame.
    Socket(PathBuf, Vec<u8>),
}

/// Answers in a time, and how long each took.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) seconds: f64,
    pub(super) latencies_us: Vec<f64>,
}

/// Asks over `connections` at once for `time`, after some requests that do not count.
pub(super) fn run(target: &Target, connections: usize, time: Duration) -> anyhow::Result<Load> {
    let began = Instant::now();
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let target = target.clone();
            thread::spawn(move || ask_for(&target, time))
        })
        .collect();
    let mut load = Load::default();
    for thread in threads {
        let latencies = thread.join().ok().context("a client has panicked")??;
        load.latencies_us.extend(latencies);
    }
    load.seconds = began.elapsed().as_secs_f64();
    load.latencies_us.sort_by(f64::total_cmp);
    Ok(load)
}

impl Load {
    pub(super) fn per_second(&self) -> f64 {
        self.count() / self.seconds
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(super) fn count(&self) -> f64 {
        self.latencies_us.len() as f64
    }

    /// The latency that this share of the answers did not take longer than.
    pub(super) fn quantile_us(&self, percent: usize) -> f64 {
        let place = self.latencies_us.len().saturating_sub(1) * percent / 100;
        self.latencies_us.get(place).copied().unwrap_or(f64::NAN)
    }
}

fn ask_for(target: &Target, time: Duration) -> anyhow::Result<Vec<f64>> {
    let mut client = Client::connect(target)?;
    let mut latencies = Vec::new();
    let began = Instant::now();
    while began.elapsed() < time {
        let sent = Instant::now();
        client.ask(target)?;
        latencies.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    Ok(latencies)
}

enum Client {
    Http(BufReader<TcpStream>),
    Grpc { stream: BufReader<TcpStream>, next: u32 },
    Socket(BufReader<UnixStream>),
}

impl Client {
    fn connect(target: &Target) -> anyhow::Result<Self> {
        let tcp = |address: &SocketAddr| -> anyhow::Result<_> {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_LIMIT))?;
            Ok(BufReader::new(stream))
        };
        Ok(match target {
            Target::Http(address, _) => Self::Http(tcp(address)?),
            Target::Grpc(address, _, _) => {
                let mut stream = tcp(address)?;
                stream.get_mut().write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
                // RFC 9113, 6.5: settings, all at their defaults; and leave to send for as long as this lasts.
                stream.get_mut().write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])?;
                stream.get_mut().write_all(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0])?;
                Self::Grpc { stream, next: 1 }
            }
            Target::Socket(path, _) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(ANSWER_LIMIT))?;
                Self::Socket(BufReader::new(stream))
            }
        })
    }

    fn ask(&mut self, target: &Target) -> anyhow::Result<()> {
        match (self, target) {
            (Self::Http(stream), Target::Http(_, request)) => {
                stream.get_mut().write_all(request)?;
                read_http(stream)
            }
            (Self::Grpc { stream, next }, Target::Grpc(_, path, message)) => {
                stream.get_mut().write_all(&grpc_request(*next, path, message))?;
                *next += 2;
                read_grpc(stream)
            }
            (Self::Socket(stream), Target::Socket(_, frame)) => {
                stream.get_mut().write_all(frame)?;
                read_frame(stream)
            }
            _ => bail!("a client asks what it was made for"),
        }
    }
}

fn read_http(stream: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
    let (mut line, mut length, mut is_ok) = (String::new(), 0, None);
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line)? > 0, "the connection was closed");
        let line = line.trim_ascii_end();
        if line.is_empty() {
            break;
        }
        is_ok.get_or_insert_with(|| line.starts_with("HTTP/1.1 200"));
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    ensure!(is_ok == Some(true), "{}", String::from_utf8_lossy(&body));
    Ok(())
}

fn read_frame(stream: &mut BufReader<UnixStream>) -> anyhow::Result<()> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; body_length(length, ANSWER_BYTES_MAX)?];
    stream.read_exact(&mut body)?;
    ensure!(body.get(1..3) == Some(&[0, 0]), "the agent refused");
    Ok(())
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// RFC 7541, 6.2.2: fields as they are, none remembered.
fn grpc_request(stream: u32, path: &str, message: &[u8]) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "bench"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for text in fields.into_iter().flat_map(|(name, value)| [name, value]) {
        if text.starts_with(':') || matches!(text, "content-type" | "te") {
            block.push(0);
        }
        // All are shorter than 127 bytes.
        block.push(u8::try_from(text.len()).unwrap_or(0));
        block.extend(text.as_bytes());
    }
    let mut frames = frame(HEADERS, END_HEADERS, stream, &block);
    frames.extend(frame(DATA, END_STREAM, stream, message));
    frames
}

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [head.as_slice(), &stream.to_be_bytes(), body].concat()
}

/// Reads to the end of the stream that was asked on; it is the only one. Its trailers hold the status, which is not looked into: an answer
/// has data, and a refusal none.
fn read_grpc(stream: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
    let mut data_bytes = 0;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, ..] = head;
        let mut body = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c]))?];
        stream.read_exact(&mut body)?;
        match kind {
            DATA => data_bytes += body.len(),
            SETTINGS | PING if flags & 1 == 0 => {
                let body = if kind == PING { body.as_slice() } else { &[] };
                stream.get_mut().write_all(&frame(kind, 1, 0, body))?;
            }
            7 => return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
            _ => {} // headers, windows: nothing to do
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            ensure!(data_bytes > 0, "the agent refused");
            return Ok(());
        }
    }
}

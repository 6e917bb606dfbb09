//! Predictions that devices have brought up, as files here: gone on with after a cut, and of the digest that the device has said.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::header::{IF_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use sealift_protocol::api::{BatchResultState, BatchResultView};
use sealift_protocol::digest::{Digest, Hasher};
use sealift_protocol::id::DeviceId;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::RESULTS_HEAD;
use crate::client::{Client, api_path};
use crate::failure::{Exit, Failure};
use crate::output::{Output, note};

/// A file of 1 GiB at 2.5 Mbit/s; a cut one goes on where it was.
const REQUEST_MAX: Duration = Duration::from_hours(1);

/// A server that sends nothing for this long has gone.
const CHUNK_MAX: Duration = Duration::from_mins(1);

/// Tries in a row that bring nothing.
const TRIES_MAX: u32 = 5;

/// Bytes that are hashed at once.
const HASH_BYTES: usize = 1 << 20;

/// A file that is here now.
#[derive(Serialize)]
struct Fetched {
    device: DeviceId,
    file: PathBuf,
    bytes: u64,
    digest: Digest,
}

/// Fetches what the named devices, or all, have brought up of a batch.
pub(super) async fn fetch(
    client: &Client,
    output: Output,
    (name, devices): (&str, &[DeviceId]),
    into: &Path,
) -> anyhow::Result<()> {
    let found: Vec<BatchResultView> = client.list("batches", &[("name", name)]).await?;
    let is_meant = |view: &BatchResultView| devices.is_empty() || devices.contains(&view.device);
    let found: Vec<_> = found.into_iter().filter(is_meant).collect();
    ensure!(
        !found.is_empty(),
        "no device has brought up, or is to bring up, predictions of batch `{name}`\n\
         help: `fleetctl batch run --upload` has devices do so; `fleetctl batch results` lists what there is"
    );
    fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    let (mut fetched, mut missing) = (Vec::new(), Vec::new());
    for view in found {
        let (BatchResultState::Here, Some(size), Some(digest)) =
            (view.state, view.size_bytes, view.digest)
        else {
            missing.push(view);
            continue;
        };
        let file = into.join(format!("{name}-{}.{}", view.device, view.format.extension()));
        let path = format!("devices/{}/batches/{name}/file", view.device);
        Download { client, path: &path, file: &file, size, digest }.run().await?;
        fetched.push(Fetched { device: view.device, file, bytes: size, digest });
    }
    let rows = fetched
        .iter()
        .map(|it| [it.device.to_string(), it.bytes.to_string(), it.file.display().to_string()]);
    output.rows(&fetched, ["DEVICE", "BYTES", "FILE"], rows)?;
    if missing.is_empty() {
        return Ok(());
    }
    let rows = missing.iter().map(super::result_line);
    note(&crate::output::table(RESULTS_HEAD, rows));
    let what = format!("predictions of {} devices are not here yet", missing.len());
    Err(Failure::new(Exit::Failed, what).help("fetch again later: what is here is kept").into())
}

/// A file on its way here.
struct Download<'a> {
    client: &'a Client,
    path: &'a str,
    file: &'a Path,
    size: u64,
    digest: Digest,
}

impl Download<'_> {
    /// Fetches what is missing. Rule (CWE-354): a file has its name only once all of its bytes are those that were promised, also those that
    /// lay here before.
    async fn run(&self) -> anyhow::Result<()> {
        let Self { file, digest, .. } = self;
        if file.exists() {
            let here = digest_of(file)?;
            ensure!(
                here == *digest,
                "{} is another file: it has digest {here}, the predictions have {digest}\n\
                 help: take another directory, or put it away",
                file.display()
            );
            return Ok(());
        }
        let part = part_of(file);
        // What lay here may be of something else: then all of it is fetched, once.
        for _ in 0..2 {
            self.fill(&part).await?;
            if digest_of(&part)? == *digest {
                fs::rename(&part, file)?;
                return Ok(());
            }
            fs::remove_file(&part)?;
        }
        let what = format!("what came for {} is not what the device has sent", file.display());
        let help = "the server's disk or the way to it changes bytes; its log may say more";
        Err(Failure::new(Exit::Tampered, what).help(help).into())
    }

    /// Goes on until as many bytes are here as there are.
    async fn fill(&self, part: &Path) -> anyhow::Result<()> {
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(part);
        let mut file = open.with_context(|| format!("cannot write {}", part.display()))?;
        let mut tries = 0;
        loop {
            let before = file.seek(SeekFrom::End(0))?;
            if before == self.size {
                return Ok(file.sync_all()?);
            }
            if before > self.size {
                file.set_len(0)?;
                continue;
            }
            let ended = self.go_on(&mut file, before).await;
            let now = file.seek(SeekFrom::End(0))?;
            let Err(error) = ended else { continue };
            tries = if now > before { 1 } else { tries + 1 };
            // Refused is refused; only what was cut is worth another try.
            let is_refused = error.downcast_ref::<Failure>().is_some_and(|it| it.code.is_some());
            if is_refused || tries >= TRIES_MAX {
                return Err(error);
            }
            note(&format!("{error:#}; {now} of {} bytes are here, going on", self.size));
            sleep(Duration::from_secs(1 << tries)).await;
        }
    }

    async fn go_on(&self, file: &mut File, from: u64) -> anyhow::Result<()> {
        let request = self.client.request(Method::GET, &api_path(self.path, &[]))?;
        let request = request
            .timeout(REQUEST_MAX)
            .header(RANGE, format!("bytes={from}-"))
            .header(IF_RANGE, format!("\"{}\"", self.digest));
        let response: Response = self.client.send(request).await?;
        let mut at = from;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            file.set_len(0)?;
            at = 0;
        }
        file.seek(SeekFrom::Start(at))?;
        let mut response = response;
        loop {
            let chunk = timeout(CHUNK_MAX, response.chunk()).await;
            let Some(chunk) = chunk.context("the server sends nothing more")?? else { break };
            at += chunk.len() as u64;
            ensure!(at <= self.size, "the server sends more than {} bytes", self.size);
            file.write_all(&chunk)?;
        }
        ensure!(at == self.size, "the connection was cut");
        Ok(())
    }
}

/// Where a file is until it is whole.
fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let (mut file, mut hasher) = (File::open(path)?, Hasher::default());
    let mut buffer = vec![0; HASH_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}

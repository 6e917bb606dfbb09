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
use sealift_protocol::limits::BATCH_RESULT_BYTES_MAX;
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
        let Some((size, digest)) = promised(&view)? else {
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

/// Bytes and digest of what is to be fetched; none if it is not on the server yet. Rule (CWE-770): what a server promises is no more than it
/// takes itself, or it could fill this disk.
fn promised(view: &BatchResultView) -> anyhow::Result<Option<(u64, Digest)>> {
    let (BatchResultState::Here, Some(size), Some(digest)) =
        (view.state, view.size_bytes, view.digest)
    else {
        return Ok(None);
    };
    ensure!(
        size <= BATCH_RESULT_BYTES_MAX,
        "the server promises {size} bytes of {}, and no batch has more than {BATCH_RESULT_BYTES_MAX}\n\
         help: nothing is fetched; a newer fleetctl may know of larger ones",
        view.device
    );
    Ok(Some((size, digest)))
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
        let mut file =
            open_part(part).with_context(|| format!("cannot write {}", part.display()))?;
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

/// Opens what is here of a file, or begins it. Rule (CWE-59): in a directory that others write to, a link of this name leads to a file that
/// somebody else has chosen.
fn open_part(part: &Path) -> io::Result<File> {
    match fs::symlink_metadata(part) {
        Ok(here) if here.is_file() => OpenOptions::new().write(true).open(part),
        Ok(_) => Err(io::Error::other("a link, or no file, has its name: put that away")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            OpenOptions::new().write(true).create_new(true).open(part)
        }
        Err(error) => Err(error),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: &str, size: u64) -> BatchResultView {
        let view = serde_json::json!({"device": "cam-1", "name": "night", "model": "vision/digits", "format": "jsonl",
            "state": state, "bytes": size, "size_bytes": size, "digest": Digest::of(b"all"), "asked_by": "ann",
            "asked_at": 0, "done_at": 0, "delete_at": 0});
        serde_json::from_value(view).unwrap()
    }

    #[test]
    fn attack_a_server_that_promises_more_than_any_batch_has_is_refused() {
        let all = Some((BATCH_RESULT_BYTES_MAX, Digest::of(b"all")));
        assert_eq!(promised(&view("here", BATCH_RESULT_BYTES_MAX)).unwrap(), all);
        assert_eq!(promised(&view("coming", u64::MAX)).unwrap(), None);
        let refused = promised(&view("here", BATCH_RESULT_BYTES_MAX + 1)).unwrap_err();
        assert!(refused.to_string().contains("no batch has more"), "{refused}");
    }

    #[test]
    fn attack_a_link_where_a_part_would_be_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (part, victim) = (folder.path().join("a.part"), folder.path().join("victim"));
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, &part).unwrap();
        assert!(open_part(&part).is_err());
        fs::remove_file(&victim).unwrap();
        assert!(open_part(&part).is_err() && !victim.exists(), "nor one that leads nowhere");

        fs::remove_file(&part).unwrap();
        open_part(&part).unwrap().write_all(b"half").unwrap();
        assert_eq!(open_part(&part).unwrap().seek(SeekFrom::End(0)).unwrap(), 4);
    }
}

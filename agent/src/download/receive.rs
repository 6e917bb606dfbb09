//! One answer of one source, from its head to its end: bytes go to a thread that writes and hashes, as fast as that can and as the
//! owner allows.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::pace::{CRAWL_MS, Crawl};
use super::staged::{Put, Sender, Staged};
use super::{Downloads, News, Told};
use crate::device::Fault;
use crate::origin::{Blob, OriginError, Part};
use crate::slots::SlotError;
use crate::verify;

/// Pieces between the network and the disk; each is at most a few hundred kilobytes.
const PIECES_AHEAD: usize = 4;

/// How an answer ended.
#[derive(Debug)]
pub(super) enum End {
    /// All that was asked for came.
    Whole,
    /// It did not come to its end.
    Broken(String),
    /// It does not have the blob.
    Missing,
    /// It was not what was signed.
    Lied { code: &'static str, reason: String },
    /// The device itself ended it.
    Closed(Fault),
}

impl From<OriginError> for End {
    fn from(error: OriginError) -> Self {
        let reason = error.to_string();
        match error {
            OriginError::TooLarge { .. } => Self::Lied { code: "image.size", reason },
            OriginError::Status { status: 404, .. } => Self::Missing,
            OriginError::Setup(_)
            | OriginError::Unreachable(_)
            | OriginError::Crowded
            | OriginError::Late { .. }
            | OriginError::OtherPart { .. }
            | OriginError::Status { .. } => Self::Broken(reason),
        }
    }
}

/// The fetching of one blob.
pub(super) struct Fetching<'a> {
    downloads: &'a Downloads,
    path: String,
    size: u64,
    /// Sources that do not have it.
    pub(super) without: BTreeSet<usize>,
    /// What each source called the content.
    etags: BTreeMap<usize, String>,
}

impl<'a> Fetching<'a> {
    pub(super) const fn new(downloads: &'a Downloads, path: String, size: u64) -> Self {
        Self { downloads, path, size, without: BTreeSet::new(), etags: BTreeMap::new() }
    }

    /// Asks a source for a gap and takes what comes; fails only by the disk.
    pub(super) async fn receive<T: Fn(News)>(
        &mut self,
        source: usize,
        (staged, gap): (Staged, Range<u64>),
        told: &mut Told<T>,
        window: impl Fn() -> Result<(), Fault>,
    ) -> Result<(Staged, End), Fault> {
        let sources = &self.downloads.sources;
        let etag = self.etags.get(&source).map(String::as_str);
        let part = Part { path: &self.path, range: gap.clone(), size: self.size, etag };
        let blob = match sources.way(source).blob(&part).await {
            Ok(blob) => blob,
            Err(error) => return Ok((staged, error.into())),
        };
        self.etags.extend(blob.etag.clone().map(|etag| (source, etag)));
        let path = staged.path.clone();
        let done_bytes = staged.done_bytes();
        let (pieces, queue) = mpsc::channel(PIECES_AHEAD);
        let by = (sources.sender(source), sources.is_server(source));
        let writer = tokio::task::spawn_blocking(move || write_all(staged, queue, by));
        let mut stream = Stream { fetching: self, blob, gap, crawl: Crawl::default() };
        let end = stream.forward(pieces, (done_bytes, told), window).await;
        let written = writer.await.unwrap_or_else(|_| Err(io::Error::other("the thread ended")));
        let (staged, put) =
            written.map_err(|source| verify::on_disk(&SlotError::Disk { path, source }))?;
        let reason = || "a chunk has another digest than was signed".to_owned();
        Ok(match put {
            Put::Taken => (staged, end),
            Put::Wrong => (staged, End::Lied { code: "image.digest", reason: reason() }),
        })
    }
}

/// An answer on its way.
struct Stream<'a> {
    fetching: &'a Fetching<'a>,
    blob: Blob,
    gap: Range<u64>,
    crawl: Crawl,
}

impl Stream<'_> {
    /// Hands on what belongs into the gap, until that is full.
    async fn forward<T: Fn(News)>(
        &mut self,
        pieces: mpsc::Sender<Bytes>,
        (mut done_bytes, told): (u64, &mut Told<T>),
        window: impl Fn() -> Result<(), Fault>,
    ) -> End {
        let clock = &self.fetching.downloads.clock;
        let (mut skip, mut left) =
            (self.gap.start.saturating_sub(self.blob.range.start), self.gap.end - self.gap.start);
        // What comes after a gap in the middle is there already.
        let may_go_on = self.blob.range.end > self.gap.end;
        while left > 0 || !(may_go_on || self.blob.is_declared) {
            let mut piece = match self.next().await {
                Ok(Some(piece)) => piece,
                // It is known to be all by then, however it ends.
                Ok(None) | Err(_) if left == 0 => break,
                Ok(None) => return End::Broken(format!("it ended {left} bytes too early")),
                Err(end) => return end,
            };
            if let Err(closed) = window() {
                return End::Closed(closed);
            }
            self.fetching.downloads.sources.pay(piece.len() as u64, clock).await;
            let skipped = skip.min(piece.len() as u64);
            drop(piece.split_to(usize::try_from(skipped).unwrap_or(0)));
            skip -= skipped;
            let length = piece.len() as u64;
            let too_long = length > left && !may_go_on;
            // What was signed counts, though more came in the same piece.
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left = left.saturating_sub(length);
            done_bytes = done_bytes.saturating_add(piece.len() as u64);
            told.so_far(done_bytes, clock.steady());
            // The writer has ended: by an error, or by a chunk that is wrong. It says which.
            if pieces.send(piece).await.is_err() {
                break;
            }
            if too_long {
                let reason = format!("more than the {} bytes that were signed", self.fetching.size);
                return End::Lied { code: "image.size", reason };
            }
        }
        End::Whole
    }

    /// The next piece, unless the source is as good as silent.
    async fn next(&mut self) -> Result<Option<Bytes>, End> {
        let clock = &self.fetching.downloads.clock;
        let before = clock.steady();
        let came = self.blob.chunk().await;
        let waited_ms = clock.steady().since(before);
        let bytes = came.as_ref().ok().and_then(Option::as_ref).map_or(0, Bytes::len) as u64;
        if self.crawl.note(waited_ms, bytes) {
            return Err(End::Broken(format!("next to nothing came for {} s", CRAWL_MS / 1_000)));
        }
        came.map_err(End::from)
    }
}

fn write_all(
    mut staged: Staged,
    mut queue: mpsc::Receiver<Bytes>,
    by: (Sender, bool),
) -> io::Result<(Staged, Put)> {
    while let Some(piece) = queue.blocking_recv() {
        if staged.put(&piece, by)? == Put::Wrong {
            return Ok((staged, Put::Wrong));
        }
    }
    Ok((staged, Put::Taken))
}

//! Layers into the staging directory: from the owner's sources in their order and from the fleet server, resumed where they stopped,
//! bounded by the sizes that were signed, and believed by nothing but the digests that were signed.
//!
//! ```text
//!  order (pure): whom to ask now ──> origin ──> chunks ──> staged: written, hashed, listed
//!      ^  put aside: failed, lied                            │ chunk or whole is not as signed
//!      └────────────────────────────────────────────────────-┘
//! ```

mod order;
mod pace;
mod receive;
mod sources;
mod staged;

use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{MaintenanceWindow, Opening};
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::image::Layer;
use sealift_protocol::report::Progress;

use crate::clock::Clock;
use crate::config::Config;
use crate::device::{Fault, FaultKind};
use crate::limits::RETRY_MAX_MS;
use crate::origin::Origin;
use crate::slots::{self, SlotError, Slots};
use crate::verify;
use receive::{End, Fetching};
use sources::Sources;
use staged::{Signed, Staged};

const MINUTE_MS: i64 = 60_000;

/// Downloads of one agent. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Downloads {
    slots: Slots,
    clock: Clock,
    sources: Arc<Sources>,
    windows: Arc<[MaintenanceWindow]>,
    zone: TimeZone,
}

/// What to fetch.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) model: ModelName,
    pub(crate) index: Digest,
    /// Whether it is fetched outside of the windows, too.
    pub(crate) is_urgent: bool,
}

/// What is said about a download while it runs.
#[derive(Debug)]
pub(crate) enum News {
    Progress(Progress),
    /// A source sent other bytes than were signed; they come from another one now.
    Lie(Fault),
}

impl Downloads {
    /// Downloads from the configured sources, and at last from the fleet server.
    pub(crate) fn new(config: &Config, server: &Origin, slots: Slots, clock: Clock) -> Self {
        let zone = config.download.zone().unwrap_or_else(|| config.zone());
        let config = &config.download;
        let rate = config.rate_bytes_s.map(std::num::NonZeroU64::get);
        let sources = Arc::new(Sources::new(&config.sources, server, rate));
        let windows = config.windows.iter().map(|window| window.0).collect();
        Self { slots, clock, sources, windows, zone }
    }

    /// Fetches every layer that is not there yet, for as long as it takes. Ends by itself only where waiting does not help: the disk,
    /// bytes of the fleet server that were not signed, a window that closes.
    pub(crate) async fn run(self, wanted: Wanted, tell: impl Fn(News) + Send) -> Result<(), Fault> {
        if self.slots.has(wanted.index) {
            return Ok(());
        }
        let dir = self.slots.partial(wanted.index);
        let manifest = slots::read_manifest(&dir).map_err(|error| verify::on_disk(&error))?;
        let total_bytes = manifest.size_bytes();
        let done_bytes = manifest.config().size;
        let now = self.clock.steady();
        let mut told = Told { tell, total_bytes, done_bytes, step: 0, at: now };
        for layer in manifest.layers() {
            self.layer((&dir, &wanted), layer, &mut told).await?;
            told.done_bytes += layer.blob.size;
        }
        Ok(())
    }

    async fn layer<T: Fn(News)>(
        &self,
        (dir, wanted): (&Path, &Wanted),
        layer: &Layer,
        told: &mut Told<T>,
    ) -> Result<(), Fault> {
        let path = dir.join(&layer.name);
        let signed = Signed::of(layer);
        let opening = (path.clone(), signed.clone());
        let mut staged =
            on_own_thread(path.clone(), move || Staged::open(opening.0, opening.1)).await?;
        let blob = format!("/v2/{}/blobs/{}", wanted.model, layer.blob.digest);
        let mut fetching = Fetching::new(self, blob, signed.size);
        loop {
            while let Some(gap) = staged.gap() {
                self.check_window(wanted)?;
                let source = self.sources.next(&fetching.without, &self.clock).await;
                told.so_far(staged.done_bytes(), self.clock.steady());
                let window = || self.check_window(wanted);
                let end;
                (staged, end) = fetching.receive(source, (staged, gap), told, window).await?;
                // The fleet server is asked for ever: it is about to have it.
                if matches!(end, End::Missing) && !self.sources.is_server(source) {
                    fetching.without.insert(source);
                    continue;
                }
                self.settle(source, &layer.name, end, told)?;
            }
            match self.judge(staged, told).await? {
                None => return Ok(()),
                Some(back) => staged = back,
            }
        }
    }

    /// Remembers how a source did; ends the download where the fleet server itself sent what was not signed.
    fn settle<T: Fn(News)>(
        &self,
        source: usize,
        name: &str,
        end: End,
        told: &Told<T>,
    ) -> Result<(), Fault> {
        let now = self.clock.steady();
        match end {
            End::Whole => self.sources.did_well(source),
            End::Missing => self.put_aside(source, name, "it does not have the blob"),
            End::Broken(reason) => self.put_aside(source, name, &reason),
            End::Closed(fault) => return Err(fault),
            End::Lied { code, reason } => {
                let reason = format!("{name} from {}: {reason}", self.sources.address(source));
                let fault = Fault::new(FaultKind::Corrupt, code, &reason);
                if self.sources.is_server(source) {
                    return Err(fault);
                }
                self.sources.lied(source, now);
                (told.tell)(News::Lie(fault));
            }
        }
        Ok(())
    }

    fn put_aside(&self, source: usize, name: &str, reason: &str) {
        let source_url = self.sources.address(source);
        tracing::info!(name, source_url, reason, "source is put aside, the download goes on");
        self.sources.failed(source, verify::spread_permille(), self.clock.steady());
    }

    /// Looks at a blob of which everything is there. Where the whole is not what was signed and sources beside the fleet server have
    /// sent some of it, those chunks are fetched from others; without such, all of it is removed.
    async fn judge<T: Fn(News)>(
        &self,
        mut staged: Staged,
        told: &Told<T>,
    ) -> Result<Option<Staged>, Fault> {
        let path = staged.path.clone();
        let server = self.sources.server();
        let judged = on_own_thread(path.clone(), move || {
            if staged.is_as_signed()? {
                return Ok(None);
            }
            let mut suspects = staged.senders();
            suspects.remove(&server);
            if suspects.is_empty() {
                staged.remove()?;
                return Ok(Some((None, suspects)));
            }
            staged.drop_those_of(&suspects)?;
            Ok(Some((Some(staged), suspects)))
        });
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let lie = |by: &str| {
            let reason = format!("{name} from {by} has another digest than was signed");
            Fault::new(FaultKind::Corrupt, "image.digest", &reason)
        };
        let Some((back, suspects)) = judged.await? else { return Ok(None) };
        for suspect in suspects.iter().filter_map(|sender| self.sources.with(*sender)) {
            self.sources.lied(suspect, self.clock.steady());
            (told.tell)(News::Lie(lie(self.sources.address(suspect))));
        }
        back.map(Some).ok_or_else(|| lie("the fleet server"))
    }

    /// Whether a download may run now; if not, when to look again. A clock that cannot be right closes no window.
    fn check_window(&self, wanted: &Wanted) -> Result<(), Fault> {
        let clock = self.clock.read();
        if wanted.is_urgent || self.windows.is_empty() || !clock.is_trusted {
            return Ok(());
        }
        let opens = |window: &MaintenanceWindow| match window.at(clock.now, &self.zone) {
            Opening::Open { .. } => clock.now,
            Opening::Shut { opens_at } => opens_at,
        };
        let opens_at = self.windows.iter().map(opens).min().unwrap_or(clock.now);
        if opens_at <= clock.now {
            return Ok(());
        }
        let pause_ms = opens_at.since(clock.now).min(RETRY_MAX_MS);
        let reason = "the download waits for its window";
        Err(Fault::new(FaultKind::Later { pause_ms }, "download.window", reason))
    }
}

/// How much is done, and who hears of it.
struct Told<T> {
    tell: T,
    total_bytes: u64,
    /// Of layers that are complete.
    done_bytes: u64,
    step: u64,
    at: UnixMillis,
}

/// Steps of progress that are told: more would fill the spool.
const STEPS: u64 = 10;

/// A slow download says at least this often that it is alive, well before anybody calls it stalled.
const TOLD_AT_LEAST_MS: i64 = 10 * MINUTE_MS;

impl<T: Fn(News)> Told<T> {
    /// Tells of each tenth, and of some bytes after a while.
    fn so_far(&mut self, of_layer: u64, now: UnixMillis) {
        let done_bytes = self.done_bytes.saturating_add(of_layer);
        let step = done_bytes.saturating_mul(STEPS) / self.total_bytes.max(1);
        if step > self.step || now.since(self.at) >= TOLD_AT_LEAST_MS {
            (self.step, self.at) = (step, now);
            let total_bytes = self.total_bytes;
            (self.tell)(News::Progress(Progress { done_bytes, total_bytes }));
        }
    }
}

async fn on_own_thread<T: Send + 'static>(
    path: std::path::PathBuf,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|_| Err(std::io::Error::other("the thread ended")));
    done.map_err(|source| verify::on_disk(&SlotError::Disk { path, source }))
}

//! Brings samples to the server, oldest first, in parts: after a cut it goes on from where the server has it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sealift_protocol::capture::SampleId;
use sealift_protocol::limits::UPLOAD_PART_BYTES_MAX;
use tokio::sync::Notify;

use super::spool::{Samples, Waiting};
use crate::device::pause_ms;
use crate::origin::Origin;
use crate::upload::{Destination, NotUp};
use crate::verify::spread_permille;

/// Without news, samples are looked for this often: one may have been left by an agent of before.
const LOOK_EVERY: Duration = Duration::from_mins(5);

/// How long the first try waits: an application that asks in a burst is not disturbed, and samples are in no hurry.
const SETTLE: Duration = Duration::from_millis(200);

/// What brings samples up.
pub(super) struct Uploads {
    pub(super) samples: Weak<Samples>,
    pub(super) origin: Origin,
    pub(super) news: Arc<Notify>,
}

/// What the server will never take, whoever asks how often.
const FINAL: [&str; 4] = ["capture.off", "sample.invalid", "sample.too-large", "sample.deleted"];

impl Uploads {
    /// Goes on until the samples are gone, with the agent.
    pub(super) async fn run(self) {
        let mut tries = 0;
        loop {
            let Some(samples) = self.samples.upgrade() else { return };
            let done = self.turn(&samples).await;
            drop(samples);
            match done {
                Ok(true) => tries = 0,
                Ok(false) => {
                    tries = 0;
                    // Late news are found by the look after.
                    drop(tokio::time::timeout(LOOK_EVERY, self.news.notified()).await);
                    tokio::time::sleep(SETTLE).await;
                }
                Err(error) => {
                    tracing::info!(%error, "samples wait for the server");
                    tries += 1;
                    let pause_ms = pause_ms(tries, spread_permille());
                    let pause = Duration::from_millis(u64::try_from(pause_ms).unwrap_or(0));
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Brings up the oldest; false where there is none.
    async fn turn(&self, samples: &Arc<Samples>) -> Result<bool, NotUp> {
        let of = Arc::clone(samples);
        let oldest = tokio::task::spawn_blocking(move || of.oldest()).await;
        let oldest = oldest.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let oldest = oldest.unwrap_or_else(|error| {
            tracing::error!(%error, "samples on the disk cannot be read");
            None
        });
        let Some((number, Waiting { id, sealed })) = oldest else { return Ok(false) };
        match self.bring_up(id, &sealed).await {
            Ok(()) => tracing::debug!(%id, bytes = sealed.len(), "sample is up"),
            Err(error) if error.is_one_of(&FINAL) => {
                tracing::warn!(%id, %error, "the server takes a sample never, it is given up");
            }
            Err(error) => return Err(error),
        }
        if let Err(error) = samples.remove(number) {
            // It goes up again after the next start, and the server has it already.
            tracing::error!(%error, "a sample that is up is not deleted");
            return Ok(false);
        }
        Ok(true)
    }

    /// Sends part after part, from where the server has it.
    async fn bring_up(&self, id: SampleId, sealed: &[u8]) -> Result<(), NotUp> {
        let path = format!("/samples/{id}");
        let (origin, size) = (&self.origin, sealed.len() as u64);
        let to = Destination { origin, path: &path, whole: "", size };
        let read = |from: u64| {
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            let rest = sealed.get(from..).unwrap_or_default();
            let part = rest.get(..UPLOAD_PART_BYTES_MAX).unwrap_or(rest).to_vec();
            async { Ok(part) }
        };
        to.bring_up(read, |_| ()).await
    }
}

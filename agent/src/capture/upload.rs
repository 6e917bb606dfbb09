//! Brings samples to the server, oldest first, in parts: after a cut it goes on from where the server has it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sealift_protocol::capture::{SampleId, Upload};
use sealift_protocol::limits::SAMPLE_PART_BYTES_MAX;
use tokio::sync::Notify;

use super::spool::{Samples, Waiting};
use crate::device::pause_ms;
use crate::origin::{Origin, OriginError};
use crate::verify::spread_permille;

/// The server's word on how far it has a sample.
const UPLOAD_BYTES_MAX: usize = 1 << 10;

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

/// Why a sample is not up.
#[derive(Debug, thiserror::Error)]
enum NotUp {
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error("the server's answer is none")]
    Answer,
    #[error("the server does not go on at byte {0}")]
    Stuck(u64),
}

impl NotUp {
    /// Whether the server will never take it, whoever asks how often.
    fn is_final(&self) -> bool {
        const FINAL: [&str; 4] =
            ["capture.off", "sample.invalid", "sample.too-large", "sample.deleted"];
        match self {
            Self::Origin(error) => error.code().is_some_and(|code| FINAL.contains(&code)),
            Self::Answer | Self::Stuck(_) => false,
        }
    }
}

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
            Err(error) if error.is_final() => {
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
        let mut upload = Upload { offset: 0, is_complete: false };
        if sealed.len() > SAMPLE_PART_BYTES_MAX {
            let known = self.origin.get(&format!("/samples/{id}"), UPLOAD_BYTES_MAX).await?;
            upload = known.map_or(Ok(upload), |body| parse(&body))?;
        }
        while !upload.is_complete {
            let from = usize::try_from(upload.offset).unwrap_or(usize::MAX);
            let rest = sealed.get(from..).filter(|rest| !rest.is_empty());
            let rest = rest.ok_or(NotUp::Stuck(upload.offset))?;
            let part = rest.get(..SAMPLE_PART_BYTES_MAX).unwrap_or(rest);
            let path = format!("/samples/{id}?offset={from}&size={}", sealed.len());
            let body = self.origin.put_and_read(&path, part.to_vec(), UPLOAD_BYTES_MAX).await?;
            let now = parse(&body)?;
            if now.offset == upload.offset && !now.is_complete {
                return Err(NotUp::Stuck(now.offset));
            }
            upload = now;
        }
        Ok(())
    }
}

fn parse(body: &[u8]) -> Result<Upload, NotUp> {
    serde_json::from_slice(body).map_err(|_| NotUp::Answer)
}

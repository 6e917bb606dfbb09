//! Keeps some predictions for people to look at: chosen while an application waits, encrypted and written by a task, uploaded by another.
//!
//! ```text
//!  answer ──look──▶ rules, dice, budget ──▶ queue of 16 ──▶ encrypt to the server ──▶ 32 MiB on disk ──▶ HTTPS, in parts
//!           1 ns while off                  (full: lost, counted)
//! ```
//!
//! Without a signed list, and for models that it does not name, nothing is kept.

mod choose;
mod seal;
mod spool;
mod upload;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use sealift_protocol::capture::{CaptureList, InferenceId, Sample, judge};
use sealift_protocol::id::{DeviceId, TenantId};
use sealift_protocol::tensor::Tensor;
use tokio::sync::{Notify, mpsc};

use crate::clock::Clock;
use crate::limits::CAPTURE_QUEUE_MAX;
use crate::origin::Origin;
use crate::serve::Live;
use choose::{Answered, Chooser};
use seal::Sealer;
use spool::Samples;

/// What it keeps, and where it goes; cheap to clone, all clones are one. One that was not opened keeps nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captor(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_on: AtomicBool,
    /// Samples that were chosen and lost since the one before.
    lost: AtomicU32,
    /// Inferences that were named.
    named: AtomicU64,
    /// What tells this run's names from those of others.
    prefix: OnceLock<u64>,
    chooser: Mutex<Chooser>,
    opened: OnceLock<Opened>,
}

#[derive(Debug)]
struct Opened {
    clock: Clock,
    chosen: mpsc::Sender<Sample>,
    samples: Arc<Samples>,
    sealer: Arc<Sealer>,
}

impl Captor {
    /// Opens the place on the disk, and starts the tasks, which end when the last clone is gone.
    pub(crate) fn open(
        &self,
        store: &Path,
        whose: (TenantId, DeviceId),
        (origin, clock): (Origin, Clock),
    ) -> io::Result<()> {
        let samples = Arc::new(Samples::open(&store.join("captures"))?);
        self.chooser().resume(samples.spent());
        let (chosen, queue) = mpsc::channel(CAPTURE_QUEUE_MAX);
        let news = Arc::new(Notify::new());
        let sealer = Arc::new(Sealer::new(whose));
        let keeping = Keeping {
            captor: Arc::downgrade(&self.0),
            samples: Arc::clone(&samples),
            sealer: Arc::clone(&sealer),
            news: Arc::clone(&news),
        };
        tokio::spawn(keeping.run(queue));
        let uploads = upload::Uploads { samples: Arc::downgrade(&samples), origin, news };
        tokio::spawn(uploads.run());
        // Opened twice, the first place counts.
        drop(self.0.opened.set(Opened { clock, chosen, samples, sealer }));
        Ok(())
    }

    /// Goes by this list from now on, or keeps nothing. What was kept of models that it does not name any more is deleted.
    pub(crate) fn follow(&self, list: Option<Arc<CaptureList>>) {
        let Some(opened) = self.0.opened.get() else { return };
        let is_on = list.as_ref().is_some_and(|list| !list.models.is_empty());
        let kept: Vec<_> =
            list.iter().flat_map(|list| list.models.keys()).map(ToString::to_string).collect();
        opened.sealer.change_key(list.as_ref().map(|list| list.key.clone()));
        self.chooser().follow(list);
        self.0.is_on.store(is_on, Ordering::Release);
        if let Err(error) = opened.samples.keep_only(&kept) {
            tracing::error!(%error, "samples of models that are not captured any more are not deleted");
        }
    }

    /// A name for an inference that has none.
    pub(crate) fn name(&self) -> InferenceId {
        let fresh = || getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        let prefix = self.0.prefix.get_or_init(fresh);
        InferenceId::numbered(*prefix, self.0.named.fetch_add(1, Ordering::Relaxed))
    }

    /// Looks whether an answer is to be kept, and queues what is. `differs` says for which rows a shadow predicts another class, if one was
    /// asked: whether one is does not depend on what it says, so that the chances stay what they are.
    pub(crate) fn look(
        &self,
        live: &Live,
        inference: &InferenceId,
        (inputs, outputs): (&[Tensor], &[Tensor]),
        differs: Option<&[bool]>,
    ) {
        if !self.0.is_on.load(Ordering::Acquire) {
            return;
        }
        let Some(opened) = self.0.opened.get() else { return };
        let now = opened.clock.now();
        if !self.chooser().wants(live.model(), now) {
            return;
        }
        let mut rows = judge(live.contract(), outputs);
        for (row, differs) in rows.iter_mut().zip(differs.into_iter().flatten()) {
            row.seen.disagrees = Some(*differs);
        }
        let answered = Answered {
            model: live.model(),
            image: live.image(),
            inference,
            inputs,
            outputs,
            rows: &rows,
            now,
        };
        let chosen = self.chooser().choose(&answered);
        self.lose(chosen.lost);
        for mut sample in chosen.samples {
            sample.lost = self.0.lost.swap(0, Ordering::Relaxed);
            if let Err(error) = opened.chosen.try_send(sample) {
                let (mpsc::error::TrySendError::Full(sample)
                | mpsc::error::TrySendError::Closed(sample)) = error;
                self.lose(sample.lost.saturating_add(1));
            }
        }
    }

    fn lose(&self, samples: u32) {
        if samples > 0 {
            self.0.lost.fetch_add(samples, Ordering::Relaxed);
        }
    }

    fn chooser(&self) -> MutexGuard<'_, Chooser> {
        self.0.chooser.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Encrypts and writes what was chosen.
struct Keeping {
    captor: std::sync::Weak<Inner>,
    samples: Arc<Samples>,
    sealer: Arc<Sealer>,
    news: Arc<Notify>,
}

impl Keeping {
    async fn run(self, mut queue: mpsc::Receiver<Sample>) {
        while let Some(sample) = queue.recv().await {
            let Some(inner) = self.captor.upgrade() else { return };
            let captor = Captor(inner);
            let lost = sample.lost.saturating_add(1);
            let spent = captor.chooser().spent();
            let (samples, sealer) = (Arc::clone(&self.samples), Arc::clone(&self.sealer));
            let kept = tokio::task::spawn_blocking(move || {
                let bytes = sealer.seal(&sample).map_err(io::Error::other)?;
                samples.add(&sample, bytes, &spent)
            });
            match kept.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(()) => self.news.notify_one(),
                Err(error) => {
                    tracing::warn!(%error, "a sample is lost");
                    captor.lose(lost);
                }
            }
        }
    }
}

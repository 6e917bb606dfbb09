//! A new image beside the live one: it is asked what applications have asked, after they were answered, and both answers are compared.
//! Where the directive says so, it answers a share of the requests itself.
//!
//! ```text
//!  request ─▶ live ─▶ answer                         request of its share ─▶ challenger ─▶ answer
//!               └ copy, if there is room ─▶ queue ─▶ challenger ─▶ counts          └ fails ─▶ live ─▶ answer
//! ```
//! Architecture Invariant: an application waits for the challenger only where the challenger answers it; and what that fails, the live
//! image answers.

mod agreement;
mod allowance;
mod split;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use sealift_protocol::capture::InferenceId;
use sealift_protocol::directive::Shadow;
use sealift_protocol::report::ShadowCounts;
use sealift_protocol::tensor::Tensor;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::live::Live;
use crate::capture::Captor;
use crate::worker::Inferred;
use agreement::Agreement;
use allowance::Allowance;
pub(super) use split::Split;

/// Requests that wait to be compared: enough that the challenger never waits for the next, and no more.
const SAMPLES_MAX: usize = 4;

/// Inputs and outputs of a request that is compared; a copy of so much takes a millisecond.
const SAMPLE_BYTES_MAX: usize = 4 << 20;

/// An application waits this long for a challenger, and then for the live image.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A new image beside the live one. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Challenger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    live: Live,
    rules: RwLock<Shadow>,
    samples: mpsc::Sender<Sample>,
    begin: Instant,
    /// Milliseconds from `begin` until it may compute again.
    rests_until_ms: AtomicU64,
    /// It has failed an application: it answers none any more.
    is_out: AtomicBool,
    /// Requests that came without a key.
    turn: AtomicU64,
    counts: Mutex<ShadowCounts>,
}

/// A request that the live image has answered.
#[derive(Debug)]
pub(crate) struct Sample {
    by: Live,
    inference: InferenceId,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    engine: Duration,
}

/// The end of the queue that [`Challenger::compare`] reads.
#[derive(Debug)]
pub(crate) struct Samples(mpsc::Receiver<Sample>);

impl Challenger {
    /// An image that is loaded and answers nobody yet.
    pub(crate) fn new(live: Live, rules: Shadow) -> (Self, Samples) {
        let (samples, queue) = mpsc::channel(SAMPLES_MAX);
        let inner = Inner {
            live,
            rules: RwLock::new(rules),
            samples,
            begin: Instant::now(),
            rests_until_ms: AtomicU64::new(0),
            is_out: AtomicBool::new(false),
            turn: AtomicU64::new(0),
            counts: Mutex::default(),
        };
        (Self(Arc::new(inner)), Samples(queue))
    }

    /// The image.
    pub(crate) fn live(&self) -> &Live {
        &self.0.live
    }

    /// Goes on by other rules.
    pub(crate) fn set_rules(&self, rules: Shadow) {
        *self.0.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    fn rules(&self) -> Shadow {
        *self.0.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted so far.
    pub(crate) fn counts(&self) -> ShadowCounts {
        *self.count()
    }

    fn count(&self) -> MutexGuard<'_, ShadowCounts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it answers this request instead of `live`. An image that takes or gives something else than the live one answers nobody.
    pub(super) fn is_asked(&self, live: &Live, split: &Split<'_>) -> bool {
        let permille = self.rules().split_permille;
        if permille == 0 || self.0.is_out.load(Ordering::Relaxed) {
            return false;
        }
        let seed = self.0.live.image().index;
        split.falls_to_challenger(permille, seed, &self.0.turn)
            && agreement::is_same_form(live.contract(), self.0.live.contract())
    }

    /// Answers an application; nothing if it fails, and then it answers none any more.
    pub(super) async fn answer(&self, inputs: &[Tensor]) -> Option<Vec<Tensor>> {
        let answered = timeout(ANSWER_MAX, self.0.live.infer(inputs)).await;
        let answered = answered.ok().and_then(Result::ok);
        let mut counts = self.count();
        if answered.is_some() {
            counts.answered += 1;
        } else {
            counts.returned += 1;
            self.0.is_out.store(true, Ordering::Relaxed);
        }
        answered
    }

    /// Takes a copy of what `by` has answered, if it may compute and there is room. Returns whether it has: then the captor is shown the
    /// answer with what the challenger says to it.
    pub(super) fn offer(
        &self,
        by: &Live,
        (inference, inputs): (&InferenceId, &[Tensor]),
        answer: &Inferred,
    ) -> bool {
        let tensors = inputs.iter().chain(&answer.outputs);
        let bytes: usize = tensors.map(|tensor| tensor.bytes.len()).sum();
        let is_rested = self.now_ms() >= self.0.rests_until_ms.load(Ordering::Relaxed);
        let room = self.0.samples.try_reserve();
        match room {
            Ok(room) if is_rested && bytes <= SAMPLE_BYTES_MAX => {
                room.send(Sample {
                    by: by.clone(),
                    inference: inference.clone(),
                    inputs: inputs.to_vec(),
                    outputs: answer.outputs.clone(),
                    engine: answer.engine,
                });
                true
            }
            Ok(_) | Err(_) => {
                self.count().skipped += 1;
                false
            }
        }
    }

    /// Compares what is offered, for as long as it is not given up.
    pub(crate) async fn compare(self, mut samples: Samples, captor: Captor) {
        let mut allowance = Allowance::begin(self.0.live.worker().processor_time());
        while let Some(sample) = samples.0.recv().await {
            let took = self.compare_one(&sample, &captor).await;
            let used = self.0.live.worker().processor_time();
            let cpu_permille = self.rules().cpu_permille;
            let rest = allowance.used(self.0.begin.elapsed(), (used, took), cpu_permille);
            let until_ms = self.now_ms().saturating_add(millis(rest));
            self.0.rests_until_ms.store(until_ms, Ordering::Relaxed);
        }
    }

    /// Asks what the live image was asked. Returns how long the engine took.
    async fn compare_one(&self, sample: &Sample, captor: &Captor) -> Duration {
        let Sample { by, inference, inputs, outputs, engine } = sample;
        let live = &self.0.live;
        let fits = live.contract().check_inputs(inputs).is_ok();
        let answered = if fits { live.timed_unseen(inputs).await.ok() } else { None };
        let tolerance_permille = self.rules().tolerance_permille;
        let of_live = (by.contract(), outputs.as_slice());
        let differs = answered.as_ref().and_then(|answer| {
            agreement::disagreeing(of_live, (live.contract(), answer.outputs.as_slice()))
        });
        captor.look(by, inference, (inputs, outputs), differs.as_deref());
        let Agreement { rows, agreed } = match &answered {
            Some(answer) => {
                let of_new = (live.contract(), answer.outputs.as_slice());
                agreement::between(of_live, of_new, tolerance_permille)
            }
            None => Agreement { agreed: 0, ..agreement::between(of_live, of_live, 0) },
        };
        let mut counts = self.count();
        counts.rows = counts.rows.saturating_add(rows);
        counts.agreed = counts.agreed.saturating_add(agreed);
        let Some(Inferred { engine: took, .. }) = answered else {
            counts.failed += 1;
            return Duration::ZERO;
        };
        counts.requests += 1;
        counts.live_us = counts.live_us.saturating_add(micros(*engine));
        counts.shadow_us = counts.shadow_us.saturating_add(micros(took));
        took
    }

    fn now_ms(&self) -> u64 {
        millis(self.0.begin.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

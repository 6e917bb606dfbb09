//! An image that answers requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::image::IoContract;
use sealift_protocol::profile::Baseline;
use sealift_protocol::report::ImageRef;
use sealift_protocol::tensor::Tensor;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::observe::{Counters, Looks, Observer, Seen, Taken};
use crate::worker::{InferError, Inferred, Worker};

/// How long a retired image may go on answering what it had begun; a little more than one answer may take.
const RETIRE_MAX: Duration = Duration::from_secs(35);

/// What an image is, apart from the worker that runs it.
#[derive(Debug)]
pub struct LiveImage {
    /// The model.
    pub model: ModelName,
    /// Version and digest of the OCI index.
    pub image: ImageRef,
    /// What goes in and out.
    pub contract: Arc<IoContract>,
    /// What to observe by; none for no profiles.
    pub baseline: Option<Arc<Baseline>>,
    /// Execution providers that really run the graph, with their count of nodes.
    pub providers: Vec<(String, u32)>,
    /// When its first window begins.
    pub since: UnixMillis,
}

/// An image and its worker. Cheap to clone; the worker ends when the last clone and the last request are gone.
#[derive(Debug, Clone)]
pub struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    model: ModelName,
    image: ImageRef,
    contract: Arc<IoContract>,
    providers: Vec<(String, u32)>,
    worker: Worker,
    observer: Arc<Observer>,
    in_flight: AtomicUsize,
    left: Notify,
}

struct InFlight<'a>(&'a Inner);

impl Live {
    /// Joins an image and the worker that runs it.
    pub fn new(live: LiveImage, worker: Worker) -> Self {
        let LiveImage { model, image, contract, baseline, providers, since } = live;
        let observer = Observer::new(model.clone(), image.clone(), &contract, baseline, since);
        Self(Arc::new(Inner {
            model,
            image,
            contract,
            providers,
            worker,
            observer: Arc::new(observer),
            in_flight: AtomicUsize::new(0),
            left: Notify::new(),
        }))
    }

    /// The model.
    pub fn model(&self) -> &ModelName {
        &self.0.model
    }

    /// Version and digest.
    pub fn image(&self) -> &ImageRef {
        &self.0.image
    }

    /// What goes in and out.
    pub fn contract(&self) -> &IoContract {
        &self.0.contract
    }

    /// Execution providers that really run the graph, with their count of nodes.
    pub fn providers(&self) -> &[(String, u32)] {
        &self.0.providers
    }

    /// The worker.
    pub fn worker(&self) -> &Worker {
        &self.0.worker
    }

    /// Counts since it went live.
    pub fn counters(&self) -> Counters {
        self.0.observer.counters()
    }

    /// Pictures that were looked at, and those that were not; none where none are.
    pub(super) fn looks(&self) -> Option<Looks> {
        self.0.observer.looks()
    }

    /// Requests that are being answered, or wait for it.
    pub(super) fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Acquire)
    }

    /// Asks the model and observes the answer. `inputs` keep the contract.
    pub async fn infer(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, InferError> {
        self.timed(inputs).await.map(|inferred| inferred.outputs)
    }

    /// The same, with how long the engine itself took.
    pub(super) async fn timed(&self, inputs: &[Tensor]) -> Result<Inferred, InferError> {
        let _in_flight = InFlight::begin(&self.0);
        let begin = Instant::now();
        let places = self.0.observer.choose(inputs, begin);
        let answer = self.0.worker.looked_at(inputs, &places).await;
        match &answer {
            Ok(Inferred { outputs, engine, figures }) => {
                let taken = Taken { whole: begin.elapsed(), engine: *engine };
                let seen = Seen { places: &places, figures };
                self.0.observer.answered((inputs, outputs), seen, taken);
            }
            Err(InferError::Input(_)) => (), // the sender's fault
            Err(_) => self.0.observer.failed(),
        }
        answer
    }

    /// Asks the model, and nobody counts it: neither its profile nor its errors are those of applications.
    pub(super) async fn infer_unseen(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, InferError> {
        self.timed_unseen(inputs).await.map(|inferred| inferred.outputs)
    }

    /// The same, with how long the engine itself took.
    pub(super) async fn timed_unseen(&self, inputs: &[Tensor]) -> Result<Inferred, InferError> {
        let _in_flight = InFlight::begin(&self.0);
        self.0.worker.looked_at(inputs, &[]).await
    }

    /// Lets requests in flight finish, up to a deadline, and stops the worker. For an image that was swapped out.
    pub async fn retire(self) {
        let drained = async {
            loop {
                let left = self.0.left.notified();
                if self.0.in_flight.load(Ordering::Acquire) == 0 {
                    return;
                }
                left.await;
            }
        };
        if timeout(RETIRE_MAX, drained).await.is_err() {
            tracing::warn!(model = %self.0.model, "requests to a retired image were given up");
        }
        self.0.worker.clone().stop().await;
    }

    pub(crate) fn observer(&self) -> Arc<Observer> {
        Arc::clone(&self.0.observer)
    }

    /// Whether both are the same image in the same worker.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<'a> InFlight<'a> {
    fn begin(inner: &'a Inner) -> Self {
        inner.in_flight.fetch_add(1, Ordering::AcqRel);
        Self(inner)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.0.left.notify_one();
    }
}

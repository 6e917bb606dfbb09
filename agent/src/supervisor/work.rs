//! Tasks that take time: downloading, verifying, starting workers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::image::IoContract;
use sealift_protocol::limits::{BASELINE_BYTES_MAX, CONTRACT_BYTES_MAX};
use sealift_protocol::profile::Baseline;
use sealift_protocol::report::ImageRef;
use tokio::sync::mpsc;

use super::keeper::Question;
use super::{Input, Purpose, Ready, Supervisor};
use crate::crowd::{Crowd, Known};
use crate::device::{Answer, Event, Fault, FaultKind, Task, Ticket};
use crate::disk;
use crate::download::{News, Wanted};
use crate::serve::{Live, LiveImage};
use crate::slots::{SlotError, Slots};
use crate::verify;
use crate::worker::{Budget, EngineChoice, SlotFiles, Warmed, Worker, WorkerSpec};

/// What it takes to start a worker.
pub(super) struct Start {
    pub(super) slots: Slots,
    pub(super) model: ModelName,
    pub(super) image: ImageRef,
    pub(super) engine: EngineChoice,
    pub(super) scratch: PathBuf,
    pub(super) since: UnixMillis,
    pub(super) budget: Option<Budget>,
    pub(super) crowd: Option<Crowd>,
}

impl Supervisor {
    /// Starts a task of the device. Swaps that take no time answer at once.
    pub(super) fn start(&mut self, model: ModelName, ticket: Ticket, task: Task) -> Option<Event> {
        match task {
            Task::Check { desired, floor } => {
                // Room first: what earlier attempts have left behind.
                self.prune();
                self.reserve.restore();
                let question = Question::Image { desired, floor, ticket };
                return self.ask(model, ticket, question);
            }
            Task::Download { image, is_urgent } => {
                self.download(model, ticket, image, is_urgent);
            }
            Task::Verify { image } => self.verify(model, ticket, image.index),
            Task::Warm { image } => self.start_worker(&model, image, Purpose::Warm(ticket), 0),
            Task::Shadow { image, rules } => {
                let answer = self.begin_shadow(&model, ticket, (&image, rules)).err()?;
                return Some(Event::Answer { model, ticket, answer: Answer::Failed(answer) });
            }
            Task::Activate { image, previous } => {
                let answer = self.activate(&model, image, previous);
                return Some(Event::Answer { model, ticket, answer });
            }
            Task::Revert { to: Some(image) } => return self.revert(model, ticket, image),
            Task::Revert { to: None } => {
                let answer = self.clear(&model, Answer::Reverted { providers: Vec::new() });
                return Some(Event::Answer { model, ticket, answer });
            }
            Task::Retire => {
                let answer = self.clear(&model, Answer::Retired);
                return Some(Event::Answer { model, ticket, answer });
            }
        }
        None
    }

    fn ask(&mut self, model: ModelName, ticket: Ticket, question: Question) -> Option<Event> {
        if self.keeper.try_send(question).is_ok() {
            return None;
        }
        let kind = FaultKind::Unreachable { spread_permille: verify::spread_permille() };
        let fault = Fault::new(kind, "check.busy", "too many checks are waiting");
        Some(Event::Answer { model, ticket, answer: Answer::Failed(fault) })
    }

    fn download(&mut self, model: ModelName, ticket: Ticket, image: ImageRef, is_urgent: bool) {
        let downloads = self.downloads.clone();
        let wanted = Wanted { model: model.clone(), index: image.index, is_urgent };
        let (inputs, owner) = (self.inputs.clone(), model.clone());
        let job = tokio::spawn(async move {
            let tell = |news| {
                let model = model.clone();
                // News are worth no wait: the log has them, and the next ones say more.
                drop(inputs.try_send(match news {
                    News::Progress(progress) => {
                        Input::Answer { model, ticket, answer: Answer::Progress(progress) }
                    }
                    News::Lie(fault) => Input::Lie { model, image: image.clone(), fault },
                }));
            };
            let done = downloads.run(wanted, tell).await;
            let answer = done.map_or_else(Answer::Failed, |()| Answer::Downloaded);
            answer_with(&inputs, model, ticket, answer).await;
        });
        self.workers.jobs.insert(owner, job.abort_handle());
    }

    fn verify(&mut self, model: ModelName, ticket: Ticket, index: Digest) {
        let (slots, inputs, owner) = (self.slots.clone(), self.inputs.clone(), model.clone());
        let job = tokio::spawn(async move {
            let checked = tokio::task::spawn_blocking(move || verify::staged(&slots, index)).await;
            let ended = |_| Err(Fault::new(FaultKind::Failed, "verify.ended", "the check ended"));
            let checked = checked.unwrap_or_else(ended);
            let answer = checked.map_or_else(Answer::Failed, |()| Answer::Verified);
            answer_with(&inputs, model, ticket, answer).await;
        });
        self.workers.jobs.insert(owner, job.abort_handle());
    }

    /// Starts a worker for an image on disk, after a pause, and says when it is ready.
    pub(super) fn start_worker(
        &mut self,
        model: &ModelName,
        image: ImageRef,
        purpose: Purpose,
        after_ms: i64,
    ) {
        let start = Start {
            slots: self.slots.clone(),
            model: model.clone(),
            image,
            engine: self.setup.config.engine_choice(),
            scratch: self.setup.store.join("scratch"),
            since: self.clock.now(),
            budget: self.workers.budget.clone(),
            crowd: self.setup.crowd.clone(),
        };
        let (inputs, model) = (self.inputs.clone(), model.clone());
        let is_new = matches!(purpose, Purpose::Warm(_));
        let owner = model.clone();
        // The socket to a worker belongs to the runtime that the worker was started in.
        let job = self.serving.handle().spawn(async move {
            let pause = Duration::from_millis(u64::try_from(after_ms).unwrap_or(0));
            tokio::time::sleep(pause).await;
            let ready = start.run(is_new).await;
            // The supervisor may have gone meanwhile.
            drop(inputs.send(Input::Worker { model, purpose, ready }).await);
        });
        let tasks = if is_new { &mut self.workers.jobs } else { &mut self.workers.starts };
        if let Some(before) = tasks.insert(owner, job.abort_handle()) {
            before.abort();
        }
    }

    pub(super) fn cancel(&mut self, model: &ModelName) {
        if let Some(job) = self.workers.jobs.remove(model) {
            job.abort();
        }
        self.end_shadow(model);
        if let Some(live) = self.workers.warm.remove(model) {
            self.retire(live);
        }
    }
}

impl Start {
    /// Checks every byte again, unless that was just done; then loads, tests, and joins image and worker.
    async fn run(self, is_verified: bool) -> Result<Ready, Fault> {
        let index = self.image.index;
        if !is_verified {
            let slots = self.slots.clone();
            let checked = tokio::task::spawn_blocking(move || slots.check(index)).await;
            let ended = |_| Err(SlotError::Absent(index));
            checked.unwrap_or_else(ended).map_err(|error| verify::on_disk(&error))?;
        }
        let files = self.slots.files(index).map_err(|error| verify::on_disk(&error))?;
        let scratch_dir = self.scratch.join(index.hex());
        disk::private_dir(&scratch_dir).map_err(|source| {
            verify::on_disk(&SlotError::Disk { path: scratch_dir.clone(), source })
        })?;
        let known = self.crowd.as_ref().and_then(|crowd| crowd.known(index));
        let known = known.filter(|_| self.engine == EngineChoice::Fake);
        let (worker, warmed) = match &known {
            Some(known) => Worker::made_up(Arc::clone(&known.contract)),
            None => self.worker(files.clone(), scratch_dir).await?,
        };
        tracing::info!(
            model = %self.model,
            version = %self.image.version,
            load_ms = warmed.load_ms,
            golden_ms = warmed.golden_ms,
            memory_mb = warmed.memory_mb,
            runtime = warmed.runtime,
            "worker ready"
        );
        let known = if let Some(known) = known {
            known
        } else {
            let known = read(&files)?;
            if let Some(crowd) = &self.crowd {
                crowd.know(index, known.clone());
            }
            known
        };
        let Known { contract, baseline } = known;
        let (model, image, since) = (self.model, self.image, self.since);
        let providers = warmed.providers;
        let live = LiveImage { model, image, contract, baseline, providers, since };
        Ok(Ready { live: Live::new(live, worker), runtime: warmed.runtime })
    }

    async fn worker(
        &self,
        files: SlotFiles,
        scratch_dir: PathBuf,
    ) -> Result<(Worker, Warmed), Fault> {
        let slot_dir = self.slots.path(self.image.index);
        let (engine, executable) = (self.engine.clone(), None);
        let spec = WorkerSpec { slot_dir, files, engine, scratch_dir, executable };
        let started = Worker::start_within(spec, self.budget.clone()).await;
        started.map_err(|error| {
            Fault::new(FaultKind::Failed, error.code(), &verify::with_cause(&error))
        })
    }
}

/// Reads what the supervisor itself wants to know of an image.
fn read(files: &SlotFiles) -> Result<Known, Fault> {
    let form = |path: &PathBuf| verify::on_disk(&SlotError::Form { path: path.clone() });
    let read = |path: &PathBuf, bytes_max| {
        disk::read(path, bytes_max).ok().flatten().ok_or_else(|| form(path))
    };
    let contract = read(&files.contract, CONTRACT_BYTES_MAX as u64)?;
    let contract = IoContract::parse(&contract).map_err(|_| form(&files.contract))?;
    let baseline = files.baseline.as_ref().map(|path| {
        let bytes = read(path, BASELINE_BYTES_MAX as u64)?;
        Baseline::decode(&bytes).map(Arc::new).map_err(|_| form(path))
    });
    Ok(Known { contract: Arc::new(contract), baseline: baseline.transpose()? })
}

async fn answer_with(
    inputs: &mpsc::Sender<Input>,
    model: ModelName,
    ticket: Ticket,
    answer: Answer,
) {
    // The supervisor may have gone meanwhile.
    drop(inputs.send(Input::Answer { model, ticket, answer }).await);
}

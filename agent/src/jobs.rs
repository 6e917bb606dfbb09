//! Batch jobs that were asked for from afar: one at a time, each in a process of its own, each kept on disk until it is long over.
//!
//! ```text
//!  request ──▶ Jobs ── keeps ──▶ batches/{name}.json ◀── read at start: what was at work waits again
//!               └── starts ──▶ fleet-agent batch --report ──▶ parts in the owner's directory
//!                                    └── a line for each part, and one for the end ──▶ Jobs
//!               └── then, if asked for: one file over HTTPS, in parts ──▶ server
//! ```
//! A file that is damaged, or made to be, costs that process alone. Kill the agent anywhere: started again, the job goes on with the first
//! part that is not there.

mod kept;
mod process;
mod send;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealift_protocol::request::{BATCH_JOBS_MAX, Batch, BatchJob, BatchRun, BatchState, Refused};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::batch::fence;
use crate::clock::Clock;
use crate::origin::Origin;
use kept::Kept;
use process::{News, Process};
use send::{Sending, Sent, Whole};

/// Questions that wait for the jobs; each is answered at once.
const QUESTIONS_MAX: usize = 8;

/// Starts in a row that may end badly without an answer. With the pauses between them a device has a quarter of an hour to serve its model
/// again.
const FAILURES_MAX: u32 = 20;

/// Tries in a row to bring predictions up that may end badly without a byte that gets there: at the longest pause between them a server may
/// be out of reach for a day.
const SENDS_MAX: u32 = 24 * 60;

/// The pause after the first bad end; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// When nothing waits, there is nothing to look for.
const IDLE: Duration = Duration::from_hours(1);

/// A job that takes longer than this is ended.
const JOB_MAX: Duration = Duration::from_hours(24);

/// Where questions about jobs are put; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Jobs(mpsc::Sender<Question>);

/// A question, who asks, and where the answer goes.
#[derive(Debug)]
struct Question {
    batch: Batch,
    by: String,
    answer: oneshot::Sender<Result<Vec<BatchJob>, Refused>>,
}

impl Jobs {
    /// Goes on with what a device was at work on. `directories` are those that its owner has opened.
    pub(crate) fn start(
        store: PathBuf,
        directories: Vec<PathBuf>,
        (clock, origin): (Clock, Origin),
    ) -> Self {
        let (questions, received) = mpsc::channel(QUESTIONS_MAX);
        let jobs = Worker {
            kept: Kept::read(&store),
            store,
            directories,
            clock,
            origin,
            running: None,
            known: None,
            retry_at: Instant::now(),
        };
        tokio::spawn(jobs.run(received));
        Self(questions)
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&self, batch: Batch, by: String) -> Result<Vec<BatchJob>, Refused> {
        let ended = || Refused::new(503, "batch.ended", "the device stops");
        let (answer, answered) = oneshot::channel();
        let question = Question { batch, by, answer };
        self.0.send(question).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

/// The task that owns the jobs.
struct Worker {
    store: PathBuf,
    directories: Vec<PathBuf>,
    clock: Clock,
    origin: Origin,
    kept: Kept,
    running: Option<Running>,
    /// What the last try to bring predictions up has come to know of them.
    known: Option<Arc<Whole>>,
    /// When the next job may be started.
    retry_at: Instant,
}

/// The job at work.
struct Running {
    name: String,
    work: Work,
    until: Instant,
}

/// What a job is at.
enum Work {
    /// Its rows get answers.
    Answering(Box<Process>),
    /// All have one, and go up.
    Sending(Sending),
}

/// What is heard of it.
enum Heard {
    News(News),
    Sent(Sent),
}

impl Worker {
    async fn run(mut self, mut questions: mpsc::Receiver<Question>) {
        loop {
            self.begin_next();
            let wake_at = match &self.running {
                Some(running) => running.until,
                None if self.kept.first_waiting().is_some() => self.retry_at,
                None => Instant::now() + IDLE,
            };
            tokio::select! {
                question = questions.recv() => {
                    // Whoever asks has gone: the agent stops, and the process with it.
                    let Some(Question { batch, by, answer }) = question else { return };
                    // Whoever asked may have gone meanwhile.
                    drop(answer.send(self.answer(batch, by)));
                }
                heard = next(&mut self.running) => match heard {
                    Heard::News(news) => self.take(news),
                    Heard::Sent(sent) => self.take_sent(sent),
                },
                () = sleep_until(wake_at) => self.look(),
            }
        }
    }

    /// Starts the oldest job that waits, if nothing is at work.
    fn begin_next(&mut self) {
        if self.running.is_some() || Instant::now() < self.retry_at {
            return;
        }
        let Some(job) = self.kept.first_waiting() else { return };
        let (name, run) = (job.run.name.clone(), job.run.clone());
        if job.is_answered {
            let parts = job.parts;
            self.send(&run, parts);
            return;
        }
        match self.open(&run).and_then(|paths| {
            let started = Process::start(&self.store, &run, &paths);
            started.map_err(|error| Refused::new(503, "batch.start", &error.to_string()))
        }) {
            Ok(process) => {
                tracing::info!(batch = name, input = run.input, "batch begins");
                self.change(&name, |job| job.state = BatchState::Running);
                let work = Work::Answering(Box::new(process));
                self.running = Some(Running { name, work, until: Instant::now() + JOB_MAX });
            }
            Err(refused) => self.fail(&name, &refused.reason, true),
        }
    }

    /// Brings up what a job has predicted, from where the server has it.
    fn send(&mut self, run: &BatchRun, parts: u64) {
        let name = run.name.clone();
        tracing::info!(batch = name, "predictions are brought up");
        self.change(&name, |job| job.state = BatchState::Running);
        let (origin, directories) = (self.origin.clone(), self.directories.clone());
        let job = (run.clone(), parts);
        let work = Work::Sending(Sending::start(origin, directories, job, self.known.clone()));
        self.running = Some(Running { name, work, until: Instant::now() + JOB_MAX });
    }

    /// The paths of a job, if they are open. Asked anew before each start: links may have come meanwhile.
    fn open(&self, run: &BatchRun) -> Result<(PathBuf, PathBuf), Refused> {
        let fenced = |error: fence::Fenced| Refused::new(403, "batch.path", &error.to_string());
        let input = fence::input(&self.directories, &run.input).map_err(fenced)?;
        let output = fence::output(&self.directories, &run.output).map_err(fenced)?;
        Ok((input, output))
    }

    fn answer(&mut self, batch: Batch, by: String) -> Result<Vec<BatchJob>, Refused> {
        match batch {
            Batch::List => Ok(self.kept.all()),
            Batch::Run(run) => self.add(run, by).map(|job| vec![job]),
            Batch::Cancel(name) => self.cancel(&name).map(|job| vec![job]),
        }
    }

    fn add(&mut self, run: BatchRun, by: String) -> Result<BatchJob, Refused> {
        if let Some(job) = self.kept.find(&run.name) {
            if job.run == run {
                return Ok(job.clone());
            }
            let reason = format!("batch `{}` is another job; give this one another name", run.name);
            return Err(Refused::new(409, "batch.name", &reason));
        }
        self.open(&run)?;
        let now = self.clock.now();
        let job = BatchJob {
            run,
            by,
            state: BatchState::Waiting,
            answered: 0,
            parts: 0,
            failures: 0,
            reason: String::new(),
            asked_at: now,
            changed_at: now,
            is_answered: false,
            brought: None,
        };
        if !self.kept.make_room() {
            let reason = format!("{BATCH_JOBS_MAX} batches wait already; end one, or wait");
            return Err(Refused::new(429, "batch.too-many", &reason));
        }
        let kept = self.kept.put(job.clone());
        kept.map_err(|error| Refused::new(507, "batch.not-kept", &error.to_string()))?;
        Ok(job)
    }

    fn cancel(&mut self, name: &str) -> Result<BatchJob, Refused> {
        if self.kept.find(name).is_none() {
            let reason = format!("there is no batch `{name}` on this device");
            return Err(Refused::new(404, "batch.not-found", &reason));
        }
        // Dropped, the process is killed; its parts are whole or not there.
        self.running.take_if(|running| running.name == name);
        self.change(name, |job| {
            if matches!(job.state, BatchState::Waiting | BatchState::Running) {
                job.state = BatchState::Cancelled;
            }
        });
        let none = || Refused::new(404, "batch.not-found", "the batch is gone");
        self.kept.find(name).cloned().ok_or_else(none)
    }

    /// What the process at work says.
    fn take(&mut self, news: News) {
        let Some(name) = self.running.as_ref().map(|running| running.name.clone()) else { return };
        match news {
            News::Progress { rows, parts } => {
                // Not written: after a restart the parts are counted again.
                if let Some(job) = self.kept.find_mut(&name) {
                    (job.answered, job.parts, job.failures) = (rows, parts, 0);
                }
            }
            News::Done { rows, parts } => self.answered(&name, (rows, parts)),
            News::Failed { is_final, reason } => self.fail(&name, &reason, is_final),
        }
    }

    /// Every row has an answer: the job is done, or goes up.
    fn answered(&mut self, name: &str, (rows, parts): (u64, u64)) {
        self.running = None;
        tracing::info!(batch = name, rows, parts, "every row of the batch has an answer");
        let mut to_send = None;
        self.change(name, |job| {
            (job.answered, job.parts, job.is_answered) = (rows, parts, true);
            job.reason.clear();
            to_send = job.run.upload.then(|| job.run.clone());
            if to_send.is_none() {
                job.state = BatchState::Done;
            }
        });
        if let Some(run) = to_send {
            self.send(&run, parts);
        }
    }

    /// What is heard of predictions on their way.
    fn take_sent(&mut self, sent: Sent) {
        let Some(name) = self.running.as_ref().map(|running| running.name.clone()) else { return };
        match sent {
            Sent::Known(whole) => self.known = whole,
            Sent::Progress(so_far) => {
                // Not written: after a restart the server says how far it is.
                if let Some(job) = self.kept.find_mut(&name) {
                    let before = job.brought.map_or(0, |before| before.bytes);
                    job.failures = if so_far.bytes > before { 0 } else { job.failures };
                    job.brought = Some(so_far);
                }
            }
            Sent::Done(whole) => {
                (self.running, self.known) = (None, None);
                tracing::info!(batch = name, bytes = whole.bytes, "predictions are up");
                self.change(&name, |job| {
                    (job.brought, job.state) = (Some(whole), BatchState::Done);
                    job.reason.clear();
                });
            }
            Sent::Failed { is_final, reason } => self.fail(&name, &reason, is_final),
        }
    }

    fn fail(&mut self, name: &str, reason: &str, is_final: bool) {
        self.running = None;
        tracing::warn!(batch = name, reason, is_final, "batch ended badly");
        let mut failures = 0;
        self.change(name, |job| {
            job.failures = job.failures.saturating_add(1);
            failures = job.failures;
            reason.clone_into(&mut job.reason);
            let failures_max = if job.is_answered { SENDS_MAX } else { FAILURES_MAX };
            let is_over = is_final || job.failures >= failures_max;
            job.state = if is_over { BatchState::Failed } else { BatchState::Waiting };
        });
        let pause = PAUSE_FIRST * 2_u32.saturating_pow(failures.saturating_sub(1));
        self.retry_at = Instant::now() + pause.min(PAUSE_MAX);
    }

    /// Ends a job that takes for ever.
    fn look(&mut self) {
        let is_late = |running: &Running| running.until <= Instant::now();
        if let Some(name) = self.running.as_ref().filter(|it| is_late(it)).map(|it| it.name.clone())
        {
            self.fail(&name, "it has taken a day; give less rows at once", true);
        }
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut BatchJob)) {
        let now = self.clock.now();
        let Some(job) = self.kept.find_mut(name) else { return };
        change(job);
        job.changed_at = now;
        let job = job.clone().bounded();
        if let Err(error) = self.kept.put(job) {
            tracing::warn!(batch = name, %error, "how the batch stands is not kept");
        }
    }
}

/// What the process at work says next; nothing for ever where there is none.
async fn next(running: &mut Option<Running>) -> Heard {
    match running.as_mut().map(|running| &mut running.work) {
        Some(Work::Answering(process)) => Heard::News(process.next().await),
        Some(Work::Sending(sending)) => Heard::Sent(sending.next().await),
        None => std::future::pending().await,
    }
}

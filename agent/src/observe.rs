//! What a live model sees and says: rows, predictions and latencies into a profile, window by window.
//!
//! One lock per image, held while the rows of one answer are counted: about 10 ns a value. What an image on trial is judged by is counted
//! under the same lock, see [`crate::behaviour`]: a logarithm and a few sums an answer.

mod pictures;
#[cfg(test)]
mod quality;
mod rows;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealift_protocol::digest::Digest;
use sealift_protocol::directive::Trial;
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::image::IoContract;
use sealift_protocol::profile::{Baseline, LatencySketch, Profiler};
use sealift_protocol::report::ImageRef;
use sealift_protocol::telemetry::ProfileWindow;
use sealift_protocol::tensor::Tensor;
use tokio::time::Instant;

use crate::behaviour::{Block, Habits, Judge, Misstep, Signed, hour_of};
use pictures::Eye;
use rows::{Room, RowPlan};

pub(crate) use pictures::{Looks, Seen};

/// When a window ends: at so many rows, or at the next full `seconds` of the clock, whichever is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// Rows.
    pub rows: u64,
    /// Seconds; windows of all devices with the same limit end at the same time.
    pub seconds: u64,
}

/// Counts since a model went live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests that reached the model.
    pub requests: u64,
    /// Of these, the ones that failed by the model's or the agent's fault.
    pub errors: u64,
    /// 95 % of the answers took at most this; 0 for no answer.
    pub latency_p95_us: u32,
}

/// Watches one image while it is live.
#[derive(Debug)]
pub(crate) struct Observer {
    model: ModelName,
    image: ImageRef,
    /// How rows are counted, and in which bins; none where nothing is.
    plan: Option<(RowPlan, Arc<Baseline>)>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Begun with the first row: an image that nobody asks keeps no counts.
    profiler: Option<Profiler>,
    /// Begin of the window.
    from: UnixMillis,
    /// Errors of the window.
    window_errors: u64,
    requests: u64,
    errors: u64,
    latency: LatencySketch,
    room: Room,
    eye: Eye,
    looks: Looks,
    /// The last look at the clock that runs evenly.
    steady: UnixMillis,
    block: Block,
    habits: Habits,
    trial: Option<OnTrial>,
}

/// What an image on trial is judged by.
#[derive(Debug)]
struct OnTrial {
    judge: Judge,
    rules: Trial,
    /// Other images of the device when the trial began.
    others: Vec<Digest>,
}

/// How long an answer took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// From the request to the answer.
    pub(crate) whole: Duration,
    /// In the engine alone.
    pub(crate) engine: Duration,
}

impl Observer {
    /// Begins the first window at `now`. Without a baseline there are no bins to count in, and only requests are counted.
    pub(crate) fn new(
        model: ModelName,
        image: ImageRef,
        contract: &IoContract,
        baseline: Option<Arc<Baseline>>,
        now: UnixMillis,
    ) -> Self {
        let signed = baseline.as_deref().map(Signed::new).unwrap_or_default();
        let plan =
            baseline.and_then(|baseline| Some((RowPlan::new(contract, &baseline)?, baseline)));
        let state = State {
            profiler: None,
            from: now,
            window_errors: 0,
            requests: 0,
            errors: 0,
            latency: LatencySketch::default(),
            room: Room::default(),
            eye: Eye::default(),
            looks: Looks::default(),
            steady: now,
            block: Block::new(hour_of(now), now),
            habits: Habits::new(signed),
            trial: None,
        };
        Self { model, image, plan, state: Mutex::new(state) }
    }

    /// Which pictures of a request are to be looked at.
    pub(crate) fn choose(&self, inputs: &[Tensor], now: Instant) -> Vec<u16> {
        self.plan()
            .and_then(RowPlan::pictures)
            .map_or_else(Vec::new, |pictures| self.state().eye.choose(pictures.count(inputs), now))
    }

    /// Counts an answer, and what was seen of its pictures.
    pub(crate) fn answered(
        &self,
        (inputs, outputs): (&[Tensor], &[Tensor]),
        seen: Seen<'_>,
        taken: Taken,
    ) {
        let latency_us = micros(taken.whole);
        let observed = self.plan().and_then(|plan| plan.observe((inputs, outputs), seen));
        let bytes = inputs.iter().map(|tensor| tensor.bytes.len() as u64).sum();
        let mut state = self.state();
        state.requests += 1;
        state.latency.take(latency_us);
        let State { profiler, room, block, looks, .. } = &mut *state;
        if let (Some((_, baseline)), Some(observed)) = (&self.plan, observed) {
            let profiler = profiler.get_or_insert_with(|| Profiler::new(baseline));
            let looked = observed.count((profiler, block), room, latency_us);
            looks.looked_at += looked.looked_at;
            looks.passed_over += looked.passed_over;
        }
        block.answered(bytes, micros(taken.engine));
        if block.is_full() {
            state.end_block();
        }
    }

    /// Counts a failure.
    pub(crate) fn failed(&self) {
        let mut state = self.state();
        state.requests += 1;
        state.errors += 1;
        state.window_errors += 1;
    }

    /// Counts since the image went live.
    pub(crate) fn counters(&self) -> Counters {
        let state = self.state();
        let latency_p95_us = p95_us(&state.latency);
        Counters { requests: state.requests, errors: state.errors, latency_p95_us }
    }

    /// Pictures that were looked at, and those that were not; none where the baseline counts none.
    pub(crate) fn looks(&self) -> Option<Looks> {
        self.plan().and_then(RowPlan::pictures).map(|_| self.state().looks)
    }

    /// Looks at the clock that runs evenly: what is seen belongs to its hour.
    pub(crate) fn tell_the_time(&self, steady: UnixMillis) {
        let mut state = self.state();
        state.steady = steady;
        if state.block.is_of_another_hour(hour_of(steady)) {
            state.end_block();
        }
    }

    /// Whether it is judged already.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.state().trial.is_some()
    }

    /// Begins to judge the image, by the habits of the image before if they are known; `others` are the other images of the device.
    pub(crate) fn try_out(&self, rules: Trial, others: Vec<Digest>, before: Option<Habits>) {
        self.state().trial = Some(OnTrial { judge: Judge::new(before), rules, others });
    }

    /// What it does worse than these rules allow, if anything.
    pub(crate) fn judge(&self, rules: &Trial, others: &[Digest]) -> Option<Misstep> {
        let mut state = self.state();
        let steady = state.steady;
        let trial = state.trial.as_mut()?;
        trial.rules = *rules;
        if trial.others != others {
            trial.judge.others_have_changed();
        }
        trial.judge.verdict(rules, steady)
    }

    /// It is not on trial any more.
    pub(crate) fn is_settled(&self) {
        self.state().trial = None;
    }

    /// What the image has shown so far, by the hour.
    pub(crate) fn habits(&self) -> Habits {
        self.state().habits.clone()
    }

    /// Goes on from what the image has shown before, unless it was signed otherwise.
    pub(crate) fn recall(&self, habits: Habits) {
        let mut state = self.state();
        if habits.signed() == state.habits.signed() {
            state.habits = habits;
        }
    }

    /// Ends the window if it is due, or if `force` says so, and returns it unless it is empty.
    pub(crate) fn drain(
        &self,
        now: UnixMillis,
        limits: WindowLimits,
        force: bool,
    ) -> Option<ProfileWindow> {
        let mut state = self.state();
        let rows = state.profiler.as_ref().map_or(0, Profiler::rows);
        let is_empty = rows == 0 && state.window_errors == 0;
        if is_empty {
            state.from = now;
            return None;
        }
        if !force && rows < limits.rows && !is_next_span(state.from, now, limits.seconds) {
            return None;
        }
        let errors = std::mem::take(&mut state.window_errors);
        let from = std::mem::replace(&mut state.from, now);
        let (_, baseline) = self.plan.as_ref()?;
        let profile = state.profiler.get_or_insert_with(|| Profiler::new(baseline)).close();
        drop(state);
        let profile = profile.encode().inspect_err(|error| {
            tracing::error!(model = %self.model, %error, "profile of a window was lost");
        });
        Some(ProfileWindow {
            model: self.model.clone(),
            image: self.image.clone(),
            from,
            until: now,
            profile: profile.ok()?,
            errors,
        })
    }

    fn plan(&self) -> Option<&RowPlan> {
        self.plan.as_ref().map(|(plan, _)| plan)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The block is complete, or its hour is over.
    fn end_block(&mut self) {
        let next = Block::new(hour_of(self.steady), self.steady);
        let block = std::mem::replace(&mut self.block, next);
        if !block.is_enough() {
            return;
        }
        if let Some(OnTrial { judge, rules, .. }) = &mut self.trial {
            judge.take(&block, self.habits.signed(), rules);
        }
        self.habits.take(&block);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Whether a multiple of `seconds` lies between the two times. A clock that steps back ends the window too.
fn is_next_span(from: UnixMillis, now: UnixMillis, seconds: u64) -> bool {
    let span_ms = i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX).max(1);
    from.0.div_euclid(span_ms) != now.0.div_euclid(span_ms)
}

/// The 95th percentile in whole microseconds; 0 for an empty sketch.
pub(crate) fn p95_us(latency: &LatencySketch) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the sketch ends at 100 s, which is 10^8 µs"
    )]
    let whole = |us: f64| us.round() as u32;
    latency.quantile_us(0.95).map_or(0, whole)
}

#[cfg(test)]
mod tests {
    use sealift_protocol::digest::Digest;
    use sealift_protocol::id::Version;
    use sealift_protocol::profile::{BaselineBuilder, Column, Profile};
    use sealift_protocol::tensor::Datatype;

    use super::*;

    const LIMITS: WindowLimits = WindowLimits { rows: 100, seconds: 60 };

    fn contract() -> IoContract {
        let json = br#"{"schema":1,
            "inputs":[{"name":"x","datatype":"FP32","shape":[-1,2],
                       "features":[{"name":"a","group":"g"},{"name":"b","group":"g"}]}],
            "outputs":[{"name":"label","datatype":"INT64","shape":[-1],"role":"class"},
                       {"name":"p","datatype":"FP32","shape":[-1,2],"role":"probabilities",
                        "labels":["no","yes"]}]}"#;
        IoContract::parse(json).unwrap()
    }

    fn baseline() -> Baseline {
        let columns = vec![Column::numeric("a", "g"), Column::numeric("b", "g")];
        let classes = ["no", "yes"].map(str::to_owned).to_vec();
        let mut builder = BaselineBuilder::new(columns, classes);
        for row in 0..100_u32 {
            builder.push(&[f64::from(row), f64::from(row % 7)], Some("yes"), Some(0.9)).unwrap();
        }
        builder.build().unwrap()
    }

    fn observer(baseline: Option<Baseline>) -> Observer {
        let version = Version::parse("1").unwrap();
        let image = ImageRef { version, index: Digest::of(b"index") };
        let model = ModelName::parse("vision/digits").unwrap();
        Observer::new(model, image, &contract(), baseline.map(Arc::new), UnixMillis(1_000))
    }

    fn answer(observer: &Observer, classes: &[i64]) {
        let rows = classes.len() as u64;
        let x = Tensor::fp32("x", &[rows, 2], &[50.0, 3.0].repeat(classes.len())).unwrap();
        let label: Vec<u8> = classes.iter().flat_map(|class| class.to_le_bytes()).collect();
        let label = Tensor::new("label".to_owned(), Datatype::Int64, vec![rows], label).unwrap();
        let p = Tensor::fp32("p", &[rows, 2], &[0.25, 0.75].repeat(classes.len())).unwrap();
        let engine = Duration::from_micros(300);
        let taken = Taken { whole: Duration::from_micros(500), engine };
        observer.answered((&[x], &[label, p]), Seen::default(), taken);
    }

    fn profile(window: &ProfileWindow) -> Profile {
        Profile::decode(&window.profile).unwrap()
    }

    #[test]
    fn rows_predictions_confidence_and_latency_are_counted() {
        let observer = observer(Some(baseline()));
        answer(&observer, &[1, 0, 1]);
        answer(&observer, &[1]);
        observer.failed();

        let window = observer.drain(UnixMillis(2_000), LIMITS, true).unwrap();

        let profile = profile(&window);
        assert_eq!(profile.rows(), 4);
        assert_eq!(profile.misshapen(), 0);
        assert_eq!(profile.classes(), [1, 3]);
        assert_eq!(profile.confidence()[15], 4);
        assert_eq!(profile.numeric()[0].n(), 4);
        // One latency per request, however many rows it has.
        assert_eq!(profile.latency().count(), 2);
        assert_eq!(
            (window.errors, window.from, window.until),
            (1, UnixMillis(1_000), UnixMillis(2_000))
        );
        let counters = observer.counters();
        assert_eq!((counters.requests, counters.errors), (3, 1));
        assert!((495..=505).contains(&counters.latency_p95_us), "{counters:?}");
    }

    #[test]
    fn a_window_ends_at_its_rows_or_at_the_next_full_minute() {
        let observer = observer(Some(baseline()));
        answer(&observer, &[1; 99]);
        assert_eq!(observer.drain(UnixMillis(59_999), LIMITS, false), None);

        answer(&observer, &[1]);
        let by_rows = observer.drain(UnixMillis(59_999), LIMITS, false).unwrap();
        answer(&observer, &[1]);
        let by_time = observer.drain(UnixMillis(60_000), LIMITS, false).unwrap();

        assert_eq!(profile(&by_rows).rows(), 100);
        assert_eq!(profile(&by_time).rows(), 1);
        assert_eq!(by_time.from, by_rows.until);
    }

    #[test]
    fn nothing_seen_is_no_window_and_moves_its_begin() {
        let observer = observer(Some(baseline()));
        assert_eq!(observer.drain(UnixMillis(90_000), LIMITS, true), None);
        answer(&observer, &[0]);
        let window = observer.drain(UnixMillis(91_000), LIMITS, true).unwrap();
        assert_eq!(window.from, UnixMillis(90_000));
    }

    #[test]
    fn an_image_without_a_baseline_counts_requests_alone() {
        let observer = observer(None);
        answer(&observer, &[1]);
        observer.failed();
        assert_eq!(observer.drain(UnixMillis(99_000), LIMITS, true), None);
        assert_eq!((observer.counters().requests, observer.counters().errors), (2, 1));
    }
}

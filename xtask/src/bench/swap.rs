//! Changing the model under load: what callers notice of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sealift_tests::digits::{MODEL, Rows, directory as model_directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::story::{self, TIMING};
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::machine::{Machine, median, pss_mb, round};
use crate::fetch;

/// Callers at the same time, each with a connection of its own.
const CALLERS: u32 = 8;
/// Until the callers have settled, and the memory of a worker that has ended is gone.
const SETTLE: Duration = Duration::from_secs(5);
/// How long the new version is looked at after the device has reported it.
const PROOF: Duration = Duration::from_millis(250);
/// Longer than any answer: a request that takes this long counts as failed.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What is asked of `cargo xtask bench swap`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON alone.
    #[arg(long)]
    json: bool,
    /// How often the model is changed.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    swaps: u32,
    /// Requests a second.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(8..=100_000))]
    rate: u32,
}

/// What callers saw.
#[derive(Debug, Serialize)]
struct Findings {
    swaps: u32,
    requests: u64,
    requests_per_s: f64,
    failed: u64,
    /// Answers of the old version to requests that were sent after an answer of the new one had come, or its report.
    stale: u64,
    /// The longest time without any answer around each change, in milliseconds.
    gap_median_ms: f64,
    gap_p99_ms: f64,
    /// The same of spans without a change, after each change one that is as long: what the machine alone does.
    quiet_gap_median_ms: f64,
    quiet_gap_p99_ms: f64,
    latency_p50_ms: f64,
    latency_p99_ms: f64,
    /// Memory of agent and worker before the first change and after the last, in MiB.
    pss_before_mb: f64,
    pss_after_mb: f64,
    machine: Machine,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let findings = runtime.block_on(measure(arguments))?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print(&findings);
    }
    Ok(())
}

/// One answer: when it was asked for and when it came, in microseconds since the start; and which version gave it, 0 for none.
#[derive(Debug, Clone, Copy)]
struct Answer {
    sent_us: u64,
    came_us: u64,
    version: u8,
}

/// One change: which version came, when it was ordered, reported, and looked at for the last time.
#[derive(Debug, Clone, Copy)]
struct Change {
    version: u8,
    began_us: u64,
    reported_us: u64,
    ended_us: u64,
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Findings> {
    let directory = tempfile::Builder::new().prefix("sealift-bench-").tempdir()?;
    let (server, device) = fleet(directory.path()).await?;
    let load = Load::start(&device, arguments.rate)?;
    sleep(SETTLE).await;
    let pss_before_mb = pss_mb(device.process.id())?;
    let (mut changes, mut quiet) = (Vec::new(), Vec::new());
    for number in 1..=arguments.swaps {
        let version = if number % 2 == 1 { 2 } else { 1 };
        let began_us = load.now_us();
        story::roll_out(&server, &version.to_string()).await?;
        let reported_us = load.now_us();
        sleep(PROOF).await;
        let ended_us = load.now_us();
        changes.push(Change { version, began_us, reported_us, ended_us });
        sleep(Duration::from_micros(ended_us - began_us)).await;
        quiet.push((ended_us, load.now_us()));
        eprintln!("change {number} of {}", arguments.swaps);
    }
    let seconds = load.seconds();
    let answers = load.stop().await?;
    sleep(SETTLE).await;
    let pss_after_mb = pss_mb(device.process.id())?;
    let whole = Series::new(answers)?;
    let gap = |change: &Change| whole.longest_gap_ms((change.began_us, change.ended_us));
    let gaps: Vec<f64> = changes.iter().map(gap).collect();
    let quiet_gaps: Vec<f64> = quiet.into_iter().map(|span| whole.longest_gap_ms(span)).collect();
    Ok(Findings {
        swaps: arguments.swaps,
        requests: whole.count(),
        requests_per_s: round(f64::from(u32::try_from(whole.count())?) / seconds),
        failed: whole.failed,
        stale: changes.iter().map(|change| whole.stale(change)).sum(),
        gap_median_ms: round(median(&gaps)),
        gap_p99_ms: round(percentile(&gaps, 0.99)),
        quiet_gap_median_ms: round(median(&quiet_gaps)),
        quiet_gap_p99_ms: round(percentile(&quiet_gaps, 0.99)),
        latency_p50_ms: round(percentile(&whole.latencies_ms(), 0.5)),
        latency_p99_ms: round(percentile(&whole.latencies_ms(), 0.99)),
        pss_before_mb: round(pss_before_mb),
        pss_after_mb: round(pss_after_mb),
        machine: Machine::read()?,
    })
}

/// A device that serves version 1.
async fn fleet(directory: &Path) -> anyhow::Result<(Server, Device)> {
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory, &options).await?;
    server.publish(&model_directory("v1"), "1")?;
    server.publish(&model_directory("v2"), "2")?;
    let onnxruntime = Some(fetch::onnxruntime()?);
    let options = DeviceOptions { labels: Vec::new(), onnxruntime, extra: String::new() };
    let device = Device::start(&server, directory, "bench", &options).await?;
    story::roll_out(&server, "1").await?;
    story::answers_with(&device, "1").await?;
    Ok((server, device))
}

/// Callers that ask at a fixed rate, whatever the answers.
struct Load {
    began: Instant,
    stop: Arc<AtomicBool>,
    callers: JoinSet<anyhow::Result<Vec<Answer>>>,
}

impl Load {
    fn start(device: &Device, rate: u32) -> anyhow::Result<Self> {
        let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let url = format!("{}/v2/models/{MODEL}/infer", device.endpoint()?);
        let rows = Rows::held_out()?;
        let every = Duration::from_secs(1) * CALLERS / rate;
        let turn = Arc::new(AtomicU64::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let http = reqwest::Client::builder().timeout(ANSWER_LIMIT).build()?;
            let place = usize::try_from(turn.fetch_add(1, Ordering::Relaxed))?;
            let body = serde_json::to_vec(&rows.batch(place, 1).request())?;
            let (url, stop) = (url.clone(), Arc::clone(&stop));
            callers.spawn(async move { call(&http, &url, &body, (began, every), &stop).await });
        }
        Ok(Self { began, stop, callers })
    }

    fn now_us(&self) -> u64 {
        micros(self.began)
    }

    fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    async fn stop(mut self) -> anyhow::Result<Vec<Answer>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        while let Some(ended) = self.callers.join_next().await {
            answers.extend(ended??);
        }
        Ok(answers)
    }
}

async fn call(
    http: &reqwest::Client,
    url: &str,
    body: &[u8],
    (began, every): (Instant, Duration),
    stop: &AtomicBool,
) -> anyhow::Result<Vec<Answer>> {
    let mut clock = interval(every);
    // A caller that was late asks at once, and then goes on at its own pace.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answers = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        clock.tick().await;
        let sent_us = micros(began);
        let version = ask(http, url, body).await.unwrap_or(0);
        answers.push(Answer { sent_us, came_us: micros(began), version });
    }
    Ok(answers)
}

async fn ask(http: &reqwest::Client, url: &str, body: &[u8]) -> anyhow::Result<u8> {
    let request = http.post(url).header("content-type", "application/json").body(body.to_vec());
    let response = request.send().await?.error_for_status()?;
    let answer: Value = serde_json::from_slice(&response.bytes().await?)?;
    answer["model_version"].as_str().context("no version")?.parse().context("not a number")
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// All answers, in the order in which they came.
struct Series {
    answers: Vec<Answer>,
    failed: u64,
}

impl Series {
    fn new(all: Vec<Answer>) -> anyhow::Result<Self> {
        let requests = all.len();
        let mut answers: Vec<_> = all.into_iter().filter(|answer| answer.version > 0).collect();
        ensure!(!answers.is_empty(), "not one request was answered");
        answers.sort_unstable_by_key(|answer| answer.came_us);
        let failed = u64::try_from(requests - answers.len())?;
        Ok(Self { answers, failed })
    }

    fn count(&self) -> u64 {
        u64::try_from(self.answers.len()).unwrap_or(u64::MAX)
    }

    /// Rule: once somebody has an answer of the new version, or the device has reported that it serves it, who asks after that gets no
    /// other one.
    fn stale(&self, change: &Change) -> u64 {
        let is_within =
            |answer: &&Answer| (change.began_us..change.ended_us).contains(&answer.sent_us);
        let within = || self.answers.iter().filter(is_within);
        let new = within().filter(|answer| answer.version == change.version);
        let first = new.map(|answer| answer.came_us).min().unwrap_or(change.reported_us);
        let known = first.min(change.reported_us);
        let is_stale =
            |answer: &&Answer| answer.version != change.version && answer.sent_us > known;
        u64::try_from(within().filter(is_stale).count()).unwrap_or(u64::MAX)
    }

    /// The longest time without an answer in a span.
    fn longest_gap_ms(&self, (from, to): (u64, u64)) -> f64 {
        let within = self.answers.iter().filter(|answer| (from..to).contains(&answer.came_us));
        let times: Vec<u64> = within.map(|answer| answer.came_us).collect();
        let gaps = times.windows(2).filter_map(|pair| match pair {
            [before, after] => Some(after - before),
            _ => None,
        });
        millis(gaps.max().unwrap_or(to - from))
    }

    fn latencies_ms(&self) -> Vec<f64> {
        self.answers.iter().map(|answer| millis(answer.came_us - answer.sent_us)).collect()
    }
}

fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1e3
}

/// The value below which a share of all lies.
fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let below = sorted.len().saturating_sub(1);
    // A rank is far below 2^52.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let rank = (below as f64 * share).ceil() as usize;
    sorted.get(rank).copied().unwrap_or(f64::NAN)
}

fn print(found: &Findings) {
    println!("{} changes of the model on {}", found.swaps, found.machine);
    println!(
        "{} requests, {} a second: {} failed, {} answered by a version that was replaced",
        found.requests, found.requests_per_s, found.failed, found.stale
    );
    println!(
        "longest time without an answer around a change: median {} ms, p99 {} ms",
        found.gap_median_ms, found.gap_p99_ms
    );
    println!(
        "and in as many spans without one:                 median {} ms, p99 {} ms",
        found.quiet_gap_median_ms, found.quiet_gap_p99_ms
    );
    println!("latency: p50 {} ms, p99 {} ms", found.latency_p50_ms, found.latency_p99_ms);
    println!(
        "agent and worker: {} MiB before, {} MiB after",
        found.pss_before_mb, found.pss_after_mb
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(answers: &[(u64, u64, u8)]) -> Series {
        let answer =
            |&(sent_us, came_us, version): &(u64, u64, u8)| Answer { sent_us, came_us, version };
        Series::new(answers.iter().map(answer).collect()).unwrap()
    }

    const CHANGE: Change = Change { version: 2, began_us: 0, reported_us: 30, ended_us: 50 };

    #[test]
    fn an_answer_that_was_asked_for_before_the_change_is_not_stale() {
        assert_eq!(series(&[(0, 5, 1), (6, 20, 1), (10, 15, 2), (21, 25, 2)]).stale(&CHANGE), 0);
    }

    #[test]
    fn an_answer_of_the_old_version_to_a_later_request_is_stale() {
        assert_eq!(series(&[(0, 5, 1), (6, 10, 2), (11, 15, 1), (16, 20, 2)]).stale(&CHANGE), 1);
    }

    #[test]
    fn after_the_report_the_old_version_is_stale_even_if_the_new_one_was_never_seen() {
        assert_eq!(series(&[(20, 25, 1), (31, 35, 1), (60, 65, 1)]).stale(&CHANGE), 1);
    }

    #[test]
    fn a_gap_is_the_longest_time_between_two_answers() {
        let answers = [(0, 1_000, 1), (0, 2_000, 1), (0, 9_500, 1)];
        let gap = series(&answers).longest_gap_ms((0, 10_000));
        assert!((gap - 7.5).abs() < 1e-9);
    }
}

//! Metrics for an OpenTelemetry collector: OTLP over HTTP with protobuf, OTLP 1.x, out of the text that `/metrics` says.
//!
//! What is here decides: what a request holds, since when a counter counts, what may be tried again and after how long. Server and
//! agent send it, each by its own client.

mod collector;
mod points;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::UnixMillis;
pub use collector::{Collector, NoCollector};
use points::{Metric, Point};

/// What is added to a collector's address: OTLP/HTTP, "Binary Protobuf Encoding".
const PATH: &str = "/v1/metrics";
/// How a request is written.
pub const CONTENT_TYPE: &str = "application/x-protobuf";
/// A collector that takes longer is tried again.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The longest file of headers: a few tokens.
pub const HEADERS_BYTES_MAX: usize = 8 << 10;
/// How often one export is tried; the next one brings the same and more.
const TRIES: u32 = 4;
/// The first wait between two tries; each is twice the one before.
const WAIT: Duration = Duration::from_secs(1);
/// A collector may ask for a longer wait, up to this.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// One process's metrics, one export after the other.
#[derive(Debug, Clone)]
pub struct Series {
    about: Vec<(String, String)>,
    started: UnixMillis,
    /// When the last export was made, and what each counter said then, and since when it counts.
    before: Option<(UnixMillis, Counters)>,
}

type Counters = BTreeMap<(String, Vec<(String, String)>), Counter>;

#[derive(Debug, Clone, Copy)]
struct Counter {
    since: UnixMillis,
    value: f64,
}

impl Series {
    /// Those of the process that started at `started`, which `about` describes.
    pub const fn new(about: Vec<(String, String)>, started: UnixMillis) -> Self {
        Self { about, started, before: None }
    }

    /// The bytes of an `ExportMetricsServiceRequest` with what the text of `/metrics` says.
    pub fn request(&mut self, text: &str, now: UnixMillis) -> Vec<u8> {
        let mut metrics = points::of(text);
        self.follow(&mut metrics, now);
        wire::request(&self.about, &metrics, now)
    }

    /// OTLP data model, "Resets and Gaps". Rule: a counter that begins anew has a new start time. One that was not there at the last
    /// export, or was higher, has begun since; before the first export all have counted from the start of the process.
    fn follow(&mut self, metrics: &mut [Metric], now: UnixMillis) {
        let before = self.before.take();
        let mut counters = Counters::new();
        for metric in metrics.iter_mut().filter(|metric| metric.is_counter) {
            for point in &mut metric.points {
                let key = (metric.name.clone(), point.labels.clone());
                let since = since(before.as_ref(), &key, point).unwrap_or(self.started).min(now);
                point.since = since;
                counters.insert(key, Counter { since, value: point.value });
            }
        }
        self.before = Some((now, counters));
    }
}

fn since(
    before: Option<&(UnixMillis, Counters)>,
    key: &(String, Vec<(String, String)>),
    point: &Point,
) -> Option<UnixMillis> {
    let (at, counters) = before?;
    let goes_on = counters.get(key).filter(|counter| counter.value <= point.value);
    Some(goes_on.map_or(*at, |counter| counter.since))
}

/// How a collector has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Not at all.
    None,
    /// With a status that is no success, and perhaps for how many seconds it asks.
    Status(u16, Option<u64>),
}

impl Answer {
    /// OTLP specification, "Retryable Response Codes". Rule: 429, 502, 503 and 504 may be tried again, and so may a request that got no
    /// answer; every other answer is final.
    const fn is_passing(self) -> bool {
        matches!(self, Self::None | Self::Status(429 | 502 | 503 | 504, _))
    }
}

/// The tries of one export.
#[derive(Debug, Clone, Copy)]
pub struct Tries {
    made: u32,
    wait: Duration,
}

impl Default for Tries {
    fn default() -> Self {
        Self { made: 1, wait: WAIT }
    }
}

impl Tries {
    /// How long to wait before the next try; none, if there is to be none.
    pub fn after(&mut self, answer: Answer) -> Option<Duration> {
        if self.made >= TRIES || !answer.is_passing() {
            return None;
        }
        let asked = match answer {
            Answer::Status(_, asked) => asked.map(Duration::from_secs),
            Answer::None => None,
        };
        let wait = asked.unwrap_or(self.wait).min(WAIT_MAX);
        self.wait = self.wait.saturating_mul(2);
        self.made += 1;
        Some(wait)
    }
}

/// Name, value and number of the line, from 1, of the headers in a file of lines `name: value`; empty lines and comments are left out. If a
/// line is none, its number.
pub fn headers(text: &str) -> Result<Vec<(&str, &str, usize)>, usize> {
    if text.len() > HEADERS_BYTES_MAX {
        return Err(1);
    }
    let lines = text.lines().map(str::trim).zip(1..);
    let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(line, number)| {
            let (name, value) = line.split_once(':').ok_or(number)?;
            Ok((name.trim(), value.trim(), number))
        })
        .collect()
}

#[cfg(test)]
mod tests;

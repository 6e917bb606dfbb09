//! The newest lines of the agent's own log, in memory: what a log tail shows, whoever keeps the log itself.
//!
//! A worker's lines are not among them: a model's process writes to the system's log alone.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealift_protocol::limits::{LOG_LINE_CHARS_MAX, LOG_LINES_MAX};
use sealift_protocol::request::{LogLevel, LogLine, LogTail, Logs as Wanted};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::clock::system_time;

/// Lines that are kept: a device writes some hundred a day.
const LINES_MAX: usize = 2_000;

/// Bytes that they may take.
const BYTES_MAX: usize = 512 << 10;

/// What a line takes besides its text.
const LINE_BYTES: usize = 64;

/// How secrets of ours begin. None is ever logged; should one be, by a library's error, it goes no further than this machine.
const SECRETS: [&str; 5] = ["sle1.", "slt_", "pin-value=", "-----BEGIN", "Bearer "];

/// Lines in memory. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Logs(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
    forgotten: u64,
}

impl Logs {
    /// What writes into it: of the agent itself whatever changed a state, of libraries only what went wrong.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let own = ["sealift_agent", "fleet_agent", "sealift_protocol"];
        let own = own.into_iter().map(|target| (target, LevelFilter::INFO));
        let filter = Targets::new().with_targets(own).with_default(LevelFilter::WARN);
        Writer(self.clone()).with_filter(filter)
    }

    /// The newest lines that are wanted, oldest first.
    pub(crate) fn tail(&self, wanted: &Wanted) -> LogTail {
        let ring = self.ring();
        let is_wanted = |line: &&LogLine| {
            line.level >= wanted.level && wanted.since.is_none_or(|since| line.at > since)
        };
        let count = usize::try_from(wanted.lines.min(LOG_LINES_MAX)).unwrap_or(0);
        let newest = ring.lines.iter().rev().filter(is_wanted).take(count);
        let mut lines: Vec<_> = newest.cloned().collect();
        lines.reverse();
        LogTail { lines, forgotten: ring.forgotten }
    }

    fn push(&self, line: LogLine) {
        let mut ring = self.ring();
        ring.bytes += line.size();
        ring.lines.push_back(line);
        while ring.lines.len() > LINES_MAX || ring.bytes > BYTES_MAX {
            let Some(oldest) = ring.lines.pop_front() else { return };
            ring.bytes -= oldest.size();
            ring.forgotten += 1;
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Each line is whole, so a panic elsewhere leaves it usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

trait Size {
    fn size(&self) -> usize;
}

impl Size for LogLine {
    fn size(&self) -> usize {
        LINE_BYTES + self.target.len() + self.text.len()
    }
}

/// Puts events into the ring.
struct Writer(Logs);

impl<S: Subscriber> Layer<S> for Writer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            _ => LogLevel::Info, // the filter lets nothing through that is less
        };
        let target = metadata.target().to_owned();
        self.0.push(LogLine { at: system_time(), level, target, text: text.line() });
    }
}

/// An event's message and fields, as they are written.
#[derive(Debug, Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn line(self) -> String {
        let text = without_secrets(&(self.message + &self.fields));
        let plain = text.chars().filter(|character| !character.is_control());
        plain.take(LOG_LINE_CHARS_MAX).collect()
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a `String` cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// The text with everything that begins as a secret does taken out, up to where the word ends.
fn without_secrets(text: &str) -> String {
    let mut text = text.to_owned();
    for marker in SECRETS {
        let mut from = 0;
        while let Some(at) = text.get(from..).and_then(|rest| rest.find(marker)) {
            let begin = from + at;
            let secret = begin + marker.len();
            let ends = |character: char| character.is_whitespace() || "\"'&;,)".contains(character);
            let rest = text.get(secret..).unwrap_or_default();
            // What begins a key ends with the line, however many words it has.
            let length = if marker.starts_with('-') {
                rest.len()
            } else {
                rest.find(ends).unwrap_or(rest.len())
            };
            text.replace_range(begin..secret + length, "[secret]");
            from = begin + "[secret]".len();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use sealift_protocol::id::UnixMillis;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn all() -> Wanted {
        Wanted { lines: LOG_LINES_MAX, since: None, level: LogLevel::Info }
    }

    fn line(at: i64, level: LogLevel, text: &str) -> LogLine {
        LogLine { at: UnixMillis(at), level, target: "t".to_owned(), text: text.to_owned() }
    }

    fn texts(tail: &LogTail) -> Vec<&str> {
        tail.lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn what_the_agent_writes_is_kept_and_what_libraries_whisper_is_not() {
        let logs = Logs::default();
        let subscriber = tracing_subscriber::registry().with(logs.layer());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(model = %"vision/digits", load_ms = 12, "worker ready");
            tracing::debug!("not kept");
            tracing::info!(target: "rumqttc", "not kept either");
            tracing::warn!(target: "rumqttc", reason = "eof", "gone");
        });
        let tail = logs.tail(&all());
        assert_eq!(
            texts(&tail),
            ["worker ready model=vision/digits load_ms=12", "gone reason=eof"]
        );
        assert_eq!((tail.lines[0].level, tail.lines[1].level), (LogLevel::Info, LogLevel::Warn));
        assert_eq!(tail.lines[1].target, "rumqttc");
    }

    #[test]
    fn the_newest_lines_that_are_wanted_come_oldest_first() {
        let logs = Logs::default();
        for at in 0..10 {
            let level = if at % 2 == 0 { LogLevel::Info } else { LogLevel::Error };
            logs.push(line(at, level, &at.to_string()));
        }
        let tail = |lines, since: Option<i64>, level| {
            let tail = logs.tail(&Wanted { lines, since: since.map(UnixMillis), level });
            texts(&tail).join(" ")
        };
        assert_eq!(tail(3, None, LogLevel::Info), "7 8 9");
        assert_eq!(tail(3, None, LogLevel::Warn), "5 7 9");
        assert_eq!(tail(9, Some(7), LogLevel::Info), "8 9");
        assert_eq!(tail(0, None, LogLevel::Info), "");
    }

    #[test]
    fn the_oldest_lines_are_forgotten_and_counted() {
        let logs = Logs::default();
        let long = "x".repeat(LOG_LINE_CHARS_MAX);
        for at in 0..5_000 {
            logs.push(line(at, LogLevel::Info, &long));
        }
        let ring = logs.ring();
        let (kept, bytes) = (ring.lines.len(), ring.bytes);
        drop(ring);
        assert!(kept < LINES_MAX && bytes <= BYTES_MAX, "{kept} lines of {bytes} bytes");
        let tail = logs.tail(&all());
        assert_eq!(tail.forgotten, 5_000 - kept as u64);
        assert_eq!(tail.lines.last().unwrap().at, UnixMillis(4_999));
    }

    #[test]
    fn a_secret_that_slips_into_a_line_goes_no_further() {
        let of = |message: &str| Text { message: message.to_owned(), ..Text::default() }.line();
        assert_eq!(of("token sle1.abc.def.ghi refused"), "token [secret] refused");
        assert_eq!(of("a=\"slt_x1\" b=slt_y2"), "a=\"[secret]\" b=[secret]");
        assert_eq!(of("pkcs11:token=T?pin-value=1234&x"), "pkcs11:token=T?[secret]&x");
        assert_eq!(of("-----BEGIN PRIVATE KEY----- MIIB"), "[secret]");
        assert_eq!(of("two\nlines\u{1b}[31m"), "twolines[31m");
        assert_eq!(of(&"é".repeat(9_999)).chars().count(), LOG_LINE_CHARS_MAX);
    }
}

//! The word of the device's owner: for a while the device keeps what it serves. Said here, on the device, where no network is needed.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sealift_protocol::id::UnixMillis;
use sealift_protocol::limits::REASON_CHARS_MAX;
use sealift_protocol::report::Hold;

use crate::clock::system_time;
use crate::disk::{self, Secrecy};

const FILE: &str = "hold.json";

/// A time and a sentence.
const BYTES_MAX: u64 = 4 << 10;

/// A hold that somebody forgets ends by itself: nobody patches a device that is held for ever.
const HOLD_MAX_MS: i64 = 30 * 86_400_000;

/// How long, as people write it: `90s`, `30m`, `8h` or `2d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    millis: i64,
}

/// Text that is no such time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time such as 30m, 8h or 2d, of at most 30 days")]
pub struct InvalidSpan(String);

/// Why a hold was not written or taken away.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub struct HoldError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let units = [('s', 1_000), ('m', 60_000), ('h', 3_600_000), ('d', 86_400_000)];
        let read = |(unit, unit_ms): &(char, i64)| {
            let count: u32 = text.strip_suffix(*unit)?.parse().ok()?;
            i64::from(count).checked_mul(*unit_ms)
        };
        let millis = units.iter().find_map(read);
        let millis = millis.filter(|millis| (1..=HOLD_MAX_MS).contains(millis));
        millis.map(|millis| Self { millis }).ok_or_else(|| InvalidSpan(text.to_owned()))
    }
}

/// Has the device keep what it serves. A running agent takes it up within a second.
pub fn hold(store: &Path, span: Span, reason: &str) -> Result<Hold, HoldError> {
    let reason = reason.chars().take(REASON_CHARS_MAX).collect();
    let hold = Hold { until: system_time().plus(span.millis), reason };
    let path = store.join(FILE);
    let written = serde_json::to_vec(&hold).map_err(io::Error::other);
    let written = written.and_then(|text| disk::replace(&path, &text, Secrecy::Public));
    written.map_err(|source| HoldError { path, source })?;
    Ok(hold)
}

/// Has the device follow its directive again.
pub fn release(store: &Path) -> Result<(), HoldError> {
    let path = store.join(FILE);
    disk::remove(&path).map_err(|source| HoldError { path, source })
}

/// The hold that counts now. One that cannot be read is none: it must not keep a device from a repair.
pub(crate) fn read(store: &Path, now: UnixMillis) -> Option<Hold> {
    let bytes = disk::read(&store.join(FILE), BYTES_MAX).ok().flatten()?;
    let hold: Hold = serde_json::from_slice(&bytes).ok()?;
    (now < hold.until && hold.until <= now.plus(HOLD_MAX_MS)).then_some(hold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_people_write_it_and_ends_after_a_month() {
        assert_eq!("8h".parse(), Ok(Span { millis: 28_800_000 }));
        assert_eq!("30d".parse(), Ok(Span { millis: HOLD_MAX_MS }));
        for text in ["", "8", "h", "-1h", "31d", "0s", "1.5h", "8 h", "99999999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_hold_counts_until_it_is_over_or_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let held = hold(dir.path(), "1h".parse().unwrap(), "a visit").unwrap();

        assert_eq!(read(dir.path(), system_time()), Some(held.clone()));
        assert_eq!(read(dir.path(), held.until), None);
        // Written while the clock was far ahead.
        assert_eq!(read(dir.path(), UnixMillis(0)), None);
        release(dir.path()).unwrap();
        release(dir.path()).unwrap();
        assert_eq!(read(dir.path(), system_time()), None);
    }
}

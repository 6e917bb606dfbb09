//! When a device may be disturbed, in its own local time: a pure question about an instant and a time zone.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::id::UnixMillis;

const MINUTES_A_DAY: u16 = 24 * 60;

/// Monday to Sunday.
const EVERY_DAY: u8 = 0b111_1111;

/// Days by the names that people write, Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A week, and a day on which the clocks change.
const DAYS_AHEAD: i64 = 8;

/// A span of every day, or of some days, of the week, in the local time of the device: `22:00-06:00`, `sat,sun 00:00-24:00`.
///
/// Where clocks go forward, a window that would begin in the hour that is left out begins as much later, with its full length; where
/// they go back, it opens once, the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MaintenanceWindow {
    /// Days on which it begins; Monday is the lowest bit.
    days: u8,
    /// Minutes after midnight at which it begins, 0 to 1439.
    from_minute: u16,
    /// Minutes after midnight at which it ends, 0 to 1440; not after `from_minute` means on the next day.
    to_minute: u16,
}

/// The same as it comes over the wire.
#[derive(Deserialize)]
struct Unchecked {
    days: u8,
    from_minute: u16,
    to_minute: u16,
}

/// Why something is not a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no window; write `22:00-06:00`, or `sat,sun 00:00-24:00`")]
pub struct InvalidWindow(String);

/// Whether a window is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It is.
    Open {
        /// When it shuts.
        until: UnixMillis,
    },
    /// It is not.
    Shut {
        /// When it opens next.
        opens_at: UnixMillis,
    },
}

impl TryFrom<Unchecked> for MaintenanceWindow {
    type Error = InvalidWindow;

    fn try_from(given: Unchecked) -> Result<Self, InvalidWindow> {
        Self::new(given.days, given.from_minute, given.to_minute)
    }
}

impl MaintenanceWindow {
    /// A window that begins on `days`, of which Monday is the lowest bit.
    pub fn new(days: u8, from_minute: u16, to_minute: u16) -> Result<Self, InvalidWindow> {
        let is_valid = (1..=EVERY_DAY).contains(&days)
            && from_minute < MINUTES_A_DAY
            && to_minute <= MINUTES_A_DAY;
        if is_valid {
            return Ok(Self { days, from_minute, to_minute });
        }
        Err(InvalidWindow(format!("days {days:#b} from minute {from_minute} to {to_minute}")))
    }

    /// Whether it is open at `now` where the clocks show the time of `zone`, and when that changes.
    ///
    /// A window comes back within a week, whatever the zone does: what waits for one does not wait for ever.
    pub fn at(self, now: UnixMillis, zone: &TimeZone) -> Opening {
        let now_at = Timestamp::from_millisecond(now.0).unwrap_or(Timestamp::UNIX_EPOCH);
        let today = zone.to_datetime(now_at).date();
        // One that began the day before yesterday may last, where a day is an hour longer.
        let days =
            (-2..=DAYS_AHEAD).filter_map(|day| today.checked_add(Span::new().days(day)).ok());
        let spans = days.filter_map(|date| self.on(date, zone));
        match spans.into_iter().find(|(_, end)| now < *end) {
            Some((begin, until)) if begin <= now => Opening::Open { until },
            Some((opens_at, _)) => Opening::Shut { opens_at },
            // Only at the end of the calendar.
            None => Opening::Open { until: now },
        }
    }

    /// Begin and end of the window that begins on `date`, if one does.
    fn on(self, date: Date, zone: &TimeZone) -> Option<(UnixMillis, UnixMillis)> {
        if self.days >> date.weekday().to_monday_zero_offset() & 1 == 0 {
            return None;
        }
        let (from, to) = (date_time(date, self.from_minute)?, self.end_on(date)?);
        let begin = zone.to_ambiguous_timestamp(from);
        let is_left_out = matches!(begin.offset(), AmbiguousOffset::Gap { .. });
        let begin = begin.compatible().ok()?;
        let end = if is_left_out {
            begin.checked_add(from.duration_until(to)).ok()?
        } else {
            zone.to_ambiguous_timestamp(to).compatible().ok()?
        };
        let millis = |at: Timestamp| UnixMillis(at.as_millisecond());
        Some((millis(begin), millis(end)))
    }

    fn end_on(self, date: Date) -> Option<DateTime> {
        let is_over_midnight = self.to_minute <= self.from_minute;
        let date = if is_over_midnight { date.tomorrow().ok()? } else { date };
        date_time(date, self.to_minute)
    }
}

fn date_time(date: Date, minute: u16) -> Option<DateTime> {
    let midnight = date.to_datetime(jiff::civil::Time::midnight());
    midnight.checked_add(SignedDuration::from_mins(i64::from(minute))).ok()
}

impl FromStr for MaintenanceWindow {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let invalid = || InvalidWindow(text.chars().take(80).collect());
        let (days, span) = match text.split_once(' ') {
            Some((days, span)) => (days_of(days).ok_or_else(invalid)?, span),
            None => (EVERY_DAY, text),
        };
        let (from, to) = span.split_once('-').ok_or_else(invalid)?;
        let (from, to) = minutes(from).zip(minutes(to)).ok_or_else(invalid)?;
        // A day from noon to noon is written with its number; in a text it is more likely a slip.
        if from == to {
            return Err(invalid());
        }
        Self::new(days, from, to).map_err(|_| invalid())
    }
}

fn days_of(text: &str) -> Option<u8> {
    let day = |name: &str| DAYS.iter().position(|day| *day == name).map(|at| 1 << at);
    text.split(',').try_fold(0, |days, name| Some(days | day(name)?))
}

/// `HH:MM`, and `24:00` for the end of a day.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let is_plain = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    let (hour, minute): (u16, u16) = (is_plain(hour) && is_plain(minute))
        .then(|| Some((hour.parse().ok()?, minute.parse().ok()?)))??;
    let at = hour * 60 + minute;
    (minute < 60 && at <= MINUTES_A_DAY).then_some(at)
}

/// As people write it.
impl fmt::Display for MaintenanceWindow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = DAYS.iter().enumerate().filter(|(at, _)| self.days >> at & 1 == 1);
        let named: Vec<_> = named.map(|(_, name)| *name).collect();
        if self.days != EVERY_DAY {
            write!(out, "{} ", named.join(","))?;
        }
        let (from, to) = (self.from_minute, self.to_minute);
        write!(out, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec;
    use crate::directive::Trial;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn window(text: &str) -> MaintenanceWindow {
        text.parse().unwrap()
    }

    fn at(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    /// What is shown at `now`, in UTC: `+` and its end, or `-` and its begin.
    fn opening(text: &str, zone: &TimeZone, now: &str) -> String {
        let show = |at: UnixMillis| Timestamp::from_millisecond(at.0).unwrap().to_string();
        match window(text).at(at(now), zone) {
            Opening::Open { until } => format!("+{}", show(until)),
            Opening::Shut { opens_at } => format!("-{}", show(opens_at)),
        }
    }

    /// 2026-11-16 is a Monday.
    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let tokyo = zone("Asia/Tokyo");
        for (text, now, expected) in [
            ("22:00-06:00", "2026-11-16T12:59:59Z", "-2026-11-16T13:00:00Z"),
            ("22:00-06:00", "2026-11-16T13:00:00Z", "+2026-11-16T21:00:00Z"),
            ("22:00-06:00", "2026-11-16T20:59:59Z", "+2026-11-16T21:00:00Z"),
            ("22:00-06:00", "2026-11-16T21:00:00Z", "-2026-11-17T13:00:00Z"),
            ("fri 22:00-06:00", "2026-11-20T20:00:00Z", "+2026-11-20T21:00:00Z"),
            ("fri 22:00-06:00", "2026-11-19T20:00:00Z", "-2026-11-20T13:00:00Z"),
            ("mon 10:00-11:00", "2026-11-16T02:00:00Z", "-2026-11-23T01:00:00Z"),
            ("sat,sun 00:00-24:00", "2026-11-20T15:00:00Z", "+2026-11-21T15:00:00Z"),
        ] {
            assert_eq!(opening(text, &tokyo, now), expected, "{text} at {now}");
        }
    }

    /// In Berlin, 02:00 to 03:00 is left out on 2026-03-29.
    #[test]
    fn a_window_in_the_hour_that_is_left_out_opens_as_much_later() {
        let berlin = zone("Europe/Berlin");
        let now = "2026-03-29T00:00:00Z";
        for (text, opens, shuts) in [
            ("02:15-02:45", "2026-03-29T01:15:00Z", "2026-03-29T01:45:00Z"),
            ("02:30-03:00", "2026-03-29T01:30:00Z", "2026-03-29T02:00:00Z"),
            ("01:30-02:30", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"),
            ("01:30-05:00", "2026-03-29T00:30:00Z", "2026-03-29T03:00:00Z"),
        ] {
            assert_eq!(opening(text, &berlin, now), format!("-{opens}"), "{text}");
            assert_eq!(opening(text, &berlin, opens), format!("+{shuts}"), "{text}");
        }
    }

    /// In Berlin, 02:00 to 03:00 comes twice on 2026-10-25.
    #[test]
    fn a_window_in_the_hour_that_comes_twice_opens_the_first_time() {
        let berlin = zone("Europe/Berlin");
        let now = "2026-10-24T23:00:00Z";
        for (text, opens, shuts) in [
            ("02:15-02:45", "2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z"),
            ("02:30-04:00", "2026-10-25T00:30:00Z", "2026-10-25T03:00:00Z"),
            ("01:30-02:30", "2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z"),
        ] {
            assert_eq!(opening(text, &berlin, now), format!("-{opens}"), "{text}");
            assert_eq!(opening(text, &berlin, opens), format!("+{shuts}"), "{text}");
        }
        assert_eq!(
            opening("02:15-02:45", &berlin, "2026-10-25T01:20:00Z"),
            "-2026-10-26T01:15:00Z",
            "the second time"
        );
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for (days, from, to) in [(0, 0, 60), (128, 0, 60), (1, 1_440, 60), (1, 0, 1_441)] {
            assert!(MaintenanceWindow::new(days, from, to).is_err());
            let json = serde_json::json!({"days": days, "from_minute": from, "to_minute": to});
            assert!(serde_json::from_value::<MaintenanceWindow>(json).is_err());
        }
        let wrong = [
            "",
            "22-6",
            "22:00",
            "25:00-26:00",
            "22:00-22:00",
            "24:00-01:00",
            "x 22:00-23:00",
            "22:00-06:60",
            "+2:00-06:00",
            "22:00 - 06:00",
        ];
        for text in wrong {
            assert!(text.parse::<MaintenanceWindow>().is_err(), "{text}");
        }
    }

    /// Kept bytes: they are part of the digest of a rollout that has a window.
    #[test]
    fn a_window_is_written_as_it_always_was_and_none_is_not_written() {
        let trial = Trial { window: Some(window("sat,sun 22:00-06:00")), ..Trial::default() };
        let bytes = codec::encode(&trial).unwrap();
        let kept = "a66b70726f626174696f6e5f731902586777617463685f731a000151806b637261736865735f6d6178\
                    02736572726f72735f6d61785f7065726d696c6c6518c86c72657175657374735f6d696e146677696e\
                    646f77a3646461797318606b66726f6d5f6d696e75746519052869746f5f6d696e757465190168";
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex.concat(), kept);
        assert_eq!(codec::decode::<Trial>("trial", &bytes, 1_000).unwrap(), trial);
        let without = serde_json::to_value(Trial::default()).unwrap();
        assert!(without.get("window").is_none(), "digests of earlier rollouts stay");
    }

    proptest! {
        /// In every zone, at every time, a window opens within a week and a day, and what it says of itself is so.
        #[test]
        fn every_window_opens_within_a_week(
            days in 1_u8..128, from in 0_u16..1_440, to in 0_u16..=1_440,
            now in 1_700_000_000_000_i64..1_900_000_000_000,
            name in prop::sample::select(vec![
                "UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe",
                "America/St_Johns", "Asia/Kathmandu", "Pacific/Chatham", "Africa/Casablanca",
            ]),
        ) {
            let (zone, now) = (zone(name), UnixMillis(now));
            let window = MaintenanceWindow::new(days, from, to).unwrap();
            let opens_at = match window.at(now, &zone) {
                Opening::Open { until } => {
                    prop_assert!(now < until && until.since(now) <= 25 * 3_600_000);
                    return Ok(());
                }
                Opening::Shut { opens_at } => opens_at,
            };
            prop_assert!(now < opens_at && opens_at.since(now) <= 8 * 86_400_000);
            let is_open = matches!(window.at(opens_at, &zone), Opening::Open { .. });
            prop_assert!(is_open);
            let before = window.at(opens_at.plus(-1), &zone);
            prop_assert_eq!(before, Opening::Shut { opens_at });
        }

        /// What is written is what is read.
        #[test]
        fn a_window_is_read_as_it_is_shown(days in 1_u8..128, from in 0_u16..1_440, to in 0_u16..=1_440) {
            prop_assume!(from != to);
            let window = MaintenanceWindow::new(days, from, to).unwrap();
            prop_assert_eq!(window.to_string().parse(), Ok(window));
        }
    }
}

//! When downloads may run, in the local time of the device: a pure question about a time of the week.

use std::str::FromStr;

use jiff::civil::{DateTime, Time, Weekday};
use serde::Deserialize;

const MINUTES_A_DAY: i32 = 24 * 60;

/// Days by the names that people write, Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A span of every day, or of some days, of the week: `22:00-06:00`, `sat,sun 00:00-24:00`. One that ends before it begins goes on
/// into the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Window {
    /// Monday is the lowest bit: days on which it begins.
    days: u8,
    /// Minutes after midnight.
    from: i32,
    to: i32,
}

/// Why a text is not a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no window; write `22:00-06:00`, or `sat,sun 00:00-24:00`")]
pub struct InvalidWindow(String);

impl TryFrom<String> for Window {
    type Error = InvalidWindow;

    fn try_from(text: String) -> Result<Self, InvalidWindow> {
        text.parse()
    }
}

impl FromStr for Window {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let invalid = || InvalidWindow(text.to_owned());
        let (days, span) = text.split_once(' ').unwrap_or(("mon,tue,wed,thu,fri,sat,sun", text));
        let day = |name: &str| DAYS.iter().position(|day| *day == name).map(|at| 1 << at);
        let days = days.split(',').try_fold(0, |days, name| Some(days | day(name)?));
        let (from, to) = span.split_once('-').ok_or_else(invalid)?;
        let (from, to) = minutes(from).zip(minutes(to)).ok_or_else(invalid)?;
        if from == to || from == MINUTES_A_DAY {
            return Err(invalid());
        }
        Ok(Self { days: days.ok_or_else(invalid)?, from, to })
    }
}

/// `HH:MM`, and `24:00` for the end of a day.
fn minutes(text: &str) -> Option<i32> {
    let (hour, minute) = text.split_once(':')?;
    let is_plain = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    let (hour, minute): (i32, i32) = (is_plain(hour) && is_plain(minute))
        .then(|| Some((hour.parse().ok()?, minute.parse().ok()?)))??;
    let at = hour * 60 + minute;
    (minute < 60 && at <= MINUTES_A_DAY).then_some(at)
}

impl Window {
    fn is_open(self, local: DateTime) -> bool {
        let at = minute_of(local.time());
        let today = self.begins_on(local.weekday());
        if self.from < self.to {
            return today && (self.from..self.to).contains(&at);
        }
        let yesterday = self.begins_on(local.weekday().previous());
        (today && at >= self.from) || (yesterday && at < self.to)
    }

    fn begins_on(self, day: Weekday) -> bool {
        self.days >> day.to_monday_zero_offset() & 1 == 1
    }
}

fn minute_of(time: Time) -> i32 {
    i32::from(time.hour()) * 60 + i32::from(time.minute())
}

/// Minutes until one of the windows is open, at most `most`; none if one is open, or there are none at all.
pub(crate) fn opens_in(windows: &[Window], local: DateTime, most: i32) -> Option<i32> {
    let is_open = |local: DateTime| windows.iter().any(|window| window.is_open(local));
    if windows.is_empty() || is_open(local) {
        return None;
    }
    let later = |minutes: &i32| {
        let span = jiff::Span::new().minutes(i64::from(*minutes));
        local.checked_add(span).is_ok_and(is_open)
    };
    Some((1..most).find(later).unwrap_or(most))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    /// 2026-11-16 is a Monday.
    fn on(day: i8, hour: i8, minute: i8) -> DateTime {
        date(2026, 11, 16 + day).at(hour, minute, 0, 0)
    }

    fn opens(windows: &[&str], at: DateTime) -> Option<i32> {
        let windows: Vec<_> = windows.iter().map(|text| text.parse().unwrap()).collect();
        opens_in(&windows, at, 15)
    }

    #[test]
    fn without_a_window_it_is_always_open() {
        assert_eq!(opens(&[], on(0, 12, 0)), None);
    }

    #[test]
    fn a_window_over_midnight_goes_on_into_the_next_day() {
        assert_eq!(opens(&["22:00-06:00"], on(0, 21, 52)), Some(8));
        assert_eq!(opens(&["22:00-06:00"], on(0, 22, 0)), None);
        assert_eq!(opens(&["22:00-06:00"], on(1, 5, 59)), None);
        assert_eq!(opens(&["22:00-06:00"], on(1, 6, 0)), Some(15));
        assert_eq!(opens(&["fri 22:00-06:00"], on(5, 5, 59)), None, "Friday's, on Saturday");
        assert_eq!(opens(&["fri 22:00-06:00"], on(4, 5, 59)), Some(15), "Thursday has none");
    }

    #[test]
    fn days_and_several_windows_are_kept_apart() {
        assert_eq!(opens(&["sat,sun 00:00-24:00"], on(5, 12, 0)), None);
        assert_eq!(opens(&["sat,sun 00:00-24:00"], on(4, 23, 59)), Some(1));
        assert_eq!(opens(&["sat 08:00-09:00", "12:00-13:00"], on(0, 12, 30)), None);
    }

    #[test]
    fn what_is_no_window_is_refused() {
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
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
    }
}

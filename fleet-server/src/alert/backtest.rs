//! What a rule would have done with what was recorded. Values in, firings out.

use sealift_protocol::id::UnixMillis;

/// A time in which something held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: UnixMillis,
    /// None if it still holds.
    pub(crate) until: Option<UnixMillis>,
}

/// One time that people would have been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Firing {
    pub(crate) at: UnixMillis,
    pub(crate) until: Option<UnixMillis>,
}

/// The times in which something held for so long, each from when people would have been told.
pub(crate) fn firings(spans: &[Span], hold_ms: i64, now: UnixMillis) -> Vec<Firing> {
    let fired = |span: &Span| {
        let at = span.from.plus(hold_ms);
        (at <= span.until.unwrap_or(now)).then_some(Firing { at, until: span.until })
    };
    spans.iter().filter_map(fired).collect()
}

/// The times in which at least `least` of the spans held at once. Ends count before begins of the same moment.
pub(crate) fn at_once(spans: &[Span], least: u64) -> Vec<Span> {
    let least = i64::try_from(least.max(1)).unwrap_or(i64::MAX);
    let begins = spans.iter().map(|span| (span.from, 1_i64));
    let ends = spans.iter().filter_map(|span| span.until.map(|until| (until, -1_i64)));
    let mut steps: Vec<_> = begins.chain(ends).collect();
    steps.sort_unstable();
    let (mut count, mut since, mut found) = (0, None, Vec::new());
    for (at, step) in steps {
        count += step;
        match since {
            // One begins as another ends: it has held all the while.
            None if count >= least => {
                since =
                    found.pop_if(|span: &mut Span| span.until == Some(at)).map(|span| span.from);
                since = since.or(Some(at));
            }
            Some(from) if count < least => {
                found.push(Span { from, until: Some(at) });
                since = None;
            }
            None | Some(_) => (),
        }
    }
    found.extend(since.map(|from| Span { from, until: None }));
    found
}

/// The times in which a device was away, from when it came and went; the first entry says how it was before. Oldest first.
pub(crate) fn absences(comings: &[(UnixMillis, bool)]) -> Vec<Span> {
    let (mut away_since, mut found) = (None, Vec::new());
    for &(at, is_here) in comings {
        match (away_since, is_here) {
            (None, false) => away_since = Some(at),
            (Some(from), true) => {
                found.push(Span { from, until: Some(at) });
                away_since = None;
            }
            (None, true) | (Some(_), false) => (),
        }
    }
    found.extend(away_since.map(|from| Span { from, until: None }));
    found
}

/// When a device had left so often within a time, as spans from the last of them on. `comings` as in [`absences`].
pub(crate) fn flappings(comings: &[(UnixMillis, bool)], often: usize, within_ms: i64) -> Vec<Span> {
    let left: Vec<_> = comings.iter().filter(|(_, is_here)| !is_here).map(|&(at, _)| at).collect();
    let mut found: Vec<Span> = Vec::new();
    for window in left.windows(often.max(1)) {
        let (Some(&first), Some(&last)) = (window.first(), window.last()) else { continue };
        if last.since(first) > within_ms {
            continue;
        }
        let until = Some(first.plus(within_ms));
        match found.last_mut().filter(|span| span.until >= Some(last)) {
            Some(span) => span.until = until,
            None => found.push(Span { from: last, until }),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(from: i64, until: impl Into<Option<i64>>) -> Span {
        Span { from: UnixMillis(from), until: until.into().map(UnixMillis) }
    }

    #[test]
    fn what_held_for_long_enough_would_have_fired_then() {
        let spans = [span(0, 9), span(20, 30), span(95, None)];
        let now = UnixMillis(100);
        let at = |hold| firings(&spans, hold, now).iter().map(|it| it.at.0).collect::<Vec<_>>();
        assert_eq!(at(0), [0, 20, 95]);
        assert_eq!(at(10), [30]);
        assert_eq!(at(5), [5, 25, 100]);
        assert_eq!(at(11), Vec::<i64>::new());
    }

    #[test]
    fn a_device_is_away_from_its_going_to_its_coming() {
        let comings = [(0, true), (10, false), (12, false), (20, true), (30, false)];
        let comings = comings.map(|(at, is_here)| (UnixMillis(at), is_here));
        assert_eq!(absences(&comings), [span(10, 20), span(30, None)]);
        assert_eq!(flappings(&comings, 3, 100), [span(30, 110)]);
        assert_eq!(flappings(&comings, 3, 19), []);
    }

    #[test]
    fn so_many_at_once_is_from_the_last_to_come_to_the_first_to_go() {
        let spans = [span(0, 20), span(10, 40), span(15, 30), span(50, None)];
        assert_eq!(at_once(&spans, 2), [span(10, 30)]);
        assert_eq!(at_once(&spans, 3), [span(15, 20)]);
        assert_eq!(at_once(&spans, 1), [span(0, 40), span(50, None)]);
        assert_eq!(at_once(&[span(0, 10), span(10, 20)], 2), []);
        assert_eq!(at_once(&[span(0, 10), span(10, 20)], 1), [span(0, 20)]);
    }

    proptest! {
        #[test]
        fn a_longer_hold_never_fires_more(
            times in prop::collection::vec((0_i64..1_000, 1_i64..200), 0..20),
            hold in 0_i64..300,
        ) {
            let spans: Vec<_> =
                times.iter().map(|&(from, length)| span(from, from + length)).collect();
            let now = UnixMillis(10_000);
            let count = |hold| firings(&at_once(&spans, 2), hold, now).len();
            prop_assert!(count(hold) <= count(0));
        }
    }
}

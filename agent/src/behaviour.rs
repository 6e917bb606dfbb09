//! How an image behaves while it is on trial: whether its engine is slower, its confidence lower or a class rarer than with the image
//! before, on the same device, at the same hours of the day, on inputs that look alike. Pure.
//!
//! ```text
//!  answers ─▶ Block ──▶ Habits        what an image shows by the hour of the day, and how much that varies; kept on disk by image
//!            (32 of them) │
//!                 └─────▶ Judge       on trial: blocks beside the habits of the image before ──▶ Misstep
//! ```
//! What changes from day to night or with the weather must not look like the image's fault. So each block is set beside the same hours of
//! the image before; a difference must stand out from how much that image's own blocks differed, for as long as the rules say; where the
//! inputs themselves look otherwise than before, or the hours were never seen, nothing is said.

mod block;
mod habits;
mod judge;
#[cfg(test)]
mod simulation;

use sealift_protocol::directive::Behaviour;

pub(crate) use block::Block;
pub(crate) use habits::{HABITS_BYTES_MAX, Habits, Signed, hour_of};
pub(crate) use judge::Judge;

/// What an image on trial does worse, and by what that is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misstep {
    pub(crate) kind: Kind,
    /// What was to be expected: microseconds, or thousandths.
    pub(crate) before: u32,
    /// What was seen.
    pub(crate) now: u32,
    /// In how many requests.
    pub(crate) requests: u64,
    /// Within which time.
    pub(crate) lasted_s: u64,
}

/// What is done worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The engine takes longer than with the image before.
    Latency,
    /// It takes longer than at first; the image before is not known.
    LatencyThanAtFirst,
    /// The most likely class is less certain.
    Confidence,
    /// This class is hardly predicted any more.
    Class(usize),
}

impl Misstep {
    /// The stable code.
    pub(crate) const fn code(&self) -> &'static str {
        match self.kind {
            Kind::Latency | Kind::LatencyThanAtFirst => "trial.latency",
            Kind::Confidence => "trial.confidence",
            Kind::Class(_) => "trial.drift",
        }
    }

    /// The limit that it goes beyond, in per mille; none if there is no such rule any more.
    pub(crate) const fn limit_permille(&self, rules: &Behaviour) -> Option<u16> {
        let limit = match self.kind {
            Kind::Latency | Kind::LatencyThanAtFirst => rules.latency_rise_permille,
            Kind::Confidence => rules.confidence_drop_permille,
            Kind::Class(_) => rules.class_loss_permille,
        };
        if limit == 0 { None } else { Some(limit) }
    }

    /// The figures, for people.
    pub(crate) fn reason(&self, limit_permille: u16) -> String {
        let Self { kind, before, now, requests, lasted_s } = *self;
        let (before, now) = (f64::from(before), f64::from(now));
        let limit = f64::from(limit_permille) / 10.0;
        let slower = |than: &str| {
            let (before_ms, now_ms) = (before / 1_000.0, now / 1_000.0);
            let rise = 100.0 * (now / before.max(1.0) - 1.0);
            format!(
                "the engine takes {now_ms:.2} ms, {before_ms:.2} ms {than}: {rise:.0} % more, {limit:.0} % may be"
            )
        };
        let (before_share, now_share) = (before / 10.0, now / 10.0);
        let what = match kind {
            Kind::Latency => slower("with the image before"),
            Kind::LatencyThanAtFirst => slower("at first"),
            Kind::Confidence => format!(
                "confidence is {now_share:.1} %, {before_share:.1} % was to be expected from the image before: {:.1} points less, {limit:.1} may be",
                before_share - now_share
            ),
            Kind::Class(class) => format!(
                "class {class} is {now_share:.1} % of predictions, {before_share:.1} % was to be expected from the image before: it may lose {limit:.0} % of that"
            ),
        };
        format!("{what}; {requests} requests in {lasted_s} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misstep_tells_its_figures() {
        let of = |kind, before, now| Misstep { kind, before, now, requests: 640, lasted_s: 301 };
        let rules = Behaviour {
            latency_rise_permille: 250,
            confidence_drop_permille: 100,
            class_loss_permille: 0,
            ..Behaviour::OFF
        };
        let slow = of(Kind::Latency, 10_000, 15_100);
        assert_eq!((slow.code(), slow.limit_permille(&rules)), ("trial.latency", Some(250)));
        assert_eq!(
            slow.reason(250),
            "the engine takes 15.10 ms, 10.00 ms with the image before: 51 % more, 25 % may be; 640 requests in 301 s"
        );
        let unsure = of(Kind::Confidence, 880, 715);
        assert_eq!(
            unsure.reason(100),
            "confidence is 71.5 %, 88.0 % was to be expected from the image before: 16.5 points less, 10.0 may be; 640 requests in 301 s"
        );
        let lost = of(Kind::Class(3), 121, 2);
        assert_eq!((lost.code(), lost.limit_permille(&rules)), ("trial.drift", None));
        assert!(lost.reason(500).starts_with("class 3 is 0.2 % of predictions, 12.1 % was"));
    }
}

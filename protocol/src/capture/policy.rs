//! By which rules predictions of one model are kept, how many at most, and what the people concerned are told.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{
    CAPTURE_KEEP_DAYS_MAX, CAPTURE_KIB_A_DAY_MAX, CAPTURE_SAMPLES_A_DAY_MAX, NOTICE_CHARS_MAX,
};

/// A share, in millionths: exact, and the same on every machine.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Ppm(pub u32);

impl Ppm {
    /// All of it.
    pub const WHOLE: Self = Self(1_000_000);

    /// The nearest to a share from 0 to 1; none for anything else.
    pub fn of_share(share: f64) -> Option<Self> {
        if !(0.0..=1.0).contains(&share) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "was just compared"
        )]
        let ppm = (share * f64::from(Self::WHOLE.0)).round() as u32;
        Some(Self(ppm))
    }

    /// As a number from 0 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE.0)
    }
}

impl fmt::Display for Ppm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 10_000.0)
    }
}

/// What a device keeps of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturePolicy {
    /// A prediction whose confidence is below this.
    #[serde(default)]
    pub below: Option<Ppm>,
    /// A prediction whose two likeliest classes are less than this apart.
    #[serde(default)]
    pub margin: Option<Ppm>,
    /// A prediction that a shadow of the model does not share.
    #[serde(default)]
    pub disagreement: bool,
    /// Any prediction, by chance: without these nobody knows how good the confident ones are.
    #[serde(default)]
    pub share: Ppm,
    /// Samples that a device keeps in a day (UTC).
    pub samples_a_day: u32,
    /// KiB that a device keeps in a day (UTC).
    pub kib_a_day: u32,
    /// Days after which the server deletes a sample.
    pub keep_days: u32,
    /// What the people whom it is about were told: what is kept, why, for how long.
    pub notice: String,
}

/// Why a policy is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// More than all.
    #[error("{what} is {given} millionths, more than the whole")]
    Share {
        /// Which rule.
        what: &'static str,
        /// What it says.
        given: u32,
    },
    /// It keeps nothing.
    #[error(
        "no rule keeps anything: a confidence, a margin, disagreement or a share must be given"
    )]
    Empty,
    /// A number out of its range.
    #[error("{what} is {given}, not 1 to {max}")]
    Range {
        /// Which.
        what: &'static str,
        /// What it says.
        given: u32,
        /// The most that it may say.
        max: u32,
    },
    /// No notice, or too long a one.
    #[error("retention notice has {0} characters, not 1 to {NOTICE_CHARS_MAX}")]
    Notice(usize),
}

impl CapturePolicy {
    /// Whether it can be followed.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        let (below, margin) = (self.below.unwrap_or_default(), self.margin.unwrap_or_default());
        for (what, Ppm(given)) in [("confidence", below), ("margin", margin), ("share", self.share)]
        {
            if given > Ppm::WHOLE.0 {
                return Err(InvalidPolicy::Share { what, given });
            }
        }
        let keeps_nothing = [below, margin, self.share].iter().all(|share| share.0 == 0);
        if keeps_nothing && !self.disagreement {
            return Err(InvalidPolicy::Empty);
        }
        for (what, given, max) in [
            ("samples a day", self.samples_a_day, CAPTURE_SAMPLES_A_DAY_MAX),
            ("KiB a day", self.kib_a_day, CAPTURE_KIB_A_DAY_MAX),
            ("days kept", self.keep_days, CAPTURE_KEEP_DAYS_MAX),
        ] {
            if !(1..=max).contains(&given) {
                return Err(InvalidPolicy::Range { what, given, max });
            }
        }
        let chars = self.notice.trim().chars().count();
        if (1..=NOTICE_CHARS_MAX).contains(&chars) {
            Ok(())
        } else {
            Err(InvalidPolicy::Notice(chars))
        }
    }

    /// The notice as people read it, with what the rules add to it.
    pub fn notice_text(&self) -> String {
        let mut rules = Vec::new();
        rules.extend(self.below.map(|below| format!("confidence below {below}")));
        rules.extend(self.margin.map(|margin| format!("a margin below {margin}")));
        rules.extend(self.disagreement.then(|| "another answer than its shadow's".to_owned()));
        rules.extend((self.share.0 > 0).then(|| format!("a random {}", self.share)));
        format!(
            "{} (kept: predictions with {}; at most {} samples and {} KiB a device and day; \
             deleted after {} days)",
            self.notice.trim(),
            rules.join(", or "),
            self.samples_a_day,
            self.kib_a_day,
            self.keep_days
        )
    }
}

//! How a new image compares with the live one, on the inputs that both have seen.

use serde::{Deserialize, Serialize};

use super::ImageRef;
use crate::id::UnixMillis;

/// A new image beside the live one, as of now; and afterwards, how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Shadowed {
    /// The new image.
    pub image: ImageRef,
    /// The live one.
    pub live: ImageRef,
    /// When it began, by the device's clock: counts of another begin are other counts.
    pub since: UnixMillis,
    /// What was counted since.
    pub counts: ShadowCounts,
}

/// Counts of one shadow from its begin on, so that a report that is lost or comes twice loses and doubles nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShadowCounts {
    /// Rows that both have answered, or the new image has failed to.
    pub rows: u64,
    /// Of these, rows on which they agree.
    pub agreed: u64,
    /// Requests that both have answered.
    pub requests: u64,
    /// Requests that the new image has failed; their rows count as rows on which they differ.
    pub failed: u64,
    /// Requests that it was not shown: beyond its share of the processor, or too large.
    pub skipped: u64,
    /// Microseconds in the engine of the live image, for the requests that both have answered.
    pub live_us: u64,
    /// In that of the new one.
    pub shadow_us: u64,
    /// Requests of applications that the new image has answered instead of the live one.
    pub answered: u64,
    /// Requests that it should have answered, and the live one did.
    pub returned: u64,
}

impl ShadowCounts {
    /// Adds what was counted elsewhere, or later.
    pub fn merge(&mut self, other: &Self) {
        self.each(other, u64::saturating_add);
    }

    /// What came since `before`, which was counted earlier of the same shadow.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        since.each(before, u64::saturating_sub);
        since
    }

    /// The share of rows on which they agree; none before there are rows.
    #[expect(clippy::cast_precision_loss, reason = "counts of rows; 53 bits are enough")]
    pub fn agreement(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.agreed as f64 / self.rows as f64)
    }

    /// Mean microseconds in the engine: of the live image, and of the new one.
    pub fn mean_us(&self) -> Option<(u64, u64)> {
        let mean = |sum: u64| sum.checked_div(self.requests);
        Some((mean(self.live_us)?, mean(self.shadow_us)?))
    }

    /// Whether these can be counts at all, none of them above `max`.
    pub fn is_sound(&self, max: u64) -> bool {
        let Self {
            rows,
            agreed,
            requests,
            failed,
            skipped,
            live_us,
            shadow_us,
            answered,
            returned,
        } = *self;
        let all = [rows, requests, failed, skipped, live_us, shadow_us, answered, returned];
        agreed <= rows && all.into_iter().all(|count| count <= max)
    }

    fn each(&mut self, other: &Self, of: fn(u64, u64) -> u64) {
        let Self {
            rows,
            agreed,
            requests,
            failed,
            skipped,
            live_us,
            shadow_us,
            answered,
            returned,
        } = self;
        for (mine, others) in [
            (rows, other.rows),
            (agreed, other.agreed),
            (requests, other.requests),
            (failed, other.failed),
            (skipped, other.skipped),
            (live_us, other.live_us),
            (shadow_us, other.shadow_us),
            (answered, other.answered),
            (returned, other.returned),
        ] {
            *mine = of(*mine, others);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts() -> impl Strategy<Value = ShadowCounts> {
        prop::array::uniform9(0_u64..1 << 40).prop_map(|of| ShadowCounts {
            rows: of[0].max(of[1]),
            agreed: of[0].min(of[1]),
            requests: of[2],
            failed: of[3],
            skipped: of[4],
            live_us: of[5],
            shadow_us: of[6],
            answered: of[7],
            returned: of[8],
        })
    }

    fn sum(parts: &[ShadowCounts]) -> ShadowCounts {
        let mut all = ShadowCounts::default();
        for part in parts {
            all.merge(part);
        }
        all
    }

    proptest! {
        /// In whatever order and groups they come, and cut wherever a report happened to be, the sums are the same.
        #[test]
        fn counts_merge_exactly(a in counts(), b in counts(), c in counts()) {
            let all = sum(&[a, b, c]);
            prop_assert_eq!(all, sum(&[c, sum(&[b, a])]));
            prop_assert_eq!(all.since(&sum(&[a, b])), c);
            prop_assert!(all.is_sound(u64::MAX));
        }
    }

    #[test]
    fn shares_and_means_are_of_what_was_compared() {
        assert_eq!(
            (ShadowCounts::default().agreement(), ShadowCounts::default().mean_us()),
            (None, None)
        );
        let counts = ShadowCounts {
            rows: 4,
            agreed: 3,
            requests: 2,
            live_us: 100,
            shadow_us: 300,
            ..ShadowCounts::default()
        };
        assert_eq!((counts.agreement(), counts.mean_us()), (Some(0.75), Some((50, 150))));
        assert!(!ShadowCounts { agreed: 5, ..counts }.is_sound(1_000));
        assert!(!counts.is_sound(299));
    }
}

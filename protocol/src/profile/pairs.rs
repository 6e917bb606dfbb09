//! How numeric inputs go together: for each pair the rows in which both are low or both high, and those in which one is low and the
//! other high.
//!
//! Two features can keep their own distributions while what ties them breaks: a sensor mounted the wrong way, columns swapped. Counts
//! of rows add up exactly, as sums of products would not, and one outlier is one row and no more. Low and high are about three tenths
//! of the reference each ([`super::NumericReference::low_and_high`]); of the rows between nothing is said, which for a bell curve keeps two
//! thirds of what a coefficient of correlation knows, where halves would keep two fifths.

/// Inputs beyond which pairs are not counted: 2,016 pairs are 8 KB a window.
pub const PAIR_FEATURES_MAX: usize = 64;

/// Rows that are gathered before pairs are counted, one bit for each.
const GATHERED: u32 = 64;

/// Counts that so many numeric inputs have: two a pair, and none if there are too few or too many.
pub(super) const fn counts_of(features: usize) -> usize {
    if features > PAIR_FEATURES_MAX { 0 } else { features * features.saturating_sub(1) }
}

/// The two features of each pair, in the order of the counts.
pub fn pairs(features: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..features).flat_map(move |left| (left + 1..features).map(move |right| (left, right)))
}

/// Counts pairs, 64 rows at a time.
#[derive(Debug, Clone)]
pub(super) struct PairCounter {
    /// For each numeric input what is low and what is high; nothing is either for a constant.
    bounds: Vec<(f32, f32)>,
    low: Vec<u64>,
    high: Vec<u64>,
    gathered: u32,
}

impl PairCounter {
    /// A counter for inputs with these bounds.
    pub(super) fn new(bounds: Vec<(f32, f32)>) -> Self {
        let zeros = vec![0; bounds.len()];
        Self { bounds, low: zeros.clone(), high: zeros, gathered: 0 }
    }

    /// Bounds of a feature that is neither low nor high.
    pub(super) const NEITHER: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

    /// Takes the value of an input in the current row.
    #[inline]
    pub(super) fn take(&mut self, feature: usize, value: f32) {
        let (Some((low, high)), Some(lows), Some(highs)) =
            (self.bounds.get(feature), self.low.get_mut(feature), self.high.get_mut(feature))
        else {
            return;
        };
        *lows |= u64::from(value <= *low) << self.gathered;
        *highs |= u64::from(value > *high) << self.gathered;
    }

    /// Ends the current row.
    #[inline]
    pub(super) fn end_row(&mut self, counts: &mut [u64]) {
        self.gathered += 1;
        if self.gathered == GATHERED {
            self.count(counts);
        }
    }

    /// Adds what is gathered to `counts`.
    pub(super) fn count(&mut self, counts: &mut [u64]) {
        if self.gathered == 0 {
            return;
        }
        let mut counts = counts.as_chunks_mut::<2>().0.iter_mut();
        let features = || self.low.iter().zip(&self.high);
        for (place, (low, high)) in features().enumerate() {
            for (other_low, other_high) in features().skip(place + 1) {
                let Some([concordant, discordant]) = counts.next() else { break };
                *concordant += u64::from((low & other_low | high & other_high).count_ones());
                *discordant += u64::from((low & other_high | high & other_low).count_ones());
            }
        }
        self.low.fill(0);
        self.high.fill(0);
        self.gathered = 0;
    }
}

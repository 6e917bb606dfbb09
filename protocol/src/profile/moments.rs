//! Sum and sum of squares that come out the same to the bit, whatever the order and the grouping of the values.
//!
//! Floating-point addition is not associative, so two servers that merge the same windows in another order would disagree. Here each
//! value is first rounded to a whole number of *quanta*, a power of two that the baseline fixes, and only those whole numbers are
//! added. Rounding one value depends on nothing but that value, and integer addition is associative and commutative. A quantum is
//! 2⁻²⁷ of the largest reference value or finer, so what rounding loses is below the precision of the `f32` that came in. A
//! superaccumulator over all of `f32` would lose nothing, but takes 120 bytes a feature where this takes 15.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The largest reference value is between 2^27 and 2^28 quanta.
const REFERENCE_BITS: i32 = 28;

/// Values beyond 2^40 quanta, 4,096 times the reference range, are clipped to it and counted. With [`super::ROWS_MAX`] rows of 2^40
/// the sum of squares stays at 2^120, inside `i128`.
const QUANTA_MAX: i64 = 1 << 40;

/// Adding this to a double of less than 2^51 rounds it to a whole number, ties to even, and leaves that number in the low bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// How many quanta make one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    quanta_per_one: f64,
}

impl Scale {
    /// The scale for a feature whose reference values lie between these finite bounds.
    pub(super) fn of_range(min: f32, max: f32) -> Self {
        let largest = f64::from(min.abs().max(max.abs()));
        let largest = if largest > 0.0 { largest } else { 1.0 };
        Self { quanta_per_one: power_of_two(REFERENCE_BITS - 1 - exponent(largest)) }
    }

    fn quanta(self, value: f32) -> (i64, bool) {
        let limit = quanta_to_f64(i128::from(QUANTA_MAX));
        let exact = f64::from(value) * self.quanta_per_one;
        let bounded = exact.clamp(-limit, limit);
        let whole = (bounded + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()).cast_signed();
        (whole, exact.abs() > limit)
    }
}

/// The floor of the binary logarithm of a positive normal number; every finite `f32` but zero is one as an `f64`.
fn exponent(value: f64) -> i32 {
    let biased = (value.to_bits() >> 52) & 0x7ff;
    i32::try_from(biased).unwrap_or(0) - 1023
}

/// Two to the `power`, exactly, for the powers that `f32` ranges lead to (-101 to 176).
fn power_of_two(power: i32) -> f64 {
    f64::from_bits(u64::from((power + 1023).unsigned_abs()) << 52)
}

#[expect(clippy::cast_precision_loss, reason = "the nearest double is what is wanted of a sum")]
fn quanta_to_f64(quanta: i128) -> f64 {
    quanta as f64
}

/// Smallest and largest value, sum and sum of squares of the finite values of one feature.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Moments {
    /// Absent as long as there was no value.
    pub(super) range: Option<(f32, f32)>,
    pub(super) sum: Wide,
    pub(super) squares: Wide,
    /// Values so large that they were clipped in the sums.
    pub(super) clipped: u64,
}

impl Moments {
    /// Takes one finite value.
    pub(super) fn take(&mut self, value: f32, scale: Scale) {
        // Adding zero turns -0.0 into 0.0: which of the two came first must not show in the minimum.
        let value = value + 0.0;
        let (quanta, is_clipped) = scale.quanta(value);
        self.sum.0 += i128::from(quanta);
        self.squares.0 += i128::from(quanta) * i128::from(quanta);
        self.clipped += u64::from(is_clipped);
        let (min, max) = self.range.unwrap_or((value, value));
        self.range = Some((min.min(value), max.max(value)));
    }

    /// Adds the values that `other` has seen.
    pub(super) fn merge(&mut self, other: &Self) {
        self.sum.0 = self.sum.0.saturating_add(other.sum.0);
        self.squares.0 = self.squares.0.saturating_add(other.squares.0);
        self.clipped = self.clipped.saturating_add(other.clipped);
        self.range = match (self.range, other.range) {
            (Some((min, max)), Some((low, high))) => Some((min.min(low), max.max(high))),
            (mine, theirs) => mine.or(theirs),
        };
    }

    /// Mean and standard deviation (of the population) of `n` values.
    pub(super) fn mean_and_sd(&self, n: u64, scale: Scale) -> Option<(f64, f64)> {
        let n = (n > 0).then(|| quanta_to_f64(i128::from(n)))?;
        let mean = quanta_to_f64(self.sum.0) / n;
        let variance = (quanta_to_f64(self.squares.0) / n - mean * mean).max(0.0);
        Some((mean / scale.quanta_per_one, variance.sqrt() / scale.quanta_per_one))
    }

    /// Whether `n` values can have led to these sums and this range.
    pub(super) fn fits(&self, n: u64) -> bool {
        let largest = i128::from(n).saturating_mul(i128::from(QUANTA_MAX));
        let largest_square = largest.saturating_mul(i128::from(QUANTA_MAX));
        let is_ordered = |(min, max): (f32, f32)| min.is_finite() && max.is_finite() && min <= max;
        self.range.is_some() == (n > 0)
            && self.range.is_none_or(is_ordered)
            && self.sum.0.unsigned_abs() <= largest.unsigned_abs()
            && (0..=largest_square).contains(&self.squares.0)
            && self.clipped <= n
    }
}

/// An integer of up to 128 bits; on the wire a byte string, big-endian two's complement, without needless bytes in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wide(pub(super) i128);

impl Serialize for Wide {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.to_be_bytes();
        let sign_bits = if self.0 < 0 { self.0.leading_ones() } else { self.0.leading_zeros() };
        let needless = (sign_bits.saturating_sub(1) / 8).min(15);
        let start = usize::try_from(needless).unwrap_or(0);
        serializer.serialize_bytes(bytes.get(start..).unwrap_or(&bytes))
    }
}

impl<'de> Deserialize<'de> for Wide {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(WideVisitor)
    }
}

struct WideVisitor;

impl de::Visitor<'_> for WideVisitor {
    type Value = Wide;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string of 1 to 16 bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Wide, E> {
        let length = || E::invalid_length(bytes.len(), &self);
        let first = *bytes.first().ok_or_else(length)?;
        let sign = if first >= 0x80 { 0xff } else { 0 };
        let mut whole = [sign; 16];
        let start = whole.len().checked_sub(bytes.len()).ok_or_else(length)?;
        whole.iter_mut().skip(start).zip(bytes).for_each(|(to, from)| *to = *from);
        Ok(Wide(i128::from_be_bytes(whole)))
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these figures are exact")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_pixels_are_summed_without_error() {
        let scale = Scale::of_range(0.0, 16.0);
        let mut moments = Moments::default();
        (0..=16_u8).for_each(|pixel| moments.take(f32::from(pixel), scale));
        assert_eq!(moments.mean_and_sd(17, scale), Some((8.0, 24.0_f64.sqrt())));
        assert_eq!(moments.range, Some((0.0, 16.0)));
    }

    #[test]
    fn a_value_beyond_the_scale_is_clipped_and_counted() {
        let scale = Scale::of_range(-1.0, 1.0);
        let mut moments = Moments::default();
        moments.take(f32::MAX, scale);
        assert_eq!(moments.clipped, 1);
        assert!(moments.fits(1));
        let (mean, _) = moments.mean_and_sd(1, scale).unwrap();
        assert!((4096.0..=8192.0).contains(&mean), "{mean}");
    }

    #[test]
    fn extreme_reference_ranges_have_a_scale() {
        let ranges = [(0.0, 0.0), (f32::MIN, f32::MAX), (0.0, f32::from_bits(1))];
        for (min, max) in ranges {
            let scale = Scale::of_range(min, max);
            let mut moments = Moments::default();
            moments.take(max, scale);
            let (mean, _) = moments.mean_and_sd(1, scale).unwrap();
            assert_eq!(mean, f64::from(max), "{min} {max}");
        }
    }

    proptest! {
        #[test]
        fn a_wide_integer_survives_the_wire(value in any::<i128>(), shift in 0_u32..128) {
            let wide = Wide(value >> shift);
            let bytes = crate::codec::encode(&wide).unwrap();
            prop_assert_eq!(crate::codec::decode::<Wide>("wide", &bytes, 32).unwrap(), wide);
        }

        #[test]
        fn the_mean_is_within_half_a_quantum(values in prop::collection::vec(-9.0_f32..9.0, 1..99)) {
            let scale = Scale::of_range(-9.0, 9.0);
            let mut moments = Moments::default();
            for value in &values {
                moments.take(*value, scale);
            }
            let n = u32::try_from(values.len()).unwrap();
            let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / f64::from(n);
            let (found, _) = moments.mean_and_sd(n.into(), scale).unwrap();
            prop_assert!((mean - found).abs() < 9.0 / f64::from(1 << 27), "{mean} {found}");
        }
    }
}

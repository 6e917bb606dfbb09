//! Floating point of 16 bits: IEEE 754 binary16, and bfloat16, the upper half of binary32.

/// Reads binary16; exact.
pub fn to_f32(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    match exponent {
        0 => sign * fraction * 2_f32.powi(-24),
        0x1f if fraction == 0.0 => sign * f32::INFINITY,
        0x1f => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2_f32.powi(exponent - 15), // normal numbers
    }
}

/// Reads bfloat16; exact.
pub const fn from_bf16(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// Rounds to the nearest binary16, to the even one of two: IEEE 754-2019, 4.3.1. What is too large becomes infinite.
pub fn from_f64(number: f64) -> u16 {
    if number.is_nan() {
        return 0x7e00;
    }
    let sign = if number.is_sign_negative() { 0x8000 } else { 0 };
    let size = number.abs();
    // From halfway between the largest binary16 and what would come next.
    if size >= 65_520.0 {
        return sign | 0x7c00;
    }
    // Steps of binary16: 2^-24 below the normal numbers, 2^(e-10) at 2^e.
    let exponent = (size.to_bits() >> 52).cast_signed() - 1_023;
    let exponent = i32::try_from(exponent.max(-14)).unwrap_or(-14);
    let steps = (size / 2_f64.powi(exponent - 10)).round_ties_even();
    // A full fraction carries into the exponent, which is then right as well.
    let base = f64::from(exponent + 14) * 1_024.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 30 * 1024 + 2048, and not negative"
    )]
    let bits = (base + steps) as u16;
    sign | bits
}

/// Rounds to the nearest bfloat16, to the even one of two.
pub fn bf16_from_f32(number: f32) -> u16 {
    let bits = number.to_bits();
    if number.is_nan() {
        return 0x7fc0;
    }
    let is_odd = bits >> 16 & 1;
    // Half of what is cut off, less one unless the rest is odd: a carry is the rounding.
    let rounded = bits.wrapping_add(0x7fff + is_odd) >> 16;
    u16::try_from(rounded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary16_is_read_exactly() {
        let values = [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2_f32.powi(-24)), (0x7bff, 65504.0)];
        for (bits, value) in values {
            assert_eq!(to_f32(bits).to_bits(), f32::to_bits(value));
        }
    }

    #[test]
    fn every_binary16_comes_back_from_its_number() {
        for bits in 0..=u16::MAX {
            let number = to_f32(bits);
            if !number.is_nan() {
                assert_eq!(from_f64(f64::from(number)), bits, "{number}");
            }
            let brain = from_bf16(bits);
            if !brain.is_nan() {
                assert_eq!(bf16_from_f32(brain), bits, "{brain}");
            }
        }
    }

    #[test]
    fn what_lies_between_goes_to_the_nearest_and_from_the_middle_to_the_even() {
        let step = 2_f64.powi(-10);
        assert_eq!(from_f64(1.0 + step / 2.0), 0x3c00);
        assert_eq!(from_f64(1.0 + step * 1.5), 0x3c02);
        assert_eq!(from_f64(1.0 + step * 0.51), 0x3c01);
        assert_eq!(from_f64(65_519.9), 0x7bff);
        assert_eq!(from_f64(-65_520.0), 0xfc00);
        assert_eq!(from_f64(2_f64.powi(-25)), 0);
        assert_eq!(from_f64(2_f64.powi(-25) * 1.01), 1);
        assert!(to_f32(from_f64(f64::NAN)).is_nan());
        assert_eq!(bf16_from_f32(1.0 + 2_f32.powi(-8)), 0x3f80);
        assert_eq!(bf16_from_f32(1.0 + 3.0 * 2_f32.powi(-8)), 0x3f82);
    }
}

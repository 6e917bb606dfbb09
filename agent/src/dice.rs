//! Chance: which samples are kept, which pictures are looked at.

/// Numbers that nobody outside foresees: `SplitMix64` (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014),
/// begun at random. A call of the system for each answer would cost more than all the rest of choosing.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Default for Dice {
    fn default() -> Self {
        // Without the system's randomness, the process is what tells one device's dice from another's.
        Self(getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id())))
    }
}

impl Dice {
    /// A number from 0 to below 1.
    pub(crate) fn throw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = mixed ^ (mixed >> 31);
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what a double holds")]
        let number = (mixed >> 11) as f64;
        number / 9_007_199_254_740_992.0
    }
}

//! How bad a world is.

use fastrand::Rng;

use super::world::{HOUR, MINUTE};

/// How bad the world is, in per mille or milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) loss: u32,
    pub(crate) duplicates: u32,
    pub(crate) delay_max: i64,
    /// How often something happens to a device: its link, its power, its worker.
    pub(crate) trouble_every: i64,
    pub(crate) failures: u32,
    pub(crate) hangs: u32,
}

impl Weather {
    /// Nothing fails.
    pub(crate) const CALM: Self = Self {
        loss: 0,
        duplicates: 0,
        delay_max: 200,
        trouble_every: i64::MAX,
        failures: 0,
        hangs: 0,
    };

    /// Bad in a way of its own.
    pub(crate) fn wild(dice: &mut Rng) -> Self {
        Self {
            loss: dice.u32(0..400),
            duplicates: dice.u32(0..200),
            delay_max: dice.i64(100..2 * MINUTE),
            trouble_every: dice.i64(10 * MINUTE..6 * HOUR),
            failures: dice.u32(0..150),
            hangs: dice.u32(0..20),
        }
    }
}

//! Whether pairs of features go together as they did, whatever each of them does alone.

use super::number;
use super::special::gamma_tail;

/// Rows of a pair that are high or low on both sides, expected in the smaller sample: with fewer a bell curve is no answer.
const ROWS_MIN: f64 = 10.0;

/// What all pairs together say.
#[derive(Debug, Clone, PartialEq)]
pub struct PairGap {
    /// Window less reference, for each pair: how much larger the share of concordant rows less that of discordant ones is.
    pub gaps: Vec<f64>,
    /// The pair that says most.
    pub place: usize,
    /// Its standard error if nothing changed.
    pub error: f64,
    /// Its difference in standard errors.
    pub z: f64,
    /// Its p-value, corrected for all pairs.
    pub p: f64,
}

/// Compares concordant and discordant rows, pair by pair; each side is given as counts and rows. Nothing without pairs.
pub fn pair_gap(reference: (&[u64], u64), window: (&[u64], u64)) -> Option<PairGap> {
    let (n, m) = (number(reference.1), number(window.1));
    if reference.0.len() != window.0.len() || reference.0.is_empty() || n < 1.0 || m < 1.0 {
        return None;
    }
    let mut strongest = PairGap { gaps: Vec::new(), place: 0, error: 0.0, z: 0.0, p: 1.0 };
    let mut looked = 0.0;
    let pairs = reference.0.as_chunks::<2>().0.iter().zip(window.0.as_chunks::<2>().0);
    for (place, (before, now)) in pairs.enumerate() {
        let [[concordant, discordant], [now_concordant, now_discordant]] =
            [*before, *now].map(|pair| pair.map(number));
        let gap = (now_concordant - now_discordant) / m - (concordant - discordant) / n;
        strongest.gaps.push(gap);
        let said = concordant + discordant + now_concordant + now_discordant;
        if said * n.min(m) / (n + m) < ROWS_MIN {
            continue;
        }
        looked += 1.0;
        let mean = (concordant - discordant + now_concordant - now_discordant) / (n + m);
        let error = ((said / (n + m) - mean * mean) * (n.recip() + m.recip())).sqrt();
        let z = gap / error;
        if z.abs() > strongest.z.abs() && z.is_finite() {
            (strongest.place, strongest.error, strongest.z) = (place, error, z);
        }
    }
    let p: f64 = gamma_tail(0.5, strongest.z * strongest.z / 2.0) * looked;
    strongest.p = if strongest.z.abs() > 0.0 { p.min(1.0) } else { 1.0 };
    Some(strongest)
}

//! How long to wait before the next try: full jitter, so that a fleet does not come back all at once.

use crate::limits::RETRY_MAX_MS;

/// The shortest pause.
const RETRY_MIN_MS: i64 = 1_000;

/// The pause after `tries` failures in a row: a random share of a span that doubles each time.
pub(crate) fn pause_ms(tries: u32, spread_permille: u16) -> i64 {
    let span_ms = RETRY_MIN_MS.saturating_mul(1 << tries.min(20)).min(RETRY_MAX_MS);
    let spread_permille = i64::from(spread_permille.min(1_000));
    (span_ms.saturating_mul(spread_permille) / 1_000).max(RETRY_MIN_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_quarter_of_an_hour_and_are_never_nothing() {
        assert_eq!(pause_ms(1, 1_000), 2_000);
        assert_eq!(pause_ms(3, 500), 4_000);
        assert_eq!(pause_ms(u32::MAX, 1_000), RETRY_MAX_MS);
        assert_eq!(pause_ms(9, 0), RETRY_MIN_MS);
    }
}

//! What is shown by which counts, and how often that is wrong.

use proptest::prelude::*;

use super::*;
use crate::codec;
use crate::directive::Trial;

const ASKED: Shadow =
    Shadow { span_s: 1_800, agreement_permille: 980, rows_min: 500, ..Shadow::OFF };

fn counted(rows: u64, agreed: u64) -> ShadowCounts {
    ShadowCounts { rows, agreed, ..ShadowCounts::default() }
}

#[test]
fn a_shadow_that_cannot_be_meant_is_refused_by_name() {
    assert_eq!((Shadow::OFF.check(), ASKED.check()), (Ok(()), Ok(())));
    for (wrong, told) in [
        (Shadow { span_s: 0, ..ASKED }, "span_s is 0; it is between 1 and 604800"),
        (Shadow { span_s: 604_801, ..ASKED }, "span_s is 604801"),
        (Shadow { agreement_permille: 499, ..ASKED }, "agreement_permille is 499"),
        (Shadow { agreement_permille: 1_000, ..ASKED }, "agreement_permille is 1000"),
        (Shadow { rows_min: 0, ..ASKED }, "rows_min is 0"),
        (Shadow { cpu_permille: 9, ..ASKED }, "cpu_permille is 9"),
        (Shadow { cpu_permille: 1_001, ..ASKED }, "cpu_permille is 1001"),
        (Shadow { split_permille: 501, ..ASKED }, "split_permille is 501"),
        (Shadow { tolerance_permille: 501, ..ASKED }, "tolerance_permille is 501"),
    ] {
        let refused = wrong.check().unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
    }
    assert_eq!(Shadow { agreement_permille: 0, ..ASKED }.check(), Ok(()), "only compared");
}

#[test]
fn a_trial_without_a_shadow_has_the_bytes_that_it_always_had_and_a_shadow_survives_the_wire() {
    let plain = codec::encode(&Trial::default()).unwrap();
    assert!(!plain.windows(6).any(|part| part == b"shadow"));
    assert_eq!(codec::decode::<Trial>("trial", &plain, 1_000).unwrap(), Trial::default());

    let shadow = Shadow { quiet: Quiet::Fail, split_permille: 200, ..ASKED };
    let bytes = codec::encode(&Trial { shadow, ..Trial::default() }).unwrap();
    assert_eq!(codec::decode::<Trial>("trial", &bytes, 1_000).unwrap().shadow, shadow);
}

#[test]
fn what_is_clear_is_said_before_the_end_and_nothing_before_enough_rows() {
    assert_eq!(ASKED.so_far(&counted(499, 499)), None);
    assert_eq!(ASKED.so_far(&counted(499, 0)), None);
    assert_eq!(ASKED.so_far(&counted(500, 500)), Some(Likeness::Alike));
    assert_eq!(ASKED.so_far(&counted(500, 450)), Some(Likeness::Unlike));
    assert_eq!(ASKED.so_far(&counted(500, 490)), None, "just what is asked for");
    let lenient = Shadow { agreement_permille: 0, ..ASKED };
    assert_eq!(lenient.so_far(&counted(10_000, 0)), None, "it is not judged");
    // Long counts neither overflow nor end in a number that is none.
    assert_eq!(ASKED.so_far(&counted(u64::MAX, u64::MAX)), Some(Likeness::Alike));
    assert_eq!(ASKED.so_far(&counted(u64::MAX, 0)), Some(Likeness::Unlike));
}

#[test]
fn at_the_end_the_share_itself_counts_where_nothing_is_shown() {
    assert_eq!(ASKED.at_end(&counted(499, 499)), Likeness::Unseen);
    assert_eq!(ASKED.at_end(&counted(500, 490)), Likeness::Alike);
    assert_eq!(ASKED.at_end(&counted(500, 489)), Likeness::Unlike);
    let lenient = Shadow { agreement_permille: 0, ..ASKED };
    assert_eq!(lenient.at_end(&counted(500, 0)), Likeness::Alike);
}

/// The chance that a walk of `rows` rows is ever called `wrongly`, looked at after each row: exact, by the distribution of the count of
/// those that were never called so.
fn chance_ever(chance_to_agree: f64, rows: usize, wrongly: Likeness) -> f64 {
    let shadow = Shadow { rows_min: 1, ..ASKED };
    let mut standing = vec![1.0];
    let mut called = 0.0;
    for row in 1..=rows {
        let mut next = vec![0.0; row + 1];
        for (differed, chance) in standing.into_iter().enumerate() {
            next[differed] += chance * chance_to_agree;
            next[differed + 1] += chance * (1.0 - chance_to_agree);
        }
        for (differed, chance) in next.iter_mut().enumerate().take(rows / 5) {
            let counts = counted(row as u64, (row - differed) as u64);
            if shadow.so_far(&counts) == Some(wrongly) {
                called += *chance;
                *chance = 0.0;
            }
        }
        standing = next;
    }
    called
}

#[test]
fn looked_at_after_each_of_a_thousand_rows_each_end_is_wrong_at_most_once_in_a_hundred_images() {
    for (chance_to_agree, wrongly) in [
        (0.98, Likeness::Unlike),
        (0.99, Likeness::Unlike),
        (0.98, Likeness::Alike),
        (0.97, Likeness::Alike),
    ] {
        let chance = chance_ever(chance_to_agree, 1_000, wrongly);
        assert!(chance <= 0.01, "{chance_to_agree} {wrongly:?}: {chance}");
    }
    // It is no idle test: what is really there is found.
    assert!(chance_ever(0.94, 1_000, Likeness::Unlike) > 0.95);
    assert!(chance_ever(0.999, 1_000, Likeness::Alike) > 0.95);
}

proptest! {
    /// More rows on which both agree never make an image worse.
    #[test]
    fn agreement_never_counts_against_an_image(rows in 0_u64..5_000, differed in 0_u64..500, more in 0_u64..500) {
        let rank = |likeness| match likeness {
            Likeness::Unlike => 0,
            Likeness::Unseen => 1,
            Likeness::Alike => 2,
        };
        let before = counted(rows + differed, rows);
        let after = counted(rows + differed + more, rows + more);
        prop_assume!(before.rows >= 500);
        prop_assert!(rank(ASKED.at_end(&after)) >= rank(ASKED.at_end(&before)));
    }
}

//! Row by row: whether it is the one that was written, and if not, what was done to it. Decides from values.

use std::fmt;

use sealift_protocol::api::AuditEntry;
use sealift_protocol::audit::{Checkpoint, leaf, leaf_at};
use sealift_protocol::digest::Digest;
use sealift_protocol::merkle::Tree;
use serde::Serialize;

/// The first row that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Its number.
    pub(crate) row: u64,
    /// What is wrong with it.
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum What {
    /// A field is another one.
    Edited,
    /// It fits its own hash, and is not the row that this client saw.
    Rewritten,
    /// It and perhaps more are not there.
    Removed {
        /// The last one that is missing.
        until: u64,
    },
    /// The log ends before it.
    Cut {
        /// The last one that is missing.
        until: u64,
    },
    /// It was not there before.
    Inserted,
    /// It stands where another was.
    Moved {
        /// Where it was.
        was: u64,
    },
    /// Nobody has signed it and those after it.
    Unsigned {
        /// The last one.
        until: u64,
    },
    /// Each row fits its own hash, and all together do not fit what was signed: somebody changed one of them and hashed anew.
    Unproven {
        /// The last one that it can be.
        until: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.row;
        match self.what {
            What::Edited => write!(f, "row {row} was edited: it does not fit its own hash"),
            What::Rewritten => write!(f, "row {row} is another one than this client saw before"),
            What::Removed { until } if until == row => write!(f, "row {row} was removed"),
            What::Removed { until } => write!(f, "rows {row} to {until} were removed"),
            What::Cut { until } => write!(f, "rows {row} to {until} were cut off at the end"),
            What::Inserted => write!(f, "row {row} was inserted"),
            What::Moved { was } => write!(f, "row {row} holds what was row {was}: reordered"),
            What::Unsigned { until } => {
                write!(f, "rows {row} to {until} are beyond what was signed: inserted at the end")
            }
            What::Unproven { until } => write!(
                f,
                "one of the rows {row} to {until} was changed and hashed anew: together they do \
                 not fit the checkpoint over {until} rows"
            ),
        }
    }
}

impl Finding {
    /// The log has `size` rows and should have `longest`.
    pub(super) const fn cut(size: u64, longest: u64) -> Self {
        Self { row: size + 1, what: What::Cut { until: longest } }
    }

    /// The log has `size` rows, of which `signed` are signed.
    pub(super) const fn unsigned(signed: u64, size: u64) -> Self {
        Self { row: signed + 1, what: What::Unsigned { until: size } }
    }
}

/// The log as far as it was read, beside what this client saw before.
pub(super) struct Checker<'a> {
    seen: &'a [Digest],
    /// Rows of the longest log that was signed.
    longest: u64,
    leaves: Vec<Digest>,
    tree: Tree,
    /// Everything up to this row is signed.
    sure: u64,
    checkpoints: u64,
}

impl<'a> Checker<'a> {
    pub(super) fn new(seen: &'a [Digest], longest: u64) -> Self {
        Self { seen, longest, leaves: Vec::new(), tree: Tree::default(), sure: 0, checkpoints: 0 }
    }

    pub(super) const fn size(&self) -> u64 {
        self.tree.size()
    }

    pub(super) fn root(&self) -> Digest {
        self.tree.root()
    }

    pub(super) const fn checkpoints(&self) -> u64 {
        self.checkpoints
    }

    pub(super) fn leaves(&self) -> &[Digest] {
        &self.leaves
    }

    /// Whether the next row cannot be the one that was written.
    pub(super) fn is_suspicious(&self, row: &AuditEntry) -> bool {
        let number = self.size() + 1;
        let leaf = leaf(row);
        let is_other = self.seen(number).is_some_and(|seen| *seen != leaf);
        row.sequence != number || leaf.hex() != row.hash || is_other
    }

    pub(super) fn append(&mut self, row: &AuditEntry) {
        let leaf = leaf(row);
        self.tree.append(leaf);
        self.leaves.push(leaf);
    }

    /// Compares the rows so far with what was signed over as many.
    pub(super) fn agrees_with(&mut self, checkpoint: &Checkpoint) -> Option<Finding> {
        if checkpoint.size == self.size() && checkpoint.root == self.root() {
            self.checkpoints += u64::from(self.sure < self.size());
            self.sure = self.size();
            return None;
        }
        Some(Finding { row: self.sure + 1, what: What::Unproven { until: checkpoint.size } })
    }

    /// Says what was done to a suspicious row, from it and the row after it.
    pub(super) fn name(&self, row: &AuditEntry, next: Option<&AuditEntry>) -> Finding {
        let number = self.size() + 1;
        let finding = |row, what| Finding { row, what };
        if row.sequence != number {
            let is_gap = row.sequence > number;
            let gap = What::Removed { until: row.sequence.saturating_sub(1) };
            return finding(number, if is_gap { gap } else { What::Inserted });
        }
        let next_was = |number: u64| next.is_some_and(|next| self.was(next, number));
        match self.earlier_place(row) {
            // Everything from here on moved down by one …
            Some(was) if was + 1 == number && next_was(number) => finding(was, What::Inserted),
            // … or up.
            Some(was) if was == number + 1 && (next.is_none() || next_was(number + 2)) => {
                finding(number, What::Removed { until: number })
            }
            Some(was) => finding(number, What::Moved { was }),
            None if next_was(number) => finding(number, What::Inserted),
            None if leaf(row).hex() == row.hash => finding(number, What::Rewritten),
            None => finding(number, What::Edited),
        }
    }

    fn seen(&self, number: u64) -> Option<&Digest> {
        self.seen.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    /// Whether a row was written under this number: by what this client saw, or by the hash that was moved with it.
    fn was(&self, row: &AuditEntry, number: u64) -> bool {
        let leaf = leaf_at(row, number);
        let moved_along = number != row.sequence && leaf.hex() == row.hash;
        moved_along || self.seen(number).is_some_and(|seen| *seen == leaf)
    }

    /// Under which other number a row was written.
    fn earlier_place(&self, row: &AuditEntry) -> Option<u64> {
        /// How far beyond the known rows a moved one is looked for: what was not signed yet.
        const BEYOND: u64 = 1_000;
        let seen = u64::try_from(self.seen.len()).unwrap_or(u64::MAX);
        let last = seen.max(self.longest).max(row.sequence).saturating_add(BEYOND);
        (1..=last).find(|&number| number != row.sequence && self.was(row, number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealift_protocol::id::UnixMillis;

    use super::*;

    fn row(sequence: u64) -> AuditEntry {
        let row = AuditEntry {
            sequence,
            at: UnixMillis(1),
            actor: "ann".to_owned(),
            action: "rollback".to_owned(),
            subject: format!("r-{sequence}"),
            reason: None,
            detail: String::new(),
            hash: String::new(),
        };
        hashed(row)
    }

    fn hashed(row: AuditEntry) -> AuditEntry {
        AuditEntry { hash: leaf(&row).hex(), ..row }
    }

    fn log(count: u64) -> Vec<AuditEntry> {
        (1..=count).map(row).collect()
    }

    fn first_finding(rows: &[AuditEntry], seen: &[Digest]) -> Option<Finding> {
        let mut checker = Checker::new(seen, 0);
        for (place, row) in rows.iter().enumerate() {
            if checker.is_suspicious(row) {
                return Some(checker.name(row, rows.get(place + 1)));
            }
            checker.append(row);
        }
        None
    }

    fn seen(count: u64) -> Vec<Digest> {
        log(count).iter().map(leaf).collect()
    }

    fn renumber(rows: &mut [AuditEntry]) {
        for (number, row) in (1..).zip(rows) {
            row.sequence = number;
        }
    }

    fn hash_anew(rows: &mut [AuditEntry]) {
        for row in rows {
            row.hash = leaf(row).hex();
        }
    }

    #[test]
    fn a_log_as_it_was_written_passes() {
        assert_eq!(first_finding(&log(9), &seen(5)), None);
        assert_eq!(first_finding(&log(9), &[]), None);
    }

    #[test]
    fn an_edited_row_is_named() {
        let mut rows = log(9);
        rows[3].actor = "bob".to_owned();
        let expected = Some(Finding { row: 4, what: What::Edited });
        assert_eq!(first_finding(&rows, &[]), expected);
        hash_anew(&mut rows);
        let expected = Some(Finding { row: 4, what: What::Rewritten });
        assert_eq!(first_finding(&rows, &seen(9)), expected, "hashed anew");
    }

    #[test]
    fn removed_rows_are_named() {
        let mut rows = log(9);
        rows.drain(3..5);
        let expected = Some(Finding { row: 4, what: What::Removed { until: 5 } });
        assert_eq!(first_finding(&rows, &[]), expected);
    }

    #[test]
    fn a_removed_row_is_named_although_those_after_it_were_numbered_anew() {
        let mut rows = log(9);
        rows.remove(3);
        renumber(&mut rows);
        let expected = Some(Finding { row: 4, what: What::Removed { until: 4 } });
        assert_eq!(first_finding(&rows, &[]), expected);
        hash_anew(&mut rows);
        assert_eq!(first_finding(&rows, &seen(9)), expected, "hashed anew");
    }

    #[test]
    fn an_inserted_row_is_named() {
        for is_hashed in [false, true] {
            let mut rows = log(9);
            let forged = AuditEntry { subject: "forged".to_owned(), ..row(4) };
            rows.insert(3, if is_hashed { hashed(forged) } else { forged });
            renumber(&mut rows);
            let expected = Some(Finding { row: 4, what: What::Inserted });
            assert_eq!(first_finding(&rows, &[]), expected, "{is_hashed}");
            assert_eq!(first_finding(&rows, &seen(9)), expected, "{is_hashed}");
        }
    }

    #[test]
    fn swapped_rows_are_named() {
        for (left, right) in [(2, 6), (3, 4)] {
            let mut rows = log(9);
            rows.swap(left, right);
            renumber(&mut rows);
            let (row, was) = (left as u64 + 1, right as u64 + 1);
            let expected = Some(Finding { row, what: What::Moved { was } });
            assert_eq!(first_finding(&rows, &[]), expected);
            hash_anew(&mut rows);
            assert_eq!(first_finding(&rows, &seen(9)), expected, "hashed anew");
        }
    }

    #[test]
    fn a_log_that_does_not_fit_its_checkpoint_has_its_span_named() {
        let mut checker = Checker::new(&[], 0);
        let rows = log(4);
        rows[..2].iter().for_each(|row| checker.append(row));
        let tree: Tree = rows[..2].iter().map(leaf).collect();
        assert_eq!(checker.agrees_with(&Checkpoint { size: 2, root: tree.root() }), None);
        rows[2..].iter().for_each(|row| checker.append(row));
        let forged = Checkpoint { size: 4, root: Digest::of(b"forged") };
        let expected = Finding { row: 3, what: What::Unproven { until: 4 } };
        assert_eq!(checker.agrees_with(&forged), Some(expected));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_was_seen_cannot_change_unnoticed(
            count in 1_u64..30, place in any::<prop::sample::Index>(), field in 0..6
        ) {
            let mut rows = log(count);
            let seen: Vec<_> = rows.iter().map(leaf).collect();
            let place = place.index(rows.len());
            let row = &mut rows[place];
            match field {
                0 => row.at = UnixMillis(2),
                1 => row.actor.push('x'),
                2 => row.action.clear(),
                3 => row.subject.push('x'),
                4 => row.reason = Some(String::new()),
                _ => row.detail.push('x'),
            }
            hash_anew(&mut rows);
            let finding = first_finding(&rows, &seen);
            prop_assert_eq!(finding.map(|finding| finding.row), Some(place as u64 + 1));
        }
    }
}

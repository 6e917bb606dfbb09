//! What a text is for a profile: a number, a known word, an unseen one, nothing, or of another type. Devices and baselines ask here.

use std::collections::BTreeMap;

use super::baseline::{CategoricalReference, NAME_CHARS_MAX};
use super::{Cell, Feature, Reference, hash_of_text};

/// How the texts of a column are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextColumn {
    /// As numbers.
    Numbers,
    /// As words; the place of each known one.
    Words(BTreeMap<String, usize>),
}

impl TextColumn {
    /// How a feature of a baseline is counted.
    pub fn of(feature: &Feature) -> Self {
        match &feature.reference {
            Reference::Numeric(_) => Self::Numbers,
            Reference::Categorical(CategoricalReference { domain, .. }) => {
                let names = domain.iter().map(|category| category.name.clone());
                Self::Words(names.zip(0..).collect())
            }
        }
    }

    /// What a text counts as.
    pub fn cell(&self, text: &str) -> Cell {
        if is_missing(text) {
            return Cell::Null;
        }
        match self {
            Self::Numbers => number(text).map_or(Cell::WrongType, Cell::Number),
            Self::Words(places) => {
                let word = shortened(text);
                let place = places.get(word).and_then(|place| u16::try_from(*place).ok());
                place.map_or_else(
                    || Cell::Unseen(hash_of_text(word)),
                    |place| Cell::Number(f32::from(place)),
                )
            }
        }
    }
}

/// As much of a text as a name may have.
pub fn shortened(text: &str) -> &str {
    text.char_indices().nth(NAME_CHARS_MAX).map_or(text, |(end, _)| text.get(..end).unwrap_or(text))
}

/// What tools write for "nothing".
pub fn is_missing(text: &str) -> bool {
    const NOTHING: [&str; 7] = ["", "na", "n/a", "null", "none", "nil", "-"];
    NOTHING.iter().any(|nothing| text.eq_ignore_ascii_case(nothing))
}

/// The number that a text is.
pub fn number(text: &str) -> Option<f32> {
    text.parse::<f32>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_number_or_of_another_type() {
        for (text, cell) in [
            ("1.5", Cell::Number(1.5)),
            ("-2e3", Cell::Number(-2_000.0)),
            ("", Cell::Null),
            ("N/A", Cell::Null),
            ("twelve", Cell::WrongType),
            ("1,5", Cell::WrongType),
        ] {
            assert_eq!(TextColumn::Numbers.cell(text), cell, "{text:?}");
        }
    }

    #[test]
    fn a_word_is_known_or_unseen_however_long_it_is() {
        let long = "é".repeat(NAME_CHARS_MAX + 9);
        let words = TextColumn::Words(
            [("red".to_owned(), 0), (shortened(&long).to_owned(), 7)].into_iter().collect(),
        );
        assert_eq!(words.cell("red"), Cell::Number(0.0));
        assert_eq!(words.cell(&long), Cell::Number(7.0));
        assert_eq!(words.cell("Red"), Cell::Unseen(hash_of_text("Red")));
        assert_eq!(words.cell("null"), Cell::Null);
    }
}

//! What columns are taken for: guessed from their cells, corrected by a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use sealift_protocol::profile::CLASSES_MAX;
use serde::Deserialize;

use super::rows::{Cell, Rows};
use super::{CONFIDENCE, PREDICTION};

/// A numeric output with more values than this is a quantity, not a class.
const NUMERIC_CLASSES_MAX: usize = 64;
/// With fewer rows, a text that never repeats may still be a category.
const IDENTIFIER_ROWS_MIN: usize = 20;
/// Row numbers as pandas writes them into Parquet.
const PANDAS_INDEX: &str = "__index_level_";

/// What a column is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Type {
    /// Numbers.
    Numeric,
    /// A few values without an order.
    Categorical,
    /// The predicted class.
    Prediction,
    /// The confidence, 0 to 1.
    Confidence,
    /// Nothing that is watched.
    Ignore,
}

impl Type {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Numeric => "numeric",
            Self::Categorical => "categorical",
            Self::Prediction => "prediction",
            Self::Confidence => "confidence",
            Self::Ignore => "ignore",
        }
    }
}

/// Types by the names of columns, as a person has set them.
pub(crate) type Types = BTreeMap<String, Type>;

/// Reads `column = "numeric"` lines (TOML), or the same as a JSON object.
pub(crate) fn read(path: &Path) -> anyhow::Result<Types> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = text.trim_start_matches('\u{feff}');
    let parsed = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(anyhow::Error::from)
    } else {
        toml::from_str(text).map_err(anyhow::Error::from)
    };
    parsed.with_context(|| {
        format!(
            "{} is not a table of columns and their types\nhelp: one line a column, such as `colour = \"categorical\"`; \
             types are numeric, categorical, prediction, confidence, ignore",
            path.display()
        )
    })
}

/// What all columns would be taken for, as a file to correct: a line a column, with what speaks for it.
pub(crate) fn text(rows: &Rows, types: &Types) -> String {
    let mut text = String::from(
        "# What each column is taken for: numeric, categorical, prediction, confidence or ignore.\n",
    );
    for (place, name) in rows.head().into_iter().enumerate() {
        let values = Values::of(rows, place);
        let guessed = types.get(name).copied().map_or_else(|| values.guess(name), Ok);
        let (kind, why) = match guessed {
            Ok(kind) => (kind, String::new()),
            Err(why) => (Type::Ignore, format!("; {why}")),
        };
        let key = toml::Value::String(name.to_owned());
        let missing = rows.len() - values.given;
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "{key} = \"{}\"  # {} values, {missing} missing, {}{why}",
            kind.as_str(),
            values.given,
            values.distinct()
        );
    }
    text
}

/// What a column of the reference holds.
pub(super) struct Values {
    given: usize,
    numbers: usize,
    times: usize,
    bytes: usize,
    distinct: usize,
    refused: Option<&'static str>,
    is_overfull: bool,
    /// All numbers lie between 0 and 1.
    is_share: bool,
    is_whole: bool,
    /// By how much each number is more than the one before, if all are by the same, as the numbers of rows are.
    step: Option<f64>,
}

impl Values {
    pub(super) fn of(rows: &Rows, place: usize) -> Self {
        let mut known = BTreeSet::new();
        let mut values = Self {
            given: 0,
            numbers: 0,
            times: 0,
            bytes: 0,
            distinct: 0,
            refused: rows.refused(place),
            is_overfull: rows.is_overfull(place),
            is_share: true,
            is_whole: true,
            step: step(rows.column(place)),
        };
        for (packed, cell) in rows.keyed(place).filter(|(_, cell)| !cell.is_missing()) {
            values.given += 1;
            values.times += usize::from(matches!(cell, Cell::Time(_)));
            values.bytes += usize::from(cell == Cell::Bytes);
            if let Some(value) = cell.number() {
                values.numbers += 1;
                values.is_share &= value.is_nan() || (0.0..=1.0).contains(&value);
                values.is_whole &= value.is_nan() || value.fract() == 0.0;
            }
            if known.len() <= CLASSES_MAX || known.len() * 2 > values.given {
                known.insert(packed);
            }
        }
        values.distinct = known.len();
        values
    }

    fn distinct(&self) -> String {
        let more = if self.distinct > CLASSES_MAX { "more than " } else { "" };
        format!("{more}{} distinct", self.distinct)
    }

    /// Or why the column is not watched.
    pub(super) fn guess(&self, name: &str) -> Result<Type, &'static str> {
        /// One misspelt cell in a hundred does not make a column of numbers one of words.
        const SHARE: usize = 99;
        let is_most = |count: usize| count * 100 >= self.given * SHARE;
        if let Some(why) = self.refused {
            return Err(why);
        }
        if self.given == 0 {
            return Err("it is empty");
        }
        if name.starts_with(PANDAS_INDEX) {
            return Err("it holds row numbers");
        }
        if is_most(self.bytes) {
            return Err("it holds bytes, such as images");
        }
        if is_most(self.times) {
            return Err("it holds times; watch a part of them, such as the hour, as a column");
        }
        let is_numeric = is_most(self.numbers);
        let is_quantity = is_numeric && (self.distinct > NUMERIC_CLASSES_MAX || !self.is_whole);
        if name == CONFIDENCE && is_numeric && self.is_share {
            return Ok(Type::Confidence);
        }
        if name == PREDICTION && !is_quantity && self.distinct <= CLASSES_MAX {
            return Ok(Type::Prediction);
        }
        if self.step.is_some() {
            return Err("its numbers count the rows");
        }
        if is_numeric {
            return Ok(Type::Numeric);
        }
        let is_name = self.given >= IDENTIFIER_ROWS_MIN && self.distinct * 2 > self.given;
        if is_name || self.is_overfull {
            return Err("its texts hardly repeat, as names and times do");
        }
        Ok(Type::Categorical)
    }
}

/// By how much each cell, a whole number, is more than the one before; none if they differ in that.
fn step<'a>(cells: impl Iterator<Item = Cell<'a>>) -> Option<f64> {
    let whole = |cell: Cell<'_>| cell.number().filter(|value| value.fract() == 0.0);
    let numbers: Vec<f64> = cells.map(whole).collect::<Option<_>>()?;
    let pairs = numbers.iter().zip(numbers.iter().skip(1));
    let mut steps = pairs.map(|(before, now)| now - before);
    let first =
        steps.next().filter(|first| *first > 0.0 && numbers.len() >= IDENTIFIER_ROWS_MIN)?;
    steps.all(|step| step.total_cmp(&first).is_eq()).then_some(first)
}

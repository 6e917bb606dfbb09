//! Reference rows without an I/O contract: which columns there are and what they hold is guessed, and a file corrects it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use sealift_protocol::image::{IoContract, Role};
use sealift_protocol::profile::{
    Baseline, BaselineBuilder, CATEGORIES_MAX, CLASSES_MAX, Cell, Column, Kind, Season, TextColumn,
    is_held_out, is_missing, number, shortened,
};
use sealift_protocol::tensor::Datatype;
use serde::Deserialize;

use super::rows::Rows;
use super::{CONFIDENCE, PREDICTION};

/// The group of columns that nobody has grouped.
const GROUP: &str = "all";
/// A numeric output with more values than this is a quantity, not a class.
const NUMERIC_CLASSES_MAX: usize = 64;
/// With fewer rows, a text that never repeats may still be a category.
const IDENTIFIER_ROWS_MIN: usize = 20;

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

/// Types by the names of columns, as a person has set them.
pub(crate) type Types = BTreeMap<String, Type>;

/// Reads `column = "numeric"` lines (TOML), or the same as a JSON object.
pub(crate) fn types(path: &Path) -> anyhow::Result<Types> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let parsed = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(anyhow::Error::from)
    } else {
        toml::from_str(&text).map_err(anyhow::Error::from)
    };
    parsed.with_context(|| {
        format!(
            "{} is not a table of columns and their types\nhelp: one line a column, such as `colour = \"categorical\"`; \
             types are numeric, categorical, prediction, confidence, ignore",
            path.display()
        )
    })
}

/// The columns of a reference, and how a row of text becomes one that a profile counts.
#[derive(Debug)]
pub(crate) struct Schema {
    columns: Vec<Known>,
    prediction: Option<Known>,
    confidence: Option<String>,
    /// Columns that are not watched, and why.
    pub(crate) ignored: Vec<(String, &'static str)>,
}

/// A column with the values that it is known to have.
#[derive(Debug)]
struct Known {
    name: String,
    group: String,
    texts: TextColumn,
    /// Whether there are more values than those.
    is_cut: bool,
}

/// A row as a profile counts it.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) cells: Vec<Cell>,
    pub(crate) prediction: Option<usize>,
    pub(crate) confidence: Option<f32>,
}

/// Makes the baseline of rows whose columns a contract names, texts among them.
pub(super) fn of_contract(path: &Path, contract: &IoContract) -> anyhow::Result<Baseline> {
    let rows = Rows::read(path)?;
    Schema::of_contract(&rows, contract)?.baseline(&rows, None)
}

impl Schema {
    /// Takes the columns that a contract names, in its order. What an input of texts holds is guessed: numbers, or words.
    fn of_contract(rows: &Rows, contract: &IoContract) -> anyhow::Result<Self> {
        let mut schema =
            Self { columns: Vec::new(), prediction: None, confidence: None, ignored: Vec::new() };
        let named = contract
            .observed_inputs()
            .flat_map(|input| input.features.iter().map(move |feature| (input.datatype, feature)));
        for (datatype, feature) in named {
            let place = rows.place(&feature.name);
            let place = place.with_context(|| format!("there is no column `{}`", feature.name))?;
            let kind = if datatype == Datatype::Bytes {
                // Words that hardly repeat are counted all the same: the contract wants its columns watched.
                Values::of(rows, place).guess("").unwrap_or(Type::Categorical)
            } else {
                Type::Numeric
            };
            schema.add(rows, place, &feature.name, kind)?;
            if let Some(known) = schema.columns.last_mut() {
                known.group.clone_from(&feature.group);
            }
        }
        let labels = contract.output_with(Role::Probabilities).map(|output| &output.labels);
        if let Some(labels) = labels.filter(|labels| !labels.is_empty())
            && rows.place(PREDICTION).is_some()
        {
            let places = labels.iter().cloned().zip(0..).collect();
            schema.prediction = Some(Known::new(PREDICTION, TextColumn::Words(places)));
        }
        schema.confidence = rows.place(CONFIDENCE).map(|_| CONFIDENCE.to_owned());
        Ok(schema)
    }

    /// Guesses what the columns of reference rows hold; `types` are right where they say something.
    pub(crate) fn guess(rows: &Rows, types: &Types) -> anyhow::Result<Self> {
        for name in types.keys() {
            ensure!(
                rows.place(name).is_some(),
                "the types name a column `{name}`, which is not there"
            );
        }
        let mut schema =
            Self { columns: Vec::new(), prediction: None, confidence: None, ignored: Vec::new() };
        for (place, name) in rows.head().iter().enumerate() {
            let kind = match types.get(name) {
                Some(Type::Ignore) => Err("the types say so"),
                Some(given) => Ok(*given),
                None => Values::of(rows, place).guess(name),
            };
            match kind {
                Ok(kind) => schema.add(rows, place, name, kind)?,
                Err(why) => schema.ignored.push((name.clone(), why)),
            }
        }
        ensure!(!schema.columns.is_empty(), "there is no column that can be watched");
        Ok(schema)
    }

    fn add(&mut self, rows: &Rows, place: usize, name: &str, kind: Type) -> anyhow::Result<()> {
        match kind {
            Type::Ignore => (), // was set aside before
            Type::Confidence if self.confidence.is_some() => {
                bail!("two columns are the confidence")
            }
            Type::Confidence => self.confidence = Some(name.to_owned()),
            Type::Numeric => {
                let has_number =
                    rows.column(place).any(|cell| number(cell).is_some_and(f32::is_finite));
                ensure!(has_number, "column `{name}` is numeric and has no number");
                self.columns.push(Known::new(name, TextColumn::Numbers));
            }
            Type::Categorical => {
                let (places, is_cut) = categories(rows, place);
                let texts = TextColumn::Words(places);
                self.columns.push(Known { is_cut, ..Known::new(name, texts) });
            }
            Type::Prediction if self.prediction.is_some() => {
                bail!("two columns are the prediction")
            }
            Type::Prediction => {
                let texts = TextColumn::Words(domain(rows.column(place), CLASSES_MAX));
                self.prediction = Some(Known::new(name, texts));
            }
        }
        Ok(())
    }

    /// Makes the baseline of reference rows.
    pub(crate) fn baseline(&self, rows: &Rows, season: Option<Season>) -> anyhow::Result<Baseline> {
        let columns = self.columns.iter().map(|known| Column {
            name: known.name.clone(),
            group: known.group.clone(),
            kind: known.kind(),
        });
        let classes = self.prediction.as_ref().map(Known::names).unwrap_or_default();
        let mut builder = BaselineBuilder::new(columns.collect(), classes.clone()).with_joint();
        if let Some(season) = season {
            builder = builder.with_season(season);
        }
        let layout = self.layout(rows)?;
        let mut counted = Counted::default();
        for row in rows.iter() {
            self.read(&layout, row, &mut counted);
            let class = counted.prediction.and_then(|place| classes.get(place)).map(String::as_str);
            builder.push_cells(&counted.cells, class, counted.confidence.map(f64::from))?;
        }
        Ok(builder.build()?)
    }

    /// Where the columns of other rows are.
    pub(crate) fn layout(&self, rows: &Rows) -> anyhow::Result<Layout> {
        let place = |name: &str| {
            rows.place(name).with_context(|| {
                format!(
                    "there is no column `{name}`, which the baseline has\nhelp: the columns are {}",
                    rows.head().join(", ")
                )
            })
        };
        let columns =
            self.columns.iter().map(|known| place(&known.name)).collect::<Result<_, _>>()?;
        let prediction = self.prediction.as_ref().map(|known| place(&known.name)).transpose()?;
        let confidence = self.confidence.as_deref().map(place).transpose()?;
        Ok(Layout { columns, prediction, confidence })
    }

    /// Reads a row.
    pub(crate) fn read(&self, layout: &Layout, row: &[String], into: &mut Counted) {
        let cell = |place: usize| row.get(place).map_or("", String::as_str);
        into.cells.clear();
        let pairs = self.columns.iter().zip(&layout.columns);
        into.cells.extend(pairs.map(|(known, place)| known.texts.cell(cell(*place))));
        let prediction = self.prediction.as_ref().zip(layout.prediction);
        into.prediction = prediction
            .map(|(known, place)| (known, cell(place)))
            .filter(|(_, text)| !is_missing(text))
            .map(|(known, text)| known.place(text).unwrap_or(usize::MAX));
        into.confidence = layout.confidence.map(|place| number(cell(place)).unwrap_or(f32::NAN));
    }
}

/// Where a table has the columns of a schema.
#[derive(Debug)]
pub(crate) struct Layout {
    columns: Vec<usize>,
    prediction: Option<usize>,
    confidence: Option<usize>,
}

impl Known {
    fn new(name: &str, texts: TextColumn) -> Self {
        Self { name: name.to_owned(), group: GROUP.to_owned(), texts, is_cut: false }
    }

    fn kind(&self) -> Kind {
        match (&self.texts, self.is_cut) {
            (TextColumn::Numbers, _) => Kind::Numeric,
            (TextColumn::Words(_), false) => Kind::Categorical(self.names()),
            (TextColumn::Words(_), true) => Kind::Commonest(self.names()),
        }
    }

    fn places(&self) -> Option<&BTreeMap<String, usize>> {
        match &self.texts {
            TextColumn::Numbers => None,
            TextColumn::Words(places) => Some(places),
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.places().into_iter().flatten().collect();
        names.sort_by_key(|(_, place)| **place);
        names.into_iter().map(|(name, _)| name.clone()).collect()
    }

    fn place(&self, text: &str) -> Option<usize> {
        self.places()?.get(shortened(text)).copied()
    }
}

/// What a column of the reference holds.
struct Values {
    given: usize,
    numbers: usize,
    distinct: usize,
    /// All numbers lie between 0 and 1.
    is_share: bool,
    is_whole: bool,
    /// Each number is as much more than the one before as every other, as the numbers of rows are.
    is_counter: bool,
}

impl Values {
    fn of(rows: &Rows, place: usize) -> Self {
        let mut distinct = std::collections::BTreeSet::new();
        let mut values = Self {
            given: 0,
            numbers: 0,
            distinct: 0,
            is_share: true,
            is_whole: true,
            is_counter: is_counter(rows.column(place)),
        };
        for cell in rows.column(place).filter(|cell| !is_missing(cell)) {
            values.given += 1;
            if let Some(value) = number(cell) {
                values.numbers += 1;
                values.is_share &= (0.0..=1.0).contains(&value);
                values.is_whole &= value.fract() == 0.0;
            }
            if distinct.len() <= CLASSES_MAX || distinct.len() * 2 > values.given {
                distinct.insert(cell);
            }
        }
        values.distinct = distinct.len();
        values
    }

    /// Or why the column is not watched.
    fn guess(&self, name: &str) -> Result<Type, &'static str> {
        if self.given == 0 {
            return Err("it is empty");
        }
        // One misspelt cell in a hundred does not make a column of numbers one of words.
        let is_numeric = self.numbers * 100 >= self.given * 99;
        let is_quantity = is_numeric && (self.distinct > NUMERIC_CLASSES_MAX || !self.is_whole);
        if name == CONFIDENCE && is_numeric && self.is_share {
            return Ok(Type::Confidence);
        }
        if name == PREDICTION && !is_quantity && self.distinct <= CLASSES_MAX {
            return Ok(Type::Prediction);
        }
        if self.is_counter {
            return Err("its numbers count the rows");
        }
        if is_numeric {
            return Ok(Type::Numeric);
        }
        if self.given >= IDENTIFIER_ROWS_MIN && self.distinct * 2 > self.given {
            return Err("its texts hardly repeat, as names and times do");
        }
        Ok(Type::Categorical)
    }
}

/// Whether each cell is a whole number, and as much more than the one before as the second is more than the first.
fn is_counter<'a>(cells: impl Iterator<Item = &'a str>) -> bool {
    let numbers: Option<Vec<i64>> = cells.map(|cell| cell.parse().ok()).collect();
    let Some(numbers) = numbers.filter(|numbers| numbers.len() >= IDENTIFIER_ROWS_MIN) else {
        return false;
    };
    let pairs = numbers.iter().zip(numbers.iter().skip(1));
    let mut steps = pairs.map(|(before, now)| now.checked_sub(*before));
    let first = steps.next().flatten();
    first.is_some_and(|first| first > 0) && steps.all(|step| step == first)
}

/// The values of a column; of too many those that are the most common in rows that are not counted then.
fn categories(rows: &Rows, place: usize) -> (BTreeMap<String, usize>, bool) {
    let all = domain(rows.column(place), usize::MAX);
    if all.len() <= CATEGORIES_MAX {
        return (all, false);
    }
    let choosing = rows.column(place).zip(0..).filter(|(_, row)| !is_held_out(*row));
    (domain(choosing.map(|(cell, _)| cell), CATEGORIES_MAX), true)
}

/// The most common values, the most common first.
fn domain<'a>(cells: impl Iterator<Item = &'a str>, max: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::<String, u64>::new();
    for cell in cells.filter(|cell| !is_missing(cell)) {
        *counts.entry(shortened(cell).to_owned()).or_default() += 1;
    }
    let mut by_count: Vec<_> = counts.into_iter().collect();
    by_count.sort_by(|(left, l), (right, r)| r.cmp(l).then_with(|| left.cmp(right)));
    by_count.into_iter().take(max).zip(0..).map(|((name, _), place)| (name, place)).collect()
}

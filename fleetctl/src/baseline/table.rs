//! Reference rows as a profile counts them: which columns there are, and what each cell of them is.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use sealift_protocol::image::{IoContract, Role};
use sealift_protocol::profile::{
    self, Baseline, BaselineBuilder, CATEGORIES_MAX, CLASSES_MAX, Column, Kind, Season,
    hash_of_text, is_held_out,
};
use sealift_protocol::tensor::Datatype;

use super::rows::{Cell, Rows, name_of};
use super::types::{Type, Types, Values};
use super::{CONFIDENCE, PREDICTION};

/// The group of columns that nobody has grouped.
const GROUP: &str = "all";

/// The columns of a reference, and how a cell becomes one that a profile counts.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    columns: Vec<Known>,
    classes: Option<Classes>,
    confidence: Option<String>,
    /// Columns that are not watched, and why.
    pub(crate) ignored: Vec<(String, &'static str)>,
    /// Whether brightness and contrast are features, too.
    has_summary: bool,
}

/// A column, and how its cells are read.
#[derive(Debug)]
struct Known {
    name: String,
    group: String,
    reading: Reading,
}

/// How a cell is read.
#[derive(Debug)]
enum Reading {
    /// A number; true and false are numbers where the reference has nothing else.
    Number { is_bool: bool },
    /// A number that a graph takes: what is none has no value.
    Element,
    /// A category that a graph takes by its number, from 0 to below `count`.
    Code { count: usize },
    /// The place of a value among those that are known; whether there are more.
    Category { places: Places, is_cut: bool },
}

/// Places by names.
type Places = BTreeMap<String, usize>;

/// What is predicted.
#[derive(Debug)]
struct Classes {
    names: Vec<String>,
    places: Places,
    /// The column that holds predictions, if one does.
    column: Option<String>,
    /// Whether a reference may have no others.
    is_closed: bool,
}

/// A row as a profile counts it.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) cells: Vec<profile::Cell>,
    pub(crate) prediction: Option<usize>,
    pub(crate) confidence: Option<f32>,
}

impl Schema {
    /// Guesses what the columns of reference rows hold; `types` are right where they say something.
    pub(crate) fn guess(rows: &Rows, types: &Types) -> anyhow::Result<Self> {
        are_there(rows, types)?;
        let mut schema = Self::default();
        for (place, name) in rows.head().into_iter().enumerate() {
            let kind = match types.get(name) {
                Some(Type::Ignore) => Err("the types say so"),
                given => {
                    readable(rows, place, name)?;
                    given.map_or_else(|| Values::of(rows, place).guess(name), |given| Ok(*given))
                }
            };
            match kind {
                Ok(kind) => schema.add(rows, place, name, kind)?,
                Err(why) => schema.ignored.push((name.to_owned(), why)),
            }
        }
        if schema.columns.is_empty() {
            let why = schema.ignored.iter().map(|(name, why)| format!("`{name}`: {why}"));
            let why = why.collect::<Vec<_>>().join("; ");
            bail!("there is no column that can be watched: {why}");
        }
        Ok(schema)
    }

    fn add(&mut self, rows: &Rows, place: usize, name: &str, kind: Type) -> anyhow::Result<()> {
        let known = |reading| Known { name: name.to_owned(), group: GROUP.to_owned(), reading };
        match kind {
            Type::Ignore => (), // was set aside before
            Type::Confidence if self.confidence.is_some() => {
                bail!("two columns are the confidence")
            }
            Type::Confidence => self.confidence = Some(name.to_owned()),
            Type::Numeric => self.columns.push(known(number(rows, place, name)?)),
            Type::Categorical => {
                let (places, is_cut) = categories(rows, place);
                ensure!(!places.is_empty(), "column `{name}` is categorical and has no value");
                self.columns.push(known(Reading::Category { places, is_cut }));
            }
            Type::Prediction if self.classes.is_some() => bail!("two columns are the prediction"),
            Type::Prediction => {
                let places = domain(rows.column(place), CLASSES_MAX);
                ensure!(!places.is_empty(), "column `{name}` is the prediction and has no value");
                let (names, column) = (names(&places), Some(name.to_owned()));
                self.classes = Some(Classes { names, places, column, is_closed: false });
            }
        }
        Ok(())
    }

    /// The columns that a contract names; `types` may say which of them hold numbers of categories.
    pub(crate) fn of_contract(
        rows: &Rows,
        contract: &IoContract,
        types: &Types,
    ) -> anyhow::Result<Self> {
        are_there(rows, types)?;
        let inputs: Vec<_> = contract.observed_inputs().collect();
        ensure!(!inputs.is_empty(), "the I/O contract names no features");
        let has_text = inputs.iter().any(|input| input.datatype == Datatype::Bytes);
        let mut schema = Self { has_summary: !has_text, ..Self::default() };
        let features = inputs.iter().flat_map(|input| {
            let is_text = input.datatype == Datatype::Bytes;
            input.features.iter().map(move |feature| (is_text, feature))
        });
        for (is_text, feature) in features {
            let name = &feature.name;
            let place = rows.place(name).with_context(|| no_column(rows, name, "the contract"))?;
            readable(rows, place, name)?;
            let given = types.get(name);
            if matches!(given, Some(Type::Ignore | Type::Prediction | Type::Confidence)) {
                bail!(
                    "column `{name}` is a feature of the contract\nhelp: it is numeric or categorical"
                );
            }
            if is_text {
                // Words that hardly repeat are counted all the same: the contract wants its columns watched.
                let guessed = || Values::of(rows, place).guess("").unwrap_or(Type::Categorical);
                schema.add(rows, place, name, given.copied().unwrap_or_else(guessed))?;
                if let Some(known) = schema.columns.last_mut() {
                    known.group.clone_from(&feature.group);
                }
                continue;
            }
            let reading = match given {
                Some(Type::Categorical) => codes(rows, place, name)?,
                Some(_) | None => Reading::Element,
            };
            schema.columns.push(Known {
                name: name.clone(),
                group: feature.group.clone(),
                reading,
            });
        }
        let column_of = |kind: Type, usual: &str| {
            let given = types.iter().find(|(_, given)| **given == kind).map(|(name, _)| name);
            let usual = rows.place(usual).filter(|_| !types.contains_key(usual));
            given.cloned().or_else(|| usual.map(|_| usual_name(kind).to_owned()))
        };
        let column = column_of(Type::Prediction, PREDICTION);
        schema.confidence = column_of(Type::Confidence, CONFIDENCE);
        let labels = contract.output_with(Role::Probabilities).map(|output| output.labels.clone());
        let names = labels.unwrap_or_default();
        if names.is_empty() {
            let why = "the contract names no classes: `labels` of its output of probabilities";
            schema.ignored.extend(column.map(|column| (column, why)));
        } else {
            let places = names.iter().map(|label| name_of(label)).zip(0..).collect();
            schema.classes = Some(Classes { names, places, column, is_closed: true });
        }
        Ok(schema)
    }

    /// Makes the baseline of reference rows.
    pub(crate) fn baseline(&self, rows: &Rows, season: Option<Season>) -> anyhow::Result<Baseline> {
        let columns = self.columns.iter().map(|known| {
            let kind = known.reading.kind();
            Column { name: known.name.clone(), group: known.group.clone(), kind }
        });
        let classes = self.classes.as_ref().map(|classes| classes.names.clone());
        let classes = classes.unwrap_or_default();
        let mut builder = BaselineBuilder::new(columns.collect(), classes.clone()).with_joint();
        if self.has_summary {
            builder = builder.with_summary();
        }
        if let Some(season) = season {
            builder = builder.with_season(season);
        }
        let layout = self.layout(rows)?;
        let mut counted = Counted::default();
        for row in 0..rows.len() {
            self.read(&layout, rows, row, &mut counted);
            let class = counted.prediction.map(|place| classes.get(place).map(String::as_str));
            if class == Some(None) {
                self.refuse_class(&layout, rows, row)?;
            }
            let confidence = counted.confidence.map(f64::from);
            builder.push_cells(&counted.cells, class.flatten(), confidence)?;
        }
        Ok(builder.build()?)
    }

    /// A class that the contract does not name would be a wrong reference.
    fn refuse_class(&self, layout: &Layout, rows: &Rows, row: usize) -> anyhow::Result<()> {
        let Some(classes) = self.classes.as_ref().filter(|classes| classes.is_closed) else {
            return Ok(());
        };
        let cell = layout.prediction.and_then(|place| rows.cell(row, place).name());
        bail!(
            "row {} predicts `{}`, which is not among the classes\nhelp: the contract's labels are {}",
            row + 1,
            cell.unwrap_or_default(),
            classes.names.join(", ")
        )
    }

    /// Where the columns of other rows are.
    pub(crate) fn layout(&self, rows: &Rows) -> anyhow::Result<Layout> {
        let place =
            |name: &str| rows.place(name).with_context(|| no_column(rows, name, "the baseline"));
        let columns =
            self.columns.iter().map(|known| place(&known.name)).collect::<Result<_, _>>()?;
        let prediction = self.classes.as_ref().and_then(|classes| classes.column.as_deref());
        let prediction = prediction.map(place).transpose()?;
        let confidence = self.confidence.as_deref().map(place).transpose()?;
        Ok(Layout { columns, prediction, confidence })
    }

    /// Reads a row.
    pub(crate) fn read(&self, layout: &Layout, rows: &Rows, row: usize, into: &mut Counted) {
        into.cells.clear();
        let pairs = self.columns.iter().zip(&layout.columns);
        into.cells.extend(pairs.map(|(known, place)| known.reading.cell(rows.cell(row, *place))));
        let prediction = self.classes.as_ref().zip(layout.prediction);
        into.prediction =
            prediction.and_then(|(classes, place)| classes.place(rows.cell(row, place)));
        into.confidence =
            layout.confidence.map(|place| rows.cell(row, place).number().map_or(f32::NAN, narrow));
    }
}

/// Where a table has the columns of a schema.
#[derive(Debug)]
pub(crate) struct Layout {
    columns: Vec<usize>,
    prediction: Option<usize>,
    confidence: Option<usize>,
}

impl Classes {
    /// None for nothing, and beyond all classes for one that is not known.
    fn place(&self, cell: Cell<'_>) -> Option<usize> {
        let known = cell.name().and_then(|name| self.places.get(name.as_ref()).copied());
        known.or_else(|| (!is_nothing(cell)).then_some(usize::MAX))
    }
}

impl Reading {
    fn kind(&self) -> Kind {
        match self {
            Self::Number { .. } | Self::Element => Kind::Numeric,
            Self::Code { count } => {
                Kind::Categorical((0..*count).map(|code| code.to_string()).collect())
            }
            Self::Category { places, is_cut: false } => Kind::Categorical(names(places)),
            Self::Category { places, is_cut: true } => Kind::Commonest(names(places)),
        }
    }

    fn cell(&self, cell: Cell<'_>) -> profile::Cell {
        if cell.is_missing() {
            return profile::Cell::Null;
        }
        let bool = |is_taken: bool| cell.bit().filter(|_| is_taken);
        let number = |otherwise: profile::Cell, value: Option<f64>| {
            value.map_or(otherwise, |value| profile::Cell::Number(narrow(value)))
        };
        match self {
            Self::Number { is_bool } => {
                number(profile::Cell::WrongType, cell.number().or_else(|| bool(*is_bool)))
            }
            Self::Element => number(profile::Cell::Null, cell.number().or_else(|| bool(true))),
            Self::Code { .. } => {
                number(profile::Cell::WrongType, cell.number().or_else(|| bool(true)))
            }
            Self::Category { .. } if is_nothing(cell) => profile::Cell::Null,
            Self::Category { places, .. } => {
                let name = cell.name().unwrap_or_default();
                places.get(name.as_ref()).map_or_else(
                    || profile::Cell::Unseen(hash_of_text(&name)),
                    |place| profile::Cell::Number(as_number(*place)),
                )
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most 256 categories")]
const fn as_number(place: usize) -> f32 {
    place as f32
}

#[expect(clippy::cast_possible_truncation, reason = "rounds as a device does")]
const fn narrow(value: f64) -> f32 {
    value as f32
}

/// Whether a cell is no category.
fn is_nothing(cell: Cell<'_>) -> bool {
    cell.is_missing()
        || cell == Cell::Bytes
        || matches!(cell, Cell::Number(value) if value.is_nan())
}

/// What is called so where nobody says otherwise.
const fn usual_name(kind: Type) -> &'static str {
    if matches!(kind, Type::Confidence) { CONFIDENCE } else { PREDICTION }
}

fn are_there(rows: &Rows, types: &Types) -> anyhow::Result<()> {
    let missing = types.keys().find(|name| rows.place(name).is_none());
    match missing {
        None => Ok(()),
        Some(name) => bail!("{}", no_column(rows, name, "the file of types")),
    }
}

fn no_column(rows: &Rows, name: &str, whose: &str) -> String {
    /// As many names as a person reads.
    const NAMES_MAX: usize = 40;
    let head = rows.head();
    let more = if head.len() > NAMES_MAX { ", …" } else { "" };
    let names: Vec<_> = head.into_iter().take(NAMES_MAX).collect();
    let names = names.join(", ");
    format!("there is no column `{name}`, which {whose} has\nhelp: the columns are {names}{more}")
}

/// Cells of lists and records are none.
fn readable(rows: &Rows, place: usize, name: &str) -> anyhow::Result<()> {
    match rows.refused(place) {
        None => Ok(()),
        Some(why) => bail!(
            "column `{name}` cannot be watched: {why}\nhelp: write its parts as columns of their own, or set it aside: `{name} = \"ignore\"` in the file for --types"
        ),
    }
}

fn number(rows: &Rows, place: usize, name: &str) -> anyhow::Result<Reading> {
    let mut given = rows.column(place).filter(|cell| !cell.is_missing()).peekable();
    let is_there = given.peek().is_some();
    let is_bool = is_there && given.all(|cell| matches!(cell, Cell::Bool(_)));
    let is_finite = |cell: Cell<'_>| cell.number().is_some_and(|value| narrow(value).is_finite());
    ensure!(
        is_bool || rows.column(place).any(is_finite),
        "column `{name}` is numeric and has no number"
    );
    Ok(Reading::Number { is_bool })
}

/// The codes of a column that a graph takes: whole numbers from 0 on.
fn codes(rows: &Rows, place: usize, name: &str) -> anyhow::Result<Reading> {
    let mut most = 0;
    for (row, cell) in rows.column(place).enumerate().filter(|(_, cell)| !is_nothing(*cell)) {
        let value = cell.number().or_else(|| cell.bit());
        let code =
            (0..CATEGORIES_MAX).zip(0_u32..).find(|(_, code)| value == Some(f64::from(*code)));
        let Some((code, _)) = code else {
            bail!(
                "column `{name}`, row {}: a category of the contract is a number from 0 to {}",
                row + 1,
                CATEGORIES_MAX - 1
            )
        };
        most = most.max(code);
    }
    Ok(Reading::Code { count: most + 1 })
}

/// The names of places, in their order.
fn names(places: &Places) -> Vec<String> {
    let mut names: Vec<_> = places.iter().collect();
    names.sort_by_key(|(_, place)| **place);
    names.into_iter().map(|(name, _)| name.clone()).collect()
}

/// The values of a column; of too many those that are the most common in rows that are not counted then.
fn categories(rows: &Rows, place: usize) -> (Places, bool) {
    let all = domain(rows.column(place), usize::MAX);
    if all.len() <= CATEGORIES_MAX {
        return (all, false);
    }
    let choosing = rows.column(place).zip(0..).filter(|(_, row)| !is_held_out(*row));
    (domain(choosing.map(|(cell, _)| cell), CATEGORIES_MAX), true)
}

/// The most common values, the most common first.
fn domain<'a>(cells: impl Iterator<Item = Cell<'a>>, max: usize) -> Places {
    let mut counts = BTreeMap::<String, u64>::new();
    for name in cells.filter(|cell| !is_nothing(*cell)).filter_map(Cell::name) {
        match counts.get_mut(name.as_ref()) {
            Some(count) => *count += 1,
            None => drop(counts.insert(name.into_owned(), 1)),
        }
    }
    let mut by_count: Vec<_> = counts.into_iter().collect();
    by_count.sort_by(|(left, l), (right, r)| r.cmp(l).then_with(|| left.cmp(right)));
    by_count.into_iter().take(max).zip(0..).map(|((name, _), place)| (name, place)).collect()
}

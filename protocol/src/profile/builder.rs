//! Makes a baseline from rows of reference data, such as the training set.

use super::baseline::{
    Baseline, CONFIDENCE_BINS, CategoricalReference, Category, Contents, EDGES_MAX, Feature,
    InvalidBaseline, NumericReference, QUANTILE_BINS, Reference, SUMMARY, SUMMARY_GROUP,
};
use super::calibration;
use super::joint::{JOINT_GROUP, Joint, Projector, is_held_out};
use super::profiler::{Cell, confidence_bin, summary};

/// Rows that are kept. More sharpen no edge that a window of a few hundred rows could notice; 300 features of so many are 60 MB.
const SAMPLE_ROWS_MAX: u64 = 50_000;

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Numbers.
    Numeric,
    /// The place of a value in this list.
    Categorical(Vec<String>),
    /// The same, where the list has not all values of the reference but those that are the most common in rows that are not held out
    /// ([`is_held_out`]). Values chosen because they are common there are less common everywhere else, so only held-out rows are counted.
    Commonest(Vec<String>),
}

/// A column of the reference data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, unique.
    pub name: String,
    /// Columns that are judged together.
    pub group: String,
    /// What it holds.
    pub kind: Kind,
}

impl Column {
    /// A column of numbers.
    pub fn numeric(name: &str, group: &str) -> Self {
        Self { name: name.to_owned(), group: group.to_owned(), kind: Kind::Numeric }
    }
}

/// The quadrant, such as `upper-left`, of pixel `index` in an image that is stored row by row: a group for [`Column`].
pub const fn quadrant(index: usize, width: usize, height: usize) -> &'static str {
    let is_left = index % width < width.div_ceil(2);
    let is_upper = index / width < height.div_ceil(2);
    match (is_upper, is_left) {
        (true, true) => "upper-left",
        (true, false) => "upper-right",
        (false, true) => "lower-left",
        (false, false) => "lower-right",
    }
}

/// Gathers rows, and makes a baseline of them.
#[derive(Debug, Clone)]
pub struct BaselineBuilder {
    columns: Vec<Column>,
    classes: Vec<String>,
    has_summary: bool,
    has_joint: bool,
    season: Option<Season>,
    seen: u64,
    sample: Vec<Row>,
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    /// How many came before it.
    pub(super) order: u64,
    pub(super) values: Vec<f32>,
    /// The places of values of another type; those are not numbers.
    pub(super) wrong_type: Vec<usize>,
    pub(super) class: Option<usize>,
    pub(super) confidence: Option<f32>,
}

/// A season in the order of the reference rows, such as 24 windows that make a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Season {
    /// Rows of one phase, before the next begins.
    pub rows: u64,
    /// Phases.
    pub phases: usize,
    /// How long a phase lasts.
    pub phase_ms: i64,
}

impl Season {
    /// The phase of a row, by how many came before it.
    pub(super) fn phase(self, order: u64) -> usize {
        let phases = u64::try_from(self.phases).unwrap_or(u64::MAX).max(1);
        usize::try_from(order / self.rows.max(1) % phases).unwrap_or(0)
    }
}

impl BaselineBuilder {
    /// A builder for rows of these columns, from a model with these classes in the order of its output.
    pub const fn new(columns: Vec<Column>, classes: Vec<String>) -> Self {
        let sample = Vec::new();
        Self {
            columns,
            classes,
            has_summary: false,
            has_joint: false,
            season: None,
            seen: 0,
            sample,
        }
    }

    /// Adds two derived features in the group `summary`: brightness and contrast, the mean and the standard deviation of the numeric
    /// features of a row. For images, spectra and other rows whose columns are of one kind.
    #[must_use]
    pub const fn with_summary(mut self) -> Self {
        self.has_summary = true;
        self
    }

    /// Adds derived features in the group `joint`: what the numeric features of a row do together. Left out where there are too few of
    /// them, or too few rows.
    #[must_use]
    pub const fn with_joint(mut self) -> Self {
        self.has_joint = true;
        self
    }

    /// Keeps a distribution for each phase of a season, too. Rows must then come in the order of time, from the first phase on.
    #[must_use]
    pub const fn with_season(mut self, season: Season) -> Self {
        self.season = Some(season);
        self
    }

    /// Takes one row; what is not a finite number counts as missing.
    ///
    /// Values are rounded to `f32` first, as the device sees them. Beyond 50,000 rows an evenly spread sample of them is kept, which is
    /// the same each time.
    pub fn push(
        &mut self,
        features: &[f64],
        prediction: Option<&str>,
        confidence: Option<f64>,
    ) -> Result<(), InvalidBaseline> {
        let values = features.iter().copied().map(to_f32).collect();
        self.push_values(values, Vec::new(), prediction, confidence)
    }

    /// Takes one row as [`BaselineBuilder::push`] does, where values can be missing or of a wrong type.
    pub fn push_cells(
        &mut self,
        cells: &[Cell],
        prediction: Option<&str>,
        confidence: Option<f64>,
    ) -> Result<(), InvalidBaseline> {
        let is_numeric =
            |place: usize| self.columns.get(place).is_some_and(|it| it.kind == Kind::Numeric);
        let value = |(place, cell): (usize, &Cell)| match *cell {
            Cell::Number(value) => value + 0.0,
            Cell::Unseen(_) if !is_numeric(place) => f32::MAX, // is in no domain
            Cell::Null | Cell::WrongType | Cell::Unseen(_) => f32::NAN,
        };
        let is_wrong = |(place, cell): (usize, &Cell)| {
            let is_text = matches!(cell, Cell::Unseen(_)) && is_numeric(place);
            (is_text || *cell == Cell::WrongType).then_some(place)
        };
        let wrong_type = cells.iter().enumerate().filter_map(is_wrong).collect();
        let values = cells.iter().enumerate().map(value).collect();
        self.push_values(values, wrong_type, prediction, confidence)
    }

    fn push_values(
        &mut self,
        mut values: Vec<f32>,
        wrong_type: Vec<usize>,
        prediction: Option<&str>,
        confidence: Option<f64>,
    ) -> Result<(), InvalidBaseline> {
        let (row, expected) = (self.seen + 1, self.columns.len());
        if values.len() != expected {
            return Err(InvalidBaseline::Width { row, given: values.len(), expected });
        }
        let class = prediction.map(|class| self.class(class, row)).transpose()?;
        let confidence = confidence.map(to_f32);
        if self.has_summary {
            values.extend(self.summary(&values));
        }
        self.keep(Row { order: self.seen, values, wrong_type, class, confidence });
        self.seen += 1;
        Ok(())
    }

    /// Makes the baseline.
    pub fn build(mut self) -> Result<Baseline, InvalidBaseline> {
        self.sample.sort_by_key(|row| row.order);
        let inputs = self.columns.len();
        let derived = SUMMARY.map(|name| Column::numeric(name, SUMMARY_GROUP));
        let derived = derived.into_iter().filter(|_| self.has_summary);
        let columns = self.columns.iter().cloned().chain(derived);
        let features = columns.enumerate().map(|(index, column)| self.feature(index, column));
        let mut features = features.collect::<Result<Vec<_>, _>>()?;
        let joint = self.joint(&features);
        if let Some(joint) = &joint {
            features.extend(self.joint_features(joint)?);
        }

        let mut contents = Contents::new(as_u64(self.sample.len()), inputs, features);
        contents.classes = self.class_counts();
        contents.confidence = self.confidence_counts();
        let is_whole = self.seen <= SAMPLE_ROWS_MAX;
        contents.joint = joint;
        calibration::complete(&mut contents, &self.sample, self.season, is_whole);
        contents.v = contents.version();
        Baseline::decode(&crate::codec::encode(&contents)?)
    }

    fn joint(&self, features: &[Feature]) -> Option<Joint> {
        let numeric = features.iter().take(self.columns.len()).enumerate();
        let numeric =
            numeric.filter_map(|(place, feature)| Some((place, feature.numeric()?.clone())));
        self.has_joint.then(|| Joint::fit(&numeric.collect::<Vec<_>>(), &self.sample)).flatten()
    }

    /// Computes the joint features of the rows that are held out; the others have none.
    fn joint_features(&mut self, joint: &Joint) -> Result<Vec<Feature>, InvalidBaseline> {
        let (projector, first) = (Projector::new(joint), self.width());
        let numeric: Vec<_> = (0..self.columns.len())
            .filter(|place| self.columns.get(*place).is_some_and(|c| c.kind == Kind::Numeric))
            .collect();
        for row in &mut self.sample {
            let value = |place: &usize| row.values.get(*place).copied().unwrap_or(f32::NAN);
            let figures = projector.figures(numeric.iter().map(value));
            let known = is_held_out(row.order);
            let figures = figures.into_iter().take(projector.count());
            row.values.extend(figures.map(|figure| if known { figure } else { f32::NAN }));
        }
        let held_out = self.sample.iter().filter(|row| is_held_out(row.order)).count();
        let held_out = as_u64(held_out);
        let places = (first..).zip(joint.names());
        let features = places.map(|(place, name)| {
            let mut feature = self.feature(place, Column::numeric(&name, JOINT_GROUP))?;
            if let Reference::Numeric(reference) = &mut feature.reference {
                // The other rows have none because they are not looked at.
                reference.faulty = held_out.saturating_sub(reference.counts.iter().sum());
            }
            Ok(feature)
        });
        features.collect()
    }

    /// Values of a row, without joint ones.
    fn width(&self) -> usize {
        self.columns.len() + if self.has_summary { SUMMARY.len() } else { 0 }
    }

    fn class(&self, class: &str, row: u64) -> Result<usize, InvalidBaseline> {
        let place = self.classes.iter().position(|known| known == class);
        place.ok_or_else(|| InvalidBaseline::Class { row, class: class.chars().take(80).collect() })
    }

    fn summary(&self, values: &[f32]) -> [f32; 2] {
        let is_numeric = |column: &Column| column.kind == Kind::Numeric;
        let cells = self.columns.iter().zip(values);
        summary(cells.filter(|(column, _)| is_numeric(column)).map(|(_, value)| *value))
    }

    /// Reservoir sampling (Vitter's algorithm R) with a fixed sequence in place of chance.
    fn keep(&mut self, row: Row) {
        if self.seen < SAMPLE_ROWS_MAX {
            self.sample.push(row);
            return;
        }
        let place = usize::try_from(scramble(self.seen) % (self.seen + 1)).unwrap_or(usize::MAX);
        if let Some(kept) = self.sample.get_mut(place) {
            *kept = row;
        }
    }

    fn feature(&self, index: usize, column: Column) -> Result<Feature, InvalidBaseline> {
        let is_partial = matches!(column.kind, Kind::Commonest(_));
        let values = self.sample.iter().filter_map(|row| row.values.get(index)).copied();
        let mut reference = match column.kind {
            Kind::Categorical(domain) => Reference::Categorical(categorical(domain, values)),
            Kind::Commonest(domain) => {
                let held_out = self.sample.iter().filter(|row| is_held_out(row.order));
                let values = held_out.filter_map(|row| row.values.get(index)).copied();
                Reference::Categorical(CategoricalReference {
                    held_out: true,
                    ..categorical(domain, values)
                })
            }
            Kind::Numeric => {
                numeric(values.collect()).map(Reference::Numeric).ok_or_else(|| {
                    let rule = "it has no value";
                    InvalidBaseline::Feature { feature: column.name.clone(), rule }
                })?
            }
        };
        let is_counted = |row: &&Row| !is_partial || is_held_out(row.order);
        let rows = self.sample.iter().filter(is_counted);
        let of_another = as_u64(rows.filter(|row| row.wrong_type.contains(&index)).count());
        match &mut reference {
            Reference::Numeric(reference) => reference.wrong_type = of_another,
            Reference::Categorical(reference) => reference.wrong_type = of_another,
        }
        Ok(Feature { name: column.name, group: column.group, reference })
    }

    fn class_counts(&self) -> Vec<Category> {
        let mut classes: Vec<_> =
            self.classes.iter().map(|name| Category { name: name.clone(), count: 0 }).collect();
        for class in self.sample.iter().filter_map(|row| row.class) {
            if let Some(class) = classes.get_mut(class) {
                class.count += 1;
            }
        }
        classes
    }

    /// Nothing where no row has a confidence: a histogram of zeros would look like a reference.
    fn confidence_counts(&self) -> Vec<u64> {
        let mut counts = vec![0; CONFIDENCE_BINS];
        let confidences = self.sample.iter().filter_map(|row| row.confidence);
        for bin in confidences.filter_map(confidence_bin) {
            if let Some(count) = counts.get_mut(bin) {
                *count += 1;
            }
        }
        if counts.iter().all(|count| *count == 0) { Vec::new() } else { counts }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounds; what is beyond becomes infinite")]
const fn to_f32(value: f64) -> f32 {
    // Adding zero leaves one spelling of zero.
    value as f32 + 0.0
}

/// The finaliser of `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014).
pub(super) const fn scramble(state: u64) -> u64 {
    let state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

fn categorical(domain: Vec<String>, values: impl Iterator<Item = f32>) -> CategoricalReference {
    let domain = domain.into_iter().map(|name| Category { name, count: 0 }).collect();
    let mut reference =
        CategoricalReference { domain, unseen: 0, faulty: 0, wrong_type: 0, held_out: false };
    for value in values {
        let count = match super::profiler::category(value) {
            None => &mut reference.faulty,
            Some(place) => match reference.domain.get_mut(place) {
                Some(category) => &mut category.count,
                None => &mut reference.unseen,
            },
        };
        *count += 1;
    }
    reference
}

fn numeric(values: Vec<f32>) -> Option<NumericReference> {
    let rows = values.len();
    let mut sorted: Vec<f32> = values.into_iter().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f32::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let (edges, fine) = edges(&sorted, max);
    let (mean, sd) = mean_and_sd(&sorted);
    let kurtosis = kurtosis(&sorted, mean, sd);
    let faulty = as_u64(rows - sorted.len());
    let counts = counts(&sorted, &edges);
    Some(NumericReference {
        min,
        max,
        edges,
        counts,
        fine,
        mean,
        sd,
        kurtosis,
        faulty,
        wrong_type: 0,
    })
}

/// Rows that a finer bin has at least.
const FINE_ROWS: usize = 10;

/// The deciles of sorted values, each once, and finer edges with their places. A decile equal to `max` would have nothing above it and
/// is no edge.
fn edges(sorted: &[f32], max: f32) -> (Vec<f32>, Vec<usize>) {
    let quantile = |tenths: usize| {
        let rank = (tenths * sorted.len()).div_ceil(QUANTILE_BINS);
        sorted.get(rank.saturating_sub(1)).copied()
    };
    let mut tenths: Vec<f32> =
        (1..QUANTILE_BINS).filter_map(quantile).filter(|edge| *edge < max).collect();
    tenths.dedup();
    let mut edges = tenths.clone();
    let distinct = distinct(sorted);
    if distinct.len() <= EDGES_MAX + 1 {
        edges = distinct;
    } else {
        let tail = (sorted.len() / 100).max(FINE_ROWS);
        let ends = [tail.checked_sub(1), sorted.len().checked_sub(tail + 1)];
        edges.extend(ends.into_iter().flatten().filter_map(|rank| sorted.get(rank)));
        edges.sort_by(f32::total_cmp);
        edges.dedup();
    }
    edges.retain(|edge| *edge < max);
    let is_fine = |(place, edge): (usize, &f32)| (!tenths.contains(edge)).then_some(place);
    let fine = edges.iter().enumerate().filter_map(is_fine).collect();
    (edges, fine)
}

/// The first values that differ, up to one more than have edges.
fn distinct(sorted: &[f32]) -> Vec<f32> {
    let mut distinct: Vec<f32> = Vec::new();
    for value in sorted {
        if distinct.last() != Some(value) {
            distinct.push(*value);
        }
        if distinct.len() > EDGES_MAX + 1 {
            break;
        }
    }
    distinct
}

fn counts(sorted: &[f32], edges: &[f32]) -> Vec<u64> {
    let up_to = |edge: f32| sorted.partition_point(|value| *value <= edge);
    let ends = edges.iter().map(|edge| up_to(*edge)).chain([sorted.len()]);
    let count = |start: &mut usize, end: usize| {
        let count = end - *start;
        *start = end;
        Some(as_u64(count))
    };
    ends.scan(0, count).collect()
}

fn mean_and_sd(values: &[f32]) -> (f64, f64) {
    let n = values.iter().map(|_| 1.0).sum::<f64>();
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / n;
    let square = |value: &f32| (f64::from(*value) - mean).powi(2);
    (mean, (values.iter().map(square).sum::<f64>() / n).sqrt())
}

fn kurtosis(values: &[f32], mean: f64, sd: f64) -> f64 {
    if sd <= 0.0 {
        return 0.0;
    }
    let n = values.iter().map(|_| 1.0).sum::<f64>();
    values.iter().map(|value| ((f64::from(*value) - mean) / sd).powi(4)).sum::<f64>() / n
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(values: &[f64]) -> NumericReference {
        let mut builder = BaselineBuilder::new(vec![Column::numeric("a", "all")], vec![]);
        for value in values {
            builder.push(&[*value], None, None).unwrap();
        }
        let baseline = builder.build().unwrap();
        let Reference::Numeric(reference) = &baseline.features()[0].reference else { panic!() };
        reference.clone()
    }

    #[test]
    fn distinct_values_fall_into_ten_equal_bins() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        let reference = built(&values);
        assert_eq!(reference.in_tenths().counts, [100; 10]);
        assert_eq!(reference.counts, [10, 90, 100, 100, 100, 100, 100, 100, 100, 100, 90, 10]);
        assert_eq!((reference.edges[0], reference.edges[1]), (10.0, 100.0));
        assert_eq!(reference.fine, [0, 10]);
        assert_eq!((reference.min, reference.max, reference.mean), (1.0, 1000.0, 500.5));
    }

    #[test]
    fn repeated_values_share_a_bin_and_leave_none_empty() {
        let mostly_zero = [vec![0.0; 75], vec![1.0; 10], vec![16.0; 15]].concat();
        let reference = built(&mostly_zero);
        assert_eq!(reference.edges, [0.0, 1.0]);
        assert_eq!(reference.counts, [75, 10, 15]);
        assert_eq!(reference.labels(), ["< 0", "[0, 0]", "(0, 1]", "(1, 16]", "> 16"]);
        assert_eq!(reference.points(), [0.0, 0.0, 0.5, 8.5, 16.0]);
    }

    #[test]
    fn a_constant_has_one_bin_between_two_tails() {
        let reference = built(&[3.0; 50]);
        assert!(reference.edges.is_empty());
        assert_eq!(reference.counts_with_tails(), [0, 50, 0]);
        assert_eq!(reference.points(), [3.0; 3]);
    }

    #[test]
    fn what_is_not_finite_counts_as_missing() {
        let reference = built(&[1.0, f64::NAN, 2.0, f64::INFINITY, 1e300]);
        assert_eq!((reference.faulty, reference.max), (3, 2.0));
    }

    #[test]
    fn a_feature_without_any_value_is_refused() {
        let mut builder = BaselineBuilder::new(vec![Column::numeric("dead", "all")], vec![]);
        builder.push(&[f64::NAN], None, None).unwrap();
        assert_eq!(builder.build().unwrap_err().to_string(), "feature `dead`: it has no value");
    }

    #[test]
    fn a_row_that_does_not_fit_the_schema_is_refused() {
        let columns = vec![Column::numeric("a", "all")];
        let mut builder = BaselineBuilder::new(columns, vec!["cat".to_owned()]);
        let width = builder.push(&[1.0, 2.0], None, None).unwrap_err().to_string();
        assert_eq!(width, "row 1 has 2 features, the schema 1");
        let class = builder.push(&[1.0], Some("dog"), None).unwrap_err().to_string();
        assert_eq!(class, "row 1 predicts `dog`, which is not among the classes");
    }

    #[test]
    fn a_long_reference_is_sampled_evenly() {
        let rows = SAMPLE_ROWS_MAX * 3;
        let values: Vec<f64> =
            (0..rows).map(|row| f64::from(u32::try_from(row).unwrap())).collect();
        let reference = built(&values);
        assert_eq!(reference.counts.iter().sum::<u64>(), SAMPLE_ROWS_MAX);
        assert!((reference.mean / 75_000.0 - 1.0).abs() < 0.01, "{}", reference.mean);
    }

    #[test]
    fn quadrants_of_eight_by_eight() {
        let at = |row: usize, column: usize| quadrant(row * 8 + column, 8, 8);
        assert_eq!((at(3, 3), at(3, 4)), ("upper-left", "upper-right"));
        assert_eq!((at(4, 3), at(7, 7)), ("lower-left", "lower-right"));
    }
}

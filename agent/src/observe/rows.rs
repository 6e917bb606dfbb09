//! Where in the tensors of a request the rows, the predictions and the confidences are.

use sealift_protocol::image::{IoContract, Role};
use sealift_protocol::picture::figure;
use sealift_protocol::profile::{Baseline, Cell, Profiler, TextColumn};
use sealift_protocol::tensor::{Datatype, Tensor};

use super::pictures::{Looks, Pictures, Seen, level};
use crate::behaviour::Block;

/// Which tensors of a contract are observed.
#[derive(Debug)]
pub(super) struct RowPlan {
    rows: Rows,
    class: Option<String>,
    probabilities: Option<String>,
    /// For outputs that name the class by text.
    labels: Vec<String>,
}

/// What a row is.
#[derive(Debug)]
enum Rows {
    /// A row of each of these inputs.
    Columns(Vec<Planned>),
    /// A picture.
    Pictures(Pictures),
}

/// An input whose columns are watched.
#[derive(Debug)]
struct Planned {
    name: String,
    /// How texts are taken, column by column; numbers are taken as they are.
    columns: Vec<TextColumn>,
}

/// The observed tensors of one answer.
pub(super) struct Observed<'a> {
    rows: ObservedRows<'a>,
    class: Option<Classes<'a>>,
    probabilities: Option<(Numbers<'a>, usize)>,
}

enum ObservedRows<'a> {
    Columns(Vec<Columns<'a>>),
    Pictures { plan: &'a Pictures, count: usize, seen: Seen<'a> },
}

/// The elements of one input, and how many make a row.
struct Columns<'a> {
    elements: Elements<'a>,
    width: usize,
}

enum Elements<'a> {
    Numbers(Numbers<'a>),
    Texts(Vec<Cell>),
}

/// Elements as numbers, without a copy for the common type.
enum Numbers<'a> {
    Fp32(&'a [[u8; 4]]),
    Other(Vec<f64>),
}

enum Classes<'a> {
    Places(Numbers<'a>),
    Labels(Vec<Option<usize>>),
}

/// Room for one row, kept from request to request.
#[derive(Debug, Default)]
pub(super) struct Room {
    row: Vec<f32>,
    cells: Vec<Cell>,
}

impl RowPlan {
    /// Looks up what is to be observed; none where the contract names no columns, or others than the baseline.
    pub(super) fn new(contract: &IoContract, baseline: &Baseline) -> Option<Self> {
        let rows = if baseline.features().first().is_some_and(|it| figure(&it.name).is_some()) {
            Rows::Pictures(Pictures::new(contract, baseline)?)
        } else {
            Rows::Columns(Planned::all(contract, baseline)?)
        };
        let name = |role| contract.output_with(role).map(|spec| spec.name.clone());
        Some(Self {
            rows,
            class: name(Role::Class),
            probabilities: name(Role::Probabilities),
            labels: baseline.classes().iter().map(|class| class.name.clone()).collect(),
        })
    }

    /// The pictures, if rows are some.
    pub(super) const fn pictures(&self) -> Option<&Pictures> {
        match &self.rows {
            Rows::Pictures(pictures) => Some(pictures),
            Rows::Columns(_) => None,
        }
    }

    /// Finds the observed tensors of an answer.
    pub(super) fn observe<'a>(
        &'a self,
        (inputs, outputs): (&'a [Tensor], &'a [Tensor]),
        seen: Seen<'a>,
    ) -> Option<Observed<'a>> {
        let columns = |planned: &'a Planned| planned.columns(find(inputs, &planned.name)?);
        let rows = match &self.rows {
            Rows::Columns(planned) => {
                ObservedRows::Columns(planned.iter().map(columns).collect::<Option<_>>()?)
            }
            Rows::Pictures(plan) => {
                ObservedRows::Pictures { plan, count: plan.count(inputs), seen }
            }
        };
        let class = self.class.as_ref().and_then(|name| self.classes(find(outputs, name)?));
        let probabilities = self.probabilities.as_ref().and_then(|name| {
            let tensor = find(outputs, name)?;
            let columns = usize::try_from(*tensor.shape.last()?).ok().filter(|&count| count > 0)?;
            Some((Numbers::of(tensor)?, columns))
        });
        Some(Observed { rows, class, probabilities })
    }

    fn classes<'a>(&self, tensor: &'a Tensor) -> Option<Classes<'a>> {
        if tensor.datatype != Datatype::Bytes {
            return Numbers::of(tensor).map(Classes::Places);
        }
        let place = |text: &[u8]| self.labels.iter().position(|label| label.as_bytes() == text);
        Some(Classes::Labels(texts(tensor)?.into_iter().map(place).collect()))
    }
}

impl Planned {
    /// The inputs whose columns the baseline has.
    fn all(contract: &IoContract, baseline: &Baseline) -> Option<Vec<Self>> {
        let mut features = baseline.features().iter().take(baseline.inputs());
        let mut inputs = Vec::new();
        for spec in contract.observed_inputs() {
            let columns: Vec<_> = features.by_ref().take(spec.features.len()).collect();
            // Baselines used to be made of the first input alone.
            if columns.is_empty() && !inputs.is_empty() {
                break;
            }
            if columns.len() != spec.features.len() {
                tracing::warn!(input = spec.name, "contract and baseline differ in features");
                return None;
            }
            let columns = columns.into_iter().map(TextColumn::of).collect();
            inputs.push(Self { name: spec.name.clone(), columns });
        }
        let left = features.count();
        if left > 0 && !inputs.is_empty() {
            tracing::warn!(left, "the baseline has features that the contract does not name");
        }
        if left > 0 || inputs.is_empty() {
            return None;
        }
        Some(inputs)
    }

    fn columns<'a>(&self, tensor: &'a Tensor) -> Option<Columns<'a>> {
        let width = self.columns.len();
        if tensor.datatype != Datatype::Bytes {
            return Some(Columns { elements: Elements::Numbers(Numbers::of(tensor)?), width });
        }
        let cell = |(text, column): (&[u8], &TextColumn)| {
            str::from_utf8(text).map_or(Cell::WrongType, |text| column.cell(text.trim()))
        };
        let cells = texts(tensor)?.into_iter().zip(self.columns.iter().cycle()).map(cell);
        Some(Columns { elements: Elements::Texts(cells.collect()), width })
    }
}

impl Columns<'_> {
    fn rows(&self) -> usize {
        let elements = match &self.elements {
            Elements::Numbers(numbers) => numbers.len(),
            Elements::Texts(cells) => cells.len(),
        };
        elements.checked_div(self.width).unwrap_or(0)
    }
}

impl Observed<'_> {
    /// Counts every row; the request's latency is counted once, with the first. Returns how many pictures were looked at.
    pub(super) fn count(
        &self,
        counters: (&mut Profiler, &mut Block),
        room: &mut Room,
        latency_us: u64,
    ) -> Looks {
        match &self.rows {
            ObservedRows::Columns(inputs) => {
                self.count_columns(inputs, counters, room, latency_us);
                Looks::default()
            }
            ObservedRows::Pictures { plan, count, seen } => {
                self.count_pictures((plan, *count, *seen), counters, &mut room.row, latency_us)
            }
        }
    }

    fn count_columns(
        &self,
        inputs: &[Columns<'_>],
        (profiler, block): (&mut Profiler, &mut Block),
        room: &mut Room,
        latency_us: u64,
    ) {
        let rows = inputs.iter().map(Columns::rows).min().unwrap_or(0);
        for place in 0..rows {
            let (class, confidence) = self.said(place);
            let latency_us = (place == 0).then_some(latency_us);
            let Room { row, cells } = room;
            if let [Columns { elements: Elements::Numbers(numbers), width }] = inputs {
                numbers.fill(row, place * width, *width);
                block.row(mean(row), class, confidence);
                profiler.observe(row, class, confidence, latency_us);
            } else {
                fill(inputs, place, (row, cells));
                block.row(mean(row), class, confidence);
                profiler.observe_cells(cells, class, confidence, latency_us);
            }
        }
    }

    fn count_pictures(
        &self,
        (plan, count, seen): (&Pictures, usize, Seen<'_>),
        (profiler, block): (&mut Profiler, &mut Block),
        row: &mut Vec<f32>,
        latency_us: u64,
    ) -> Looks {
        let mut looks = Looks::default();
        let mut latency_us = Some(latency_us);
        for place in 0..count {
            let (class, confidence) = self.said(place);
            if let Some(figures) = seen.at(place) {
                plan.fill(row, figures);
                block.row(level(figures), class, confidence);
                profiler.observe(row, class, confidence, latency_us.take());
                looks.looked_at += 1;
            } else {
                block.row(f64::NAN, class, confidence);
                looks.passed_over += 1;
            }
        }
        if count > 0 {
            profiler.skip(looks.passed_over, latency_us);
        }
        looks
    }

    /// What the model made of a row: its class and its confidence.
    fn said(&self, place: usize) -> (Option<usize>, Option<f32>) {
        let (likeliest, confidence) = self.likeliest(place);
        let class = match &self.class {
            Some(Classes::Places(places)) => places.get(place).map(class),
            // A label that the baseline does not know is a class that it has not seen.
            Some(Classes::Labels(labels)) => {
                labels.get(place).map(|place| place.unwrap_or(usize::MAX))
            }
            None => likeliest,
        };
        (class, confidence)
    }

    /// The class with the largest probability, and that.
    fn likeliest(&self, place: usize) -> (Option<usize>, Option<f32>) {
        let Some((numbers, columns)) = &self.probabilities else { return (None, None) };
        let shares =
            (0..*columns).filter_map(|class| Some((class, numbers.get(place * columns + class)?)));
        let largest = shares.max_by(|(_, left), (_, right)| left.total_cmp(right));
        (largest.map(|(class, _)| class), largest.map(|(_, share)| share))
    }
}

impl<'a> Numbers<'a> {
    fn of(tensor: &'a Tensor) -> Option<Self> {
        if tensor.datatype == Datatype::Fp32 {
            return Some(Self::Fp32(tensor.bytes.as_chunks().0));
        }
        tensor.numbers().map(Self::Other)
    }

    fn len(&self) -> usize {
        match self {
            Self::Fp32(elements) => elements.len(),
            Self::Other(numbers) => numbers.len(),
        }
    }

    fn get(&self, place: usize) -> Option<f32> {
        match self {
            Self::Fp32(elements) => elements.get(place).map(|bytes| f32::from_le_bytes(*bytes)),
            Self::Other(numbers) => numbers.get(place).copied().map(narrow),
        }
    }

    fn fill(&self, row: &mut Vec<f32>, from: usize, count: usize) {
        row.clear();
        match self {
            Self::Fp32(elements) => {
                let elements = elements.get(from..from + count).unwrap_or_default();
                row.extend(elements.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            }
            Self::Other(numbers) => {
                let numbers = numbers.get(from..from + count).unwrap_or_default();
                row.extend(numbers.iter().copied().map(narrow));
            }
        }
    }
}

/// The cells of a row of several inputs, and the numbers among them.
fn fill(inputs: &[Columns<'_>], place: usize, (row, cells): (&mut Vec<f32>, &mut Vec<Cell>)) {
    cells.clear();
    for Columns { elements, width } in inputs {
        match elements {
            Elements::Numbers(numbers) => {
                numbers.fill(row, place * width, *width);
                cells.extend(row.iter().copied().map(Cell::Number));
            }
            Elements::Texts(texts) => {
                cells.extend(texts.iter().skip(place * width).take(*width));
            }
        }
    }
    row.clear();
    row.extend(cells.iter().filter_map(|cell| match cell {
        Cell::Number(number) => Some(*number),
        Cell::Null | Cell::WrongType | Cell::Unseen(_) => None,
    }));
}

/// Of the numbers among them; not a number if there is none.
fn mean(row: &[f32]) -> f64 {
    let numbers = row.iter().filter(|value| value.is_finite());
    let (sum, count) =
        numbers.fold((0.0, 0.0), |(sum, count), &value| (sum + f64::from(value), count + 1.0));
    sum / count
}

/// The elements of a tensor of texts; nothing if its bytes are none.
fn texts(tensor: &Tensor) -> Option<Vec<&[u8]>> {
    let mut texts = Vec::new();
    let mut rest = tensor.bytes.as_slice();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (text, tail) = tail.split_at_checked(length)?;
        texts.push(text);
        rest = tail;
    }
    Some(texts)
}

fn find<'a>(tensors: &'a [Tensor], name: &str) -> Option<&'a Tensor> {
    tensors.iter().find(|tensor| tensor.name == name)
}

#[expect(clippy::cast_possible_truncation, reason = "profiles are made of f32 values")]
const fn narrow(number: f64) -> f32 {
    number as f32
}

/// What is no whole number from 0 is no class that a baseline can have.
fn class(number: f32) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "was just compared"
    )]
    let whole = |number: f32| number as usize;
    let is_place = (0.0..65_536.0).contains(&number) && number.fract() == 0.0;
    if is_place { whole(number) } else { usize::MAX }
}

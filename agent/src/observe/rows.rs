//! Where in the tensors of a request the rows, the predictions and the confidences are.

use sealift_protocol::image::{IoContract, Role};
use sealift_protocol::profile::{Baseline, Profiler};
use sealift_protocol::tensor::{Datatype, Tensor};

use crate::behaviour::Block;

/// Which tensors of a contract are observed.
#[derive(Debug)]
pub(super) struct RowPlan {
    input: String,
    columns: usize,
    class: Option<String>,
    probabilities: Option<String>,
    /// For outputs that name the class by text.
    labels: Vec<String>,
}

/// The observed tensors of one answer.
pub(super) struct Observed<'a> {
    columns: usize,
    input: Numbers<'a>,
    class: Option<Classes<'a>>,
    probabilities: Option<(Numbers<'a>, usize)>,
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

impl RowPlan {
    /// Looks up what is to be observed; none where the contract names no columns, or others than the baseline.
    pub(super) fn new(contract: &IoContract, baseline: &Baseline) -> Option<Self> {
        let input = contract.observed_input()?;
        if input.features.len() != baseline.inputs() {
            let (contract, baseline) = (input.features.len(), baseline.inputs());
            tracing::warn!(contract, baseline, "contract and baseline differ in features");
            return None;
        }
        let name = |role| contract.output_with(role).map(|spec| spec.name.clone());
        Some(Self {
            input: input.name.clone(),
            columns: input.features.len(),
            class: name(Role::Class),
            probabilities: name(Role::Probabilities),
            labels: baseline.classes().iter().map(|class| class.name.clone()).collect(),
        })
    }

    /// Finds the observed tensors of an answer.
    pub(super) fn observe<'a>(
        &self,
        inputs: &'a [Tensor],
        outputs: &'a [Tensor],
    ) -> Option<Observed<'a>> {
        let input = Numbers::of(find(inputs, &self.input)?)?;
        let class = self.class.as_ref().and_then(|name| self.classes(find(outputs, name)?));
        let probabilities = self.probabilities.as_ref().and_then(|name| {
            let tensor = find(outputs, name)?;
            let columns = usize::try_from(*tensor.shape.last()?).ok().filter(|&count| count > 0)?;
            Some((Numbers::of(tensor)?, columns))
        });
        Some(Observed { columns: self.columns, input, class, probabilities })
    }

    fn classes<'a>(&self, tensor: &'a Tensor) -> Option<Classes<'a>> {
        if tensor.datatype != Datatype::Bytes {
            return Numbers::of(tensor).map(Classes::Places);
        }
        let place = |text: &[u8]| self.labels.iter().position(|label| label.as_bytes() == text);
        let mut places = Vec::new();
        let mut rest = tensor.bytes.as_slice();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (text, tail) = tail.split_at_checked(length)?;
            places.push(place(text));
            rest = tail;
        }
        Some(Classes::Labels(places))
    }
}

impl Observed<'_> {
    /// Counts every row; the request's latency is counted once, with the first.
    pub(super) fn count(
        &self,
        (profiler, block): (&mut Profiler, &mut Block),
        row: &mut Vec<f32>,
        latency_us: u64,
    ) {
        let rows = self.input.len().checked_div(self.columns).unwrap_or(0);
        for place in 0..rows {
            self.input.fill(row, place * self.columns, self.columns);
            let (likeliest, confidence) = self.likeliest(place);
            let class = match &self.class {
                Some(Classes::Places(places)) => places.get(place).map(class),
                // A label that the baseline does not know is a class that it has not seen.
                Some(Classes::Labels(labels)) => {
                    labels.get(place).map(|place| place.unwrap_or(usize::MAX))
                }
                None => likeliest,
            };
            block.row(mean(row), class, confidence);
            profiler.observe(row, class, confidence, (place == 0).then_some(latency_us));
        }
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

/// Of the numbers among them; not a number if there is none.
fn mean(row: &[f32]) -> f64 {
    let numbers = row.iter().filter(|value| value.is_finite());
    let (sum, count) =
        numbers.fold((0.0, 0.0), |(sum, count), &value| (sum + f64::from(value), count + 1.0));
    sum / count
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

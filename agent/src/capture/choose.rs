//! Which rows of an answer are kept: the rules' decision, with the device's dice and what is left of its budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealift_protocol::capture::{
    CaptureList, CapturePolicy, InferenceId, Judged, Sample, SampleId, Spent, Taken, row,
};
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::limits::{LABEL_CHARS_MAX, SAMPLE_BYTES_MAX};
use sealift_protocol::report::ImageRef;
use sealift_protocol::tensor::Tensor;

use crate::dice::Dice;

/// Names, numbers and shapes of a sample, besides its tensors' elements.
const HEAD_BYTES: usize = 1 << 10;

/// What an application was told.
#[derive(Debug)]
pub(super) struct Answered<'a> {
    pub(super) model: &'a ModelName,
    pub(super) image: &'a ImageRef,
    pub(super) inference: &'a InferenceId,
    pub(super) inputs: &'a [Tensor],
    pub(super) outputs: &'a [Tensor],
    pub(super) rows: &'a [Judged],
    pub(super) now: UnixMillis,
}

/// What is kept of it.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) samples: Vec<Sample>,
    /// Chosen, and too large to be kept.
    pub(super) lost: u32,
}

/// Rules, dice and budgets.
#[derive(Debug, Default)]
pub(super) struct Chooser {
    list: Option<Arc<CaptureList>>,
    spent: BTreeMap<ModelName, Spent>,
    dice: Dice,
}

impl Chooser {
    /// Goes on from what was kept before the agent was restarted.
    pub(super) fn resume(&mut self, spent: BTreeMap<ModelName, Spent>) {
        self.spent = spent;
    }

    pub(super) fn follow(&mut self, list: Option<Arc<CaptureList>>) {
        if let Some(list) = &list {
            self.spent.retain(|model, _| list.models.contains_key(model));
        }
        self.list = list;
    }

    /// What was kept today.
    pub(super) fn spent(&self) -> BTreeMap<ModelName, Spent> {
        self.spent.clone()
    }

    /// Whether anything of a model may be kept now.
    pub(super) fn wants(&self, model: &ModelName, now: UnixMillis) -> bool {
        self.list.as_ref().is_some_and(|list| list.policy(model, now).is_some())
    }

    /// Chooses among the rows of an answer.
    pub(super) fn choose(&mut self, answered: &Answered<'_>) -> Chosen {
        let mut chosen = Chosen::default();
        let Some(list) = self.list.clone() else { return chosen };
        let Some(policy) = list.policy(answered.model, answered.now) else { return chosen };
        let spent = self.spent.entry(answered.model.clone()).or_default();
        spent.turn(answered.now);
        for (place, judged) in answered.rows.iter().enumerate() {
            let taken = policy.decide(judged.seen, spent.left(policy), self.dice.throw());
            spent.saw(judged.seen, policy);
            let Some(taken) = taken else { continue };
            match keep(answered, (place, judged), taken, (spent, policy)) {
                Some(sample) => chosen.samples.push(sample),
                None => chosen.lost += 1,
            }
        }
        chosen
    }
}

/// Copies a row, if the budget has room for it.
fn keep(
    answered: &Answered<'_>,
    (place, judged): (usize, &Judged),
    taken: Taken,
    (spent, policy): (&mut Spent, &CapturePolicy),
) -> Option<Sample> {
    let Answered { inputs, outputs, rows, .. } = *answered;
    let count = rows.len();
    // Asked before anything is copied.
    let whole: usize = inputs.iter().chain(outputs).map(|tensor| tensor.bytes.len()).sum();
    let bytes = whole / count.max(1) + HEAD_BYTES;
    if bytes > SAMPLE_BYTES_MAX || !spent.take(&taken.why, bytes as u64, policy) {
        return None;
    }
    let of_row = |tensors: &[Tensor]| row(tensors, place, count);
    let inference =
        if count > 1 { answered.inference.of_row(place)? } else { answered.inference.clone() };
    let mut id = [0; 16];
    getrandom::fill(&mut id).ok()?;
    let mut sample = Sample::new(
        (SampleId::new(id), inference),
        (answered.model.clone(), answered.image.clone()),
        answered.now,
        (of_row(inputs)?, of_row(outputs)?),
        (taken.why, taken.chance),
    );
    let finite = |number: Option<f64>| number.filter(|number| number.is_finite());
    let shortened = |name: &String| name.chars().take(LABEL_CHARS_MAX).collect();
    sample.prediction = judged.prediction.as_ref().map(shortened);
    sample.confidence = finite(judged.seen.confidence);
    sample.margin = finite(judged.seen.margin);
    Some(sample)
}

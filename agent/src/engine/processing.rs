//! The steps that a contract declares around its graph. They run in the worker, behind its sandbox: bytes of images come from anyone.
//!
//! What cannot be read is the sender's fault, and is told by tensor and element.

mod after;
mod image;
mod resample;
mod table;

use sealift_protocol::image::{Before, IoContract, Processing, TensorSpec};
use sealift_protocol::tensor::Tensor;

use super::look::Look;
use super::{Engine, EngineError};

/// What all tensors that a step makes may take together; as much as a frame to the supervisor.
const MADE_BYTES_MAX: usize = 256 << 20;

/// An engine with the steps around it.
pub(crate) struct Processed<E> {
    engine: E,
    processing: Processing,
    outputs: Vec<TensorSpec>,
}

impl<E: Engine> Processed<E> {
    /// Puts the steps of `contract` around an engine of its graph; none if it has no steps.
    pub(crate) fn new(engine: E, contract: &IoContract) -> Result<Self, E> {
        match contract.processing.clone() {
            Some(processing) => Ok(Self { engine, processing, outputs: contract.outputs.clone() }),
            None => Err(engine),
        }
    }

    fn before(&self, inputs: &[Tensor], look: &mut Look) -> Result<Vec<Tensor>, EngineError> {
        let make = |spec: &TensorSpec| {
            let step = self.processing.before.iter().find(|step| step.makes() == spec.name);
            let made = match step {
                Some(Before::Image(step)) => {
                    image::run(step, spec, find(inputs, &step.from)?, look)
                }
                Some(Before::Table(step)) => table::run(step, spec, inputs),
                None => find(inputs, &spec.name).cloned(),
            }?;
            fits(spec, &made)?;
            Ok(made)
        };
        self.processing.graph.inputs.iter().map(make).collect()
    }

    fn after(&self, mut tensors: Vec<Tensor>) -> Result<Vec<Tensor>, EngineError> {
        for step in &self.processing.after {
            let from = tensors.iter().find(|tensor| tensor.name == step.takes());
            let from = from.ok_or_else(|| missing(step.takes()))?;
            let made = after::run(step, from)?;
            tensors.extend(made);
        }
        let output = |spec: &TensorSpec| {
            let place = tensors.iter().position(|tensor| tensor.name == spec.name);
            Ok(tensors.swap_remove(place.ok_or_else(|| missing(&spec.name))?))
        };
        self.outputs.iter().map(output).collect()
    }
}

impl<E: Engine> Engine for Processed<E> {
    fn look(&mut self, inputs: &[Tensor], look: &mut Look) -> Result<Vec<Tensor>, EngineError> {
        let inputs = self.before(inputs, look)?;
        let outputs = self.engine.run(&inputs)?;
        self.after(outputs)
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        self.look(inputs, &mut Look::default())
    }

    fn providers(&self) -> &[(String, u32)] {
        self.engine.providers()
    }

    fn runtime(&self) -> &str {
        self.engine.runtime()
    }
}

fn find<'a>(tensors: &'a [Tensor], name: &str) -> Result<&'a Tensor, EngineError> {
    let found = tensors.iter().find(|tensor| tensor.name == name);
    found.ok_or_else(|| EngineError::Input(format!("input `{name}` is missing")))
}

fn missing(name: &str) -> EngineError {
    EngineError::Run(format!("tensor `{name}` is missing"))
}

/// The number of rows comes with the request, and the graph may have a word in it.
fn fits(spec: &TensorSpec, made: &Tensor) -> Result<(), EngineError> {
    let same =
        |(&expected, &given): (&i64, &u64)| expected == -1 || u64::try_from(expected) == Ok(given);
    let (expected, given) = (&spec.shape, &made.shape);
    if expected.len() == given.len() && expected.iter().zip(given).all(same) {
        return Ok(());
    }
    let name = &spec.name;
    let text = format!("`{name}`: the graph takes shape {expected:?}, the inputs make {given:?}");
    Err(EngineError::Input(text))
}

#[cfg(test)]
mod tests;

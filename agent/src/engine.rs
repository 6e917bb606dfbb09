//! What runs a model's graph: ONNX Runtime, or a deterministic fake for simulated devices.

pub(crate) mod fake;
pub(crate) mod look;
pub(crate) mod onnxruntime;
pub(crate) mod processing;

use sealift_protocol::tensor::Tensor;

use self::look::Look;

/// A loaded model.
pub(crate) trait Engine: Send {
    /// Runs inputs that keep the I/O contract; returns all outputs of the contract, in its order.
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError>;

    /// The same, and looks at pictures that it decodes on the way.
    fn look(&mut self, inputs: &[Tensor], _look: &mut Look) -> Result<Vec<Tensor>, EngineError> {
        self.run(inputs)
    }

    /// Execution providers that really run the graph, with their count of nodes, by name.
    fn providers(&self) -> &[(String, u32)];

    /// Name and version of the library.
    fn runtime(&self) -> &str;
}

/// Why a model was not loaded or not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The library, the provider or the model does not load, or the model is not what its contract says.
    #[error("{0}")]
    Load(String),
    /// The input cannot be handed to the library; whoever sent it is to blame.
    #[error("{0}")]
    Input(String),
    /// The graph failed on an input that keeps the contract.
    #[error("{0}")]
    Run(String),
}

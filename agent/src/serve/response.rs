//! An answer of the Open Inference Protocol v2: JSON, and after it the outputs that were asked for as binary data.

use sealift_protocol::tensor::{Datatype, Tensor};
use serde::Serialize;

use super::elements::Elements;
use super::live::Live;
use super::request::{InferRequest, WantedOutput};

/// The body of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InferResponse {
    pub(super) body: Vec<u8>,
    /// Length of the JSON if there is binary data after it.
    pub(super) header_bytes: Option<usize>,
}

/// Why there is no body for an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoResponse {
    #[error("unexpected output `{name}`; expected {expected}")]
    UnknownOutput { name: String, expected: String },
    #[error("outputs have no form in JSON: {0}")]
    Json(#[source] serde_json::Error),
    #[error("outputs of different lengths have no form in CSV; ask for application/json")]
    Csv,
}

#[derive(Serialize)]
struct Head<'a> {
    model_name: String,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<HeadOutput<'a>>,
}

#[derive(Serialize)]
struct HeadOutput<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [u64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Elements<'a>>,
}

#[derive(Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

/// Checks that the outputs asked for exist, before the model is asked.
pub(super) fn check_wanted(live: &Live, wanted: &[WantedOutput]) -> Result<(), NoResponse> {
    let outputs = &live.contract().outputs;
    let is_unknown = |wanted: &&WantedOutput| !outputs.iter().any(|spec| spec.name == wanted.name);
    let Some(unknown) = wanted.iter().find(is_unknown) else { return Ok(()) };
    Err(NoResponse::unknown_output(live, &unknown.name))
}

impl NoResponse {
    /// An output that the contract does not have.
    pub(super) fn unknown_output(live: &Live, name: &str) -> Self {
        let outputs = live.contract().outputs.iter();
        let names: Vec<_> = outputs.map(|spec| format!("`{}`", spec.name)).collect();
        Self::UnknownOutput { name: name.to_owned(), expected: names.join(", ") }
    }
}

impl InferResponse {
    /// Writes the outputs that `request` asked for, each in the form that it asked for.
    pub(super) fn write(
        live: &Live,
        request: &InferRequest,
        outputs: &[Tensor],
    ) -> Result<Self, NoResponse> {
        let chosen = choose(request, outputs);
        let head = Head {
            model_name: live.model().to_string(),
            model_version: live.image().version.as_str(),
            id: request.id.as_deref(),
            outputs: chosen.iter().map(|&(tensor, is_binary)| output(tensor, is_binary)).collect(),
        };
        let binary = chosen.iter().filter(|(_, is_binary)| *is_binary).map(|(tensor, _)| tensor);
        let binary_bytes: usize = binary.clone().map(|tensor| tensor.bytes.len()).sum();
        let mut body = Vec::with_capacity(256 + binary_bytes);
        serde_json::to_writer(&mut body, &head).map_err(NoResponse::Json)?;
        let has_binary = chosen.iter().any(|(_, is_binary)| *is_binary);
        let header_bytes = has_binary.then_some(body.len());
        binary.for_each(|tensor| body.extend_from_slice(&tensor.bytes));
        Ok(Self { body, header_bytes })
    }
}

/// The outputs to send, and whether as binary data.
fn choose<'a>(request: &InferRequest, outputs: &'a [Tensor]) -> Vec<(&'a Tensor, bool)> {
    if request.outputs.is_empty() {
        return outputs.iter().map(|tensor| (tensor, request.is_binary)).collect();
    }
    let find = |wanted: &WantedOutput| {
        let tensor = outputs.iter().find(|tensor| tensor.name == wanted.name)?;
        Some((tensor, wanted.is_binary.unwrap_or(request.is_binary)))
    };
    request.outputs.iter().filter_map(find).collect()
}

fn output(tensor: &Tensor, is_binary: bool) -> HeadOutput<'_> {
    HeadOutput {
        name: &tensor.name,
        datatype: tensor.datatype,
        shape: &tensor.shape,
        parameters: is_binary.then_some(BinarySize { binary_data_size: tensor.bytes.len() }),
        data: (!is_binary).then_some(Elements(tensor)),
    }
}

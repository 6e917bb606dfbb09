//! An inference request of the Open Inference Protocol v2: JSON, and the binary tensor extension.
//!
//! ```text
//!  { "inputs": [{"name": "a", "parameters": {"binary_data_size": 8}, …}, …] }   as long as Inference-Header-Content-Length says
//!  8 bytes of a │ bytes of the next input that has binary data │ …              in the order of the inputs
//! ```

use sealift_protocol::image::IoContract;
use sealift_protocol::tensor::{Datatype, InvalidTensor, Tensor};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::elements::{self, InvalidElements, Null};

/// A parsed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InferRequest {
    pub(super) id: Option<String>,
    pub(super) inputs: Vec<Tensor>,
    /// The outputs asked for; none for all.
    pub(super) outputs: Vec<WantedOutput>,
    /// How outputs come that do not say so themselves.
    pub(super) is_binary: bool,
    /// After how many microseconds nobody wants the answer any more; 0 for no such limit.
    pub(super) timeout_us: u64,
    /// By what it is told which image answers, while there are two.
    pub(super) key: Option<String>,
}

/// An output that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedOutput {
    pub(super) name: String,
    pub(super) is_binary: Option<bool>,
}

/// Why a body is not a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidRequest {
    #[error("not an inference request: {0}")]
    Json(#[source] serde_json::Error),
    #[error("Inference-Header-Content-Length is {header_bytes}, the body has {body_bytes} bytes")]
    Header { header_bytes: usize, body_bytes: usize },
    #[error("input `{name}`: {error}")]
    Elements { name: String, error: InvalidElements },
    #[error("{0}")]
    Tensor(#[from] InvalidTensor),
    #[error("input `{name}` has neither `data` nor `binary_data_size`")]
    NoData { name: String },
    #[error("input `{name}` has both `data` and `binary_data_size`")]
    TwiceData { name: String },
    #[error("input `{name}`: binary_data_size is {needed_bytes}, {given_bytes} bytes are left")]
    Binary { name: String, needed_bytes: u64, given_bytes: usize },
    #[error("{0} bytes after the binary data of the last input")]
    Trailing(usize),
    #[error("output `{name}`: `{parameter}` is not supported")]
    Unsupported { name: String, parameter: &'static str },
    #[error("the model takes tensors, not an image: {expected}")]
    NotImages { expected: String },
}

/// Whether a content type says that the body is an image, as a file; the last one is SageMaker's.
pub(super) fn is_image(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    ["image/jpeg", "image/png", "application/x-image"]
        .iter()
        .any(|kind| essence.eq_ignore_ascii_case(kind))
}

/// The input of a model that takes images, out of a body that is one.
pub(super) fn image(contract: &IoContract, body: &[u8]) -> Result<Tensor, InvalidRequest> {
    let expected = || {
        let spec = |spec: &sealift_protocol::image::TensorSpec| {
            format!("`{}` {} {:?}", spec.name, spec.datatype, spec.shape)
        };
        contract.inputs.iter().map(spec).collect::<Vec<_>>().join(", ")
    };
    let input = contract.image_input();
    let input = input.ok_or_else(|| InvalidRequest::NotImages { expected: expected() })?;
    Ok(Tensor::text(&input.name, &[1], [body])?)
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow)]
    inputs: Vec<HeadInput<'a>>,
    #[serde(default)]
    outputs: Vec<HeadOutput>,
    #[serde(default)]
    parameters: HeadParameters,
}

#[derive(Deserialize)]
struct HeadInput<'a> {
    name: String,
    datatype: Datatype,
    shape: Vec<u64>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    parameters: InputParameters,
}

#[derive(Deserialize)]
struct HeadOutput {
    name: String,
    #[serde(default)]
    parameters: OutputParameters,
}

#[derive(Deserialize, Default)]
struct HeadParameters {
    #[serde(default)]
    binary_data_output: bool,
    #[serde(default)]
    timeout: u64,
    #[serde(default)]
    sealift_key: Option<String>,
}

#[derive(Deserialize, Default)]
struct InputParameters {
    #[serde(default)]
    binary_data_size: Option<u64>,
}

#[derive(Deserialize, Default)]
struct OutputParameters {
    #[serde(default)]
    binary_data: Option<bool>,
    #[serde(default)]
    classification: Option<u64>,
    #[serde(default)]
    shared_memory_region: Option<String>,
}

impl InferRequest {
    /// A request whose body is an image.
    pub(super) fn of_image(contract: &IoContract, body: &[u8]) -> Result<Self, InvalidRequest> {
        let inputs = vec![image(contract, body)?];
        Ok(Self {
            id: None,
            inputs,
            outputs: Vec::new(),
            is_binary: false,
            timeout_us: 0,
            key: None,
        })
    }

    /// The same request, with every output in JSON.
    pub(super) fn answered_in_json(mut self) -> Self {
        self.is_binary = false;
        self.outputs.iter_mut().for_each(|output| output.is_binary = None);
        self
    }

    /// Parses a body whose first `header_bytes` are JSON; all of it if there is no such header.
    pub(super) fn parse(body: &[u8], header_bytes: Option<usize>) -> Result<Self, InvalidRequest> {
        let header_bytes = header_bytes.unwrap_or(body.len());
        let refused = InvalidRequest::Header { header_bytes, body_bytes: body.len() };
        let (head, mut binary) = body.split_at_checked(header_bytes).ok_or(refused)?;
        let head: Head<'_> = serde_json::from_slice(head).map_err(InvalidRequest::Json)?;
        let mut inputs = Vec::new();
        for input in head.inputs {
            inputs.push(input.tensor(&mut binary)?);
        }
        if !binary.is_empty() {
            return Err(InvalidRequest::Trailing(binary.len()));
        }
        let outputs: Result<_, _> = head.outputs.into_iter().map(HeadOutput::wanted).collect();
        let HeadParameters { binary_data_output: is_binary, timeout: timeout_us, sealift_key: key } =
            head.parameters;
        Ok(Self { id: head.id, inputs, outputs: outputs?, is_binary, timeout_us, key })
    }
}

impl HeadInput<'_> {
    /// Takes the elements from JSON or from the front of `binary`.
    fn tensor(self, binary: &mut &[u8]) -> Result<Tensor, InvalidRequest> {
        let Self { name, datatype, shape, data, parameters } = self;
        let bytes = match (data, parameters.binary_data_size) {
            (None, None) => return Err(InvalidRequest::NoData { name }),
            (Some(_), Some(_)) => return Err(InvalidRequest::TwiceData { name }),
            (Some(data), None) => {
                match elements::parse(data.get(), datatype, &shape, Null::Refused) {
                    Ok(bytes) => bytes,
                    Err(error) => return Err(InvalidRequest::Elements { name, error }),
                }
            }
            (None, Some(needed_bytes)) => {
                let given_bytes = binary.len();
                let cut = usize::try_from(needed_bytes).ok();
                let Some((bytes, rest)) = cut.and_then(|cut| binary.split_at_checked(cut)) else {
                    return Err(InvalidRequest::Binary { name, needed_bytes, given_bytes });
                };
                *binary = rest;
                bytes.to_vec()
            }
        };
        Ok(Tensor::new(name, datatype, shape, bytes)?)
    }
}

impl HeadOutput {
    fn wanted(self) -> Result<WantedOutput, InvalidRequest> {
        let Self { name, parameters } = self;
        let parameter = match parameters {
            OutputParameters { classification: Some(_), .. } => "classification",
            OutputParameters { shared_memory_region: Some(_), .. } => "shared_memory_region",
            OutputParameters { binary_data, .. } => {
                return Ok(WantedOutput { name, is_binary: binary_data });
            }
        };
        Err(InvalidRequest::Unsupported { name, parameter })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(json: &str) -> String {
        InferRequest::parse(json.as_bytes(), None).unwrap_err().to_string()
    }

    #[test]
    fn json_and_binary_are_the_same_request() {
        let json =
            br#"{"id":"7","inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[1,2]]}]}"#;
        let head = br#"{"id":"7","inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}"#;
        let body = [head.as_slice(), &1_f32.to_le_bytes(), &2_f32.to_le_bytes()].concat();

        let from_json = InferRequest::parse(json, None).unwrap();
        let from_binary = InferRequest::parse(&body, Some(head.len())).unwrap();

        assert_eq!(from_json, from_binary);
        assert_eq!(from_json.id.as_deref(), Some("7"));
    }

    #[test]
    fn outputs_and_their_form_can_be_asked_for() {
        let json = br#"{"parameters":{"binary_data_output":true},"inputs":[],
            "outputs":[{"name":"a"},{"name":"b","parameters":{"binary_data":false}}]}"#;
        let request = InferRequest::parse(json, None).unwrap();
        assert!(request.is_binary);
        let wanted = |name: &str, is_binary| WantedOutput { name: name.to_owned(), is_binary };
        assert_eq!(request.outputs, [wanted("a", None), wanted("b", Some(false))]);
    }

    #[test]
    fn a_bad_request_is_told_what_is_wrong() {
        let input = |rest: &str| format!(r#"{{"inputs":[{{"name":"x",{rest}}}]}}"#);
        let fp32 = |rest: &str| told(&input(&format!(r#""datatype":"FP32","shape":[2],{rest}"#)));

        assert!(told("{").starts_with("not an inference request: EOF"));
        assert!(told("{}").contains("missing field `inputs`"));
        assert!(told(&input(r#""datatype":"FLOAT","shape":[1],"data":[1]"#)).contains("`FLOAT`"));
        assert!(told(&input(r#""datatype":"FP32","shape":[-1],"data":[1]"#)).contains("-1"));
        assert_eq!(fp32(r#""data":[1,"a"]"#), "input `x`: `\"a\"` is not a FP32");
        assert_eq!(fp32(r#""data":[1]"#), "tensor `x`: FP32 [2] needs 8 bytes, 4 given");
        assert!(fp32(r#""parameters":{}"#).contains("neither `data` nor"));
        assert!(fp32(r#""data":[1,2],"parameters":{"binary_data_size":8}"#).contains("both"));
        assert!(fp32(r#""parameters":{"binary_data_size":8}"#).contains("0 bytes are left"));
        let classes = r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":3}}]}"#;
        assert_eq!(told(classes), "output `y`: `classification` is not supported");
        assert!(InferRequest::parse(b"{}", Some(3)).unwrap_err().to_string().contains("has 2"));
        let trailing = InferRequest::parse(br#"{"inputs":[]}xyz"#, Some(13)).unwrap_err();
        assert_eq!(trailing.to_string(), "3 bytes after the binary data of the last input");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(
            body in prop::collection::vec(any::<u8>(), 0..200), header in prop::option::of(0_usize..300),
        ) {
            let _ = InferRequest::parse(&body, header).is_ok();
        }

        #[test]
        fn binary_inputs_are_cut_in_order(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..5)) {
            let inputs: Vec<_> = parts.iter().enumerate().map(|(place, part)| {
                serde_json::json!({"name": place.to_string(), "datatype": "UINT8", "shape": [part.len()],
                                   "parameters": {"binary_data_size": part.len()}})
            }).collect();
            let head = serde_json::to_vec(&serde_json::json!({ "inputs": inputs })).unwrap();
            let body = [head.clone(), parts.concat()].concat();
            let request = InferRequest::parse(&body, Some(head.len())).unwrap();
            let given: Vec<_> = request.inputs.into_iter().map(|tensor| tensor.bytes).collect();
            prop_assert_eq!(given, parts);
        }
    }
}

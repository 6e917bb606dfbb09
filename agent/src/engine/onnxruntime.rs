//! ONNX Runtime, loaded at run time from the path that the runtime configuration names.
//!
//! Architecture invariant: only a worker process comes here, and only once: a process has one library and one environment.

mod sequence;

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::path::Path;
use std::ptr;

use ort::AsPointer;
use ort::environment::Environment;
use ort::ep::{self, ExecutionProviderDispatch};
use ort::memory::Allocator;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynTensor, DynTensorValueType, DynValue, TensorElementType, ValueType};
use sealift_protocol::image::{IoContract, TensorSpec};
use sealift_protocol::tensor::{Datatype, Tensor};

use super::{Engine, EngineError};
use crate::worker::RuntimeCandidate;

/// The provider that takes what no other does.
const CPU: &str = "CPUExecutionProvider";

/// A session, and what it said about itself.
#[derive(Debug)]
pub(crate) struct OnnxRuntime {
    session: Session,
    allocator: Allocator,
    contract: IoContract,
    providers: Vec<(String, u32)>,
    runtime: String,
    /// The session lives in it.
    environment: Environment,
}

impl OnnxRuntime {
    /// Loads library and model, and checks that the graph is what the contract says and runs where the candidate says.
    pub(crate) fn load(
        weights: &Path,
        contract: IoContract,
        candidate: &RuntimeCandidate,
    ) -> Result<Self, EngineError> {
        let environment = ort::init_from(&candidate.library)
            .map_err(load)?
            .with_telemetry(false)
            .build()
            .map_err(load)?;
        Self::open(environment, weights, contract, candidate)
    }

    /// Opens one more session on the same model.
    pub(crate) fn another(
        &self,
        weights: &Path,
        candidate: &RuntimeCandidate,
    ) -> Result<Self, EngineError> {
        Self::open(self.environment.clone(), weights, self.contract.clone(), candidate)
    }

    fn open(
        environment: Environment,
        weights: &Path,
        contract: IoContract,
        candidate: &RuntimeCandidate,
    ) -> Result<Self, EngineError> {
        let session = open(&environment, weights, candidate)?;
        check(&contract.inputs, session.inputs(), "input")?;
        check(&contract.outputs, session.outputs(), "output")?;
        let providers = assignment(&session)?;
        check_assignment(&providers, candidate)?;
        let runtime = runtime(&candidate.library);
        trim();
        let allocator = Allocator::default();
        Ok(Self { session, allocator, contract, providers, runtime, environment })
    }
}

impl Engine for OnnxRuntime {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        let mut values = Vec::with_capacity(inputs.len());
        for tensor in inputs {
            let value = to_value(&self.allocator, tensor)?;
            values.push((tensor.name.as_str(), SessionInputValue::from(value)));
        }
        let mut outputs = self.session.run(values).map_err(run)?;
        let output = |spec: &TensorSpec| {
            let missing = || EngineError::Run(format!("output `{}` is missing", spec.name));
            to_tensor(spec, outputs.remove(&spec.name).ok_or_else(missing)?)
        };
        self.contract.outputs.iter().map(output).collect()
    }

    fn providers(&self) -> &[(String, u32)] {
        &self.providers
    }

    fn runtime(&self) -> &str {
        &self.runtime
    }
}

fn load(error: impl std::fmt::Display) -> EngineError {
    EngineError::Load(error.to_string())
}

fn run(error: impl std::fmt::Display) -> EngineError {
    EngineError::Run(error.to_string())
}

/// One thread and no spinning: beside other work on two processors that was seven times the throughput of the defaults.
fn open(
    environment: &Environment,
    weights: &Path,
    candidate: &RuntimeCandidate,
) -> Result<Session, EngineError> {
    let mut builder = Session::builder(environment)
        .map_err(load)?
        .with_execution_providers(dispatches(candidate)?)
        .map_err(load)?
        .with_intra_threads(1)
        .map_err(load)?
        .with_intra_op_spinning(false)
        .map_err(load)?
        .with_config_entry("session.record_ep_graph_assignment_info", "1")
        .map_err(load)?;
    if candidate.strict && !candidate.providers.iter().any(|provider| provider == CPU) {
        builder = builder.with_disable_cpu_fallback().map_err(load)?;
    }
    builder.commit_from_file(weights).map_err(load)
}

fn dispatches(candidate: &RuntimeCandidate) -> Result<Vec<ExecutionProviderDispatch>, EngineError> {
    let dispatch = |name: &String| {
        let dispatch = dispatch(name)?;
        let strict = candidate.strict;
        Ok(if strict { dispatch.error_on_failure() } else { dispatch.fail_silently() })
    };
    candidate.providers.iter().map(dispatch).collect()
}

fn dispatch(name: &str) -> Result<ExecutionProviderDispatch, EngineError> {
    Ok(match name {
        CPU => ep::CPU::default().build(),
        "OpenVINOExecutionProvider" => ep::OpenVINO::default().build(),
        "CUDAExecutionProvider" => ep::CUDA::default().build(),
        "TensorrtExecutionProvider" => ep::TensorRT::default().build(),
        "QNNExecutionProvider" => ep::QNN::default().build(),
        "MIGraphXExecutionProvider" => ep::MIGraphX::default().build(),
        "CoreMLExecutionProvider" => ep::CoreML::default().build(),
        _ => {
            let text = format!("execution provider `{name}` is not known to this agent");
            return Err(EngineError::Load(text));
        }
    })
}

/// A provider that is registered may still run nothing; a strict candidate must run everything where it says.
fn check_assignment(
    providers: &[(String, u32)],
    candidate: &RuntimeCandidate,
) -> Result<(), EngineError> {
    let stray = providers.iter().find(|(name, _)| !candidate.providers.contains(name));
    match stray {
        Some((name, nodes)) if candidate.strict => {
            let wanted = candidate.providers.join(", ");
            Err(EngineError::Load(format!("{nodes} nodes run on {name}, not on {wanted}")))
        }
        Some(_) | None => Ok(()),
    }
}

/// The library's own name carries its full version in the releases that are pinned; another name is shown as it is.
fn runtime(library: &Path) -> String {
    let library = library.canonicalize().unwrap_or_else(|_| library.to_owned());
    let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let version = name.strip_prefix("libonnxruntime.so.");
    version.map_or_else(|| name.clone(), |version| format!("onnxruntime {version}"))
}

/// Checks that the graph has the contract's tensors, with the same type and a shape that does not contradict it.
fn check(
    specs: &[TensorSpec],
    outlets: &[ort::value::Outlet],
    kind: &str,
) -> Result<(), EngineError> {
    if kind == "input" && specs.len() != outlets.len() {
        let (model, contract) = (outlets.len(), specs.len());
        let text = format!("the model has {model} inputs, the contract {contract}");
        return Err(EngineError::Load(text));
    }
    for spec in specs {
        let Some(outlet) = outlets.iter().find(|outlet| outlet.name() == spec.name) else {
            return Err(EngineError::Load(format!("the model has no {kind} `{}`", spec.name)));
        };
        let is_other = kind == "output" && sequence::fits(spec, outlet.dtype());
        if !is_other && !fits(spec, outlet.dtype()) {
            let (name, has) = (&spec.name, outlet.dtype());
            let says = format!("{} {:?}", spec.datatype, spec.shape);
            let text = format!("{kind} `{name}` is {has} in the model, {says} in the contract");
            return Err(EngineError::Load(text));
        }
    }
    Ok(())
}

fn fits(spec: &TensorSpec, model: &ValueType) -> bool {
    let ValueType::Tensor { ty, shape, .. } = model else { return false };
    let agree = |(&contract, &model): (&i64, &i64)| contract < 0 || model < 0 || contract == model;
    // A model that does not tell the rank of an output has an empty shape.
    datatype(*ty) == Some(spec.datatype)
        && (shape.is_empty()
            || shape.len() == spec.shape.len() && spec.shape.iter().zip(shape.iter()).all(agree))
}

const fn element_type(datatype: Datatype) -> TensorElementType {
    match datatype {
        Datatype::Bool => TensorElementType::Bool,
        Datatype::Uint8 => TensorElementType::Uint8,
        Datatype::Uint16 => TensorElementType::Uint16,
        Datatype::Uint32 => TensorElementType::Uint32,
        Datatype::Uint64 => TensorElementType::Uint64,
        Datatype::Int8 => TensorElementType::Int8,
        Datatype::Int16 => TensorElementType::Int16,
        Datatype::Int32 => TensorElementType::Int32,
        Datatype::Int64 => TensorElementType::Int64,
        Datatype::Fp16 => TensorElementType::Float16,
        Datatype::Bf16 => TensorElementType::Bfloat16,
        Datatype::Fp32 => TensorElementType::Float32,
        Datatype::Fp64 => TensorElementType::Float64,
        Datatype::Bytes => TensorElementType::String,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's list may grow; only these have a name in the protocol"
)]
fn datatype(element_type: TensorElementType) -> Option<Datatype> {
    Some(match element_type {
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::Uint8 => Datatype::Uint8,
        TensorElementType::Uint16 => Datatype::Uint16,
        TensorElementType::Uint32 => Datatype::Uint32,
        TensorElementType::Uint64 => Datatype::Uint64,
        TensorElementType::Int8 => Datatype::Int8,
        TensorElementType::Int16 => Datatype::Int16,
        TensorElementType::Int32 => Datatype::Int32,
        TensorElementType::Int64 => Datatype::Int64,
        TensorElementType::Float16 => Datatype::Fp16,
        TensorElementType::Bfloat16 => Datatype::Bf16,
        TensorElementType::Float32 => Datatype::Fp32,
        TensorElementType::Float64 => Datatype::Fp64,
        TensorElementType::String => Datatype::Bytes,
        _ => return None,
    })
}

fn to_value(allocator: &Allocator, tensor: &Tensor) -> Result<DynValue, EngineError> {
    let refused = |text: String| EngineError::Input(format!("input `{}`: {text}", tensor.name));
    tensor.check().map_err(|error| EngineError::Input(error.to_string()))?;
    let shape: Result<Vec<i64>, _> = tensor.shape.iter().map(|&length| length.try_into()).collect();
    let shape = shape.map_err(|_| refused("a dimension is too long".to_owned()))?;
    if tensor.datatype == Datatype::Bytes {
        let not_text = || refused("BYTES must be UTF-8 without NUL for this model".to_owned());
        let texts = texts(&tensor.bytes).ok_or_else(not_text)?;
        let value = ort::value::Tensor::from_string_array((shape, texts.as_slice()));
        return value.map(ort::value::Value::into_dyn).map_err(|error| refused(error.to_string()));
    }
    // To the library, which is C++, any other byte in a `bool` is undefined behaviour.
    if tensor.datatype == Datatype::Bool && tensor.bytes.iter().any(|&byte| byte > 1) {
        return Err(refused("BOOL elements are 0 or 1".to_owned()));
    }
    let value = DynTensor::new(allocator, element_type(tensor.datatype), shape);
    let mut value = value.map_err(|error| refused(error.to_string()))?;
    fill(&mut value, &tensor.bytes)?;
    Ok(value.into_dyn())
}

/// The elements of BYTES; none if one is not text that the library takes.
fn texts(mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (text, rest) = rest.split_at_checked(length)?;
        let text = std::str::from_utf8(text).ok().filter(|text| !text.contains('\0'))?;
        texts.push(text.to_owned());
        bytes = rest;
    }
    Some(texts)
}

fn to_tensor(spec: &TensorSpec, value: DynValue) -> Result<Tensor, EngineError> {
    if !matches!(value.dtype(), ValueType::Tensor { .. }) {
        return sequence::to_tensor(spec, value);
    }
    tensor_of(&spec.name, &value.downcast::<DynTensorValueType>().map_err(run)?)
}

fn tensor_of(name: &str, value: &DynTensor) -> Result<Tensor, EngineError> {
    let datatype = datatype(*value.data_type())
        .ok_or_else(|| run(format!("output `{name}` is of type {}", value.data_type())))?;
    let shape: Result<Vec<u64>, _> =
        value.shape().iter().map(|&length| length.try_into()).collect();
    let shape = shape.map_err(|_| run(format!("output `{name}` has a negative dimension")))?;
    let bytes = if datatype == Datatype::Bytes {
        pack(&value.try_extract_strings().map_err(run)?.1).map_err(run)?
    } else {
        copy(value, name)?
    };
    Tensor::new(name.to_owned(), datatype, shape, bytes).map_err(run)
}

fn pack(texts: &[String]) -> Result<Vec<u8>, std::num::TryFromIntError> {
    let mut bytes = Vec::new();
    for text in texts {
        bytes.extend(u32::try_from(text.len())?.to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    Ok(bytes)
}

/// Copies the elements into a tensor that was made for as many of them.
#[expect(unsafe_code, reason = "the library's memory is reached by pointer for all types alike")]
fn fill(value: &mut DynTensor, bytes: &[u8]) -> Result<(), EngineError> {
    if value.size() != Some(bytes.len()) || !value.memory_info().is_cpu_accessible() {
        return Err(EngineError::Input("tensor and data differ in length".to_owned()));
    }
    if !bytes.is_empty() {
        let target = value.data_ptr_mut().cast::<u8>();
        // SAFETY: the tensor lies in processor memory, is of this length, which was just compared, and nobody else has it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }
    Ok(())
}

/// Copies the elements out of a tensor of elements of one length.
#[expect(unsafe_code, reason = "the library's memory is reached by pointer for all types alike")]
fn copy(value: &DynTensor, name: &str) -> Result<Vec<u8>, EngineError> {
    if !value.memory_info().is_cpu_accessible() {
        return Err(run(format!("output `{name}` does not lie in processor memory")));
    }
    let size = value.size().ok_or_else(|| run(format!("output `{name}` has no size")))?;
    let source = value.data_ptr().cast::<u8>();
    if size == 0 || source.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: the library says that so many bytes lie there, and they live as long as `value`.
    Ok(unsafe { std::slice::from_raw_parts(source, size) }.to_vec())
}

/// Gives back to the system what the load of the graph has left: half of a worker's memory with large models.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library's allocator has no other way")]
fn trim() {
    unsafe extern "C" {
        fn malloc_trim(kept_bytes: usize) -> i32;
    }
    // SAFETY: malloc_trim(3) may be called at any time by any thread; it touches free memory alone.
    unsafe { malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
const fn trim() {}

/// Asks the library which provider took how many nodes; the session must have been made with the recording on.
#[expect(unsafe_code, reason = "the crate has no safe call for it")]
fn assignment(session: &Session) -> Result<Vec<(String, u32)>, EngineError> {
    let api = ort::api();
    let mut providers: BTreeMap<String, u32> = BTreeMap::new();
    let (mut subgraphs, mut count) = (ptr::null(), 0);
    // SAFETY: the session is alive, and both results are written by the call before they are read.
    let status = unsafe {
        (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &raw mut subgraphs, &raw mut count)
    };
    accept(status)?;
    for place in 0..count {
        let (mut name, mut nodes, mut nodes_count) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the library gave `count` subgraphs, which live as long as the session.
        let subgraph = unsafe { *subgraphs.add(place) };
        // SAFETY: as above; the results are written before they are read.
        accept(unsafe { (api.EpAssignedSubgraph_GetEpName)(subgraph, &raw mut name) })?;
        // SAFETY: as above.
        accept(unsafe {
            (api.EpAssignedSubgraph_GetNodes)(subgraph, &raw mut nodes, &raw mut nodes_count)
        })?;
        let nodes_count = u32::try_from(nodes_count).unwrap_or(u32::MAX);
        let sum = providers.entry(provider_name(name)).or_default();
        *sum = sum.saturating_add(nodes_count);
    }
    Ok(providers.into_iter().collect())
}

#[expect(unsafe_code, reason = "the name is a C string that the session owns")]
fn provider_name(name: *const c_char) -> String {
    if name.is_null() {
        return "unknown".to_owned();
    }
    // SAFETY: a string of the library that ends with NUL and lives as long as the session.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

#[expect(unsafe_code, reason = "a status is a pointer that must be given back once")]
fn accept(status: ort::sys::OrtStatusPtr) -> Result<(), EngineError> {
    // SAFETY: comes straight from a call of the library and is not used again.
    unsafe { ort::Error::result_from_status(status) }.map_err(load)
}

//! Messages of `inference.GRPCInferenceService`, by their field numbers: Open Inference Protocol v2, "GRPC".

use std::time::Duration;

use sealift_protocol::image::TensorSpec;
use sealift_protocol::tensor::{Datatype, Tensor};

use super::InvalidCall;
use super::wire::{Fields, Value, put_bytes, put_number, put_text, put_varint};
use crate::serve::http::{EXTENSIONS, NAME, PLATFORM, VERSION};
use crate::serve::live::Live;

/// `ModelReadyRequest`, `ModelMetadataRequest`: which model.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) version: String,
}

/// `ModelInferRequest`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct InferCall {
    pub(super) model: Named,
    pub(super) id: String,
    pub(super) timeout: Option<Duration>,
    /// By what it is told which image answers, while there are two.
    pub(super) key: Option<String>,
    pub(super) inputs: Vec<Tensor>,
    /// The outputs asked for; none for all.
    pub(super) outputs: Vec<String>,
}

/// An input before its data is found.
#[derive(Debug, Default)]
struct Input {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    contents: Option<Vec<u8>>,
}

impl Named {
    pub(super) fn read(message: &[u8]) -> Result<Self, InvalidCall> {
        let mut named = Self::default();
        let mut fields = Fields(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => named.name = value.text(number)?,
                2 => named.version = value.text(number)?,
                _ => (), // of a later version of the protocol
            }
        }
        Ok(named)
    }
}

impl InferCall {
    pub(super) fn read(message: &[u8]) -> Result<Self, InvalidCall> {
        let mut call = Self::default();
        let (mut inputs, mut raw) = (Vec::new(), Vec::new());
        let mut fields = Fields(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => call.model.name = value.text(number)?,
                2 => call.model.version = value.text(number)?,
                3 => call.id = value.text(number)?,
                4 => call.read_parameter(value.bytes(number)?)?,
                5 => inputs.push(Input::read(value.bytes(number)?)?),
                6 => call.outputs.push(name_of(value.bytes(number)?)?),
                7 => raw.push(value.bytes(number)?),
                _ => (), // of a later version of the protocol
            }
        }
        let (given, expected) = (raw.len(), inputs.len());
        if !raw.is_empty() && given != expected {
            return Err(InvalidCall::RawCount { given, expected });
        }
        let mut raw = raw.into_iter();
        for input in inputs {
            call.inputs.push(input.tensor(raw.next())?);
        }
        Ok(call)
    }

    /// Reads an entry of the parameters; `timeout`, in microseconds, and `sealift_key` are those that have a meaning here.
    fn read_parameter(&mut self, entry: &[u8]) -> Result<(), InvalidCall> {
        let (mut key, mut parameter) = (String::new(), Parameter::default());
        let mut fields = Fields(entry);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => key = value.text(number)?,
                2 => parameter = Parameter::read(value.bytes(number)?)?,
                _ => (), // an entry has a key and a value
            }
        }
        match key.as_str() {
            "timeout" => {
                let timeout_us = parameter.whole.filter(|&us| us > 0);
                self.timeout = timeout_us.map(Duration::from_micros);
            }
            "sealift_key" => self.key = parameter.text,
            _ => (), // of another server
        }
        Ok(())
    }
}

/// An `InferParameter`: one of several kinds, of which two are asked for.
#[derive(Debug, Default)]
struct Parameter {
    whole: Option<u64>,
    text: Option<String>,
}

impl Parameter {
    fn read(message: &[u8]) -> Result<Self, InvalidCall> {
        let mut fields = Fields(message);
        let mut found = Self::default();
        while let Some((number, value)) = fields.next()? {
            match number {
                2 | 5 => found.whole = Some(value.varint(number)?),
                3 => found.text = Some(value.text(number)?),
                _ => (), // a kind that nothing here has
            }
        }
        Ok(found)
    }
}

/// The name of an `InferRequestedOutputTensor`.
fn name_of(message: &[u8]) -> Result<String, InvalidCall> {
    let mut fields = Fields(message);
    let mut name = String::new();
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            name = value.text(number)?;
        }
    }
    Ok(name)
}

impl Input {
    fn read(message: &[u8]) -> Result<Self, InvalidCall> {
        let mut input = Self::default();
        let mut contents = None;
        let mut fields = Fields(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => input.name = value.text(number)?,
                2 => input.datatype = value.text(number)?,
                3 => value.varints(number, |length| input.shape.push(length.cast_signed()))?,
                5 => contents = Some(value.bytes(number)?),
                _ => (), // parameters: shared memory, which is not offered
            }
        }
        if let Some(contents) = contents {
            input.contents = Some(input.read_contents(contents)?);
        }
        Ok(input)
    }

    fn datatype(&self) -> Result<Datatype, InvalidCall> {
        let refused = |_| InvalidCall::Datatype {
            name: self.name.clone(),
            given: self.datatype.chars().take(40).collect(),
        };
        self.datatype.parse().map_err(refused)
    }

    /// Reads `InferTensorContents`: the one list that is for the input's type.
    fn read_contents(&self, message: &[u8]) -> Result<Vec<u8>, InvalidCall> {
        let datatype = self.datatype()?;
        let expected = contents_field(datatype);
        let mut bytes = Vec::new();
        let mut fields = Fields(message);
        while let Some((number, value)) = fields.next()? {
            if Some(number) != expected {
                return Err(InvalidCall::Contents { name: self.name.clone(), datatype });
            }
            self.push_contents(datatype, number, value, &mut bytes)?;
        }
        Ok(bytes)
    }

    fn push_contents(
        &self,
        datatype: Datatype,
        number: u32,
        value: Value<'_>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), InvalidCall> {
        match datatype {
            Datatype::Fp32 => bytes.extend_from_slice(value.fixed::<4>(number)?),
            Datatype::Fp64 => bytes.extend_from_slice(value.fixed::<8>(number)?),
            Datatype::Bytes => {
                let element = value.bytes(number)?;
                // A body has at most 32 MiB.
                let length = u32::try_from(element.len()).unwrap_or(u32::MAX);
                bytes.extend_from_slice(&length.to_le_bytes());
                bytes.extend_from_slice(element);
            }
            Datatype::Bool
            | Datatype::Uint8
            | Datatype::Uint16
            | Datatype::Uint32
            | Datatype::Uint64
            | Datatype::Int8
            | Datatype::Int16
            | Datatype::Int32
            | Datatype::Int64
            | Datatype::Fp16
            | Datatype::Bf16 => {
                let mut is_fitting = true;
                value.varints(number, |element| {
                    is_fitting &= push_integer(datatype, element, bytes).is_some();
                })?;
                if !is_fitting {
                    return Err(InvalidCall::Range { name: self.name.clone(), datatype });
                }
            }
        }
        Ok(())
    }

    fn tensor(self, raw: Option<&[u8]>) -> Result<Tensor, InvalidCall> {
        let datatype = self.datatype()?;
        let Self { name, shape, contents, .. } = self;
        let negative = || InvalidCall::Shape { name: name.clone(), given: shape.clone() };
        let lengths: Result<Vec<u64>, _> =
            shape.iter().map(|&length| u64::try_from(length)).collect();
        let lengths = lengths.map_err(|_| negative())?;
        let bytes = match (contents, raw) {
            (Some(_), Some(_)) => return Err(InvalidCall::TwiceData { name }),
            (Some(bytes), None) => bytes,
            (None, Some(raw)) => raw.to_vec(),
            (None, None) => Vec::new(), // empty lists are not on the wire; the shape says whether that is right
        };
        Ok(Tensor::new(name, datatype, lengths, bytes)?)
    }
}

/// The list of `InferTensorContents` that elements of a type come in; none for those that come raw alone.
const fn contents_field(datatype: Datatype) -> Option<u32> {
    match datatype {
        Datatype::Bool => Some(1),
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => Some(2),
        Datatype::Int64 => Some(3),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => Some(4),
        Datatype::Uint64 => Some(5),
        Datatype::Fp32 => Some(6),
        Datatype::Fp64 => Some(7),
        Datatype::Bytes => Some(8),
        Datatype::Fp16 | Datatype::Bf16 => None,
    }
}

/// Appends a whole number of a type; none if it is out of its range. Negative ones come as 64 bits.
fn push_integer(datatype: Datatype, element: u64, bytes: &mut Vec<u8>) -> Option<()> {
    let signed = element.cast_signed();
    match datatype {
        Datatype::Bool => bytes.push(u8::from(element != 0)),
        Datatype::Int8 => bytes.extend(i8::try_from(signed).ok()?.to_le_bytes()),
        Datatype::Int16 => bytes.extend(i16::try_from(signed).ok()?.to_le_bytes()),
        Datatype::Int32 => bytes.extend(i32::try_from(signed).ok()?.to_le_bytes()),
        Datatype::Int64 => bytes.extend(signed.to_le_bytes()),
        Datatype::Uint8 => bytes.extend(u8::try_from(element).ok()?.to_le_bytes()),
        Datatype::Uint16 => bytes.extend(u16::try_from(element).ok()?.to_le_bytes()),
        Datatype::Uint32 => bytes.extend(u32::try_from(element).ok()?.to_le_bytes()),
        Datatype::Uint64 => bytes.extend(element.to_le_bytes()),
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 | Datatype::Bytes => {
            return None;
        }
    }
    Some(())
}

/// A message that is one truth value.
pub(super) fn flag(value: bool) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, 1, value.into());
    out
}

/// `ServerMetadataResponse`.
pub(super) fn server() -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, NAME);
    put_text(&mut out, 2, VERSION);
    for extension in EXTENSIONS {
        put_text(&mut out, 3, extension);
    }
    out
}

/// `ModelMetadataResponse`.
pub(super) fn metadata(live: &Live) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, &live.model().to_string());
    put_text(&mut out, 2, live.image().version.as_str());
    put_text(&mut out, 3, PLATFORM);
    for spec in &live.contract().inputs {
        put_bytes(&mut out, 4, &tensor_metadata(spec));
    }
    for spec in &live.contract().outputs {
        put_bytes(&mut out, 5, &tensor_metadata(spec));
    }
    out
}

fn tensor_metadata(spec: &TensorSpec) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, &spec.name);
    put_text(&mut out, 2, spec.datatype.as_str());
    put_lengths(&mut out, spec.shape.iter().map(|length| length.cast_unsigned()));
    out
}

/// Packed lengths in field 3, where all messages about tensors have them.
fn put_lengths(out: &mut Vec<u8>, lengths: impl Iterator<Item = u64>) {
    let mut packed = Vec::new();
    lengths.for_each(|length| put_varint(&mut packed, length));
    put_bytes(out, 3, &packed);
}

/// `ModelInferResponse`, with raw contents.
pub(super) fn outputs(live: &Live, id: &str, outputs: &[&Tensor]) -> Vec<u8> {
    let bytes: usize = outputs.iter().map(|tensor| tensor.bytes.len()).sum();
    let mut out = Vec::with_capacity(256 + bytes);
    put_text(&mut out, 1, &live.model().to_string());
    put_text(&mut out, 2, live.image().version.as_str());
    put_text(&mut out, 3, id);
    for tensor in outputs {
        let mut head = Vec::new();
        put_text(&mut head, 1, &tensor.name);
        put_text(&mut head, 2, tensor.datatype.as_str());
        put_lengths(&mut head, tensor.shape.iter().copied());
        put_bytes(&mut out, 5, &head);
    }
    for tensor in outputs {
        put_bytes(&mut out, 6, &tensor.bytes);
    }
    out
}

/// `RepositoryIndexResponse`.
pub(super) fn index(models: &[Live]) -> Vec<u8> {
    let mut out = Vec::new();
    for live in models {
        let mut entry = Vec::new();
        put_text(&mut entry, 1, &live.model().to_string());
        put_text(&mut entry, 2, live.image().version.as_str());
        put_text(&mut entry, 3, "READY");
        put_bytes(&mut out, 1, &entry);
    }
    out
}

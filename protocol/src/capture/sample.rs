//! A prediction that was kept: what went in, what came out, why it was kept, and with what chance.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::decide::Why;
use crate::codec::{self, CodecError};
use crate::digest::{decode_hex, encode_hex};
use crate::id::{DeviceId, ModelName, TenantId, UnixMillis};
use crate::limits::{
    INFERENCE_ID_CHARS_MAX, LABEL_CHARS_MAX, SAMPLE_BYTES_MAX, SEALED_SAMPLE_BYTES_MAX,
};
use crate::report::ImageRef;
use crate::tensor::Tensor;

/// The version of these formats.
const VERSION: u16 = 1;

/// What samples are encrypted for (RFC 9180, section 5.1, `info`): the key opens nothing else by it.
pub const HPKE_INFO: &[u8] = b"sealift-capture-v1";

/// Names an inference: what the application called it, or what the device did. Ground truth is joined by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InferenceId(String);

/// Why a text names no inference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an inference id has 1 to {INFERENCE_ID_CHARS_MAX} visible ASCII characters")]
pub struct InvalidInferenceId;

impl InferenceId {
    /// Parses an id; visible ASCII alone, so that it fits a header and a URL's query.
    pub fn parse(text: &str) -> Result<Self, InvalidInferenceId> {
        let is_good = (1..=INFERENCE_ID_CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_good { Ok(Self(text.to_owned())) } else { Err(InvalidInferenceId) }
    }

    /// The name of the `number`th inference of whoever has `prefix`: visible, short, and never that of another.
    pub fn numbered(prefix: u64, number: u64) -> Self {
        Self(format!("{prefix:016x}-{number:x}"))
    }

    /// The id of one row out of a request with several: `ID/0`, `ID/1`, …; none if that is too long.
    pub fn of_row(&self, place: usize) -> Option<Self> {
        Self::parse(&format!("{}/{place}", self.0)).ok()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InferenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InferenceId {
    type Err = InvalidInferenceId;

    fn from_str(text: &str) -> Result<Self, InvalidInferenceId> {
        Self::parse(text)
    }
}

impl Serialize for InferenceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for InferenceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Names a sample: random, made by the device. An application may call two inferences by one name; no two samples have one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleId([u8; 16]);

impl SampleId {
    /// The id of these random bytes.
    pub const fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SampleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_hex(&self.0))
    }
}

impl FromStr for SampleId {
    type Err = InvalidSample;

    fn from_str(text: &str) -> Result<Self, InvalidSample> {
        let bytes = decode_hex(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(InvalidSample::Id)
    }
}

impl Serialize for SampleId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SampleId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A prediction that was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Version of the format.
    version: u16,
    /// Names the sample.
    pub id: SampleId,
    /// Names the inference.
    pub inference: InferenceId,
    /// The model.
    pub model: ModelName,
    /// Which of its images answered.
    pub image: ImageRef,
    /// When, by the device's clock.
    pub at: UnixMillis,
    /// What went in: one row.
    pub inputs: Vec<Tensor>,
    /// What came out: one row.
    pub outputs: Vec<Tensor>,
    /// The class that the model named, by its label.
    #[serde(default)]
    pub prediction: Option<String>,
    /// The probability of that class.
    #[serde(default)]
    pub confidence: Option<f64>,
    /// How far the likeliest class was before the second.
    #[serde(default)]
    pub margin: Option<f64>,
    /// Which rules chose it.
    pub why: BTreeSet<Why>,
    /// The chance with which they did, above 0 and at most 1.
    pub chance: f64,
    /// Samples that were chosen since the one before, and lost on the device.
    #[serde(default)]
    pub lost: u32,
}

/// Why bytes are no sample.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSample {
    /// Not the 32 hex digits of one.
    #[error("not the 32 hex digits of a sample")]
    Id,
    /// Not its encoding, or too long.
    #[error("bytes are no sample")]
    Codec(#[from] CodecError),
    /// Another version of the format.
    #[error("sample has format version {0}; {VERSION} is known")]
    Version(u16),
    /// It says what cannot be.
    #[error("sample has {0}")]
    Content(&'static str),
}

impl Sample {
    /// A sample of the current format, with nothing said yet of how sure the model was and what was lost.
    pub fn new(
        (id, inference): (SampleId, InferenceId),
        (model, image): (ModelName, ImageRef),
        at: UnixMillis,
        (inputs, outputs): (Vec<Tensor>, Vec<Tensor>),
        (why, chance): (BTreeSet<Why>, f64),
    ) -> Self {
        let (prediction, confidence, margin) = (None, None, None);
        Self {
            version: VERSION,
            id,
            inference,
            model,
            image,
            at,
            inputs,
            outputs,
            prediction,
            confidence,
            margin,
            why,
            chance,
            lost: 0,
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(self)
    }

    /// Reads what a device has sent, and checks that it is what it says.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidSample> {
        let sample: Self = codec::decode("sample", bytes, SAMPLE_BYTES_MAX)?;
        sample.check()?;
        Ok(sample)
    }

    fn check(&self) -> Result<(), InvalidSample> {
        if self.version != VERSION {
            return Err(InvalidSample::Version(self.version));
        }
        // Rule: figures are made by dividing by the chance, so that one near zero would drown all others.
        if !(1e-9..=1.0).contains(&self.chance) {
            return Err(InvalidSample::Content("a chance that is none"));
        }
        if self.why.is_empty() {
            return Err(InvalidSample::Content("no reason"));
        }
        let is_long = |text: &String| text.chars().count() > LABEL_CHARS_MAX;
        if self.prediction.as_ref().is_some_and(is_long) {
            return Err(InvalidSample::Content("a prediction that is too long"));
        }
        let mut tensors = self.inputs.iter().chain(&self.outputs);
        if tensors.any(|tensor| tensor.check().is_err()) {
            return Err(InvalidSample::Content("a tensor that contradicts itself"));
        }
        Ok(())
    }
}

/// A sample as it lies on the device and travels: encrypted to the server (RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
/// AES-256-GCM), so that neither a thief of the device nor of the disk behind the server reads it without the server's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSample {
    /// Version of the format.
    version: u16,
    /// Number of the key that it is for.
    pub key: u32,
    /// The encapsulated key.
    #[serde(with = "codec::bytes")]
    pub encapsulated: Vec<u8>,
    /// The sample, encrypted.
    #[serde(with = "codec::bytes")]
    pub body: Vec<u8>,
}

impl SealedSample {
    /// A sealed sample of the current format.
    pub const fn new(key: u32, encapsulated: Vec<u8>, body: Vec<u8>) -> Self {
        Self { version: VERSION, key, encapsulated, body }
    }

    /// What is authenticated with it (RFC 9180, section 5.2, `aad`). Rule: it is good only as this sample of this device, so that no device
    /// hands in what another has kept.
    pub fn context(tenant: &TenantId, device: &DeviceId, id: SampleId) -> Vec<u8> {
        format!("sealift-sample-v1\n{tenant}\n{device}\n{id}").into_bytes()
    }

    /// Its bytes.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(self)
    }

    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidSample> {
        let sealed: Self = codec::decode("sealed sample", bytes, SEALED_SAMPLE_BYTES_MAX)?;
        if sealed.version == VERSION {
            Ok(sealed)
        } else {
            Err(InvalidSample::Version(sealed.version))
        }
    }
}

//! What supervisor and worker say to each other: frames of a 4-byte little-endian length and that much CBOR.

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::PathBuf;

use sealift_protocol::codec::{self, CodecError};
use sealift_protocol::digest::Digest;
use sealift_protocol::image::Policy;
use sealift_protocol::tensor::Tensor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{RuntimeCandidate, WorkerSpec};

/// One frame. Requests are at most 32 MiB; a segmentation of such an image in FP32 is a few times larger.
pub(super) const FRAME_BYTES_MAX: usize = 256 << 20;

/// Bytes of the length before each frame.
pub(super) const HEADER_BYTES: usize = 4;

/// From the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request<'a> {
    /// The answer carries it.
    pub(super) id: u64,
    pub(super) order: Order<'a>,
}

/// What to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Order<'a> {
    /// Load and self-test; the first request, and only the first.
    Load(Box<LoadOrder>),
    /// Answer.
    Run(Cow<'a, [Tensor]>),
    /// End.
    Stop,
}

/// What to load, and within which limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LoadOrder {
    pub(super) slot_dir: PathBuf,
    pub(super) scratch_dir: PathBuf,
    pub(super) weights: PathBuf,
    pub(super) weights_digest: Digest,
    pub(super) contract: PathBuf,
    pub(super) golden: PathBuf,
    pub(super) candidate: RuntimeCandidate,
    pub(super) latency_max_ms: u32,
    pub(super) memory_max_mb: u32,
}

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    /// The request's.
    pub(super) id: u64,
    pub(super) answer: Answer,
}

/// How a request went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    Loaded(Loaded),
    Outputs(Vec<Tensor>),
    Refused { fault: Fault, reason: String },
}

/// What was loaded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Loaded {
    pub(super) providers: Vec<(String, u32)>,
    pub(super) runtime: String,
    pub(super) load_ms: u64,
    pub(super) golden_ms: u64,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    Load,
    Golden,
    Latency,
    Input,
    Run,
}

impl Order<'_> {
    /// The order to load what `spec` names with `candidate`.
    pub(super) fn load(spec: &WorkerSpec, candidate: &RuntimeCandidate, policy: &Policy) -> Self {
        Self::Load(Box::new(LoadOrder {
            slot_dir: spec.slot_dir.clone(),
            scratch_dir: spec.scratch_dir.clone(),
            weights: spec.files.weights.clone(),
            weights_digest: spec.files.weights_digest,
            contract: spec.files.contract.clone(),
            golden: spec.files.golden.clone(),
            candidate: candidate.clone(),
            latency_max_ms: policy.latency_max_ms,
            memory_max_mb: policy.memory_max_mb,
        }))
    }
}

/// Length and body in one buffer, so that a frame is one write.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let body = codec::encode(value)?;
    let too_large = CodecError::TooLarge { given_bytes: body.len(), max_bytes: FRAME_BYTES_MAX };
    if body.len() > FRAME_BYTES_MAX {
        return Err(too_large);
    }
    let length = u32::try_from(body.len()).map_err(|_| too_large)?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    frame.extend(length.to_le_bytes());
    frame.extend(body);
    Ok(frame)
}

/// Reads the body of a frame.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    codec::decode("worker frame", body, FRAME_BYTES_MAX)
}

/// The length that a header announces, if it is allowed.
pub(super) fn body_length(header: [u8; HEADER_BYTES]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_le_bytes(header)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        let text = format!("frame of {length} bytes, at most {FRAME_BYTES_MAX} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(length)
}

/// Reads one frame into `body`; false at the end of the stream.
pub(super) fn read(stream: &mut impl Read, body: &mut Vec<u8>) -> io::Result<bool> {
    let mut header = [0; HEADER_BYTES];
    match stream.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        other => other?,
    }
    let length = body_length(header)?;
    body.clear();
    // Memory grows with what really comes, not with what was announced.
    let given = stream.take(length as u64).read_to_end(body)?;
    if given == length { Ok(true) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealift_protocol::tensor::Datatype;

    use super::*;

    fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
        let bytes = prop::collection::vec(any::<u8>(), 0..64);
        let tensor = ("[a-z]{0,8}", bytes).prop_map(|(name, bytes)| {
            let shape = vec![bytes.len() as u64];
            Tensor::new(name, Datatype::Uint8, shape, bytes).unwrap()
        });
        prop::collection::vec(tensor, 0..4)
    }

    proptest! {
        #[test]
        fn requests_survive_the_wire_one_after_the_other(story in prop::collection::vec(tensors(), 1..4)) {
            let mut stream = Vec::new();
            for (id, inputs) in story.iter().enumerate() {
                let order = Order::Run(Cow::Borrowed(inputs.as_slice()));
                stream.extend(encode(&Request { id: id as u64, order }).unwrap());
            }
            let (mut stream, mut body) = (stream.as_slice(), Vec::new());
            for (id, inputs) in story.iter().enumerate() {
                prop_assert!(read(&mut stream, &mut body).unwrap());
                let request: Request<'_> = decode(&body).unwrap();
                prop_assert_eq!(request.id, id as u64);
                let Order::Run(given) = request.order else { panic!("another order") };
                prop_assert_eq!(given.as_ref(), inputs.as_slice());
            }
            prop_assert!(!read(&mut stream, &mut body).unwrap());
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(stream in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut body = Vec::new();
            if let Ok(true) = read(&mut stream.as_slice(), &mut body) {
                let _ = decode::<Reply>(&body).is_ok();
            }
        }
    }

    #[test]
    fn a_frame_of_four_gigabytes_is_refused_without_memory() {
        let mut body = Vec::new();
        let refused = read(&mut [0xff, 0xff, 0xff, 0xff].as_slice(), &mut body).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        assert_eq!(body.capacity(), 0);
    }

    #[test]
    fn half_a_frame_is_an_error() {
        let mut body = Vec::new();
        assert!(read(&mut [9, 0, 0, 0, 1].as_slice(), &mut body).is_err());
    }
}

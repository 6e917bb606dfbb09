//! What supervisor and worker say to each other.
//!
//! ```text
//!  request number u64 │ 0 u8 │ CBOR                     an order, or an answer, that comes once or seldom
//!                     │ 1 u8 │ look │ tensors           inputs, as `sealift_protocol::tensor::wire` has them
//!                     │ 1 u8 │ µs u32 │ look │ tensors  outputs, and how long the engine took
//! ```
//! This lies at a place of [`super::shared`], if the request was lent one; or it goes through the socket, after its length as a u32. What
//! `look` is, [`look`] says.

mod look;

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use sealift_protocol::codec;
use sealift_protocol::digest::Digest;
use sealift_protocol::image::Policy;
use sealift_protocol::picture::Figures;
use sealift_protocol::tensor::{Tensor, wire};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::shared::AREA_BYTES;
use super::{RuntimeCandidate, WorkerSpec};

/// One frame. Requests are at most 32 MiB; a segmentation of such an image in FP32 is a few times larger.
pub(super) const FRAME_BYTES_MAX: usize = 256 << 20;

/// Bytes of the length before each frame.
pub(super) const HEADER_BYTES: usize = 4;

/// Room for all that is before the tensors, without pictures.
const HEAD_BYTES: usize = 32;

/// What the rest of a body is.
const CONTROL: u8 = 0;
const TENSORS: u8 = 1;

/// Why a frame was not written, or bytes are none.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("{bytes} bytes, at most {FRAME_BYTES_MAX} are allowed")]
    TooLarge { bytes: usize },
    #[error("not a frame: {0}")]
    Form(String),
}

/// From the supervisor.
#[derive(Debug)]
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
    /// Answer, and look at the pictures at these places. Never in CBOR.
    #[serde(skip)]
    Run(Cow<'a, [Tensor]>, Cow<'a, [u16]>),
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
#[derive(Debug)]
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
    /// Never in CBOR.
    #[serde(skip)]
    Outputs {
        outputs: Vec<Tensor>,
        engine_us: u32,
        /// Of the pictures that were to be looked at; empty if one of them was not there.
        figures: Vec<Figures>,
    },
    Refused {
        fault: Fault,
        reason: String,
    },
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

impl Request<'_> {
    /// The whole frame, so that it is one write.
    pub(super) fn frame(id: u64, order: &Order<'_>) -> Result<Vec<u8>, FrameError> {
        Self::parts(id, order, HEADER_BYTES)?.into_frame()
    }

    /// Leaves it at a place, if it fits; returns how many bytes lie there.
    pub(super) fn leave(
        id: u64,
        order: &Order<'_>,
        place: &mut impl Write,
    ) -> Result<u32, FrameError> {
        Self::parts(id, order, 0)?.leave(place)
    }

    /// Reads what was left at a place, or a frame's body.
    pub(super) fn read(body: &[u8]) -> Result<Request<'static>, FrameError> {
        let (id, kind, rest) = split(body)?;
        if kind != TENSORS {
            return Ok(Request { id, order: control(kind, rest)? });
        }
        let (places, rest) = look::read_places(rest).ok_or_else(cut_off)?;
        Ok(Request { id, order: Order::Run(Cow::Owned(tensors(rest)?), Cow::Owned(places)) })
    }

    fn parts<'a>(id: u64, order: &'a Order<'_>, before: usize) -> Result<Parts<'a>, FrameError> {
        let Order::Run(inputs, places) = order else { return Parts::of(id, order, before) };
        let mut head = begin(id, TENSORS, before);
        look::write_places(places, &mut head).ok_or_else(|| form("it has too many pictures"))?;
        Ok(Parts { head, tensors: Some(inputs) })
    }
}

impl Reply {
    /// The whole frame, so that it is one write.
    pub(super) fn frame(id: u64, answer: &Answer) -> Result<Vec<u8>, FrameError> {
        Self::parts(id, answer, HEADER_BYTES)?.into_frame()
    }

    /// Leaves it at a place, if it fits; returns how many bytes lie there.
    pub(super) fn leave(
        id: u64,
        answer: &Answer,
        place: &mut impl Write,
    ) -> Result<u32, FrameError> {
        Self::parts(id, answer, 0)?.leave(place)
    }

    /// Reads what was left at a place, or a frame's body.
    pub(super) fn read(body: &[u8]) -> Result<Self, FrameError> {
        let (id, kind, rest) = split(body)?;
        if kind != TENSORS {
            return Ok(Self { id, answer: control(kind, rest)? });
        }
        let (engine_us, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
        let (figures, rest) = look::read_figures(rest).ok_or_else(cut_off)?;
        let (outputs, engine_us) = (tensors(rest)?, u32::from_le_bytes(*engine_us));
        Ok(Self { id, answer: Answer::Outputs { outputs, engine_us, figures } })
    }

    fn parts(id: u64, answer: &Answer, before: usize) -> Result<Parts<'_>, FrameError> {
        let Answer::Outputs { outputs, engine_us, figures } = answer else {
            return Parts::of(id, answer, before);
        };
        let mut head = begin(id, TENSORS, before);
        head.extend(engine_us.to_le_bytes());
        look::write_figures(figures, &mut head).ok_or_else(|| form("it has too many pictures"))?;
        Ok(Parts { head, tensors: Some(outputs) })
    }
}

/// What is written one after the other.
struct Parts<'a> {
    head: Vec<u8>,
    tensors: Option<&'a [Tensor]>,
}

impl Parts<'static> {
    /// What comes once or seldom.
    fn of<T: Serialize>(id: u64, value: &T, before: usize) -> Result<Self, FrameError> {
        let mut head = begin(id, CONTROL, before);
        head.extend(codec::encode(value).map_err(form)?);
        Ok(Self { head, tensors: None })
    }
}

impl Parts<'_> {
    fn bytes(&self) -> usize {
        self.head.len() + self.tensors.map_or(0, wire::length)
    }

    /// The head was begun after the length, which is known now.
    fn into_frame(self) -> Result<Vec<u8>, FrameError> {
        let bytes = self.bytes().saturating_sub(HEADER_BYTES);
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= FRAME_BYTES_MAX);
        let length = length.ok_or(FrameError::TooLarge { bytes })?;
        let Self { head: mut frame, tensors } = self;
        if let Some(front) = frame.first_chunk_mut() {
            *front = length.to_le_bytes();
        }
        tensors.map_or(Ok(()), |tensors| wire::write(tensors, &mut frame)).map_err(form)?;
        Ok(frame)
    }

    fn leave(self, place: &mut impl Write) -> Result<u32, FrameError> {
        let bytes = self.bytes();
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= AREA_BYTES);
        let length = length.ok_or(FrameError::TooLarge { bytes })?;
        place.write_all(&self.head).map_err(form)?;
        self.tensors.map_or(Ok(()), |tensors| wire::write_to(tensors, place)).map_err(form)?;
        Ok(length)
    }
}

/// The beginning of a body, after so many bytes for what is not known yet.
fn begin(id: u64, kind: u8, before: usize) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.resize(before, 0);
    head.extend(id.to_le_bytes());
    head.push(kind);
    head
}

fn cut_off() -> FrameError {
    FrameError::Form("it is cut off".to_owned())
}

/// Request number, kind, and the rest.
fn split(body: &[u8]) -> Result<(u64, u8, &[u8]), FrameError> {
    let (id, rest) = body.split_first_chunk().ok_or_else(cut_off)?;
    let (&kind, rest) = rest.split_first().ok_or_else(cut_off)?;
    Ok((u64::from_le_bytes(*id), kind, rest))
}

fn tensors(mut bytes: &[u8]) -> Result<Vec<Tensor>, FrameError> {
    let tensors = wire::read(&mut bytes).map_err(form)?;
    if bytes.is_empty() { Ok(tensors) } else { Err(form("bytes after the last tensor")) }
}

fn control<T: DeserializeOwned>(kind: u8, bytes: &[u8]) -> Result<T, FrameError> {
    if kind != CONTROL {
        return Err(FrameError::Form(format!("kind {kind} is not known")));
    }
    codec::decode("worker frame", bytes, FRAME_BYTES_MAX).map_err(form)
}

fn form(error: impl std::fmt::Display) -> FrameError {
    FrameError::Form(error.to_string())
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
    use sealift_protocol::picture::FIGURES;
    use sealift_protocol::tensor::Datatype;

    use super::*;

    fn tensor_of(bytes: usize) -> Vec<Tensor> {
        let data: Vec<u8> = (0..=250).cycle().take(bytes).collect();
        vec![Tensor::new("x".to_owned(), Datatype::Uint8, vec![bytes as u64], data).unwrap()]
    }

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
                let order = Order::Run(Cow::Borrowed(inputs.as_slice()), Cow::Borrowed(&[0, 9]));
                stream.extend(Request::frame(id as u64, &order).unwrap());
            }
            let (mut stream, mut body) = (stream.as_slice(), Vec::new());
            for (id, inputs) in story.iter().enumerate() {
                prop_assert!(read(&mut stream, &mut body).unwrap());
                let request = Request::read(&body).unwrap();
                prop_assert_eq!(request.id, id as u64);
                let Order::Run(given, places) = request.order else { panic!("another order") };
                prop_assert_eq!(given.as_ref(), inputs.as_slice());
                prop_assert_eq!(places.as_ref(), &[0, 9]);
            }
            prop_assert!(!read(&mut stream, &mut body).unwrap());
        }

        #[test]
        fn outputs_survive_the_wire_with_the_time_they_took(given in tensors(), took_us in any::<u32>()) {
            let seen = vec![[0.5; FIGURES], [-2.0; FIGURES]];
            let answer = Answer::Outputs { outputs: given.clone(), engine_us: took_us, figures: seen.clone() };
            let frame = Reply::frame(3, &answer).unwrap();
            let Answer::Outputs { outputs, engine_us, figures } = Reply::read(&frame[HEADER_BYTES..]).unwrap().answer else {
                panic!("another answer")
            };
            prop_assert_eq!((outputs, engine_us, figures), (given, took_us, seen));
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(stream in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut body = Vec::new();
            if let Ok(true) = read(&mut stream.as_slice(), &mut body) {
                let _ = (Reply::read(&body).is_ok(), Request::read(&body).is_ok());
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
    fn orders_and_answers_that_are_no_tensors_survive() {
        let stop = Request::frame(7, &Order::Stop).unwrap();
        let read = Request::read(&stop[HEADER_BYTES..]).unwrap();
        assert!(read.id == 7 && matches!(read.order, Order::Stop));
        let refused = Answer::Refused { fault: Fault::Golden, reason: "no".to_owned() };
        let reply = Reply::frame(8, &refused).unwrap();
        let read = Reply::read(&reply[HEADER_BYTES..]).unwrap();
        let Answer::Refused { fault: Fault::Golden, reason } = read.answer else {
            panic!("{read:?}")
        };
        assert_eq!((read.id, reason.as_str()), (8, "no"));
        assert!(Reply::read(&[0, 0, 0, 0, 0, 0, 0, 0, 2]).is_err());
    }

    #[test]
    fn what_is_left_at_a_place_is_what_a_frame_would_hold_or_too_large() {
        // What stands beside the bytes of one tensor with a name of one letter.
        const BESIDE_BYTES: usize = 9 + 2 + 2 + 21;
        for (bytes, fits) in [(0, true), (7, true), (5 << 20, true), (AREA_BYTES, false)] {
            let given = tensor_of(bytes);
            let order = Order::Run(Cow::Borrowed(given.as_slice()), Cow::Borrowed(&[]));
            let frame = Request::frame(1, &order).unwrap();
            let mut place = Vec::new();
            match Request::leave(1, &order, &mut place) {
                Ok(length) => assert!(fits && length as usize == place.len(), "{bytes}"),
                Err(error) => assert!(!fits && matches!(error, FrameError::TooLarge { .. })),
            }
            assert!(place == if fits { &frame[HEADER_BYTES..] } else { &[] }, "{bytes}");
        }
        let order = |bytes| Order::Run(Cow::Owned(tensor_of(bytes)), Cow::Borrowed(&[]));
        let largest = AREA_BYTES - BESIDE_BYTES;
        let left = Request::leave(1, &order(largest), &mut io::sink());
        assert_eq!(left.unwrap() as usize, AREA_BYTES);
        assert!(Request::leave(1, &order(largest + 1), &mut io::sink()).is_err());
    }

    #[test]
    fn half_a_frame_is_an_error() {
        let mut body = Vec::new();
        assert!(read(&mut [9, 0, 0, 0, 1].as_slice(), &mut body).is_err());
    }
}

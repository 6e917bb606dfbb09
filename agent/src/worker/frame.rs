//! What supervisor and worker say to each other.
//!
//! ```text
//!  length u32 │ request number u64 │ 0 u8 │ CBOR                         an order, or an answer, that comes once or seldom
//!                                  │ 1 u8 │ place u8 │ look │ tensors    inputs, as `sealift_protocol::tensor::wire` has them
//!                                  │ 2 u8 │ place u8 │ look │ bytes u32  so many bytes of inputs lie at the place
//!                                  │ 1 u8 │ µs u32 │ look │ tensors      outputs, and how long the engine took
//!                                  │ 2 u8 │ µs u32 │ look │ bytes u32    so many bytes of outputs lie at the request's place
//! ```
//! The place is one of [`super::shared`], lent to the request; what `look` is, [`look`] says.

mod look;

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::PathBuf;

use sealift_protocol::codec;
use sealift_protocol::digest::Digest;
use sealift_protocol::image::Policy;
use sealift_protocol::picture::Figures;
use sealift_protocol::tensor::{Tensor, wire};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::shared::{AREA_BYTES, Area, Place, SHARED_BYTES_MIN, Shared};
use super::{RuntimeCandidate, WorkerSpec};

/// One frame. Requests are at most 32 MiB; a segmentation of such an image in FP32 is a few times larger.
pub(super) const FRAME_BYTES_MAX: usize = 256 << 20;

/// Bytes of the length before each frame.
pub(super) const HEADER_BYTES: usize = 4;

/// What the rest of a frame is.
const CONTROL: u8 = 0;
const TENSORS: u8 = 1;
const SHARED: u8 = 2;

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
    /// Where outputs may lie.
    pub(super) place: Option<Place>,
    pub(super) order: Order<'a>,
}

/// A place, and the memory that it is in.
pub(super) type Room<'a> = Option<(Place, &'a Shared)>;

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
    /// The whole frame, so that it is one write. Large inputs are left at their place.
    pub(super) fn frame(id: u64, order: &Order<'_>, room: Room<'_>) -> Result<Vec<u8>, FrameError> {
        let Order::Run(inputs, places) = order else { return frame_of(id, order) };
        let bytes = leave(inputs, Area::Inputs, room)?;
        let mut frame = begin(id, if bytes.is_some() { SHARED } else { TENSORS });
        frame.push(Place::number(room.map(|(place, _)| place)));
        look::write_places(places, &mut frame).ok_or_else(|| form("it has too many pictures"))?;
        finish_with(frame, bytes, inputs)
    }

    /// Reads a frame's body, and what it says lies in the memory.
    pub(super) fn read(
        body: &[u8],
        shared: Option<&Shared>,
    ) -> Result<Request<'static>, FrameError> {
        let (id, kind, rest) = parts(body)?;
        if !matches!(kind, TENSORS | SHARED) {
            return Ok(Request { id, place: None, order: control(kind, rest)? });
        }
        let (&number, rest) = rest.split_first().ok_or_else(cut_off)?;
        let place = Place::of_number(number).map_err(|_| form("there is no such place"))?;
        let (places, rest) = look::read_places(rest).ok_or_else(cut_off)?;
        let inputs = if kind == TENSORS {
            tensors(rest)?
        } else {
            let lies = |bytes| shared?.look(place?, Area::Inputs, bytes, tensors);
            lies(length(rest)?).ok_or_else(|| form("its inputs lie nowhere"))??
        };
        Ok(Request { id, place, order: Order::Run(Cow::Owned(inputs), Cow::Owned(places)) })
    }
}

impl Reply {
    /// The whole frame, so that it is one write. Large outputs are left at the request's place.
    pub(super) fn frame(id: u64, answer: &Answer, room: Room<'_>) -> Result<Vec<u8>, FrameError> {
        let Answer::Outputs { outputs, engine_us, figures } = answer else {
            return frame_of(id, answer);
        };
        let bytes = leave(outputs, Area::Outputs, room)?;
        let mut frame = begin(id, if bytes.is_some() { SHARED } else { TENSORS });
        frame.extend(engine_us.to_le_bytes());
        look::write_figures(figures, &mut frame).ok_or_else(|| form("it has too many pictures"))?;
        finish_with(frame, bytes, outputs)
    }

    /// Reads a frame's body; `fetch` copies so many bytes from the place of the request with this number, if it has one.
    pub(super) fn read(
        body: &[u8],
        fetch: impl FnOnce(u64, usize) -> Option<Vec<u8>>,
    ) -> Result<Self, FrameError> {
        let (id, kind, rest) = parts(body)?;
        if !matches!(kind, TENSORS | SHARED) {
            return Ok(Self { id, answer: control(kind, rest)? });
        }
        let (engine_us, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
        let (figures, rest) = look::read_figures(rest).ok_or_else(cut_off)?;
        let outputs = if kind == TENSORS {
            tensors(rest)?
        } else {
            let fetched = fetch(id, length(rest)?);
            tensors(&fetched.ok_or_else(|| form("its outputs lie nowhere"))?)?
        };
        let engine_us = u32::from_le_bytes(*engine_us);
        Ok(Self { id, answer: Answer::Outputs { outputs, engine_us, figures } })
    }
}

/// Writes tensors to their place, if they are worth it and fit; returns how many bytes lie there.
fn leave(tensors: &[Tensor], area: Area, room: Room<'_>) -> Result<Option<u32>, FrameError> {
    let Some((place, shared)) = room else { return Ok(None) };
    let bytes = wire::length(tensors);
    if !(SHARED_BYTES_MIN..=AREA_BYTES).contains(&bytes) {
        return Ok(None);
    }
    wire::write_to(tensors, &mut shared.writer(place, area)).map_err(form)?;
    u32::try_from(bytes).map(Some).map_err(form)
}

/// What is left of a frame whose tensors lie elsewhere.
fn length(rest: &[u8]) -> Result<usize, FrameError> {
    let bytes = <[u8; 4]>::try_from(rest).map_err(|_| cut_off())?;
    usize::try_from(u32::from_le_bytes(bytes)).map_err(form)
}

fn frame_of<T: Serialize>(id: u64, value: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = begin(id, CONTROL);
    frame.extend(codec::encode(value).map_err(form)?);
    finish(frame)
}

/// Ends a frame with how many bytes of tensors lie elsewhere, or with the tensors.
fn finish_with(
    mut frame: Vec<u8>,
    bytes: Option<u32>,
    tensors: &[Tensor],
) -> Result<Vec<u8>, FrameError> {
    match bytes {
        Some(bytes) => frame.extend(bytes.to_le_bytes()),
        None => wire::write(tensors, &mut frame).map_err(form)?,
    }
    finish(frame)
}

/// A frame without its length.
fn begin(id: u64, kind: u8) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    frame.extend(id.to_le_bytes());
    frame.push(kind);
    frame
}

fn finish(mut frame: Vec<u8>) -> Result<Vec<u8>, FrameError> {
    let bytes = frame.len().saturating_sub(HEADER_BYTES);
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= FRAME_BYTES_MAX);
    let length = length.ok_or(FrameError::TooLarge { bytes })?;
    if let Some(front) = frame.first_chunk_mut() {
        *front = length.to_le_bytes();
    }
    Ok(frame)
}

fn cut_off() -> FrameError {
    FrameError::Form("it is cut off".to_owned())
}

/// Request number, kind, and the rest.
fn parts(body: &[u8]) -> Result<(u64, u8, &[u8]), FrameError> {
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

    /// There is no memory.
    fn nowhere(_id: u64, _bytes: usize) -> Option<Vec<u8>> {
        None
    }

    /// Sizes below, at and beyond those that memory is used for.
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
                stream.extend(Request::frame(id as u64, &order, None).unwrap());
            }
            let (mut stream, mut body) = (stream.as_slice(), Vec::new());
            for (id, inputs) in story.iter().enumerate() {
                prop_assert!(read(&mut stream, &mut body).unwrap());
                let request = Request::read(&body, None).unwrap();
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
            let frame = Reply::frame(3, &answer, None).unwrap();
            let Answer::Outputs { outputs, engine_us, figures } = Reply::read(&frame[HEADER_BYTES..], nowhere).unwrap().answer else {
                panic!("another answer")
            };
            prop_assert_eq!((outputs, engine_us, figures), (given, took_us, seen));
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(stream in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut body = Vec::new();
            if let Ok(true) = read(&mut stream.as_slice(), &mut body) {
                let _ = (Reply::read(&body, nowhere).is_ok(), Request::read(&body, None).is_ok());
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
        let stop = Request::frame(7, &Order::Stop, None).unwrap();
        let read = Request::read(&stop[HEADER_BYTES..], None).unwrap();
        assert!(read.id == 7 && matches!(read.order, Order::Stop));
        let refused = Answer::Refused { fault: Fault::Golden, reason: "no".to_owned() };
        let reply = Reply::frame(8, &refused, None).unwrap();
        let read = Reply::read(&reply[HEADER_BYTES..], nowhere).unwrap();
        let Answer::Refused { fault: Fault::Golden, reason } = read.answer else {
            panic!("{read:?}")
        };
        assert_eq!((read.id, reason.as_str()), (8, "no"));
        assert!(Reply::read(&[0, 0, 0, 0, 0, 0, 0, 0, 2], nowhere).is_err());
    }

    #[test]
    fn large_tensors_lie_in_memory_both_ways_and_others_in_the_frame() {
        let shared = Shared::make().unwrap();
        let place = Place::of_number(0).unwrap().unwrap();
        for (bytes, is_inline) in
            [(1, true), (SHARED_BYTES_MIN, false), (5 << 20, false), (AREA_BYTES, true)]
        {
            let given = tensor_of(bytes);
            let order = Order::Run(Cow::Borrowed(given.as_slice()), Cow::Borrowed(&[3]));
            let frame = Request::frame(1, &order, Some((place, &shared))).unwrap();
            assert_eq!(frame.len() > bytes, is_inline, "{bytes}");
            let request = Request::read(&frame[HEADER_BYTES..], Some(&shared)).unwrap();
            let Order::Run(read, _) = request.order else { panic!("another order") };
            assert!(request.place == Some(place) && *read == *given);

            let answer = Answer::Outputs {
                outputs: given.clone(),
                engine_us: 5,
                figures: vec![[1.0; FIGURES]],
            };
            let frame = Reply::frame(1, &answer, Some((place, &shared))).unwrap();
            assert_eq!(frame.len() > bytes, is_inline, "{bytes}");
            let fetch = |id, bytes| {
                assert_eq!(id, 1);
                shared.copy(place, Area::Outputs, bytes)
            };
            let reply = Reply::read(&frame[HEADER_BYTES..], fetch).unwrap();
            let Answer::Outputs { outputs, .. } = reply.answer else { panic!("another answer") };
            assert!(outputs == given, "{bytes}");
        }
    }

    #[test]
    fn a_frame_that_points_nowhere_is_refused() {
        let shared = Shared::make().unwrap();
        let request = |place: u8, bytes: u32| {
            let mut body = 1_u64.to_le_bytes().to_vec();
            body.extend([SHARED, place, 0, 0]);
            body.extend(bytes.to_le_bytes());
            body
        };
        let past = u32::try_from(AREA_BYTES).unwrap() + 1;
        for (body, shared) in [
            (request(8, 10), Some(&shared)),
            (request(u8::MAX, 10), Some(&shared)),
            (request(0, past), Some(&shared)),
            (request(0, u32::MAX), Some(&shared)),
            (request(0, 10), None),
            (request(0, 10)[..14].to_vec(), Some(&shared)),
            (request(0, 10)[..11].to_vec(), Some(&shared)),
        ] {
            assert!(Request::read(&body, shared).is_err(), "{body:?}");
        }
        // Outputs as long as a liar says, which is more than there can be.
        let mut body = 1_u64.to_le_bytes().to_vec();
        body.push(SHARED);
        body.extend([0; 6]);
        body.extend(u32::MAX.to_le_bytes());
        let place = Place::of_number(0).unwrap().unwrap();
        let fetch = |_, bytes| shared.copy(place, Area::Outputs, bytes);
        assert!(Reply::read(&body, fetch).is_err());
    }

    #[test]
    fn half_a_frame_is_an_error() {
        let mut body = Vec::new();
        assert!(read(&mut [9, 0, 0, 0, 1].as_slice(), &mut body).is_err());
    }
}

//! The child: `fleet-agent worker`, with the supervisor's socket as its standard input. A thread for each session, no runtime, no network.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealift_protocol::image::{Golden, IoContract};
use sealift_protocol::tensor::Tensor;
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

use super::frame::{self, Answer, Fault, LoadOrder, Loaded, Order, Reply, Request};
use super::line::Note;
use super::post::{self, Inbox, Outgoing};
use super::shared::{Area, Place, Shared};
use super::{read_contract, read_golden, sandbox, selftest};
use crate::engine::look::Look;
use crate::engine::onnxruntime::OnnxRuntime;
use crate::engine::processing::Processed;
use crate::engine::{Engine, EngineError};
use crate::slots::{digest_of_file, open_plain};

/// Bytes that are read from the socket at once; larger bodies pass the buffer by.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// A refusal is for a report, which holds 400 characters; what a library writes can be long.
const REASON_CHARS_MAX: usize = 400;

/// The variable that filters the log, of the supervisor and of its workers.
pub(super) const LOG_FILTER: &str = "SEALIFT_LOG";

/// The library tells much that is of no use to whoever runs it.
const LOG_FILTER_DEFAULT: &str = "info,ort=warn";

/// The same model several times.
type Sessions = Vec<Box<dyn Engine>>;

/// Serves one model until the supervisor says stop or closes the socket.
pub fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env(LOG_FILTER);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(LOG_FILTER_DEFAULT));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "worker gives up");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (inbox, outgoing) = match post::receive(&socket)? {
        Some((memory, inbox, outgoing)) => {
            let memory = Arc::new(memory);
            (Some((Arc::clone(&memory), inbox)), Some((memory, outgoing)))
        }
        None => (None, None),
    };
    let reader = BufReader::with_capacity(READ_BUFFER_BYTES, socket.try_clone()?);
    let reader = Reader { socket: reader, body: Vec::new(), inbox };
    let mut conversation = Conversation { reader, writer: Writer { socket, outgoing } };
    let Some((Request { id, order: Order::Load(order) }, _)) = conversation.reader.next()? else {
        return Err(io::Error::other("the first order was not to load"));
    };
    match load(&order) {
        Ok((engines, contract, loaded)) => {
            conversation.writer.say(id, &Answer::Loaded(loaded), None)?;
            answer_all(conversation, engines, &contract)
        }
        Err((fault, reason)) => {
            let reason = reason.chars().take(REASON_CHARS_MAX).collect();
            conversation.writer.say(id, &Answer::Refused { fault, reason }, None)
        }
    }
}

/// Answers by all sessions at once, each on a thread: whichever is free takes the next request.
fn answer_all(
    conversation: Conversation,
    engines: Sessions,
    contract: &IoContract,
) -> io::Result<()> {
    let Conversation { reader, writer } = conversation;
    let (reader, writer) = (Mutex::new(Some(reader)), Mutex::new(writer));
    let (reader, writer) = (&reader, &writer);
    std::thread::scope(|threads| {
        let mut engines = engines.into_iter();
        let first = engines.next();
        let others: Vec<_> = engines
            .map(|mut engine| {
                threads.spawn(move || answer_some(reader, writer, (engine.as_mut(), contract)))
            })
            .collect();
        let mut ended = first
            .map_or(Ok(()), |mut engine| answer_some(reader, writer, (engine.as_mut(), contract)));
        for other in others {
            let panicked = |_| Err(io::Error::other("a session has panicked"));
            ended = ended.and(other.join().unwrap_or_else(panicked));
        }
        ended
    })
}

/// Takes request after request until the supervisor has no more, or says stop: then there is no reader any more, for any session.
fn answer_some(
    reader: &Mutex<Option<Reader>>,
    writer: &Mutex<Writer>,
    (engine, contract): (&mut dyn Engine, &IoContract),
) -> io::Result<()> {
    loop {
        let next = {
            let mut shared = reader.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(open) = shared.as_mut() else { return Ok(()) };
            let next = open.next();
            if !matches!(next, Ok(Some((Request { order: Order::Run(..), .. }, _)))) {
                *shared = None;
            }
            next?
        };
        let Some((Request { id, order }, place)) = next else { return Ok(()) };
        match order {
            Order::Run(inputs, places) => {
                let answer = run((engine, contract), &inputs, Look::new(places.into_owned()));
                writer.lock().unwrap_or_else(PoisonError::into_inner).say(id, &answer, place)?;
            }
            Order::Stop => return Ok(()),
            Order::Load(_) => return Err(io::Error::other("a second order to load")),
        }
    }
}

/// Runs the model; what it costs to look at pictures is not the engine's.
fn run(
    (engine, contract): (&mut dyn Engine, &IoContract),
    inputs: &[Tensor],
    mut look: Look,
) -> Answer {
    let begin = Instant::now();
    let outputs = engine.look(inputs, &mut look);
    let taken = begin.elapsed().saturating_sub(look.taken());
    let (fault, reason) = match outputs {
        Ok(outputs) => {
            look.decoded(contract, inputs);
            let engine_us = u32::try_from(taken.as_micros()).unwrap_or(u32::MAX);
            return Answer::Outputs { outputs, engine_us, figures: look.into_figures() };
        }
        Err(EngineError::Input(reason)) => (Fault::Input, reason),
        Err(EngineError::Load(reason) | EngineError::Run(reason)) => (Fault::Run, reason),
    };
    Answer::Refused { fault, reason: reason.chars().take(REASON_CHARS_MAX).collect() }
}

fn load(order: &LoadOrder) -> Result<(Sessions, IoContract, Loaded), (Fault, String)> {
    let (contract, golden) = read_layers(order)?;
    let weights = open_hashed(order)?;
    sandbox::enter(order).map_err(|error| (Fault::Load, format!("sandbox: {error}")))?;
    let begin = Instant::now();
    // By its descriptor, not by its name: what was hashed is what is mapped, whatever lies under that name by now.
    let path = PathBuf::from(format!("/proc/self/fd/{}", weights.as_raw_fd()));
    let refused = |error: EngineError| (Fault::Load, error.to_string());
    let first = OnnxRuntime::load(&path, contract.of_graph(), &order.candidate).map_err(refused)?;
    let others = (1..order.candidate.sessions.get())
        .map(|_| first.another(&path, &order.candidate))
        .collect::<Result<Vec<_>, _>>()
        .map_err(refused)?;
    let engines = std::iter::once(first).chain(others);
    let mut engines: Vec<_> = engines.map(|engine| with_steps(engine, &contract)).collect();
    let load = begin.elapsed();
    let latency_max = Duration::from_millis(u64::from(order.latency_max_ms));
    let mut golden_time = Duration::ZERO;
    for engine in &mut engines {
        let taken = selftest::run(engine.as_mut(), &golden, latency_max)?;
        golden_time = golden_time.max(taken);
    }
    let none = || (Fault::Load, "no session".to_owned());
    let engine = engines.first().ok_or_else(none)?;
    let loaded = Loaded {
        providers: engine.providers().to_vec(),
        runtime: engine.runtime().to_owned(),
        load_ms: millis(load),
        golden_ms: millis(golden_time),
    };
    Ok((engines, contract, loaded))
}

fn with_steps(engine: OnnxRuntime, contract: &IoContract) -> Box<dyn Engine> {
    match Processed::new(engine, contract) {
        Ok(processed) => Box::new(processed),
        Err(plain) => Box::new(plain),
    }
}

/// trust.md, 14: hash and map the same open file. Returns it open.
fn open_hashed(order: &LoadOrder) -> Result<File, (Fault, String)> {
    let unreadable = |error: io::Error| (Fault::Load, format!("weights cannot be read: {error}"));
    let mut file = open_plain(&order.weights).map_err(unreadable)?;
    if digest_of_file(&mut file).map_err(unreadable)? == order.weights_digest {
        return Ok(file);
    }
    Err((Fault::Load, "weights are not those that were signed".to_owned()))
}

fn read_layers(order: &LoadOrder) -> Result<(IoContract, Golden), (Fault, String)> {
    let refused = |error: super::WorkerError| (Fault::Load, error.to_string());
    let contract = read_contract(&order.contract).map_err(refused)?;
    let golden = read_golden(&order.golden).map_err(refused)?;
    Ok((contract, golden))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Requests in, replies out.
struct Conversation {
    reader: Reader,
    writer: Writer,
}

struct Reader {
    socket: BufReader<UnixStream>,
    body: Vec<u8>,
    /// None where all goes through the socket.
    inbox: Option<(Arc<Shared>, Inbox)>,
}

struct Writer {
    socket: UnixStream,
    outgoing: Option<(Arc<Shared>, Outgoing)>,
}

impl Reader {
    /// The next request, and the place that it was lent; none when the supervisor has closed its end.
    fn next(&mut self) -> io::Result<Option<(Request<'static>, Option<Place>)>> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        if let Some((memory, inbox)) = &mut self.inbox {
            let Some(note) = inbox.next(memory)? else { return Ok(None) };
            if let Note::At(place, bytes) = note {
                let request = memory.look(place, Area::Inputs, bytes as usize, Request::read);
                let request = request.ok_or_else(|| io::Error::other("no place is as large"))?;
                return request.map(|request| Some((request, Some(place)))).map_err(invalid);
            }
        }
        if !frame::read(&mut self.socket, &mut self.body)? {
            return Ok(None);
        }
        Request::read(&self.body).map(|request| Some((request, None))).map_err(invalid)
    }
}

impl Writer {
    /// Leaves the answer at the request's place, if it has one and the answer fits; or writes it.
    fn say(&mut self, id: u64, answer: &Answer, place: Option<Place>) -> io::Result<()> {
        if let Some((memory, outgoing)) = &mut self.outgoing
            && let Some(place) = place
            && let Ok(bytes) = Reply::leave(id, answer, &mut memory.writer(place, Area::Outputs))
        {
            return outgoing.tell(memory, Note::At(place, bytes));
        }
        let frame = Reply::frame(id, answer).or_else(|error| {
            let reason = format!("outputs cannot be sent: {error}");
            Reply::frame(id, &Answer::Refused { fault: Fault::Run, reason })
        });
        self.socket.write_all(&frame.map_err(io::Error::other)?)
    }
}

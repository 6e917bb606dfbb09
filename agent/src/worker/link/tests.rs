//! Tests of a worker's link: with programs that are no workers, and with a test that plays one.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::process::Command;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sealift_protocol::tensor::Datatype;

use super::*;
use crate::worker::post::{self, Inbox, Outgoing};
use crate::worker::process;
use crate::worker::shared::Shared as Memory;

/// The shell takes the argument `worker` for the name of a script.
async fn program(directory: &Path, script: &str) -> Link {
    fs::write(directory.join("worker"), script).unwrap();
    process::spawn(Some(Path::new("/bin/sh")), directory).await.unwrap()
}

#[tokio::test]
async fn a_worker_that_answers_nobody_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let link = program(directory.path(), "exec sleep 60").await;

    let answer = link.infer((&[], &[]), Duration::from_millis(20)).await;

    assert_eq!(answer.unwrap_err(), InferError::Deadline);
    assert_eq!(link.ended_by_itself().await, "signal: 9 (SIGKILL)");
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_told_with_its_status() {
    assert_eq!(reason_of("exit 7").await, "exit status: 7");
}

#[tokio::test]
async fn a_program_that_sends_what_is_no_reply_is_killed() {
    // Standard input is the socket, and open both ways.
    let reason = reason_of("printf '\\377\\377\\377\\377' >&0; exec sleep 60").await;

    assert_eq!(reason, "signal: 9 (SIGKILL)");
}

/// Why the worker is gone when it is asked, if it is this script.
async fn reason_of(script: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let link = program(directory.path(), script).await;
    match link.infer((&[], &[]), LONG).await {
        Err(InferError::WorkerGone { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    assert!(process::spawn(Some(&missing), directory.path()).await.is_err());
}

/// Nothing here takes longer, also on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// A worker that does what the test says, and the process that is killed for it.
struct Played {
    memory: Memory,
    inbox: Inbox,
    outgoing: Outgoing,
    _socket: std::os::unix::net::UnixStream,
}

fn play() -> (Link, Played) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let post = post::open(&ours).unwrap();
    let (memory, inbox, outgoing) = post::receive(&theirs).unwrap().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    let started = Started { process_id: child.id(), handle };
    let (ended, end) = watch::channel(None);
    std::thread::spawn(move || ended.send_replace(Some(child.wait().unwrap().to_string())));
    let socket = UnixStream::from_std(ours).unwrap();
    let link = Link::new(socket, post, started, end).unwrap();
    (link, Played { memory, inbox, outgoing, _socket: theirs })
}

fn input(byte: u8) -> Tensor {
    Tensor::new("x".to_owned(), Datatype::Uint8, vec![1], vec![byte]).unwrap()
}

impl Played {
    /// The next request and its place; the link has told of it already.
    fn take(&mut self) -> (u64, Place, Vec<Tensor>) {
        let note = self.inbox.next(&self.memory).unwrap();
        let Some(Note::At(place, bytes)) = note else { panic!("{note:?}") };
        let read = self.memory.look(place, Area::Inputs, bytes as usize, Request::read);
        let Request { id, order: Order::Run(inputs, _) } = read.unwrap().unwrap() else {
            panic!("another order")
        };
        (id, place, inputs.into_owned())
    }

    fn answer(&mut self, id: u64, place: Place, outputs: Vec<Tensor>) {
        let answer = Answer::Outputs { outputs, engine_us: 1, figures: Vec::new() };
        let mut area = self.memory.writer(place, Area::Outputs);
        let bytes = Reply::leave(id, &answer, &mut area).unwrap();
        self.tell(Note::At(place, bytes));
    }

    fn tell(&mut self, note: Note) {
        self.outgoing.tell(&self.memory, note).unwrap();
    }
}

/// Begins to ask, as far as it goes without waiting.
async fn begin<F: Future>(asking: &mut std::pin::Pin<&mut F>) {
    let asked = std::future::poll_fn(|context| {
        std::task::Poll::Ready(asking.as_mut().poll(context).is_pending())
    });
    assert!(asked.await, "it has an answer already");
}

#[tokio::test]
async fn requests_at_once_each_get_their_own_answer_in_any_order() {
    let (link, mut worker) = play();
    let (one, two) = ([input(1)], [input(2)]);
    let mut first = pin!(link.infer((&one, &[]), LONG));
    let mut second = pin!(link.infer((&two, &[]), LONG));
    begin(&mut first).await;
    begin(&mut second).await;

    let asked = [worker.take(), worker.take()];
    for (id, place, inputs) in asked.into_iter().rev() {
        worker.answer(id, place, inputs);
    }

    assert_eq!(first.await.unwrap().outputs, one);
    assert_eq!(second.await.unwrap().outputs, two);
}

#[tokio::test]
async fn an_answer_where_none_may_lie_ends_the_worker() {
    type Lie = fn(&mut Played, u64, Place);
    let of_a_place_that_was_not_lent: Lie = |worker, id, place| {
        let neighbour = Place::of_number(place.index() + 1).unwrap().unwrap();
        worker.answer(id, neighbour, Vec::new());
    };
    let of_another_request: Lie = |worker, id, place| worker.answer(id + 1, place, Vec::new());
    let beyond_the_place: Lie = |worker, _, place| worker.tell(Note::At(place, u32::MAX));
    let of_nothing: Lie = |worker, _, place| worker.tell(Note::At(place, 0));
    let without_a_place: Lie = |worker, _, _| worker.tell(Note::OnSocket);
    for lie in [
        of_a_place_that_was_not_lent,
        of_another_request,
        beyond_the_place,
        of_nothing,
        without_a_place,
    ] {
        let (link, mut worker) = play();
        let inputs = [input(1)];
        let mut asking = pin!(link.infer((&inputs, &[]), LONG));
        begin(&mut asking).await;
        let (id, place, _) = worker.take();

        lie(&mut worker, id, place);

        let reason = "signal: 9 (SIGKILL)".to_owned();
        assert_eq!(asking.await.unwrap_err(), InferError::WorkerGone { reason });
    }
}

#[tokio::test]
async fn a_request_that_was_given_up_is_the_worker_s_until_it_has_answered() {
    let (link, mut worker) = play();
    let inputs = [input(1)];
    for _ in 0..CALLS_MAX {
        let mut asking = pin!(link.infer((&inputs, &[]), LONG));
        begin(&mut asking).await;
    }
    assert_eq!(link.calls.available_permits(), 0);
    let last = [input(2)];
    let mut asking = pin!(link.infer((&last, &[]), LONG));
    begin(&mut asking).await;

    let answering = tokio::task::spawn_blocking(move || {
        for _ in 0..=CALLS_MAX {
            let (id, place, outputs) = worker.take();
            worker.answer(id, place, outputs);
        }
        worker
    });

    assert_eq!(asking.await.unwrap().outputs, last);
    drop(answering.await.unwrap());
    assert_eq!(link.calls.available_permits(), CALLS_MAX);
}

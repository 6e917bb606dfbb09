//! What supervisor and worker have besides the socket: the memory, a line of notes each way, and a bell for whoever sleeps. Handed over
//! with the first byte on the socket.
//!
//! ```text
//!  supervisor ──notes──▶ worker       rung by a pipe: its end that writes is the supervisor's own, so that no worker can have it block
//!  supervisor ◀──notes── worker       rung by a counter of events, on which the supervisor only waits
//! ```

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::line::{Broken, Note, Poster, Taker};
use super::shared::{Shared, Way};

/// Said with the descriptors, and without any.
const WITH: u8 = b'+';
const WITHOUT: u8 = b'-';

/// The memory, and both bells.
const DESCRIPTORS: usize = 3;

/// The supervisor's end.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) memory: Shared,
    outgoing: Mutex<Poster>,
    bell: File,
}

/// What wakes the supervisor; it is never read.
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

/// The worker's end, apart from the memory.
#[derive(Debug)]
pub(super) struct Inbox {
    taker: Taker,
    bell: File,
}

/// The worker's way back.
#[derive(Debug)]
pub(super) struct Outgoing {
    poster: Poster,
    bell: File,
}

/// Makes all of it, and hands the worker its part over `socket`. Without it, everything goes through the socket.
pub(super) fn open(socket: &UnixStream) -> io::Result<Option<(Post, Bell)>> {
    let made = make().inspect_err(|error| tracing::warn!(%error, "all goes through the socket"));
    let Ok((post, bell, bell_of_worker)) = made else {
        (&mut &*socket).write_all(&[WITHOUT])?;
        return Ok(None);
    };
    let descriptors = [post.memory.file(), bell_of_worker.as_fd(), bell.0.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if !message.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for descriptors"));
    }
    sendmsg(socket, &[IoSlice::new(&[WITH])], &mut message, SendFlags::NOSIGNAL)?;
    Ok(Some((post, bell)))
}

fn make() -> io::Result<(Post, Bell, OwnedFd)> {
    let memory = Shared::make()?;
    let (heard_by_worker, bell) = pipe_with(PipeFlags::CLOEXEC)?;
    // Of this end alone: a full pipe has enough to wake the worker.
    fcntl_setfl(&bell, OFlags::NONBLOCK)?;
    let heard = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let post = Post { memory, outgoing: Mutex::default(), bell: File::from(bell) };
    Ok((post, Bell(heard), heard_by_worker))
}

/// Takes what [`open`] sends; none if there is none.
pub(super) fn receive(socket: &UnixStream) -> io::Result<Option<(Shared, Inbox, Outgoing)>> {
    let mut said = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut said)];
    let received = recvmsg(socket, into, &mut message, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rights = |message| {
        if let RecvAncillaryMessage::ScmRights(files) = message { Some(files) } else { None }
    };
    let mut descriptors = message.drain().filter_map(rights).flatten();
    let three = (descriptors.next(), descriptors.next(), descriptors.next());
    match (said, three) {
        ([WITH], (Some(memory), Some(heard), Some(bell))) => {
            let inbox = Inbox { taker: Taker::default(), bell: File::from(heard) };
            let outgoing = Outgoing { poster: Poster::default(), bell: File::from(bell) };
            Ok(Some((Shared::open(memory)?, inbox, outgoing)))
        }
        ([WITHOUT], (None, None, None)) => Ok(None),
        _ => Err(io::Error::other("the first byte does not tell of shared memory")),
    }
}

impl Post {
    /// Tells the worker of a request.
    pub(super) fn tell(&self, note: Note) {
        let mut outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_asleep = outgoing.post(self.memory.line(Way::ToWorker), note);
        drop(outgoing);
        // A pipe that is full has rung already, and one without a reader belonged to a worker whose end the socket tells.
        if is_asleep && let Err(error) = (&self.bell).write(&[1]) {
            tracing::debug!(%error, "worker was not woken");
        }
    }

    /// What the worker has told, if anything.
    pub(super) fn take(&self, taker: &mut Taker) -> Result<Option<Note>, Broken> {
        taker.take(self.memory.line(Way::ToSupervisor))
    }

    /// Says that the supervisor waits for the bell; false if there is something already.
    pub(super) fn dozes(&self, taker: &Taker) -> bool {
        taker.dozes(self.memory.line(Way::ToSupervisor))
    }
}

impl Bell {
    /// Begins to listen, on the runtime of the caller.
    #[expect(unsafe_code, reason = "the runtime asks that a descriptor stays what it is")]
    pub(super) fn listen(self) -> io::Result<AsyncFd<OwnedFd>> {
        // SAFETY: an `OwnedFd` stands for one descriptor as long as it lives, and the registration owns it.
        unsafe { Ok(AsyncFd::register_with_interest(self.0, Interest::READABLE)?) }
    }
}

impl Inbox {
    /// The next note; none when the supervisor is gone.
    pub(super) fn next(&mut self, memory: &Shared) -> io::Result<Option<Note>> {
        let line = memory.line(Way::ToWorker);
        loop {
            let note = self.taker.take(line).map_err(invalid)?;
            if note.is_some() {
                return Ok(note);
            }
            if self.taker.dozes(line) && !self.is_rung()? {
                return Ok(None);
            }
        }
    }

    /// Sleeps until it is rung; false when nobody can ring any more.
    fn is_rung(&mut self) -> io::Result<bool> {
        // More than it is ever rung at once; what is left makes another turn.
        match self.bell.read(&mut [0; 16]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            rung => rung.map(|bytes| bytes > 0),
        }
    }
}

impl Outgoing {
    /// Tells the supervisor of an answer.
    pub(super) fn tell(&mut self, memory: &Shared, note: Note) -> io::Result<()> {
        if self.poster.post(memory.line(Way::ToSupervisor), note) {
            self.bell.write_all(&1_u64.to_ne_bytes())?;
        }
        Ok(())
    }
}

fn invalid(error: Broken) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::shared::{Area, PLACES, Place};
    use super::*;

    /// Nothing here takes longer, also on a busy machine.
    const LONG: Duration = Duration::from_secs(30);

    fn place(number: u32) -> Place {
        let number = u8::try_from(number % u32::from(PLACES)).unwrap();
        Place::of_number(number).unwrap().unwrap()
    }

    fn both() -> (Post, Bell, (Shared, Inbox, Outgoing)) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (post, bell) = open(&ours).unwrap().unwrap();
        (post, bell, receive(&theirs).unwrap().unwrap())
    }

    /// Each asks for the next only when it has the answer, or keeps several under way, so that both sleep again and again.
    #[tokio::test]
    async fn nobody_sleeps_through_a_note() {
        const NOTES: u32 = 20_000;
        let (post, bell, (memory, mut inbox, mut outgoing)) = both();
        let worker = std::thread::spawn(move || {
            while let Some(Note::At(place, bytes)) = inbox.next(&memory).unwrap() {
                outgoing.tell(&memory, Note::At(place, bytes + 1)).unwrap();
            }
        });
        let bell = bell.listen().unwrap();
        let mut taker = Taker::default();
        for under_way in [1, 3] {
            let (mut asked, mut answered) = (0, 0);
            while answered < NOTES {
                while asked < NOTES && asked - answered < under_way {
                    post.tell(Note::At(place(asked), asked));
                    asked += 1;
                }
                let Some(note) = post.take(&mut taker).unwrap() else {
                    if post.dozes(&taker) {
                        let rung = tokio::time::timeout(LONG, bell.readable()).await;
                        rung.expect("an answer is told of").unwrap().clear_ready();
                    }
                    continue;
                };
                assert_eq!(note, Note::At(place(answered), answered + 1));
                answered += 1;
            }
        }
        drop(post);
        worker.join().expect("the end of the supervisor is an end");
    }

    #[test]
    fn a_worker_that_never_wakes_cannot_block_the_supervisor() {
        let (post, _bell, (memory, _inbox, _outgoing)) = both();
        let line = memory.line(Way::ToWorker);
        let mut taker = Taker::default();
        // Twice what a pipe holds: it says that it sleeps, and never reads the bell.
        for _ in 0..1 << 17 {
            while taker.take(line).unwrap().is_some() {}
            assert!(taker.dozes(line));
            post.tell(Note::OnSocket);
        }
    }

    #[test]
    fn what_is_handed_over_is_one_memory() {
        let (post, _bell, (memory, ..)) = both();
        post.memory.writer(place(1), Area::Inputs).write_all(b"in").unwrap();
        assert_eq!(memory.look(place(1), Area::Inputs, 2, <[u8]>::to_vec).unwrap(), b"in");
    }

    #[test]
    fn a_first_byte_that_does_not_fit_what_comes_with_it_is_refused() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&ours).write_all(&[WITHOUT]).unwrap();
        assert!(receive(&theirs).unwrap().is_none());
        (&ours).write_all(&[WITH]).unwrap();
        assert!(receive(&theirs).is_err());
        drop(ours);
        assert!(receive(&theirs).is_err());
    }
}

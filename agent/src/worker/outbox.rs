//! Frames to a worker: written at once where the socket takes them, which saves a change of tasks per request; what it does not take
//! waits, in order, for a task that writes it when it does.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Notify;

/// The way to a worker. Its callers are counted by [`super::link`], and so is what can wait here.
#[derive(Debug)]
pub(super) struct Outbox {
    socket: OwnedWriteHalf,
    backlog: Mutex<Backlog>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Backlog {
    frames: VecDeque<Vec<u8>>,
    /// Bytes of the first frame that are written.
    written: usize,
    is_closed: bool,
}

impl Outbox {
    pub(super) fn new(socket: OwnedWriteHalf) -> Self {
        Self { socket, backlog: Mutex::default(), filled: Notify::new() }
    }

    /// Writes a frame or leaves it to [`Self::flush`]; an error means that the worker does not read any more.
    pub(super) fn send(&self, frame: Vec<u8>) -> io::Result<()> {
        let mut backlog = self.backlog();
        if backlog.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        backlog.frames.push_back(frame);
        // Behind others the frame waits; whoever put them there has told the task.
        if backlog.frames.len() == 1 && !self.write(&mut backlog)? {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Writes what waits, as long as it is not dropped.
    pub(super) async fn flush(&self) -> io::Result<()> {
        loop {
            self.filled.notified().await;
            while !self.backlog().frames.is_empty() {
                self.socket.writable().await?;
                self.write(&mut self.backlog())?;
            }
        }
    }

    /// Writes as much as the socket takes; true when nothing waits any more.
    fn write(&self, backlog: &mut Backlog) -> io::Result<bool> {
        while let Some(frame) = backlog.frames.front() {
            let rest = frame.get(backlog.written..).unwrap_or_default();
            match self.socket.try_write(rest) {
                Ok(bytes) if bytes == rest.len() => {
                    backlog.frames.pop_front();
                    backlog.written = 0;
                }
                Ok(bytes) => backlog.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => {
                    *backlog = Backlog { is_closed: true, ..Backlog::default() };
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn frames_larger_than_the_socket_arrive_whole_and_in_order() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (_reader, writer) = ours.into_split();
        let outbox = Arc::new(Outbox::new(writer));
        let flushing = Arc::clone(&outbox);
        let task = tokio::spawn(async move { flushing.flush().await });
        let frames: Vec<_> = (0..8_u8).map(|byte| vec![byte; 1 << (byte * 3)]).collect();

        for frame in &frames {
            outbox.send(frame.clone()).unwrap();
        }
        let mut given = vec![0; frames.iter().map(Vec::len).sum()];
        theirs.read_exact(&mut given).await.unwrap();

        assert_eq!(given, frames.concat());
        task.abort();
    }

    #[tokio::test]
    async fn a_closed_socket_is_an_error_for_good() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_reader, writer) = ours.into_split();
        let outbox = Outbox::new(writer);
        drop(theirs);
        outbox.socket.writable().await.unwrap();
        for byte in 0..3 {
            assert!(outbox.send(vec![byte]).is_err());
        }
    }
}

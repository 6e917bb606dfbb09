//! A line of notes from one process to the other, in memory that both have: where a request lies, or its answer. A reader says before it
//! sleeps that somebody must wake it; between two that are busy nothing goes through the kernel.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::shared::Place;

/// Notes that may stand in a line; there are never as many, for whoever writes them counts what is under way.
pub(super) const NOTES_MAX: usize = 1024;

/// One direction. Its two counters lie apart: each is written by another processor.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Line {
    posted: Apart<AtomicU32>,
    asleep: Apart<AtomicU32>,
    notes: Apart<[AtomicU64; NOTES_MAX]>,
}

/// On cache lines of its own.
#[derive(Debug)]
#[repr(C, align(64))]
struct Apart<T>(T);

/// What is told of a request or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// The next frame on the socket is to be read.
    OnSocket,
    /// So many bytes lie at a place.
    At(Place, u32),
}

/// What the other process wrote is no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("{0} notes stand in a line of {NOTES_MAX}")]
    Overrun(u32),
    #[error("there is no place {0}")]
    Place(u8),
}

/// Whoever writes a line. What it has posted it remembers itself: the other process could change what stands there.
#[derive(Debug, Default)]
pub(super) struct Poster {
    posted: u32,
}

/// Whoever reads a line.
#[derive(Debug, Default)]
pub(super) struct Taker {
    taken: u32,
}

impl Poster {
    /// Adds a note; true if the reader sleeps and must be woken.
    #[must_use]
    pub(super) fn post(&mut self, line: &Line, note: Note) -> bool {
        if let Some(slot) = line.note(self.posted) {
            slot.store(note.to_bits(), Ordering::Relaxed);
        }
        self.posted = self.posted.wrapping_add(1);
        // Posted before it is asked who sleeps, and said before it is asked what is posted: one of the two sees the other.
        line.posted.0.store(self.posted, Ordering::SeqCst);
        line.asleep.0.load(Ordering::SeqCst) != 0 && line.asleep.0.swap(0, Ordering::SeqCst) != 0
    }
}

impl Taker {
    /// The next note, if there is one.
    pub(super) fn take(&mut self, line: &Line) -> Result<Option<Note>, Broken> {
        let waiting = line.posted.0.load(Ordering::SeqCst).wrapping_sub(self.taken);
        if waiting == 0 {
            return Ok(None);
        }
        let slot = line.note(self.taken).filter(|_| waiting as usize <= NOTES_MAX);
        let bits = slot.ok_or(Broken::Overrun(waiting))?.load(Ordering::Relaxed);
        self.taken = self.taken.wrapping_add(1);
        Note::of_bits(bits).map(Some)
    }

    /// Says that it goes to sleep; false if there is a note after all, and it must not.
    #[must_use]
    pub(super) fn dozes(&self, line: &Line) -> bool {
        line.asleep.0.store(1, Ordering::SeqCst);
        let is_empty = line.posted.0.load(Ordering::SeqCst) == self.taken;
        if !is_empty {
            line.asleep.0.store(0, Ordering::SeqCst);
        }
        is_empty
    }
}

impl Line {
    fn note(&self, number: u32) -> Option<&AtomicU64> {
        self.notes.0.get(number as usize % NOTES_MAX)
    }
}

impl Note {
    const BYTES_SHIFT: u32 = 32;

    fn to_bits(self) -> u64 {
        let (place, bytes) = match self {
            Self::OnSocket => (None, 0),
            Self::At(place, bytes) => (Some(place), bytes),
        };
        u64::from(bytes) << Self::BYTES_SHIFT | u64::from(Place::number(place))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the parts that `to_bits` has put together"
    )]
    fn of_bits(bits: u64) -> Result<Self, Broken> {
        let place = Place::of_number(bits as u8).map_err(Broken::Place)?;
        Ok(place
            .map_or(Self::OnSocket, |place| Self::At(place, (bits >> Self::BYTES_SHIFT) as u32)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::shared::{Shared, Way};
    use super::*;

    fn place(number: u8) -> Place {
        Place::of_number(number).unwrap().unwrap()
    }

    fn note(bytes: u32) -> Note {
        Note::At(place(u8::try_from(bytes % 8).unwrap()), bytes)
    }

    #[test]
    fn a_reader_is_woken_when_it_sleeps_and_only_then() {
        let memory = Shared::make().unwrap();
        let line = memory.line(Way::ToWorker);
        let (mut poster, mut taker) = (Poster::default(), Taker::default());
        assert!(!poster.post(line, note(1)), "nobody sleeps");
        assert!(!taker.dozes(line), "there is a note");
        assert!(!poster.post(line, Note::OnSocket), "it did not sleep after all");
        assert_eq!(taker.take(line), Ok(Some(note(1))));
        assert_eq!(taker.take(line), Ok(Some(Note::OnSocket)));
        assert_eq!(taker.take(line), Ok(None));
        assert!(taker.dozes(line));
        assert!(poster.post(line, note(2)) && !poster.post(line, note(3)), "woken once");
    }

    #[test]
    fn the_two_lines_are_apart() {
        let memory = Shared::make().unwrap();
        let _woken = Poster::default().post(memory.line(Way::ToWorker), note(1));
        assert_eq!(Taker::default().take(memory.line(Way::ToSupervisor)), Ok(None));
    }

    #[test]
    fn a_line_that_says_what_cannot_be_is_broken() {
        let memory = Shared::make().unwrap();
        let line = memory.line(Way::ToSupervisor);
        let mut taker = Taker::default();
        line.notes.0[0].store(8, Ordering::Relaxed);
        line.posted.0.store(1, Ordering::Relaxed);
        assert_eq!(taker.take(line), Err(Broken::Place(8)));
        for posted in [0, 2 + u32::try_from(NOTES_MAX).unwrap(), u32::MAX] {
            line.posted.0.store(posted, Ordering::Relaxed);
            assert_eq!(taker.take(line), Err(Broken::Overrun(posted.wrapping_sub(1))));
        }
    }

    #[test]
    fn counters_go_round() {
        let memory = Shared::make().unwrap();
        let line = memory.line(Way::ToWorker);
        let begin = u32::MAX - 2;
        let (mut poster, mut taker) = (Poster { posted: begin }, Taker { taken: begin });
        for bytes in 0..6 {
            let _woken = poster.post(line, note(bytes));
        }
        let notes: Vec<_> = std::iter::from_fn(|| taker.take(line).unwrap()).collect();
        assert_eq!(notes, (0..6).map(note).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn a_note_survives_its_bits(number in 0..8_u8, bytes in any::<u32>()) {
            let note = Note::At(place(number), bytes);
            prop_assert_eq!(Note::of_bits(note.to_bits()), Ok(note));
            prop_assert_eq!(Note::of_bits(Note::OnSocket.to_bits()), Ok(Note::OnSocket));
        }
    }
}

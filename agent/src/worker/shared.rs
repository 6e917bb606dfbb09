//! Memory that supervisor and worker share: tensors are copied in and out once, and neither of the two has to be woken to take them from
//! the other.
//!
//! ```text
//!  place 0: inputs 32 MiB │ outputs 32 MiB │ place 1: inputs │ outputs │ … │ lines       one anonymous file; what nobody wrote takes no memory
//! ```
//! The supervisor lends a place to a request and takes it back with the answer. The file is sealed, so that a worker cannot shorten it and
//! have the supervisor end by `SIGBUS`; and the supervisor copies outputs before it reads them, so that they cannot change under it.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{ptr, slice};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    ftruncate, memfd_create,
};

use super::line::Line;

/// Places of one worker: more than it is asked at once, unless it has several sessions; those without one use the socket.
pub(super) const PLACES: u8 = 8;

/// Inputs, or outputs, of one place: as much as one request may hold. Larger outputs use the socket.
pub(super) const AREA_BYTES: usize = 32 << 20;

/// What an area keeps of memory for good; more is given back when it is not needed any more.
pub(super) const KEPT_BYTES: usize = 4 << 20;

/// Nobody can change them or the file's length: neither of the two, nor whoever gets hold of one.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Where a request's tensors lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u8);

/// Which of its two areas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Area {
    Inputs,
    Outputs,
}

/// Which of the two lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToWorker,
    ToSupervisor,
}

impl Place {
    /// Stands for none on the wire.
    const NONE: u8 = u8::MAX;

    pub(super) fn number(place: Option<Self>) -> u8 {
        place.map_or(Self::NONE, |place| place.0)
    }

    /// None for none; an error for one that there is not.
    pub(super) fn of_number(number: u8) -> Result<Option<Self>, u8> {
        match number {
            Self::NONE => Ok(None),
            number if number < PLACES => Ok(Some(Self(number))),
            number => Err(number),
        }
    }

    pub(super) const fn index(self) -> u8 {
        self.0
    }

    fn offset(self, area: Area) -> usize {
        let first = usize::from(self.0) * 2;
        (first + usize::from(area == Area::Outputs)) * AREA_BYTES
    }
}

/// The memory, as one of the two processes has it.
#[derive(Debug)]
pub(super) struct Shared {
    file: OwnedFd,
    map: MmapRaw,
}

impl Shared {
    /// Makes it.
    pub(super) fn make() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("sealift-tensors", flags)?;
        ftruncate(&file, bytes() as u64)?;
        fcntl_add_seals(&file, SEALS)?;
        Self::map(file)
    }

    /// Maps the file that [`Self::make`] has made in the other process.
    pub(super) fn open(file: OwnedFd) -> io::Result<Self> {
        let length = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        if length != bytes() as u64 || !fcntl_get_seals(&file)?.contains(SEALS) {
            return Err(io::Error::other("the shared memory is not as the supervisor makes it"));
        }
        Self::map(file)
    }

    fn map(file: OwnedFd) -> io::Result<Self> {
        let map = MmapOptions::new().len(bytes()).map_raw(&file)?;
        Ok(Self { file, map })
    }

    /// The file, for the other process.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The notes that go one way.
    #[expect(unsafe_code, reason = "the other process writes there as well")]
    #[expect(clippy::cast_ptr_alignment, reason = "asserted beside `LINES`")]
    pub(super) fn line(&self, way: Way) -> &Line {
        let offset = LINES + usize::from(way == Way::ToSupervisor) * size_of::<Line>();
        // SAFETY: both lines lie within the map, whose file cannot be shortened, and begin where one may: the map at a page, and `LINES` by
        // the assertion below. A line is made of atomics alone, for which zeros and any other bits are values, and which may change at any time.
        unsafe { &*self.map.as_ptr().add(offset).cast::<Line>() }
    }

    /// Writes into an area from its beginning; what does not fit is an error.
    pub(super) fn writer(&self, place: Place, area: Area) -> AreaWriter<'_> {
        AreaWriter { shared: self, offset: place.offset(area), written: 0 }
    }

    /// A copy of the first `length` bytes of an area; none if it is shorter.
    #[expect(
        unsafe_code,
        reason = "the other process may write there, so that no reference may be made"
    )]
    pub(super) fn copy(&self, place: Place, area: Area, length: usize) -> Option<Vec<u8>> {
        if length > AREA_BYTES {
            return None;
        }
        let mut copy = Vec::with_capacity(length);
        let offset = place.offset(area);
        // SAFETY: the area lies within the map, whose file cannot be shortened, and `copy` has room for as much as is copied; bytes of
        // any value are `u8`.
        unsafe {
            ptr::copy_nonoverlapping(self.map.as_ptr().add(offset), copy.as_mut_ptr(), length);
            copy.set_len(length);
        }
        Some(copy)
    }

    /// What `read` makes of the first `length` bytes of an area; none if it is shorter. For the worker alone: the supervisor writes
    /// nothing there until it has the answer.
    #[expect(unsafe_code, reason = "tensors are read where they lie")]
    pub(super) fn look<T>(
        &self,
        place: Place,
        area: Area,
        length: usize,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        if length > AREA_BYTES {
            return None;
        }
        // SAFETY: the area lies within the map, whose file cannot be shortened; and while `read` runs, nobody writes there.
        let bytes =
            unsafe { slice::from_raw_parts(self.map.as_ptr().add(place.offset(area)), length) };
        Some(read(bytes))
    }

    /// Gives what an area holds beyond [`KEPT_BYTES`] back to the system. Nobody uses it meanwhile.
    pub(super) fn tidy(&self, place: Place, area: Area) {
        let (offset, length) = (place.offset(area) + KEPT_BYTES, AREA_BYTES - KEPT_BYTES);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = fallocate(&self.file, flags, offset as u64, length as u64) {
            tracing::debug!(%error, "shared memory is kept");
        }
    }
}

/// Where the lines lie, one after the other.
const LINES: usize = PLACES as usize * 2 * AREA_BYTES;

const fn bytes() -> usize {
    LINES + 2 * size_of::<Line>()
}

const _: () = assert!(LINES.is_multiple_of(align_of::<Line>()), "maps begin at a page");

/// The way into an area.
#[derive(Debug)]
pub(super) struct AreaWriter<'a> {
    shared: &'a Shared,
    offset: usize,
    written: usize,
}

impl Write for AreaWriter<'_> {
    #[expect(
        unsafe_code,
        reason = "the other process may read there, so that no reference may be made"
    )]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(AREA_BYTES - self.written);
        let target = self.shared.map.as_mut_ptr();
        // SAFETY: `written` never exceeds the area, which lies within the map; and the bytes of the caller lie elsewhere.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), target.add(self.offset + self.written), count);
        }
        self.written += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of 512 bytes that the file takes.
    fn held_blocks(shared: &Shared) -> i64 {
        fstat(&shared.file).unwrap().st_blocks
    }

    /// Both ends of the memory, as two processes have them.
    fn both() -> (Shared, Shared) {
        let supervisor = Shared::make().unwrap();
        let file = supervisor.file().try_clone_to_owned().unwrap();
        (supervisor, Shared::open(file).unwrap())
    }

    #[test]
    fn what_one_process_writes_the_other_reads_at_its_place_alone() {
        let (supervisor, worker) = both();
        let (first, second) = (Place(0), Place(1));
        supervisor.writer(first, Area::Inputs).write_all(b"first").unwrap();
        supervisor.writer(second, Area::Inputs).write_all(b"second").unwrap();
        worker.writer(first, Area::Outputs).write_all(b"answer").unwrap();

        let read = |place, area, length| worker.look(place, area, length, <[u8]>::to_vec);
        assert_eq!(read(first, Area::Inputs, 5).unwrap(), b"first");
        assert_eq!(read(second, Area::Inputs, 6).unwrap(), b"second");
        assert_eq!(supervisor.copy(first, Area::Outputs, 6).unwrap(), b"answer");
        assert_eq!(supervisor.copy(second, Area::Outputs, 1).unwrap(), [0]);
    }

    #[test]
    fn nothing_is_written_or_read_beyond_an_area() {
        let (supervisor, worker) = both();
        let last = Place(PLACES - 1);
        let mut writer = worker.writer(last, Area::Outputs);
        let chunk = vec![7; AREA_BYTES - 1];
        writer.write_all(&chunk).unwrap();
        assert_eq!(writer.write(&[8, 9]).unwrap(), 1);
        assert_eq!(writer.write(&[9]).unwrap(), 0);

        let all = supervisor.copy(last, Area::Outputs, AREA_BYTES).unwrap();
        assert!(all[..AREA_BYTES - 1] == *chunk && all[AREA_BYTES - 1] == 8);
        for length in [AREA_BYTES + 1, usize::MAX] {
            assert!(supervisor.copy(last, Area::Outputs, length).is_none());
            assert!(worker.look(last, Area::Inputs, length, |_| ()).is_none());
        }
    }

    #[test]
    fn a_worker_cannot_cut_the_memory_off_under_the_supervisor() {
        let (_supervisor, worker) = both();
        for bytes in [0, 1, bytes() as u64 + 1] {
            assert!(ftruncate(&worker.file, bytes).is_err(), "{bytes}");
        }
        assert!(fcntl_add_seals(&worker.file, SealFlags::WRITE).is_err());
    }

    #[test]
    fn memory_that_large_tensors_took_is_given_back() {
        let (supervisor, worker) = both();
        let place = Place(3);
        worker.writer(place, Area::Outputs).write_all(&vec![1; AREA_BYTES]).unwrap();
        let kept_blocks = i64::try_from(KEPT_BYTES / 512).unwrap();
        assert!(held_blocks(&supervisor) > kept_blocks);

        supervisor.tidy(place, Area::Outputs);

        assert_eq!(held_blocks(&supervisor), kept_blocks);
        let answer = supervisor.copy(place, Area::Outputs, AREA_BYTES).unwrap();
        assert!(answer[..KEPT_BYTES].iter().all(|&byte| byte == 1));
    }

    #[test]
    fn a_place_is_what_its_number_says() {
        for number in 0..PLACES {
            let place = Place::of_number(number).unwrap();
            assert_eq!((place, Place::number(place)), (Some(Place(number)), number));
        }
        assert_eq!(Place::of_number(Place::number(None)), Ok(None));
        assert_eq!(Place::of_number(PLACES), Err(PLACES));
    }

    #[test]
    fn another_file_is_not_taken_for_the_memory() {
        let small = memfd_create("small", MemfdFlags::CLOEXEC).unwrap();
        assert!(Shared::open(small).is_err());
        let unsealed = memfd_create("unsealed", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&unsealed, bytes() as u64).unwrap();
        assert!(Shared::open(unsealed).is_err());
    }
}

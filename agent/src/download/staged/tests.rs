use std::fs;

use proptest::prelude::*;
use sealift_protocol::image::{Descriptor, LayerKind, annotation};

use super::*;

const SERVER: (Sender, bool) = (Sender(1), true);
const PEER: (Sender, bool) = (Sender(2), false);
const CHUNK: usize = 1 << 20;

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from((at / 1_000 + at % 7) % 251).unwrap()).collect()
}

fn layer(bytes: &[u8], is_chunked: bool) -> Layer {
    let kind = LayerKind::Weights;
    let mut blob = Descriptor::of(kind.media_type(), bytes);
    if is_chunked {
        blob.annotations.insert(annotation::CHUNKS.to_owned(), ChunkList::of(bytes).write());
    }
    Layer { kind, name: "model.onnx".to_owned(), blob }
}

struct Disk {
    dir: tempfile::TempDir,
    signed: Signed,
}

impl Disk {
    fn for_(bytes: &[u8], is_chunked: bool) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), signed: Signed::of(&layer(bytes, is_chunked)) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("model.onnx")
    }

    fn open(&self) -> Staged {
        Staged::open(self.path(), self.signed.clone()).unwrap()
    }
}

/// Sends what is missing, in pieces.
fn fill(staged: &mut Staged, bytes: &[u8], by: (Sender, bool)) {
    while let Some(gap) = staged.gap() {
        let range = usize::try_from(gap.start).unwrap()..usize::try_from(gap.end).unwrap();
        for piece in bytes[range].chunks(300_000) {
            assert_eq!(staged.put(piece, by).unwrap(), Put::Taken);
        }
    }
}

#[test]
fn what_came_before_a_restart_is_not_fetched_again_but_for_its_tail() {
    let bytes = content(3 * CHUNK + 5);
    let disk = Disk::for_(&bytes, false);
    let mut staged = disk.open();
    assert_eq!(staged.gap(), Some(0..bytes.len() as u64));
    staged.put(&bytes[..2 * CHUNK + 100], SERVER).unwrap();
    assert_eq!(
        staged.gap().unwrap().start,
        2 * CHUNK_BYTES + 100,
        "within a life not a byte is lost"
    );
    assert_eq!(staged.done_bytes(), 2 * CHUNK_BYTES + 100);
    drop(staged);

    let mut staged = disk.open();

    assert_eq!(staged.gap(), Some(2 * CHUNK_BYTES..bytes.len() as u64));
    fill(&mut staged, &bytes, SERVER);
    assert!(staged.is_as_signed().unwrap());
    assert_eq!(fs::read(disk.path()).unwrap(), bytes);
    assert_eq!(fs::read_dir(disk.dir.path()).unwrap().count(), 1, "the list is gone");
    drop(staged);
    assert_eq!(disk.open().gap(), None, "a complete blob is known without its list");
}

#[test]
fn a_torn_chunk_is_found_and_only_it_is_fetched_again() {
    let bytes = content(4 * CHUNK);
    let disk = Disk::for_(&bytes, false);
    let mut staged = disk.open();
    staged.put(&bytes[..3 * CHUNK], SERVER).unwrap();
    drop(staged);
    let file = OpenOptions::new().write(true).open(disk.path()).unwrap();
    file.write_all_at(&[0; 100], CHUNK_BYTES + 7).unwrap();

    let mut staged = disk.open();

    assert_eq!(staged.gap(), Some(CHUNK_BYTES..2 * CHUNK_BYTES));
    fill(&mut staged, &bytes, SERVER);
    assert!(staged.is_as_signed().unwrap());
}

#[test]
fn a_wrong_chunk_is_found_at_its_end_where_chunks_are_signed() {
    let bytes = content(3 * CHUNK);
    let disk = Disk::for_(&bytes, true);
    let mut wrong = bytes.clone();
    wrong[CHUNK + 1] ^= 1;
    let mut staged = disk.open();

    assert_eq!(staged.put(&wrong[..2 * CHUNK], PEER).unwrap(), Put::Wrong);

    assert_eq!(staged.gap(), Some(CHUNK_BYTES..3 * CHUNK_BYTES), "the first one stays");
    fill(&mut staged, &bytes, SERVER);
    assert!(staged.is_as_signed().unwrap());
}

#[test]
fn without_signed_chunks_only_those_of_the_suspect_are_dropped() {
    let bytes = content(4 * CHUNK);
    let disk = Disk::for_(&bytes, false);
    let mut wrong = bytes.clone();
    wrong[CHUNK + CHUNK / 2 + 1] ^= 1;
    let mut staged = disk.open();
    staged.put(&bytes[..CHUNK], SERVER).unwrap();
    staged.put(&wrong[CHUNK..CHUNK + CHUNK / 2], SERVER).unwrap();
    // It goes on in the middle of a chunk that another one began.
    staged.put(&wrong[CHUNK + CHUNK / 2..2 * CHUNK], PEER).unwrap();
    staged.put(&bytes[2 * CHUNK..], SERVER).unwrap();
    assert!(!staged.is_as_signed().unwrap());

    assert_eq!(staged.senders(), BTreeSet::from([SERVER.0, PEER.0]));
    staged.drop_those_of(&BTreeSet::from([PEER.0])).unwrap();

    assert_eq!(staged.gap(), Some(CHUNK_BYTES..2 * CHUNK_BYTES));
    fill(&mut staged, &bytes, SERVER);
    assert!(staged.is_as_signed().unwrap());
}

#[test]
fn more_than_there_may_be_and_links_are_not_taken_up() {
    let bytes = content(CHUNK / 2);
    let disk = Disk::for_(&bytes, false);
    fs::write(disk.path(), vec![0; CHUNK]).unwrap();
    assert_eq!(disk.open().gap(), Some(0..bytes.len() as u64));
    let outside = disk.dir.path().join("outside");
    fs::write(&outside, &bytes).unwrap();
    let link: fn(&Path, &Path) -> io::Result<()> = |from, to| std::os::unix::fs::symlink(from, to);
    let second_name: fn(&Path, &Path) -> io::Result<()> = |from, to| fs::hard_link(from, to);
    for plant in [link, second_name] {
        fs::remove_file(disk.path()).unwrap();
        plant(&outside, &disk.path()).unwrap();
        let mut staged = disk.open();
        staged.put(&[0; 10], SERVER).unwrap();
        assert_eq!(fs::read(&outside).unwrap(), bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever the list says after a crash, what is taken for complete is what was signed.
    #[test]
    fn a_damaged_list_never_makes_wrong_bytes_right(
        at in any::<prop::sample::Index>(), flip in 1_u8.., cut in any::<prop::sample::Index>(), is_chunked in any::<bool>(),
    ) {
        let bytes = content(2 * CHUNK + 10);
        let disk = Disk::for_(&bytes, is_chunked);
        let mut staged = disk.open();
        staged.put(&bytes[..2 * CHUNK], SERVER).unwrap();
        drop(staged);
        let list = list_path(&disk.path()).unwrap();
        let mut lines = fs::read(&list).unwrap();
        let at = at.index(lines.len());
        lines[at] ^= flip;
        lines.truncate(cut.index(lines.len() + 1));
        fs::write(&list, lines).unwrap();

        let mut staged = disk.open();
        fill(&mut staged, &bytes, SERVER);

        prop_assert!(staged.is_as_signed().unwrap());
        prop_assert_eq!(fs::read(disk.path()).unwrap(), bytes);
    }
}

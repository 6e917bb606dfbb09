//! What holds of the spool in every story of messages, receipts, restarts and power that goes, before a server that stores each number once.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::*;

const FRESH: SpoolId = SpoolId(7);

/// Small enough that stories fill it.
const BYTES_MAX: u64 = 200_000;

#[derive(Debug, Clone)]
enum Beat {
    Report,
    Profile {
        bytes: usize,
    },
    /// So many messages go to the server, which stores them; their receipt comes, or is lost on the way.
    Send {
        count: usize,
        is_heard: bool,
    },
    Restart,
    /// What was not synced is on disk up to some byte.
    PowerLoss {
        left: prop::sample::Index,
    },
}

fn beats() -> impl Strategy<Value = Beat> {
    prop_oneof![
        3 => Just(Beat::Report),
        3 => (1_usize..60_000).prop_map(|bytes| Beat::Profile { bytes }),
        2 => (1_usize..6, any::<bool>()).prop_map(|(count, is_heard)| Beat::Send { count, is_heard }),
        1 => Just(Beat::Restart),
        2 => any::<prop::sample::Index>().prop_map(|left| Beat::PowerLoss { left }),
    ]
}

/// A device's spool and its server.
struct Story {
    dir: tempfile::TempDir,
    spool: Spool,
    /// The number of the newest message, whatever it is: each message says its own.
    said: u32,
    /// Reports that were spooled, by what they say.
    owed: Vec<u32>,
    /// What the server has of each number, and up to which it has all that there will be.
    stored: BTreeMap<u64, Vec<u8>>,
    complete: u64,
    /// Bytes of the newest segment that are on disk for certain.
    synced: (PathBuf, u64),
}

impl Story {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), BYTES_MAX, FRESH).unwrap();
        let (owed, stored) = (Vec::new(), BTreeMap::new());
        let synced = (PathBuf::new(), 0);
        Self { dir, spool, said: 0, owed, stored, complete: 0, synced }
    }

    fn play(&mut self, beat: &Beat) {
        match beat {
            Beat::Report => {
                let body = self.body(40);
                self.spool.append(Up::Report, Keep::Always, body).unwrap();
                self.owed.push(self.said);
            }
            Beat::Profile { bytes } => {
                let body = self.body(*bytes);
                self.spool.append(Up::Profile, Keep::WhileThereIsRoom, body).unwrap();
            }
            Beat::Send { count, is_heard } => self.send(*count, *is_heard),
            Beat::Restart => self.open(),
            Beat::PowerLoss { left } => {
                self.cut(*left);
                self.open();
            }
        }
        self.note_what_is_synced();
    }

    fn body(&mut self, bytes: usize) -> Vec<u8> {
        self.said += 1;
        [&self.said.to_le_bytes()[..], &vec![0; bytes]].concat()
    }

    fn send(&mut self, count: usize, is_heard: bool) {
        for message in self.spool.after(0, count).unwrap() {
            let Envelope { sequence, lowest, body, .. } = message.envelope;
            // As the server does: numbers below `lowest` do not come any more, and one that it has, or has given up, is sent again.
            self.complete = self.complete.max(lowest - 1);
            let known = self.stored.get(&sequence);
            let is_new = sequence > self.complete && known.is_none();
            assert!(is_new || known == Some(&body), "number {sequence} was given twice");
            self.stored.insert(sequence, body);
            while self.stored.contains_key(&(self.complete + 1)) {
                self.complete += 1;
            }
        }
        if is_heard {
            let sequence = self.complete;
            self.spool.acknowledge(Ack { spool: FRESH, sequence }).unwrap();
        }
    }

    fn open(&mut self) {
        self.spool = Spool::open(self.dir.path(), BYTES_MAX, SpoolId(9)).unwrap();
    }

    fn newest(&self) -> Option<PathBuf> {
        let files = fs::read_dir(self.dir.path()).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|found| found == "segment")).max()
    }

    fn note_what_is_synced(&mut self) {
        let Some(path) = self.newest() else { return };
        let bytes = fs::metadata(&path).unwrap().len();
        let is_new = self.synced.0 != path;
        // A segment that became shorter was written anew, and synced.
        if self.spool.unsynced == 0 || (!is_new && bytes < self.synced.1) {
            self.synced = (path, bytes);
        } else if is_new {
            self.synced = (path, 0);
        }
    }

    fn cut(&self, left: prop::sample::Index) {
        let Some(path) = self.newest().filter(|path| *path == self.synced.0) else { return };
        let bytes = fs::read(&path).unwrap();
        let certain = usize::try_from(self.synced.1).unwrap();
        let left = certain + left.index(bytes.len() - certain + 1);
        fs::write(&path, &bytes[..left]).unwrap();
    }

    /// What reports say that the server has, or can still get.
    fn kept(&mut self) -> Vec<u32> {
        let held = self.spool.after(0, 10_000).unwrap();
        let held = held.into_iter().map(|message| message.envelope.body);
        let bodies = self.stored.values().cloned().chain(held);
        bodies.map(|body| u32::from_le_bytes(*body.first_chunk().unwrap())).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No report is lost before the server has it, by whatever restart, lost power or want of room; no number stands for two messages.
    #[test]
    fn every_report_reaches_the_server(story in prop::collection::vec(beats(), 1..60)) {
        let mut played = Story::new();
        for beat in &story {
            played.play(beat);
            // Looking syncs, which the story has not asked for.
            if played.spool.unsynced == 0 {
                let kept = played.kept();
                prop_assert!(played.owed.iter().all(|owed| kept.contains(owed)), "{:?} of {:?}", kept, played.owed);
            }
        }
        // A gap is announced once what lay before it has its receipt.
        (0..story.len()).for_each(|_| played.send(10_000, true));
        let stored: Vec<_> = played.stored.values().map(|body| u32::from_le_bytes(*body.first_chunk().unwrap())).collect();
        prop_assert!(stored.is_sorted(), "in the order in which it was said: {:?}", stored);
        prop_assert!(played.owed.iter().all(|owed| stored.contains(owed)));
        prop_assert_eq!(played.spool.len(), 0);
    }

    /// It holds no more than it may, but for what must not be lost; and on disk is what it says.
    #[test]
    fn what_may_be_lost_takes_no_more_room_than_there_is(story in prop::collection::vec(beats(), 1..60)) {
        let mut played = Story::new();
        for beat in &story {
            played.play(beat);
            let spool = &played.spool;
            let is_droppable = spool.segments.iter().any(Segment::is_droppable);
            prop_assert!(spool.bytes() <= BYTES_MAX || !is_droppable, "{} bytes", spool.bytes());
            let files = fs::read_dir(played.dir.path()).unwrap().map(Result::unwrap);
            let segments = files.filter(|file| file.path().extension().is_some_and(|found| found == "segment"));
            let on_disk: u64 = segments.map(|file| file.metadata().unwrap().len()).sum();
            prop_assert_eq!(on_disk, spool.bytes());
        }
    }

    /// A file cut off at any byte, synced or not, costs what lay behind: what lay before is there, in its order, and more can be said.
    #[test]
    fn a_torn_tail_costs_only_itself(sizes in prop::collection::vec(1_usize..2_000, 1..20), cut in any::<prop::sample::Index>()) {
        let mut played = Story::new();
        for bytes in &sizes {
            let body = played.body(*bytes);
            played.spool.append(Up::Report, Keep::Always, body).unwrap();
        }
        let path = played.newest().unwrap();
        let bytes = fs::read(&path).unwrap();
        let left = cut.index(bytes.len() + 1);
        let mut whole = 0;
        let mut rest = &bytes[..left];
        while let Some((_, after)) = crate::record::split(rest) {
            whole += 1;
            rest = after;
        }
        fs::write(&path, &bytes[..left]).unwrap();

        played.open();
        let body = played.body(1);
        played.spool.append(Up::Report, Keep::Always, body).unwrap();

        let expected: Vec<_> = (1..=whole).chain([u32::try_from(sizes.len()).unwrap() + 1]).collect();
        prop_assert_eq!(played.kept(), expected);
    }
}

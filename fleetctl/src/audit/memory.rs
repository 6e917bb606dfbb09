//! What this client saw of a log when it last looked: the checkpoint, and the hash of each row. 32 bytes a row, so that the first row
//! that differs can be named even where somebody has made the whole log anew.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use sealift_protocol::audit::AuditKey;
use sealift_protocol::digest::Digest;
use sealift_protocol::merkle::Tree;

use crate::client::Client;
use crate::context;
use crate::output::note;

const NOTE_FILE: &str = "checkpoint";
const LEAVES_FILE: &str = "leaves";

/// What was seen of one log.
#[derive(Debug)]
pub(crate) struct Memory {
    directory: PathBuf,
    leaves: Vec<Digest>,
}

impl Memory {
    /// Reads what is kept of the log of `key`; nothing the first time. Kept hashes that do not fit the kept checkpoint are an error.
    pub(crate) fn open(key: &AuditKey) -> anyhow::Result<Self> {
        Self::open_in(&context::directory()?.join("audit"), key)
    }

    fn open_in(base: &Path, key: &AuditKey) -> anyhow::Result<Self> {
        let directory = base.join(key.short().replace('/', "_"));
        let note_file = directory.join(NOTE_FILE);
        if !note_file.exists() {
            return Ok(Self { directory, leaves: Vec::new() });
        }
        let spoiled = || {
            let directory = directory.display();
            format!("what is remembered in {directory} is damaged; `rm -r` it to begin anew")
        };
        let note = fs::read_to_string(&note_file)?;
        let checkpoint = key.verify(&note).with_context(spoiled)?;
        let bytes = fs::read(directory.join(LEAVES_FILE))?;
        let (leaves, rest) = bytes.as_chunks::<32>();
        let leaves: Vec<_> = leaves.iter().copied().map(Digest::from_bytes).collect();
        let tree: Tree = leaves.iter().copied().collect();
        let is_whole = rest.is_empty() && tree.size() == checkpoint.size;
        ensure!(is_whole && tree.root() == checkpoint.root, spoiled());
        Ok(Self { directory, leaves })
    }

    /// How many rows were seen.
    pub(crate) fn size(&self) -> u64 {
        u64::try_from(self.leaves.len()).unwrap_or(u64::MAX)
    }

    /// Their hashes.
    pub(crate) fn leaves(&self) -> &[Digest] {
        &self.leaves
    }

    /// Remembers a log that was found as it was written. The hashes first: a checkpoint without them is found damaged, not believed.
    pub(crate) fn renew(&self, note: &str, leaves: &[Digest]) -> anyhow::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let bytes: Vec<u8> = leaves.iter().flat_map(|leaf| *leaf.as_bytes()).collect();
        replace(&self.directory.join(LEAVES_FILE), &bytes)?;
        replace(&self.directory.join(NOTE_FILE), note.as_bytes())
    }
}

fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let next = path.with_extension("new");
    let mut file =
        fs::File::create(&next).with_context(|| format!("cannot write {}", next.display()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(fs::rename(&next, path)?)
}

/// The key that is pinned for this server: the one given, else the one remembered, else the server's own word, remembered from then on.
pub(super) fn pinned(
    client: &Client,
    given: Option<AuditKey>,
    offered: &str,
) -> anyhow::Result<AuditKey> {
    let host = client.base().host_str().unwrap_or("server");
    let port = client.base().port_or_known_default().unwrap_or_default();
    let directory = context::directory()?.join("audit");
    let file = directory.join(format!("{host}-{port}.key"));
    let key = match given {
        Some(key) => key,
        None if file.exists() => {
            let text = fs::read_to_string(&file)?;
            return text.parse().with_context(|| format!("cannot read {}", file.display()));
        }
        None => {
            note(&format!("trusting the log's audit key on first use: {offered}"));
            offered.parse()?
        }
    };
    fs::create_dir_all(&directory)?;
    replace(&file, key.to_string().as_bytes())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use sealift_protocol::audit::Checkpoint;

    use super::*;

    #[test]
    fn what_was_seen_is_remembered_and_damage_to_it_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let signing = SigningKey::from_bytes(&[1; 32]);
        let key = AuditKey::new("sealift/main", signing.verifying_key());
        let leaves = [Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")];
        let tree: Tree = leaves.into_iter().collect();
        let note = Checkpoint { size: 3, root: tree.root() }.sign("sealift/main", &signing);

        let memory = Memory::open_in(folder.path(), &key).unwrap();
        assert_eq!(memory.size(), 0);
        memory.renew(&note, &leaves).unwrap();
        assert_eq!(Memory::open_in(folder.path(), &key).unwrap().leaves(), leaves);

        let file = memory.directory.join(LEAVES_FILE);
        let mut bytes = fs::read(&file).unwrap();
        bytes[40] ^= 1;
        fs::write(&file, bytes).unwrap();
        let damaged = Memory::open_in(folder.path(), &key).unwrap_err();
        assert!(damaged.to_string().contains("is damaged"), "{damaged}");
    }
}

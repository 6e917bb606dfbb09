//! The audit log as somebody else can check it: which bytes of a row are hashed, and the signed checkpoint over all of them.
//!
//! A checkpoint is a signed note of the C2SP: text that a person can read, and that other tools and witnesses understand.
//!
//! ```text
//! sealift/main                    the log
//! 1042                            how many rows it has
//! qVeO…=                          the root of the Merkle tree over them, base64
//!
//! — sealift/main Az3f…=           4 bytes that name the key, 64 bytes of Ed25519, base64
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::api::AuditEntry;
use crate::digest::{Digest, Hasher, decode_hex, encode_hex};
use crate::merkle;

/// What the bytes of a row begin with; another way to write rows gets another name.
const ROW_FORM: &[u8] = b"sealift-audit-row-v1";
/// C2SP signed-note: the type of an Ed25519 key.
const ED25519: u8 = 1;
/// A note has a few lines; witnesses may add theirs.
pub const NOTE_BYTES_MAX: usize = 8 << 10;
/// Signatures on a note that are looked at.
const SIGNATURES_MAX: usize = 16;

/// Why a checkpoint or its key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCheckpoint {
    /// Not the text of a key.
    #[error("an audit key is `name+hash+base64`")]
    Key,
    /// Not a note, or not of a checkpoint.
    #[error("checkpoint has {0}")]
    Form(&'static str),
    /// Of another log.
    #[error("checkpoint is of log `{0}`")]
    Origin(String),
    /// Not signed with the pinned key.
    #[error("checkpoint is not signed with audit key {0}")]
    Unsigned(String),
    /// Signed in the pinned key's name, and not by it.
    #[error("the signature of the checkpoint does not match audit key {0}")]
    Signature(String),
}

/// The hash of a row, over every field with its length before it, so that no two rows have the same bytes.
pub fn leaf(row: &AuditEntry) -> Digest {
    leaf_at(row, row.sequence)
}

/// The hash that a row would have under another number.
pub fn leaf_at(row: &AuditEntry, sequence: u64) -> Digest {
    let mut bytes = ROW_FORM.to_vec();
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(row.at.0.to_be_bytes());
    bytes.push(u8::from(row.reason.is_some()));
    let reason = row.reason.as_deref().unwrap_or_default();
    for text in [&row.actor, &row.action, &row.subject, reason, &row.detail] {
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        bytes.extend(length.to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    merkle::leaf_hash(&bytes)
}

/// What a log has said of itself: this many rows, under this root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// How many rows.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
}

/// The name of a tenant's log.
pub fn log_name(tenant: &str) -> String {
    format!("sealift/{tenant}")
}

/// The public half of an audit key with the name of its log, as people pin it: `sealift/main+1f2e3d4c+AQ…=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditKey {
    name: String,
    key: VerifyingKey,
}

impl AuditKey {
    /// The key of the log with this name.
    pub fn new(name: &str, key: VerifyingKey) -> Self {
        Self { name: name.to_owned(), key }
    }

    /// The log's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// C2SP signed-note, "Signatures": the first four bytes of the SHA-256 over name, line feed, type and key.
    fn id(&self) -> [u8; 4] {
        let mut hasher = Hasher::default();
        hasher.update(self.name.as_bytes());
        hasher.update(&[b'\n', ED25519]);
        hasher.update(self.key.as_bytes());
        let [a, b, c, d, ..] = *hasher.finish().as_bytes();
        [a, b, c, d]
    }

    /// What tells keys apart: name and hash, without the key.
    pub fn short(&self) -> String {
        format!("{}+{}", self.name, encode_hex(&self.id()))
    }

    /// Checks a note and reads the checkpoint in it.
    pub fn verify(&self, note: &str) -> Result<Checkpoint, InvalidCheckpoint> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(InvalidCheckpoint::Form("more bytes than a note may have"));
        }
        // C2SP signed-note, "Format": text that ends with a line feed, an empty line, then signature lines.
        let end = note.rfind("\n\n").ok_or(InvalidCheckpoint::Form("no empty line"))? + 1;
        let (text, signatures) = note.split_at(end);
        self.check_signature(text, signatures)?;
        let checkpoint = parse(text)?;
        if checkpoint.0 == self.name {
            Ok(checkpoint.1)
        } else {
            Err(InvalidCheckpoint::Origin(checkpoint.0))
        }
    }

    /// C2SP signed-note, "Signatures": signatures of unknown keys are passed over, a false one of a known key spoils the note.
    fn check_signature(&self, text: &str, signatures: &str) -> Result<(), InvalidCheckpoint> {
        let prefix = format!("— {} ", self.name);
        let lines = signatures.lines().filter_map(|line| line.strip_prefix(&prefix));
        for line in lines.take(SIGNATURES_MAX) {
            let bytes = STANDARD.decode(line);
            let bytes = bytes.map_err(|_| InvalidCheckpoint::Form("a signature not in base64"))?;
            let Some((id, signature)) = bytes.split_first_chunk::<4>() else {
                return Err(InvalidCheckpoint::Form("a signature that is too short"));
            };
            if *id != self.id() {
                continue;
            }
            let refused = |_| InvalidCheckpoint::Signature(self.short());
            let signature = Signature::from_slice(signature).map_err(refused)?;
            // Strict: refuses the malleable forms and the weak keys that RFC 8032 leaves open.
            return self.key.verify_strict(text.as_bytes(), &signature).map_err(refused);
        }
        Err(InvalidCheckpoint::Unsigned(self.short()))
    }
}

impl fmt::Display for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ED25519], &self.key.as_bytes()[..]].concat());
        write!(f, "{}+{key}", self.short())
    }
}

impl FromStr for AuditKey {
    type Err = InvalidCheckpoint;

    fn from_str(text: &str) -> Result<Self, InvalidCheckpoint> {
        let refused = || InvalidCheckpoint::Key;
        let mut parts = text.trim().splitn(3, '+');
        let (name, id, key) = (parts.next(), parts.next(), parts.next());
        let name = name.filter(|name| !name.is_empty() && !name.contains(char::is_whitespace));
        let bytes = key.and_then(|key| STANDARD.decode(key).ok()).ok_or_else(refused)?;
        let Some((&ED25519, bytes)) = bytes.split_first() else { return Err(refused()) };
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| refused())?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| refused())?;
        if key.is_weak() {
            return Err(refused());
        }
        let key = Self::new(name.ok_or_else(refused)?, key);
        let is_whole = id.and_then(decode_hex).is_some_and(|id| id == key.id());
        if is_whole { Ok(key) } else { Err(refused()) }
    }
}

/// C2SP tlog-checkpoint, "Note text": origin, size in decimal without leading zeroes, root in base64. Nothing else is ours.
fn parse(text: &str) -> Result<(String, Checkpoint), InvalidCheckpoint> {
    let mut lines = text.lines();
    let (Some(origin), Some(size), Some(root), None) =
        (lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return Err(InvalidCheckpoint::Form("not three lines"));
    };
    let number: u64 = size.parse().map_err(|_| InvalidCheckpoint::Form("no size"))?;
    if number.to_string() != size {
        return Err(InvalidCheckpoint::Form("a size in a second spelling"));
    }
    let root = STANDARD.decode(root).ok().and_then(|root| root.try_into().ok());
    let root = root.ok_or(InvalidCheckpoint::Form("no root"))?;
    Ok((origin.to_owned(), Checkpoint { size: number, root: Digest::from_bytes(root) }))
}

impl Checkpoint {
    /// The signed note about the log with this name.
    pub fn sign(&self, name: &str, key: &SigningKey) -> String {
        let root = STANDARD.encode(self.root.as_bytes());
        let text = format!("{name}\n{}\n{root}\n", self.size);
        let id = AuditKey::new(name, key.verifying_key()).id();
        let signature = key.sign(text.as_bytes()).to_bytes();
        let signature = STANDARD.encode([&id[..], &signature[..]].concat());
        format!("{text}\n— {name} {signature}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::UnixMillis;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn public(seed: u8) -> AuditKey {
        AuditKey::new("sealift/main", key(seed).verifying_key())
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { size: 1_042, root: Digest::of(b"root") }
    }

    fn row() -> AuditEntry {
        AuditEntry {
            sequence: 7,
            at: UnixMillis(1),
            actor: "ann".to_owned(),
            action: "rollback".to_owned(),
            subject: "r-1".to_owned(),
            reason: None,
            detail: String::new(),
            hash: String::new(),
        }
    }

    #[test]
    fn a_checkpoint_comes_back_with_its_key_alone() {
        let note = checkpoint().sign("sealift/main", &key(1));
        assert_eq!(public(1).verify(&note), Ok(checkpoint()));
        assert_eq!(public(2).verify(&note), Err(InvalidCheckpoint::Unsigned(public(2).short())));
        let other = AuditKey::new("sealift/other", key(1).verifying_key());
        assert!(other.verify(&note).is_err());
    }

    #[test]
    fn every_flipped_bit_of_a_note_is_refused() {
        let note = checkpoint().sign("sealift/main", &key(1)).into_bytes();
        for bit in 0..note.len() * 8 {
            let mut flipped = note.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(text) = String::from_utf8(flipped) else { continue };
            // The last line feed may be another character: it is outside of what is signed.
            if public(1).verify(&text).is_ok() {
                assert_eq!(text.trim_end(), String::from_utf8_lossy(&note).trim_end(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_witness_may_sign_too() {
        let note = checkpoint().sign("sealift/main", &key(1));
        let witness = checkpoint().sign("witness.example", &key(2));
        let line = witness.lines().last().unwrap();
        let both = format!("{note}{line}\n");
        assert_eq!(public(1).verify(&both), Ok(checkpoint()));
    }

    #[test]
    fn a_key_has_one_spelling_that_names_itself() {
        let text = public(1).to_string();
        assert_eq!(text.parse::<AuditKey>(), Ok(public(1)));
        let other = text.replace("sealift/main", "sealift/mein");
        assert_eq!(other.parse::<AuditKey>(), Err(InvalidCheckpoint::Key));
        assert_eq!("sealift/main".parse::<AuditKey>(), Err(InvalidCheckpoint::Key));
    }

    #[test]
    fn every_field_of_a_row_is_hashed_and_texts_do_not_run_together() {
        let mut rows = vec![row(); 8];
        rows[1].sequence = 8;
        rows[2].at = UnixMillis(2);
        rows[3].actor = "annr".to_owned();
        rows[3].action = "ollback".to_owned();
        rows[4].subject = "r-2".to_owned();
        rows[5].reason = Some(String::new());
        rows[6].detail = "x".to_owned();
        rows[7].reason = Some("x".to_owned());
        let hashes: std::collections::BTreeSet<_> = rows.iter().map(leaf).collect();
        assert_eq!(hashes.len(), rows.len());
    }
}

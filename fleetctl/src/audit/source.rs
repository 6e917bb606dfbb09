//! Where rows and checkpoints come from: a fleet server, page by page, or a file that was exported, line by line.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use sealift_protocol::api::{AuditCheckpoint, AuditEntry, AuditKeyView, Page};
use sealift_protocol::audit::AuditKey;
use sealift_protocol::digest::Digest;
use serde::{Deserialize, Serialize};

use super::memory;
use crate::client::Client;
use crate::output::note;

/// The server's own limit of a page.
const PAGE: &str = "1000";
/// A row has texts of a few hundred characters.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// One line of an exported file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Line {
    /// The first: whose log it is.
    Key(String),
    /// A row.
    Row(AuditEntry),
    /// A checkpoint over all rows before it, and the proof that the checkpoint before is of the same log.
    Checkpoint {
        /// The checkpoint.
        checkpoint: AuditCheckpoint,
        /// Roots of subtrees, by RFC 9162, section 2.1.4.
        consistency: Vec<Digest>,
    },
}

/// Rows in their order, and the checkpoints over them.
pub(crate) struct Source<'a> {
    from: From<'a>,
    rows: VecDeque<AuditEntry>,
    /// The last row that was fetched.
    fetched: u64,
    /// Notes by the rows that they cover.
    notes: BTreeMap<u64, String>,
    newest: Option<String>,
}

enum From<'a> {
    Server(&'a Client),
    File(BufReader<File>),
}

impl<'a> Source<'a> {
    /// The log of a server, and the key that is pinned for it.
    pub(crate) async fn server(
        client: &'a Client,
        key: Option<AuditKey>,
    ) -> anyhow::Result<(Self, AuditKey)> {
        let offered: AuditKeyView = client.get("audit/key", &[]).await?;
        let key = memory::pinned(client, key, &offered.key)?;
        let checkpoints: Vec<AuditCheckpoint> = client.list("audit/checkpoints", &[]).await?;
        let notes = checkpoints.into_iter().map(|each| (each.size, each.note)).collect();
        Ok((Self::of(From::Server(client), notes), key))
    }

    /// A file that was exported, and the key to check it with: the one given, else the one that it names itself.
    pub(crate) fn file(
        path: &Path,
        key: Option<AuditKey>,
    ) -> anyhow::Result<(Source<'static>, AuditKey)> {
        let open = || File::open(path).with_context(|| format!("cannot read {}", path.display()));
        let mut reader = BufReader::new(open()?);
        let Some(Line::Key(own)) = read_line(&mut reader)? else {
            anyhow::bail!("{} does not begin with the key of a log", path.display());
        };
        let key = if let Some(key) = key {
            key
        } else {
            note(&format!("trusting the key that the file itself names: {own}"));
            own.parse()?
        };
        let mut notes = BTreeMap::new();
        while let Some(line) = read_line(&mut reader)? {
            if let Line::Checkpoint { checkpoint, .. } = line {
                notes.insert(checkpoint.size, checkpoint.note);
            }
        }
        let mut reader = BufReader::new(open()?);
        read_line(&mut reader)?;
        Ok((Source::of(From::File(reader), notes), key))
    }

    const fn of(from: From<'a>, notes: BTreeMap<u64, String>) -> Self {
        Self { from, rows: VecDeque::new(), fetched: 0, notes, newest: None }
    }

    /// The next row; none at the end.
    pub(super) async fn next_row(&mut self) -> anyhow::Result<Option<AuditEntry>> {
        if let Some(row) = self.rows.pop_front() {
            return Ok(Some(row));
        }
        match &mut self.from {
            From::File(reader) => loop {
                match read_line(reader)? {
                    Some(Line::Row(row)) => return Ok(Some(row)),
                    Some(Line::Key(_) | Line::Checkpoint { .. }) => (),
                    None => return Ok(None),
                }
            },
            From::Server(client) => {
                let cursor = self.fetched.to_string();
                let page: Page<AuditEntry> =
                    client.get("audit/rows", &[("cursor", &cursor), ("limit", PAGE)]).await?;
                let last = page.items.last().map_or(self.fetched, |row| row.sequence);
                let is_forward = page.items.is_empty() || last > self.fetched;
                ensure!(is_forward, "the server repeats rows of the audit log before {last}");
                self.fetched = last;
                self.rows = page.items.into();
                Ok(self.rows.pop_front())
            }
        }
    }

    /// The notes over exactly so many rows.
    pub(super) fn notes_at(&self, size: u64) -> Option<&str> {
        self.notes.get(&size).map(String::as_str)
    }

    /// How many rows the longest log had that somebody signed.
    pub(super) fn longest(&self) -> u64 {
        self.notes.last_key_value().map_or(0, |(size, _)| *size)
    }

    /// The note that covers everything: signed now, or the last one of the file.
    pub(super) async fn last_note(&mut self) -> anyhow::Result<String> {
        let note = match &self.from {
            From::Server(client) => {
                let checkpoint: AuditCheckpoint = client.get("audit/checkpoint", &[]).await?;
                checkpoint.note
            }
            From::File(_) => {
                let last = self.notes.last_key_value();
                last.map(|(_, note)| note.clone()).context("the file has no checkpoint")?
            }
        };
        self.newest = Some(note.clone());
        Ok(note)
    }

    /// The note that [`Self::last_note`] gave.
    pub(super) fn newest_note(&self) -> Option<&str> {
        self.newest.as_deref()
    }
}

/// The next line; none at the end. A last line that was not written to its end counts as none.
pub(super) fn read_line(reader: &mut BufReader<File>) -> anyhow::Result<Option<Line>> {
    let mut text = String::new();
    let bytes = reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut text)?;
    if bytes == 0 || !text.ends_with('\n') {
        let is_whole = u64::try_from(bytes).unwrap_or(u64::MAX) < LINE_BYTES_MAX;
        ensure!(is_whole, "a line of the file is longer than {LINE_BYTES_MAX} bytes");
        return Ok(None);
    }
    let line = serde_json::from_str(&text);
    Ok(Some(line.with_context(|| format!("not a line of an exported audit log: {}", text.trim()))?))
}

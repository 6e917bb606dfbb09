//! The log as JSON Lines: key, rows, checkpoints with their proofs. A file that was not written to its end is continued.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use sealift_protocol::api::{AuditCheckpoint, AuditEntry, AuditProof, Page};
use sealift_protocol::audit::AuditKey;
use sealift_protocol::merkle::verify_consistency;
use serde::Serialize;

use super::source::{Line, read_line};
use crate::client::Client;

/// The server's own limit of a page.
const PAGE: u64 = 1_000;

/// What was written.
#[derive(Debug, Serialize)]
pub(crate) struct Exported {
    /// Rows in the file.
    pub(crate) rows: u64,
    /// Rows that were added now.
    pub(crate) added: u64,
}

/// What is in the file already.
struct Begun {
    rows: u64,
    last: Option<AuditCheckpoint>,
    /// The end of the last whole line.
    end: u64,
}

/// Writes what the file does not have yet, up to a checkpoint of now.
pub(crate) async fn export(
    client: &Client,
    key: &AuditKey,
    path: &Path,
) -> anyhow::Result<Exported> {
    let file = OpenOptions::new().read(true).append(true).create(true).open(path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    let begun = Begun::read(&file, key).with_context(|| format!("{}", path.display()))?;
    file.set_len(begun.end)?;
    let mut writer = BufWriter::new(&file);
    if begun.end == 0 {
        write_line(&mut writer, &Line::Key(key.to_string()))?;
    }
    let checkpoint: AuditCheckpoint = client.get("audit/checkpoint", &[]).await?;
    let consistency = prove(client, key, begun.last.as_ref(), &checkpoint).await?;
    let added = write_rows(client, begun.rows, checkpoint.size, &mut writer).await?;
    let rows = begun.rows + added;
    if begun.last.is_none_or(|last| last.size < checkpoint.size) {
        write_line(&mut writer, &Line::Checkpoint { checkpoint, consistency })?;
    }
    writer.flush()?;
    drop(writer);
    file.sync_all()?;
    Ok(Exported { rows, added })
}

impl Begun {
    fn read(file: &File, key: &AuditKey) -> anyhow::Result<Self> {
        let mut begun = Self { rows: 0, last: None, end: 0 };
        let mut reader = BufReader::new(file.try_clone()?);
        reader.seek(SeekFrom::Start(0))?;
        while let Some(line) = read_line(&mut reader)? {
            match line {
                Line::Key(own) => {
                    let is_own = begun.end == 0 && own == key.to_string();
                    ensure!(is_own, "the file is of another log, with key {own}");
                }
                Line::Row(row) => {
                    let expected = begun.rows + 1;
                    ensure!(row.sequence == expected, "the file lacks row {expected}");
                    begun.rows = expected;
                }
                Line::Checkpoint { checkpoint, .. } => begun.last = Some(checkpoint),
            }
            begun.end = reader.stream_position()?;
        }
        Ok(begun)
    }
}

/// The proof that the log still begins with what the file has.
async fn prove(
    client: &Client,
    key: &AuditKey,
    before: Option<&AuditCheckpoint>,
    after: &AuditCheckpoint,
) -> anyhow::Result<Vec<sealift_protocol::digest::Digest>> {
    let new = key.verify(&after.note)?;
    let Some(before) = before else { return Ok(Vec::new()) };
    let old = key.verify(&before.note)?;
    let (from, to) = (old.size.to_string(), new.size.to_string());
    let proof: AuditProof =
        client.get("audit/proof/consistency", &[("from", &from), ("to", &to)]).await?;
    verify_consistency((old.size, &old.root), (new.size, &new.root), &proof.hashes)
        .context("the log of the server does not continue the one in the file")?;
    Ok(proof.hashes)
}

async fn write_rows(
    client: &Client,
    after: u64,
    until: u64,
    writer: &mut impl std::io::Write,
) -> anyhow::Result<u64> {
    let mut last = after;
    while last < until {
        let (cursor, limit) = (last.to_string(), PAGE.min(until - last).to_string());
        let page: Page<AuditEntry> =
            client.get("audit/rows", &[("cursor", &cursor), ("limit", &limit)]).await?;
        ensure!(!page.items.is_empty(), "the server has no row {} of the audit log", last + 1);
        for row in page.items {
            let expected = last + 1;
            ensure!(row.sequence == expected, "the server has no row {expected} of the audit log");
            last = expected;
            write_line(writer, &Line::Row(row))?;
        }
    }
    Ok(last.saturating_sub(after))
}

fn write_line(writer: &mut impl std::io::Write, line: &Line) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *writer, line)?;
    Ok(writer.write_all(b"\n")?)
}

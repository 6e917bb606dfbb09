//! The audit log: rows are only ever added, each a leaf of a Merkle tree.
//!
//! ```text
//! Change::audit ──▶ deeds ──commit──▶ lock the head ──▶ number, hash, insert ──▶ new head, complete tiles
//!                                     one writer of a tenant at a time, in whichever server
//! ```

use super::many::{self, values};
use super::{Change, StoreError, corrupt, signed, unsigned};
use crate::audit::Deed;
use sealift_protocol::api::AuditEntry;
use sealift_protocol::audit;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::merkle::Tree;

mod adopt;
mod check;
mod read;

pub(crate) use read::{AuditFilter, DIRECTIVE, StoredCheckpoint};

/// Rows of a complete subtree whose root is kept: a proof over ten million rows reads ten thousand hashes.
const TILE: u64 = 1_024;

/// Rows that one change keeps in memory; a change with more writes them in parts.
const DEEDS_MAX: usize = 4_096;

/// The columns of a row, as [`Row`] reads them.
const COLUMNS: &str = "sequence, at, actor, action, subject, reason, detail, hash";

#[derive(sqlx::FromRow)]
struct Row {
    sequence: i64,
    at: i64,
    actor: String,
    action: String,
    subject: String,
    reason: Option<String>,
    detail: String,
    hash: String,
}

impl Change {
    /// Writes down who did what to what, and why. Part of the same change as the deed: neither is without the other.
    pub(crate) async fn audit(
        &mut self,
        deed: &Deed<'_>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        if self.deeds.len() >= DEEDS_MAX {
            self.write_deeds().await?;
        }
        self.deeds.push(deed.entry(now));
        Ok(())
    }

    /// Appends the rows of this change to the log.
    pub(super) async fn write_deeds(&mut self) -> Result<(), StoreError> {
        let Some(first) = self.deeds.first() else { return Ok(()) };
        let mut tree = self.lock_log(first.at).await?;
        let before = tree.size();
        let mut tile = begun_tile(&tree)?;
        let mut rows = std::mem::take(&mut self.deeds);
        for row in &mut rows {
            row.sequence = tree.size() + 1;
            let leaf = audit::leaf(row);
            row.hash = leaf.hex();
            tree.append(leaf);
            tile.append(leaf);
            if tile.size() == TILE {
                self.write_tile(tree.size() / TILE - 1, tile.root()).await?;
                tile = Tree::default();
            }
        }
        for part in rows.chunks(many::rows(8)) {
            self.insert(part).await?;
        }
        self.set_head(before, &tree).await
    }

    /// Takes the log's head, and keeps every other writer waiting until the end of this change.
    async fn lock_log(&mut self, now: UnixMillis) -> Result<Tree, StoreError> {
        let (size, peaks): (i64, String) = sqlx::query_as(
            "INSERT INTO audit_heads (tenant, size, peaks) VALUES ($1, 0, '')
             ON CONFLICT (tenant) DO UPDATE SET size = audit_heads.size RETURNING size, peaks",
        )
        .bind(self.tenant().to_string())
        .fetch_one(self.connection())
        .await?;
        let tree = tree(size, &peaks)?;
        if tree.size() > 0 { Ok(tree) } else { self.adopt_old_rows(now).await }
    }

    async fn set_head(&mut self, before: u64, tree: &Tree) -> Result<(), StoreError> {
        let (before, size) = (signed("audit log", before)?, signed("audit log", tree.size())?);
        let peaks: Vec<_> = tree.peaks().iter().map(Digest::hex).collect();
        let peaks = peaks.join(" ");
        let swapped = self
            .run(
                "UPDATE audit_heads SET size = $3, peaks = $4 WHERE tenant = $1 AND size = $2",
                |it| it.bind(before).bind(size).bind(peaks),
            )
            .await?;
        if swapped == 1 { Ok(()) } else { Err(StoreError::Changed("the audit log")) }
    }

    async fn write_tile(&mut self, number: u64, root: Digest) -> Result<(), StoreError> {
        let (number, hash) = (signed("audit tile", number)?, root.hex());
        let statement = "INSERT INTO audit_tiles (tenant, number, hash) VALUES ($1, $2, $3)";
        self.run(statement, |it| it.bind(number).bind(hash)).await?;
        Ok(())
    }

    async fn insert(&mut self, rows: &[AuditEntry]) -> Result<(), StoreError> {
        let text =
            format!("INSERT INTO audit (tenant, {COLUMNS}) VALUES {}", values(rows.len(), 8));
        let mut statement = self.statement(text);
        for row in rows {
            let AuditEntry { sequence, at, actor, action, subject, reason, detail, hash } =
                row.clone();
            statement = statement.bind(signed("audit row", sequence)?).bind(at.0).bind(actor);
            statement = statement.bind(action).bind(subject).bind(reason).bind(detail).bind(hash);
        }
        statement.execute(self.connection()).await?;
        Ok(())
    }
}

/// The tile that is not complete yet: its peaks are the last ones of the whole tree.
fn begun_tile(tree: &Tree) -> Result<Tree, StoreError> {
    let size = tree.size() % TILE;
    let (peaks, count) = (tree.peaks(), size.count_ones());
    let first = peaks.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
    let own = peaks.get(first..).unwrap_or_default().to_vec();
    Tree::of(size, own).ok_or_else(|| corrupt("audit head", "its tile"))
}

/// The tree as it was kept.
fn tree(size: i64, peaks: &str) -> Result<Tree, StoreError> {
    let size = unsigned("audit log", size)?;
    let hashes: Result<Vec<_>, _> = peaks.split_whitespace().map(hash).collect();
    Tree::of(size, hashes?).ok_or_else(|| corrupt("audit head", peaks))
}

fn hash(text: &str) -> Result<Digest, StoreError> {
    Digest::from_hex(text).map_err(|_| corrupt("audit hash", text))
}

fn entry(row: Row) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        sequence: unsigned("audit row", row.sequence)?,
        at: UnixMillis(row.at),
        actor: row.actor,
        action: row.action,
        subject: row.subject,
        reason: row.reason,
        detail: row.detail,
        hash: row.hash,
    })
}

impl Deed<'_> {
    fn entry(&self, at: UnixMillis) -> AuditEntry {
        AuditEntry {
            sequence: 0, // given at the commit
            at,
            actor: self.actor.to_owned(),
            action: self.action.to_owned(),
            subject: self.subject.to_owned(),
            reason: self.reason.filter(|reason| !reason.is_empty()).map(str::to_owned),
            detail: self.detail.to_owned(),
            hash: String::new(),
        }
    }
}

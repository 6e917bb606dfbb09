//! The audit log as it is read: pages for people, rows and checkpoints for whoever checks, hashes for proofs.

use std::ops::Range;

use sealift_protocol::api::AuditEntry;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::merkle::{self, InvalidProof, Tree};
use sqlx::AssertSqlSafe;

use super::{COLUMNS, Row, TILE, entry, hash, tree};
use crate::store::{Change, StoreError, TenantStore, signed, unsigned};

/// Which rows are wanted; an empty text stands for all.
#[derive(Debug, Clone, Default)]
pub(crate) struct AuditFilter {
    /// Who.
    pub(crate) actor: String,
    /// What.
    pub(crate) action: String,
    /// To what.
    pub(crate) subject: String,
    /// Not before.
    pub(crate) from: Option<UnixMillis>,
    /// Before.
    pub(crate) until: Option<UnixMillis>,
    /// Whether rows of single directives are wanted too; naming the action or the device of one wants them as well.
    pub(crate) with_directives: bool,
}

/// A signed note over the log as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredCheckpoint {
    /// How many rows it covers.
    pub(crate) size: u64,
    /// When it was signed.
    pub(crate) at: UnixMillis,
    /// The note.
    pub(crate) note: String,
}

/// The action of a directive's row; the migration's indexes name it too.
pub(crate) const DIRECTIVE: &str = "directive";

impl AuditFilter {
    /// The condition, and the texts that it binds from `$2` on.
    fn condition(&self) -> (String, Vec<&str>) {
        let (mut text, mut values) = ("tenant = $1".to_owned(), Vec::new());
        for (column, value) in
            [("actor", &self.actor), ("action", &self.action), ("subject", &self.subject)]
        {
            if !value.is_empty() {
                values.push(value.as_str());
                text = format!("{text} AND {column} = ${}", values.len() + 1);
            }
        }
        if !self.with_directives && self.action != DIRECTIVE {
            text = format!("{text} AND action <> '{DIRECTIVE}'");
        }
        for (sign, moment) in [(">=", self.from), ("<", self.until)] {
            if let Some(moment) = moment {
                text = format!("{text} AND at {sign} {}", moment.0);
            }
        }
        (text, values)
    }
}

impl TenantStore {
    /// A page of the audit log, newest first, of rows numbered below `before`.
    pub(crate) async fn audit_log(
        &self,
        filter: &AuditFilter,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let (condition, values) = filter.condition();
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let text = format!(
            "SELECT {COLUMNS} FROM audit WHERE {condition} AND sequence < {before}
             ORDER BY sequence DESC LIMIT {limit}"
        );
        let mut query = sqlx::query_as(AssertSqlSafe(text)).bind(self.id().to_owned());
        for value in values {
            query = query.bind(value.to_owned());
        }
        let rows: Vec<Row> = query.fetch_all(self.readers()).await?;
        rows.into_iter().map(entry).collect()
    }

    /// How many rows of the audit log are wanted.
    pub(crate) async fn audit_count(&self, filter: &AuditFilter) -> Result<u64, StoreError> {
        let (condition, values) = filter.condition();
        let text = format!("SELECT COUNT(*) FROM audit WHERE {condition}");
        let mut query = sqlx::query_scalar(AssertSqlSafe(text)).bind(self.id().to_owned());
        for value in values {
            query = query.bind(value.to_owned());
        }
        unsigned("count", query.fetch_one(self.readers()).await?)
    }

    /// Rows in the order of the log, after row `after`.
    pub(crate) async fn audit_rows(
        &self,
        after: u64,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let text = format!(
            "SELECT {COLUMNS} FROM audit WHERE tenant = $1 AND sequence > $2
             ORDER BY sequence LIMIT $3"
        );
        let query = sqlx::query_as(AssertSqlSafe(text)).bind(self.id().to_owned());
        let query = query.bind(signed("audit row", after)?).bind(i64::from(limit));
        let rows: Vec<Row> = query.fetch_all(self.readers()).await?;
        rows.into_iter().map(entry).collect()
    }

    /// The log's tree as it is now.
    pub(crate) async fn audit_head(&self) -> Result<Tree, StoreError> {
        let head: Option<(i64, String)> =
            sqlx::query_as("SELECT size, peaks FROM audit_heads WHERE tenant = $1")
                .bind(self.id().to_owned())
                .fetch_optional(self.readers())
                .await?;
        head.map_or_else(|| Ok(Tree::default()), |(size, peaks)| tree(size, &peaks))
    }

    /// Checkpoints that cover more than `after` rows, in their order.
    pub(crate) async fn audit_checkpoints(
        &self,
        after: u64,
        limit: u32,
    ) -> Result<Vec<StoredCheckpoint>, StoreError> {
        let rows: Vec<(i64, i64, String)> = sqlx::query_as(
            "SELECT size, at, note FROM audit_checkpoints WHERE tenant = $1 AND size > $2
             ORDER BY size LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(signed("audit row", after)?)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(checkpoint).collect()
    }

    /// How many checkpoints there are.
    pub(crate) async fn count_audit_checkpoints(&self) -> Result<u64, StoreError> {
        let count: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM audit_checkpoints WHERE tenant = $1")
                .bind(self.id().to_owned())
                .fetch_one(self.readers())
                .await?;
        unsigned("count", count)
    }

    /// The checkpoint over exactly so many rows.
    pub(crate) async fn audit_checkpoint(
        &self,
        size: u64,
    ) -> Result<Option<StoredCheckpoint>, StoreError> {
        let row: Option<(i64, i64, String)> = sqlx::query_as(
            "SELECT size, at, note FROM audit_checkpoints WHERE tenant = $1 AND size = $2",
        )
        .bind(self.id().to_owned())
        .bind(signed("audit row", size)?)
        .fetch_optional(self.readers())
        .await?;
        row.map(checkpoint).transpose()
    }

    /// The hashes that prove that row `sequence` is in the log of `size` rows; none where it is not.
    pub(crate) async fn audit_inclusion(
        &self,
        sequence: u64,
        size: u64,
    ) -> Result<Result<Vec<Digest>, InvalidProof>, StoreError> {
        let Some(index) = sequence.checked_sub(1) else { return Ok(Err(InvalidProof::Range)) };
        self.roots(merkle::inclusion_subtrees(index, size), size).await
    }

    /// The hashes that prove that the log of `new` rows begins with the log of `old` rows; none where it cannot.
    pub(crate) async fn audit_consistency(
        &self,
        old: u64,
        new: u64,
    ) -> Result<Result<Vec<Digest>, InvalidProof>, StoreError> {
        self.roots(merkle::consistency_subtrees(old, new), new).await
    }

    async fn roots(
        &self,
        subtrees: Result<Vec<Range<u64>>, InvalidProof>,
        size: u64,
    ) -> Result<Result<Vec<Digest>, InvalidProof>, StoreError> {
        let subtrees = match subtrees {
            Ok(subtrees) if size <= self.audit_head().await?.size() => subtrees,
            Ok(_) => return Ok(Err(InvalidProof::Range)),
            Err(error) => return Ok(Err(error)),
        };
        let mut roots = Vec::with_capacity(subtrees.len());
        for subtree in subtrees {
            roots.push(self.subtree_root(subtree).await?);
        }
        Ok(Ok(roots))
    }

    /// The root of a subtree of whole tiles and what is left of the last one. A tile is a subtree: its root stands for its rows.
    async fn subtree_root(&self, rows: Range<u64>) -> Result<Digest, StoreError> {
        let length = rows.end - rows.start;
        if length < TILE {
            return Ok(self.leaves(rows).await?.root());
        }
        let tiles = rows.start / TILE..rows.end / TILE;
        let rest = tiles.end * TILE..rows.end;
        let mut tree = self.tiles(tiles).await?;
        if !rest.is_empty() {
            tree.append(self.leaves(rest).await?.root());
        }
        Ok(tree.root())
    }

    async fn leaves(&self, rows: Range<u64>) -> Result<Tree, StoreError> {
        let statement = "SELECT hash FROM audit WHERE tenant = $1
            AND sequence > $2 AND sequence <= $3 ORDER BY sequence";
        self.tree_of(statement, rows).await
    }

    async fn tiles(&self, tiles: Range<u64>) -> Result<Tree, StoreError> {
        let statement = "SELECT hash FROM audit_tiles WHERE tenant = $1
            AND number >= $2 AND number < $3 ORDER BY number";
        self.tree_of(statement, tiles).await
    }

    async fn tree_of(
        &self,
        statement: &'static str,
        range: Range<u64>,
    ) -> Result<Tree, StoreError> {
        let hashes: Vec<String> = sqlx::query_scalar(statement)
            .bind(self.id().to_owned())
            .bind(signed("audit row", range.start)?)
            .bind(signed("audit row", range.end)?)
            .fetch_all(self.readers())
            .await?;
        hashes.iter().map(|text| hash(text)).collect()
    }
}

impl Change {
    /// Keeps a checkpoint; another server may have kept the same.
    pub(crate) async fn add_checkpoint(
        &mut self,
        checkpoint: &StoredCheckpoint,
    ) -> Result<(), StoreError> {
        let size = signed("audit row", checkpoint.size)?;
        let (at, note) = (checkpoint.at.0, checkpoint.note.clone());
        self.run(
            "INSERT INTO audit_checkpoints (tenant, size, at, note) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
            |it| it.bind(size).bind(at).bind(note),
        )
        .await?;
        Ok(())
    }
}

fn checkpoint((size, at, note): (i64, i64, String)) -> Result<StoredCheckpoint, StoreError> {
    Ok(StoredCheckpoint { size: unsigned("audit row", size)?, at: UnixMillis(at), note })
}

//! Rows that were written before the log was a tree: they become its first leaves, and a row says in which state they were found.

use sealift_protocol::api::AuditEntry;
use sealift_protocol::audit;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::merkle::Tree;

use super::{COLUMNS, Row, TILE, entry};
use crate::audit::{Deed, chained_hash};
use crate::store::{Change, StoreError, corrupt, signed};
use sqlx::AssertSqlSafe;

/// Rows read at a time.
const BATCH: i64 = 1_000;
/// Rows that may be missing among the old ones; a log with more holes is no log.
const MISSING_MAX: u64 = 10_000;

/// What the old rows were like.
#[derive(Default)]
struct Found {
    rows: u64,
    missing: u64,
    first_break: Option<u64>,
    last_hash: String,
}

impl Change {
    /// Makes leaves of the rows that are there already. A missing one is replaced by a row that says so, so that a row's number stays its
    /// place.
    pub(super) async fn adopt_old_rows(&mut self, now: UnixMillis) -> Result<Tree, StoreError> {
        let (mut tree, mut tile, mut found) = (Tree::default(), Tree::default(), Found::default());
        loop {
            let rows = self.old_rows(tree.size()).await?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
                found.look_at(&row);
                while tree.size() + 1 < row.sequence {
                    found.missing += 1;
                    if found.missing > MISSING_MAX {
                        return Err(corrupt("audit log", "too many rows are missing"));
                    }
                    let hole = hole(tree.size() + 1, now);
                    self.insert(std::slice::from_ref(&hole)).await?;
                    self.take_over(hole, &mut tree, &mut tile).await?;
                }
                self.take_over(row, &mut tree, &mut tile).await?;
            }
        }
        if found.rows > 0 {
            tracing::info!(rows = found.rows, "audit rows of before taken over into the tree");
            self.set_head(0, &tree).await?;
            let detail = found.to_string();
            let (action, subject) = ("audit.adopt", "audit");
            let deed = Deed { actor: "server", action, subject, reason: None, detail: &detail };
            self.deeds.insert(0, deed.entry(now));
        }
        Ok(tree)
    }

    async fn old_rows(&mut self, after: u64) -> Result<Vec<AuditEntry>, StoreError> {
        let text = format!(
            "SELECT {COLUMNS} FROM audit WHERE tenant = $1 AND sequence > $2
             ORDER BY sequence LIMIT $3"
        );
        let after = signed("audit row", after)?;
        let query = sqlx::query_as(AssertSqlSafe(text)).bind(self.tenant().to_string());
        let rows: Vec<Row> = query.bind(after).bind(BATCH).fetch_all(self.connection()).await?;
        rows.into_iter().map(entry).collect()
    }

    async fn take_over(
        &mut self,
        row: AuditEntry,
        tree: &mut Tree,
        tile: &mut Tree,
    ) -> Result<(), StoreError> {
        let leaf = audit::leaf(&row);
        let (number, hash) = (signed("audit row", row.sequence)?, leaf.hex());
        let statement = "UPDATE audit SET hash = $3 WHERE tenant = $1 AND sequence = $2";
        self.run(statement, |it| it.bind(number).bind(hash)).await?;
        tree.append(leaf);
        tile.append(leaf);
        if tile.size() == TILE {
            self.write_tile(tree.size() / TILE - 1, tile.root()).await?;
            *tile = Tree::default();
        }
        Ok(())
    }
}

fn hole(sequence: u64, at: UnixMillis) -> AuditEntry {
    let (action, detail) = ("audit.missing", "this row was not there when the log became a tree");
    let deed = Deed { actor: "server", action, subject: "audit", reason: None, detail };
    AuditEntry { sequence, ..deed.entry(at) }
}

impl Found {
    fn look_at(&mut self, row: &AuditEntry) {
        let is_next = row.sequence == self.rows + self.missing + 1;
        let is_whole = is_next && chained_hash(row, &self.last_hash) == row.hash;
        if !is_whole && self.first_break.is_none() {
            self.first_break = Some(self.rows + self.missing + 1);
        }
        self.rows += 1;
        self.last_hash.clone_from(&row.hash);
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, missing, first_break, last_hash } = self;
        match first_break {
            None => {
                write!(f, "{rows} rows of before, their chain whole, the last hash {last_hash}")
            }
            Some(row) => {
                write!(
                    f,
                    "{rows} rows of before, {missing} missing, their chain broken at row {row}"
                )
            }
        }
    }
}

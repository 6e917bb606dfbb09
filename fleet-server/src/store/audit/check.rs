//! The server's own look at its log, from time to time. Whoever does not trust the server checks with `fleetctl audit verify`.

use sealift_protocol::api::AuditEntry;
use sealift_protocol::audit::{self, AuditKey, InvalidCheckpoint};
use sealift_protocol::digest::Digest;
use sealift_protocol::merkle::Tree;

use super::read::StoredCheckpoint;
use super::{TILE, hash};
use crate::store::{StoreError, TenantStore, signed};

impl TenantStore {
    /// Goes through the whole log: every row by its hash, every tile, every checkpoint, the head. Returns the first row that is not as it
    /// was written; where each row fits its own hash, the first that nothing vouches for.
    pub(crate) async fn audit_break(&self, key: &AuditKey) -> Result<Option<u64>, StoreError> {
        let head = self.audit_head().await?;
        let mut walk = Walk { key, tree: Tree::default(), sure: 0 };
        while walk.tree.size() < head.size() {
            let after = walk.tree.size();
            let expected = (head.size() - after).min(TILE);
            let limit = u32::try_from(expected).unwrap_or(u32::MAX);
            let part = Part {
                rows: self.audit_rows(after, limit).await?,
                checkpoints: self.audit_checkpoints(after, limit).await?,
                tile: self.kept_tile(after / TILE).await?,
                expected,
            };
            if let Some(row) = walk.go_through(&part) {
                return Ok(Some(row));
            }
        }
        if walk.tree != head {
            return Ok(Some(walk.sure + 1));
        }
        // Asked for before the head is read again: rows and head are written together.
        let beyond = self.audit_rows(head.size(), 1).await?;
        let size = self.audit_head().await?.size();
        Ok(beyond.first().map(|row| row.sequence).filter(|&row| row > size))
    }

    async fn kept_tile(&self, number: u64) -> Result<Option<Digest>, StoreError> {
        let text: Option<String> =
            sqlx::query_scalar("SELECT hash FROM audit_tiles WHERE tenant = $1 AND number = $2")
                .bind(self.id().to_owned())
                .bind(signed("audit tile", number)?)
                .fetch_optional(self.readers())
                .await?;
        text.as_deref().map(hash).transpose()
    }
}

/// The rows of one tile and what is kept about them.
struct Part {
    rows: Vec<AuditEntry>,
    checkpoints: Vec<StoredCheckpoint>,
    tile: Option<Digest>,
    expected: u64,
}

struct Walk<'a> {
    key: &'a AuditKey,
    tree: Tree,
    /// Everything up to this row is vouched for.
    sure: u64,
}

impl Walk<'_> {
    fn go_through(&mut self, part: &Part) -> Option<u64> {
        let begin = self.tree.size();
        let mut tile = Tree::default();
        let mut checkpoints = part.checkpoints.iter().peekable();
        for row in &part.rows {
            let number = self.tree.size() + 1;
            let leaf = audit::leaf(row);
            if row.sequence != number || leaf.hex() != row.hash {
                return Some(number);
            }
            self.tree.append(leaf);
            tile.append(leaf);
            let here = checkpoints.next_if(|checkpoint| checkpoint.size == number);
            if here.is_some_and(|here| !self.agrees_with(here)) {
                return Some(self.sure + 1);
            }
        }
        if tile.size() < part.expected {
            return Some(self.tree.size() + 1);
        }
        let is_kept = part.expected < TILE || part.tile == Some(tile.root());
        (!is_kept).then(|| self.sure.max(begin) + 1)
    }

    fn agrees_with(&mut self, checkpoint: &StoredCheckpoint) -> bool {
        match self.key.verify(&checkpoint.note) {
            Ok(signed) => {
                let agrees = signed.size == self.tree.size() && signed.root == self.tree.root();
                self.sure = if agrees { signed.size } else { self.sure };
                agrees
            }
            // Signed with an earlier key: whoever has pinned that one can check it.
            Err(InvalidCheckpoint::Unsigned(_)) => true,
            Err(_) => false,
        }
    }
}

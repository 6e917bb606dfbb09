//! What a checkpoint of the audit log that was kept elsewhere says of the log that is here.

use sealift_protocol::audit::{AuditKey, InvalidCheckpoint};
use sealift_protocol::digest::Digest;
use serde::Serialize;

use crate::store::{StoreError, TenantStore};

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    /// Not a checkpoint that this server's audit key has signed.
    #[error("the checkpoint is not one of this server's log")]
    Foreign(#[source] InvalidCheckpoint),
    /// The store.
    #[error("the audit log cannot be read")]
    Store(#[from] StoreError),
}

/// How much of the log is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Cut {
    /// Rows that the checkpoint covers.
    pub(crate) kept_rows: u64,
    /// The root over them.
    pub(crate) kept_root: Digest,
    /// Rows that are here.
    pub(crate) rows: u64,
    /// Rows that were written once and are not here, from this one on.
    pub(crate) lost_from_row: Option<u64>,
}

/// Compares the log with a checkpoint: a log that is shorter was cut, or is an older copy.
pub(crate) async fn compare(
    store: &TenantStore,
    key: &AuditKey,
    note: &str,
) -> Result<Cut, CheckpointError> {
    let kept = key.verify(note).map_err(CheckpointError::Foreign)?;
    let rows = store.audit_head().await?.size();
    let lost_from_row = (rows < kept.size).then_some(rows + 1);
    Ok(Cut { kept_rows: kept.size, kept_root: kept.root, rows, lost_from_row })
}

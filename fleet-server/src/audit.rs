//! Who did what: the values of the audit log, and the hash that makes tampering visible.

use sealift_protocol::api::AuditEntry;
use sealift_protocol::digest::Hasher;

/// Something that was done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deed<'a> {
    /// Who: an operator, `device:<id>` or `server`.
    pub(crate) actor: &'a str,
    /// What: `rollout.create`, `rollback`, …
    pub(crate) action: &'a str,
    /// To what.
    pub(crate) subject: &'a str,
    /// Why, where a reason was asked for.
    pub(crate) reason: Option<&'a str>,
    /// On what evidence, or with what effect.
    pub(crate) detail: &'a str,
}

/// The hash of a row: over the hash of the row before and every field, each with its length before it, so that no two rows have the
/// same bytes.
pub(crate) fn hash(entry: &AuditEntry, before: &str) -> String {
    let mut hasher = Hasher::default();
    let mut field = |bytes: &[u8]| {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        hasher.update(&length.to_be_bytes());
        hasher.update(bytes);
    };
    field(before.as_bytes());
    field(&entry.sequence.to_be_bytes());
    field(&entry.at.0.to_be_bytes());
    for text in [&entry.actor, &entry.action, &entry.subject] {
        field(text.as_bytes());
    }
    field(&[u8::from(entry.reason.is_some())]);
    field(entry.reason.as_deref().unwrap_or_default().as_bytes());
    field(entry.detail.as_bytes());
    hasher.finish().hex()
}

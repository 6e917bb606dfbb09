//! The audit log, checked without believing the server: every row and every root is computed here, with the pinned key and with what this
//! client saw before.
//!
//! ```text
//! rows ──▶ leaf hashes ──▶ tree ──▶ root at each checkpoint   the server's signature over it: as it was signed
//!             │                └──▶ root at the last look      this client's own memory: as it was seen
//!             └──▶ the first row that differs, and how
//! ```

use sealift_protocol::audit::{AuditKey, Checkpoint, InvalidCheckpoint};
use sealift_protocol::digest::Digest;
use serde::Serialize;

mod check;
mod export;
mod memory;
mod source;

pub(crate) use check::Finding;
pub(crate) use export::{Exported, export};
pub(crate) use memory::Memory;
pub(crate) use source::Source;

use check::Checker;

/// What a look at the whole log found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The key that signed, without its bytes.
    pub(crate) key: String,
    /// Rows that were checked.
    pub(crate) rows: u64,
    /// The root over them.
    pub(crate) root: Digest,
    /// Rows that this client had seen before.
    pub(crate) seen_before: u64,
    /// Checkpoints that fit the rows.
    pub(crate) checkpoints: u64,
    /// The first thing that is wrong.
    pub(crate) finding: Option<Finding>,
}

/// Goes through the whole log. What this client remembers is renewed only if nothing is wrong.
pub(crate) async fn verify(
    source: &mut Source<'_>,
    key: &AuditKey,
    memory: &Memory,
) -> anyhow::Result<Report> {
    let mut checker = Checker::new(memory.leaves(), source.longest());
    let finding = go_through(source, key, memory, &mut checker).await?;
    if finding.is_none()
        && let Some(note) = source.newest_note()
    {
        memory.renew(note, checker.leaves())?;
    }
    Ok(Report {
        key: key.short(),
        rows: checker.size(),
        root: checker.root(),
        seen_before: memory.size(),
        checkpoints: checker.checkpoints(),
        finding,
    })
}

async fn go_through(
    source: &mut Source<'_>,
    key: &AuditKey,
    memory: &Memory,
    checker: &mut Checker<'_>,
) -> anyhow::Result<Option<Finding>> {
    while let Some(row) = source.next_row().await? {
        if checker.is_suspicious(&row) {
            let next = source.next_row().await?;
            return Ok(Some(checker.name(&row, next.as_ref())));
        }
        checker.append(&row);
        let finding = source.notes_at(checker.size()).map(|note| check_note(note, key, checker));
        if let Some(Some(finding)) = finding {
            return Ok(Some(finding));
        }
    }
    // Rows and the log's length are written together, and the last note is signed after the last row was read: none may be beyond it.
    let last = key.verify(&source.last_note().await?)?;
    let longest = last.size.max(memory.size()).max(source.longest());
    Ok(match checker.size() {
        size if size < longest => Some(Finding::cut(size, longest)),
        size if size > last.size => Some(Finding::unsigned(last.size, size)),
        _ => checker.agrees_with(&last),
    })
}

fn check_note(note: &str, key: &AuditKey, checker: &mut Checker<'_>) -> Option<Finding> {
    match key.verify(note) {
        Ok(checkpoint) => checker.agrees_with(&checkpoint),
        // Signed with an earlier key: it says nothing to whoever pinned this one.
        Err(InvalidCheckpoint::Unsigned(_)) => None,
        Err(_) => {
            let size = checker.size();
            checker.agrees_with(&Checkpoint { size, root: Digest::of(note.as_bytes()) })
        }
    }
}

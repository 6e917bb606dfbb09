//! Who did what: the values of the audit log; and who vouches for it: the notary, which signs how long it is and under which root.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{SigningKey, VerifyingKey};
use sealift_protocol::api::AuditEntry;
use sealift_protocol::audit::{AuditKey, Checkpoint, log_name};
use sealift_protocol::cose::KeyId;
use sealift_protocol::digest::Hasher;
use sealift_protocol::id::{TenantId, UnixMillis};
use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::store::audit::StoredCheckpoint;
use crate::store::{StoreError, TenantStore};
use crate::trust::keys::{self, KeyError};

/// How often a log that has grown is signed: what somebody with the database could change unnoticed is what came since.
const SIGN_EVERY: Duration = Duration::from_secs(5);

/// How often the whole log is gone through: a million rows take some seconds of one core.
const CHECK_EVERY: Duration = Duration::from_hours(1);

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

/// Signs checkpoints; holds the only copy of the audit key.
pub(crate) struct Notary {
    key: SigningKey,
    name: String,
}

impl Notary {
    /// Reads the audit key from the folder of keys; a server of before gets one.
    pub(crate) fn open(folder: &Path, tenant: &TenantId) -> Result<Self, KeyError> {
        let path = folder.join(keys::AUDIT);
        if !path.exists() {
            let key = keys::generate()?;
            keys::write_new(&path, &key.to_pem().map_err(KeyError::Encode)?)?;
            tracing::warn!(path = %path.display(), "there was no audit key; one was made");
        }
        Ok(Self::new(keys::read_ed25519(&path)?, tenant))
    }

    /// A notary with this key.
    pub(crate) fn new(key: SigningKey, tenant: &TenantId) -> Self {
        Self { key, name: log_name(tenant.as_str()) }
    }

    /// The key that checkpoints are checked with.
    pub(crate) fn public(&self) -> AuditKey {
        AuditKey::new(&self.name, self.key.verifying_key())
    }

    /// The signed note over the log as it is now.
    pub(crate) async fn checkpoint(
        &self,
        store: &TenantStore,
        now: UnixMillis,
    ) -> Result<StoredCheckpoint, StoreError> {
        let head = store.audit_head().await?;
        if let Some(kept) = store.audit_checkpoint(head.size()).await? {
            return Ok(kept);
        }
        let checkpoint = Checkpoint { size: head.size(), root: head.root() };
        let note = checkpoint.sign(&self.name, &self.key);
        let stored = StoredCheckpoint { size: head.size(), at: now, note };
        let mut change = store.begin().await?;
        change.add_checkpoint(&stored).await?;
        change.commit().await?;
        Ok(stored)
    }
}

/// Signs the log whenever it has grown, and goes through it from time to time; never returns.
pub(crate) async fn keep_signed(notary: Arc<Notary>, store: TenantStore) {
    let mut sign = interval(SIGN_EVERY);
    let mut check = interval(CHECK_EVERY);
    sign.set_missed_tick_behavior(MissedTickBehavior::Delay);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            _ = sign.tick() => notary.checkpoint(&store, clock::now()).await.map(|_| ()),
            _ = check.tick() => check_log(&notary, &store).await,
        };
        if let Err(error) = done {
            tracing::error!(error = &error as &dyn std::error::Error, "audit log not signed");
        }
    }
}

async fn check_log(notary: &Notary, store: &TenantStore) -> Result<(), StoreError> {
    if let Some(row) = store.audit_break(&notary.public()).await? {
        let help = "`fleetctl audit verify` says what is wrong with it";
        tracing::error!(row, help, "the audit log was changed by somebody else");
    }
    Ok(())
}

/// Writes down that a server starts, and with which keys: a key that was put in the place of another is seen here.
pub(crate) async fn note_start(
    store: &TenantStore,
    notary: &Notary,
    director: &VerifyingKey,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let (version, audit) = (env!("CARGO_PKG_VERSION"), notary.public().short());
    let detail = format!("version {version}, director {}, audit {audit}", KeyId::of(director));
    let (action, subject) = ("server.start", "server");
    let deed = Deed { actor: "server", action, subject, reason: None, detail: &detail };
    let mut change = store.begin().await?;
    change.audit(&deed, now).await?;
    change.commit().await
}

/// The hash of a row as it was before the log was a tree: over the hash of the row before and every field, each with its length.
pub(crate) fn chained_hash(entry: &AuditEntry, before: &str) -> String {
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

//! What follows on the server from a new deny list: versions in quarantine, rollouts halted, devices cut off.
//!
//! Devices decide for themselves from the signed list; all this only keeps the server from asking for what they would refuse.

use std::collections::BTreeSet;

use sealift_protocol::api::{RevocationKind, RevocationView};
use sealift_protocol::id::{DeviceId, RolloutId, UnixMillis};
use sealift_protocol::tuf::bundle::Revocations;

use crate::audit::Deed;
use crate::limits::REASON_CHARS_MAX;
use crate::rollout::Stage;
use crate::store::revocations::Subject;
use crate::store::trust::VersionName;
use crate::store::{Change, StoreError, TenantStore};

/// What came of a new deny list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fallout {
    /// Rollouts that were halted.
    pub(crate) halted: Vec<RolloutId>,
    /// Devices whose certificate counts no more: their connections must end.
    pub(crate) devices: Vec<DeviceId>,
}

/// Who handed in the list, why, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Because<'a> {
    pub(crate) by: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) now: UnixMillis,
}

/// Brings the server's own tables in line with the list, in the change that publishes it.
pub(super) async fn follow(
    store: &TenantStore,
    change: &mut Change,
    list: &Revocations,
    because: Because<'_>,
) -> Result<Fallout, StoreError> {
    note(store, change, list, because).await?;
    let denied = store.versions_with(&list.images).await?;
    let versions: BTreeSet<_> = denied.into_iter().map(|(version, _)| version).collect();
    let why = quarantine_reason(because.reason);
    for (model, version) in &versions {
        change.quarantine(model, version, &why, (because.by, because.now)).await?;
    }
    let halted = halt(store, change, &versions, because).await?;
    let devices = store.devices_with_serials(&list.devices).await?;
    for device in &devices {
        change.revoke_device(device, because.reason, because.now).await?;
        audit(change, ("device.revoke", device.as_str()), "", because).await?;
    }
    Ok(Fallout { halted, devices })
}

/// Keeps what is on the list with its reason, and forgets what is on it no more.
async fn note(
    store: &TenantStore,
    change: &mut Change,
    list: &Revocations,
    because: Because<'_>,
) -> Result<(), StoreError> {
    let listed = subjects(list);
    for RevocationView { kind, subject, .. } in store.revocations().await? {
        if !listed.contains(&(kind, subject.clone())) {
            change.allow(&(kind, subject.clone())).await?;
            audit(change, ("trust.unrevoke", &subject), "", because).await?;
        }
    }
    for subject in &listed {
        if change.deny(subject, because.reason, (because.by, because.now)).await? {
            audit(change, ("trust.revoke", &subject.1), "", because).await?;
        }
    }
    Ok(())
}

fn subjects(list: &Revocations) -> BTreeSet<Subject> {
    let images = list.images.iter().map(|it| (RevocationKind::Image, it.to_string()));
    let directors = list.directors.iter().map(|it| (RevocationKind::Director, it.to_string()));
    let devices = list.devices.iter().map(|it| (RevocationKind::Device, it.clone()));
    images.chain(directors).chain(devices).collect()
}

/// Halts what still brings a denied version. Going on is refused for as long as the version is in quarantine.
async fn halt(
    store: &TenantStore,
    change: &mut Change,
    versions: &BTreeSet<VersionName>,
    because: Because<'_>,
) -> Result<Vec<RolloutId>, StoreError> {
    let mut halted = Vec::new();
    for mut row in store.live_rollouts().await? {
        let name = (row.order.model.clone(), row.order.version.clone());
        // What is taken back already tells nobody.
        let is_still = matches!(row.stage, Stage::Halted | Stage::Reverting);
        if is_still || !versions.contains(&name) {
            continue;
        }
        row.stage = Stage::Halted;
        row.why = format!("version {} was revoked: {}", row.order.version, because.reason);
        change.save_rollout(&row, because.now).await?;
        audit(change, ("rollout.halted", &row.id.to_string()), &row.why, because).await?;
        halted.push(row.id);
    }
    Ok(halted)
}

fn quarantine_reason(reason: &str) -> String {
    format!("revoked: {reason}").chars().take(REASON_CHARS_MAX).collect()
}

async fn audit(
    change: &mut Change,
    (action, subject): (&str, &str),
    detail: &str,
    because: Because<'_>,
) -> Result<(), StoreError> {
    let reason = Some(because.reason).filter(|reason| !reason.is_empty());
    let deed = Deed { actor: because.by, action, subject, reason, detail };
    change.audit(&deed, because.now).await
}

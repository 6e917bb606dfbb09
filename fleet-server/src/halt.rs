//! Stops all rollouts at once, on the server and on every device, and lets them go on.
//!
//! ```text
//!  operator ──▶ halt ──▶ one row: who, why, signed list ──▶ courier ──▶ b/all/halt, retained      device: stops within a second
//!                         │                             └─▶ GET /halt on the devices' port         (losing the broker loses nothing)
//!                         └─▶ reconcile: plans as if paused; nobody is told, no wave opens
//! ```
//!
//! A rollback that is ordered after the halt goes on: it is the way out. Every other rollout waits, also one that is ordered meanwhile.

use std::collections::BTreeSet;
use std::fmt;

use sealift_protocol::api::DeviceProgress;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{RolloutId, UnixMillis};
use sealift_protocol::limits::HALTED_MAX;

use crate::audit::Deed;
use crate::directive::Director;
use crate::order::{Asker, OrderError, required_reason};
use crate::rollout::{self, Fleet, Plan, Rollout, Stage, Why};
use crate::store::halt::{HaltRow, SignedHalt};
use crate::store::{Change, StoreError, TenantStore, corrupt};

#[cfg(test)]
mod tests;

/// Devices whose word is stored in a second, on two processors that have other things to do as well.
const SAID_PER_S: u64 = 2_000;

/// By how much the clocks of two servers differ at most.
const CLOCKS_DIFFER_MS: i64 = 24 * 3_600 * 1_000;

/// A halt of all rollouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Halt {
    /// Since when.
    pub(crate) since: UnixMillis,
    /// Who.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: String,
    /// The newest rollout at that time.
    pub(crate) newest: RolloutId,
    /// Rollouts that the list for devices names.
    pub(crate) rollouts: u64,
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { since, by, reason, .. } = self;
        write!(f, "all rollouts are halted by {by} since {since}: {reason}")
    }
}

impl Halt {
    /// Whether a rollout waits: all do, but a way back that was ordered after the halt, and what is taken back: that tells nobody.
    pub(crate) fn stops(&self, rollout: &Rollout) -> bool {
        let is_way_out = rollout.is_rollback && rollout.id > self.newest;
        !rollout.stage.is_over() && rollout.stage != Stage::Reverting && !is_way_out
    }

    /// The plan of a rollout that waits. Nobody is told, no wave moves, no gate judges; what devices say is read as ever, and a trial
    /// that was seen is countersigned, for what serves is not stopped.
    pub(crate) fn plan(&self, rollout: &Rollout, fleet: &Fleet, now: UnixMillis) -> Plan {
        let paused = Rollout { stage: Stage::Paused, ..rollout.clone() };
        let mut plan = rollout::plan(&paused, fleet, now);
        plan.stage = rollout.stage;
        plan.why = self.to_string();
        let queued = plan.devices.values_mut();
        for position in queued.filter(|position| position.progress == DeviceProgress::Queued) {
            position.why = Why::FleetHalted;
        }
        plan
    }
}

/// Stops all rollouts. Where that was done before, nothing changes: a second halt must not stop the way out that was taken since.
pub(crate) async fn halt(
    store: &TenantStore,
    director: &Director,
    reason: &str,
    asker: Asker<'_>,
) -> Result<HaltRow, OrderError> {
    required_reason(reason)?;
    let lingering = store.lingering_campaigns().await?;
    let mut change = store.begin().await?;
    let sequence = change.lock_halt().await?;
    let before = store.halt().await?;
    if before.halt.is_some() {
        return Ok(before);
    }
    let (live, newest) = change.live_campaigns().await?;
    let campaigns: BTreeSet<_> = live.into_iter().chain(lingering).take(HALTED_MAX).collect();
    let rollouts = u64::try_from(campaigns.len()).unwrap_or(u64::MAX);
    let (by, reason) = (asker.name.to_owned(), reason.to_owned());
    let halt = Halt { since: asker.now, by, reason, newest, rollouts };
    let detail = format!("devices were told to stop {rollouts} rollouts");
    let row = sign(&mut change, director, sequence, (Some(&halt), campaigns), asker.now).await?;
    audit(&mut change, "fleet.halt", &halt.reason, &detail, asker).await?;
    change.commit().await?;
    tracing::warn!(by = asker.name, reason = halt.reason, rollouts, "all rollouts are halted");
    Ok(row)
}

/// Lets all rollouts go on. Where nothing was stopped, nothing changes.
pub(crate) async fn resume(
    store: &TenantStore,
    director: &Director,
    reason: &str,
    asker: Asker<'_>,
) -> Result<HaltRow, OrderError> {
    crate::order::check_reason(reason)?;
    let mut change = store.begin().await?;
    let sequence = change.lock_halt().await?;
    let before = store.halt().await?;
    let Some(halt) = before.halt else { return Ok(before) };
    let row = sign(&mut change, director, sequence, (None, BTreeSet::new()), asker.now).await?;
    let detail = format!("they were halted by {} since {}", halt.by, halt.since);
    audit(&mut change, "fleet.resume", reason, &detail, asker).await?;
    change.commit().await?;
    tracing::warn!(by = asker.name, reason, "rollouts go on");
    Ok(row)
}

/// Signs the newest list again once the director's key was replaced: devices that never heard it must be able to check it.
pub(crate) async fn renew(
    store: &TenantStore,
    director: &Director,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let row = store.halt().await?;
    let is_old = director.newest_signer().is_some_and(|signer| row.signer != signer.to_string());
    if row.sequence == 0 || !is_old {
        return Ok(false);
    }
    let mut change = store.begin().await?;
    let sequence = change.lock_halt().await?;
    if sequence != row.sequence {
        return Err(StoreError::Changed("halt"));
    }
    sign(&mut change, director, sequence, (row.halt.as_ref(), row.campaigns), now).await?;
    change.commit().await?;
    Ok(true)
}

/// Signs the newest list again above one that devices obey and that this server does not know: it was restored from a backup. What no
/// clock can have reached is not believed.
pub(crate) async fn overtake(
    store: &TenantStore,
    director: &Director,
    obeyed: u64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let latest = u64::try_from(now.plus(CLOCKS_DIFFER_MS).0).unwrap_or(0);
    if obeyed > latest {
        tracing::warn!(obeyed, "a device claims a list of halts from the future: not believed");
        return Ok(());
    }
    let mut change = store.begin().await?;
    let sequence = change.lock_halt().await?;
    let HaltRow { halt, campaigns, .. } = store.halt().await?;
    sign(&mut change, director, sequence.max(obeyed), (halt.as_ref(), campaigns), now).await?;
    change.commit().await
}

/// Signs the list after `sequence`. It is no lower than the time, so that a server that was restored from a backup is ahead of what its
/// devices have heard.
async fn sign(
    change: &mut Change,
    director: &Director,
    sequence: u64,
    (halt, campaigns): (Option<&Halt>, BTreeSet<Digest>),
    now: UnixMillis,
) -> Result<HaltRow, StoreError> {
    let sequence = sequence.saturating_add(1).max(u64::try_from(now.0).unwrap_or(0));
    let reason = halt.map_or("", |halt| halt.reason.as_str());
    // Since when a device says that it waits is since when it was told to, whoever signs that again.
    let since = halt.map_or(now, |halt| halt.since);
    let within = change.fleet_size().await?.saturating_mul(1_000) / SAID_PER_S;
    let within = u32::try_from(within).unwrap_or(u32::MAX);
    let made = director.sign_halt((sequence, since), reason, campaigns.clone(), within);
    let (body, key) = made.map_err(|error| corrupt("halt", &error.to_string()))?;
    let row = HaltRow { sequence, signer: key.to_string(), campaigns, halt: halt.cloned() };
    change.set_halt(&SignedHalt { row: row.clone(), body }).await?;
    Ok(row)
}

async fn audit(
    change: &mut Change,
    action: &str,
    reason: &str,
    detail: &str,
    asker: Asker<'_>,
) -> Result<(), StoreError> {
    let reason = Some(reason).filter(|reason| !reason.trim().is_empty());
    let deed = Deed { actor: asker.name, action, subject: "all rollouts", reason, detail };
    change.audit(&deed, asker.now).await
}

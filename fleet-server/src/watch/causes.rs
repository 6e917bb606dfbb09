//! What devices have in common that are silent, refuse what they should run, or drift.

use sealift_protocol::id::{DeviceId, UnixMillis};

use super::Watch;
use crate::alert::{self, Finding};
use crate::blame::{self, Blame, Suspect};
use crate::store::StoreError;
use crate::store::suspects::Known;

/// Devices that are compared: a second's work.
const DEVICES_MAX: u32 = 20_000;
/// What is found holds so long before it is looked for again.
const FRESH_MS: i64 = 60_000;
/// Devices that have the same trouble; fewer have nothing in common but chance.
const TROUBLED_MIN: u64 = 3;

/// What was found last, and when.
#[derive(Debug, Default)]
pub(super) struct Causes {
    looked_at: Option<UnixMillis>,
    findings: Vec<Finding>,
    /// What drifting devices have in common.
    of_drift: Option<Blame>,
}

impl Causes {
    fn is_fresh(&self, now: UnixMillis) -> bool {
        self.looked_at.is_some_and(|at| (0..FRESH_MS).contains(&now.since(at)))
    }
}

/// Looks for common causes, at most once a minute.
pub(super) async fn common_causes(
    watch: &Watch,
    now: UnixMillis,
) -> Result<Vec<Finding>, StoreError> {
    if let Some(findings) =
        watch.causes(|causes| causes.is_fresh(now).then(|| causes.findings.clone()))
    {
        return Ok(findings);
    }
    let heard_before = now.plus(-watch.patience.offline_after_ms);
    let (silent, refused) = watch.store.troubled(heard_before).await?;
    let judged = watch.memory().judged_devices();
    let drifting = judged.values().filter(|is_off| **is_off).count();
    let drifting = u64::try_from(drifting).unwrap_or(u64::MAX);
    let (mut findings, mut of_drift) = (Vec::new(), None);
    if silent.max(refused).max(drifting) >= TROUBLED_MIN {
        let known = watch.store.suspects(heard_before, DEVICES_MAX).await?;
        let tell = |trouble: &str, blame: &Blame| alert::common_cause(trouble, blame, now);
        let silent = cause(&known, |known| Some(known.is_silent));
        findings.extend(silent.map(|blame| tell("silent", &blame)));
        let refusing = cause(&known, |known| Some(known.has_refused));
        findings.extend(refusing.map(|blame| tell("refusing", &blame)));
        // Whoever was not judged is neither well nor off.
        of_drift = cause(&known, |known| {
            DeviceId::parse(&known.id).ok().and_then(|device| judged.get(&device).copied())
        });
        findings.extend(of_drift.as_ref().map(|blame| tell("drifting", blame)));
    }
    let found = Causes { looked_at: Some(now), findings: findings.clone(), of_drift };
    watch.causes(|causes| *causes = found);
    Ok(findings)
}

/// What drifting devices had in common when it was looked for last.
pub(super) fn of_drift(watch: &Watch) -> Option<Blame> {
    watch.causes(|causes| causes.of_drift.clone())
}

/// What the affected ones have in common; devices of which nothing is known are left out.
fn cause(known: &[Known], is_affected: impl Fn(&Known) -> Option<bool>) -> Option<Blame> {
    let suspect = |known: &Known| {
        Some(Suspect { traits: known.traits.clone(), is_affected: is_affected(known)? })
    };
    let suspects: Vec<_> = known.iter().filter_map(suspect).collect();
    blame::blame(&suspects)
}

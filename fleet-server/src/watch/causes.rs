//! What devices have in common that are silent, or refuse what they should run.

use sealift_protocol::id::UnixMillis;

use super::Watch;
use crate::alert::{self, Finding};
use crate::blame::{self, Suspect};
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
    let mut findings = Vec::new();
    if silent.max(refused) >= TROUBLED_MIN {
        let known = watch.store.suspects(heard_before, DEVICES_MAX).await?;
        findings.extend(cause(&known, "silent", |known| known.is_silent, now));
        findings.extend(cause(&known, "refusing", |known| known.has_refused, now));
    }
    let found = Causes { looked_at: Some(now), findings: findings.clone() };
    watch.causes(|causes| *causes = found);
    Ok(findings)
}

fn cause(
    known: &[Known],
    trouble: &str,
    is_affected: impl Fn(&Known) -> bool,
    now: UnixMillis,
) -> Option<Finding> {
    let suspect =
        |known: &Known| Suspect { traits: known.traits.clone(), is_affected: is_affected(known) };
    let suspects: Vec<_> = known.iter().map(suspect).collect();
    blame::blame(&suspects).map(|blame| alert::common_cause(trouble, &blame, now))
}

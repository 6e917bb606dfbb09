//! What of the fleet a caller sees and changes: every handler that touches devices asks here.
//!
//! Rule (OWASP API Security Top 10, API1, broken object level authorization): what is beyond somebody's scope is, for them, not there; and
//! a change that would reach beyond it is refused as a whole, with what is beyond.

use std::collections::BTreeMap;

use sealift_protocol::api::{AlertView, DeviceView};
use sealift_protocol::id::{DeviceId, RolloutId};

use super::App;
use super::access::Caller;
use super::error::ApiError;
use crate::drift::Scope;
use crate::filter::Filter;
use crate::reach::Reach;
use crate::store::matching::Presence;
use crate::store::rollouts::{Order, RolloutRow};
use crate::store::{StoreError, parsed};

/// Devices that are looked at to name some that are beyond.
const LOOKED_AT_MAX: u32 = 1_000;
/// Devices that are named.
const NAMED_MAX: usize = 3;
/// Rollouts that are looked at for somebody with a scope.
const ROLLOUTS_MAX: u32 = 1_000;

/// A device, if it is in scope.
pub(super) async fn device(
    app: &App,
    caller: &Caller,
    id: &DeviceId,
    presence: Presence,
) -> Result<Option<DeviceView>, StoreError> {
    let device = app.store.device(id, presence).await?;
    Ok(device.filter(|device| caller.reach().has(&device.labels)))
}

/// Whether a device is in scope.
pub(super) async fn has_device(
    app: &App,
    reach: &Reach,
    id: &DeviceId,
    presence: Presence,
) -> Result<bool, StoreError> {
    let device = app.store.device(id, presence).await?;
    Ok(device.is_some_and(|device| reach.has(&device.labels)))
}

/// `filter`, if it names no device beyond the scope: narrowed, so that it never will.
pub(super) async fn within(
    app: &App,
    caller: &Caller,
    filter: &str,
    presence: Presence,
) -> Result<String, ApiError> {
    let reach = caller.reach();
    if reach.is_whole() {
        return Ok(filter.to_owned());
    }
    let wanted: Filter = filter.parse()?;
    let total = app.store.count_devices(&wanted, presence).await?;
    let inside = app.store.count_devices(&wanted.and(reach.filter()), presence).await?;
    let beyond = total.saturating_sub(inside);
    if beyond == 0 {
        return Ok(reach.narrow(filter));
    }
    let looked_at = app.store.devices(&wanted, presence, None, LOOKED_AT_MAX).await?;
    let names = looked_at.iter().filter(|device| !reach.has(&device.labels));
    let names: Vec<_> = names.take(NAMED_MAX).map(|device| device.id.to_string()).collect();
    Err(ApiError::beyond_scope(format!(
        "`{filter}` names {beyond} of {total} devices beyond your scope `{reach}`, such as {}",
        names.join(", ")
    )))
}

/// Whether a rollout has to do with a device in scope.
pub(super) async fn sees_rollout(
    app: &App,
    reach: &Reach,
    row: &RolloutRow,
    presence: Presence,
) -> Result<bool, StoreError> {
    if reach.is_whole() {
        return Ok(true);
    }
    let filter: Filter = parsed("filter", &row.order.filter)?;
    Ok(app.store.count_devices(&filter.and(reach.filter()), presence).await? > 0)
}

/// Newest rollouts that have to do with a device in scope, of numbers below `before`, and how many there are.
pub(super) async fn rollouts(
    app: &App,
    caller: &Caller,
    model: Option<&sealift_protocol::id::ModelName>,
    (before, limit): (Option<RolloutId>, u32),
    presence: Presence,
) -> Result<(Vec<RolloutRow>, u64), ApiError> {
    let reach = caller.reach();
    if reach.is_whole() {
        let total = app.store.count_rollouts(model).await?;
        return Ok((app.store.rollouts(model, before, limit).await?, total));
    }
    let mut seen = Vec::new();
    for row in app.store.rollouts(model, None, ROLLOUTS_MAX).await? {
        if sees_rollout(app, reach, &row, presence).await? {
            seen.push(row);
        }
    }
    let total = u64::try_from(seen.len()).unwrap_or(u64::MAX);
    seen.retain(|row| before.is_none_or(|before| row.id < before));
    seen.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok((seen, total))
}

/// Refuses an order that would end a rollout which reaches further than the caller does. Going back is never refused for that: it only stops
/// what brings a bad version, and tells nobody beyond the scope anything.
pub(super) async fn supersedes_only_within(
    app: &App,
    caller: &Caller,
    order: &Order,
    presence: Presence,
) -> Result<(), ApiError> {
    if caller.reach().is_whole() {
        return Ok(());
    }
    for row in crate::order::overlapping(&app.store, order, presence).await? {
        within(app, caller, &row.order.filter, presence).await?;
    }
    Ok(())
}

/// Whether a verdict's scope is in theirs: a cohort if all of it is, a device if it is, the whole fleet for those who see it.
pub(super) async fn sees_drift(
    app: &App,
    reach: &Reach,
    scope: &Scope,
    presence: Presence,
) -> Result<bool, StoreError> {
    match scope {
        Scope::Fleet => Ok(reach.is_whole()),
        Scope::Cohort { key, value } => Ok(reach.has_all_of(key, value)),
        Scope::Device(id) => Ok(reach.is_whole() || has_device(app, reach, id, presence).await?),
    }
}

/// Whether an alert is about something in scope.
pub(super) async fn sees_alert(
    app: &App,
    reach: &Reach,
    alert: &AlertView,
    presence: Presence,
) -> Result<bool, StoreError> {
    if reach.is_whole() {
        return Ok(true);
    }
    let label = |name: &str| alert.labels.get(name).map(String::as_str);
    if let Some(device) = label("device").and_then(|id| DeviceId::parse(id).ok()) {
        return has_device(app, reach, &device, presence).await;
    }
    if let Some(scope) = label("scope").and_then(|scope| Scope::parse(scope).ok()) {
        return sees_drift(app, reach, &scope, presence).await;
    }
    let Some(id) = label("rollout").and_then(|id| RolloutId::parse(id).ok()) else {
        return Ok(false);
    };
    match app.store.rollout(id).await? {
        Some(row) => sees_rollout(app, reach, &row, presence).await,
        None => Ok(false),
    }
}

/// Whether an event on the stream may be told to somebody: decided from the event alone. What is left out comes with the next reading.
pub(super) fn may_hear(reach: &Reach, kind: &str, body: &str) -> bool {
    /// What of a view says whom it is about.
    #[derive(serde::Deserialize)]
    struct About {
        #[serde(default)]
        labels: BTreeMap<String, String>,
        #[serde(default)]
        filter: String,
    }
    if reach.is_whole() {
        return true;
    }
    let Ok(about) = serde_json::from_str::<About>(body) else { return false };
    match kind {
        "device" => reach.has(&about.labels),
        "rollout" => Reach::parse(&about.filter).is_ok_and(|filter| reach.contains(&filter)),
        "alert" => about.labels.get("scope").and_then(|scope| Scope::parse(scope).ok()).is_some_and(
            |scope| matches!(scope, Scope::Cohort { key, value } if reach.has_all_of(&key, &value)),
        ),
        // The overview is of the whole fleet; they read their own.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_tells_nothing_of_other_sites() {
        let osaka = Reach::parse("site:osaka").unwrap();
        let device = |site: &str| format!(r#"{{"id":"cam-1","labels":{{"site":"{site}"}}}}"#);
        assert!(may_hear(&osaka, "device", &device("osaka")));
        assert!(!may_hear(&osaka, "device", &device("tokyo")));
        assert!(may_hear(&osaka, "rollout", r#"{"filter":"line:4 site:osaka"}"#));
        assert!(!may_hear(&osaka, "rollout", r#"{"filter":""}"#));
        assert!(may_hear(&osaka, "alert", r#"{"labels":{"scope":"site=osaka"}}"#));
        assert!(!may_hear(&osaka, "alert", r#"{"labels":{"scope":"fleet"}}"#));
        assert!(!may_hear(&osaka, "status", "{}") && !may_hear(&osaka, "device", "no json"));
        assert!(may_hear(&Reach::default(), "status", "{}"));
    }
}

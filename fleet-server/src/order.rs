//! What operators do with rollouts: order one, pause it, go on, give it up.

use sealift_protocol::api::{Budget, ModelGates, RolloutNew, VersionState, WavePlan};
use sealift_protocol::directive::{InvalidBehaviour, InvalidShadow, Trial};
use sealift_protocol::id::{DeviceId, ModelName, RolloutId, UnixMillis, Version};

use crate::audit::Deed;
use crate::config::Approval;
use crate::filter::{Filter, InvalidFilter, is_label};
use crate::limits::{REASON_CHARS_MAX, WAVES_MAX};
use crate::reconcile::{ReconcileError, begin};
use crate::rollout::Stage;
use crate::store::matching::Presence;
use crate::store::registry::VersionRow;
use crate::store::rollouts::{Order, Policy, RolloutRow, WaveRow};
use crate::store::{Change, StoreError, TenantStore};

pub(crate) mod act;
pub(crate) mod cosign;
pub(crate) mod forecast;

/// How often an order is tried anew when the reconciler was quicker.
const TRIES: usize = 8;

/// Longest time that a wave is watched.
const SOAK_S_MAX: u32 = 30 * 24 * 3_600;

/// Longest time for which devices that were offline may catch up.
const TAIL_S_MAX: u32 = 90 * 24 * 3_600;

/// Furthest that a rollout may be put off.
const START_IN_MS_MAX: i64 = 90 * 24 * 3_600 * 1_000;

/// Why an order was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The plan could not be made.
    #[error(transparent)]
    Reconcile(ReconcileError),
    /// The filter.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// No such version.
    #[error("there is no version {version} of {model}")]
    NoVersion {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
    },
    /// Not signed by its publisher.
    #[error("version {version} of {model} is not signed by its publisher")]
    Unsigned {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
    },
    /// Somebody went back from it.
    #[error("version {version} of {model} is quarantined: {reason}")]
    Quarantined {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
        /// Why.
        reason: String,
    },
    /// The waves make no sense.
    #[error("{0}")]
    Waves(&'static str),
    /// The budget makes no sense.
    #[error("{0}")]
    Budget(&'static str),
    /// What devices are to judge the image by makes no sense.
    #[error(transparent)]
    Behaviour(#[from] InvalidBehaviour),
    /// How devices are to compare the image makes no sense.
    #[error(transparent)]
    Shadow(#[from] InvalidShadow),
    /// It begins too late.
    #[error("a rollout begins within 90 days")]
    Start,
    /// A reason is needed, and there is none; or it is a novel.
    #[error("a reason of at most {REASON_CHARS_MAX} characters is needed")]
    Reason,
    /// Nobody is meant.
    #[error("no device matches `{0}`")]
    NoDevices(String),
    /// No such rollout.
    #[error("there is no rollout {0}")]
    NoRollout(RolloutId),
    /// Nobody approves what they have asked for themselves.
    #[error("rollout {rollout} was made by {by}, who cannot approve it")]
    OwnOrder {
        /// The rollout.
        rollout: RolloutId,
        /// Who made it.
        by: String,
    },
    /// The action cannot be taken now.
    #[error("rollout {rollout} cannot be changed so: {why}")]
    NotNow {
        /// The rollout.
        rollout: RolloutId,
        /// Why not.
        why: &'static str,
    },
    /// More devices named one by one than anybody does.
    #[error("{0} devices are named; name at most 10,000, or a filter")]
    TooManyDevices(usize),
    /// A device that is named and has nothing to do with the model, or is not meant by the filter as well.
    #[error("device {0} neither runs nor should run {1}, or is beyond the filter")]
    NotPlaced(DeviceId, ModelName),
    /// Every device that is meant stays as it is.
    #[error("no device goes back; {device} of {model} does not because {why}")]
    NobodyGoesBack {
        /// The model.
        model: ModelName,
        /// One of them.
        device: DeviceId,
        /// Why that one does not.
        why: String,
    },
    /// There is no version to go back to.
    #[error("there is no earlier version of {0} to go back to")]
    NoEarlier(ModelName),
    /// No device runs anything newer than where it should go.
    #[error("no device that matches runs a version of {model} newer than {version}")]
    NothingToGoBackFrom {
        /// The model.
        model: ModelName,
        /// Where it should go.
        version: Version,
    },
}

impl From<ReconcileError> for OrderError {
    fn from(error: ReconcileError) -> Self {
        match error {
            ReconcileError::Store(error) => Self::Store(error),
            error @ ReconcileError::Filter { .. } => Self::Reconcile(error),
        }
    }
}

/// Who asks, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// The operator.
    pub(crate) name: &'a str,
    /// When.
    pub(crate) now: UnixMillis,
}

/// Runs `attempt` again while the reconciler is quicker.
pub(crate) async fn again_if_changed<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, OrderError>
where
    F: Future<Output = Result<T, OrderError>>,
{
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(OrderError::Store(StoreError::Changed(_))) if tries < TRIES => tries += 1,
            ended => return ended,
        }
    }
}

/// Orders a rollout. Live rollouts of the model that share a device with it are superseded.
#[cfg(test)]
pub(crate) async fn create(
    store: &TenantStore,
    new: &RolloutNew,
    presence: Presence,
    asker: Asker<'_>,
) -> Result<RolloutId, OrderError> {
    let order = checked(store, new, presence, asker).await?;
    commit(store, &order, Stage::Preflight, Approval::Never, asker).await
}

/// Checks what somebody asks for, before anything is written.
pub(crate) async fn checked(
    store: &TenantStore,
    new: &RolloutNew,
    presence: Presence,
    asker: Asker<'_>,
) -> Result<Order, OrderError> {
    check_reason(&new.reason)?;
    let filter: Filter = new.filter.parse()?;
    let version = rollable(store, &new.model, &new.version).await?;
    if store.count_devices(&filter, presence).await? == 0 {
        return Err(OrderError::NoDevices(new.filter.clone()));
    }
    Ok(Order {
        model: new.model.clone(),
        version: new.version.clone(),
        digest: version.digest,
        epoch: version.epoch,
        filter: new.filter.clone(),
        waves: checked_waves(&new.waves)?,
        trial: new.trial,
        is_rollback: false,
        start_at: checked_start(new.start_at, asker.now)?,
        policy: checked_policy(new)?,
        reason: new.reason.clone(),
        created_by: asker.name.to_owned(),
    })
}

/// Makes a rollout of an order that was checked: a draft, or one that is looked over and then begins. When it begins, live rollouts of
/// the model that share a device with it are superseded.
pub(crate) async fn commit(
    store: &TenantStore,
    order: &Order,
    stage: Stage,
    approval: Approval,
    asker: Asker<'_>,
) -> Result<RolloutId, OrderError> {
    let mut change = store.begin().await?;
    let id = write(&mut change, order, stage, asker).await?;
    if let Some(wave) = held_from(approval, order) {
        change.hold_rollout(id, wave).await?;
    }
    change.commit().await?;
    Ok(id)
}

/// Puts another order in the place of a draft's.
pub(crate) async fn edit(
    store: &TenantStore,
    id: RolloutId,
    order: &Order,
    approval: Approval,
    asker: Asker<'_>,
) -> Result<(), OrderError> {
    let mut row = store.rollout(id).await?.ok_or(OrderError::NoRollout(id))?;
    if row.stage != Stage::Draft {
        return Err(OrderError::NotNow { rollout: id, why: "only a draft is changed" });
    }
    let mut change = store.begin().await?;
    change.rewrite_rollout(&row, order).await?;
    row = RolloutRow { order: order.clone(), revision: row.revision + 1, ..row };
    row.waves = order.waves.iter().cloned().map(WaveRow::new).collect();
    row.held_from = held_from(approval, order).and_then(|wave| usize::try_from(wave).ok());
    (row.why, row.findings) = ("changed since it was looked over".to_owned(), Vec::new());
    change.save_rollout(&row, asker.now).await?;
    let (subject, detail) = (id.to_string(), summary(order));
    let deed = Deed {
        actor: asker.name,
        action: "rollout.edit",
        subject: &subject,
        reason: Some(&order.reason),
        detail: &detail,
    };
    change.audit(&deed, asker.now).await?;
    change.commit().await?;
    Ok(())
}

/// The first wave that somebody else must approve. Without a wave of its own nothing is a canary.
fn held_from(approval: Approval, order: &Order) -> Option<u32> {
    match approval {
        Approval::Never => None,
        Approval::OutsideCanary if order.waves.len() > 1 => Some(1),
        Approval::OutsideCanary | Approval::Always => Some(0),
    }
}

/// Writes a rollout, and that somebody has ordered it.
pub(crate) async fn write(
    change: &mut Change,
    order: &Order,
    stage: Stage,
    asker: Asker<'_>,
) -> Result<RolloutId, StoreError> {
    let id = change.add_rollout(order, stage, asker.now).await?;
    let (action, subject) = match (order.is_rollback, stage) {
        (true, _) => ("rollback", id),
        (false, Stage::Draft) => ("rollout.draft", id),
        (false, _) => ("rollout.create", id),
    };
    let detail = summary(order);
    let deed = Deed {
        actor: asker.name,
        action,
        subject: &subject.to_string(),
        reason: Some(&order.reason),
        detail: &detail,
    };
    change.audit(&deed, asker.now).await?;
    Ok(id)
}

/// What is asked for, in a line.
fn summary(order: &Order) -> String {
    let whom = match order.filter.trim() {
        "" => "all devices".to_owned(),
        filter => format!("`{filter}`"),
    };
    let waves = match order.waves.len() {
        1 => "1 wave".to_owned(),
        waves => format!("{waves} waves"),
    };
    format!("{} {} to {whom} in {waves}", order.model, order.version)
}

/// Live rollouts of the model that share a device with `order`.
pub(crate) async fn overlapping(
    store: &TenantStore,
    order: &Order,
    presence: Presence,
) -> Result<Vec<RolloutRow>, OrderError> {
    let filter: Filter = order.filter.parse()?;
    Ok(begin::overlapping(store, &order.model, &filter, presence).await?)
}

/// A version that may be rolled out: pushed, signed, not quarantined.
pub(crate) async fn rollable(
    store: &TenantStore,
    model: &ModelName,
    version: &Version,
) -> Result<VersionRow, OrderError> {
    let names = || (model.clone(), version.clone());
    let Some(row) = store.version(model, version).await? else {
        let (model, version) = names();
        return Err(OrderError::NoVersion { model, version });
    };
    let (model, version) = names();
    if let Some(reason) = store.why_denied(row.digest).await? {
        let reason = format!("revoked: {reason}");
        return Err(OrderError::Quarantined { model, version, reason });
    }
    match row.state {
        VersionState::Signed => Ok(row),
        VersionState::Unsigned => Err(OrderError::Unsigned { model, version }),
        VersionState::Quarantined => {
            let reason = row.quarantine_reason.unwrap_or_default();
            Err(OrderError::Quarantined { model, version, reason })
        }
    }
}

/// A time that has passed is none.
fn checked_start(
    start_at: Option<UnixMillis>,
    now: UnixMillis,
) -> Result<Option<UnixMillis>, OrderError> {
    let start_at = start_at.filter(|&start_at| start_at > now);
    let is_far = start_at.is_some_and(|start_at| start_at.since(now) > START_IN_MS_MAX);
    if is_far { Err(OrderError::Start) } else { Ok(start_at) }
}

pub(crate) fn check_reason(reason: &str) -> Result<(), OrderError> {
    if reason.chars().count() > REASON_CHARS_MAX { Err(OrderError::Reason) } else { Ok(()) }
}

/// A reason that must be there.
pub(crate) fn required_reason(reason: &str) -> Result<(), OrderError> {
    if reason.trim().is_empty() { Err(OrderError::Reason) } else { check_reason(reason) }
}

fn checked_policy(new: &RolloutNew) -> Result<Policy, OrderError> {
    new.trial.behaviour.check()?;
    new.trial.shadow.check()?;
    if let Some(budget) = &new.budget {
        check_budget(budget)?;
    }
    if new.tail_s.is_some_and(|tail_s| tail_s > TAIL_S_MAX) {
        return Err(OrderError::Waves("devices may catch up for at most 90 days"));
    }
    Ok(Policy { budget: new.budget.clone(), tail_s: new.tail_s, written_by: None })
}

fn check_budget(budget: &Budget) -> Result<(), OrderError> {
    let rule = if !is_label(&budget.label, "x") {
        "a budget is about a label, such as `site`"
    } else if budget.count.is_some() == budget.percent.is_some() {
        "a budget has either a share or a count"
    } else if budget.percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
        "a budget's share is between 0 and 100"
    } else if budget.count == Some(0) {
        "a budget of no device lets nobody be told"
    } else {
        return Ok(());
    };
    Err(OrderError::Budget(rule))
}

/// The waves, one for all if none is given.
fn checked_waves(waves: &[WavePlan]) -> Result<Vec<WavePlan>, OrderError> {
    if waves.len() > WAVES_MAX {
        return Err(OrderError::Waves("a rollout has at most 64 waves"));
    }
    let share = |share: Option<f64>| share.is_none_or(|share| (0.0..=1.0).contains(&share));
    for wave in waves {
        let rule = if wave.percent.is_some() && wave.count.is_some() {
            "a wave has either a share or a count, not both"
        } else if wave.percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            "a wave's share is between 0 and 100"
        } else if !share(wave.max_bad_share) || !share(wave.max_error_share) {
            "a gate's limit is between 0 and 1"
        } else if !are_sound(&wave.gates) {
            "how much worse devices may do is between 0 and 1; of latency, between 0 and 10"
        } else if wave.soak_s > SOAK_S_MAX {
            "a wave is watched for at most 30 days"
        } else if wave.min_devices == Some(0) {
            "at least one device is needed to judge a wave by"
        } else {
            wave.filter.parse::<Filter>()?;
            continue;
        };
        return Err(OrderError::Waves(rule));
    }
    Ok(if waves.is_empty() { vec![everybody()] } else { waves.to_vec() })
}

fn are_sound(gates: &ModelGates) -> bool {
    let shares = [
        gates.error_rise,
        gates.confidence_fall,
        gates.class_shift,
        gates.input_rise,
        gates.disagreement,
    ];
    let is_share = |share: &f64| (0.0..=1.0).contains(share);
    shares.iter().flatten().all(is_share)
        && gates.latency_rise.is_none_or(|rise| (0.0..=10.0).contains(&rise))
}

/// One wave for all.
pub(crate) fn everybody() -> WavePlan {
    WavePlan { name: "all".to_owned(), percent: Some(100.0), ..WavePlan::default() }
}

/// The trial that devices had with a version before, so that going back does not take longer than coming did.
pub(crate) fn trial_of(rollouts: &[RolloutRow], version: &Version) -> Trial {
    let earlier = rollouts.iter().find(|row| row.order.version == *version);
    earlier.map(|row| row.order.trial).unwrap_or_default()
}

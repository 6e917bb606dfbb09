//! Going back: for each version that devices go back to a rollout, all of one decision; and what they leave, not offered to them again.
//!
//! Where all devices of a model are meant, what they leave is put into quarantine, and rollouts of it end. Where some are meant, those
//! alone are not offered it any more, and rollouts of it go on without them. A rollout all of whose devices are taken back is reverting
//! until they have proved it.

mod decide;
mod history;
mod taken;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::api::{
    ModelGates, RollbackRequest, RollbackResult, RollbackStep, RollbackTarget, WavePlan,
};
use sealift_protocol::directive::{Behaviour, Shadow, Trial};
use sealift_protocol::id::{DeviceId, ModelName, RolloutId, UnixMillis, Version};

use crate::filter::Filter;
use crate::order::{self, Asker, OrderError, again_if_changed};
use crate::reconcile::begin;
use crate::rollout::Stage;
use crate::store::matching::Presence;
use crate::store::registry::VersionRow;
use crate::store::rollback::DeviceSet;
use crate::store::rollouts::{Order, Policy, RolloutRow};
use crate::store::scope::Placed;
use crate::store::{Change, StoreError, TenantStore};
use decide::{Candidate, Decision, Rollable, Served};
use history::History;
use taken::Taken;

/// Devices that stay as they are and are named one by one.
const UNTOUCHED_MAX: usize = 1_000;

/// Devices that are named one by one in a request.
const DEVICES_MAX: usize = 10_000;

/// Goes back, or says what going back would do.
pub(crate) async fn roll_back(
    store: &TenantStore,
    request: &RollbackRequest,
    presence: Presence,
    asker: Asker<'_>,
) -> Result<RollbackResult, OrderError> {
    order::required_reason(&request.reason)?;
    if request.devices.len() > DEVICES_MAX {
        return Err(OrderError::TooManyDevices(request.devices.len()));
    }
    again_if_changed(|| try_roll_back(store, request, presence, asker)).await
}

async fn try_roll_back(
    store: &TenantStore,
    request: &RollbackRequest,
    presence: Presence,
    asker: Asker<'_>,
) -> Result<RollbackResult, OrderError> {
    let model = &request.model;
    let placed = meant(store, request, presence).await?;
    let history = History::read(store, model).await?;
    let (decision, target) = match &request.to {
        RollbackTarget::Time(at) => (to_time(store, model, &placed, *at).await?, None),
        RollbackTarget::Version(version) => {
            order::rollable(store, model, version).await?;
            let decision = decide::to_version(&placed, version, |it, to| history.is_newer(it, to));
            (decision, Some(version.clone()))
        }
        RollbackTarget::Previous => {
            let previous = history.previous(&placed);
            let version = previous.ok_or_else(|| OrderError::NoEarlier(model.clone()))?;
            order::rollable(store, model, &version).await?;
            let decision = decide::to_version(&placed, &version, |it, to| history.is_newer(it, to));
            (decision, Some(version))
        }
    };
    if decision.steps.is_empty() {
        return Err(nothing(request, target, &decision));
    }
    let (store, request, by) = (store.clone(), request.clone(), asker.name.to_owned());
    let back = Back { store, request, history, decision, presence, by, now: asker.now };
    back.go().await
}

/// The devices that the request names and that have to do with the model.
async fn meant(
    store: &TenantStore,
    request: &RollbackRequest,
    presence: Presence,
) -> Result<Vec<Placed>, OrderError> {
    let filter: Filter = request.filter.parse()?;
    let mut placed = store.placed(&request.model, &filter, presence).await?;
    if request.devices.is_empty() {
        return Ok(placed);
    }
    let named: BTreeSet<&DeviceId> = request.devices.iter().collect();
    placed.retain(|device| named.contains(&device.device));
    let found: BTreeSet<&DeviceId> = placed.iter().map(|device| &device.device).collect();
    if let Some(missing) = named.difference(&found).next() {
        return Err(OrderError::NotPlaced((*missing).clone(), request.model.clone()));
    }
    Ok(placed)
}

/// Asks of each version once whether it may be run, and of each device what it ran.
async fn to_time(
    store: &TenantStore,
    model: &ModelName,
    placed: &[Placed],
    at: UnixMillis,
) -> Result<Decision, OrderError> {
    let served = store.served_at(model, at).await?;
    let floors = store.epoch_floors(model).await?;
    let mut versions: BTreeMap<Version, Result<Rollable, OrderError>> = BTreeMap::new();
    for image in served.values().flatten() {
        if !versions.contains_key(&image.version) {
            let rollable = match order::rollable(store, model, &image.version).await {
                Err(OrderError::Store(error)) => return Err(error.into()),
                answered => answered,
            };
            let known = |VersionRow { digest, epoch, .. }| Rollable { digest, epoch };
            versions.insert(image.version.clone(), rollable.map(known));
        }
    }
    let candidates = placed.iter().map(|device| Candidate {
        device,
        served: match served.get(&device.device) {
            Some(Some(image)) => Served::Image(image),
            Some(None) => Served::Nothing,
            None => Served::Unknown,
        },
        floor: floors.get(&device.device).copied().unwrap_or_default(),
    });
    Ok(decide::to_time(candidates, &versions, at))
}

/// What kept everybody who is meant where they are.
fn nothing(request: &RollbackRequest, target: Option<Version>, decision: &Decision) -> OrderError {
    let model = request.model.clone();
    match (target, decision.untouched.first()) {
        (Some(version), _) => OrderError::NothingToGoBackFrom { model, version },
        (None, Some(untouched)) => {
            let (device, why) = (untouched.device.clone(), untouched.why.clone());
            OrderError::NobodyGoesBack { model, device, why }
        }
        (None, None) => OrderError::NoDevices(request.filter.clone()),
    }
}

/// A decision that is carried out, or shown.
struct Back {
    store: TenantStore,
    request: RollbackRequest,
    history: History,
    decision: Decision,
    presence: Presence,
    by: String,
    now: UnixMillis,
}

/// One of the ways.
struct Way {
    order: Order,
    step: RollbackStep,
    devices: Vec<DeviceId>,
}

/// Another rollout of the model, and what becomes of it.
struct Other {
    row: RolloutRow,
    taken: Taken,
    /// All that it brought is taken back.
    is_reverting: bool,
    /// It was under way, and is not any more.
    ends: bool,
}

impl Back {
    async fn go(&self) -> Result<RollbackResult, OrderError> {
        let mut ways = self.ways().await?;
        let others = self.others().await?;
        if !self.request.dry_run {
            self.write(&mut ways, &others).await?;
        }
        ways.sort_by_key(|way| Reverse(way.step.devices));
        let steps: Vec<_> = ways.into_iter().map(|way| way.step).collect();
        let most = steps.first().cloned();
        let most = most.ok_or_else(|| nothing(&self.request, None, &self.decision))?;
        Ok(self.result(most, steps, &others))
    }

    /// Whether some devices are meant and not all.
    fn is_scoped(&self) -> bool {
        !self.request.filter.trim().is_empty() || !self.request.devices.is_empty()
    }

    /// Whether the devices of each way must be written down: a filter does not tell them apart.
    fn needs_sets(&self) -> bool {
        self.is_scoped() || self.decision.steps.len() > 1 || !self.decision.untouched.is_empty()
    }

    async fn ways(&self) -> Result<Vec<Way>, OrderError> {
        let mut ways = Vec::new();
        for (version, devices) in &self.decision.steps {
            let target = order::rollable(&self.store, &self.request.model, version).await?;
            let penalised = self.store.penalised(target.digest).await?;
            let has_it = |device: &&Placed| device.on_disk.contains(&target.digest);
            let is_penalised = |device: &&Placed| penalised.contains(&device.device);
            let step = RollbackStep {
                version: version.clone(),
                rollout: None,
                devices: count(devices.len()),
                without_download: count(devices.iter().filter(has_it).count()),
                penalised: count(devices.iter().filter(is_penalised).count()),
            };
            let devices = devices.iter().map(|placed| placed.device.clone()).collect();
            ways.push(Way { order: self.order(&target), step, devices });
        }
        Ok(ways)
    }

    fn order(&self, target: &VersionRow) -> Order {
        let version = target.version.clone();
        Order {
            model: self.request.model.clone(),
            digest: target.digest,
            epoch: target.epoch,
            filter: self.request.filter.clone(),
            // It goes on whatever happens on single devices: stopping would leave the others on the bad version.
            waves: vec![WavePlan {
                max_bad_share: Some(1.0),
                gates: ModelGates::off(),
                ..order::everybody()
            }],
            // Nor is going back undone where the server is not heard for a while, nor because an earlier version is slower.
            trial: Trial {
                lease_s: 0,
                window: None,
                behaviour: Behaviour::OFF,
                shadow: Shadow::OFF,
                ..order::trial_of(&self.history.rollouts, &version)
            },
            version,
            is_rollback: true,
            start_at: None,
            policy: Policy::default(),
            reason: self.request.reason.clone(),
            created_by: self.by.clone(),
        }
    }

    /// Rollouts that end: where all devices are meant, those of the model that share one with the way back or bring what is left; where
    /// some are meant, those that concern no others.
    async fn superseded(&self) -> Result<Vec<RolloutRow>, OrderError> {
        let mut rows = Vec::new();
        for row in self.store.live_rollouts().await? {
            if row.order.model != self.request.model || row.stage == Stage::Reverting {
                continue;
            }
            let theirs: Filter = row.order.filter.parse()?;
            let ends = if self.is_scoped() {
                self.concerns_no_others(&theirs).await?
            } else {
                let brings_what_is_left = self.decision.left.contains(&row.order.version);
                brings_what_is_left || self.store.count_devices(&theirs, self.presence).await? > 0
            };
            if ends {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// What becomes of each rollout of the model from which devices are taken, or which ends.
    async fn others(&self) -> Result<Vec<Other>, OrderError> {
        let mut taken = taken::from_each(&self.decision.steps);
        let followers = self.store.followers(&self.request.model).await?;
        let mut others = Vec::new();
        for row in self.superseded().await? {
            let taken = taken.remove(&row.id).unwrap_or_default();
            others.push(Other { is_reverting: taken.devices > 0, ends: true, row, taken });
        }
        for (id, taken) in taken {
            // One that is not written here came from a database that was lost.
            let Some(row) = self.store.rollout(id).await? else { continue };
            let followers = followers.get(&id).copied().unwrap_or_default();
            let is_reverting = taken::is_reverting(row.stage, false, taken.devices, followers);
            others.push(Other { is_reverting, ends: false, row, taken });
        }
        Ok(others)
    }

    /// Whether all devices of a filter are meant. One that was never heard of the model counts as another where devices are named: what
    /// is left is not offered to those that are.
    async fn concerns_no_others(&self, theirs: &Filter) -> Result<bool, OrderError> {
        let scope: Filter = self.request.filter.parse()?;
        let both = theirs.and(&scope);
        let all = self.store.count_devices(theirs, self.presence).await?;
        let named: BTreeSet<&DeviceId> = self.request.devices.iter().collect();
        let inside = if named.is_empty() {
            self.store.count_devices(&both, self.presence).await?
        } else {
            let placed = self.store.placed(&self.request.model, &both, self.presence).await?;
            count(placed.iter().filter(|device| named.contains(&device.device)).count())
        };
        Ok(all == inside)
    }

    /// All devices that are meant, also those that have nothing to do with the model yet.
    async fn scope(&self) -> Result<Vec<DeviceId>, OrderError> {
        if !self.request.devices.is_empty() {
            return Ok(self.request.devices.clone());
        }
        let filter: Filter = self.request.filter.parse()?;
        Ok(self.store.device_ids(&filter, self.presence).await?)
    }

    /// All of it or nothing: whoever goes back to several versions must not end half way.
    async fn write(&self, ways: &mut [Way], others: &[Other]) -> Result<(), OrderError> {
        let asker = Asker { name: &self.by, now: self.now };
        let scope = if self.is_scoped() { self.scope().await? } else { Vec::new() };
        let mut change = self.store.begin().await?;
        self.leave(&mut change, &scope).await?;
        for way in ways.iter_mut() {
            if self.needs_sets() {
                let set = change.add_set(&way.devices).await?;
                self.choose(&mut change, &mut way.order, set).await?;
            } else {
                change.clear_penalties(way.order.digest).await?;
            }
            let id = order::write(&mut change, &way.order, Stage::Running, asker).await?;
            way.step.rollout = Some(id);
        }
        self.end(&mut change, ways, others).await?;
        Ok(change.commit().await?)
    }

    /// Ends rollouts, or notes what takes them back.
    async fn end(
        &self,
        change: &mut Change,
        ways: &[Way],
        others: &[Other],
    ) -> Result<(), StoreError> {
        for Other { row, taken, is_reverting, ends } in others {
            let to = |way: &&Way| taken.to.contains(&way.step.version);
            let by: Vec<_> = ways.iter().filter(to).filter_map(|way| way.step.rollout).collect();
            if !by.is_empty() {
                let because = (self.by.as_str(), self.request.reason.as_str());
                let taken = (by.as_slice(), *is_reverting);
                begin::take_back(change, row, taken, because, self.now).await?;
            } else if let Some(first) = ways.iter().find_map(|way| way.step.rollout)
                && *ends
            {
                let row = std::slice::from_ref(row);
                begin::supersede(change, row, (first, &self.by), self.now).await?;
            }
        }
        Ok(())
    }

    /// What is left is not offered again: to nobody, or to nobody who was meant.
    async fn leave(&self, change: &mut Change, scope: &[DeviceId]) -> Result<(), StoreError> {
        let (model, reason) = (&self.request.model, self.request.reason.as_str());
        if !self.is_scoped() {
            for version in &self.decision.left {
                change.quarantine(model, version, reason, (&self.by, self.now)).await?;
            }
            return Ok(());
        }
        let scope = change.add_set(scope).await?;
        for version in &self.decision.left {
            change.penalise_version((scope, model), version, (reason, self.now)).await?;
        }
        Ok(())
    }

    /// Writes down who goes to one of the versions; what each of them leaves is not offered to it again.
    async fn choose(
        &self,
        change: &mut Change,
        order: &mut Order,
        set: DeviceSet,
    ) -> Result<(), StoreError> {
        order.filter = set.filter();
        change.clear_penalties_in(set, order.digest).await?;
        if self.is_scoped() {
            let why = (self.request.reason.as_str(), self.now);
            change.penalise_left((set, &order.model), order.digest, why).await?;
        }
        Ok(())
    }

    fn result(
        &self,
        most: RollbackStep,
        steps: Vec<RollbackStep>,
        others: &[Other],
    ) -> RollbackResult {
        let of = |wanted: fn(&Other) -> bool| -> Vec<RolloutId> {
            others.iter().filter(|other| wanted(other)).map(|other| other.row.id).collect()
        };
        let sum = |of: fn(&RollbackStep) -> u64| steps.iter().map(of).sum();
        RollbackResult {
            rollout: most.rollout,
            version: most.version,
            quarantined: self.decision.left.iter().cloned().collect(),
            is_quarantine_scoped: self.is_scoped(),
            devices: sum(|step| step.devices),
            without_download: sum(|step| step.without_download),
            superseded: of(|other| other.ends),
            reverting: of(|other| other.is_reverting),
            reverting_in_part: of(|other| !other.is_reverting && !other.ends),
            untouched_devices: count(self.decision.untouched.len()),
            untouched: self.decision.untouched.iter().take(UNTOUCHED_MAX).cloned().collect(),
            steps,
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

//! The loop that makes rollouts happen: load, plan, commit, wake the publisher. The only file that knows all steps.
//!
//! A plan is committed by compare-and-swap on the rollout's revision, together with the directives that follow from it: of two servers
//! one is late, and looks again.

pub(crate) mod begin;
mod look;
pub(crate) mod rehearse;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sealift_protocol::api::{DeviceProgress, EvidenceView, GateView, ReversionView};
use sealift_protocol::id::{DeviceId, RolloutId, UnixMillis};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::audit::Deed;
use crate::blobs::Blobs;
use crate::clock;
use crate::config::Retention;
use crate::directive::Director;
use crate::events::Hub;
use crate::filter::{Filter, InvalidFilter};
use crate::halt;
use crate::rollout::evidence::Observation;
use crate::rollout::{self, Fleet, Plan, Reversion, Rollout, Stage, WayBack, pace};
use crate::signals::Signals;
use crate::store::desired::Ordered;
use crate::store::halt::HaltRow;
use crate::store::matching::Presence;
use crate::store::rollouts::{RolloutRow, WaveRow, stage_words};
use crate::store::told::NewlyTold;
use crate::store::{Change, StoreError, TenantStore, word};

/// Devices told in one commit: about a tenth of a second of signing and writing, so that ingestion is not kept waiting.
const TOLD_MAX: usize = 500;
/// Commits of that size on one plan: after some seconds the fleet is looked at anew.
const PARTS_MAX: usize = 20;
/// Directives signed again in one turn.
const RENEWED_MAX: u32 = 200;
/// A turn may take a tenth of the time: with a large fleet the loop looks less often.
const REST_FACTOR: u32 = 9;
/// How often what is old is thrown away.
const HOUSEKEEPING_EVERY: Duration = Duration::from_mins(10);

/// Why a rollout was not brought further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The store.
    #[error("rollouts cannot be brought further")]
    Store(#[from] StoreError),
    /// A stored filter that is none any more.
    #[error("rollout {rollout} has a filter that is not understood")]
    Filter {
        /// Which rollout.
        rollout: RolloutId,
        /// Why.
        #[source]
        source: InvalidFilter,
    },
}

/// Times that rollouts depend on.
#[expect(clippy::struct_field_names, reason = "the unit stands last in every name")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// A device that was told something and says nothing for this long is bad.
    pub(crate) silent_after_ms: i64,
    /// A device from which nothing came for this long is offline.
    pub(crate) offline_after_ms: i64,
    /// How long after its signing a directive may be begun.
    pub(crate) directive_valid_ms: i64,
}

impl Patience {
    /// How devices look at a moment.
    pub(crate) const fn presence(&self, now: UnixMillis) -> Presence {
        Presence { now, offline_after_ms: self.offline_after_ms }
    }
}

/// Brings rollouts further; cheap to clone.
#[derive(Clone)]
pub(crate) struct Reconciler {
    store: TenantStore,
    director: Arc<Director>,
    patience: Patience,
    signals: Signals,
    hub: Hub,
    images: Option<Blobs>,
    retention: Retention,
}

impl Reconciler {
    /// A reconciler of one tenant.
    pub(crate) fn new(
        store: TenantStore,
        director: Arc<Director>,
        patience: Patience,
        signals: Signals,
        hub: Hub,
    ) -> Self {
        let retention = Retention::default();
        Self { store, director, patience, signals, hub, images: None, retention }
    }

    /// With the images at hand, for what is foreseen of them.
    pub(crate) fn with_images(self, images: Blobs) -> Self {
        Self { images: Some(images), ..self }
    }

    /// With other times for which old rows are kept.
    pub(crate) fn with_retention(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    /// Looks every `pause`, and whenever it is woken; never returns.
    pub(crate) async fn run(self, pause: Duration) {
        let mut housekeeping = interval(HOUSEKEEPING_EVERY);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.signals.orders().notified() => (),
                () = self.signals.rollouts().notified() => (),
                () = sleep(pause) => (),
                _ = housekeeping.tick() => self.keep_house().await,
            }
            let begun = clock::now();
            match self.turn(begun).await {
                Ok(true) => {
                    self.signals.rollouts().notify_one();
                    continue;
                }
                Ok(false) => (),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "rollouts wait");
                }
            }
            let took = clock::now().since(begun).max(0).unsigned_abs();
            let rest = Duration::from_millis(took).saturating_mul(REST_FACTOR).min(pause * 10);
            tokio::select! {
                () = sleep(rest) => (),
                // Nobody who decides something waits for a rest that is taken from the reports of a large fleet.
                () = self.signals.orders().notified() => self.signals.orders().notify_one(),
            }
        }
    }

    /// One look at everything: every live rollout, and directives that get old. Returns whether there is more to do at once.
    pub(crate) async fn turn(&self, now: UnixMillis) -> Result<bool, ReconcileError> {
        let mut has_more = halt::renew(&self.store, &self.director, now).await?;
        let mut rows = self.store.live_rollouts().await?;
        // To read a large fleet takes a second: who goes back does not wait for what is gone back from to be looked at.
        rows.sort_by_key(|row| !row.order.is_rollback);
        for row in rows {
            has_more |= match self.step(&row, now).await {
                // Another server or an operator was quicker; the next turn sees what they did.
                Err(ReconcileError::Store(StoreError::Changed(_))) => true,
                ended => ended?,
            };
        }
        self.renew_directives(now).await?;
        Ok(has_more)
    }

    /// Where rollouts are stored.
    pub(crate) const fn store(&self) -> &TenantStore {
        &self.store
    }

    /// What is planned for a rollout at this moment; nothing is changed.
    pub(crate) async fn look(
        &self,
        row: &RolloutRow,
        now: UnixMillis,
    ) -> Result<Plan, ReconcileError> {
        let fleet = self.fleet(row, now).await?;
        let mut rollout = self.rollout(row);
        rollout.reverted_by = self.ways_back(row).await?;
        compare(&mut rollout, row, self.store.observation(row.id).await?.as_ref());
        Ok(plan(&rollout, &fleet, &self.store.halt().await?, now))
    }

    /// A rollout as the planner wants to know it.
    pub(crate) fn rollout(&self, row: &RolloutRow) -> Rollout {
        let wave = |wave: &WaveRow| rollout::Wave {
            plan: wave.plan.clone(),
            standing: wave.standing(),
            comparisons: Vec::new(),
        };
        Rollout {
            id: row.id,
            turn: row.turn,
            image: row.order.digest,
            waves: row.waves.iter().map(wave).collect(),
            stage: row.stage,
            probation_ms: i64::from(row.order.trial.probation_s) * 1_000,
            shadow_ms: i64::from(row.order.trial.shadow.span_s) * 1_000,
            silent_after_ms: self.patience.silent_after_ms,
            is_rollback: row.order.is_rollback,
            held_from: row.held_from,
            start_at: row.order.start_at,
            budget: row.order.policy.budget.clone(),
            tail_ms: i64::from(row.order.policy.tail_s()) * 1_000,
            // Where they are is read only where it is asked for.
            reverted_by: Vec::new(),
        }
    }

    /// The rollbacks that take a rollout back, as they are now.
    async fn ways_back(&self, row: &RolloutRow) -> Result<Vec<WayBack>, ReconcileError> {
        let mut ways = Vec::new();
        if matches!(row.stage, Stage::Reverting | Stage::Reverted) {
            for &id in &row.revert.by {
                let way = self.store.rollout(id).await?;
                ways.extend(way.map(|way| WayBack { id, stage: way.stage }));
            }
        }
        Ok(ways)
    }

    async fn fleet(&self, row: &RolloutRow, now: UnixMillis) -> Result<Fleet, ReconcileError> {
        let filter: Filter = row
            .order
            .filter
            .parse()
            .map_err(|source| ReconcileError::Filter { rollout: row.id, source })?;
        Ok(self.store.fleet(row, &filter, self.patience.presence(now)).await?)
    }

    /// Brings one rollout further. Returns whether there is more to do at once.
    async fn step(&self, row: &RolloutRow, now: UnixMillis) -> Result<bool, ReconcileError> {
        let halted = self.store.halt().await?;
        let (looked, foreseen) = self.looked_over(row, now).await?;
        let fleet = self.fleet(row, now).await?;
        let mut rollout = self.rollout(&looked);
        rollout.reverted_by = self.ways_back(row).await?;
        let known = self.store.observation(row.id).await?;
        let seen = self.observe(row, (&rollout, &fleet), known.clone(), now).await?;
        compare(&mut rollout, row, seen.as_ref().or(known.as_ref()));
        let plan = plan(&rollout, &fleet, &halted, now);
        let mut next = planned_row(&looked, &plan);
        let room = pace::room(&rollout, &fleet, &plan, now);
        let tell = plan.tell.get(..room).unwrap_or(&plan.tell);
        let acts = !tell.is_empty() || !plan.countersign.is_empty();
        if next == *row && !acts && seen.is_none() {
            return Ok(false);
        }
        let superseded = if begin::begins(row.stage, next.stage) {
            self.taken_over(row, now).await?
        } else {
            Vec::new()
        };
        let mut change = self.store.begin().await?;
        not_halted_since(&mut change, &halted).await?;
        begin::supersede(&mut change, &superseded, (row.id, "server"), now).await?;
        change.save_rollout(&next, now).await?;
        self.note_course(&mut change, (row, &next), foreseen.as_ref(), now).await?;
        if let Some(seen) = &seen {
            change.save_observation(row.id, seen).await?;
        }
        let seen_on_trial = plan.countersign.iter().take(TOLD_MAX).cloned().collect();
        change.countersign(&seen_on_trial, &self.director, now).await?;
        if next.stage != row.stage {
            audit_stage(&mut change, &next, now).await?;
        }
        change.commit().await?;
        if !plan.countersign.is_empty() {
            self.signals.directives().notify_one();
        }
        log_stage(row, &next);
        for part in tell.chunks(TOLD_MAX).take(PARTS_MAX) {
            next.revision += 1;
            self.tell(&next, part, (&fleet, &halted), now).await?;
        }
        self.hub.touch_rollout(row.id);
        Ok(tell.len() > TOLD_MAX * PARTS_MAX || plan.countersign.len() > TOLD_MAX)
    }

    /// Tells some devices, in one commit that fails if the rollout was changed since it was planned.
    async fn tell(
        &self,
        row: &RolloutRow,
        part: &[(DeviceId, usize)],
        (fleet, halted): (&Fleet, &HaltRow),
        now: UnixMillis,
    ) -> Result<(), ReconcileError> {
        let waves: BTreeMap<_, _> = part.iter().map(|(device, wave)| (device, *wave)).collect();
        let devices: BTreeSet<_> = waves.keys().copied().cloned().collect();
        let slot = row.order.slot(row.id);
        let mut change = self.store.begin().await?;
        not_halted_since(&mut change, halted).await?;
        change.save_rollout(row, now).await?;
        let ordered = change.tell(&devices, &slot, &self.director, now).await?;
        let told = ordered.into_iter().map(|(device, Ordered { generation, before })| {
            let served = fleet.get(&device).map(|device| device.served).unwrap_or_default();
            let wave = waves.get(&device).copied().unwrap_or_default();
            NewlyTold { device, wave, generation, served, before }
        });
        change.add_told(row.id, &told.collect::<Vec<_>>(), now).await?;
        change.commit().await?;
        self.signals.directives().notify_one();
        for device in devices {
            self.hub.touch_device(device);
        }
        Ok(())
    }

    /// A device that was away when it was told must still be able to begin: its directive is signed again at half of its life, and once
    /// the director's key is replaced.
    async fn renew_directives(&self, now: UnixMillis) -> Result<(), ReconcileError> {
        let half_life = now.plus(-self.patience.directive_valid_ms / 2);
        let signer = self.director.newest_signer();
        let stale = self.store.stale_directives(half_life, signer.as_ref(), RENEWED_MAX).await?;
        if stale.is_empty() {
            return Ok(());
        }
        let mut change = self.store.begin().await?;
        change.renew_directives(&stale, &self.director, now).await?;
        change.commit().await?;
        self.signals.directives().notify_one();
        Ok(())
    }

    async fn keep_house(&self) {
        let thrown = async {
            let mut change = self.store.begin().await?;
            let gone = change.throw_away(self.retention, clock::now()).await?;
            change.commit().await?;
            Ok::<_, StoreError>(gone)
        };
        match thrown.await {
            Ok(rows) => tracing::debug!(rows, "old rows thrown away"),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "old rows not thrown away"
                );
            }
        }
    }
}

fn plan(rollout: &Rollout, fleet: &Fleet, halted: &HaltRow, now: UnixMillis) -> Plan {
    match halted.halt.as_ref().filter(|halt| halt.stops(rollout)) {
        Some(halt) => halt.plan(rollout, fleet, now),
        None => rollout::plan(rollout, fleet, now),
    }
}

/// Whoever halts waits for a commit that tells devices, or is seen by it: nobody is told after a halt.
async fn not_halted_since(change: &mut Change, seen: &HaltRow) -> Result<(), StoreError> {
    let is_same = change.lock_halt().await? == seen.sequence;
    if is_same { Ok(()) } else { Err(StoreError::Changed("halt")) }
}

/// Puts what is known of canaries and controls beside the waves.
fn compare(rollout: &mut Rollout, row: &RolloutRow, known: Option<&Observation>) {
    let compared = known.map(|known| look::comparisons(row, known)).unwrap_or_default();
    for (wave, comparisons) in rollout.waves.iter_mut().zip(compared) {
        wave.comparisons = comparisons;
    }
}

/// The row as it should be after `plan`.
fn planned_row(row: &RolloutRow, plan: &Plan) -> RolloutRow {
    let mut next = row.clone();
    next.stage = plan.stage;
    let stands = matches!(row.stage, Stage::Halted | Stage::Draft) && plan.stage == row.stage;
    if !stands {
        // What it was halted on, or found wanting, stays written until somebody decides.
        next.why.clone_from(&plan.why);
    }
    for (wave, reading) in next.waves.iter_mut().zip(&plan.waves) {
        wave.set_standing(reading.standing);
        (wave.devices, wave.succeeded, wave.bad) =
            (reading.devices, reading.succeeded, reading.bad);
        let gate = |gate: &rollout::Gate| GateView {
            name: gate.name.to_owned(),
            value: gate.value,
            limit: gate.limit,
            passed: gate.is_held,
            evidence: gate.comparison.map(evidence_view),
        };
        wave.gates = reading.gates.iter().map(gate).collect();
    }
    let mut progress: BTreeMap<DeviceProgress, u64> = BTreeMap::new();
    for position in plan.devices.values() {
        *progress.entry(position.progress).or_default() += 1;
    }
    next.progress = progress;
    next.revert.reversion = plan.reversion.map(reversion_view);
    next
}

const fn reversion_view(reversion: Reversion) -> ReversionView {
    let Reversion { back, at_work, offline, bad, kept } = reversion;
    ReversionView { back, at_work, offline, bad, kept }
}

fn evidence_view(comparison: rollout::Comparison) -> EvidenceView {
    EvidenceView {
        control: comparison.control,
        e_value: comparison.e_value,
        e_limit: comparison.limit,
        is_against_past: comparison.is_against_past,
        text: comparison.to_string(),
    }
}

async fn audit_stage(
    change: &mut Change,
    next: &RolloutRow,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let state = word("state", &stage_words(next.stage).0)?;
    let (action, subject) = (format!("rollout.{state}"), next.id.to_string());
    let deed = Deed {
        actor: "server",
        action: &action,
        subject: &subject,
        reason: None,
        detail: &next.why,
    };
    change.audit(&deed, now).await
}

fn log_stage(row: &RolloutRow, next: &RolloutRow) {
    if next.stage != row.stage {
        let (rollout, why) = (row.id, next.why.as_str());
        tracing::info!(%rollout, stage = ?next.stage, why, "rollout changed");
    }
}

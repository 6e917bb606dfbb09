//! Rollouts. A rollout's row carries a revision: whoever changes it must have seen the newest.

use std::collections::BTreeMap;

use sealift_protocol::api::{
    Budget, Campaign, DeviceProgress, Finding, GateView, LateView, ReversionView, RolloutState,
    WavePlan, WaveState,
};
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{DesiredSlot, Trial};
use sealift_protocol::id::{DeviceId, Epoch, ModelName, RolloutId, TenantId, UnixMillis, Version};
use serde::{Deserialize, Serialize};

use super::late::LateRow;
use super::{
    Change, StoreError, TenantStore, corrupt, from_json, from_word, parsed, signed, to_json,
    unsigned, word,
};
use crate::rollout::{Stage, Standing, TAIL_S};

/// A rollout as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RolloutRow {
    /// Its number.
    pub(crate) id: RolloutId,
    /// What it was made of.
    pub(crate) order: Order,
    /// Where it is.
    pub(crate) stage: Stage,
    /// Where its waves are, and how they did when somebody last looked.
    pub(crate) waves: Vec<WaveRow>,
    /// How many devices were where.
    pub(crate) progress: BTreeMap<DeviceProgress, u64>,
    /// Why it is where it is.
    pub(crate) why: String,
    /// When it was made.
    pub(crate) created_at: UnixMillis,
    /// When it ended.
    pub(crate) finished_at: Option<UnixMillis>,
    /// Digest over its order; none for one that was made before there were any.
    pub(crate) campaign: Option<Digest>,
    /// Whether an operator has put a second signature under it.
    pub(crate) is_cosigned: bool,
    /// Rises with each change.
    pub(crate) revision: i64,
    /// The first wave, from 0, that waits for approval.
    pub(crate) held_from: Option<usize>,
    /// Who approved it.
    pub(crate) approved_by: Option<String>,
    /// Its place among all, by when they were started.
    pub(crate) turn: u64,
    /// What was found when it was last looked over.
    pub(crate) findings: Vec<Finding>,
    /// What takes it back, and how far that is.
    pub(crate) revert: Revert,
    /// The devices that took it back after its end, if any did.
    pub(crate) late: Option<LateView>,
}

/// What takes a rollout back, as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Revert {
    /// The rollbacks that took devices from it, oldest first.
    pub(crate) by: Vec<RolloutId>,
    /// How far its devices are; none where others keep what it brought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reversion: Option<ReversionView>,
}

/// What an operator has asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    /// The model.
    pub(crate) model: ModelName,
    /// The version.
    pub(crate) version: Version,
    /// Digest of its index.
    pub(crate) digest: Digest,
    /// Its security epoch.
    pub(crate) epoch: Epoch,
    /// Which devices.
    pub(crate) filter: String,
    /// Its steps; at least one.
    pub(crate) waves: Vec<WavePlan>,
    /// How each device tries it.
    pub(crate) trial: Trial,
    /// Whether it goes back to an earlier version.
    pub(crate) is_rollback: bool,
    /// Before this nobody is told.
    pub(crate) start_at: Option<UnixMillis>,
    /// What else was asked for.
    pub(crate) policy: Policy,
    /// Why.
    pub(crate) reason: String,
    /// Who.
    pub(crate) created_by: String,
}

/// What was asked for besides, as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Policy {
    /// How many devices may be at work at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<Budget>,
    /// Seconds for which devices that were offline may catch up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tail_s: Option<u32>,
    /// Who wrote the draft that somebody else started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) written_by: Option<String>,
}

impl Policy {
    /// Seconds for which devices that were offline may catch up.
    pub(crate) fn tail_s(&self) -> u32 {
        self.tail_s.unwrap_or(TAIL_S)
    }
}

/// A wave as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WaveRow {
    /// The plan.
    pub(crate) plan: WavePlan,
    /// Where it is.
    pub(crate) state: WaveState,
    /// When it was opened.
    #[serde(default)]
    pub(crate) opened_at: Option<UnixMillis>,
    /// Until when it is watched.
    #[serde(default)]
    pub(crate) soak_until: Option<UnixMillis>,
    /// Devices in it.
    #[serde(default)]
    pub(crate) devices: u64,
    /// How many are done well.
    #[serde(default)]
    pub(crate) succeeded: u64,
    /// How many are bad.
    #[serde(default)]
    pub(crate) bad: u64,
    /// Its gates.
    #[serde(default)]
    pub(crate) gates: Vec<GateView>,
}

impl WaveRow {
    /// A wave that has not begun.
    pub(crate) const fn new(plan: WavePlan) -> Self {
        Self {
            plan,
            state: WaveState::Pending,
            opened_at: None,
            soak_until: None,
            devices: 0,
            succeeded: 0,
            bad: 0,
            gates: Vec::new(),
        }
    }

    /// Where it is, as the planner wants to know it.
    pub(crate) fn standing(&self) -> Standing {
        let since = self.opened_at.unwrap_or_default();
        match self.state {
            WaveState::Pending => Standing::Pending,
            WaveState::Open => Standing::Open { since },
            WaveState::Soaking => {
                Standing::Soaking { since, until: self.soak_until.unwrap_or_default() }
            }
            WaveState::Evaluating => Standing::Evaluating { since },
            WaveState::Passed => Standing::Passed { since },
            WaveState::Failed => Standing::Failed { since },
        }
    }

    /// Puts it where the planner says.
    pub(crate) fn set_standing(&mut self, standing: Standing) {
        self.opened_at = standing.since();
        self.state = match standing {
            Standing::Pending => WaveState::Pending,
            Standing::Open { .. } => WaveState::Open,
            Standing::Soaking { until, .. } => {
                self.soak_until = Some(until);
                WaveState::Soaking
            }
            Standing::Evaluating { .. } => WaveState::Evaluating,
            Standing::Passed { .. } => WaveState::Passed,
            Standing::Failed { .. } => WaveState::Failed,
        };
    }
}

impl Order {
    /// What each of its devices is told.
    pub(crate) fn slot(&self, rollout: RolloutId) -> DesiredSlot {
        DesiredSlot {
            epoch: self.epoch,
            trial: self.trial,
            rollout: Some(rollout),
            ..DesiredSlot::new(self.model.clone(), self.version.clone(), self.digest)
        }
    }
}

#[derive(sqlx::FromRow)]
struct Raw {
    number: i64,
    model: String,
    version: String,
    digest: String,
    epoch: i64,
    filter: String,
    trial: String,
    state: String,
    since: i64,
    waves: String,
    progress: String,
    why: String,
    is_rollback: i64,
    reason: String,
    created_by: String,
    created_at: i64,
    finished_at: Option<i64>,
    campaign: String,
    cosignature: String,
    revision: i64,
    held_from: Option<i64>,
    approved_by: Option<String>,
    start_at: Option<i64>,
    turn: i64,
    policy: String,
    findings: String,
    revert: String,
    #[sqlx(flatten)]
    late: LateRow,
}

impl TenantStore {
    /// One rollout.
    pub(crate) async fn rollout(&self, id: RolloutId) -> Result<Option<RolloutRow>, StoreError> {
        let raw: Option<Raw> =
            sqlx::query_as("SELECT * FROM rollouts WHERE tenant = $1 AND number = $2")
                .bind(self.id().to_owned())
                .bind(signed("rollout", id.0)?)
                .fetch_optional(self.readers())
                .await?;
        raw.map(row).transpose()
    }

    /// A page of rollouts, newest first, of numbers below `before`; of one model, if given.
    pub(crate) async fn rollouts(
        &self,
        model: Option<&ModelName>,
        before: Option<RolloutId>,
        limit: u32,
    ) -> Result<Vec<RolloutRow>, StoreError> {
        let before = before.and_then(|id| i64::try_from(id.0).ok()).unwrap_or(i64::MAX);
        let rows: Vec<Raw> = sqlx::query_as(
            "SELECT * FROM rollouts WHERE tenant = $1 AND (model = $2 OR $2 = '') AND number < $3
             ORDER BY number DESC LIMIT $4",
        )
        .bind(self.id().to_owned())
        .bind(model.map(ToString::to_string).unwrap_or_default())
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(row).collect()
    }

    /// How many rollouts there are, of one model or of all.
    pub(crate) async fn count_rollouts(
        &self,
        model: Option<&ModelName>,
    ) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM rollouts WHERE tenant = $1 AND (model = $2 OR $2 = '')",
        )
        .bind(self.id().to_owned())
        .bind(model.map(ToString::to_string).unwrap_or_default())
        .fetch_one(self.readers())
        .await?;
        unsigned("count", count)
    }

    /// Rollouts that are started and not over, oldest first.
    pub(crate) async fn live_rollouts(&self) -> Result<Vec<RolloutRow>, StoreError> {
        let rows: Vec<Raw> = sqlx::query_as(
            "SELECT * FROM rollouts WHERE tenant = $1 AND finished_at IS NULL
             AND state <> 'draft' ORDER BY turn",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(row).collect()
    }
}

impl TenantStore {
    /// Devices that a rollout has told and that have not followed yet.
    pub(crate) async fn devices_before(&self, id: RolloutId) -> Result<Vec<DeviceId>, StoreError> {
        let devices: Vec<String> = sqlx::query_scalar(
            "SELECT t.device FROM told t JOIN devices d ON d.tenant = t.tenant AND d.id = t.device
             WHERE t.tenant = $1 AND t.rollout = $2 AND d.reported_generation < d.generation
             ORDER BY t.device",
        )
        .bind(self.id().to_owned())
        .bind(signed("rollout", id.0)?)
        .fetch_all(self.readers())
        .await?;
        devices.iter().map(|device| parsed("device", device)).collect()
    }
}

impl Change {
    /// Keeps an operator's signature under a rollout.
    pub(crate) async fn set_cosignature(
        &mut self,
        id: RolloutId,
        cosignature: &str,
    ) -> Result<(), StoreError> {
        let (number, cosignature) = (signed("rollout", id.0)?, cosignature.to_owned());
        self.run("UPDATE rollouts SET cosignature = $3 WHERE tenant = $1 AND number = $2", |it| {
            it.bind(number).bind(cosignature)
        })
        .await?;
        Ok(())
    }

    /// Writes a new rollout.
    pub(crate) async fn add_rollout(
        &mut self,
        order: &Order,
        stage: Stage,
        now: UnixMillis,
    ) -> Result<RolloutId, StoreError> {
        let id = self.next_number("rollout").await?;
        let text = OrderText::of(self.tenant(), RolloutId(id), order)?;
        let (number, begun_as) = (signed("rollout", id)?, word("state", &stage_words(stage).0)?);
        let order = order.clone();
        self.run(
            "INSERT INTO rollouts (tenant, number, model, version, digest, epoch, filter, trial,
             state, since, waves, progress, why, is_rollback, reason, created_by, created_at,
             campaign, start_at, policy, turn)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $16, 0, $10, '{}', 'just made', $11,
             $12, $13, $9, $14, $15, $17, $2)",
            |it| {
                let it = it.bind(number).bind(text.model).bind(text.version).bind(text.digest);
                let it = it.bind(text.epoch).bind(order.filter).bind(text.trial).bind(now.0);
                let it = it.bind(text.waves).bind(i64::from(order.is_rollback)).bind(order.reason);
                let it = it.bind(order.created_by).bind(text.campaign);
                it.bind(order.start_at.map(|at| at.0)).bind(begun_as).bind(text.policy)
            },
        )
        .await?;
        Ok(RolloutId(id))
    }

    /// Puts another order in the place of a draft's, if nobody else has changed it since `row` was read.
    pub(crate) async fn rewrite_rollout(
        &mut self,
        row: &RolloutRow,
        order: &Order,
    ) -> Result<(), StoreError> {
        let text = OrderText::of(self.tenant(), row.id, order)?;
        let (number, revision, order) = (signed("rollout", row.id.0)?, row.revision, order.clone());
        let saved = self
            .run(
                "UPDATE rollouts SET model = $4, version = $5, digest = $6, epoch = $7,
                 filter = $8, trial = $9, waves = $10, reason = $11, created_by = $12,
                 campaign = $13, start_at = $14, policy = $15, revision = revision + 1
                 WHERE tenant = $1 AND number = $2 AND revision = $3 AND state = 'draft'",
                |it| {
                    let it = it.bind(number).bind(revision).bind(text.model).bind(text.version);
                    let it = it.bind(text.digest).bind(text.epoch).bind(order.filter);
                    let it = it.bind(text.trial).bind(text.waves).bind(order.reason);
                    let it = it.bind(order.created_by).bind(text.campaign);
                    it.bind(order.start_at.map(|at| at.0)).bind(text.policy)
                },
            )
            .await?;
        if saved == 1 { Ok(()) } else { Err(StoreError::Changed("rollout")) }
    }

    /// Puts a rollout behind all that were started before, and returns its place.
    pub(crate) async fn take_turn(&mut self, id: RolloutId) -> Result<u64, StoreError> {
        let turn = self.next_number("rollout").await?;
        let (number, place) = (signed("rollout", id.0)?, signed("turn", turn)?);
        let statement = "UPDATE rollouts SET turn = $3 WHERE tenant = $1 AND number = $2";
        self.run(statement, |it| it.bind(number).bind(place)).await?;
        Ok(turn)
    }

    /// Holds the waves of a new rollout, from one on, until somebody approves.
    pub(crate) async fn hold_rollout(
        &mut self,
        id: RolloutId,
        from: u32,
    ) -> Result<(), StoreError> {
        let number = signed("rollout", id.0)?;
        let statement = "UPDATE rollouts SET held_from = $3 WHERE tenant = $1 AND number = $2";
        self.run(statement, |it| it.bind(number).bind(i64::from(from))).await?;
        Ok(())
    }

    /// Writes where a rollout is now, if nobody else did since `row` was read. Whoever is late looks again.
    pub(crate) async fn save_rollout(
        &mut self,
        row: &RolloutRow,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let (state, since) = stage_words(row.stage);
        let state = word("state", &state)?;
        let (waves, progress) =
            (to_json("waves", &row.waves)?, to_json("progress", &row.progress)?);
        let finished_at = row.stage.is_over().then_some(row.finished_at.unwrap_or(now).0);
        let (number, revision, why) = (signed("rollout", row.id.0)?, row.revision, row.why.clone());
        let held_from = row.held_from.and_then(|wave| i64::try_from(wave).ok());
        let approved_by = row.approved_by.clone();
        let findings = to_json("findings", &row.findings)?;
        let revert = to_json("revert", &row.revert)?;
        let saved = self
            .run(
                "UPDATE rollouts SET state = $4, since = $5, waves = $6, progress = $7, why = $8,
                 finished_at = $9, held_from = $10, approved_by = $11, findings = $12,
                 revert = $13, revision = revision + 1
                 WHERE tenant = $1 AND number = $2 AND revision = $3",
                |it| {
                    let it = it.bind(number).bind(revision).bind(state).bind(since.0).bind(waves);
                    let it = it.bind(progress).bind(why).bind(finished_at);
                    it.bind(held_from).bind(approved_by).bind(findings).bind(revert)
                },
            )
            .await?;
        if saved == 1 { Ok(()) } else { Err(StoreError::Changed("rollout")) }
    }
}

/// An order's columns that are not plain text.
struct OrderText {
    model: String,
    version: String,
    digest: String,
    epoch: i64,
    trial: String,
    waves: String,
    campaign: String,
    policy: String,
}

impl OrderText {
    fn of(tenant: &TenantId, id: RolloutId, order: &Order) -> Result<Self, StoreError> {
        let waves: Vec<_> = order.waves.iter().cloned().map(WaveRow::new).collect();
        Ok(Self {
            model: order.model.to_string(),
            version: order.version.to_string(),
            digest: order.digest.to_string(),
            epoch: signed("epoch", order.epoch.0)?,
            trial: to_json("trial", &order.trial)?,
            waves: to_json("waves", &waves)?,
            campaign: campaign(tenant, id, order)?,
            policy: to_json("policy", &order.policy)?,
        })
    }
}

fn campaign(tenant: &TenantId, rollout: RolloutId, order: &Order) -> Result<String, StoreError> {
    let campaign = Campaign {
        tenant,
        rollout,
        model: &order.model,
        version: &order.version,
        index: order.digest,
        filter: &order.filter,
        waves: &order.waves,
        trial: order.trial,
        is_rollback: order.is_rollback,
        requester: &order.created_by,
        budget: order.policy.budget.as_ref(),
    };
    let digest = campaign.digest().map_err(|error| corrupt("campaign", &error.to_string()))?;
    Ok(digest.to_string())
}

/// A stage as its word and its time.
pub(crate) const fn stage_words(stage: Stage) -> (RolloutState, UnixMillis) {
    match stage {
        Stage::Draft => (RolloutState::Draft, UnixMillis(0)),
        Stage::Preflight => (RolloutState::Preflight, UnixMillis(0)),
        Stage::AwaitingApproval => (RolloutState::AwaitingApproval, UnixMillis(0)),
        Stage::Scheduled => (RolloutState::Scheduled, UnixMillis(0)),
        Stage::Running => (RolloutState::Running, UnixMillis(0)),
        Stage::Paused => (RolloutState::Paused, UnixMillis(0)),
        Stage::Halted => (RolloutState::Halted, UnixMillis(0)),
        Stage::Completing { since } => (RolloutState::Completing, since),
        Stage::Succeeded => (RolloutState::Succeeded, UnixMillis(0)),
        Stage::Aborted => (RolloutState::Aborted, UnixMillis(0)),
        Stage::Superseded => (RolloutState::Superseded, UnixMillis(0)),
        Stage::Reverting => (RolloutState::Reverting, UnixMillis(0)),
        Stage::Reverted => (RolloutState::Reverted, UnixMillis(0)),
    }
}

fn stage(word: &str, since: UnixMillis) -> Result<Stage, StoreError> {
    Ok(match from_word("state", word)? {
        RolloutState::Draft => Stage::Draft,
        RolloutState::Preflight => Stage::Preflight,
        RolloutState::AwaitingApproval => Stage::AwaitingApproval,
        RolloutState::Scheduled => Stage::Scheduled,
        RolloutState::Running => Stage::Running,
        RolloutState::Paused => Stage::Paused,
        RolloutState::Halted => Stage::Halted,
        RolloutState::Completing => Stage::Completing { since },
        RolloutState::Succeeded => Stage::Succeeded,
        RolloutState::Aborted => Stage::Aborted,
        RolloutState::Superseded => Stage::Superseded,
        RolloutState::Reverting => Stage::Reverting,
        RolloutState::Reverted => Stage::Reverted,
        // Rule: of what a newer server has written nothing is guessed.
        RolloutState::Unknown => return Err(corrupt("state", word)),
    })
}

fn row(raw: Raw) -> Result<RolloutRow, StoreError> {
    let waves: Vec<WaveRow> = from_json("waves", &raw.waves)?;
    let order = Order {
        model: parsed("model", &raw.model)?,
        version: parsed("version", &raw.version)?,
        digest: parsed("digest", &raw.digest)?,
        epoch: Epoch(unsigned("epoch", raw.epoch)?),
        filter: raw.filter,
        waves: waves.iter().map(|wave| wave.plan.clone()).collect(),
        trial: from_json("trial", &raw.trial)?,
        is_rollback: raw.is_rollback != 0,
        start_at: raw.start_at.map(UnixMillis),
        policy: from_json("policy", &raw.policy)?,
        reason: raw.reason,
        created_by: raw.created_by,
    };
    Ok(RolloutRow {
        id: RolloutId(unsigned("rollout", raw.number)?),
        order,
        stage: stage(&raw.state, UnixMillis(raw.since))?,
        waves,
        progress: from_json("progress", &raw.progress)?,
        why: raw.why,
        created_at: UnixMillis(raw.created_at),
        finished_at: raw.finished_at.map(UnixMillis),
        campaign: digest_of(&raw.campaign)?,
        is_cosigned: !raw.cosignature.is_empty(),
        revision: raw.revision,
        held_from: raw.held_from.and_then(|wave| usize::try_from(wave).ok()),
        approved_by: raw.approved_by,
        turn: unsigned("turn", raw.turn)?,
        findings: from_json("findings", &raw.findings)?,
        revert: from_json("revert", &raw.revert)?,
        late: raw.late.view()?,
    })
}

/// The digest of a rollout; rows of before there were any have none.
pub(super) fn digest_of(campaign: &str) -> Result<Option<Digest>, StoreError> {
    if campaign.is_empty() { Ok(None) } else { parsed("campaign", campaign).map(Some) }
}

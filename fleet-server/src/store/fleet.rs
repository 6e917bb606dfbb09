//! The devices of one rollout, as the planner wants to know them.

use futures_util::TryStreamExt as _;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, Generation, RolloutId, UnixMillis};
use sealift_protocol::report::SlotReport;
use sqlx::AssertSqlSafe;

use super::devices::stored_report;
use super::matching::Presence;
use super::rollouts::RolloutRow;
use super::{StoreError, TenantStore, corrupt, parsed, unsigned};
use crate::filter::Filter;
use crate::limits::WAVES_MAX;
use crate::rollout::{
    Desired, DeviceView, Failure, Fleet, Outcome, Refused, Served, Slot, Stage, Told,
};

/// What the rollout that a device should follow now has told it: asked for only where a rollout is taken back.
const TOLD_BY_OWNER: (&str, &str) = (
    "n.wave AS now_wave, n.generation AS now_generation, n.at AS now_at",
    "LEFT JOIN told n ON n.tenant = d.tenant AND n.device = d.id AND n.rollout = w.rollout",
);
const NOT_ASKED: (&str, &str) = (
    "CAST(NULL AS BIGINT) AS now_wave, CAST(NULL AS BIGINT) AS now_generation,
     CAST(NULL AS BIGINT) AS now_at",
    "",
);

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    online: i64,
    online_since: i64,
    generation: i64,
    reported_generation: i64,
    refused_generation: Option<i64>,
    refused_code: Option<String>,
    refused_reason: Option<String>,
    desired_digest: Option<String>,
    desired_rollout: Option<i64>,
    desired_turn: Option<i64>,
    budget_group: Option<String>,
    slot: Option<Vec<u8>>,
    reported_at: Option<i64>,
    told_wave: Option<i64>,
    told_generation: Option<i64>,
    told_at: Option<i64>,
    told_requests: Option<i64>,
    told_errors: Option<i64>,
    excused: Option<i64>,
    now_wave: Option<i64>,
    now_generation: Option<i64>,
    now_at: Option<i64>,
    penalty_code: Option<String>,
    penalty_reason: Option<String>,
    requests: Option<i64>,
    errors: Option<i64>,
}

impl TenantStore {
    /// The devices that a rollout's filter names now, and those that it has told; without revoked ones, and without those that have
    /// followed more than this store knows: what it says of them is from before, until somebody has decided (`recover`).
    pub(crate) async fn fleet(
        &self,
        rollout: &RolloutRow,
        filter: &Filter,
        presence: Presence,
    ) -> Result<Fleet, StoreError> {
        let mut matching = self.matching(filter, presence).await?;
        let model = matching.parameter(&rollout.order.model.to_string());
        let digest = matching.parameter(&rollout.order.digest.to_string());
        // Going back concerns devices with a version that is not to be run any more, and no others; or those that were chosen.
        let concerned = if rollout.order.is_rollback && !filter.is_chosen() {
            format!(
                "EXISTS (SELECT 1 FROM quarantine q WHERE q.tenant = d.tenant AND q.model = {model}
                 AND (q.version = w.version OR q.version = s.serving_version))"
            )
        } else {
            "1 = 1".to_owned()
        };
        let group = match &rollout.order.policy.budget {
            Some(budget) => {
                let label = matching.parameter(&budget.label);
                format!(
                    "(SELECT g.value FROM labels g WHERE g.tenant = d.tenant AND g.device = d.id
                     AND g.name = {label})"
                )
            }
            None => "''".to_owned(),
        };
        let (offline_before, number) = (presence.offline_before(), rollout.id.0);
        let is_taken_back = matches!(rollout.stage, Stage::Reverting | Stage::Reverted);
        let (told_now, of_owner) = if is_taken_back { TOLD_BY_OWNER } else { NOT_ASKED };
        let text = format!(
            "SELECT d.id,
             CASE WHEN d.online = 0 OR COALESCE(d.seen_at, 0) < {offline_before}
             THEN CAST(0 AS BIGINT) ELSE CAST(1 AS BIGINT) END AS online,
             d.online_since, d.generation, d.reported_generation, d.refused_generation, d.refused_code,
             d.refused_reason, w.digest AS desired_digest, w.rollout AS desired_rollout,
             o.turn AS desired_turn, {group} AS budget_group, s.body AS slot, s.reported_at, t.wave AS told_wave, t.generation AS told_generation,
             t.at AS told_at, t.requests AS told_requests, t.errors AS told_errors, t.excused,
             {told_now},
             p.code AS penalty_code, p.reason AS penalty_reason, b.requests, b.errors
             FROM devices d
             LEFT JOIN desired w ON w.tenant = d.tenant AND w.device = d.id AND w.model = {model}
             LEFT JOIN rollouts o ON o.tenant = d.tenant AND o.number = w.rollout
             LEFT JOIN slots s ON s.tenant = d.tenant AND s.device = d.id AND s.model = {model}
             LEFT JOIN told t ON t.tenant = d.tenant AND t.device = d.id AND t.rollout = {number}
             {of_owner}
             LEFT JOIN penalties p
             ON p.tenant = d.tenant AND p.device = d.id AND p.digest = {digest}
             LEFT JOIN beats b ON b.tenant = d.tenant AND b.device = d.id
             WHERE d.tenant = $1 AND d.revoked_at IS NULL
             AND d.reported_generation <= d.generation AND (t.device IS NOT NULL OR ({} AND {concerned}))",
            matching.text
        );
        let query = matching.bind_as(sqlx::query_as(AssertSqlSafe(text)));
        let mut rows = query.fetch(self.readers());
        let mut fleet = Fleet::new();
        // One by one: the rows of a large fleet are as much memory as what is made of them.
        while let Some(row) = rows.try_next().await? {
            let (id, view) = device(row)?;
            fleet.insert(id, view);
        }
        drop(rows);
        self.mark_waves(&mut fleet, (rollout, filter), presence).await?;
        Ok(fleet)
    }

    /// Says of each device which of the waves that have filters name it.
    async fn mark_waves(
        &self,
        fleet: &mut Fleet,
        (rollout, filter): (&RolloutRow, &Filter),
        presence: Presence,
    ) -> Result<(), StoreError> {
        for (number, wave) in rollout.order.waves.iter().take(WAVES_MAX).enumerate() {
            if wave.filter.is_empty() {
                continue;
            }
            let theirs: Filter =
                (wave.filter.parse()).map_err(|error: crate::filter::InvalidFilter| {
                    corrupt("filter", &error.to_string())
                })?;
            for id in self.ids(&filter.and(&theirs), presence).await? {
                if let Some(device) = fleet.get_mut(&id) {
                    device.waves |= 1 << number;
                }
            }
        }
        Ok(())
    }

    /// The devices that a filter names.
    async fn ids(&self, filter: &Filter, presence: Presence) -> Result<Vec<DeviceId>, StoreError> {
        let matching = self.matching(filter, presence).await?;
        let text = format!("SELECT d.id FROM devices d WHERE {}", matching.text);
        let query = matching.bind_scalar(sqlx::query_scalar(AssertSqlSafe(text)));
        let ids: Vec<String> = query.fetch_all(self.readers()).await?;
        ids.iter().map(|id| parsed("device", id)).collect()
    }
}

fn device(row: Row) -> Result<(DeviceId, DeviceView), StoreError> {
    let report = row.slot.as_deref().map(stored_report).transpose()?;
    let newest = generation(row.generation)?;
    // What was countersigned is, until the device has followed it, a newer directive than its report is about.
    let is_newest = |report: &&SlotReport| report.generation >= newest;
    let leased = report.as_ref().filter(is_newest).filter(|report| report.lease_until.is_some());
    let view = DeviceView {
        online_since: (row.online != 0).then_some(UnixMillis(row.online_since)),
        desired: desired(&row)?,
        told: told(&row)?,
        told_now: told_now(&row)?,
        accepted: generation(row.reported_generation)?,
        refused: refused(&row)?,
        lease: leased.map(|report| report.generation),
        held: report.as_ref().and_then(|report| report.held.clone()),
        halted: report.as_ref().and_then(|report| report.halted.clone()),
        slot: slot(&row, report),
        penalty: row
            .penalty_code
            .map(|code| Failure { code, reason: row.penalty_reason.unwrap_or_default() }),
        served: served(row.requests, row.errors)?,
        group: row.budget_group.unwrap_or_default(),
        waves: 0,
    };
    Ok((parsed("device", &row.id)?, view))
}

fn desired(row: &Row) -> Result<Option<Desired>, StoreError> {
    let (Some(digest), Some(rollout)) = (&row.desired_digest, row.desired_rollout) else {
        return Ok(None);
    };
    let image: Digest = parsed("digest", digest)?;
    let rollout = unsigned("rollout", rollout)?;
    // What an agent was told before there were rollouts, or by one that is not written here, came first.
    let turn = row.desired_turn.map_or(Ok(rollout), |turn| unsigned("turn", turn))?;
    Ok(Some(Desired { rollout: RolloutId(rollout), turn, image }))
}

fn told(row: &Row) -> Result<Option<Told>, StoreError> {
    let (Some(wave), Some(told), Some(at)) = (row.told_wave, row.told_generation, row.told_at)
    else {
        return Ok(None);
    };
    Ok(Some(Told {
        wave: usize::try_from(wave).map_err(|_| StoreError::TooLarge("wave"))?,
        generation: generation(told)?,
        at: UnixMillis(at),
        served: served(row.told_requests, row.told_errors)?,
        is_excused: row.excused.is_some_and(|excused| excused != 0),
    }))
}

fn told_now(row: &Row) -> Result<Option<Told>, StoreError> {
    let (Some(wave), Some(told), Some(at)) = (row.now_wave, row.now_generation, row.now_at) else {
        return Ok(None);
    };
    Ok(Some(Told {
        wave: usize::try_from(wave).map_err(|_| StoreError::TooLarge("wave"))?,
        generation: generation(told)?,
        at: UnixMillis(at),
        served: Served::default(),
        is_excused: false,
    }))
}

fn refused(row: &Row) -> Result<Option<Refused>, StoreError> {
    let Some(refused) = row.refused_generation else { return Ok(None) };
    let code = row.refused_code.clone().unwrap_or_default();
    let reason = row.refused_reason.clone().unwrap_or_default();
    Ok(Some(Refused { generation: generation(refused)?, failure: Failure { code, reason } }))
}

fn slot(row: &Row, report: Option<SlotReport>) -> Option<Slot> {
    let reported_at = row.reported_at?;
    let SlotReport { generation, phase, serving, outcome, shadow, .. } = report?;
    let outcome = outcome.map(|outcome| Outcome {
        generation: outcome.generation,
        image: outcome.image.index,
        kind: outcome.result,
        failure: Failure { code: outcome.code, reason: outcome.reason },
    });
    let serving = serving.map(|image| image.index);
    let reported_at = UnixMillis(reported_at);
    Some(Slot { generation, phase, serving, outcome, shadow, reported_at })
}

fn served(requests: Option<i64>, errors: Option<i64>) -> Result<Served, StoreError> {
    Ok(Served {
        requests: unsigned("requests", requests.unwrap_or(0))?,
        errors: unsigned("errors", errors.unwrap_or(0))?,
    })
}

fn generation(number: i64) -> Result<Generation, StoreError> {
    Ok(Generation(unsigned("generation", number)?))
}

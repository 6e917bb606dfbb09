//! Looks at what canaries and controls have sent since the last time, for the gates that compare them.

use sealift_protocol::id::UnixMillis;

use super::{ReconcileError, Reconciler};
use crate::rollout::evidence::{Came, Observation, Roles, Rules, Scene};
use crate::rollout::{Comparison, Fleet, Rollout, Stage};
use crate::store::profiles::StoredWindow;
use crate::store::rollouts::RolloutRow;

/// Windows read in one look; the rest in the next.
const WINDOWS_MAX: u32 = 5_000;
/// How far back a device's own past goes: a day has every hour in it.
const PAST_MS: i64 = 24 * 3_600 * 1_000;
/// Canaries whose own past is read, and windows of each: enough for a mean.
const PAST_DEVICES_MAX: usize = 50;
const PAST_WINDOWS_MAX: u32 = 40;

impl Reconciler {
    /// Looks, if it is time to; returns what is to be kept.
    pub(super) async fn observe(
        &self,
        row: &RolloutRow,
        (rollout, fleet): (&Rollout, &Fleet),
        known: Option<Observation>,
        now: UnixMillis,
    ) -> Result<Option<Observation>, ReconcileError> {
        let is_open = row.waves.iter().any(|wave| wave.standing().since().is_some());
        let compares = row.waves.iter().any(|wave| wave.plan.gates.compares());
        if !is_open || !compares || !matches!(row.stage, Stage::Running | Stage::Completing { .. })
        {
            return Ok(None);
        }
        let model = &row.order.model;
        let Some(mut observation) = known else {
            let cursor = self.store.newest_window(model).await?;
            let mut observation = Observation::begin(cursor, now);
            observation.pass_over(rollout, fleet);
            return Ok(Some(observation));
        };
        if !observation.is_due(now) {
            return Ok(None);
        }
        let roles = Roles::of(rollout, fleet);
        let mut past = Vec::new();
        for (wave, devices) in observation.wanting_past(&roles) {
            let until = row.waves.get(wave).and_then(|wave| wave.standing().since());
            let until = until.unwrap_or(row.created_at);
            let mut windows = Vec::new();
            for device in devices.iter().take(PAST_DEVICES_MAX) {
                let (of, span) = ((device, model), (until.plus(-PAST_MS), until));
                let found = self.store.windows_before(of, rollout.image, span, PAST_WINDOWS_MAX);
                windows.extend(found.await?.into_iter().map(came));
            }
            past.push((wave, windows));
        }
        for (wave, windows) in past {
            observation.set_past(wave, &windows);
        }
        let windows = self.store.windows_after(observation.cursor, WINDOWS_MAX).await?;
        observation.cursor = windows.last().map_or(observation.cursor, |last| last.number);
        let of_model = windows.into_iter().filter(|stored| stored.window.model == *model);
        let windows: Vec<_> = of_model.map(came).collect();
        observation.look(Scene { rollout, fleet, roles: &roles }, &windows, now);
        Ok(Some(observation))
    }
}

/// How each wave compares, of what is known.
pub(super) fn comparisons(row: &RolloutRow, known: &Observation) -> Vec<Vec<Comparison>> {
    let waves = row.waves.len();
    let of_wave = |(number, wave): (usize, &crate::store::rollouts::WaveRow)| {
        let rules = Rules { gates: &wave.plan.gates, waves };
        known.waves.get(number).map(|evidence| evidence.comparisons(rules)).unwrap_or_default()
    };
    row.waves.iter().enumerate().map(of_wave).collect()
}

fn came(stored: StoredWindow) -> Came {
    Came { device: stored.device, window: stored.window }
}

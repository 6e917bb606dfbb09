//! Gathers what a rollout is foreseen by and looked over with, from the store and from the image itself.

use sealift_protocol::api::{DeviceProgress, FactPoint, Finding, RolloutForecast, VersionState};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{RolloutId, UnixMillis};
use sealift_protocol::image::{ImageManifest, ModelIndex};
use sealift_protocol::limits::MANIFEST_BYTES_MAX;

use super::{ReconcileError, Reconciler};
use crate::blobs::Blobs;
use crate::rollout::preflight::{self, Scene, Trust};
use crate::rollout::rehearsal::{self, Image, Rehearsal};
use crate::rollout::{self, Plan, Stage};
use crate::store::rollouts::RolloutRow;
use crate::store::{Change, StoreError};

/// What is foreseen and found.
pub(crate) struct Rehearsed {
    /// What would be planned.
    pub(crate) plan: Plan,
    /// What would come of it.
    pub(crate) rehearsal: Rehearsal,
    /// What was found, worst first.
    pub(crate) findings: Vec<Finding>,
    /// Rollouts whose devices it would take.
    pub(crate) superseded: Vec<RolloutId>,
}

impl Reconciler {
    /// Says what would come of a rollout if it began now; nothing is changed.
    pub(crate) async fn rehearse(
        &self,
        row: &RolloutRow,
        now: UnixMillis,
    ) -> Result<Rehearsed, ReconcileError> {
        // Everybody's wave is asked for, not who is told in this moment.
        let running = RolloutRow { stage: Stage::Running, held_from: None, ..row.clone() };
        let fleet = self.fleet(&running, now).await?;
        let begins = self.rollout(&running);
        let planned = rollout::Rollout { start_at: None, ..begins.clone() };
        let plan = rollout::plan(&planned, &fleet, now);
        let filter = super::begin::filter_of(row)?;
        let wanted = (&row.order.model, row.order.digest);
        let known = self.store.known(wanted, &filter, self.patience.presence(now)).await?;
        let image = self.image(row).await?;
        let rehearsal = rehearsal::rehearse((&begins, &plan, &fleet), &known, &image, now);
        let superseded: Vec<_> =
            self.taken_over(row, now).await?.iter().map(|other| other.id).collect();
        let trust = self.trust(row).await?;
        let findings = preflight::check(&Scene {
            trust,
            rollout: &planned,
            plan: &plan,
            rehearsal: &rehearsal,
            superseded: &superseded,
        });
        Ok(Rehearsed { plan, rehearsal, findings, superseded })
    }

    async fn trust(&self, row: &RolloutRow) -> Result<Trust, StoreError> {
        let Some(version) = self.store.version(&row.order.model, &row.order.version).await? else {
            return Ok(Trust::Missing);
        };
        if let Some(reason) = self.store.why_denied(version.digest).await? {
            return Ok(Trust::Revoked(reason));
        }
        Ok(match version.state {
            VersionState::Signed if version.digest != row.order.digest => Trust::Missing,
            VersionState::Signed => Trust::Sound,
            VersionState::Unsigned => Trust::Unsigned,
            VersionState::Quarantined => {
                Trust::Quarantined(version.quarantine_reason.unwrap_or_default())
            }
        })
    }

    /// The image's variants. One that cannot be read is foreseen as an image of which nothing is known: devices judge it themselves.
    async fn image(&self, row: &RolloutRow) -> Result<Image, StoreError> {
        let epoch = row.order.epoch;
        let Some(blobs) = &self.images else { return Ok(Image { variants: Vec::new(), epoch }) };
        let variants = match variants(blobs, row.order.digest).await {
            Ok(variants) => variants,
            Err(error) => {
                let (rollout, error) = (row.id, error.as_ref());
                tracing::warn!(%rollout, error, "variants cannot be read, nothing is foreseen of them");
                Vec::new()
            }
        };
        Ok(Image { variants, epoch })
    }
}

type Variants = Vec<(sealift_protocol::image::Variant, u64)>;

async fn variants(
    blobs: &Blobs,
    index: Digest,
) -> Result<Variants, Box<dyn std::error::Error + Send + Sync + 'static>> {
    let bytes = blobs.read(index, MANIFEST_BYTES_MAX as u64).await?;
    let mut variants = Vec::new();
    for variant in ModelIndex::parse(&bytes)?.variants() {
        let bytes = blobs.read(variant.manifest.digest, MANIFEST_BYTES_MAX as u64).await?;
        variants.push((variant.clone(), ImageManifest::parse(&bytes)?.size_bytes()));
    }
    Ok(variants)
}

impl Rehearsed {
    /// As people are shown it.
    pub(crate) fn forecast(&self, waves: usize) -> RolloutForecast {
        let Rehearsal { refusals, refused, bytes, largest_bytes, .. } = self.rehearsal.clone();
        let Rehearsal { without_download, curve, done, done_after_s, basis, .. } =
            self.rehearsal.clone();
        let in_wave = |number| {
            let positions = self.plan.devices.values();
            let theirs = positions.filter(|position| {
                position.wave == Some(number) && position.progress == DeviceProgress::Queued
            });
            count(theirs.count())
        };
        RolloutForecast {
            devices: count(self.plan.devices.len()),
            waves: (0..waves).map(in_wave).collect(),
            without_download,
            download_bytes: bytes,
            superseded: self.superseded.clone(),
            findings: self.findings.clone(),
            refusals,
            refused,
            largest_download_bytes: largest_bytes,
            curve,
            done,
            done_after_s,
            basis,
            ..RolloutForecast::default()
        }
    }
}

impl Reconciler {
    /// Keeps what is foreseen of a rollout that is started, and what has come of one since.
    pub(super) async fn note_course(
        &self,
        change: &mut Change,
        (before, after): (&RolloutRow, &RolloutRow),
        foreseen: Option<&RolloutForecast>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        if let Some(foreseen) = foreseen {
            change.save_forecast(after.id, foreseen).await?;
        }
        let (was, is) = (fact(before, now), fact(after, now));
        if was != is {
            change.add_fact(after.id, is).await?;
        }
        Ok(())
    }
}

/// How far a rollout is.
fn fact(row: &RolloutRow, at: UnixMillis) -> FactPoint {
    use DeviceProgress as P;
    let of = |wanted: &[P]| -> u64 {
        wanted.iter().filter_map(|progress| row.progress.get(progress)).sum()
    };
    let refused = of(&[P::Failed, P::Rejected, P::RolledBack, P::Silent, P::NotApplicable]);
    FactPoint { at, done: of(&[P::Succeeded]), refused }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

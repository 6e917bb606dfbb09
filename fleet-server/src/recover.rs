//! Brings a server whose database was restored from a backup ahead of its devices again.
//!
//! ```text
//! what devices say ──▶ plan (pure): what was lost, how far to jump, what to adopt ──▶ shown ──apply──▶ metadata, directives, counters
//! ```
//! Devices take nothing that is older than what they have followed: no directive of a lower generation, no metadata of a lower version.
//! So everything that is counted jumps, far enough for devices that have not been heard from yet. No running model is touched: what
//! devices run becomes what they should run, unless the operator chooses otherwise.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::directive::DesiredSlot;
use sealift_protocol::id::{DeviceId, Generation, ModelName, RolloutId, UnixMillis, Version};
use sealift_protocol::report::{ImageRef, Trusted};
use serde::Serialize;

use crate::audit::Deed;
use crate::directive::Director;
use crate::halt;
use crate::rollout::Stage;
use crate::store::recover::{Known, PLAUSIBLE_MAX};
use crate::store::{StoreError, TenantStore};
use crate::trust::{Trust, TrustError};

mod checkpoint;
mod text;

pub(crate) use checkpoint::{Cut, compare};

/// Directives that a device which has not been heard from can have followed beyond what any other says: one a minute for two years.
const GENERATIONS: u64 = 1_000_000;
/// The same of metadata: two timestamps a day, and a hundred publications, for two years.
const VERSIONS: u64 = 100_000;
/// Rollouts of the lost time.
const ROLLOUTS: u64 = 1_000;
/// Devices told in one commit.
const TOLD_MAX: usize = 200;

/// What becomes of devices that run something else than the database says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Choice {
    /// What they run is what they should run.
    #[default]
    Adopt,
    /// What the database says is what they should run: they go back to it.
    Resend,
}

/// What the operator knows beside what devices say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wishes {
    /// What becomes of devices that run something else.
    pub(crate) choice: Choice,
    /// A generation that some device has followed.
    pub(crate) generation: u64,
    /// A timestamp's version that some device has seen.
    pub(crate) timestamp: u64,
    /// A snapshot's version that some device has seen.
    pub(crate) snapshot: u64,
    /// When the backup was made; when the log ends, if not given.
    pub(crate) backup_at: Option<UnixMillis>,
}

/// A number that jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Jump {
    /// As the database has it.
    pub(crate) here: u64,
    /// The highest that was seen elsewhere.
    pub(crate) seen: u64,
    /// What the next ones are above.
    pub(crate) above: u64,
}

/// A role whose newest metadata the database does not have. Only its holders, or who has kept what they signed, can give it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Lost {
    /// The role.
    pub(crate) role: String,
    /// Its version here.
    pub(crate) here: u64,
    /// The newest that a device has.
    pub(crate) seen: u64,
}

/// A device that runs something else than the database says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Ahead {
    /// Which.
    pub(crate) device: DeviceId,
    /// What it was told here.
    pub(crate) told: Generation,
    /// What it has followed.
    pub(crate) followed: Generation,
    /// What it should run, by the database.
    pub(crate) desired: BTreeMap<ModelName, Version>,
    /// What it runs, by its report.
    pub(crate) serving: BTreeMap<ModelName, ImageRef>,
}

/// What was lost, and what follows from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    /// Whether it was carried out.
    pub(crate) applied: bool,
    /// What becomes of the devices that are ahead.
    pub(crate) choice: Choice,
    /// Devices that are not revoked.
    pub(crate) devices: u64,
    /// Those that are ahead.
    pub(crate) ahead: Vec<Ahead>,
    /// Devices whose word is not believed, since nobody can have got so far.
    pub(crate) implausible: Vec<DeviceId>,
    /// Directives.
    pub(crate) generation: Jump,
    /// The timestamp's version.
    pub(crate) timestamp: Jump,
    /// The snapshot's version.
    pub(crate) snapshot: Jump,
    /// The root's version: it cannot jump, since the server has no key of it.
    pub(crate) root: Jump,
    /// Roles of which signed metadata were lost.
    pub(crate) lost_roles: Vec<Lost>,
    /// The list of halted rollouts: devices may obey one that was signed in the lost time, and would wait for ever.
    pub(crate) halts: Jump,
    /// The number of the newest rollout.
    pub(crate) rollout: Jump,
    /// Rollouts that were under way when the backup was made: they are paused, for somebody to look.
    pub(crate) paused: Vec<RolloutId>,
    /// Images that devices run and that nobody has pushed and signed here.
    pub(crate) missing_images: BTreeSet<String>,
    /// From when on everything was lost, as far as the audit log can tell.
    pub(crate) lost_from: Option<UnixMillis>,
    /// What a checkpoint that was kept elsewhere says of the audit log.
    pub(crate) audit: Option<Cut>,
}

/// Why the server was not brought ahead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoverError {
    /// The store.
    #[error("the store cannot be looked at or changed")]
    Store(#[from] StoreError),
    /// The trust metadata.
    #[error("the trust metadata cannot be published anew")]
    Trust(#[from] TrustError),
}

/// What is here, and can be compared with what devices say.
pub(crate) struct Here {
    versions: Trusted,
    rollouts: Vec<(RolloutId, bool)>,
    signed: BTreeSet<(ModelName, ImageRef)>,
    lost_from: Option<UnixMillis>,
}

/// Looks what was lost; changes nothing.
pub(crate) async fn look(
    store: &TenantStore,
    trust: &Trust,
    wishes: Wishes,
) -> Result<Plan, RecoverError> {
    let devices = all_devices(store).await?;
    let mut signed = BTreeSet::new();
    for (model, image) in devices.iter().flat_map(serving_of) {
        let name = (&image.version, image.index);
        if store.signed_epoch(&model, name).await?.is_some() {
            signed.insert((model, image));
        }
    }
    let live = store.live_rollouts().await?;
    let rollouts = live.iter().map(|row| (row.id, row.stage.is_under_way())).collect();
    let (mut versions, lost_from) = (trust.versions().await?, store.last_deed().await?);
    versions.halt = store.halt().await?.sequence;
    let here = Here { versions, rollouts, signed, lost_from };
    Ok(plan(&here, &devices, wishes))
}

async fn all_devices(store: &TenantStore) -> Result<Vec<Known>, StoreError> {
    let mut devices: Vec<Known> = Vec::new();
    loop {
        let page = store.known_devices(devices.last().map(|last| &last.device)).await?;
        if page.is_empty() {
            return Ok(devices);
        }
        devices.extend(page);
    }
}

fn serving_of(device: &Known) -> impl Iterator<Item = (ModelName, ImageRef)> {
    device.slots.iter().filter_map(|slot| Some((slot.model.clone(), slot.serving.clone()?)))
}

/// Decides from what is here and what devices say.
fn plan(here: &Here, devices: &[Known], wishes: Wishes) -> Plan {
    let implausible = |device: &&Known| {
        let trusted = device.trusted.clone().unwrap_or_default();
        device.followed.0 > device.told.0.saturating_add(PLAUSIBLE_MAX)
            || trusted.timestamp > here.versions.timestamp.saturating_add(PLAUSIBLE_MAX)
            || trusted.snapshot > here.versions.snapshot.saturating_add(PLAUSIBLE_MAX)
    };
    let (lying, honest): (Vec<_>, Vec<_>) = devices.iter().partition(implausible);
    let trusted: Vec<_> = honest.iter().filter_map(|device| device.trusted.as_ref()).collect();
    let highest =
        |of: fn(&Trusted) -> u64| trusted.iter().map(|&it| of(it)).max().unwrap_or_default();
    let told = honest.iter().map(|device| device.told.0).max().unwrap_or_default();
    let followed = honest.iter().map(|device| device.followed.0).max().unwrap_or_default();
    let ahead: Vec<_> = honest.iter().filter_map(|device| ahead(device)).collect();
    let serving = honest.iter().flat_map(|device| serving_of(device));
    let missing = serving.filter(|image| !here.signed.contains(image));
    let rollouts = honest.iter().flat_map(|device| &device.slots);
    let rollouts = rollouts.filter_map(|slot| slot.outcome.as_ref()?.rollout);
    let here_rollout = here.rollouts.iter().map(|(id, _)| id.0).max().unwrap_or_default();
    let running = here.rollouts.iter().filter(|(_, is_running)| *is_running);
    Plan {
        applied: false,
        choice: wishes.choice,
        devices: u64::try_from(devices.len()).unwrap_or(u64::MAX),
        implausible: lying.iter().map(|device| device.device.clone()).collect(),
        generation: jump(told, followed.max(wishes.generation), GENERATIONS),
        timestamp: jump(
            here.versions.timestamp,
            highest(|it| it.timestamp).max(wishes.timestamp),
            VERSIONS,
        ),
        snapshot: jump(
            here.versions.snapshot,
            highest(|it| it.snapshot).max(wishes.snapshot),
            VERSIONS,
        ),
        root: jump(here.versions.root, highest(|it| it.root), 0),
        lost_roles: lost_roles(&here.versions, &trusted),
        halts: jump(here.versions.halt, highest(|it| it.halt), 0),
        rollout: jump(here_rollout, rollouts.map(|id| id.0).max().unwrap_or_default(), ROLLOUTS),
        paused: running.map(|(id, _)| *id).collect(),
        missing_images: missing
            .map(|(model, image)| format!("{model}@{}", image.version))
            .collect(),
        lost_from: wishes.backup_at.or(here.lost_from),
        audit: None,
        ahead,
    }
}

fn jump(here: u64, seen: u64, by: u64) -> Jump {
    Jump { here, seen, above: here.max(seen).saturating_add(by) }
}

fn ahead(device: &Known) -> Option<Ahead> {
    let is_ahead = device.followed > device.told || device.has_returned;
    is_ahead.then(|| Ahead {
        device: device.device.clone(),
        told: device.told,
        followed: device.followed,
        desired: device.desired.clone(),
        serving: serving_of(device).collect(),
    })
}

fn lost_roles(here: &Trusted, trusted: &[&Trusted]) -> Vec<Lost> {
    let mut seen: BTreeMap<&String, u64> = BTreeMap::new();
    for (role, version) in trusted.iter().flat_map(|trusted| &trusted.roles) {
        let newest = seen.entry(role).or_default();
        *newest = (*newest).max(*version);
    }
    let of_here = |role: &String| here.roles.get(role).copied().unwrap_or_default();
    let lost = seen.into_iter().filter(|(role, seen)| *seen > of_here(role));
    lost.map(|(role, seen)| Lost { role: role.clone(), here: of_here(role), seen }).collect()
}

/// Carries a plan out. What was done stays done if it is broken off: the next look finds the rest.
pub(crate) async fn apply(
    store: &TenantStore,
    (trust, director): (&Trust, &Director),
    plan: &Plan,
    now: UnixMillis,
) -> Result<(), RecoverError> {
    let detail = plan.in_a_line();
    let deed = Deed {
        actor: "server",
        action: "server.recover",
        subject: "server",
        reason: Some("the database was restored from a backup"),
        detail: &detail,
    };
    pause(store, plan, now).await?;
    // First the metadata: devices look at them before they look at a directive.
    trust.jump((plan.snapshot.above, plan.timestamp.above), &deed, now).await?;
    let above = Generation(plan.generation.above);
    for part in plan.ahead.chunks(TOLD_MAX) {
        let mut told = Vec::with_capacity(part.len());
        for device in part {
            told.push((device, desired(store, plan, device).await?));
        }
        let mut change = store.begin().await?;
        for (device, slots) in &told {
            change.adopt(&device.device, slots.as_deref(), (above, director), now).await?;
        }
        change.commit().await?;
    }
    if plan.halts.seen > plan.halts.here {
        halt::overtake(store, director, plan.halts.seen, now).await?;
    }
    let mut change = store.begin().await?;
    change.raise_generations(above, now).await?;
    change.raise_rollouts(RolloutId(plan.rollout.above)).await?;
    change.add_recovery(plan.lost_from.unwrap_or(now), now).await?;
    change.commit().await?;
    Ok(())
}

/// Rule: what was under way when the backup was made is not gone on with before a person has looked: the fleet may be past it.
async fn pause(store: &TenantStore, plan: &Plan, now: UnixMillis) -> Result<(), StoreError> {
    for id in &plan.paused {
        let Some(mut row) = store.rollout(*id).await? else { continue };
        if !row.stage.is_under_way() {
            continue;
        }
        row.stage = Stage::Paused;
        "paused: the database was restored from a backup".clone_into(&mut row.why);
        let mut change = store.begin().await?;
        change.save_rollout(&row, now).await?;
        let (action, subject) = ("rollout.pause", id.to_string());
        let (subject, detail) = (subject.as_str(), row.why.as_str());
        let deed = Deed { actor: "server", action, subject, reason: None, detail };
        change.audit(&deed, now).await?;
        change.commit().await?;
    }
    Ok(())
}

/// What a device should run from now on; none where that stays. One that serves nothing has nothing to adopt.
async fn desired(
    store: &TenantStore,
    plan: &Plan,
    device: &Ahead,
) -> Result<Option<Vec<DesiredSlot>>, StoreError> {
    if plan.choice == Choice::Resend || device.serving.is_empty() {
        return Ok(None);
    }
    let mut slots = Vec::with_capacity(device.serving.len());
    for (model, ImageRef { version, index }) in &device.serving {
        let epoch = store.signed_epoch(model, (version, *index)).await?;
        let slot = DesiredSlot::new(model.clone(), version.clone(), *index);
        slots.push(DesiredSlot { epoch: epoch.unwrap_or_default(), ..slot });
    }
    Ok(Some(slots))
}

#[cfg(test)]
mod tests;

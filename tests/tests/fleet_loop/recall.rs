//! What the server's operators take back: images and devices that are revoked, all rollouts at once; and a server that was restored
//! from a backup and brought ahead of its devices again.
//!
//! What the fleet server writes into tables for this is done here as it does it (`trust/deny.rs`, `halt.rs`, `recover.rs`); the planner
//! and the devices are the real ones.

use std::collections::BTreeSet;

use sealift_fleet_server::rollout::{Desired, Rollout, Stage};
use sealift_protocol::digest::Digest;
use sealift_protocol::halt::HaltList;
use sealift_protocol::id::{DeviceId, Generation, RolloutId, UnixMillis};

use super::server::{Server, image};

/// A recovered server counts directives from so far above the highest that it knows of,
const GENERATIONS: u64 = 1_000_000;
/// and rollouts.
const ROLLOUTS: u64 = 1_000;

/// All rollouts but later ways back are stopped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Halted {
    /// The newest rollout when they were; none while they go on.
    newest: Option<RolloutId>,
    sequence: u64,
    campaigns: BTreeSet<Digest>,
    /// The newest list for devices.
    pub(crate) list: Option<Vec<u8>>,
}

impl Halted {
    /// Whether a rollout is planned as if it were paused.
    pub(crate) fn stops(&self, rollout: &Rollout) -> bool {
        let is_way_out =
            self.newest.is_some_and(|newest| rollout.id > newest) && rollout.is_rollback;
        self.newest.is_some() && rollout.stage != Stage::Reverting && !is_way_out
    }
}

/// The digest that directives of a rollout carry.
pub(crate) fn campaign(rollout: RolloutId) -> Digest {
    Digest::of(rollout.to_string().as_bytes())
}

impl Server {
    /// Stops everything that is under way, here and on devices.
    pub(crate) fn halt_all(&mut self, now: UnixMillis) {
        if self.halted.newest.is_none() {
            let newest = self.rollouts.last().map(|ordered| ordered.rollout.id);
            self.halted.newest = Some(newest.unwrap_or(RolloutId(0)));
            // Also what is over: a device may still be about to follow it.
            let campaigns = self.rollouts.iter().map(|ordered| campaign(ordered.rollout.id));
            let campaigns = campaigns.collect();
            self.sign_halt(campaigns, now);
        }
    }

    /// Lets it go on.
    pub(crate) fn resume_all(&mut self, now: UnixMillis) {
        if self.halted.newest.take().is_some() {
            self.sign_halt(BTreeSet::new(), now);
        }
    }

    fn sign_halt(&mut self, campaigns: BTreeSet<Digest>, now: UnixMillis) {
        // No lower than the time: a restored server is ahead of what its devices have heard.
        let sequence = (self.halted.sequence + 1).max(u64::try_from(now.0).unwrap());
        self.halted.sequence = sequence;
        self.halted.campaigns.clone_from(&campaigns);
        let reason = if campaigns.is_empty() { "" } else { "smoke" };
        let list =
            HaltList::new(self.tenant.clone(), (sequence, now), reason.to_owned(), campaigns);
        self.halted.list = Some(list.sign(&self.key).unwrap());
    }

    /// Puts an image on the deny list: what still brings it is halted, and nobody is offered it any more.
    pub(crate) fn revoke_image(&mut self, version: u8) {
        let digest = image(version);
        self.denied.insert(digest);
        self.quarantined.insert(digest);
        for ordered in &mut self.rollouts {
            let stage = ordered.rollout.stage;
            if ordered.rollout.image == digest && !stage.is_over() && stage != Stage::Reverting {
                ordered.rollout.stage = Stage::Halted;
            }
        }
    }

    /// The device is refused from now on.
    pub(crate) fn revoke_device(&mut self, id: &DeviceId) {
        let known = self.devices.get_mut(id).unwrap();
        known.is_revoked = true;
        known.online_since = None;
    }

    /// Whether a device is refused.
    pub(crate) fn is_revoked(&self, id: &DeviceId) -> bool {
        self.devices[id].is_revoked
    }

    /// Whether some device has followed more than is known here, or came back with something else after a recovery, or obeys a halt of
    /// which nothing is known.
    pub(crate) fn is_behind(&self) -> bool {
        let mut trusted = self.devices.values().filter(|known| !known.is_revoked);
        trusted.any(|known| known.is_ahead() || known.obeys > self.halted.sequence)
    }

    /// Gets ahead of all devices. Who is ahead should run what it runs; what was under way waits for a person. Returns whom a new
    /// directive is for.
    pub(crate) fn recover(&mut self, now: UnixMillis) -> Vec<DeviceId> {
        for ordered in &mut self.rollouts {
            if ordered.rollout.stage.is_under_way() {
                ordered.rollout.stage = Stage::Paused;
            }
        }
        let trusted = || self.devices.values().filter(|known| !known.is_revoked);
        let told = trusted().map(|known| known.generation).max().unwrap_or_default();
        let followed = trusted().map(|known| known.accepted).max().unwrap_or_default();
        let above = Generation(told.max(followed).0 + GENERATIONS);
        let ahead: Vec<_> = self
            .devices
            .iter()
            .filter(|(_, known)| !known.is_revoked && known.is_ahead())
            .map(|(id, _)| id.clone())
            .collect();
        for id in &ahead {
            self.adopt(id, above, now);
        }
        for known in self.devices.values_mut().filter(|known| known.generation < above) {
            known.generation = above;
            known.awaited_since = Some(now);
        }
        self.rollout_numbers += ROLLOUTS;
        let obeyed = self.devices.values().map(|known| known.obeys).max().unwrap_or_default();
        if obeyed > self.halted.sequence {
            self.halted.sequence = obeyed;
            let campaigns = self.halted.campaigns.clone();
            self.sign_halt(campaigns, now);
        }
        ahead
    }

    /// What a device runs is what it should run, by a directive above everything that it can have followed.
    fn adopt(&mut self, id: &DeviceId, above: Generation, now: UnixMillis) {
        let known = self.devices.get_mut(id).unwrap();
        known.generation = known.generation.max(above);
        known.awaited_since = None;
        let serving = known.slot.as_ref().and_then(|slot| slot.serving);
        let told = match (serving, &known.desired) {
            (Some(serving), _) => Some((RolloutId(0), serving)),
            (None, Some(Desired { rollout, image, .. })) => Some((*rollout, *image)),
            (None, None) => None,
        };
        match told {
            Some((rollout, image)) => {
                self.tell(id, rollout, image, now);
            }
            None => self.tell_nothing(id, now),
        }
    }
}

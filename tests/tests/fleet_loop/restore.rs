//! Lists that are broadcast, a server that was restored from a backup, and what no device ever does.

use sealift_protocol::id::UnixMillis;

use super::super::server::image;
use super::{Deed, Device, HOUR, Incident, World};

/// A report holds the trust metadata that the device follows, and those are signed anew twice a day.
const REPORT_EVERY: i64 = 12 * HOUR;

impl Device {
    /// Whatever happens: generations never fall, and nothing that is known to be denied answers requests.
    pub(super) fn is_lawful(&mut self) {
        let (id, generation) = (self.twin.id(), self.twin.generation());
        assert!(generation >= self.newest, "{id}: {generation} after {}", self.newest);
        assert!(self.twin.obeys_deny_list(), "{id} serves what it knows to be denied");
        self.newest = generation;
    }
}

impl World {
    /// What concerns the whole fleet.
    pub(super) fn recall(&mut self, deed: Deed) {
        match deed {
            Deed::HaltAll => self.server.halt_all(self.now),
            Deed::ResumeAll => self.server.resume_all(self.now),
            Deed::RevokeImage(version) => self.server.revoke_image(version),
            _ => (), // what the server has done by itself
        }
        for number in 0..self.devices.len() {
            self.send_lists(number);
        }
    }

    /// The deny list, and the list of halted rollouts: retained by the broker, and asked for with every poll.
    pub(super) fn send_lists(&mut self, number: usize) {
        if !self.server.denied.is_empty() {
            let denied = self.server.denied.clone();
            self.down(number, &Incident::Denied(denied));
        }
        if let Some(list) = self.server.halted.list.clone() {
            self.down(number, &Incident::Halts(list));
        }
    }

    /// The server goes down, and what comes up is the copy. What was revoked since is revoked again first: the deny list comes back with
    /// the publishers' metadata, devices from an operator's notes.
    pub(super) fn restore(&mut self) {
        let Some(copy) = self.backup.clone() else { return };
        let lost = std::mem::replace(&mut self.server, copy);
        for version in (1..=3).filter(|&version| lost.denied.contains(&image(version))) {
            self.server.revoke_image(version);
        }
        for (id, _) in lost.devices.iter().filter(|(_, known)| known.is_revoked) {
            self.server.revoke_device(id);
        }
        for number in 0..self.devices.len() {
            self.link_down(number);
        }
    }

    /// Sends what it is anew, now and then although nothing has changed.
    pub(super) fn report_anew(&mut self, number: usize) {
        if self.now.since(self.devices[number].told_at) >= REPORT_EVERY {
            self.report(number);
        }
    }

    pub(super) fn report(&mut self, number: usize) {
        let now: UnixMillis = self.now;
        let device = &mut self.devices[number];
        device.sequence += 1;
        device.told_at = now;
        device.unacknowledged = Some((device.sequence, device.twin.report(now)));
        self.send_report(number);
    }
}

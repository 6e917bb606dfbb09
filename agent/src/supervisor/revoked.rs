//! What happens when an image that is live is put on the deny list, or when trust metadata can no longer be had.

use std::collections::BTreeSet;

use sealift_protocol::digest::Digest;
use sealift_protocol::image::{OnRevoked, Policy};
use sealift_protocol::limits::POLICY_BYTES_MAX;

use super::keeper::Question;
use super::{Supervisor, SupervisorError};
use crate::device::{Event, Fault, FaultKind};
use crate::disk;
use crate::slots::MANIFEST_FILE;

impl Supervisor {
    /// Asks about everything that is live, or kept to go back to.
    pub(super) fn ask_revoked(&self) {
        let digests: Vec<_> =
            self.device.images().into_iter().flat_map(|index| self.digests(index)).collect();
        if !digests.is_empty() && self.keeper.try_send(Question::Revoked { digests }).is_err() {
            tracing::debug!("the deny list is looked at later: too many checks are waiting");
        }
    }

    /// The digests under which an image may be revoked: its index, and the manifest of the variant that is here.
    fn digests(&self, index: Digest) -> Vec<Digest> {
        let manifest = self.slots.path(index).join(MANIFEST_FILE);
        let manifest = std::fs::read(manifest).ok().map(|bytes| Digest::of(&bytes));
        [Some(index), manifest].into_iter().flatten().collect()
    }

    /// Acts on the deny list. Metadata that cannot be had, or have expired, stop changes and never a running model.
    pub(super) fn on_revoked(
        &mut self,
        revoked: Result<BTreeSet<Digest>, Fault>,
    ) -> Result<(), SupervisorError> {
        let revoked = match revoked {
            Ok(revoked) => revoked,
            Err(fault) if matches!(fault.kind, FaultKind::Unreachable { .. }) => return Ok(()),
            Err(fault) => return self.tell_once(&fault),
        };
        let serving: Vec<_> = self
            .device
            .serving()
            .map(|(model, image)| (model.clone(), image.index))
            .filter(|(_, image)| self.digests(*image).iter().any(|each| revoked.contains(each)))
            .collect();
        for (model, image) in serving {
            let previous = self.device.previous(&model).map(|previous| previous.index);
            let can_go_back = previous.is_some_and(|previous| {
                !self.digests(previous).iter().any(|each| revoked.contains(each))
            });
            let wished = self.policy(image).on_revoked;
            let is_stuck = wished == OnRevoked::Fallback && !can_go_back;
            let action = if is_stuck { OnRevoked::Stop } else { wished };
            let told = ("image.revoked".to_owned(), image);
            if action == OnRevoked::KeepWithAlarm && !self.told.insert(told) {
                continue;
            }
            self.feed(Event::Revoked { model, image, action })?;
        }
        Ok(())
    }

    fn policy(&self, image: Digest) -> Policy {
        let path = self.slots.files(image).ok().and_then(|files| files.policy);
        let bytes = path.and_then(|path| disk::read(&path, POLICY_BYTES_MAX as u64).ok().flatten());
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}

//! What happens when an image that is at hand is put on the deny list.
//!
//! The list is a level, not an event: it is looked at again with every tick, so that what a swap in progress did not let happen
//! happens after it, and a restarted agent acts on the list that it had kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sealift_protocol::codec;
use sealift_protocol::digest::Digest;
use sealift_protocol::image::{OnRevoked, Policy};
use sealift_protocol::limits::{MANIFEST_BYTES_MAX, POLICY_BYTES_MAX};

use super::keeper::Question;
use super::{Supervisor, SupervisorError};
use crate::device::{Event, Fault, FaultKind};
use crate::disk;
use crate::slots::{MANIFEST_FILE, Slots};

/// A number.
const HINT_BYTES_MAX: usize = 16;

/// The deny list, and what is known of the images at hand.
#[derive(Debug)]
pub(super) struct Denied {
    pub(super) images: Arc<BTreeSet<Digest>>,
    /// The manifest of each image at hand, which may be what the list names.
    manifests: BTreeMap<Digest, Digest>,
    asked: Asked,
    /// The newest timestamp that the server has announced.
    announced: Arc<AtomicU64>,
}

/// Whether a question for the list is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Asked {
    #[default]
    Not,
    Once,
    /// One is, and it was asked for again since.
    Again,
}

impl Denied {
    pub(super) const fn new(images: Arc<BTreeSet<Digest>>, announced: Arc<AtomicU64>) -> Self {
        Self { images, manifests: BTreeMap::new(), asked: Asked::Not, announced }
    }

    /// Notes that the server has a newer timestamp: until it is followed, what was followed before is not enough for a directive.
    pub(super) fn hear(&self, hint: &[u8]) {
        if let Ok(version) = codec::decode::<u64>("trust hint", hint, HINT_BYTES_MAX) {
            self.announced.fetch_max(version, Ordering::Relaxed);
        }
    }

    /// An image is named by its index, or by the manifest of the variant that is here.
    fn names(&mut self, index: Digest, slots: &Slots) -> bool {
        if self.images.contains(&index) {
            return true;
        }
        if !self.manifests.contains_key(&index) {
            let path = slots.path(index).join(MANIFEST_FILE);
            let bytes = disk::read(&path, MANIFEST_BYTES_MAX as u64).ok().flatten();
            self.manifests.extend(bytes.map(|bytes| (index, Digest::of(&bytes))));
        }
        self.manifests.get(&index).is_some_and(|manifest| self.images.contains(manifest))
    }
}

impl Supervisor {
    /// Asks once at a time: a server that takes long to answer must not have the device's other questions wait behind many of these.
    pub(super) fn ask_for_the_deny_list(&mut self) {
        self.denied.asked = match self.denied.asked {
            Asked::Not if self.keeper.try_send(Question::DenyList).is_ok() => Asked::Once,
            Asked::Not => Asked::Not,
            // The answer that is on its way may be older than what this is about.
            Asked::Once | Asked::Again => Asked::Again,
        };
    }

    /// Metadata that cannot be had, or have expired, stop changes and never a running model.
    pub(super) fn on_refreshed(
        &mut self,
        refreshed: Result<(), Fault>,
    ) -> Result<(), SupervisorError> {
        if std::mem::take(&mut self.denied.asked) == Asked::Again {
            self.ask_for_the_deny_list();
        }
        match refreshed {
            Err(fault) if !matches!(fault.kind, FaultKind::Unreachable { .. }) => {
                self.tell_once(&fault)
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Takes what is on the deny list out of use: first what is prepared or could be gone back to, then what is live.
    pub(super) fn enforce(&mut self) -> Result<(), SupervisorError> {
        if self.denied.images.is_empty() {
            return Ok(());
        }
        let at_hand = self.device.revocable();
        self.denied.manifests.retain(|image, _| at_hand.contains(image));
        let revoked: Vec<_> =
            at_hand.into_iter().filter(|image| self.denied.names(*image, &self.slots)).collect();
        let is_live = |image: &Digest| self.device.serving().any(|(_, live)| live.index == *image);
        let (live, others): (Vec<_>, Vec<_>) = revoked.into_iter().partition(is_live);
        for image in others.into_iter().chain(live) {
            let action = self.policy(image).on_revoked;
            let told = ("image.revoked".to_owned(), image);
            if action == OnRevoked::KeepWithAlarm && !self.told.insert(told) {
                continue;
            }
            self.feed(Event::Revoked { image, action })?;
        }
        Ok(())
    }

    fn policy(&self, image: Digest) -> Policy {
        let path = self.slots.files(image).ok().and_then(|files| files.policy);
        let bytes = path.and_then(|path| disk::read(&path, POLICY_BYTES_MAX as u64).ok().flatten());
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}

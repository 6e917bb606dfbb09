//! A publisher's models: sign a version, withdraw one, check one as a device would.

use std::path::Path;

use anyhow::{Context as _, ensure};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{Epoch, ModelName, UnixMillis, Version};
use sealift_protocol::image::{ImageManifest, ModelIndex};
use sealift_protocol::tuf::metadata::TargetFile;
use sealift_protocol::tuf::repository::TargetsDraft;
use sealift_protocol::tuf::{Role, model_path, publisher_role};
use serde::Serialize;

use super::change::Change;
use super::view::{Source, View};
use super::{Trust, digest_of};
use crate::client::Client;
use crate::registry;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// A version that is to be signed.
pub(crate) struct Signing {
    pub(crate) model: ModelName,
    pub(crate) version: Version,
    pub(crate) epoch: Epoch,
    pub(crate) expires_days: u32,
}

/// What was checked.
#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    pub(crate) target: String,
    pub(crate) digest: Digest,
    pub(crate) role: String,
    pub(crate) blobs: usize,
    pub(crate) size_bytes: u64,
}

impl Signing {
    /// The pushed index of the version.
    pub(crate) async fn index(&self, client: &Client) -> anyhow::Result<Vec<u8>> {
        let index = registry::manifest(client, &self.model, self.version.as_str())
            .await
            .with_context(|| format!("{}@{} is not pushed", self.model, self.version))?;
        ModelIndex::parse(&index)?;
        Ok(index)
    }

    /// The target that names it.
    pub(crate) fn target(&self) -> String {
        model_path(&self.model, &self.version)
    }

    /// The role that signs it.
    pub(crate) fn role(&self) -> String {
        publisher_role(self.model.team())
    }

    /// The publisher's next metadata, with this version; none if it stands there already, because an answer was lost or somebody was
    /// quicker.
    pub(crate) fn draft(
        &self,
        view: &View,
        index: &[u8],
        now: UnixMillis,
    ) -> anyhow::Result<Option<Change>> {
        let name = self.role();
        let delegations = view.targets.delegations.as_ref();
        delegations
            .and_then(|delegations| delegations.role(&name))
            .with_context(|| format!("the fleet's trust delegates nothing to {name}"))?;
        let role = Role::Delegated(name.clone());
        let (target, entry) = (self.target(), TargetFile::of_model(index, self.epoch));
        let life_ms = i64::from(self.expires_days) * DAY_MS;
        let mut draft = match view.roles.get(&name) {
            Some(present) => {
                let is_young = present.expires.since(now) > life_ms / 2;
                if is_young && present.targets.get(&target) == Some(&entry) {
                    return Ok(None);
                }
                TargetsDraft::after(role.clone(), present.clone())
            }
            None => TargetsDraft::first(role.clone()),
        };
        draft.set(&target, entry);
        let mut change = Change::default();
        change.drafts.insert(name, draft.sign(now.plus(life_ms), &[])?);
        Ok(Some(change))
    }
}

/// Checks signatures from the root down, then that every blob has the bytes that were signed.
pub(crate) async fn verify(
    client: &Client,
    model: &ModelName,
    version: &Version,
    root: Option<&Path>,
) -> anyhow::Result<Checked> {
    let target = model_path(model, version);
    let mut trust = Trust::open(client, root).await?;
    let entry = trust.target(Source::Server(client), &target).await?;
    let digest = digest_of(&entry)?;
    let index = registry::manifest(client, model, &digest.to_string()).await?;
    entry.check(&target, &index)?;
    let (mut blobs, mut size_bytes) = (0, index.len() as u64);
    for variant in ModelIndex::parse(&index)?.variants() {
        let digest = variant.manifest.digest;
        let bytes = registry::manifest(client, model, &digest.to_string()).await?;
        ensure!(Digest::of(&bytes) == digest, "manifest {digest} has other bytes than signed");
        let manifest = ImageManifest::parse(&bytes)?;
        let layers = manifest.layers().iter().map(|layer| &layer.blob);
        for blob in layers.chain([manifest.config()]) {
            size_bytes += registry::blob(client, model, blob.digest, blob.size).await?.len() as u64;
            blobs += 1;
        }
    }
    let role = publisher_role(model.team());
    Ok(Checked { target, digest, role, blobs, size_bytes })
}

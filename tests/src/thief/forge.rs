//! Metadata as the thief signs them, with every key that was on the server.

use std::collections::BTreeMap;

use anyhow::Context as _;
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{DesiredSlot, Directive, Trial};
use sealift_protocol::id::{DeviceId, Epoch, Generation, ModelName, TenantId, UnixMillis, Version};
use sealift_protocol::tuf::key::SigningKey;
use sealift_protocol::tuf::metadata::{
    MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp, TimestampMeta,
};
use sealift_protocol::tuf::{Role, signed};
use serde_json::Value;

use super::Thief;
use crate::digits::MODEL;

const DAY_MS: i64 = 86_400_000;

pub(super) fn now() -> anyhow::Result<UnixMillis> {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(UnixMillis(i64::try_from(elapsed.as_millis())?))
}

/// Metadata of a role that the thief wants devices to take.
pub(super) struct Forgery {
    pub(super) role: Role,
    pub(super) version: u64,
    pub(super) bytes: Vec<u8>,
}

impl Thief {
    /// A directive as the director would sign it, under a generation that no device has seen.
    pub(super) fn directive(
        &mut self,
        device: &DeviceId,
        version: &str,
        index: Digest,
        signed_from: UnixMillis,
    ) -> anyhow::Result<Vec<u8>> {
        self.generation += 1;
        let slot = DesiredSlot {
            epoch: Epoch(u64::MAX),
            trial: Trial { probation_s: 0, ..Trial::default() },
            ..DesiredSlot::new(ModelName::parse(MODEL)?, Version::parse(version)?, index)
        };
        let window = (signed_from, signed_from.plus(DAY_MS));
        let whom = (TenantId::parse("main")?, device.clone());
        let directive = Directive::new(whom, Generation(self.generation), window, vec![slot]);
        Ok(directive.sign(&self.director)?)
    }

    /// The newest metadata of a role in the stolen store: its version and its bytes.
    pub(super) async fn newest(&self, role: &Role) -> anyhow::Result<(u64, Vec<u8>)> {
        let listed = self.listing().await?;
        let version = match role {
            Role::Root => 1,
            Role::Timestamp | Role::Snapshot | Role::Targets | Role::Delegated(_) => {
                listed.get(&format!("{role}.json")).context("a listed role")?.version
            }
        };
        let bytes = self.front.stolen(&format!("/tuf/{version}.{role}.json")).await?;
        Ok((version, bytes))
    }

    /// What the stolen server's newest snapshot lists.
    async fn listing(&self) -> anyhow::Result<BTreeMap<String, MetaFile>> {
        let timestamp = self.front.stolen_json("/tuf/timestamp.json").await?;
        let version = &timestamp["signed"]["meta"]["snapshot.json"]["version"];
        let snapshot = self.front.stolen_json(&format!("/tuf/{version}.snapshot.json")).await?;
        let snapshot: Snapshot = serde_json::from_value(snapshot["signed"].clone())?;
        Ok(snapshot.meta)
    }

    /// A snapshot and a timestamp, signed with the stolen keys, that lead to the forgeries; `dropped` is not listed any more.
    pub(super) async fn publish(
        &mut self,
        forgeries: &[Forgery],
        dropped: Option<&Role>,
    ) -> anyhow::Result<()> {
        let mut meta = self.listing().await?;
        let stored = meta.clone();
        meta.extend(self.sown.clone());
        for Forgery { role, version, bytes } in forgeries {
            let (name, file) = (format!("{role}.json"), MetaFile::of(*version, bytes));
            // A device that has taken a snapshot takes none that goes back behind it.
            if stored.get(&name).is_some_and(|before| before.version < *version) {
                self.sown.insert(name.clone(), file.clone());
            }
            meta.insert(name, file);
            self.front.forge(format!("/tuf/{version}.{role}.json"), bytes.clone());
        }
        if let Some(role) = dropped {
            meta.remove(&format!("{role}.json"));
        }
        let version = self.version;
        let snapshot = Snapshot { version, expires: now()?.plus(DAY_MS), meta };
        let snapshot = signed::sign(&Role::Snapshot, &snapshot, &[&self.snapshot])?;
        self.front.forge(format!("/tuf/{version}.snapshot.json"), snapshot.clone());
        let snapshot = MetaFile::of(version, &snapshot);
        self.stamp(version, snapshot, now()?.plus(DAY_MS))?;
        self.version += 1;
        Ok(())
    }

    /// A timestamp of the thief's choice.
    pub(super) fn stamp(
        &self,
        version: u64,
        snapshot: MetaFile,
        expires: UnixMillis,
    ) -> anyhow::Result<()> {
        let timestamp = Timestamp { version, expires, meta: TimestampMeta { snapshot } };
        let bytes = signed::sign(&Role::Timestamp, &timestamp, &[&self.timestamp])?;
        self.front.forge("/tuf/timestamp.json", bytes);
        Ok(())
    }

    /// The snapshot that the newest timestamp of the stolen store names.
    pub(super) async fn newest_snapshot(&self) -> anyhow::Result<MetaFile> {
        let timestamp = self.front.stolen_json("/tuf/timestamp.json").await?;
        Ok(serde_json::from_value(timestamp["signed"]["meta"]["snapshot.json"].clone())?)
    }

    /// The next metadata of a role that names targets, changed, and signed by whom the thief can.
    pub(super) async fn next_targets(
        &self,
        role: Role,
        keys: &[&SigningKey],
        change: impl FnOnce(&mut Targets),
    ) -> anyhow::Result<Forgery> {
        let (version, bytes) = self.newest(&role).await?;
        let mut targets: Targets = content(&bytes)?;
        targets.version = version + 1;
        targets.expires = now()?.plus(DAY_MS);
        change(&mut targets);
        let bytes = signed::sign(&role, &targets, keys)?;
        Ok(Forgery { role, version: version + 1, bytes })
    }

    /// The next root, with the thief's own keys in every role.
    pub(super) async fn next_root(&self, keys: &[&SigningKey]) -> anyhow::Result<Vec<u8>> {
        let (_, bytes) = self.newest(&Role::Root).await?;
        let mut root: Root = content(&bytes)?;
        root.version += 1;
        root.expires = now()?.plus(365 * DAY_MS);
        for key in keys {
            root.keys.insert(key.id(), key.public());
        }
        let ids: Vec<_> = keys.iter().map(|key| key.id()).collect();
        let roles = &mut root.roles;
        for role in [&mut roles.root, &mut roles.targets, &mut roles.snapshot, &mut roles.timestamp]
        {
            role.keyids = ids.clone().into_iter().collect();
        }
        Ok(signed::sign(&Role::Root, &root, keys)?)
    }

    /// The target of an image, as a publisher would describe it.
    pub(super) async fn target_of(&self, index: Digest) -> anyhow::Result<TargetFile> {
        let bytes = self.front.stolen(&format!("/v2/{MODEL}/manifests/{index}")).await?;
        Ok(TargetFile::of_model(&bytes, Epoch(u64::from(u32::MAX))))
    }
}

fn content<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> anyhow::Result<T> {
    let envelope: Value = serde_json::from_slice(bytes)?;
    Ok(serde_json::from_value(envelope["signed"].clone())?)
}

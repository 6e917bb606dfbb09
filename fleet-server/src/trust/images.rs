//! Which images publishers endorse, as far as the registry has them.

use std::collections::BTreeMap;

use sealift_protocol::id::{ModelName, Version};
use sealift_protocol::tuf::metadata::{TargetFile, Targets};
use sealift_protocol::tuf::repository::Repository;
use sealift_protocol::tuf::{Role, TufError};
use serde::Deserialize;

use super::TrustError;
use crate::store::trust::{Endorsement, PushedImage, VersionName};

/// Publishers' roles begin with this, and end with their team.
pub(super) const PUBLISHER_PREFIX: &str = "publisher-";

/// The newest metadata of a delegated role; the repository has checked its signatures.
pub(super) struct Delegated {
    pub(super) targets: Targets,
    signers: Vec<String>,
}

impl Delegated {
    /// Reads it; none where the role is delegated to and has signed nothing yet.
    pub(super) fn read(repository: &Repository, role: &str) -> Result<Option<Self>, TrustError> {
        #[derive(Deserialize)]
        struct Envelope {
            signed: Targets,
            signatures: Vec<Signature>,
        }
        #[derive(Deserialize)]
        struct Signature {
            keyid: String,
        }
        let Some(bytes) = repository.delegated(role) else { return Ok(None) };
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(|source| {
            let role = Role::Delegated(role.to_owned());
            TrustError::Damaged(TufError::Malformed { role, source })
        })?;
        let keys = envelope.signatures.into_iter().map(|signature| signature.keyid);
        let signers = std::iter::once(role.to_owned()).chain(keys).collect();
        Ok(Some(Self { targets: envelope.signed, signers }))
    }
}

/// The roles that the repository delegates to.
pub(super) fn delegated_names(repository: &Repository) -> Vec<String> {
    let delegations = repository.targets().delegations.iter();
    delegations.flat_map(|delegations| delegations.names()).map(str::to_owned).collect()
}

/// Every image that a publisher endorses now. What `uploaded` names must all be in the registry; what others named before may be gone.
pub(super) fn endorsements(
    repository: &Repository,
    images: &BTreeMap<VersionName, PushedImage>,
    uploaded: &[&str],
) -> Result<BTreeMap<VersionName, Endorsement>, TrustError> {
    let mut endorsed = BTreeMap::new();
    for role in delegated_names(repository) {
        if !role.starts_with(PUBLISHER_PREFIX) {
            continue;
        }
        let Some(Delegated { targets, signers }) = Delegated::read(repository, &role)? else {
            continue;
        };
        for (path, entry) in &targets.targets {
            match check_image(path, entry, images) {
                Ok(name) => {
                    let epoch = entry.epoch().unwrap_or_default();
                    endorsed.insert(name, Endorsement { epoch, by: signers.clone() });
                }
                Err(refused) if uploaded.contains(&role.as_str()) => return Err(refused),
                Err(refused) => tracing::debug!(role, %refused, "target without an image"),
            }
        }
    }
    Ok(endorsed)
}

/// Rule: a target is a model image that lies in the registry, byte for byte.
fn check_image(
    path: &str,
    entry: &TargetFile,
    images: &BTreeMap<VersionName, PushedImage>,
) -> Result<VersionName, TrustError> {
    let name = model_of(path).ok_or_else(|| TrustError::Target(path.to_owned()))?;
    let refused = |why| TrustError::Image { path: path.to_owned(), why };
    let image = images.get(&name).ok_or_else(|| refused("it was not pushed"))?;
    if Some(image.digest) != entry.digest() {
        return Err(refused("the registry has another digest"));
    }
    if image.index_bytes != entry.length {
        return Err(refused("the registry has another length"));
    }
    Ok(name)
}

fn model_of(path: &str) -> Option<VersionName> {
    let (model, version) = path.strip_prefix("models/")?.rsplit_once('/')?;
    Some((ModelName::parse(model).ok()?, Version::parse(version).ok()?))
}

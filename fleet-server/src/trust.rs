//! The TUF repository: what publishers, key holders and the server's two online keys have signed.
//!
//! ```text
//! publisher's metadata ──▶ signature, version, paths ──▶ images are here ──▶ new snapshot, new timestamp ──▶ one commit ──▶ hint
//! ```
//!
//! Architecture Invariant: the server cannot name a target. It holds the keys of snapshot, timestamp and director alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use sealift_protocol::api::{RevocationKind, RevocationView, RevokedVersion};
use sealift_protocol::cose;
use sealift_protocol::id::{ModelName, UnixMillis, Version};
use sealift_protocol::tuf::bundle::{InvalidBundle, Revocations, TrustBundle};
use sealift_protocol::tuf::client::TARGETS_FOLDER;
use sealift_protocol::tuf::key::SigningKey;
use sealift_protocol::tuf::metadata::{TargetFile, Targets};
use sealift_protocol::tuf::repository::{Lifetimes, OnlineKeys, Repository, Upload};
use sealift_protocol::tuf::{
    BUNDLE_PATH, DelegatedRoles, REVOCATIONS_PATH, REVOCATIONS_ROLE, Role, TufError,
};
use serde::Deserialize;

use crate::audit::Deed;
use crate::store::trust::{Endorsement, PushedImage, VersionName};
use crate::store::{StoreError, TenantStore};

pub(crate) mod ceremony;
pub(crate) mod deny;
pub(crate) mod keys;

use deny::{Because, Fallout};

/// Somebody else's change came in between this often: then the server is told to try later.
const ATTEMPTS_MAX: u32 = 5;

/// Why trust metadata was not changed or not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// There was no ceremony.
    #[error(
        "this server has no trust metadata\nhelp: `fleet-server init --data DIR --offline DIR` makes the keys and signs the first metadata"
    )]
    NoCeremony,
    /// A key file.
    #[error(transparent)]
    Key(#[from] keys::KeyError),
    /// The metadata was refused.
    #[error("metadata of role {role} is refused: {source}")]
    Refused {
        /// Whose.
        role: String,
        /// Why.
        source: TufError,
    },
    /// The repository in the store is damaged.
    #[error("the trust metadata in the store do not belong together")]
    Damaged(#[source] TufError),
    /// A role that nobody can upload.
    #[error("there is no role `{0}` to upload metadata of")]
    Role(String),
    /// A target that is no model image.
    #[error("target `{0}` is not models/<team>/<name>/<version>")]
    Target(String),
    /// A deny list that devices could not read.
    #[error("the deny list is refused: {source}")]
    DenyList {
        /// Why.
        source: InvalidBundle,
    },
    /// A target whose image was not pushed, or is another one.
    #[error("target {path} names an image that is not in the registry: {why}")]
    Image {
        /// The target.
        path: String,
        /// What differs.
        why: &'static str,
    },
    /// The store is that of another fleet, or the keys are.
    #[error(
        "the keys in {0} are not those of the trust metadata in the store\nhelp: give each fleet its own data directory and its own database"
    )]
    ForeignKeys(PathBuf),
    /// The director's key is not the one that devices know.
    #[error(
        "the director key on disk is not in the trust bundle, so that no device would obey it\nhelp: put back the key of the ceremony, or have the holders of the targets keys sign a new bundle"
    )]
    Director,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TrustError {
    /// The stable code of the refusal; none where the server is at fault.
    pub(crate) fn code(&self) -> Option<&'static str> {
        match self {
            Self::Refused { source, .. } => Some(source.code()),
            Self::Role(_) => Some("trust.role"),
            Self::Target(_) => Some("trust.target"),
            Self::Image { .. } => Some("trust.image"),
            Self::DenyList { .. } => Some("trust.deny-list"),
            Self::NoCeremony
            | Self::Key(_)
            | Self::Damaged(_)
            | Self::Director
            | Self::ForeignKeys(_)
            | Self::Store(_) => None,
        }
    }
}

/// The repository and its two online keys.
pub(crate) struct Trust {
    store: TenantStore,
    snapshot: SigningKey,
    timestamp: SigningKey,
    lifetimes: Lifetimes,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// The new timestamp's version: the hint for devices.
    pub(crate) timestamp: u64,
    /// What followed, where the deny list changed.
    pub(crate) fallout: Fallout,
}

struct Opened {
    repository: Repository,
    head: u64,
}

impl Trust {
    /// Opens the repository with the online keys in `folder`.
    pub(crate) async fn open(store: TenantStore, folder: &Path) -> Result<Self, TrustError> {
        if store.metadata_head().await?.is_none() {
            return Err(TrustError::NoCeremony);
        }
        let snapshot = keys::read_role(&folder.join(keys::SNAPSHOT))?;
        let timestamp = keys::read_role(&folder.join(keys::TIMESTAMP))?;
        let trust = Self { store, snapshot, timestamp, lifetimes: Lifetimes::ONLINE };
        let Opened { repository, .. } = trust.load().await?;
        let roles = &repository.root().roles;
        let is_own = roles.snapshot.keyids.contains(&trust.snapshot.id())
            && roles.timestamp.keyids.contains(&trust.timestamp.id());
        if is_own { Ok(trust) } else { Err(TrustError::ForeignKeys(folder.to_owned())) }
    }

    /// A file by the name under which devices fetch it.
    pub(crate) async fn file(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.metadata(name).await
    }

    /// The first root, which enrolment tokens pin.
    pub(crate) async fn first_root(&self) -> Result<Vec<u8>, TrustError> {
        self.file("1.root.json").await?.ok_or(TrustError::NoCeremony)
    }

    /// The keys of operators whose signature under a rollout counts, by their COSE key id.
    pub(crate) async fn operators(
        &self,
    ) -> Result<BTreeMap<cose::KeyId, VerifyingKey>, TrustError> {
        let Opened { repository, .. } = self.load().await?;
        let keys = bundle(&repository)?.operators;
        Ok(keys.iter().map(|key| (cose::KeyId::of(key.public()), *key.public())).collect())
    }

    /// Rule: directives are signed by a key that the trust bundle names.
    pub(crate) async fn check_director(&self, key: &VerifyingKey) -> Result<(), TrustError> {
        let Opened { repository, .. } = self.load().await?;
        let is_named =
            bundle(&repository)?.directors.iter().any(|director| director.public() == key);
        if is_named { Ok(()) } else { Err(TrustError::Director) }
    }

    /// Everything on the deny list, with the versions that it is about.
    pub(crate) async fn revocations(&self) -> Result<Vec<RevocationView>, TrustError> {
        let mut views = self.store.revocations().await?;
        let is_image = |view: &&RevocationView| view.kind == RevocationKind::Image;
        let images = views.iter().filter(is_image).filter_map(|view| view.subject.parse().ok());
        let versions = self.store.versions_with(&images.collect()).await?;
        let usage = self.store.usage(None).await?;
        for view in &mut views {
            let of_this = versions.iter().filter(|(_, digest)| digest.to_string() == view.subject);
            let revoked = of_this.map(|(name, _)| RevokedVersion {
                model: name.0.clone(),
                version: name.1.clone(),
                devices: usage.devices.get(name).copied().unwrap_or_default(),
            });
            view.versions = revoked.collect();
        }
        Ok(views)
    }

    /// Every role that names targets, with its newest metadata.
    pub(crate) async fn roles(&self) -> Result<Vec<(String, Targets)>, TrustError> {
        let Opened { repository, .. } = self.load().await?;
        let targets = repository.targets().clone().into_content();
        let mut roles = vec![("targets".to_owned(), targets)];
        for name in delegated_names(&repository) {
            if let Some(Delegated { targets, .. }) = Delegated::read(&repository, &name)? {
                roles.push((name, targets));
            }
        }
        Ok(roles)
    }

    /// Takes the next metadata of `role`, if it is signed as the repository demands and names only what the registry has.
    pub(crate) async fn accept(
        &self,
        role: &str,
        upload: Upload,
        because: Because<'_>,
    ) -> Result<Published, TrustError> {
        for _ in 1..ATTEMPTS_MAX {
            match self.try_accept(role, upload.clone(), because).await {
                Err(TrustError::Store(StoreError::Changed(_))) => (), // look again
                done => return done,
            }
        }
        self.try_accept(role, upload, because).await
    }

    async fn try_accept(
        &self,
        role: &str,
        upload: Upload,
        because: Because<'_>,
    ) -> Result<Published, TrustError> {
        let Because { by, reason, now } = because;
        let Opened { mut repository, head } = self.load().await?;
        let online = self.online();
        let changes = match role {
            "root" => repository.accept_root(upload.metadata, online, now),
            "targets" => repository.accept_targets(upload, online, now),
            _ if role == REVOCATIONS_ROLE || role.starts_with(PUBLISHER_PREFIX) => {
                repository.accept_delegated(role, upload, online, now)
            }
            _ => return Err(TrustError::Role(role.to_owned())),
        };
        let changes =
            changes.map_err(|source| TrustError::Refused { role: role.to_owned(), source })?;
        let images = self.store.pushed_images().await?;
        let endorsed = endorsements(&repository, &images, role)?;
        let denied = if role == REVOCATIONS_ROLE { denied(&repository)? } else { None };
        let after = repository.timestamp().version;
        let mut change = self.store.begin().await?;
        change.change_metadata(&changes, head, after).await?;
        for name in images.keys() {
            if !change.set_endorsement(name, endorsed.get(name), now).await? {
                return Err(StoreError::Changed("registry").into()); // deleted in between
            }
        }
        let detail = format!("timestamp {after}");
        let (action, subject) = ("trust.publish", role);
        let why = Some(reason).filter(|reason| !reason.is_empty());
        let deed = Deed { actor: by, action, subject, reason: why, detail: &detail };
        change.audit(&deed, now).await?;
        let fallout = match &denied {
            Some(list) => deny::follow(&self.store, &mut change, list, because).await?,
            None => Fallout::default(),
        };
        change.commit().await?;
        let (halted, devices) = (fallout.halted.len(), fallout.devices.len());
        tracing::info!(role, timestamp = after, halted, devices, "trust metadata published");
        Ok(Published { timestamp: after, fallout })
    }

    /// Signs a new timestamp when half of the life of the present one is over.
    pub(crate) async fn refresh(&self, now: UnixMillis) -> Result<Option<Published>, TrustError> {
        let Opened { mut repository, head } = self.load().await?;
        if repository.timestamp().expires.since(now) > self.lifetimes.timestamp_ms / 2 {
            return Ok(None);
        }
        let changes =
            repository.refresh_timestamp(self.online(), now).map_err(TrustError::Damaged)?;
        let after = repository.timestamp().version;
        let mut change = self.store.begin().await?;
        change.change_metadata(&changes, head, after).await?;
        change.commit().await?;
        tracing::info!(timestamp = after, "timestamp renewed");
        Ok(Some(Published { timestamp: after, fallout: Fallout::default() }))
    }

    async fn load(&self) -> Result<Opened, TrustError> {
        let head = self.store.metadata_head().await?.ok_or(TrustError::NoCeremony)?;
        let files = self.store.all_metadata().await?;
        let repository = Repository::open(files, self.lifetimes).map_err(TrustError::Damaged)?;
        Ok(Opened { repository, head })
    }

    const fn online(&self) -> OnlineKeys<'_> {
        OnlineKeys { snapshot: &self.snapshot, timestamp: &self.timestamp }
    }
}

/// The trust bundle that the repository now names.
fn bundle(repository: &Repository) -> Result<TrustBundle, TrustError> {
    let entry = repository.targets().targets.get(BUNDLE_PATH).ok_or(TrustError::Director)?;
    let name = format!("{TARGETS_FOLDER}{}", entry.location(BUNDLE_PATH, true));
    let bytes = repository.files().get(&name).ok_or(TrustError::Director)?;
    TrustBundle::parse(bytes).map_err(|_| TrustError::Director)
}

/// The deny list that the repository now names; none before its role has signed anything.
fn denied(repository: &Repository) -> Result<Option<Revocations>, TrustError> {
    let Some(Delegated { targets, .. }) = Delegated::read(repository, REVOCATIONS_ROLE)? else {
        return Ok(None);
    };
    let refused = |source| TrustError::DenyList { source };
    let missing = || TrustError::Target(REVOCATIONS_PATH.to_owned());
    let entry = targets.targets.get(REVOCATIONS_PATH).ok_or_else(missing)?;
    let name = format!("{TARGETS_FOLDER}{}", entry.location(REVOCATIONS_PATH, true));
    let bytes = repository.files().get(&name).ok_or_else(missing)?;
    Revocations::parse(bytes).map(Some).map_err(refused)
}

/// Publishers' roles begin with this, and end with their team.
const PUBLISHER_PREFIX: &str = "publisher-";

/// The newest metadata of a delegated role; the repository has checked its signatures.
struct Delegated {
    targets: Targets,
    signers: Vec<String>,
}

impl Delegated {
    /// Reads it; none where the role is delegated to and has signed nothing yet.
    fn read(repository: &Repository, role: &str) -> Result<Option<Self>, TrustError> {
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

fn delegated_names(repository: &Repository) -> Vec<String> {
    let delegations = repository.targets().delegations.as_ref();
    match delegations.map(|delegations| &delegations.roles) {
        Some(DelegatedRoles::Listed(roles)) => roles.iter().map(|role| role.name.clone()).collect(),
        Some(DelegatedRoles::Succinct(_)) | None => Vec::new(),
    }
}

/// Every image that a publisher endorses now. What `uploaded` names must all be in the registry; what others named before may be gone.
fn endorsements(
    repository: &Repository,
    images: &BTreeMap<VersionName, PushedImage>,
    uploaded: &str,
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
                Err(refused) if role == uploaded => return Err(refused),
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

//! The TUF repository: what publishers, key holders and the server's two online keys have signed.
//!
//! ```text
//! publisher's metadata ──▶ signature, version, paths ──▶ images are here ──▶ new snapshot, new timestamp ──▶ one commit ──▶ hint
//! ```
//!
//! Architecture Invariant: the server cannot name a target. It holds the keys of snapshot, timestamp and director alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ed25519_dalek::VerifyingKey;
use sealift_protocol::api::{RevocationKind, RevocationView, RevokedVersion};
use sealift_protocol::cose;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::report::Trusted;
use sealift_protocol::tuf::bundle::{InvalidBundle, Revocations, TrustBundle};
use sealift_protocol::tuf::client::TARGETS_FOLDER;
use sealift_protocol::tuf::key::Key;
use sealift_protocol::tuf::metadata::{Root, Targets};
use sealift_protocol::tuf::repository::{Change, Lifetimes, Pace, Repository};
use sealift_protocol::tuf::signed::Signed;
use sealift_protocol::tuf::{BUNDLE_PATH, REVOCATIONS_PATH, REVOCATIONS_ROLE, Role, TufError};

use crate::audit::Deed;
use crate::directive::Director;
use crate::store::{StoreError, TenantStore};

pub(crate) mod ceremony;
pub(crate) mod deny;
pub(crate) mod expiry;
mod images;
pub(crate) mod keys;
pub(crate) mod online;

use expiry::Expiries;
use images::{Delegated, delegated_names, endorsements};
use online::{Online, OnlineRole};

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
    /// A change that changes nothing.
    #[error("the change has metadata of no role")]
    Empty,
    /// A role whose key the server does not hold.
    #[error("the server holds no key of role `{0}`")]
    Role(String),
    /// A target file that devices could not read.
    #[error("{path} is not what devices expect there: {source}")]
    File {
        /// Which.
        path: &'static str,
        /// Why.
        source: InvalidBundle,
    },
    /// A bundle without this server's director.
    #[error("the bundle names no director key of this server, so that no device would obey it")]
    Undirected,
    /// A root that would leave the server unable to sign.
    #[error("the root names none of this server's keys for {0}")]
    Online(&'static str),
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
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TrustError {
    /// Whether somebody else published in between: what was refused can be made anew and tried again.
    pub(crate) const fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::Refused { source: TufError::Version { .. }, .. }
                | Self::Store(StoreError::Changed(_))
        )
    }

    /// The stable code of the refusal; none where the server is at fault.
    pub(crate) fn code(&self) -> Option<&'static str> {
        match self {
            Self::Refused { source, .. } => Some(source.code()),
            Self::Empty => Some("trust.empty"),
            Self::Role(_) => Some("trust.role"),
            Self::File { .. } => Some("trust.file"),
            Self::Undirected => Some("trust.director"),
            Self::Online(_) => Some("trust.online-key"),
            Self::Target(_) => Some("trust.target"),
            Self::Image { .. } => Some("trust.image"),
            Self::DenyList { .. } => Some("trust.deny-list"),
            Self::NoCeremony
            | Self::Key(_)
            | Self::Damaged(_)
            | Self::ForeignKeys(_)
            | Self::Store(_) => None,
        }
    }
}

/// The repository, and the folder of the keys that the server holds.
pub(crate) struct Trust {
    store: TenantStore,
    folder: PathBuf,
    director: Arc<Director>,
    lifetimes: Lifetimes,
    expiries: Expiries,
    /// Held while key files change place.
    files: Mutex<()>,
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
    /// Opens the repository with the online keys in `folder`. The director takes up the key that devices know.
    pub(crate) async fn open(
        store: TenantStore,
        folder: &Path,
        director: Arc<Director>,
        lifetimes: Lifetimes,
    ) -> Result<Self, TrustError> {
        if store.metadata_head().await?.is_none() {
            return Err(TrustError::NoCeremony);
        }
        let (folder, expiries, files) = (folder.to_owned(), Expiries::default(), Mutex::default());
        let trust = Self { store, folder, director, lifetimes, expiries, files };
        let Opened { repository, .. } = trust.load().await?;
        let online = Online::read(&trust.folder)?;
        if online.of(repository.root()).is_none() {
            return Err(TrustError::ForeignKeys(trust.folder));
        }
        trust.expiries.note(&repository)?;
        // A server that devices do not obey starts all the same: it is where a bundle with another key is handed in.
        trust.direct(&repository)?;
        Ok(trust)
    }

    /// When which role has to be signed again; cheap to clone.
    pub(crate) fn expiries(&self) -> Expiries {
        self.expiries.clone()
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
        let bundle = TrustBundle::parse(target_file(&repository, BUNDLE_PATH)?)
            .map_err(|source| TrustError::File { path: BUNDLE_PATH, source })?;
        let keys = bundle.operators.iter();
        Ok(keys.map(|key| (cose::KeyId::of(key.public()), *key.public())).collect())
    }

    /// Makes a successor of one of the server's keys, or finds the one that waits to be named by those who hold offline keys.
    pub(crate) async fn prepare_key(
        &self,
        role: &str,
        by: &str,
        now: UnixMillis,
    ) -> Result<Key, TrustError> {
        let unknown = || TrustError::Role(role.to_owned());
        let online = OnlineRole::parse(role).ok_or_else(unknown)?;
        let key = {
            let _held = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            online.prepare(&self.folder)?
        };
        let detail = format!("key {}", key.id());
        let (action, subject) = ("trust.prepare-key", role);
        let deed = Deed { actor: by, action, subject, reason: None, detail: &detail };
        let mut change = self.store.begin().await?;
        change.audit(&deed, now).await?;
        change.commit().await?;
        tracing::info!(role, key = %key.id(), "successor of an online key waits to be named");
        Ok(key)
    }

    /// Lets the director follow the bundle and the deny list, and notes whether it has a key that devices obey.
    fn direct(&self, repository: &Repository) -> Result<(), TrustError> {
        let bundle = target_file(repository, BUNDLE_PATH)?;
        let bundle = TrustBundle::parse(bundle)
            .map_err(|source| TrustError::File { path: BUNDLE_PATH, source })?;
        let denied = target_file(repository, REVOCATIONS_PATH)?;
        let denied = Revocations::parse(denied)
            .map_err(|source| TrustError::File { path: REVOCATIONS_PATH, source })?;
        let obeyed: Vec<_> = bundle
            .directors
            .iter()
            .filter(|director| !denied.directors.contains(director.keyid()))
            .map(|director| director.keyid().clone())
            .collect();
        let is_obeyed = self.director.follow(&self.folder, &obeyed)?;
        if !is_obeyed {
            tracing::error!("devices obey none of the director keys that this server has");
        }
        self.expiries.note_director(is_obeyed);
        Ok(())
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

    /// Takes a change, if it is signed as the repository demands and names only what the registry has.
    pub(crate) async fn accept(
        &self,
        change: Change,
        because: Because<'_>,
    ) -> Result<Published, TrustError> {
        // Whoever catches up may bring nothing but images, which what is signed already has named.
        if change.roles().is_empty() && change.pace == Pace::Next {
            return Err(TrustError::Empty);
        }
        for _ in 1..ATTEMPTS_MAX {
            match self.try_accept(change.clone(), because).await {
                Err(TrustError::Store(StoreError::Changed(_))) => (), // look again
                done => return done,
            }
        }
        self.try_accept(change, because).await
    }

    async fn try_accept(
        &self,
        change: Change,
        because: Because<'_>,
    ) -> Result<Published, TrustError> {
        let Because { by, reason, now } = because;
        let Opened { mut repository, head } = self.load().await?;
        let roles = match change.roles().as_slice() {
            [] => "images".to_owned(),
            roles => roles.join(", "),
        };
        let refused = |source| TrustError::Refused { role: roles.clone(), source };
        check_trust_files(&change)?;
        // What was published elsewhere may name images that were not brought along; nobody can roll those out here.
        let is_complete = change.pace == Pace::Next;
        let uploaded: Vec<_> = change.targets.keys().filter(|_| is_complete).cloned().collect();
        let online = Online::read(&self.folder)?;
        let root = newest_root(&change, &repository).map_err(refused)?;
        let keys = online.of(&root).ok_or(TrustError::Online("snapshot or timestamp"))?;
        let is_new_bundle = is_complete && change.files.contains_key(BUNDLE_PATH);
        let changes = repository.accept(change, keys, now).map_err(refused)?;
        if is_new_bundle {
            self.check_bundle(&repository)?;
        }
        let images = self.store.pushed_images().await?;
        let uploaded: Vec<_> = uploaded.iter().map(String::as_str).collect();
        let endorsed = endorsements(&repository, &images, &uploaded)?;
        let denied = if uploaded.contains(&REVOCATIONS_ROLE) { denied(&repository)? } else { None };
        let after = repository.timestamp().version;
        let mut change = self.store.begin().await?;
        change.change_metadata(&changes, head, after).await?;
        for name in images.keys() {
            if !change.set_endorsement(name, endorsed.get(name), now).await? {
                return Err(StoreError::Changed("registry").into()); // deleted in between
            }
        }
        let detail = format!("timestamp {after}");
        let (action, subject) = ("trust.publish", roles.as_str());
        let why = Some(reason).filter(|reason| !reason.is_empty());
        let deed = Deed { actor: by, action, subject, reason: why, detail: &detail };
        change.audit(&deed, now).await?;
        let fallout = match &denied {
            Some(list) => deny::follow(&self.store, &mut change, list, because).await?,
            None => Fallout::default(),
        };
        change.commit().await?;
        let (halted, devices) = (fallout.halted.len(), fallout.devices.len());
        tracing::info!(roles, timestamp = after, halted, devices, "trust metadata published");
        self.settle(&repository);
        Ok(Published { timestamp: after, fallout })
    }

    /// Rule: a bundle names a director key of this server, or no device would obey it any more.
    fn check_bundle(&self, repository: &Repository) -> Result<(), TrustError> {
        let bundle = TrustBundle::parse(target_file(repository, BUNDLE_PATH)?)
            .map_err(|source| TrustError::File { path: BUNDLE_PATH, source })?;
        let own = OnlineRole::Director.read(&self.folder)?;
        let is_named = own.iter().any(|key| bundle.director(&key.id()).is_some());
        if is_named { Ok(()) } else { Err(TrustError::Undirected) }
    }

    /// What follows from new metadata for the server's own keys. It is published already: where this fails, the next look at the
    /// timestamp tries again.
    fn settle(&self, repository: &Repository) {
        let _held = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = Online::read(&self.folder)
            .and_then(|online| online.settle(&self.folder, repository.root()))
            .map_err(TrustError::from)
            .and_then(|()| self.expiries.note(repository))
            .and_then(|()| self.direct(repository));
        if let Err(error) = settled {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "the server's keys do not follow the trust metadata yet");
        }
    }

    /// Signs a new timestamp when half of the life of the present one is over.
    pub(crate) async fn refresh(&self, now: UnixMillis) -> Result<Option<Published>, TrustError> {
        let Opened { mut repository, head } = self.load().await?;
        self.settle(&repository);
        if repository.timestamp().expires.since(now) > self.lifetimes.timestamp_ms / 2 {
            return Ok(None);
        }
        let online = Online::read(&self.folder)?;
        let keys = online.of(repository.root());
        let keys = keys.ok_or_else(|| TrustError::ForeignKeys(self.folder.clone()))?;
        let changes = repository.refresh_timestamp(keys, now).map_err(TrustError::Damaged)?;
        let after = repository.timestamp().version;
        let mut change = self.store.begin().await?;
        change.change_metadata(&changes, head, after).await?;
        change.commit().await?;
        tracing::info!(timestamp = after, "timestamp renewed");
        Ok(Some(Published { timestamp: after, fallout: Fallout::default() }))
    }

    /// The versions of the metadata as they are published now.
    pub(crate) async fn versions(&self) -> Result<Trusted, TrustError> {
        let Opened { repository, .. } = self.load().await?;
        let name = |file: &str| file.strip_suffix(".json").map(str::to_owned);
        let snapshot = repository.snapshot();
        let listed = snapshot.meta.iter();
        Ok(Trusted {
            root: repository.root().version,
            timestamp: repository.timestamp().version,
            snapshot: snapshot.version,
            roles: listed.filter_map(|(file, meta)| Some((name(file)?, meta.version))).collect(),
            halt: 0,
            capture: 0,
        })
    }

    /// Publishes what is there under versions above these, since devices have followed as many. Returns the new timestamp's version.
    pub(crate) async fn jump(
        &self,
        above: (u64, u64),
        deed: &Deed<'_>,
        now: UnixMillis,
    ) -> Result<u64, TrustError> {
        let Opened { mut repository, head } = self.load().await?;
        let online = Online::read(&self.folder)?;
        let keys = online.of(repository.root());
        let keys = keys.ok_or_else(|| TrustError::ForeignKeys(self.folder.clone()))?;
        let changes = repository.jump(above, keys, now).map_err(TrustError::Damaged)?;
        let after = repository.timestamp().version;
        let mut change = self.store.begin().await?;
        change.change_metadata(&changes, head, after).await?;
        change.audit(deed, now).await?;
        change.commit().await?;
        tracing::info!(timestamp = after, "trust metadata brought ahead of the devices");
        Ok(after)
    }

    async fn load(&self) -> Result<Opened, TrustError> {
        let head = self.store.metadata_head().await?.ok_or(TrustError::NoCeremony)?;
        let files = self.store.all_metadata().await?;
        let repository = Repository::open(files, self.lifetimes).map_err(TrustError::Damaged)?;
        Ok(Opened { repository, head })
    }
}

/// The root after a change; its signatures are checked with the change.
fn newest_root(change: &Change, repository: &Repository) -> Result<Root, TufError> {
    match change.roots.last() {
        Some(bytes) => Signed::<Root>::parse(Role::Root, bytes.clone())?.unverified(),
        None => Ok(repository.root().clone().into_content()),
    }
}

/// The deny list that the repository now names; none before its role has signed anything.
fn denied(repository: &Repository) -> Result<Option<Revocations>, TrustError> {
    if Delegated::read(repository, REVOCATIONS_ROLE)?.is_none() {
        return Ok(None);
    }
    let bytes = target_file(repository, REVOCATIONS_PATH)?;
    let refused = |source| TrustError::DenyList { source };
    Revocations::parse(bytes).map(Some).map_err(refused)
}

/// Rule: whoever signs the bundle or the deny list by mistake as something else must not leave devices without either.
fn check_trust_files(change: &Change) -> Result<(), TrustError> {
    if let Some(bytes) = change.files.get(BUNDLE_PATH) {
        TrustBundle::parse(bytes)
            .map_err(|source| TrustError::File { path: BUNDLE_PATH, source })?;
    }
    if let Some(bytes) = change.files.get(REVOCATIONS_PATH) {
        Revocations::parse(bytes)
            .map_err(|source| TrustError::File { path: REVOCATIONS_PATH, source })?;
    }
    Ok(())
}

/// A target file that lies in the repository.
fn target_file<'a>(repository: &'a Repository, path: &str) -> Result<&'a [u8], TrustError> {
    let missing = || TrustError::Damaged(TufError::Missing { file: path.to_owned() });
    let top = repository.targets().targets.get(path).cloned();
    let delegated = || {
        let on_call = Delegated::read(repository, REVOCATIONS_ROLE).ok().flatten()?;
        on_call.targets.targets.get(path).cloned()
    };
    let entry = top.or_else(delegated).ok_or_else(missing)?;
    let name = format!("{TARGETS_FOLDER}{}", entry.location(path, true));
    repository.files().get(&name).map(Vec::as_slice).ok_or_else(missing)
}

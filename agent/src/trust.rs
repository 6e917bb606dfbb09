//! What the device trusts now: TUF metadata fetched and kept, the bundle of director keys, the deny list.
//!
//! The rules are `protocol::tuf`'s; this file fetches what it needs, and keeps what it says, in the order in which it says so.

pub(crate) mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ed25519_dalek::VerifyingKey;
use sealift_protocol::cose;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::report::Trusted;
use sealift_protocol::tuf::bundle::{InvalidBundle, Revocations, TrustBundle};
use sealift_protocol::tuf::client::{Client, RoleNames, TARGETS_FOLDER, Want};
use sealift_protocol::tuf::key::KeyId;
use sealift_protocol::tuf::metadata::TargetFile;
use sealift_protocol::tuf::{BUNDLE_PATH, REVOCATIONS_PATH, TufError};

use crate::device::{Fault, FaultKind};
use crate::disk::{self, Secrecy};
use crate::origin::{Origin, OriginError};

/// No file of metadata is longer.
const FILE_BYTES_MAX: u64 = 5 << 20;

/// Metadata that was checked less than this ago is fresh enough for the next image of the same directive.
const FRESH_MS: i64 = 20_000;

/// Metadata that were followed less than this ago, of which nothing newer was announced, are enough for what the device has already:
/// going back waits for no server.
const FOLLOWED_MS: i64 = 10 * 60_000;

/// The device's copy of the repository.
#[derive(Debug)]
pub(crate) struct Trust {
    dir: PathBuf,
    origin: Origin,
    client: Client,
    current: Option<Current>,
    denied: Denied,
    /// Whether the client has taken what could not be written: its versions would be forgotten with it.
    is_ahead_of_disk: bool,
    /// The newest timestamp that was announced to the device. Whoever announces too much only has it look.
    announced: Arc<AtomicU64>,
}

/// What the last update ended with.
#[derive(Debug)]
struct Current {
    bundle: TrustBundle,
    at: UnixMillis,
    /// Why it was made of what was kept: the server gave nothing newer.
    missed: Option<String>,
}

/// The newest deny list that was ever verified here. Whoever can keep the device from news, or let its metadata expire, must not win
/// back what was denied: only a newer list, signed like this one, changes it.
#[derive(Debug, Default)]
struct Denied {
    images: Arc<BTreeSet<Digest>>,
    directors: BTreeSet<KeyId>,
}

/// Why nothing could be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error(transparent)]
    Tuf(#[from] TufError),
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error("cannot read or write {path}")]
    Disk {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{file} is not what it should be: {source}")]
    Bundle { file: &'static str, source: InvalidBundle },
}

impl TrustError {
    /// What the error means for whoever asked: only a server out of reach is worth another try.
    pub(crate) fn fault(&self, spread_permille: u16) -> Fault {
        let reason = self.to_string();
        let unreachable = FaultKind::Unreachable { spread_permille };
        match self {
            // The next timestamp may name files that the server is about to have.
            Self::Tuf(tuf @ TufError::Missing { .. }) => {
                Fault::new(unreachable, tuf.code(), &reason)
            }
            Self::Tuf(tuf) => Fault::new(FaultKind::Untrusted, tuf.code(), &reason),
            Self::Origin(OriginError::TooLarge { .. }) => {
                Fault::new(FaultKind::Untrusted, "tuf.too-large", &reason)
            }
            Self::Origin(_) => Fault::new(unreachable, "trust.unreachable", &reason),
            Self::Disk { .. } => Fault::new(unreachable, "trust.disk", &reason),
            Self::Bundle { .. } => Fault::new(FaultKind::Untrusted, "trust.bundle", &reason),
        }
    }
}

impl Trust {
    /// Opens what was kept in `dir`; its `root.json` came with enrolment.
    pub(crate) fn open(dir: &Path, origin: Origin) -> Result<Self, TrustError> {
        files::recover(dir, Secrecy::Private).map_err(on_disk)?;
        let files = stored(dir)?;
        // It was written after its checks. One that is damaged denies nothing until the next update.
        let list = files.get(&format!("{TARGETS_FOLDER}{REVOCATIONS_PATH}"));
        let list = list.and_then(|bytes| Revocations::parse(bytes).ok());
        let denied = list.map(Denied::from).unwrap_or_default();
        let client = Client::open(files, RoleNames::Plain)?;
        let (dir, current, is_ahead_of_disk) = (dir.to_owned(), None, false);
        let announced = Arc::default();
        Ok(Self { dir, origin, client, current, denied, is_ahead_of_disk, announced })
    }

    /// Where the version of a timestamp is noted that somebody announced.
    pub(crate) fn announced(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.announced)
    }

    /// Whether the metadata were followed lately, have not expired, and nothing newer was announced. Rule (TUF specification, section
    /// 5.4.4): an expired timestamp counts no more; until then it is what the repository has said.
    pub(crate) fn is_followed(&self, now: UnixMillis) -> bool {
        let was_lately = self.current.as_ref().is_some_and(|current| {
            current.missed.is_none() && (0..FOLLOWED_MS).contains(&now.since(current.at))
        });
        let version = self.client.timestamp().map_or(0, |timestamp| timestamp.version);
        let is_newest = version >= self.announced.load(Ordering::Relaxed);
        was_lately && is_newest && now < self.earliest_expiry()
    }

    /// Brings everything up to date, unless that was done just now. Where the server is out of reach, what was kept counts for as
    /// long as it has not expired.
    pub(crate) async fn refresh(&mut self, now: UnixMillis) -> Result<(), TrustError> {
        let is_fresh = |current: &Current| {
            current.missed.is_none() && (0..FRESH_MS).contains(&now.since(current.at))
        };
        if self.current.as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        self.refresh_now(now).await
    }

    /// Brings everything up to date.
    pub(crate) async fn refresh_now(&mut self, now: UnixMillis) -> Result<(), TrustError> {
        self.current = None;
        self.fall_back_to_disk()?;
        self.client.refresh(now);
        let missed = match self.carry_out().await {
            Err(TrustError::Origin(error)) if !matches!(error, OriginError::TooLarge { .. }) => {
                tracing::debug!(%error, "metadata cannot be fetched, those that were kept count");
                self.client.resume(now)?;
                Some(error.to_string())
            }
            done => {
                done?;
                None
            }
        };
        let bundle = TrustBundle::parse(&self.file(BUNDLE_PATH).await?)
            .map_err(|source| TrustError::Bundle { file: BUNDLE_PATH, source })?;
        let revocations = Revocations::parse(&self.file(REVOCATIONS_PATH).await?)
            .map_err(|source| TrustError::Bundle { file: REVOCATIONS_PATH, source })?;
        if *self.denied.images != revocations.images {
            tracing::info!(images = revocations.images.len(), "deny list changed");
        }
        self.denied.take(revocations);
        self.current = Some(Current { bundle, at: now, missed });
        Ok(())
    }

    async fn file(&mut self, path: &str) -> Result<Vec<u8>, TrustError> {
        self.client.want(Want::File(path.to_owned()));
        self.carry_out().await?;
        let missing = || TufError::Missing { file: path.to_owned() };
        Ok(self.client.file(path).ok_or_else(missing)?.to_vec())
    }

    /// What the publisher has signed for a target.
    pub(crate) async fn target(&mut self, path: &str) -> Result<TargetFile, TrustError> {
        self.client.want(Want::Entry(path.to_owned()));
        match self.carry_out().await.and_then(|()| Ok(self.client.target(path)?.clone())) {
            // Whoever keeps the device from news must not make it refuse them for good: what is not known yet is asked for again.
            Err(TrustError::Tuf(TufError::NoTarget { .. })) if self.missed().is_some() => {
                let reason = self.missed().unwrap_or_default().to_owned();
                Err(TrustError::Origin(OriginError::Unreachable(reason)))
            }
            found => found,
        }
    }

    fn missed(&self) -> Option<&str> {
        self.current.as_ref()?.missed.as_deref()
    }

    /// The keys that may sign directives and are not revoked, by their COSE key id. Before the first update there are none.
    pub(crate) fn directors(&self) -> BTreeMap<cose::KeyId, VerifyingKey> {
        let directors = self.current.iter().flat_map(|current| &current.bundle.directors);
        let trusted = directors.filter(|key| !self.denied.directors.contains(key.keyid()));
        trusted.map(|key| (cose::KeyId::of(key.public()), *key.public())).collect()
    }

    /// The same keys, if the last update has ended well: what it could not follow tells nothing of them.
    pub(crate) fn present_directors(&self) -> Option<BTreeMap<cose::KeyId, VerifyingKey>> {
        self.current.is_some().then(|| self.directors())
    }

    /// The keys of operators whose second signature counts, by their COSE key id.
    pub(crate) fn operators(&self) -> BTreeMap<cose::KeyId, VerifyingKey> {
        let operators = self.current.iter().flat_map(|current| &current.bundle.operators);
        let trusted = operators.filter(|key| !self.denied.directors.contains(key.keyid()));
        trusted.map(|key| (cose::KeyId::of(key.public()), *key.public())).collect()
    }

    /// Whether an image may not be run although it is signed.
    pub(crate) fn is_revoked(&self, image: Digest) -> bool {
        self.denied.images.contains(&image)
    }

    /// All images that may not be run although they are signed; the same value until that changes.
    pub(crate) fn denied(&self) -> Arc<BTreeSet<Digest>> {
        Arc::clone(&self.denied.images)
    }

    /// How far the metadata have been followed; the server hears of it.
    pub(crate) fn trusted(&self) -> Trusted {
        let version = |name: &str| name.strip_suffix(".json").map(str::to_owned);
        let snapshot = self.client.snapshot();
        let listed = snapshot.iter().flat_map(|snapshot| &snapshot.meta);
        Trusted {
            root: self.client.root().version,
            timestamp: self.client.timestamp().map_or(0, |timestamp| timestamp.version),
            snapshot: snapshot.map_or(0, |snapshot| snapshot.version),
            roles: listed.filter_map(|(name, meta)| Some((version(name)?, meta.version))).collect(),
            // What obeys the lists says so.
            halt: 0,
            capture: 0,
        }
    }

    /// When the first of the metadata expires that the last update ended with.
    pub(crate) fn earliest_expiry(&self) -> UnixMillis {
        self.client.earliest_expiry()
    }

    async fn carry_out(&mut self) -> Result<(), TrustError> {
        while let Some(need) = self.client.need()? {
            let answer = self.origin.get(&format!("/tuf/{}", need.file), need.max_bytes).await?;
            let changes = self.client.on(answer)?;
            let written = files::change(&self.dir, changes, Secrecy::Private);
            self.is_ahead_of_disk = written.is_err();
            written.map_err(on_disk)?;
        }
        Ok(())
    }

    /// trust.md, 14: nothing is followed that rests on metadata which a restart would not find. What could not be written is fetched
    /// and written again.
    fn fall_back_to_disk(&mut self) -> Result<(), TrustError> {
        if self.is_ahead_of_disk {
            files::recover(&self.dir, Secrecy::Private).map_err(on_disk)?;
            self.client = Client::open(stored(&self.dir)?, RoleNames::Plain)?;
            self.is_ahead_of_disk = false;
        }
        Ok(())
    }
}

fn on_disk((path, source): files::Refused) -> TrustError {
    TrustError::Disk { path, source }
}

impl Denied {
    fn take(&mut self, list: Revocations) {
        self.directors = list.directors;
        if *self.images != list.images {
            self.images = Arc::new(list.images);
        }
    }
}

impl From<Revocations> for Denied {
    fn from(list: Revocations) -> Self {
        Self { images: Arc::new(list.images), directors: list.directors }
    }
}

/// The authorities behind the server's certificates that the bundle named which was kept last; none before the first update.
pub(crate) fn authorities(dir: &Path) -> Vec<String> {
    let path = dir.join(TARGETS_FOLDER).join(BUNDLE_PATH);
    let kept = disk::read(&path, FILE_BYTES_MAX).ok().flatten();
    let bundle = kept.and_then(|bytes| TrustBundle::parse(&bytes).ok());
    bundle.map_or_else(Vec::new, |bundle| {
        if bundle.server_cas.is_empty() { bundle.device_cas } else { bundle.server_cas }
    })
}

/// All files that were kept, by the names under which they were given out.
fn stored(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>, TrustError> {
    let mut files = kept_metadata(dir).map_err(on_disk)?;
    for target in [BUNDLE_PATH, REVOCATIONS_PATH] {
        let path = dir.join(TARGETS_FOLDER).join(target);
        let kept = disk::read(&path, FILE_BYTES_MAX);
        if let Some(bytes) = kept.map_err(|source| on_disk((path, source)))? {
            files.insert(format!("{TARGETS_FOLDER}{target}"), bytes);
        }
    }
    Ok(files)
}

/// The metadata that were kept in `dir`, by name. An error comes with the path that it is about.
pub(crate) fn kept_metadata(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>, files::Refused> {
    let mut files = BTreeMap::new();
    let entries = std::fs::read_dir(dir).map_err(|source| (dir.to_owned(), source))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else { continue };
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let kept = disk::read(&path, FILE_BYTES_MAX).map_err(|source| (path, source))?;
        files.extend(kept.map(|bytes| (name, bytes)));
    }
    Ok(files)
}

//! The key ceremony of `fleet-server init`: every key, the first metadata, the device CA.
//!
//! Keys that may name targets or keys go to a folder of their own, to be moved off the server; the server keeps those of snapshot,
//! timestamp, director and device CA.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey as Ed25519;
use sealift_protocol::id::{TeamId, TenantId, UnixMillis};
use sealift_protocol::tuf::bundle::{Director, InvalidBundle, TrustBundle};
use sealift_protocol::tuf::key::SigningKey;
use sealift_protocol::tuf::repository::ceremony as first_metadata;
use sealift_protocol::tuf::repository::{
    CeremonyKeys, Change, Lifetimes, OnlineKeys, Repository, TargetsDraft, publisher_delegation,
};
use sealift_protocol::tuf::{REVOCATIONS_ROLE, RUNTIME_ROLE, Role, TufError, publisher_role};

use super::keys::{self, KeyError};
use crate::audit::Deed;
use crate::certificate::{Authority, CertificateError};
use crate::store::{StoreError, TenantStore};

/// Why there was no ceremony.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CeremonyError {
    /// There was one before.
    #[error(
        "{0} has keys already\nhelp: a second ceremony would cut off every device; take another --data and --offline to make another fleet"
    )]
    Repeated(PathBuf),
    /// No team to publish anything.
    #[error("no team is named")]
    NoTeam,
    /// One folder for both kinds of keys.
    #[error(
        "offline keys may not lie in {0}\nhelp: name a folder outside of --data, best on a medium that leaves the server"
    )]
    SamePlace(PathBuf),
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The metadata could not be signed.
    #[error("cannot sign the first metadata")]
    Metadata(#[from] TufError),
    /// The trust bundle.
    #[error("cannot make the trust bundle")]
    Bundle(#[from] InvalidBundle),
    /// The device CA.
    #[error("cannot make the device CA")]
    Authority(#[from] CertificateError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where keys and metadata go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folders<'a> {
    /// Keys that stay on the server.
    pub(crate) online: &'a Path,
    /// Keys that leave it.
    pub(crate) offline: &'a Path,
    /// The signed metadata, for the first start to take into its store.
    pub(crate) metadata: &'a Path,
}

/// Whom the ceremony is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fleet<'a> {
    /// Whose fleet.
    pub(crate) tenant: &'a TenantId,
    /// Who may publish.
    pub(crate) teams: &'a [TeamId],
    /// What devices call the server.
    pub(crate) hosts: &'a [String],
    /// What the offline keys are put under; nothing, on a medium that is encrypted itself.
    pub(crate) passphrase: Option<&'a str>,
}

/// The name of a file below its folder, and its text.
type NamedText = (String, String);

/// Holds the ceremony. Nothing that exists is overwritten; where it fails, what it wrote is removed again.
pub(crate) fn hold(
    folders: Folders<'_>,
    fleet: Fleet<'_>,
    now: UnixMillis,
) -> Result<(), CeremonyError> {
    for folder in [folders.online, folders.offline, folders.metadata] {
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(CeremonyError::Repeated(folder.to_owned()));
        }
    }
    if folders.offline.starts_with(folders.online) {
        return Err(CeremonyError::SamePlace(folders.online.to_owned()));
    }
    let plan = Plan::make(fleet, now)?;
    let written = plan.write(folders);
    if written.is_err() {
        plan.remove(folders);
    }
    Ok(written?)
}

/// Takes the ceremony's metadata into a store that has none yet.
pub(crate) async fn adopt(
    store: &TenantStore,
    folder: &Path,
    now: UnixMillis,
) -> Result<(), CeremonyError> {
    if store.metadata_head().await?.is_some() || !folder.exists() {
        return Ok(());
    }
    let mut files = BTreeMap::new();
    read_folder(folder, "", &mut files)?;
    let repository = Repository::open(files, Lifetimes::ONLINE)?;
    let head = repository.timestamp().version;
    let mut change = store.begin().await?;
    change.found_metadata(repository.files(), head).await?;
    let (action, subject) = ("trust.ceremony", "root");
    let deed = Deed { actor: "server", action, subject, reason: None, detail: "" };
    change.audit(&deed, now).await?;
    change.commit().await?;
    tracing::info!("trust metadata of the ceremony taken into the store");
    Ok(())
}

fn read_folder(
    folder: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), KeyError> {
    let failed = |error| KeyError::Read(folder.to_owned(), error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().map_err(failed)?.is_dir() {
            read_folder(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.insert(name, fs::read(entry.path()).map_err(failed)?);
        }
    }
    Ok(())
}

struct Plan {
    online: Vec<NamedText>,
    offline: Vec<NamedText>,
    repository: Repository,
}

impl Plan {
    fn make(fleet: Fleet<'_>, now: UnixMillis) -> Result<Self, CeremonyError> {
        let (first, more) = fleet.teams.split_first().ok_or(CeremonyError::NoTeam)?;
        let (authority, ca_key) = Authority::generate(fleet.tenant, now)?;
        let server = authority.issue_server(fleet.hosts, now)?;
        let director_seed = keys::seed()?;
        let director = Ed25519::from_bytes(&director_seed).verifying_key();
        let directors = Director::new(director).into_iter().collect();
        let bundle =
            TrustBundle::new(directors, vec![authority.certificate_pem().to_owned()], Vec::new())?;
        let holders = holders(first)?;
        let mut repository = first_metadata(&holders, &bundle, Lifetimes::ONLINE, now)?;
        let mut offline = offline_files(&holders, fleet.passphrase)?;
        for team in more {
            let publisher = keys::generate()?;
            add_team(&mut repository, &holders, (team, &publisher), now)?;
            offline.extend(key_files(&publisher_role(team), 1, &publisher, fleet.passphrase)?);
        }
        offline.push((NOTICE_FILE.to_owned(), NOTICE.to_owned()));
        let pem = |key: &SigningKey| key.to_pem().map_err(KeyError::Encode);
        let named = |name: &str, text: String| (name.to_owned(), text);
        let online = vec![
            named(keys::SNAPSHOT, pem(&holders.snapshot)?),
            named(keys::TIMESTAMP, pem(&holders.timestamp)?),
            named(keys::DIRECTOR, pem(&SigningKey::from_seed(&director_seed))?),
            named(keys::AUDIT, pem(&keys::generate()?)?),
            named(keys::CA_CERTIFICATE, authority.certificate_pem().to_owned()),
            named(keys::CA_KEY, ca_key),
            named(keys::SERVER_CERTIFICATE, server.chain_pem),
            named(keys::SERVER_KEY, server.key_pem),
        ];
        Ok(Self { online, offline, repository })
    }

    fn write(&self, folders: Folders<'_>) -> Result<(), KeyError> {
        for (folder, files) in [(folders.offline, &self.offline), (folders.online, &self.online)] {
            keys::make_folder(folder)?;
            for (name, text) in files {
                keys::write_new(&folder.join(name), text)?;
            }
        }
        for (name, bytes) in self.repository.files() {
            let path = folders.metadata.join(name);
            keys::make_folder(path.parent().unwrap_or(folders.metadata))?;
            keys::write_new(&path, &String::from_utf8_lossy(bytes))?;
        }
        Ok(())
    }

    /// Only what this ceremony has made: the folders were empty before it.
    fn remove(&self, folders: Folders<'_>) {
        let online = self.online.iter().map(|(name, _)| folders.online.join(name));
        let offline = self.offline.iter().map(|(name, _)| folders.offline.join(name));
        let metadata = self.repository.files().keys().map(|name| folders.metadata.join(name));
        for path in online.chain(offline).chain(metadata).filter(|path| path.exists()) {
            if let Err(error) = fs::remove_file(&path) {
                let path = path.display();
                tracing::warn!(%path, %error, "file of a failed ceremony not removed");
            }
        }
    }
}

fn holders(team: &TeamId) -> Result<CeremonyKeys, KeyError> {
    let three = || -> Result<[SigningKey; 3], KeyError> {
        Ok([keys::generate()?, keys::generate()?, keys::generate()?])
    };
    Ok(CeremonyKeys {
        root: three()?,
        targets: three()?,
        snapshot: keys::generate()?,
        timestamp: keys::generate()?,
        team: team.clone(),
        publisher: keys::generate()?,
        revocations: keys::generate()?,
        runtime: three()?,
    })
}

fn offline_files(
    holders: &CeremonyKeys,
    passphrase: Option<&str>,
) -> Result<Vec<NamedText>, KeyError> {
    let of_three =
        [("root", &holders.root), ("targets", &holders.targets), (RUNTIME_ROLE, &holders.runtime)];
    let mut files = Vec::new();
    for (role, keys) in of_three {
        for (number, key) in (1..).zip(keys) {
            files.extend(key_files(role, number, key, passphrase)?);
        }
    }
    files.extend(key_files(&publisher_role(&holders.team), 1, &holders.publisher, passphrase)?);
    files.extend(key_files(REVOCATIONS_ROLE, 1, &holders.revocations, passphrase)?);
    Ok(files)
}

/// A private key and its public part, which says whose file it is without opening it.
fn key_files(
    role: &str,
    number: u32,
    key: &SigningKey,
    passphrase: Option<&str>,
) -> Result<[NamedText; 2], KeyError> {
    let pem = match passphrase {
        None => key.to_pem(),
        Some(passphrase) => key.to_encrypted_pem(passphrase.as_bytes(), &keys::salt()?),
    };
    let public = String::from_utf8_lossy(&key.public().to_json()).into_owned();
    Ok([
        (format!("{role}-{number}.pem"), pem.map_err(KeyError::Encode)?),
        (format!("{role}-{number}.pub.json"), public),
    ])
}

/// Delegates to one more team, as the holders of the targets keys can do at any later time.
fn add_team(
    repository: &mut Repository,
    holders: &CeremonyKeys,
    (team, publisher): (&TeamId, &SigningKey),
    now: UnixMillis,
) -> Result<(), TufError> {
    let lifetimes = Lifetimes::ONLINE;
    let online = OnlineKeys { snapshot: &holders.snapshot, timestamp: &holders.timestamp };
    let role = Role::Delegated(publisher_role(team));
    let metadata =
        TargetsDraft::first(role).sign(now.plus(lifetimes.publisher_ms), &[publisher])?;
    let mut targets = TargetsDraft::after(Role::Targets, repository.targets().clone());
    let public = [publisher.public()];
    targets.delegate(publisher_delegation(team, &public, NonZeroU32::MIN), &public);
    let signers: Vec<_> = holders.targets.iter().collect();
    let targets = targets.sign(now.plus(lifetimes.targets_ms), &signers)?;
    let mut change = Change::of("targets", targets);
    change.targets.insert(publisher_role(team), metadata);
    repository.accept(change, online, now)?;
    Ok(())
}

const NOTICE_FILE: &str = "README.txt";

const NOTICE: &str = "\
Move this folder off the server now.

Whoever holds these keys decides what every device of the fleet trusts:
  root-1..3.pem          2 of 3 sign new roots: they can replace every other key
  targets-1..3.pem       2 of 3 sign who may publish, and the trust bundle
  publisher-<team>.pem   signs the team's model images; belongs to the team
  revocations-1.pem      signs the deny list; belongs to whoever is on call
  runtime-1..3.pem       2 of 3 sign agents and inference libraries

Give the three root keys, and the three targets keys, to three people. Keep copies on media that stay
offline. The server never needs them; as long as root keys are found here, the console says so.
";

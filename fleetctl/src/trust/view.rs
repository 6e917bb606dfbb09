//! What is verified of a fleet's metadata, as a whole: the ground on which a holder of keys signs the next version.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use reqwest::{Method, StatusCode};
use sealift_protocol::tuf::bundle::{Revocations, TrustBundle};
use sealift_protocol::tuf::client::TARGETS_FOLDER;
use sealift_protocol::tuf::metadata::{Root, Snapshot, Targets};
use sealift_protocol::tuf::signed::{Signed, Verified};
use sealift_protocol::tuf::{BUNDLE_PATH, Paths, REVOCATIONS_PATH, REVOCATIONS_ROLE, Role};

use crate::client::Client;

/// A file of metadata is 5 MiB at most; one that is longer is not read to its end.
const FILE_BYTES_MAX: u64 = 6 << 20;

/// Where metadata come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// A fleet server.
    Server(&'a Client),
    /// A folder with the same files under the same names.
    Folder(&'a Path),
}

impl Source<'_> {
    /// A file by the name under which devices fetch it; none if it is not there.
    pub(crate) async fn fetch(self, file: &str) -> anyhow::Result<Option<Vec<u8>>> {
        match self {
            Self::Server(client) => {
                let request = client.request(Method::GET, &format!("/tuf/{file}"))?;
                let response = request.send().await?;
                if response.status() == StatusCode::NOT_FOUND {
                    return Ok(None);
                }
                Ok(Some(response.error_for_status()?.bytes().await?.to_vec()))
            }
            Self::Folder(folder) => {
                let path = folder.join(file);
                let Ok(metadata) = std::fs::metadata(&path) else { return Ok(None) };
                ensure!(metadata.len() <= FILE_BYTES_MAX, "{} is too large", path.display());
                let bytes = std::fs::read(&path);
                Ok(Some(bytes.with_context(|| format!("cannot read {}", path.display()))?))
            }
        }
    }
}

/// Verified metadata of all roles that people sign, and the files under which a repository keeps them.
pub(crate) struct View {
    pub(crate) root: Verified<Root>,
    pub(crate) targets: Verified<Targets>,
    pub(crate) roles: BTreeMap<String, Verified<Targets>>,
    pub(crate) bundle: TrustBundle,
    pub(crate) revocations: Revocations,
    /// By the name under which devices fetch it.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl View {
    /// Puts together what a client has verified and given out to be kept, and the roots that led there.
    pub(super) fn of(
        kept: &BTreeMap<String, Vec<u8>>,
        roots: Vec<Vec<u8>>,
        snapshot: &Snapshot,
    ) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        let root = chain(roots, &mut files)?;
        let mut take = |role: Role, versioned: bool| -> anyhow::Result<Vec<u8>> {
            let missing = || format!("{} is not verified", role.file());
            let bytes = kept.get(&role.file()).with_context(missing)?.clone();
            let version = version_of(&bytes)?;
            let name = if versioned { role.versioned_file(version) } else { role.file() };
            files.insert(name, bytes.clone());
            Ok(bytes)
        };
        take(Role::Timestamp, false)?;
        take(Role::Snapshot, true)?;
        let targets = Signed::<Targets>::parse(Role::Targets, take(Role::Targets, true)?)?
            .verify(root.authority(&root.roles.targets))?;
        let mut roles = BTreeMap::new();
        if let Some(delegations) = &targets.delegations {
            for name in delegations.names() {
                let role = Role::Delegated(name.to_owned());
                let Some(authority) = delegations.authority(name) else { continue };
                let Some(listed) = snapshot.meta.get(&role.file()) else {
                    continue; // delegated to, and nothing signed yet
                };
                let signed = Signed::<Targets>::parse(role.clone(), take(role, true)?)?;
                let verified = signed.verify(authority)?;
                // What was kept from an earlier update may be older than what the snapshot lists.
                ensure!(verified.version == listed.version, "{name} is not the newest");
                roles.insert(name.to_owned(), verified);
            }
        }
        let bundle = target_file(kept, &mut files, BUNDLE_PATH, &targets)?;
        let on_call = roles.get(REVOCATIONS_ROLE).context("nobody signs a deny list")?;
        let revocations = target_file(kept, &mut files, REVOCATIONS_PATH, on_call)?;
        let (bundle, revocations) =
            (TrustBundle::parse(&bundle)?, Revocations::parse(&revocations)?);
        Ok(Self { root, targets, roles, bundle, revocations, files })
    }

    /// The newest metadata of a role that names targets; none of one that has signed nothing yet.
    pub(crate) fn targets_of(&self, role: &Role) -> Option<&Verified<Targets>> {
        match role {
            Role::Targets => Some(&self.targets),
            Role::Delegated(name) => self.roles.get(name),
            Role::Root | Role::Snapshot | Role::Timestamp => None,
        }
    }
}

/// TUF 5.3.4, 5.3.5 from the first root on: each is signed by a threshold of the one before and of its own, without a gap.
fn chain(
    roots: Vec<Vec<u8>>,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> anyhow::Result<Verified<Root>> {
    let mut newest: Option<Verified<Root>> = None;
    for bytes in roots {
        let next = Signed::<Root>::parse(Role::Root, bytes.clone())?;
        let next = match &newest {
            None => next.anchor()?,
            Some(root) => next.succeed(root)?,
        };
        files.insert(Role::Root.versioned_file(next.version), bytes);
        newest = Some(next);
    }
    newest.context("there is no root")
}

fn target_file(
    kept: &BTreeMap<String, Vec<u8>>,
    files: &mut BTreeMap<String, Vec<u8>>,
    path: &str,
    targets: &Targets,
) -> anyhow::Result<Vec<u8>> {
    let missing = || format!("{path} is not verified");
    let entry = targets.targets.get(path).with_context(missing)?;
    let bytes = kept.get(&format!("{TARGETS_FOLDER}{path}")).with_context(missing)?;
    entry.check(path, bytes)?;
    files.insert(format!("{TARGETS_FOLDER}{}", entry.location(path, true)), bytes.clone());
    Ok(bytes.clone())
}

/// The version of metadata that are verified, here or by whoever takes them.
pub(super) fn version_of(bytes: &[u8]) -> anyhow::Result<u64> {
    #[derive(serde::Deserialize)]
    struct Envelope {
        signed: Body,
    }
    #[derive(serde::Deserialize)]
    struct Body {
        version: u64,
    }
    Ok(serde_json::from_slice::<Envelope>(bytes)?.signed.version)
}

/// A path that a role may name, to have its metadata looked at.
pub(super) fn sample_path(paths: &Paths) -> Option<String> {
    match paths {
        Paths::Patterns(patterns) => Some(patterns.first()?.replace(['*', '?'], "x")),
        Paths::HashPrefixes(_) => None, // no repository of ours has them
    }
}

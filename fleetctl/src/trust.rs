//! The side of those who hold keys: follow the fleet's metadata from a root that is trusted, make the next version, sign it, hand it in.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::tuf::client::{Client as TufClient, Persist, RoleNames, Want};
use sealift_protocol::tuf::metadata::{TargetFile, Targets};
use sealift_protocol::tuf::signed::Signed;
use sealift_protocol::tuf::{BUNDLE_PATH, REVOCATIONS_PATH, Role, TufError};

use crate::client::Client;
use crate::context;
use crate::output::note;

pub(crate) mod approve;
pub(crate) mod change;
pub(crate) mod deny;
pub(crate) mod difference;
pub(crate) mod edit;
pub(crate) mod hand_back;
pub(crate) mod model;
pub(crate) mod publish;
pub(crate) mod role;
pub(crate) mod stick;
pub(crate) mod view;

use view::{Source, View, sample_path};

/// The anchor of trust among the files that are kept.
const ROOT_FILE: &str = "root.json";
/// Roots that one repository has had at most; one a week for ten years.
const ROOTS_MAX: u64 = 512;

/// The present time.
pub(crate) fn now() -> UnixMillis {
    UnixMillis(Timestamp::now().as_millisecond())
}

/// The digest by which the registry names a signed image.
pub(crate) fn digest_of(entry: &TargetFile) -> anyhow::Result<Digest> {
    entry.digest().context("the publisher signed no SHA-256 of the image")
}

/// Why an update of the metadata stopped.
#[derive(Debug, thiserror::Error)]
enum Unfollowed {
    #[error(transparent)]
    Tuf(#[from] TufError),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Which expired metadata a caller can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    /// None: what is expired may hide something newer.
    Refused,
    /// Those that people sign: signing is what renews them. The server's own must be fresh.
    Renewed,
    /// All: the holder sits at a machine without a network, and the server looks again.
    Allowed,
}

/// The fleet's metadata as far as it is verified, kept between calls so that it can never go back.
pub(crate) struct Trust {
    client: TufClient,
    files: BTreeMap<String, Vec<u8>>,
    /// Where it is kept; none for what is on a stick.
    directory: Option<PathBuf>,
}

impl Trust {
    /// Opens what is kept for this server; the first time it begins with `root`, or with the server's word for it.
    pub(crate) async fn open(client: &Client, root: Option<&Path>) -> anyhow::Result<Self> {
        let directory = directory_of(client)?;
        fs::create_dir_all(&directory)?;
        let mut files = read_directory(&directory)?;
        if let Some(root) = root {
            let bytes =
                fs::read(root).with_context(|| format!("cannot read {}", root.display()))?;
            files.insert(ROOT_FILE.to_owned(), bytes);
        } else if !files.contains_key(ROOT_FILE) {
            let first = Source::Server(client).fetch("1.root.json").await?;
            let bytes = first.context("the server has no root")?;
            note(&format!("trusting the fleet's root on first use: {}", Digest::of(&bytes)));
            files.insert(ROOT_FILE.to_owned(), bytes);
        }
        let tuf = TufClient::open(files.clone(), RoleNames::Plain)?;
        let mut trust = Self { client: tuf, files, directory: Some(directory) };
        let root = trust.client.root().bytes().to_vec();
        trust.keep(vec![Persist::Write { name: ROOT_FILE.to_owned(), bytes: root }])?;
        Ok(trust)
    }

    /// Begins from an anchor, without anything that was seen before, and keeps nothing.
    pub(crate) fn anchored(anchor: Vec<u8>) -> anyhow::Result<Self> {
        let files = BTreeMap::from([(ROOT_FILE.to_owned(), anchor)]);
        let client = TufClient::open(files.clone(), RoleNames::Plain)?;
        Ok(Self { client, files, directory: None })
    }

    /// Follows the metadata to their newest version and puts together what people sign.
    pub(crate) async fn view(
        &mut self,
        source: Source<'_>,
        expired: Expired,
    ) -> anyhow::Result<View> {
        let (now, never) = (now(), UnixMillis(0));
        let at = if expired == Expired::Allowed { never } else { now };
        match self.follow_all(source, at).await {
            Err(Unfollowed::Tuf(error @ TufError::Expired { .. }))
                if expired == Expired::Renewed && is_signed_by_people(&error) =>
            {
                note(&format!("{error}; going on, since signing is what renews it"));
                self.follow_all(source, never).await?;
                let is_fresh = self.client.timestamp().is_some_and(|it| it.expires > now);
                ensure!(is_fresh, "the server's timestamp has expired too: is it running?");
            }
            followed => followed?,
        }
        let snapshot = self.client.snapshot().context("no snapshot is verified")?.clone();
        View::of(&self.files, self.roots(source).await?, &snapshot)
    }

    /// Follows everything, with this time for the expiry of all that is checked.
    async fn follow_all(&mut self, source: Source<'_>, at: UnixMillis) -> Result<(), Unfollowed> {
        self.client.refresh(at);
        self.follow(source).await?;
        for want in self.wants()? {
            self.client.want(want);
            match self.follow(source).await {
                Err(Unfollowed::Tuf(TufError::NoTarget { .. } | TufError::Unlisted { .. })) => (),
                followed => followed?,
            }
        }
        Ok(())
    }

    /// One entry for each delegated role, which makes the client load it, and the two files.
    fn wants(&self) -> anyhow::Result<Vec<Want>> {
        let root = self.client.root();
        let bytes = self.files.get(&Role::Targets.file()).context("no targets are verified")?;
        let targets = Signed::<Targets>::parse(Role::Targets, bytes.clone())?
            .verify(root.authority(&root.roles.targets))?;
        let delegations = targets.delegations.iter();
        let roles = delegations.flat_map(|delegations| {
            delegations.names().into_iter().filter_map(|name| delegations.role(name))
        });
        let samples = roles.filter_map(|role| sample_path(&role.paths)).map(Want::Entry);
        let files = [BUNDLE_PATH, REVOCATIONS_PATH].map(|path| Want::File(path.to_owned()));
        Ok(samples.chain(files).collect())
    }

    async fn roots(&self, source: Source<'_>) -> anyhow::Result<Vec<Vec<u8>>> {
        let newest = self.client.root();
        let mut roots = Vec::new();
        for version in 1..newest.version.min(ROOTS_MAX) {
            let file = Role::Root.versioned_file(version);
            roots.push(source.fetch(&file).await?.with_context(|| format!("{file} is missing"))?);
        }
        roots.push(newest.bytes().to_vec());
        Ok(roots)
    }

    /// Follows the metadata down to the roles that may name `target`, and says what they say of it.
    pub(crate) async fn target(
        &mut self,
        source: Source<'_>,
        target: &str,
    ) -> anyhow::Result<TargetFile> {
        self.client.refresh(now());
        self.follow(source).await?;
        self.client.want(Want::Entry(target.to_owned()));
        self.follow(source).await?;
        Ok(self.client.target(target)?.clone())
    }

    async fn follow(&mut self, source: Source<'_>) -> Result<(), Unfollowed> {
        while let Some(need) = self.client.need()? {
            let answer = source.fetch(&need.file).await?;
            let changes = self.client.on(answer)?;
            self.keep(changes)?;
        }
        Ok(())
    }

    fn keep(&mut self, changes: Vec<Persist>) -> anyhow::Result<()> {
        for change in changes {
            let file = self.directory.as_ref().map(|it| it.join(change.name().replace('/', "_")));
            match change {
                Persist::Write { name, bytes } => {
                    if let Some(file) = file {
                        fs::write(&file, &bytes)?;
                    }
                    self.files.insert(name, bytes);
                }
                Persist::Remove { name } => {
                    self.files.remove(&name);
                    if let Some(file) = file.filter(|file| file.exists()) {
                        fs::remove_file(&file)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_signed_by_people(error: &TufError) -> bool {
    matches!(error, TufError::Expired { role: Role::Root | Role::Targets | Role::Delegated(_), .. })
}

fn directory_of(client: &Client) -> anyhow::Result<PathBuf> {
    let host = client.base().host_str().unwrap_or("server");
    let port = client.base().port_or_known_default().unwrap_or_default();
    Ok(context::directory()?.join("trust").join(format!("{host}-{port}")))
}

fn read_directory(directory: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            files.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(files)
}

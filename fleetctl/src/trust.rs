//! The publisher's side of trust: follow the fleet's metadata, sign the next version of the publisher's own, check an image as a device would.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use sealift_protocol::api::{CosignNew, RolloutView};
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{Approval, Cosignature};
use sealift_protocol::id::{Epoch, ModelName, TenantId, UnixMillis, Version};
use sealift_protocol::image::{ImageManifest, ModelIndex};
use sealift_protocol::tuf::client::{Client as TufClient, Persist, RoleNames, Want};
use sealift_protocol::tuf::key::SigningKey;
use sealift_protocol::tuf::metadata::TargetFile;
use sealift_protocol::tuf::repository::TargetsDraft;
use sealift_protocol::tuf::{Role, TufError, model_path, publisher_role};
use serde::Serialize;

use crate::client::{Client, send};
use crate::context;
use crate::output::note;
use crate::registry;

pub(crate) mod deny;

/// The anchor of trust among the files that are kept.
const ROOT_FILE: &str = "root.json";
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// What is to be signed, with what.
pub(crate) struct Signing {
    pub(crate) model: ModelName,
    pub(crate) version: Version,
    pub(crate) epoch: Epoch,
    pub(crate) keys: Vec<PathBuf>,
    pub(crate) root: Option<PathBuf>,
    pub(crate) expires_days: u32,
}

/// What was signed.
#[derive(Debug, Serialize)]
pub(crate) struct Signed {
    pub(crate) target: String,
    pub(crate) digest: Digest,
    pub(crate) role: String,
    pub(crate) metadata_version: u64,
    pub(crate) expires: UnixMillis,
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

/// Adds a pushed version to the publisher's targets and signs them. The server gets signed bytes, never a key.
pub(crate) async fn sign(client: &Client, signing: &Signing) -> anyhow::Result<Signed> {
    let keys =
        signing.keys.iter().map(|path| read_key(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let role = publisher_role(signing.model.team());
    let target = model_path(&signing.model, &signing.version);
    let index = registry::manifest(client, &signing.model, signing.version.as_str())
        .await
        .with_context(|| format!("{}@{} is not pushed", signing.model, signing.version))?;
    ModelIndex::parse(&index)?;

    let mut trust = Trust::open(client, signing.root.as_deref()).await?;
    trust.update_top(client).await?;
    let current = trust.newest(client, &role).await?;
    let public: Vec<_> = keys.iter().map(SigningKey::public).collect();
    let delegated = Role::Delegated(role.clone());
    let mut draft = TargetsDraft::next(delegated, current, &public).with_context(|| {
        format!("the present metadata of {role} is not signed by the keys given")
    })?;
    draft.set(&target, TargetFile::of_model(&index, signing.epoch));
    let metadata_version = draft.version();
    let expires = now().plus(i64::from(signing.expires_days) * DAY_MS);
    let metadata = draft.sign(expires, &keys.iter().collect::<Vec<_>>())?;

    let request = client
        .request(Method::PUT, &format!("/api/v1/trust/roles/{role}"))?
        .header("content-type", "application/json")
        .body(metadata);
    send(request).await?;
    Ok(Signed { target, digest: Digest::of(&index), role, metadata_version, expires })
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
    trust.update(client, &target).await?;
    let entry = trust.client.target(&target)?.clone();
    let digest = entry.digest().context("the publisher signed no SHA-256 of the image")?;
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

/// Signs, as an operator, that a rollout may bring the image that its publisher has signed.
pub(crate) async fn approve(
    client: &Client,
    view: &RolloutView,
    tenant: &TenantId,
    (key, root): (&Path, Option<&Path>),
) -> anyhow::Result<CosignNew> {
    let campaign = view.campaign.context("the rollout was made by an older server")?;
    let target = model_path(&view.model, &view.version);
    let mut trust = Trust::open(client, root).await?;
    trust.update(client, &target).await?;
    let approval = Approval {
        tenant: tenant.clone(),
        campaign,
        model: view.model.clone(),
        version: view.version.clone(),
        index: trust.client.target(&target)?.digest().context("the publisher signed no SHA-256")?,
    };
    let pem = fs::read_to_string(key).with_context(|| format!("cannot read {}", key.display()))?;
    let key = ed25519_dalek::SigningKey::from_pkcs8_pem(&pem)
        .with_context(|| format!("{} is not an Ed25519 key in PKCS#8 PEM", key.display()))?;
    let Cosignature(bytes) = approval.sign(&key)?;
    Ok(CosignNew { cosignature: STANDARD.encode(bytes) })
}

fn read_key(path: &Path) -> anyhow::Result<SigningKey> {
    let pem =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    SigningKey::from_pem(&pem)
        .with_context(|| format!("{} is not an Ed25519 key in PKCS#8 PEM", path.display()))
}

fn now() -> UnixMillis {
    UnixMillis(Timestamp::now().as_millisecond())
}

/// Why an update of the metadata stopped.
#[derive(Debug, thiserror::Error)]
enum Unfollowed {
    #[error(transparent)]
    Tuf(#[from] TufError),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// The fleet's metadata as far as it is verified, kept between calls so that it can never go back.
struct Trust {
    client: TufClient,
    files: BTreeMap<String, Vec<u8>>,
    directory: PathBuf,
}

impl Trust {
    /// Opens what is kept for this server; the first time it begins with `root`, or with the server's word for it.
    async fn open(client: &Client, root: Option<&Path>) -> anyhow::Result<Self> {
        let host = client.base().host_str().unwrap_or("server");
        let port = client.base().port_or_known_default().unwrap_or_default();
        let directory = context::directory()?.join("trust").join(format!("{host}-{port}"));
        fs::create_dir_all(&directory)?;
        let mut files = read_directory(&directory)?;
        if let Some(root) = root {
            let bytes =
                fs::read(root).with_context(|| format!("cannot read {}", root.display()))?;
            files.insert(ROOT_FILE.to_owned(), bytes);
        } else if !files.contains_key(ROOT_FILE) {
            let bytes = fetch(client, "1.root.json").await?.context("the server has no root")?;
            note(&format!("trusting the fleet's root on first use: {}", Digest::of(&bytes)));
            files.insert(ROOT_FILE.to_owned(), bytes);
        }
        let tuf = TufClient::open(files.clone(), RoleNames::Plain)?;
        let mut trust = Self { client: tuf, files, directory };
        let root = trust.client.root().bytes().to_vec();
        trust.keep(vec![Persist::Write { name: ROOT_FILE.to_owned(), bytes: root }])?;
        Ok(trust)
    }

    /// Brings root, timestamp, snapshot and top-level targets up to date.
    async fn update_top(&mut self, client: &Client) -> anyhow::Result<()> {
        self.client.refresh(now());
        Ok(self.follow(client).await?)
    }

    /// The newest metadata of a delegated role as the snapshot lists it, for its holder, who checks whether it is signed by his own key:
    /// expired metadata must not keep him from signing the next.
    async fn newest(&self, client: &Client, role: &str) -> anyhow::Result<Vec<u8>> {
        let unknown = || format!("the fleet's trust delegates nothing to {role}");
        let snapshot = self.client.snapshot().with_context(unknown)?;
        let listed = snapshot.meta.get(&format!("{role}.json")).with_context(unknown)?;
        let file = format!("{}.{role}.json", listed.version);
        fetch(client, &file).await?.with_context(|| format!("the server has lost {file}"))
    }

    /// Brings the metadata up to date, down to the roles that may name `target`; whether one does is not asked here.
    async fn update(&mut self, client: &Client, target: &str) -> anyhow::Result<()> {
        self.client.refresh(now());
        self.follow(client).await?;
        self.client.want(Want::Entry(target.to_owned()));
        match self.follow(client).await {
            Err(Unfollowed::Tuf(TufError::NoTarget { .. })) => Ok(()),
            followed => Ok(followed?),
        }
    }

    async fn follow(&mut self, client: &Client) -> Result<(), Unfollowed> {
        while let Some(need) = self.client.need()? {
            let answer = fetch(client, &need.file).await?;
            let changes = self.client.on(answer)?;
            self.keep(changes)?;
        }
        Ok(())
    }

    fn keep(&mut self, changes: Vec<Persist>) -> anyhow::Result<()> {
        for change in changes {
            let file = self.directory.join(change.name().replace('/', "_"));
            match change {
                Persist::Write { name, bytes } => {
                    fs::write(&file, &bytes)?;
                    self.files.insert(name, bytes);
                }
                Persist::Remove { name } => {
                    self.files.remove(&name);
                    if file.exists() {
                        fs::remove_file(&file)?;
                    }
                }
            }
        }
        Ok(())
    }
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

async fn fetch(client: &Client, file: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let response = client.request(Method::GET, &format!("/tuf/{file}"))?.send().await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    Ok(Some(response.error_for_status()?.bytes().await?.to_vec()))
}

//! A signed repository on a stick: metadata as devices fetch them, and the blobs of the images that they name.
//!
//! ```text
//! DIR/tuf/           metadata and the target files below trust/, by the names under which devices fetch them
//! DIR/blobs/sha256/  indexes, manifests, layers
//! ```
//! Both ways can be broken off and run again: what is there and has its digest is not copied twice. What is signed comes last.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, Version};
use sealift_protocol::image::{ImageManifest, ModelIndex, media_type};
use sealift_protocol::limits::MANIFEST_BYTES_MAX;
use sealift_protocol::tuf::Role;
use sealift_protocol::tuf::metadata::TargetFile;
use serde::Serialize;
use serde_json::json;

use super::change::write_all;
use super::view::{Source, View};
use super::{Expired, Trust, digest_of};
use crate::client::{Client, send};
use crate::failure::{Exit, Failure};
use crate::output::note;
use crate::registry;

const METADATA: &str = "tuf";
const BLOBS: &str = "blobs/sha256";
const TIMESTAMP: &str = "timestamp.json";

/// What is on the stick now.
#[derive(Debug, Serialize)]
pub(crate) struct Exported {
    metadata_files: usize,
    images: usize,
    blobs: usize,
    /// Of these, copied now; the others were there.
    copied_bytes: u64,
}

impl Exported {
    pub(crate) fn text(&self) -> String {
        let Self { metadata_files, images, blobs, copied_bytes } = self;
        format!(
            "{images} images ({blobs} blobs) and {metadata_files} files of metadata are on the stick; \
             {copied_bytes} bytes were copied now"
        )
    }
}

/// What the server has now.
#[derive(Debug, Serialize)]
pub(crate) struct Imported {
    /// Roles with newer metadata than the server had.
    roles: Vec<String>,
    images: usize,
    /// Named by the metadata, and neither on the stick nor looked for.
    not_carried: usize,
    copied_bytes: u64,
}

impl Imported {
    pub(crate) fn text(&self) -> String {
        let roles =
            if self.roles.is_empty() { "no role".to_owned() } else { self.roles.join(", ") };
        let Self { images, not_carried, copied_bytes, .. } = self;
        format!(
            "new metadata of {roles}; {images} images are there, {copied_bytes} bytes were copied now, \
             {not_carried} images are not on the stick"
        )
    }
}

/// An image that a publisher has signed.
struct SignedImage {
    model: ModelName,
    version: Version,
    target: String,
    entry: TargetFile,
}

fn images(view: &View) -> Vec<SignedImage> {
    let entries = view.roles.values().flat_map(|targets| &targets.targets);
    let image = |(target, entry): (&String, &TargetFile)| {
        let (model, version) = target.strip_prefix("models/")?.rsplit_once('/')?;
        Some(SignedImage {
            model: ModelName::parse(model).ok()?,
            version: Version::parse(version).ok()?,
            target: target.clone(),
            entry: entry.clone(),
        })
    };
    entries.filter_map(image).collect()
}

/// Copies verified metadata, and the images of these models (`team/name` or `team/name@version`; all if none is given), into a folder.
pub(crate) async fn export(
    client: &Client,
    folder: &Path,
    models: &[String],
    root: Option<&Path>,
) -> anyhow::Result<Exported> {
    let mut trust = Trust::open(client, root).await?;
    let mut view = trust.view(Source::Server(client), Expired::Refused).await?;
    let blobs = folder.join(BLOBS);
    fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
    let is_wanted = |image: &SignedImage| {
        let full = format!("{}@{}", image.model, image.version);
        models.is_empty() || models.iter().any(|it| *it == full || *it == image.model.to_string())
    };
    let mut copy = Copy { client, blobs, count: 0, copied_bytes: 0 };
    let mut count = 0;
    for image in images(&view).iter().filter(|image| is_wanted(image)) {
        copy.image(image).await.with_context(|| format!("cannot export {}", image.target))?;
        count += 1;
    }
    // The timestamp last: a stick that was pulled out too early leads to what it led to before.
    let timestamp = view.files.remove(TIMESTAMP).context("there is no timestamp")?;
    let metadata = folder.join(METADATA);
    write_all(&metadata, &view.files)?;
    write_all(&metadata, &BTreeMap::from([(TIMESTAMP.to_owned(), timestamp)]))?;
    Ok(Exported {
        metadata_files: view.files.len() + 1,
        images: count,
        blobs: copy.count,
        copied_bytes: copy.copied_bytes,
    })
}

/// Copies blobs of images from a server into a folder.
struct Copy<'a> {
    client: &'a Client,
    blobs: PathBuf,
    count: usize,
    copied_bytes: u64,
}

impl Copy<'_> {
    async fn image(&mut self, image: &SignedImage) -> anyhow::Result<()> {
        let index = self.document(image, digest_of(&image.entry)?).await?;
        image.entry.check(&image.target, &index)?;
        for variant in ModelIndex::parse(&index)?.variants() {
            let bytes = self.document(image, variant.manifest.digest).await?;
            let manifest = ImageManifest::parse(&bytes)?;
            let layers = manifest.layers().iter().map(|layer| &layer.blob);
            for blob in layers.chain([manifest.config()]) {
                self.count += 1;
                if !is_here(&self.blobs, blob.digest, blob.size)? {
                    let (model, digest) = (&image.model, blob.digest);
                    let bytes = registry::blob(self.client, model, digest, blob.size).await?;
                    self.keep(digest, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// An index or a manifest, from the stick or else from the server.
    async fn document(&mut self, image: &SignedImage, digest: Digest) -> anyhow::Result<Vec<u8>> {
        self.count += 1;
        if let Some(bytes) = read_document(&self.blobs, digest)? {
            return Ok(bytes);
        }
        let bytes = registry::manifest(self.client, &image.model, &digest.to_string()).await?;
        ensure!(Digest::of(&bytes) == digest, "{digest} has other bytes than its digest says");
        self.keep(digest, bytes.clone())?;
        Ok(bytes)
    }

    fn keep(&mut self, digest: Digest, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.copied_bytes += bytes.len() as u64;
        write_all(&self.blobs, &BTreeMap::from([(digest.hex(), bytes)]))
    }
}

/// Whether a blob lies in the folder, whole and with its digest.
fn is_here(blobs: &Path, digest: Digest, size: u64) -> anyhow::Result<bool> {
    let path = blobs.join(digest.hex());
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() == size => Ok(Digest::of(&fs::read(&path)?) == digest),
        Ok(_) | Err(_) => Ok(false), // copied anew
    }
}

/// An index or a manifest in the folder; none if it is not there or is another.
fn read_document(blobs: &Path, digest: Digest) -> anyhow::Result<Option<Vec<u8>>> {
    let path = blobs.join(digest.hex());
    let Ok(metadata) = fs::metadata(&path) else { return Ok(None) };
    if metadata.len() > MANIFEST_BYTES_MAX as u64 {
        return Ok(None);
    }
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((Digest::of(&bytes) == digest).then_some(bytes))
}

/// Brings what a stick has to a server. Everything is verified from the root that is trusted here before anything is sent, and by the
/// server again; no role goes back to an earlier version, and none takes other bytes under the version that it has.
pub(crate) async fn import(
    client: &Client,
    folder: &Path,
    root: Option<&Path>,
) -> anyhow::Result<Imported> {
    let mut trust = Trust::open(client, root).await?;
    let here = trust.view(Source::Server(client), Expired::Renewed).await?;
    let metadata = folder.join(METADATA);
    let mut trust = Trust::anchored(here.root.bytes().to_vec())?;
    let there = trust
        .view(Source::Folder(&metadata), Expired::Refused)
        .await
        .with_context(|| format!("{} does not verify", metadata.display()))?;
    let newer = newer(&here, &there)?;
    let mut imported =
        Imported { roles: newer.names(), images: 0, not_carried: 0, copied_bytes: 0 };
    let blobs = folder.join(BLOBS);
    for image in images(&there) {
        let done = push(client, &blobs, &image).await;
        match done.with_context(|| format!("cannot import {}", image.target))? {
            Some(bytes) => {
                imported.images += 1;
                imported.copied_bytes += bytes;
            }
            None => imported.not_carried += 1,
        }
    }
    // Images alone are worth it, too: the server looks anew which of them are signed.
    if !imported.roles.is_empty() || imported.copied_bytes > 0 {
        newer.submit(client, "imported from a stick").await?;
    }
    Ok(imported)
}

/// What is signed and the server has not.
#[derive(Default)]
pub(super) struct Newer {
    pub(super) roots: Vec<Vec<u8>>,
    pub(super) roles: BTreeMap<String, Vec<u8>>,
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl Newer {
    pub(super) fn names(&self) -> Vec<String> {
        let root = (!self.roots.is_empty()).then(|| Role::Root.name().to_owned());
        root.into_iter().chain(self.roles.keys().cloned()).collect()
    }

    /// Hands it in: the server checks signatures, and that nothing goes back.
    pub(super) async fn submit(&self, client: &Client, reason: &str) -> anyhow::Result<()> {
        let encoded = |(name, bytes): (&String, &Vec<u8>)| (name.clone(), STANDARD.encode(bytes));
        let body = json!({
            "roots": self.roots.iter().map(|root| STANDARD.encode(root)).collect::<Vec<_>>(),
            "roles": self.roles.iter().map(encoded).collect::<BTreeMap<_, _>>(),
            "files": self.files.iter().map(encoded).collect::<BTreeMap<_, _>>(),
            "catch_up": true,
            "reason": reason,
        });
        send(client.request(Method::PUT, "/api/v1/trust/changes")?.json(&body)).await?;
        Ok(())
    }
}

fn newer(here: &View, there: &View) -> anyhow::Result<Newer> {
    let mut newer = Newer::default();
    for version in here.root.version.saturating_add(1)..=there.root.version {
        let file = Role::Root.versioned_file(version);
        let bytes = there.files.get(&file).with_context(|| format!("{file} is missing"))?;
        newer.roots.push(bytes.clone());
    }
    let top = (Role::Targets, Some(&here.targets), &there.targets);
    let delegated = there
        .roles
        .iter()
        .map(|(name, targets)| (Role::Delegated(name.clone()), here.roles.get(name), targets));
    for (role, present, offered) in std::iter::once(top).chain(delegated) {
        let version = present.map_or(0, |present| present.version);
        if offered.version < version {
            let what = format!(
                "the stick has version {} of {role}, the server has {version}: it would go back",
                offered.version
            );
            let failure = Failure::new(Exit::Conflict, what);
            return Err(failure.help("export anew where the newest was signed").into());
        }
        if offered.version > version {
            newer.roles.insert(role.name().to_owned(), offered.bytes().to_vec());
            for (path, bytes) in trust_files(there, &role)? {
                newer.files.insert(path, bytes);
            }
        } else if present.is_some_and(|present| present.bytes() != offered.bytes()) {
            let what = format!("the stick has another version {version} of {role} than the server");
            let failure = Failure::new(Exit::Conflict, what);
            return Err(failure.help("two publishers signed apart: see who has, and why").into());
        }
    }
    Ok(newer)
}

/// The target files of a role that lie in the repository.
fn trust_files(view: &View, role: &Role) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let targets = view.targets_of(role);
    let entries = targets.iter().flat_map(|targets| &targets.targets);
    let here = entries.filter(|(path, _)| path.starts_with("trust/"));
    let file = |(path, entry): (&String, &TargetFile)| {
        let name = format!("targets/{}", entry.location(path, true));
        let bytes = view.files.get(&name).with_context(|| format!("{name} is missing"))?;
        Ok((path.clone(), bytes.clone()))
    };
    here.map(file).collect()
}

/// Sends an image, as far as the server does not have it; returns how many bytes, or none if the stick does not carry it.
async fn push(client: &Client, blobs: &Path, image: &SignedImage) -> anyhow::Result<Option<u64>> {
    let SignedImage { model, version, entry, .. } = image;
    let digest = digest_of(entry)?;
    if registry::has_manifest(client, model, &digest.to_string()).await?
        && registry::has_manifest(client, model, version.as_str()).await?
    {
        return Ok(Some(0));
    }
    let Some(index) = read_document(blobs, digest)? else { return Ok(None) };
    entry.check(&image.target, &index)?;
    let mut sent_bytes = 0;
    for variant in ModelIndex::parse(&index)?.variants() {
        let digest = variant.manifest.digest;
        let bytes = read_document(blobs, digest)?;
        let bytes = bytes.with_context(|| format!("manifest {digest} is missing or damaged"))?;
        let manifest = ImageManifest::parse(&bytes)?;
        let layers = manifest.layers().iter().map(|layer| &layer.blob);
        for blob in layers.chain([manifest.config()]) {
            let digest = blob.digest;
            let is_sound = is_here(blobs, digest, blob.size)?;
            ensure!(is_sound, "blob {digest} is missing or damaged\nhelp: export again");
            let layer = fs::read(blobs.join(digest.hex()))?;
            ensure!(Digest::of(&layer) == digest, "blob {digest} changed while it was read");
            if registry::push_blob(client, model, digest, &layer).await? {
                sent_bytes += blob.size;
            }
        }
        let name = digest.to_string();
        registry::push_manifest(client, model, &name, media_type::MANIFEST, &bytes).await?;
    }
    registry::push_manifest(client, model, version.as_str(), media_type::INDEX, &index).await?;
    note(&format!("{} is on the server", image.target));
    Ok(Some(sent_bytes + index.len() as u64))
}

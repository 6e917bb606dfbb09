//! Push to and read from the fleet server's registry, by the OCI distribution specification 1.1.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use indicatif::ProgressBar;
use reqwest::{Method, StatusCode};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, Version};
use sealift_protocol::image::{ModelIndex, media_type};

use crate::client::{Client, send};
use crate::image::Image;

/// A gigabyte at 1 MB/s is a quarter of an hour.
const UPLOAD_TIMEOUT: Duration = Duration::from_hours(1);

/// What a push did.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Pushed {
    pub(crate) model: ModelName,
    pub(crate) version: Version,
    /// Digest of the OCI index.
    pub(crate) digest: Digest,
    pub(crate) size_bytes: usize,
    /// Blobs that the registry did not have yet.
    pub(crate) uploaded: usize,
}

/// Pushes blobs, then the manifests, then the index under the version's tag: nothing names what is not there.
pub(crate) async fn push(client: &Client, image: &Image) -> anyhow::Result<Pushed> {
    let bar = ProgressBar::new(image.size_bytes() as u64);
    let mut uploaded = 0;
    for (digest, bytes) in &image.blobs {
        uploaded += usize::from(push_blob(client, &image.model, *digest, bytes).await?);
        bar.inc(bytes.len() as u64);
    }
    for manifest in &image.manifests {
        let digest = Digest::of(manifest).to_string();
        push_manifest(client, &image.model, &digest, media_type::MANIFEST, manifest).await?;
    }
    let tag = image.version.as_str();
    let warning = push_manifest(client, &image.model, tag, media_type::INDEX, &image.index).await?;
    bar.finish_and_clear();
    if let Some(warning) = warning {
        bail!("the registry keeps the image, but not as {}@{tag}: {warning}", image.model);
    }
    Ok(Pushed {
        model: image.model.clone(),
        version: image.version.clone(),
        digest: Digest::of(&image.index),
        size_bytes: image.size_bytes(),
        uploaded,
    })
}

/// Uploads a blob in one piece, unless it is there; returns whether it was sent.
pub(crate) async fn push_blob(
    client: &Client,
    model: &ModelName,
    digest: Digest,
    bytes: &[u8],
) -> anyhow::Result<bool> {
    let head = client.request(Method::HEAD, &format!("/v2/{model}/blobs/{digest}"))?;
    if head.send().await?.status() == StatusCode::OK {
        return Ok(false);
    }
    let session = client.request(Method::POST, &format!("/v2/{model}/blobs/uploads/"))?;
    let opened = send(session).await?;
    let location = opened.headers().get("location").context("the registry named no upload")?;
    let location = client.base().join(location.to_str()?)?;
    ensure!(location.origin() == client.base().origin(), "upload is at another server");
    let mut upload = location;
    upload.query_pairs_mut().append_pair("digest", &digest.to_string());
    let request = client
        .request(Method::PUT, upload.as_str())?
        .header("content-type", "application/octet-stream")
        .timeout(UPLOAD_TIMEOUT)
        .body(bytes.to_vec());
    send(request).await?;
    Ok(true)
}

/// Returns what the registry warns of: that it will not list the image.
pub(crate) async fn push_manifest(
    client: &Client,
    model: &ModelName,
    reference: &str,
    media_type: &str,
    bytes: &[u8],
) -> anyhow::Result<Option<String>> {
    let request = client
        .request(Method::PUT, &format!("/v2/{model}/manifests/{reference}"))?
        .header("content-type", media_type)
        .body(bytes.to_vec());
    let response = send(request).await?;
    let warning = response.headers().get("warning").and_then(|warning| warning.to_str().ok());
    Ok(warning.map(str::to_owned))
}

/// Deletes a version: its index, then the manifests of its variants. Their blobs go when the registry cleans up.
pub(crate) async fn delete(
    client: &Client,
    model: &ModelName,
    version: &Version,
) -> anyhow::Result<Digest> {
    let index = manifest(client, model, version.as_str()).await?;
    let variants = ModelIndex::parse(&index)?;
    let digest = Digest::of(&index);
    delete_manifest(client, model, digest).await?;
    let manifests: BTreeSet<_> =
        variants.variants().iter().map(|variant| variant.manifest.digest).collect();
    for manifest in manifests {
        delete_manifest(client, model, manifest).await?;
    }
    Ok(digest)
}

async fn delete_manifest(client: &Client, model: &ModelName, digest: Digest) -> anyhow::Result<()> {
    let path = format!("/v2/{model}/manifests/{digest}");
    send(client.request(Method::DELETE, &path)?).await?;
    Ok(())
}

/// Whether the registry has a manifest by this tag or digest.
pub(crate) async fn has_manifest(
    client: &Client,
    model: &ModelName,
    reference: &str,
) -> anyhow::Result<bool> {
    let head = client.request(Method::HEAD, &format!("/v2/{model}/manifests/{reference}"))?;
    Ok(head.send().await?.status() == StatusCode::OK)
}

/// Reads a manifest by tag or digest; the caller checks its digest.
pub(crate) async fn manifest(
    client: &Client,
    model: &ModelName,
    reference: &str,
) -> anyhow::Result<Vec<u8>> {
    let request = client
        .request(Method::GET, &format!("/v2/{model}/manifests/{reference}"))?
        .header("accept", format!("{}, {}", media_type::INDEX, media_type::MANIFEST));
    Ok(send(request).await?.bytes().await?.to_vec())
}

/// Reads a blob and checks its length and digest.
pub(crate) async fn blob(
    client: &Client,
    model: &ModelName,
    digest: Digest,
    size: u64,
) -> anyhow::Result<Vec<u8>> {
    let request = client
        .request(Method::GET, &format!("/v2/{model}/blobs/{digest}"))?
        .timeout(UPLOAD_TIMEOUT);
    let bytes = send(request).await?.bytes().await?;
    ensure!(bytes.len() as u64 == size, "blob {digest} has {} bytes, {size} expected", bytes.len());
    ensure!(Digest::of(&bytes) == digest, "blob {digest} has other bytes than its digest says");
    Ok(bytes.to_vec())
}

//! An operator's second signature, for devices that demand one.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use sealift_protocol::api::{CosignNew, RolloutView};
use sealift_protocol::directive::{Approval, Cosignature};
use sealift_protocol::id::TenantId;
use sealift_protocol::tuf::model_path;

use super::Trust;
use super::view::Source;
use crate::client::Client;

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
    let entry = trust.target(Source::Server(client), &target).await?;
    let approval = Approval {
        tenant: tenant.clone(),
        campaign,
        model: view.model.clone(),
        version: view.version.clone(),
        index: entry.digest().context("the publisher signed no SHA-256")?,
    };
    let pem = fs::read_to_string(key).with_context(|| format!("cannot read {}", key.display()))?;
    let key = ed25519_dalek::SigningKey::from_pkcs8_pem(&pem)
        .with_context(|| format!("{} is not an Ed25519 key in PKCS#8 PEM", key.display()))?;
    let Cosignature(bytes) = approval.sign(&key)?;
    Ok(CosignNew { cosignature: STANDARD.encode(bytes) })
}

//! What the registry takes: any content by the OCI image specification, under any name of the OCI distribution specification.
//!
//! ```text
//! manifest ──▶ document: is it one, and is all of it here? ──▶ stored, tagged, named as a referrer
//!                 └─ a model's index under its version's tag ──▶ model: could a device run it? ──▶ listed as a version
//! ```
//!
//! Storing is not trusting: what is stored is offered to devices only once it is listed here and signed by its publisher (ADR 8).

use sealift_protocol::digest::Digest;
use sealift_protocol::id::Version;
use sealift_protocol::image::IoContract;

pub(crate) mod document;
pub(crate) mod model;
pub(crate) mod name;
pub(crate) mod sweep;

/// What a version is, read from its image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImageFacts {
    /// The version.
    pub(crate) version: Version,
    /// Bytes of all blobs of all variants.
    pub(crate) size_bytes: u64,
    /// Kind of model.
    pub(crate) family: String,
    /// A sentence about it.
    pub(crate) description: String,
    /// SPDX expressions.
    pub(crate) licenses: Vec<String>,
    /// `accelerator/precision` of each variant.
    pub(crate) variants: Vec<String>,
    /// The manifest of each variant.
    pub(crate) manifests: Vec<Digest>,
    /// What it takes and gives.
    pub(crate) contract: IoContract,
    /// The training distribution, if the image has one.
    pub(crate) baseline: Option<Digest>,
}

//! The model image: an OCI artifact (image specification 1.1) with the media types of the CNCF model specification.
//!
//! ```text
//! index ── the TUF target; its digest covers everything below
//!   └─ manifest, one per variant
//!        ├─ config        name, version, family, format
//!        └─ layers        weights · I/O contract · baseline · golden tests · policy · card
//! ```
//!
//! Parsing takes only bytes whose digest has been checked. Everything not allowed is refused: foreign media types, foreign URLs, weak
//! digests, names that are paths, repeated layers.

mod chunks;
mod contract;
mod foreign;
mod golden;
mod host;
mod manifest;
mod pictures;
mod policy;
mod processing;

pub use chunks::{CHUNK_BYTES, ChunkList};
pub use contract::{ContractError, Feature, IoContract, Numbers, Role, TensorSpec};
pub use foreign::{ForeignFormat, HEAD_BYTES, foreign_format};
pub use golden::{Golden, GoldenCase, GoldenMismatch, Tolerance};
pub use host::{Accelerator, Host};
pub use manifest::{
    Descriptor, ImageError, ImageManifest, Layer, LayerKind, ModelConfig, ModelDescriptor,
    ModelIndex, Platform, Variant,
};
pub use pictures::{ImageTensor, PictureInput};
pub use policy::{OnRevoked, Policy};
pub use processing::{
    After, Before, CategoryColumn, Colour, Column, Encode, Filter, Fit, GraphTensors, ImageStep,
    Label, Layout, Map, NumberColumn, Processing, TableStep, Threshold, TopK, Unknown,
};

/// Media types, by what they hold.
pub mod media_type {
    /// OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// What kind of index: a model's variants.
    pub const INDEX_ARTIFACT: &str = "application/vnd.sealift.model.index.v1+json";
    /// What kind of manifest: a model.
    pub const MANIFEST_ARTIFACT: &str = "application/vnd.cncf.model.manifest.v1+json";
    /// The model's configuration.
    pub const CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
    /// Raw weights.
    pub const WEIGHTS: &str = "application/vnd.cncf.model.weight.v1.raw";
    /// Tensor names, types, shapes, labels.
    pub const CONTRACT: &str = "application/vnd.sealift.io-contract.v1+json";
    /// Training distribution.
    pub const BASELINE: &str = "application/vnd.sealift.baseline.v1+cbor";
    /// Inputs, expected outputs, tolerances.
    pub const GOLDEN: &str = "application/vnd.sealift.golden.v1+cbor";
    /// What the device may and should do with it.
    pub const POLICY: &str = "application/vnd.sealift.policy.v1+json";
    /// Model card, licence.
    pub const DOC: &str = "application/vnd.cncf.model.doc.v1.raw";
}

/// Annotation keys.
pub mod annotation {
    /// File name of a layer, for tools that unpack.
    pub const TITLE: &str = "org.opencontainers.image.title";
    /// Path of a layer within the model, by the CNCF model specification.
    pub const FILEPATH: &str = "org.cncf.model.filepath";
    /// Digests of a layer's chunks.
    pub const CHUNKS: &str = "dev.sealift.chunks";
    /// Which accelerator a variant is for.
    pub const ACCELERATOR: &str = "dev.sealift.accelerator";
    /// Number format of a variant's weights.
    pub const PRECISION: &str = "dev.sealift.precision";
    /// Least memory, in MiB, that a variant needs.
    pub const MIN_MEMORY_MB: &str = "dev.sealift.min-memory";
}

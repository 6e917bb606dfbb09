//! OCI index, manifest and configuration, read strictly: what is not allowed is refused by name.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Accelerator, annotation, media_type};
use crate::digest::Digest;
use crate::id::{ModelName, Version};
use crate::limits::{
    BASELINE_BYTES_MAX, CONTRACT_BYTES_MAX, GOLDEN_BYTES_MAX, LAYERS_MAX, MANIFEST_BYTES_MAX,
    POLICY_BYTES_MAX, VARIANTS_MAX, WEIGHTS_BYTES_MAX,
};

/// Reference to a blob: OCI image specification, "Content Descriptors".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What kind of blob.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes; read before a byte of it is fetched.
    pub size: u64,
    /// Set where the blob is a manifest of some kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Where a manifest's content runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Foreign places to fetch it from: always refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

/// Where a variant runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// As Rust and Go name it: `linux`.
    pub os: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// A finer kind of architecture: `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why an image was refused; the code is stable.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Longer than allowed.
    #[error("{what} has {given_bytes} bytes, at most {max_bytes} are allowed")]
    TooLarge {
        /// The document or layer.
        what: &'static str,
        /// What it has or declares.
        given_bytes: u64,
        /// What is allowed.
        max_bytes: u64,
    },
    /// Not JSON of the right form; also negative sizes and digests other than SHA-256.
    #[error("{what} cannot be read")]
    Decode {
        /// The document.
        what: &'static str,
        /// What the decoder said.
        #[source]
        source: serde_json::Error,
    },
    /// A media or artifact type that is not allowed there.
    #[error("{what} has media type `{given}`, which is not allowed there")]
    MediaType {
        /// The document or layer.
        what: &'static str,
        /// The type given.
        given: String,
    },
    /// A foreign URL.
    #[error("blob {0} names foreign URLs")]
    ForeignUrls(Digest),
    /// A layer's file name that is a path, empty, or taken.
    #[error("layer name `{0}` is not a plain file name, or is used twice")]
    LayerName(String),
    /// Too many or too few of something.
    #[error("image has {given} {what}, {allowed}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        given: usize,
        /// How many there may be.
        allowed: &'static str,
    },
    /// An annotation with a meaning, and a value without one.
    #[error("annotation `{key}` has the value `{value}`, which means nothing")]
    Annotation {
        /// The annotation.
        key: &'static str,
        /// Its value.
        value: String,
    },
}

impl ImageError {
    /// The stable code of the refusal.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "image.size",
            Self::Decode { .. } => "image.form",
            Self::MediaType { .. } => "image.media-type",
            Self::ForeignUrls(_) => "image.urls",
            Self::LayerName(_) => "image.layer-name",
            Self::Count { .. } => "image.count",
            Self::Annotation { .. } => "image.annotation",
        }
    }
}

fn read<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, ImageError> {
    limit(what, bytes.len() as u64, MANIFEST_BYTES_MAX as u64)?;
    serde_json::from_slice(bytes).map_err(|source| ImageError::Decode { what, source })
}

const fn limit(what: &'static str, given_bytes: u64, max_bytes: u64) -> Result<(), ImageError> {
    if given_bytes > max_bytes {
        return Err(ImageError::TooLarge { what, given_bytes, max_bytes });
    }
    Ok(())
}

fn expect_type(what: &'static str, given: Option<&str>, allowed: &str) -> Result<(), ImageError> {
    if given == Some(allowed) {
        return Ok(());
    }
    Err(ImageError::MediaType { what, given: given.unwrap_or("none").to_owned() })
}

/// An OCI index as it stands in JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexJson {
    schema_version: u32,
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// A model's variants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelIndex {
    variants: Vec<Variant>,
}

/// One build of a model, for one kind of hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The variant's manifest.
    pub manifest: Descriptor,
    /// Where it runs; none for anywhere.
    pub platform: Option<Platform>,
    /// What computes it.
    pub accelerator: Accelerator,
    /// Number format, such as `fp32` or `int8`.
    pub precision: String,
    /// Least memory, in MiB.
    pub min_memory_mb: u64,
}

impl ModelIndex {
    /// Reads an index whose digest was checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        const WHAT: &str = "model index";
        let json: IndexJson = read(WHAT, bytes)?;
        expect_type(WHAT, json.media_type.as_deref(), media_type::INDEX)?;
        expect_type(WHAT, json.artifact_type.as_deref(), media_type::INDEX_ARTIFACT)?;
        let given = json.manifests.len();
        if given == 0 || given > VARIANTS_MAX {
            return Err(ImageError::Count { what: "variants", given, allowed: "1 to 64 allowed" });
        }
        let variants = json.manifests.into_iter().map(Variant::read).collect::<Result<_, _>>()?;
        Ok(Self { variants })
    }

    /// The variants, in the publisher's order.
    pub fn variants(&self) -> &[Variant] {
        &self.variants
    }

    /// Writes an index of these variants, always in the same bytes.
    pub fn write(variants: &[Variant]) -> Vec<u8> {
        let manifests = variants.iter().map(Variant::descriptor).collect();
        pretty(&IndexJson {
            schema_version: 2,
            media_type: Some(media_type::INDEX.to_owned()),
            artifact_type: Some(media_type::INDEX_ARTIFACT.to_owned()),
            manifests,
            annotations: BTreeMap::new(),
        })
    }
}

impl Variant {
    fn read(manifest: Descriptor) -> Result<Self, ImageError> {
        const WHAT: &str = "variant";
        expect_type(WHAT, Some(&manifest.media_type), media_type::MANIFEST)?;
        limit(WHAT, manifest.size, MANIFEST_BYTES_MAX as u64)?;
        refuse_urls(&manifest)?;
        let note = |key| manifest.annotations.get(key).map(String::as_str);
        let meaningless =
            |key, value: &str| ImageError::Annotation { key, value: value.to_owned() };
        let accelerator = note(annotation::ACCELERATOR).unwrap_or("cpu");
        let min_memory_mb = note(annotation::MIN_MEMORY_MB).unwrap_or("0");
        Ok(Self {
            accelerator: Accelerator::parse(accelerator)
                .ok_or_else(|| meaningless(annotation::ACCELERATOR, accelerator))?,
            min_memory_mb: min_memory_mb
                .parse()
                .map_err(|_| meaningless(annotation::MIN_MEMORY_MB, min_memory_mb))?,
            precision: note(annotation::PRECISION).unwrap_or("fp32").to_owned(),
            platform: manifest.platform.clone(),
            manifest,
        })
    }

    fn descriptor(&self) -> Descriptor {
        let mut descriptor = self.manifest.clone();
        descriptor.artifact_type = Some(media_type::MANIFEST_ARTIFACT.to_owned());
        descriptor.platform.clone_from(&self.platform);
        descriptor.annotations.extend([
            (annotation::ACCELERATOR.to_owned(), self.accelerator.to_string()),
            (annotation::PRECISION.to_owned(), self.precision.clone()),
            (annotation::MIN_MEMORY_MB.to_owned(), self.min_memory_mb.to_string()),
        ]);
        descriptor
    }
}

fn refuse_urls(descriptor: &Descriptor) -> Result<(), ImageError> {
    if descriptor.urls.is_empty() {
        Ok(())
    } else {
        Err(ImageError::ForeignUrls(descriptor.digest))
    }
}

/// An OCI manifest as it stands in JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestJson {
    schema_version: u32,
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// What a layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LayerKind {
    /// `model.onnx`.
    Weights,
    /// [`super::IoContract`].
    Contract,
    /// Training distribution.
    Baseline,
    /// [`super::Golden`].
    Golden,
    /// [`super::Policy`].
    Policy,
    /// Model card or licence.
    Doc,
}

impl LayerKind {
    const ALL: [Self; 6] =
        [Self::Weights, Self::Contract, Self::Baseline, Self::Golden, Self::Policy, Self::Doc];

    /// The media type of such a layer.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Weights => media_type::WEIGHTS,
            Self::Contract => media_type::CONTRACT,
            Self::Baseline => media_type::BASELINE,
            Self::Golden => media_type::GOLDEN,
            Self::Policy => media_type::POLICY,
            Self::Doc => media_type::DOC,
        }
    }

    /// The largest such layer, in bytes.
    pub const fn bytes_max(self) -> u64 {
        match self {
            Self::Weights => WEIGHTS_BYTES_MAX,
            Self::Contract => CONTRACT_BYTES_MAX as u64,
            Self::Baseline => BASELINE_BYTES_MAX as u64,
            Self::Golden => GOLDEN_BYTES_MAX as u64,
            Self::Policy => POLICY_BYTES_MAX as u64,
            Self::Doc => MANIFEST_BYTES_MAX as u64,
        }
    }
}

/// One file of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// What it holds.
    pub kind: LayerKind,
    /// A plain file name, unique in the image.
    pub name: String,
    /// Where its bytes are.
    pub blob: Descriptor,
}

/// One variant's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    config: Descriptor,
    layers: Vec<Layer>,
}

impl ImageManifest {
    /// Reads a manifest whose digest was checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        const WHAT: &str = "image manifest";
        let json: ManifestJson = read(WHAT, bytes)?;
        expect_type(WHAT, json.media_type.as_deref(), media_type::MANIFEST)?;
        expect_type(WHAT, json.artifact_type.as_deref(), media_type::MANIFEST_ARTIFACT)?;
        expect_type("config", Some(&json.config.media_type), media_type::CONFIG)?;
        limit("config", json.config.size, MANIFEST_BYTES_MAX as u64)?;
        refuse_urls(&json.config)?;
        let given = json.layers.len();
        if given > LAYERS_MAX {
            return Err(ImageError::Count { what: "layers", given, allowed: "at most 32 allowed" });
        }
        let layers: Vec<_> = json.layers.into_iter().map(Layer::read).collect::<Result<_, _>>()?;
        let manifest = Self { config: json.config, layers };
        manifest.check_layers()?;
        Ok(manifest)
    }

    fn check_layers(&self) -> Result<(), ImageError> {
        let mut names = BTreeSet::new();
        if let Some(layer) = self.layers.iter().find(|layer| !names.insert(&layer.name)) {
            return Err(ImageError::LayerName(layer.name.clone()));
        }
        for kind in LayerKind::ALL {
            let given = self.layers.iter().filter(|layer| layer.kind == kind).count();
            let (what, fits) = match kind {
                LayerKind::Weights => ("weight layers", given == 1),
                LayerKind::Contract => ("I/O contracts", given == 1),
                LayerKind::Golden => ("golden layers", given == 1),
                LayerKind::Baseline => ("baselines", given <= 1),
                LayerKind::Policy => ("policies", given <= 1),
                LayerKind::Doc => ("documents", true),
            };
            if !fits {
                return Err(ImageError::Count { what, given, allowed: "exactly 1 is allowed" });
            }
        }
        Ok(())
    }

    /// The configuration's blob.
    pub const fn config(&self) -> &Descriptor {
        &self.config
    }

    /// All layers, in the publisher's order.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The first layer of a kind; parsing made sure of one for weights, contract and golden tests.
    pub fn layer(&self, kind: LayerKind) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.kind == kind)
    }

    /// Bytes of all blobs below the manifest.
    pub fn size_bytes(&self) -> u64 {
        let sizes = self.layers.iter().map(|layer| layer.blob.size);
        sizes.fold(self.config.size, u64::saturating_add)
    }

    /// Writes a manifest, always in the same bytes.
    pub fn write(config: Descriptor, layers: &[Layer]) -> Vec<u8> {
        pretty(&ManifestJson {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            artifact_type: Some(media_type::MANIFEST_ARTIFACT.to_owned()),
            config,
            layers: layers.iter().map(Layer::descriptor).collect(),
        })
    }
}

impl Layer {
    fn read(blob: Descriptor) -> Result<Self, ImageError> {
        const WHAT: &str = "layer";
        let kind = LayerKind::ALL.into_iter().find(|kind| kind.media_type() == blob.media_type);
        let Some(kind) = kind else {
            return Err(ImageError::MediaType { what: WHAT, given: blob.media_type });
        };
        limit(WHAT, blob.size, kind.bytes_max())?;
        refuse_urls(&blob)?;
        let names = [annotation::FILEPATH, annotation::TITLE].map(|key| blob.annotations.get(key));
        let [Some(name), Some(title)] = names else {
            return Err(ImageError::LayerName(String::new()));
        };
        if !is_plain_file_name(name) || title != name {
            return Err(ImageError::LayerName(name.clone()));
        }
        let layer = Self { kind, name: name.clone(), blob };
        let chunks = layer.blob.annotations.get(annotation::CHUNKS);
        // Rule: what is signed about the chunks covers each of them, or the layer is refused; a part of a list protects nothing.
        match chunks {
            Some(chunks) if layer.chunks().is_none() => {
                let value = chunks.chars().take(40).collect();
                Err(ImageError::Annotation { key: annotation::CHUNKS, value })
            }
            Some(_) | None => Ok(layer),
        }
    }

    fn descriptor(&self) -> Descriptor {
        let mut descriptor = self.blob.clone();
        self.kind.media_type().clone_into(&mut descriptor.media_type);
        for key in [annotation::FILEPATH, annotation::TITLE] {
            descriptor.annotations.insert(key.to_owned(), self.name.clone());
        }
        descriptor
    }
}

/// Letters, digits, `.`, `-` and `_`, not starting with a dot: no path, no NUL, nothing hidden.
fn is_plain_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=100).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

/// The model's configuration, by the CNCF model specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// What the model is.
    pub descriptor: ModelDescriptor,
    /// How it is stored.
    pub config: ModelFormat,
    /// Digests of the layers.
    pub modelfs: ModelFs,
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelDescriptor {
    /// `team/name`.
    pub name: ModelName,
    /// The version.
    pub version: Version,
    /// Kind of model.
    #[serde(default)]
    pub family: String,
    /// A sentence about it.
    #[serde(default)]
    pub description: String,
    /// SPDX expressions.
    #[serde(default)]
    pub licenses: Vec<String>,
}

/// How a model is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFormat {
    /// Always `onnx`.
    pub format: String,
    /// Number format of the weights.
    pub precision: String,
}

/// Digests of the layers, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelFs {
    /// Always `layers`.
    pub r#type: String,
    /// As in the manifest: layers are raw, so that these are the blobs' digests.
    pub diff_ids: Vec<Digest>,
}

impl ModelConfig {
    /// Reads a configuration whose digest was checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        read("model configuration", bytes)
    }

    /// Makes the configuration of a plain ONNX model.
    pub fn onnx(descriptor: ModelDescriptor, precision: &str, layers: &[Layer]) -> Self {
        let diff_ids = layers.iter().map(|layer| layer.blob.digest).collect();
        Self {
            descriptor,
            config: ModelFormat { format: "onnx".to_owned(), precision: precision.to_owned() },
            modelfs: ModelFs { r#type: "layers".to_owned(), diff_ids },
        }
    }

    /// Writes the configuration, always in the same bytes.
    pub fn write(&self) -> Vec<u8> {
        pretty(self)
    }
}

impl Descriptor {
    /// Describes `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
            platform: None,
            annotations: BTreeMap::new(),
            urls: Vec::new(),
        }
    }
}

#[expect(clippy::expect_used, reason = "see the text")]
fn pretty<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("structs of strings and numbers always serialise")
}

#[cfg(test)]
mod tests;

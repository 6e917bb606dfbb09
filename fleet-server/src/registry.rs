//! What the registry takes: names, references, and model images that a device could really run.
//!
//! A model image is checked whole before it is listed: every blob is here, every document reads, and the name inside is the name
//! outside. Other OCI artifacts are kept as they are; they are never offered to devices.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sealift_protocol::digest::{Digest, InvalidDigest};
use sealift_protocol::id::{ModelName, Version};
use sealift_protocol::image::{
    ContractError, Descriptor, Golden, ImageError, ImageManifest, IoContract, LayerKind,
    ModelConfig, ModelIndex, Policy, Variant, media_type,
};
use sealift_protocol::limits::{
    BASELINE_BYTES_MAX, CONTRACT_BYTES_MAX, GOLDEN_BYTES_MAX, MANIFEST_BYTES_MAX, POLICY_BYTES_MAX,
};
use sealift_protocol::profile::{Baseline, InvalidBaseline};
use serde::Deserialize;

use crate::blobs::{BlobError, Blobs};

/// A tag or a digest: OCI distribution specification, "pull".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// A name for a manifest that may move; a model's version does not.
    Tag(String),
    /// The manifest itself.
    Digest(Digest),
}

impl Reference {
    /// Parses `sha256:…`, or a tag of at most 128 characters.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match Digest::parse(text) {
            Ok(digest) => return Some(Self::Digest(digest)),
            Err(InvalidDigest::Hex) => return None,
            Err(InvalidDigest::Algorithm) => (), // then it may be a tag
        }
        let first = text.bytes().next()?;
        let is_tag = text.len() <= 128
            && (first.is_ascii_alphanumeric() || first == b'_')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        is_tag.then(|| Self::Tag(text.to_owned()))
    }
}

/// What kind of manifest was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A model's variants; tagged with its version it becomes a version.
    ModelIndex,
    /// One variant of a model.
    ModelManifest,
    /// Anything else.
    Foreign,
}

/// Why a pushed manifest was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushRefused {
    /// Not a manifest of schema version 2.
    #[error("manifest is not JSON of the OCI image specification")]
    Form(#[source] serde_json::Error),
    /// Larger than allowed.
    #[error("manifest has {0} bytes, at most {MANIFEST_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// A model image against the rules.
    #[error("model image is refused: {0}")]
    Image(#[source] ImageError),
    /// The I/O contract.
    #[error("I/O contract is refused: {0}")]
    Contract(#[source] ContractError),
    /// The golden tests, or the policy.
    #[error("{0} cannot be read")]
    Layer(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The baseline.
    #[error("baseline is refused: {0}")]
    Baseline(#[source] InvalidBaseline),
    /// A blob or manifest that was not pushed before, or has another length.
    #[error("{what} {digest} is not here, or has not the {size} bytes declared")]
    Missing {
        /// What kind.
        what: &'static str,
        /// Which.
        digest: Digest,
        /// The length declared.
        size: u64,
    },
    /// The configuration names another model.
    #[error("image is of model {given}, this repository is {expected}")]
    Model {
        /// The name inside.
        given: ModelName,
        /// The repository.
        expected: ModelName,
    },
    /// Variants of different versions.
    #[error("variants are of versions {0} and {1}")]
    Versions(Version, Version),
    /// A tag that is not the version inside.
    #[error("image has version {version}, its tag is `{tag}`")]
    Tag {
        /// The version inside.
        version: Version,
        /// The tag given.
        tag: String,
    },
    /// The store failed.
    #[error("cannot read the image's blobs")]
    Blobs(#[from] BlobError),
}

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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
}

/// Tells what kind of manifest `bytes` are, and its media type.
pub(crate) fn classify(
    bytes: &[u8],
    content_type: Option<&str>,
) -> Result<(Kind, String), PushRefused> {
    use serde::de::Error as _;
    if bytes.len() > MANIFEST_BYTES_MAX {
        return Err(PushRefused::TooLarge(bytes.len()));
    }
    let header: Header = serde_json::from_slice(bytes).map_err(PushRefused::Form)?;
    let refuse = |text: &str| Err(PushRefused::Form(serde_json::Error::custom(text)));
    if header.schema_version != 2 {
        return refuse("its schema version is not 2");
    }
    let Some(media_type) = header.media_type.as_deref().or(content_type) else {
        return refuse("it has no media type");
    };
    if content_type.is_some_and(|content_type| content_type != media_type) {
        return refuse("its media type is not the content type of the request");
    }
    let kind = match (media_type, header.artifact_type.as_deref()) {
        (media_type::INDEX, Some(media_type::INDEX_ARTIFACT)) => Kind::ModelIndex,
        (media_type::MANIFEST, Some(media_type::MANIFEST_ARTIFACT)) => Kind::ModelManifest,
        _ => Kind::Foreign, // images, charts, signatures: kept for whoever pushed them
    };
    Ok((kind, media_type.to_owned()))
}

/// Checks one variant of `model`, with everything below its manifest.
pub(crate) async fn check_manifest(
    blobs: &Blobs,
    model: &ModelName,
    bytes: &[u8],
) -> Result<VariantFacts, PushRefused> {
    let manifest = ImageManifest::parse(bytes).map_err(PushRefused::Image)?;
    for layer in manifest.layers() {
        expect_blob(blobs, "layer", &layer.blob).await?;
    }
    expect_blob(blobs, "config", manifest.config()).await?;
    let config = blobs.read(manifest.config().digest, MANIFEST_BYTES_MAX as u64).await?;
    let config = ModelConfig::parse(&config).map_err(PushRefused::Image)?;
    if config.descriptor.name != *model {
        let (given, expected) = (config.descriptor.name, model.clone());
        return Err(PushRefused::Model { given, expected });
    }
    let contract = layer(blobs, &manifest, LayerKind::Contract, CONTRACT_BYTES_MAX).await?;
    let contract = contract.unwrap_or_default();
    let contract = IoContract::parse(&contract).map_err(PushRefused::Contract)?;
    let golden = layer(blobs, &manifest, LayerKind::Golden, GOLDEN_BYTES_MAX).await?;
    Golden::parse(&golden.unwrap_or_default())
        .map_err(|error| PushRefused::Layer("golden layer", error.into()))?;
    if let Some(policy) = layer(blobs, &manifest, LayerKind::Policy, POLICY_BYTES_MAX).await? {
        serde_json::from_slice::<Policy>(&policy)
            .map_err(|error| PushRefused::Layer("policy", error.into()))?;
    }
    if let Some(baseline) = layer(blobs, &manifest, LayerKind::Baseline, BASELINE_BYTES_MAX).await?
    {
        Baseline::decode(&baseline).map_err(PushRefused::Baseline)?;
    }
    let baseline = manifest.layer(LayerKind::Baseline).map(|layer| layer.blob.digest);
    Ok(VariantFacts { config, contract, baseline, size_bytes: manifest.size_bytes() })
}

/// What one variant is.
#[derive(Debug, Clone)]
pub(crate) struct VariantFacts {
    config: ModelConfig,
    contract: IoContract,
    baseline: Option<Digest>,
    size_bytes: u64,
}

/// Checks an index of `model` and every variant in it. Manifests count as blobs: they lie in the same store.
pub(crate) async fn check_index(
    blobs: &Blobs,
    model: &ModelName,
    bytes: &[u8],
) -> Result<ImageFacts, PushRefused> {
    let index = ModelIndex::parse(bytes).map_err(PushRefused::Image)?;
    let mut checked: BTreeMap<Digest, VariantFacts> = BTreeMap::new();
    let mut facts: Option<ImageFacts> = None;
    for variant in index.variants() {
        let digest = variant.manifest.digest;
        expect_blob(blobs, "manifest", &variant.manifest).await?;
        let variant_facts = match checked.entry(digest) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let manifest = blobs.read(digest, MANIFEST_BYTES_MAX as u64).await?;
                new.insert(check_manifest(blobs, model, &manifest).await?)
            }
        };
        facts = Some(add_variant(facts, variant, variant_facts)?);
    }
    let allowed = "1 to 64 allowed";
    let empty = ImageError::Count { what: "variants", given: 0, allowed };
    facts.ok_or(PushRefused::Image(empty))
}

fn add_variant(
    before: Option<ImageFacts>,
    variant: &Variant,
    facts: &VariantFacts,
) -> Result<ImageFacts, PushRefused> {
    let descriptor = facts.config.descriptor.clone();
    let mut image = before.unwrap_or_else(|| ImageFacts {
        version: descriptor.version.clone(),
        size_bytes: 0,
        family: descriptor.family,
        description: descriptor.description,
        licenses: descriptor.licenses,
        variants: Vec::new(),
        manifests: Vec::new(),
        contract: facts.contract.clone(),
        baseline: facts.baseline,
    });
    if image.version != descriptor.version {
        return Err(PushRefused::Versions(image.version, descriptor.version));
    }
    image.size_bytes =
        image.size_bytes.saturating_add(facts.size_bytes).saturating_add(variant.manifest.size);
    image.variants.push(format!("{}/{}", variant.accelerator, variant.precision));
    image.manifests.push(variant.manifest.digest);
    Ok(image)
}

/// Rule: the tag of a model image is the version that its configuration names.
pub(crate) fn check_tag(facts: &ImageFacts, tag: &str) -> Result<(), PushRefused> {
    if facts.version.as_str() == tag {
        return Ok(());
    }
    Err(PushRefused::Tag { version: facts.version.clone(), tag: tag.to_owned() })
}

async fn expect_blob(
    blobs: &Blobs,
    what: &'static str,
    descriptor: &Descriptor,
) -> Result<(), PushRefused> {
    let Descriptor { digest, size, .. } = *descriptor;
    if blobs.size(digest).await? == Some(size) {
        return Ok(());
    }
    Err(PushRefused::Missing { what, digest, size })
}

async fn layer(
    blobs: &Blobs,
    manifest: &ImageManifest,
    kind: LayerKind,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, PushRefused> {
    let Some(layer) = manifest.layer(kind) else { return Ok(None) };
    let bytes = blobs.read(layer.blob.digest, bytes_max as u64).await?;
    Ok(Some(bytes.into()))
}

#[cfg(test)]
mod tests {
    use sealift_protocol::image::{
        Accelerator, GoldenCase, Layer, ModelDescriptor, Role, TensorSpec, Tolerance,
    };
    use sealift_protocol::tensor::Datatype;

    use super::*;

    async fn blobs() -> (tempfile::TempDir, Blobs) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(None, folder.path()).await.unwrap();
        (folder, blobs)
    }

    fn contract() -> Vec<u8> {
        let tensor = |name: &str, role| TensorSpec {
            name: name.to_owned(),
            datatype: Datatype::Fp32,
            shape: vec![-1, 1],
            role,
            labels: Vec::new(),
            features: Vec::new(),
        };
        serde_json::to_vec(&IoContract {
            schema: 1,
            inputs: vec![tensor("x", None)],
            outputs: vec![tensor("y", Some(Role::Value))],
        })
        .unwrap()
    }

    fn golden() -> Vec<u8> {
        let tolerance = Tolerance { absolute: 0.0, relative: 0.0 };
        let case =
            GoldenCase { name: "one".to_owned(), inputs: vec![], outputs: vec![], tolerance };
        sealift_protocol::codec::encode(&Golden { schema: 1, cases: vec![case] }).unwrap()
    }

    async fn add(blobs: &Blobs, kind: LayerKind, name: &str, bytes: Vec<u8>) -> Layer {
        let blob = Descriptor::of(kind.media_type(), &bytes);
        blobs.put(bytes).await.unwrap();
        Layer { kind, name: name.to_owned(), blob }
    }

    async fn push(blobs: &Blobs, model: &str, contract: Vec<u8>) -> Vec<u8> {
        let layers = [
            add(blobs, LayerKind::Weights, "model.onnx", b"weights".to_vec()).await,
            add(blobs, LayerKind::Contract, "contract.json", contract).await,
            add(blobs, LayerKind::Golden, "golden.cbor", golden()).await,
        ];
        let descriptor = ModelDescriptor {
            name: ModelName::parse(model).unwrap(),
            version: Version::parse("2").unwrap(),
            family: String::new(),
            description: String::new(),
            licenses: Vec::new(),
        };
        let config = ModelConfig::onnx(descriptor, "fp32", &layers).write();
        let config_blob = Descriptor::of(media_type::CONFIG, &config);
        blobs.put(config).await.unwrap();
        let manifest = ImageManifest::write(config_blob, &layers);
        let descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
        blobs.put(manifest).await.unwrap();
        ModelIndex::write(&[Variant {
            manifest: descriptor,
            platform: None,
            accelerator: Accelerator::Cpu,
            precision: "fp32".to_owned(),
            min_memory_mb: 0,
        }])
    }

    fn digits() -> ModelName {
        ModelName::parse("vision/digits").unwrap()
    }

    #[tokio::test]
    async fn a_whole_image_is_taken_under_the_tag_of_its_version_only() {
        let (_folder, blobs) = blobs().await;
        let index = push(&blobs, "vision/digits", contract()).await;

        let (kind, _) = classify(&index, Some(media_type::INDEX)).unwrap();
        let facts = check_index(&blobs, &digits(), &index).await.unwrap();

        assert_eq!(
            (kind, facts.variants.as_slice()),
            (Kind::ModelIndex, &["cpu/fp32".to_owned()][..])
        );
        assert!(check_tag(&facts, "2").is_ok());
        assert!(matches!(check_tag(&facts, "3"), Err(PushRefused::Tag { .. })));
    }

    #[tokio::test]
    async fn an_image_of_another_model_is_refused() {
        let (_folder, blobs) = blobs().await;
        let index = push(&blobs, "fraud/cards", contract()).await;
        let refused = check_index(&blobs, &digits(), &index).await.unwrap_err();
        assert!(matches!(refused, PushRefused::Model { .. }), "{refused}");
    }

    #[tokio::test]
    async fn an_image_with_a_layer_that_was_not_pushed_is_refused() {
        let (_folder, full) = blobs().await;
        let (_other, empty) = blobs().await;
        let index = push(&full, "vision/digits", contract()).await;
        let refused = check_index(&empty, &digits(), &index).await.unwrap_err();
        assert!(matches!(refused, PushRefused::Missing { .. }), "{refused}");
    }

    #[tokio::test]
    async fn an_image_with_an_unreadable_contract_is_refused() {
        let (_folder, blobs) = blobs().await;
        let index = push(&blobs, "vision/digits", b"{}".to_vec()).await;
        let refused = check_index(&blobs, &digits(), &index).await.unwrap_err();
        assert!(matches!(refused, PushRefused::Contract(_)), "{refused}");
    }

    #[test]
    fn references_are_tags_or_sha256_digests() {
        let digest = Digest::of(b"");
        assert_eq!(Reference::parse(&digest.to_string()), Some(Reference::Digest(digest)));
        assert_eq!(Reference::parse("1.4"), Some(Reference::Tag("1.4".to_owned())));
        for text in ["", "sha256:00", "md5:00", "../x", "a/b", ".x", "-x"] {
            assert_eq!(Reference::parse(text), None, "{text}");
        }
        assert_eq!(Reference::parse(&"t".repeat(129)), None);
    }

    #[test]
    fn a_manifest_of_another_type_than_the_request_says_is_refused() {
        let bytes = br#"{"schemaVersion": 2, "mediaType": "application/a"}"#;
        assert!(classify(bytes, Some("application/b")).is_err());
        assert!(classify(br#"{"schemaVersion": 1}"#, Some("application/a")).is_err());
        assert!(classify(b"pickle", Some("application/a")).is_err());
        assert_eq!(classify(bytes, None).unwrap().0, Kind::Foreign);
    }
}

//! Model images that a device could really run: what is listed as a version has passed here.
//!
//! An image is checked whole: every blob is here, every document reads, and the name inside is the name outside.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, Version};
use sealift_protocol::image::{
    ContractError, Descriptor, Golden, ImageError, ImageManifest, IoContract, LayerKind,
    ModelConfig, ModelIndex, Policy, Variant,
};
use sealift_protocol::limits::{
    BASELINE_BYTES_MAX, CONTRACT_BYTES_MAX, GOLDEN_BYTES_MAX, MANIFEST_BYTES_MAX, POLICY_BYTES_MAX,
};
use sealift_protocol::profile::{Baseline, InvalidBaseline};

use super::ImageFacts;
use crate::blobs::{BlobError, Blobs};

/// Why a model image is not listed as a version.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// A model image against the rules.
    #[error("model image: {0}")]
    Image(#[source] ImageError),
    /// The I/O contract.
    #[error("I/O contract: {0}")]
    Contract(#[source] ContractError),
    /// The golden tests, or the policy.
    #[error("{0}: {1}")]
    Layer(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The baseline.
    #[error("baseline: {0}")]
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

/// Checks an index as version `tag` of `model`, with everything below it.
pub(crate) async fn check(
    blobs: &Blobs,
    (model, tag): (&ModelName, &str),
    index: &[u8],
) -> Result<ImageFacts, Unfit> {
    let facts = check_index(blobs, model, index).await?;
    check_tag(&facts, tag)?;
    Ok(facts)
}

/// Checks one variant of `model`, with everything below its manifest.
async fn check_manifest(
    blobs: &Blobs,
    model: &ModelName,
    bytes: &[u8],
) -> Result<VariantFacts, Unfit> {
    let manifest = ImageManifest::parse(bytes).map_err(Unfit::Image)?;
    for layer in manifest.layers() {
        expect_blob(blobs, "layer", &layer.blob).await?;
    }
    expect_blob(blobs, "config", manifest.config()).await?;
    let config = blobs.read(manifest.config().digest, MANIFEST_BYTES_MAX as u64).await?;
    let config = ModelConfig::parse(&config).map_err(Unfit::Image)?;
    if config.descriptor.name != *model {
        let (given, expected) = (config.descriptor.name, model.clone());
        return Err(Unfit::Model { given, expected });
    }
    let contract = layer(blobs, &manifest, LayerKind::Contract, CONTRACT_BYTES_MAX).await?;
    let contract = contract.unwrap_or_default();
    let contract = IoContract::parse(&contract).map_err(Unfit::Contract)?;
    let golden = layer(blobs, &manifest, LayerKind::Golden, GOLDEN_BYTES_MAX).await?;
    Golden::parse(&golden.unwrap_or_default())
        .map_err(|error| Unfit::Layer("golden layer", error.into()))?;
    if let Some(policy) = layer(blobs, &manifest, LayerKind::Policy, POLICY_BYTES_MAX).await? {
        serde_json::from_slice::<Policy>(&policy)
            .map_err(|error| Unfit::Layer("policy", error.into()))?;
    }
    if let Some(baseline) = layer(blobs, &manifest, LayerKind::Baseline, BASELINE_BYTES_MAX).await?
    {
        Baseline::decode(&baseline).map_err(Unfit::Baseline)?;
    }
    let baseline = manifest.layer(LayerKind::Baseline).map(|layer| layer.blob.digest);
    Ok(VariantFacts { config, contract, baseline, size_bytes: manifest.size_bytes() })
}

/// What one variant is.
#[derive(Debug, Clone)]
struct VariantFacts {
    config: ModelConfig,
    contract: IoContract,
    baseline: Option<Digest>,
    size_bytes: u64,
}

/// Checks an index of `model` and every variant in it. Manifests count as blobs: they lie in the same store.
async fn check_index(blobs: &Blobs, model: &ModelName, bytes: &[u8]) -> Result<ImageFacts, Unfit> {
    let index = ModelIndex::parse(bytes).map_err(Unfit::Image)?;
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
    facts.ok_or(Unfit::Image(empty))
}

fn add_variant(
    before: Option<ImageFacts>,
    variant: &Variant,
    facts: &VariantFacts,
) -> Result<ImageFacts, Unfit> {
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
        return Err(Unfit::Versions(image.version, descriptor.version));
    }
    image.size_bytes =
        image.size_bytes.saturating_add(facts.size_bytes).saturating_add(variant.manifest.size);
    image.variants.push(format!("{}/{}", variant.accelerator, variant.precision));
    image.manifests.push(variant.manifest.digest);
    Ok(image)
}

/// Rule: the tag of a model image is the version that its configuration names.
fn check_tag(facts: &ImageFacts, tag: &str) -> Result<(), Unfit> {
    if facts.version.as_str() == tag {
        return Ok(());
    }
    Err(Unfit::Tag { version: facts.version.clone(), tag: tag.to_owned() })
}

async fn expect_blob(
    blobs: &Blobs,
    what: &'static str,
    descriptor: &Descriptor,
) -> Result<(), Unfit> {
    let Descriptor { digest, size, .. } = *descriptor;
    if blobs.size(digest).await? == Some(size) {
        return Ok(());
    }
    Err(Unfit::Missing { what, digest, size })
}

async fn layer(
    blobs: &Blobs,
    manifest: &ImageManifest,
    kind: LayerKind,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, Unfit> {
    let Some(layer) = manifest.layer(kind) else { return Ok(None) };
    let bytes = blobs.read(layer.blob.digest, bytes_max as u64).await?;
    Ok(Some(bytes.into()))
}

#[cfg(test)]
mod tests {
    use sealift_protocol::image::{
        Accelerator, GoldenCase, Layer, ModelDescriptor, Numbers, Role, TensorSpec, Tolerance,
        media_type,
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
            image: None,
            numbers: Numbers::Any,
        };
        serde_json::to_vec(&IoContract {
            schema: 1,
            inputs: vec![tensor("x", None)],
            outputs: vec![tensor("y", Some(Role::Value))],
            processing: None,
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

        let facts = check(&blobs, (&digits(), "2"), &index).await.unwrap();
        let renamed = check(&blobs, (&digits(), "3"), &index).await.unwrap_err();

        assert_eq!(facts.variants.as_slice(), &["cpu/fp32".to_owned()][..]);
        assert!(matches!(renamed, Unfit::Tag { .. }), "{renamed}");
    }

    #[tokio::test]
    async fn an_image_of_another_model_is_refused() {
        let (_folder, blobs) = blobs().await;
        let index = push(&blobs, "fraud/cards", contract()).await;
        let refused = check_index(&blobs, &digits(), &index).await.unwrap_err();
        assert!(matches!(refused, Unfit::Model { .. }), "{refused}");
    }

    #[tokio::test]
    async fn an_image_with_a_layer_that_was_not_pushed_is_refused() {
        let (_folder, full) = blobs().await;
        let (_other, empty) = blobs().await;
        let index = push(&full, "vision/digits", contract()).await;
        let refused = check_index(&empty, &digits(), &index).await.unwrap_err();
        assert!(matches!(refused, Unfit::Missing { .. }), "{refused}");
    }

    #[tokio::test]
    async fn an_image_with_an_unreadable_contract_is_refused() {
        let (_folder, blobs) = blobs().await;
        let index = push(&blobs, "vision/digits", b"{}".to_vec()).await;
        let refused = check_index(&blobs, &digits(), &index).await.unwrap_err();
        assert!(matches!(refused, Unfit::Contract(_)), "{refused}");
    }
}

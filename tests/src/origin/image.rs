//! Model images, sound ones and others, each signed by a publisher who means it.

use std::fs;

use sealift_protocol::codec;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, Version};
use sealift_protocol::image::{
    Accelerator, ChunkList, Descriptor, Golden, ImageManifest, Layer, LayerKind, ModelConfig,
    ModelDescriptor, ModelIndex, Variant, annotation, media_type,
};

use crate::digits::{MODEL, directory};

/// A change of a document's text before it is hashed and signed.
type Edit = Box<dyn Fn(String) -> String>;

/// What a publisher signs. Its fields say what is unusual about it.
#[must_use]
pub struct Image {
    /// Whose image it is.
    pub model: ModelName,
    /// The version.
    pub version: String,
    /// The publisher's security epoch.
    pub epoch: u64,
    /// What the index says that it needs.
    pub min_memory_mb: u64,
    files: Vec<(LayerKind, String, Vec<u8>)>,
    is_chunked: bool,
    edit_index: Option<Edit>,
    edit_manifest: Option<Edit>,
}

/// The documents and blobs of an image, by digest.
#[derive(Debug, Clone)]
pub struct Built {
    /// The digest that everything hangs on.
    pub index: Digest,
    /// The one variant's manifest.
    pub manifest: Digest,
    /// The configuration.
    pub config: Digest,
    /// The layers by name, in order.
    pub layers: Vec<(String, Digest)>,
    pub(super) blobs: Vec<Vec<u8>>,
}

impl Built {
    /// The digest of the layer with this name.
    pub fn layer(&self, name: &str) -> Option<Digest> {
        self.layers.iter().find(|(layer, _)| layer == name).map(|(_, digest)| *digest)
    }
}

impl Image {
    /// The digits' first version under another number, without golden tests: the engine of these stories only pretends.
    pub fn of(version: &str) -> anyhow::Result<Self> {
        let read = |name: &str| fs::read(directory("v1").join(name));
        let golden = codec::encode(&Golden { schema: 1, cases: Vec::new() })?;
        let files = [
            (LayerKind::Weights, "model.onnx", read("model.onnx")?),
            (LayerKind::Contract, "contract.json", read("contract.json")?),
            (LayerKind::Golden, "golden.cbor", golden),
        ];
        let files = files.map(|(kind, name, bytes)| (kind, name.to_owned(), bytes));
        Ok(Self {
            model: ModelName::parse(MODEL)?,
            version: version.to_owned(),
            epoch: 1,
            min_memory_mb: 0,
            files: files.into(),
            is_chunked: false,
            edit_index: None,
            edit_manifest: None,
        })
    }

    /// Makes the weights longer by a note of so many bytes, which no engine looks at. No two versions have the same note.
    pub fn padded(mut self, note_bytes: usize) -> Self {
        let seed = Digest::of(self.version.as_bytes());
        let weights = &mut self.files[0].2;
        // ONNX, `ModelProto`: field 6 is `doc_string`.
        weights.push(6 << 3 | 2);
        let mut length = note_bytes;
        while length >= 0x80 {
            weights.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        weights.push(u8::try_from(length).unwrap_or_default());
        let mut state = u64::from_le_bytes(seed.as_bytes()[..8].try_into().unwrap_or_default()) | 1;
        weights.extend((0..note_bytes).map(|_| {
            // A linear congruential generator: no two chunks are alike.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            b'a' + u8::try_from((state >> 33) % 26).unwrap_or_default()
        }));
        self
    }

    /// Other bytes instead of the weights.
    pub fn with_weights(mut self, bytes: &[u8]) -> Self {
        self.files[0].2 = bytes.to_vec();
        self
    }

    /// Signs the digests of the weights' chunks, too.
    pub const fn with_signed_chunks(mut self) -> Self {
        self.is_chunked = true;
        self
    }

    /// Another text of the index.
    pub fn edit_index(mut self, edit: impl Fn(String) -> String + 'static) -> Self {
        self.edit_index = Some(Box::new(edit));
        self
    }

    /// Another text of the manifest.
    pub fn edit_manifest(mut self, edit: impl Fn(String) -> String + 'static) -> Self {
        self.edit_manifest = Some(Box::new(edit));
        self
    }

    /// Puts the documents together.
    pub fn build(&self) -> anyhow::Result<Built> {
        let layer = |(kind, name, bytes): &(LayerKind, String, Vec<u8>)| Layer {
            kind: *kind,
            name: name.clone(),
            blob: Descriptor::of(kind.media_type(), bytes),
        };
        let mut layers: Vec<_> = self.files.iter().map(layer).collect();
        if self.is_chunked {
            let chunks = ChunkList::of(&self.files[0].2).write();
            layers[0].blob.annotations.insert(annotation::CHUNKS.to_owned(), chunks);
        }
        let descriptor = ModelDescriptor {
            name: self.model.clone(),
            version: Version::parse(&self.version)?,
            family: String::new(),
            description: String::new(),
            licenses: Vec::new(),
        };
        let config = ModelConfig::onnx(descriptor, "fp32", &layers).write();
        let described = Descriptor::of(media_type::CONFIG, &config);
        let manifest = ImageManifest::write(described, &layers);
        let manifest = edited(manifest, self.edit_manifest.as_ref())?;
        let variant = Variant {
            manifest: Descriptor::of(media_type::MANIFEST, &manifest),
            platform: None,
            accelerator: Accelerator::Cpu,
            precision: "fp32".to_owned(),
            min_memory_mb: self.min_memory_mb,
        };
        let index = edited(ModelIndex::write(&[variant]), self.edit_index.as_ref())?;
        let digests = [&index, &manifest, &config].map(|bytes| Digest::of(bytes));
        let names = layers.into_iter().map(|layer| (layer.name, layer.blob.digest));
        let files = self.files.iter().map(|(_, _, bytes)| bytes.clone());
        Ok(Built {
            index: digests[0],
            manifest: digests[1],
            config: digests[2],
            layers: names.collect(),
            blobs: files.chain([config, manifest, index]).collect(),
        })
    }
}

fn edited(bytes: Vec<u8>, edit: Option<&Edit>) -> anyhow::Result<Vec<u8>> {
    let Some(edit) = edit else { return Ok(bytes) };
    let text = String::from_utf8(bytes)?;
    let edited = edit(text.clone());
    anyhow::ensure!(edited != text, "the edit changes nothing of {text}");
    Ok(edited.into_bytes())
}

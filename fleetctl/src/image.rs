//! Makes a model image of a directory: `model.toml` names the files, the image has them as layers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use sealift_protocol::codec;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, Version};
use sealift_protocol::image::{
    Accelerator, ChunkList, Descriptor, ForeignFormat, Golden, GoldenCase, HEAD_BYTES,
    ImageManifest, IoContract, Layer, LayerKind, ModelConfig, ModelDescriptor, ModelIndex,
    Platform, Policy, Tolerance, Variant, annotation, foreign_format, media_type,
};
use sealift_protocol::tensor::{Datatype, Tensor};
use serde::Deserialize;

use crate::baseline::Reference;
use crate::baseline::types::{self, Types};
use crate::failure::{Exit, Failure};

/// From here on a layer's chunks are signed, too: fetching a smaller one again costs little.
const CHUNKED_BYTES_MIN: u64 = 8 << 20;

/// The file that describes a model's directory.
const MODEL_FILE: &str = "model.toml";

/// `model.toml`; paths are relative to it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelFile {
    name: ModelName,
    version: Version,
    #[serde(default)]
    family: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    licenses: Vec<String>,
    weights: PathBuf,
    contract: PathBuf,
    golden: PathBuf,
    /// Reference rows, or a folder of pictures, from which the baseline is made.
    reference: Option<PathBuf>,
    /// What columns of the reference are taken for, where it is not what they look like.
    reference_types: Option<PathBuf>,
    /// A baseline made before by `fleetctl model baseline`.
    baseline: Option<PathBuf>,
    card: Option<PathBuf>,
    policy: Option<Policy>,
    #[serde(default = "one")]
    security_epoch: u64,
    #[serde(default = "fp32")]
    precision: String,
    #[serde(default = "cpu")]
    accelerator: Accelerator,
    #[serde(default)]
    min_memory_mb: u64,
    /// Where it runs, as `linux/amd64`; anywhere if not given.
    platform: Option<String>,
    /// The same model for other hardware, in the order in which devices that fit several prefer them; the one above comes first.
    #[serde(default)]
    variant: Vec<VariantFile>,
}

/// A build of the model for some hardware.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct VariantFile {
    weights: PathBuf,
    /// Its own golden tests: what an 8-bit build answers is a little off.
    golden: Option<PathBuf>,
    #[serde(default = "fp32")]
    precision: String,
    #[serde(default = "cpu")]
    accelerator: Accelerator,
    #[serde(default)]
    min_memory_mb: u64,
    platform: Option<String>,
}

impl ModelFile {
    fn descriptor(&self) -> ModelDescriptor {
        ModelDescriptor {
            name: self.name.clone(),
            version: self.version.clone(),
            family: self.family.clone(),
            description: self.description.clone(),
            licenses: self.licenses.clone(),
        }
    }

    /// All builds; the one at the top of the file comes first.
    fn variants(&self) -> Vec<VariantFile> {
        let first = VariantFile {
            weights: self.weights.clone(),
            golden: None,
            precision: self.precision.clone(),
            accelerator: self.accelerator,
            min_memory_mb: self.min_memory_mb,
            platform: self.platform.clone(),
        };
        std::iter::once(first).chain(self.variant.iter().cloned()).collect()
    }
}

const fn one() -> u64 {
    1
}

fn fp32() -> String {
    "fp32".to_owned()
}

const fn cpu() -> Accelerator {
    Accelerator::Cpu
}

/// An image ready to be pushed.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) model: ModelName,
    pub(crate) version: Version,
    pub(crate) epoch: u64,
    /// The layers and the configuration, by digest.
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
    /// One for each variant, in the order of the index.
    pub(crate) manifests: Vec<Vec<u8>>,
    pub(crate) index: Vec<u8>,
}

impl Image {
    /// Reads a model's directory and checks everything that a device would refuse later.
    pub(crate) fn build(directory: &Path) -> anyhow::Result<Self> {
        let file = directory.join(MODEL_FILE);
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let model: ModelFile =
            toml::from_str(&text).with_context(|| format!("cannot read {}", file.display()))?;
        let (mut blobs, mut manifests, mut variants) = (BTreeMap::new(), Vec::new(), Vec::new());
        for build in model.variants() {
            let files = read_files(directory, &model, &build)?;
            let layers: Vec<_> = files.iter().map(File::layer).collect();
            let config = ModelConfig::onnx(model.descriptor(), &build.precision, &layers).write();
            let descriptor = Descriptor::of(media_type::CONFIG, &config);
            let manifest = ImageManifest::write(descriptor, &layers);
            ImageManifest::parse(&manifest).context("the image would be refused")?;
            variants.push(Variant {
                manifest: Descriptor::of(media_type::MANIFEST, &manifest),
                platform: build.platform.as_deref().map(platform).transpose()?,
                accelerator: build.accelerator,
                precision: build.precision,
                min_memory_mb: build.min_memory_mb,
            });
            let bytes = files.into_iter().map(|file| file.bytes).chain([config]);
            blobs.extend(bytes.map(|bytes| (Digest::of(&bytes), bytes)));
            manifests.push(manifest);
        }
        let index = ModelIndex::write(&variants);
        ModelIndex::parse(&index).context("the image would be refused")?;
        let (version, epoch) = (model.version, model.security_epoch);
        Ok(Self { model: model.name, version, epoch, blobs, manifests, index })
    }

    /// Bytes of everything.
    pub(crate) fn size_bytes(&self) -> usize {
        let files = self.blobs.values().chain(&self.manifests);
        files.map(Vec::len).sum::<usize>() + self.index.len()
    }
}

fn platform(text: &str) -> anyhow::Result<Platform> {
    let mut parts = text.split('/').map(str::to_owned);
    let (Some(os), Some(architecture)) = (parts.next(), parts.next()) else {
        anyhow::bail!("platform `{text}` is not `os/architecture` or `os/architecture/variant`");
    };
    Ok(Platform { os, architecture, variant: parts.next() })
}

/// A layer and its bytes.
struct File {
    kind: LayerKind,
    name: &'static str,
    bytes: Vec<u8>,
}

impl File {
    fn layer(&self) -> Layer {
        let mut blob = Descriptor::of(self.kind.media_type(), &self.bytes);
        if blob.size >= CHUNKED_BYTES_MIN {
            let chunks = ChunkList::of(&self.bytes).write();
            blob.annotations.insert(annotation::CHUNKS.to_owned(), chunks);
        }
        Layer { kind: self.kind, name: self.name.to_owned(), blob }
    }
}

/// Reads the files that `model.toml` names for one variant, as layers in a fixed order.
fn read_files(
    directory: &Path,
    model: &ModelFile,
    build: &VariantFile,
) -> anyhow::Result<Vec<File>> {
    let read = |path: &Path| {
        let path = directory.join(path);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut files = Vec::new();
    let mut add = |kind, name, bytes| files.push(File { kind, name, bytes });

    let weights = read(&build.weights)?;
    refuse_foreign(&build.weights, &weights)?;
    add(LayerKind::Weights, "model.onnx", weights);
    let contract_bytes = read(&model.contract)?;
    let contract = IoContract::parse(&contract_bytes)
        .with_context(|| format!("{}", model.contract.display()))?;
    add(LayerKind::Contract, "contract.json", contract_bytes);
    let golden_path = build.golden.as_ref().unwrap_or(&model.golden);
    let golden = golden(directory, &read(golden_path)?, &contract)
        .with_context(|| format!("{}", golden_path.display()))?;
    add(LayerKind::Golden, "golden.cbor", codec::encode(&golden)?);
    match (&model.baseline, &model.reference) {
        (Some(path), _) => add(LayerKind::Baseline, "baseline.cbor", read(path)?),
        (None, Some(path)) => {
            let types = model.reference_types.as_deref().map(|types| directory.join(types));
            let types = types.as_deref().map_or_else(|| Ok(Types::new()), types::read)?;
            let data = &directory.join(path);
            let contract = Some(&contract);
            let (season, is_strict) = (None, true);
            let made = Reference { data, array: None, contract, types: &types, season, is_strict }
                .make()?;
            add(LayerKind::Baseline, "baseline.cbor", made.baseline.encode()?);
        }
        (None, None) => (),
    }
    if let Some(policy) = &model.policy {
        add(LayerKind::Policy, "policy.json", serde_json::to_vec_pretty(policy)?);
    }
    if let Some(card) = &model.card {
        add(LayerKind::Doc, "card.md", read(card)?);
    }
    Ok(files)
}

/// Devices take ONNX alone; files of other tools run code when they are loaded, or need a library that no device has.
fn refuse_foreign(path: &Path, weights: &[u8]) -> anyhow::Result<()> {
    let head = weights.get(..HEAD_BYTES).unwrap_or(weights);
    match foreign_format(head) {
        None => Ok(()),
        Some(ForeignFormat { name, help }) => {
            let what = format!("weights {} are {name}", path.display());
            Err(Failure::new(Exit::Failed, what).help(help).into())
        }
    }
}

/// Golden tests as people write them: JSON with the values as numbers.
#[derive(Deserialize)]
struct GoldenJson {
    cases: Vec<CaseJson>,
}

#[derive(Deserialize)]
struct CaseJson {
    name: String,
    inputs: Vec<TensorJson>,
    outputs: Vec<TensorJson>,
    tolerance: Tolerance,
}

#[derive(Deserialize)]
struct TensorJson {
    name: String,
    datatype: Datatype,
    shape: Vec<u64>,
    #[serde(default)]
    data: Vec<serde_json::Value>,
    /// Files whose bytes are the elements, in place of `data`; relative to the model's directory.
    #[serde(default)]
    files: Vec<PathBuf>,
}

fn golden(directory: &Path, json: &[u8], contract: &IoContract) -> anyhow::Result<Golden> {
    let json: GoldenJson = serde_json::from_slice(json).context("not golden tests in JSON")?;
    ensure!(!json.cases.is_empty(), "at least one case is needed");
    let cases = json.cases.into_iter().map(|case| {
        let name = case.name.clone();
        golden_case(directory, case, contract).with_context(|| format!("case `{name}`"))
    });
    Ok(Golden { schema: 1, cases: cases.collect::<anyhow::Result<_>>()? })
}

fn golden_case(
    directory: &Path,
    json: CaseJson,
    contract: &IoContract,
) -> anyhow::Result<GoldenCase> {
    let tensors = |tensors: Vec<TensorJson>| {
        let tensors = tensors.into_iter().map(|tensor| tensor.tensor(directory));
        tensors.collect::<anyhow::Result<Vec<_>>>()
    };
    let inputs = tensors(json.inputs)?;
    contract.check_inputs(&inputs)?;
    let outputs = tensors(json.outputs)?;
    ensure!(!outputs.is_empty(), "at least one expected output is needed");
    Ok(GoldenCase { name: json.name, inputs, outputs, tolerance: json.tolerance })
}

impl TensorJson {
    fn tensor(self, directory: &Path) -> anyhow::Result<Tensor> {
        if !self.files.is_empty() {
            return self.of_files(directory);
        }
        let mut bytes = Vec::new();
        for value in &self.data {
            let text = value.as_str().filter(|_| self.datatype == Datatype::Bytes);
            let pushed = match text {
                Some(text) => push_text(text, &mut bytes),
                None => {
                    value.as_number().and_then(|number| element(self.datatype, number, &mut bytes))
                }
            };
            pushed.with_context(|| {
                format!("tensor `{}`: {value} is not a {}", self.name, self.datatype)
            })?;
        }
        Ok(Tensor::new(self.name, self.datatype, self.shape, bytes)?)
    }

    fn of_files(&self, directory: &Path) -> anyhow::Result<Tensor> {
        let name = &self.name;
        ensure!(self.datatype == Datatype::Bytes, "tensor `{name}`: files are BYTES");
        ensure!(self.data.is_empty(), "tensor `{name}` has both `data` and `files`");
        let read = |file: &PathBuf| {
            let path = directory.join(file);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let files = self.files.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Tensor::text(name, &self.shape, files.iter().map(Vec::as_slice))?)
    }
}

fn push_text(text: &str, bytes: &mut Vec<u8>) -> Option<()> {
    bytes.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
    bytes.extend(text.as_bytes());
    Some(())
}

/// Appends one element; none if the number is not one of the type.
fn element(datatype: Datatype, number: &serde_json::Number, bytes: &mut Vec<u8>) -> Option<()> {
    macro_rules! whole {
        ($type:ty, $wide:ident) => {
            bytes.extend(<$type>::try_from(number.$wide()?).ok()?.to_le_bytes())
        };
    }
    match datatype {
        Datatype::Bool => bytes.push(u8::from(number.as_u64()? != 0)),
        Datatype::Uint8 => whole!(u8, as_u64),
        Datatype::Uint16 => whole!(u16, as_u64),
        Datatype::Uint32 => whole!(u32, as_u64),
        Datatype::Uint64 => whole!(u64, as_u64),
        Datatype::Int8 => whole!(i8, as_i64),
        Datatype::Int16 => whole!(i16, as_i64),
        Datatype::Int32 => whole!(i32, as_i64),
        Datatype::Int64 => whole!(i64, as_i64),
        Datatype::Fp32 => bytes.extend(number.to_string().parse::<f32>().ok()?.to_le_bytes()),
        Datatype::Fp64 => bytes.extend(number.as_f64()?.to_le_bytes()),
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(version: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/digits").join(version)
    }

    #[test]
    fn the_same_directory_always_makes_the_same_image() {
        let [first, second] = [(); 2].map(|()| Image::build(&digits("v1")).unwrap());
        assert_eq!(Digest::of(&first.index), Digest::of(&second.index));
        assert_eq!(first.model.to_string(), "vision/digits");
    }

    #[test]
    fn an_image_has_weights_contract_golden_tests_baseline_and_card() {
        let image = Image::build(&digits("v2")).unwrap();
        let manifest = ImageManifest::parse(&image.manifests[0]).unwrap();
        let names: Vec<_> = manifest.layers().iter().map(|layer| layer.name.as_str()).collect();
        let expected = ["model.onnx", "contract.json", "golden.cbor", "baseline.cbor", "card.md"];
        assert_eq!(names, expected);
    }

    #[test]
    fn variants_share_what_is_the_same_and_keep_the_publishers_order() {
        let directory = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(digits("v1")).unwrap().flatten() {
            fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
        }
        let path = |name: &str| directory.path().join(name);
        let mut small = fs::read(path("model.onnx")).unwrap();
        small.extend(b"\x42\x00");
        fs::write(path("int8.onnx"), small).unwrap();
        let text = fs::read_to_string(path(MODEL_FILE)).unwrap();
        let more = "\nmin_memory_mb = 512\n[[variant]]\nweights = \"int8.onnx\"\nprecision = \"int8\"\n\
            [[variant]]\nweights = \"model.onnx\"\naccelerator = \"openvino\"\nplatform = \"linux/amd64\"\n";
        fs::write(path(MODEL_FILE), format!("{text}{more}")).unwrap();

        let image = Image::build(directory.path()).unwrap();
        let index = ModelIndex::parse(&image.index).unwrap();
        let one = Image::build(&digits("v1")).unwrap();

        let found = index.variants().iter().map(|variant| {
            (variant.accelerator.as_str(), variant.precision.as_str(), variant.min_memory_mb)
        });
        let expected = [("cpu", "fp32", 512), ("cpu", "int8", 0), ("openvino", "fp32", 0)];
        assert_eq!(found.collect::<Vec<_>>(), expected);
        assert_eq!(image.manifests.len(), 3);
        // Other weights, and a configuration that names them.
        assert_eq!(image.blobs.len(), one.blobs.len() + 2);
        fs::write(path(MODEL_FILE), format!("{text}\n[[variant]]\nprecision = \"int8\"\n"))
            .unwrap();
        let refused = format!("{:#}", Image::build(directory.path()).unwrap_err());
        assert!(refused.contains("missing field `weights`"), "{refused}");
    }

    #[test]
    fn a_golden_value_that_is_not_of_its_type_is_named() {
        let tensor = TensorJson {
            name: "y".to_owned(),
            datatype: Datatype::Uint8,
            shape: vec![1],
            data: vec![300.into()],
            files: Vec::new(),
        };
        let refused = format!("{:#}", tensor.tensor(Path::new("")).unwrap_err());
        assert_eq!(refused, "tensor `y`: 300 is not a UINT8");
    }

    #[test]
    fn golden_images_are_files_and_golden_texts_are_written_out() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("cat.png"), b"\x89PNG").unwrap();
        let contract = br#"{"schema":1,"inputs":[{"name":"image","datatype":"BYTES","shape":[-1]}],
            "outputs":[{"name":"label","datatype":"BYTES","shape":[-1]}]}"#;
        let contract = IoContract::parse(contract).unwrap();
        let case = |input: &str| {
            let json = format!(
                r#"{{"cases":[{{"name":"a cat","tolerance":{{"absolute":0,"relative":0}},
                "inputs":[{{"name":"image","datatype":"BYTES","shape":[1],{input}}}],
                "outputs":[{{"name":"label","datatype":"BYTES","shape":[1],"data":["cat"]}}]}}]}}"#
            );
            golden(directory.path(), json.as_bytes(), &contract)
        };

        let read = case(r#""files":["cat.png"]"#).unwrap().cases.remove(0);

        assert_eq!(read.inputs[0].byte_elements().next().unwrap(), b"\x89PNG");
        assert_eq!(read.outputs[0].byte_elements().next().unwrap(), b"cat");
        let told = |input: &str| format!("{:#}", case(input).unwrap_err());
        assert!(told(r#""files":["dog.png"]"#).contains("dog.png"));
        assert!(told(r#""files":["cat.png"],"data":["x"]"#).contains("both `data` and `files`"));
    }

    #[test]
    fn pickles_and_archives_of_pickles_are_refused_with_a_way_out() {
        let directory = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(digits("v1")).unwrap().flatten() {
            fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
        }
        for (name, head) in [
            ("model.pkl", b"\x80\x04\x95\x00".as_slice()),
            ("model.pt", b"PK\x03\x04"),
            ("model.joblib", b"\x78\x9c\x00"),
        ] {
            fs::write(directory.path().join(name), head).unwrap();
            let text = fs::read_to_string(digits("v1").join(MODEL_FILE)).unwrap();
            let text = text.replace("weights = \"model.onnx\"", &format!("weights = \"{name}\""));
            fs::write(directory.path().join(MODEL_FILE), text).unwrap();

            let refused = format!("{:#}", Image::build(directory.path()).unwrap_err());

            assert!(refused.contains(name) && refused.contains("export the model"), "{refused}");
        }
    }

    #[test]
    fn an_unknown_key_in_model_toml_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(MODEL_FILE), "colour = 1\n").unwrap();
        let refused = format!("{:#}", Image::build(directory.path()).unwrap_err());
        assert!(refused.contains("unknown field `colour`"), "{refused}");
    }
}

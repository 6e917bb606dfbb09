//! Slots with real models, and what to ask them.

use std::fs;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use sealift_agent::serve::{Live, LiveImage, Switchboard, router};
use sealift_agent::worker::{
    EngineChoice, RuntimeCandidate, SlotFiles, Worker, WorkerError, WorkerSpec,
};
use sealift_protocol::codec;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, UnixMillis, Version};
use sealift_protocol::image::{Golden, GoldenCase, IoContract, Policy, Tolerance};
use sealift_protocol::profile::{Baseline, BaselineBuilder, Column};
use sealift_protocol::report::ImageRef;
use sealift_protocol::tensor::{Datatype, Tensor};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

/// A slot directory with the files of an image.
pub(crate) struct Slot {
    pub(crate) directory: TempDir,
    pub(crate) spec: WorkerSpec,
}

/// The library of ONNX Runtime. Without one these tests can say nothing, so they fail.
pub(crate) fn library() -> PathBuf {
    let path = std::env::var_os("SEALIFT_ONNXRUNTIME").map(PathBuf::from);
    let path = path.expect("set SEALIFT_ONNXRUNTIME to the full path of libonnxruntime.so");
    assert!(path.is_file(), "SEALIFT_ONNXRUNTIME: {} is no file", path.display());
    path
}

pub(crate) fn candidate(provider: &str, strict: bool) -> RuntimeCandidate {
    RuntimeCandidate {
        library: library(),
        providers: vec![provider.to_owned()],
        strict,
        sessions: NonZeroU8::MIN,
    }
}

pub(crate) fn cpu() -> RuntimeCandidate {
    candidate("CPUExecutionProvider", true)
}

fn digits(version: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("tests/fixtures/digits").join(version)
}

impl Slot {
    /// The digits model in one of its versions.
    pub(crate) fn digits(version: &str) -> Self {
        let from = digits(version);
        let contract = fs::read(from.join("contract.json")).unwrap();
        let weights = fs::read(from.join("model.onnx")).unwrap();
        Self::new(&weights, &contract, &golden(&from.join("golden.json")))
    }

    pub(crate) fn new(weights: &[u8], contract: &[u8], golden: &Golden) -> Self {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("model.onnx"), weights).unwrap();
        fs::write(path("contract.json"), contract).unwrap();
        fs::write(path("golden.cbor"), codec::encode(golden).unwrap()).unwrap();
        fs::create_dir(path("scratch")).unwrap();
        let files = SlotFiles {
            weights: path("model.onnx"),
            weights_digest: Digest::of(weights),
            contract: path("contract.json"),
            golden: path("golden.cbor"),
            baseline: None,
            policy: None,
        };
        let spec = WorkerSpec {
            slot_dir: directory.path().to_owned(),
            files,
            engine: EngineChoice::OnnxRuntime(vec![cpu()]),
            scratch_dir: path("scratch"),
            executable: Some(PathBuf::from(env!("CARGO_BIN_EXE_fleet-agent"))),
        };
        Self { directory, spec }
    }

    /// The digits model behind steps: a grey image of 8 x 8 goes in, the best names and their probabilities come out.
    pub(crate) fn digits_of_images() -> Self {
        let from = digits("v1");
        let contract: Value =
            serde_json::from_slice(&fs::read(from.join("contract.json")).unwrap()).unwrap();
        let names: Vec<_> = (0..10).map(|digit| format!("digit {digit}")).collect();
        let contract = serde_json::json!({"schema": 1,
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "best", "datatype": "BYTES", "shape": [-1, 2]}, contract["outputs"][0]],
            "processing": {"graph": {"inputs": contract["inputs"], "outputs": contract["outputs"]},
                "before": [{"image": {"from": "image", "to": "pixels", "width": 8, "height": 8, "colour": "grey",
                    "divisor": PIXEL_STEP, "layout": "flat"}}],
                "after": [{"top-k": {"from": "probabilities", "k": 2, "names": "best", "labels": names}}]}});
        let mut golden = golden(&from.join("golden.json"));
        for case in &mut golden.cases {
            let rows = usize::try_from(case.inputs[0].shape[0]).unwrap();
            let images: Vec<_> = case.inputs[0].numbers().unwrap().chunks(64).map(png_of).collect();
            let images = images.iter().map(Vec::as_slice);
            case.inputs = vec![Tensor::text("image", &[rows as u64], images).unwrap()];
            case.outputs.retain(|output| output.name == "label");
        }
        Self::new(
            &fs::read(from.join("model.onnx")).unwrap(),
            contract.to_string().as_bytes(),
            &golden,
        )
    }

    pub(crate) fn with_policy(mut self, policy: &Policy) -> Self {
        let path = self.directory.path().join("policy.json");
        fs::write(&path, serde_json::to_vec(policy).unwrap()).unwrap();
        self.spec.files.policy = Some(path);
        self
    }

    pub(crate) fn with_candidates(mut self, candidates: Vec<RuntimeCandidate>) -> Self {
        self.spec.engine = EngineChoice::OnnxRuntime(candidates);
        self
    }

    pub(crate) async fn refusal(&self) -> WorkerError {
        Worker::start(self.spec.clone()).await.expect_err("the worker should not have started")
    }

    pub(crate) async fn worker(&self) -> Worker {
        Worker::start(self.spec.clone()).await.unwrap().0
    }

    pub(crate) async fn live(&self, version: &str, baseline: Option<Baseline>) -> Live {
        let contract = IoContract::parse(&fs::read(&self.spec.files.contract).unwrap()).unwrap();
        let live = LiveImage {
            model: model(),
            image: image(version),
            contract: contract.into(),
            baseline: baseline.map(Into::into),
            providers: vec![],
            since: UnixMillis(0),
        };
        Live::new(live, self.worker().await)
    }
}

pub(crate) fn model() -> ModelName {
    ModelName::parse("vision/digits").unwrap()
}

pub(crate) fn image(version: &str) -> ImageRef {
    ImageRef { version: Version::parse(version).unwrap(), index: Digest::of(version.as_bytes()) }
}

/// The readable form of golden tests that the fixtures are kept in.
pub(crate) fn golden(path: &Path) -> Golden {
    let json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let tensors = |list: &Value| list.as_array().unwrap().iter().map(tensor).collect();
    let case = |case: &Value| GoldenCase {
        name: case["name"].as_str().unwrap().to_owned(),
        inputs: tensors(&case["inputs"]),
        outputs: tensors(&case["outputs"]),
        tolerance: Tolerance {
            absolute: case["tolerance"]["absolute"].as_f64().unwrap(),
            relative: case["tolerance"]["relative"].as_f64().unwrap(),
        },
    };
    Golden { schema: 1, cases: json["cases"].as_array().unwrap().iter().map(case).collect() }
}

#[expect(clippy::cast_possible_truncation, reason = "the fixtures are written from FP32")]
fn tensor(json: &Value) -> Tensor {
    let datatype: Datatype = serde_json::from_value(json["datatype"].clone()).unwrap();
    let shape: Vec<u64> = serde_json::from_value(json["shape"].clone()).unwrap();
    let elements = json["data"].as_array().unwrap().iter();
    let bytes: Vec<u8> = match datatype {
        Datatype::Fp32 => {
            elements.flat_map(|number| (number.as_f64().unwrap() as f32).to_le_bytes()).collect()
        }
        Datatype::Int64 => elements.flat_map(|n| n.as_i64().unwrap().to_le_bytes()).collect(),
        other => panic!("the fixtures have no {other}"),
    };
    Tensor::new(json["name"].as_str().unwrap().to_owned(), datatype, shape, bytes).unwrap()
}

/// Rows of a CSV file without its first `skipped` columns.
pub(crate) fn rows(file: &str, skipped: usize) -> Vec<Vec<f32>> {
    let text = fs::read_to_string(digits("data").join(file)).unwrap();
    let row =
        |line: &str| line.split(',').skip(skipped).map(|cell| cell.parse().unwrap()).collect();
    text.lines().skip(1).map(row).collect()
}

/// The baseline of a version, from its reference rows.
pub(crate) fn baseline(version: &str) -> Baseline {
    let text = fs::read_to_string(digits(version).join("reference.csv")).unwrap();
    let mut lines = text.lines();
    let names: Vec<_> = lines.next().unwrap().split(',').take(64).collect();
    let columns = names.iter().map(|name| Column::numeric(name, "pixels")).collect();
    let classes = (0..10).map(|class| class.to_string()).collect();
    let mut builder = BaselineBuilder::new(columns, classes);
    for line in lines {
        let cells: Vec<_> = line.split(',').collect();
        let features: Vec<f64> = cells[..64].iter().map(|cell| cell.parse().unwrap()).collect();
        builder.push(&features, Some(cells[64]), cells[65].parse().ok()).unwrap();
    }
    builder.build().unwrap()
}

/// The fixtures' pixels are 0 to 16.
const PIXEL_STEP: u8 = 15;

/// Pixels of 8 x 8 as a file.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 16")]
pub(crate) fn png_of(pixels: &[f64]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 8, 8);
    encoder.set_color(png::ColorType::Grayscale);
    let bytes: Vec<_> = pixels.iter().map(|&pixel| pixel as u8 * PIXEL_STEP).collect();
    encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
    file
}

/// One digit.
pub(crate) fn pixels() -> Tensor {
    golden(&digits("v1").join("golden.json")).cases.remove(0).inputs.remove(0)
}

/// A request with this body.
pub(crate) fn post_body(content_type: &str, body: Vec<u8>) -> Request<Body> {
    let request = Request::post("/v2/models/digits/infer").header("content-type", content_type);
    request.body(Body::from(body)).unwrap()
}

/// A request in JSON.
pub(crate) fn json_request(pixels: &Tensor) -> Request<Body> {
    let data = pixels.numbers().unwrap();
    let input = serde_json::json!({
        "name": "pixels", "datatype": "FP32", "shape": pixels.shape, "data": data
    });
    let body = serde_json::json!({ "id": "seven", "inputs": [input] }).to_string();
    Request::post("/v2/models/vision/digits/infer").body(Body::from(body)).unwrap()
}

/// The same in binary, both ways.
pub(crate) fn binary_request(pixels: &Tensor) -> Request<Body> {
    let size = pixels.bytes.len();
    let input = serde_json::json!({
        "name": "pixels", "datatype": "FP32", "shape": pixels.shape,
        "parameters": { "binary_data_size": size }
    });
    let head = serde_json::json!({
        "inputs": [input], "parameters": { "binary_data_output": true }
    });
    let head = head.to_string();
    Request::post("/v2/models/digits/infer")
        .header("Inference-Header-Content-Length", head.len())
        .body(Body::from([head.as_bytes(), &pixels.bytes].concat()))
        .unwrap()
}

pub(crate) fn board(live: &Live) -> (Switchboard, Router) {
    let board = Switchboard::new();
    assert!(board.swap(&model(), Some(live.clone())).is_none());
    (board.clone(), router(board))
}

pub(crate) async fn ask(router: &Router, request: Request<Body>) -> Response<Body> {
    router.clone().oneshot(request).await.unwrap()
}

pub(crate) async fn body(response: Response<Body>) -> Vec<u8> {
    axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()
}

pub(crate) async fn json(response: Response<Body>) -> Value {
    let body = body(response).await;
    serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&body)))
}

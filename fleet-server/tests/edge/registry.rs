//! Pushing and pulling model images.

use std::process::Command;

use reqwest::{Client, Method, Response, StatusCode};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, Version};
use sealift_protocol::image::{
    Accelerator, Descriptor, Golden, GoldenCase, ImageManifest, IoContract, Layer, LayerKind,
    ModelConfig, ModelDescriptor, ModelIndex, Numbers, TensorSpec, Tolerance, Variant, media_type,
};
use sealift_protocol::tensor::Datatype;
use serde_json::Value;

use crate::support::Fleet;

/// A whole model image, ready to be pushed.
pub(crate) struct Image {
    pub(crate) index: Vec<u8>,
    manifest: Vec<u8>,
    blobs: Vec<Vec<u8>>,
}

impl Image {
    /// An image of a model; the weights decide its digest.
    pub(crate) fn of(model: &str, version: &str, weights: &[u8]) -> Self {
        let mut blobs = Vec::new();
        let mut layer = |kind: LayerKind, name: &str, bytes: Vec<u8>| {
            let blob = Descriptor::of(kind.media_type(), &bytes);
            blobs.push(bytes);
            Layer { kind, name: name.to_owned(), blob }
        };
        let layers = [
            layer(LayerKind::Weights, "model.onnx", weights.to_vec()),
            layer(LayerKind::Contract, "contract.json", contract()),
            layer(LayerKind::Golden, "golden.cbor", golden()),
        ];
        let descriptor = ModelDescriptor {
            name: ModelName::parse(model).unwrap(),
            version: Version::parse(version).unwrap(),
            family: "test".to_owned(),
            description: "a test".to_owned(),
            licenses: vec!["Apache-2.0".to_owned()],
        };
        let config = ModelConfig::onnx(descriptor, "fp32", &layers).write();
        let config_blob = Descriptor::of(media_type::CONFIG, &config);
        blobs.push(config);
        let manifest = ImageManifest::write(config_blob, &layers);
        let index = ModelIndex::write(&[Variant {
            manifest: Descriptor::of(media_type::MANIFEST, &manifest),
            platform: None,
            accelerator: Accelerator::Cpu,
            precision: "fp32".to_owned(),
            min_memory_mb: 0,
        }]);
        Self { index, manifest, blobs }
    }

    /// Pushes everything; the answer to the index is returned.
    pub(crate) async fn push(&self, fleet: &Fleet, model: &str, tag: &str) -> Response {
        for blob in &self.blobs {
            let answer = push_blob(fleet, model, blob.clone(), Digest::of(blob)).await;
            assert_eq!(answer.status(), StatusCode::CREATED);
        }
        let digest = Digest::of(&self.manifest).to_string();
        let answer =
            put_manifest(fleet, model, &digest, media_type::MANIFEST, &self.manifest).await;
        assert_eq!(answer.status(), StatusCode::CREATED, "{}", answer.text().await.unwrap());
        put_manifest(fleet, model, tag, media_type::INDEX, &self.index).await
    }
}

fn contract() -> Vec<u8> {
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: Datatype::Fp32,
        shape: vec![-1, 1],
        role: None,
        labels: Vec::new(),
        features: Vec::new(),
        image: None,
        numbers: Numbers::Any,
    };
    let contract = IoContract {
        schema: 1,
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
        processing: None,
    };
    serde_json::to_vec(&contract).unwrap()
}

fn golden() -> Vec<u8> {
    let tolerance = Tolerance { absolute: 0.0, relative: 0.0 };
    let case = GoldenCase { name: "one".to_owned(), inputs: vec![], outputs: vec![], tolerance };
    sealift_protocol::codec::encode(&Golden { schema: 1, cases: vec![case] }).unwrap()
}

async fn push_blob(fleet: &Fleet, model: &str, bytes: Vec<u8>, promised: Digest) -> Response {
    let path = format!("/v2/{model}/blobs/uploads/?digest={promised}");
    fleet.api(Method::POST, &path).body(bytes).send().await.unwrap()
}

async fn put_manifest(
    fleet: &Fleet,
    model: &str,
    reference: &str,
    media_type: &str,
    bytes: &[u8],
) -> Response {
    let path = format!("/v2/{model}/manifests/{reference}");
    let request = fleet.api(Method::PUT, &path).header("content-type", media_type);
    request.body(bytes.to_vec()).send().await.unwrap()
}

async fn oci_code(response: Response) -> String {
    let body: Value = response.json().await.unwrap();
    body["errors"][0]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_pushed_image_is_listed_unsigned_and_served_to_devices() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let image = Image::of("vision/digits", "2", b"0123456789");

    let pushed = image.push(&fleet, "vision/digits", "2").await;

    assert_eq!(pushed.status(), StatusCode::CREATED);
    let digest = Digest::of(&image.index).to_string();
    let version = fleet.get("/api/v1/models/vision/digits/versions/2").await;
    assert_eq!(
        (&version["state"], &version["digest"]),
        (&"unsigned".into(), &digest.as_str().into())
    );
    let tags = fleet.get("/v2/vision/digits/tags/list").await;
    assert_eq!(tags["tags"], serde_json::json!(["2"]));
    let base = format!("{}/v2/vision/digits", fleet.endpoints.device_url);
    let https = device.https();
    let index = https.get(format!("{base}/manifests/{digest}")).send().await.unwrap();
    assert_eq!(index.headers()["docker-content-digest"], digest.as_str());
    assert_eq!(index.bytes().await.unwrap(), image.index);
    let weights = format!("{base}/blobs/{}", Digest::of(b"0123456789"));
    let part = https.get(&weights).header("range", "bytes=4-").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], "bytes 4-9/10");
    assert_eq!(part.bytes().await.unwrap(), "456789");
    let beyond = https.get(&weights).header("range", "bytes=10-").send().await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let by_tag = https.get(format!("{base}/manifests/2")).send().await.unwrap();
    assert_eq!(by_tag.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_blob_with_a_flipped_byte_is_refused_and_not_kept() {
    let fleet = Fleet::start();
    let promised = Digest::of(b"weights");

    let refused = push_blob(&fleet, "vision/digits", b"Weights".to_vec(), promised).await;

    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(oci_code(refused).await, "DIGEST_INVALID");
    for digest in [promised, Digest::of(b"Weights")] {
        let path = format!("/v2/vision/digits/blobs/{digest}");
        let head = fleet.api(Method::HEAD, &path).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_blob_comes_in_chunks_in_their_order() {
    let fleet = Fleet::start();
    let request = fleet.api(Method::POST, "/v2/vision/digits/blobs/uploads/");
    let begun = request.send().await.unwrap();
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let upload = begun.headers()["location"].to_str().unwrap().to_owned();
    let chunk = |range: &'static str, bytes: &'static str| {
        fleet.api(Method::PATCH, &upload).header("content-range", range).body(bytes).send()
    };

    assert_eq!(chunk("0-2", "wei").await.unwrap().status(), StatusCode::ACCEPTED);
    assert_eq!(chunk("4-6", "hts").await.unwrap().status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(chunk("3-5", "ght").await.unwrap().status(), StatusCode::ACCEPTED);
    let digest = Digest::of(b"weights");
    let finish = fleet.api(Method::PUT, &format!("{upload}?digest={digest}")).body("s");
    assert_eq!(finish.send().await.unwrap().status(), StatusCode::CREATED);

    let path = format!("/v2/vision/digits/blobs/{digest}");
    let blob = fleet.api(Method::GET, &path).send().await.unwrap();
    assert_eq!(blob.bytes().await.unwrap(), "weights");
    let elsewhere = format!("/v2/vision/other/blobs/{digest}");
    let other = fleet.api(Method::GET, &elsewhere).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_version_never_changes_and_carries_its_own_name() {
    let fleet = Fleet::start();
    let image = Image::of("vision/digits", "2", b"weights");
    assert_eq!(image.push(&fleet, "vision/digits", "2").await.status(), StatusCode::CREATED);
    assert_eq!(image.push(&fleet, "vision/digits", "2").await.status(), StatusCode::CREATED);

    let other = Image::of("vision/digits", "2", b"other weights");
    let taken = other.push(&fleet, "vision/digits", "2").await;
    assert_eq!((taken.status(), oci_code(taken).await.as_str()), (StatusCode::CONFLICT, "DENIED"));
    let renamed = other.push(&fleet, "vision/digits", "3").await;
    assert_eq!(renamed.status(), StatusCode::CREATED);
    let warning = renamed.headers()["warning"].to_str().unwrap();
    assert!(warning.starts_with("299 - ") && warning.contains("its tag is `3`"), "{warning}");
    let mirrored = other.push(&fleet, "mirror/vision/digits", "2").await;
    assert!(mirrored.headers().contains_key("warning"));
    let models = fleet.get("/api/v1/models").await;
    assert_eq!(models["items"][0]["versions"].as_array().unwrap().len(), 1);
    assert_eq!(models["total"], 1);
}

#[tokio::test]
async fn an_image_whose_layer_is_missing_is_refused() {
    let fleet = Fleet::start();
    let image = Image::of("vision/digits", "2", b"weights");
    let digest = Digest::of(&image.manifest).to_string();
    let refused =
        put_manifest(&fleet, "vision/digits", &digest, media_type::MANIFEST, &image.manifest).await;
    assert_eq!(oci_code(refused).await, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn pulling_needs_a_token_and_pushing_a_publisher() {
    let fleet = Fleet::start();
    let url = format!("{}/v2/", fleet.endpoints.operator_url);
    let client = Client::new();
    let anonymous = client.get(&url).send().await.unwrap();
    assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED);
    assert!(anonymous.headers().contains_key("www-authenticate"));
    let viewer = fleet.token("eve", "viewer");
    let basic = client.get(&url).basic_auth("anybody", Some(&viewer)).send().await.unwrap();
    assert_eq!(basic.status(), StatusCode::OK);

    let push = format!("{}/v2/vision/digits/blobs/uploads/", fleet.endpoints.operator_url);
    let refused = client.post(push).bearer_auth(&viewer).send().await.unwrap();

    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(oci_code(refused).await, "DENIED");
}

/// Runs `skopeo` and returns what it printed.
fn skopeo(arguments: &[&str]) -> String {
    let program = std::env::var("SEALIFT_SKOPEO").unwrap_or_else(|_| "skopeo".to_owned());
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An artifact of somebody else's: an index, a manifest and a configuration without layers.
async fn push_foreign(fleet: &Fleet) -> Digest {
    let config = b"{}".to_vec();
    let config_blob = Descriptor::of("application/vnd.oci.image.config.v1+json", &config);
    push_blob(fleet, "vision/tools", config, config_blob.digest).await;
    let text = |blob: &Descriptor| serde_json::to_string(blob).unwrap();
    let document = |kind: &str, rest: String| {
        format!(r#"{{"schemaVersion":2,"mediaType":"{kind}",{rest}}}"#).into_bytes()
    };
    let config = format!(r#""config":{},"layers":[]"#, text(&config_blob));
    let manifest = document(media_type::MANIFEST, config);
    let blob = Descriptor::of(media_type::MANIFEST, &manifest);
    let index = document(media_type::INDEX, format!(r#""manifests":[{}]"#, text(&blob)));
    let by_digest = blob.digest.to_string();
    for (reference, kind, bytes) in [
        (by_digest.as_str(), media_type::MANIFEST, &manifest),
        ("latest", media_type::INDEX, &index),
    ] {
        let answer = put_manifest(fleet, "vision/tools", reference, kind, bytes).await;
        assert_eq!(answer.status(), StatusCode::CREATED, "{}", answer.text().await.unwrap());
    }
    Digest::of(&index)
}

#[tokio::test]
#[ignore = "needs skopeo on this machine"]
async fn skopeo_carries_foreign_artifacts_from_one_server_to_another() {
    let (from, to) = (Fleet::start(), Fleet::start());
    let digest = push_foreign(&from).await;
    let place = |fleet: &Fleet| {
        fleet.endpoints.operator_url.replace("http://", "docker://") + "/vision/tools:latest"
    };
    let layout = format!("oci:{}:1", from.folder.path().join("layout").display());
    let (reader, writer) =
        (format!("x:{}", from.token("eve", "viewer")), format!("x:{}", to.admin));

    let pull = ["--src-tls-verify=false", "--src-creds", &reader, &place(&from), &layout];
    skopeo(&[&["copy", "--all"][..], &pull].concat());
    let push = ["--dest-tls-verify=false", "--dest-creds", &writer, &layout, &place(&to)];
    skopeo(&[&["copy", "--all"][..], &push].concat());

    let path = "/v2/vision/tools/manifests/latest";
    let manifest = to.api(Method::HEAD, path).send().await.unwrap();
    assert_eq!(manifest.headers()["docker-content-digest"], digest.to_string().as_str());
    assert_eq!(to.get("/api/v1/models").await["total"], 0);
}

#[tokio::test]
#[ignore = "needs skopeo on this machine"]
async fn skopeo_lists_inspects_copies_and_deletes() {
    let fleet = Fleet::start();
    let digest = push_foreign(&fleet).await;
    let base = fleet.endpoints.operator_url.replace("http://", "docker://");
    let writer = format!("x:{}", fleet.admin);
    let credentials = ["--tls-verify=false", "--creds", &writer];
    let place = |name: &str| format!("{base}/{name}");

    let tags = skopeo(&[&["list-tags"][..], &credentials, &[&place("vision/tools")]].concat());
    let tags: Value = serde_json::from_str(&tags).unwrap();
    assert_eq!(tags["Tags"], serde_json::json!(["latest"]));
    let from = place(&format!("vision/tools@{digest}"));
    let raw = skopeo(&[&["inspect", "--raw"][..], &credentials, &[&from]].concat());
    assert_eq!(Digest::of(raw.as_bytes()), digest);
    let [source, target] = ["src", "dest"]
        .map(|side| [format!("--{side}-tls-verify=false"), format!("--{side}-creds={writer}")]);
    let to = place("mirror/of/tools:1");
    let copy = ["copy", "--all", &source[0], &source[1], &target[0], &target[1], &from, &to];
    skopeo(&copy);
    let head = fleet.api(Method::HEAD, "/v2/mirror/of/tools/manifests/1").send().await.unwrap();
    assert_eq!(head.headers()["docker-content-digest"], digest.to_string().as_str());

    skopeo(&[&["delete"][..], &credentials, &[&to]].concat());

    let head = fleet.api(Method::HEAD, "/v2/mirror/of/tools/manifests/1").send().await.unwrap();
    assert_eq!(head.status(), StatusCode::NOT_FOUND);
    let kept = fleet.api(Method::HEAD, "/v2/vision/tools/manifests/latest").send().await.unwrap();
    assert_eq!(kept.status(), StatusCode::OK);
}

#[tokio::test]
#[ignore = "needs Python packages"]
async fn oras_pushes_pulls_attaches_and_carries_artifacts() {
    let (from, to) = (Fleet::start(), Fleet::start());
    let folder = tempfile::tempdir().unwrap();
    let story = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop/oras_story.py");
    let host = |fleet: &Fleet| fleet.endpoints.operator_url.replace("http://", "");
    let token = from.token("ann", "publisher");

    let output = Command::new(std::env::var("SEALIFT_PYTHON").unwrap())
        .args([story, &host(&from), &token, &host(&to), &to.admin])
        .arg(folder.path())
        .output()
        .unwrap();

    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && printed.contains("done"), "{printed}\n{errors}");
    assert_eq!(to.get("/api/v1/models").await["total"], 0);
}

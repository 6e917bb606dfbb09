//! What the suite asks beyond its four workflows, and what the specification says besides: digests of SHA-512, ranges, wrong digests, other
//! shapes of manifests, roles, paths.

use reqwest::{Client, Method, Response, StatusCode};
use sealift_protocol::digest::encode_hex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use super::{
    Extra, INDEX, LAYER, MANIFEST, NAMESPACE, OCTETS, OTHER, Suite, bytes_of, code, config,
    descriptor, header, image, length, location, refusal, sha256, tags,
};

fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", encode_hex(&Sha512::digest(bytes)))
}

/// How a blob is pushed.
#[derive(Debug, Clone, Copy)]
enum Way {
    Single,
    PostPut,
    Streamed,
    ChunkedToTheEnd,
}

const WAYS: [Way; 4] = [Way::Single, Way::PostPut, Way::Streamed, Way::ChunkedToTheEnd];

impl Way {
    /// Pushes; the answer is the one to the last request.
    async fn push(self, suite: &Suite, digest: &str, bytes: &[u8]) -> Response {
        match self {
            Self::Single => {
                let path = format!("/v2/{NAMESPACE}/blobs/uploads/?digest={digest}");
                suite.send(Method::POST, &path, Extra::of(OCTETS, bytes)).await
            }
            Self::PostPut => suite.put_blob(&suite.begin(NAMESPACE).await, digest, bytes).await,
            Self::Streamed => {
                let place = suite.begin(NAMESPACE).await;
                suite.patch(&place, bytes, None).await;
                suite.put_blob(&place, digest, b"").await
            }
            Self::ChunkedToTheEnd => {
                let place = suite.begin(NAMESPACE).await;
                let (first, last) = bytes.split_at(bytes.len() / 2);
                suite.patch(&place, first, Some(format!("0-{}", first.len() - 1))).await;
                let range = format!("{}-{}", first.len(), bytes.len() - 1);
                let chunk = Extra::of(OCTETS, last).with("content-range", range);
                suite.send(Method::PUT, &format!("{place}?digest={digest}"), chunk).await
            }
        }
    }
}

#[tokio::test]
async fn blobs_go_by_either_digest_and_come_in_every_way() {
    let suite = Suite::start();
    let bytes = b"a blob of some length";
    for digest in [sha256(bytes), sha512(bytes)] {
        let path = format!("/v2/{NAMESPACE}/blobs/{digest}");
        for way in WAYS {
            let pushed = way.push(&suite, &digest, bytes).await;
            assert_eq!(pushed.status(), StatusCode::CREATED, "{way:?}");
            assert_eq!(header(&pushed, "docker-content-digest"), digest);
            let head = suite.head(&location(&pushed)).await;
            assert_eq!((head.status(), length(&head)), (StatusCode::OK, bytes.len() as u64));
            assert_eq!(header(&head, "docker-content-digest"), digest);
            assert_eq!(suite.get(&path).await.bytes().await.unwrap(), bytes.as_slice());
            assert_eq!(suite.delete(&path).await.status(), StatusCode::ACCEPTED);
            assert_eq!(suite.head(&path).await.status(), StatusCode::NOT_FOUND);
        }
    }
}

#[tokio::test]
async fn a_wrong_digest_is_refused_in_every_way_and_nothing_is_kept() {
    let suite = Suite::start();
    for promised in [sha256(b"promised"), sha512(b"promised")] {
        for way in WAYS {
            let refused = way.push(&suite, &promised, b"something else").await;
            assert_eq!(code(refused).await, refusal(StatusCode::BAD_REQUEST, "DIGEST_INVALID"));
        }
        let path = format!("/v2/{NAMESPACE}/blobs/{promised}");
        assert_eq!(suite.head(&path).await.status(), StatusCode::NOT_FOUND);
    }
    let place = suite.begin(NAMESPACE).await;
    for digest in ["sha256:00", "md5:d41d8cd98f00b204e9800998ecf8427e", ""] {
        let refused = suite.put_blob(&place, digest, b"x").await;
        assert_eq!(code(refused).await.1, "DIGEST_INVALID", "{digest}");
    }
}

#[tokio::test]
async fn blobs_without_a_byte_are_blobs() {
    let suite = Suite::start();
    for bytes in [&b""[..], b"{}"] {
        let digest = suite.push_blob(NAMESPACE, bytes).await;
        let path = format!("/v2/{NAMESPACE}/blobs/{digest}");
        assert_eq!(length(&suite.head(&path).await), bytes.len() as u64);
        assert_eq!(suite.get(&path).await.bytes().await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn an_upload_is_cancelled() {
    let suite = Suite::start();
    let place = suite.begin(NAMESPACE).await;
    suite.patch(&place, b"half", None).await;
    let elsewhere = place.replace(NAMESPACE, OTHER);
    let unknown = refusal(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(code(suite.delete(&elsewhere).await).await, unknown);

    assert_eq!(suite.delete(&place).await.status(), StatusCode::NO_CONTENT);

    assert_eq!(code(suite.get(&place).await).await, unknown);
    assert_eq!(code(suite.put_blob(&place, &sha256(b"half"), b"").await).await, unknown);
    let uploads = suite.fleet.data().join("blobs/main/uploads");
    assert!(!uploads.exists() || std::fs::read_dir(uploads).unwrap().next().is_none());
}

#[tokio::test]
async fn a_chunk_that_is_not_as_long_as_it_says_is_refused() {
    let suite = Suite::start();
    let place = suite.begin(NAMESPACE).await;
    for range in ["0-9", "0-1", "3-1", "x-y", "0"] {
        let refused = suite.patch(&place, b"four", Some(range.to_owned())).await;
        assert!(refused.status().is_client_error(), "{range}");
    }
    let status = suite.get(&place).await;
    assert_eq!(header(&status, "range"), "0-0");
    let taken = suite.patch(&place, b"four", Some("0-3".to_owned())).await;
    assert_eq!(taken.status(), StatusCode::ACCEPTED);
    let beyond = format!("{place}?digest={}", sha256(b"fourfive"));
    let beyond =
        suite.send(Method::PUT, &beyond, Extra::of(OCTETS, b"five").with("content-range", "5-8"));
    let refused = beyond.await;
    assert_eq!(header(&refused, "range"), "0-3");
    assert_eq!(header(&refused, "location"), place);
    assert_eq!(refused.status(), StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test]
async fn parts_of_a_blob_are_served() {
    let suite = Suite::start();
    let blob: Vec<u8> = (0..2_048_u32).map(|number| number.to_le_bytes()[0]).collect();
    let digest = suite.push_blob(NAMESPACE, &blob).await;
    let path = format!("/v2/{NAMESPACE}/blobs/{digest}");
    let part = async |range: &str| {
        suite.send(Method::GET, &path, Extra::default().with("range", range)).await
    };

    for (range, bytes) in [
        ("bytes=500-1499", 500..1_500),
        ("bytes=500-", 500..2_048),
        ("bytes=-500", 1_548..2_048),
        ("bytes=2000-5000", 2_000..2_048),
    ] {
        let response = part(range).await;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        let expected = format!("bytes {}-{}/2048", bytes.start, bytes.end - 1);
        assert_eq!(header(&response, "content-range"), expected);
        assert_eq!(length(&response), bytes.len() as u64);
        assert_eq!(response.bytes().await.unwrap(), blob[bytes]);
    }
    for range in ["bytes=500-0", "bytes=5000-10000", "bytes=-0"] {
        let response = part(range).await;
        assert_eq!(header(&response, "content-range"), "bytes */2048");
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
    }
    assert_eq!(part("bytes=0-1,4-5").await.bytes().await.unwrap(), blob);
    let stale = Extra::default().with("range", "bytes=0-1").with("if-range", "\"other\"");
    let whole = suite.send(Method::GET, &path, stale).await;
    assert_eq!((whole.status(), length(&whole)), (StatusCode::OK, 2_048));
}

#[tokio::test]
async fn manifests_of_every_shape_are_kept_as_they_are() {
    let suite = Suite::start();
    let config = config("shapes");
    for blob in [&config[..], LAYER, b"{}"] {
        suite.push_blob(NAMESPACE, blob).await;
    }
    let first = image(&config, &[LAYER]);
    let entry = |manifest: &Value| {
        let kind = manifest["mediaType"].as_str().unwrap();
        let mut entry = descriptor(kind, &bytes_of(manifest));
        entry["platform"] = json!({ "os": "linux", "architecture": "arm64" });
        entry
    };
    let index =
        |entries: &[Value]| json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    let mut large = image(&config, &[]);
    let notes = (0..390).map(|number| (format!("note-{number}"), json!("A".repeat(10_000))));
    large["annotations"] = Value::Object(notes.collect());
    let mut elsewhere = image(&config, &[]);
    let nowhere = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    elsewhere["layers"] = json!([descriptor(nowhere, b"not here")]);
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let mut docker_image = image(&config, &[LAYER]);
    docker_image["mediaType"] = json!(docker);
    let of_one = index(&[entry(&first)]);
    let nested = index(&[entry(&of_one), entry(&first)]);

    for manifest in [&first, &of_one, &nested, &index(&[]), &large, &elsewhere, &docker_image] {
        let digest = suite.push_manifest(NAMESPACE, "shape", manifest).await;
        for reference in ["shape", &digest] {
            let got = suite.get(&format!("/v2/{NAMESPACE}/manifests/{reference}")).await;
            assert_eq!(header(&got, "content-type"), manifest["mediaType"]);
            assert_eq!(header(&got, "docker-content-digest"), digest);
            assert_eq!(got.bytes().await.unwrap(), bytes_of(manifest));
        }
    }
    let sparse = index(&[descriptor(MANIFEST, b"not here")]);
    let refused = suite.put_manifest(NAMESPACE, "sparse", &sparse).await;
    assert_eq!(code(refused).await.1, "MANIFEST_BLOB_UNKNOWN");
    let models = suite.fleet.get("/api/v1/models").await;
    assert_eq!(models["total"], 0, "what is no model image is no model");
}

#[tokio::test]
async fn a_manifest_goes_by_its_longer_digest_with_tags_beside_it() {
    let suite = Suite::start();
    let (config, layer) = (config("long"), LAYER);
    for blob in [&config[..], layer] {
        let pushed = suite.put_blob(&suite.begin(NAMESPACE).await, &sha512(blob), blob).await;
        assert_eq!(pushed.status(), StatusCode::CREATED);
    }
    let mut manifest = image(&config, &[layer]);
    manifest["config"]["digest"] = json!(sha512(&config));
    manifest["layers"][0]["digest"] = json!(sha512(layer));
    let digest = sha512(&bytes_of(&manifest));

    let reference = format!("{digest}?tag=long-1&tag=long-2");
    let pushed = suite.put_manifest(NAMESPACE, &reference, &manifest).await;

    assert_eq!(pushed.status(), StatusCode::CREATED);
    assert_eq!(header(&pushed, "docker-content-digest"), digest);
    let set: Vec<_> = pushed.headers().get_all("oci-tag").iter().collect();
    assert_eq!(set, ["long-1", "long-2"]);
    for reference in [&digest, "long-1", "long-2"] {
        let got = suite.get(&format!("/v2/{NAMESPACE}/manifests/{reference}")).await;
        assert_eq!(header(&got, "docker-content-digest"), digest);
        assert_eq!(got.bytes().await.unwrap(), bytes_of(&manifest));
    }
    assert_eq!(tags(suite.get(&format!("/v2/{NAMESPACE}/tags/list")).await).await.len(), 2);
    let deleted = suite.delete(&format!("/v2/{NAMESPACE}/manifests/{digest}")).await;
    assert_eq!(deleted.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn names_have_any_number_of_parts_and_bad_ones_are_refused() {
    let suite = Suite::start();
    for name in ["single", "conformance-0b54", "a/b/c/d", "a.b_c__d---e/f"] {
        let digest = suite.push_blob(name, b"content").await;
        let path = format!("/v2/{name}/blobs/{digest}");
        assert_eq!(suite.head(&path).await.status(), StatusCode::OK, "{name}");
    }
    let bad = refusal(StatusCode::BAD_REQUEST, "NAME_INVALID");
    for name in ["Upper/case", "a..b", "-a", "a/_b"] {
        let refused = suite.get(&format!("/v2/{name}/tags/list")).await;
        assert_eq!(code(refused).await, bad, "{name}");
    }
    let unknown = suite.get("/v2/a/b/something/else").await;
    assert_eq!(code(unknown).await, refusal(StatusCode::NOT_FOUND, "UNSUPPORTED"));
    for (method, path) in [
        (Method::DELETE, "/v2/a/tags/list"),
        (Method::POST, "/v2/a/manifests/1"),
        (Method::GET, "/v2/a/blobs/uploads/"),
        (Method::PATCH, "/v2/a/referrers/sha256:00"),
    ] {
        let refused = suite.send(method, path, Extra::default()).await;
        let unsupported = refusal(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
        assert_eq!(code(refused).await, unsupported, "{path}");
    }
}

#[tokio::test]
async fn who_may_pull_may_not_push_or_delete() {
    let suite = Suite::start();
    let digest = suite.push_blob(NAMESPACE, b"content").await;
    let blob = format!("/v2/{NAMESPACE}/blobs/{digest}");
    let manifest = format!("/v2/{NAMESPACE}/manifests/1");
    let uploads = format!("/v2/{NAMESPACE}/blobs/uploads/");
    let base = suite.fleet.endpoints.operator_url.clone();
    for role in ["viewer", "operator"] {
        let token = suite.fleet.token(role, role);
        let ask = async |method: Method, path: &str| {
            let request = Client::new().request(method, format!("{base}{path}"));
            request.bearer_auth(&token).send().await.unwrap()
        };
        assert_eq!(ask(Method::GET, "/v2/").await.status(), StatusCode::OK);
        assert_eq!(ask(Method::GET, &blob).await.status(), StatusCode::OK);
        let denied = refusal(StatusCode::FORBIDDEN, "DENIED");
        for (method, path) in [
            (Method::POST, &uploads),
            (Method::PUT, &manifest),
            (Method::DELETE, &manifest),
            (Method::DELETE, &blob),
        ] {
            assert_eq!(code(ask(method, path).await).await, denied, "{role} {path}");
        }
    }
}

#[tokio::test]
async fn wrong_secrets_are_throttled_and_missing_ones_are_not() {
    let suite = Suite::start();
    let url = format!("{}/v2/", suite.fleet.endpoints.operator_url);
    for _ in 0..40 {
        let challenged = suite.http.get(&url).send().await.unwrap();
        assert_eq!(code(challenged).await, refusal(StatusCode::UNAUTHORIZED, "UNAUTHORIZED"));
    }
    for _ in 0..30 {
        let wrong = suite.http.get(&url).basic_auth("ann", Some("wrong")).send().await.unwrap();
        assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    }
    let throttled = suite.http.get(&url).basic_auth("ann", Some("wrong")).send().await.unwrap();
    assert_eq!(header(&throttled, "retry-after"), "60");
    let too_many = refusal(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS");
    assert_eq!(code(throttled).await, too_many);
}

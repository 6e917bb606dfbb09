//! Workflow "push".

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{
    Extra, LAYER, MANIFEST, NAMESPACE, OCTETS, OTHER, Suite, TEARDOWNS, bytes_of, code, config,
    header, image, location, sha256,
};
use crate::support::Fleet;

#[tokio::test]
async fn a_blob_is_streamed_into_a_session() {
    let suite = Suite::start();
    let place = suite.begin(NAMESPACE).await;

    let patched = suite.patch(&place, b"streamed bytes", None).await;
    assert_eq!(patched.status(), StatusCode::ACCEPTED);
    let put = suite.put_blob(&location(&patched), &sha256(b"streamed bytes"), b"").await;

    assert_eq!(put.status(), StatusCode::CREATED);
    let blob = suite.get(&location(&put)).await;
    assert_eq!(blob.bytes().await.unwrap(), "streamed bytes");
}

#[tokio::test]
async fn a_blob_is_pushed_in_one_piece() {
    let suite = Suite::start();
    let unknown = format!("/v2/{NAMESPACE}/blobs/{}", sha256(b"hello world"));
    assert_eq!(suite.get(&unknown).await.status(), StatusCode::NOT_FOUND);

    let config = config("push");
    let path = format!("/v2/{NAMESPACE}/blobs/uploads/?digest={}", sha256(&config));
    let posted = suite.send(Method::POST, &path, Extra::of(OCTETS, &config)).await;
    assert_eq!(posted.status(), StatusCode::CREATED);
    assert_eq!(suite.get(&location(&posted)).await.bytes().await.unwrap(), config);

    for blob in [&config[..], LAYER] {
        let digest = suite.push_blob(NAMESPACE, blob).await;
        let got = suite.get(&format!("/v2/{NAMESPACE}/blobs/{digest}")).await;
        assert_eq!(got.status(), StatusCode::OK);
        assert_eq!(got.bytes().await.unwrap(), blob);
    }
}

#[tokio::test]
async fn a_blob_is_pushed_in_chunks_in_their_order() {
    let suite = Suite::start();
    let blob: Vec<u8> = (0..42).collect();
    let (first, second) = blob.split_at(22);
    let ranges = ["0-21".to_owned(), "22-41".to_owned()];

    let out_of_order = suite.begin(NAMESPACE).await;
    let refused = suite.patch(&out_of_order, second, Some(ranges[1].clone())).await;
    assert_eq!(refused.status(), StatusCode::RANGE_NOT_SATISFIABLE);

    let begun = suite.begin(NAMESPACE).await;
    let patched = suite.patch(&begun, first, Some(ranges[0].clone())).await;
    assert_eq!((patched.status(), header(&patched, "range")), (StatusCode::ACCEPTED, "0-21"));
    let again = suite.patch(&begun, first, Some(ranges[0].clone())).await;
    assert_eq!(
        (again.status(), header(&again, "range")),
        (StatusCode::RANGE_NOT_SATISFIABLE, "0-21")
    );
    let status = suite.get(&begun).await;
    assert_eq!((status.status(), header(&status, "range")), (StatusCode::NO_CONTENT, "0-21"));
    let patched = suite.patch(&location(&status), second, Some(ranges[1].clone())).await;
    assert_eq!((patched.status(), header(&patched, "range")), (StatusCode::ACCEPTED, "0-41"));

    let put = suite.put_blob(&location(&patched), &sha256(&blob), b"").await;
    assert_eq!(put.status(), StatusCode::CREATED);
    assert_eq!(suite.get(&location(&put)).await.bytes().await.unwrap(), blob);
    assert_eq!(suite.get(&begun).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_blob_is_mounted_from_another_repository() {
    let suite = Suite::start();
    let blob = suite.push_blob(NAMESPACE, b"mounted").await;
    let uploads = format!("/v2/{OTHER}/blobs/uploads/");

    let unknown = suite.post(&format!("{uploads}?mount={}", sha256(b"hello world"))).await;
    assert_eq!(unknown.status(), StatusCode::ACCEPTED);
    assert!(location(&unknown).starts_with(&uploads));
    let mounted = suite.post(&format!("{uploads}?mount={blob}&from={NAMESPACE}")).await;
    assert_eq!(mounted.status(), StatusCode::CREATED);
    assert_eq!(location(&mounted), format!("/v2/{OTHER}/blobs/{blob}"));
    assert_eq!(suite.get(&location(&mounted)).await.bytes().await.unwrap(), "mounted");
    let missing = suite.post(&format!("{uploads}?mount={blob}&from=no/where")).await;
    assert_eq!(missing.status(), StatusCode::ACCEPTED);
    let anywhere = suite.post(&format!("/v2/myorg/third/blobs/uploads/?mount={blob}")).await;
    assert_eq!(anywhere.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn mounting_from_anywhere_can_be_switched_off() {
    let suite = Suite::on(Fleet::start_with("[registry]\nmount_from_anywhere = false"));
    let blob = suite.push_blob(NAMESPACE, b"mounted").await;
    let uploads = format!("/v2/{OTHER}/blobs/uploads/?mount={blob}");

    let named = suite.post(&format!("{uploads}&from={NAMESPACE}")).await;
    assert_eq!(named.status(), StatusCode::CREATED);
    assert_eq!(suite.post(&uploads).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn manifests_are_pushed_by_tag_with_and_without_layers() {
    let suite = Suite::start();
    for teardown in TEARDOWNS {
        let config = config("push");
        suite.push_blob(NAMESPACE, &config).await;
        suite.push_blob(NAMESPACE, LAYER).await;
        let unknown = format!("/v2/{NAMESPACE}/manifests/.INVALID_MANIFEST_NAME");
        assert_eq!(suite.get(&unknown).await.status(), StatusCode::NOT_FOUND);

        let image_of_layer = image(&config, &[LAYER]);
        let mut digest = String::new();
        for number in 0..4 {
            let tag = format!("test{number}");
            digest = suite.push_manifest(NAMESPACE, &tag, &image_of_layer).await;
        }
        let mut without = image(&config, &[]);
        without.as_object_mut().unwrap().remove("mediaType");
        let empty = suite.push_manifest(NAMESPACE, "emptylayer", &without).await;
        let got = suite.get(&format!("/v2/{NAMESPACE}/manifests/{digest}")).await;
        assert_eq!(got.status(), StatusCode::OK);
        assert_eq!(got.bytes().await.unwrap(), bytes_of(&image_of_layer));

        let blobs = [&sha256(&config)[..], &sha256(LAYER)];
        suite.tear_down(teardown, &[&digest, &empty], &blobs).await;
    }
}

#[tokio::test]
async fn what_is_no_manifest_or_not_complete_is_refused() {
    let suite = Suite::start();
    let config = config("push");
    suite.push_blob(NAMESPACE, &config).await;
    let refused = async |reference: &str, bytes: &[u8]| {
        code(suite.put_bytes(NAMESPACE, reference, MANIFEST, bytes).await).await
    };
    let bad = StatusCode::BAD_REQUEST;

    assert_eq!(refused("a", b"blablabla").await, super::refusal(bad, "MANIFEST_INVALID"));
    let complete = bytes_of(&image(&config, &[]));
    let other = sha256(b"other");
    assert_eq!(refused(&other, &complete).await, super::refusal(bad, "DIGEST_INVALID"));
    assert_eq!(refused("sha256:baddigeststring", &complete).await.1, "DIGEST_INVALID");
    assert_eq!(refused(".hidden", &complete).await.1, "MANIFEST_INVALID");
    let missing = bytes_of(&image(&config, &[b"never pushed"]));
    assert_eq!(
        refused("a", &missing).await,
        super::refusal(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN")
    );
    let mut wrong = image(&config, &[]);
    wrong["config"]["size"] = json!(config.len() + 1);
    assert_eq!(refused("a", &bytes_of(&wrong)).await, super::refusal(bad, "SIZE_INVALID"));
    let large = format!("{}{}", String::from_utf8(complete).unwrap(), " ".repeat(4 << 20));
    let too_large = super::refusal(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID");
    assert_eq!(refused("a", large.as_bytes()).await, too_large);
    assert_eq!(suite.get(&format!("/v2/{NAMESPACE}/manifests/a")).await.status(), 404);
}

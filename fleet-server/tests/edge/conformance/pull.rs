//! Workflow "pull".

use reqwest::{Method, StatusCode};

use super::{
    Extra, LAYER, MANIFEST, NAMESPACE, Suite, TEARDOWNS, bytes_of, code, config, header, image,
    length, sha256,
};

#[tokio::test]
async fn blobs_and_manifests_are_pulled_and_unknown_ones_are_not_found() {
    let suite = Suite::start();
    for teardown in TEARDOWNS {
        let configs = [config("pull 0"), config("pull 1")];
        for blob in [&configs[0][..], &configs[1], LAYER] {
            suite.push_blob(NAMESPACE, blob).await;
        }
        let images = [image(&configs[0], &[LAYER]), image(&configs[1], &[LAYER])];
        let first = suite.push_manifest(NAMESPACE, "tagtest0", &images[0]).await;
        let second = sha256(&bytes_of(&images[1]));
        suite.push_manifest(NAMESPACE, &second, &images[1]).await;

        pull_blobs(&suite, &configs[0]).await;
        for (reference, digest, image) in [
            (first.as_str(), &first, &images[0]),
            (second.as_str(), &second, &images[1]),
            ("tagtest0", &first, &images[0]),
        ] {
            pull_manifest(&suite, reference, digest, &bytes_of(image)).await;
        }
        nonexistent_manifests(&suite).await;

        let blobs = [&sha256(&configs[0])[..], &sha256(&configs[1]), &sha256(LAYER)];
        suite.tear_down(teardown, &[&first, &second], &blobs).await;
    }
}

async fn pull_blobs(suite: &Suite, config: &[u8]) {
    let unknown = format!("/v2/{NAMESPACE}/blobs/{}", sha256(b"hello world"));
    assert_eq!(suite.head(&unknown).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(code(suite.get(&unknown).await).await.1, "BLOB_UNKNOWN");

    let digest = sha256(config);
    let path = format!("/v2/{NAMESPACE}/blobs/{digest}");
    let head = suite.head(&path).await;
    assert_eq!((head.status(), length(&head)), (StatusCode::OK, config.len() as u64));
    assert_eq!(header(&head, "docker-content-digest"), digest);
    let blob = suite.get(&path).await;
    assert_eq!(blob.status(), StatusCode::OK);
    assert_eq!(blob.bytes().await.unwrap(), config);
}

async fn pull_manifest(suite: &Suite, reference: &str, digest: &str, bytes: &[u8]) {
    let path = format!("/v2/{NAMESPACE}/manifests/{reference}");
    let accept = Extra::default().with("accept", MANIFEST);
    let head = suite.send(Method::HEAD, &path, accept.clone()).await;
    assert_eq!((head.status(), length(&head)), (StatusCode::OK, bytes.len() as u64));
    assert_eq!(header(&head, "docker-content-digest"), digest);
    assert_eq!(header(&head, "content-type"), MANIFEST);
    let manifest = suite.send(Method::GET, &path, accept).await;
    assert_eq!(manifest.status(), StatusCode::OK);
    assert_eq!(header(&manifest, "docker-content-digest"), digest);
    assert_eq!(manifest.bytes().await.unwrap(), bytes);
}

async fn nonexistent_manifests(suite: &Suite) {
    let name = format!("/v2/{NAMESPACE}/manifests/.INVALID_MANIFEST_NAME");
    assert_eq!(suite.head(&name).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(code(suite.get(&name).await).await.1, "MANIFEST_UNKNOWN");

    let wrong = format!("/v2/{NAMESPACE}/manifests/sha256:totallywrong");
    let refused = suite.send(Method::GET, &wrong, Extra::of(MANIFEST, b"blablabla")).await;
    assert_eq!(code(refused).await, super::refusal(StatusCode::BAD_REQUEST, "DIGEST_INVALID"));
}

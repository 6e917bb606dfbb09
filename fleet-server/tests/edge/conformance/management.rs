//! Workflow "content management".

use reqwest::StatusCode;

use super::{LAYER, NAMESPACE, Suite, code, config, image, refusal, sha256, tags};

#[tokio::test]
async fn tags_manifests_and_blobs_are_deleted() {
    let suite = Suite::start();
    let config = config("management");
    suite.push_blob(NAMESPACE, &config).await;
    suite.push_blob(NAMESPACE, LAYER).await;
    let digest = suite.push_manifest(NAMESPACE, "tagtest0", &image(&config, &[LAYER])).await;
    let list = format!("/v2/{NAMESPACE}/tags/list");
    assert_eq!(tags(suite.get(&list).await).await, ["tagtest0"]);
    let manifests = format!("/v2/{NAMESPACE}/manifests");

    let tag = format!("{manifests}/tagtest0");
    assert_eq!(suite.delete(&tag).await.status(), StatusCode::ACCEPTED);
    assert_eq!(tags(suite.get(&list).await).await, [""; 0]);
    assert_eq!(suite.get(&tag).await.status(), StatusCode::NOT_FOUND);
    let manifest = format!("{manifests}/{digest}");
    assert_eq!(suite.get(&manifest).await.status(), StatusCode::OK);
    assert_eq!(suite.delete(&manifest).await.status(), StatusCode::ACCEPTED);
    assert_eq!(suite.get(&manifest).await.status(), StatusCode::NOT_FOUND);
    let unknown = refusal(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
    assert_eq!(code(suite.delete(&manifest).await).await, unknown);
    assert_eq!(tags(suite.get(&list).await).await, [""; 0]);

    for blob in [&config[..], LAYER] {
        let path = format!("/v2/{NAMESPACE}/blobs/{}", sha256(blob));
        assert_eq!(suite.delete(&path).await.status(), StatusCode::ACCEPTED);
        assert_eq!(suite.get(&path).await.status(), StatusCode::NOT_FOUND);
        let unknown = refusal(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
        assert_eq!(code(suite.delete(&path).await).await, unknown);
    }
}

#[tokio::test]
async fn a_manifest_goes_with_all_its_tags() {
    let suite = Suite::start();
    let config = config("management");
    suite.push_blob(NAMESPACE, &config).await;
    let mut digest = String::new();
    for tag in ["a", "b"] {
        digest = suite.push_manifest(NAMESPACE, tag, &image(&config, &[])).await;
    }

    let deleted = suite.delete(&format!("/v2/{NAMESPACE}/manifests/{digest}")).await;

    assert_eq!(deleted.status(), StatusCode::ACCEPTED);
    assert_eq!(tags(suite.get(&format!("/v2/{NAMESPACE}/tags/list")).await).await, [""; 0]);
    let again = suite.push_manifest(NAMESPACE, "a", &image(&config, &[])).await;
    assert_eq!(again, digest);
}

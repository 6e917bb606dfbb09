//! Workflow "content discovery".

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    INDEX, LAYER, MANIFEST, NAMESPACE, Suite, TEARDOWNS, bytes_of, code, config, descriptor,
    header, image, refusal, sha256, tags,
};

const BAGEL: &str = "application/vnd.bagel";
const CROISSANT: &str = "application/vnd.croissant";
const NOTE: &str = "org.opencontainers.conformance.test";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

#[tokio::test]
async fn tags_are_listed_in_order_and_in_pages() {
    let suite = Suite::start();
    let list = format!("/v2/{NAMESPACE}/tags/list");
    let unknown = refusal(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    assert_eq!(code(suite.get(&list).await).await, unknown);
    let config = config("discovery");
    suite.push_blob(NAMESPACE, &config).await;
    assert_eq!(tags(suite.get(&list).await).await, [""; 0]);
    for tag in ["test2", "test0", "Test9", "test3", "test1", "test10"] {
        suite.push_manifest(NAMESPACE, tag, &image(&config, &[])).await;
    }

    let all = ["Test9", "test0", "test1", "test10", "test2", "test3"];
    let answer: Value = suite.get(&list).await.json().await.unwrap();
    assert_eq!(answer, json!({ "name": NAMESPACE, "tags": all }));
    assert_eq!(tags(suite.get(&format!("{list}?n=0")).await).await, [""; 0]);
    assert_eq!(tags(suite.get(&format!("{list}?n=3")).await).await, all[..3]);
    assert_eq!(tags(suite.get(&format!("{list}?n=3&last=test1")).await).await, all[3..]);
    assert_eq!(tags(suite.get(&format!("{list}?last=test1")).await).await, all[3..]);
    assert_eq!(suite.get(&format!("{list}?n=many")).await.status(), StatusCode::BAD_REQUEST);
    follow_links(&suite, &list, &all).await;
}

async fn follow_links(suite: &Suite, list: &str, all: &[&str]) {
    let (mut next, mut found) = (Some(format!("{list}?n=2")), Vec::new());
    while let Some(path) = next {
        let page = suite.get(&path).await;
        let link = header(&page, "link");
        next = link.strip_prefix('<').map(|link| link.split('>').next().unwrap().to_owned());
        assert!(next.is_none() || link.ends_with(">; rel=\"next\""), "{link}");
        found.extend(tags(page).await);
    }
    assert_eq!(found, all);
}

/// What refers to `subject`: two of each kind, and an index.
struct Referrers {
    bagels: [Value; 2],
    croissants: [Value; 2],
    index: Value,
}

fn artifact(subject: &Value, kind: &str, content: &[u8], as_config: bool) -> Value {
    let empty = descriptor(EMPTY, b"{}");
    let content = descriptor(kind, content);
    let (config, layer) = if as_config { (content, empty) } else { (empty, content) };
    let mut artifact = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer],
        "subject": subject,
        "annotations": { NOTE: format!("{kind} as config: {as_config}") },
    });
    if !as_config {
        artifact["artifactType"] = json!(kind);
    }
    artifact
}

impl Referrers {
    fn of(subject: &Value) -> Self {
        let two = |kind, content: &[u8]| {
            [artifact(subject, kind, content, true), artifact(subject, kind, content, false)]
        };
        let bagels = two(BAGEL, b"a bagel");
        let listed: Vec<_> =
            bagels.iter().map(|bagel| descriptor(MANIFEST, &bytes_of(bagel))).collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "artifactType": "application/vnd.food.stand",
            "manifests": listed,
            "subject": subject,
            "annotations": { NOTE: "index" },
        });
        Self { bagels, croissants: two(CROISSANT, b"a croissant"), index }
    }

    fn all(&self) -> Vec<&Value> {
        self.bagels.iter().chain(&self.croissants).chain([&self.index]).collect()
    }

    fn digests(&self) -> Vec<String> {
        self.all().into_iter().map(|manifest| sha256(&bytes_of(manifest))).collect()
    }
}

async fn push_referrer(suite: &Suite, manifest: &Value) {
    let digest = sha256(&bytes_of(manifest));
    let pushed = suite.put_manifest(NAMESPACE, &digest, manifest).await;
    assert_eq!(pushed.status(), StatusCode::CREATED);
    assert_eq!(header(&pushed, "oci-subject"), manifest["subject"]["digest"]);
}

async fn listed(response: Response) -> Vec<Value> {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-type"), INDEX);
    let index: Value = response.json().await.unwrap();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(INDEX)));
    index["manifests"].as_array().unwrap().clone()
}

#[tokio::test]
async fn referrers_are_listed_before_and_after_their_subject_comes() {
    let suite = Suite::start();
    let referrers = format!("/v2/{NAMESPACE}/referrers");
    for teardown in TEARDOWNS {
        let config = config("referred to");
        let subject = image(&config, &[LAYER]);
        let about = descriptor(MANIFEST, &bytes_of(&subject));
        let foods = Referrers::of(&about);
        for blob in [&b"{}"[..], b"a bagel", b"a croissant", &config, LAYER] {
            suite.push_blob(NAMESPACE, blob).await;
        }
        for manifest in foods.bagels.iter().chain([&foods.index]) {
            push_referrer(&suite, manifest).await;
        }
        let subject = suite.push_manifest(NAMESPACE, "tagtest0", &subject).await;
        for manifest in &foods.croissants {
            push_referrer(&suite, manifest).await;
        }

        let nobody = suite.get(&format!("{referrers}/{}", sha256(b"hello world"))).await;
        assert_eq!(listed(nobody).await, [Value::Null; 0]);
        check_all(&suite, &format!("{referrers}/{subject}"), &foods).await;
        check_filtered(&suite, &format!("{referrers}/{subject}"), &foods).await;

        let mut manifests = foods.digests();
        manifests.push(subject);
        let manifests: Vec<_> = manifests.iter().map(String::as_str).collect();
        let blobs = [&config[..], LAYER, b"a bagel", b"a croissant", b"{}"].map(sha256);
        let blobs: Vec<_> = blobs.iter().map(String::as_str).collect();
        suite.tear_down(teardown, &manifests, &blobs).await;
        let gone = suite.get(&format!("{referrers}/{}", manifests[0])).await;
        assert_eq!(listed(gone).await, [Value::Null; 0]);
    }
}

async fn check_all(suite: &Suite, path: &str, foods: &Referrers) {
    let response = suite.get(path).await;
    assert_eq!(header(&response, "oci-filters-applied"), "");
    let entries = listed(response).await;
    assert_eq!(entries.len(), 5);
    for manifest in foods.all() {
        let bytes = bytes_of(manifest);
        let digest = sha256(&bytes);
        let entry = entries.iter().find(|entry| entry["digest"] == digest).unwrap();
        assert_eq!(entry["size"], bytes.len());
        assert_eq!(entry["mediaType"], manifest["mediaType"]);
        assert_eq!(entry["annotations"], manifest["annotations"]);
        let kind = manifest.get("artifactType").unwrap_or(&manifest["config"]["mediaType"]);
        assert_eq!(entry["artifactType"], *kind);
    }
}

async fn check_filtered(suite: &Suite, path: &str, foods: &Referrers) {
    let response = suite.get(&format!("{path}?artifactType={BAGEL}")).await;
    assert_eq!(header(&response, "oci-filters-applied"), "artifactType");
    let entries = listed(response).await;
    let mut expected = foods.bagels.each_ref().map(|bagel| sha256(&bytes_of(bagel)));
    expected.sort();
    let found: Vec<_> = entries.iter().map(|entry| entry["digest"].as_str().unwrap()).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_referrer_to_what_was_never_pushed_is_listed() {
    let suite = Suite::start();
    let missing = descriptor(MANIFEST, b"never pushed");
    let mut orphan = artifact(&missing, CROISSANT, b"a croissant", false);
    orphan.as_object_mut().unwrap().remove("annotations");
    suite.push_blob(NAMESPACE, b"{}").await;
    suite.push_blob(NAMESPACE, b"a croissant").await;

    push_referrer(&suite, &orphan).await;

    let path = format!("/v2/{NAMESPACE}/referrers/{}", sha256(b"never pushed"));
    let entries = listed(suite.get(&path).await).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["digest"], sha256(&bytes_of(&orphan)));
    assert!(entries[0].get("annotations").is_none());
    let bad = suite.get(&format!("/v2/{NAMESPACE}/referrers/sha256:bad")).await;
    assert_eq!(code(bad).await, refusal(StatusCode::BAD_REQUEST, "DIGEST_INVALID"));
}

#[tokio::test]
async fn clients_that_keep_referrers_under_a_tag_find_them_both_ways() {
    let suite = Suite::start();
    let missing = descriptor(MANIFEST, b"about");
    let orphan = artifact(&missing, CROISSANT, b"a croissant", false);
    suite.push_blob(NAMESPACE, b"{}").await;
    suite.push_blob(NAMESPACE, b"a croissant").await;
    push_referrer(&suite, &orphan).await;
    let entry = descriptor(MANIFEST, &bytes_of(&orphan));
    let fallback = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
    let subject = sha256(b"about");
    let tag = subject.replace(':', "-");

    suite.push_manifest(NAMESPACE, &tag, &fallback).await;

    let by_tag: Value =
        suite.get(&format!("/v2/{NAMESPACE}/manifests/{tag}")).await.json().await.unwrap();
    let by_api = listed(suite.get(&format!("/v2/{NAMESPACE}/referrers/{subject}")).await).await;
    assert_eq!(by_tag["manifests"][0]["digest"], by_api[0]["digest"]);
    assert_eq!(by_api.len(), 1);
}

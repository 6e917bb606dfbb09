//! Every case of the conformance suite of the OCI distribution specification 1.1, told in our own words against the real server.
//!
//! Like the suite's client, this one asks without a secret first and answers the challenge, for each request anew.

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION};
use reqwest::{Client, Method, Response, StatusCode};
use sealift_protocol::digest::Digest;
use serde_json::{Value, json};

use crate::support::Fleet;

mod beyond;
mod discovery;
mod management;
mod pull;
mod push;
mod resume;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCTETS: &str = "application/octet-stream";
const NAMESPACE: &str = "myorg/myrepo";
const OTHER: &str = "myorg/other";

/// In which order the suite removes what it has pushed (`OCI_DELETE_MANIFEST_BEFORE_BLOBS`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Teardown {
    ManifestsFirst,
    BlobsFirst,
}

const TEARDOWNS: [Teardown; 2] = [Teardown::ManifestsFirst, Teardown::BlobsFirst];

/// A server and the suite's client of it.
struct Suite {
    fleet: Fleet,
    token: String,
    http: Client,
}

/// What a request has besides method and path.
#[derive(Default, Clone)]
struct Extra<'a> {
    headers: Vec<(&'a str, String)>,
    body: Vec<u8>,
}

impl<'a> Extra<'a> {
    fn of(media_type: &str, body: &[u8]) -> Self {
        let headers = vec![(CONTENT_TYPE.as_str(), media_type.to_owned())];
        Self { headers, body: body.to_vec() }
    }

    fn with(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Suite {
    fn start() -> Self {
        Self::on(Fleet::start())
    }

    fn on(fleet: Fleet) -> Self {
        let token = fleet.token("ann", "publisher");
        Self { fleet, token, http: Client::new() }
    }

    /// Asks without a secret, then with it.
    async fn send(&self, method: Method, path: &str, extra: Extra<'_>) -> Response {
        let url = format!("{}{path}", self.fleet.endpoints.operator_url);
        let request = || {
            let mut request = self.http.request(method.clone(), &url).body(extra.body.clone());
            for (name, value) in &extra.headers {
                request = request.header(*name, value);
            }
            request
        };
        let challenged = request().send().await.unwrap();
        assert_eq!(challenged.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        let challenge = challenged.headers()["www-authenticate"].to_str().unwrap();
        assert!(challenge.starts_with("Basic realm="), "{challenge}");
        request().basic_auth("ann", Some(&self.token)).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, Extra::default()).await
    }

    async fn head(&self, path: &str) -> Response {
        self.send(Method::HEAD, path, Extra::default()).await
    }

    async fn delete(&self, path: &str) -> Response {
        self.send(Method::DELETE, path, Extra::default()).await
    }

    async fn post(&self, path: &str) -> Response {
        self.send(Method::POST, path, Extra::default()).await
    }

    /// Begins an upload; the answer is its place.
    async fn begin(&self, name: &str) -> String {
        let begun = self.post(&format!("/v2/{name}/blobs/uploads/")).await;
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        location(&begun)
    }

    async fn patch(&self, place: &str, chunk: &[u8], range: Option<String>) -> Response {
        let mut extra = Extra::of(OCTETS, chunk);
        if let Some(range) = range {
            extra = extra.with(CONTENT_RANGE.as_str(), range);
        }
        self.send(Method::PATCH, place, extra).await
    }

    async fn put_blob(&self, place: &str, digest: &str, bytes: &[u8]) -> Response {
        let place = format!("{place}?digest={digest}");
        self.send(Method::PUT, &place, Extra::of(OCTETS, bytes)).await
    }

    /// Pushes a blob by POST and PUT.
    async fn push_blob(&self, name: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let place = self.begin(name).await;
        let pushed = self.put_blob(&place, &digest, bytes).await;
        assert_eq!(pushed.status(), StatusCode::CREATED);
        assert_eq!(location(&pushed), format!("/v2/{name}/blobs/{digest}"));
        digest
    }

    async fn put_manifest(&self, name: &str, reference: &str, content: &Value) -> Response {
        let media_type = content["mediaType"].as_str().unwrap_or(MANIFEST);
        self.put_bytes(name, reference, media_type, &bytes_of(content)).await
    }

    async fn put_bytes(
        &self,
        name: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Response {
        let path = format!("/v2/{name}/manifests/{reference}");
        self.send(Method::PUT, &path, Extra::of(media_type, bytes)).await
    }

    /// Pushes a manifest that must be taken; the answer is its digest.
    async fn push_manifest(&self, name: &str, reference: &str, content: &Value) -> String {
        let pushed = self.put_manifest(name, reference, content).await;
        let digest = sha256(&bytes_of(content));
        assert_eq!(pushed.status(), StatusCode::CREATED, "{}", pushed.text().await.unwrap());
        assert_eq!(location(&pushed), format!("/v2/{name}/manifests/{digest}"));
        digest
    }

    /// Removes what a workflow has pushed, in the order asked for.
    async fn tear_down(&self, order: Teardown, manifests: &[&str], blobs: &[&str]) {
        let manifests = manifests.iter().map(|digest| format!("manifests/{digest}"));
        let blobs = blobs.iter().map(|digest| format!("blobs/{digest}"));
        let paths: Vec<_> = match order {
            Teardown::ManifestsFirst => manifests.chain(blobs).collect(),
            Teardown::BlobsFirst => blobs.chain(manifests).collect(),
        };
        for path in paths {
            let path = format!("/v2/{NAMESPACE}/{path}");
            assert_eq!(self.delete(&path).await.status(), StatusCode::ACCEPTED, "{path}");
            assert_eq!(self.get(&path).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}

fn location(response: &Response) -> String {
    response.headers()[LOCATION].to_str().unwrap().to_owned()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

fn length(response: &Response) -> u64 {
    header(response, CONTENT_LENGTH.as_str()).parse().unwrap()
}

async fn code(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    (status, body["errors"][0]["code"].as_str().unwrap().to_owned())
}

fn refusal(status: StatusCode, code: &str) -> (StatusCode, String) {
    (status, code.to_owned())
}

fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// The bytes that are pushed and hashed.
fn bytes_of(content: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(content).unwrap()
}

/// A configuration that no other has the digest of.
fn config(author: &str) -> Vec<u8> {
    bytes_of(&json!({
        "architecture": "amd64",
        "os": "linux",
        "author": author,
        "rootfs": { "type": "layers", "diff_ids": [] },
    }))
}

/// Stands for a layer; the registry never unpacks one.
const LAYER: &[u8] = b"\x1f\x8b a compressed archive, for all the registry knows";

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() })
}

/// An image; its configuration's descriptor carries the content itself and a field that nobody knows.
fn image(config: &[u8], layers: &[&[u8]]) -> Value {
    let mut described = descriptor("application/vnd.oci.image.config.v1+json", config);
    described["data"] = json!("eyJub3QiOiAicmVhZCJ9");
    described["newUnspecifiedField"] = json!("aGVsbG8gd29ybGQ=");
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let layers: Vec<_> = layers.iter().map(|layer| descriptor(kind, layer)).collect();
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers })
}

/// The tags in an answer.
async fn tags(response: Response) -> Vec<String> {
    assert_eq!(response.status(), StatusCode::OK);
    let body: Value = response.json().await.unwrap();
    body["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

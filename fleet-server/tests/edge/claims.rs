//! Devices of a batch: who is let in, who waits, and who tries what a claim does not allow.

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use reqwest::{Method, Response};
use sealift_protocol::api::{ClaimAnswer, ClaimRequest, EnrolResponse};
use serde_json::{Value, json};

use crate::mqtt::{Link, options};
use crate::support::{Device, Fleet, client_config, code, device_id, https, request};

/// What a batch carries.
struct Batch {
    id: String,
    certificate_pem: String,
    key_pem: String,
}

fn plain_request(key: &KeyPair) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(key).unwrap().pem().unwrap()
}

impl Fleet {
    async fn order(&self, path: &str, body: Value) -> Response {
        self.api(Method::POST, path).json(&body).send().await.unwrap()
    }

    async fn batch(&self, name: &str, places: u32) -> Batch {
        let key = KeyPair::generate().unwrap();
        let csr = plain_request(&key);
        let new = json!({ "batch": name, "places": places, "csr_pem": csr,
            "labels": { "batch": name } });
        let created = self.order("/api/v1/enrol-claims", new).await;
        assert_eq!(created.status(), 201);
        let created: Value = created.json().await.unwrap();
        let text = |name: &str| created[name].as_str().unwrap().to_owned();
        let (id, certificate_pem) = (text("id"), text("certificate_pem"));
        Batch { id, certificate_pem, key_pem: key.serialize_pem() }
    }

    async fn ask(&self, batch: &Batch, who: Who<'_>) -> Response {
        let client = https(&self.ca(), Some((&batch.certificate_pem, &batch.key_pem)));
        let url = format!("{}/claim", self.endpoints.device_url);
        let request = ClaimRequest {
            device: who.device.map(device_id),
            serial: who.serial.map(str::to_owned),
            csr_pem: plain_request(who.key),
        };
        client.post(url).json(&request).send().await.unwrap()
    }

    async fn pending(&self) -> Vec<Value> {
        let page = self.get("/api/v1/enrol-requests").await;
        page["items"].as_array().unwrap().clone()
    }

    async fn add_serials(&self, body: Value) -> Response {
        self.order("/api/v1/enrol-serials", body).await
    }
}

#[derive(Clone, Copy)]
struct Who<'a> {
    device: Option<&'a str>,
    serial: Option<&'a str>,
    key: &'a KeyPair,
}

fn who<'a>(device: &'a str, key: &'a KeyPair) -> Who<'a> {
    Who { device: Some(device), serial: None, key }
}

async fn enrolled(response: Response) -> EnrolResponse {
    assert_eq!(response.status(), 200);
    match response.json().await.unwrap() {
        ClaimAnswer::Enrolled(answer) => *answer,
        waiting @ ClaimAnswer::Waiting { .. } => panic!("{waiting:?}"),
    }
}

async fn waiting(response: Response) -> String {
    assert_eq!(response.status(), 200);
    match response.json().await.unwrap() {
        ClaimAnswer::Waiting { id } => id,
        ClaimAnswer::Enrolled(answer) => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn a_device_waits_until_somebody_approves_it() {
    let fleet = Fleet::start();
    let batch = fleet.batch("spring", 2).await;
    let key = KeyPair::generate().unwrap();

    let id = waiting(fleet.ask(&batch, who("cam-1", &key)).await).await;
    assert_eq!(waiting(fleet.ask(&batch, who("cam-1", &key)).await).await, id);
    let pending = fleet.pending().await;
    assert_eq!(pending.len(), 1);
    assert_eq!((&pending[0]["id"], &pending[0]["batch"]), (&json!(id), &json!("spring")));
    assert_eq!(fleet.get("/api/v1/devices").await["total"], 0);

    let approve = fleet.order(&format!("/api/v1/enrol-requests/{id}/approve"), Value::Null).await;
    assert_eq!(approve.status(), 204);
    let answer = enrolled(fleet.ask(&batch, who("cam-1", &key)).await).await;

    let device = Device { id: device_id("cam-1"), key_pem: key.serialize_pem(), answer };
    drop(Link::of(&fleet, &device).await);
    assert_eq!(device.answer.labels["batch"], "spring");
    assert!(fleet.pending().await.is_empty());
    // An answer that was lost is given again, and takes no other place.
    let again = enrolled(fleet.ask(&batch, who("cam-1", &key)).await).await;
    assert_eq!(again.certificate_pem, device.answer.certificate_pem);
    let claims = fleet.get("/api/v1/enrol-claims").await;
    assert_eq!(claims["items"][0]["places_left"], 1);
}

#[tokio::test]
async fn a_denied_device_is_told_why_and_may_be_approved_later() {
    let fleet = Fleet::start();
    let batch = fleet.batch("spring", 2).await;
    let key = KeyPair::generate().unwrap();
    let id = waiting(fleet.ask(&batch, who("cam-1", &key)).await).await;
    let path = format!("/api/v1/enrol-requests/{id}");
    assert_eq!(fleet.order(&format!("{path}/deny"), json!({ "reason": "" })).await.status(), 400);

    fleet.order(&format!("{path}/deny"), json!({ "reason": "not ours" })).await;
    let refused = fleet.ask(&batch, who("cam-1", &key)).await;

    assert_eq!(refused.status(), 403);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "enrol.denied");
    assert!(problem["detail"].as_str().unwrap().contains("not ours"), "{problem}");
    fleet.order(&format!("{path}/approve"), Value::Null).await;
    enrolled(fleet.ask(&batch, who("cam-1", &key)).await).await;
    assert_eq!(fleet.order(&format!("{path}/deny"), json!({ "reason": "x" })).await.status(), 404);
}

#[tokio::test]
async fn a_listed_serial_number_needs_no_approval_and_lets_in_once() {
    let fleet = Fleet::start();
    let batch = fleet.batch("spring", 5).await;
    let listed = json!({ "batch": "spring", "serials": [
        { "serial": "SN-1", "labels": { "line": "a" } },
        { "serial": "SN-2", "device": "press-2" },
    ] });
    assert_eq!(fleet.add_serials(listed.clone()).await.status(), 200);
    let twice = fleet.add_serials(listed).await;
    assert_eq!((twice.status().as_u16(), code(twice).await.as_str()), (409, "enrol.serial-known"));
    let keys = [(); 4].map(|()| KeyPair::generate().unwrap());
    let by = |serial, key| Who { device: None, serial: Some(serial), key };

    let first = enrolled(fleet.ask(&batch, by("SN-1", &keys[0])).await).await;
    assert_eq!((first.device.as_str(), first.labels["line"].as_str()), ("sn-1", "a"));
    assert_eq!(first.labels["batch"], "spring");
    let second = enrolled(fleet.ask(&batch, by("SN-2", &keys[1])).await).await;
    assert_eq!(second.device.as_str(), "press-2");

    let device = Some("cam-9");
    let again = fleet.ask(&batch, Who { device, serial: Some("SN-1"), key: &keys[2] }).await;
    assert_eq!(code(again).await, "enrol.serial-used");
    let bound = fleet.ask(&batch, Who { device, serial: Some("SN-2"), key: &keys[3] }).await;
    assert_eq!(code(bound).await, "enrol.serial-bound");
    let other = fleet.batch("autumn", 5).await;
    let foreign = fleet.ask(&other, by("SN-1", &keys[3])).await;
    assert_eq!(code(foreign).await, "enrol.serial-bound");
}

#[tokio::test]
async fn attack_one_serial_number_by_many_devices_at_the_same_moment() {
    let fleet = Fleet::start();
    let batch = fleet.batch("spring", 20).await;
    fleet.add_serials(json!({ "serials": [{ "serial": "SN-1" }] })).await;
    let keys = [(); 8].map(|()| KeyPair::generate().unwrap());
    let names: Vec<_> = (0..8).map(|number| format!("cam-{number}")).collect();
    let tries = keys.iter().zip(&names).map(|(key, name)| {
        fleet.ask(&batch, Who { device: Some(name), serial: Some("SN-1"), key })
    });

    let answers = futures_util::future::join_all(tries).await;

    let let_in = answers.iter().filter(|answer| answer.status() == 200).count();
    assert_eq!(let_in, 1);
    assert_eq!(fleet.get("/api/v1/devices").await["total"], 1);
}

#[tokio::test]
async fn attack_more_devices_than_the_claim_has_places() {
    let fleet = Fleet::start();
    let batch = fleet.batch("spring", 1).await;
    let keys = [(); 2].map(|()| KeyPair::generate().unwrap());
    for (key, name) in keys.iter().zip(["cam-1", "cam-2"]) {
        let id = waiting(fleet.ask(&batch, who(name, key)).await).await;
        fleet.order(&format!("/api/v1/enrol-requests/{id}/approve"), Value::Null).await;
    }

    enrolled(fleet.ask(&batch, who("cam-1", &keys[0])).await).await;
    let refused = fleet.ask(&batch, who("cam-2", &keys[1])).await;

    assert_eq!(code(refused).await, "enrol.claim-full");
    assert_eq!(fleet.get("/api/v1/devices").await["total"], 1);
}

#[tokio::test]
async fn attack_a_claim_that_is_revoked_or_takes_an_id_that_is_taken() {
    let fleet = Fleet::start();
    let batch = fleet.batch("spring", 5).await;
    fleet.enrol("cam-1").await;
    let key = KeyPair::generate().unwrap();
    let taken = fleet.ask(&batch, who("cam-1", &key)).await;
    assert_eq!(code(taken).await, "enrol.device-taken");
    let id = waiting(fleet.ask(&batch, who("cam-2", &key)).await).await;
    fleet.order(&format!("/api/v1/enrol-requests/{id}/approve"), Value::Null).await;

    let path = format!("/api/v1/enrol-claims/{}", batch.id);
    assert_eq!(fleet.api(Method::DELETE, &path).send().await.unwrap().status(), 204);

    assert!(fleet.pending().await.is_empty());
    // Not even one that was approved before.
    let refused = fleet.ask(&batch, who("cam-2", &key)).await;
    assert_eq!(code(refused).await, "enrol.claim-revoked");
    let audit = fleet.get("/api/v1/audit").await.to_string();
    assert!(audit.contains("enrol.claim-revoked") && audit.contains("enrol-claim.revoke"));
}

#[tokio::test]
async fn attack_to_do_with_a_claim_what_devices_do() {
    let fleet = Fleet::start();
    let batch = fleet.batch("spring", 5).await;
    let device = fleet.enrol("cam-1").await;
    let identity = Some((batch.certificate_pem.as_str(), batch.key_pem.as_str()));
    let client = https(&fleet.ca(), identity);
    for path in ["/directive", "/tuf/timestamp.json", "/v2/vision/digits/blobs/sha256:00"] {
        let url = format!("{}{path}", fleet.endpoints.device_url);
        assert_eq!(client.get(url).send().await.unwrap().status(), 401, "{path}");
    }
    let renew = client.post(format!("{}/renew", fleet.endpoints.device_url));
    let renew = renew.json(&json!({ "csr_pem": request().1 })).send().await.unwrap();
    assert_eq!(renew.status(), 401);
    let name = format!("claim {} of main", batch.id);
    for name in ["main:cam-1", name.as_str()] {
        let tls = client_config(&fleet.ca(), identity);
        assert!(Link::open(options(&fleet, name, tls)).connected().await.is_err(), "{name}");
    }
    // Nor is a device a claim.
    let certificate_pem = device.answer.certificate_pem.clone();
    let as_claim = Batch { id: String::new(), certificate_pem, key_pem: device.key_pem };
    let refused = fleet.ask(&as_claim, who("cam-2", &KeyPair::generate().unwrap())).await;
    assert_eq!((refused.status().as_u16(), code(refused).await.as_str()), (401, "enrol.no-claim"));
}

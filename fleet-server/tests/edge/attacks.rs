//! Tokens, requests and certificates that must not let anybody in.

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};
use sealift_protocol::api::EnrolTokenNew;

use crate::support::{Fleet, code, device_id, https, request, run, terms, text};

#[tokio::test]
async fn a_token_used_twice_is_refused() {
    let fleet = Fleet::start();
    let token = fleet.enrol_token(terms()).await.token;
    fleet.enrol_by(&token, "cam-1").await;

    let second = fleet.post_enrol(&token, "cam-2", request().1).await;

    assert_eq!(second.status(), 403);
    assert_eq!(code(second).await, "enrol.token-used");
}

#[tokio::test]
async fn attack_a_token_used_many_times_at_the_same_moment() {
    let fleet = Fleet::start();
    let token = fleet.enrol_token(terms()).await.token;

    let names: Vec<_> = (1..=12).map(|number| format!("cam-{number}")).collect();
    let tries = names.iter().map(|name| fleet.post_enrol(&token, name, request().1));
    let answers = futures_util::future::join_all(tries).await;

    let statuses: Vec<_> = answers.iter().map(|answer| answer.status().as_u16()).collect();
    assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|&&status| status == 403).count(), 11, "{statuses:?}");
    assert_eq!(fleet.get("/api/v1/devices").await["total"], 1);
}

#[tokio::test]
async fn attack_one_id_by_many_tokens_at_the_same_moment() {
    let fleet = Fleet::start();
    let uses = EnrolTokenNew { uses: Some(12), ..terms() };
    let token = fleet.enrol_token(uses).await.token;

    let tries = (0..12).map(|_| fleet.post_enrol(&token, "cam-1", request().1));
    let answers = futures_util::future::join_all(tries).await;

    let let_in = answers.iter().filter(|answer| answer.status() == 200).count();
    assert_eq!(let_in, 1);
    let tokens = fleet.get("/api/v1/enrol-tokens").await;
    assert_eq!(tokens["items"][0]["uses_left"], 11, "refused tries use nothing up");
}

#[tokio::test]
async fn attack_a_request_for_more_than_a_key() {
    let fleet = Fleet::start();
    let token = fleet.enrol_token(terms()).await.token;
    let with = |edit: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        edit(&mut params);
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    };
    let foreign = with(&|it| it.distinguished_name.push(DnType::CommonName, "main:cam-2"));
    let authority = with(&|it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let weak = include_str!("rsa-1024.csr.pem").to_owned();
    for (csr, expected) in [(foreign, "csr.name"), (authority, "csr.extensions"), (weak, "csr.key")]
    {
        let refused = fleet.post_enrol(&token, "cam-1", csr).await;
        assert_eq!((refused.status().as_u16(), code(refused).await.as_str()), (400, expected));
    }

    let audit = fleet.get("/api/v1/audit").await.to_string();
    for expected in ["csr.name", "csr.extensions", "csr.key"] {
        assert!(audit.contains(expected), "{audit}");
    }
    fleet.enrol_by(&token, "cam-1").await;
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let fleet = Fleet::start();
    let token = fleet.enrol_token(EnrolTokenNew { expires_in_s: Some(1), ..terms() }).await;

    while jiff::Timestamp::now().as_millisecond() <= token.expires_at.0 {
        tokio::task::yield_now().await;
    }

    let refused = fleet.post_enrol(&token.token, "cam-1", request().1).await;

    assert_eq!(refused.status(), 403);
    assert_eq!(code(refused).await, "enrol.token-expired");
}

#[tokio::test]
async fn guessed_tokens_are_refused_and_slowed_down() {
    let fleet = Fleet::start();
    let guess = format!("sle1.{}.a.b", "A".repeat(22));

    let first = fleet.post_enrol(&guess, "cam-1", request().1).await;
    assert_eq!((first.status().as_u16(), code(first).await.as_str()), (403, "enrol.token-unknown"));
    for _ in 1..20 {
        fleet.post_enrol(&guess, "cam-1", request().1).await;
    }

    let slowed = fleet.post_enrol(&guess, "cam-1", request().1).await;
    assert_eq!((slowed.status().as_u16(), code(slowed).await.as_str()), (429, "enrol.too-many"));
}

#[tokio::test]
async fn an_enrolled_id_is_replaced_only_by_a_token_bound_to_it() {
    let fleet = Fleet::start();
    let before = fleet.enrol("cam-1").await;
    let free = fleet.enrol_token(terms()).await.token;

    let refused = fleet.post_enrol(&free, "cam-1", request().1).await;
    assert_eq!(code(refused).await, "enrol.device-taken");
    let bound = EnrolTokenNew { device: Some(device_id("cam-1")), ..terms() };
    let bound = fleet.enrol_token(bound).await.token;
    let after = fleet.enrol_by(&bound, "cam-1").await;

    let url = format!("{}/directive", fleet.endpoints.device_url);
    assert_eq!(before.https().get(&url).send().await.unwrap().status(), 403);
    assert_eq!(after.https().get(&url).send().await.unwrap().status(), 204);
}

#[tokio::test]
async fn the_devices_port_is_closed_without_a_device_certificate() {
    let fleet = Fleet::start();
    let anonymous = https(&fleet.ca(), None);
    for path in ["/directive", "/tuf/timestamp.json", "/v2/vision/digits/blobs/sha256:00"] {
        let answer = anonymous.get(format!("{}{path}", fleet.endpoints.device_url)).send().await;
        assert_eq!(answer.unwrap().status(), 401, "{path}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_in_the_handshake() {
    let (fleet, other) = (Fleet::start(), Fleet::start());
    let foreign = other.enrol("cam-1").await;
    let identity = (foreign.answer.certificate_pem.as_str(), foreign.key_pem.as_str());
    let url = format!("{}/directive", fleet.endpoints.device_url);
    assert!(https(&fleet.ca(), Some(identity)).get(url).send().await.is_err());
}

#[tokio::test]
async fn the_operators_port_speaks_tls_where_it_is_configured() {
    let mut fleet = Fleet::start();
    fleet.restart_edited(|config| {
        let tls = "tls_certificate = \"keys/server.pem\"\ntls_key = \"keys/server-key.pem\"";
        config.replace("[operators]", &format!("[operators]\n{tls}"))
    });
    let url = format!("{}/healthz", fleet.endpoints.operator_url);
    assert!(url.starts_with("https://"), "{url}");

    let healthy = https(&fleet.ca(), None).get(&url).send().await.unwrap();

    assert_eq!(healthy.status(), 200);
    assert!(reqwest::get(url.replace("https", "http")).await.is_err());
}

#[test]
fn plain_http_beyond_loopback_is_refused_with_help() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet-server.toml");
    std::fs::write(&file, "data = \".\"\n[operators]\nlisten = \"0.0.0.0:0\"\n").unwrap();
    let refused = run(&["run", "--config", text(&file)]).unwrap_err();
    assert!(refused.contains("no TLS") && refused.contains("help:"), "{refused}");
}

#[test]
fn a_second_ceremony_and_a_run_without_one_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, offline) = (folder.path().join("data"), folder.path().join("offline"));
    let init = ["init", "--data", text(&data), "--offline", text(&offline)];
    let before = run(&["run", "--data", text(&data)]).unwrap_err();
    assert!(before.contains("help: `fleet-server init"), "{before}");
    assert!(!data.exists());
    run(&init).unwrap();
    let key = std::fs::read(offline.join("root-1.pem")).unwrap();

    let again = run(&init).unwrap_err();

    assert!(again.contains("help:"), "{again}");
    assert_eq!(std::fs::read(offline.join("root-1.pem")).unwrap(), key);
}

#[tokio::test]
async fn the_operators_port_wants_a_token() {
    let fleet = Fleet::start();
    for path in ["/api/v1/models", "/api/v1/enrol-tokens", "/v2/"] {
        let url = format!("{}{path}", fleet.endpoints.operator_url);
        let client = reqwest::Client::new();
        assert_eq!(client.get(&url).send().await.unwrap().status(), 401, "{path}");
        let wrong = client.get(&url).bearer_auth("sat1.wrong").send().await.unwrap();
        assert_eq!(wrong.status(), 401, "{path}");
    }
    let viewer = fleet.token("eve", "viewer");
    let url = format!("{}/api/v1/enrol-tokens", fleet.endpoints.operator_url);
    let refused = reqwest::Client::new().post(url).bearer_auth(viewer).json(&terms());
    assert_eq!(refused.send().await.unwrap().status(), 403);
}

//! Certificates over their life: renewed, expired, lapsed, from the future, revoked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use reqwest::{Client, Response};
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use sealift_protocol::api::{EnrolTokenNew, RenewRequest, RenewResponse};
use sealift_protocol::codec;
use sealift_protocol::telemetry::Conn;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::mqtt::{Link, options, security_codes};
use crate::support::{Device, Fleet, code, device_id, https, request, terms, text};

const DAY: i64 = 24 * 3_600;

/// What the design promises.
const DROPPED_WITHIN: Duration = Duration::from_secs(5);

impl Fleet {
    async fn directive(&self, client: &Client) -> Response {
        client.get(format!("{}/directive", self.endpoints.device_url)).send().await.unwrap()
    }

    async fn renew(&self, client: &Client, csr_pem: String) -> Response {
        let url = format!("{}/renew", self.endpoints.device_url);
        client.post(url).json(&RenewRequest { csr_pem }).send().await.unwrap()
    }

    /// The device with its certificate renewed; the old one is not used up yet.
    async fn renewed(&self, device: &Device) -> Device {
        let (key_pem, csr) = request();
        let response = self.renew(&device.https(), csr).await;
        assert_eq!(response.status(), 200);
        let renewed: RenewResponse = response.json().await.unwrap();
        let mut device = device.clone();
        device.answer.certificate_pem = renewed.certificate_pem;
        Device { key_pem, ..device }
    }

    /// The device with its own key and serial number, in a certificate of this fleet's CA that is valid at another time.
    fn at(&self, device: &Device, from_s: i64, until_s: i64) -> Device {
        let key = std::fs::read_to_string(self.data().join("keys/ca-key.pem")).unwrap();
        let ca = CertificateDer::from_pem_slice(self.ca().as_bytes()).unwrap();
        let issuer = Issuer::from_ca_cert_der(&ca, KeyPair::from_pem(&key).unwrap()).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("main:{}", device.id));
        let uri = format!("urn:sealift:main:{}", device.id);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from_slice(&serial(device)));
        let now = jiff::Timestamp::now().as_second();
        let moment = |seconds: i64| {
            let since = Duration::from_secs(u64::try_from(now + seconds).unwrap());
            rcgen::date_time_ymd(1970, 1, 1) + since
        };
        params.not_before = moment(from_s);
        params.not_after = moment(until_s);
        let key = KeyPair::from_pem(&device.key_pem).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        let mut device = device.clone();
        device.answer.certificate_pem = format!("{certificate}\n{}", self.ca());
        device
    }
}

fn serial(device: &Device) -> Vec<u8> {
    let pem = device.answer.certificate_pem.as_bytes();
    let der = CertificateDer::from_pem_slice(pem).unwrap();
    X509Certificate::from_der(&der).unwrap().1.raw_serial().to_vec()
}

#[tokio::test]
async fn the_old_certificate_is_good_until_the_new_one_is_used() {
    let fleet = Fleet::start();
    let old = fleet.enrol("cam-1").await;

    let new = fleet.renewed(&old).await;

    assert_eq!(fleet.directive(&old.https()).await.status(), 204);
    drop(Link::of(&fleet, &old).await);
    assert_eq!(fleet.directive(&new.https()).await.status(), 204);
    let refused = fleet.directive(&old.https()).await;
    assert_eq!(refused.status(), 403);
    assert_eq!(code(refused).await, "device.certificate-superseded");
    let mut late = Link::open(options(&fleet, "main:cam-1", old.tls()));
    assert!(late.connected().await.is_err());
    drop(Link::of(&fleet, &new).await);
    let codes = security_codes(&fleet, "cam-1").await;
    assert!(codes.contains(&"device.certificate-superseded".to_owned()), "{codes:?}");
    assert!(codes.contains(&"mqtt.revoked".to_owned()), "{codes:?}");
}

#[tokio::test]
async fn the_first_use_over_mqtt_ends_the_old_certificate_too() {
    let fleet = Fleet::start();
    let old = fleet.enrol("cam-1").await;
    let new = fleet.renewed(&old).await;

    drop(Link::of(&fleet, &new).await);

    assert_eq!(fleet.directive(&old.https()).await.status(), 403);
    assert_eq!(fleet.directive(&new.https()).await.status(), 204);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;

    let lost = fleet.renewed(&device).await;
    let kept = fleet.renewed(&device).await;

    assert_eq!(fleet.directive(&kept.https()).await.status(), 204);
    assert_eq!(fleet.directive(&lost.https()).await.status(), 403);
    let again = fleet.renewed(&kept).await;
    assert_eq!(fleet.directive(&again.https()).await.status(), 204);
}

#[tokio::test]
async fn a_certificate_that_has_just_expired_may_only_renew() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let expired = fleet.at(&device, -60 * DAY, -29 * DAY);

    for path in ["/directive", "/tuf/timestamp.json", "/v2/vision/digits/blobs/sha256:00"] {
        let url = format!("{}{path}", fleet.endpoints.device_url);
        let refused = expired.https().get(url).send().await.unwrap();
        assert_eq!(refused.status(), 403, "{path}");
        assert_eq!(code(refused).await, "device.certificate-expired", "{path}");
    }
    let mut link = Link::open(options(&fleet, "main:cam-1", expired.tls()));
    assert!(link.connected().await.is_err());

    let renewed = fleet.renewed(&expired).await;

    assert_eq!(fleet.directive(&renewed.https()).await.status(), 204);
    drop(Link::of(&fleet, &renewed).await);
    let codes = security_codes(&fleet, "cam-1").await;
    assert!(codes.contains(&"device.certificate-expired".to_owned()), "{codes:?}");
}

#[tokio::test]
async fn a_certificate_that_expired_a_month_ago_is_told_what_to_do() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let lapsed = fleet.at(&device, -90 * DAY, -31 * DAY);

    for refused in
        [fleet.renew(&lapsed.https(), request().1).await, fleet.directive(&lapsed.https()).await]
    {
        assert_eq!(refused.status(), 403);
        let problem: Value = refused.json().await.unwrap();
        assert_eq!(problem["code"], "device.certificate-lapsed");
        assert!(problem["help"].as_str().unwrap().contains("--replace"), "{problem}");
    }
    assert_eq!(security_codes(&fleet, "cam-1").await, ["device.certificate-lapsed"]);

    // The way back that the help names.
    let bound = EnrolTokenNew { device: Some(device_id("cam-1")), ..terms() };
    let token = fleet.enrol_token(bound).await.token;
    let back = fleet.enrol_by(&token, "cam-1").await;
    assert_eq!(fleet.directive(&back.https()).await.status(), 204);
}

#[tokio::test]
async fn a_certificate_from_the_future_heals_by_its_renewal() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let early = fleet.at(&device, 10 * DAY, 70 * DAY);

    let refused = fleet.directive(&early.https()).await;
    assert_eq!(code(refused).await, "device.certificate-early");

    let renewed = fleet.renewed(&early).await;
    assert_eq!(fleet.directive(&renewed.https()).await.status(), 204);
}

#[tokio::test]
async fn attack_to_renew_with_the_old_key_or_another_devices_name() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let request = |name: Option<&str>, key: &KeyPair| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.serialize_request(key).unwrap().pem().unwrap()
    };
    let (old, fresh) = (KeyPair::from_pem(&device.key_pem).unwrap(), KeyPair::generate().unwrap());

    let same = fleet.renew(&device.https(), request(None, &old)).await;
    assert_eq!((same.status().as_u16(), code(same).await.as_str()), (400, "renew.same-key"));
    let foreign = fleet.renew(&device.https(), request(Some("main:cam-2"), &fresh)).await;
    assert_eq!((foreign.status().as_u16(), code(foreign).await.as_str()), (400, "csr.name"));
    let garbage = fleet.renew(&device.https(), "-----BEGIN".to_owned()).await;
    assert_eq!(code(garbage).await, "csr.form");
    let nobody = fleet.renew(&https(&fleet.ca(), None), request(None, &fresh)).await;
    assert_eq!(nobody.status(), 401);
    let codes = security_codes(&fleet, "cam-1").await;
    for expected in ["renew.same-key", "csr.name", "csr.form"] {
        assert!(codes.contains(&expected.to_owned()), "{expected}: {codes:?}");
    }
}

#[tokio::test]
async fn attack_to_renew_without_end() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let client = device.https();
    for _ in 1..24 {
        assert_eq!(fleet.renew(&client, request().1).await.status(), 200);
    }
    let refused = fleet.renew(&client, request().1).await;
    assert_eq!((refused.status().as_u16(), code(refused).await.as_str()), (429, "renew.too-often"));
}

pub(crate) async fn revoke(fleet: &Fleet, device: &str) {
    let revoke = fleet.api(reqwest::Method::POST, &format!("/api/v1/devices/{device}/revoke"));
    let revoked = revoke.json(&json!({ "reason": "stolen" })).send().await.unwrap();
    assert_eq!(revoked.status(), 200, "{}", revoked.text().await.unwrap());
}

#[tokio::test]
async fn a_revoked_device_is_dropped_within_five_seconds_and_stays_out() {
    let fleet = Fleet::start();
    let (device, other) = (fleet.enrol("cam-1").await, fleet.enrol("cam-2").await);
    let next = fleet.renewed(&device).await;
    let mut link = Link::of(&fleet, &device).await;
    let mut others_link = Link::of(&fleet, &other).await;
    let client = device.https();
    assert_eq!(fleet.directive(&client).await.status(), 204);

    let at = Instant::now();
    revoke(&fleet, "cam-1").await;
    assert!(link.next(|_| false).await.is_err());
    let dropped = at.elapsed();

    println!("dropped from the broker after {dropped:?}");
    assert!(dropped < DROPPED_WITHIN, "{dropped:?}");
    for certificate in [&device, &next] {
        let mut again = Link::open(options(&fleet, "main:cam-1", certificate.tls()));
        assert!(again.connected().await.is_err());
        let refused = fleet.directive(&certificate.https()).await;
        assert_eq!(
            (refused.status().as_u16(), code(refused).await.as_str()),
            (403, "device.revoked")
        );
        let refused = fleet.renew(&certificate.https(), request().1).await;
        assert_eq!(code(refused).await, "device.revoked");
    }
    assert_eq!(fleet.directive(&client).await.status(), 403);
    others_link.subscribe("sl/1/main/d/cam-2/+").await;
    let codes = security_codes(&fleet, "cam-1").await;
    assert!(codes.contains(&"mqtt.revoked".to_owned()), "{codes:?}");
    assert!(codes.contains(&"device.revoked".to_owned()), "{codes:?}");
    let audit = fleet.get("/api/v1/audit").await;
    let deeds = audit["items"].as_array().unwrap();
    assert!(deeds.iter().any(|it| it["action"] == "device.revoke" && it["reason"] == "stolen"));
}

#[tokio::test]
async fn a_revoked_device_comes_back_only_by_a_token_for_its_id() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    revoke(&fleet, "cam-1").await;

    let free = fleet.enrol_token(terms()).await.token;
    let refused = fleet.post_enrol(&free, "cam-1", request().1).await;
    assert_eq!(code(refused).await, "enrol.device-taken");
    let bound = EnrolTokenNew { device: Some(device_id("cam-1")), ..terms() };
    let back = fleet.enrol_by(&fleet.enrol_token(bound).await.token, "cam-1").await;

    assert_eq!(fleet.directive(&back.https()).await.status(), 204);
    assert_eq!(fleet.directive(&device.https()).await.status(), 403);
    drop(Link::of(&fleet, &back).await);
}

#[tokio::test]
async fn a_revoked_devices_request_that_is_under_way_is_ended() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let (host, port) = fleet.endpoints.device_url["https://".len()..].split_once(':').unwrap();
    let stream = TcpStream::connect((host, port.parse::<u16>().unwrap())).await.unwrap();
    let connector = TlsConnector::from(Arc::new(device.tls()));
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    // A request that never ends: the server would wait for its head for 20 seconds.
    stream.write_all(b"GET /directive HTTP/1.1\r\n").await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(fleet.directive(&device.https()).await.status(), 204);

    let at = Instant::now();
    revoke(&fleet, "cam-1").await;
    let mut rest = Vec::new();
    // Ended without a word, so TLS may call it an error.
    let _ = tokio::time::timeout(DROPPED_WITHIN, stream.read_to_end(&mut rest)).await.unwrap();
    println!("dropped from the devices' port after {:?}", at.elapsed());
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_certificate() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let mut link = Link::of(&fleet, &device).await;
    let online = codec::encode(&Conn { online: true, epoch: 1 }).unwrap();
    assert_eq!(link.publish("sl/1/main/u/cam-1/conn", online).await, PubAckReason::Success);
    let file = fleet.data().join("fleet.db");
    let database = sqlx::SqlitePool::connect(&format!("sqlite://{}", text(&file))).await.unwrap();

    sqlx::query("UPDATE devices SET certificate_expires_at = 1").execute(&database).await.unwrap();

    assert!(link.next(|_| false).await.is_err());
}

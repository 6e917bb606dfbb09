use std::collections::BTreeMap;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use sealift_protocol::id::{DeviceId, TenantId};
use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, system_time};
use crate::key;

const DAY_MS: i64 = 24 * 3_600 * 1_000;
const BEGIN: UnixMillis = UnixMillis(1_800_000_000_000);
/// The first second of 2099.
const FUTURE: UnixMillis = UnixMillis(4_070_908_800_000);

fn valid() -> RangeInclusive<UnixMillis> {
    BEGIN..=BEGIN.plus(60 * DAY_MS)
}

#[test]
fn a_certificate_is_due_at_two_thirds_of_its_life_and_up_to_a_twelfth_later() {
    assert_eq!(due_at(&valid(), 0), BEGIN.plus(40 * DAY_MS));
    assert_eq!(due_at(&valid(), 500), BEGIN.plus(40 * DAY_MS + 60 * DAY_MS / 24));
    assert_eq!(due_at(&valid(), 1_000), BEGIN.plus(45 * DAY_MS));
}

#[test]
fn one_try_runs_at_a_time_and_failures_wait() {
    let (due, steady) = (BEGIN.plus(40 * DAY_MS), BEGIN);
    let mut schedule = Schedule::new(&valid(), 0);
    assert!(!schedule.begin(due.plus(-1), steady));
    assert!(schedule.begin(due, steady));
    assert!(!schedule.begin(due, steady));

    schedule.failed(steady, 1_000);

    assert!(!schedule.begin(due, steady.plus(1_000)));
    assert!(schedule.begin(due, steady.plus(15 * 60_000)));
}

#[test]
fn a_clock_of_1970_waits_and_a_clock_of_2099_asks_the_server_once_an_hour() {
    let steady = BEGIN;
    let mut schedule = Schedule::new(&valid(), 0);
    assert!(!schedule.begin(UnixMillis(0), steady));
    assert!(schedule.begin(FUTURE, steady));

    schedule.renewed(&valid(), steady, 0);

    assert!(!schedule.begin(FUTURE, steady.plus(3_599_999)));
    assert!(schedule.begin(FUTURE, steady.plus(3_600_000)));
}

#[test]
fn a_clock_that_steps_back_is_overruled_by_the_server() {
    let mut schedule = Schedule::new(&valid(), 0);
    assert!(!schedule.begin(BEGIN.plus(-DAY_MS), BEGIN));
    schedule.ask_now();
    assert!(schedule.begin(BEGIN.plus(-DAY_MS), BEGIN));
}

/// A device on disk, and the authority that has certified it.
struct Ground {
    store: TempDir,
    issuer: Issuer<'static, KeyPair>,
    identity: Identity,
}

impl Ground {
    fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let store = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pair = KeyPair::generate().unwrap();
        let ca_pem = params.self_signed(&pair).unwrap().pem();
        let issuer = Issuer::new(params, pair);
        let key = Key::make(store.path(), "").unwrap();
        let identity = Identity {
            tenant: TenantId::parse("main").unwrap(),
            device: DeviceId::parse("cam-1").unwrap(),
            url: "https://localhost:1".to_owned(),
            mqtt: "localhost:1".to_owned(),
            certificate_pem: certify(&issuer, &key, "main:cam-1"),
            key: key.name().to_owned(),
            ca_pem,
            labels: BTreeMap::new(),
        };
        identity.save(store.path()).unwrap();
        Self { store, issuer, identity }
    }

    fn path(&self) -> &Path {
        self.store.path()
    }

    /// What a start after a kill finds: an identity whose certificate fits its key.
    fn restarted(&self) -> Identity {
        let identity = Identity::load(self.path()).unwrap();
        key::tidy(self.path(), &identity.key);
        let key = Key::open(self.path(), &identity.key).unwrap().unwrap();
        assert_eq!(identity.shown().unwrap().public_key, key.public());
        identity.tls(self.path(), &[], &Clock::new(UnixMillis(0), system_time)).unwrap();
        identity
    }
}

fn certify(issuer: &Issuer<'static, KeyPair>, key: &Key, name: &str) -> String {
    let request = rcgen::CertificateSigningRequestParams::from_pem(&key.request().unwrap());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.signed_by(&request.unwrap().public_key, issuer).unwrap().pem()
}

#[test]
fn a_kill_before_the_answer_leaves_the_old_identity() {
    let ground = Ground::new();

    Key::make(ground.path(), "").unwrap();

    assert_eq!(ground.restarted(), ground.identity);
}

#[test]
fn a_kill_in_the_middle_of_writing_leaves_the_old_identity() {
    let ground = Ground::new();
    let key = Key::make(ground.path(), "").unwrap();
    std::fs::write(ground.path().join("identity.json.new"), "{ \"tenant\": \"ma").unwrap();
    std::fs::write(ground.path().join("key-0.pem.new"), "-----BEGIN PRIV").unwrap();

    assert_eq!(ground.restarted(), ground.identity);

    assert!(Key::open(ground.path(), key.name()).unwrap().is_none(), "left behind");
}

#[test]
fn a_kill_after_the_switch_leaves_the_new_identity() {
    let ground = Ground::new();
    let key = Key::make(ground.path(), "").unwrap();
    let certificate = certify(&ground.issuer, &key, "main:cam-1");

    let new = switch(ground.path(), &ground.identity, &key, certificate).unwrap();

    assert!(Key::open(ground.path(), &ground.identity.key).unwrap().is_some());
    assert_eq!(ground.restarted(), new);
    assert_eq!(new.key, key.name());
    assert!(Key::open(ground.path(), &ground.identity.key).unwrap().is_none());
    assert_eq!(ground.restarted(), new);
}

#[test]
fn an_answer_that_does_not_fit_changes_nothing() {
    let ground = Ground::new();
    let (key, other) =
        (Key::make(ground.path(), "").unwrap(), Key::make(ground.path(), "").unwrap());
    for wrong in [
        String::new(),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        certify(&ground.issuer, &other, "main:cam-1"),
        certify(&ground.issuer, &key, "main:cam-2"),
        certify(&ground.issuer, &key, "other:cam-1"),
    ] {
        let refused = switch(ground.path(), &ground.identity, &key, wrong);
        assert!(matches!(refused, Err(RenewError::Answer(_))), "{refused:?}");
        assert_eq!(Identity::load(ground.path()).unwrap(), ground.identity);
    }
    assert_eq!(ground.restarted(), ground.identity);
}

#[test]
fn an_identity_of_the_first_form_is_read() {
    let ground = Ground::new();
    let path = ground.path().join("identity.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value.as_object_mut().unwrap().remove("key");
    std::fs::write(&path, value.to_string()).unwrap();
    let first = ground.path().join("key.pem");
    std::fs::rename(ground.path().join(&ground.identity.key), first).unwrap();

    assert_eq!(ground.restarted().key, "key.pem");
}

//! Devices' identities with real processes: certificates that are renewed, devices that wait to be approved, and those that are refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sealift_protocol::api::{DeviceState, DeviceView};
use sealift_protocol::id::DeviceId;
use sealift_tests::fleet::{Device, DeviceOptions, Keeping, Options, Server};
use sealift_tests::process::Process;
use sealift_tests::story::SOON;
use sealift_tests::token::Token;
use sealift_tests::wait::{Look, until};
use serde_json::Value;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const DAY_S: i64 = 24 * 3_600;

async fn fleet(directory: &Path) -> anyhow::Result<(Server, Device)> {
    let server = Server::start(directory, &Options::default()).await?;
    let options = DeviceOptions { labels: Vec::new(), onnxruntime: None, extra: String::new() };
    let device = Device::start(&server, directory, "cam-1", &options).await?;
    online(&server, &device.id).await?;
    Ok((server, device))
}

async fn online(server: &Server, device: &DeviceId) -> anyhow::Result<DeviceView> {
    let api = server.api()?;
    until(&format!("{device} is online"), SOON, || async {
        let view = api.device(device).await?;
        let is_online = view.state == DeviceState::Online && view.health.is_some();
        Ok(if is_online { Look::Done(view) } else { Look::NotYet(format!("{:?}", view.state)) })
    })
    .await
}

fn identity(device: &Device) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&fs::read(device.store.join("identity.json"))?)?)
}

/// The public key of a certificate, for another one.
struct SameKey<'a>(&'a X509Certificate<'a>);

impl PublicKeyData for SameKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.0.public_key().subject_public_key.data
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// Gives the device, which does not run, its own certificate with another validity, in days from now.
fn age(server: &Server, device: &Device, from: i64, until: i64) -> anyhow::Result<Value> {
    let keys = server.data().join("keys");
    let ca = CertificateDer::from_pem_slice(&fs::read(keys.join("ca.pem"))?)?;
    let ca_key = KeyPair::from_pem(&fs::read_to_string(keys.join("ca-key.pem"))?)?;
    let issuer = Issuer::from_ca_cert_der(&ca, ca_key)?;
    let mut identity = identity(device)?;
    let text = |name: &str| identity[name].as_str().context("a text").map(str::to_owned);
    let pem = text("certificate_pem")?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes())?;
    let (_, present) = X509Certificate::from_der(&der)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("main:{}", device.id));
    let uri = format!("urn:sealift:main:{}", device.id);
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from_slice(present.raw_serial()));
    let now = i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs())?;
    let moment = |days: i64| {
        let seconds = u64::try_from(now + days * DAY_S).unwrap_or(0);
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    (params.not_before, params.not_after) = (moment(from), moment(until));
    let aged = params.signed_by(&SameKey(&present), &issuer)?.pem();
    identity["certificate_pem"] = format!("{aged}\n{}", text("ca_pem")?).into();
    fs::write(device.store.join("identity.json"), identity.to_string())?;
    Ok(identity)
}

/// Waits until the device has another certificate and key on disk than `before`, and is online with them.
async fn renewed(server: &Server, device: &Device, before: &Value) -> anyhow::Result<()> {
    until("the identity is another", SOON, || async {
        let now = identity(device)?;
        let is_new =
            now["certificate_pem"] != before["certificate_pem"] && now["key"] != before["key"];
        Ok(if is_new { Look::Done(()) } else { Look::NotYet(device.process.log_tail()) })
    })
    .await?;
    let api = server.api()?;
    until("the server has seen the new certificate", SOON, || async {
        let view = api.device(&device.id).await?;
        let audit = server.ctl_json(&["audit", "list"])?;
        let is_used = audit.to_string().contains("device.certificate");
        let is_online = view.state == DeviceState::Online;
        let spooled = view.health.as_ref().map(|health| health.spooled);
        Ok(match (is_used && is_online, spooled) {
            (true, Some(0)) => Look::Done(()),
            _ => Look::NotYet(format!("{audit} {view:?}")),
        })
    })
    .await?;
    let old_key = before["key"].as_str().context("a key")?;
    until("the old key is gone", SOON, || async {
        let is_there = device.store.join(old_key).exists();
        Ok(if is_there { Look::NotYet(old_key.to_owned()) } else { Look::Done(()) })
    })
    .await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn identity_is_renewed_in_its_last_third_and_again_after_a_kill() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, mut device) = fleet(directory.path()).await?;

    device.process.kill()?;
    let before = age(&server, &device, -70, 20)?;
    device.process.restart()?;
    device.ready().await?;

    renewed(&server, &device, &before).await?;
    let after = identity(&device)?;
    device.process.kill()?;
    device.process.restart()?;
    device.ready().await?;
    online(&server, &device.id).await?;
    ensure!(identity(&device)?["key"] == after["key"], "renewed again without need");
    Ok(())
}

#[tokio::test]
#[ignore = "needs softhsm2-util"]
async fn identity_on_a_token_is_used_and_renewed_there() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &Options::default()).await?;
    let token = Token::make(directory.path())?;
    let (name, (variable, config)) = (token.for_devices(directory.path())?, token.environment());
    let options = DeviceOptions { labels: Vec::new(), onnxruntime: None, extra: String::new() };
    let environment = [(variable, config.as_str())];
    let keeping = Keeping { key_on: Some(&name), environment: &environment };
    let mut device =
        Device::start_with(&server, directory.path(), "cam-1", &options, &keeping).await?;
    online(&server, &device.id).await?;
    let mut files = fs::read_dir(&device.store)?.map(|file| Ok(file?.path()));
    let in_file = files.find(|path: &anyhow::Result<PathBuf>| {
        path.as_ref().is_ok_and(|path| path.extension().is_some_and(|it| it == "pem"))
    });
    ensure!(in_file.is_none(), "a private key is in a file: {in_file:?}");
    ensure!(token.objects()? == 2, "{} objects", token.objects()?);

    device.process.kill()?;
    let before = age(&server, &device, -70, 20)?;
    device.process.restart()?;
    device.ready().await?;

    renewed(&server, &device, &before).await?;
    let key = identity(&device)?["key"].as_str().context("a key")?.to_owned();
    ensure!(key.starts_with("pkcs11:token=story;object=sealift-"), "{key}");
    until("the old key is destroyed", SOON, || async {
        let objects = token.objects()?;
        Ok(if objects == 2 { Look::Done(()) } else { Look::NotYet(format!("{objects} objects")) })
    })
    .await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn identity_that_expired_in_a_box_is_renewed() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, mut device) = fleet(directory.path()).await?;

    device.process.kill()?;
    let before = age(&server, &device, -100, -29)?;
    device.process.restart()?;
    device.ready().await?;

    renewed(&server, &device, &before).await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn identity_that_lapsed_is_kept_and_says_what_to_do() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, mut device) = fleet(directory.path()).await?;

    device.process.kill()?;
    let before = age(&server, &device, -130, -40)?;
    device.process.restart()?;
    device.ready().await?;

    until("the agent says what to do", SOON, || async {
        let log = device.process.log();
        let says = log.contains("too old to be renewed") && log.contains("--replace");
        Ok(if says { Look::Done(()) } else { Look::NotYet(device.process.log_tail()) })
    })
    .await?;
    ensure!(identity(&device)? == before, "the identity was thrown away");
    let timeline = server.ctl(&["device", "timeline", "cam-1"])?;
    ensure!(timeline.contains("device.certificate-lapsed"), "{timeline}");

    // What it says.
    device.process.kill()?;
    let token = server.ctl(&["enrol", "create", "--device", "cam-1"])?;
    let store = device.store.display().to_string();
    let url = &server.endpoints.device_url;
    let enrol = ["enrol", "--store", &store, "--url", url, "--token", token.trim()];
    let replace = [&enrol[..], &["--device", "cam-1", "--replace"]].concat();
    sealift_tests::process::run("fleet-agent", &replace, &[])?;
    device.process.restart()?;
    device.ready().await?;
    online(&server, &device.id).await?;
    Ok(())
}

/// A device of a batch: it has the claim's file and waits.
struct Newcomer {
    store: String,
    process: Process,
}

impl Newcomer {
    fn start(directory: &Path, claim: &str, serial: &str) -> anyhow::Result<Self> {
        let store = directory.join(serial).display().to_string();
        let arguments = ["enrol", "--store", &store, "--claim", claim, "--serial", serial];
        let log = directory.join(format!("{serial}.log"));
        let process = Process::start(serial, "fleet-agent", &arguments, &[], &log)?;
        Ok(Self { store, process })
    }

    /// Runs it as its service does.
    fn run(&mut self, directory: &Path, name: &str) -> anyhow::Result<()> {
        let config = directory.join(format!("{name}.toml"));
        let text = "serve_listen = \"127.0.0.1:0\"\nengine = \"fake\"\nbeat_s = 2\n";
        fs::write(&config, text)?;
        let config = config.display().to_string();
        let arguments = ["run", "--store", &self.store, "--config", &config];
        let log = directory.join(format!("{name}-run.log"));
        self.process = Process::start(name, "fleet-agent", &arguments, &[], &log)?;
        Ok(())
    }

    async fn ends(&mut self, says: &str) -> anyhow::Result<()> {
        let process = std::cell::RefCell::new(&mut self.process);
        until("the agent ends", SOON, || async {
            let mut process = process.borrow_mut();
            Ok(match process.ended()? {
                Some(_) => Look::Done(()),
                None => Look::NotYet(process.log_tail()),
            })
        })
        .await?;
        let log = self.process.log();
        ensure!(log.contains(says), "`{says}` is not in:\n{log}");
        Ok(())
    }
}

async fn waiting(server: &Server, device: &str) -> anyhow::Result<String> {
    until(&format!("{device} waits"), SOON, || async {
        let pending = server.ctl_json(&["enrol", "pending"])?;
        let found = pending.as_array().context("a list")?.iter().find(|it| it["device"] == device);
        Ok(match found {
            Some(found) => Look::Done(found["id"].as_str().context("an id")?.to_owned()),
            None => Look::NotYet(pending.to_string()),
        })
    })
    .await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn identity_of_a_batch_waits_for_approval_over_a_restart() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    let server = Server::start(path, &Options::default()).await?;
    let claim = path.join("claim.json").display().to_string();
    let create =
        ["enrol", "claim", "create", "--batch", "spring", "--max", "3", "-l", "site=tokyo"];
    server.ctl(&[&create[..], &["--out", &claim]].concat())?;

    let mut first = Newcomer::start(path, &claim, "SN-1")?;
    let id = waiting(&server, "sn-1").await?;
    first.process.kill()?;
    first.run(path, "sn-1")?;
    server.ctl(&["enrol", "approve", &id])?;
    let view = online(&server, &DeviceId::parse("sn-1")?).await?;
    ensure!(view.labels.get("site").is_some_and(|site| site == "tokyo"), "{view:?}");
    ensure!(!Path::new(&first.store).join("pending.json").exists(), "the claim is still there");

    let list = path.join("serials.csv");
    fs::write(&list, "serial,device,line\nSN-2,press-2,a\n")?;
    server.ctl(&["enrol", "serials", "add", &list.display().to_string()])?;
    let mut second = Newcomer::start(path, &claim, "SN-2")?;
    second.ends("device enrolled").await?;
    let listed = server.ctl(&["device", "get", "press-2"])?;
    ensure!(listed.contains("line=a") && listed.contains("site=tokyo"), "{listed}");

    let mut third = Newcomer::start(path, &claim, "SN-3")?;
    let id = waiting(&server, "sn-3").await?;
    server.ctl(&["enrol", "deny", &id, "--reason", "nobody ordered it"])?;
    third.ends("nobody ordered it").await?;

    let mut again = Newcomer::start(&path.join("."), &claim, "SN-2")?;
    again.ends("enrolled device already").await?;
    let claims = server.ctl_json(&["enrol", "claim", "list"])?;
    let claim_id = claims[0]["id"].as_str().context("a claim")?;
    ensure!(claims[0]["places_left"] == 1, "{claims}");
    server.ctl(&["enrol", "claim", "revoke", claim_id])?;
    let mut late = Newcomer::start(path, &claim, "SN-4")?;
    late.ends("is revoked").await
}

//! What an attacker on the server's disk tries, over the wire: refused with a security event, and the model serves on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use sealift_protocol::api::RolloutState;
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{DesiredSlot, Directive, Trial};
use sealift_protocol::id::{DeviceId, Epoch, Generation, ModelName, TenantId, UnixMillis, Version};
use sealift_protocol::image::{ImageManifest, LayerKind, ModelIndex};
use sealift_protocol::tuf::key::SigningKey as TufKey;
use sealift_protocol::tuf::metadata::TargetFile;
use sealift_protocol::tuf::repository::TargetsDraft;
use sealift_protocol::tuf::{Role, model_path};
use sealift_tests::digits::{MODEL, directory as model_directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server};
use sealift_tests::needs::onnxruntime;
use sealift_tests::process::write;
use sealift_tests::story::{self, SOON, TIMING, answers_with, ended, security_event};
use sealift_tests::wait::{Look, until};

/// A server and devices that serve version 1.
async fn fleet(directory: &Path, names: &[&str]) -> anyhow::Result<(Server, Vec<Device>)> {
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory, &options).await?;
    let options = DeviceOptions {
        labels: vec!["site=tokyo".to_owned()],
        onnxruntime: Some(onnxruntime()?),
        extra: String::new(),
    };
    let mut devices = Vec::new();
    for name in names {
        devices.push(Device::start(&server, directory, name, &options).await?);
    }
    server.publish(&model_directory("v1"), "1")?;
    story::roll_out(&server, "1").await?;
    Ok((server, devices))
}

/// The digits of version 2 under another version, so that each attack has an image of its own.
fn as_version(directory: &Path, version: &str) -> anyhow::Result<PathBuf> {
    let copy = directory.join(format!("model-{version}"));
    fs::create_dir_all(&copy)?;
    for entry in fs::read_dir(model_directory("v2"))? {
        let entry = entry?;
        fs::copy(entry.path(), copy.join(entry.file_name()))?;
    }
    let file = copy.join("model.toml");
    let text = fs::read_to_string(&file)?;
    write(&file, &text.replace("version = \"2\"", &format!("version = \"{version}\"")))?;
    Ok(copy)
}

fn blob_file(server: &Server, digest: Digest) -> anyhow::Result<PathBuf> {
    let hex = digest.hex();
    let file = server.data().join("blobs/main/sha256").join(&hex[..2]).join(&hex);
    ensure!(file.exists(), "there is no {}", file.display());
    Ok(file)
}

/// Digests below a version: its manifest, its configuration and each layer.
async fn digests(server: &Server, version: &str) -> anyhow::Result<Vec<(String, Digest)>> {
    let get = async |reference: &str| {
        let path = format!("/v2/{MODEL}/manifests/{reference}");
        let response = server.api()?.request(reqwest::Method::GET, &path).send().await?;
        anyhow::Ok(response.error_for_status()?.bytes().await?)
    };
    let index = ModelIndex::parse(&get(version).await?)?;
    let manifest = index.variants().first().context("a variant")?.manifest.digest;
    let parsed = ImageManifest::parse(&get(&manifest.to_string()).await?)?;
    let layers = parsed.layers().iter().filter(|layer| layer.kind != LayerKind::Doc);
    let layers = layers.map(|layer| (layer.name.clone(), layer.blob.digest));
    Ok(layers.chain([("config.json".to_owned(), parsed.config().digest)]).collect())
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_flipped_byte_in_any_blob_is_refused_and_the_model_serves_on() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, devices) = fleet(directory.path(), &["cam-1"]).await?;
    let (api, device) = (server.api()?, &devices[0]);
    server.publish(&model_directory("v2"), "2")?;

    for (number, (name, digest)) in digests(&server, "2").await?.into_iter().enumerate() {
        let version = format!("2.{number}");
        server.publish(&as_version(directory.path(), &version)?, &version)?;
        // Layers are shared with version 2; the configuration names the version, and so is another blob for each.
        let own = digests(&server, &version).await?;
        let digest = own.iter().find(|(other, _)| *other == name).map_or(digest, |(_, own)| *own);
        let file = blob_file(&server, digest)?;
        let sound = fs::read(&file)?;
        let mut flipped = sound.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        fs::write(&file, flipped)?;

        let rollout = story::begin(&server, &version)?;
        let halted = ended(&api, rollout, RolloutState::Halted).await;
        halted.with_context(|| format!("a byte of {name} was flipped"))?;

        fs::write(&file, sound)?;
        answers_with(device, "1").await?;
        api.post::<_, serde_json::Value>(
            &format!("rollouts/{rollout}/abort"),
            &BTreeMap::from([("reason", "attack")]),
        )
        .await?;
    }
    security_event(&api, &device.id, "image.digest").await?;
    Ok(())
}

/// Puts a directive into the server's database, as somebody who has its disk can, and starts the server again.
async fn plant(server: &mut Server, device: &DeviceId, directive: &[u8]) -> anyhow::Result<()> {
    server.process.kill()?;
    sqlx::any::install_default_drivers();
    let database = format!("sqlite://{}", server.data().join("fleet.db").display());
    let pool = sqlx::AnyPool::connect(&database).await?;
    let planted = sqlx::query("UPDATE directives SET body = $1 WHERE device = $2")
        .bind(directive.to_vec())
        .bind(device.to_string())
        .execute(&pool)
        .await?;
    pool.close().await;
    ensure!(planted.rows_affected() == 1, "{device} has no directive");
    server.process.restart()?;
    server.ready().await
}

async fn directive_of(server: &Server, device: &DeviceId) -> anyhow::Result<Vec<u8>> {
    sqlx::any::install_default_drivers();
    let database = format!("sqlite://{}?mode=ro", server.data().join("fleet.db").display());
    let pool = sqlx::AnyPool::connect(&database).await?;
    let query = sqlx::query_scalar("SELECT body FROM directives WHERE device = $1");
    let body = query.bind(device.to_string()).fetch_one(&pool).await?;
    pool.close().await;
    Ok(body)
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_directive_for_another_device_is_refused() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (mut server, devices) = fleet(directory.path(), &["cam-1", "cam-2"]).await?;
    let [first, second] = &devices[..] else { anyhow::bail!("two devices") };

    let foreign = directive_of(&server, &first.id).await?;
    plant(&mut server, &second.id, &foreign).await?;

    security_event(&server.api()?, &second.id, "directive.audience").await?;
    answers_with(second, "1").await
}

/// A directive for this device, signed with the stolen director key, that asks for any image.
fn forged(
    server: &Server,
    device: &DeviceId,
    version: &str,
    index: Digest,
) -> anyhow::Result<Vec<u8>> {
    let pem = fs::read_to_string(server.data().join("keys/director.pem"))?;
    let director = SigningKey::from_pkcs8_pem(&pem)?;
    let slot = DesiredSlot {
        epoch: Epoch(1),
        trial: Trial { probation_s: 1, ..Trial::default() },
        ..DesiredSlot::new(ModelName::parse(MODEL)?, Version::parse(version)?, index)
    };
    let window = (now()?, now()?.plus(3_600_000));
    let whom = (TenantId::parse("main")?, device.clone());
    Ok(Directive::new(whom, Generation(1_000), window, vec![slot]).sign(&director)?)
}

fn now() -> anyhow::Result<UnixMillis> {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(UnixMillis(i64::try_from(elapsed.as_millis())?))
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_stolen_director_key_cannot_run_an_image_that_no_publisher_signed() -> anyhow::Result<()>
{
    let directory = tempfile::tempdir()?;
    let (mut server, devices) = fleet(directory.path(), &["cam-1"]).await?;
    let device = &devices[0];
    let push = model_directory("v2").display().to_string();
    let pushed = server.ctl_json(&["model", "push", &push])?;
    let index: Digest = serde_json::from_value(pushed["digest"].clone())?;

    let directive = forged(&server, &device.id, "2", index)?;
    plant(&mut server, &device.id, &directive).await?;

    security_event(&server.api()?, &device.id, "tuf.no-target").await?;
    answers_with(device, "1").await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_digest_other_than_the_publishers_is_refused() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (mut server, devices) = fleet(directory.path(), &["cam-1"]).await?;
    let device = &devices[0];
    server.publish(&model_directory("v2"), "2")?;

    let directive = forged(&server, &device.id, "2", Digest::of(b"another image"))?;
    plant(&mut server, &device.id, &directive).await?;

    security_event(&server.api()?, &device.id, "image.target").await?;
    answers_with(device, "1").await
}

/// Time that the publisher's signature of version 2 lasts in the next story.
const SHORT_MS: i64 = 20_000;

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn an_expired_target_is_refused() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, mut devices) = fleet(directory.path(), &["cam-1"]).await?;
    let device = &mut devices[0];
    let expires = publish_for_a_moment(&server).await?;

    device.process.kill()?;
    let rollout = story::begin(&server, "2")?;
    until("the signature has expired", SOON, || async {
        let left_ms = expires.since(now()?);
        Ok(if left_ms < 0 { Look::Done(()) } else { Look::NotYet(format!("{left_ms} ms left")) })
    })
    .await?;
    device.process.restart()?;
    device.ready().await?;

    let api = server.api()?;
    let event = security_event(&api, &device.id, "tuf.delegated.expired").await?;
    ensure!(event.text.contains("publisher-vision"), "{}", event.text);
    answers_with(device, "1").await?;
    ensure!(api.rollout(rollout).await?.state != RolloutState::Succeeded, "it was run");
    Ok(())
}

/// Pushes version 2 and signs it with metadata that expire in a moment.
async fn publish_for_a_moment(server: &Server) -> anyhow::Result<UnixMillis> {
    let push = model_directory("v2").display().to_string();
    let pushed = server.ctl_json(&["model", "push", &push])?;
    let digest: Digest = serde_json::from_value(pushed["digest"].clone())?;
    let index = fs::read(blob_file(server, digest)?)?;
    let key = TufKey::from_pem(&fs::read_to_string(server.offline_key("publisher-vision-1"))?)?;
    let role = Role::Delegated("publisher-vision".to_owned());
    let api = server.api()?;
    let current = api.request(reqwest::Method::GET, "/tuf/2.publisher-vision.json").send().await?;
    let current = current.error_for_status()?.bytes().await?.to_vec();
    let mut draft = TargetsDraft::next(role, current, &[key.public()])?;
    let path = model_path(&ModelName::parse(MODEL)?, &Version::parse("2")?);
    draft.set(&path, TargetFile::of_model(&index, Epoch(1)));
    let expires = now()?.plus(SHORT_MS);
    let metadata = draft.sign(expires, &[&key])?;
    let put = api.request(reqwest::Method::PUT, "/api/v1/trust/roles/publisher-vision");
    put.body(metadata).send().await?.error_for_status()?;
    Ok(expires)
}

//! Publishers' metadata, and what devices verify.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, Response};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{Epoch, ModelName, UnixMillis, Version};
use sealift_protocol::tuf::bundle::Revocations;
use sealift_protocol::tuf::client::{Client as Verifier, Persist, RoleNames, Want};
use sealift_protocol::tuf::key::SigningKey;
use sealift_protocol::tuf::metadata::TargetFile;
use sealift_protocol::tuf::repository::TargetsDraft;
use sealift_protocol::tuf::{BUNDLE_PATH, REVOCATIONS_PATH, REVOCATIONS_ROLE, Role, model_path};
use sqlx::Connection as _;

use crate::registry::Image;
use crate::support::{Device, Fleet, code};

const ROLE: &str = "publisher-vision";

fn now() -> UnixMillis {
    UnixMillis(jiff::Timestamp::now().as_millisecond())
}

fn key(folder: &Path, name: &str) -> SigningKey {
    SigningKey::from_pem(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

fn publisher(fleet: &Fleet) -> SigningKey {
    key(&fleet.offline(), "publisher-vision-1.pem")
}

/// The next version of the publisher's metadata, with these images as versions of `vision/digits`.
async fn draft(fleet: &Fleet, version: u64, images: &[(&str, &Image)]) -> TargetsDraft {
    let name = format!("/tuf/{version}.{ROLE}.json");
    let current = fleet.api(Method::GET, &name).send().await.unwrap().bytes().await.unwrap();
    let role = Role::Delegated(ROLE.to_owned());
    let public = [publisher(fleet).public()];
    let mut draft = TargetsDraft::next(role, current.to_vec(), &public).unwrap();
    let model = ModelName::parse("vision/digits").unwrap();
    for (version, image) in images {
        let path = model_path(&model, &Version::parse(version).unwrap());
        draft.set(&path, TargetFile::of_model(&image.index, Epoch(1)));
    }
    draft
}

async fn upload(fleet: &Fleet, metadata: Vec<u8>) -> Response {
    let path = format!("/api/v1/trust/roles/{ROLE}");
    let request = fleet.api(Method::PUT, &path).header("content-type", "application/json");
    request.body(metadata).send().await.unwrap()
}

fn sign(draft: TargetsDraft, key: &SigningKey) -> Vec<u8> {
    draft.sign(now().plus(1_000_000), &[key]).unwrap()
}

/// Follows the repository as a device does, from the root that enrolment gave.
async fn verify(fleet: &Fleet, device: &Device, want: Want) -> Verifier {
    let mut stored =
        BTreeMap::from([("root.json".to_owned(), device.answer.tuf_root.clone().into_bytes())]);
    let mut verifier = Verifier::open(stored.clone(), RoleNames::Plain).unwrap();
    let https = device.https();
    verifier.refresh(now());
    let mut is_wanted = false;
    loop {
        while let Some(need) = verifier.need().unwrap() {
            let url = format!("{}/tuf/{}", fleet.endpoints.device_url, need.file);
            let answer = https.get(url).send().await.unwrap();
            let found = answer.status().is_success();
            let bytes = answer.bytes().await.unwrap().to_vec();
            for change in verifier.on(found.then_some(bytes)).unwrap() {
                match change {
                    Persist::Write { name, bytes } => stored.insert(name, bytes),
                    Persist::Remove { name } => stored.remove(&name),
                };
            }
        }
        if is_wanted {
            return verifier;
        }
        is_wanted = true;
        verifier.want(want.clone());
    }
}

/// Pushes and signs version 2 of `vision/digits`.
pub(crate) async fn publish(fleet: &Fleet) {
    let image = Image::of("vision/digits", "2", b"weights");
    image.push(fleet, "vision/digits", "2").await;
    let draft = draft(fleet, 1, &[("2", &image)]).await;
    assert_eq!(upload(fleet, sign(draft, &publisher(fleet))).await.status(), 204);
}

#[tokio::test]
async fn a_signed_version_is_what_devices_verify() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let image = Image::of("vision/digits", "2", b"weights");
    image.push(&fleet, "vision/digits", "2").await;
    let draft = draft(&fleet, 1, &[("2", &image)]).await;

    let answer = upload(&fleet, sign(draft, &publisher(&fleet))).await;

    assert_eq!(answer.status(), 204, "{}", answer.text().await.unwrap());
    let version = fleet.get("/api/v1/models/vision/digits/versions/2").await;
    assert_eq!((&version["state"], &version["epoch"]), (&"signed".into(), &1.into()));
    assert_eq!(version["signed_by"][0], ROLE);
    let path = "models/vision/digits/2";
    let verifier = verify(&fleet, &device, Want::Entry(path.to_owned())).await;
    assert_eq!(verifier.target(path).unwrap().digest().unwrap().to_string(), version["digest"]);
}

#[tokio::test]
async fn a_signed_version_cannot_be_deleted_and_an_unsigned_one_can() {
    let fleet = Fleet::start();
    let images = [
        Image::of("vision/digits", "2", b"weights"),
        Image::of("vision/digits", "3", b"weights of 3"),
    ];
    for (image, version) in images.iter().zip(["2", "3"]) {
        image.push(&fleet, "vision/digits", version).await;
    }
    let draft = draft(&fleet, 1, &[("2", &images[0])]).await;
    assert_eq!(upload(&fleet, sign(draft, &publisher(&fleet))).await.status(), 204);
    let delete = async |what: &str| {
        let path = format!("/v2/vision/digits/{what}");
        let response = fleet.api(Method::DELETE, &path).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };

    let index = Digest::of(&images[0].index);
    let weights = Digest::of(b"weights");
    for what in ["manifests/2", &format!("manifests/{index}"), &format!("blobs/{weights}")] {
        let (status, text) = delete(what).await;
        assert_eq!(status, 403, "{what}");
        assert!(text.contains("DENIED") && text.contains("version 2"), "{text}");
        assert!(text.contains("is signed"), "{text}");
    }
    assert_eq!(delete("manifests/3").await.0, 202);

    let model = fleet.get("/api/v1/models/vision/digits").await;
    assert_eq!(model["versions"].as_array().unwrap().len(), 1);
    let tags = fleet.get("/v2/vision/digits/tags/list").await;
    assert_eq!(tags["tags"], serde_json::json!(["2"]));
    let audit = fleet.get("/api/v1/audit").await;
    assert!(audit.to_string().contains("registry.manifest-delete"), "{audit}");
}

#[tokio::test]
async fn the_trust_bundle_reaches_devices() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let verifier = verify(&fleet, &device, Want::File(BUNDLE_PATH.to_owned())).await;
    let bundle = verifier.file(BUNDLE_PATH).unwrap();
    let bundle = sealift_protocol::tuf::bundle::TrustBundle::parse(bundle).unwrap();
    assert_eq!(bundle.device_cas, [fleet.ca()]);
}

#[tokio::test]
async fn metadata_by_a_wrong_key_is_refused() {
    let fleet = Fleet::start();
    let image = Image::of("vision/digits", "2", b"weights");
    image.push(&fleet, "vision/digits", "2").await;

    for wrong in ["publisher-fraud-1.pem", "revocations-1.pem", "root-1.pem"] {
        let draft = draft(&fleet, 1, &[("2", &image)]).await;
        let refused = upload(&fleet, sign(draft, &key(&fleet.offline(), wrong))).await;
        assert_eq!(code(refused).await, "tuf.delegated.threshold", "{wrong}");
    }

    let version = fleet.get("/api/v1/models/vision/digits/versions/2").await;
    assert_eq!(version["state"], "unsigned");
}

#[tokio::test]
async fn metadata_that_goes_back_or_names_unknown_images_is_refused() {
    let fleet = Fleet::start();
    let image = Image::of("vision/digits", "2", b"weights");
    let publisher = publisher(&fleet);
    let unknown = sign(draft(&fleet, 1, &[("2", &image)]).await, &publisher);
    assert_eq!(code(upload(&fleet, unknown.clone()).await).await, "trust.image");
    image.push(&fleet, "vision/digits", "2").await;
    assert_eq!(upload(&fleet, unknown.clone()).await.status(), 204);

    let again = upload(&fleet, unknown).await;

    assert_eq!(code(again).await, "tuf.delegated.version");
    let other = Image::of("vision/digits", "2", b"other");
    let swapped = sign(draft(&fleet, 2, &[("2", &other)]).await, &publisher);
    assert_eq!(code(upload(&fleet, swapped).await).await, "trust.image");
}

#[tokio::test]
async fn a_withdrawn_version_is_unsigned_again() {
    let fleet = Fleet::start();
    let image = Image::of("vision/digits", "2", b"weights");
    image.push(&fleet, "vision/digits", "2").await;
    let publisher = publisher(&fleet);
    upload(&fleet, sign(draft(&fleet, 1, &[("2", &image)]).await, &publisher)).await;

    let mut withdrawn = draft(&fleet, 2, &[]).await;
    assert!(withdrawn.remove("models/vision/digits/2"));
    assert_eq!(upload(&fleet, sign(withdrawn, &publisher)).await.status(), 204);

    let version = fleet.get("/api/v1/models/vision/digits/versions/2").await;
    assert_eq!(version["state"], "unsigned");
}

/// A schema of its own in the database, so that servers do not share it.
async fn schema(url: &str) -> String {
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(url).await.unwrap();
    let name = format!("edge_{}", now().0);
    let create = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {name}"));
    sqlx::query(create).execute(&mut connection).await.unwrap();
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("[store]\nurl = \"{url}{separator}options[search_path]={name}\"\n")
}

#[tokio::test]
#[ignore = "needs SEALIFT_POSTGRES_URL"]
async fn a_version_is_pushed_signed_and_verified_on_postgresql() {
    let url = std::env::var("SEALIFT_POSTGRES_URL").unwrap();
    let fleet = Fleet::start_with(&schema(&url).await);
    let device = fleet.enrol("cam-1").await;
    let image = Image::of("vision/digits", "2", b"weights");
    image.push(&fleet, "vision/digits", "2").await;

    let draft = draft(&fleet, 1, &[("2", &image)]).await;
    assert_eq!(upload(&fleet, sign(draft, &publisher(&fleet))).await.status(), 204);

    let model = fleet.get("/api/v1/models/vision/digits").await;
    assert_eq!(model["versions"][0]["state"], "signed");
    verify(&fleet, &device, Want::Entry("models/vision/digits/2".to_owned())).await;
    let tokens = fleet.get("/api/v1/enrol-tokens").await;
    assert_eq!(tokens["items"][0]["uses_left"], 0);
}

#[tokio::test]
async fn a_deny_list_is_published_with_its_file() {
    let fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let mut revocations = Revocations::default();
    revocations.images.insert(Digest::of(b"bad image"));
    let file = revocations.to_bytes();
    let current = fleet.api(Method::GET, "/tuf/1.revocations.json").send().await.unwrap();
    let role = Role::Delegated(REVOCATIONS_ROLE.to_owned());
    let key = key(&fleet.offline(), "revocations-1.pem");
    let current = current.bytes().await.unwrap().to_vec();
    let mut draft = TargetsDraft::next(role, current, &[key.public()]).unwrap();
    draft.set(REVOCATIONS_PATH, TargetFile::of(&file));
    let metadata = STANDARD.encode(sign(draft, &key));
    let files = BTreeMap::from([(REVOCATIONS_PATH, STANDARD.encode(&file))]);
    let body = serde_json::json!({ "metadata": metadata, "files": files });

    let put = fleet.api(Method::PUT, "/api/v1/trust/roles/revocations");
    let put = put.header("content-type", "application/vnd.sealift.trust-upload+json");
    let answer = put.body(serde_json::to_vec(&body).unwrap()).send().await.unwrap();

    assert_eq!(answer.status(), 204, "{}", answer.text().await.unwrap());
    let verifier = verify(&fleet, &device, Want::File(REVOCATIONS_PATH.to_owned())).await;
    assert_eq!(verifier.file(REVOCATIONS_PATH).unwrap(), file);
    let roles = fleet.get("/api/v1/trust/roles").await;
    let versions: Vec<_> = roles["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|role| (role["name"].as_str().unwrap(), role["version"].as_u64().unwrap()))
        .collect();
    assert!(versions.contains(&("revocations", 2)), "{versions:?}");
}

#[tokio::test]
async fn a_team_that_is_no_longer_trusted_takes_its_versions_with_it() {
    let fleet = Fleet::start();
    publish(&fleet).await;
    let mut number = 1;
    let targets = loop {
        let path = format!("/tuf/{}.targets.json", number + 1);
        if !fleet.api(Method::GET, &path).send().await.unwrap().status().is_success() {
            let path = format!("/tuf/{number}.targets.json");
            break fleet.api(Method::GET, &path).send().await.unwrap().bytes().await.unwrap();
        }
        number += 1;
    };
    let holders = [1, 2].map(|n| key(&fleet.offline(), &format!("targets-{n}.pem")));
    let public = holders.each_ref().map(SigningKey::public);
    let mut draft = TargetsDraft::next(Role::Targets, targets.to_vec(), &public).unwrap();
    assert!(draft.undelegate(ROLE));
    let signed = draft.sign(now().plus(1_000_000), &holders.each_ref()).unwrap();

    let put = fleet.api(Method::PUT, "/api/v1/trust/roles/targets").body(signed);
    assert_eq!(put.send().await.unwrap().status(), 204);

    let version = fleet.get("/api/v1/models/vision/digits/versions/2").await;
    assert_eq!(version["state"], "unsigned");
}

#[tokio::test]
async fn a_restarted_server_has_the_same_ports_identity_and_trust() {
    let mut fleet = Fleet::start();
    let device = fleet.enrol("cam-1").await;
    let image = Image::of("vision/digits", "2", b"weights");
    image.push(&fleet, "vision/digits", "2").await;

    fleet.restart();

    let draft = draft(&fleet, 1, &[("2", &image)]).await;
    assert_eq!(upload(&fleet, sign(draft, &publisher(&fleet))).await.status(), 204);
    verify(&fleet, &device, Want::Entry("models/vision/digits/2".to_owned())).await;
}

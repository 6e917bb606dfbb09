//! A fleet server as a device sees it: HTTPS, TUF metadata, blobs and a directive, all signed with keys of the test's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use ed25519_dalek::SigningKey as DirectorKey;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use sealift_protocol::api::{EnrolRequest, EnrolResponse};
use sealift_protocol::codec;
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{
    Approval, Cosignature, DesiredSlot, Directive, Trial, target_path,
};
use sealift_protocol::id::{
    DeviceId, Epoch, Generation, ModelName, RolloutId, TeamId, TenantId, UnixMillis, Version,
};
use sealift_protocol::image::{
    Accelerator, Descriptor, Golden, ImageManifest, Layer, LayerKind, ModelConfig, ModelDescriptor,
    ModelIndex, OnRevoked, Policy, Variant, media_type,
};
use sealift_protocol::tuf::bundle::{Director, Revocations, TrustBundle};
use sealift_protocol::tuf::key::SigningKey;
use sealift_protocol::tuf::metadata::TargetFile;
use sealift_protocol::tuf::repository::{
    CeremonyKeys, Change, Lifetimes, OnlineKeys, Repository, RootDraft, TargetsDraft, ceremony,
};
use sealift_protocol::tuf::{REVOCATIONS_PATH, REVOCATIONS_ROLE, Role, publisher_role};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(super) struct Fleet {
    pub(super) url: String,
    authority: Arc<Authority>,
    keys: CeremonyKeys,
    director: DirectorKey,
    repository: Repository,
    served: Served,
    /// What images pushed from now on want to happen when they are revoked.
    pub(super) on_revoked: OnRevoked,
}

/// What the server has, shared with its handlers.
type Served = Arc<Mutex<Files>>;

#[derive(Default)]
pub(super) struct Files {
    tuf: BTreeMap<String, Vec<u8>>,
    pub(super) blobs: BTreeMap<String, Vec<u8>>,
    directive: Option<Vec<u8>>,
    /// Blobs that were fetched, in order.
    pub(super) fetched: Vec<String>,
    /// The server ends the next blob after this many bytes.
    pub(super) cut: Option<usize>,
    enrolment: Option<(Arc<Authority>, String)>,
}

struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

pub(super) fn now() -> UnixMillis {
    crate::clock::system_time()
}

pub(super) fn model() -> ModelName {
    ModelName::parse("vision/digits").unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Authority { certificate, issuer: Issuer::new(params, key) }
}

impl Fleet {
    pub(super) async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let authority = Arc::new(authority());
        let director = Self::director_key();
        let keys = CeremonyKeys {
            root: [key(1), key(2), key(3)],
            targets: [key(4), key(5), key(6)],
            snapshot: key(7),
            timestamp: key(8),
            team: TeamId::parse("vision").unwrap(),
            publisher: key(10),
            revocations: key(11),
            runtime: [key(12), key(13), key(14)],
        };
        let trusted = Director::new(director.verifying_key()).unwrap();
        let mut bundle =
            TrustBundle::new(vec![trusted], vec![authority.certificate.pem()], Vec::new()).unwrap();
        bundle.operators =
            Director::new(Self::operator_key().verifying_key()).into_iter().collect();
        let repository = ceremony(&keys, &bundle, Lifetimes::ONLINE, now()).unwrap();
        let served = Served::default();
        let listener = TlsListener::bind(&authority).await;
        let url = format!("https://localhost:{}", listener.tcp.local_addr().unwrap().port());
        tokio::spawn(axum::serve(listener, router(Arc::clone(&served))).into_future());
        let on_revoked = OnRevoked::default();
        let fleet = Self { url, authority, keys, director, repository, served, on_revoked };
        let root = fleet.repository.files()["1.root.json"].clone();
        let root = String::from_utf8(root).unwrap();
        let mut files = fleet.files();
        files.tuf = fleet.repository.files().clone();
        files.enrolment = Some((Arc::clone(&fleet.authority), root));
        drop(files);
        fleet
    }

    pub(super) fn director_key() -> DirectorKey {
        DirectorKey::from_bytes(&[9; 32])
    }

    pub(super) fn operator_key() -> DirectorKey {
        DirectorKey::from_bytes(&[12; 32])
    }

    pub(super) fn campaign() -> Digest {
        Digest::of(b"everything that was asked for")
    }

    /// The word of whoever has `key` for an image.
    pub(super) fn approval(version: &str, index: Digest, key: &DirectorKey) -> Cosignature {
        let (tenant, model) = (TenantId::parse("main").unwrap(), model());
        let (version, campaign) = (Version::parse(version).unwrap(), Self::campaign());
        Approval { tenant, campaign, model, version, index }.sign(key).unwrap()
    }

    pub(super) fn approved(slot: DesiredSlot, cosignature: Cosignature) -> DesiredSlot {
        let (campaign, cosignature) = (Some(Self::campaign()), Some(cosignature));
        DesiredSlot { campaign, cosignature, ..slot }
    }

    pub(super) fn files(&self) -> MutexGuard<'_, Files> {
        self.served.lock().unwrap()
    }

    pub(super) fn token(&self) -> String {
        let root = self.files().tuf["1.root.json"].clone();
        let authority = Digest::of(self.authority.certificate.der());
        format!("sle1.c2VjcmV0.{}.{}", authority.hex(), Digest::of(&root).hex())
    }

    /// Pushes the fixture under a version and has the publisher sign it.
    pub(super) fn publish(&mut self, version: &str, epoch: u64) -> Digest {
        let index = self.push(version);
        let bytes = self.files().blobs[&index.to_string()].clone();
        self.sign(version, TargetFile::of_model(&bytes, Epoch(epoch)), 90);
        index
    }

    /// The same for another model.
    pub(super) fn publish_as(&mut self, model: &ModelName, version: &str) -> Digest {
        let index = self.push_as(model, version);
        let bytes = self.files().blobs[&index.to_string()].clone();
        let path = target_path(model, &Version::parse(version).unwrap());
        self.sign_path(&path, TargetFile::of_model(&bytes, Epoch(1)), 90);
        index
    }

    /// Has the publisher sign a target that is valid for so many days from now.
    pub(super) fn sign(&mut self, version: &str, target: TargetFile, days: i64) {
        let path = target_path(&model(), &Version::parse(version).unwrap());
        self.sign_path(&path, target, days);
    }

    pub(super) fn sign_path(&mut self, path: &str, target: TargetFile, days: i64) {
        let role = publisher_role(&self.keys.team);
        let current = self.repository.delegated(&role).unwrap().to_vec();
        let signer = &self.keys.publisher;
        let delegated = Role::Delegated(role.clone());
        let mut draft = TargetsDraft::next(delegated, current, &[signer.public()]).unwrap();
        draft.set(path, target);
        let expires = now().plus(days * 86_400_000);
        let metadata = draft.sign(expires, &[signer]).unwrap();
        let online = OnlineKeys { snapshot: &self.keys.snapshot, timestamp: &self.keys.timestamp };
        // The repository would not take what has expired; an attacker's would.
        let then = now().plus(days.min(0) * 2 * 86_400_000);
        self.repository.accept(Change::of(&role, metadata), online, then).unwrap();
        let files = self.repository.files().clone();
        self.files().tuf = files;
    }

    /// Root's holders take the timestamp's key away and give it another.
    pub(super) fn rotate_timestamp_key(&mut self) {
        self.keys.timestamp = key(21);
        let mut draft = RootDraft::after(self.repository.root().clone());
        let one = std::num::NonZeroU32::MIN;
        draft.set_keys(&Role::Timestamp, &[self.keys.timestamp.public()], one).unwrap();
        let holders: Vec<_> = self.keys.root.iter().collect();
        let root = draft.sign(now().plus(86_400_000), &holders).unwrap();
        let online = OnlineKeys { snapshot: &self.keys.snapshot, timestamp: &self.keys.timestamp };
        self.repository.accept(Change::of(Role::Root.name(), root), online, now()).unwrap();
        let files = self.repository.files().clone();
        self.files().tuf = files;
    }

    /// Puts an image on the deny list.
    pub(super) fn revoke(&mut self, image: Digest) {
        self.deny(|list| {
            list.images.insert(image);
        });
    }

    /// Puts the director's key on the deny list.
    pub(super) fn revoke_director(&mut self) {
        let director = Director::new(self.director.verifying_key()).unwrap();
        self.deny(|list| {
            list.directors.insert(director.keyid().clone());
        });
    }

    fn deny(&mut self, change: impl FnOnce(&mut Revocations)) {
        let current = self.repository.delegated(REVOCATIONS_ROLE).unwrap().to_vec();
        let signer = &self.keys.revocations;
        let role = Role::Delegated(REVOCATIONS_ROLE.to_owned());
        let mut draft = TargetsDraft::next(role, current, &[signer.public()]).unwrap();
        let mut revocations = Revocations::default();
        change(&mut revocations);
        let bytes = revocations.to_bytes();
        draft.set(REVOCATIONS_PATH, TargetFile::of(&bytes));
        let metadata = draft.sign(now().plus(86_400_000), &[signer]).unwrap();
        let files = BTreeMap::from([(REVOCATIONS_PATH.to_owned(), bytes)]);
        let change = Change::of(REVOCATIONS_ROLE, metadata).with_files(files);
        let online = OnlineKeys { snapshot: &self.keys.snapshot, timestamp: &self.keys.timestamp };
        self.repository.accept(change, online, now()).unwrap();
        let files = self.repository.files().clone();
        self.files().tuf = files;
    }

    /// Replaces a file of the metadata as an attacker in the middle would.
    pub(super) fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.files().tuf.get_mut(name).unwrap());
    }

    /// Pushes the fixture under a version; nobody signs it.
    pub(super) fn push(&mut self, version: &str) -> Digest {
        self.push_as(&model(), version)
    }

    fn push_as(&mut self, model: &ModelName, version: &str) -> Digest {
        let layers = layers(self.on_revoked);
        let described: Vec<_> = layers.iter().map(|(layer, _)| layer.clone()).collect();
        let descriptor = ModelDescriptor {
            name: model.clone(),
            version: Version::parse(version).unwrap(),
            family: String::new(),
            description: String::new(),
            licenses: Vec::new(),
        };
        let config = ModelConfig::onnx(descriptor, "fp32", &described).write();
        let described_config = Descriptor::of(media_type::CONFIG, &config);
        let manifest = ImageManifest::write(described_config, &described);
        let variant = Variant {
            manifest: Descriptor::of(media_type::MANIFEST, &manifest),
            platform: None,
            accelerator: Accelerator::Cpu,
            precision: "fp32".to_owned(),
            min_memory_mb: 0,
        };
        let index = ModelIndex::write(&[variant]);
        let digest = Digest::of(&index);
        let blobs = layers.into_iter().map(|(_, bytes)| bytes).chain([config, manifest, index]);
        for bytes in blobs {
            self.files().blobs.insert(Digest::of(&bytes).to_string(), bytes);
        }
        digest
    }

    /// The server keeps everything to itself, as one that cannot be reached.
    pub(super) fn withhold(&self) -> BTreeMap<String, Vec<u8>> {
        std::mem::take(&mut self.files().tuf)
    }

    /// Signs and offers a directive for the device of the stories.
    pub(super) fn direct(&self, generation: u64, version: &str, index: Digest) {
        let message = self.directive("cam-1", generation, version, index);
        self.offer(message);
    }

    pub(super) fn offer(&self, message: Vec<u8>) {
        self.files().directive = Some(message);
    }

    /// The slot of a directive that asks for a version of the model of the stories.
    pub(super) fn slot(version: &str, index: Digest) -> DesiredSlot {
        let trial = Trial { probation_s: 1, watch_s: 3_600, ..Trial::default() };
        let slot = DesiredSlot::new(model(), Version::parse(version).unwrap(), index);
        DesiredSlot { epoch: Epoch(1), trial, rollout: Some(RolloutId(1)), ..slot }
    }

    /// Signs and offers a directive whose slot says more.
    pub(super) fn direct_with(
        &self,
        generation: u64,
        version: &str,
        index: Digest,
        more: impl FnOnce(DesiredSlot) -> DesiredSlot,
    ) {
        let slot = more(Self::slot(version, index));
        self.offer(self.directive_of("cam-1", generation, vec![slot]));
    }

    pub(super) fn directive_of(
        &self,
        device: &str,
        generation: u64,
        slots: Vec<DesiredSlot>,
    ) -> Vec<u8> {
        let window = (now().plus(-1_000), now().plus(86_400_000));
        self.directive_at(device, generation, slots, window)
    }

    pub(super) fn directive_at(
        &self,
        device: &str,
        generation: u64,
        slots: Vec<DesiredSlot>,
        window: (UnixMillis, UnixMillis),
    ) -> Vec<u8> {
        let whom = (TenantId::parse("main").unwrap(), DeviceId::parse(device).unwrap());
        let directive = Directive::new(whom, Generation(generation), window, slots);
        directive.sign(&self.director).unwrap()
    }

    pub(super) fn directive(
        &self,
        device: &str,
        generation: u64,
        version: &str,
        index: Digest,
    ) -> Vec<u8> {
        self.directive_of(device, generation, vec![Self::slot(version, index)])
    }
}

/// The layers of the fixture, each with its bytes.
fn layers(on_revoked: OnRevoked) -> Vec<(Layer, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/digits/v1");
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let golden = codec::encode(&Golden { schema: 1, cases: Vec::new() }).unwrap();
    let files = [
        (LayerKind::Weights, "model.onnx", read("model.onnx")),
        (LayerKind::Contract, "contract.json", read("contract.json")),
        (LayerKind::Golden, "golden.cbor", golden),
    ];
    let policy = serde_json::to_vec(&Policy { on_revoked, ..Policy::default() }).unwrap();
    let policy =
        (on_revoked != OnRevoked::default()).then_some((LayerKind::Policy, "policy.json", policy));
    let layer = |(kind, name, bytes): (LayerKind, &str, Vec<u8>)| {
        let blob = Descriptor::of(kind.media_type(), &bytes);
        (Layer { kind, name: name.to_owned(), blob }, bytes)
    };
    files.into_iter().chain(policy).map(layer).collect()
}

pub(super) fn weights() -> String {
    Digest::of(&layers(OnRevoked::default())[0].1).to_string()
}

fn router(served: Served) -> Router {
    Router::new()
        .route("/enrol", post(enrol))
        .route("/directive", get(directive))
        .route("/tuf/{*name}", get(metadata))
        .route("/v2/{team}/{name}/manifests/{digest}", get(blob))
        .route("/v2/{team}/{name}/blobs/{digest}", get(blob))
        .with_state(served)
}

async fn enrol(State(served): State<Served>, body: Bytes) -> Result<Vec<u8>, StatusCode> {
    let request: EnrolRequest = serde_json::from_slice(&body).unwrap();
    let enrolment = served.lock().unwrap().enrolment.clone();
    let (authority, tuf_root) = enrolment.ok_or(StatusCode::UNAUTHORIZED)?;
    let csr = CertificateSigningRequestParams::from_pem(&request.csr_pem).unwrap();
    let certificate = csr.signed_by(&authority.issuer).unwrap();
    let response = EnrolResponse {
        tenant: TenantId::parse("main").unwrap(),
        device: request.device,
        certificate_pem: certificate.pem(),
        ca_pem: authority.certificate.pem(),
        tuf_root,
        mqtt: "localhost:1".to_owned(),
        labels: BTreeMap::new(),
    };
    Ok(serde_json::to_vec(&response).unwrap())
}

async fn directive(State(served): State<Served>) -> Result<Vec<u8>, StatusCode> {
    served.lock().unwrap().directive.clone().ok_or(StatusCode::NO_CONTENT)
}

async fn metadata(
    State(served): State<Served>,
    UrlPath(name): UrlPath<String>,
) -> Result<Vec<u8>, StatusCode> {
    served.lock().unwrap().tuf.get(&name).cloned().ok_or(StatusCode::NOT_FOUND)
}

async fn blob(
    State(served): State<Served>,
    UrlPath((_, _, digest)): UrlPath<(String, String, String)>,
    headers: HeaderMap,
) -> Result<(StatusCode, Vec<u8>), StatusCode> {
    let mut files = served.lock().unwrap();
    let mut bytes = files.blobs.get(&digest).cloned().ok_or(StatusCode::NOT_FOUND)?;
    let range = headers.get("range").and_then(|range| range.to_str().ok()).map(str::to_owned);
    files.fetched.push(format!("{digest} {}", range.as_deref().unwrap_or("all")));
    let from: Option<usize> =
        range.map(|range| range["bytes=".len()..range.len() - 1].parse().unwrap());
    if let Some(from) = from {
        bytes.drain(..from);
    }
    if digest == weights()
        && let Some(cut) = files.cut.take()
    {
        bytes.truncate(cut);
    }
    Ok((if from.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK }, bytes))
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl TlsListener {
    async fn bind(authority: &Authority) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        let chain = vec![certificate.der().clone(), authority.certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(chain, key).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, address)) = self.tcp.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

//! A server that owns every key of a small fleet, and answers as badly as a story wants: what it signs is what a hostile publisher
//! might, and what it sends is what a hostile network might.
//!
//! ```text
//!  agent ──HTTPS──▶ Origin: enrolment, metadata, directive, blobs      (all signatures are right)
//!        ──HTTP───▶ peers: blobs alone                                  (each with a conduct of its own)
//! ```

mod image;
mod wire;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use ed25519_dalek::SigningKey as DirectorKey;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::PrivateKeyDer;
use sealift_protocol::api::{EnrolRequest, EnrolResponse};
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{DesiredSlot, Directive, Trial, target_path};
use sealift_protocol::id::{
    DeviceId, Epoch, Generation, ModelName, TeamId, TenantId, UnixMillis, Version,
};
use sealift_protocol::report::Report;
use sealift_protocol::tuf::bundle::{Director, TrustBundle};
use sealift_protocol::tuf::key::SigningKey;
use sealift_protocol::tuf::metadata::TargetFile;
use sealift_protocol::tuf::repository::{
    CeremonyKeys, Change, Lifetimes, OnlineKeys, Repository, TargetsDraft, ceremony,
};
use sealift_protocol::tuf::{Role, publisher_role};

use crate::fleet::{Device, WayIn};
use crate::https::acceptor;

pub use image::{Built, Image};
pub use wire::{Asked, Conduct, Wire};

/// The device that directives are for.
pub const DEVICE: &str = "cam-1";

const HOUR_MS: i64 = 3_600_000;

/// The server.
pub struct Origin {
    /// Its answers.
    pub wire: Wire,
    authority: Arc<Authority>,
    keys: CeremonyKeys,
    director: DirectorKey,
    repository: Repository,
    generation: u64,
}

struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// What a directive asks for.
pub struct Wanted<'a> {
    /// The image's model.
    pub model: &'a ModelName,
    /// Its version.
    pub version: &'a str,
    /// Its digest.
    pub index: Digest,
}

impl<'a> Wanted<'a> {
    /// An image and its digest.
    pub const fn new(image: &'a Image, built: &Built) -> Self {
        Self { model: &image.model, version: image.version.as_str(), index: built.index }
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn now() -> anyhow::Result<UnixMillis> {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(UnixMillis(i64::try_from(elapsed.as_millis())?))
}

impl Origin {
    /// Makes all keys, and listens.
    pub async fn start() -> anyhow::Result<Self> {
        let authority = Arc::new(Authority::new()?);
        let director = DirectorKey::from_bytes(&[9; 32]);
        let keys = CeremonyKeys {
            root: [key(1), key(2), key(3)],
            targets: [key(4), key(5), key(6)],
            snapshot: key(7),
            timestamp: key(8),
            team: TeamId::parse("vision")?,
            publisher: key(10),
            revocations: key(11),
            runtime: [key(12), key(13), key(14)],
        };
        let trusted = Director::new(director.verifying_key()).context("a director's key")?;
        let authorities = vec![authority.certificate.pem()];
        let bundle = TrustBundle::new(vec![trusted], authorities, Vec::new())?;
        let repository = ceremony(&keys, &bundle, Lifetimes::ONLINE, now()?)?;
        let root = repository.files().get("1.root.json").context("a root")?.clone();
        let root = String::from_utf8(root)?;
        let enrolling = Arc::clone(&authority);
        let post = Arc::new(move |body: &[u8]| enrolling.enrol(body, &root));
        let wire = Wire::listen(Some(authority.tls()?), Some(post)).await?;
        let origin = Self { wire, authority, keys, director, repository, generation: 0 };
        origin.show_metadata();
        Ok(origin)
    }

    /// Its address for devices.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.wire.port())
    }

    /// A server beside it, without TLS, that has everything of one image.
    pub async fn peer_with(built: &Built) -> anyhow::Result<Wire> {
        let peer = Wire::listen(None, None).await?;
        peer.show(built);
        Ok(peer)
    }

    /// Enrols a device whose store is `store`, and starts its agent with more lines in its configuration.
    pub async fn device(
        &self,
        directory: &Path,
        store: &Path,
        lines: &str,
    ) -> anyhow::Result<Device> {
        let root = self.repository.files().get("1.root.json").context("a root")?;
        let authority = Digest::of(self.authority.certificate.der());
        let token = format!("sle1.c2VjcmV0.{}.{}", authority.hex(), Digest::of(root).hex());
        let configuration =
            format!("serve_listen = \"127.0.0.1:0\"\nengine = \"fake\"\npoll_s = 1\n{lines}");
        let way_in = WayIn { url: &self.url(), token: &token };
        Device::join(way_in, directory, store, &configuration).await
    }

    /// Pushes an image and has its publisher sign it, whatever it is.
    pub fn publish(&mut self, image: &Image) -> anyhow::Result<Built> {
        let built = image.build()?;
        let index = built.blobs.last().context("an index")?;
        let path = target_path(&image.model, &Version::parse(&image.version)?);
        self.sign(&path, TargetFile::of_model(index, Epoch(image.epoch)))?;
        self.wire.show(&built);
        Ok(built)
    }

    /// Asks the device for these images, under the next generation.
    pub fn direct(&mut self, wanted: &[Wanted<'_>]) -> anyhow::Result<Generation> {
        self.generation += 1;
        let slot = |wanted: &Wanted<'_>| {
            let version = Version::parse(wanted.version)?;
            let trial = Trial { probation_s: 1, watch_s: 3_600, ..Trial::default() };
            let slot = DesiredSlot::new(wanted.model.clone(), version, wanted.index);
            anyhow::Ok(DesiredSlot { epoch: Epoch(1), trial, ..slot })
        };
        let slots = wanted.iter().map(slot).collect::<anyhow::Result<Vec<_>>>()?;
        let whom = (TenantId::parse("main")?, DeviceId::parse(DEVICE)?);
        let window = (now()?.plus(-1_000), now()?.plus(24 * HOUR_MS));
        let generation = Generation(self.generation);
        let directive = Directive::new(whom, generation, window, slots).sign(&self.director)?;
        self.wire.files().documents.insert("/directive".to_owned(), Arc::new(directive));
        Ok(generation)
    }

    /// The newest generation that was asked for.
    pub const fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    fn sign(&mut self, path: &str, target: TargetFile) -> anyhow::Result<()> {
        let role = publisher_role(&self.keys.team);
        let current = self.repository.delegated(&role).context("a publisher")?.to_vec();
        let signer = &self.keys.publisher;
        let delegated = Role::Delegated(role.clone());
        let mut draft = TargetsDraft::next(delegated, current, &[signer.public()])?;
        draft.set(path, target);
        let metadata = draft.sign(now()?.plus(24 * HOUR_MS), &[signer])?;
        let online = OnlineKeys { snapshot: &self.keys.snapshot, timestamp: &self.keys.timestamp };
        self.repository.accept(Change::of(&role, metadata), online, now()?)?;
        self.show_metadata();
        Ok(())
    }

    fn show_metadata(&self) {
        let metadata = self.repository.files().iter();
        let metadata =
            metadata.map(|(name, bytes)| (format!("/tuf/{name}"), Arc::new(bytes.clone())));
        self.wire.files().documents.extend(metadata);
    }
}

impl Authority {
    fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    fn tls(&self) -> anyhow::Result<tokio_rustls::TlsAcceptor> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec!["localhost".to_owned()])?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = vec![certificate.der().clone(), self.certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        acceptor(chain, key)
    }

    fn enrol(&self, body: &[u8], root: &str) -> anyhow::Result<Vec<u8>> {
        let request: EnrolRequest = serde_json::from_slice(body)?;
        let csr = CertificateSigningRequestParams::from_pem(&request.csr_pem)?;
        let certificate = csr.signed_by(&self.issuer)?;
        let response = EnrolResponse {
            tenant: TenantId::parse("main")?,
            device: request.device,
            certificate_pem: certificate.pem(),
            ca_pem: self.certificate.pem(),
            tuf_root: root.to_owned(),
            // No broker: the directive comes over HTTPS.
            mqtt: "localhost:1".to_owned(),
            labels: std::collections::BTreeMap::new(),
        };
        Ok(serde_json::to_vec(&response)?)
    }
}

/// What a device reports of a model.
pub fn reported(
    report: &Report,
    model: &ModelName,
) -> Option<sealift_protocol::report::SlotReport> {
    report.slots.iter().find(|slot| slot.model == *model).cloned()
}

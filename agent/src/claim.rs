//! Enrolment by a claim: the device makes its key, asks, and waits until somebody approves it; over restarts, too.
//!
//! What it waits with is `pending.json` in its store: the claim, the name of its key, and as whom it asks. It ends with the identity.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sealift_protocol::api::{ClaimAnswer, ClaimFile, ClaimRequest};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::DeviceId;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::device::pause_ms;
use crate::disk::{self, Secrecy};
use crate::enrol::{self, EnrolError, Promise};
use crate::identity::Identity;
use crate::key::{self, Key};
use crate::origin::{Origin, OriginError};
use crate::verify::spread_permille;

const FILE: &str = "pending.json";

/// A claim's file: two certificates, a key and a few names.
const BYTES_MAX: u64 = 256 << 10;

/// Two certificates, a root and a few names.
const RESPONSE_BYTES_MAX: usize = 2 << 20;

/// Longest pause between two questions: people decide, and the fleet's queue is looked at by all of a batch.
const PAUSE_MAX_MS: i64 = 5 * 60_000;

/// Refusals that asking again does not change.
const FINAL: [&str; 8] = [
    "enrol.no-claim",
    "enrol.claim-revoked",
    "enrol.claim-expired",
    "enrol.denied",
    "enrol.device-taken",
    "enrol.serial-used",
    "enrol.serial-bound",
    "enrol.terms",
];

/// By which claim, and as whom to ask.
#[derive(Debug, Clone)]
pub struct Claim {
    /// What `fleetctl enrol claim create` has written.
    pub file: PathBuf,
    /// The id that the device would like; by its serial number if not given.
    pub device: Option<DeviceId>,
    /// Its serial number.
    pub serial: Option<String>,
    /// The token to make the key on; a file of the store if not given.
    pub key_on: Option<String>,
}

/// A device that waits.
#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    claim: ClaimFile,
    key: String,
    device: Option<DeviceId>,
    serial: Option<String>,
}

/// Whether the device in `store` waits to be approved.
pub fn is_pending(store: &Path) -> bool {
    store.join(FILE).exists() && Identity::load(store).is_err()
}

/// Begins to ask, and waits. A device that waits already goes on with the key that it has.
pub async fn enrol(store: &Path, claim: &Claim, stop: CancellationToken) -> Result<(), EnrolError> {
    if Identity::load(store).is_ok() {
        return Err(EnrolError::AlreadyEnrolled(store.to_owned()));
    }
    if !is_pending(store) {
        let file = read(&claim.file)?.ok_or_else(|| EnrolError::NoClaim(claim.file.clone()))?;
        let file = serde_json::from_slice(&file);
        let file = file.map_err(|_| EnrolError::NoClaim(claim.file.clone()))?;
        let key = Key::make(store, claim.key_on.as_deref().unwrap_or_default())?.name().to_owned();
        let (device, serial) = (claim.device.clone(), claim.serial.clone());
        let pending = Pending { claim: file, key, device, serial };
        let text = serde_json::to_vec(&pending).map_err(|error| at(FILE, error.into()))?;
        disk::replace(&store.join(FILE), &text, Secrecy::Private)
            .map_err(|error| at(FILE, error))?;
    }
    wait(store, stop).await
}

/// Goes on asking, until the device is enrolled, somebody says no, or `stop` is cancelled.
pub async fn wait(store: &Path, stop: CancellationToken) -> Result<(), EnrolError> {
    let path = store.join(FILE);
    let text = read(&path)?.ok_or_else(|| EnrolError::NoClaim(path.clone()))?;
    let pending: Pending =
        serde_json::from_slice(&text).map_err(|_| EnrolError::NoClaim(path.clone()))?;
    let key = Key::open(store, &pending.key)?.ok_or_else(|| EnrolError::NoClaim(path.clone()))?;
    let promise =
        Promise { authority: pending.claim.ca_sha256, root: pending.claim.tuf_root_sha256 };
    let request = ClaimRequest {
        device: pending.device.clone(),
        serial: pending.serial.clone(),
        csr_pem: key.request()?,
    };
    let fingerprint = Digest::of(key.public());
    let mut tries = 0;
    loop {
        match ask(&pending.claim, promise, &request).await {
            Ok(ClaimAnswer::Enrolled(response)) => {
                let url = pending.claim.url.trim_end_matches('/');
                enrol::keep(store, url, promise, *response, &key)?;
                disk::remove(&path).map_err(|error| at(FILE, error))?;
                return Ok(());
            }
            Ok(ClaimAnswer::Waiting { id }) => {
                tracing::info!(id, key = %fingerprint, "waiting for somebody to approve this device");
            }
            Err(error) if error.code().is_some_and(|code| FINAL.contains(&code)) => {
                return Err(EnrolError::Server(error.to_string()));
            }
            Err(error) => tracing::warn!(%error, "fleet server does not answer the claim yet"),
        }
        tries += 1;
        let pause_ms = pause_ms(tries, spread_permille()).min(PAUSE_MAX_MS);
        let pause = Duration::from_millis(u64::try_from(pause_ms).unwrap_or(0));
        tokio::select! {
            () = tokio::time::sleep(pause) => (),
            () = stop.cancelled() => return Err(EnrolError::Stopped),
        }
    }
}

async fn ask(
    claim: &ClaimFile,
    promise: Promise,
    request: &ClaimRequest,
) -> Result<ClaimAnswer, OriginError> {
    let tls = tls(claim, promise).ok_or_else(|| OriginError::Setup("the claim".to_owned()))?;
    let answer = Origin::new(&claim.url, tls)?.post("/claim", request, RESPONSE_BYTES_MAX).await?;
    serde_json::from_slice(&answer)
        .map_err(|_| OriginError::Unreachable("its answer cannot be read".to_owned()))
}

fn tls(claim: &ClaimFile, promise: Promise) -> Option<Arc<ClientConfig>> {
    let chain = CertificateDer::pem_slice_iter(claim.certificate_pem.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_slice(claim.key_pem.as_bytes()).ok()?;
    let config = enrol::pinned(promise.authority).with_client_auth_cert(chain, key);
    config.ok().map(Arc::new)
}

/// Rule: the claim's key is a secret, as the device's own is.
fn read(path: &Path) -> Result<Option<Vec<u8>>, EnrolError> {
    Ok(key::read_secret(path, BYTES_MAX)?)
}

fn at(name: &str, source: std::io::Error) -> EnrolError {
    let path = PathBuf::from(name);
    EnrolError::Keep(crate::identity::IdentityError::Disk { path, source })
}

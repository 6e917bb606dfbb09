//! How a device gets its identity: a token, a key made here, a certificate from the fleet's authority.
//!
//! The token carries the digests of the authority and of the first TUF root, so that nothing the network says has to be believed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sealift_protocol::api::{EnrolRequest, EnrolResponse};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::DeviceId;

use crate::device::pause_ms;
use crate::disk::{self, Secrecy};
use crate::identity::{self, Identity, IdentityError};
use crate::key::{self, Key, KeyError};
use crate::origin::{Origin, OriginError};
use crate::verify::spread_permille;

/// The first word of a token: its form.
const TOKEN_FORM: &str = "sle1";

/// Two certificates, a root and a few names.
const RESPONSE_BYTES_MAX: usize = 2 << 20;

/// A server that has no turn for this device is asked again for so long: a whole batch may start behind one router.
const TURN_MAX: Duration = Duration::from_mins(15);

/// Where and as whom to enrol.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The devices' port of the fleet server.
    pub url: String,
    /// The token, as the server showed it.
    pub token: String,
    /// The id that the device would like.
    pub device: DeviceId,
    /// Whether the device has an identity already, and gets another one: it was revoked, or offline for too long.
    pub is_replacement: bool,
    /// The token to make the key on, as `pkcs11:token=…?module-path=…&pin-source=…`; a file of the store if not given.
    pub key_on: Option<String>,
}

/// Why a device was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It has an identity.
    #[error("{0} holds an enrolled device already\nhelp: `--replace` gives it a new certificate")]
    AlreadyEnrolled(std::path::PathBuf),
    /// A store holds one device for ever.
    #[error("the store holds {0}, which is replaced only under its own id")]
    AnotherDevice(DeviceId),
    /// Not the file of a claim.
    #[error(
        "{0} is not the file of a claim\nhelp: `fleetctl enrol claim create --out FILE` makes one"
    )]
    NoClaim(std::path::PathBuf),
    /// Told to stop before somebody approved the device.
    #[error("the device waits for its approval; started again, it goes on")]
    Stopped,
    /// Not a token of ours.
    #[error("token has not the form `sle1.<secret>.<digest>.<digest>`")]
    Token,
    /// The key or the request for a certificate could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The server cannot be reached, is not the one of the token, or refuses.
    #[error("fleet server does not enrol the device: {0}")]
    Server(String),
    /// The answer does not keep the promises of the token.
    #[error("answer of the server is not what the token promises: {0}")]
    Promise(&'static str),
    /// The identity cannot be kept.
    #[error("cannot keep the identity")]
    Keep(#[from] IdentityError),
    /// The TUF root cannot be kept.
    #[error("cannot keep the TUF root")]
    Root(#[source] std::io::Error),
}

/// The digests that a token promises.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promise {
    pub(crate) authority: Digest,
    pub(crate) root: Digest,
}

impl Promise {
    fn parse(token: &str) -> Result<Self, EnrolError> {
        let mut parts = token.trim().split('.');
        let mut part = || parts.next().ok_or(EnrolError::Token);
        let (form, secret, authority, root) = (part()?, part()?, part()?, part()?);
        if form != TOKEN_FORM || secret.is_empty() || parts.next().is_some() {
            return Err(EnrolError::Token);
        }
        let digest = |hex| Digest::from_hex(hex).map_err(|_| EnrolError::Token);
        Ok(Self { authority: digest(authority)?, root: digest(root)? })
    }
}

/// Enrols the device whose store is `store`.
pub async fn enrol(store: &Path, enrolment: &Enrolment) -> Result<(), EnrolError> {
    match Identity::load(store).ok() {
        Some(_) if !enrolment.is_replacement => {
            return Err(EnrolError::AlreadyEnrolled(store.to_owned()));
        }
        Some(before) if before.device != enrolment.device => {
            return Err(EnrolError::AnotherDevice(before.device));
        }
        Some(_) | None => (),
    }
    let promise = Promise::parse(&enrolment.token)?;
    let key = Key::make(store, enrolment.key_on.as_deref().unwrap_or_default())?;
    let response = ask(enrolment, promise, &key).await?;
    keep(store, enrolment.url.trim_end_matches('/'), promise, response, &key)
}

/// Keeps what the server has given to this device, if it is what was promised.
pub(crate) fn keep(
    store: &Path,
    url: &str,
    promise: Promise,
    response: EnrolResponse,
    key: &Key,
) -> Result<(), EnrolError> {
    check(&response, promise)?;
    disk::private_dir(&store.join("tuf")).map_err(EnrolError::Root)?;
    let root = store.join("tuf").join("root.json");
    // A device that comes back has followed the root's rotations; the first one would take it back.
    if Identity::load(store).is_err() || !root.exists() {
        disk::replace(&root, response.tuf_root.as_bytes(), Secrecy::Private)
            .map_err(EnrolError::Root)?;
    }
    let identity = Identity {
        tenant: response.tenant,
        device: response.device,
        url: url.to_owned(),
        mqtt: response.mqtt,
        certificate_pem: response.certificate_pem,
        key: key.name().to_owned(),
        ca_pem: response.ca_pem,
        labels: response.labels,
    };
    identity.save(store)?;
    key::tidy(store, key.name());
    tracing::info!(tenant = %identity.tenant, device = %identity.device, "device enrolled");
    Ok(())
}

async fn ask(
    enrolment: &Enrolment,
    promise: Promise,
    key: &Key,
) -> Result<EnrolResponse, EnrolError> {
    let request = key.request()?;
    let token = enrolment.token.trim().to_owned();
    let body = EnrolRequest { token, device: enrolment.device.clone(), csr_pem: request };
    let tls = Arc::new(pinned(promise.authority).with_no_client_auth());
    let refused = |error: OriginError| EnrolError::Server(error.to_string());
    let origin = Origin::new(&enrolment.url, tls).map_err(refused)?;
    let asked = in_turn(|| origin.post("/enrol", &body, RESPONSE_BYTES_MAX));
    serde_json::from_slice(&asked.await.map_err(refused)?)
        .map_err(|_| EnrolError::Server("its answer cannot be read".to_owned()))
}

/// Asks again, more and more seldom, as long as too many ask at once; any other refusal is final. Nothing was asked yet of a server that
/// takes no connection; of one that is lost later, nobody knows whether it has let the device in.
async fn in_turn<T, F>(ask: impl Fn() -> F) -> Result<T, OriginError>
where
    F: Future<Output = Result<T, OriginError>>,
{
    let mut turn = Turn::default();
    loop {
        let error = match ask().await {
            Err(error @ (OriginError::Status { status: 429, .. } | OriginError::Crowded)) => error,
            settled => return settled,
        };
        let Some(pause) = turn.pause(spread_permille()) else { return Err(error) };
        tracing::warn!(%error, pause_s = pause.as_secs(), "no turn to enrol yet; asking again");
        tokio::time::sleep(pause).await;
    }
}

/// How often and how long a device has waited for its turn.
#[derive(Debug, Default)]
struct Turn {
    tries: u32,
    waited: Duration,
}

impl Turn {
    /// How long to wait before the next try; none after the last one.
    fn pause(&mut self, spread_permille: u16) -> Option<Duration> {
        let left = TURN_MAX.checked_sub(self.waited).filter(|left| !left.is_zero())?;
        self.tries += 1;
        let pause_ms = u64::try_from(pause_ms(self.tries, spread_permille)).unwrap_or_default();
        let pause = Duration::from_millis(pause_ms).min(left);
        self.waited += pause;
        Some(pause)
    }
}

fn check(response: &EnrolResponse, promise: Promise) -> Result<(), EnrolError> {
    let authority = CertificateDer::from_pem_slice(response.ca_pem.as_bytes())
        .map_err(|_| EnrolError::Promise("its authority cannot be read"))?;
    if Digest::of(&authority) != promise.authority {
        return Err(EnrolError::Promise("it names another authority"));
    }
    if Digest::of(response.tuf_root.as_bytes()) != promise.root {
        return Err(EnrolError::Promise("it has another TUF root"));
    }
    Ok(())
}

/// TLS to a server of the authority with this digest.
pub(crate) fn pinned(authority: Digest) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let builder = ClientConfig::builder();
    let provider = builder.crypto_provider().clone();
    let pinned = Arc::new(Pinned { authority, provider });
    // Not less than the usual checks, but more: the pinned authority must be in the chain, and then they run with it alone.
    builder.dangerous().with_custom_certificate_verifier(pinned)
}

/// Accepts a server whose chain ends in the authority of this digest, and no other.
#[derive(Debug)]
struct Pinned {
    authority: Digest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = intermediates.iter().find(|shown| Digest::of(shown) == self.authority);
        let unknown = rustls::CertificateError::UnknownIssuer;
        let pinned = pinned.ok_or(rustls::Error::InvalidCertificate(unknown))?;
        let roots = Arc::new(identity::roots(std::slice::from_ref(pinned))?);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_promises_two_digests() {
        let (authority, root) = (Digest::of(b"ca"), Digest::of(b"root"));
        let token = format!("sle1.c2VjcmV0.{}.{}", authority.hex(), root.hex());
        let promise = Promise::parse(&token).unwrap();
        assert_eq!((promise.authority, promise.root), (authority, root));

        let hex = root.hex();
        for token in [
            String::new(),
            format!("sle2.s.{hex}.{hex}"),
            format!("sle1..{hex}.{hex}"),
            format!("sle1.s.{hex}"),
            format!("sle1.s.{hex}.{hex}.x"),
            format!("sle1.s.{hex}.{}", &hex[1..]),
        ] {
            assert!(Promise::parse(&token).is_err(), "{token}");
        }
    }

    #[test]
    fn a_device_that_is_one_too_many_waits_ever_longer_and_not_for_ever() {
        let mut turn = Turn::default();
        let pauses: Vec<u64> =
            std::iter::from_fn(|| turn.pause(1_000)).map(|pause| pause.as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 390]);
        assert_eq!(pauses.iter().sum::<u64>(), TURN_MAX.as_secs());

        let mut turn = Turn::default();
        assert!(std::iter::from_fn(|| turn.pause(0)).count() <= 900, "a second each, at least");
    }

    #[tokio::test]
    async fn only_a_crowd_is_waited_for() {
        let tries = std::cell::Cell::new(0);
        let ask = |statuses: &'static [u16]| {
            let tries = &tries;
            async move {
                tries.set(0);
                in_turn(|| {
                    let status = statuses[tries.get()];
                    tries.set(tries.get() + 1);
                    let (path, code, text) = ("/enrol".to_owned(), String::new(), String::new());
                    async move { Err::<(), _>(OriginError::Status { status, path, code, text }) }
                })
                .await
            }
        };
        let refused = ask(&[429, 403]).await;
        assert!(matches!(refused, Err(OriginError::Status { status: 403, .. })), "{refused:?}");
        assert_eq!(tries.get(), 2);

        assert!(ask(&[403, 429]).await.is_err());
        assert_eq!(tries.get(), 1);
    }
}

//! Who the device is: its names, its certificate and key, whom it trusts on the wire. Written by enrolment, and by each renewal.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sealift_protocol::id::{DeviceId, TenantId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::disk::{self, Secrecy};
use crate::key::{self, KeyError};
use crate::tls_clock::Verifier;

const FILE: &str = "identity.json";

/// The key's name where none is given.
const FIRST_KEY: &str = "key.pem";

/// Two certificates and a few names.
const BYTES_MAX: u64 = 256 << 10;

/// A device's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) tenant: TenantId,
    pub(crate) device: DeviceId,
    /// The devices' port of the fleet server.
    pub(crate) url: String,
    /// `host:port` of the broker.
    pub(crate) mqtt: String,
    pub(crate) certificate_pem: String,
    /// The file of the certificate's key, in the same directory, or its name on a token. It is here so that both change in one step.
    #[serde(default = "first_key")]
    pub(crate) key: String,
    /// The authority behind the server's and the broker's certificates.
    pub(crate) ca_pem: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// What the device's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) common_name: String,
    pub(crate) public_key: Vec<u8>,
    pub(crate) valid: RangeInclusive<UnixMillis>,
}

fn first_key() -> String {
    FIRST_KEY.to_owned()
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Enrolment has not taken place.
    #[error("{0} holds no enrolled device")]
    NotEnrolled(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot read or write {path}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{0} cannot be read as what it should be")]
    Form(PathBuf),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Certificate, key or authority are refused by the TLS library.
    #[error("certificate, key or authority cannot be used")]
    Tls(#[source] rustls::Error),
}

impl Identity {
    pub(crate) fn load(store: &Path) -> Result<Self, IdentityError> {
        let path = store.join(FILE);
        let bytes = disk::read(&path, BYTES_MAX)
            .map_err(|source| IdentityError::Disk { path: path.clone(), source })?
            .ok_or_else(|| IdentityError::NotEnrolled(store.to_owned()))?;
        serde_json::from_slice(&bytes).map_err(|_| IdentityError::Form(path))
    }

    /// Replaces the identity in one step. Its key is on disk already: an identity without its key is none.
    pub(crate) fn save(&self, store: &Path) -> Result<(), IdentityError> {
        let path = store.join(FILE);
        let text =
            serde_json::to_vec_pretty(self).map_err(|_| IdentityError::Form(path.clone()))?;
        disk::replace(&path, &text, Secrecy::Private)
            .map_err(|source| IdentityError::Disk { path, source })
    }

    /// TLS as this device: the authority of enrolment and those of the trust bundle count, and the device shows its certificate.
    pub(crate) fn tls(
        &self,
        store: &Path,
        authorities: &[String],
        clock: &Clock,
    ) -> Result<Arc<ClientConfig>, IdentityError> {
        let chain = certificates(&self.certificate_pem, store)?;
        let mut trusted = certificates(&self.ca_pem, store)?;
        for authority in authorities {
            trusted.extend(certificates(authority, store)?);
        }
        let roots = roots(&trusted).map_err(IdentityError::Tls)?;
        let verifier = Verifier::new(roots, clock.clone()).map_err(IdentityError::Tls)?;
        let config = ClientConfig::builder();
        let key = key::for_tls(store, &self.key, config.crypto_provider())?;
        let shown = CertifiedKey::new(chain, key);
        shown.keys_match().map_err(IdentityError::Tls)?;
        let config = config.dangerous().with_custom_certificate_verifier(verifier);
        Ok(Arc::new(config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))))
    }

    /// The name that the server gives: `<tenant>:<device>`.
    pub(crate) fn common_name(&self) -> String {
        format!("{}:{}", self.tenant, self.device)
    }

    /// What the certificate says; none if it cannot be read.
    pub(crate) fn shown(&self) -> Option<Shown> {
        let der = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes()).next()?.ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        let millis = |seconds: i64| UnixMillis(seconds.saturating_mul(1_000));
        let validity = certificate.validity();
        let (start, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Some(Shown {
            common_name: certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned(),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            valid: millis(start)..=millis(end),
        })
    }

    /// When the certificate is valid; never, if it cannot be read.
    pub(crate) fn valid(&self) -> RangeInclusive<UnixMillis> {
        let never = UnixMillis(0)..=UnixMillis(0);
        self.shown().map_or(never, |shown| shown.valid)
    }

    /// Days until the device's certificate expires; negative afterwards.
    pub(crate) fn certificate_days(&self, now: UnixMillis) -> i16 {
        const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
        let days = self.valid().end().since(now).div_euclid(DAY_MS);
        i16::try_from(days).unwrap_or(if days > 0 { i16::MAX } else { i16::MIN })
    }
}

fn certificates(pem: &str, store: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| IdentityError::Form(store.join(FILE)))
}

/// A store of exactly these authorities.
pub(crate) fn roots(authorities: &[CertificateDer<'_>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone().into_owned())?;
    }
    Ok(roots)
}

//! What a device's certificate is good for now, and how it gets the next one.
//!
//! ```text
//!           issue            first use of the next one
//! present ────────▶ present, next ────────▶ present (was next)     the one before is worthless from then on
//!    │ expired, less than 30 days        │ expired for longer
//!    ▼                                   ▼
//! may only renew                    refused: the device enrols anew
//! ```

use std::sync::Arc;

use sealift_protocol::api::{RenewRequest, RenewResponse};
use sealift_protocol::id::{DeviceId, UnixMillis};

use crate::audit::Deed;
use crate::broker::gate::Gate;
use crate::certificate::{
    Authority, CertificateError, Identity, Presented, Request, RequestError, Timeliness, Whose,
};
use crate::store::certificates::Worth;
use crate::store::{StoreError, TenantStore};

/// Certificates that a device is given in a day: one that forgets each answer tries again every few minutes at most.
const ISSUED_A_DAY_MAX: u64 = 24;

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// Why a certificate does not let a device do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Nobody knows who asks.
    #[error("a device certificate is needed")]
    NoCertificate,
    /// Never enrolled here, or forgotten.
    #[error("device {0} is not known")]
    Unknown(DeviceId),
    /// Revoked.
    #[error("device {0} is revoked")]
    Revoked(DeviceId),
    /// A newer certificate was used, or the device was enrolled anew.
    #[error("the certificate of {0} was replaced by a newer one")]
    Superseded(DeviceId),
    /// Expired, and only good for its own renewal.
    #[error("the certificate of {0} has expired and may only be renewed")]
    Expired(DeviceId),
    /// Not valid yet, and only good for its own renewal.
    #[error(
        "the certificate of {0} is not valid yet by this server's clock and may only be renewed"
    )]
    Early(DeviceId),
    /// Expired for too long.
    #[error("the certificate of {0} expired more than 30 days ago")]
    Lapsed(DeviceId),
    /// A renewal for the key that the device has.
    #[error("{0} asked to renew its certificate with the key of the old one")]
    SameKey(DeviceId),
    /// More renewals than a device needs.
    #[error("{0} was given {ISSUED_A_DAY_MAX} certificates within a day")]
    TooOften(DeviceId),
    /// The certificate request.
    #[error("the certificate request of {device} is refused: {source}")]
    Request {
        /// Who asked.
        device: DeviceId,
        /// Why.
        #[source]
        source: RequestError,
    },
    /// The authority does not sign.
    #[error(transparent)]
    Certificate(CertificateError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Refused {
    /// The stable code; none where the server is at fault.
    pub(crate) const fn code(&self) -> Option<&'static str> {
        match self {
            Self::NoCertificate => Some("device.no-certificate"),
            Self::Unknown(_) => Some("device.unknown"),
            Self::Revoked(_) => Some("device.revoked"),
            Self::Superseded(_) => Some("device.certificate-superseded"),
            Self::Expired(_) => Some("device.certificate-expired"),
            Self::Early(_) => Some("device.certificate-early"),
            Self::Lapsed(_) => Some("device.certificate-lapsed"),
            Self::SameKey(_) => Some("renew.same-key"),
            Self::TooOften(_) => Some("renew.too-often"),
            Self::Request { source, .. } => Some(source.code()),
            Self::Certificate(_) | Self::Store(_) => None,
        }
    }

    /// What to do about it.
    pub(crate) const fn help(&self) -> Option<&'static str> {
        match self {
            Self::NoCertificate => Some("enrol the device with `fleet-agent enrol`"),
            Self::Unknown(_) | Self::Revoked(_) | Self::Superseded(_) | Self::Lapsed(_) => Some(
                "if the device is to come back: `fleetctl enrol create --device ID`, then on it \
                 `fleet-agent enrol --replace`",
            ),
            Self::Expired(_) | Self::Early(_) => {
                Some("the agent renews it by itself; look at its log if it does not")
            }
            Self::SameKey(_) => Some("make a fresh key for each certificate"),
            Self::TooOften(_) => Some("look why the device does not keep what it is given"),
            Self::Request { .. } | Self::Certificate(_) | Self::Store(_) => None,
        }
    }
}

/// Decides on certificates that devices show, and renews them; cheap to clone.
#[derive(Clone)]
pub(crate) struct Renewal {
    store: TenantStore,
    authority: Arc<Authority>,
    gate: Gate,
}

impl Renewal {
    /// Renews certificates of the store's tenant.
    pub(crate) const fn new(store: TenantStore, authority: Arc<Authority>, gate: Gate) -> Self {
        Self { store, authority, gate }
    }

    /// Lets a device do what devices do. Rule: the certificate is in time, the device's newest, and not revoked.
    pub(crate) async fn admit(
        &self,
        presented: Option<&Presented>,
        now: UnixMillis,
    ) -> Result<Identity, Refused> {
        let admitted = self.try_admit(presented, now).await;
        self.note(presented, admitted).await
    }

    /// Gives a device its next certificate. Rule: as above, but the certificate may have expired less than 30 days ago.
    pub(crate) async fn renew(
        &self,
        presented: Option<&Presented>,
        request: &RenewRequest,
        now: UnixMillis,
    ) -> Result<RenewResponse, Refused> {
        let renewed = self.try_renew(presented, request, now).await;
        self.note(presented, renewed).await
    }

    async fn try_admit(
        &self,
        presented: Option<&Presented>,
        now: UnixMillis,
    ) -> Result<Identity, Refused> {
        let (presented, identity) = self.known(presented, now).await?;
        let device = identity.device.clone();
        match presented.timeliness(now) {
            Timeliness::Timely => Ok(identity),
            Timeliness::Early => Err(Refused::Early(device)),
            Timeliness::Expired => Err(Refused::Expired(device)),
            Timeliness::Lapsed => Err(Refused::Lapsed(device)),
        }
    }

    async fn try_renew(
        &self,
        presented: Option<&Presented>,
        request: &RenewRequest,
        now: UnixMillis,
    ) -> Result<RenewResponse, Refused> {
        let (presented, identity) = self.known(presented, now).await?;
        let device = identity.device.clone();
        if presented.timeliness(now) == Timeliness::Lapsed {
            return Err(Refused::Lapsed(device));
        }
        let own = [device.as_str(), &identity.common_name()];
        let request = Request::read(&request.csr_pem, &own)
            .map_err(|source| Refused::Request { device: device.clone(), source })?;
        if request.key() == presented.key {
            return Err(Refused::SameKey(device));
        }
        if self.store.count_certificates(&device, now.plus(-DAY_MS)).await? >= ISSUED_A_DAY_MAX {
            return Err(Refused::TooOften(device));
        }
        let issued = self.authority.issue_device(&identity, &request, now);
        let issued = issued.map_err(Refused::Certificate)?;
        let mut change = self.store.begin().await?;
        if !change.offer_certificate(&device, &issued, now).await? {
            return Err(Refused::Revoked(device));
        }
        let actor = format!("device:{device}");
        let detail = format!("certificate {} after {}", issued.serial, presented.serial);
        change.audit(&deed(&actor, "device.renew", &device, &detail), now).await?;
        change.commit().await?;
        tracing::info!(%device, serial = issued.serial, "certificate renewed");
        Ok(RenewResponse { certificate_pem: issued.chain_pem, expires_at: issued.expires_at })
    }

    /// Who shows the certificate, by what the store knows of it.
    async fn known<'p>(
        &self,
        presented: Option<&'p Presented>,
        now: UnixMillis,
    ) -> Result<(&'p Presented, Identity), Refused> {
        let presented = presented.ok_or(Refused::NoCertificate)?;
        let Whose::Device(identity) = &presented.whose else { return Err(Refused::NoCertificate) };
        let device = &identity.device;
        if identity.tenant != *self.store.tenant() {
            return Err(Refused::Unknown(device.clone()));
        }
        let papers = self.store.papers(device).await?;
        let papers = papers.ok_or_else(|| Refused::Unknown(device.clone()))?;
        match papers.worth(&presented.serial) {
            Worth::Present => (),
            Worth::Next => {
                if !self.store.take_into_use(device, &presented.serial, now).await? {
                    return Err(Refused::Superseded(device.clone()));
                }
            }
            Worth::Superseded => {
                // A store that was restored does not know what it issued after its backup, and says so by a recovery.
                if !self.store.readmit(device, presented.as_unknown(), now).await? {
                    return Err(Refused::Superseded(device.clone()));
                }
            }
            Worth::Revoked => return Err(Refused::Revoked(device.clone())),
        }
        Ok((presented, identity.clone()))
    }

    async fn note<T>(
        &self,
        presented: Option<&Presented>,
        outcome: Result<T, Refused>,
    ) -> Result<T, Refused> {
        if let Err(refused) = &outcome
            && let Some(code) = refused.code()
            && let Some(Presented { whose: Whose::Device(identity), .. }) = presented
        {
            self.gate.note(identity, code, &refused.to_string()).await;
        }
        outcome
    }
}

fn deed<'a>(actor: &'a str, action: &'a str, device: &'a DeviceId, detail: &'a str) -> Deed<'a> {
    Deed { actor, action, subject: device.as_str(), reason: None, detail }
}

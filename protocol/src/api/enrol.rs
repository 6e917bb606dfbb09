//! Enrolment of batches: claims, the queue of those who wait, serial numbers registered beforehand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::EnrolResponse;
use crate::digest::Digest;
use crate::id::{DeviceId, UnixMillis};

/// `POST /enrol-claims`: a certificate for a batch of devices, with which they may ask to be enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolClaimNew {
    /// What people call the batch.
    pub batch: String,
    /// How many devices may be enrolled by it, at most 100,000.
    pub places: u32,
    /// Seconds until it expires, at most two years; 90 days if not given.
    #[serde(default)]
    pub expires_in_s: Option<u32>,
    /// Labels that the devices get.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// PKCS #10, PEM, for the claim's key, which the server never sees.
    pub csr_pem: String,
}

/// A new claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolClaimCreated {
    /// Names the claim.
    pub id: String,
    /// Its certificate and the issuing CA, PEM.
    pub certificate_pem: String,
    /// SHA-256 of the device CA, which devices pin.
    pub ca_sha256: Digest,
    /// SHA-256 of the first TUF root, which devices pin.
    pub tuf_root_sha256: Digest,
    /// The devices' HTTPS URL to enrol at.
    pub url: String,
    /// When it expires.
    pub expires_at: UnixMillis,
}

/// What a device carries from the factory, as `fleetctl enrol claim create` writes it. A secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimFile {
    /// The devices' HTTPS URL to enrol at.
    pub url: String,
    /// SHA-256 of the device CA.
    pub ca_sha256: Digest,
    /// SHA-256 of the first TUF root.
    pub tuf_root_sha256: Digest,
    /// The claim's certificate and the issuing CA, PEM.
    pub certificate_pem: String,
    /// The claim's key, PKCS #8 PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for ClaimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClaimFile").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A claim in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolClaimView {
    /// Names the claim.
    pub id: String,
    /// What people call the batch.
    pub batch: String,
    /// Labels that it gives.
    pub labels: BTreeMap<String, String>,
    /// How many devices it is for.
    pub places: u32,
    /// How many may still be enrolled by it.
    pub places_left: u32,
    /// When it expires.
    pub expires_at: UnixMillis,
    /// Who made it.
    pub created_by: String,
    /// When it was revoked.
    #[serde(default)]
    pub revoked_at: Option<UnixMillis>,
}

/// `POST /claim` on the devices' port, with a claim's certificate; asked again, with the same key, until it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimRequest {
    /// The id that the device would like; by its serial number if not given.
    #[serde(default)]
    pub device: Option<DeviceId>,
    /// Its serial number.
    #[serde(default)]
    pub serial: Option<String>,
    /// PKCS #10, PEM, for the device's own key.
    pub csr_pem: String,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ClaimAnswer {
    /// Somebody has to approve it first.
    Waiting {
        /// What people call the request.
        id: String,
    },
    /// Done.
    Enrolled(Box<EnrolResponse>),
}

/// How far a request by a claim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EnrolRequestState {
    /// For somebody to decide.
    Waiting,
    /// Approved; the device fetches its certificate when it asks next.
    Approved,
    /// Denied.
    Denied,
    /// The device has its certificate.
    Enrolled,
}

/// A device that asked to be enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolRequestView {
    /// Names the request.
    pub id: String,
    /// The batch by whose claim it asked.
    pub batch: String,
    /// The id that it would get.
    pub device: DeviceId,
    /// Its serial number, by its own word.
    #[serde(default)]
    pub serial: Option<String>,
    /// SHA-256 of its public key: what the device shows as well.
    pub key: Digest,
    /// From where it asked.
    pub address: String,
    /// Labels that it would get.
    pub labels: BTreeMap<String, String>,
    /// How far it is.
    pub state: EnrolRequestState,
    /// When it asked first.
    pub asked_at: UnixMillis,
    /// Why it was denied.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `POST /enrol-requests/{id}/deny`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolDeny {
    /// Why; the device is told.
    pub reason: String,
}

/// A serial number that was registered beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolSerial {
    /// As the device gives it.
    pub serial: String,
    /// The only id that the device may take; any free one if not given.
    #[serde(default)]
    pub device: Option<DeviceId>,
    /// Labels that the device gets, beside those of the claim.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// `POST /enrol-serials`: all of them, or none if one is not good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolSerialsNew {
    /// Only by claims of this batch; by any if not given.
    #[serde(default)]
    pub batch: Option<String>,
    /// At most 10,000 at a time.
    pub serials: Vec<EnrolSerial>,
}

/// How many serial numbers were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolSerialsAdded {
    /// All that were given.
    pub added: u64,
}

/// A serial number in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolSerialView {
    /// As the device gives it.
    pub serial: String,
    /// Only by claims of this batch.
    #[serde(default)]
    pub batch: Option<String>,
    /// The only id that the device may take.
    #[serde(default)]
    pub device: Option<DeviceId>,
    /// Labels that the device gets.
    pub labels: BTreeMap<String, String>,
    /// When it was used.
    #[serde(default)]
    pub used_at: Option<UnixMillis>,
    /// By which device.
    #[serde(default)]
    pub used_by: Option<DeviceId>,
}

//! The deny list.

use serde::{Deserialize, Serialize};

use crate::id::{ModelName, UnixMillis, Version};

/// What is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RevocationKind {
    /// A model image, by the digest of its index or of a manifest.
    Image,
    /// A director's key, by its id.
    Director,
    /// A device certificate, by its serial number.
    Device,
}

/// `GET /trust/revocations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevocationView {
    /// What is denied.
    pub kind: RevocationKind,
    /// Its digest, key id or serial number.
    pub subject: String,
    /// Versions that are this image; none for keys and certificates.
    pub versions: Vec<RevokedVersion>,
    /// Why.
    pub reason: String,
    /// Who handed in the signed list.
    pub by: String,
    /// When.
    pub at: UnixMillis,
}

/// A version that is on the deny list, and who still serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevokedVersion {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Devices that report to serve it.
    pub devices: u64,
}

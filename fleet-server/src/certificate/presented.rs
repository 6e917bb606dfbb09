//! Certificates as they are shown: whose they are, and what the time makes of them.

use std::ops::RangeInclusive;

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, TenantId, UnixMillis};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{BACKDATED_MS, DAY_MS};
use crate::store::recover::Unknown;

/// A certificate that expired less than this ago may still be renewed: a device may have been in a box for a while.
const GRACE_MS: i64 = 30 * DAY_MS;

/// Which device a certificate names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    /// Whose device.
    pub(crate) tenant: TenantId,
    /// The device.
    pub(crate) device: DeviceId,
}

/// Which claim a certificate names: a batch of devices that may ask to be enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Whose claim.
    pub(crate) tenant: TenantId,
    /// Its id.
    pub(crate) id: String,
}

/// Who shows a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    /// A device, as itself.
    Device(Identity),
    /// A device that is none yet.
    Claim(Claim),
}

/// A certificate of the device CA as it was presented; the handshake has checked its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Presented {
    /// Whom it names.
    pub(crate) whose: Whose,
    /// Its serial number, lower-case hex without leading zeros.
    pub(crate) serial: String,
    /// SHA-256 of its public key.
    pub(crate) key: Digest,
    valid: RangeInclusive<UnixMillis>,
}

/// What the time makes of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timeliness {
    /// Its time is now.
    Timely,
    /// Its time begins later: the clock of whoever issued it, or ours, is or was wrong.
    Early,
    /// Its time is over, for less than the grace period.
    Expired,
    /// Its time is over for longer.
    Lapsed,
}

impl Identity {
    /// `<tenant>:<device>`: the common name, the MQTT client id and the MQTT user name.
    pub(crate) fn common_name(&self) -> String {
        format!("{}:{}", self.tenant, self.device)
    }

    /// Parses `<tenant>:<device>`.
    pub(crate) fn parse(common_name: &str) -> Option<Self> {
        let (tenant, device) = common_name.split_once(':')?;
        Some(Self { tenant: TenantId::parse(tenant).ok()?, device: DeviceId::parse(device).ok()? })
    }

    pub(super) fn uri(&self) -> String {
        format!("urn:sealift:{}:{}", self.tenant, self.device)
    }
}

impl Claim {
    /// Without a colon, so that no broker takes it for a device.
    pub(super) fn common_name(&self) -> String {
        format!("claim {} of {}", self.id, self.tenant)
    }

    pub(super) fn uri(&self) -> String {
        format!("urn:sealift-claim:{}:{}", self.tenant, self.id)
    }

    fn parse(uri: &str) -> Option<Self> {
        let (tenant, id) = uri.strip_prefix("urn:sealift-claim:")?.split_once(':')?;
        Some(Self { tenant: TenantId::parse(tenant).ok()?, id: id.to_owned() })
    }
}

impl Presented {
    /// Reads whom a certificate names; none if its name and its URI are not those of one device or one claim.
    pub(crate) fn read(certificate_der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate_der).ok()?;
        let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else { return None };
        let whose = match Claim::parse(uri) {
            Some(claim) if claim.common_name() == name => Whose::Claim(claim),
            Some(_) => return None,
            None => {
                let identity = Identity::parse(name).filter(|identity| *uri == identity.uri())?;
                Whose::Device(identity)
            }
        };
        let serial = certificate.tbs_certificate.serial.to_str_radix(16);
        let key = Digest::of(&certificate.public_key().subject_public_key.data);
        Some(Self { whose, serial, key, valid: period(&certificate) })
    }

    /// The same as a certificate that the store does not know.
    pub(crate) fn as_unknown(&self) -> Unknown<'_> {
        let issued_at = self.valid.start().plus(BACKDATED_MS);
        Unknown { serial: &self.serial, issued_at, expires_at: *self.valid.end() }
    }

    /// What `now` makes of it.
    pub(crate) fn timeliness(&self, now: UnixMillis) -> Timeliness {
        if now < *self.valid.start() {
            Timeliness::Early
        } else if now <= *self.valid.end() {
            Timeliness::Timely
        } else if now <= self.valid.end().plus(GRACE_MS) {
            Timeliness::Expired
        } else {
            Timeliness::Lapsed
        }
    }
}

/// When a certificate is valid; none if it is not one.
pub(crate) fn validity(certificate_der: &[u8]) -> Option<RangeInclusive<UnixMillis>> {
    X509Certificate::from_der(certificate_der).ok().map(|(_, certificate)| period(&certificate))
}

/// RFC 5280, section 4.1.2.5: both ends are inclusive, and whole seconds.
fn period(certificate: &X509Certificate<'_>) -> RangeInclusive<UnixMillis> {
    let millis = |at: x509_parser::time::ASN1Time| UnixMillis(at.timestamp().saturating_mul(1_000));
    let validity = certificate.validity();
    millis(validity.not_before)..=millis(validity.not_after).plus(999)
}

//! Which certificates a device has: the present one, and perhaps a next one that was issued and not used yet.

use sealift_protocol::id::{DeviceId, UnixMillis};

use super::{Change, StoreError, TenantStore, parsed, unsigned};
use crate::audit::Deed;
use crate::certificate::DeviceCertificate;

/// A revocation list names at most this many certificates: 3 MB.
const REVOKED_MAX: i64 = 100_000;

/// Connections that are ended in one look.
const ENDED_MAX: i64 = 1_000;

/// The certificates of an enrolled device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Papers {
    present: String,
    next: Option<String>,
    is_revoked: bool,
}

/// What a certificate of the device CA is worth, by its serial number alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worth {
    /// It is the device's present one.
    Present,
    /// It was issued to replace the present one, and is used for the first time.
    Next,
    /// A newer one has taken its place, or the store never knew it.
    Superseded,
    /// The device is revoked.
    Revoked,
}

/// A certificate that is not good any more before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its serial number, lower-case hex.
    pub(crate) serial: String,
    /// When it stopped being good.
    pub(crate) at: UnixMillis,
}

impl Papers {
    /// What a certificate of this serial number is worth.
    pub(crate) fn worth(&self, serial: &str) -> Worth {
        if self.is_revoked {
            Worth::Revoked
        } else if self.present == serial {
            Worth::Present
        } else if self.next.as_deref() == Some(serial) {
            Worth::Next
        } else {
            Worth::Superseded
        }
    }

    /// Whether the device is revoked.
    pub(crate) const fn is_revoked(&self) -> bool {
        self.is_revoked
    }
}

impl TenantStore {
    /// The certificates of a device; none if it was never enrolled.
    pub(crate) async fn papers(&self, device: &DeviceId) -> Result<Option<Papers>, StoreError> {
        let row: Option<(String, Option<String>, Option<i64>)> = sqlx::query_as(
            "SELECT certificate_serial, next_serial, revoked_at FROM devices
             WHERE tenant = $1 AND id = $2",
        )
        .bind(self.id().to_owned())
        .bind(device.to_string())
        .fetch_optional(self.readers())
        .await?;
        Ok(row.map(|(present, next, revoked_at)| Papers {
            present,
            next,
            is_revoked: revoked_at.is_some(),
        }))
    }

    /// Certificates that a device was given since `since`.
    pub(crate) async fn count_certificates(
        &self,
        device: &DeviceId,
        since: UnixMillis,
    ) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM certificates WHERE tenant = $1 AND device = $2 AND issued_at > $3",
        )
        .bind(self.id().to_owned())
        .bind(device.to_string())
        .bind(since.0)
        .fetch_one(self.readers())
        .await?;
        unsigned("count", count)
    }

    /// Certificates of devices and claims that ended before their time, which has not come yet.
    pub(crate) async fn ended_certificates(
        &self,
        now: UnixMillis,
    ) -> Result<Vec<Ended>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT serial, ended_at FROM certificates
             WHERE tenant = $1 AND ended_at IS NOT NULL AND expires_at > $2
             UNION ALL
             SELECT certificate_serial, revoked_at FROM enrol_claims
             WHERE tenant = $1 AND revoked_at IS NOT NULL AND expires_at > $2
             ORDER BY 2, 1 LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(now.0)
        .bind(REVOKED_MAX)
        .fetch_all(self.readers())
        .await?;
        Ok(rows.into_iter().map(|(serial, at)| Ended { serial, at: UnixMillis(at) }).collect())
    }

    /// The first use of a certificate makes it the device's present one, and the one before it worthless. False if it lost a race.
    pub(crate) async fn take_into_use(
        &self,
        device: &DeviceId,
        serial: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let mut change = self.begin().await?;
        if !change.take_into_use(device, serial, now).await? {
            // Two connections at once: the other one may have taken the same certificate into use.
            drop(change);
            let papers = self.papers(device).await?;
            return Ok(papers.is_some_and(|papers| papers.worth(serial) == Worth::Present));
        }
        let actor = format!("device:{device}");
        let deed = Deed {
            actor: &actor,
            action: "device.certificate",
            subject: device.as_str(),
            reason: None,
            detail: &format!("certificate {serial} is in use, the one before it ends"),
        };
        change.audit(&deed, now).await?;
        change.commit().await?;
        tracing::info!(%device, serial, "certificate in use");
        Ok(true)
    }

    /// Devices whose connections must not be: revoked since `since`, or connected with a certificate that has expired.
    pub(crate) async fn unwelcome_devices(
        &self,
        since: UnixMillis,
        now: UnixMillis,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM devices
             WHERE tenant = $1 AND (revoked_at > $2 OR (online = 1 AND certificate_expires_at <= $3))
             ORDER BY id LIMIT $4",
        )
        .bind(self.id().to_owned())
        .bind(since.0)
        .bind(now.0)
        .bind(ENDED_MAX)
        .fetch_all(self.readers())
        .await?;
        ids.iter().map(|id| parsed("device", id)).collect()
    }
}

impl Change {
    /// Notes a certificate that is about to be given out.
    pub(crate) async fn keep_certificate(
        &mut self,
        device: &DeviceId,
        certificate: &DeviceCertificate,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let (id, serial) = (device.to_string(), certificate.serial.clone());
        let expires_at = certificate.expires_at.0;
        self.run(
            "INSERT INTO certificates (tenant, device, serial, issued_at, expires_at)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, device, serial) DO NOTHING",
            |it| it.bind(id).bind(serial).bind(now.0).bind(expires_at),
        )
        .await?;
        Ok(())
    }

    /// Notes that no certificate of the device is good from now on.
    pub(crate) async fn end_certificates(
        &mut self,
        device: &DeviceId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let id = device.to_string();
        self.run(
            "UPDATE certificates SET ended_at = $3
             WHERE tenant = $1 AND device = $2 AND ended_at IS NULL",
            |it| it.bind(id).bind(now.0),
        )
        .await?;
        Ok(())
    }

    /// Notes the certificate that will replace the present one at its first use. An earlier one that was never used is good no
    /// more. False if the device was revoked meanwhile.
    pub(crate) async fn offer_certificate(
        &mut self,
        device: &DeviceId,
        certificate: &DeviceCertificate,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let id = device.to_string();
        self.run(
            "UPDATE certificates SET ended_at = $3
             WHERE tenant = $1 AND device = $2 AND ended_at IS NULL AND serial =
             (SELECT next_serial FROM devices WHERE tenant = $1 AND id = $2)",
            |it| it.bind(id).bind(now.0),
        )
        .await?;
        let (id, serial) = (device.to_string(), certificate.serial.clone());
        let expires_at = certificate.expires_at.0;
        let offered = self
            .run(
                "UPDATE devices SET next_serial = $3, next_expires_at = $4
                 WHERE tenant = $1 AND id = $2 AND revoked_at IS NULL",
                |it| it.bind(id).bind(serial).bind(expires_at),
            )
            .await?;
        self.keep_certificate(device, certificate, now).await?;
        Ok(offered == 1)
    }

    async fn take_into_use(
        &mut self,
        device: &DeviceId,
        serial: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let (id, next) = (device.to_string(), serial.to_owned());
        let taken = self
            .run(
                "UPDATE devices SET certificate_serial = next_serial,
                 certificate_expires_at = next_expires_at, next_serial = NULL, next_expires_at = NULL
                 WHERE tenant = $1 AND id = $2 AND next_serial = $3 AND revoked_at IS NULL",
                |it| it.bind(id).bind(next),
            )
            .await?;
        if taken == 0 {
            return Ok(false);
        }
        let (id, next) = (device.to_string(), serial.to_owned());
        self.run(
            "UPDATE certificates SET ended_at = $4
             WHERE tenant = $1 AND device = $2 AND serial <> $3 AND ended_at IS NULL",
            |it| it.bind(id).bind(next).bind(now.0),
        )
        .await?;
        Ok(true)
    }
}

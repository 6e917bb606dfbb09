//! Enrolment tokens, and the devices that they let in.

use std::collections::BTreeMap;

use sealift_protocol::api::EnrolTokenView;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, UnixMillis};

use super::{Change, StoreError, TenantStore, from_json, parsed, to_json};
use crate::certificate::DeviceCertificate;

/// A token as it is made.
#[derive(Debug, Clone)]
pub(crate) struct NewToken {
    /// Names it in lists.
    pub(crate) id: String,
    /// SHA-256 of its secret.
    pub(crate) hash: Digest,
    /// Labels that it gives.
    pub(crate) labels: BTreeMap<String, String>,
    /// The only device id that may be taken.
    pub(crate) device: Option<DeviceId>,
    /// How many devices may use it.
    pub(crate) uses: u32,
    /// When it expires.
    pub(crate) expires_at: UnixMillis,
}

/// A token that somebody presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Names it.
    pub(crate) id: String,
    /// SHA-256 of its secret.
    pub(crate) hash: Digest,
    /// Labels that it gives.
    pub(crate) labels: BTreeMap<String, String>,
    /// The only device id that may be taken.
    pub(crate) device: Option<DeviceId>,
    /// How many devices may still use it.
    pub(crate) uses_left: u32,
    /// When it expires.
    pub(crate) expires_at: UnixMillis,
}

/// What becomes of a device that has the id already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Its certificates stop being good: whoever enrols was let in for exactly this id.
    Replaced,
    /// It stays, and nobody is enrolled.
    LeftAlone,
}

/// What enrolment gives beside the certificate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    /// Labels.
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// What becomes of a device of the same id.
    pub(crate) taken: Taken,
}

type TokenRow = (String, String, String, Option<String>, i64, i64);

impl TenantStore {
    /// The token with this hash.
    pub(crate) async fn enrol_token(&self, hash: Digest) -> Result<Option<Token>, StoreError> {
        let row: Option<TokenRow> = sqlx::query_as(
            "SELECT id, hash, labels, device, uses_left, expires_at FROM enrol_tokens
             WHERE tenant = $1 AND hash = $2",
        )
        .bind(self.id().to_owned())
        .bind(hash.to_string())
        .fetch_optional(self.readers())
        .await?;
        row.map(token).transpose()
    }

    /// All tokens that were not revoked, newest first.
    pub(crate) async fn enrol_tokens(&self) -> Result<Vec<EnrolTokenView>, StoreError> {
        let rows: Vec<(String, String, i64, i64, String)> = sqlx::query_as(
            "SELECT id, labels, uses_left, expires_at, created_by FROM enrol_tokens
             WHERE tenant = $1 ORDER BY created_at DESC, id LIMIT 1000",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        let view = |(id, labels, uses_left, expires_at, created_by): (_, String, _, _, _)| {
            Ok(EnrolTokenView {
                id,
                labels: from_json("labels", &labels)?,
                uses_left: u32::try_from(uses_left).unwrap_or(0),
                expires_at: UnixMillis(expires_at),
                created_by,
            })
        };
        rows.into_iter().map(view).collect()
    }

    /// Devices that are enrolled and not revoked, by id.
    pub(crate) async fn good_devices(&self) -> Result<Vec<DeviceId>, StoreError> {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM devices WHERE tenant = $1 AND revoked_at IS NULL ORDER BY id",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        ids.iter().map(|id| parsed("device", id)).collect()
    }

    /// Whether a device of this id was ever enrolled.
    pub(crate) async fn is_device_known(&self, device: &DeviceId) -> Result<bool, StoreError> {
        let known: Option<i64> =
            sqlx::query_scalar("SELECT enrolled_at FROM devices WHERE tenant = $1 AND id = $2")
                .bind(self.id().to_owned())
                .bind(device.to_string())
                .fetch_optional(self.readers())
                .await?;
        Ok(known.is_some())
    }

    /// The signed directive of a device, newest generation.
    pub(crate) async fn signed_directive(
        &self,
        device: &DeviceId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let body =
            sqlx::query_scalar("SELECT body FROM directives WHERE tenant = $1 AND device = $2")
                .bind(self.id().to_owned())
                .bind(device.to_string())
                .fetch_optional(self.readers())
                .await?;
        Ok(body)
    }
}

impl Change {
    /// Adds a token.
    pub(crate) async fn add_enrol_token(
        &mut self,
        token: &NewToken,
        by: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let labels = to_json("labels", &token.labels)?;
        let device = token.device.as_ref().map(ToString::to_string);
        let (id, hash, by) = (token.id.clone(), token.hash.to_string(), by.to_owned());
        let (uses, expires_at) = (i64::from(token.uses), token.expires_at.0);
        self.run(
            "INSERT INTO enrol_tokens
             (tenant, id, hash, labels, device, uses_left, expires_at, created_by, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            |it| {
                let it = it.bind(id).bind(hash).bind(labels).bind(device).bind(uses);
                it.bind(expires_at).bind(by).bind(now.0)
            },
        )
        .await?;
        Ok(())
    }

    /// Takes a token away. Returns whether it was there.
    pub(crate) async fn remove_enrol_token(&mut self, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        let statement = "DELETE FROM enrol_tokens WHERE tenant = $1 AND id = $2";
        Ok(self.run(statement, |it| it.bind(id)).await? == 1)
    }

    /// Uses a token once. Returns whether there was a use left; two devices cannot take the last one.
    pub(crate) async fn use_enrol_token(
        &mut self,
        id: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let id = id.to_owned();
        let used = self
            .run(
                "UPDATE enrol_tokens SET uses_left = uses_left - 1
                 WHERE tenant = $1 AND id = $2 AND uses_left > 0 AND expires_at > $3",
                |it| it.bind(id).bind(now.0),
            )
            .await?;
        Ok(used == 1)
    }

    /// Enrols a device. One of this id that is there already is replaced or left alone; false if it was left alone.
    pub(crate) async fn enrol_device(
        &mut self,
        device: &DeviceId,
        certificate: &DeviceCertificate,
        given: Given<'_>,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        if given.taken == Taken::Replaced {
            self.end_certificates(device, now).await?;
        }
        let statement = match given.taken {
            Taken::Replaced => {
                "INSERT INTO devices
                 (tenant, id, enrolled_at, certificate_serial, certificate_expires_at)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (tenant, id) DO UPDATE SET
                 enrolled_at = excluded.enrolled_at,
                 certificate_serial = excluded.certificate_serial,
                 certificate_expires_at = excluded.certificate_expires_at,
                 next_serial = NULL, next_expires_at = NULL,
                 revoked_at = NULL, revoked_reason = NULL, online = 0, epoch = 0"
            }
            Taken::LeftAlone => {
                "INSERT INTO devices
                 (tenant, id, enrolled_at, certificate_serial, certificate_expires_at)
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, id) DO NOTHING"
            }
        };
        let (id, serial) = (device.to_string(), certificate.serial.clone());
        let expires_at = certificate.expires_at.0;
        let enrolled =
            self.run(statement, |it| it.bind(id).bind(now.0).bind(serial).bind(expires_at)).await?;
        if enrolled == 0 {
            return Ok(false);
        }
        self.keep_certificate(device, certificate, now).await?;
        for (name, value) in given.labels {
            let (id, name, value) = (device.to_string(), name.clone(), value.clone());
            self.run(
                "INSERT INTO labels (tenant, device, name, value) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (tenant, device, name) DO UPDATE SET value = excluded.value",
                |it| it.bind(id).bind(name).bind(value),
            )
            .await?;
        }
        Ok(true)
    }
}

fn token((id, hash, labels, device, uses_left, expires_at): TokenRow) -> Result<Token, StoreError> {
    Ok(Token {
        id,
        hash: parsed("digest", &hash)?,
        labels: from_json("labels", &labels)?,
        device: device.map(|device| parsed("device", &device)).transpose()?,
        uses_left: u32::try_from(uses_left).unwrap_or(0),
        expires_at: UnixMillis(expires_at),
    })
}

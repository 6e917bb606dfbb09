//! Claims, the devices that asked by them, and serial numbers registered beforehand.

use std::collections::BTreeMap;

use sealift_protocol::api::{
    EnrolClaimView, EnrolRequestState, EnrolRequestView, EnrolSerial, EnrolSerialView,
};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, UnixMillis};

use super::{
    Change, StoreError, TenantStore, from_json, from_word, parsed, to_json, unsigned, word,
};

/// Rows in one list.
const LISTED_MAX: i64 = 1_000;

/// A claim, as it is made.
#[derive(Debug, Clone)]
pub(crate) struct NewClaim {
    /// Names it.
    pub(crate) id: String,
    /// What people call the batch.
    pub(crate) batch: String,
    /// Labels that it gives.
    pub(crate) labels: BTreeMap<String, String>,
    /// Serial number of its certificate.
    pub(crate) certificate_serial: String,
    /// How many devices it is for.
    pub(crate) places: u32,
    /// When it expires.
    pub(crate) expires_at: UnixMillis,
}

/// A request, as it comes.
#[derive(Debug, Clone)]
pub(crate) struct NewAsk<'a> {
    /// Names it.
    pub(crate) id: &'a str,
    /// By which claim.
    pub(crate) claim: &'a str,
    /// SHA-256 of the device's public key.
    pub(crate) key: Digest,
    /// The id that it would get.
    pub(crate) device: &'a DeviceId,
    /// Its serial number.
    pub(crate) serial: Option<&'a str>,
    /// From where.
    pub(crate) address: &'a str,
    /// Labels that it would get.
    pub(crate) labels: &'a BTreeMap<String, String>,
}

/// A request that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Names it.
    pub(crate) id: String,
    /// The id that it would get.
    pub(crate) device: DeviceId,
    /// Its serial number.
    pub(crate) serial: Option<String>,
    /// Labels that it would get.
    pub(crate) labels: BTreeMap<String, String>,
    /// How far it is.
    pub(crate) state: EnrolRequestState,
    /// Why it was denied.
    pub(crate) reason: Option<String>,
    /// What it was given.
    pub(crate) certificate: Option<String>,
}

/// Who decided on a request, and what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decision<'a> {
    /// Approved or denied.
    pub(crate) state: EnrolRequestState,
    /// Who.
    pub(crate) by: &'a str,
    /// Why, if denied.
    pub(crate) reason: Option<&'a str>,
}

type ClaimRow = (String, String, String, i64, i64, i64, String, Option<i64>);
type AskRow = (String, String, Option<String>, String, String, Option<String>, Option<String>);
type SerialRow = (String, Option<String>, Option<String>, String, Option<i64>, Option<String>);
type AskViewRow =
    (String, String, String, Option<String>, String, String, String, String, i64, Option<String>);

impl TenantStore {
    /// The claim whose certificate has this serial number.
    pub(crate) async fn claim(&self, serial: &str) -> Result<Option<EnrolClaimView>, StoreError> {
        let row: Option<ClaimRow> = sqlx::query_as(
            "SELECT id, batch, labels, places, places_left, expires_at, created_by, revoked_at
             FROM enrol_claims WHERE tenant = $1 AND certificate_serial = $2",
        )
        .bind(self.id().to_owned())
        .bind(serial.to_owned())
        .fetch_optional(self.readers())
        .await?;
        row.map(claim_view).transpose()
    }

    /// All claims, newest first.
    pub(crate) async fn claims(&self) -> Result<Vec<EnrolClaimView>, StoreError> {
        let rows: Vec<ClaimRow> = sqlx::query_as(
            "SELECT id, batch, labels, places, places_left, expires_at, created_by, revoked_at
             FROM enrol_claims WHERE tenant = $1 ORDER BY created_at DESC, id LIMIT $2",
        )
        .bind(self.id().to_owned())
        .bind(LISTED_MAX)
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(claim_view).collect()
    }

    /// The request that came by this claim for this key.
    pub(crate) async fn ask(&self, claim: &str, key: Digest) -> Result<Option<Ask>, StoreError> {
        let row: Option<AskRow> = sqlx::query_as(
            "SELECT id, device, serial, labels, state, reason, certificate FROM enrol_requests
             WHERE tenant = $1 AND claim = $2 AND key = $3",
        )
        .bind(self.id().to_owned())
        .bind(claim.to_owned())
        .bind(key.to_string())
        .fetch_optional(self.readers())
        .await?;
        let ask = |(id, device, serial, labels, state, reason, certificate): AskRow| {
            Ok(Ask {
                id,
                device: parsed("device", &device)?,
                serial,
                labels: from_json("labels", &labels)?,
                state: from_word("request", &state)?,
                reason,
                certificate,
            })
        };
        row.map(ask).transpose()
    }

    /// Requests in a state, oldest first.
    pub(crate) async fn asks(
        &self,
        state: EnrolRequestState,
    ) -> Result<Vec<EnrolRequestView>, StoreError> {
        let rows: Vec<AskViewRow> = sqlx::query_as(
            "SELECT r.id, c.batch, r.device, r.serial, r.key, r.address, r.labels, r.state,
             r.asked_at, r.reason
             FROM enrol_requests r JOIN enrol_claims c ON c.tenant = r.tenant AND c.id = r.claim
             WHERE r.tenant = $1 AND r.state = $2
             AND (c.revoked_at IS NULL OR r.state <> 'waiting') ORDER BY r.asked_at, r.id LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(word("request", &state)?)
        .bind(LISTED_MAX)
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(ask_view).collect()
    }

    /// How many requests wait by a claim.
    pub(crate) async fn count_waiting(&self, claim: &str) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM enrol_requests
             WHERE tenant = $1 AND claim = $2 AND state = $3",
        )
        .bind(self.id().to_owned())
        .bind(claim.to_owned())
        .bind(word("request", &EnrolRequestState::Waiting)?)
        .fetch_one(self.readers())
        .await?;
        unsigned("count", count)
    }

    /// A serial number that was registered.
    pub(crate) async fn serial(&self, serial: &str) -> Result<Option<EnrolSerialView>, StoreError> {
        let row: Option<SerialRow> = sqlx::query_as(
            "SELECT serial, batch, device, labels, used_at, used_by FROM enrol_serials
             WHERE tenant = $1 AND serial = $2",
        )
        .bind(self.id().to_owned())
        .bind(serial.to_owned())
        .fetch_optional(self.readers())
        .await?;
        row.map(serial_view).transpose()
    }

    /// Serial numbers after one, by name.
    pub(crate) async fn serials(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<EnrolSerialView>, StoreError> {
        let rows: Vec<SerialRow> = sqlx::query_as(
            "SELECT serial, batch, device, labels, used_at, used_by FROM enrol_serials
             WHERE tenant = $1 AND serial > $2 ORDER BY serial LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(after.unwrap_or_default().to_owned())
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(serial_view).collect()
    }

    /// How many serial numbers there are.
    pub(crate) async fn count_serials(&self) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM enrol_serials WHERE tenant = $1")
            .bind(self.id().to_owned())
            .fetch_one(self.readers())
            .await?;
        unsigned("count", count)
    }
}

impl Change {
    /// Adds a claim.
    pub(crate) async fn add_claim(
        &mut self,
        claim: &NewClaim,
        by: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let labels = to_json("labels", &claim.labels)?;
        let NewClaim { id, batch, certificate_serial, places, expires_at, .. } = claim.clone();
        let by = by.to_owned();
        self.run(
            "INSERT INTO enrol_claims (tenant, id, batch, labels, certificate_serial, places,
             places_left, expires_at, created_by, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9)",
            |it| {
                let it = it.bind(id).bind(batch).bind(labels).bind(certificate_serial);
                it.bind(i64::from(places)).bind(expires_at.0).bind(by).bind(now.0)
            },
        )
        .await?;
        Ok(())
    }

    /// Revokes a claim. Returns whether it was good before.
    pub(crate) async fn revoke_claim(
        &mut self,
        id: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let id = id.to_owned();
        let statement = "UPDATE enrol_claims SET revoked_at = $3
                         WHERE tenant = $1 AND id = $2 AND revoked_at IS NULL";
        Ok(self.run(statement, |it| it.bind(id).bind(now.0)).await? == 1)
    }

    /// Takes a place of a claim. Returns whether there was one; two devices cannot take the last one.
    pub(crate) async fn take_place(
        &mut self,
        claim: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let id = claim.to_owned();
        let statement = "UPDATE enrol_claims SET places_left = places_left - 1
                         WHERE tenant = $1 AND id = $2 AND places_left > 0
                         AND revoked_at IS NULL AND expires_at > $3";
        Ok(self.run(statement, |it| it.bind(id).bind(now.0)).await? == 1)
    }

    /// Keeps a request. False if one for its key is kept already.
    pub(crate) async fn add_ask(
        &mut self,
        ask: &NewAsk<'_>,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let labels = to_json("labels", ask.labels)?;
        let state = word("request", &EnrolRequestState::Waiting)?;
        let (id, claim, key) = (ask.id.to_owned(), ask.claim.to_owned(), ask.key.to_string());
        let (device, serial) = (ask.device.to_string(), ask.serial.map(str::to_owned));
        let address = ask.address.to_owned();
        let added = self
            .run(
                "INSERT INTO enrol_requests (tenant, id, claim, key, device, serial, address,
                 labels, state, asked_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                 ON CONFLICT (tenant, claim, key) DO NOTHING",
                |it| {
                    let it = it.bind(id).bind(claim).bind(key).bind(device).bind(serial);
                    it.bind(address).bind(labels).bind(state).bind(now.0)
                },
            )
            .await?;
        Ok(added == 1)
    }

    /// Decides on a request, unless its device is enrolled. Returns whether there was such a one.
    pub(crate) async fn decide_ask(
        &mut self,
        id: &str,
        decision: Decision<'_>,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let state = word("request", &decision.state)?;
        let enrolled = word("request", &EnrolRequestState::Enrolled)?;
        let (id, by) = (id.to_owned(), decision.by.to_owned());
        let reason = decision.reason.map(str::to_owned);
        let decided = self
            .run(
                "UPDATE enrol_requests
                 SET state = $3, decided_by = $4, decided_at = $5, reason = $6
                 WHERE tenant = $1 AND id = $2 AND state <> $7",
                |it| {
                    let it = it.bind(id).bind(state).bind(by).bind(now.0);
                    it.bind(reason).bind(enrolled)
                },
            )
            .await?;
        Ok(decided == 1)
    }

    /// Notes what a device was given, so that it can be given again if the answer is lost. False if it has it already.
    pub(crate) async fn finish_ask(
        &mut self,
        id: &str,
        device: &DeviceId,
        certificate: &str,
    ) -> Result<bool, StoreError> {
        let enrolled = word("request", &EnrolRequestState::Enrolled)?;
        let (id, device) = (id.to_owned(), device.to_string());
        let certificate = certificate.to_owned();
        let finished = self
            .run(
                "UPDATE enrol_requests SET state = $3, device = $4, certificate = $5
                 WHERE tenant = $1 AND id = $2 AND state <> $3",
                |it| it.bind(id).bind(enrolled).bind(device).bind(certificate),
            )
            .await?;
        Ok(finished == 1)
    }

    /// Registers a serial number. False if it is registered already.
    pub(crate) async fn add_serial(
        &mut self,
        serial: &EnrolSerial,
        batch: Option<&str>,
        by: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let labels = to_json("labels", &serial.labels)?;
        let device = serial.device.as_ref().map(ToString::to_string);
        let (serial, batch) = (serial.serial.clone(), batch.map(str::to_owned));
        let by = by.to_owned();
        let added = self
            .run(
                "INSERT INTO enrol_serials
                 (tenant, serial, batch, device, labels, created_by, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant, serial) DO NOTHING",
                |it| {
                    let it = it.bind(serial).bind(batch).bind(device).bind(labels);
                    it.bind(by).bind(now.0)
                },
            )
            .await?;
        Ok(added == 1)
    }

    /// Uses a serial number. Returns whether it was unused; two devices cannot use it both.
    pub(crate) async fn use_serial(
        &mut self,
        serial: &str,
        device: &DeviceId,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let (serial, device) = (serial.to_owned(), device.to_string());
        let statement = "UPDATE enrol_serials SET used_at = $3, used_by = $4
                         WHERE tenant = $1 AND serial = $2 AND used_at IS NULL";
        Ok(self.run(statement, |it| it.bind(serial).bind(now.0).bind(device)).await? == 1)
    }
}

fn claim_view(row: ClaimRow) -> Result<EnrolClaimView, StoreError> {
    let (id, batch, labels, places, places_left, expires_at, created_by, revoked_at) = row;
    Ok(EnrolClaimView {
        id,
        batch,
        labels: from_json("labels", &labels)?,
        places: u32::try_from(places).unwrap_or(0),
        places_left: u32::try_from(places_left).unwrap_or(0),
        expires_at: UnixMillis(expires_at),
        created_by,
        revoked_at: revoked_at.map(UnixMillis),
    })
}

fn ask_view(row: AskViewRow) -> Result<EnrolRequestView, StoreError> {
    let (id, batch, device, serial, key, address, labels, state, asked_at, reason) = row;
    Ok(EnrolRequestView {
        id,
        batch,
        device: parsed("device", &device)?,
        serial,
        key: parsed("digest", &key)?,
        address,
        labels: from_json("labels", &labels)?,
        state: from_word("request", &state)?,
        asked_at: UnixMillis(asked_at),
        reason,
    })
}

fn serial_view(row: SerialRow) -> Result<EnrolSerialView, StoreError> {
    let (serial, batch, device, labels, used_at, used_by) = row;
    let device_id = |id: Option<String>| id.map(|id| parsed("device", &id)).transpose();
    Ok(EnrolSerialView {
        serial,
        batch,
        device: device_id(device)?,
        labels: from_json("labels", &labels)?,
        used_at: used_at.map(UnixMillis),
        used_by: device_id(used_by)?,
    })
}

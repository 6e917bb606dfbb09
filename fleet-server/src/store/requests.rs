//! Requests to devices, and their answers; forgotten after some minutes.

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::request::Nonce;

use super::{Change, StoreError, TenantStore, parsed, unsigned};

/// Requests and answers are kept for this long: whoever asks again by the same name gets the same answer.
pub(crate) const REQUESTS_KEPT_MS: i64 = 10 * 60_000;

/// A request that is about to be sent.
#[derive(Debug)]
pub(crate) struct RequestRow {
    pub(crate) nonce: Nonce,
    pub(crate) device: DeviceId,
    pub(crate) actor: String,
    /// The caller's own name for it.
    pub(crate) idempotency: Option<String>,
    /// Of what is asked.
    pub(crate) fingerprint: Digest,
    pub(crate) asked_at: UnixMillis,
    pub(crate) expires_at: UnixMillis,
    /// An input that is too long for a message.
    pub(crate) input: Option<Vec<u8>>,
}

/// Of a device: what it is to answer still, at the moment of this parameter.
macro_rules! open {
    ($now:literal) => {
        concat!("tenant = $1 AND device = $2 AND answered_at IS NULL AND expires_at >= ", $now)
    };
}

impl TenantStore {
    /// The answer to a request, as it came; none while there is none.
    pub(crate) async fn answer(&self, nonce: Nonce) -> Result<Option<Vec<u8>>, StoreError> {
        let answer: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT answer FROM requests WHERE tenant = $1 AND nonce = $2")
                .bind(self.id().to_owned())
                .bind(nonce.to_string())
                .fetch_optional(self.readers())
                .await?;
        Ok(answer.flatten())
    }

    /// Whether a device is to answer a request still.
    pub(crate) async fn is_open(
        &self,
        device: &DeviceId,
        nonce: Nonce,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let statement = concat!("SELECT 1 FROM requests WHERE ", open!("$3"), " AND nonce = $4");
        let found: Option<i64> = self.of_open(statement, (device, nonce), now).await?;
        Ok(found.is_some())
    }

    /// The input of a request that a device is to answer still, if there is one to fetch.
    pub(crate) async fn request_input(
        &self,
        device: &DeviceId,
        nonce: Nonce,
        now: UnixMillis,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let statement =
            concat!("SELECT input FROM requests WHERE ", open!("$3"), " AND nonce = $4");
        let input: Option<Option<Vec<u8>>> = self.of_open(statement, (device, nonce), now).await?;
        Ok(input.flatten())
    }

    /// Something of a request that a device is to answer still.
    async fn of_open<T>(
        &self,
        statement: &'static str,
        (device, nonce): (&DeviceId, Nonce),
        now: UnixMillis,
    ) -> Result<Option<T>, StoreError>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any> + Send + Unpin,
    {
        let found = sqlx::query_scalar(statement)
            .bind(self.id().to_owned())
            .bind(device.to_string())
            .bind(now.0)
            .bind(nonce.to_string())
            .fetch_optional(self.readers())
            .await?;
        Ok(found)
    }
}

impl Change {
    /// The request that a caller has asked before by the same name, and what it was about.
    pub(crate) async fn named_request(
        &mut self,
        actor: &str,
        idempotency: &str,
    ) -> Result<Option<(Nonce, Digest)>, StoreError> {
        let row: Option<(String, String)> = sqlx::query_as(
            "SELECT nonce, fingerprint FROM requests
             WHERE tenant = $1 AND actor = $2 AND idempotency = $3",
        )
        .bind(self.tenant().to_string())
        .bind(actor.to_owned())
        .bind(idempotency.to_owned())
        .fetch_optional(self.connection())
        .await?;
        let read = |(nonce, fingerprint): (String, String)| {
            Ok((parsed("nonce", &nonce)?, parsed("digest", &fingerprint)?))
        };
        row.map(read).transpose()
    }

    /// Requests that a device has not answered, and that are not over.
    pub(crate) async fn open_requests(
        &mut self,
        device: &DeviceId,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        let statement = concat!("SELECT COUNT(*) FROM requests WHERE ", open!("$3"));
        let count: i64 = sqlx::query_scalar(statement)
            .bind(self.tenant().to_string())
            .bind(device.to_string())
            .bind(now.0)
            .fetch_one(self.connection())
            .await?;
        unsigned("count", count)
    }

    /// Keeps a request that is about to be sent, and forgets those of before.
    pub(crate) async fn add_request(&mut self, row: RequestRow) -> Result<(), StoreError> {
        let before = row.asked_at.plus(-REQUESTS_KEPT_MS).0;
        self.run("DELETE FROM requests WHERE tenant = $1 AND asked_at < $2", |it| it.bind(before))
            .await?;
        let RequestRow { nonce, device, actor, idempotency, fingerprint, .. } = row;
        self.run(
            "INSERT INTO requests (tenant, nonce, device, actor, idempotency, fingerprint,
             asked_at, expires_at, input) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            |it| {
                let it = it.bind(nonce.to_string()).bind(device.to_string()).bind(actor);
                let it = it.bind(idempotency).bind(fingerprint.to_string());
                it.bind(row.asked_at.0).bind(row.expires_at.0).bind(row.input)
            },
        )
        .await?;
        Ok(())
    }

    /// Keeps the answer of the device that was asked, the first one; false where nobody asked it that.
    pub(crate) async fn set_answer(
        &mut self,
        device: &DeviceId,
        (nonce, answer): (Nonce, Vec<u8>),
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let device = device.to_string();
        let changed = self
            .run(
                "UPDATE requests SET answer = $4, answered_at = $5, input = NULL
                 WHERE tenant = $1 AND nonce = $2 AND device = $3 AND answered_at IS NULL",
                |it| it.bind(nonce.to_string()).bind(device).bind(answer).bind(now.0),
            )
            .await?;
        Ok(changed > 0)
    }
}

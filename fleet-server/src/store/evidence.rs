//! What is kept of a rollout between two looks, and the windows that it is made of.

use sealift_protocol::codec;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, ModelName, RolloutId, UnixMillis};

use super::{Change, StoreError, TenantStore, corrupt, signed, unsigned};
use crate::rollout::evidence::Observation;
use crate::store::profiles::StoredWindow;

/// Bytes of an observation: 64 waves of 200 canaries with 32 classes are 40 MB, and nobody rolls out so; a usual one has 50 KB.
const OBSERVATION_BYTES_MAX: usize = 64 << 20;

impl TenantStore {
    /// What is kept of a rollout; none before the first look.
    pub(crate) async fn observation(
        &self,
        rollout: RolloutId,
    ) -> Result<Option<Observation>, StoreError> {
        let body: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT body FROM evidence WHERE tenant = $1 AND rollout = $2")
                .bind(self.id().to_owned())
                .bind(signed("rollout", rollout.0)?)
                .fetch_optional(self.readers())
                .await?;
        let decode = |body: Vec<u8>| {
            codec::decode("evidence", &body, OBSERVATION_BYTES_MAX)
                .map_err(|error| corrupt("evidence", &error.to_string()))
        };
        body.map(decode).transpose()
    }

    /// The number of the newest window of a model.
    pub(crate) async fn newest_window(&self, model: &ModelName) -> Result<u64, StoreError> {
        let newest: Option<i64> = sqlx::query_scalar(
            "SELECT MAX(number) FROM profile_windows WHERE tenant = $1 AND model = $2",
        )
        .bind(self.id().to_owned())
        .bind(model.to_string())
        .fetch_one(self.readers())
        .await?;
        unsigned("window", newest.unwrap_or(0))
    }

    /// The newest windows of a device within a span of time, of other images than one.
    pub(crate) async fn windows_before(
        &self,
        (device, model): (&DeviceId, &ModelName),
        image: Digest,
        (from, until): (UnixMillis, UnixMillis),
        limit: u32,
    ) -> Result<Vec<StoredWindow>, StoreError> {
        let numbers: Vec<i64> = sqlx::query_scalar(
            "SELECT number FROM profile_windows WHERE tenant = $1 AND device = $2 AND model = $3
             AND digest <> $4 AND received_at >= $5 AND received_at < $6
             ORDER BY number DESC LIMIT $7",
        )
        .bind(self.id().to_owned())
        .bind(device.to_string())
        .bind(model.to_string())
        .bind(image.to_string())
        .bind(from.0)
        .bind(until.0)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        let mut windows = Vec::new();
        for number in numbers {
            let before = unsigned("window", number)?.saturating_sub(1);
            windows.extend(self.windows_after(before, 1).await?);
        }
        Ok(windows)
    }
}

impl Change {
    /// Keeps what is known of a rollout.
    pub(crate) async fn save_observation(
        &mut self,
        rollout: RolloutId,
        observation: &Observation,
    ) -> Result<(), StoreError> {
        let number = signed("rollout", rollout.0)?;
        let body =
            codec::encode(observation).map_err(|error| corrupt("evidence", &error.to_string()))?;
        self.run(
            "INSERT INTO evidence (tenant, rollout, body) VALUES ($1, $2, $3)
             ON CONFLICT (tenant, rollout) DO UPDATE SET body = excluded.body",
            |it| it.bind(number).bind(body),
        )
        .await?;
        Ok(())
    }

    /// Forgets what is known of a rollout: an operator has seen it and goes on, or it is over.
    pub(crate) async fn forget_observation(
        &mut self,
        rollout: RolloutId,
    ) -> Result<(), StoreError> {
        let number = signed("rollout", rollout.0)?;
        let statement = "DELETE FROM evidence WHERE tenant = $1 AND rollout = $2";
        self.run(statement, |it| it.bind(number)).await?;
        Ok(())
    }
}

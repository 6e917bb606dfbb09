//! Profile windows as devices sent them; merged and judged elsewhere.

use sealift_protocol::id::{DeviceId, UnixMillis, Version};
use sealift_protocol::report::ImageRef;
use sealift_protocol::telemetry::ProfileWindow;

use super::{Change, StoreError, TenantStore, parsed, signed, unsigned};

/// A stored window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredWindow {
    /// Rises with each window stored; a reader goes on after the last that it has seen.
    pub(crate) number: u64,
    /// Who sent it.
    pub(crate) device: DeviceId,
    /// When it came.
    pub(crate) received_at: UnixMillis,
    /// The window.
    pub(crate) window: ProfileWindow,
}

#[derive(sqlx::FromRow)]
struct Row {
    number: i64,
    device: String,
    model: String,
    version: String,
    digest: String,
    from_at: i64,
    until_at: i64,
    errors: i64,
    received_at: i64,
    body: Vec<u8>,
}

impl TenantStore {
    /// Windows of all models stored after window `after`, in the order in which they were stored.
    pub(crate) async fn windows_after(
        &self,
        after: u64,
        limit: u32,
    ) -> Result<Vec<StoredWindow>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT number, device, model, version, digest, from_at, until_at, errors, received_at,
             body FROM profile_windows WHERE tenant = $1 AND number > $2 ORDER BY number LIMIT $3",
        )
        .bind(self.id().to_owned())
        .bind(signed("window", after)?)
        .bind(i64::from(limit))
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(stored).collect()
    }
}

impl Change {
    /// Stores a window; one that is there already stays.
    pub(crate) async fn add_window(
        &mut self,
        device: &DeviceId,
        window: &ProfileWindow,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let ImageRef { version, index } = &window.image;
        let (device, model) = (device.to_string(), window.model.to_string());
        let (version, digest) = (version.to_string(), index.to_string());
        let (from, until) = (window.from.0, window.until.0);
        let errors = signed("errors", window.errors)?;
        let body = window.profile.clone();
        self.run(
            "INSERT INTO profile_windows (tenant, device, model, version, digest, from_at, until_at,
             errors, received_at, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (tenant, device, model, digest, from_at, until_at) DO NOTHING",
            |it| {
                let it = it.bind(device).bind(model).bind(version).bind(digest).bind(from);
                it.bind(until).bind(errors).bind(now.0).bind(body)
            },
        )
        .await?;
        Ok(())
    }
}

fn stored(row: Row) -> Result<StoredWindow, StoreError> {
    let version: Version = parsed("version", &row.version)?;
    let window = ProfileWindow {
        model: parsed("model", &row.model)?,
        image: ImageRef { version, index: parsed("digest", &row.digest)? },
        from: UnixMillis(row.from_at),
        until: UnixMillis(row.until_at),
        profile: row.body,
        errors: unsigned("errors", row.errors)?,
    };
    Ok(StoredWindow {
        number: unsigned("window", row.number)?,
        device: parsed("device", &row.device)?,
        received_at: UnixMillis(row.received_at),
        window,
    })
}

//! Uploads under way: how far each has come, and the parts in which its bytes lie.

use sealift_protocol::id::UnixMillis;

use super::{Change, StoreError, TenantStore, signed, unsigned};
use crate::registry::name::Repository;

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upload {
    /// What it is called.
    pub(crate) id: String,
    /// How many bytes have come.
    pub(crate) bytes: u64,
}

/// The next bytes of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewPart<'a> {
    /// The byte it begins at.
    pub(crate) start: u64,
    /// How many bytes it has.
    pub(crate) size: u64,
    /// What it is called in the blob store.
    pub(crate) name: &'a str,
}

impl TenantStore {
    /// An upload to a repository.
    pub(crate) async fn upload(
        &self,
        repository: &Repository,
        id: &str,
    ) -> Result<Option<Upload>, StoreError> {
        let bytes: Option<i64> = sqlx::query_scalar(
            "SELECT bytes FROM uploads WHERE tenant = $1 AND repository = $2 AND id = $3",
        )
        .bind(self.id().to_owned())
        .bind(repository.to_string())
        .bind(id.to_owned())
        .fetch_optional(self.readers())
        .await?;
        let upload =
            |bytes| Ok(Upload { id: id.to_owned(), bytes: unsigned("upload length", bytes)? });
        bytes.map(upload).transpose()
    }

    /// The names of an upload's parts, in their order.
    pub(crate) async fn upload_parts(&self, id: &str) -> Result<Vec<String>, StoreError> {
        let names = sqlx::query_scalar(
            "SELECT name FROM upload_parts WHERE tenant = $1 AND upload = $2 ORDER BY start",
        )
        .bind(self.id().to_owned())
        .bind(id.to_owned())
        .fetch_all(self.readers())
        .await?;
        Ok(names)
    }

    /// How many uploads to repositories are under way, and how many bytes of them have come.
    pub(crate) async fn uploads_under_way(&self) -> Result<(u64, u64), StoreError> {
        let (count, bytes): (i64, i64) = sqlx::query_as(
            "SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM uploads
             WHERE tenant = $1 AND repository <> ''",
        )
        .bind(self.id().to_owned())
        .fetch_one(self.readers())
        .await?;
        Ok((unsigned("count", count)?, unsigned("upload length", bytes)?))
    }

    /// Whether an upload is under way.
    pub(crate) async fn is_upload(&self, id: &str) -> Result<bool, StoreError> {
        let found: Option<i64> =
            sqlx::query_scalar("SELECT bytes FROM uploads WHERE tenant = $1 AND id = $2")
                .bind(self.id().to_owned())
                .bind(id.to_owned())
                .fetch_optional(self.readers())
                .await?;
        Ok(found.is_some())
    }
}

impl Change {
    /// Begins an upload to a repository; one to none is of what a device brings up.
    pub(crate) async fn add_upload(
        &mut self,
        repository: Option<&Repository>,
        id: &str,
        (by, now): (&str, UnixMillis),
    ) -> Result<(), StoreError> {
        let repository = repository.map(ToString::to_string).unwrap_or_default();
        let (id, by) = (id.to_owned(), by.to_owned());
        self.run(
            "INSERT INTO uploads (tenant, id, repository, bytes, parts, begun_by, touched_at)
             VALUES ($1, $2, $3, 0, 0, $4, $5)",
            |it| it.bind(id).bind(repository).bind(by).bind(now.0),
        )
        .await?;
        Ok(())
    }

    /// Adds the next part, unless somebody else has gone on with the upload, or it has `parts_max` parts; returns whether it is added.
    pub(crate) async fn add_upload_part(
        &mut self,
        id: &str,
        part: NewPart<'_>,
        parts_max: i64,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let start = signed("upload length", part.start)?;
        let end = signed("upload length", part.start.saturating_add(part.size))?;
        let moved = self
            .run(
                "UPDATE uploads SET bytes = $4, parts = parts + 1, touched_at = $5
                 WHERE tenant = $1 AND id = $2 AND bytes = $3 AND parts < $6",
                |it| it.bind(id.to_owned()).bind(start).bind(end).bind(now.0).bind(parts_max),
            )
            .await?;
        if moved == 0 {
            return Ok(false);
        }
        let name = part.name.to_owned();
        self.run(
            "INSERT INTO upload_parts (tenant, upload, start, name) VALUES ($1, $2, $3, $4)",
            |it| it.bind(id.to_owned()).bind(start).bind(name),
        )
        .await?;
        Ok(true)
    }

    /// Ends an upload; returns whether it was under way.
    pub(crate) async fn end_upload(&mut self, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        let ended =
            self.run("DELETE FROM uploads WHERE tenant = $1 AND id = $2", |it| it.bind(id)).await?;
        Ok(ended == 1)
    }

    /// Ends the uploads that nobody has gone on with since `before`; returns which.
    pub(crate) async fn end_idle_uploads(
        &mut self,
        before: UnixMillis,
    ) -> Result<Vec<String>, StoreError> {
        let ids = sqlx::query_scalar(
            "DELETE FROM uploads WHERE tenant = $1 AND touched_at < $2 RETURNING id",
        )
        .bind(self.tenant().as_str().to_owned())
        .bind(before.0)
        .fetch_all(self.connection())
        .await?;
        Ok(ids)
    }
}

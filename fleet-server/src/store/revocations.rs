//! The deny list as people read it: what is on it, and why.

use std::collections::BTreeSet;

use sealift_protocol::api::{RevocationKind, RevocationView};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{DeviceId, UnixMillis};

use super::trust::VersionName;
use super::{Change, StoreError, TenantStore, from_json, from_word, parsed, word};

/// Entries that are listed; the signed list holds no more of each kind.
const LISTED_MAX: i64 = 30_000;

/// What is denied, by its kind and its name.
pub(crate) type Subject = (RevocationKind, String);

#[derive(sqlx::FromRow)]
struct Row {
    kind: String,
    subject: String,
    reason: String,
    actor: String,
    at: i64,
}

impl TenantStore {
    /// Everything that is denied, newest first.
    pub(crate) async fn revocations(&self) -> Result<Vec<RevocationView>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT kind, subject, reason, actor, at FROM revocations
             WHERE tenant = $1 ORDER BY at DESC, kind, subject LIMIT $2",
        )
        .bind(self.id().to_owned())
        .bind(LISTED_MAX)
        .fetch_all(self.readers())
        .await?;
        let view = |row: Row| {
            Ok(RevocationView {
                kind: from_word("kind of revocation", &row.kind)?,
                subject: row.subject,
                versions: Vec::new(),
                reason: row.reason,
                by: row.actor,
                at: UnixMillis(row.at),
            })
        };
        rows.into_iter().map(view).collect()
    }

    /// Why an image may not be run, if it may not.
    pub(crate) async fn why_denied(&self, image: Digest) -> Result<Option<String>, StoreError> {
        let reason = sqlx::query_scalar(
            "SELECT reason FROM revocations WHERE tenant = $1 AND kind = $2 AND subject = $3",
        )
        .bind(self.id().to_owned())
        .bind(word("kind of revocation", &RevocationKind::Image)?)
        .bind(image.to_string())
        .fetch_optional(self.readers())
        .await?;
        Ok(reason)
    }

    /// Every version whose index, or the manifest of one of whose variants, is among `images`, with the digest that is.
    pub(crate) async fn versions_with(
        &self,
        images: &BTreeSet<Digest>,
    ) -> Result<Vec<(VersionName, Digest)>, StoreError> {
        let rows: Vec<(String, String, String, String)> = sqlx::query_as(
            "SELECT model, version, digest, manifests FROM versions
             WHERE tenant = $1 ORDER BY model, version",
        )
        .bind(self.id().to_owned())
        .fetch_all(self.readers())
        .await?;
        let mut found = Vec::new();
        for (model, version, digest, manifests) in rows {
            let index: Digest = parsed("digest", &digest)?;
            let manifests: Vec<Digest> = from_json("manifests", &manifests)?;
            let named = [index].into_iter().chain(manifests).find(|digest| images.contains(digest));
            if let Some(digest) = named {
                found.push(((parsed("model", &model)?, parsed("version", &version)?), digest));
            }
        }
        Ok(found)
    }

    /// Devices whose present certificate has one of these serial numbers.
    pub(crate) async fn devices_with_serials(
        &self,
        serials: &BTreeSet<String>,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let mut found = Vec::new();
        for serial in serials {
            let devices: Vec<String> = sqlx::query_scalar(
                "SELECT id FROM devices
                 WHERE tenant = $1 AND certificate_serial = $2 AND revoked_at IS NULL",
            )
            .bind(self.id().to_owned())
            .bind(serial.clone())
            .fetch_all(self.readers())
            .await?;
            for device in devices {
                found.push(parsed("device", &device)?);
            }
        }
        Ok(found)
    }
}

impl Change {
    /// Notes what is denied. Returns whether it was not before.
    pub(crate) async fn deny(
        &mut self,
        (kind, subject): &Subject,
        reason: &str,
        (actor, now): (&str, UnixMillis),
    ) -> Result<bool, StoreError> {
        let (kind, subject) = (word("kind of revocation", kind)?, subject.clone());
        let (reason, actor) = (reason.to_owned(), actor.to_owned());
        let added = self
            .run(
                "INSERT INTO revocations (tenant, kind, subject, reason, actor, at)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                |it| it.bind(kind).bind(subject).bind(reason).bind(actor).bind(now.0),
            )
            .await?;
        Ok(added == 1)
    }

    /// Forgets what is denied no more.
    pub(crate) async fn allow(&mut self, (kind, subject): &Subject) -> Result<(), StoreError> {
        let (kind, subject) = (word("kind of revocation", kind)?, subject.clone());
        self.run(
            "DELETE FROM revocations WHERE tenant = $1 AND kind = $2 AND subject = $3",
            |it| it.bind(kind).bind(subject),
        )
        .await?;
        Ok(())
    }
}

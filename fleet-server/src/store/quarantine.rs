//! Versions that are not to be rolled out any more, because somebody went back from them.

use sealift_protocol::id::{ModelName, UnixMillis, Version};

use super::{Change, StoreError, TenantStore, parsed};
use crate::audit::Deed;

impl TenantStore {
    /// The quarantined versions of a model.
    pub(crate) async fn quarantined(&self, model: &ModelName) -> Result<Vec<Version>, StoreError> {
        let versions: Vec<String> = sqlx::query_scalar(
            "SELECT version FROM quarantine WHERE tenant = $1 AND model = $2 ORDER BY version",
        )
        .bind(self.id().to_owned())
        .bind(model.to_string())
        .fetch_all(self.readers())
        .await?;
        versions.iter().map(|version| parsed("version", version)).collect()
    }
}

impl Change {
    /// Puts a version into quarantine. Returns whether it was not there.
    pub(crate) async fn quarantine(
        &mut self,
        model: &ModelName,
        version: &Version,
        reason: &str,
        (actor, now): (&str, UnixMillis),
    ) -> Result<bool, StoreError> {
        let subject = format!("{model}@{version}");
        let action = "version.quarantine";
        let deed = Deed { actor, action, subject: &subject, reason: Some(reason), detail: "" };
        let (model, version) = (model.to_string(), version.to_string());
        let (reason, actor) = (reason.to_owned(), actor.to_owned());
        let added = self
            .run(
                "INSERT INTO quarantine (tenant, model, version, reason, actor, at)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                |it| it.bind(model).bind(version).bind(reason).bind(actor).bind(now.0),
            )
            .await?;
        if added == 1 {
            self.audit(&deed, now).await?;
        }
        Ok(added == 1)
    }
}

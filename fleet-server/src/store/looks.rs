//! Who has looked at what: the first look is a row of the audit log, those after it are none, so that whoever looks often fills no log.

use sealift_protocol::id::UnixMillis;

use super::Change;
use super::StoreError;
use crate::audit::Deed;

impl Change {
    /// Notes that somebody has looked at something, if they have not before; returns whether they have not.
    pub(crate) async fn audit_look(
        &mut self,
        deed: &Deed<'_>,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let (actor, action, subject) =
            (deed.actor.to_owned(), deed.action.to_owned(), deed.subject.to_owned());
        let noted = self
            .run(
                "INSERT INTO looks (tenant, actor, action, subject, at) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT DO NOTHING",
                |it| it.bind(actor).bind(action).bind(subject).bind(now.0),
            )
            .await?;
        if noted == 1 {
            self.audit(deed, now).await?;
        }
        Ok(noted == 1)
    }
}

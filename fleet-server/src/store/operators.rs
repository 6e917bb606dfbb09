//! Who may use the server: API tokens, one-time login codes, sessions. Only hashes are kept.

use sealift_protocol::api::Role;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;

use super::{Change, StoreError, TenantStore, from_word, word};

/// An operator, as a token or a session names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operator {
    /// Their name.
    pub(crate) name: String,
    /// What they may do.
    pub(crate) role: Role,
}

/// A session of the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// Whose.
    pub(crate) operator: Operator,
    /// Must come with every change.
    pub(crate) csrf: String,
}

impl TenantStore {
    /// The operator that an API token belongs to.
    pub(crate) async fn api_token(&self, hash: Digest) -> Result<Option<Operator>, StoreError> {
        let row: Option<(String, String)> =
            sqlx::query_as("SELECT operator, role FROM api_tokens WHERE tenant = $1 AND hash = $2")
                .bind(self.id().to_owned())
                .bind(hash.to_string())
                .fetch_optional(self.readers())
                .await?;
        row.map(operator).transpose()
    }

    /// The session with this secret, if it has not ended.
    pub(crate) async fn session(
        &self,
        hash: Digest,
        now: UnixMillis,
    ) -> Result<Option<Session>, StoreError> {
        let row: Option<(String, String, String)> = sqlx::query_as(
            "SELECT operator, role, csrf FROM sessions
             WHERE tenant = $1 AND hash = $2 AND expires_at > $3",
        )
        .bind(self.id().to_owned())
        .bind(hash.to_string())
        .bind(now.0)
        .fetch_optional(self.readers())
        .await?;
        let session = |(name, role, csrf)| Ok(Session { operator: operator((name, role))?, csrf });
        row.map(session).transpose()
    }
}

impl Change {
    /// Adds an API token, in place of the operator's earlier one.
    pub(crate) async fn set_api_token(
        &mut self,
        operator: &Operator,
        hash: Digest,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let (name, role) = (operator.name.clone(), word("role", &operator.role)?);
        let earlier = "DELETE FROM api_tokens WHERE tenant = $1 AND operator = $2";
        self.run(earlier, |it| it.bind(name.clone())).await?;
        self.run(
            "INSERT INTO api_tokens (tenant, hash, operator, role, created_at)
             VALUES ($1, $2, $3, $4, $5)",
            |it| it.bind(hash.to_string()).bind(name).bind(role).bind(now.0),
        )
        .await?;
        Ok(())
    }

    /// Adds a one-time login code.
    pub(crate) async fn add_login_code(
        &mut self,
        operator: &Operator,
        hash: Digest,
        expires_at: UnixMillis,
    ) -> Result<(), StoreError> {
        let (name, role) = (operator.name.clone(), word("role", &operator.role)?);
        self.run(
            "INSERT INTO login_codes (tenant, hash, operator, role, expires_at)
             VALUES ($1, $2, $3, $4, $5)",
            |it| it.bind(hash.to_string()).bind(name).bind(role).bind(expires_at.0),
        )
        .await?;
        Ok(())
    }

    /// Uses a login code up. Two who have the same code cannot both get in.
    pub(crate) async fn take_login_code(
        &mut self,
        hash: Digest,
        now: UnixMillis,
    ) -> Result<Option<Operator>, StoreError> {
        let row: Option<(String, String)> = sqlx::query_as(
            "DELETE FROM login_codes WHERE tenant = $1 AND hash = $2 AND expires_at > $3
             RETURNING operator, role",
        )
        .bind(self.tenant().to_string())
        .bind(hash.to_string())
        .bind(now.0)
        .fetch_optional(self.connection())
        .await?;
        row.map(operator).transpose()
    }

    /// Begins a session.
    pub(crate) async fn add_session(
        &mut self,
        session: &Session,
        hash: Digest,
        (now, expires_at): (UnixMillis, UnixMillis),
    ) -> Result<(), StoreError> {
        let (name, role) = (session.operator.name.clone(), word("role", &session.operator.role)?);
        let csrf = session.csrf.clone();
        self.run(
            "INSERT INTO sessions (tenant, hash, operator, role, csrf, created_at, used_at,
             expires_at) VALUES ($1, $2, $3, $4, $5, $6, $6, $7)",
            |it| {
                let it = it.bind(hash.to_string()).bind(name).bind(role).bind(csrf);
                it.bind(now.0).bind(expires_at.0)
            },
        )
        .await?;
        Ok(())
    }

    /// Ends a session.
    pub(crate) async fn end_session(&mut self, hash: Digest) -> Result<bool, StoreError> {
        let statement = "DELETE FROM sessions WHERE tenant = $1 AND hash = $2";
        Ok(self.run(statement, |it| it.bind(hash.to_string())).await? == 1)
    }
}

fn operator((name, role): (String, String)) -> Result<Operator, StoreError> {
    Ok(Operator { name, role: from_word("role", &role)? })
}

//! Sessions of the console, the one-time codes that begin some, and logins on their way through the provider. Only hashes are kept.

use sealift_protocol::api::{LoginMethod, SessionEntry};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;

use super::operators::{Operator, operator};
use super::tokens::{id_of, is_id};
use super::{Change, StoreError, TenantStore, from_word, word};

/// When a session was last used is written at most this often.
const USED_EVERY_MS: i64 = 60_000;

/// A session of the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// Whose.
    pub(crate) operator: Operator,
    /// Must come with every change.
    pub(crate) csrf: String,
    /// How it began.
    pub(crate) method: LoginMethod,
    /// When its person last showed that it is them.
    pub(crate) stepped_up_at: UnixMillis,
    /// Whether `operator` is an account, which ends it.
    pub(crate) is_account: bool,
    /// What the browser says that it is.
    pub(crate) browser: String,
}

/// A login that is on its way through the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OidcLogin {
    /// The hash of the cookie of the browser that began it; empty for `fleetctl`.
    pub(crate) browser: String,
    /// Must stand in the provider's answer.
    pub(crate) nonce: String,
    /// The verifier of the code exchange, or the code of a device.
    pub(crate) secret: String,
    /// `login`, `step-up:<hash of the session>` or `device`.
    pub(crate) wish: String,
    /// Before when the provider must not be asked again.
    pub(crate) due_at: UnixMillis,
    /// When it is too late.
    pub(crate) expires_at: UnixMillis,
}

#[derive(sqlx::FromRow)]
struct Row {
    operator: String,
    role: String,
    scope: String,
    csrf: String,
    method: String,
    stepped_up_at: i64,
    is_account: i64,
    browser: String,
    used_at: i64,
}

#[derive(sqlx::FromRow)]
struct Listed {
    hash: String,
    operator: String,
    method: String,
    browser: String,
    created_at: i64,
    used_at: i64,
    expires_at: i64,
}

#[derive(sqlx::FromRow)]
struct LoginRow {
    browser: String,
    nonce: String,
    secret: String,
    wish: String,
    due_at: i64,
    expires_at: i64,
}

impl TenantStore {
    /// The session with this secret, if it has not ended, was not idle for longer than `idle_ms`, and its account is not locked out.
    pub(crate) async fn session(
        &self,
        hash: Digest,
        now: UnixMillis,
        idle_ms: i64,
    ) -> Result<Option<Session>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT s.operator, s.role, s.scope, s.csrf, s.method, s.stepped_up_at, s.is_account,
             s.browser, s.used_at FROM sessions s
             WHERE s.tenant = $1 AND s.hash = $2 AND s.expires_at > $3 AND s.used_at > $4
             AND (s.is_account = 0 OR EXISTS (SELECT 1 FROM operators o WHERE o.tenant = s.tenant
             AND o.name = s.operator AND o.disabled_at IS NULL))",
        )
        .bind(self.id().to_owned())
        .bind(hash.to_string())
        .bind(now.0)
        .bind(now.plus(-idle_ms).0)
        .fetch_optional(self.readers())
        .await?;
        let Some(row) = row else { return Ok(None) };
        if now.0.saturating_sub(row.used_at) >= USED_EVERY_MS {
            let mut change = self.begin().await?;
            let statement = "UPDATE sessions SET used_at = $3 WHERE tenant = $1 AND hash = $2";
            change.run(statement, |it| it.bind(hash.to_string()).bind(now.0)).await?;
            change.commit().await?;
        }
        Ok(Some(Session {
            operator: operator(row.operator, &row.role, row.scope)?,
            csrf: row.csrf,
            method: from_word("method", &row.method)?,
            stepped_up_at: UnixMillis(row.stepped_up_at),
            is_account: row.is_account != 0,
            browser: row.browser,
        }))
    }

    /// Sessions that have not ended, newest first; of one operator, or of all.
    pub(crate) async fn sessions(
        &self,
        of: Option<&str>,
        now: UnixMillis,
        idle_ms: i64,
    ) -> Result<Vec<SessionEntry>, StoreError> {
        let rows: Vec<Listed> = sqlx::query_as(
            "SELECT hash, operator, method, browser, created_at, used_at, expires_at FROM sessions
             WHERE tenant = $1 AND (operator = $2 OR $2 = '') AND expires_at > $3 AND used_at > $4
             ORDER BY created_at DESC, hash LIMIT 10000",
        )
        .bind(self.id().to_owned())
        .bind(of.unwrap_or_default().to_owned())
        .bind(now.0)
        .bind(now.plus(-idle_ms).0)
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(entry).collect()
    }
}

impl Change {
    /// Adds a one-time login code.
    pub(crate) async fn add_login_code(
        &mut self,
        operator: &Operator,
        hash: Digest,
        expires_at: UnixMillis,
    ) -> Result<(), StoreError> {
        let Operator { name, scope, .. } = operator.clone();
        let role = word("role", &operator.role)?;
        self.run(
            "INSERT INTO login_codes (tenant, hash, operator, role, scope, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
            |it| {
                let it = it.bind(hash.to_string()).bind(name).bind(role).bind(scope);
                it.bind(expires_at.0)
            },
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
        let row: Option<(String, String, String)> = sqlx::query_as(
            "DELETE FROM login_codes WHERE tenant = $1 AND hash = $2 AND expires_at > $3
             RETURNING operator, role, scope",
        )
        .bind(self.tenant().to_string())
        .bind(hash.to_string())
        .bind(now.0)
        .fetch_optional(self.connection())
        .await?;
        row.map(|(name, role, scope)| operator(name, &role, scope)).transpose()
    }

    /// Begins a session.
    pub(crate) async fn add_session(
        &mut self,
        session: &Session,
        hash: Digest,
        (now, expires_at): (UnixMillis, UnixMillis),
    ) -> Result<(), StoreError> {
        let Operator { name, scope, .. } = session.operator.clone();
        let (role, method) =
            (word("role", &session.operator.role)?, word("method", &session.method)?);
        let (csrf, browser) = (session.csrf.clone(), session.browser.clone());
        let (stepped_up_at, is_account) = (session.stepped_up_at.0, i64::from(session.is_account));
        self.run(
            "INSERT INTO sessions (tenant, hash, operator, role, csrf, created_at, used_at,
             expires_at, scope, method, stepped_up_at, is_account, browser)
             VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9, $10, $11, $12)",
            |it| {
                let it = it.bind(hash.to_string()).bind(name).bind(role).bind(csrf);
                let it = it.bind(now.0).bind(expires_at.0).bind(scope).bind(method);
                it.bind(stepped_up_at).bind(is_account).bind(browser)
            },
        )
        .await?;
        Ok(())
    }

    /// Notes that the person of a session has shown that it is them.
    pub(crate) async fn step_session_up(
        &mut self,
        hash: Digest,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let statement = "UPDATE sessions SET stepped_up_at = $3 WHERE tenant = $1 AND hash = $2";
        Ok(self.run(statement, |it| it.bind(hash.to_string()).bind(now.0)).await? == 1)
    }

    /// Ends a session.
    pub(crate) async fn end_session(&mut self, hash: Digest) -> Result<bool, StoreError> {
        let statement = "DELETE FROM sessions WHERE tenant = $1 AND hash = $2";
        Ok(self.run(statement, |it| it.bind(hash.to_string())).await? == 1)
    }

    /// Ends the session that is named so; of one operator, or of anybody. Returns whose it was.
    pub(crate) async fn end_session_named(
        &mut self,
        id: &str,
        of: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        if !is_id(id) {
            return Ok(None);
        }
        let operator: Option<String> = sqlx::query_scalar(
            "DELETE FROM sessions WHERE tenant = $1 AND hash LIKE $2 AND (operator = $3 OR $3 = '')
             RETURNING operator",
        )
        .bind(self.tenant().to_string())
        .bind(format!("sha256:{id}%"))
        .bind(of.unwrap_or_default().to_owned())
        .fetch_optional(self.connection())
        .await?;
        Ok(operator)
    }

    /// Begins a login through the provider.
    pub(crate) async fn add_oidc_login(
        &mut self,
        login: &OidcLogin,
        hash: Digest,
    ) -> Result<(), StoreError> {
        let OidcLogin { browser, nonce, secret, wish, due_at, expires_at } = login.clone();
        self.run(
            "INSERT INTO oidc_logins (tenant, hash, browser, nonce, secret, wish, due_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            |it| {
                let it = it.bind(hash.to_string()).bind(browser).bind(nonce).bind(secret);
                it.bind(wish).bind(due_at.0).bind(expires_at.0)
            },
        )
        .await?;
        Ok(())
    }

    /// Takes a login out: an answer of the provider is looked at once.
    pub(crate) async fn take_oidc_login(
        &mut self,
        hash: Digest,
        now: UnixMillis,
    ) -> Result<Option<OidcLogin>, StoreError> {
        let row: Option<LoginRow> = sqlx::query_as(
            "DELETE FROM oidc_logins WHERE tenant = $1 AND hash = $2 AND expires_at > $3
             RETURNING browser, nonce, secret, wish, due_at, expires_at",
        )
        .bind(self.tenant().to_string())
        .bind(hash.to_string())
        .bind(now.0)
        .fetch_optional(self.connection())
        .await?;
        Ok(row.map(|row| OidcLogin {
            browser: row.browser,
            nonce: row.nonce,
            secret: row.secret,
            wish: row.wish,
            due_at: UnixMillis(row.due_at),
            expires_at: UnixMillis(row.expires_at),
        }))
    }

    /// How many logins are on their way.
    pub(crate) async fn count_oidc_logins(&mut self, now: UnixMillis) -> Result<u64, StoreError> {
        let statement = "DELETE FROM oidc_logins WHERE tenant = $1 AND expires_at <= $2";
        self.run(statement, |it| it.bind(now.0)).await?;
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM oidc_logins WHERE tenant = $1")
            .bind(self.tenant().to_string())
            .fetch_one(self.connection())
            .await?;
        super::unsigned("count", count)
    }
}

fn entry(row: Listed) -> Result<SessionEntry, StoreError> {
    Ok(SessionEntry {
        id: id_of(&row.hash),
        operator: row.operator,
        method: from_word("method", &row.method)?,
        browser: row.browser,
        created_at: UnixMillis(row.created_at),
        used_at: UnixMillis(row.used_at),
        expires_at: UnixMillis(row.expires_at),
        is_own: false,
    })
}

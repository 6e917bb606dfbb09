//! Operators with accounts: local ones with a password, and the provider's.

use sealift_protocol::api::{LoginMethod, OperatorView, Role};
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
    /// Which devices, as a filter of labels; empty for all.
    pub(crate) scope: String,
}

/// An operator who can log in by themselves.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// Who, and what they may do.
    pub(crate) operator: Operator,
    /// By what.
    pub(crate) method: LoginMethod,
    /// The hash of their password; none for the provider's.
    pub(crate) password: Option<String>,
    /// The sealed key of their authenticator, and the last time step whose code was used.
    pub(crate) totp: Option<(String, i64)>,
    /// Since when they are locked out.
    pub(crate) disabled_at: Option<UnixMillis>,
    created_by: String,
    created_at: UnixMillis,
    seen_at: Option<UnixMillis>,
}

/// What is kept of the secrets of a local account.
#[derive(Debug)]
pub(crate) struct Secrets {
    /// The hash of the password.
    pub(crate) password: String,
    /// The sealed key of the authenticator.
    pub(crate) totp_key: Option<String>,
    /// Hashes of codes that work once in its place.
    pub(crate) recovery: Vec<Digest>,
}

#[derive(sqlx::FromRow)]
struct Row {
    name: String,
    role: String,
    scope: String,
    method: String,
    password: Option<String>,
    totp_key: Option<String>,
    totp_step: i64,
    created_at: i64,
    created_by: String,
    disabled_at: Option<i64>,
    seen_at: Option<i64>,
}

const COLUMNS: &str = "SELECT name, role, scope, method, password, totp_key, totp_step, created_at,
     created_by, disabled_at, seen_at FROM operators WHERE tenant = $1";

impl Account {
    /// As people see it.
    pub(crate) fn view(&self) -> OperatorView {
        OperatorView {
            name: self.operator.name.clone(),
            role: self.operator.role,
            scope: self.operator.scope.clone(),
            method: self.method,
            has_totp: self.totp.is_some(),
            disabled_at: self.disabled_at,
            created_by: self.created_by.clone(),
            created_at: self.created_at,
            seen_at: self.seen_at,
        }
    }
}

impl TenantStore {
    /// The account of this name.
    pub(crate) async fn account(&self, name: &str) -> Result<Option<Account>, StoreError> {
        let row: Option<Row> =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("{COLUMNS} AND name = $2")))
                .bind(self.id().to_owned())
                .bind(name.to_owned())
                .fetch_optional(self.readers())
                .await?;
        row.map(account).transpose()
    }

    /// The name of the account of somebody whom the provider names so.
    pub(crate) async fn account_of(&self, subject: &str) -> Result<Option<String>, StoreError> {
        let text = "SELECT name FROM operators WHERE tenant = $1 AND subject = $2";
        let name = sqlx::query_scalar(text).bind(self.id().to_owned()).bind(subject.to_owned());
        Ok(name.fetch_optional(self.readers()).await?)
    }

    /// Every account, by name. There are as many as people.
    pub(crate) async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        let text = format!("{COLUMNS} ORDER BY name LIMIT 10000");
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(text))
            .bind(self.id().to_owned())
            .fetch_all(self.readers())
            .await?;
        rows.into_iter().map(account).collect()
    }

    /// Whether anybody can log in with a password.
    pub(crate) async fn has_local_accounts(&self) -> Result<bool, StoreError> {
        let found: Option<i64> = sqlx::query_scalar(
            "SELECT CAST(1 AS BIGINT) FROM operators WHERE tenant = $1 AND password IS NOT NULL
             AND disabled_at IS NULL LIMIT 1",
        )
        .bind(self.id().to_owned())
        .fetch_optional(self.readers())
        .await?;
        Ok(found.is_some())
    }
}

impl Change {
    /// Adds a local account. Returns whether its name was free.
    pub(crate) async fn add_account(
        &mut self,
        operator: &Operator,
        secrets: &Secrets,
        (by, now): (&str, UnixMillis),
    ) -> Result<bool, StoreError> {
        let Operator { name, scope, .. } = operator.clone();
        let (role, method) =
            (word("role", &operator.role)?, word("method", &LoginMethod::Password)?);
        let (password, key, by) =
            (secrets.password.clone(), secrets.totp_key.clone(), by.to_owned());
        let added = self
            .run(
                "INSERT INTO operators (tenant, name, role, scope, method, password, totp_key,
                 totp_step, created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9)
                 ON CONFLICT DO NOTHING",
                |it| {
                    let it = it.bind(name).bind(role).bind(scope).bind(method).bind(password);
                    it.bind(key).bind(now.0).bind(by)
                },
            )
            .await?;
        if added == 1 {
            self.set_recovery_codes(&operator.name, &secrets.recovery).await?;
        }
        Ok(added == 1)
    }

    /// Adds or updates an account of the provider's. Returns whether the name was free, or theirs already.
    pub(crate) async fn put_oidc_account(
        &mut self,
        operator: &Operator,
        subject: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let Operator { name, scope, .. } = operator.clone();
        let (role, method) = (word("role", &operator.role)?, word("method", &LoginMethod::Oidc)?);
        let subject = subject.to_owned();
        let put = self
            .run(
                "INSERT INTO operators (tenant, name, role, scope, method, subject, totp_step,
                 created_at, created_by, seen_at) VALUES ($1, $2, $3, $4, $5, $6, 0, $7, 'oidc', $7)
                 ON CONFLICT (tenant, name) DO UPDATE SET role = excluded.role,
                 scope = excluded.scope, seen_at = excluded.seen_at
                 WHERE operators.subject = excluded.subject",
                |it| it.bind(name).bind(role).bind(scope).bind(method).bind(subject).bind(now.0),
            )
            .await?;
        Ok(put == 1)
    }

    /// Replaces the secrets of a local account.
    pub(crate) async fn set_secrets(
        &mut self,
        name: &str,
        secrets: &Secrets,
    ) -> Result<bool, StoreError> {
        let (password, key) = (secrets.password.clone(), secrets.totp_key.clone());
        let name_bound = name.to_owned();
        let set = self
            .run(
                "UPDATE operators SET password = $3, totp_key = $4, totp_step = 0
                 WHERE tenant = $1 AND name = $2 AND password IS NOT NULL",
                |it| it.bind(name_bound).bind(password).bind(key),
            )
            .await?;
        if set == 1 {
            self.set_recovery_codes(name, &secrets.recovery).await?;
        }
        Ok(set == 1)
    }

    /// Changes what an operator may do, and whether they are locked out.
    pub(crate) async fn set_access(
        &mut self,
        operator: &Operator,
        disabled_at: Option<UnixMillis>,
    ) -> Result<bool, StoreError> {
        let Operator { name, scope, .. } = operator.clone();
        let role = word("role", &operator.role)?;
        let disabled_at = disabled_at.map(|at| at.0);
        let statement = "UPDATE operators SET role = $3, scope = $4, disabled_at = $5
             WHERE tenant = $1 AND name = $2";
        let bind =
            |it: super::Statement<'static>| it.bind(name).bind(role).bind(scope).bind(disabled_at);
        Ok(self.run(statement, bind).await? == 1)
    }

    /// Ends every session and every token of an operator, also those that were made on the server under the name.
    pub(crate) async fn end_everything_of(&mut self, name: &str) -> Result<u64, StoreError> {
        let mut ended = 0;
        for statement in [
            "DELETE FROM sessions WHERE tenant = $1 AND operator = $2",
            "DELETE FROM api_tokens WHERE tenant = $1 AND operator = $2",
            "DELETE FROM login_codes WHERE tenant = $1 AND operator = $2",
        ] {
            let name = name.to_owned();
            ended += self.run(statement, |it| it.bind(name)).await?;
        }
        Ok(ended)
    }

    /// Puts the sealed key of an authenticator in the place of one in plain text, unless that was changed in between.
    pub(crate) async fn seal_totp_key(
        &mut self,
        name: &str,
        plain: &str,
        sealed: &str,
    ) -> Result<u64, StoreError> {
        let (name, plain, sealed) = (name.to_owned(), plain.to_owned(), sealed.to_owned());
        let statement = "UPDATE operators SET totp_key = $4
             WHERE tenant = $1 AND name = $2 AND totp_key = $3";
        self.run(statement, |it| it.bind(name).bind(plain).bind(sealed)).await
    }

    /// Uses the code of a time step up. Returns whether nobody did before.
    pub(crate) async fn use_totp_step(
        &mut self,
        name: &str,
        step: i64,
    ) -> Result<bool, StoreError> {
        let name = name.to_owned();
        let statement = "UPDATE operators SET totp_step = $3
             WHERE tenant = $1 AND name = $2 AND totp_step < $3";
        Ok(self.run(statement, |it| it.bind(name).bind(step)).await? == 1)
    }

    /// Uses a recovery code up. Returns whether there was one.
    pub(crate) async fn use_recovery_code(
        &mut self,
        name: &str,
        hash: Digest,
    ) -> Result<bool, StoreError> {
        let name = name.to_owned();
        let statement =
            "DELETE FROM recovery_codes WHERE tenant = $1 AND operator = $2 AND hash = $3";
        Ok(self.run(statement, |it| it.bind(name).bind(hash.to_string())).await? == 1)
    }

    /// Notes that somebody has logged in.
    pub(crate) async fn note_login(
        &mut self,
        name: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let name = name.to_owned();
        let statement = "UPDATE operators SET seen_at = $3 WHERE tenant = $1 AND name = $2";
        self.run(statement, |it| it.bind(name).bind(now.0)).await?;
        Ok(())
    }

    async fn set_recovery_codes(&mut self, name: &str, codes: &[Digest]) -> Result<(), StoreError> {
        let owner = name.to_owned();
        let statement = "DELETE FROM recovery_codes WHERE tenant = $1 AND operator = $2";
        self.run(statement, |it| it.bind(owner)).await?;
        for hash in codes {
            let (owner, hash) = (name.to_owned(), hash.to_string());
            let statement =
                "INSERT INTO recovery_codes (tenant, operator, hash) VALUES ($1, $2, $3)";
            self.run(statement, |it| it.bind(owner).bind(hash)).await?;
        }
        Ok(())
    }
}

/// An operator from the columns in which every table has them.
pub(super) fn operator(name: String, role: &str, scope: String) -> Result<Operator, StoreError> {
    Ok(Operator { name, role: from_word("role", role)?, scope })
}

fn account(row: Row) -> Result<Account, StoreError> {
    Ok(Account {
        operator: operator(row.name, &row.role, row.scope)?,
        method: from_word("method", &row.method)?,
        password: row.password,
        totp: row.totp_key.map(|key| (key, row.totp_step)),
        disabled_at: row.disabled_at.map(UnixMillis),
        created_by: row.created_by,
        created_at: UnixMillis(row.created_at),
        seen_at: row.seen_at.map(UnixMillis),
    })
}

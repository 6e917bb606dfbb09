//! API tokens: random, kept as hashes, with a role, a scope and an end.

use sealift_protocol::api::TokenView;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;

use super::operators::{Operator, operator};
use super::{Change, StoreError, TenantStore, from_word, word};

/// When a token was last used is written at most this often.
const USED_EVERY_MS: i64 = 60_000;
/// Characters of its hash by which a token is named: enough to be alone, too few to be anything else.
const ID_CHARS: usize = 16;

/// A token as it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Whose, and what it may do.
    pub(crate) operator: Operator,
    /// Whether it does without a person what a person must confirm.
    pub(crate) step_up: bool,
    /// When its person last confirmed.
    pub(crate) stepped_up_at: UnixMillis,
    /// Whether `operator` is an account, which ends it.
    pub(crate) is_account: bool,
}

/// A token to be kept.
#[derive(Debug)]
pub(crate) struct NewToken<'a> {
    /// What it may do, and in whose name.
    pub(crate) token: &'a Token,
    /// What it is for.
    pub(crate) name: &'a str,
    /// Who makes it.
    pub(crate) by: &'a str,
    /// When it ends.
    pub(crate) expires_at: Option<UnixMillis>,
}

#[derive(sqlx::FromRow)]
struct Row {
    operator: String,
    role: String,
    scope: String,
    step_up: i64,
    stepped_up_at: i64,
    is_account: i64,
    used_at: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct Listed {
    hash: String,
    name: String,
    operator: String,
    role: String,
    scope: String,
    step_up: i64,
    created_by: String,
    created_at: i64,
    used_at: Option<i64>,
    expires_at: Option<i64>,
}

/// Names a secret that is stored under `hash`.
pub(crate) fn id_of(hash: &str) -> String {
    let hex = hash.split_once(':').map_or(hash, |(_, hex)| hex);
    hex.chars().take(ID_CHARS).collect()
}

/// Whether `id` can name a secret; one that is shorter would name many.
pub(super) fn is_id(id: &str) -> bool {
    id.len() == ID_CHARS
        && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

impl TenantStore {
    /// The token with this secret, if it has not ended and its account is not locked out.
    pub(crate) async fn api_token(
        &self,
        hash: Digest,
        now: UnixMillis,
    ) -> Result<Option<Token>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT t.operator, t.role, t.scope, t.step_up, t.stepped_up_at, t.is_account, t.used_at
             FROM api_tokens t WHERE t.tenant = $1 AND t.hash = $2
             AND (t.expires_at IS NULL OR t.expires_at > $3)
             AND (t.is_account = 0 OR EXISTS (SELECT 1 FROM operators o WHERE o.tenant = t.tenant
             AND o.name = t.operator AND o.disabled_at IS NULL))",
        )
        .bind(self.id().to_owned())
        .bind(hash.to_string())
        .bind(now.0)
        .fetch_optional(self.readers())
        .await?;
        let Some(row) = row else { return Ok(None) };
        if now.0.saturating_sub(row.used_at.unwrap_or(0)) >= USED_EVERY_MS {
            let mut change = self.begin().await?;
            let statement = "UPDATE api_tokens SET used_at = $3 WHERE tenant = $1 AND hash = $2";
            change.run(statement, |it| it.bind(hash.to_string()).bind(now.0)).await?;
            change.commit().await?;
        }
        Ok(Some(Token {
            operator: operator(row.operator, &row.role, row.scope)?,
            step_up: row.step_up != 0,
            stepped_up_at: UnixMillis(row.stepped_up_at),
            is_account: row.is_account != 0,
        }))
    }

    /// Tokens, newest first; of one operator, or of all. There are as many as people and programs.
    pub(crate) async fn api_tokens(&self, of: Option<&str>) -> Result<Vec<TokenView>, StoreError> {
        let rows: Vec<Listed> = sqlx::query_as(
            "SELECT hash, name, operator, role, scope, step_up, created_by, created_at, used_at,
             expires_at FROM api_tokens WHERE tenant = $1 AND (operator = $2 OR $2 = '')
             ORDER BY created_at DESC, hash LIMIT 10000",
        )
        .bind(self.id().to_owned())
        .bind(of.unwrap_or_default().to_owned())
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(view).collect()
    }
}

impl Change {
    /// Adds a token; in place of an earlier one of the operator under the same name.
    pub(crate) async fn set_api_token(
        &mut self,
        new: &NewToken<'_>,
        hash: Digest,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let Operator { name: owner, scope, .. } = new.token.operator.clone();
        let role = word("role", &new.token.operator.role)?;
        let (name, by, expires_at) =
            (new.name.to_owned(), new.by.to_owned(), new.expires_at.map(|at| at.0));
        let flags = [new.token.step_up, new.token.is_account].map(i64::from);
        let [step_up, is_account] = flags;
        let stepped_up_at = new.token.stepped_up_at.0;
        let earlier = "DELETE FROM api_tokens WHERE tenant = $1 AND operator = $2 AND name = $3";
        let (of, called) = (owner.clone(), name.clone());
        self.run(earlier, |it| it.bind(of).bind(called)).await?;
        self.run(
            "INSERT INTO api_tokens (tenant, hash, operator, role, created_at, name, scope, step_up,
             stepped_up_at, created_by, expires_at, is_account)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            |it| {
                let it = it.bind(hash.to_string()).bind(owner).bind(role).bind(now.0).bind(name);
                let it = it.bind(scope).bind(step_up).bind(stepped_up_at).bind(by);
                it.bind(expires_at).bind(is_account)
            },
        )
        .await?;
        Ok(())
    }

    /// Ends the token that is named so; of one operator, or of anybody. Returns what it was.
    pub(crate) async fn end_api_token(
        &mut self,
        id: &str,
        of: Option<&str>,
    ) -> Result<Option<TokenView>, StoreError> {
        if !is_id(id) {
            return Ok(None);
        }
        let row: Option<Listed> = sqlx::query_as(
            "DELETE FROM api_tokens WHERE tenant = $1 AND hash LIKE $2 AND (operator = $3 OR $3 = '')
             RETURNING hash, name, operator, role, scope, step_up, created_by, created_at, used_at,
             expires_at",
        )
        .bind(self.tenant().to_string())
        .bind(format!("sha256:{id}%"))
        .bind(of.unwrap_or_default().to_owned())
        .fetch_optional(self.connection())
        .await?;
        row.map(view).transpose()
    }

    /// Ends the token with this secret.
    pub(crate) async fn forget_api_token(&mut self, hash: Digest) -> Result<bool, StoreError> {
        let statement = "DELETE FROM api_tokens WHERE tenant = $1 AND hash = $2";
        Ok(self.run(statement, |it| it.bind(hash.to_string())).await? == 1)
    }

    /// Notes that the person behind a token has confirmed.
    pub(crate) async fn step_token_up(
        &mut self,
        hash: Digest,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let statement = "UPDATE api_tokens SET stepped_up_at = $3
             WHERE tenant = $1 AND hash = $2 AND is_account = 1";
        Ok(self.run(statement, |it| it.bind(hash.to_string()).bind(now.0)).await? == 1)
    }
}

fn view(row: Listed) -> Result<TokenView, StoreError> {
    Ok(TokenView {
        id: id_of(&row.hash),
        name: row.name,
        operator: row.operator,
        role: from_word("role", &row.role)?,
        scope: row.scope,
        step_up: row.step_up != 0,
        created_by: row.created_by,
        created_at: UnixMillis(row.created_at),
        used_at: row.used_at.map(UnixMillis),
        expires_at: row.expires_at.map(UnixMillis),
    })
}

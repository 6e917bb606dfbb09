//! Secrets of operators: how they are made, and how they are recognised again. The store sees only hashes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sealift_protocol::api::Role;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;

use crate::audit::Deed;
use crate::store::operators::{Operator, Session};
use crate::store::{StoreError, TenantStore, word};

/// 256 bits cannot be guessed, so a plain SHA-256 of them needs no salt and no work factor.
const SECRET_BYTES: usize = 32;
/// Tells people and secret scanners what they have found.
const TOKEN_PREFIX: &str = "slt_";
/// A login code is used at once or not at all.
const LOGIN_LIFE_MS: i64 = 5 * 60 * 1_000;
/// A session lasts a working day.
pub(crate) const SESSION_LIFE_MS: i64 = 12 * 3_600 * 1_000;
/// Characters of an operator's name.
const NAME_CHARS_MAX: usize = 80;

/// Why a secret was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random bytes from the system.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// A name that is empty, endless, or not printable.
    #[error("an operator's name has 1 to {NAME_CHARS_MAX} printable characters")]
    Name,
}

/// A session that has just begun: the only time that its secret is known.
pub(crate) struct NewSession {
    pub(crate) secret: String,
    pub(crate) session: Session,
}

/// The hash under which a secret is stored.
pub(crate) fn hash(secret: &str) -> Digest {
    Digest::of(secret.as_bytes())
}

/// Makes an API token for an operator, in place of an earlier one. Returns it: the only time that it is known.
pub(crate) async fn create_token(
    store: &TenantStore,
    name: &str,
    role: Role,
    now: UnixMillis,
) -> Result<String, AuthError> {
    let operator = operator(name, role)?;
    let token = format!("{TOKEN_PREFIX}{}", random()?);
    let mut change = store.begin().await?;
    change.set_api_token(&operator, hash(&token), now).await?;
    let detail = format!("role {}", word("role", &role)?);
    let deed = Deed {
        actor: "server",
        action: "token.create",
        subject: name,
        reason: None,
        detail: &detail,
    };
    change.audit(&deed, now).await?;
    change.commit().await?;
    Ok(token)
}

/// Makes a code that logs one person into the console, once.
pub(crate) async fn create_login_code(
    store: &TenantStore,
    name: &str,
    role: Role,
    now: UnixMillis,
) -> Result<String, AuthError> {
    let operator = operator(name, role)?;
    let code = random()?;
    let mut change = store.begin().await?;
    change.add_login_code(&operator, hash(&code), now.plus(LOGIN_LIFE_MS)).await?;
    let detail = format!("role {}", word("role", &role)?);
    let deed = Deed {
        actor: "server",
        action: "login-link.create",
        subject: name,
        reason: None,
        detail: &detail,
    };
    change.audit(&deed, now).await?;
    change.commit().await?;
    Ok(code)
}

/// Turns a login code into a session; none if the code is not good any more.
pub(crate) async fn log_in(
    store: &TenantStore,
    code: &str,
    now: UnixMillis,
) -> Result<Option<NewSession>, AuthError> {
    let (secret, csrf) = (random()?, random()?);
    let mut change = store.begin().await?;
    let Some(operator) = change.take_login_code(hash(code), now).await? else { return Ok(None) };
    let session = Session { operator, csrf };
    let life = (now, now.plus(SESSION_LIFE_MS));
    change.add_session(&session, hash(&secret), life).await?;
    let name = session.operator.name.as_str();
    let deed =
        Deed { actor: name, action: "session.begin", subject: name, reason: None, detail: "" };
    change.audit(&deed, now).await?;
    change.commit().await?;
    Ok(Some(NewSession { secret, session }))
}

fn operator(name: &str, role: Role) -> Result<Operator, AuthError> {
    let is_printable = name.chars().all(|character| !character.is_control());
    if name.trim().is_empty() || name.chars().count() > NAME_CHARS_MAX || !is_printable {
        return Err(AuthError::Name);
    }
    Ok(Operator { name: name.to_owned(), role })
}

fn random() -> Result<String, AuthError> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(AuthError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

//! How operators come in and are recognised again: one-time links, passwords with a second factor, tokens, the provider of identities.
//! The store sees only hashes.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sealift_protocol::api::{LoginMethod, LoginToken, Role};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;

use crate::audit::Deed;
use crate::reach::{InvalidReach, Reach};
use crate::store::operators::Operator;
use crate::store::sessions::Session;
use crate::store::tokens::{NewToken, Token};
use crate::store::{StoreError, TenantStore, word};

pub(crate) mod account;
pub(crate) mod oidc;
mod password;
mod seal;
pub(crate) mod throttle;
mod totp;

pub(crate) use password::{PasswordError, Passwords};
pub(crate) use seal::{Purpose, Seal};
use throttle::Throttle;

/// 256 bits cannot be guessed, so a plain SHA-256 of them needs no salt and no work factor.
const SECRET_BYTES: usize = 32;
/// Tells people and secret scanners what they have found.
const TOKEN_PREFIX: &str = "slt_";
/// A login code is used at once or not at all.
const LOGIN_LIFE_MS: i64 = 5 * 60 * 1_000;
/// A token that `fleetctl login` makes lasts a working day, as a session does.
const LOGIN_TOKEN_LIFE_MS: i64 = 12 * 3_600 * 1_000;
/// What a token of `fleetctl login` is called; the next login takes its place.
const LOGIN_TOKEN_NAME: &str = "fleetctl";
/// How long a confirmation counts.
const STEP_UP_MS: i64 = 5 * 60 * 1_000;
/// Characters of an operator's name, and of a token's.
const NAME_CHARS_MAX: usize = 80;
/// Characters of what a browser says of itself.
const BROWSER_CHARS_MAX: usize = 160;

const MINUTE_MS: i64 = 60_000;
/// Wrong secrets that one address may send a minute before it has to wait.
const FAILURES_OF_ADDRESS: u32 = 30;
/// Wrong passwords and codes for one account in five minutes: 2,880 a day, of a million codes and any number of passwords.
const FAILURES_OF_ACCOUNT: u32 = 10;
/// Failures written into the audit log a minute; beyond that they are only in the server's log, so that nobody fills the disk.
const FAILURES_WRITTEN: u32 = 120;

/// Logins through the provider that one address may begin a minute: of all that are on their way there is room for a thousand.
const DEPARTURES_OF_ADDRESS: u32 = 30;

/// Why somebody does not come in, or a secret was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random bytes from the system.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// The cipher has failed.
    #[error("a secret cannot be sealed")]
    Seal,
    /// A name that is empty, endless, or not printable.
    #[error("a name has 1 to {NAME_CHARS_MAX} printable characters")]
    Name,
    /// A scope that is none.
    #[error(transparent)]
    Scope(#[from] InvalidReach),
    /// The password.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// Name, password or code. Which of them is nobody's business.
    #[error("the name, the password or the code is wrong")]
    Wrong,
    /// Too many wrong ones before.
    #[error("there were too many wrong passwords or codes")]
    TooMany,
    /// The name is taken.
    #[error("there is an operator `{0}` already")]
    Taken(String),
    /// There is nobody of that name.
    #[error("there is no operator `{0}`")]
    Unknown(String),
    /// The account has no password that could be changed or confirmed with.
    #[error("`{0}` comes in through the provider, which keeps their password")]
    NotLocal(String),
}

/// When sessions end, and what must be confirmed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// A session through which nothing came for this long has ended.
    pub(crate) idle_ms: i64,
    /// A session ends after this long.
    pub(crate) life_ms: i64,
    /// A rollback of more devices must be confirmed.
    pub(crate) step_up_devices: u64,
    /// Whether operators come over TLS. Without it the port is on loopback alone.
    pub(crate) has_tls: bool,
}

impl Default for Rules {
    fn default() -> Self {
        let life_ms = SESSION_LIFE_MS;
        Self { idle_ms: 3_600 * 1_000, life_ms, step_up_devices: 100, has_tls: false }
    }
}

/// A session lasts a working day.
pub(crate) const SESSION_LIFE_MS: i64 = 12 * 3_600 * 1_000;

/// Recognises operators.
#[derive(Debug)]
pub(crate) struct Auth {
    /// The tenant's part of the store.
    pub(crate) store: TenantStore,
    /// When sessions end, and what must be confirmed.
    pub(crate) rules: Rules,
    /// The provider of identities.
    pub(crate) oidc: Option<oidc::Provider>,
    /// Seals what must be read again.
    pub(crate) seal: Seal,
    passwords: Passwords,
    of_address: Throttle<IpAddr>,
    of_account: Throttle<String>,
    written: Throttle<()>,
    departures: Throttle<IpAddr>,
}

/// From where somebody comes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visit {
    /// The address; none in tests without a socket.
    pub(crate) address: Option<IpAddr>,
    /// What the browser says of itself.
    pub(crate) browser: String,
}

impl Visit {
    fn browser(&self) -> String {
        let printable = self.browser.chars().filter(|character| !character.is_control());
        printable.take(BROWSER_CHARS_MAX).collect()
    }
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

impl Auth {
    /// Recognises the operators of `store`.
    pub(crate) fn new(
        store: TenantStore,
        rules: Rules,
        seal: Seal,
        oidc: Option<oidc::Provider>,
    ) -> Self {
        Self {
            store,
            seal,
            rules,
            oidc,
            passwords: Passwords::default(),
            of_address: Throttle::new(FAILURES_OF_ADDRESS, MINUTE_MS),
            of_account: Throttle::new(FAILURES_OF_ACCOUNT, 5 * MINUTE_MS),
            written: Throttle::new(FAILURES_WRITTEN, MINUTE_MS),
            departures: Throttle::new(DEPARTURES_OF_ADDRESS, MINUTE_MS),
        }
    }

    /// Whether an address has sent too many wrong secrets.
    pub(crate) fn must_wait(&self, visit: &Visit, now: UnixMillis) -> bool {
        visit.address.is_some_and(|address| self.of_address.is_over(&address, now))
    }

    /// Counts a wrong secret against the address that it came from.
    pub(crate) fn count_failure(&self, visit: &Visit, now: UnixMillis) {
        if let Some(address) = visit.address {
            self.of_address.add(&address, now);
        }
    }

    /// Whether an address may begin one more login through the provider.
    pub(crate) fn may_depart(&self, visit: &Visit, now: UnixMillis) -> bool {
        visit.address.is_none_or(|address| self.departures.add(&address, now))
    }

    /// Whether a confirmation at `at` still counts.
    pub(crate) const fn is_fresh(at: UnixMillis, now: UnixMillis) -> bool {
        now.since(at) < STEP_UP_MS
    }

    /// Turns a login code into a session; none if the code is not good any more.
    pub(crate) async fn log_in(
        &self,
        code: &str,
        visit: &Visit,
        now: UnixMillis,
    ) -> Result<Option<NewSession>, AuthError> {
        let mut change = self.store.begin().await?;
        let taken = change.take_login_code(hash(code), now).await?;
        change.commit().await?;
        let Some(operator) = taken else {
            self.refused(visit, "unknown", "wrong, used or late login code", now).await?;
            return Ok(None);
        };
        let session = Entry { operator, method: LoginMethod::Link, is_account: false };
        self.begin_session(session, visit, now).await.map(Some)
    }

    /// Begins a session. Rule (OWASP Session Management Cheat Sheet, "renew the session ID"): its secret is always new, whatever cookie came with the request (no fixation).
    async fn begin_session(
        &self,
        entry: Entry,
        visit: &Visit,
        now: UnixMillis,
    ) -> Result<NewSession, AuthError> {
        let (secret, csrf) = (random()?, random()?);
        let Entry { operator, method, is_account } = entry;
        let browser = visit.browser();
        let session = Session { operator, csrf, method, stepped_up_at: now, is_account, browser };
        let mut change = self.store.begin().await?;
        let life = (now, now.plus(self.rules.life_ms));
        change.add_session(&session, hash(&secret), life).await?;
        let name = session.operator.name.as_str();
        if is_account {
            change.note_login(name, now).await?;
        }
        let detail = format!("by {}{}", word("method", &method)?, from(visit));
        let deed = Deed {
            actor: name,
            action: "session.begin",
            subject: name,
            reason: None,
            detail: &detail,
        };
        change.audit(&deed, now).await?;
        change.commit().await?;
        Ok(NewSession { secret, session })
    }

    /// Makes the token of somebody who has logged in with `fleetctl`.
    async fn begin_token(
        &self,
        entry: Entry,
        visit: &Visit,
        now: UnixMillis,
    ) -> Result<LoginToken, AuthError> {
        let secret = format!("{TOKEN_PREFIX}{}", random()?);
        let expires_at = now.plus(LOGIN_TOKEN_LIFE_MS);
        let Entry { operator, method, is_account } = entry;
        let token = Token { operator, step_up: false, stepped_up_at: now, is_account };
        let name = token.operator.name.as_str();
        let new = NewToken {
            token: &token,
            name: LOGIN_TOKEN_NAME,
            by: name,
            expires_at: Some(expires_at),
        };
        let mut change = self.store.begin().await?;
        change.set_api_token(&new, hash(&secret), now).await?;
        change.note_login(name, now).await?;
        let detail = format!("by {} with fleetctl{}", word("method", &method)?, from(visit));
        let deed = Deed {
            actor: name,
            action: "session.begin",
            subject: name,
            reason: None,
            detail: &detail,
        };
        change.audit(&deed, now).await?;
        change.commit().await?;
        Ok(LoginToken { token: secret, expires_at })
    }

    /// Writes down that somebody was not let in. `name` is one that is known, never what was typed: it may be a password.
    pub(crate) async fn refused(
        &self,
        visit: &Visit,
        name: &str,
        why: &str,
        now: UnixMillis,
    ) -> Result<(), AuthError> {
        self.count_failure(visit, now);
        tracing::warn!(name, address = ?visit.address, why, "login refused");
        if !self.written.add(&(), now) {
            return Ok(());
        }
        let detail = format!("{why}{}", from(visit));
        let deed = Deed {
            actor: "nobody",
            action: "session.refused",
            subject: name,
            reason: None,
            detail: &detail,
        };
        let mut change = self.store.begin().await?;
        change.audit(&deed, now).await?;
        Ok(change.commit().await?)
    }
}

/// Somebody who was recognised and comes in.
pub(crate) struct Entry {
    pub(crate) operator: Operator,
    pub(crate) method: LoginMethod,
    pub(crate) is_account: bool,
}

fn from(visit: &Visit) -> String {
    visit.address.map(|address| format!(" from {address}")).unwrap_or_default()
}

/// Terms of a token.
pub(crate) struct TokenTerms<'a> {
    /// In whose name, and what it may do.
    pub(crate) operator: Operator,
    /// What it is for.
    pub(crate) name: &'a str,
    /// Whether it does without a person what a person must confirm.
    pub(crate) step_up: bool,
    /// Whether its operator is an account, which ends it.
    pub(crate) is_account: bool,
    /// When it ends.
    pub(crate) expires_at: Option<UnixMillis>,
}

/// Makes an API token on the server itself, in place of an earlier one of the name. Returns it: the only time that it is known.
#[cfg(test)]
pub(crate) async fn create_token(
    store: &TenantStore,
    name: &str,
    role: Role,
    now: UnixMillis,
) -> Result<String, AuthError> {
    let operator = operator(name, role, "")?;
    let terms =
        TokenTerms { operator, name: "", step_up: true, is_account: false, expires_at: None };
    issue_token(store, &terms, "server", now).await
}

/// Makes an API token. Returns it: the only time that it is known.
pub(crate) async fn issue_token(
    store: &TenantStore,
    terms: &TokenTerms<'_>,
    by: &str,
    now: UnixMillis,
) -> Result<String, AuthError> {
    if !terms.name.is_empty() {
        check_name(terms.name)?;
    }
    let secret = format!("{TOKEN_PREFIX}{}", random()?);
    let token = Token {
        operator: terms.operator.clone(),
        step_up: terms.step_up,
        stepped_up_at: UnixMillis(0),
        is_account: terms.is_account,
    };
    let new = NewToken { token: &token, name: terms.name, by, expires_at: terms.expires_at };
    let mut change = store.begin().await?;
    change.set_api_token(&new, hash(&secret), now).await?;
    let Operator { name, role, scope } = &terms.operator;
    let detail = format!(
        "`{}`, role {}, scope `{scope}`{}",
        terms.name,
        word("role", role)?,
        if terms.step_up { ", step-up" } else { "" },
    );
    let deed =
        Deed { actor: by, action: "token.create", subject: name, reason: None, detail: &detail };
    change.audit(&deed, now).await?;
    change.commit().await?;
    Ok(secret)
}

/// Makes a code that logs one person into the console, once.
pub(crate) async fn create_login_code(
    store: &TenantStore,
    name: &str,
    role: Role,
    now: UnixMillis,
) -> Result<String, AuthError> {
    let operator = operator(name, role, "")?;
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

/// An operator whose name and scope were checked.
pub(crate) fn operator(name: &str, role: Role, scope: &str) -> Result<Operator, AuthError> {
    check_name(name)?;
    Ok(Operator { name: name.to_owned(), role, scope: Reach::parse(scope)?.text().to_owned() })
}

fn check_name(name: &str) -> Result<(), AuthError> {
    let is_printable = name.chars().all(|character| !character.is_control());
    if name.trim().is_empty() || name.chars().count() > NAME_CHARS_MAX || !is_printable {
        return Err(AuthError::Name);
    }
    Ok(())
}

/// The code that an authenticator with this key, in base 32, shows at a moment.
#[cfg(test)]
pub(crate) fn totp_code(key: &str, now: UnixMillis) -> String {
    totp::shown(&totp::from_base32(key).unwrap_or_default(), now)
}

fn random() -> Result<String, AuthError> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(AuthError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

//! Logins through the provider, from their begin to the account that they end in.

use sealift_protocol::api::{DeviceLogin, DeviceProgressed, LoginMethod};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;

use super::{Begin, Claims, OidcError, Provider};
use crate::audit::Deed;
use crate::auth::{Auth, AuthError, Entry, NewSession, Visit, hash, random};
use crate::store::operators::Operator;
use crate::store::sessions::OidcLogin;

/// Time to log in at the provider.
const LOGIN_LIFE_MS: i64 = 10 * 60 * 1_000;
/// Logins on their way at a time.
const LOGINS_MAX: u64 = 1_000;
/// What RFC 8628, 3.5 adds for whoever asks too fast.
const SLOWER_MS: i64 = 5_000;

/// Where to send a browser, and the secret that it must bring back.
pub(crate) struct Departure {
    pub(crate) address: String,
    pub(crate) browser: String,
}

/// What came back.
pub(crate) struct Return<'a> {
    pub(crate) state: &'a str,
    pub(crate) code: &'a str,
    /// RFC 9207: who answers.
    pub(crate) issuer: Option<&'a str>,
    /// The cookie of the browser.
    pub(crate) browser: &'a str,
}

/// What a login through the provider ended in.
pub(crate) enum Arrival {
    /// A new session.
    Session(Box<NewSession>),
    /// The session that was there has confirmed.
    SteppedUp,
}

const LOGIN: &str = "login";
const DEVICE: &str = "device";
const STEP_UP: &str = "step-up:";

impl Auth {
    fn provider(&self) -> Result<&Provider, OidcError> {
        self.oidc.as_ref().ok_or_else(|| OidcError::Provider("none is configured".to_owned()))
    }

    /// Begins a login in a browser; with a session, its confirmation.
    pub(crate) async fn depart(
        &self,
        session: Option<Digest>,
        now: UnixMillis,
    ) -> Result<Departure, EnterError> {
        let provider = self.provider()?;
        let (state, nonce, verifier, browser) = (random()?, random()?, random()?, random()?);
        let is_step_up = session.is_some();
        let begin = Begin { state: &state, nonce: &nonce, verifier: &verifier, is_step_up };
        let address = provider.address(&begin, now).await?;
        let login = OidcLogin {
            browser: hash(&browser).to_string(),
            nonce,
            secret: verifier,
            wish: session.map_or_else(|| LOGIN.to_owned(), |hash| format!("{STEP_UP}{hash}")),
            due_at: now,
            expires_at: now.plus(LOGIN_LIFE_MS),
        };
        self.keep(&login, &state, now).await?;
        Ok(Departure { address, browser })
    }

    async fn keep(
        &self,
        login: &OidcLogin,
        state: &str,
        now: UnixMillis,
    ) -> Result<(), EnterError> {
        let mut change = self.store.begin().await.map_err(AuthError::from)?;
        if change.count_oidc_logins(now).await.map_err(AuthError::from)? >= LOGINS_MAX {
            return Err(OidcError::TooMany.into());
        }
        change.add_oidc_login(login, hash(state)).await.map_err(AuthError::from)?;
        Ok(change.commit().await.map_err(AuthError::from)?)
    }

    async fn take(&self, state: &str, now: UnixMillis) -> Result<OidcLogin, EnterError> {
        let mut change = self.store.begin().await.map_err(AuthError::from)?;
        let login = change.take_oidc_login(hash(state), now).await.map_err(AuthError::from)?;
        change.commit().await.map_err(AuthError::from)?;
        Ok(login.ok_or(OidcError::State)?)
    }

    /// Ends a login in a browser.
    ///
    /// RFC 9700, 4.7.1 and 4.4: the answer must belong to a login that this very browser has begun, at this very provider.
    pub(crate) async fn arrive(
        &self,
        back: &Return<'_>,
        visit: &Visit,
        now: UnixMillis,
    ) -> Result<Arrival, EnterError> {
        let arrived = self.try_arrive(back, visit, now).await;
        if let Err(EnterError::Oidc(error)) = &arrived {
            self.refused(visit, "oidc", &error.to_string(), now).await?;
        }
        arrived
    }

    async fn try_arrive(
        &self,
        back: &Return<'_>,
        visit: &Visit,
        now: UnixMillis,
    ) -> Result<Arrival, EnterError> {
        let provider = self.provider()?;
        let login = self.take(back.state, now).await?;
        if login.wish == DEVICE || login.browser != hash(back.browser).to_string() {
            return Err(OidcError::State.into());
        }
        let sends_issuer =
            provider.known(now).await?.metadata.authorization_response_iss_parameter_supported;
        let is_issuer = back.issuer.map_or(!sends_issuer, |it| it == provider.settings.issuer);
        if !is_issuer {
            return Err(OidcError::Token("another provider has answered".to_owned()).into());
        }
        let with = (login.secret.as_str(), login.nonce.as_str());
        let claims = provider.with_code(back.code, with, now).await?;
        if let Some(session) = login.wish.strip_prefix(STEP_UP) {
            self.confirm_session(session, &claims, now).await?;
            return Ok(Arrival::SteppedUp);
        }
        let entry = self.admit(provider, &claims, now).await?;
        let session = self.begin_session(entry, visit, now).await?;
        Ok(Arrival::Session(Box::new(session)))
    }

    /// Begins a login with `fleetctl`.
    pub(crate) async fn begin_device(&self, now: UnixMillis) -> Result<DeviceLogin, EnterError> {
        let provider = self.provider()?;
        let handle = random()?;
        let (device, code) = provider.begin_device(handle.clone(), now).await?;
        let wait_ms = i64::from(device.interval_s) * 1_000;
        let login = OidcLogin {
            browser: String::new(),
            nonce: wait_ms.to_string(),
            secret: code,
            wish: DEVICE.to_owned(),
            due_at: now,
            expires_at: now.plus(i64::from(device.expires_in_s) * 1_000),
        };
        self.keep(&login, &handle, now).await?;
        Ok(device)
    }

    /// Asks whether somebody has confirmed a login with `fleetctl`. The provider is not asked more often than it wants.
    pub(crate) async fn poll_device(
        &self,
        handle: &str,
        visit: &Visit,
        now: UnixMillis,
    ) -> Result<DeviceProgressed, EnterError> {
        let provider = self.provider()?;
        let mut login = self.take(handle, now).await?;
        if login.wish != DEVICE {
            return Err(OidcError::State.into());
        }
        let mut wait_ms: i64 = login.nonce.parse().unwrap_or(SLOWER_MS);
        if now < login.due_at {
            // Asking too soon puts the next question off no further.
            self.keep(&login, handle, now).await?;
            return Ok(DeviceProgressed::Pending { interval_s: seconds(wait_ms) });
        }
        match provider.with_device_code(&login.secret, now).await {
            Ok(claims) => {
                let entry = self.admit(provider, &claims, now).await?;
                Ok(DeviceProgressed::LoggedIn(self.begin_token(entry, visit, now).await?))
            }
            Err(OidcError::Pending { slower }) => {
                wait_ms += if slower { SLOWER_MS } else { 0 };
                (login.nonce, login.due_at) = (wait_ms.to_string(), now.plus(wait_ms));
                self.keep(&login, handle, now).await?;
                Ok(DeviceProgressed::Pending { interval_s: seconds(wait_ms) })
            }
            Err(error) => {
                self.refused(visit, "oidc", &error.to_string(), now).await?;
                Err(error.into())
            }
        }
    }

    /// The account of whom the provider names: their groups of today decide what they may do from now on.
    async fn admit(
        &self,
        provider: &Provider,
        claims: &Claims,
        now: UnixMillis,
    ) -> Result<Entry, EnterError> {
        let settings = &provider.settings;
        let name = self.name_of(provider, claims).await?;
        let groups = claims.texts(&settings.groups_claim);
        let grant = settings.grants.iter().find(|grant| groups.contains(&grant.group.as_str()));
        let grant = grant.ok_or_else(|| OidcError::NoRole(name.clone()))?;
        let operator = crate::auth::operator(&name, grant.role, &grant.scope)?;
        let subject = subject_of(provider, claims);
        let before = self.store.account(&name).await.map_err(AuthError::from)?;
        if before.as_ref().is_some_and(|account| account.disabled_at.is_some()) {
            return Err(AuthError::Wrong.into());
        }
        let mut change = self.store.begin().await.map_err(AuthError::from)?;
        let put = change.put_oidc_account(&operator, &subject, now).await;
        if !put.map_err(AuthError::from)? {
            return Err(OidcError::NameTaken(name).into());
        }
        let is_new = before.is_none();
        if before.is_none_or(|account| account.operator != operator) {
            if !is_new {
                // What was made under another role ends with it.
                change.end_everything_of(&operator.name).await.map_err(AuthError::from)?;
            }
            let action = if is_new { "operator.create" } else { "operator.change" };
            let Operator { name, scope, .. } = &operator;
            let detail =
                format!("role {:?}, scope `{scope}`, group {}", operator.role, grant.group);
            let deed = Deed { actor: "oidc", action, subject: name, reason: None, detail: &detail };
            change.audit(&deed, now).await.map_err(AuthError::from)?;
        }
        change.commit().await.map_err(AuthError::from)?;
        Ok(Entry { operator, method: LoginMethod::Oidc, is_account: true })
    }

    /// Rule (OpenID Connect Core, 5.7): a person is the issuer and the subject; names are lent. Whoever has an account keeps its name.
    async fn name_of(&self, provider: &Provider, claims: &Claims) -> Result<String, EnterError> {
        let known = self.store.account_of(&subject_of(provider, claims)).await;
        let given = claims.text(&provider.settings.name_claim).unwrap_or(&claims.sub);
        Ok(known.map_err(AuthError::from)?.unwrap_or_else(|| given.to_owned()))
    }

    /// OpenID Connect Core, 3.1.3.7, 13: `auth_time` says when. Rule: the same person, and just now.
    async fn confirm_session(
        &self,
        session: &str,
        claims: &Claims,
        now: UnixMillis,
    ) -> Result<(), EnterError> {
        let provider = self.provider()?;
        let name = self.name_of(provider, claims).await?;
        let auth_time =
            claims.auth_time.map_or(UnixMillis(0), |at| UnixMillis(at.saturating_mul(1_000)));
        let not_confirmed = || OidcError::NotConfirmed(name.clone());
        let hash: Digest = session.parse().map_err(|_| not_confirmed())?;
        let idle_ms = self.rules.idle_ms;
        let found = self.store.session(hash, now, idle_ms).await.map_err(AuthError::from)?;
        let is_theirs =
            found.is_some_and(|it| it.operator.name == name && it.method == LoginMethod::Oidc);
        if !is_theirs || !Self::is_fresh(auth_time, now) {
            return Err(not_confirmed().into());
        }
        let mut change = self.store.begin().await.map_err(AuthError::from)?;
        change.step_session_up(hash, now).await.map_err(AuthError::from)?;
        let deed = Deed {
            actor: &name,
            action: "session.step-up",
            subject: &name,
            reason: None,
            detail: "by oidc",
        };
        change.audit(&deed, now).await.map_err(AuthError::from)?;
        Ok(change.commit().await.map_err(AuthError::from)?)
    }
}

fn seconds(ms: i64) -> u32 {
    u32::try_from(ms / 1_000).unwrap_or(60)
}

fn subject_of(provider: &Provider, claims: &Claims) -> String {
    format!("{}#{}", provider.settings.issuer, claims.sub)
}

/// Why a login through the provider came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnterError {
    /// The provider, or what it says.
    #[error(transparent)]
    Oidc(#[from] OidcError),
    /// This server.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

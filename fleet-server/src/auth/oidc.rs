//! Logging in through a provider of identities: OpenID Connect Core 1.0, authorization code with PKCE; and RFC 8628 for `fleetctl`.
//!
//! ```text
//!  browser ── begin ──▶ provider ── code, state ──▶ callback ── code, verifier ──▶ token endpoint ──▶ ID token ──▶ account, session
//! ```

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use sealift_protocol::api::{DeviceLogin, Role};
use sealift_protocol::id::UnixMillis;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use url::Url;
use url::form_urlencoded::Serializer;

pub(crate) mod enter;
mod exchange;
mod id_token;

pub(crate) use id_token::Claims;

/// Providers answer in a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Metadata, keys and tokens are a few kilobytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Metadata and keys are asked for again after this long.
const KNOWN_FOR_MS: i64 = 60 * 60 * 1_000;
/// An unknown key makes us look again, at most this often: forged tokens must not make us ask for ever.
const LOOK_AGAIN_MS: i64 = 60 * 1_000;
/// Where the provider sends people back to.
pub(crate) const CALLBACK: &str = "/api/v1/session/oidc/callback";

/// Why the provider does not let somebody in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OidcError {
    /// It cannot be asked, or does not answer as the standard says.
    #[error("the provider of identities cannot be used: {0}")]
    Provider(String),
    /// It refused.
    #[error("the provider of identities refused: {0}")]
    Refused(String),
    /// The answer belongs to no login that was begun here.
    #[error("this login was not begun in this browser, or it is too old")]
    State,
    /// The ID token is not good.
    #[error("the provider's ID token is refused: {0}")]
    Token(String),
    /// None of their groups has a role.
    #[error("none of the groups of `{0}` has a role here")]
    NoRole(String),
    /// Their name belongs to somebody else here.
    #[error("there is another operator `{0}`")]
    NameTaken(String),
    /// Somebody else than the session's operator has confirmed.
    #[error("it was not `{0}` who confirmed, or not just now")]
    NotConfirmed(String),
    /// Nobody has confirmed yet.
    #[error("nobody has confirmed yet")]
    Pending {
        /// How much slower to ask.
        slower: bool,
    },
    /// Too many logins are on their way.
    #[error("too many logins are on their way")]
    TooMany,
}

/// What the configuration says of the provider.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Its address, as it names itself.
    pub(crate) issuer: String,
    /// As whom it knows this server.
    pub(crate) client_id: String,
    /// What it was told to know us by; none for a public client.
    pub(crate) client_secret: Option<String>,
    /// What is asked for besides `openid`.
    pub(crate) scopes: Vec<String>,
    /// The claim with the name.
    pub(crate) name_claim: String,
    /// The claim with the groups.
    pub(crate) groups_claim: String,
    /// The first that fits is theirs.
    pub(crate) grants: Vec<Grant>,
    /// Where the provider sends people back to: exactly what it has registered.
    pub(crate) redirect: String,
}

/// What a group may do.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    /// The group.
    pub(crate) group: String,
    /// What its members may do.
    pub(crate) role: Role,
    /// Which devices; checked.
    pub(crate) scope: String,
}

/// A provider; what it says of itself is asked for when it is needed, and kept for a while.
#[derive(Debug)]
pub(crate) struct Provider {
    settings: Settings,
    http: reqwest::Client,
    known: Mutex<Option<Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    metadata: Metadata,
    keys: JwkSet,
    at: UnixMillis,
}

/// OpenID Connect Discovery 1.0, 3; RFC 8414; RFC 8628, 4.
#[derive(Debug, Clone, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    userinfo_endpoint: Option<String>,
    #[serde(default)]
    device_authorization_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// What of a login is needed at its begin.
pub(crate) struct Begin<'a> {
    /// Comes back with the answer.
    pub(crate) state: &'a str,
    /// Comes back in the ID token.
    pub(crate) nonce: &'a str,
    /// Goes with the code.
    pub(crate) verifier: &'a str,
    /// Whether the person must show anew who they are.
    pub(crate) is_step_up: bool,
}

#[derive(Deserialize)]
struct DeviceAnswer {
    device_code: String,
    user_code: String,
    verification_uri: String,
    #[serde(default)]
    verification_uri_complete: Option<String>,
    expires_in: u32,
    #[serde(default)]
    interval: Option<u32>,
}

impl Provider {
    /// A provider that is asked for nothing yet.
    pub(crate) fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .timeout(ANSWER_WITHIN)
            // OAuth 2.0 Security BCP (RFC 9700), 4.11: a redirect could carry the code or the secret elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { settings, http, known: Mutex::new(None) })
    }

    /// Where to send a browser.
    pub(crate) async fn address(
        &self,
        begin: &Begin<'_>,
        now: UnixMillis,
    ) -> Result<String, OidcError> {
        let known = self.known(now).await?;
        let mut url = parse(&known.metadata.authorization_endpoint)?;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(begin.verifier.as_bytes()));
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", &self.settings.redirect)
            .append_pair("scope", &self.scope())
            .append_pair("state", begin.state)
            .append_pair("nonce", begin.nonce)
            // RFC 7636, 4.2: `plain` would show the verifier to whoever sees this address.
            .append_pair("code_challenge_method", "S256")
            .append_pair("code_challenge", &challenge);
        if begin.is_step_up {
            // OpenID Connect Core, 3.1.2.1: asks for a fresh login, and makes `auth_time` part of the ID token.
            query.append_pair("prompt", "login").append_pair("max_age", "0");
        }
        drop(query);
        Ok(url.into())
    }

    /// Begins a login on a machine without a browser; returns also the code of the device.
    pub(crate) async fn begin_device(
        &self,
        handle: String,
        now: UnixMillis,
    ) -> Result<(DeviceLogin, String), OidcError> {
        let known = self.known(now).await?;
        let endpoint =
            known.metadata.device_authorization_endpoint.as_deref().ok_or_else(|| {
                OidcError::Provider("it has no device authorization endpoint".to_owned())
            })?;
        let form = [("scope", self.scope())];
        let answer: DeviceAnswer = self.post(&known.metadata, endpoint, &form).await?;
        let login = DeviceLogin {
            handle,
            user_code: answer.user_code,
            verification_uri: answer.verification_uri,
            verification_uri_complete: answer.verification_uri_complete,
            // RFC 8628, 3.2: five seconds if not given.
            interval_s: answer.interval.unwrap_or(5).clamp(1, 60),
            expires_in_s: answer.expires_in.min(1_800),
        };
        Ok((login, answer.device_code))
    }

    fn scope(&self) -> String {
        let mut scope = vec!["openid".to_owned()];
        scope.extend(self.settings.scopes.iter().cloned());
        scope.join(" ")
    }

    /// The provider's metadata and keys. OpenID Connect Discovery, 4.3: the issuer in them must be the one that was asked.
    async fn known(&self, now: UnixMillis) -> Result<Known, OidcError> {
        let mut known = self.known.lock().await;
        if let Some(known) = &*known
            && now.since(known.at) < KNOWN_FOR_MS
        {
            return Ok(known.clone());
        }
        let fresh = self.fetch(now).await?;
        *known = Some(fresh.clone());
        Ok(fresh)
    }

    /// As [`Self::known`], and newer than what did not have a key, unless that is quite new itself.
    async fn known_anew(&self, old: &Known, now: UnixMillis) -> Result<Known, OidcError> {
        let mut known = self.known.lock().await;
        match &*known {
            Some(known) if known.at != old.at || now.since(known.at) < LOOK_AGAIN_MS => {
                Ok(known.clone())
            }
            Some(_) | None => {
                let fresh = self.fetch(now).await?;
                *known = Some(fresh.clone());
                Ok(fresh)
            }
        }
    }

    async fn fetch(&self, now: UnixMillis) -> Result<Known, OidcError> {
        let issuer = &self.settings.issuer;
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let metadata: Metadata = self.get(&address, None).await?;
        if metadata.issuer != *issuer {
            return Err(OidcError::Provider(format!("it calls itself {}", metadata.issuer)));
        }
        let endpoints =
            [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri];
        let others = [&metadata.userinfo_endpoint, &metadata.device_authorization_endpoint];
        for endpoint in endpoints.into_iter().chain(others.into_iter().flatten()) {
            parse(endpoint)?;
        }
        let keys = self.get(&metadata.jwks_uri, None).await?;
        Ok(Known { metadata, keys, at: now })
    }
}

/// Rule (OpenID Connect Core, 3.1.2.1; RFC 9700, 2.6): everything goes over TLS; only this machine itself may be asked without.
pub(crate) fn parse(address: &str) -> Result<Url, OidcError> {
    let refused = || OidcError::Provider(format!("`{address}` is neither https nor on loopback"));
    let url = Url::parse(address).map_err(|_| refused())?;
    let is_loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() == "https" || (url.scheme() == "http" && is_loopback) {
        return Ok(url);
    }
    Err(refused())
}

fn encoded(pairs: &[(&str, String)]) -> String {
    let mut form = Serializer::new(String::new());
    form.extend_pairs(pairs);
    form.finish()
}

#[cfg(test)]
mod tests;

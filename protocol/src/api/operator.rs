//! Operators: who they are, how they come in, and the tokens and sessions by which they are known.

use serde::{Deserialize, Serialize};

use crate::id::UnixMillis;

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// Read.
    Viewer,
    /// Roll out, roll back, acknowledge, label.
    Operator,
    /// Push images and signed metadata.
    Publisher,
    /// Approve or reject what somebody else asked for.
    Approver,
    /// Operators, tokens, sessions; revoke devices.
    SecurityAdmin,
    /// Read, and the audit log.
    Auditor,
    /// Everything.
    Admin,
}

impl Role {
    /// Every role, from the one that may least.
    pub const ALL: [Self; 7] = [
        Self::Viewer,
        Self::Auditor,
        Self::Operator,
        Self::Publisher,
        Self::Approver,
        Self::SecurityAdmin,
        Self::Admin,
    ];
}

/// How somebody came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum LoginMethod {
    /// A link that `fleet-server login-link` has printed.
    Link,
    /// A local account.
    Password,
    /// The provider of identities.
    Oidc,
    /// An API token: no session at all.
    Token,
}

/// `POST /session`: a one-time login becomes a session cookie.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionNew {
    /// The one-time code, as printed by `fleet-server login-link`.
    pub code: String,
}

/// `POST /session/password`: a local account becomes a session cookie, or a token for a program.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PasswordLogin {
    /// The operator.
    pub operator: String,
    /// Their password.
    pub password: String,
    /// The code of their authenticator, or a recovery code; empty for an account without one.
    #[serde(default)]
    pub code: String,
    /// Ask for a token of twelve hours in the body, and no cookie: for `fleetctl`.
    #[serde(default)]
    pub wants_token: bool,
}

/// `POST /session/step-up`: shows once more that it is still the same person.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepUp {
    /// The password, or a code of the authenticator, or a recovery code.
    pub secret: String,
}

/// `GET /session/ways`: how one can come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoginWays {
    /// Whether there are local accounts.
    pub password: bool,
    /// Where to begin with the provider of identities; none without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<String>,
}

/// `GET /session`: who is asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionView {
    /// The operator.
    pub operator: String,
    /// What they may do.
    pub roles: Vec<Role>,
    /// Which devices they see and change, as a filter of labels; empty for all.
    #[serde(default)]
    pub scope: String,
    /// How they came in.
    #[serde(default = "token_method")]
    pub method: LoginMethod,
    /// To be sent back as `X-Csrf-Token` with every change made through a cookie.
    pub csrf_token: String,
    /// The server's version.
    pub server_version: String,
}

const fn token_method() -> LoginMethod {
    LoginMethod::Token
}

/// A token that was made by logging in.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoginToken {
    /// The token; shown this once.
    pub token: String,
    /// When it ends.
    pub expires_at: UnixMillis,
}

/// `GET /sessions`: a browser in which somebody is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionEntry {
    /// Names it; it is not its secret.
    pub id: String,
    /// Who.
    pub operator: String,
    /// How they came in.
    pub method: LoginMethod,
    /// What the browser says that it is.
    pub browser: String,
    /// When it began.
    pub created_at: UnixMillis,
    /// When something last came through it, to the minute.
    pub used_at: UnixMillis,
    /// When it ends at the latest.
    pub expires_at: UnixMillis,
    /// Whether it is the one that asks.
    pub is_own: bool,
}

/// `POST /tokens`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenNew {
    /// What it is for, such as `ci`.
    pub name: String,
    /// What its holder may do; as the caller if not given.
    #[serde(default)]
    pub role: Option<Role>,
    /// Which devices, as a filter of labels; as the caller if empty.
    #[serde(default)]
    pub scope: String,
    /// Seconds until it expires; 30 days if not given, a year at most.
    #[serde(default)]
    pub expires_in_s: Option<u32>,
    /// Whether it may do without a person what a person must confirm.
    #[serde(default)]
    pub step_up: bool,
}

/// The answer to `POST /tokens`.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenCreated {
    /// The token; shown this once.
    pub token: String,
    /// What is known of it from now on.
    pub view: TokenView,
}

/// `GET /tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenView {
    /// Names it; it is not its secret.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Whose name stands in the audit log.
    pub operator: String,
    /// What its holder may do.
    pub role: Role,
    /// Which devices; empty for all.
    pub scope: String,
    /// Whether it may do without a person what a person must confirm.
    pub step_up: bool,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: UnixMillis,
    /// When it was last used, to the minute.
    pub used_at: Option<UnixMillis>,
    /// When it ends; never if not given.
    pub expires_at: Option<UnixMillis>,
}

/// `POST /operators`.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperatorNew {
    /// The name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Which devices, as a filter of labels; empty for all.
    #[serde(default)]
    pub scope: String,
    /// Their first password.
    pub password: String,
    /// Whether they need no authenticator.
    #[serde(default)]
    pub without_totp: bool,
}

/// `PATCH /operators/{name}`. What is not given stays.
#[derive(Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperatorChange {
    /// What they may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Which devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Whether they are locked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// A new password; the authenticator is set up anew as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// An operator, and what is shown once when their secrets are made.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperatorSaved {
    /// The operator.
    pub operator: OperatorView,
    /// For their authenticator, an `otpauth://` address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp_uri: Option<String>,
    /// Each works once, in place of a code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovery_codes: Vec<String>,
}

/// `GET /operators`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperatorView {
    /// The name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Which devices; empty for all.
    pub scope: String,
    /// `password` or `oidc`.
    pub method: LoginMethod,
    /// Whether they have an authenticator.
    pub has_totp: bool,
    /// Since when they are locked out.
    pub disabled_at: Option<UnixMillis>,
    /// Who made the account.
    pub created_by: String,
    /// When.
    pub created_at: UnixMillis,
    /// When they last logged in.
    pub seen_at: Option<UnixMillis>,
}

/// `POST /session/oidc/device`: how to go on in a browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceLogin {
    /// To ask with, until somebody has confirmed.
    pub handle: String,
    /// To compare or type in the browser.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it, if the provider has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_uri_complete: Option<String>,
    /// Seconds between two questions.
    pub interval_s: u32,
    /// Seconds until it is too late.
    pub expires_in_s: u32,
}

/// `POST /session/oidc/device/poll`.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DevicePoll {
    /// As [`DeviceLogin`] named it.
    pub handle: String,
}

/// What became of it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DeviceProgressed {
    /// Nobody has confirmed yet.
    Pending {
        /// Seconds to wait before the next question.
        interval_s: u32,
    },
    /// Somebody has.
    LoggedIn(LoginToken),
}

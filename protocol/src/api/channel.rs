//! Whom alerts are sent to, by which way, and what became of it.

use serde::{Deserialize, Serialize};

use crate::id::{AlertId, UnixMillis};

/// How bad an alert is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AlertSeverity {
    /// Good to know.
    #[default]
    Info,
    /// Somebody should look today.
    Warning,
    /// Somebody must act now.
    Critical,
}

impl AlertSeverity {
    /// The word for it, as it is stored and sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Where alerts are sent, with everything that is needed to get there. Held sealed; never shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Destination {
    /// A CloudEvents 1.0 body, signed as the Standard Webhooks specification says.
    Webhook {
        /// Where it is posted to.
        url: String,
        /// `whsec_…`, the key of signatures; made by the server if not given, and shown once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secret: Option<String>,
    },
    /// An incoming webhook as Slack, Mattermost and others have it; the address is itself the secret.
    Slack {
        /// Where it is posted to.
        url: String,
    },
    /// Mails.
    Smtp(Box<Mail>),
    /// Prometheus' Alertmanager, by version 2 of its API.
    Alertmanager {
        /// Its root, below which `/api/v2/alerts` is.
        url: String,
        /// Name for HTTP basic authentication.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        username: Option<String>,
        /// Its password.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<String>,
    },
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Destination").field(&self.kind()).finish_non_exhaustive()
    }
}

impl Destination {
    /// The word for its kind.
    pub const fn kind(&self) -> ChannelKind {
        match self {
            Self::Webhook { .. } => ChannelKind::Webhook,
            Self::Slack { .. } => ChannelKind::Slack,
            Self::Smtp(_) => ChannelKind::Smtp,
            Self::Alertmanager { .. } => ChannelKind::Alertmanager,
        }
    }
}

/// How mails are sent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Mail {
    /// The mail server.
    pub host: String,
    /// Its port: 587 with `starttls`, 465 with `tls`, 25 without.
    pub port: u16,
    /// How the way there is protected.
    #[serde(default)]
    pub tls: MailTls,
    /// Certificates of the authority that the server's own is from, as PEM; those of the system if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// Name to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Whom mails are from.
    pub from: String,
    /// Whom they go to.
    pub to: Vec<String>,
}

/// How the way to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum MailTls {
    /// Turned to TLS after the greeting; a server that does not offer it gets no mail.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// Not at all; a password is not sent this way.
    None,
}

/// By which way alerts are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ChannelKind {
    /// [`Destination::Webhook`].
    Webhook,
    /// [`Destination::Slack`].
    Slack,
    /// [`Destination::Smtp`].
    Smtp,
    /// [`Destination::Alertmanager`].
    Alertmanager,
}

/// `POST /channels`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelNew {
    /// What people call it: 1 to 40 of a-z, 0-9, `-`, `_`; not taken.
    pub name: String,
    /// Alerts below this are not sent.
    #[serde(default)]
    pub least: AlertSeverity,
    /// Alerts that these do not all match are not sent: `kind=drift`, `site!=lab`, `model=vision/*`.
    #[serde(default)]
    pub matchers: Vec<String>,
    /// Where to.
    pub destination: Destination,
}

/// `GET /channels`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelView {
    /// Its id.
    pub id: u64,
    /// What people call it.
    pub name: String,
    /// By which way it sends.
    pub kind: ChannelKind,
    /// Where to, without what is secret of it.
    pub address: String,
    /// Alerts below this are not sent.
    pub least: AlertSeverity,
    /// Alerts that these do not all match are not sent.
    pub matchers: Vec<String>,
    /// Who added it.
    pub created_by: String,
    /// When.
    pub created_at: UnixMillis,
    /// `whsec_…`, to check a webhook's signatures with; shown only when it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// How the last delivery went.
    pub last_delivery: Option<String>,
    /// Deliveries waiting to be sent.
    pub pending: u64,
}

/// What became of one message to one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DeliveryState {
    /// It is still to be sent, perhaps again.
    Waiting,
    /// The receiver has taken it.
    Delivered,
    /// It is not tried any more.
    GivenUp,
}

/// `GET /channels/{id}/deliveries`, and the answer to a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeliveryView {
    /// Its number.
    pub id: u64,
    /// The alert; none for a test.
    pub alert: Option<AlertId>,
    /// `opened`, `repeated`, `closed` or `test`.
    pub verb: String,
    /// What the alert says.
    pub title: String,
    /// Where it is.
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: u64,
    /// How the last try went.
    pub outcome: Option<String>,
    /// When it was queued.
    pub queued_at: UnixMillis,
    /// When it is tried next, or was tried last.
    pub at: UnixMillis,
}

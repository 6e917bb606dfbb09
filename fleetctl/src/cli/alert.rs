//! Alerts, and whom they are sent to.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sealift_protocol::api::{AlertSeverity, MailTls};
use sealift_protocol::id::AlertId;

#[derive(Debug, Subcommand)]
pub(crate) enum Alert {
    /// Lists alerts, newest first.
    List {
        /// Also those that are over.
        #[arg(long)]
        all: bool,
    },
    /// Says that somebody looks after it.
    Ack {
        /// Such as `a-7`.
        alert: AlertId,
        /// What to tell the others.
        #[arg(long, default_value = "")]
        note: String,
    },
}

/// How bad an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SeverityName {
    Info,
    Warning,
    Critical,
}

impl From<SeverityName> for AlertSeverity {
    fn from(name: SeverityName) -> Self {
        match name {
            SeverityName::Info => Self::Info,
            SeverityName::Warning => Self::Warning,
            SeverityName::Critical => Self::Critical,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Notify {
    /// Lists channels, and how the last delivery of each went.
    List,
    /// Adds a channel.
    Add(NotifyAdd),
    /// Removes a channel, and what was still to be sent to it.
    Remove {
        /// The channel's name.
        name: String,
    },
    /// Sends a test, and says what became of it.
    Test {
        /// The channel's name.
        name: String,
    },
    /// What was sent to a channel, newest first, and what became of it.
    Log {
        /// The channel's name.
        name: String,
    },
    /// Sends a message of the log again.
    Resend {
        /// The channel's name.
        name: String,
        /// The message's number.
        message: u64,
    },
}

/// By which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChannelName {
    Webhook,
    Slack,
    Smtp,
    Alertmanager,
}

/// How the way to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TlsName {
    Starttls,
    Tls,
    None,
}

impl From<TlsName> for MailTls {
    fn from(name: TlsName) -> Self {
        match name {
            TlsName::Starttls => Self::Starttls,
            TlsName::Tls => Self::Tls,
            TlsName::None => Self::None,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct NotifyAdd {
    /// What people call it.
    pub(crate) name: String,
    /// By which way.
    pub(crate) kind: ChannelName,
    /// A URL, or a mail server as `host:port`. One that is itself a secret goes into --secret-file instead.
    #[arg(long)]
    pub(crate) address: Option<String>,
    /// A file with the secret, `-` for standard input: the URL of a webhook, otherwise the password.
    #[arg(long)]
    pub(crate) secret_file: Option<PathBuf>,
    /// Name to log in with at a mail server or an Alertmanager.
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Whom mails are from.
    #[arg(long)]
    pub(crate) from: Option<String>,
    /// Whom mails go to; may be given more than once.
    #[arg(long)]
    pub(crate) to: Vec<String>,
    /// How the way to the mail server is protected.
    #[arg(long, value_enum, default_value = "starttls")]
    pub(crate) tls: TlsName,
    /// A file with the certificates of the mail server's authority; those of the server's system if not given.
    #[arg(long)]
    pub(crate) ca: Option<PathBuf>,
    /// Alerts below this are not sent.
    #[arg(long, value_enum, default_value = "info")]
    pub(crate) least: SeverityName,
    /// Only alerts that are so, such as `site=osaka` or `kind!=drift`; may be given more than once.
    #[arg(long = "match")]
    pub(crate) matchers: Vec<String>,
}

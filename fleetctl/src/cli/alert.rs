//! Alerts, and whom they are sent to.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sealift_protocol::api::{AlertSeverity, AtLeast, MailTls};
use sealift_protocol::id::AlertId;

#[derive(Debug, Subcommand)]
pub(crate) enum Alert {
    /// Lists alerts, newest first.
    List {
        /// Also those that are over.
        #[arg(long)]
        all: bool,
        /// Only alerts that are so, such as `site=osaka` or `kind!=drift`; may be given more than once.
        #[arg(long = "match")]
        matchers: Vec<String>,
    },
    /// Says that somebody looks after it.
    Ack {
        /// Such as `a-7`.
        alert: AlertId,
        /// What to tell the others.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Lets nobody be told of some alerts for a while; they are still listed.
    Silence {
        /// Which alerts: all of these must hold, such as `site=osaka` `kind=device-silent`.
        #[arg(required = true)]
        matchers: Vec<String>,
        /// For how long, such as `2h`.
        #[arg(long = "for", value_parser = seconds)]
        for_s: u64,
        /// Why; kept in the audit log.
        #[arg(long)]
        reason: String,
    },
    /// Lists silences that are not over.
    Silences,
    /// Ends a silence.
    Unsilence {
        /// Its number.
        silence: u64,
    },
    /// Lists the kinds of alerts, and what was changed about them.
    Kinds,
    /// Changes when and how people are told of a kind of alert; without options it is as built in again.
    Kind {
        /// Such as `device-silent`.
        kind: String,
        /// How long it must hold, such as `30m`.
        #[arg(long, value_parser = seconds)]
        hold: Option<u64>,
        /// How bad it is.
        #[arg(long, value_enum)]
        severity: Option<SeverityName>,
        /// No alert of the kind is opened.
        #[arg(long)]
        off: bool,
    },
    /// Lists rules of your own.
    Rules,
    /// Adds or removes a rule of your own.
    #[command(subcommand)]
    Rule(Rule),
    /// How often a rule, or a kind of alert, would have fired, by what is recorded.
    Test(AlertTest),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rule {
    /// Adds a rule over the devices that a filter names.
    Add {
        /// What people call it.
        name: String,
        #[command(flatten)]
        rule: RuleArguments,
        /// How long it must hold, such as `10m`.
        #[arg(long, value_parser = seconds, default_value = "0s")]
        hold: u64,
        /// How bad it is.
        #[arg(long, value_enum, default_value = "warning")]
        severity: SeverityName,
    },
    /// Removes a rule; its alert closes.
    Remove {
        /// Its name.
        name: String,
    },
}

/// Which devices, and how many of them.
#[derive(Debug, Args)]
pub(crate) struct RuleArguments {
    /// Which devices, such as `site:osaka state:offline`.
    #[arg(short = 'l', long)]
    pub(crate) filter: Option<String>,
    /// At least so many of them, such as `3` or `10%`.
    #[arg(long, default_value = "1", value_parser = at_least)]
    pub(crate) at_least: AtLeast,
}

#[derive(Debug, Args)]
pub(crate) struct AlertTest {
    /// The name of a rule.
    #[arg(conflicts_with_all = ["kind", "filter"])]
    pub(crate) rule: Option<String>,
    /// A kind of alert, such as `device-silent`.
    #[arg(long, conflicts_with = "filter")]
    pub(crate) kind: Option<String>,
    #[command(flatten)]
    pub(crate) new: RuleArguments,
    /// How long it must hold; as it is now if not given.
    #[arg(long, value_parser = seconds)]
    pub(crate) hold: Option<u64>,
    /// How far back.
    #[arg(long, value_parser = seconds, default_value = "30d")]
    pub(crate) since: u64,
}

/// Reads a time such as `90s`, `10m`, `2h` or `30d`, in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 24 * 3_600)];
    let read = |(unit, factor): (char, u64)| {
        text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(factor)
    };
    let found = units.into_iter().find_map(read);
    found.ok_or_else(|| "a time is a number and `s`, `m`, `h` or `d`, such as `10m`".to_owned())
}

fn at_least(text: &str) -> Result<AtLeast, String> {
    let read = match text.strip_suffix('%') {
        Some(percent) => percent.parse().map(AtLeast::Percent).ok(),
        None => text.parse().map(AtLeast::Devices).ok(),
    };
    read.ok_or_else(|| "a number of devices, or a share such as `10%`".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_shares_are_read_as_people_write_them() {
        assert_eq!(
            (seconds("90s"), seconds("10m"), seconds("30d")),
            (Ok(90), Ok(600), Ok(2_592_000))
        );
        for text in ["", "m", "10", "-1s", "1w", "99999999999999999999d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert_eq!(at_least("3"), Ok(AtLeast::Devices(3)));
        assert_eq!(at_least("10%"), Ok(AtLeast::Percent(10)));
        assert!(at_least("x%").is_err());
    }
}

//! What a message says, in words that every channel uses.

use std::collections::BTreeMap;

use sealift_protocol::api::{AlertState, AlertView};
use sealift_protocol::id::{AlertId, UnixMillis};

use super::Parcel;
use crate::store::channels::Delivery;

/// Characters of an alert's detail in a message for people; all of it is in the console.
const DETAIL_CHARS_MAX: usize = 1_000;
/// Characters of a title.
const TITLE_CHARS_MAX: usize = 200;

/// What became of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// It is new.
    Opened,
    /// It still holds, and nobody looks after it; or it became worse.
    Repeated,
    /// It is over.
    Closed,
    /// Nothing: somebody tries a channel.
    Test,
    /// It is no alert: a model is to be trained anew.
    Retraining,
}

impl Verb {
    /// The word for it, as it is stored and sent.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Repeated => "repeated",
            Self::Closed => "closed",
            Self::Test => "test",
            Self::Retraining => "retraining",
        }
    }

    /// The type of the `CloudEvents` message that says so.
    pub(crate) fn event_type(self) -> String {
        match self {
            Self::Retraining => "dev.sealift.retraining.requested".to_owned(),
            Self::Opened | Self::Repeated | Self::Closed | Self::Test => {
                format!("dev.sealift.alert.{}", self.as_str())
            }
        }
    }

    /// The verb that [`Self::as_str`] has named.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Opened, Self::Repeated, Self::Closed, Self::Test, Self::Retraining]
            .into_iter()
            .find(|verb| verb.as_str() == text)
    }
}

/// Names what a message says: the same change of the same alert has the same name, whoever sends it.
pub(crate) fn message_id(tenant: &str, alert: AlertId, now: UnixMillis) -> String {
    format!("{tenant}.{alert}.{}", now.0)
}

/// What is sent to see whether a channel works.
pub(crate) fn test_alert(channel: &str, by: &str, now: UnixMillis) -> AlertView {
    AlertView {
        id: AlertId(0),
        state: AlertState::Open,
        severity: "info".to_owned(),
        kind: "test".to_owned(),
        title: format!("test of the channel {channel}"),
        detail: format!("{by} asked for it; nothing is wrong"),
        help: "`fleetctl alert list` lists what is really open".to_owned(),
        labels: BTreeMap::from([("channel".to_owned(), channel.to_owned())]),
        opened_at: now,
        seen_at: now,
        closed_at: None,
        acknowledged_by: None,
        note: None,
        silenced_until: None,
    }
}

/// What happened, in a few words: `critical: rollout r-3 halted`, `over: …`.
pub(super) fn headline(delivery: &Delivery) -> String {
    let AlertView { severity, title, .. } = &delivery.view;
    let title = one_line(title, TITLE_CHARS_MAX);
    match delivery.verb {
        Verb::Opened => format!("{severity}: {title}"),
        Verb::Repeated => format!("{severity}, still: {title}"),
        Verb::Closed => format!("over: {title}"),
        Verb::Test | Verb::Retraining => title,
    }
}

/// The same of all that is sent together.
pub(super) fn subject(parcel: &Parcel<'_>) -> String {
    match parcel.deliveries {
        [] => String::new(),
        [only] => headline(only),
        [first, rest @ ..] => format!("{} alerts: {}; …", rest.len() + 1, headline(first)),
    }
}

/// Where an alert is shown.
pub(super) fn link(url: &str, alert: &AlertView) -> String {
    format!("{url}/alerts#{}", alert.id)
}

/// What happened, on lines that cannot be taken for others.
pub(super) fn detail(alert: &AlertView) -> String {
    one_line(&alert.detail, DETAIL_CHARS_MAX)
}

/// Text of devices on one line: it must not begin a line, a header or a message of its own.
pub(super) fn one_line(text: &str, chars_max: usize) -> String {
    let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut line: String = plain.take(chars_max).collect();
    if text.chars().nth(chars_max).is_some() {
        line.push('…');
    }
    line
}

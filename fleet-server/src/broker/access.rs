//! What a device may do on the broker, decided from its certificate alone.

use sealift_protocol::id::{DeviceId, TenantId};
use sealift_protocol::topic::{Broadcast, Down, Topic, Up};

use crate::certificate::{Identity, SERVER_NAME};

/// Why the broker refused a device something; each is a security event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The connection came without a certificate of the device CA.
    #[error("a connection came without a device certificate")]
    NoCertificate,
    /// The client id is not what the certificate says.
    #[error("a device tried to connect under the name `{0}`")]
    Name(String),
    /// The device is not enrolled, is revoked, or has a newer certificate.
    #[error("a connection came with a certificate that is revoked, superseded or unknown")]
    Standing,
    /// A last will on a topic that is not the device's own presence.
    #[error("a device tried to leave a last will on `{0}`")]
    Will(String),
    /// A last will that is larger than presence.
    #[error("a device tried to leave a last will of {0} bytes")]
    WillSize(usize),
    /// A message to be kept by the broker where none is.
    #[error("a device tried to have `{0}` retained")]
    Retain(String),
    /// A message on a topic that is not the device's own.
    #[error("a device tried to publish on `{0}`")]
    Publish(String),
    /// A subscription to anything but the device's own messages and its tenant's broadcasts.
    #[error("a device tried to subscribe to `{0}`")]
    Subscribe(String),
}

/// Presence takes 30 bytes.
const WILL_BYTES_MAX: usize = 64;

/// A refusal quotes at most this much of what was tried.
const QUOTED_CHARS_MAX: usize = 120;

/// On what a device is told something. In this order, if several things wait: a halt before all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    Broadcast(Broadcast),
    Down(Down),
}

/// What a device may subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Filter {
    /// All that is for it alone.
    Own,
    /// All that is for every device of its tenant.
    Broadcasts,
    /// One topic.
    One(Channel),
}

impl Refusal {
    /// The stable code of the security event.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::NoCertificate => "mqtt.no-certificate",
            Self::Name(_) => "mqtt.foreign-name",
            Self::Standing => "mqtt.revoked",
            Self::Will(_) => "mqtt.foreign-will",
            Self::WillSize(_) => "mqtt.large-will",
            Self::Retain(_) => "mqtt.foreign-retain",
            Self::Publish(_) => "mqtt.foreign-publish",
            Self::Subscribe(_) => "mqtt.foreign-subscribe",
        }
    }
}

impl Filter {
    /// Whether a message on `channel` matches.
    pub(crate) fn covers(self, channel: Channel) -> bool {
        match (self, channel) {
            (Self::Own, Channel::Down(_)) | (Self::Broadcasts, Channel::Broadcast(_)) => true,
            (Self::One(one), channel) => one == channel,
            (Self::Own, Channel::Broadcast(_)) | (Self::Broadcasts, Channel::Down(_)) => false,
        }
    }
}

impl Channel {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let broadcasts = Broadcast::ALL.into_iter().map(Self::Broadcast);
        broadcasts.chain(Down::ALL.into_iter().map(Self::Down))
    }

    /// The topic, for this device.
    pub(crate) fn topic(self, identity: &Identity) -> Topic {
        match self {
            Self::Broadcast(broadcast) => Topic::Broadcast(identity.tenant.clone(), broadcast),
            Self::Down(down) => Topic::Down(identity.tenant.clone(), identity.device.clone(), down),
        }
    }

    /// Whether it may be lost: a receipt says all that those before it said, and without any the device sends again. It is most of what
    /// goes down, so that it is not acknowledged in turn.
    pub(crate) const fn may_be_lost(self) -> bool {
        matches!(self, Self::Down(Down::Ack))
    }
}

/// What a client says of itself when it connects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connect<'a> {
    /// The common name in its certificate.
    pub(crate) common_name: Option<&'a str>,
    /// Its client id.
    pub(crate) client_id: &'a str,
    /// Its last will.
    pub(crate) will: Option<Will<'a>>,
}

/// What a client leaves to be said when its connection is lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Will<'a> {
    /// Where.
    pub(crate) topic: &'a str,
    /// How much.
    pub(crate) bytes: usize,
}

/// Finds out who connects. Rule: the certificate's name and the client id are one, and the will is the device's own. A user name is not
/// looked at: the certificate's name stands for it, whatever is given.
pub(crate) fn identify(connect: Connect<'_>) -> Result<Identity, (Option<Identity>, Refusal)> {
    let identity = connect.common_name.and_then(Identity::parse);
    let Some(identity) = identity else { return Err((None, Refusal::NoCertificate)) };
    let name = identity.common_name();
    if connect.client_id != name {
        return Err((Some(identity), Refusal::Name(quote(connect.client_id))));
    }
    match connect.will.map_or(Ok(()), |will| may_leave(&identity, will)) {
        Ok(()) => Ok(identity),
        Err(refusal) => Err((Some(identity), refusal)),
    }
}

/// MQTT 5, section 3.1.2.5: the broker publishes a will in the client's name. Rule: it is the device's own presence, and no larger.
fn may_leave(identity: &Identity, will: Will<'_>) -> Result<(), Refusal> {
    match may_publish(identity, will.topic) {
        Ok(Up::Conn) if will.bytes <= WILL_BYTES_MAX => Ok(()),
        Ok(Up::Conn) => Err(Refusal::WillSize(will.bytes)),
        Ok(Up::Birth | Up::Report | Up::Beat | Up::Profile | Up::Event | Up::Result) | Err(_) => {
            Err(Refusal::Will(quote(will.topic)))
        }
    }
}

/// MQTT 5, section 3.3.1.3: a retained message is kept for whoever subscribes later. Rule: presence may ask for it, nothing else may.
pub(crate) fn may_retain(channel: Up, topic: &str) -> Result<(), Refusal> {
    if channel == Up::Conn { Ok(()) } else { Err(Refusal::Retain(quote(topic))) }
}

/// Rule: a device publishes below `u/{device}/` of its own tenant, on the channels that exist, and nowhere else.
pub(crate) fn may_publish(identity: &Identity, topic: &str) -> Result<Up, Refusal> {
    match Topic::parse(topic) {
        Ok(Topic::Up(tenant, device, channel))
            if tenant == identity.tenant && device == identity.device =>
        {
            Ok(channel)
        }
        Ok(Topic::Up(..) | Topic::Down(..) | Topic::Broadcast(..)) | Err(_) => {
            Err(Refusal::Publish(quote(topic)))
        }
    }
}

/// Rule: a device subscribes to exactly its two filters, or to single topics that they cover; no other wildcard passes.
pub(crate) fn may_subscribe(identity: &Identity, filter: &str) -> Result<Filter, Refusal> {
    let [own, broadcasts] = Topic::device_filters(&identity.tenant, &identity.device);
    if filter == own {
        return Ok(Filter::Own);
    }
    if filter == broadcasts {
        return Ok(Filter::Broadcasts);
    }
    match Topic::parse(filter) {
        Ok(Topic::Down(tenant, device, down))
            if tenant == identity.tenant && device == identity.device =>
        {
            Ok(Filter::One(Channel::Down(down)))
        }
        Ok(Topic::Broadcast(tenant, broadcast)) if tenant == identity.tenant => {
            Ok(Filter::One(Channel::Broadcast(broadcast)))
        }
        Ok(Topic::Up(..) | Topic::Down(..) | Topic::Broadcast(..)) | Err(_) => {
            Err(Refusal::Subscribe(quote(filter)))
        }
    }
}

/// The same rules as an access list of mosquitto, whose user names are the certificates' names.
pub(crate) fn mosquitto_list(tenant: &TenantId, devices: &[DeviceId]) -> String {
    use std::fmt::Write as _;
    let mut list = format!("user {SERVER_NAME}\ntopic readwrite sl/1/{tenant}/#\n");
    for device in devices {
        let [own, broadcasts] = Topic::device_filters(tenant, device);
        // Writing to a `String` cannot fail.
        let _ = write!(
            list,
            "\nuser {tenant}:{device}\ntopic write sl/1/{tenant}/u/{device}/+\n\
             topic read {own}\ntopic read {broadcasts}\n"
        );
    }
    list
}

fn quote(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cam_1() -> Identity {
        Identity::parse("main:cam-1").unwrap()
    }

    fn connect<'a>(client_id: &'a str, will_topic: Option<&'a str>) -> Connect<'a> {
        let common_name = Some("main:cam-1");
        let will = will_topic.map(|topic| Will { topic, bytes: 30 });
        Connect { common_name, client_id, will }
    }

    #[test]
    fn a_device_publishes_on_its_own_topics_only() {
        assert_eq!(may_publish(&cam_1(), "sl/1/main/u/cam-1/report"), Ok(Up::Report));
        for topic in [
            "sl/1/main/u/cam-2/report",
            "sl/1/other/u/cam-1/report",
            "sl/1/main/d/cam-1/directive",
            "sl/1/main/b/all/halt",
            "sl/1/main/u/cam-1/made-up",
            "$SYS/brokers",
            "",
        ] {
            assert!(may_publish(&cam_1(), topic).is_err(), "{topic}");
        }
    }

    #[test]
    fn a_device_subscribes_to_its_own_messages_and_broadcasts_only() {
        for (filter, parsed) in [
            ("sl/1/main/d/cam-1/+", Filter::Own),
            ("sl/1/main/b/all/+", Filter::Broadcasts),
            ("sl/1/main/d/cam-1/directive", Filter::One(Channel::Down(Down::Directive))),
            ("sl/1/main/b/all/halt", Filter::One(Channel::Broadcast(Broadcast::Halt))),
        ] {
            assert_eq!(may_subscribe(&cam_1(), filter), Ok(parsed), "{filter}");
        }
        for filter in [
            "#",
            "+/+/+/+/+/+",
            "sl/1/main/#",
            "sl/1/main/d/+/directive",
            "sl/1/main/d/cam-1/#",
            "sl/1/main/d/cam-2/+",
            "sl/1/main/u/cam-1/+",
            "sl/1/other/b/all/+",
            "$share/ingest/sl/1/+/u/+/+",
            "$SYS/#",
        ] {
            assert!(may_subscribe(&cam_1(), filter).is_err(), "{filter}");
        }
    }

    #[test]
    fn the_client_id_is_what_the_certificate_says() {
        assert_eq!(identify(connect("main:cam-1", None)), Ok(cam_1()));
        let refused = identify(connect("main:cam-2", None)).unwrap_err();
        assert_eq!(refused, (Some(cam_1()), Refusal::Name("main:cam-2".to_owned())));
        let anonymous = Connect { common_name: None, ..connect("main:cam-1", None) };
        assert_eq!(identify(anonymous), Err((None, Refusal::NoCertificate)));
        let ca = Connect { common_name: Some("Sealift device CA"), ..connect("main:cam-1", None) };
        assert_eq!(identify(ca), Err((None, Refusal::NoCertificate)));
    }

    #[test]
    fn the_last_will_is_the_devices_own_presence() {
        assert!(identify(connect("main:cam-1", Some("sl/1/main/u/cam-1/conn"))).is_ok());
        for will in ["sl/1/main/u/cam-2/conn", "sl/1/main/u/cam-1/report", "sl/1/main/b/all/halt"] {
            let (_, refusal) = identify(connect("main:cam-1", Some(will))).unwrap_err();
            assert_eq!(refusal.code(), "mqtt.foreign-will", "{will}");
        }
        let large = Will { topic: "sl/1/main/u/cam-1/conn", bytes: 65 };
        let large = Connect { will: Some(large), ..connect("main:cam-1", None) };
        assert_eq!(identify(large).unwrap_err().1, Refusal::WillSize(65));
    }
}

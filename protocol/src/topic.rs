//! MQTT topics as types.
//!
//! `sl/1/{tenant}/u/{device}/{channel}` goes up, `sl/1/{tenant}/d/{device}/{channel}` goes down, `sl/1/{tenant}/b/all/{channel}` goes
//! to every device of a tenant. The depth is fixed, so that what a device may touch is two prefixes.

use std::fmt;

use crate::id::{DeviceId, InvalidName, TenantId};

/// The first two levels; the number is the version of everything below.
const ROOT: &str = "sl/1";

/// What a device sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Up {
    /// Online or not; retained, and the last will.
    Conn,
    /// Facts, at connect.
    Birth,
    /// Reported state.
    Report,
    /// Health, at most 160 bytes, QoS 0.
    Beat,
    /// A profile window.
    Profile,
    /// Alarms and security events.
    Event,
    /// The answer to a request.
    Result,
}

/// What a device receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Down {
    /// The signed directive; retained.
    Directive,
    /// A signed request.
    Request,
    /// How far the server has stored what came up.
    Ack,
}

/// What every device of a tenant receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broadcast {
    /// The signed list of halted generations; retained.
    Halt,
    /// A hint that trust metadata changed; retained.
    Trust,
    /// The signed list of what devices keep for people to look at; retained.
    Capture,
}

/// A topic of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Device to server.
    Up(TenantId, DeviceId, Up),
    /// Server to device.
    Down(TenantId, DeviceId, Down),
    /// Server to all devices of a tenant.
    Broadcast(TenantId, Broadcast),
}

/// Why a text is not a topic of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopic {
    /// Another prefix, depth or channel.
    #[error("not a topic of the fleet")]
    Shape,
    /// A tenant or device that is not one.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl Up {
    const ALL: [Self; 7] = [
        Self::Conn,
        Self::Birth,
        Self::Report,
        Self::Beat,
        Self::Profile,
        Self::Event,
        Self::Result,
    ];

    /// The last level of the topic.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conn => "conn",
            Self::Birth => "birth",
            Self::Report => "report",
            Self::Beat => "beat",
            Self::Profile => "profile",
            Self::Event => "event",
            Self::Result => "result",
        }
    }
}

impl Down {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Directive, Self::Request, Self::Ack];

    /// The last level of the topic.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Directive => "directive",
            Self::Request => "request",
            Self::Ack => "ack",
        }
    }
}

impl Broadcast {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Halt, Self::Trust, Self::Capture];

    /// The last level of the topic.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Halt => "halt",
            Self::Trust => "trust",
            Self::Capture => "capture",
        }
    }
}

impl Topic {
    /// Parses a topic name (not a filter: a wildcard is no device).
    pub fn parse(text: &str) -> Result<Self, InvalidTopic> {
        let mut levels = text.splitn(7, '/');
        let mut level = || levels.next().ok_or(InvalidTopic::Shape);
        let root = (level()?, level()?);
        let (tenant, direction, who, channel) = (level()?, level()?, level()?, level()?);
        if root != ("sl", "1") || levels.next().is_some() {
            return Err(InvalidTopic::Shape);
        }
        let tenant = TenantId::parse(tenant)?;
        match direction {
            "u" => {
                let channel = named(&Up::ALL, Up::as_str, channel)?;
                Ok(Self::Up(tenant, DeviceId::parse(who)?, channel))
            }
            "d" => {
                let channel = named(&Down::ALL, Down::as_str, channel)?;
                Ok(Self::Down(tenant, DeviceId::parse(who)?, channel))
            }
            "b" if who == "all" => {
                Ok(Self::Broadcast(tenant, named(&Broadcast::ALL, Broadcast::as_str, channel)?))
            }
            _ => Err(InvalidTopic::Shape), // any other text is not a direction
        }
    }

    /// The filters a device subscribes to: its own directives, requests and receipts, and the tenant's broadcasts.
    pub fn device_filters(tenant: &TenantId, device: &DeviceId) -> [String; 2] {
        [format!("{ROOT}/{tenant}/d/{device}/+"), format!("{ROOT}/{tenant}/b/all/+")]
    }

    /// The filter with which servers share what comes up through an external broker.
    pub fn ingest_filter() -> String {
        format!("$share/ingest/{ROOT}/+/u/+/+")
    }
}

fn named<C: Copy>(all: &[C], name: fn(C) -> &'static str, text: &str) -> Result<C, InvalidTopic> {
    all.iter().copied().find(|&channel| name(channel) == text).ok_or(InvalidTopic::Shape)
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(tenant, device, channel) => {
                write!(f, "{ROOT}/{tenant}/u/{device}/{}", channel.as_str())
            }
            Self::Down(tenant, device, channel) => {
                write!(f, "{ROOT}/{tenant}/d/{device}/{}", channel.as_str())
            }
            Self::Broadcast(tenant, channel) => {
                write!(f, "{ROOT}/{tenant}/b/all/{}", channel.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_survives_text() {
        let tenant = TenantId::parse("main").unwrap();
        let device = DeviceId::parse("cam-1").unwrap();
        let up = Up::ALL.map(|up| Topic::Up(tenant.clone(), device.clone(), up));
        let down = Down::ALL.map(|down| Topic::Down(tenant.clone(), device.clone(), down));
        let broadcast = Broadcast::ALL.map(|all| Topic::Broadcast(tenant.clone(), all));

        for topic in up.into_iter().chain(down).chain(broadcast) {
            assert_eq!(Topic::parse(&topic.to_string()), Ok(topic));
        }
    }

    #[test]
    fn wildcards_foreign_roots_and_other_depths_are_no_topics() {
        for text in [
            "sl/1/main/u/+/report",
            "sl/1/main/u/#",
            "sl/2/main/u/cam-1/report",
            "sl/1/main/u/cam-1/report/more",
            "sl/1/main/u/cam-1",
            "sl/1/main/b/cam-1/halt",
            "sl/1/main/u/cam-1/directive",
            "$SYS/brokers",
            "",
        ] {
            assert!(Topic::parse(text).is_err(), "{text}");
        }
    }
}

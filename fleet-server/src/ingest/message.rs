//! A message of a device, decoded and within its bounds.

use sealift_protocol::codec::{self, CodecError};
use sealift_protocol::id::UnixMillis;
use sealift_protocol::limits::{BEAT_BYTES_MAX, MESSAGE_BYTES_MAX, REASON_CHARS_MAX, SLOTS_MAX};
use sealift_protocol::report::{Refusal, Report, SlotReport, Trusted};
use sealift_protocol::request::{Answer, InvalidAnswer, Nonce};
use sealift_protocol::telemetry::{
    Beat, Birth, Conn, Envelope, Event, ProfileWindow, Severity, SpoolId,
};
use sealift_protocol::topic::Up;

/// Numbers that count (generations, sequences, requests) stay exact in JSON and far from overflow.
const COUNT_MAX: u64 = 1 << 53;
/// Characters of a code such as `self-test.golden`.
const CODE_CHARS_MAX: usize = 80;
/// Characters of a fact such as the name of an operating system.
const FACT_CHARS_MAX: usize = 80;
/// Characters of the address of the local endpoint.
const ENDPOINT_CHARS_MAX: usize = 200;
/// Execution providers that an inference library offers.
const PROVIDERS_MAX: usize = 32;
/// Roles of targets metadata that a device can have followed: the 32 of one update, and those from before.
const TRUSTED_ROLES_MAX: usize = 64;
/// A profile window is longer than a day only by mistake.
const WINDOW_MS_MAX: i64 = 24 * 3_600 * 1_000;
/// A device offline for a month has windows that old.
const WINDOW_AGE_MS_MAX: i64 = 30 * 24 * 3_600 * 1_000;
/// A device's clock may run ahead by this much before its windows are refused.
const CLOCK_AHEAD_MS_MAX: i64 = 3_600 * 1_000;
/// What a device's clock may say: from 1970 to the year 2200. Further off, it is a fault.
const CLOCK_MS_MAX: i64 = 7_258_118_400_000;

/// Why a message is not one of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidMessage {
    /// Not CBOR of the right shape.
    #[error("not a {0}")]
    Form(&'static str, #[source] CodecError),
    /// Decoded, but a field is out of its bounds.
    #[error("{0}")]
    Bounds(&'static str),
    /// Not an answer to a request.
    #[error(transparent)]
    Answer(#[from] InvalidAnswer),
}

/// What a device sent.
#[derive(Debug)]
pub(super) enum Message {
    Conn(Conn),
    Beat(Beat),
    /// What the server says of a device: it was refused something.
    Security(Event),
    Spooled {
        spool: SpoolId,
        sequence: u64,
        lowest: u64,
        body: Body,
    },
}

/// What travels in an envelope.
#[derive(Debug)]
pub(super) enum Body {
    Birth(Box<Birth>),
    Report(Box<Report>),
    Profile(Box<ProfileWindow>),
    Event(Event),
    /// Of a request, as it came.
    Answer {
        nonce: Nonce,
        bytes: Vec<u8>,
    },
    /// Numbered and well wrapped, but what is in it makes no sense. It is noted and acknowledged: it would come again for ever.
    Refused {
        channel: Up,
        why: String,
    },
}

impl Message {
    pub(super) fn decode(
        channel: Up,
        payload: &[u8],
        now: UnixMillis,
    ) -> Result<Self, InvalidMessage> {
        match channel {
            Up::Conn => {
                let conn: Conn = decode("presence", payload, BEAT_BYTES_MAX)?;
                bounded(conn.epoch <= COUNT_MAX, "the epoch is too large")?;
                Ok(Self::Conn(conn))
            }
            Up::Beat => beat(payload).map(Self::Beat),
            Up::Birth | Up::Report | Up::Profile | Up::Event | Up::Result => {
                let Envelope { spool, sequence, lowest, body } =
                    decode("envelope", payload, MESSAGE_BYTES_MAX)?;
                bounded(sequence <= COUNT_MAX, "the sequence is too large")?;
                bounded(lowest <= sequence, "the envelope's lowest is above its sequence")?;
                let body = match Body::decode(channel, &body, now) {
                    Ok(body) => body,
                    Err(error) => Body::Refused { channel, why: error.to_string() },
                };
                Ok(Self::Spooled { spool, sequence, lowest, body })
            }
        }
    }

    pub(super) fn security(code: &str, text: &str, now: UnixMillis) -> Self {
        let (code, text) = (plain(code, CODE_CHARS_MAX), plain(text, REASON_CHARS_MAX));
        let severity = Severity::Security;
        Self::Security(Event { code, severity, text, model: None, image: None, at: now })
    }
}

impl Body {
    fn decode(channel: Up, body: &[u8], now: UnixMillis) -> Result<Self, InvalidMessage> {
        match channel {
            Up::Birth => birth(body).map(Box::new).map(Self::Birth),
            Up::Report => report(body).map(Box::new).map(Self::Report),
            Up::Profile => profile(body, now).map(Box::new).map(Self::Profile),
            Up::Event => event(body).map(Self::Event),
            Up::Result => answer(body),
            Up::Conn | Up::Beat => Err(InvalidMessage::Bounds("a message that is not spooled")),
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(
    kind: &'static str,
    bytes: &[u8],
    max: usize,
) -> Result<T, InvalidMessage> {
    codec::decode(kind, bytes, max).map_err(|error| InvalidMessage::Form(kind, error))
}

const fn bounded(is_within: bool, rule: &'static str) -> Result<(), InvalidMessage> {
    if is_within { Ok(()) } else { Err(InvalidMessage::Bounds(rule)) }
}

fn clock(at: UnixMillis) -> Result<(), InvalidMessage> {
    bounded((0..CLOCK_MS_MAX).contains(&at.0), "the device's clock is out of all bounds")
}

fn beat(payload: &[u8]) -> Result<Beat, InvalidMessage> {
    let beat: Beat = decode("heartbeat", payload, BEAT_BYTES_MAX)?;
    let is_within = beat.requests <= COUNT_MAX && beat.errors <= COUNT_MAX;
    bounded(is_within, "a count of the heartbeat is too large")?;
    bounded(beat.cpu_permille <= 1_000, "the load is above all processors")?;
    clock(UnixMillis(beat.at))?;
    Ok(beat)
}

fn birth(body: &[u8]) -> Result<Birth, InvalidMessage> {
    let mut birth: Birth = decode("birth", body, MESSAGE_BYTES_MAX)?;
    bounded(birth.epoch <= COUNT_MAX, "the epoch is too large")?;
    bounded(birth.generation.0 <= COUNT_MAX, "the generation is too large")?;
    clock(birth.at)?;
    birth.slots = slots(birth.slots)?;
    birth.trusted.as_ref().map_or(Ok(()), trusted)?;
    birth.agent = plain(&birth.agent, FACT_CHARS_MAX);
    birth.endpoint = birth.endpoint.take().filter(|endpoint| {
        endpoint.starts_with("http://") && endpoint.chars().count() <= ENDPOINT_CHARS_MAX
    });
    let facts = &mut birth.facts;
    for fact in [&mut facts.os, &mut facts.architecture, &mut facts.runtime] {
        *fact = plain(fact, FACT_CHARS_MAX);
    }
    bounded(facts.memory_mb.max(facts.disk_mb) <= COUNT_MAX, "a fact is too large")?;
    facts.providers.truncate(PROVIDERS_MAX);
    facts.providers.iter_mut().for_each(|name| *name = plain(name, FACT_CHARS_MAX));
    Ok(birth)
}

fn report(body: &[u8]) -> Result<Report, InvalidMessage> {
    let mut report: Report = decode("report", body, MESSAGE_BYTES_MAX)?;
    bounded(report.generation.0 <= COUNT_MAX, "the generation is too large")?;
    clock(report.at)?;
    report.slots = slots(report.slots)?;
    report.trusted.as_ref().map_or(Ok(()), trusted)?;
    if let Some(Refusal { generation, code, reason }) = &mut report.refused {
        *generation = generation.filter(|generation| generation.0 <= COUNT_MAX);
        (*code, *reason) = (plain(code, CODE_CHARS_MAX), plain(reason, REASON_CHARS_MAX));
    }
    Ok(report)
}

fn trusted(trusted: &Trusted) -> Result<(), InvalidMessage> {
    bounded(trusted.roles.len() <= TRUSTED_ROLES_MAX, "more roles than a fleet has")?;
    let names = trusted.roles.keys();
    bounded(names.map(String::len).max() <= Some(FACT_CHARS_MAX), "a role's name is too long")?;
    let versions = [trusted.root, trusted.timestamp, trusted.snapshot];
    let mut versions = versions.iter().chain(trusted.roles.values());
    bounded(versions.all(|version| *version <= COUNT_MAX), "a version of metadata is too large")
}

fn slots(mut slots: Vec<SlotReport>) -> Result<Vec<SlotReport>, InvalidMessage> {
    bounded(slots.len() <= SLOTS_MAX, "more models than a device has slots")?;
    let models: std::collections::BTreeSet<_> = slots.iter().map(|slot| &slot.model).collect();
    bounded(models.len() == slots.len(), "a model is reported twice")?;
    for slot in &mut slots {
        bounded(slot.generation.0 <= COUNT_MAX, "the generation is too large")?;
        slot.providers.truncate(PROVIDERS_MAX);
        slot.providers.iter_mut().for_each(|(name, _)| *name = plain(name, FACT_CHARS_MAX));
        if let Some(held) = &mut slot.held {
            held.reason = plain(&held.reason, REASON_CHARS_MAX);
        }
        let shadow = slot.shadow.as_ref();
        let is_sound = shadow.is_none_or(|shadow| shadow.counts.is_sound(COUNT_MAX));
        bounded(is_sound, "counts of a shadow make no sense")?;
        if let Some(outcome) = &mut slot.outcome {
            bounded(outcome.generation.0 <= COUNT_MAX, "the generation is too large")?;
            outcome.code = plain(&outcome.code, CODE_CHARS_MAX);
            outcome.reason = plain(&outcome.reason, REASON_CHARS_MAX);
        }
    }
    Ok(slots)
}

fn profile(body: &[u8], now: UnixMillis) -> Result<ProfileWindow, InvalidMessage> {
    let window: ProfileWindow = decode("profile window", body, MESSAGE_BYTES_MAX)?;
    let length = window.until.since(window.from);
    bounded(length > 0, "the window ends before it begins")?;
    bounded(length <= WINDOW_MS_MAX, "the window is longer than a day")?;
    let age = now.since(window.until);
    bounded(age >= -CLOCK_AHEAD_MS_MAX, "the window lies in the future")?;
    bounded(age <= WINDOW_AGE_MS_MAX, "the window is older than a month")?;
    bounded(window.errors <= COUNT_MAX, "the count of errors is too large")?;
    Ok(window)
}

fn answer(body: &[u8]) -> Result<Body, InvalidMessage> {
    let Answer { nonce, .. } = Answer::decode(body)?;
    Ok(Body::Answer { nonce, bytes: body.to_vec() })
}

fn event(body: &[u8]) -> Result<Event, InvalidMessage> {
    let mut event: Event = decode("event", body, MESSAGE_BYTES_MAX)?;
    clock(event.at)?;
    event.code = plain(&event.code, CODE_CHARS_MAX);
    event.text = plain(&event.text, REASON_CHARS_MAX);
    Ok(event)
}

/// A text that people will read, cut to `chars_max` and without control characters: those could forge lines in a terminal or a log.
pub(crate) fn plain(text: &str, chars_max: usize) -> String {
    text.chars().filter(|character| !character.is_control()).take(chars_max).collect()
}

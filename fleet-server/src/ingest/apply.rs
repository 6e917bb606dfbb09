//! What a message changes.

use std::collections::BTreeSet;

use sealift_protocol::api::TimelineEntry;
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::telemetry::{Ack, Event, Severity, SpoolId};

use super::message::{Body, Message};
use super::{IngestError, Job};
use crate::audit::Deed;
use crate::events::Hub;
use crate::signals::Signals;
use crate::store::reports::Account;
use crate::store::spools::Arrival;
use crate::store::{Change, StoreError};

/// Security events of one device in the audit log within [`AUDITED_MS`]; more are on its timeline alone.
const AUDITED_MAX: u64 = 10;
const AUDITED_MS: i64 = 60_000;

/// What others must be told of once it is committed.
#[derive(Debug, Default)]
pub(super) struct Touched {
    devices: BTreeSet<DeviceId>,
    has_account: bool,
    has_profile: bool,
    has_answer: bool,
}

impl Touched {
    pub(super) fn tell(self, signals: &Signals, hub: &Hub) {
        if self.has_account {
            signals.rollouts().notify_one();
        }
        if self.has_profile {
            signals.profiles().notify_one();
        }
        if self.has_answer {
            signals.answers().notify_waiters();
        }
        for device in self.devices {
            hub.touch_device(device);
        }
    }
}

pub(super) async fn apply(
    change: &mut Change,
    job: &Job,
    touched: &mut Touched,
) -> Result<Option<Ack>, IngestError> {
    let Job { device, message, now, .. } = job;
    // Also the lock on the device: two messages of one device are applied one after the other.
    let is_will = matches!(message, Message::Conn(conn) if !conn.online);
    // The server's own word about a device is not a sign of life, and is kept of revoked ones as well.
    let is_of_server = matches!(message, Message::Security(_));
    if !is_of_server && !change.see(device, (!is_will).then_some(*now)).await? {
        return Err(IngestError::UnknownDevice(device.clone()));
    }
    touched.devices.insert(device.clone());
    match message {
        Message::Security(event) => {
            change.note(device, &event_entry(event, *now)).await?;
            Ok(None)
        }
        Message::Conn(conn) => {
            change.set_presence(device, *conn, *now).await?;
            touched.has_account = true;
            Ok(None)
        }
        Message::Beat(beat) => {
            change.set_beat(device, beat, *now).await?;
            Ok(None)
        }
        Message::Spooled { spool, sequence, lowest, body } => {
            let numbers = (*sequence, *lowest);
            match change.arrive(device, *spool, numbers, *now).await? {
                Arrival::Known(ack) => Ok(Some(ack)),
                Arrival::TooFarAhead => {
                    Err(IngestError::TooFarAhead { device: device.clone(), sequence: *sequence })
                }
                Arrival::New(ack) => {
                    let position = (*spool, *sequence);
                    apply_body(change, device, (body, position), *now, touched).await?;
                    Ok(Some(ack))
                }
            }
        }
    }
}

async fn apply_body(
    change: &mut Change,
    device: &DeviceId,
    (body, position): (&Body, (SpoolId, u64)),
    now: UnixMillis,
    touched: &mut Touched,
) -> Result<(), IngestError> {
    match body {
        Body::Birth(birth) => {
            change.set_facts(device, birth, now).await?;
            let (generation, slots) = (birth.generation, birth.slots.as_slice());
            let trusted = birth.trusted.as_ref();
            let account = Account { generation, refused: None, slots, trusted, position };
            change.set_account(device, account, now).await?;
            touched.has_account = true;
        }
        Body::Report(report) => {
            let (generation, slots) = (report.generation, report.slots.as_slice());
            let refused = report.refused.as_ref();
            let trusted = report.trusted.as_ref();
            let account = Account { generation, refused, slots, trusted, position };
            change.set_account(device, account, now).await?;
            touched.has_account = true;
        }
        Body::Profile(window) => {
            change.add_window(device, window, now).await?;
            touched.has_profile = true;
        }
        Body::Event(event) => {
            if event.severity == Severity::Security {
                audit_event(change, device, event, now).await?;
            }
            change.note(device, &event_entry(event, now)).await?;
        }
        Body::Answer { nonce, bytes } => {
            let answer = (*nonce, bytes.clone());
            // One that nobody has asked for, or that comes too late, is nobody's.
            touched.has_answer |= change.set_answer(device, answer, now).await?;
        }
        Body::Refused { channel, why } => {
            let entry = TimelineEntry {
                at: now,
                kind: "event".to_owned(),
                severity: "warning".to_owned(),
                code: "message.refused".to_owned(),
                text: format!("a message on `{}` made no sense: {why}", channel.as_str()),
                model: None,
            };
            change.note(device, &entry).await?;
        }
    }
    Ok(())
}

/// Writes a security event into the audit log, unless the device floods it: a stolen device could otherwise fill the disk with rows
/// that nobody may remove.
async fn audit_event(
    change: &mut Change,
    device: &DeviceId,
    event: &Event,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let earlier = change.security_events_since(device, now.plus(-AUDITED_MS)).await?;
    if earlier >= AUDITED_MAX {
        return Ok(());
    }
    let (actor, detail) = (format!("device:{device}"), format!("{}: {}", event.code, event.text));
    let subject = device.as_str();
    let action = "device.security";
    let deed = Deed { actor: &actor, action, subject, reason: None, detail: &detail };
    change.audit(&deed, now).await
}

fn event_entry(event: &Event, now: UnixMillis) -> TimelineEntry {
    let severity = match event.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
        Severity::Security => "security",
    };
    TimelineEntry {
        at: now,
        kind: "event".to_owned(),
        severity: severity.to_owned(),
        code: event.code.clone(),
        text: event.text.clone(),
        model: event.model.clone(),
    }
}

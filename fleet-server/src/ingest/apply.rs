//! What a message changes.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::api::TimelineEntry;
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::telemetry::{Ack, Event, Severity};

use super::message::{Body, Message};
use super::{IngestError, Job};
use crate::audit::Deed;
use crate::events::Hub;
use crate::signals::Signals;
use crate::store::accounts::Account;
use crate::store::spools::{Arrival, Numbered, Position};
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

/// Those of the senders that there are, and that are not revoked.
pub(super) async fn known_senders(
    change: &mut Change,
    jobs: &[Job],
) -> Result<BTreeSet<DeviceId>, StoreError> {
    let (mut alive, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for job in jobs {
        match job.message {
            // The server's own word about a device is not a sign of life, and is kept of revoked ones as well.
            Message::Security(_) => (),
            Message::Conn(conn) if !conn.online => drop(gone.insert(job.device.clone())),
            Message::Conn(_) | Message::Beat(_) | Message::Spooled { .. } => {
                alive.insert(job.device.clone());
            }
        }
    }
    // All at once, in one order: two servers on one database would otherwise wait for each other in a circle.
    change.lock_devices(&alive.union(&gone).cloned().collect()).await?;
    let newest = jobs.iter().map(|job| job.now).max();
    let mut known = change.see(&alive, newest).await?;
    known.append(&mut change.see(&gone, None).await?);
    Ok(known)
}

/// Applies messages, at most one of each device, all together. Returns the answers in their order.
pub(super) async fn apply(
    change: &mut Change,
    round: &[&Job],
    known: &BTreeSet<DeviceId>,
    touched: &mut Touched,
) -> Result<Vec<Result<Option<Ack>, IngestError>>, StoreError> {
    let known_jobs = round.iter().copied().filter(|job| known.contains(&job.device));
    let numbered: Vec<_> = known_jobs.filter_map(numbered).collect();
    let arrivals = change.arrive(&numbered).await?;
    let is_new = |job: &&Job| matches!(arrivals.get(&job.device), Some(Arrival::New(_)));
    for job in round.iter().copied().filter(is_new) {
        if let Message::Spooled { body: Body::Birth(birth), .. } = &job.message {
            change.set_facts(&job.device, birth, job.now).await?;
        }
    }
    let accounts: Vec<_> = round.iter().copied().filter(is_new).filter_map(account).collect();
    touched.has_account |= !accounts.is_empty();
    change.set_accounts(&accounts).await?;
    let mut answers = Vec::with_capacity(round.len());
    for job in round {
        let answer = apply_one(change, job, (known, &arrivals), touched).await;
        answers.push(match answer {
            Err(IngestError::Store(error)) => return Err(error),
            answer => answer,
        });
    }
    Ok(answers)
}

fn numbered(job: &Job) -> Option<Numbered<'_>> {
    let Message::Spooled { spool, sequence, lowest, .. } = job.message else { return None };
    let position = Position { device: &job.device, spool };
    Some(Numbered { position, sequence, lowest, at: job.now })
}

/// What a message says of the device's models.
fn account(job: &Job) -> Option<Account<'_>> {
    let Message::Spooled { spool, sequence, body, .. } = &job.message else { return None };
    let (device, at, position) = (&job.device, job.now, (*spool, *sequence));
    match body {
        Body::Birth(birth) => Some(Account {
            device,
            at,
            generation: birth.generation,
            refused: None,
            slots: &birth.slots,
            trusted: birth.trusted.as_ref(),
            position,
        }),
        Body::Report(report) => Some(Account {
            device,
            at,
            generation: report.generation,
            refused: report.refused.as_ref(),
            slots: &report.slots,
            trusted: report.trusted.as_ref(),
            position,
        }),
        Body::Profile(_) | Body::Event(_) | Body::Answer { .. } | Body::Refused { .. } => None,
    }
}

async fn apply_one(
    change: &mut Change,
    job: &Job,
    (known, arrivals): (&BTreeSet<DeviceId>, &BTreeMap<DeviceId, Arrival>),
    touched: &mut Touched,
) -> Result<Option<Ack>, IngestError> {
    let Job { device, message, now, .. } = job;
    if !matches!(message, Message::Security(_)) && !known.contains(device) {
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
        Message::Spooled { sequence, body, .. } => match arrivals.get(device) {
            Some(Arrival::Known(ack)) => Ok(Some(*ack)),
            Some(Arrival::New(ack)) => {
                apply_body(change, device, body, *now, touched).await?;
                Ok(Some(*ack))
            }
            Some(Arrival::TooFarAhead) | None => {
                Err(IngestError::TooFarAhead { device: device.clone(), sequence: *sequence })
            }
        },
    }
}

async fn apply_body(
    change: &mut Change,
    device: &DeviceId,
    body: &Body,
    now: UnixMillis,
    touched: &mut Touched,
) -> Result<(), IngestError> {
    match body {
        // Written with those of the other devices.
        Body::Birth(_) | Body::Report(_) => (),
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

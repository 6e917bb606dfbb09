//! What goes to the server: reports, alarms, windows and heartbeats; and what comes back about directives and receipts.

use sealift_protocol::codec;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::limits::{MESSAGE_BYTES_MAX, REASON_CHARS_MAX};
use sealift_protocol::report::{ImageRef, Refusal};
use sealift_protocol::request::DiagnosisTrouble;
use sealift_protocol::telemetry::{Ack, Beat, Birth, Event as Alarm, Severity};
use sealift_protocol::topic::Up;
use serde::Serialize;

use super::keeper::Question;
use super::{Supervisor, SupervisorError, WINDOW};
use crate::device::{Event, Fault, FaultKind};
use crate::link::Session;
use crate::observe::WindowLimits;
use crate::spool::Keep;
use crate::verify::NotAccepted;

/// Alarms in an hour. A device on which all goes wrong at once has about ten to give.
pub(super) const ALARMS_MAX: u32 = 60;

/// What a diagnosis tells of before.
const TROUBLES_MAX: usize = 20;

/// Without a receipt for this long, everything is sent again.
const RESEND_AFTER_MS: i64 = 30_000;

/// Seconds over which a fleet polls and sends its first beats after it has connected.
const AFTER_CONNECT_SPREAD: i64 = 10;

/// The envelope adds less than this to a message; what no broker takes would block all that follows.
const ENVELOPE_BYTES: usize = 128;

/// A receipt is two numbers.
const ACK_BYTES_MAX: usize = 128;

impl Supervisor {
    /// Asks whether a message may be followed, unless it is the one that was asked about last and was settled.
    pub(super) fn on_message(&mut self, message: Vec<u8>) {
        let digest = Digest::of(&message);
        if self.last_message == Some(digest) {
            return;
        }
        let newest = self.device.generation();
        if self.keeper.try_send(Question::Directive { message, newest }).is_ok() {
            self.last_message = Some(digest);
        } else {
            tracing::warn!("a directive came while too many checks are waiting");
        }
    }

    /// A message was not followed: an old one silently, all others with a word to people, once.
    pub(super) fn on_not_accepted(
        &mut self,
        message: Digest,
        why: NotAccepted,
    ) -> Result<(), SupervisorError> {
        let NotAccepted::Refused(fault) = why else { return Ok(()) };
        // It is looked at again when it comes again: metadata may have changed by then.
        self.last_message = None;
        if matches!(fault.kind, FaultKind::Unreachable { .. }) {
            let soon = self.clock.steady().plus(crate::device::pause_ms(3, 1_000));
            self.next_poll = self.next_poll.min(soon);
            tracing::info!(code = fault.code, reason = fault.reason, "directive is checked later");
            return Ok(());
        }
        let told = Some((message, fault.code.clone()));
        if self.last_refusal == told {
            return Ok(());
        }
        self.last_refusal = told;
        tracing::warn!(code = fault.code, reason = fault.reason, "directive refused");
        self.tell(&fault, Severity::Security, None)?;
        let Fault { code, reason, .. } = fault;
        self.feed(Event::Refused(Refusal { generation: None, code, reason }))
    }

    /// Tells people about a fault of an image.
    pub(super) fn alarm(
        &mut self,
        model: ModelName,
        image: ImageRef,
        fault: &Fault,
    ) -> Result<(), SupervisorError> {
        let severity =
            if fault.is_security_event() { Severity::Security } else { Severity::Warning };
        let Fault { code, reason, .. } = fault;
        tracing::warn!(%model, version = %image.version, code, reason, "image did not pass");
        self.tell(fault, severity, Some((model, image)))
    }

    /// Tells people about trust metadata that cannot be used; once for each way in which they cannot.
    pub(super) fn tell_once(&mut self, fault: &Fault) -> Result<(), SupervisorError> {
        if !self.told.insert((fault.code.clone(), Digest::of(&[]))) {
            return Ok(());
        }
        tracing::warn!(code = fault.code, reason = fault.reason, "trust metadata refused");
        self.tell(fault, Severity::Security, None)
    }

    pub(super) fn tell(
        &mut self,
        fault: &Fault,
        severity: Severity,
        about: Option<(ModelName, ImageRef)>,
    ) -> Result<(), SupervisorError> {
        self.remember(fault);
        if !self.may_alarm() {
            tracing::warn!(
                code = fault.code,
                "too many alarms in this hour, this one is only here"
            );
            return Ok(());
        }
        let (model, image) = about.unzip();
        let alarm = Alarm {
            code: fault.code.clone(),
            severity,
            text: fault.reason.chars().take(REASON_CHARS_MAX).collect(),
            model,
            image: image.map(|image| (image.version, image.index)),
            at: self.clock.now(),
        };
        let keep = match severity {
            Severity::Info | Severity::Warning => Keep::WhileThereIsRoom,
            Severity::Critical | Severity::Security => Keep::Always,
        };
        self.spool(Up::Event, keep, &alarm).map(drop)
    }

    fn remember(&mut self, fault: &Fault) {
        let (code, reason) = (fault.code.clone(), fault.reason.clone());
        self.troubles.push_back(DiagnosisTrouble { at: self.clock.now(), code, reason });
        if self.troubles.len() > TROUBLES_MAX {
            self.troubles.pop_front();
        }
    }

    /// Whoever can cause alarms must not be able to fill the spool with them.
    fn may_alarm(&mut self) -> bool {
        const HOUR_MS: i64 = 60 * 60_000;
        let now = self.clock.steady();
        if now.since(self.alarms_refilled_at) >= HOUR_MS {
            (self.alarms_left, self.alarms_refilled_at) = (ALARMS_MAX, now);
        }
        let may = self.alarms_left > 0;
        self.alarms_left = self.alarms_left.saturating_sub(1);
        may
    }

    /// Says whether the message is kept; one that is too long for any broker counts as such.
    pub(super) fn spool<T: Serialize>(
        &mut self,
        channel: Up,
        keep: Keep,
        body: &T,
    ) -> Result<bool, SupervisorError> {
        let body = codec::encode(body).map_err(|error| SupervisorError::Part {
            part: "telemetry",
            reason: crate::verify::with_cause(&error),
        })?;
        if body.len() + ENVELOPE_BYTES > MESSAGE_BYTES_MAX {
            tracing::warn!(bytes = body.len(), channel = channel.as_str(), "message is too long");
            return Ok(true);
        }
        let kept = self.spool.append(channel, keep, body);
        if let Err(error) = &kept {
            // A full disk must not stop a running model.
            tracing::error!(%error, "message is not kept");
        }
        Ok(kept.is_ok())
    }

    /// A new connection: says what the device is, then everything without a receipt, from the lowest number on.
    pub(super) fn on_connected(&mut self, session: Session) -> Result<(), SupervisorError> {
        self.session = Some(session);
        self.birth()?;
        self.sent = self.spool.acknowledged();
        // What is retained comes by itself; a fleet that found its server again does not ask for it, all devices in the same second.
        let steady = self.clock.steady();
        let soon = |spread_permille| steady.plus(i64::from(spread_permille) * AFTER_CONNECT_SPREAD);
        self.next_poll = self.next_poll.min(soon(crate::verify::spread_permille()));
        self.next_beat = self.next_beat.min(soon(crate::verify::spread_permille()));
        Ok(())
    }

    /// Says what the device is; again when that has changed.
    pub(super) fn birth(&mut self) -> Result<(), SupervisorError> {
        let Some(session) = &self.session else { return Ok(()) };
        self.is_birth_due = false;
        let now = self.clock.now();
        let report = self.device.report(now);
        let birth = Birth {
            epoch: session.epoch,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            facts: self.me.facts.clone(),
            generation: report.generation,
            slots: report.slots,
            endpoint: self.endpoint.clone(),
            at: now,
            trusted: self.trusted(),
        };
        self.spool(Up::Birth, Keep::Always, &birth).map(drop)
    }

    /// Takes a receipt. Where it stops short of a gap, the lowest message is sent again: it says that the gap stays.
    pub(super) fn on_ack(&mut self, payload: &[u8]) {
        let ack: Ack = match codec::decode("receipt", payload, ACK_BYTES_MAX) {
            Ok(ack) => ack,
            Err(error) => {
                tracing::warn!(%error, "receipt cannot be read");
                return;
            }
        };
        let before = self.spool.acknowledged();
        if let Err(error) = self.spool.acknowledge(ack) {
            // What it was about is sent again, and a full disk must not stop a running model.
            tracing::error!(%error, "receipt is not kept");
        }
        let acknowledged = self.spool.acknowledged();
        if acknowledged == before {
            return;
        }
        self.sent_at = self.clock.steady();
        self.sent = self.sent.max(acknowledged);
        let has_gap = self.spool.lowest() > acknowledged + 1;
        if has_gap && self.sent >= self.spool.lowest() {
            self.sent = acknowledged;
        }
    }

    /// Sends what the server does not have, as far as it may be under way at once.
    pub(super) fn pump(&mut self) {
        let Some(session) = &self.session else { return };
        let now = self.clock.steady();
        let acknowledged = self.spool.acknowledged();
        let is_waiting = self.sent > acknowledged && self.spool.len() > 0;
        if !is_waiting {
            self.sent_at = now;
        } else if now.since(self.sent_at) > RESEND_AFTER_MS {
            (self.sent, self.sent_at) = (acknowledged, now);
        }
        let under_way = self.sent.saturating_sub(self.spool.lowest().saturating_sub(1));
        let room = WINDOW.saturating_sub(under_way);
        let messages = match self.spool.after(self.sent, usize::try_from(room).unwrap_or(0)) {
            Ok(messages) => messages,
            Err(error) => {
                // They are sent when they are on disk, and a full disk must not stop a running model.
                tracing::error!(%error, "messages are not sent");
                return;
            }
        };
        for message in messages {
            let Ok(payload) = codec::encode(&message.envelope) else { continue };
            if !session.publish(message.channel, payload) {
                break;
            }
            self.sent = message.sequence;
        }
    }

    /// Ends windows that are due, and says how the device does.
    pub(super) fn observe(&mut self, now: UnixMillis) -> Result<(), SupervisorError> {
        self.keep_windows(false)?;
        if self.next_beat <= now {
            self.next_beat = now.plus(i64::from(self.setup.config.beat_s) * 1_000);
            self.beat();
            if self.last_report.is_none() {
                self.owe_report();
            }
        }
        let dropped = self.spool.dropped();
        // Offline, the word itself would be dropped, again and again.
        if dropped > self.dropped_told && self.session.is_some() {
            tracing::warn!(dropped, "spool is full, old windows were dropped");
            self.dropped_told = dropped;
            let reason = format!("{dropped} messages were dropped since the agent started");
            let fault = Fault::new(FaultKind::Failed, "spool.full", &reason);
            self.tell(&fault, Severity::Info, None)?;
        }
        Ok(())
    }

    /// Everything that was seen so far, before the agent ends.
    pub(super) fn last_words(&mut self) -> Result<(), SupervisorError> {
        self.keep_windows(true)?;
        self.spool.sync()?;
        self.spool.note_receipts()?;
        self.pump();
        Ok(())
    }

    fn keep_windows(&mut self, force: bool) -> Result<(), SupervisorError> {
        let seconds = u64::from(self.setup.config.window_s);
        let limits = WindowLimits { rows: self.setup.config.window_rows, seconds };
        for window in self.switchboard.drain_windows(self.clock.now(), limits, force) {
            self.spool(Up::Profile, Keep::WhileThereIsRoom, &window)?;
        }
        Ok(())
    }

    fn beat(&mut self) {
        let now = self.clock.now();
        let readings = match &self.setup.crowd {
            Some(crowd) => crowd.readings(self.clock.steady(), &self.setup.store),
            None => self.health.read(&self.setup.store),
        };
        let counters = self.switchboard.counters();
        let beat = Beat {
            uptime_s: u32::try_from(self.clock.uptime().as_secs()).unwrap_or(u32::MAX),
            cpu_permille: readings.cpu_permille,
            memory_free_mb: readings.memory_free_mb,
            disk_free_mb: readings.disk_free_mb,
            temperature_c: readings.temperature_c,
            requests: counters.requests,
            errors: counters.errors,
            restarts: self.restarts,
            spooled: u32::try_from(self.spool.len()).unwrap_or(u32::MAX),
            certificate_days: self.certificate.certificate_days(now),
            latency_p95_us: counters.latency_p95_us,
            at: now.0,
            load_permille: readings.load_permille,
            accelerator_permille: readings.accelerator_permille,
            is_throttled: readings.is_throttled,
            in_flight: u16::try_from(self.switchboard.in_flight()).unwrap_or(u16::MAX),
            trusted_timestamp: self.trusted.as_ref().map(|trusted| trusted.timestamp),
        };
        // A heartbeat that is not sent is made up for by the next one.
        if let (Some(session), Ok(payload)) = (&self.session, codec::encode(&beat)) {
            session.publish(Up::Beat, payload);
        }
    }
}

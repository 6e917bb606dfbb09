//! What a heartbeat shows that a person should know. Values in, findings out.

use std::collections::BTreeMap;

use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::telemetry::Beat;

use super::{Finding, Severity};

/// A disk with less than a twentieth free cannot stage an image beside another one.
const DISK_FREE_SHARE: u64 = 20;
/// Beyond it times of drift windows, certificates and directives are compared wrongly.
const SKEW_MS: i64 = 60_000;
/// A device renews its certificate at two thirds of its life: with a week left, renewing has failed for long.
const CERTIFICATE_DAYS: i16 = 7;
/// With so little left somebody must act now.
const CERTIFICATE_CRITICAL_DAYS: i16 = 2;
/// A device that is heard and whose messages still pile up is refused something.
const SPOOLED: u32 = 1_000;
/// Restarts of workers within [`RESTARTS_MS`] that are no accident.
const RESTARTS: u32 = 3;
const RESTARTS_MS: i64 = 10 * 60_000;
/// Timestamps are renewed at half of their life: a device three behind has missed more than one whole life.
const TIMESTAMPS_BEHIND: u64 = 3;
/// Longer than it takes a device to fetch new metadata after several were published at once.
const STALE_TRUST_MS: i64 = 60 * 60_000;
const MINUTES_5_MS: i64 = 5 * 60_000;
const MINUTES_10_MS: i64 = 10 * 60_000;

/// A device as its last heartbeat shows it.
pub(crate) struct Healthy<'a> {
    pub(crate) device: &'a DeviceId,
    pub(crate) beat: &'a Beat,
    /// When the heartbeat came, by the server's clock.
    pub(crate) at: UnixMillis,
    /// All of its disk; 0 if it is not known.
    pub(crate) disk_mb: u64,
    pub(crate) restarts: Restarts,
    /// The version of the newest timestamp of the trust metadata.
    pub(crate) newest: Option<u64>,
}

/// How many restarts of workers there were at the begin of a time, and when that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Restarts {
    since: UnixMillis,
    at_begin: u32,
    now: u32,
}

impl Restarts {
    /// Counts on; begins anew when the time is over, or the agent has begun anew.
    pub(crate) fn count(seen: Option<Self>, beat: &Beat, now: UnixMillis) -> Self {
        match seen {
            Some(seen) if now.since(seen.since) < RESTARTS_MS && beat.restarts >= seen.at_begin => {
                Self { now: beat.restarts, ..seen }
            }
            // What went on until now goes on being counted: a loop does not end with the time.
            Some(seen) if seen.restarted() >= RESTARTS && beat.restarts > seen.now => Self {
                since: now,
                at_begin: beat.restarts.saturating_sub(RESTARTS),
                now: beat.restarts,
            },
            Some(_) | None => Self { since: now, at_begin: beat.restarts, now: beat.restarts },
        }
    }

    const fn restarted(self) -> u32 {
        self.now.saturating_sub(self.at_begin)
    }
}

/// What a device's heartbeat shows. Since when it holds is for whoever looks to say.
pub(crate) fn of_device(it: &Healthy<'_>) -> Vec<Finding> {
    let found =
        [disk(it), skew(it), certificate(it), spool(it), throttled(it), crashes(it), trust(it)];
    found.into_iter().flatten().collect()
}

fn disk(it: &Healthy<'_>) -> Option<Finding> {
    let (free, all) = (u64::from(it.beat.disk_free_mb), it.disk_mb);
    let is_full = all > 0 && free.saturating_mul(DISK_FREE_SHARE) < all;
    let detail = format!("{free} of {all} MiB are free");
    is_full.then(|| Finding {
        help: format!(
            "`fleetctl device get {}` shows what it keeps; free the disk, or it stages no new image",
            it.device
        ),
        ..finding(it.device, ("disk-full", "has hardly any disk left"), detail, MINUTES_5_MS)
    })
}

fn skew(it: &Healthy<'_>) -> Option<Finding> {
    let skew_ms = UnixMillis(it.beat.at).since(it.at);
    let way = if skew_ms > 0 { "ahead" } else { "behind" };
    let detail = format!("its clock is {} s {way}", skew_ms.unsigned_abs() / 1_000);
    // A heartbeat without a time is of an agent that does not say.
    let is_off = it.beat.at != 0 && skew_ms.unsigned_abs() > SKEW_MS.unsigned_abs();
    is_off.then(|| Finding {
        help: format!(
            "set the clock of {0} by NTP; `fleetctl device get {0}` shows how far it is off",
            it.device
        ),
        ..finding(it.device, ("clock-skew", "has a wrong clock"), detail, MINUTES_5_MS)
    })
}

fn certificate(it: &Healthy<'_>) -> Option<Finding> {
    let days = it.beat.certificate_days;
    let severity =
        if days <= CERTIFICATE_CRITICAL_DAYS { Severity::Critical } else { Severity::Warning };
    // An agent that has sent nothing but zeroes does not know.
    let is_known = it.beat.uptime_s > 0 || days != 0;
    (is_known && days <= CERTIFICATE_DAYS).then(|| Finding {
        severity,
        help: format!(
            "`fleetctl device timeline {}` says why it was not renewed; the device renews it by \
             itself as soon as it can",
            it.device
        ),
        ..finding(
            it.device,
            ("certificate-ends", "has a certificate that expires soon"),
            format!("it expires in {days} days"),
            0,
        )
    })
}

fn spool(it: &Healthy<'_>) -> Option<Finding> {
    let spooled = it.beat.spooled;
    (spooled > SPOOLED).then(|| Finding {
        help: format!(
            "`fleetctl device timeline {}` shows whether messages are refused; otherwise its line \
             is too slow for what it sends",
            it.device
        ),
        ..finding(
            it.device,
            ("spool-deep", "cannot send its messages"),
            format!("{spooled} messages wait on it"),
            MINUTES_10_MS,
        )
    })
}

fn throttled(it: &Healthy<'_>) -> Option<Finding> {
    let celsius = it.beat.temperature_c;
    let detail = if celsius == i8::MIN {
        "its processor is slowed down".to_owned()
    } else {
        format!("its processor is slowed down at {celsius} °C")
    };
    it.beat.is_throttled.then(|| Finding {
        help: format!(
            "cool it, or give it less to do; `fleetctl device get {}` shows its load",
            it.device
        ),
        ..finding(it.device, ("throttled", "is too hot"), detail, MINUTES_5_MS)
    })
}

fn crashes(it: &Healthy<'_>) -> Option<Finding> {
    let restarts = it.restarts.restarted();
    (restarts >= RESTARTS).then(|| Finding {
        severity: Severity::Critical,
        help: format!(
            "`fleetctl device timeline {0}` names the model; `fleetctl rollback MODEL --device {0} \
             --reason …` goes back",
            it.device
        ),
        ..finding(
            it.device,
            ("crash-loop", "has a model whose process ends again and again"),
            format!("{restarts} restarts within {} minutes", RESTARTS_MS / 60_000),
            0,
        )
    })
}

fn trust(it: &Healthy<'_>) -> Option<Finding> {
    let (newest, own) = (it.newest?, it.beat.trusted_timestamp?);
    let detail = format!("it has timestamp {own}, the newest is {newest}");
    (own.saturating_add(TIMESTAMPS_BEHIND) <= newest).then(|| Finding {
        help: format!(
            "`fleetctl device timeline {}` says what it refuses; it begins no new image until then",
            it.device
        ),
        ..finding(it.device, ("stale-trust", "has stale trust metadata"), detail, STALE_TRUST_MS)
    })
}

/// A device that connects and disconnects many times.
pub(crate) fn flapping(device: &DeviceId, count: u64, within_ms: i64, last: UnixMillis) -> Finding {
    let detail = format!("it has disconnected {count} times within {} minutes", within_ms / 60_000);
    Finding {
        since: last,
        help: format!(
            "`fleetctl device timeline {device}` shows when; a bad line, or two devices with one identity"
        ),
        ..finding(device, ("flapping", "comes and goes"), detail, 0)
    }
}

fn finding(device: &DeviceId, (kind, what): (&str, &str), detail: String, hold_ms: i64) -> Finding {
    Finding {
        key: format!("{kind}/{device}"),
        kind: kind.to_owned(),
        severity: Severity::Warning,
        title: format!("device {device} {what}"),
        detail,
        help: String::new(),
        labels: BTreeMap::from([("device".to_owned(), device.to_string())]),
        since: UnixMillis(0),
        hold_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn well() -> Beat {
        Beat {
            uptime_s: 60,
            disk_free_mb: 500,
            temperature_c: i8::MIN,
            certificate_days: 30,
            trusted_timestamp: Some(7),
            at: NOW.0,
            ..Beat::default()
        }
    }

    fn kinds(beat: &Beat, restarts: Restarts) -> Vec<String> {
        let device = DeviceId::parse("cam-1").unwrap();
        let newest = Some(8);
        let it = Healthy { device: &device, beat, at: NOW, disk_mb: 10_000, restarts, newest };
        let found = of_device(&it);
        assert!(found.iter().all(|finding| finding.help.contains("fleetctl")));
        found.into_iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn each_trouble_is_found_at_its_limit_and_none_where_there_is_none() {
        let calm = Restarts::count(None, &well(), NOW);
        assert_eq!(kinds(&well(), calm), Vec::<String>::new());
        for (beat, kind) in [
            (Beat { disk_free_mb: 499, ..well() }, "disk-full"),
            (Beat { at: NOW.0 + 60_001, ..well() }, "clock-skew"),
            (Beat { at: NOW.0 - 60_001, ..well() }, "clock-skew"),
            (Beat { certificate_days: 7, ..well() }, "certificate-ends"),
            (Beat { spooled: 1_001, ..well() }, "spool-deep"),
            (Beat { is_throttled: true, ..well() }, "throttled"),
            (Beat { trusted_timestamp: Some(5), ..well() }, "stale-trust"),
        ] {
            assert_eq!(kinds(&beat, calm), [kind]);
        }
        for beat in [
            Beat { at: NOW.0 + 60_000, ..well() },
            Beat { certificate_days: 8, ..well() },
            Beat { spooled: 1_000, ..well() },
            Beat { trusted_timestamp: Some(6), ..well() },
            Beat { trusted_timestamp: None, at: 0, ..well() },
        ] {
            assert_eq!(kinds(&beat, calm), Vec::<String>::new(), "{beat:?}");
        }
    }

    #[test]
    fn restarts_within_ten_minutes_are_a_loop_until_they_end() {
        let with = |restarts| Beat { restarts, ..well() };
        let minute = |minutes: i64| NOW.plus(minutes * 60_000);
        let mut seen = Restarts::count(None, &with(10), NOW);
        seen = Restarts::count(Some(seen), &with(12), minute(5));
        assert_eq!(kinds(&well(), seen), Vec::<String>::new(), "two may be an accident");
        seen = Restarts::count(Some(seen), &with(13), minute(9));
        assert_eq!(kinds(&well(), seen), ["crash-loop"]);
        seen = Restarts::count(Some(seen), &with(15), minute(11));
        assert_eq!(kinds(&well(), seen), ["crash-loop"], "it goes on");
        seen = Restarts::count(Some(seen), &with(15), minute(22));
        assert_eq!(kinds(&well(), seen), Vec::<String>::new(), "it is over");
        seen = Restarts::count(Some(seen), &with(0), minute(23));
        assert_eq!(kinds(&well(), seen), Vec::<String>::new(), "the agent began anew");
    }
}

//! Clocks that are wrong: none stops a running model, none lets expired metadata in, and each can be set right again.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;

const DAY_MS: i64 = 86_400_000;

/// 2099-01-01.
const FAR: UnixMillis = UnixMillis(4_070_908_800_000);

fn beginning_of_time() -> UnixMillis {
    UnixMillis(0)
}

#[tokio::test]
async fn a_device_in_1970_follows_directives_and_says_that_its_clock_is_wrong() {
    let mut fleet = Fleet::start().await;
    let first = fleet.publish("1", 1);
    fleet.direct(1, "1", first);
    let mut agent = Agent::enrolled(&fleet).await;
    agent.wall = beginning_of_time;
    agent.start();

    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "1")).await;
    let second = fleet.publish("2", 1);
    fleet.direct(2, "2", second);
    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "2")).await;

    let alarm = agent.until_alarm("clock.behind").await;
    assert_eq!(alarm.severity, Severity::Warning);
    // What it took was not older than what it had: the time floor is now that of the newest directive.
    agent.kill().await;
    agent.start();
    agent.until(|slot| serves(slot, "2")).await;
    assert_eq!(agent.answering().await, "2");
}

#[tokio::test]
async fn a_device_in_1970_refuses_a_directive_that_is_dated_beyond_what_offline_keys_signed_for() {
    let mut fleet = Fleet::start().await;
    let mut agent = Agent::serving_1(&mut fleet).await;
    agent.kill().await;
    agent.wall = beginning_of_time;
    let second = fleet.publish("2", 1);

    // A stolen director's key wants to poison the time floor.
    fleet.offer(fleet.dated("2", second, 2, FAR));
    agent.start();

    agent.until_alarm("directive.window").await;
    fleet.direct(3, "2", second);
    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "2")).await;
}

static WALL_2099: AtomicI64 = AtomicI64::new(0);

fn wall_2099() -> UnixMillis {
    UnixMillis(WALL_2099.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_device_in_2099_serves_on_takes_nothing_and_recovers_when_its_clock_steps_back() {
    let mut fleet = Fleet::start().await;
    let mut agent = Agent::serving_1(&mut fleet).await;
    agent.kill().await;
    WALL_2099.store(FAR.0, Ordering::Relaxed);
    agent.wall = wall_2099;
    let second = fleet.publish("2", 1);
    fleet.direct(2, "2", second);
    agent.start();

    agent.until_alarm("tuf.root.expired").await;
    assert_eq!(agent.answering().await, "1");
    assert!(serves(&agent.slot().unwrap(), "1"));
    agent.kill().await;
    WALL_2099.store(now().0, Ordering::Relaxed);
    agent.start();

    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "2")).await;
    assert_eq!(agent.answering().await, "2");
}

static WALL_BACK: AtomicI64 = AtomicI64::new(0);

fn wall_back() -> UnixMillis {
    UnixMillis(WALL_BACK.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_clock_that_steps_back_brings_no_expired_metadata_to_life() {
    let mut fleet = Fleet::start().await;
    let mut agent = Agent::serving_1(&mut fleet).await;
    let third = fleet.push("3");
    let index = fleet.files().blobs[&third.to_string()].clone();
    let target = sealift_protocol::tuf::metadata::TargetFile::of_model(
        &index,
        sealift_protocol::id::Epoch(1),
    );
    // Expired a day ago by the time that the device has verified.
    fleet.sign("3", target, -1);
    agent.kill().await;
    WALL_BACK.store(now().plus(-5 * DAY_MS).0, Ordering::Relaxed);
    agent.wall = wall_back;
    fleet.direct(2, "3", third);
    agent.start();

    let expired = || agent.alarms().into_iter().find(|alarm| alarm.code.ends_with("expired"));
    agent.wait(expired).await;
    assert_eq!(agent.answering().await, "1");
}

impl Fleet {
    /// A directive that claims to be of another time.
    fn dated(&self, version: &str, index: Digest, generation: u64, at: UnixMillis) -> Vec<u8> {
        let slots = vec![Self::slot(version, index)];
        self.directive_at("cam-1", generation, slots, (at, at.plus(DAY_MS)))
    }
}

//! Going back to what is on the device: without a word from the server while nothing newer is known of, and never otherwise.

use std::sync::atomic::Ordering;

use sealift_protocol::id::{Generation, TenantId};
use sealift_protocol::telemetry::Facts;

use super::crash::trust_of;
use super::*;
use crate::clock::Reading;
use crate::trust::Trust;
use crate::verify::{self, Me};

/// A device that has version 1, and has just followed the metadata. Whoever asks the server again is given forged ones.
struct Followed {
    agent: Agent,
    fleet: Fleet,
    trust: Trust,
    first: Digest,
}

impl Followed {
    async fn begin() -> Self {
        let mut fleet = Fleet::start().await;
        let mut agent = Agent::serving_1(&mut fleet).await;
        let first = agent.slot().unwrap().serving.unwrap().index;
        agent.kill().await;
        let mut trust = trust_of(&agent);
        trust.refresh_now(now()).await.unwrap();
        fleet.tamper("timestamp.json", |bytes| bytes.truncate(10));
        Self { agent, fleet, trust, first }
    }

    /// Whether a directive for this image is followed at that time.
    async fn follows(&mut self, image: Digest, at: Reading) -> bool {
        let message = self.fleet.directive("cam-1", 9, "1", image);
        self.takes(&message, at).await
    }

    async fn takes(&mut self, message: &[u8], at: Reading) -> bool {
        let slots = Slots::open(self.agent.store.path()).unwrap();
        let me = Me {
            tenant: TenantId::parse("main").unwrap(),
            device: DeviceId::parse("cam-1").unwrap(),
            facts: Facts::default(),
            accelerators: Vec::new(),
            require_cosign: false,
        };
        let newest = (Generation(1), at);
        verify::directive(&mut self.trust, (&me, &slots), message, newest).await.is_ok()
    }
}

fn sure(now: UnixMillis) -> Reading {
    Reading { now, is_trusted: true }
}

#[tokio::test]
async fn a_kept_image_is_gone_back_to_without_asking() {
    let mut device = Followed::begin().await;
    let first = device.first;

    assert!(device.follows(first, sure(now())).await);
    // Asked, the server would have been found out; and what was followed before counts no more.
    assert!(!device.follows(Digest::of(b"not here"), sure(now())).await);
    assert!(!device.follows(first, sure(now())).await);
}

#[tokio::test]
async fn attack_to_have_everything_stopped_is_no_way_back_and_asks_the_server() {
    let mut device = Followed::begin().await;
    let nothing = device.fleet.directive_of("cam-1", 9, Vec::new());
    assert!(!device.takes(&nothing, sure(now())).await);
}

#[tokio::test]
async fn metadata_of_a_while_ago_are_not_enough_to_go_back() {
    let mut device = Followed::begin().await;
    let (first, later) = (device.first, now().plus(11 * 60_000));
    assert!(!device.follows(first, sure(later)).await);
}

#[tokio::test]
async fn announced_metadata_are_asked_for_before_going_back() {
    let mut device = Followed::begin().await;
    let first = device.first;
    device.trust.announced().store(u64::MAX, Ordering::Relaxed);
    assert!(!device.follows(first, sure(now())).await);
}

#[tokio::test]
async fn a_device_that_does_not_know_the_time_asks_before_going_back() {
    let mut device = Followed::begin().await;
    let first = device.first;
    assert!(!device.follows(first, Reading { now: now(), is_trusted: false }).await);
}

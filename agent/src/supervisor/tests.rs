//! A whole agent against a fleet server of the test's own: no broker, so that the directive comes over HTTPS.

mod back;
mod crash;
mod fleet;
mod requests;
mod revocation;
mod time;

use std::path::PathBuf;
use std::time::Duration;

use sealift_protocol::id::{DeviceId, Version};
use sealift_protocol::report::{ImageRef, OutcomeKind, Phase, Report, SlotReport};
use sealift_protocol::telemetry::{Event as Alarm, Severity, SpoolId};
use sealift_protocol::topic::Up;
use tempfile::TempDir;

use super::*;
use crate::clock::system_time;
use crate::config::EngineName;
use crate::enrol::{Enrolment, enrol};
use crate::limits::SPOOL_BYTES_MAX;
use crate::spool::Keep;
use fleet::{Fleet, model, now, weights};

/// Longest wait for what must happen; machines under load are slow.
const PATIENCE: Duration = Duration::from_mins(1);

struct Agent {
    store: TempDir,
    stop: CancellationToken,
    running: Option<JoinHandle<Result<(), SupervisorError>>>,
    wall: Wall,
    require_cosign: bool,
}

impl Agent {
    async fn enrolled(fleet: &Fleet) -> Self {
        let store = tempfile::tempdir().unwrap();
        let device = DeviceId::parse("cam-1").unwrap();
        let enrolment = Enrolment {
            url: fleet.url.clone(),
            token: fleet.token(),
            device,
            is_replacement: false,
            key_on: None,
        };
        enrol(store.path(), &enrolment).await.unwrap();
        Self {
            store,
            stop: CancellationToken::new(),
            running: None,
            wall: system_time,
            require_cosign: false,
        }
    }

    /// An agent that serves version 1 and has kept it.
    async fn serving_1(fleet: &mut Fleet) -> Self {
        let index = fleet.publish("1", 1);
        fleet.direct(1, "1", index);
        let mut agent = Self::enrolled(fleet).await;
        agent.start();
        agent.until(|slot| slot.phase == Phase::Watch).await;
        agent
    }

    fn start(&mut self) {
        let config = Config {
            serve_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            engine: EngineName::Fake,
            poll_s: 1,
            require_cosign: self.require_cosign,
            ..Config::default()
        };
        let setup = Setup {
            store: self.path(),
            config,
            crowd: None,
            wall: self.wall,
            watchdog: None,
            logs: Logs::default(),
        };
        self.stop = CancellationToken::new();
        self.running = Some(tokio::spawn(run(setup, self.stop.clone())));
    }

    /// Ends the agent's task where it stands, as a kill does.
    async fn kill(&mut self) {
        let running = self.running.take().unwrap();
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        std::fs::remove_dir_all(self.path().join("run")).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.store.path().to_owned()
    }

    /// The agent on this store, open, doing nothing by itself.
    fn opened_with(&self, config: Config) -> Supervisor {
        let setup = Setup {
            store: self.path(),
            config,
            crowd: Some(Crowd::of(1)),
            wall: system_time,
            watchdog: None,
            logs: Logs::default(),
        };
        let (supervisor, _) = open::open(setup).unwrap();
        supervisor
    }

    fn report(&self) -> Option<Report> {
        serde_json::from_slice(&std::fs::read(self.path().join("run/status.json")).ok()?).ok()
    }

    fn slot(&self) -> Option<SlotReport> {
        self.report()?.slots.into_iter().find(|slot| slot.model == model())
    }

    async fn until(&self, is_reached: impl Fn(&SlotReport) -> bool) -> SlotReport {
        self.wait(|| self.slot().filter(&is_reached)).await
    }

    async fn wait<T>(&self, look: impl Fn() -> Option<T>) -> T {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(found) = look() {
                    return found;
                }
                assert!(self.running.as_ref().is_none_or(|run| !run.is_finished()));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("in vain; last report: {:#?}", self.report()))
    }

    /// What people would hear of, oldest first.
    fn alarms(&self) -> Vec<Alarm> {
        // A copy: opening cuts off what the agent is just writing.
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(self.path().join("spool")).unwrap().flatten() {
            // A temporary file may have got its name meanwhile.
            drop(std::fs::copy(file.path(), copy.path().join(file.file_name())));
        }
        let mut spool = Spool::open(copy.path(), SPOOL_BYTES_MAX, SpoolId(0)).unwrap();
        let messages = spool.after(0, 10_000).unwrap();
        let events = messages.iter().filter(|message| message.channel == Up::Event);
        let decoded = events.map(|message| &message.envelope.body);
        decoded.map(|body| sealift_protocol::codec::decode("event", body, 9_999).unwrap()).collect()
    }

    async fn until_alarm(&self, code: &str) -> Alarm {
        let alarm = || self.alarms().into_iter().find(|alarm| alarm.code == code);
        self.wait(alarm).await
    }

    /// The version that answers a real request at the local endpoint.
    async fn answering(&self) -> String {
        let endpoint =
            self.wait(|| std::fs::read(self.path().join("run/endpoint.json")).ok()).await;
        let endpoint: serde_json::Value = serde_json::from_slice(&endpoint).unwrap();
        let url = format!("{}/v2/models/vision%2Fdigits/infer", endpoint["http"].as_str().unwrap());
        let data = vec![0.5_f32; 64];
        let input = serde_json::json!({"name": "pixels", "datatype": "FP32", "shape": [1, 64],
            "data": data});
        let body = serde_json::json!({ "inputs": [input] }).to_string();
        let response = reqwest::Client::new().post(url).body(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let answer: serde_json::Value =
            serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        answer["model_version"].as_str().unwrap().to_owned()
    }
}

fn serves(slot: &SlotReport, version: &str) -> bool {
    slot.serving.as_ref().is_some_and(|image| image.version == Version::parse(version).unwrap())
}

fn flip(bytes: &mut [u8]) {
    bytes[bytes.len() / 2] ^= 1;
}

#[tokio::test]
async fn a_directive_brings_a_signed_image_to_life_and_a_second_one_replaces_it() {
    let mut fleet = Fleet::start().await;
    let agent = Agent::serving_1(&mut fleet).await;
    assert_eq!(agent.answering().await, "1");

    let index = fleet.publish("2", 1);
    fleet.direct(2, "2", index);

    let slot = agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "2")).await;
    assert_eq!(agent.answering().await, "2");
    assert_eq!(slot.outcome.unwrap().result, OutcomeKind::Committed);
    assert_eq!(slot.previous.unwrap().version.as_str(), "1");
    assert_eq!(agent.alarms(), []);
}

#[tokio::test]
async fn going_back_needs_no_download() {
    let mut fleet = Fleet::start().await;
    let agent = Agent::serving_1(&mut fleet).await;
    let first = agent.slot().unwrap().serving.unwrap().index;
    let second = fleet.publish("2", 1);
    fleet.direct(2, "2", second);
    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "2")).await;
    fleet.files().fetched.clear();

    fleet.direct(3, "1", first);

    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "1")).await;
    assert_eq!(fleet.files().fetched, [""; 0]);
}

#[tokio::test]
async fn one_flipped_byte_in_any_blob_is_refused_and_the_live_image_serves_on() {
    let mut fleet = Fleet::start().await;
    let agent = Agent::serving_1(&mut fleet).await;
    let known: Vec<_> = fleet.files().blobs.keys().cloned().collect();
    let index = fleet.publish("2", 1);
    let fresh: Vec<_> =
        fleet.files().blobs.keys().filter(|digest| !known.contains(digest)).cloned().collect();
    // Its own index, manifest and configuration, and the weights that it shares with version 1.
    assert_eq!(fresh.len(), 3);
    for (generation, digest) in (2..).zip(fresh.iter().chain([&weights()])) {
        let good = fleet.files().blobs[digest].clone();
        flip(fleet.files().blobs.get_mut(digest).unwrap());

        fleet.direct(generation, "2", index);

        let is_ended = |slot: &SlotReport| {
            slot.outcome.as_ref().is_some_and(|outcome| outcome.generation.0 == generation)
        };
        let slot = agent.until(is_ended).await;
        let outcome = slot.outcome.as_ref().unwrap();
        assert_eq!((outcome.result, outcome.code.as_str()), (OutcomeKind::Failed, "image.digest"));
        assert!(serves(&slot, "1"));
        assert_eq!(agent.answering().await, "1");
        fleet.files().blobs.insert(digest.clone(), good);
    }
    let alarms = agent.alarms();
    assert!(alarms.iter().all(|alarm| alarm.severity == Severity::Security), "{alarms:?}");

    fleet.direct(9, "2", index);
    agent.until(|slot| serves(slot, "2")).await;
}

#[tokio::test]
async fn a_directive_for_another_device_is_refused_with_a_security_event() {
    let mut fleet = Fleet::start().await;
    let agent = Agent::serving_1(&mut fleet).await;
    let index = fleet.publish("2", 1);

    fleet.offer(fleet.directive("cam-2", 2, "2", index));

    let alarm = agent.until_alarm("directive.audience").await;
    assert_eq!(alarm.severity, Severity::Security);
    let refused = agent.wait(|| agent.report()?.refused).await;
    assert_eq!(refused.code, "directive.audience");
    assert_eq!(agent.answering().await, "1");
    let mut forged = fleet.directive("cam-1", 2, "2", index);
    flip(&mut forged);
    fleet.offer(forged);
    agent.wait(|| agent.report()?.refused.filter(|refused| refused.code.starts_with("cose"))).await;
    assert!(serves(&agent.slot().unwrap(), "1"));
}

#[tokio::test]
async fn a_target_that_is_unsigned_or_another_than_the_directives_is_rejected() {
    let mut fleet = Fleet::start().await;
    let agent = Agent::serving_1(&mut fleet).await;
    let unsigned = fleet.push("2");
    fleet.direct(2, "2", unsigned);
    agent.until_alarm("tuf.no-target").await;

    fleet.publish("3", 1);
    fleet.direct(3, "3", unsigned);

    agent.until_alarm("image.target").await;
    let outcome = agent.slot().unwrap().outcome.unwrap();
    assert_eq!(outcome.result, OutcomeKind::Rejected);
    assert_eq!(agent.answering().await, "1");
}

#[tokio::test]
async fn an_expired_target_is_refused_and_the_live_image_serves_on() {
    let mut fleet = Fleet::start().await;
    let agent = Agent::serving_1(&mut fleet).await;
    let index = fleet.push("2");
    let bytes = fleet.files().blobs[&index.to_string()].clone();
    let target = sealift_protocol::tuf::metadata::TargetFile::of_model(
        &bytes,
        sealift_protocol::id::Epoch(1),
    );
    fleet.sign("2", target, -1);

    fleet.direct(2, "2", index);

    let alarm =
        agent.wait(|| agent.alarms().into_iter().find(|a| a.code.ends_with("expired"))).await;
    assert_eq!(alarm.severity, Severity::Security);
    assert_eq!(agent.answering().await, "1");
}

#[tokio::test]
async fn metadata_that_was_tampered_with_or_goes_back_stops_changes_alone() {
    let mut fleet = Fleet::start().await;
    let agent = Agent::serving_1(&mut fleet).await;
    let index = fleet.publish("2", 1);
    fleet.tamper("timestamp.json", |bytes| flip(bytes));

    fleet.direct(2, "2", index);

    let alarm = agent.wait(|| agent.alarms().into_iter().next()).await;
    assert!(alarm.code.starts_with("tuf.timestamp"), "{alarm:?}");
    assert!(serves(&agent.slot().unwrap(), "1"));
    fleet.tamper("timestamp.json", |bytes| flip(bytes));
    agent.until(|slot| serves(slot, "2")).await;
}

#[tokio::test]
async fn a_killed_agent_serves_the_same_image_again() {
    let mut fleet = Fleet::start().await;
    let mut agent = Agent::serving_1(&mut fleet).await;
    agent.kill().await;
    assert!(agent.slot().is_none());

    agent.start();

    agent.until(|slot| serves(slot, "1") && !slot.providers.is_empty()).await;
    assert_eq!(agent.answering().await, "1");
}

#[tokio::test]
async fn an_image_that_was_damaged_on_disk_is_not_served_again_and_the_previous_one_is() {
    let mut fleet = Fleet::start().await;
    let mut agent = Agent::serving_1(&mut fleet).await;
    let index = fleet.publish("2", 1);
    fleet.direct(2, "2", index);
    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "2")).await;
    agent.kill().await;
    let path = Slots::open(agent.store.path()).unwrap().path(index).join("model.onnx");
    let mut bytes = std::fs::read(&path).unwrap();
    flip(&mut bytes);
    std::fs::write(&path, bytes).unwrap();

    agent.start();

    let slot = agent.until(|slot| serves(slot, "1")).await;
    assert_eq!(slot.outcome.unwrap().result, OutcomeKind::RolledBack);
    assert_eq!(agent.answering().await, "1");
}

#[tokio::test]
async fn a_download_goes_on_where_it_stopped() {
    let mut fleet = Fleet::start().await;
    let index = fleet.publish("1", 1);
    fleet.files().cut = Some(1_000);
    fleet.direct(1, "1", index);
    let mut agent = Agent::enrolled(&fleet).await;

    agent.start();

    agent.until(|slot| serves(slot, "1")).await;
    let weights = weights();
    let fetched = fleet.files().fetched.clone();
    let fetched: Vec<_> = fetched.iter().filter(|fetch| fetch.starts_with(&weights)).collect();
    assert_eq!(fetched, [&format!("{weights} all"), &format!("{weights} bytes=1000-")]);
}

#[tokio::test]
async fn an_image_that_is_revoked_while_it_is_live_gives_way_and_does_not_come_back() {
    let mut fleet = Fleet::start().await;
    let agent = Agent::serving_1(&mut fleet).await;
    let index = fleet.publish("2", 1);
    fleet.direct(2, "2", index);
    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "2")).await;

    fleet.revoke(index);

    let slot = agent.until(|slot| slot.phase == Phase::Idle && serves(slot, "1")).await;
    assert_eq!(slot.outcome.unwrap().code, "image.revoked");
    fleet.direct(3, "2", index);
    agent
        .until(|slot| {
            let outcome = slot.outcome.as_ref().unwrap();
            outcome.generation.0 == 3 && outcome.result == OutcomeKind::Rejected
        })
        .await;
    assert_eq!(agent.answering().await, "1");
}

#[tokio::test]
async fn an_image_below_the_epoch_floor_is_rejected() {
    let mut fleet = Fleet::start().await;
    let mut agent = Agent::serving_1(&mut fleet).await;
    let second = fleet.publish("2", 5);
    fleet.direct(2, "2", second);
    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "2")).await;
    let third = fleet.publish("3", 4);

    fleet.direct(3, "3", third);

    agent.until_alarm("image.epoch").await;
    assert_eq!(agent.answering().await, "2");
    agent.kill().await;
    agent.start();
    fleet.direct(4, "3", third);
    let is_rejected = |slot: &SlotReport| {
        let outcome = slot.outcome.as_ref().unwrap();
        outcome.generation.0 == 4 && outcome.code == "image.epoch"
    };
    agent.until(is_rejected).await;
    assert_eq!(agent.answering().await, "2", "the floor outlives the agent");
}

#[tokio::test]
async fn enrolment_believes_only_what_the_token_promises() {
    let fleet = Fleet::start().await;
    let device = DeviceId::parse("cam-1").unwrap();
    let token = fleet.token();
    let mut parts: Vec<_> = token.split('.').collect();
    let wrong = "00".repeat(32);
    for part in [2, 3] {
        let good = std::mem::replace(&mut parts[part], &wrong);
        let store = tempfile::tempdir().unwrap();
        let token = parts.join(".");
        let enrolment = Enrolment {
            url: fleet.url.clone(),
            token,
            device: device.clone(),
            is_replacement: false,
            key_on: None,
        };
        assert!(enrol(store.path(), &enrolment).await.is_err());
        assert!(!store.path().join("identity.json").exists());
        parts[part] = good;
    }
    let agent = Agent::enrolled(&fleet).await;
    let enrolment =
        Enrolment { url: fleet.url.clone(), token, device, is_replacement: false, key_on: None };
    let twice = enrol(agent.store.path(), &enrolment).await;
    assert!(matches!(twice, Err(crate::enrol::EnrolError::AlreadyEnrolled(_))));
}

#[tokio::test]
async fn two_agents_do_not_share_a_store() {
    let mut fleet = Fleet::start().await;
    let agent = Agent::serving_1(&mut fleet).await;
    let setup = Setup {
        store: agent.path(),
        config: Config::default(),
        crowd: Some(Crowd::of(1)),
        wall: system_time,
        watchdog: None,
        logs: Logs::default(),
    };
    let second = run(setup, CancellationToken::new()).await;
    assert!(matches!(second, Err(SupervisorError::InUse(_))));
}

#[tokio::test]
async fn a_stopped_agent_keeps_everything_it_had_to_say() {
    let mut fleet = Fleet::start().await;
    let mut agent = Agent::serving_1(&mut fleet).await;
    agent.stop.cancel();
    agent.running.take().unwrap().await.unwrap().unwrap();
    let mut spool = Spool::open(&agent.path().join("spool"), SPOOL_BYTES_MAX, SpoolId(0)).unwrap();
    let messages = spool.after(0, 1_000).unwrap();
    let last = messages.iter().rfind(|message| message.channel == Up::Report).unwrap();
    let report: Report =
        sealift_protocol::codec::decode("report", &last.envelope.body, 100_000).unwrap();
    assert!(serves(&report.slots[0], "1"));
    assert!(report.at <= now());
}

/// An agent that is open and does nothing by itself.
async fn opened(fleet: &Fleet) -> (Supervisor, Agent) {
    let agent = Agent::enrolled(fleet).await;
    (agent.opened_with(Config::default()), agent)
}

#[tokio::test]
async fn whoever_causes_alarms_cannot_fill_the_spool_with_them() {
    let fleet = Fleet::start().await;
    let (mut supervisor, _agent) = opened(&fleet).await;
    let fault = Fault::new(FaultKind::Untrusted, "cose.key", "a forged directive");
    let image = ImageRef { version: Version::parse("1").unwrap(), index: Digest::of(b"1") };

    for _ in 0..200 {
        supervisor.alarm(model(), image.clone(), &fault).unwrap();
    }

    assert_eq!(supervisor.spool.len(), usize::try_from(telemetry::ALARMS_MAX).unwrap());
}

#[tokio::test]
async fn a_receipt_that_stops_at_a_gap_has_the_next_message_sent_again() {
    const PROFILE_BYTES: usize = 200_000;
    let fleet = Fleet::start().await;
    let (mut supervisor, _agent) = opened(&fleet).await;
    let spool = &mut supervisor.spool;
    spool.append(Up::Report, Keep::Always, vec![0; 10]).unwrap();
    for _ in 0..50 {
        spool.append(Up::Profile, Keep::WhileThereIsRoom, vec![0; PROFILE_BYTES]).unwrap();
    }
    assert!(spool.dropped() > 0);
    let sequence = spool.append(Up::Report, Keep::Always, vec![0; 10]).unwrap();
    let id = spool.after(0, 1).unwrap()[0].envelope.spool;
    supervisor.sent = sequence;

    let receipt = sealift_protocol::telemetry::Ack { spool: id, sequence: 1 };
    supervisor.on_ack(&sealift_protocol::codec::encode(&receipt).unwrap());

    let next = &supervisor.spool.after(supervisor.sent, 1).unwrap()[0];
    assert!(next.sequence > 2, "what was dropped is not waited for");
    assert_eq!(next.envelope.lowest, next.sequence);
}

//! Images that are revoked while a device has them.

use sealift_protocol::directive::DesiredSlot;
use sealift_protocol::image::OnRevoked;

use super::*;

#[tokio::test]
async fn a_revoked_image_that_its_publisher_wants_stopped_answers_503_and_says_why() {
    let mut fleet = Fleet::start().await;
    fleet.on_revoked = OnRevoked::Stop;
    let mut agent = Agent::serving_1(&mut fleet).await;
    let first = agent.slot().unwrap().serving.unwrap().index;

    fleet.revoke(first);

    agent.until(|slot| slot.serving.is_none()).await;
    let (status, body) = agent.asked().await;
    assert_eq!(status, 503);
    assert!(body.contains("version 1 was revoked") && body.contains("publisher"), "{body}");
    agent.kill().await;
    agent.start();
    let (status, _) = agent.asked().await;
    assert_eq!(status, 503, "a restart does not bring it back");
    let alarm = agent.until_alarm("image.revoked").await;
    assert_eq!(alarm.severity, Severity::Security);
}

#[tokio::test]
async fn a_revoked_image_that_its_publisher_wants_kept_serves_on_with_one_alarm() {
    let mut fleet = Fleet::start().await;
    fleet.on_revoked = OnRevoked::KeepWithAlarm;
    let agent = Agent::serving_1(&mut fleet).await;
    let first = agent.slot().unwrap().serving.unwrap().index;

    fleet.revoke(first);

    agent.until_alarm("image.revoked").await;
    assert_eq!(agent.answering().await, "1");
    fleet.files().fetched.clear();
    fleet.publish("2", 1);
    // A directive is looked at after the deny list was, several times.
    let newer = fleet.push("2");
    fleet.direct(2, "2", newer);
    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "2")).await;
    let alarms = agent.alarms();
    assert_eq!(alarms.iter().filter(|alarm| alarm.code == "image.revoked").count(), 1);
}

#[tokio::test]
async fn without_an_image_to_go_back_to_the_fallback_of_the_directive_is_fetched() {
    let mut fleet = Fleet::start().await;
    let fallback = fleet.publish("1", 1);
    let second = fleet.publish("2", 1);
    let version = Version::parse("1").unwrap();
    fleet.direct_with(1, "2", second, |slot| DesiredSlot {
        fallback: Some(ImageRef { version, index: fallback }),
        ..slot
    });
    let mut agent = Agent::enrolled(&fleet).await;
    agent.start();
    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "2")).await;

    fleet.revoke(second);

    let slot = agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "1")).await;
    assert_eq!(slot.outcome.unwrap().result, OutcomeKind::Committed);
    assert_eq!(agent.answering().await, "1");
}

#[tokio::test]
async fn what_was_denied_stays_denied_when_the_server_says_nothing_any_more() {
    let mut fleet = Fleet::start().await;
    let mut agent = Agent::serving_1(&mut fleet).await;
    let first = agent.slot().unwrap().serving.unwrap().index;
    fleet.on_revoked = OnRevoked::Stop;
    let second = fleet.publish("2", 1);
    fleet.revoke(second);
    agent.wait(|| agent.denies(second).then_some(())).await;
    agent.kill().await;

    // The agent comes back to a server that withholds all metadata, and to a pointer to the revoked image.
    fleet.withhold();
    agent.start();
    fleet.direct(2, "2", second);

    agent.until(|slot| serves(slot, "1")).await;
    assert_eq!(agent.answering().await, "1");
    assert!(agent.denies(second));
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_directive_of_a_revoked_director_is_refused_and_the_model_serves_on() {
    let mut fleet = Fleet::start().await;
    let agent = Agent::serving_1(&mut fleet).await;
    let second = fleet.publish("2", 1);
    fleet.revoke_director();

    fleet.direct(2, "2", second);

    agent.until_alarm("cose.key").await;
    assert_eq!(agent.answering().await, "1");
}

#[tokio::test]
async fn an_image_that_another_slot_withholds_a_blob_of_is_run_alone() {
    let mut fleet = Fleet::start().await;
    let agent = Agent::serving_1(&mut fleet).await;
    let second = fleet.publish("2", 1);
    let other = ModelName::parse("vision/letters").unwrap();
    let withheld = fleet.publish_as(&other, "1");
    let kept = fleet.files().blobs.remove(&withheld.to_string()).unwrap();
    let digits = Fleet::slot("2", second);
    let letters = DesiredSlot { model: other.clone(), ..Fleet::slot("1", withheld) };
    let message = fleet.directive_of("cam-1", 2, vec![digits, letters]);

    fleet.offer(message);

    // Neither model waits for the other: the whole one runs, the other is asked for again and again, and runs when it comes.
    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "2")).await;
    let letters = || agent.report()?.slots.into_iter().find(|slot| slot.model == other);
    let waiting = agent.wait(|| letters().filter(|slot| slot.phase == Phase::Waiting)).await;
    assert_eq!(waiting.serving, None);
    fleet.files().blobs.insert(withheld.to_string(), kept);
    agent.wait(|| letters().filter(|slot| slot.phase == Phase::Watch)).await;
    assert_eq!(agent.answering().await, "2");
}

#[tokio::test]
async fn a_device_that_demands_an_operators_signature_runs_nothing_without_one() {
    let mut fleet = Fleet::start().await;
    let first = fleet.publish("1", 1);
    let mut agent = Agent::enrolled(&fleet).await;
    agent.require_cosign = true;
    fleet.direct(1, "1", first);
    agent.start();
    agent.until(|_| true).await;
    agent.until_alarm("cosign.missing").await;

    // The director cannot be the second person.
    let approval = Fleet::approval("1", first, &Fleet::director_key());
    fleet.direct_with(2, "1", first, |slot| Fleet::approved(slot, approval));
    agent.until_alarm("cosign.signature").await;
    let other = Fleet::approval("1", Digest::of(b"another image"), &Fleet::operator_key());
    fleet.direct_with(3, "1", first, |slot| Fleet::approved(slot, other));
    agent.until_alarm("cosign.other").await;

    let approval = Fleet::approval("1", first, &Fleet::operator_key());
    fleet.direct_with(4, "1", first, |slot| Fleet::approved(slot, approval));
    let slot = agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "1")).await;
    assert_eq!(slot.campaign, Some(Fleet::campaign()));
}

#[tokio::test]
async fn a_variant_other_than_the_director_names_is_rejected() {
    let mut fleet = Fleet::start().await;
    let agent = Agent::serving_1(&mut fleet).await;
    let second = fleet.publish("2", 1);

    let manifest = Some(Digest::of(b"another variant"));
    fleet.direct_with(2, "2", second, |slot| DesiredSlot { manifest, ..slot });

    agent.until_alarm("image.manifest").await;
    assert_eq!(agent.answering().await, "1");
}

impl Agent {
    /// What the model's endpoint answers, once there is one.
    async fn asked(&self) -> (u16, String) {
        let endpoint =
            self.wait(|| std::fs::read(self.path().join("run/endpoint.json")).ok()).await;
        let endpoint: serde_json::Value = serde_json::from_slice(&endpoint).unwrap();
        let url = format!("{}/v2/models/digits/infer", endpoint["http"].as_str().unwrap());
        let response = reqwest::Client::new().post(url).body("{}").send().await.unwrap();
        let status = response.status().as_u16();
        (status, String::from_utf8(response.bytes().await.unwrap().to_vec()).unwrap())
    }

    /// Whether the device has kept a deny list that names an image.
    pub(super) fn denies(&self, image: Digest) -> bool {
        let path = self.path().join("tuf/targets/trust/revocations.json");
        std::fs::read_to_string(path).is_ok_and(|list| list.contains(&image.hex()))
    }
}

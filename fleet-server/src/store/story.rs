//! One story of the store and what stands on it, told on both databases.
//!
//! `on_sqlite` runs always. `on_postgres` needs `SEALIFT_POSTGRES_URL`, a database that may be written to:
//! `cargo test -p sealift-fleet-server --lib on_postgres -- --ignored`.

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use sealift_protocol::api::RolloutNew;
use sealift_protocol::codec;
use sealift_protocol::cose::KeyId;
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{Audience, DesiredSlot, Directive, Trial};
use sealift_protocol::id::{
    DeviceId, Epoch, Generation, ModelName, RolloutId, TenantId, UnixMillis, Version,
};
use sealift_protocol::image::IoContract;
use sealift_protocol::report::{ImageRef, Outcome, OutcomeKind, Phase, Report, SlotReport};
use sealift_protocol::telemetry::{Ack, Conn, Envelope, SpoolId};
use sealift_protocol::topic::Up;

use super::registry::ManifestRow;
use super::rollouts::RolloutRow;
use super::trust::Endorsement;
use super::{Store, TenantStore};
use crate::certificate::{DeviceCertificate, Identity};
use crate::directive::Director;
use crate::events::Hub;
use crate::ingest::{Ingest, IngestError};
use crate::order::{self, Asker};
use crate::reconcile::{Patience, Reconciler};
use crate::registry::ImageFacts;
use crate::signals::Signals;
use crate::store::enrol::{Given, Taken};

mod audit;
mod gates;
mod identity;
mod messages;
mod recall;
mod recover;
mod registry;
mod requests;
mod results;
mod review;
mod rollouts;
mod scale;
mod tables;

/// Each story as a test on each database.
macro_rules! stories {
    ($($module:ident: $($story:ident),+;)+) => {
        mod on_sqlite {
            $($(
                #[tokio::test]
                async fn $story() {
                    let folder = tempfile::tempdir().unwrap();
                    let url = format!("sqlite://{}", folder.path().join("fleet.db").display());
                    super::$module::$story(super::Ground::on(&url).await).await;
                }
            )+)+
        }

        mod on_postgres {
            $($(
                #[tokio::test]
                #[ignore = "needs SEALIFT_POSTGRES_URL"]
                async fn $story() {
                    let url = std::env::var("SEALIFT_POSTGRES_URL");
                    let url = url.expect("SEALIFT_POSTGRES_URL must name a database to write to");
                    super::$module::$story(super::Ground::on(&url).await).await;
                }
            )+)+
        }
    };
}

stories! {
    identity: a_certificate_is_followed_by_the_next_at_its_first_use,
        a_revoked_device_has_no_certificate_that_is_good,
        the_last_place_and_a_serial_number_are_taken_once,
        a_request_is_kept_once_and_decided_until_it_is_fulfilled;
    tables: tenants_do_not_see_each_other, a_change_that_is_not_committed_never_was,
        every_term_of_a_filter_is_asked_of_the_database, pages_follow_each_other,
        a_login_code_works_once,
        a_new_token_takes_the_place_of_the_old_one, labels_are_set_and_removed,
        old_rows_are_thrown_away, what_was_foreseen_and_remembered_goes_after_its_time;
    audit: edited_removed_and_cut_rows_are_named, a_row_hashed_anew_does_not_fit_the_checkpoint,
        rows_of_before_become_leaves, holes_among_rows_of_before_stay_visible,
        many_writers_do_not_fork_the_log, proofs_from_tiles_verify, rows_are_found_by_who_what_and_when,
        every_directive_is_a_row, a_flood_of_security_events_is_cut;
    messages: a_message_is_stored_once_however_often_it_comes,
        receipts_cover_what_is_complete_and_skip_what_is_gone, an_old_report_does_not_undo_a_newer_one,
        a_last_will_of_an_older_connection_is_ignored, senseless_messages_are_noted_and_acknowledged,
        messages_far_beyond_a_gap_are_refused, strangers_and_revoked_devices_are_refused,
        a_profile_window_is_kept_once, heartbeats_become_a_load, many_devices_at_once;
    recall: a_halt_tells_nobody_and_a_way_back_that_comes_later_goes_on,
        halts_follow_each_other_and_a_second_one_changes_nothing,
        a_rollout_that_is_over_is_halted_where_a_device_is_still_to_follow,
        devices_that_confirm_a_halt_are_counted, each_device_goes_back_to_what_it_itself_ran,
        some_devices_go_back_and_a_rollout_goes_on_without_them,
        a_rollout_is_reverted_when_the_last_of_its_devices_is_taken_back,
        what_is_taken_back_is_not_halted_superseded_or_paused,
        a_device_that_failed_the_image_to_go_back_to_is_said;
    recover: a_device_that_is_ahead_is_noticed_and_left_out_of_rollouts,
        a_device_that_is_ahead_is_adopted_above_everything,
        a_device_that_comes_back_after_a_recovery_is_noticed,
        a_certificate_of_the_lost_time_is_taken_once_and_no_other;
    registry: tags_come_in_the_order_of_their_bytes, a_manifest_needs_what_it_names,
        referrers_are_found_by_subject_and_kind, an_upload_goes_on_only_where_it_is,
        abandoned_uploads_are_removed, only_what_nothing_names_is_cleaned_up,
        a_deleted_manifest_frees_what_it_named, cleaning_up_takes_nothing_from_a_push,
        manifests_of_an_older_server_are_read_before_anything_goes,
        what_a_signed_or_deployed_version_needs_stays, contents_of_a_signed_version_stay,
        a_signed_version_is_not_taken_off_the_list;
    requests: a_request_is_answered_once_and_by_the_device_that_was_asked,
        what_was_asked_by_one_name_is_found_until_it_is_forgotten;
    results: predictions_come_in_parts_as_the_device_has_said_and_once,
        predictions_that_are_not_what_was_said_are_given_up,
        a_team_has_so_much_room_for_predictions_and_what_is_deleted_goes_with_its_bytes,
        attack_uploads_at_once_take_no_more_room_than_a_team_has,
        attack_a_device_that_begins_anew_again_and_again_fills_no_disk,
        a_device_that_goes_silent_keeps_no_room_of_its_team,
        predictions_are_listed_by_batch_and_device_and_forgotten_with_the_device,
        who_looks_often_is_noted_once;
    review: what_devices_keep_is_signed_renewed_and_switched_off,
        a_sample_comes_in_parts_goes_on_after_a_cut_and_is_there_once,
        what_is_no_sample_of_the_device_is_refused_and_leaves_nothing,
        truth_finds_its_sample_whichever_comes_first,
        people_label_what_they_have_not_and_their_agreement_is_measured,
        samples_go_with_their_device_and_after_their_time,
        the_oldest_samples_go_where_there_are_too_many, training_is_asked_for_once_for_each_time;
    gates: canaries_that_fail_more_than_others_halt_while_they_are_watched,
        devices_that_disagree_beside_the_live_image_halt_together,
        a_rehearsal_says_whom_a_rollout_would_tell_and_changes_nothing;
    rollouts: a_rollout_reaches_its_devices_with_signed_directives,
        a_bad_canary_halts_and_rollback_brings_everybody_home,
        going_back_concerns_only_devices_with_a_bad_version, two_servers_do_not_both_act, abort_gives_devices_back_what_they_had,
        a_newer_rollout_supersedes_an_older_one, directives_wait_until_the_broker_has_them,
        directives_are_signed_again_before_they_expire, a_penalty_is_kept_until_retry,
        a_device_that_goes_back_after_the_end_is_counted_once_until_it_is_told_something_newer,
        what_may_not_be_rolled_out_is_refused;
}

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const ASKER: Asker<'static> = Asker { name: "ann", now: NOW };

/// A store with a fleet server's pure and impure middle around it; a tenant of its own, so that stories share a database.
struct Ground {
    url: String,
    store: TenantStore,
    ingest: Ingest,
    reconciler: Reconciler,
    director: Arc<Director>,
    patience: Patience,
}

impl Ground {
    async fn on(url: &str) -> Self {
        let store = Store::open(url).await.unwrap();
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let tenant = format!("t-{:x}", u64::from_be_bytes(random));
        Self::of(&store, url, &TenantId::parse(&tenant).unwrap())
    }

    fn of(store: &Store, url: &str, tenant: &TenantId) -> Self {
        let (signals, hub) = (Signals::default(), Hub::default());
        let (ingest, _) = Ingest::start(store.clone(), signals.clone(), hub.clone());
        let director = Arc::new(Director::new(director_key(), tenant.clone(), 86_400));
        let store = store.tenant(tenant);
        let patience = Patience {
            silent_after_ms: 120_000,
            offline_after_ms: 90_000,
            directive_valid_ms: 86_400_000,
        };
        let reconciler =
            Reconciler::new(store.clone(), Arc::clone(&director), patience, signals.clone(), hub);
        Self { url: url.to_owned(), store, ingest, reconciler, director, patience }
    }

    fn tenant(&self) -> &TenantId {
        self.store.tenant()
    }

    fn presence(&self, now: UnixMillis) -> super::matching::Presence {
        self.patience.presence(now)
    }

    async fn enrol(&self, name: &str, labels: &[(&str, &str)]) -> Device {
        let certificate = DeviceCertificate {
            chain_pem: String::new(),
            serial: "1".to_owned(),
            expires_at: NOW.plus(1),
        };
        let labels: BTreeMap<_, _> =
            labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let id = device(name);
        let mut change = self.store.begin().await.unwrap();
        change
            .enrol_device(&id, &certificate, Given { labels: &labels, taken: Taken::Replaced }, NOW)
            .await
            .unwrap();
        change.commit().await.unwrap();
        Device { id, spool: SpoolId(7), sequence: 0 }
    }

    /// Enrols devices `cam-1` to `cam-<count>` and connects them.
    async fn fleet(&self, count: usize) -> Vec<Device> {
        let mut devices = Vec::new();
        for number in 1..=count {
            let device = self.enrol(&format!("cam-{number}"), &[("site", "tokyo")]).await;
            self.connect(&device, NOW).await;
            devices.push(device);
        }
        devices
    }

    async fn connect(&self, device: &Device, now: UnixMillis) {
        let conn = codec::encode(&Conn { online: true, epoch: 1 }).unwrap();
        self.accept(&device.id, Up::Conn, &conn, now).await.unwrap();
    }

    async fn accept(
        &self,
        device: &DeviceId,
        channel: Up,
        payload: &[u8],
        now: UnixMillis,
    ) -> Result<Option<Ack>, IngestError> {
        let from = Identity { tenant: self.tenant().clone(), device: device.clone() };
        self.ingest.accept(&from, channel, payload, now).await
    }

    /// Puts a signed version into the registry.
    async fn push(&self, version_text: &str) {
        let (model, version) = (digits(), version(version_text));
        let manifest =
            ManifestRow { digest: image(version_text).index, media_type: String::new(), size: 1 };
        let facts = ImageFacts {
            version: version.clone(),
            size_bytes: 1,
            family: String::new(),
            description: String::new(),
            licenses: Vec::new(),
            variants: Vec::new(),
            manifests: Vec::new(),
            contract: IoContract { schema: 1, ..IoContract::default() },
            baseline: None,
        };
        let mut change = self.store.begin().await.unwrap();
        change.add_version(&model, &manifest, &facts, ("ann", NOW)).await.unwrap();
        let endorsement = Endorsement { epoch: Epoch(1), by: vec!["publisher-vision".to_owned()] };
        for text in ["1", "2", "3"] {
            let name = (model.clone(), self::version(text));
            change.set_endorsement(&name, Some(&endorsement), NOW).await.unwrap();
        }
        change.commit().await.unwrap();
    }

    /// Orders a rollout of a version in two waves: one device, then all.
    async fn roll_out(&self, version_text: &str) -> RolloutId {
        let wave = |count: Option<u64>| sealift_protocol::api::WavePlan {
            count,
            percent: None,
            ..order::everybody()
        };
        let new = RolloutNew {
            model: digits(),
            version: version(version_text),
            filter: "site:tokyo".to_owned(),
            waves: vec![wave(Some(1)), wave(None)],
            trial: Trial::default(),
            start_at: None,
            budget: None,
            tail_s: None,
            draft: false,
            reason: "a better one".to_owned(),
        };
        order::create(&self.store, &new, self.presence(NOW), ASKER).await.unwrap()
    }

    async fn rollout(&self, id: RolloutId) -> RolloutRow {
        self.store.rollout(id).await.unwrap().unwrap()
    }

    /// The reconciler looks; every device that was told ends its attempt so; until nothing happens any more.
    async fn settle(&self, devices: &mut [Device], kind: OutcomeKind) {
        for _ in 0..6 {
            self.reconciler.turn(NOW).await.unwrap();
            for device in devices.iter_mut() {
                device.follow(self, kind).await;
            }
        }
    }
}

/// A device as the server sees it: it sends what an agent would send.
struct Device {
    id: DeviceId,
    spool: SpoolId,
    sequence: u64,
}

impl Device {
    fn envelope(&mut self, body: Vec<u8>) -> Vec<u8> {
        self.sequence += 1;
        let (spool, sequence) = (self.spool, self.sequence);
        codec::encode(&Envelope { spool, sequence, lowest: 1, body }).unwrap()
    }

    async fn report(&mut self, ground: &Ground, report: &Report) -> Ack {
        let message = self.envelope(codec::encode(report).unwrap());
        ground.accept(&self.id, Up::Report, &message, NOW).await.unwrap().unwrap()
    }

    /// What the device should run of the model, as its newest directive says it: signed, for it, and in time.
    async fn directive(&self, ground: &Ground) -> Option<(Generation, Vec<DesiredSlot>)> {
        let bytes = ground.store.signed_directive(&self.id).await.unwrap()?;
        let key = director_key().verifying_key();
        let audience =
            Audience { tenant: ground.tenant(), device: &self.id, newest: Generation(0), now: NOW };
        let keys = BTreeMap::from([(KeyId::of(&key), key)]);
        let verified = Directive::verify(&bytes, &keys, &audience).unwrap();
        Some((verified.get().generation, verified.get().slots.clone()))
    }

    /// Reads its directive and ends the attempt so, if it has not followed it yet.
    async fn follow(&mut self, ground: &Ground, kind: OutcomeKind) {
        let Some((generation, slots)) = self.directive(ground).await else { return };
        let view = ground.store.device(&self.id, ground.presence(NOW)).await.unwrap().unwrap();
        if view.reported_generation >= generation {
            return;
        }
        let before = view.slots.iter().find_map(|slot| {
            Some(ImageRef { version: slot.serving.clone()?, index: slot.serving_digest? })
        });
        let slots =
            slots.iter().map(|slot| ended(slot, generation, kind, before.clone())).collect();
        self.report(ground, &Report { generation, refused: None, slots, at: NOW, trusted: None })
            .await;
    }
}

fn ended(
    slot: &DesiredSlot,
    generation: Generation,
    kind: OutcomeKind,
    before: Option<ImageRef>,
) -> SlotReport {
    let image = ImageRef { version: slot.version.clone(), index: slot.index };
    let outcome = Outcome {
        generation,
        rollout: slot.rollout,
        image: image.clone(),
        result: kind,
        code: if kind.is_bad() { "self-test.golden".to_owned() } else { String::new() },
        reason: String::new(),
        at: NOW,
        kept_at: None,
    };
    let is_kept = kind == OutcomeKind::Committed;
    SlotReport {
        serving: if is_kept { Some(image) } else { before.clone() },
        previous: before.filter(|_| is_kept),
        outcome: Some(outcome),
        ..SlotReport::idle(slot.model.clone(), generation)
    }
}

fn director_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn device(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

fn digits() -> ModelName {
    ModelName::parse("vision/digits").unwrap()
}

fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

fn image(version_text: &str) -> ImageRef {
    ImageRef { version: version(version_text), index: Digest::of(version_text.as_bytes()) }
}

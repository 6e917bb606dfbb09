//! What devices keep for people to look at: on its way, labelled, forgotten.

use std::collections::BTreeSet;

use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePublicKey};
use sealift_protocol::api::{CaptureNew, LabelNew, LabelSource, RetrainRule};
use sealift_protocol::capture::{
    CaptureList, HPKE_INFO, InferenceId, Sample, SampleId, SealedSample, Why,
};
use sealift_protocol::cose;
use sealift_protocol::halt::Listener;
use sealift_protocol::tensor::Tensor;

use super::*;
use crate::auth::Seal;
use crate::config::{Retention, ReviewBudget};
use crate::review::{By, Question, Reason, Review, ReviewError};
use crate::store::samples::{Part, Which};

const DAY_MS: i64 = 24 * 3_600 * 1_000;

fn review(ground: &Ground) -> Review {
    let store = ground.store.clone();
    let seal = Seal::of_test(store.tenant());
    let doing = (Arc::clone(&ground.director), Signals::default());
    let budget = ReviewBudget { labels_a_day: 1_000 };
    Review::new(store, seal, doing, (budget, Retention::default()))
}

fn rules() -> CaptureNew {
    CaptureNew {
        below: Some(0.6),
        margin: None,
        disagreement: false,
        share: 0.5,
        samples_a_day: 10,
        kib_a_day: 100,
        keep_days: 30,
        notice: "for tests".to_owned(),
        retrain: Some(RetrainRule { accuracy_below: Some(0.9), labels: None }),
    }
}

fn which(model: &ModelName) -> Which<'_> {
    Which { model: Some(model), from: UnixMillis(0), until: UnixMillis(i64::MAX) }
}

/// The list that devices of the tenant would take.
async fn list(ground: &Ground) -> CaptureList {
    let message = ground.store.signed_captures().await.unwrap().unwrap();
    let key = ground.director.public();
    let directors = BTreeMap::from([(KeyId::of(&key), key)]);
    let listener = Listener { tenant: ground.store.tenant(), newest: None };
    CaptureList::verify(&message, &directors, listener).unwrap().get().clone()
}

fn sample(byte: u8, inference: &str, prediction: &str) -> Sample {
    let image = ImageRef { version: Version::parse("1").unwrap(), index: Digest::of(b"index") };
    let x = Tensor::fp32("x", &[1, 40_000], &vec![f32::from(byte); 40_000]).unwrap();
    let p = Tensor::fp32("p", &[1, 2], &[0.5, f32::from(byte)]).unwrap();
    let mut sample = Sample::new(
        (SampleId::new([byte; 16]), InferenceId::parse(inference).unwrap()),
        (digits(), image),
        NOW,
        (vec![x], vec![p]),
        (BTreeSet::from([Why::Random]), 0.5),
    );
    sample.prediction = Some(prediction.to_owned());
    sample.confidence = Some(0.9);
    sample
}

fn sealed(list: &CaptureList, device: &DeviceId, sample: &Sample) -> Vec<u8> {
    let public = HpkePublicKey(list.key.public.clone());
    let context = SealedSample::context(&list.tenant, device, sample.id);
    let plain = sample.encode().unwrap();
    let (EncapsulatedSecret(secret), body) =
        DH_KEM_X25519_HKDF_SHA256_AES_256.seal(HPKE_INFO, &context, &plain, &public).unwrap();
    SealedSample::new(list.key.number, secret, body).encode().unwrap()
}

async fn send(
    review: &Review,
    (device, id): (&DeviceId, SampleId),
    bytes: &[u8],
) -> Result<(), ReviewError> {
    let (mut from, size) = (0, bytes.len() as u64);
    loop {
        let rest = &bytes[usize::try_from(from).unwrap()..];
        let body = rest[..rest.len().min(100_000)].to_vec();
        let part = Part { from, size, body };
        let upload = review.take_part(device, id, part, NOW).await?;
        if upload.is_complete {
            return Ok(());
        }
        from = upload.offset;
    }
}

/// Two devices, a model of which everything is kept, and who looks at it.
async fn begun(ground: &Ground) -> (Review, [DeviceId; 2]) {
    for name in ["cam-1", "cam-2"] {
        ground.enrol(name, &[("site", name)]).await;
    }
    ground.push("1").await;
    let review = review(ground);
    review.enable(&digits(), &rules(), ASKER).await.unwrap();
    (review, [device("cam-1"), device("cam-2")])
}

pub(super) async fn what_devices_keep_is_signed_renewed_and_switched_off(ground: Ground) {
    let (review, _) = begun(&ground).await;
    let first = list(&ground).await;
    assert_eq!(first.models.keys().collect::<Vec<_>>(), [&digits()]);
    assert_eq!(ground.store.unpublished_captures().await.unwrap().unwrap().0, first.sequence);

    review.enable(&digits(), &CaptureNew { share: 0.1, ..rules() }, ASKER).await.unwrap();
    let second = list(&ground).await;
    assert!(second.sequence > first.sequence);
    assert_eq!(second.key, first.key, "the key stays");

    review.disable(&digits(), ASKER).await.unwrap();
    assert!(list(&ground).await.models.is_empty());
    assert!(matches!(review.disable(&digits(), ASKER).await, Err(ReviewError::Off(_))));
    let unknown = ModelName::parse("vision/cats").unwrap();
    let refused = review.enable(&unknown, &rules(), ASKER).await;
    assert!(matches!(refused, Err(ReviewError::UnknownModel(_))));
    let silent = CaptureNew { notice: " ".to_owned(), ..rules() };
    assert!(matches!(review.enable(&digits(), &silent, ASKER).await, Err(ReviewError::Policy(_))));
    let directive = cose::verify(
        &ground.store.signed_captures().await.unwrap().unwrap(),
        cose::Purpose::Directive,
        &BTreeMap::from([(KeyId::of(&ground.director.public()), ground.director.public())]),
        1 << 20,
    );
    assert!(directive.is_err(), "it is good for nothing else");
}

pub(super) async fn a_sample_comes_in_parts_goes_on_after_a_cut_and_is_there_once(ground: Ground) {
    let (review, [cam, other]) = begun(&ground).await;
    let kept = sample(1, "a", "7");
    let bytes = sealed(&list(&ground).await, &cam, &kept);
    let size = bytes.len() as u64;
    let part = |from: usize, until: usize| Part {
        from: from as u64,
        size,
        body: bytes[from..until].to_vec(),
    };
    let take = async |part| review.take_part(&cam, kept.id, part, NOW).await.unwrap();

    assert_eq!(take(part(0, 90_000)).await.offset, 90_000);
    assert_eq!(take(part(0, 90_000)).await.offset, 90_000, "sent twice, it is here once");
    assert_eq!(take(part(100_000, 110_000)).await.offset, 90_000, "no hole is left");
    assert_eq!(review.upload(&cam, kept.id, size).await.unwrap().offset, 90_000);
    assert_eq!(review.upload(&other, kept.id, size).await.unwrap().offset, 0);
    let last = take(part(90_000, bytes.len())).await;
    assert!(last.is_complete && last.offset == size);
    assert!(take(part(0, 90_000)).await.is_complete, "whoever did not hear it is told again");

    let (row, found) = review.look(kept.id).await.unwrap();
    assert_eq!((found, row.device, row.confidence), (kept, cam, Some(0.9)));
    assert!((row.chance - 0.5).abs() < 1e-9 && row.audit.is_some());
    let stored = ground.store.sample_body(row.id).await.unwrap().unwrap();
    assert_eq!(stored, bytes, "as it came, encrypted");
}

pub(super) async fn what_is_no_sample_of_the_device_is_refused_and_leaves_nothing(ground: Ground) {
    let (review, [cam, other]) = begun(&ground).await;
    let (kept, list) = (sample(1, "a", "7"), list(&ground).await);
    let of_other = sealed(&list, &other, &kept);
    let refused = send(&review, (&cam, kept.id), &of_other).await;
    assert!(matches!(refused, Err(ReviewError::Sealed(_))), "{refused:?}");
    assert_eq!(review.upload(&cam, kept.id, 0).await.unwrap().offset, 0);
    let wrong_name =
        send(&review, (&cam, SampleId::new([9; 16])), &sealed(&list, &cam, &kept)).await;
    assert!(matches!(wrong_name, Err(ReviewError::Sealed(_))));
    assert!(matches!(send(&review, (&cam, kept.id), b"junk").await, Err(ReviewError::Sample(_))));
    let endless = Part { from: 0, size: 1 << 40, body: vec![0; 9] };
    assert!(matches!(
        review.take_part(&cam, kept.id, endless, NOW).await,
        Err(ReviewError::Part(_))
    ));

    review.disable(&digits(), ASKER).await.unwrap();
    let off = send(&review, (&cam, kept.id), &sealed(&list, &cam, &kept)).await;
    assert!(matches!(off, Err(ReviewError::Off(_))));
    assert_eq!(ground.store.samples_since(UnixMillis(0)).await.unwrap(), 0);
}

fn label(inference: &str, label: &str, at: i64) -> LabelNew {
    LabelNew {
        inference: InferenceId::parse(inference).unwrap(),
        label: label.to_owned(),
        at: Some(UnixMillis(at)),
        source: LabelSource::Truth,
    }
}

pub(super) async fn truth_finds_its_sample_whichever_comes_first(ground: Ground) {
    let (review, [cam, _]) = begun(&ground).await;
    let list = list(&ground).await;
    let early = vec![label("a", "7", 5), label("b", "1", 5), label("twice", "1", 5)];
    let taken = review.take_labels(early.clone(), ASKER).await.unwrap();
    assert_eq!((taken.changed, taken.known, taken.joined), (3, 0, 0));
    for (byte, inference) in [(1, "a"), (2, "b"), (3, "twice"), (4, "twice")] {
        let kept = sample(byte, inference, "7");
        send(&review, (&cam, kept.id), &sealed(&list, &cam, &kept)).await.unwrap();
    }

    let again = review.take_labels(early, ASKER).await.unwrap();
    assert_eq!((again.changed, again.known, again.joined), (0, 3, 2), "one name, two samples");
    let older = review.take_labels(vec![label("a", "9", 4)], ASKER).await.unwrap();
    assert_eq!(older.known, 1, "what is older changes nothing");
    let model = digits();
    let question = Question { which: which(&model), version: None, by: By::Label("site".into()) };
    let report = review.accuracy(&question).await.unwrap();
    let [view] = &report.items[..] else { panic!("{report:?}") };
    assert_eq!((view.labels, view.group.value.as_deref()), (2, Some("cam-1")));
    assert!((view.accuracy - 0.5).abs() < 1e-9 && view.low < 0.2 && view.high > 0.8);
}

pub(super) async fn people_label_what_they_have_not_and_their_agreement_is_measured(
    ground: Ground,
) {
    let (review, [cam, _]) = begun(&ground).await;
    let list = list(&ground).await;
    // The first eighth of all names is shown to two people.
    for (byte, inference) in [(1, "a"), (2, "b"), (200, "c")] {
        let kept = sample(byte, inference, "7");
        send(&review, (&cam, kept.id), &sealed(&list, &cam, &kept)).await.unwrap();
    }
    let ids = async |who: &str| {
        let queue = review.queue((None, who), 50, NOW).await.unwrap();
        queue.items.iter().map(|row| row.id.as_bytes()[0]).collect::<BTreeSet<_>>()
    };
    assert_eq!(ids("ann").await, BTreeSet::from([1, 2, 200]));
    let ben = Asker { name: "ben", now: NOW };
    for (byte, of_ann, of_ben) in [(1, "7", Some("7")), (2, "1", Some("7")), (200, "7", None)] {
        let id = SampleId::new([byte; 16]);
        review.label(id, of_ann, ASKER).await.unwrap();
        if let Some(label) = of_ben {
            review.label(id, label, ben).await.unwrap();
        }
    }
    assert!(ids("ann").await.is_empty() && ids("ben").await.is_empty());
    review.unlabel(SampleId::new([2; 16]), "ben").await.unwrap();
    assert_eq!(ids("ben").await, BTreeSet::from([2]), "taken back, and asked for again");
    review.label(SampleId::new([2; 16]), "7", ben).await.unwrap();

    let model = digits();
    let [pair] = &review.agreement(which(&model)).await.unwrap()[..] else { panic!("one pair") };
    assert_eq!((pair.common, pair.same, pair.labellers.join(" ")), (2, 1, "ann ben".to_owned()));
    let tight = Review::new(
        ground.store.clone(),
        Seal::of_test(ground.store.tenant()),
        (Arc::clone(&ground.director), Signals::default()),
        (ReviewBudget { labels_a_day: 6 }, Retention::default()),
    );
    let queue = tight.queue((None, "cem"), 50, NOW).await.unwrap();
    assert_eq!((queue.budget, queue.left, queue.items.len()), (6, 1, 0));
    let tomorrow = review.queue((None, "cem"), 50, NOW.plus(DAY_MS)).await.unwrap();
    assert_eq!(tomorrow.left, 1_000);
}

pub(super) async fn samples_go_with_their_device_and_after_their_time(ground: Ground) {
    let (review, [cam, other]) = begun(&ground).await;
    let list = list(&ground).await;
    for (byte, inference, of) in [(1, "a", &cam), (2, "b", &other), (3, "c", &other)] {
        let kept = sample(byte, inference, "7");
        send(&review, (of, kept.id), &sealed(&list, of, &kept)).await.unwrap();
    }
    let labels = vec![label("a", "7", 5), label("b", "7", 5), label("never", "7", 5)];
    review.take_labels(labels, ASKER).await.unwrap();

    let mut change = ground.store.begin().await.unwrap();
    assert_eq!(change.forget_samples(&cam).await.unwrap(), 1);
    change.commit().await.unwrap();
    assert!(matches!(review.look(SampleId::new([1; 16])).await, Err(ReviewError::UnknownSample)));
    let again = review.take_labels(vec![label("a", "7", 5), label("b", "7", 5)], ASKER).await;
    assert_eq!(again.unwrap().changed, 1, "what was said of it is forgotten, too");

    let mut change = ground.store.begin().await.unwrap();
    let end = NOW.plus(30 * DAY_MS);
    let before = UnixMillis(0);
    assert_eq!(change.throw_away_samples((end.plus(-1), before), before).await.unwrap(), 0);
    assert_eq!(change.throw_away_samples((end, before), before).await.unwrap(), 2);
    change.commit().await.unwrap();
    let mut change = ground.store.begin().await.unwrap();
    change.throw_away_samples((end, before), NOW.plus(1)).await.unwrap();
    change.commit().await.unwrap();
    let again = review.take_labels(vec![label("never", "7", 5)], ASKER).await.unwrap();
    assert_eq!(again.changed, 1, "labels without a sample wait for so long and no longer");
}

pub(super) async fn the_oldest_samples_go_where_there_are_too_many(ground: Ground) {
    let (review, [cam, _]) = begun(&ground).await;
    let list = list(&ground).await;
    let mut size = 0;
    for byte in 1..4 {
        let kept = sample(byte, "a", "7");
        let bytes = sealed(&list, &cam, &kept);
        size = bytes.len() as u64;
        for from in (0..bytes.len()).step_by(100_000) {
            let body = bytes[from..bytes.len().min(from + 100_000)].to_vec();
            let part = Part { from: from as u64, size, body };
            review.take_part(&cam, kept.id, part, NOW.plus(byte.into())).await.unwrap();
        }
    }
    let mut change = ground.store.begin().await.unwrap();
    assert_eq!(change.shrink_samples(size * 3).await.unwrap(), 0);
    assert_eq!(change.shrink_samples(size * 2).await.unwrap(), 1);
    change.commit().await.unwrap();
    assert!(review.look(SampleId::new([1; 16])).await.is_err());
    assert!(review.look(SampleId::new([2; 16])).await.is_ok());
}

pub(super) async fn training_is_asked_for_once_for_each_time(ground: Ground) {
    let (review, _) = begun(&ground).await;
    let asked = Reason::Asked("new cameras".to_owned());
    let first = review.request_retraining(&digits(), &asked, ASKER).await.unwrap();
    assert_eq!(first.channels, 0, "nobody listens");
    let [policy] = &ground.store.capture_policies().await.unwrap()[..] else { panic!("one") };
    assert_eq!(policy.retraining, Some((NOW, None)));
    let mut change = ground.store.begin().await.unwrap();
    let seen = (None, NOW.plus(1));
    assert!(!change.note_retraining(&digits(), seen, None).await.unwrap(), "somebody was quicker");
    let unknown = ModelName::parse("vision/cats").unwrap();
    drop(change);
    let refused = review.request_retraining(&unknown, &asked, ASKER).await;
    assert!(matches!(refused, Err(ReviewError::Off(_))));
}

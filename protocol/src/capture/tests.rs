use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::digest::{Digest, decode_hex, encode_hex};
use crate::halt::HaltList;
use crate::id::{DeviceId, Version};
use crate::image::IoContract;
use crate::limits::{CAPTURE_SAMPLES_A_DAY_MAX, NOTICE_CHARS_MAX};
use crate::report::ImageRef;
use crate::tensor::{Datatype, Tensor};

const DAY_MS: i64 = 24 * 3_600 * 1_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn digits() -> ModelName {
    ModelName::parse("vision/digits").unwrap()
}

fn directors(seeds: &[u8]) -> BTreeMap<KeyId, VerifyingKey> {
    let keys = seeds.iter().map(|seed| key(*seed).verifying_key());
    keys.map(|key| (KeyId::of(&key), key)).collect()
}

fn policy() -> CapturePolicy {
    CapturePolicy {
        below: Some(Ppm(600_000)),
        margin: None,
        disagreement: false,
        share: Ppm(1_000),
        samples_a_day: 100,
        kib_a_day: 1_024,
        keep_days: 30,
        notice: "Pictures of digits are kept to improve the model.".to_owned(),
    }
}

fn list(sequence: u64) -> CaptureList {
    let key = CaptureKey { number: 1, public: vec![9; 32] };
    let models = BTreeMap::from([(digits(), policy())]);
    CaptureList::new(tenant("main"), (sequence, UnixMillis(7)), key, models)
}

fn signed(list: &CaptureList) -> Vec<u8> {
    list.sign(&key(7)).unwrap()
}

/// What a device that follows list 5 of key 7 makes of a message, with these keys trusted.
fn verify_with(message: &[u8], trusted: &[u8]) -> &'static str {
    let (tenant, signer) = (tenant("main"), KeyId::of(&key(7).verifying_key()));
    let listener = Listener { tenant: &tenant, newest: Some((5, &signer)) };
    let verified = CaptureList::verify(message, &directors(trusted), listener);
    verified.map_or_else(|refused| refused.code(), |_| "ok")
}

fn verify(message: &[u8]) -> &'static str {
    verify_with(message, &[7])
}

#[test]
fn a_newer_list_is_taken_and_lapses_by_itself() {
    let tenant = tenant("main");
    let listener = Listener { tenant: &tenant, newest: None };
    let verified = CaptureList::verify(&signed(&list(6)), &directors(&[7]), listener).unwrap();

    assert_eq!(verified.get(), &list(6));
    let last = UnixMillis(7).plus(CAPTURE_VALID_MS);
    assert_eq!(list(6).policy(&digits(), last), Some(&policy()));
    assert_eq!(list(6).policy(&digits(), last.plus(1)), None);
    let other = ModelName::parse("vision/faces").unwrap();
    assert_eq!(list(6).policy(&other, UnixMillis(7)), None);
}

#[test]
fn whoever_is_no_director_switches_nothing_on() {
    assert_eq!(verify(&list(6).sign(&key(8)).unwrap()), "cose.key");
    let mut forged = signed(&list(6));
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(verify(&forged), "cose.signature");
    assert_eq!(verify(b"{\"models\":{}}"), "cose.form");
}

#[test]
fn a_list_of_halts_is_no_capture_list_and_the_other_way_round() {
    let halts =
        HaltList::new(tenant("main"), (6, UnixMillis(7)), String::new(), BTreeSet::default());
    assert_eq!(verify(&halts.sign(&key(7)).unwrap()), "cose.signature");
    let tenant = tenant("main");
    let listener = Listener { tenant: &tenant, newest: None };
    let refused = HaltList::verify(&signed(&list(6)), &directors(&[7]), listener).unwrap_err();
    assert_eq!(refused.code(), "cose.signature");
}

#[test]
fn an_older_list_is_refused_the_same_is_no_news_and_a_stolen_sequence_counts_no_more() {
    assert_eq!(verify(&signed(&list(4))), "capture.stale");
    assert_eq!(verify(&signed(&list(5))), "capture.known");
    let next = list(1).sign(&key(8)).unwrap();
    assert_eq!(verify_with(&next, &[7, 8]), "capture.stale");
    assert_eq!(verify_with(&next, &[8]), "ok");
}

#[test]
fn a_list_that_says_what_cannot_be_is_refused() {
    assert_eq!(verify(&vec![0xd2; CAPTURE_BYTES_MAX + 1]), "capture.too-large");
    let other = CaptureList { tenant: tenant("other"), ..list(6) };
    assert_eq!(verify(&signed(&other)), "capture.audience");
    assert_eq!(verify(&signed(&CaptureList { version: 2, ..list(6) })), "capture.version");
    let endless = CaptureList { until: UnixMillis(8).plus(CAPTURE_VALID_MS), ..list(6) };
    assert_eq!(verify(&signed(&endless)), "capture.life");
    let short = CaptureKey { number: 1, public: vec![9; 31] };
    assert_eq!(verify(&signed(&CaptureList { key: short, ..list(6) })), "capture.key");
    let mut silent = list(6);
    silent.models.get_mut(&digits()).unwrap().notice = "  ".to_owned();
    assert_eq!(verify(&signed(&silent)), "capture.policy");
}

#[test]
fn the_longest_list_that_may_be_signed_is_not_too_long() {
    let notice = "\u{10ffff}".repeat(NOTICE_CHARS_MAX);
    let named = |number: usize| {
        ModelName::parse(&format!("{}/{}{number:02}", "t".repeat(30), "m".repeat(28))).unwrap()
    };
    let longest = CapturePolicy { notice, margin: Some(Ppm::WHOLE), ..policy() };
    let many = |count: usize| (0..count).map(|number| (named(number), longest.clone())).collect();
    let with = |count: usize| CaptureList { models: many(count), ..list(u64::MAX) };

    assert_eq!(verify(&signed(&with(CAPTURE_MODELS_MAX))), "ok");
    assert_eq!(verify(&signed(&with(CAPTURE_MODELS_MAX + 1))), "capture.models");
}

#[test]
fn a_policy_must_keep_something_within_bounds_and_say_so() {
    let is_good = |change: &dyn Fn(&mut CapturePolicy)| {
        let mut policy = policy();
        change(&mut policy);
        policy.check().is_ok()
    };
    assert!(is_good(&|_| ()));
    assert!(!is_good(&|policy| (policy.below, policy.share) = (None, Ppm(0))));
    assert!(is_good(&|policy| {
        (policy.below, policy.share, policy.disagreement) = (None, Ppm(0), true);
    }));
    assert!(!is_good(&|policy| policy.share = Ppm(1_000_001)));
    assert!(!is_good(&|policy| policy.samples_a_day = 0));
    assert!(is_good(&|policy| policy.samples_a_day = CAPTURE_SAMPLES_A_DAY_MAX));
    assert!(!is_good(&|policy| policy.samples_a_day = CAPTURE_SAMPLES_A_DAY_MAX + 1));
    assert!(!is_good(&|policy| policy.kib_a_day = 0));
    assert!(!is_good(&|policy| policy.keep_days = 0));
    assert!(!is_good(&|policy| policy.notice = "x".repeat(NOTICE_CHARS_MAX + 1)));
    assert_eq!(
        policy().notice_text(),
        "Pictures of digits are kept to improve the model. (kept: predictions with confidence below \
         60 %, or a random 0.1 %; at most 100 samples and 1024 KiB a device and day; deleted after \
         30 days)"
    );
}

fn confident(confidence: f64) -> Seen {
    Seen { confidence: Some(confidence), margin: Some(confidence), disagrees: Some(true) }
}

/// A budget that nothing was taken of.
const ALL: Left = Left { by_rule: 1.0, by_chance: 1.0 };

fn why(rules: &[Why]) -> BTreeSet<Why> {
    rules.iter().copied().collect()
}

#[test]
fn rules_choose_what_they_name_and_chance_chooses_among_all() {
    let policy = policy();
    let decide = |seen, dice| policy.decide(seen, ALL, dice);

    let unsure = decide(confident(0.599), 0.999).unwrap();
    assert_eq!((unsure.why, unsure.chance), (why(&[Why::Confidence]), 1.0));
    assert_eq!(decide(confident(0.6), 0.001), None);
    let lucky = decide(confident(0.6), 0.000_999).unwrap();
    assert_eq!((lucky.why, lucky.chance), (why(&[Why::Random]), 0.001));
    let both = decide(confident(0.1), 0.000_999).unwrap();
    assert_eq!((both.why, both.chance), (why(&[Why::Confidence, Why::Random]), 1.0));
    assert!(decide(confident(f64::NAN), 0.999).is_some(), "no number is no confidence");
    assert_eq!(decide(Seen::default(), 0.5), None, "a model without probabilities");

    let wide = CapturePolicy { margin: Some(Ppm(200_000)), disagreement: true, ..policy.clone() };
    let all = wide.decide(confident(0.1), ALL, 0.5).unwrap();
    assert_eq!(all.why, why(&[Why::Confidence, Why::Margin, Why::Disagreement]));
}

/// A day of predictions, a fifth of them unsure; returns the worst error of the estimated share of right ones, and the samples kept.
fn day_of(
    (policy, spent): (&CapturePolicy, &mut Spent),
    count: u32,
    random: &mut fastrand::Rng,
) -> (f64, u32) {
    let (mut right, mut weighed_right, mut weight) = (0.0, 0.0, 0.0);
    for _ in 0..count {
        let is_unsure = random.f64() < 0.2;
        let seen = confident(if is_unsure { 0.3 } else { 0.9 });
        let is_right = random.f64() < if is_unsure { 0.5 } else { 0.98 };
        right += f64::from(u8::from(is_right));
        let taken = policy.decide(seen, spent.left(policy), random.f64());
        spent.saw(seen, policy);
        let Some(taken) = taken.filter(|taken| spent.take(&taken.why, 100, policy)) else {
            continue;
        };
        weight += 1.0 / taken.chance;
        weighed_right += f64::from(u8::from(is_right)) / taken.chance;
    }
    ((weighed_right / weight - right / f64::from(count)).abs(), spent.samples())
}

#[test]
fn what_was_kept_by_its_chances_tells_the_share_of_all_whatever_the_traffic() {
    let policy = CapturePolicy { share: Ppm(50_000), samples_a_day: 2_000, ..policy() };
    let mut random = fastrand::Rng::with_seed(1);
    for (count, error_max) in [(2_000, 0.05), (20_000, 0.05), (100_000, 0.05)] {
        let mut spent = Spent::default();
        for day in 1..4 {
            spent.turn(UnixMillis(DAY_MS * day));
            let (error, kept) = day_of((&policy, &mut spent), count, &mut random);
            assert!(error < error_max, "{error} of {count} on day {day}, by {kept}");
            assert!(kept > 300 && kept <= 2_000, "{kept} of {count} on day {day}");
        }
    }
}

#[test]
fn a_model_that_is_unsure_all_day_leaves_chance_its_half() {
    let policy = CapturePolicy { share: Ppm(10_000), ..policy() };
    let mut spent = Spent::default();
    spent.turn(UnixMillis(DAY_MS));
    for _ in 0..10_000 {
        spent.saw(confident(0.1), &policy);
        spent.take(&why(&[Why::Confidence]), 100, &policy);
    }
    assert_eq!(spent.samples(), 50);
    let left = spent.left(&policy);
    assert!(left.by_rule == 0.0 && left.by_chance > 0.1, "{left:?}");
    assert_eq!(policy.decide(confident(0.1), left, 0.5), None);
    let lucky = policy.decide(confident(0.1), left, 0.000_1).unwrap();
    assert!(lucky.why.contains(&Why::Random) && lucky.chance < 0.01);
}

#[test]
fn a_budget_begins_anew_with_the_day_and_bytes_are_a_budget_too() {
    let policy = policy();
    let mut spent = Spent::default();
    spent.turn(UnixMillis(DAY_MS * 3));
    let take = |spent: &mut Spent, bytes| spent.take(&why(&[Why::Random]), bytes, &policy);
    assert!((0..50).all(|_| take(&mut spent, 1)) && !take(&mut spent, 1));
    assert!(spent.left(&policy).by_chance == 0.0);

    spent.turn(UnixMillis(DAY_MS * 2));
    assert_eq!(spent.samples(), 50, "a clock that steps back brings no second budget");
    spent.turn(UnixMillis(DAY_MS * 4 - 1));
    assert_eq!(spent.samples(), 50);
    spent.turn(UnixMillis(DAY_MS * 4));
    assert_eq!(spent.samples(), 0);
    assert!(!take(&mut spent, 512 * 1_024 + 1) && take(&mut spent, 512 * 1_024));
    assert!(spent.left(&policy).by_chance == 0.0);
}

proptest! {
    #[test]
    fn what_is_kept_had_a_chance_above_the_dice(
        below in 0_u32..=1_000_000, share in 0_u32..=1_000_000, confidence in 0.0_f64..=1.0,
        by_rule in 0.0_f64..=1.0, by_chance in 0.0_f64..=1.0, dice in 0.0_f64..1.0,
    ) {
        let left = Left { by_rule, by_chance };
        let policy = CapturePolicy { below: Some(Ppm(below)), share: Ppm(share), ..policy() };
        let seen = confident(confidence);
        match policy.decide(seen, left, dice) {
            Some(Taken { why, chance }) => {
                prop_assert!(dice < chance && chance <= 1.0 && !why.is_empty());
                // What a less lucky throw keeps, a luckier one keeps with the same chance.
                let luckier = policy.decide(seen, left, dice / 2.0).unwrap();
                prop_assert!((luckier.chance - chance).abs() < 1e-15 && luckier.why.is_superset(&why));
            }
            None => prop_assert!(policy.decide(seen, left, f64::midpoint(dice, 1.0)).is_none()),
        }
    }

    #[test]
    fn a_budget_is_never_exceeded(
        takes in prop::collection::vec((0_u64..200_000, 0_i64..DAY_MS, any::<bool>()), 0..300)
    ) {
        let policy = policy();
        let mut spent = Spent::default();
        let (mut now, mut of_day) = (UnixMillis(0), (0_i64, 0_u32, 0_u64));
        for (bytes, later, is_random) in takes {
            now = now.plus(later / 50);
            spent.turn(now);
            let day = now.0 / DAY_MS;
            if of_day.0 != day { of_day = (day, 0, 0); }
            let rule = if is_random { Why::Random } else { Why::Margin };
            spent.saw(confident(0.1), &policy);
            if spent.take(&why(&[rule]), bytes, &policy) {
                of_day = (day, of_day.1 + 1, of_day.2 + bytes);
            }
            prop_assert!(of_day.1 <= policy.samples_a_day && of_day.2 <= 1 << 20);
            prop_assert_eq!(spent.samples(), of_day.1);
            let Left { by_rule, by_chance } = spent.left(&policy);
            prop_assert!((0.0..=1.0).contains(&by_rule) && (0.0..=1.0).contains(&by_chance));
        }
    }

    #[test]
    fn the_rows_of_tensors_are_the_tensors(rows in 1_usize..6, width in 0_u64..4, fill in any::<u8>()) {
        let count = rows as u64;
        let all = usize::try_from(count * width).unwrap();
        let numbers: Vec<f32> = (0_u8..).take(all).map(|n| f32::from(n) + f32::from(fill)).collect();
        let x = Tensor::fp32("x", &[count, width], &numbers).unwrap();
        let words: Vec<String> = (0..count).map(|n| "w".repeat(usize::try_from(n).unwrap())).collect();
        let t = Tensor::text("t", &[count], words.iter().map(String::as_bytes)).unwrap();
        let all = [x.clone(), t.clone()];

        let split: Vec<_> = (0..rows).map(|place| row(&all, place, rows).unwrap()).collect();

        prop_assert!(split.iter().flatten().all(|tensor| tensor.check().is_ok() && tensor.shape[0] == 1));
        let joined: Vec<u8> = split.iter().flat_map(|row| row[0].bytes.clone()).collect();
        prop_assert_eq!(joined, x.bytes);
        let joined: Vec<u8> = split.iter().flat_map(|row| row[1].bytes.clone()).collect();
        prop_assert_eq!(joined, t.bytes);
    }
}

fn contract() -> IoContract {
    let json = br#"{"schema":1,
        "inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],
        "outputs":[{"name":"label","datatype":"INT64","shape":[-1],"role":"class"},
                   {"name":"p","datatype":"FP32","shape":[-1,3],"role":"probabilities",
                    "labels":["no","yes","maybe"]}]}"#;
    IoContract::parse(json).unwrap()
}

fn answer(classes: &[i64], shares: &[f32]) -> Vec<Tensor> {
    let rows = classes.len() as u64;
    let label = classes.iter().flat_map(|class| class.to_le_bytes()).collect();
    let label = Tensor::new("label".to_owned(), Datatype::Int64, vec![rows], label).unwrap();
    vec![label, Tensor::fp32("p", &[rows, 3], shares).unwrap()]
}

#[test]
fn each_row_is_judged_by_its_probabilities_and_named_by_its_class() {
    let outputs = answer(&[1, 7], &[0.25, 0.5, 0.25, f32::NAN, f32::NAN, f32::NAN]);
    let rows = judge(&contract(), &outputs);

    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].prediction.as_deref(), Some("yes"));
    assert_eq!((rows[0].seen.confidence, rows[0].seen.margin), (Some(0.5), Some(0.25)));
    assert_eq!(rows[1].prediction.as_deref(), Some("7"), "a class without a name");
    assert!(rows[1].seen.confidence.unwrap().is_nan());
    let without_class = judge(&contract(), &outputs[1..]);
    assert_eq!(without_class[0].prediction.as_deref(), Some("yes"));
    assert_eq!(judge(&contract(), &[]), [Judged::default()]);
}

fn sample() -> Sample {
    let image = ImageRef { version: Version::parse("3").unwrap(), index: Digest::of(b"index") };
    let x = Tensor::fp32("x", &[1, 2], &[1.0, 2.0]).unwrap();
    let outputs = answer(&[1], &[0.25, 0.5, 0.25]);
    let mut sample = Sample::new(
        (SampleId::new([3; 16]), InferenceId::parse("order-17").unwrap()),
        (digits(), image),
        UnixMillis(1_000),
        (vec![x], outputs),
        (why(&[Why::Confidence]), 0.5),
    );
    sample.prediction = Some("yes".to_owned());
    (sample.confidence, sample.margin) = (Some(0.5), Some(0.25));
    sample
}

#[test]
fn a_sample_survives_and_what_cannot_be_is_refused() {
    let bytes = sample().encode().unwrap();
    assert_eq!(Sample::decode(&bytes).unwrap(), sample());

    let refused = |change: &dyn Fn(&mut Sample)| {
        let mut sample = sample();
        change(&mut sample);
        Sample::decode(&sample.encode().unwrap()).is_err()
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|sample| sample.chance = 0.0));
    assert!(refused(&|sample| sample.chance = f64::NAN));
    assert!(refused(&|sample| sample.chance = 1.1));
    assert!(refused(&|sample| sample.why.clear()));
    assert!(refused(&|sample| sample.prediction = Some("x".repeat(201))));
    assert!(refused(&|sample| sample.inputs[0].bytes.truncate(7)));
}

#[test]
fn inference_ids_fit_a_header() {
    assert!(InferenceId::parse("a").is_ok() && InferenceId::parse(&"a".repeat(128)).is_ok());
    for text in ["", "a b", "a\n", "é", &"a".repeat(129)] {
        assert_eq!(InferenceId::parse(text), Err(InvalidInferenceId), "{text:?}");
    }
    let id = InferenceId::parse("a").unwrap();
    assert_eq!(id.of_row(12).unwrap().as_str(), "a/12");
    assert_eq!(InferenceId::parse(&"a".repeat(127)).unwrap().of_row(0), None);
}

#[test]
fn a_sealed_sample_belongs_to_one_device() {
    let device = |name: &str| DeviceId::parse(name).unwrap();
    let (tenant, id) = (tenant("main"), SampleId::new([3; 16]));
    let context = SealedSample::context(&tenant, &device("cam-1"), id);
    assert_eq!(context, b"sealift-sample-v1\nmain\ncam-1\n03030303030303030303030303030303");
    assert_ne!(context, SealedSample::context(&tenant, &device("cam-2"), id));
    let sealed = SealedSample::new(2, vec![1; 32], vec![7; 5]);
    assert_eq!(SealedSample::decode(&sealed.encode().unwrap()).unwrap(), sealed);
}

/// Kept bytes: devices have them on disk, brokers and servers hold them.
#[test]
fn what_was_written_before_is_still_read() {
    let sealed = SealedSample::new(2, vec![1; 4], vec![7; 5]);
    let list_bytes = codec::encode(&list(6)).unwrap();
    let written = [list_bytes, sample().encode().unwrap(), sealed.encode().unwrap()];
    let kept = [LIST, SAMPLE, SEALED].map(|text| text.split_whitespace().collect::<String>());
    assert_eq!(written.map(|bytes| encode_hex(&bytes)), kept);

    let [list_bytes, sample_bytes, sealed_bytes] = kept.map(|text| decode_hex(&text).unwrap());
    let read: CaptureList = codec::decode("list", &list_bytes, CAPTURE_BYTES_MAX).unwrap();
    assert_eq!(read, list(6));
    assert_eq!(Sample::decode(&sample_bytes).unwrap(), sample());
    assert_eq!(SealedSample::decode(&sealed_bytes).unwrap(), sealed);
}

const LIST: &str = "\
    a76776657273696f6e016674656e616e74646d61696e6873657175656e636506696973737565645f61740765756e7469\
    6c1a240c8407636b6579a2666e756d62657201667075626c696358200909090909090909090909090909090909090909\
    090909090909090909090909666d6f64656c73a16d766973696f6e2f646967697473a86562656c6f771a000927c0666d\
    617267696ef66c64697361677265656d656e74f46573686172651903e86d73616d706c65735f615f6461791864696b69\
    625f615f646179190400696b6565705f64617973181e666e6f7469636578315069637475726573206f66206469676974\
    7320617265206b65707420746f20696d70726f766520746865206d6f64656c2e";
const SAMPLE: &str = "\
    ae6776657273696f6e016269647820303330333033303330333033303330333033303330333033303330333033303369\
    696e666572656e6365686f726465722d3137656d6f64656c6d766973696f6e2f64696769747365696d616765a2677665\
    7273696f6e613365696e64657858201bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e662\
    61741903e866696e7075747381a4646e616d656178686461746174797065644650333265736861706582010265627974\
    6573480000803f00000040676f75747075747382a4646e616d65656c6162656c68646174617479706565494e54363465\
    73686170658101656279746573480100000000000000a4646e616d656170686461746174797065644650333265736861\
    70658201036562797465734c0000803e0000003f0000803e6a70726564696374696f6e637965736a636f6e666964656e\
    6365f93800666d617267696ef9340063776879816a636f6e666964656e6365666368616e6365f93800646c6f737400";
const SEALED: &str = "\
    a46776657273696f6e01636b6579026c656e63617073756c61746564440101010164626f6479450707070707";

//! Tests of what is kept of answers, by the way of a request.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as HPKE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey};
use sealift_protocol::capture::{
    CaptureKey, CaptureList, CapturePolicy, HPKE_INFO, Ppm, Sample, SampleId, SealedSample, Why,
};
use sealift_protocol::codec;
use sealift_protocol::directive::Shadow;
use sealift_protocol::id::{DeviceId, ModelName, TenantId};
use serde::Deserialize;

use super::testing::{CONTRACT, REQUEST, Told, device, live_with, post, send};
use super::{Challenger, Switchboard};
use crate::clock::{Clock, system_time};
use crate::limits::BUILT_AT;
use crate::origin::Origin;

/// A sample is encrypted and written within this time, also on a busy machine.
const LONG: Duration = Duration::from_secs(30);

const MODEL: &str = "vision/digits";
const PATH: &str = "/v2/models/vision/digits/infer";

fn whose() -> (TenantId, DeviceId) {
    (TenantId::parse("main").unwrap(), DeviceId::parse("cam-1").unwrap())
}

/// A place on the disk, and a server that cannot be reached.
fn open(board: &Switchboard, store: &Path) {
    let origin = Origin::of_test("https://127.0.0.1:1");
    let clock = Clock::new(BUILT_AT, system_time);
    board.captor().open(store, whose(), (origin, clock)).unwrap();
}

fn everything() -> CapturePolicy {
    CapturePolicy {
        below: None,
        margin: None,
        disagreement: false,
        share: Ppm::WHOLE,
        samples_a_day: 16,
        kib_a_day: 1_024,
        keep_days: 30,
        notice: "for tests".to_owned(),
    }
}

fn list(policy: Option<CapturePolicy>) -> (HpkePrivateKey, Arc<CaptureList>) {
    let (public, private) = HPKE.generate_key_pair().unwrap();
    let models: BTreeMap<_, _> =
        policy.into_iter().map(|policy| (ModelName::parse(MODEL).unwrap(), policy)).collect();
    let key = CaptureKey { number: 1, public: public.0 };
    (private, Arc::new(CaptureList::new(whose().0, (1, system_time()), key, models)))
}

/// The files of samples, once there are `count`.
fn files(store: &Path, count: usize) -> Vec<Vec<u8>> {
    let clock = Clock::new(BUILT_AT, system_time);
    loop {
        let entries = std::fs::read_dir(store.join("captures")).unwrap().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "sample"));
        paths.sort();
        if paths.len() == count {
            return paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        }
        assert!(clock.uptime() < LONG, "{} samples, not {count}", paths.len());
        std::thread::yield_now();
    }
}

#[derive(Deserialize)]
struct Waiting {
    id: SampleId,
    #[serde(with = "codec::bytes")]
    sealed: Vec<u8>,
}

fn opened(file: &[u8], key: &HpkePrivateKey, device: &str) -> Option<Sample> {
    let Waiting { id, sealed } = codec::decode("file", file, 1 << 23).unwrap();
    let sealed = SealedSample::decode(&sealed).unwrap();
    let device = DeviceId::parse(device).unwrap();
    let context = SealedSample::context(&whose().0, &device, id);
    let secret = EncapsulatedSecret(sealed.encapsulated);
    let plain = HPKE.open(&secret, HPKE_INFO, &context, &sealed.body, key).ok()?;
    Some(Sample::decode(&plain).unwrap())
}

fn inference_id(told: &Told) -> &str {
    told.headers["x-sealift-inference-id"].to_str().unwrap()
}

#[tokio::test]
async fn every_answer_names_its_inference_as_the_sender_did_or_by_a_name_of_its_own() {
    let (_, router) = device(&[MODEL]).await;
    let named = post(&router, PATH, REQUEST).await;
    assert_eq!((inference_id(&named), &named.json()["id"]), ("a1", &"a1".into()));

    let nameless = REQUEST.replace(r#""id":"a1","#, "");
    let first = post(&router, PATH, &nameless).await;
    let second = post(&router, PATH, &nameless).await;
    assert_eq!(first.json()["id"], inference_id(&first));
    assert_ne!(inference_id(&first), inference_id(&second));

    let request = Request::post("/invocations")
        .header("content-type", "application/json")
        .header("x-amzn-sagemaker-inference-id", "order-7")
        .body(Body::from(r#"{"instances":[[1,2]]}"#))
        .unwrap();
    assert_eq!(inference_id(&send(&router, request).await), "order-7");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_encrypted_to_the_server_for_this_device_alone() {
    let store = tempfile::tempdir().unwrap();
    let (board, router) = device(&[MODEL]).await;
    open(&board, store.path());
    post(&router, PATH, REQUEST).await;
    let (key, list) = list(Some(everything()));
    board.captor().follow(Some(list));

    // 3.25 and -11.5 are in the file in no form.
    let body = REQUEST.replace("[1,2]}]", "[3.25,-11.5]}]");
    post(&router, PATH, &body).await;

    let file = files(store.path(), 1).remove(0);
    let plain = [3.25_f32.to_le_bytes(), (-11.5_f32).to_le_bytes()].concat();
    let holds = |part: &[u8]| file.windows(part.len()).any(|window| window == part);
    assert!(!holds(&plain) && !holds(b"FP32") && !holds(b"digits"));
    let sample = opened(&file, &key, "cam-1").unwrap();
    assert_eq!(sample.inputs[0].bytes, plain);
    assert_eq!((sample.inference.as_str(), sample.chance), ("a1", 1.0));
    assert!(sample.why.contains(&Why::Random) && sample.prediction.is_some());
    assert!(opened(&file, &key, "cam-2").is_none(), "of another device");
    let (_, other) = HPKE.generate_key_pair().unwrap();
    assert!(opened(&file, &other, "cam-1").is_none(), "with another key");
}

/// The contract, with names of the classes.
fn naming(labels: &str) -> String {
    let role = r#""role":"probabilities""#;
    CONTRACT.replace(role, &format!(r#"{role},"labels":[{labels}]"#))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shadow_says_otherwise_is_kept_and_nothing_else() {
    /// Fewer than the queue holds, so that none is lost on a slow disk.
    const REQUESTS: u64 = 12;
    let store = tempfile::tempdir().unwrap();
    let (board, router) = device(&[]).await;
    open(&board, store.path());
    let live = live_with(&naming(r#""a","b","c""#), MODEL, "3").await;
    let model = live.model().clone();
    board.swap(&model, Some(live));
    // A budget so large that nothing is thinned out.
    let (disagreement, share, samples_a_day) = (true, Ppm(0), 1_000);
    let policy = CapturePolicy { disagreement, share, samples_a_day, ..everything() };
    let (key, list) = list(Some(policy));
    board.captor().follow(Some(list));
    let new = live_with(&naming(r#""c","b","a""#), MODEL, "4").await;
    let (challenger, queue) = Challenger::new(new, Shadow { span_s: 60, ..Shadow::OFF });
    board.challenge(&model, Some(challenger.clone()));
    tokio::spawn(challenger.clone().compare(queue, board.captor().clone()));

    for number in 1..=REQUESTS {
        post(&router, PATH, &REQUEST.replace("[1,2]}", &format!("[{number},2]}}"))).await;
        while challenger.counts().requests < number {
            tokio::task::yield_now().await;
        }
    }

    let counts = challenger.counts();
    assert_eq!((counts.rows, counts.skipped), (REQUESTS, 0));
    let differing = usize::try_from(counts.rows - counts.agreed).unwrap();
    assert!(differing > 0 && counts.agreed > 0, "{counts:?}");
    for file in files(store.path(), differing) {
        let sample = opened(&file, &key, "cam-1").unwrap();
        assert_eq!(sample.why, [Why::Disagreement].into());
        assert!(sample.chance > 0.999, "{}", sample.chance);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_kept_row_by_row_within_the_budget_and_no_restart_brings_another() {
    let store = tempfile::tempdir().unwrap();
    let (board, router) = device(&[MODEL]).await;
    open(&board, store.path());
    let (key, list) = list(Some(everything()));
    board.captor().follow(Some(Arc::clone(&list)));
    let rows = |count: usize| {
        let data = vec!["[4,5]"; count].join(",");
        format!(
            r#"{{"id":"b","inputs":[{{"name":"x","datatype":"FP32","shape":[{count},2],"data":[{data}]}}]}}"#
        )
    };

    post(&router, PATH, &rows(3)).await;
    let kept = files(store.path(), 3);
    let names: Vec<_> = kept
        .iter()
        .map(|file| opened(file, &key, "cam-1").unwrap().inference.to_string())
        .collect();
    assert_eq!(names, ["b/0", "b/1", "b/2"]);

    let (again, router) = device(&[MODEL]).await;
    open(&again, store.path());
    again.captor().follow(Some(Arc::clone(&list)));
    post(&router, PATH, &rows(200)).await;
    // Chance has half of sixteen; three of these are spent, so that of two hundred more there is room for five.
    let kept = files(store.path(), 8);
    let sample = opened(&kept[7], &key, "cam-1").unwrap();
    assert!(sample.chance < 0.5, "{}", sample.chance);

    again.captor().follow(Some(self::list(None).1));
    assert!(files(store.path(), 0).is_empty(), "what is not kept any more is deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_list_and_after_its_end_nothing_is_kept() {
    let store = tempfile::tempdir().unwrap();
    let (board, router) = device(&[MODEL]).await;
    open(&board, store.path());
    let (_, mut old) = list(Some(everything()));
    Arc::make_mut(&mut old).until = system_time().plus(-1);
    board.captor().follow(Some(old));
    post(&router, PATH, REQUEST).await;
    board.captor().follow(None);
    post(&router, PATH, REQUEST).await;

    let (_, list) = list(Some(everything()));
    board.captor().follow(Some(list));
    post(&router, PATH, REQUEST).await;
    assert_eq!(files(store.path(), 1).len(), 1, "the last one alone");
}

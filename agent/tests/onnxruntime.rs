//! Real models in real worker processes with the real library, whose path is in `SEALIFT_ONNXRUNTIME`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "in a test they are assertions, and helpers of a test crate do not count as tests"
)]

#[path = "onnxruntime/fixtures.rs"]
mod fixtures;
#[path = "onnxruntime/hostile.rs"]
mod hostile;
#[path = "onnxruntime/large.rs"]
mod large;
#[path = "onnxruntime/onnx.rs"]
mod onnx;
#[path = "onnxruntime/pictures.rs"]
mod pictures;

use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::http::StatusCode;
use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process};
use sealift_agent::observe::WindowLimits;
use sealift_agent::worker::{Budget, InferError, RuntimeCandidate, Worker};
use sealift_protocol::id::UnixMillis;
use sealift_protocol::image::{Golden, GoldenCase, Policy, Tolerance};
use sealift_protocol::profile::Profile;
use sealift_protocol::tensor::{Datatype, Tensor};
use serde_json::json;

use fixtures::{
    Slot, ask, baseline, binary_request, board, body, candidate, cpu, json, json_request, library,
    model, pixels, png_of, post_body, rows,
};

#[tokio::test]
async fn both_good_versions_pass_their_golden_tests_on_the_processor() {
    for version in ["v1", "v2"] {
        let slot = Slot::digits(version);

        let (worker, warmed) = Worker::start(slot.spec.clone()).await.unwrap();

        assert_eq!(warmed.providers[0].0, "CPUExecutionProvider");
        assert!(warmed.providers[0].1 > 0, "{warmed:?}");
        assert!(warmed.runtime.starts_with("onnxruntime 1."), "{warmed:?}");
        assert!(warmed.memory_mb > 0, "{warmed:?}");
        worker.stop().await;
    }
}

/// Golden tests go through the steps, and so does every protocol: a body that is an image, base64 in JSON, and binary data.
#[tokio::test]
async fn a_model_behind_steps_answers_an_image_as_it_answers_its_pixels() {
    let plain = Slot::digits("v1").worker().await;
    let (_, router) = board(&Slot::digits_of_images().live("1", None).await);
    let file = png_of(&pixels().numbers().unwrap());
    let text = base64::engine::general_purpose::STANDARD.encode(&file);
    let input =
        json!({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]});

    let expected = plain.infer(&[pixels()]).await.unwrap();
    let by_body = json(ask(&router, post_body("image/png", file.clone())).await).await;
    let by_json =
        json(ask(&router, post_body("application/json", input.to_string().into_bytes())).await)
            .await;
    let broken = ask(&router, post_body("image/png", file[..file.len() / 2].to_vec())).await;

    assert_eq!(
        by_body["outputs"][1]["data"][0],
        json!(i64::from_le_bytes(expected[0].bytes[..8].try_into().unwrap()))
    );
    let name = format!("digit {}", by_body["outputs"][1]["data"][0]);
    assert_eq!(by_body["outputs"][0]["data"][0], json!(name));
    assert_eq!(by_body["outputs"], by_json["outputs"]);
    assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
    let told = json(broken).await["error"].as_str().unwrap().to_owned();
    assert!(told.starts_with("input `image`, element 0: broken"), "{told}");
    plain.stop().await;
}

/// Two models that do not fit together: each makes room for the other, and is loaded again by its next request.
#[tokio::test]
async fn a_model_that_nobody_asks_for_makes_room_and_comes_back_with_the_next_request() {
    let budget = Budget::new(1);
    let start = async |version: &str| {
        let slot = Slot::digits(version);
        let started = Worker::start_within(slot.spec.clone(), Some(budget.clone())).await;
        (slot, started.unwrap().0)
    };
    let ((slot, first), (_second_slot, second)) = (start("v1").await, start("v2").await);
    let expected = first.infer(&[pixels()]).await.unwrap();

    budget.make_room(0).await;
    assert!(first.process_id().is_some() && second.process_id().is_some(), "neither is marked");
    first.let_sleep(true);
    second.let_sleep(true);
    budget.make_room(0).await;
    assert_eq!((first.process_id(), second.process_id()), (None, None));

    // Several requests wait for one load.
    let input = [pixels()];
    let (one, two) = tokio::join!(first.infer(&input), first.infer(&input));
    assert_eq!((one.unwrap(), two.unwrap()), (expected.clone(), expected));
    assert!(first.process_id().is_some() && second.process_id().is_none());
    second.infer(&[pixels()]).await.unwrap();
    assert!(first.process_id().is_none() && second.process_id().is_some());

    // What cannot be loaded again is as good as crashed: the supervisor hears of it.
    std::fs::write(&slot.spec.files.weights, "other weights").unwrap();
    let gone = first.infer(&[pixels()]).await.unwrap_err();
    let InferError::WorkerGone { reason } = gone else { panic!("{gone:?}") };
    assert!(reason.contains("not those that were signed"), "{reason}");
    assert_eq!(first.exited().await, reason);
    second.stop().await;
}

/// Many requests at once, each with its own answer, whichever session it went to.
#[tokio::test]
async fn several_sessions_give_everyone_his_own_answer() {
    let sessions = RuntimeCandidate { sessions: NonZeroU8::new(3).unwrap(), ..cpu() };
    let many = Slot::digits("v2").with_candidates(vec![sessions]).worker().await;
    let one = Slot::digits("v2").worker().await;
    let inputs: Vec<_> = rows("holdout.csv", 1)
        .into_iter()
        .take(40)
        .map(|row| Tensor::fp32("pixels", &[1, 64], &row).unwrap())
        .collect();

    let asked = inputs.iter().cloned().map(|input| {
        let many = many.clone();
        tokio::spawn(async move { many.infer(&[input]).await })
    });
    let asked: Vec<_> = asked.collect();

    for (input, answer) in inputs.into_iter().zip(asked) {
        assert_eq!(answer.await.unwrap().unwrap(), one.infer(&[input]).await.unwrap());
    }
    many.stop().await;
    one.stop().await;
}

/// Sent to sleep while requests are in flight, it answers them all.
#[tokio::test]
async fn no_request_is_lost_to_an_unloading() {
    let budget = Budget::new(1);
    let slot = Slot::digits("v1");
    let (worker, _) = Worker::start_within(slot.spec.clone(), Some(budget.clone())).await.unwrap();
    worker.let_sleep(true);
    let asking = (0..4).map(|_| {
        let worker = worker.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                worker.infer(&[pixels()]).await.unwrap();
            }
        })
    });
    let asking: Vec<_> = asking.collect();

    for _ in 0..3 {
        budget.make_room(0).await;
        worker.infer(&[pixels()]).await.unwrap();
    }

    for one in asking {
        one.await.unwrap();
    }
    worker.stop().await;
}

#[tokio::test]
async fn the_bad_version_is_refused_by_its_golden_test() {
    let refused = Slot::digits("v3-bad").refusal().await;
    assert_eq!(refused.code(), "self-test.golden");
    assert!(refused.to_string().starts_with("golden case `one digit`: output"), "{refused}");
}

#[tokio::test]
async fn policy_limits_are_kept() {
    let refusal = async |policy: Policy| Slot::digits("v2").with_policy(&policy).refusal().await;
    let latency = refusal(Policy { latency_max_ms: 0, ..Policy::default() }).await;
    let memory = refusal(Policy { memory_max_mb: 1, ..Policy::default() }).await;
    let time = refusal(Policy { warm_up_max_s: 0, ..Policy::default() }).await;
    assert_eq!(latency.code(), "self-test.latency");
    assert_eq!(memory.code(), "self-test.memory");
    assert_eq!(time.code(), "self-test.timeout");
}

#[tokio::test]
async fn the_first_candidate_that_loads_is_taken() {
    let nowhere = RuntimeCandidate {
        library: PathBuf::from("/nowhere/libonnxruntime.so"),
        providers: vec!["CPUExecutionProvider".to_owned()],
        strict: false,
        sessions: NonZeroU8::MIN,
    };
    let no_such_device = candidate("CUDAExecutionProvider", true);
    let unknown = candidate("AbacusExecutionProvider", false);

    let bad = vec![nowhere, no_such_device, unknown];
    let refused = Slot::digits("v1").with_candidates(bad.clone()).refusal().await;
    let slot = Slot::digits("v1").with_candidates([bad, vec![cpu()]].concat());
    let (worker, warmed) = Worker::start(slot.spec.clone()).await.unwrap();

    assert_eq!(refused.code(), "self-test.load");
    let text = refused.to_string();
    assert!(text.contains("/nowhere/libonnxruntime.so"), "{text}");
    assert!(text.contains("`AbacusExecutionProvider` is not known"), "{text}");
    assert_eq!(warmed.providers[0].0, "CPUExecutionProvider");
    worker.stop().await;
}

#[tokio::test]
async fn a_provider_that_is_absent_gives_way_to_the_processor_unless_it_is_strict() {
    let slot = Slot::digits("v1").with_candidates(vec![candidate("CUDAExecutionProvider", false)]);
    let (worker, warmed) = Worker::start(slot.spec.clone()).await.unwrap();
    assert_eq!(warmed.providers[0].0, "CPUExecutionProvider");
    worker.stop().await;
}

/// The same agent, the same image: only the library's path is another.
#[tokio::test]
#[ignore = "needs ONNX Runtime and OpenVINO"]
async fn openvino_runs_the_graph_where_its_library_is_named() {
    let library = PathBuf::from(std::env::var_os("SEALIFT_OPENVINO").unwrap());
    let openvino = |strict| RuntimeCandidate {
        library: library.clone(),
        providers: vec!["OpenVINOExecutionProvider".to_owned()],
        strict,
        sessions: NonZeroU8::MIN,
    };
    let slot = Slot::digits("v1").with_candidates(vec![openvino(false), cpu()]);
    let (worker, warmed) = Worker::start(slot.spec.clone()).await.unwrap();
    let (plain, on_processor) = Worker::start(Slot::digits("v1").spec.clone()).await.unwrap();

    let nodes =
        |name: &str| warmed.providers.iter().any(|(found, count)| found == name && *count > 0);
    assert!(nodes("OpenVINOExecutionProvider"), "{:?}", warmed.providers);
    assert!(warmed.runtime.starts_with("onnxruntime 1.24"), "{}", warmed.runtime);
    assert_eq!(on_processor.providers[0].0, "CPUExecutionProvider");
    let (ours, theirs) =
        (worker.infer(&[pixels()]).await.unwrap(), plain.infer(&[pixels()]).await.unwrap());
    assert_eq!(ours[0], theirs[0], "the same class");
    worker.stop().await;
    plain.stop().await;

    // Where nothing may run beside the accelerator, it takes the whole graph, or the next candidate is taken.
    let is_whole = warmed.providers.len() == 1;
    let strict = Slot::digits("v1").with_candidates(vec![openvino(true), cpu()]);
    let (worker, warmed) = Worker::start(strict.spec.clone()).await.unwrap();
    let names: Vec<_> = warmed.providers.iter().map(|(name, _)| name.as_str()).collect();
    let expected = if is_whole { "OpenVINOExecutionProvider" } else { "CPUExecutionProvider" };
    assert_eq!(names, [expected]);
    worker.stop().await;
}

#[tokio::test]
async fn a_model_that_is_not_what_its_contract_says_is_refused() {
    let slot = Slot::digits("v1");
    let contract = std::fs::read_to_string(&slot.spec.files.contract).unwrap();
    std::fs::write(&slot.spec.files.contract, contract.replace("\"INT64\"", "\"INT32\"")).unwrap();

    let refused = slot.refusal().await;

    assert_eq!(refused.code(), "self-test.load");
    assert!(refused.to_string().contains("output `label`"), "{refused}");
}

#[tokio::test]
async fn weights_that_are_no_model_are_refused() {
    let slot = Slot::digits("v1");
    std::fs::write(&slot.spec.files.weights, b"not a model").unwrap();
    let mut slot = slot;
    slot.spec.files.weights_digest = sealift_protocol::digest::Digest::of(b"not a model");
    assert_eq!(slot.refusal().await.code(), "self-test.load");
}

#[tokio::test]
async fn weights_that_were_swapped_after_their_check_are_not_loaded() {
    let (slot, other) = (Slot::digits("v1"), Slot::digits("v2"));
    std::fs::rename(&other.spec.files.weights, &slot.spec.files.weights).unwrap();

    let refused = slot.refusal().await;

    assert_eq!(refused.code(), "self-test.load");
    assert!(refused.to_string().contains("not those that were signed"), "{refused}");
}

#[tokio::test]
async fn json_and_binary_give_the_same_bytes() {
    let live = Slot::digits("v2").live("2", None).await;
    let (_, router) = board(&live);

    let from_json = ask(&router, json_request(&pixels())).await;
    let from_binary = ask(&router, binary_request(&pixels())).await;

    assert_eq!(from_json.status(), StatusCode::OK);
    let image = from_json.headers()["x-sealift-image"].to_str().unwrap().to_owned();
    assert_eq!(image, live.image().index.to_string());
    let head_bytes = &from_binary.headers()["inference-header-content-length"];
    let head_bytes: usize = head_bytes.to_str().unwrap().parse().unwrap();
    let from_json = json(from_json).await;
    let body = body(from_binary).await;
    let (head, binary) = body.split_at(head_bytes);
    let head: serde_json::Value = serde_json::from_slice(head).unwrap();

    assert_eq!((&from_json["id"], &from_json["model_version"]), (&json!("seven"), &json!("2")));
    assert_eq!(from_json["model_name"], "vision/digits");
    assert_eq!(head["outputs"][1]["parameters"]["binary_data_size"], 40);
    let (label, probabilities) = binary.split_at(8);
    let number =
        |value: &serde_json::Value| value.to_string().parse::<f32>().unwrap().to_le_bytes();
    let data = &from_json["outputs"];
    assert_eq!(label, data[0]["data"][0].as_i64().unwrap().to_le_bytes());
    let written: Vec<u8> = data[1]["data"].as_array().unwrap().iter().flat_map(number).collect();
    assert_eq!(probabilities, written);
    assert_eq!(data[0]["data"], json!([8]));
}

#[tokio::test]
async fn every_element_type_passes_through_the_library_unchanged() {
    let elements = |datatype: Datatype| -> Vec<u8> {
        match datatype {
            Datatype::Bool => vec![1, 0, 0, 1],
            Datatype::Bytes => b"\x02\0\0\0ab\0\0\0\0\x03\0\0\0\xe2\x82\xac\x01\0\0\0c".to_vec(),
            other => (1..=4 * u8::try_from(other.element_bytes().unwrap()).unwrap()).collect(),
        }
    };
    let tensors = |prefix: &str| -> Vec<Tensor> {
        let tensor = |(datatype, _)| {
            let name = format!("{prefix}_{datatype}");
            Tensor::new(name, datatype, vec![2, 2], elements(datatype)).unwrap()
        };
        onnx::TYPES.map(tensor).to_vec()
    };
    let case = GoldenCase {
        name: "identity".to_owned(),
        inputs: tensors("in"),
        outputs: tensors("out"),
        tolerance: Tolerance { absolute: 0.0, relative: 0.0 },
    };
    let golden = Golden { schema: 1, cases: vec![case] };
    let slot = Slot::new(&onnx::identities(), &onnx::contract(), &golden);
    let worker = slot.worker().await;

    let outputs = worker.infer(&tensors("in")).await.unwrap();

    assert_eq!(outputs, tensors("out"));
    worker.stop().await;
}

#[tokio::test]
async fn maps_and_sequences_come_as_tensors() {
    let contract = json!({ "schema": 1,
        "inputs": [{ "name": "x", "datatype": "FP32", "shape": [-1, 3] }],
        "outputs": [{ "name": "shares", "datatype": "FP32", "shape": [-1, 3], "labels": ["a", "b", "c"] },
                    { "name": "pair", "datatype": "FP32", "shape": [2, -1, 3] }] });
    let x = Tensor::fp32("x", &[2, 3], &[0.5, 0.25, 0.125, 1.0, 2.0, 3.0]).unwrap();
    // Keys 2, 0, 1 of the columns, in the order of the keys.
    let shares = Tensor::fp32("shares", &[2, 3], &[0.25, 0.125, 0.5, 2.0, 3.0, 1.0]).unwrap();
    let both = [0.5, 0.25, 0.125, 1.0, 2.0, 3.0].repeat(2);
    let pair = Tensor::fp32("pair", &[2, 2, 3], &both).unwrap();
    let case = GoldenCase {
        name: "two rows".to_owned(),
        inputs: vec![x.clone()],
        outputs: vec![shares.clone(), pair.clone()],
        tolerance: Tolerance { absolute: 0.0, relative: 0.0 },
    };
    let golden = Golden { schema: 1, cases: vec![case] };
    let contract = serde_json::to_vec(&contract).unwrap();
    let slot = Slot::new(&onnx::maps_and_sequences(), &contract, &golden);
    let worker = slot.worker().await;

    assert_eq!(worker.infer(&[x]).await.unwrap(), [shares, pair]);
    worker.stop().await;
}

#[tokio::test]
async fn elements_that_the_library_cannot_take_are_the_senders_fault() {
    let golden = golden_of_identities();
    let slot = Slot::new(&onnx::identities(), &onnx::contract(), &golden);
    let worker = slot.worker().await;
    let with = |name: &str, bytes: &[u8]| {
        let mut inputs = golden.cases[0].inputs.clone();
        let tensor = inputs.iter_mut().find(|tensor| tensor.name == name).unwrap();
        tensor.bytes = bytes.to_vec();
        inputs
    };

    let not_text = worker.infer(&with("in_BYTES", b"\x01\0\0\0\xff\0\0\0\0")).await.unwrap_err();
    let not_bool = worker.infer(&with("in_BOOL", &[2, 0])).await.unwrap_err();

    assert!(matches!(not_text, InferError::Input(_)), "{not_text}");
    assert!(matches!(not_bool, InferError::Input(_)), "{not_bool}");
    worker.stop().await;
}

fn golden_of_identities() -> Golden {
    let tensors = |prefix: &str| -> Vec<Tensor> {
        let tensor = |(datatype, _): (Datatype, u64)| {
            let bytes = datatype.element_bytes().map_or(8, |bytes| bytes * 2);
            Tensor::new(format!("{prefix}_{datatype}"), datatype, vec![1, 2], vec![0; bytes])
                .unwrap()
        };
        onnx::TYPES.map(tensor).to_vec()
    };
    let case = GoldenCase {
        name: "zero".to_owned(),
        inputs: tensors("in"),
        outputs: tensors("out"),
        tolerance: Tolerance { absolute: 0.0, relative: 0.0 },
    };
    Golden { schema: 1, cases: vec![case] }
}

fn signal(worker: &Worker, signal: Signal) {
    let process = i32::try_from(worker.process_id().unwrap()).unwrap();
    kill_process(Pid::from_raw(process).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn killing_the_worker_tells_everyone_who_waits() {
    let slot = Slot::digits("v2");
    let worker = slot.worker().await;
    // A stopped process cannot answer, so that the request is in flight when the process dies.
    signal(&worker, Signal::STOP);
    let inputs = [pixels()];
    let waiting = worker.infer(&inputs);
    let kill = async { signal(&worker, Signal::KILL) };

    let (answer, ()) = tokio::join!(waiting, kill);

    let reason = worker.exited().await;
    assert_eq!(reason, "signal: 9 (SIGKILL)");
    assert_eq!(answer.unwrap_err(), InferError::WorkerGone { reason: reason.clone() });
    let late = worker.infer(&inputs).await.unwrap_err();
    assert_eq!(late, InferError::WorkerGone { reason });
}

#[tokio::test]
async fn a_request_whose_worker_is_killed_is_answered_by_the_next_one() {
    let slot = Slot::digits("v2");
    let live = slot.live("2", None).await;
    let (switchboard, router) = board(&live);
    signal(live.worker(), Signal::STOP);

    let waiting = ask(&router, json_request(&pixels()));
    let restart = async {
        signal(live.worker(), Signal::KILL);
        live.worker().exited().await;
        switchboard.swap(&model(), Some(slot.live("2", None).await))
    };
    let (answer, dead) = tokio::join!(waiting, restart);

    assert_eq!(answer.status(), StatusCode::OK);
    let counters = (dead.unwrap().counters(), switchboard.counters());
    assert_eq!((counters.0.errors, counters.1.errors, counters.1.requests), (1, 0, 1));
}

#[tokio::test]
async fn a_request_that_outlives_two_workers_is_given_up() {
    let slot = Slot::digits("v2");
    let (first, second) = (slot.live("2", None).await, slot.live("2", None).await);
    let (switchboard, router) = board(&first);
    signal(first.worker(), Signal::STOP);
    signal(second.worker(), Signal::STOP);

    let waiting = ask(&router, json_request(&pixels()));
    let crashes = async {
        signal(first.worker(), Signal::KILL);
        first.worker().exited().await;
        switchboard.swap(&model(), Some(second.clone()));
        signal(second.worker(), Signal::KILL);
        second.worker().exited().await;
        // A third one would answer; the request must not get so far.
        switchboard.swap(&model(), Some(slot.live("2", None).await))
    };
    let (answer, _) = tokio::join!(waiting, crashes);

    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "1");
    let told = json(answer).await["error"].as_str().unwrap().to_owned();
    assert_eq!(told, "the model's worker ended: signal: 9 (SIGKILL)");
    assert_eq!((switchboard.counters().requests, switchboard.counters().errors), (1, 1));
}

#[tokio::test]
async fn a_swap_under_load_drops_nothing_and_leaves_nothing_to_the_old_version() {
    const CALLERS: usize = 6;
    const AFTER: u64 = 200;
    let (old, new) =
        (Slot::digits("v1").live("1", None).await, Slot::digits("v2").live("2", None).await);
    let (switchboard, router) = board(&old);
    let swapped = Arc::new(AtomicBool::new(false));
    let (before, after) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let call = |router: axum::Router| {
        let (swapped, before, after) = (swapped.clone(), before.clone(), after.clone());
        async move {
            while after.load(Ordering::SeqCst) < AFTER {
                let began_after = swapped.load(Ordering::SeqCst);
                let response = ask(&router, json_request(&pixels())).await;
                assert_eq!(response.status(), StatusCode::OK);
                let version = json(response).await["model_version"].as_str().unwrap().to_owned();
                assert!(version == "2" || !began_after, "old version after the swap");
                let count = if began_after { &after } else { &before };
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(call(router.clone()))).collect();
    while before.load(Ordering::SeqCst) < AFTER {
        tokio::task::yield_now().await;
    }

    let replaced = switchboard.swap(&model(), Some(new));
    swapped.store(true, Ordering::SeqCst);
    replaced.unwrap().retire().await;

    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(switchboard.counters().errors, 0);
    let gone = old.infer(&[pixels()]).await.unwrap_err();
    assert!(matches!(gone, InferError::WorkerGone { .. }), "{gone}");
}

#[tokio::test]
async fn real_traffic_is_profiled_and_the_last_window_survives_the_swap() {
    const LIMITS: WindowLimits = WindowLimits { rows: 1_000, seconds: 60 };
    let live = Slot::digits("v2").live("2", Some(baseline("v2"))).await;
    let (switchboard, router) = board(&live);
    let rows = rows("holdout.csv", 1);
    let batch = Tensor::fp32("pixels", &[500, 64], &rows.concat()).unwrap();

    let answer = ask(&router, binary_request(&batch)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    drop(switchboard.swap(&model(), None));
    let windows = switchboard.drain_windows(UnixMillis(1_000), LIMITS, false);
    assert!(windows.is_empty(), "the image can still answer");
    drop(live);
    let windows = switchboard.drain_windows(UnixMillis(2_000), LIMITS, false);

    assert_eq!(windows.len(), 1);
    let profile = Profile::decode(&windows[0].profile).unwrap();
    profile.check(&baseline("v2")).unwrap();
    assert_eq!((profile.rows(), profile.misshapen(), profile.unseen_class()), (500, 0, 0));
    assert_eq!(profile.classes().iter().sum::<u64>(), 500);
    assert_eq!(profile.latency().count(), 1);
    assert!(switchboard.drain_windows(UnixMillis(3_000), LIMITS, true).is_empty());
}

#[tokio::test]
async fn a_stopped_worker_leaves_no_process_and_has_not_ended_by_itself() {
    let worker = Slot::digits("v1").worker().await;
    let process = worker.process_id().unwrap();

    let watched = worker.clone();
    let exited = tokio::spawn(async move { watched.exited().await });
    worker.stop().await;

    assert!(!PathBuf::from(format!("/proc/{process}")).exists());
    assert!(!exited.is_finished());
    exited.abort();
}

#[tokio::test]
async fn a_worker_that_nobody_holds_any_more_is_ended() {
    let worker = Slot::digits("v1").worker().await;
    let process = worker.process_id().unwrap();
    drop(worker);
    // The keeper reaps it; until then the process directory is there.
    while PathBuf::from(format!("/proc/{process}")).exists() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn the_librarys_name_tells_its_version() {
    let name = library().canonicalize().unwrap();
    let name = name.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("libonnxruntime.so.1."), "{name}");
}

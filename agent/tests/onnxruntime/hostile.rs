//! A worker whose library, or whose model, is an enemy.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::num::NonZeroU8;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError,
};
use sealift_agent::worker::{InferError, RuntimeCandidate, Worker, WorkerError};
use sealift_protocol::image::{Golden, GoldenCase, Policy, Tolerance};
use sealift_protocol::tensor::{Datatype, Tensor};

use super::fixtures::{Slot, cpu, pixels};
use super::onnx;

/// What a library may do in a worker; everything else that it tries is refused.
const ALLOWED: [&str; 6] =
    ["own-scratch", "own-image", "own-thread", "own-memory", "own-signal", "end"];

/// What Landlock alone keeps from it.
const OF_FILES: [&str; 8] = [
    "read-key",
    "link-key",
    "rename-key",
    "truncate-key",
    "remove-key",
    "write-outside",
    "write-own-image",
    "read-supervisor-memory",
];

/// Attacks that are tried.
const ATTACKS: usize = 32;

fn has_landlock() -> bool {
    let strict = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let create = |ruleset: Ruleset| -> Result<_, RulesetError> {
        ruleset.handle_access(AccessFs::from_all(ABI::V5))?.create()
    };
    create(strict).is_ok()
}

/// Builds the hostile library; the C compiler that links these tests is there.
fn hostile_library(directory: &Path) -> PathBuf {
    let library = directory.join("libonnxruntime.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnxruntime/hostile.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-pthread", "-o"]).arg(&library).arg(source);
    let output = compiler.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

#[tokio::test]
async fn a_hostile_library_reaches_no_key_no_network_no_program_and_no_supervisor() {
    let world = tempfile::tempdir().unwrap();
    let (key, socket) = (world.path().join("key.pem"), world.path().join("socket"));
    let outside = world.path().join("outside");
    fs::write(&key, "secret").unwrap();
    let _local = UnixListener::bind(&socket).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let targets = format!(
        "{}\n{}\n{}\n{}\n",
        key.display(),
        outside.display(),
        socket.display(),
        port.local_addr().unwrap().port()
    );
    let library = tempfile::tempdir().unwrap();
    let candidate = RuntimeCandidate {
        library: hostile_library(library.path()),
        providers: vec!["CPUExecutionProvider".to_owned()],
        strict: false,
        sessions: NonZeroU8::MIN,
    };
    let slot = Slot::digits("v1").with_candidates(vec![candidate]);
    let scratch = slot.spec.scratch_dir.clone();
    fs::write(scratch.join("targets"), targets).unwrap();

    let refused = slot.refusal().await;

    assert_eq!(refused.code(), "self-test.load", "{refused}");
    let report = fs::read_to_string(scratch.join("report")).unwrap();
    let outcomes: BTreeMap<_, _> =
        report.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(outcomes.len(), ATTACKS + ALLOWED.len(), "{report}");
    for (attack, outcome) in outcomes {
        let is_allowed = ALLOWED.contains(&attack);
        let expected = if is_allowed { "allowed" } else { "refused" };
        let is_open = OF_FILES.contains(&attack) && !has_landlock(); // as the agent's status then says
        assert!(outcome == expected || is_open, "{attack} is {outcome}\n{report}");
    }
    if has_landlock() {
        assert_eq!(fs::read_to_string(&key).unwrap(), "secret");
        assert!(!outside.exists() && !scratch.join("stolen").exists());
    }
}

#[tokio::test]
async fn a_real_library_answers_in_the_same_sandbox() {
    let worker = Slot::digits("v1").worker().await;
    let outputs = worker.infer(&[pixels()]).await.unwrap();
    assert!(!outputs.is_empty());
    worker.stop().await;
}

/// A library that ends the process as it is loaded, which is before anybody could ask it anything.
#[tokio::test]
async fn a_library_that_crashes_as_it_is_loaded_is_one_line_and_the_next_one_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("crash.c"), folder.path().join("libcrash.so"));
    let code =
        "#include <stdlib.h>\n__attribute__((constructor)) static void crash(void) { abort(); }\n";
    fs::write(&source, code).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    assert!(compiler.status().unwrap().success());
    let crashing = RuntimeCandidate { library: library.clone(), ..cpu() };

    let refused = Slot::digits("v1").with_candidates(vec![crashing.clone()]).refusal().await;
    let slot = Slot::digits("v1").with_candidates(vec![crashing, cpu()]);
    let (worker, warmed) = Worker::start(slot.spec.clone()).await.unwrap();

    let told = refused.to_string();
    assert!(told.contains(&library.display().to_string()) && told.contains("SIGABRT"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert_eq!(warmed.providers[0].0, "CPUExecutionProvider");
    worker.stop().await;
}

/// The long request was sent first; by one session the short one would have to wait for it.
#[tokio::test]
async fn a_short_request_does_not_wait_for_a_long_one_where_there_are_two_sessions() {
    let sessions = RuntimeCandidate { sessions: NonZeroU8::new(2).unwrap(), ..cpu() };
    let worker = counting(1_000).with_candidates(vec![sessions]).worker().await;
    let busy = worker.clone();
    let long = tokio::spawn(async move { busy.infer(&[count("trips", 100_000_000)]).await });
    tokio::task::yield_now().await;

    let short = worker.infer(&[count("trips", 7)]).await.unwrap();

    assert_eq!(short, [count("last", 7)]);
    assert!(!long.is_finished(), "it was not long enough");
    long.abort();
}

/// A model that loops as often as it is told.
fn counting(trips: i64) -> Slot {
    let case = GoldenCase {
        name: "turns".to_owned(),
        inputs: vec![count("trips", trips)],
        outputs: vec![count("last", trips)],
        tolerance: Tolerance { absolute: 0.0, relative: 0.0 },
    };
    let golden = Golden { schema: 1, cases: vec![case] };
    Slot::new(&onnx::counting(), &onnx::counting_contract(), &golden)
}

fn count(name: &str, value: i64) -> Tensor {
    let bytes = value.to_le_bytes().to_vec();
    Tensor::new(name.to_owned(), Datatype::Int64, vec![1], bytes).unwrap()
}

#[tokio::test]
async fn an_endless_loop_is_stopped_when_the_self_test_takes_too_long() {
    let policy = Policy { warm_up_max_s: 3, latency_max_ms: u32::MAX, ..Policy::default() };
    counting(1_000).worker().await.stop().await;
    let endless = counting(i64::MAX).with_policy(&policy);

    let refused = endless.refusal().await;

    assert!(matches!(refused, WorkerError::Timeout(_)), "{refused}");
    assert_eq!(refused.code(), "self-test.timeout");
    // The process goes with it: its scratch directory is nobody's working directory any more.
    let scratch = endless.spec.scratch_dir.canonicalize().unwrap();
    while processes_in(&scratch) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
#[ignore = "takes minutes: one inference may take 30 seconds"]
async fn an_endless_loop_is_stopped_in_a_live_worker() {
    let slot = counting(1_000);
    let worker: Worker = slot.worker().await;

    let stopped = worker.infer(&[count("trips", i64::MAX)]).await.unwrap_err();

    assert!(matches!(stopped, InferError::Deadline | InferError::WorkerGone { .. }), "{stopped}");
    let how = worker.exited().await;
    assert!(how.contains("signal"), "{how}");
}

/// Processes that work in a directory.
fn processes_in(directory: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let works_there = |entry: &fs::DirEntry| {
        fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == directory)
    };
    processes.filter(works_there).count()
}

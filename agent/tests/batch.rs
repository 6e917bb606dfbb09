//! `fleet-agent batch` as a process, beside an endpoint with made-up answers: whole files, broken-off jobs, other jobs' directories.

#![expect(
    clippy::unwrap_used,
    reason = "in a test they are assertions, and helpers of a test crate do not count as tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use sealift_agent::observe::WindowLimits;
use sealift_agent::serve::{Doors, Live, LiveImage, Switchboard, listen};
use sealift_agent::worker::{EngineChoice, SlotFiles, Worker, WorkerSpec};
use sealift_protocol::codec;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, UnixMillis, Version};
use sealift_protocol::image::{Golden, IoContract};
use sealift_protocol::profile::{BaselineBuilder, Column, Profile};
use sealift_protocol::report::ImageRef;
use serde_json::Value;
use tokio::net::TcpListener;

const CONTRACT: &str = r#"{"schema":1,
    "inputs":[{"name":"x","datatype":"FP32","shape":[-1,2],
               "features":[{"name":"a","group":"g"},{"name":"b","group":"g"}]}],
    "outputs":[{"name":"label","datatype":"INT64","shape":[-1],"role":"class"},
               {"name":"p","datatype":"FP32","shape":[-1,3],"role":"probabilities"}]}"#;

/// A device's endpoint, and where a job reads and writes.
struct Bench {
    folder: tempfile::TempDir,
    board: Switchboard,
    url: String,
}

impl Bench {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let board = Switchboard::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let doors = Doors { plain: listener, socket: None, tls: None };
        tokio::spawn(listen(doors, board.clone()));
        let bench = Self { folder, board, url };
        bench.serve("1").await;
        bench
    }

    /// Makes a version live.
    async fn serve(&self, version: &str) {
        let path = |name: &str| self.path(name);
        fs::write(path("contract"), CONTRACT).unwrap();
        let golden = Golden { schema: 1, cases: vec![] };
        fs::write(path("golden"), codec::encode(&golden).unwrap()).unwrap();
        let files = SlotFiles {
            weights: path("weights"),
            weights_digest: Digest::of(b""),
            contract: path("contract"),
            golden: path("golden"),
            baseline: None,
            policy: None,
        };
        let spec = WorkerSpec {
            slot_dir: path(""),
            files,
            engine: EngineChoice::Fake,
            scratch_dir: path(""),
            executable: None,
        };
        let (worker, warmed) = Worker::start(spec).await.unwrap();
        let columns = ["a", "b"].map(|name| Column::numeric(name, "g")).to_vec();
        let mut builder =
            BaselineBuilder::new(columns, ["0", "1", "2"].map(str::to_owned).to_vec());
        for row in 0..100 {
            builder.push(&[f64::from(row), 1.0], Some("1"), Some(0.5)).unwrap();
        }
        let live = LiveImage {
            model: ModelName::parse("fraud/night").unwrap(),
            image: ImageRef {
                version: Version::parse(version).unwrap(),
                index: Digest::of(version.as_bytes()),
            },
            contract: IoContract::parse(CONTRACT.as_bytes()).unwrap().into(),
            baseline: Some(builder.build().unwrap().into()),
            providers: warmed.providers,
            since: UnixMillis(0),
        };
        self.board.swap(&live.model.clone(), Some(Live::new(live, worker)));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn batch(&self, input: &str, output: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet-agent"));
        command.args(["batch", "--model", "fraud/night", "--rows", "16", "--url", &self.url]);
        command.arg("--input").arg(self.path(input)).arg("--output").arg(self.path(output));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn run(&self, input: &str, output: &str) -> Output {
        let mut command = self.batch(input, output);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// All lines of a job's parts, in order.
    fn lines(&self, output: &str) -> Vec<String> {
        let parts = fs::read_dir(self.path(output)).unwrap().flatten().map(|entry| entry.path());
        let is_part = |path: &PathBuf| {
            path.file_name().unwrap().to_string_lossy().starts_with("part-")
                && path.extension().is_some_and(|kind| kind == "jsonl")
        };
        let mut parts: Vec<_> = parts.filter(is_part).collect();
        parts.sort();
        let text: String = parts.iter().map(|part| fs::read_to_string(part).unwrap()).collect();
        text.lines().map(str::to_owned).collect()
    }

    fn rows_counted(&self) -> u64 {
        let limits = WindowLimits { rows: 1, seconds: 60 };
        let windows = self.board.drain_windows(UnixMillis(1), limits, true);
        windows.iter().map(|window| Profile::decode(&window.profile).unwrap().rows()).sum()
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// The same rows in every form that is taken.
fn write_rows(bench: &Bench, rows: u16) {
    let value = |row: u16| (f32::from(row), f32::from(row) * 0.5);
    let rows: Vec<_> = (0..rows).map(value).collect();
    let lines = |row: fn(&(f32, f32)) -> String| -> String { rows.iter().map(row).collect() };
    let jsonl = lines(|(a, b)| format!("{{\"b\": {b}, \"a\": {a}}}\n"));
    fs::write(bench.path("rows.jsonl"), jsonl.replace("{\"b\": 5,", "\n{\"b\": 5,")).unwrap();
    let csv = lines(|(a, b)| format!("{a},\"{b}\"\n"));
    fs::write(bench.path("rows.csv"), format!("a,b\n{csv}")).unwrap();
    let head =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 2), }}", rows.len());
    let head = format!("{head:<117}\n");
    let elements = rows.iter().flat_map(|(a, b)| [a.to_le_bytes(), b.to_le_bytes()].concat());
    let npy = [b"\x93NUMPY\x01\x00\x76\x00".as_slice(), head.as_bytes()].concat();
    let npy: Vec<_> = npy.into_iter().chain(elements).collect();
    fs::write(bench.path("rows.npz"), npz(&[("rows", &npy)])).unwrap();
    fs::write(bench.path("two.npz"), npz(&[("other", &[0; 9]), ("rows", &npy)])).unwrap();
    fs::write(bench.path("rows.npy"), npy).unwrap();
}

/// An archive as `numpy.savez` writes it.
fn npz(arrays: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut list) = (Vec::new(), Vec::new());
    for (name, array) in arrays {
        let place = u32::try_from(file.len()).unwrap().to_le_bytes();
        let size = u32::try_from(array.len()).unwrap().to_le_bytes();
        let name = format!("{name}.npy");
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        let checksum = crc32fast::hash(array).to_le_bytes();
        let figures = [&[0; 8], checksum.as_slice(), &size, &size, &length].concat();
        let front = [b"PK\x03\x04\x14\0".as_slice(), &figures, &[0; 2], name.as_bytes()];
        file.extend(front.concat());
        file.extend(*array);
        let listed = b"PK\x01\x02\x14\0\x14\0".as_slice();
        list.extend([listed, &figures, &[0; 12], &place, name.as_bytes()].concat());
    }
    let count = u16::try_from(arrays.len()).unwrap().to_le_bytes();
    let sizes = [list.len(), file.len()].map(|size| u32::try_from(size).unwrap().to_le_bytes());
    let end = [b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count, &sizes.concat(), &[0; 2]];
    [file, list, end.concat()].concat()
}

#[tokio::test]
async fn every_row_has_one_line_whatever_the_form_and_profiles_count_them() {
    let bench = Bench::start().await;
    write_rows(&bench, 100);

    for kind in ["jsonl", "csv", "npy", "npz"] {
        let output = bench.run(&format!("rows.{kind}"), kind).await;

        assert!(output.status.success(), "{kind}: {}", told(&output));
        assert!(told(&output).contains("100 rows in 7 parts"), "{}", told(&output));
        assert_eq!(bench.rows_counted(), 100, "{kind}");
        assert!(bench.path(kind).join("done.json").is_file());
    }

    let lines = bench.lines("jsonl");
    assert_eq!(lines.len(), 100);
    let row: Value = serde_json::from_str(&lines[7]).unwrap();
    assert!(row["label"].is_u64() && row["p"].as_array().unwrap().len() == 3, "{row}");
    let rows = |output: &str| -> Vec<Value> {
        bench.lines(output).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(rows("csv"), rows("jsonl"));
    assert_eq!(rows("npy"), rows("jsonl"));
    assert_eq!(rows("npz"), rows("jsonl"));

    let several = bench.run("two.npz", "two").await;
    assert!(told(&several).contains("two.npz: the archive holds several arrays: `other`, `rows`"));
    let named = async |array: &'static str| {
        let mut command = bench.batch("two.npz", "two");
        command.args(["--array", array]);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let one = named("rows").await;
    assert!(one.status.success(), "{}", told(&one));
    assert_eq!(rows("two"), rows("jsonl"));
    let other = named("other").await;
    assert!(told(&other).contains("two.npz: not a .npy file"), "{}", told(&other));
}

/// Killed again and again at whatever moment, in the end it has the lines of a job that was never disturbed, and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_killed_again_and_again_leaves_no_row_out_and_answers_none_twice() {
    let bench = Bench::start().await;
    write_rows(&bench, 4_000);
    let whole = bench.run("rows.jsonl", "whole").await;
    assert!(whole.status.success(), "{}", told(&whole));
    bench.rows_counted();

    let mut kills = 0_u64;
    let parts = |bench: &Bench| bench.lines("killed").len() as u64 / 16;
    fs::create_dir(bench.path("killed")).unwrap();
    loop {
        let before = parts(&bench);
        let mut child = bench.batch("rows.jsonl", "killed").spawn().unwrap();
        // After some more parts, and then at once: each time in the middle of another one.
        let more = 1 + kills * 7 % 23;
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if parts(&bench) >= before + more {
                break None;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        if let Some(status) = ended {
            assert!(status.success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }

    assert!(kills >= 5, "{kills} kills");
    assert_eq!(bench.lines("killed"), bench.lines("whole"));
    // At most the part in flight is asked twice.
    let counted = bench.rows_counted();
    assert!((4_000..=4_000 + 16 * kills).contains(&counted), "{counted} after {kills} kills");
}

#[tokio::test]
async fn a_job_goes_on_only_as_the_same_job() {
    let bench = Bench::start().await;
    write_rows(&bench, 20);
    assert!(bench.run("rows.csv", "out").await.status.success());
    let refused = async |input: &str| {
        let output = bench.run(input, "out").await;
        assert!(!output.status.success());
        told(&output)
    };

    let again = bench.run("rows.csv", "out").await;
    assert!(told(&again).contains("20 rows in 2 parts, 20 of them before"), "{}", told(&again));
    assert!(refused("rows.jsonl").await.contains("a job of another input"));
    bench.serve("2").await;
    assert!(refused("rows.csv").await.contains("a job of another image"));
}

#[tokio::test]
async fn a_row_that_is_refused_is_told_and_leaves_the_parts_before_it() {
    let bench = Bench::start().await;
    write_rows(&bench, 20);
    let good = fs::read_to_string(bench.path("rows.jsonl")).unwrap();
    let refused = async |name: &str, text: &str| {
        fs::write(bench.path(name), text).unwrap();
        let output = bench.run(name, &name.replace('.', "-")).await;
        assert!(!output.status.success());
        told(&output)
    };

    let told = refused("bad.jsonl", &format!("{good}{{\"a\": \"x\"}}\n")).await;
    assert!(told.contains("rows 16 to 20") && told.contains("`\"x\"` is not a FP32"), "{told}");
    assert_eq!(bench.lines("bad-jsonl").len(), 16);
    let told = refused("broken.jsonl", "[1, 2]\n[1,\n").await;
    assert!(told.contains("broken.jsonl, line 2: not JSON"), "{told}");
    let told = refused("rows.xml", "<row/>").await;
    assert!(told.contains("rows come as .jsonl, .csv, .parquet, .npy or .npz"), "{told}");
    assert!(!Path::new(&bench.path("rows-xml")).join("done.json").exists());
}

//! Predictions that devices bring up: whole although everything is killed on the way, in the room that a team has, fetched byte by byte.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sealift_protocol::api::{AuditEntry, BatchResultState, BatchResultView, Page};
use sealift_tests::batch::{begin, ends, fleet, json_lines, lines, predictions};
use sealift_tests::bucket::Bucket;
use sealift_tests::digits::MODEL;
use sealift_tests::fleet::{Options, Server};
use sealift_tests::needs::variable;
use sealift_tests::process::{programs, root, run, write};
use sealift_tests::wait::{Look, until};
use tokio::time::Instant;

/// So many rows that their predictions go up in some dozens of parts.
const ROWS: usize = 40_000;

/// Every row has an answer in this time, on a busy machine.
const ANSWERED: Duration = Duration::from_mins(4);

async fn result(server: &Server, name: &str) -> anyhow::Result<BatchResultView> {
    server.api()?.get(&format!("devices/cam-1/batches/{name}/result")).await
}

/// Fetches a batch's predictions; what they are, or what is said.
fn fetch(server: &Server, name: &str, into: &Path) -> anyhow::Result<String> {
    server.ctl(&["batch", "fetch", name, "--into", &into.display().to_string()])
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn predictions_come_up_whole_although_agent_and_server_are_killed_and_are_fetched()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut server, mut device, open) = fleet(folder.path(), "all", Options::default()).await?;
    let (input, output) = (open.join("rows.jsonl"), open.join("out"));
    write(&input, &json_lines(ROWS)?)?;
    begin(&server, "night", (&input, &output), &["--upload"])?;

    // Without a server every row gets its answer; then parts go up, and both are killed in the middle.
    server.process.kill()?;
    until("every row has an answer", ANSWERED, || async {
        let is_there = output.join("done.json").exists();
        Ok(if is_there { Look::Done(()) } else { Look::NotYet("not yet".to_owned()) })
    })
    .await?;
    server.process.restart()?;
    server.ready().await?;
    let api = server.api()?;
    // Asked without a pause: what has begun to come is all there within a second.
    let begin = Instant::now();
    while api.get::<BatchResultView>("devices/cam-1/batches/night/result").await?.bytes == 0 {
        ensure!(begin.elapsed() < ANSWERED, "nothing comes");
    }
    device.process.kill()?;
    let cut = result(&server, "night").await?;
    ensure!(cut.state == BatchResultState::Coming, "it was over before the kill: {cut:?}");
    let early = fetch(&server, "night", &folder.path().join("early")).unwrap_err().to_string();
    ensure!(early.contains("not here yet"), "{early}");
    server.process.kill()?;
    server.process.restart()?;
    server.ready().await?;
    let kept = result(&server, "night").await?;
    ensure!(kept.bytes == cut.bytes, "{kept:?} after {cut:?}");
    device.process.restart()?;
    device.ready().await?;
    let job = ends(&server, "night", "done")?;
    ensure!(job["answered"] == ROWS && job["brought"]["bytes"] == job["brought"]["size_bytes"]);

    let expected = lines(&output)?;
    ensure!(expected.lines().count() == ROWS, "rows are missing, or there twice");
    fetched(&server, folder.path(), &expected).await?;
    deleted(&server, folder.path()).await
}

/// It comes as it is on the device, also over what lay here of it, and never under its name before it is whole.
async fn fetched(server: &Server, folder: &Path, expected: &str) -> anyhow::Result<()> {
    let half = expected.as_bytes().get(..expected.len() / 2).context("a half")?;
    let long = [expected.as_bytes(), b"more"].concat();
    for (place, lay) in
        [None, Some(half), Some(b"something else"), Some(long.as_slice())].into_iter().enumerate()
    {
        let into = folder.join(format!("fetched-{place}"));
        fs::create_dir_all(&into)?;
        let file = into.join("night-cam-1.jsonl");
        if let Some(lay) = lay {
            fs::write(into.join("night-cam-1.jsonl.part"), lay)?;
        }
        fetch(server, "night", &into)?;
        ensure!(fs::read_to_string(&file)? == expected, "fetched otherwise, {place}");
        ensure!(!into.join("night-cam-1.jsonl.part").exists(), "a part is left, {place}");
        // Again it is there already; another file of its name stays what it is.
        fetch(server, "night", &into)?;
        fs::write(&file, "mine")?;
        let refused = fetch(server, "night", &into).unwrap_err().to_string();
        ensure!(refused.contains("another file") && fs::read_to_string(&file)? == "mine");
    }
    let noted: Page<AuditEntry> = server.api()?.get("audit?action=device.batch-fetch").await?;
    ensure!(noted.items.len() == 1, "one look of one person: {:?}", noted.items);
    Ok(())
}

async fn deleted(server: &Server, folder: &Path) -> anyhow::Result<()> {
    server.ctl(&["batch", "delete", "night", "--device", "cam-1"])?;
    let gone = fetch(server, "night", &folder.join("gone")).unwrap_err().to_string();
    ensure!(gone.contains("no device has brought up"), "{gone}");
    let noted: Page<AuditEntry> = server.api()?.get("audit?action=device.batch-delete").await?;
    ensure!(noted.items.len() == 1, "{:?}", noted.items);
    Ok(())
}

#[tokio::test]
#[ignore = "needs ONNX Runtime and S3 store"]
async fn a_team_has_so_much_room_in_an_object_store_and_what_is_deleted_makes_some()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let bucket = Bucket::start(folder.path()).await?;
    let extra = format!("[retention]\nbatch_team_mb = 1\n{}", Bucket::section("results"));
    let environment = bucket.environment();
    let options = Options { extra, environment, ..Options::default() };
    let (server, _device, open) = fleet(folder.path(), "all", options).await?;
    let rows = open.join("rows.jsonl");
    write(&rows, &json_lines(4_000)?)?;

    begin(&server, "one", (&rows, &open.join("one")), &["--upload"])?;
    let job = ends(&server, "one", "done")?;
    let digest = job["brought"]["digest"].as_str().context("a digest")?;
    let hex = digest.trim_start_matches("sha256:");
    let stored = bucket.objects("results").await?;
    ensure!(stored.iter().any(|name| name.ends_with(hex)), "{digest} is not in {stored:?}");
    ensure!(!stored.iter().any(|name| name.contains("uploads")), "parts are left: {stored:?}");
    let into = folder.path().join("fetched");
    fetch(&server, "one", &into)?;
    ensure!(fs::read_to_string(into.join("one-cam-1.jsonl"))? == lines(&open.join("one"))?);

    begin(&server, "two", (&rows, &open.join("two")), &["--upload"])?;
    let full = ends(&server, "two", "failed")?;
    let why = full["reason"].as_str().unwrap_or_default().to_owned();
    ensure!(why.contains("team vision may keep 1 MiB") && why.contains("batch delete"), "{why}");
    let page: Page<BatchResultView> = server.api()?.get("batches?limit=1").await?;
    ensure!(page.items.len() == 1 && page.total == 2, "{} in all", page.total);
    server.ctl(&["batch", "delete", "one", "--device", "cam-1"])?;
    // What was answered stays: under another name only the way up is left.
    begin(&server, "three", (&rows, &open.join("two")), &["--upload"])?;
    ends(&server, "three", "done")?;
    let here = result(&server, "three").await?;
    ensure!(here.state == BatchResultState::Here, "{here:?}");
    Ok(())
}

/// Compares a Parquet file with the lines of JSON of the same predictions: names, types, and every value.
const COMPARED: &str = "import json, sys, numpy as np, pyarrow as pa, pyarrow.parquet as pq\n\
    table = pq.read_table(sys.argv[1])\n\
    rows = [json.loads(line) for line in open(sys.argv[2])]\n\
    assert table.num_rows == len(rows), (table.num_rows, len(rows))\n\
    assert set(table.column_names) == set(rows[0]), (table.schema, rows[0])\n\
    assert table.schema.field('label').type == pa.int64(), table.schema\n\
    scores = table.schema.field('probabilities').type\n\
    assert pa.types.is_list(scores) and scores.value_type == pa.float32(), table.schema\n\
    for name in table.column_names:\n\
    \u{20}   for got, row in zip(table[name].to_pylist(), rows):\n\
    \u{20}       want = row[name]\n\
    \u{20}       if isinstance(want, list):\n\
    \u{20}           got, want = np.float32(got).tolist(), np.float32(want).tolist()\n\
    \u{20}       assert got == want, (name, got, want)\n\
    print(table.num_rows, 'equal')\n";

fn same(parquet: &Path, output: &Path) -> anyhow::Result<()> {
    let json = output.with_extension("lines");
    write(&json, &lines(output)?)?;
    let mut python = Command::new(variable("SEALIFT_DRIFT_PYTHON")?);
    let compared = python.args(["-c", COMPARED]).arg(parquet).arg(&json).output()?;
    let told = String::from_utf8_lossy(&compared.stderr).into_owned();
    ensure!(compared.status.success(), "{} differs: {told}", parquet.display());
    Ok(())
}

#[tokio::test]
#[ignore = "needs ONNX Runtime and drift detectors"]
async fn predictions_become_a_typed_parquet_file_also_after_a_kill() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (server, device, open) = fleet(folder.path(), "all", Options::default()).await?;
    let rows = open.join("rows.jsonl");
    write(&rows, &json_lines(3_000)?)?;
    let more = ["--upload", "--format", "parquet", "--rows", "100"];
    begin(&server, "table", (&rows, &open.join("table")), &more)?;
    ends(&server, "table", "done")?;
    same(&open.join("table/predictions.parquet"), &open.join("table"))?;
    let into = folder.path().join("fetched");
    fetch(&server, "table", &into)?;
    same(&into.join("table-cam-1.parquet"), &open.join("table"))?;

    // What a kill leaves behind: half a file beside, some parts, no end.
    let here = open.join("local");
    let path = |path: &Path| path.display().to_string();
    let (store, input, output) = (path(&device.store), path(&rows), path(&here));
    let words = [
        ["batch", "--store", &store, "--model", MODEL, "--rows", "100"].as_slice(),
        &["--input", &input, "--output", &output, "--format", "parquet"],
    ]
    .concat();
    run("fleet-agent", &words, &[])?;
    let whole = fs::read(here.join("predictions.parquet"))?;
    let expected = predictions(&here)?;
    fs::write(here.join("predictions.parquet.new"), whole.get(..whole.len() / 2).context("half")?)?;
    fs::remove_file(here.join("predictions.parquet"))?;
    fs::remove_file(here.join("done.json"))?;
    fs::remove_file(here.join("part-00000029.jsonl"))?;
    let told = run("fleet-agent", &words, &[])?;
    ensure!(told.contains("2900 of them before"), "{told}");
    ensure!(predictions(&here)? == expected, "after a kill there are other rows");
    same(&here.join("predictions.parquet"), &here)
}

/// Writes digits in an encoding over which the decoder panics when it is damaged, and without a codec that would notice before.
const PARQUET: &str = "import sys, pandas as pd\n\
    frame = pd.read_csv(sys.argv[1]).drop(columns=['label']).astype('int64').head(300)\n\
    coded = {name: 'DELTA_BINARY_PACKED' for name in frame.columns}\n\
    frame.to_parquet(sys.argv[2], compression='none', use_dictionary=False,\n\
    \u{20}                column_encoding=coded, row_group_size=150)\n";

/// Places in a file at which a byte is flipped.
const FLIPS: usize = 150;

#[tokio::test]
#[ignore = "needs ONNX Runtime and drift detectors"]
async fn a_damaged_parquet_file_is_told_wherever_a_byte_is_flipped() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (_server, device, _) = fleet(folder.path(), "none", Options::default()).await?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    let data = root().join("tests/fixtures/digits/data/holdout.csv");
    let mut python = Command::new(variable("SEALIFT_DRIFT_PYTHON")?);
    let written = python.args(["-c", PARQUET]).arg(data).arg(at("rows")).status()?;
    ensure!(written.success(), "no Parquet: {written}");
    let store = device.store.display().to_string();
    let good = fs::read(at("rows"))?;
    let batch = ["batch", "--store", &store, "--model", MODEL, "--output", "X", "--input"];
    for (program, words) in [
        ("fleetctl", ["model", "baseline", "--file", "X", "--data"].as_slice()),
        ("fleet-agent", &batch),
    ] {
        let (mut refused, mut panics) = (0, 0);
        for flip in 0..FLIPS {
            let place = flip * good.len() / FLIPS;
            let mut bad = good.clone();
            *bad.get_mut(place).context("a byte")? ^= 0xff;
            let damaged = at(&format!("{program}-{flip}.parquet"));
            fs::write(&damaged, &bad)?;
            let into = at(&format!("{program}-{flip}.out"));
            let words = words.iter().map(|word| if *word == "X" { into.as_str() } else { word });
            let mut command = Command::new(programs()?.join(program));
            let output = command.args(words).arg(&damaged).output()?;
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            let what = format!("byte {place}, {program}, {}: {told}", output.status);
            ensure!(!told.contains("panicked") && !told.contains("RUST_BACKTRACE"), "{what}");
            if output.status.success() {
                continue; // a byte that says nothing of the rows, or a value that is another now
            }
            ensure!(output.status.code() == Some(1) && told.contains(&damaged), "{what}");
            refused += 1;
            panics += usize::from(told.contains("is damaged: a page"));
        }
        ensure!(refused > FLIPS / 4, "{program}: only {refused} of {FLIPS} were refused");
        ensure!(panics > 0, "{program}: no panic of the decoder was told");
    }
    Ok(())
}

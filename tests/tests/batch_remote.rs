//! Batches that operators ask a device for: over files that lie on it, in directories that its owner has opened, each row exactly once.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use sealift_tests::batch::{self, ends, fleet, json_lines, predictions, show};
use sealift_tests::digits::MODEL;
use sealift_tests::fleet::{Options, Server};
use sealift_tests::needs::variable;
use sealift_tests::process::{run, write};
use sealift_tests::story::SOON;
use sealift_tests::wait::{Look, until};
use serde_json::Value;

/// Rows of the file, and of one part: so many that the agent is killed before the last.
const ROWS: usize = 6_000;
const PART_ROWS: usize = 4;

fn begin(server: &Server, name: &str, input: &Path, output: &Path) -> anyhow::Result<Value> {
    batch::begin(server, name, (input, output), &["--rows", &PART_ROWS.to_string()])
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_batch_goes_on_after_the_agent_was_killed_and_has_each_row_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (server, mut device, open) = fleet(folder.path(), "all", Options::default()).await?;
    let (input, output) = (open.join("rows.jsonl"), open.join("night/out"));
    write(&input, &json_lines(ROWS)?)?;

    let begun = begin(&server, "night", &input, &output)?;
    ensure!(begun[0]["job"]["run"]["name"] == "night", "{begun}");
    until("some parts are there", SOON, || async {
        let is_there = output.join("part-00000005.jsonl").exists();
        Ok(if is_there { Look::Done(()) } else { Look::NotYet("none".to_owned()) })
    })
    .await?;
    device.process.kill()?;
    ensure!(!output.join("done.json").exists(), "the job was over before the agent was killed");
    device.process.restart()?;
    device.ready().await?;
    let job = ends(&server, "night", "done")?;
    ensure!(job["answered"] == ROWS, "{job}");

    let local = folder.path().join("local");
    let path = |path: &Path| path.display().to_string();
    let (store, rows) = (path(&device.store), PART_ROWS.to_string());
    let here = ["batch", "--store", &store, "--model", MODEL, "--rows", &rows];
    let files = ["--input", &path(&input), "--output", &path(&local)];
    run("fleet-agent", &[here.as_slice(), &files].concat(), &[])?;
    let (found, expected) = (predictions(&output)?, predictions(&local)?);
    ensure!(found.len() == ROWS && found == expected, "other predictions than beside the device");

    // Asked for again by the same name it is the same job, and another by that name is none.
    let again = begin(&server, "night", &input, &output)?;
    ensure!(again[0]["job"]["state"] == "done", "{again}");
    let other = begin(&server, "night", &input, &open.join("other")).unwrap_err().to_string();
    ensure!(other.contains("another job"), "{other}");
    let audit = server.ctl(&["audit", "list"])?;
    ensure!(audit.contains("device.batch-run") && audit.contains("night"), "{audit}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_batch_touches_nothing_beyond_what_the_owner_has_opened_and_can_be_ended()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (server, _device, open) = fleet(folder.path(), "all", Options::default()).await?;
    let (good, out) = (open.join("rows.jsonl"), open.join("out"));
    write(&good, &json_lines(ROWS)?)?;
    write(&folder.path().join("secret.jsonl"), &json_lines(1)?)?;
    symlink(folder.path(), open.join("link"))?;
    symlink(folder.path().join("secret.jsonl"), open.join("secret.jsonl"))?;
    for (input, output) in [
        (folder.path().join("secret.jsonl"), out.clone()),
        (open.join("../secret.jsonl"), out.clone()),
        (open.join("link/secret.jsonl"), out.clone()),
        (open.join("secret.jsonl"), out.clone()),
        (PathBuf::from("/etc/hostname"), out.clone()),
        (good.clone(), folder.path().join("elsewhere")),
        (good.clone(), open.join("link/elsewhere")),
        (good.clone(), open.join("../elsewhere")),
    ] {
        let refused = begin(&server, "bad", &input, &output).unwrap_err().to_string();
        ensure!(refused.contains("the device says"), "{}: {refused}", input.display());
    }
    ensure!(!folder.path().join("elsewhere").exists(), "something was made elsewhere");
    let jobs = server.ctl_json(&["batch", "list", "--device", "cam-1"])?;
    ensure!(jobs.as_array().is_some_and(Vec::is_empty), "{jobs}");

    begin(&server, "long", &good, &out)?;
    server.ctl(&["batch", "cancel", "long", "--device", "cam-1"])?;
    ensure!(show(&server, "long")?["state"] == "cancelled", "it goes on");

    write(&open.join("broken.jsonl"), "no json\n")?;
    begin(&server, "broken", &open.join("broken.jsonl"), &open.join("broken"))?;
    let job = ends(&server, "broken", "failed")?;
    ensure!(job["reason"].as_str().is_some_and(|why| why.contains("line 1")), "{job}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn a_batch_takes_the_owners_word() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (server, _device, open) = fleet(folder.path(), "diagnose", Options::default()).await?;
    write(&open.join("rows.jsonl"), &json_lines(1)?)?;
    let refused = begin(&server, "no", &open.join("rows.jsonl"), &open.join("out")).unwrap_err();
    ensure!(refused.to_string().contains("remote_requests = \"all\""), "{refused}");
    ensure!(!open.join("out").exists(), "something was written");
    Ok(())
}

/// Writes digits as pyarrow does, with some small row groups.
const PARQUET: &str = "import sys, pandas as pd\n\
    frame = pd.read_csv(sys.argv[1]).drop(columns=['label']).astype('float32')\n\
    frame = pd.concat([frame] * 4, ignore_index=True)\n\
    frame.to_json(sys.argv[2] + '.jsonl', orient='records', lines=True, double_precision=15)\n\
    frame.to_parquet(sys.argv[2] + '.parquet', compression='zstd', row_group_size=101)\n";

#[tokio::test]
#[ignore = "needs ONNX Runtime and drift detectors"]
async fn parquet_is_answered_as_json_lines_are_also_after_it_was_broken_off() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let (_server, device, open) = fleet(folder.path(), "none", Options::default()).await?;
    let data = sealift_tests::process::root().join("tests/fixtures/digits/data/holdout.csv");
    let mut python = Command::new(variable("SEALIFT_DRIFT_PYTHON")?);
    let written = python.args(["-c", PARQUET]).arg(data).arg(open.join("rows")).status()?;
    ensure!(written.success(), "no Parquet: {written}");
    let batch = |file: &str, output: &Path| {
        let (store, input) = (device.store.display().to_string(), open.join(file));
        let (input, output) = (input.display().to_string(), output.display().to_string());
        let here = ["batch", "--store", &store, "--model", MODEL, "--rows", "16"];
        run(
            "fleet-agent",
            &[here.as_slice(), &["--input", &input, "--output", &output]].concat(),
            &[],
        )
    };
    let (of_json, of_parquet) = (open.join("json"), open.join("parquet"));
    batch("rows.jsonl", &of_json)?;
    batch("rows.parquet", &of_parquet)?;
    let expected = predictions(&of_json)?;
    ensure!(predictions(&of_parquet)? == expected, "Parquet is answered otherwise");

    // What a kill leaves behind: some parts, and no end.
    for part in 7..predictions(&of_parquet)?.len().div_ceil(16) {
        fs::remove_file(of_parquet.join(format!("part-{part:08}.jsonl")))?;
    }
    fs::remove_file(of_parquet.join("done.json"))?;
    let told = batch("rows.parquet", &of_parquet)?;
    ensure!(told.contains("112 of them before"), "{told}");
    ensure!(predictions(&of_parquet)? == expected, "after a kill there are other rows");
    Ok(())
}

/// Writes the rows of a file of lines of JSON into an archive, beside an array of something else.
const ARCHIVE: &str = "import json, sys, numpy as np\n\
    rows = [json.loads(line) for line in open(sys.argv[1])]\n\
    np.savez(sys.argv[2], other=np.arange(9), rows=np.array(rows, dtype='float32'))\n";

#[tokio::test]
#[ignore = "needs ONNX Runtime and drift detectors"]
async fn of_an_archive_of_several_arrays_the_one_that_is_named_is_answered() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (server, device, open) = fleet(folder.path(), "all", Options::default()).await?;
    let (lines, archive) = (open.join("rows.jsonl"), open.join("rows.npz"));
    write(&lines, &json_lines(40)?)?;
    let mut python = Command::new(variable("SEALIFT_DRIFT_PYTHON")?);
    let written = python.args(["-c", ARCHIVE]).args([&lines, &archive]).status()?;
    ensure!(written.success(), "no archive: {written}");

    let of = ["--array", "rows"];
    let begun = batch::begin(&server, "named", (&archive, &open.join("named")), &of)?;
    ensure!(begun[0]["job"]["run"]["array"] == "rows", "{begun}");
    ends(&server, "named", "done")?;
    let told = server.ctl(&["batch", "show", "named", "--device", "cam-1"])?;
    ensure!(told.contains("rows.npz, array `rows`"), "{told}");

    let path = |path: &Path| path.display().to_string();
    let (store, local) = (path(&device.store), open.join("local"));
    let here = ["batch", "--store", &store, "--model", MODEL];
    let files = ["--input", &path(&lines), "--output", &path(&local)];
    run("fleet-agent", &[here.as_slice(), &files].concat(), &[])?;
    let (found, expected) = (predictions(&open.join("named"))?, predictions(&local)?);
    ensure!(found.len() == 40 && found == expected, "the array is answered otherwise");

    for (name, of, why) in [
        ("unnamed", [].as_slice(), "several arrays: `other`, `rows`"),
        ("none", &["--array", "rowz"], "no array `rowz`"),
    ] {
        batch::begin(&server, name, (&archive, &open.join(name)), of)?;
        let job = ends(&server, name, "failed")?;
        ensure!(job["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{job}");
    }
    Ok(())
}

//! Files of rows as the tools of people who train models write them: one baseline and one replay of the same rows, whatever they are in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use sealift_tests::needs::variable;
use sealift_tests::process::{programs, root};

/// The same table, as CSV, JSON Lines, Parquet and an array of records.
const TABLES: [&str; 16] = [
    "indexed.csv",
    "semicolon.csv",
    "marked.csv",
    "tabs.tsv",
    "rows.jsonl",
    "pandas.parquet",
    "indexed.parquet",
    "none.parquet",
    "snappy.parquet",
    "gzip.parquet",
    "zstd.parquet",
    "lz4.parquet",
    "dictionary.parquet",
    "plain-pages.parquet",
    "types.parquet",
    "records.npy",
];

/// The same numbers.
const ARRAYS: [&str; 7] = [
    "matrix.npy",
    "fortran.npy",
    "big.npy",
    "double.npy",
    "matrix.parquet",
    "stored.npz",
    "packed.npz",
];

/// What is no table, and what is said of it.
const REFUSED: [(&str, &str); 13] = [
    ("nested.parquet", "column `tags` cannot be watched: it holds lists, maps or records"),
    ("empty.parquet", "no rows below the head"),
    ("cut.parquet", "not a whole Parquet file"),
    ("damaged.parquet", "row group"),
    ("objects.npy", "elements of type `|O` are not taken"),
    ("many.npz", "several arrays: `labels`, `rows`\nhelp: --array says which"),
    ("cut.npy", "was it cut off?"),
    ("rows.csv.pkl", "it is a pickle"),
    ("latin.csv", "is not UTF-8"),
    ("wide.csv", "UTF-16"),
    ("packed.csv", "compressed with gzip"),
    ("none.csv", "cannot read the rows"),
    (".", "directory"),
];

#[test]
#[ignore = "needs drift detectors"]
fn files_of_pandas_pyarrow_and_numpy_make_one_baseline_and_one_replay() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut python = Command::new(variable("SEALIFT_DRIFT_PYTHON")?);
    python.arg(root().join("tests/interop/formats.py")).arg(folder.path());
    succeed(&mut python)?;
    let at = |name: &str| folder.path().join(name);

    for (first, others) in [("plain.csv", TABLES.as_slice()), ("matrix.csv", ARRAYS.as_slice())] {
        let expected = baseline(&at(first), &[])?;
        for other in others {
            ensure!(baseline(&at(other), &[])? == expected, "{other} makes another baseline");
        }
        let expected = replay(&at(first), &at(first))?;
        ensure!(expected.contains("\"verdict\""), "{expected}");
        for other in others {
            let told = replay(&at(other), &at(first))?;
            ensure!(told == expected, "{other} is judged otherwise");
            ensure!(replay(&at(first), &at(other))? == expected, "{other} judges otherwise");
        }
    }
    let rows = baseline(&at("many.npz"), &["--array", "rows"])?;
    ensure!(rows == baseline(&at("matrix.csv"), &[])?, "an array of several is another one");
    Ok(())
}

#[test]
#[ignore = "needs drift detectors"]
fn what_is_no_column_is_set_aside_and_what_is_no_table_is_told() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut python = Command::new(variable("SEALIFT_DRIFT_PYTHON")?);
    python.arg(root().join("tests/interop/formats.py")).arg(folder.path());
    succeed(&mut python)?;
    let at = |name: &str| folder.path().join(name);

    let types = at("types.toml");
    let text = types.display().to_string();
    baseline(&at("times.parquet"), &["--write-types", &text])?;
    let guess = fs::read_to_string(&types)?;
    for (column, kind) in [
        ("size", "numeric"),
        ("colour", "categorical"),
        ("at", "ignore"),
        ("day", "ignore"),
        ("clock", "ignore"),
        ("row_id", "ignore"),
        ("blob", "ignore"),
        ("nothing", "ignore"),
    ] {
        ensure!(guess.contains(&format!("\"{column}\" = \"{kind}\"")), "{column}: {guess}");
    }
    fs::write(&types, guess.replace("\"colour\" = \"categorical\"", "\"colour\" = \"ignore\""))?;
    let corrected = baseline(&at("times.parquet"), &["--types", &text])?;
    ensure!(corrected != baseline(&at("times.parquet"), &[])?, "the correction does nothing");

    for (name, expected) in REFUSED {
        let output = fleetctl(&at(name), &at("x.cbor"), &[])?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && told.contains(expected), "{name}: {told}");
        ensure!(!told.contains("panicked"), "{name}: {told}");
    }
    fs::write(&types, "tags = \"ignore\"\nwhere = \"ignore\"\n")?;
    baseline(&at("nested.parquet"), &["--types", &text])?;
    Ok(())
}

fn fleetctl(data: &Path, into: &Path, more: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(programs()?.join("fleetctl"));
    command.args(["model", "baseline", "--data"]).arg(data).arg("--file").arg(into).args(more);
    command.output().context("cannot start fleetctl")
}

fn baseline(data: &Path, more: &[&str]) -> anyhow::Result<Vec<u8>> {
    let into: PathBuf = data.with_extension("cbor");
    let output = fleetctl(data, &into, more)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {told}", data.display());
    Ok(fs::read(into)?)
}

fn replay(reference: &Path, rows: &Path) -> anyhow::Result<String> {
    let mut command = Command::new(programs()?.join("fleetctl"));
    command.args(["drift", "replay", "--window", "200", "-o", "json", "--baseline"]);
    succeed(command.arg(reference).arg("--data").arg(rows))
}

fn succeed(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (told, errors) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{command:?} {}:\n{told}\n{errors}", output.status);
    Ok(told)
}

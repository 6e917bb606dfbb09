//! `fleetctl model baseline`: of reference rows, or of what a version has seen in production.

mod production;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use sealift_protocol::api::SeenTake;
use sealift_protocol::id::{ModelName, UnixMillis, Version};
use sealift_protocol::image::IoContract;
use sealift_protocol::profile::{PHASES_MAX, Season};
use serde::Serialize;

use crate::baseline::types::{self, Types};
use crate::baseline::{Made, Reference};
use crate::cli::{model_version, moment};
use crate::client::Client;
use crate::output::{Output, note};

/// Phases of a season.
#[expect(clippy::cast_possible_wrap, reason = "some thousand")]
const SEASON_MAX: i64 = PHASES_MAX as i64;

/// What to make a baseline of, and where to write it.
#[derive(Debug, Args)]
pub(crate) struct MakeBaseline {
    /// Reference rows: CSV, JSON Lines, Parquet, .npy or .npz; `prediction` and `confidence` are taken where they are there. Or a folder of PNG and JPEG pictures, with those in it.
    #[arg(long, required_unless_present = "from_production")]
    data: Option<PathBuf>,
    /// Of an .npz archive with several arrays: which one has the rows.
    #[arg(long, value_name = "NAME", requires = "data")]
    array: Option<String>,
    /// Of a folder: refuses it where a picture cannot be read, which is otherwise named and left out.
    #[arg(long, requires = "data")]
    strict: bool,
    /// In place of rows, what this version has seen in the field: `team/name@version`.
    #[arg(long, value_name = "MODEL@VERSION", value_parser = model_version, requires_all = ["since", "file"],
          conflicts_with_all = ["data", "contract", "types", "write_types", "season"])]
    from_production: Option<(ModelName, Version)>,
    /// Begin of what it has seen: a moment such as `2026-05-01T00:00:00Z`, or `7d ago`.
    #[arg(long, requires = "from_production", value_parser = moment)]
    since: Option<UnixMillis>,
    /// End of it; now if not given.
    #[arg(long, requires = "from_production", value_parser = moment)]
    until: Option<UnixMillis>,
    /// Only what these devices have seen, such as `site:osaka`.
    #[arg(short = 'l', long, requires = "from_production")]
    filter: Option<String>,
    /// Why; kept in the audit log.
    #[arg(long, requires = "from_production")]
    reason: Option<String>,
    /// The I/O contract that names the features; without it every column that can be watched is one.
    #[arg(long)]
    contract: Option<PathBuf>,
    /// Where to write the baseline.
    #[arg(short = 'f', long = "file", required_unless_present = "write_types")]
    file: Option<PathBuf>,
    /// Corrects what columns are taken for: lines such as `colour = "categorical"`.
    #[arg(long, value_name = "FILE")]
    types: Option<PathBuf>,
    /// Writes what columns are taken for, to be corrected and given back as `--types`.
    #[arg(long, value_name = "FILE")]
    write_types: Option<PathBuf>,
    /// Phases of a season, such as 24 hours that make a day; rows are in the order of time and begin with the first phase, which is the one at 00:00 UTC.
    #[arg(long, value_name = "PHASES", requires_all = ["phase_rows", "phase_seconds"],
          value_parser = clap::value_parser!(u64).range(2..=SEASON_MAX as u64))]
    season: Option<u64>,
    /// Rows of one phase in the reference.
    #[arg(long, value_name = "N", requires = "season", value_parser = clap::value_parser!(u64).range(1..))]
    phase_rows: Option<u64>,
    /// How long a phase lasts.
    #[arg(long, value_name = "SECONDS", requires = "season", value_parser = clap::value_parser!(i64).range(1..=31_536_000))]
    phase_seconds: Option<i64>,
}

/// What was made.
#[derive(Serialize)]
struct Written {
    file: PathBuf,
    rows: u64,
    features: Vec<String>,
    classes: usize,
    phases: usize,
    bytes: usize,
    /// Columns that are not watched, and why.
    ignored: Vec<(String, &'static str)>,
    /// Pictures that could not be read.
    skipped: usize,
}

impl MakeBaseline {
    fn season(&self) -> Option<Season> {
        let (phases, rows, seconds) = (self.season?, self.phase_rows?, self.phase_seconds?);
        let phases = usize::try_from(phases).unwrap_or(PHASES_MAX);
        Some(Season { rows, phases, phase_ms: seconds * 1_000 })
    }
}

/// Makes a baseline and writes it. `connect` is called only for what was seen in the field.
pub(crate) async fn run(
    connect: impl Fn() -> anyhow::Result<Client>,
    output: Output,
    make: &MakeBaseline,
) -> anyhow::Result<()> {
    match &make.from_production {
        Some((model, version)) => {
            let asked = SeenTake {
                from: make.since.unwrap_or(UnixMillis(0)),
                until: make.until,
                filter: make.filter.clone().unwrap_or_default(),
                reason: make.reason.clone().unwrap_or_default(),
            };
            let file = make.file.as_deref().context("--file says where to write the baseline")?;
            production::run(&connect()?, output, (model, version), &asked, file).await
        }
        None => of_rows(output, make),
    }
}

fn of_rows(output: Output, make: &MakeBaseline) -> anyhow::Result<()> {
    let data = make.data.as_deref().context("--data names the reference rows")?;
    let contract = make.contract.as_deref().map(contract).transpose()?;
    let types = make.types.as_deref().map_or_else(|| Ok(Types::new()), types::read)?;
    let season = make.season();
    let (contract, is_strict) = (contract.as_ref(), make.strict);
    let array = make.array.as_deref();
    let reference = Reference { data, array, contract, types: &types, season, is_strict };
    if let Some(file) = &make.write_types {
        let text = types::text(&reference.rows()?, &types);
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        note(&format!("{}: correct it and give it back as --types", file.display()));
    }
    let Some(file) = &make.file else { return Ok(()) };
    let Made { baseline, ignored, skipped } = reference.make()?;
    for (column, why) in &ignored {
        note(&format!("column `{column}` is not watched: {why}"));
    }
    let bytes = baseline.encode()?;
    fs::write(file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
    let features = baseline.features().iter().map(|feature| feature.name.clone()).collect();
    let written = Written {
        file: file.clone(),
        rows: baseline.rows(),
        features,
        classes: baseline.classes().len(),
        phases: baseline.phases().len(),
        bytes: bytes.len(),
        ignored,
        skipped,
    };
    output.text(&written, |written| {
        let (features, rows) = (written.features.len(), written.rows);
        format!("{}: {features} features of {rows} rows, {} bytes", file.display(), written.bytes)
    })
}

fn contract(path: &Path) -> anyhow::Result<IoContract> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    IoContract::parse(&bytes).with_context(|| format!("{}", path.display()))
}

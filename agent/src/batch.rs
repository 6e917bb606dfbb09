//! A file's rows through a model that this device serves: `fleet-agent batch`.
//!
//! ```text
//!  input ── chunks of rows ──▶ the agent's own endpoint ──▶ part-00000000.jsonl, part-00000001.jsonl, … ──▶ done.json
//! ```
//! The agent answers as it answers applications, so that profiles, metrics and limits see every row. A part is whole or is not there: it is
//! written beside, flushed, and renamed. Killed anywhere and started again, a job goes on with the first part that is not there, and no
//! row is answered twice or left out.

mod ask;
pub(crate) mod fence;
mod input;
mod job;
mod report;
#[cfg(feature = "parquet")]
mod table;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealift_protocol::request::BatchFormat;
#[cfg(feature = "parquet")]
use sealift_protocol::table::parquet::{Damaged, on_damage};
use tokio::time::Instant;

use ask::Model;
use input::Input;
use job::{Directory, Done, Job};

pub use ask::AskError;
pub use input::InputError;
pub use job::JobError;
pub(crate) use report::News;
pub use report::report;

/// How often progress is told: on a terminal, and in a log.
const TOLD_EVERY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// Rows and Unix socket of a batch, as the command line has them.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Directory of the device, whose agent runs
    #[arg(long, required_unless_present = "url")]
    store: Option<PathBuf>,
    /// Where models are reached, in place of what the agent says
    #[arg(long)]
    url: Option<String>,
    /// The model, as team/name
    #[arg(long)]
    model: String,
    /// Rows: .jsonl, .csv, .parquet, .npy or .npz
    #[arg(long)]
    input: PathBuf,
    /// Of an .npz archive with several arrays: which one has the rows
    #[arg(long, value_name = "NAME")]
    array: Option<String>,
    /// Directory for the predictions; where a job was broken off, it goes on
    #[arg(long)]
    output: PathBuf,
    /// Rows of one request, and of one part of the output
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    rows: u32,
    /// The first line of CSV is a row
    #[arg(long)]
    no_header: bool,
    /// What the predictions are written as: parquet puts all of them into one file, beside the parts
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Say how it goes in lines of JSON, for the agent
    #[arg(long, hide = true)]
    report: bool,
}

/// What predictions are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// A line of JSON for each row, in parts
    #[default]
    Jsonl,
    /// Typed columns, in one file
    Parquet,
}

/// Why a batch was not finished. It can be started again.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// No agent has run there.
    #[error("cannot find the agent: {0}; is it running?")]
    NoAgent(String),
    /// The input is not what its name says.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The output cannot be written, or is another job's.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The model does not answer.
    #[error("rows {from} to {until}")]
    Ask {
        /// The first row of the request, from 0.
        from: u64,
        /// The last row of the request.
        until: u64,
        /// What is wrong.
        #[source]
        source: AskError,
    },
    /// The model cannot be asked at all.
    #[error(transparent)]
    Model(#[from] AskError),
    /// The predictions do not become a table.
    #[cfg(feature = "parquet")]
    #[error("cannot write {}", file_name(BatchFormat::Parquet))]
    Table(#[from] table::NoTable),
    /// The agent was built without what writes it.
    #[cfg(not(feature = "parquet"))]
    #[error(
        "this agent is the small build, which writes no Parquet; take --format jsonl, or install the standard build"
    )]
    NoParquet,
}

/// What a batch has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Rows of the input, each with a line in the output.
    pub rows: u64,
    /// Of these, the ones that were answered before.
    pub rows_before: u64,
    /// Files of the output.
    pub parts: u64,
}

impl Arguments {
    /// Whether the agent has started it, and reads what it says.
    pub const fn is_reported(&self) -> bool {
        self.report
    }
}

/// Answers every row that has no answer yet.
pub async fn run(arguments: &Arguments) -> Result<Summary, BatchError> {
    #[cfg(feature = "parquet")]
    on_damage(damaged);
    run_with(arguments, |_| ()).await
}

/// Says that the input is damaged, where the decoder cannot go back to say so.
#[cfg(feature = "parquet")]
fn damaged(file: &Damaged) -> ! {
    // Nobody is left to tell if even this cannot be written.
    let _ = writeln!(std::io::stderr(), "error: {file}; {}", Damaged::HELP);
    #[expect(clippy::exit, reason = "in the middle of a panic; after it some builds abort")]
    std::process::exit(1)
}

async fn run_with(arguments: &Arguments, tell: impl Fn(Summary)) -> Result<Summary, BatchError> {
    let url = match &arguments.url {
        Some(url) => url.clone(),
        None => endpoint(arguments.store.as_deref().unwrap_or(Path::new(".")))?,
    };
    let model = Model::find(&url, &arguments.model).await?;
    #[cfg(not(feature = "parquet"))]
    if arguments.format == Format::Parquet {
        return Err(BatchError::NoParquet);
    }
    let array = arguments.array.as_deref();
    let mut input = Input::open(&arguments.input, arguments.no_header, array)?;
    let job = Job::new((&arguments.input, array), model.name(), model.image(), arguments.rows)?;
    let directory = Directory::open(&arguments.output, &job)?;
    let mut progress = Progress::new(&arguments.input);
    let mut summary = Summary { rows: 0, rows_before: 0, parts: 0 };
    let rows_max = usize::try_from(arguments.rows).unwrap_or(usize::MAX);
    while let Some(chunk) = input.next_chunk(rows_max)? {
        let (from, rows) = (summary.rows, chunk.rows as u64);
        summary.rows += rows;
        if directory.has(summary.parts) {
            summary.rows_before += rows;
        } else {
            let until = summary.rows - 1;
            let answered = model.ask(&chunk, job.image()).await;
            let lines = answered.map_err(|source| BatchError::Ask { from, until, source })?;
            directory.write(summary.parts, &lines)?;
        }
        summary.parts += 1;
        progress.tell(summary.rows - summary.rows_before, input.read_bytes());
        tell(summary);
    }
    #[cfg(feature = "parquet")]
    if arguments.format == Format::Parquet {
        table::write(&directory, model.outputs(), summary.parts)?;
    }
    directory.finish(&Done { rows: summary.rows, parts: summary.parts })?;
    Ok(summary)
}

/// The file of all predictions of a job, where they are one file.
pub(crate) fn file_name(format: BatchFormat) -> String {
    format!("predictions.{}", format.extension())
}

/// The file of one part of a job's predictions.
pub(crate) fn part_name(part: u64) -> String {
    format!("part-{part:08}.jsonl")
}

fn endpoint(store: &Path) -> Result<String, BatchError> {
    let status = crate::status::read(store);
    let status = status.map_err(|error| BatchError::NoAgent(error.to_string()))?;
    let none = || BatchError::NoAgent(format!("none has run on {}", store.display()));
    status.endpoint.ok_or_else(none)
}

/// How far a job is, told now and then.
struct Progress {
    begin: Instant,
    told: Instant,
    every: Duration,
    is_terminal: bool,
    bytes: u64,
}

impl Progress {
    fn new(input: &Path) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let [terminal, log] = TOLD_EVERY;
        let every = if is_terminal { terminal } else { log };
        let bytes = std::fs::metadata(input).map_or(0, |metadata| metadata.len());
        Self { begin: Instant::now(), told: Instant::now(), every, is_terminal, bytes }
    }

    fn tell(&mut self, rows: u64, read_bytes: u64) {
        if self.told.elapsed() < self.every {
            return;
        }
        self.told = Instant::now();
        let percent = (read_bytes * 100).checked_div(self.bytes).unwrap_or(100).min(100);
        let rate = rows.checked_div(self.begin.elapsed().as_secs().max(1)).unwrap_or(rows);
        if self.is_terminal {
            // Nobody is left to tell if even this cannot be written.
            let _ = write!(std::io::stderr(), "\r{percent} %, {rows} rows, {rate} rows/s ");
        } else {
            tracing::info!(percent, rows, rate, "batch goes on");
        }
    }
}

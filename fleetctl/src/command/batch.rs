//! `fleetctl batch`: rows that lie on a device, through a model that it serves.

mod fetch;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use sealift_protocol::api::{BatchResultView, DeviceView};
use sealift_protocol::id::{DeviceId, ModelName};
use sealift_protocol::request::{
    BATCH_ROWS_MAX, BatchFormat, BatchJob, BatchRun, BatchState, BatchUpload,
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, note, word};

/// Devices that one command starts a batch on: each is asked by itself, at most once a second.
const DEVICES_MAX: usize = 200;

/// Between two questions: a device answers 30 in a minute, and others ask it, too.
const PAUSE: Duration = Duration::from_secs(3);

/// What passes while somebody waits: the device starts again, or is asked much.
const PASSING: [&str; 3] = ["request.busy", "device.offline", "device.silent"];

#[derive(Debug, Subcommand)]
pub(crate) enum Batch {
    /// Has devices answer the rows of a file that lies on them; each goes on with it after a restart.
    Run(RunBatch),
    /// Lists the batches of a device, the newest last.
    List {
        /// The device.
        #[arg(long)]
        device: DeviceId,
    },
    /// Shows how a batch stands.
    Show {
        /// Its name.
        name: String,
        /// The device.
        #[arg(long)]
        device: DeviceId,
        /// Wait until it is over; exits with 1 if it failed.
        #[arg(long)]
        wait: bool,
        /// Seconds to wait.
        #[arg(long, default_value_t = 3_600, requires = "wait")]
        timeout: u64,
    },
    /// Ends a batch; what it has written stays.
    Cancel {
        /// Its name.
        name: String,
        /// The device.
        #[arg(long)]
        device: DeviceId,
    },
    /// Lists the predictions that devices have brought up, or are to.
    Results {
        /// Only of batches of this name.
        name: Option<String>,
        /// Only of this device.
        #[arg(long)]
        device: Option<DeviceId>,
    },
    /// Fetches predictions that devices have brought up, as a file of each; goes on after a cut, and checks every byte.
    Fetch {
        /// The batch's name.
        name: String,
        /// Only of this device; several may be named.
        #[arg(long)]
        device: Vec<DeviceId>,
        /// The directory here to which they go.
        #[arg(long, value_name = "DIRECTORY")]
        into: PathBuf,
    },
    /// Deletes predictions that a device has brought up; what lies on the device stays.
    Delete {
        /// The batch's name.
        name: String,
        /// The device.
        #[arg(long)]
        device: DeviceId,
    },
}

/// What predictions are written as.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    /// A line of JSON for each row.
    #[default]
    Jsonl,
    /// Typed columns.
    Parquet,
}

/// Which devices, which rows.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whom").required(true).args(["device", "filter"])))]
pub(crate) struct RunBatch {
    /// The device; several may be named.
    #[arg(long)]
    device: Vec<DeviceId>,
    /// All devices that match, such as `site:osaka`.
    #[arg(short = 'l', long)]
    filter: Option<String>,
    /// The model, as `team/name`.
    #[arg(long, value_parser = ModelName::parse)]
    model: ModelName,
    /// The rows on the device, `.jsonl`, `.csv`, `.parquet`, `.npy` or `.npz`, in a directory that its owner has opened.
    #[arg(long, value_name = "PATH")]
    input: String,
    /// Of an `.npz` archive with several arrays: which one has the rows.
    #[arg(long, value_name = "NAME")]
    array: Option<String>,
    /// The directory on the device for predictions, in one that its owner has opened.
    #[arg(long, value_name = "DIRECTORY")]
    into: String,
    /// The batch's own name; asked for twice by one name it is begun once. Made of the time if not given.
    #[arg(long)]
    name: Option<String>,
    /// Rows of one request, and of one part of the output.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_ROWS_MAX)))]
    rows: u32,
    /// The first line of CSV is a row.
    #[arg(long)]
    no_header: bool,
    /// What the predictions are written as.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Have the device also bring the predictions up to the server, for `fleetctl batch fetch`.
    #[arg(long)]
    upload: bool,
}

/// What a device said to a batch.
#[derive(Serialize)]
struct Begun {
    device: DeviceId,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<BatchJob>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

pub(crate) async fn run(client: &Client, output: Output, batch: Batch) -> anyhow::Result<()> {
    match batch {
        Batch::Run(run) => begin(client, output, run).await,
        Batch::List { device } => {
            let jobs = jobs(client, &device).await?;
            output.rows(&jobs, HEAD, jobs.iter().map(line))?;
            if jobs.is_empty() {
                note(&format!("{device} knows of no batch"));
            }
            Ok(())
        }
        Batch::Show { name, device, wait, timeout } => {
            let until = Instant::now() + Duration::from_secs(timeout);
            show(client, output, (&device, &name), wait.then_some(until)).await
        }
        Batch::Cancel { name, device } => {
            let path = format!("devices/{device}/batches/{name}");
            let job: BatchJob = client.delete_for(&path, &[]).await?;
            output.text(&job, text)
        }
        Batch::Results { name, device } => {
            let device = device.map(|device| device.to_string()).unwrap_or_default();
            let query = [("name", name.as_deref().unwrap_or_default()), ("device", &device)];
            let found: Vec<BatchResultView> = client.list("batches", &query).await?;
            output.rows(&found, RESULTS_HEAD, found.iter().map(result_line))
        }
        Batch::Fetch { name, device, into } => {
            fetch::fetch(client, output, (&name, &device), &into).await
        }
        Batch::Delete { name, device } => {
            client.delete(&format!("devices/{device}/batches/{name}/result")).await?;
            note(&format!("predictions of batch {name} by {device} are deleted on the server"));
            Ok(())
        }
    }
}

async fn begin(client: &Client, output: Output, batch: RunBatch) -> anyhow::Result<()> {
    let RunBatch {
        device,
        filter,
        model,
        input,
        array,
        into,
        name,
        rows,
        no_header,
        format,
        upload,
    } = batch;
    let devices = match filter {
        None => device,
        Some(filter) => {
            let found: Vec<DeviceView> = client.list("devices", &[("filter", &filter)]).await?;
            found.into_iter().map(|device| device.id).collect()
        }
    };
    ensure!(!devices.is_empty(), "no device matches");
    ensure!(
        devices.len() <= DEVICES_MAX,
        "{} devices match; at most {DEVICES_MAX} are asked at once",
        devices.len()
    );
    let name = name.unwrap_or_else(|| format!("b-{}", jiff::Timestamp::now().as_millisecond()));
    let format = match format {
        Format::Jsonl => BatchFormat::Jsonl,
        Format::Parquet => BatchFormat::Parquet,
    };
    let run = BatchRun { name, model, input, output: into, rows, no_header, array, format, upload };
    let mut begun = Vec::new();
    for (place, device) in devices.into_iter().enumerate() {
        if place > 0 {
            sleep(PAUSE).await;
        }
        let asked = client.post(&format!("devices/{device}/batches"), &run).await;
        begun.push((device, asked));
    }
    // Of one device the refusal is the command's own, with its exit code.
    if let [(_, asked)] = begun.as_mut_slice()
        && asked.is_err()
    {
        return std::mem::replace(asked, Err(anyhow::anyhow!("refused"))).map(|_: BatchJob| ());
    }
    told(output, &run.name, begun)
}

fn told(
    output: Output,
    name: &str,
    begun: Vec<(DeviceId, anyhow::Result<BatchJob>)>,
) -> anyhow::Result<()> {
    let of_device = |(device, asked): (DeviceId, anyhow::Result<BatchJob>)| match asked {
        Ok(job) => Begun { device, job: Some(job), refused: None },
        Err(error) => Begun { device, job: None, refused: Some(format!("{error:#}")) },
    };
    let begun: Vec<_> = begun.into_iter().map(of_device).collect();
    let rows = begun.iter().map(|Begun { device, job, refused }| {
        let state = job.as_ref().map_or_else(|| "refused".to_owned(), |job| word(job.state));
        let reason = refused.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
        [device.to_string(), name.to_owned(), state, reason.to_owned()]
    });
    output.rows(&begun, ["DEVICE", "BATCH", "STATE", "WHY"], rows)?;
    let refused = begun.iter().filter(|begun| begun.refused.is_some()).count();
    if refused > 0 {
        let what = format!("{refused} of {} devices refused", begun.len());
        return Err(Failure::new(Exit::Failed, what).help("each says why above").into());
    }
    note(&format!("next: fleetctl batch show {name} --device DEVICE --wait"));
    Ok(())
}

const HEAD: [&str; 6] = ["BATCH", "MODEL", "STATE", "ROWS", "INPUT", "WHY"];

const RESULTS_HEAD: [&str; 6] = ["BATCH", "DEVICE", "STATE", "BYTES", "ASKED BY", "KEPT UNTIL"];

fn result_line(view: &BatchResultView) -> [String; 6] {
    let bytes = match view.size_bytes {
        Some(size) if size != view.bytes => format!("{} of {size}", view.bytes),
        Some(_) | None => view.bytes.to_string(),
    };
    let (state, until) = (word(view.state), view.delete_at.to_string());
    [view.name.clone(), view.device.to_string(), state, bytes, view.asked_by.clone(), until]
}

fn line(job: &BatchJob) -> [String; 6] {
    let BatchRun { name, model, input, .. } = &job.run;
    let (state, rows) = (word(job.state), job.answered.to_string());
    [name.clone(), model.to_string(), state, rows, input.clone(), job.reason.clone()]
}

fn text(job: &BatchJob) -> String {
    let BatchRun { name, model, input, output, array, .. } = &job.run;
    let array = array.as_ref().map(|array| format!(", array `{array}`")).unwrap_or_default();
    let brought = |upload: BatchUpload| {
        format!("brought   {} of {} bytes to the server\n", upload.bytes, upload.size_bytes)
    };
    let brought = job.brought.map(brought).unwrap_or_default();
    let why = if job.reason.is_empty() { String::new() } else { format!(": {}", job.reason) };
    format!(
        "{name} of {model}: {}{why}\nrows      {} in {} parts\ninput     {input}{array}\noutput    {output}\n{brought}\
         asked by  {} at {}\nchanged   {}",
        word(job.state),
        job.answered,
        job.parts,
        job.by,
        job.asked_at,
        job.changed_at,
    )
}

async fn jobs(client: &Client, device: &DeviceId) -> anyhow::Result<Vec<BatchJob>> {
    client.get(&format!("devices/{device}/batches"), &[]).await
}

fn passes(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<Failure>().and_then(|failure| failure.code.as_deref());
    code.is_some_and(|code| PASSING.contains(&code))
}

/// Shows a batch; with `until`, as soon as it is over.
async fn show(
    client: &Client,
    output: Output,
    (device, name): (&DeviceId, &str),
    until: Option<Instant>,
) -> anyhow::Result<()> {
    loop {
        let jobs = match jobs(client, device).await {
            Err(error) if until.is_some_and(|until| Instant::now() < until) && passes(&error) => {
                sleep(PAUSE).await;
                continue;
            }
            jobs => jobs?,
        };
        let job = jobs.into_iter().find(|job| job.run.name == name);
        let job = job.with_context(|| {
            format!("{device} knows of no batch `{name}`\nhelp: `fleetctl batch list --device {device}` names all")
        })?;
        let is_over = !matches!(job.state, BatchState::Waiting | BatchState::Running);
        if until.is_none() || is_over {
            output.text(&job, text)?;
            let has_failed = until.is_some() && job.state != BatchState::Done;
            let what =
                || Failure::new(Exit::Failed, format!("batch `{name}` is {}", word(job.state)));
            return if has_failed { Err(what().into()) } else { Ok(()) };
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            let what = format!("batch `{name}` is {} still", word(job.state));
            return Err(Failure::new(Exit::TimedOut, what).help("it goes on by itself").into());
        }
        sleep(PAUSE).await;
    }
}

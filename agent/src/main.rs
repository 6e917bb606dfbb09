//! `fleet-agent`: enrols a device, runs its agent, says how it does.

use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use sealift_agent::batch;
use sealift_agent::claim::{self, Claim};
use sealift_agent::config::Config;
use sealift_agent::drill;
use sealift_agent::enrol::{self, Enrolment};
use sealift_agent::logs::Logs;
use sealift_agent::simulate::Simulation;
use sealift_agent::supervisor::{self, Setup};
use sealift_agent::watchdog::Watchdog;
use sealift_agent::{hold, status, tuf, worker};
use sealift_protocol::id::DeviceId;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Threads that poll tasks: one for the supervisor, one for requests beside it. A device has few cores.
const THREADS: usize = 2;

/// Threads that hash, write and read files.
const FILE_THREADS_MAX: usize = 4;

/// The deepest task needs a fraction of it.
const THREAD_STACK_BYTES: usize = 1 << 20;

/// Runs signed model images on this device.
#[derive(Debug, Parser)]
#[command(name = "fleet-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Gives this device its identity
    Enrol {
        /// Directory of the device
        #[arg(long)]
        store: PathBuf,
        #[command(flatten)]
        by: EnrolBy,
        /// Id that the device would like; with a claim, it may come from the serial number
        #[arg(long)]
        device: Option<DeviceId>,
        /// Gives a device that was enrolled before a new certificate, by a token made for its id
        #[arg(long, conflicts_with = "claim")]
        replace: bool,
    },
    /// Runs the agent until it is told to stop
    Run {
        /// Directory of the device
        #[arg(long)]
        store: PathBuf,
        /// Configuration; agent.toml in the store if not given
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Says what the device serves, and what it does
    Status {
        /// Directory of the device
        #[arg(long)]
        store: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Keeps what the device serves for a while: nothing new is begun, whatever the server says; revoked images go all the same
    Hold {
        /// Directory of the device
        #[arg(long)]
        store: PathBuf,
        /// How long, as 30m, 8h or 2d; at most 30d
        #[arg(long = "for")]
        span: hold::Span,
        /// Why; the server's operators see it
        #[arg(long)]
        reason: String,
    },
    /// Has the device follow its directive again
    Release {
        /// Directory of the device
        #[arg(long)]
        store: PathBuf,
    },
    /// Runs many made-up devices in one process
    Simulate {
        /// Directory that holds one directory for each device
        #[arg(long)]
        store: PathBuf,
        /// Devices' port of the fleet server, as https://host:port
        #[arg(long)]
        url: String,
        /// Token with as many uses as there are devices
        #[arg(long, env = "SEALIFT_ENROL_TOKEN", hide_env_values = true)]
        token: String,
        /// How many devices
        #[arg(long)]
        count: u32,
        /// Their names begin with this
        #[arg(long, default_value = "sim")]
        prefix: String,
        /// Configuration of each of them
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Answers the rows of a file by a model that this device serves
    Batch(batch::Arguments),
    /// Verifies a TUF repository as a device does
    Tuf(tuf::Arguments),
    /// Runs one model; started by the agent alone
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, clap::Args)]
struct EnrolBy {
    /// Devices' port of the fleet server, as https://host:port
    #[arg(long, required_unless_present = "claim")]
    url: Option<String>,
    /// Token that the fleet server has shown
    #[arg(
        long,
        env = "SEALIFT_ENROL_TOKEN",
        hide_env_values = true,
        required_unless_present = "claim"
    )]
    token: Option<String>,
    /// The file of a claim: the device then waits until it is approved
    #[arg(long, conflicts_with_all = ["url", "token"])]
    claim: Option<PathBuf>,
    /// Serial number of the device, for a claim
    #[arg(long, requires = "claim")]
    serial: Option<String>,
    /// Token (TPM, HSM) to make the device's key on: `pkcs11:token=T?module-path=LIBRARY&pin-source=FILE`
    #[arg(long, value_name = "URI")]
    key_on: Option<String>,
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    if matches!(command, Command::Worker) {
        return worker::child::main();
    }
    let logs = write_logs();
    match execute(command, logs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if even this cannot be written.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Lines go to standard error, and the newest are kept for whoever asks for them from afar.
fn write_logs() -> Logs {
    let filter = EnvFilter::try_from_env("SEALIFT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let is_terminal = std::io::stderr().is_terminal();
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(is_terminal).with_writer(std::io::stderr);
    let logs = Logs::default();
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(logs.layer()).init();
    logs
}

fn execute(command: Command, logs: Logs) -> anyhow::Result<()> {
    // Only an earlier provider could be in the way, and there is none.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match command {
        Command::Enrol { store, by, device, replace } => {
            std::fs::create_dir_all(&store).context("cannot create the store")?;
            enrol_device(&store, by, device, replace)
        }
        Command::Run { store, config } => {
            let config = Config::read(&store, config.as_deref())?;
            runtime()?.block_on(async {
                let (stop, watchdog) = (stop_signal()?, watchdog()?);
                if claim::is_pending(&store) {
                    Watchdog::beside(watchdog.as_ref(), claim::wait(&store, stop.clone())).await?;
                }
                let wall = drill::wall();
                let setup = Setup { store, config, crowd: None, wall, watchdog, logs };
                Ok(supervisor::run(setup, stop).await?)
            })
        }
        Command::Status { store, json } => {
            let status = status::read(&store)?;
            let text = if json { serde_json::to_string_pretty(&status)? } else { status.text() };
            Ok(writeln!(std::io::stdout(), "{}", text.trim_end())?)
        }
        Command::Hold { store, span, reason } => {
            let held = hold::hold(&store, span, &reason)?;
            Ok(writeln!(std::io::stdout(), "what is served stays until {}", held.until)?)
        }
        Command::Release { store } => Ok(hold::release(&store)?),
        Command::Simulate { store, url, token, count, prefix, config } => {
            std::fs::create_dir_all(&store).context("cannot create the store")?;
            let config = Config::read(&store, config.as_deref())?;
            let simulation = Simulation { store, url, token, count, prefix, config };
            runtime()?.block_on(async { Ok(simulation.run(stop_signal()?).await?) })
        }
        Command::Batch(arguments) if arguments.is_reported() => {
            Ok(runtime()?.block_on(batch::report(&arguments))?)
        }
        Command::Batch(arguments) => {
            let done = runtime()?.block_on(batch::run(&arguments))?;
            let batch::Summary { rows, rows_before, parts } = done;
            let before = if rows_before > 0 {
                format!(", {rows_before} of them before")
            } else {
                String::new()
            };
            Ok(writeln!(std::io::stdout(), "{rows} rows in {parts} parts{before}")?)
        }
        Command::Tuf(arguments) => Ok(runtime()?.block_on(tuf::run(arguments))?),
        Command::Worker => Ok(()), // taken by the caller, before anything is set up
    }
}

fn enrol_device(
    store: &Path,
    by: EnrolBy,
    device: Option<DeviceId>,
    is_replacement: bool,
) -> anyhow::Result<()> {
    let runtime = runtime()?;
    if let Some(file) = by.claim {
        let claim = Claim { file, device, serial: by.serial, key_on: by.key_on };
        return runtime.block_on(async { Ok(claim::enrol(store, &claim, stop_signal()?).await?) });
    }
    let (url, token) = by.url.zip(by.token).context("neither a token nor a claim is given")?;
    let device = device.context("--device is needed with a token")?;
    let enrolment = Enrolment { url, token, device, is_replacement, key_on: by.key_on };
    Ok(runtime.block_on(enrol::enrol(store, &enrolment))?)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(FILE_THREADS_MAX)
        .thread_stack_size(THREAD_STACK_BYTES)
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// The service manager, if one has started the agent and wants to hear of it.
fn watchdog() -> anyhow::Result<Option<Watchdog>> {
    let socket = std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from);
    let opened = socket.map(|socket| Watchdog::open(&socket)).transpose();
    opened.context("cannot reach the service manager at NOTIFY_SOCKET")
}

/// Cancelled by the first SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(stop)
}

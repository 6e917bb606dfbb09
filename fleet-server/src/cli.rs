//! The command line: `init`, `run`, `operator`, `token create`, `login-link`, `mqtt-acl`, `recover`. Data goes to stdout, the log to stderr.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use sealift_protocol::api;
use sealift_protocol::id::TeamId;
use tracing_subscriber::EnvFilter;

use crate::auth::{self, TokenTerms};
use crate::broker::access;
use crate::clock;
use crate::config::Config;
use crate::server::{self, Server};
use crate::store::Store;
use crate::trust::ceremony::{self, Fleet, Folders};
use crate::trust::keys;

/// What is logged unless `SEALIFT_LOG` says otherwise: the broker's crate writes a line for each connection at `info`.
const LOG_DEFAULT: &str = "info,rmqtt_codec=warn,sqlx=warn,hyper=warn";

/// A passphrase that is guessed in an afternoon protects nothing.
const PASSPHRASE_CHARS_MIN: usize = 12;
const DAY_MS: i64 = 24 * 3_600 * 1_000;

mod operator;
mod recover;

#[derive(Parser)]
#[command(
    name = "fleet-server",
    version,
    about = "Keeps a fleet of devices on the model images that it should run"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make all keys and sign the first trust metadata
    Init(Init),
    /// Run the server
    Run(Place),
    /// Operators with accounts
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// API tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print the access list for an external mosquitto: make it anew, and reload mosquitto, when devices come or go
    MqttAcl(Place),
    /// Print the list of certificates that ended before their time, signed, for an external broker that asks nobody
    MqttCrl(Place),
    /// After a database was restored from a backup: show what was lost, and bring the server ahead of its devices
    Recover(recover::Recover),
    /// Print a link that logs one person into the console, once, within five minutes
    LoginLink(LoginLink),
}

#[derive(Args)]
struct Init {
    /// Where the server keeps everything
    #[arg(long)]
    data: PathBuf,
    /// Where to write the keys that should leave the server
    #[arg(long)]
    offline: PathBuf,
    /// A team that may publish models; once for each
    #[arg(long = "team", default_value = "main")]
    teams: Vec<TeamId>,
    /// A name or address under which devices reach the server; once for each
    #[arg(long = "host", default_values = ["localhost", "127.0.0.1"])]
    hosts: Vec<String>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// The configuration
    #[arg(long)]
    config: Option<PathBuf>,
    /// The data directory, with the configuration that `init` wrote into it
    #[arg(long)]
    data: Option<PathBuf>,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token and print it: the only time that it is shown
    Create(TokenCreate),
}

#[derive(Args)]
struct TokenCreate {
    #[command(flatten)]
    place: Place,
    /// Whose token it is
    #[arg(long)]
    name: String,
    /// What its holder may do
    #[arg(long)]
    role: RoleName,
    /// Which devices, as a filter of labels such as `site:osaka`; all if not given
    #[arg(long, default_value = "")]
    scope: String,
    /// Days until it ends; never if not given
    #[arg(long)]
    expires_days: Option<u16>,
    /// It may not do what a person must confirm: revoke, or roll many devices back
    #[arg(long)]
    no_step_up: bool,
}

#[derive(Args)]
struct LoginLink {
    #[command(flatten)]
    place: Place,
    /// Who logs in
    #[arg(long, default_value = "admin")]
    name: String,
    /// What they may do
    #[arg(long, default_value = "admin")]
    role: RoleName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    Admin,
    Approver,
    Auditor,
    Operator,
    Publisher,
    SecurityAdmin,
    Viewer,
}

impl From<RoleName> for api::Role {
    fn from(role: RoleName) -> Self {
        match role {
            RoleName::Admin => Self::Admin,
            RoleName::Approver => Self::Approver,
            RoleName::Auditor => Self::Auditor,
            RoleName::SecurityAdmin => Self::SecurityAdmin,
            RoleName::Operator => Self::Operator,
            RoleName::Publisher => Self::Publisher,
            RoleName::Viewer => Self::Viewer,
        }
    }
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = start_log() {
        report(&error);
        return ExitCode::FAILURE;
    }
    // An error would only say that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match tokio::runtime::Runtime::new()
        .context("cannot start")
        .and_then(|it| it.block_on(run(cli)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn start_log() -> Result<()> {
    let directives = std::env::var("SEALIFT_LOG").unwrap_or_else(|_| LOG_DEFAULT.to_owned());
    let filter = EnvFilter::try_new(directives).context("SEALIFT_LOG is not understood")?;
    let (stderr, is_terminal) = (std::io::stderr, std::io::stderr().is_terminal());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(is_terminal)
        .init();
    Ok(())
}

/// What happened, why, and last what to do: the `help:` line of whichever error has one.
fn report(error: &anyhow::Error) {
    let texts: Vec<String> = error.chain().map(ToString::to_string).collect();
    let mut text = String::from("error");
    let mut help = String::new();
    for cause in &texts {
        let (what, what_to_do) = cause.split_once("\nhelp: ").unwrap_or((cause, ""));
        // Writing to a `String` cannot fail.
        let _ = write!(text, ": {what}");
        if !what_to_do.is_empty() {
            help = format!("\nhelp: {what_to_do}");
        }
    }
    write_error(&format!("{text}{help}"));
}

#[expect(clippy::print_stderr, reason = "the command line speaks to people here")]
fn write_error(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "what was asked for goes to stdout, alone")]
fn write_answer(text: &str) {
    println!("{text}");
}

/// The text of a file, if it is not longer than it can be.
fn read_bounded(file: &Path, bytes_max: u64) -> Result<String> {
    let mut text = String::new();
    let open =
        std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    open.take(bytes_max).read_to_string(&mut text)?;
    Ok(text)
}

async fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Init(init) => init_fleet(&init),
        Command::Run(place) => Server::start(place.read()?).await?.run().await.map_err(Into::into),
        Command::Operator(command) => operator::run(command).await,
        Command::Token(TokenCommand::Create(create)) => create_token(create).await,
        Command::MqttAcl(place) => mqtt_acl(&place.read()?).await,
        Command::MqttCrl(place) => mqtt_crl(&place.read()?).await,
        Command::Recover(recover) => recover::run(recover).await,
        Command::LoginLink(link) => login_link(link).await,
    }
}

impl Place {
    fn read(&self) -> Result<Config> {
        match (&self.config, &self.data) {
            (Some(file), _) => Ok(Config::read(file)?),
            (None, Some(data)) => Ok(Config::in_data(data)?),
            (None, None) => anyhow::bail!("neither --config nor --data is given"),
        }
    }
}

fn init_fleet(init: &Init) -> Result<()> {
    let file = init.data.join(Config::FILE_NAME);
    // A configuration that was put there before, with another database for one, stays as it is.
    let is_ours = !file.exists();
    if is_ours {
        keys::make_folder(&init.data)?;
        keys::write_new(&file, &Config::first(&init.offline, &init.hosts)?)?;
    }
    let held = hold_ceremony(init);
    if held.is_err() && is_ours {
        // Without a ceremony it would only stand in the way of the next try.
        std::fs::remove_file(&file).context("cannot remove the configuration again")?;
    }
    held?;
    let (data, offline) = (init.data.display(), init.offline.display());
    write_error(&format!(
        "keys of the server   {data}/keys\nkeys to move away    {offline}\n\
         next                 fleet-server run --data {data}"
    ));
    Ok(())
}

fn hold_ceremony(init: &Init) -> Result<()> {
    let config = Config::in_data(&init.data)?;
    let folders = Folders {
        online: &config.keys(),
        offline: &init.offline,
        metadata: &config.ceremony_metadata(),
    };
    // Never an argument: those are seen by everybody on the machine.
    let passphrase = std::env::var("SEALIFT_PASSPHRASE").ok().filter(|it| !it.is_empty());
    if passphrase.is_none() {
        write_error(
            "the offline keys are under no passphrase: keep them on an encrypted medium, or set SEALIFT_PASSPHRASE",
        );
    }
    if let Some(passphrase) = &passphrase {
        let chars = passphrase.chars().count();
        anyhow::ensure!(
            chars >= PASSPHRASE_CHARS_MIN,
            "SEALIFT_PASSPHRASE has {chars} characters, at least {PASSPHRASE_CHARS_MIN} are needed"
        );
    }
    let fleet = Fleet {
        tenant: &config.tenant,
        teams: &init.teams,
        hosts: &init.hosts,
        passphrase: passphrase.as_deref(),
    };
    Ok(ceremony::hold(folders, fleet, clock::now())?)
}

async fn create_token(create: TokenCreate) -> Result<()> {
    let config = create.place.read()?;
    let store = Store::open(&config.store_url()).await?.tenant(&config.tenant);
    let now = clock::now();
    let terms = TokenTerms {
        operator: auth::operator(&create.name, create.role.into(), &create.scope)?,
        name: "",
        // Whoever holds the server's own disk has nothing left to confirm.
        step_up: !create.no_step_up,
        is_account: false,
        expires_at: create.expires_days.map(|days| now.plus(i64::from(days) * DAY_MS)),
    };
    let token = auth::issue_token(&store, &terms, "server", now).await?;
    write_answer(&token);
    Ok(())
}

async fn mqtt_acl(config: &Config) -> Result<()> {
    let store = Store::open(&config.store_url()).await?.tenant(&config.tenant);
    let devices = store.good_devices().await?;
    write_answer(&access::mosquitto_list(&config.tenant, &devices));
    Ok(())
}

async fn mqtt_crl(config: &Config) -> Result<()> {
    let store = Store::open(&config.store_url()).await?.tenant(&config.tenant);
    let now = clock::now();
    let ended = store.ended_certificates(now).await?;
    write_answer(server::authority(config)?.revocation_list(&ended, now)?.trim_end());
    Ok(())
}

async fn login_link(link: LoginLink) -> Result<()> {
    let config = link.place.read()?;
    let url = operator_url(&config.data)?;
    let store = Store::open(&config.store_url()).await?.tenant(&config.tenant);
    let code = auth::create_login_code(&store, &link.name, link.role.into(), clock::now()).await?;
    write_answer(&format!("{url}/login#code={code}"));
    Ok(())
}

fn operator_url(data: &Path) -> Result<String> {
    let endpoints = server::Endpoints::read(data)
        .context("the server has not run yet\nhelp: start it first, with `fleet-server run`")?;
    Ok(endpoints.operator_url)
}

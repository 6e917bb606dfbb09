//! The command line, as `clap` reads it.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sealift_protocol::api::RollbackTarget;
use sealift_protocol::id::{AlertId, DeviceId, ModelName, RolloutId, Version};

use crate::key::Secrets;
use crate::trust::publish::Holding;
use crate::trust::role::KeyRole;

/// Steers a Sealift fleet.
#[derive(Debug, Parser)]
#[command(name = "fleetctl", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,
    /// The fleet server; otherwise the one of `fleetctl login`.
    #[arg(long, global = true, env = "SEALIFT_URL")]
    pub(crate) url: Option<String>,
    /// API token; otherwise the one of `fleetctl login`.
    #[arg(long, global = true, env = "SEALIFT_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What needs attention; exits with 8 if something does.
    Status,
    /// Go back to an earlier version.
    Rollback(Rollback),
    /// Devices.
    #[command(subcommand)]
    Device(Device),
    /// Tokens with which devices enrol.
    #[command(subcommand)]
    Enrol(Enrol),
    /// Models, versions and their images.
    #[command(subcommand)]
    Model(Model),
    /// Keys that sign for the fleet.
    #[command(subcommand)]
    Key(Key),
    /// What those keys sign: ceremonies, sticks.
    #[command(subcommand)]
    Trust(Trust),
    /// Rollouts.
    #[command(subcommand)]
    Rollout(Rollout),
    /// Drift verdicts.
    #[command(subcommand)]
    Drift(Drift),
    /// Alerts.
    #[command(subcommand)]
    Alert(Alert),
    /// The audit log.
    #[command(subcommand)]
    Audit(Audit),
    /// Remember a fleet server and a token.
    Login(Login),
    /// Forget them.
    Logout,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The model.
    pub(crate) model: ModelName,
    /// `previous`, or a version.
    #[arg(long, default_value = "previous", value_parser = rollback_target)]
    pub(crate) to: RollbackTarget,
    /// Only devices that match this filter.
    #[arg(short = 'l', long = "filter", default_value = "", conflicts_with = "device")]
    pub(crate) filter: String,
    /// Only this device.
    #[arg(long)]
    pub(crate) device: Option<DeviceId>,
    /// Why; kept in the audit log.
    #[arg(long)]
    pub(crate) reason: String,
    /// Only say what would happen.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Wait until the devices' own reports prove it.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Seconds to wait at most.
    #[arg(long, default_value_t = 600)]
    pub(crate) timeout_s: u64,
}

fn rollback_target(text: &str) -> Result<RollbackTarget, String> {
    if text == "previous" {
        return Ok(RollbackTarget::Previous);
    }
    let version = Version::parse(text).map_err(|error| error.to_string())?;
    Ok(RollbackTarget::Version(version))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Lists devices.
    List {
        /// Such as `site:tokyo -state:offline`.
        #[arg(short = 'l', long, default_value = "")]
        filter: String,
    },
    /// Shows one device.
    Get {
        /// The device.
        device: DeviceId,
    },
    /// Sets (`key=value`) or removes (`key-`) labels.
    Label {
        /// The device.
        device: DeviceId,
        /// What to change.
        #[arg(required = true)]
        changes: Vec<String>,
    },
    /// What happened to a device, newest first.
    Timeline {
        /// The device.
        device: DeviceId,
    },
    /// Refuses the device from now on.
    Revoke {
        /// The device.
        device: DeviceId,
        /// Why; kept in the audit log.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Enrol {
    /// Makes a token; it is shown this once.
    Create {
        /// `key=value` that the device gets; may be repeated.
        #[arg(short = 'l', long = "label")]
        labels: Vec<String>,
        /// The only device id that may be taken.
        #[arg(long)]
        device: Option<DeviceId>,
        /// How many devices may use it.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// Seconds until it expires.
        #[arg(long, default_value_t = 3_600)]
        expires_in_s: u32,
    },
    /// Lists tokens.
    List,
    /// Makes a token worthless.
    Revoke {
        /// As listed.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Lists models and their versions.
    List,
    /// Shows one version, `team/name@version`.
    Get {
        /// The version.
        #[arg(value_parser = model_version)]
        version: (ModelName, Version),
    },
    /// Makes the baseline of a model from a table of its reference rows.
    Baseline {
        /// CSV with a column per feature, and `prediction` and `confidence` where there are any.
        #[arg(long)]
        data: PathBuf,
        /// The I/O contract that names the features.
        #[arg(long)]
        contract: PathBuf,
        /// Where to write it.
        #[arg(short = 'f', long = "file")]
        file: PathBuf,
    },
    /// Makes the image of a model's directory and pushes it.
    Push {
        /// The directory with `model.toml`.
        directory: PathBuf,
    },
    /// Signs a pushed version with the publisher's key, which never leaves this machine.
    Sign {
        /// `team/name@version`.
        #[arg(value_parser = model_version)]
        version: (ModelName, Version),
        #[command(flatten)]
        holding: Holding,
        /// The security epoch of the image.
        #[arg(long, default_value_t = 1)]
        epoch: u64,
        /// Days until the signature has to be renewed.
        #[arg(long, default_value_t = 90)]
        expires_days: u32,
    },
    /// Puts a version on the deny list: devices take it no more, and what they do where it runs is in its policy.
    Revoke {
        /// `team/name@version`.
        #[arg(value_parser = model_version)]
        version: (ModelName, Version),
        /// Why; kept in the audit log.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        holding: Holding,
    },
    /// Checks a version as a device would: signatures, then every byte.
    Verify {
        /// `team/name@version`.
        #[arg(value_parser = model_version)]
        version: (ModelName, Version),
        /// As for `sign`.
        #[arg(long)]
        root: Option<PathBuf>,
    },
    /// Shows what an image holds: variants, layers, contract.
    Inspect {
        /// `team/name@version`, or the directory of a model.
        source: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Makes a key of a role, under a passphrase, in a file that never needs to leave its holder.
    Init {
        /// `root`, `targets`, `publisher:TEAM`, `revocations` or `runtime`.
        #[arg(long)]
        role: KeyRole,
        /// Where to write `ROLE-ID.pem` and `ROLE-ID.pub.json`.
        #[arg(long, default_value = ".")]
        folder: PathBuf,
        /// How it signs.
        #[arg(long, value_enum, default_value_t)]
        algorithm: KeyAlgorithm,
        /// Write it readable for everybody who gets the file.
        #[arg(long)]
        no_passphrase: bool,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Lists the keys of every role, and whether their files are here.
    List {
        /// Where to look for files.
        #[arg(long, default_value = ".")]
        keys: PathBuf,
        /// The first root of this fleet's trust, to begin from.
        #[arg(long)]
        root: Option<PathBuf>,
    },
    /// Gives a role other keys; of director, snapshot and timestamp the server makes the new one itself.
    Rotate {
        /// `root`, `targets`, `publisher:TEAM`, `revocations`, `runtime`, `director`, `snapshot` or `timestamp`.
        role: KeyRole,
        /// A new key's public file, `ROLE-ID.pub.json`; once for each.
        #[arg(long)]
        add: Vec<PathBuf>,
        /// The id of a key that goes, or its first characters; once for each.
        #[arg(long)]
        remove: Vec<String>,
        /// How many must sign from now on; otherwise as many as before.
        #[arg(long, value_parser = threshold)]
        threshold: Option<NonZeroU32>,
        /// Why; kept in the audit log.
        #[arg(long, default_value = "key rotation")]
        reason: String,
        #[command(flatten)]
        holding: Holding,
    },
    /// Takes a key away from its role at once; a director's goes on the deny list.
    Revoke {
        /// The key's id, or its first characters.
        key: String,
        /// The public file of a key that takes its place.
        #[arg(long)]
        add: Vec<PathBuf>,
        /// Even the last director key that devices obey: they take no directive until another is in the bundle.
        #[arg(long)]
        last: bool,
        /// Why; kept in the audit log.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        holding: Holding,
    },
}

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum KeyAlgorithm {
    /// Ed25519.
    #[default]
    Ed25519,
    /// ECDSA on P-256, which more tokens have.
    P256,
}

fn threshold(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| "expected a number from 1".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Trust {
    /// Signs what a role has signed for another while.
    Renew {
        /// `root`, `targets`, `publisher:TEAM`, `revocations` or `runtime`.
        role: KeyRole,
        #[command(flatten)]
        holding: Holding,
    },
    /// Ends a team: devices no longer take what it has signed, and go on running what they run.
    Withdraw {
        /// `publisher:TEAM`.
        role: KeyRole,
        /// Why; kept in the audit log.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        holding: Holding,
    },
    /// Shows a staged change: what it would do, and who has to sign it yet. Needs no server.
    Show {
        /// The change's folder.
        folder: PathBuf,
        /// The root that this holder trusts; otherwise the one that comes with the change.
        #[arg(long)]
        root: Option<PathBuf>,
    },
    /// Signs a staged change, one holder after the other. Needs no server.
    Sign {
        /// The change's folder.
        folder: PathBuf,
        /// A PKCS#8 PEM, or `pkcs11:token=…;object=…`; once for each.
        #[arg(long = "key", required = true)]
        keys: Vec<String>,
        /// The root that this holder trusts; otherwise the one that comes with the change.
        #[arg(long)]
        root: Option<PathBuf>,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        secrets: Secrets,
    },
    /// Hands a staged change in that all have signed who must.
    Submit {
        /// The change's folder.
        folder: PathBuf,
        /// The root that this operator trusts; otherwise the one that comes with the change.
        #[arg(long)]
        root: Option<PathBuf>,
    },
    /// Copies verified metadata and images to a stick; what is there already is not copied twice.
    Export {
        /// The folder on the stick.
        folder: PathBuf,
        /// Only these: `team/name` or `team/name@version`, with commas.
        #[arg(long, value_delimiter = ',')]
        models: Vec<String>,
        /// The first root of this fleet's trust, to begin from.
        #[arg(long)]
        root: Option<PathBuf>,
    },
    /// Brings what a stick has to the server, if all of it verifies and nothing goes back.
    Import {
        /// The folder on the stick.
        folder: PathBuf,
        /// The first root of this fleet's trust, to begin from.
        #[arg(long)]
        root: Option<PathBuf>,
    },
}

fn model_version(text: &str) -> Result<(ModelName, Version), String> {
    let (model, version) = text.split_once('@').ok_or("expected `team/name@version`")?;
    let model = ModelName::parse(model).map_err(|error| error.to_string())?;
    let version = Version::parse(version).map_err(|error| error.to_string())?;
    Ok((model, version))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Begins a rollout.
    Create(RolloutCreate),
    /// Lists rollouts, newest first.
    List,
    /// Shows one rollout.
    Get {
        /// Such as `r-3`.
        rollout: RolloutId,
    },
    /// Follows a rollout until it ends; exits with 5 if it ends badly.
    Watch {
        /// Such as `r-3`.
        rollout: RolloutId,
        /// Seconds to wait at most.
        #[arg(long, default_value_t = 3_600)]
        timeout_s: u64,
    },
    /// Says of each device where it is and why.
    Why {
        /// Such as `r-3`.
        rollout: RolloutId,
        /// Only this device.
        #[arg(long)]
        device: Option<DeviceId>,
    },
    /// Stops sending.
    Pause(RolloutAction),
    /// Goes on.
    Resume(RolloutAction),
    /// Begins the next wave now.
    Promote(RolloutAction),
    /// Gives up; devices stay on what they have.
    Abort(RolloutAction),
    /// Offers it again to devices that failed.
    Retry(RolloutAction),
}

#[derive(Debug, Args)]
pub(crate) struct RolloutAction {
    /// Such as `r-3`.
    pub(crate) rollout: RolloutId,
    /// Why; kept in the audit log.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct RolloutCreate {
    /// `team/name@version`.
    #[arg(value_parser = model_version)]
    pub(crate) version: (ModelName, Version),
    /// Only devices that match this filter.
    #[arg(short = 'l', long, default_value = "")]
    pub(crate) filter: String,
    /// Steps as `count` or `percent%`, each with an optional soak: `1:30s,25%:5m,100%`.
    #[arg(long, default_value = "100%")]
    pub(crate) waves: String,
    /// Largest share of bad devices in a wave, 0 to 1.
    #[arg(long, default_value_t = 0.1)]
    pub(crate) max_bad_share: f64,
    /// Largest share of failing requests in a wave, 0 to 1; not looked at if not given.
    #[arg(long)]
    pub(crate) max_error_share: Option<f64>,
    /// Seconds that each device serves the image before it keeps it.
    #[arg(long, default_value_t = 600)]
    pub(crate) probation_s: u32,
    /// Seconds after that during which it can still turn back.
    #[arg(long, default_value_t = 86_400)]
    pub(crate) watch_s: u32,
    /// Why; kept in the audit log.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Drift {
    /// Lists the newest verdicts, worst first.
    List {
        /// Only this model.
        #[arg(long)]
        model: Option<ModelName>,
        /// Only this scope: `fleet`, `site=osaka`, `device:cam-1`.
        #[arg(long)]
        scope: Option<String>,
        /// Also what is steady.
        #[arg(long)]
        all: bool,
    },
    /// Shows reference and current rows of one subject.
    Show {
        /// The model.
        model: ModelName,
        /// Such as `site=osaka`.
        scope: String,
        /// Such as `feature:p00`.
        subject: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Alert {
    /// Lists alerts, newest first.
    List {
        /// Also those that are over.
        #[arg(long)]
        all: bool,
    },
    /// Says that somebody looks after it.
    Ack {
        /// Such as `a-7`.
        alert: AlertId,
        /// What to tell the others.
        #[arg(long, default_value = "")]
        note: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Lists what was done, newest first.
    List {
        /// How many rows.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The operators' URL of the fleet server.
    pub(crate) server: String,
    /// The API token; asked for on standard input if not given.
    #[arg(long)]
    pub(crate) api_token: Option<String>,
}

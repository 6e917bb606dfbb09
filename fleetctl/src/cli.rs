//! The command line, as `clap` reads it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use sealift_protocol::audit::AuditKey;
use sealift_protocol::id::{DeviceId, ModelName, RolloutId, TenantId, UnixMillis, Version};

mod alert;
mod apply;
mod ask;
mod enrol;
mod keys;
mod people;
mod recall;
mod review;
mod rollout;

pub(crate) use alert::{Alert, AlertTest, ChannelName, Notify, NotifyAdd, Rule};
pub(crate) use apply::Apply;
pub(crate) use ask::{Infer, LineLevel};
pub(crate) use enrol::{Enrol, EnrolApprove, EnrolClaim, EnrolSerials};
pub(crate) use keys::{Key, KeyAlgorithm, Trust};
pub(crate) use people::{Login, Operator, Session, Token};
pub(crate) use recall::{Halt, Resume, Rollback, RollbackOf, moment};
pub(crate) use review::{Review, ReviewEnable, ReviewExport, ReviewFormat};
pub(crate) use rollout::{BehaviourRules, RolloutAbort, RolloutCreate, ShadowRules};

use crate::command::batch::Batch;
use crate::command::drift::Replay;
use crate::command::model::MakeBaseline;
use crate::trust::publish::Holding;

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
    /// Stop all rollouts on all devices at once; without --all, say whether they are stopped.
    Halt(Halt),
    /// Let all rollouts go on that `halt --all` has stopped.
    Resume(Resume),
    /// Make what a file says so: drafts of rollouts, rules and kinds of alerts, channels, silences. Starts and removes nothing.
    Apply(Apply),
    /// Devices.
    #[command(subcommand)]
    Device(Device),
    /// Asks a model on a device, as an application there would; it counts for no profile and no error rate.
    Infer(Infer),
    /// Rows that lie on a device, through a model that it serves.
    #[command(subcommand)]
    Batch(Batch),
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
    /// The deny list: what devices refuse although it is signed.
    #[command(subcommand)]
    Revoke(Revoke),
    /// Drift verdicts.
    #[command(subcommand)]
    Drift(Drift),
    /// Predictions that devices keep for people to look at, and what they say of them.
    #[command(subcommand)]
    Review(Review),
    /// Alerts.
    #[command(subcommand)]
    Alert(Alert),
    /// Whom alerts are sent to.
    #[command(subcommand)]
    Notify(Notify),
    /// The audit log.
    #[command(subcommand)]
    Audit(Audit),
    /// Operators with accounts.
    #[command(subcommand)]
    Operator(Operator),
    /// API tokens.
    #[command(subcommand)]
    Token(Token),
    /// Browsers in which somebody is logged in.
    #[command(subcommand)]
    Session(Session),
    /// Log in: with a token, as a person, or through the provider of identities.
    Login(Login),
    /// End the login, and forget it.
    Logout,
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
    /// Deletes what the device has sent, and takes it out of all that was summed up; the device stays.
    Forget {
        /// The device.
        device: DeviceId,
        /// Why; kept in the audit log.
        #[arg(long)]
        reason: String,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// The newest lines of the agent's log, oldest first; its owner must let others read it.
    Logs {
        /// The device.
        device: DeviceId,
        /// How many lines.
        #[arg(short = 'n', long, default_value_t = 200)]
        lines: u32,
        /// Only what was written after this, by the device's clock, such as `2026-11-21T09:00:00Z`.
        #[arg(long)]
        since: Option<Timestamp>,
        /// Only lines that are at least this bad.
        #[arg(long, value_enum, default_value_t)]
        level: LineLevel,
    },
    /// How the device does, from the inside.
    Diagnose {
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
pub(crate) enum Model {
    /// Lists models and their versions.
    List,
    /// Shows one version, `team/name@version`.
    Get {
        /// The version.
        #[arg(value_parser = model_version)]
        version: (ModelName, Version),
    },
    /// Makes the baseline of a model from its reference rows.
    Baseline(MakeBaseline),
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
    /// Checks a version as a device would: signatures, then every byte.
    Verify {
        /// `team/name@version`.
        #[arg(value_parser = model_version)]
        version: (ModelName, Version),
        /// As for `sign`.
        #[arg(long)]
        root: Option<PathBuf>,
    },
    /// Deletes a version that is neither signed nor deployed.
    Delete {
        /// `team/name@version`.
        #[arg(value_parser = model_version)]
        version: (ModelName, Version),
    },
    /// Shows what an image holds: variants, layers, contract.
    Inspect {
        /// `team/name@version`, or the directory of a model.
        source: String,
    },
}

pub(crate) fn model_version(text: &str) -> Result<(ModelName, Version), String> {
    let (model, version) = text.split_once('@').ok_or("expected `team/name@version`")?;
    let model = ModelName::parse(model).map_err(|error| error.to_string())?;
    let version = Version::parse(version).map_err(|error| error.to_string())?;
    Ok((model, version))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Revoke {
    /// Revokes a model image: devices that serve it do what its own policy says, within seconds.
    Image {
        /// `team/name@version`, or the digest of an index or a manifest.
        image: String,
        #[command(flatten)]
        revocation: Revocation,
    },
    /// Revokes a director's key: devices follow no directive of it any more.
    Director {
        /// The key's id, or its first 8 digits.
        key: String,
        #[command(flatten)]
        revocation: Revocation,
    },
    /// Revokes a device's certificate: it is refused, and dropped where it is connected.
    Device {
        /// The device's id, or the serial number of a certificate in hex.
        #[arg(value_name = "DEVICE|SERIAL")]
        device: String,
        #[command(flatten)]
        revocation: Revocation,
    },
    /// Lists what is on the deny list, and why.
    List,
}

/// How the deny list is signed.
#[derive(Debug, Args)]
pub(crate) struct Revocation {
    /// Why; kept in the audit log, and shown with the entry.
    #[arg(long)]
    pub(crate) reason: String,
    /// With a key of the role `revocations`.
    #[command(flatten)]
    pub(crate) holding: Holding,
    /// Takes it off the list again. A version stays in quarantine.
    #[arg(long)]
    pub(crate) undo: bool,
    /// Wait until no device reports to serve the image.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Seconds to wait at most.
    #[arg(long, default_value_t = 60)]
    pub(crate) timeout_s: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Says what a rollout would do, whom it would not reach and why; changes nothing.
    Plan(RolloutCreate),
    /// Begins a rollout.
    Create(RolloutCreate),
    /// Changes a draft.
    Edit {
        /// Such as `r-3`.
        rollout: RolloutId,
        #[command(flatten)]
        order: RolloutCreate,
    },
    /// Begins with a draft.
    Start(RolloutAction),
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
    /// Gives up; devices that are done stay on what they have, or go back with `--revert`.
    Abort(RolloutAbort),
    /// Offers it again to devices that failed.
    Retry(RolloutAction),
    /// Lets a rollout go on that waits for somebody else than its maker.
    Approve(RolloutAction),
    /// Ends a rollout that waits for approval.
    Reject(RolloutAction),
    /// Puts an operator's second signature under it, for devices that demand one.
    Cosign {
        /// Such as `r-3`.
        rollout: RolloutId,
        /// PKCS#8 PEM of an operator's key; it never leaves this machine.
        #[arg(long)]
        key: PathBuf,
        /// The fleet's tenant.
        #[arg(long, default_value = "main", value_parser = tenant)]
        tenant: TenantId,
        /// The first root of this fleet's trust, as for `model sign`.
        #[arg(long)]
        root: Option<PathBuf>,
    },
}

fn tenant(text: &str) -> Result<TenantId, String> {
    TenantId::parse(text).map_err(|error| error.to_string())
}

#[derive(Debug, Args)]
pub(crate) struct RolloutAction {
    /// Such as `r-3`.
    pub(crate) rollout: RolloutId,
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
    /// Lists where devices stand, each by itself: against its cohort, its own past and the reference.
    Devices {
        /// Only with this model.
        #[arg(long)]
        model: Option<ModelName>,
        /// Only this device, with all that it differs from.
        #[arg(long)]
        device: Option<DeviceId>,
        /// Also devices that differ from nothing.
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
    /// Shows how one subject stood in each hour or day, long after its windows are gone.
    History {
        /// The model.
        model: ModelName,
        /// Such as `site=osaka`.
        scope: String,
        /// Such as `feature:p00`.
        subject: String,
        /// From when on: `2026-07-01T03:00:00Z`, or `30d ago`; 14 days if not given.
        #[arg(long, value_parser = moment)]
        since: Option<UnixMillis>,
        /// Until when; now if not given.
        #[arg(long, value_parser = moment)]
        until: Option<UnixMillis>,
        /// Hours, as long as they are kept, or days.
        #[arg(long, value_parser = ["hour", "day"], default_value = "day")]
        step: String,
    },
    /// Judges rows in a file as device and server would; needs no server.
    Replay(Replay),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Lists what was done, newest first.
    List(AuditList),
    /// Checks every row against the signed checkpoints, here and not on the server; exits with 9 if a row was changed.
    Verify {
        /// An exported file, instead of the server's log.
        #[arg(long)]
        file: Option<PathBuf>,
        /// The audit key that `fleet-server init` printed; otherwise the one remembered, or the log's own on first use.
        #[arg(long)]
        key: Option<AuditKey>,
    },
    /// Writes the log as JSON Lines with its checkpoints and proofs; a file that is there is continued.
    Export {
        /// Where to.
        #[arg(short = 'f', long)]
        file: PathBuf,
        /// As for `verify`.
        #[arg(long)]
        key: Option<AuditKey>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AuditList {
    /// How many rows.
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u32,
    /// Who: an operator, `device:<id>`, `server`.
    #[arg(long, default_value = "")]
    pub(crate) actor: String,
    /// What, such as `rollback`.
    #[arg(long, default_value = "")]
    pub(crate) action: String,
    /// To what, such as `r-3` or a device.
    #[arg(long, default_value = "")]
    pub(crate) target: String,
    /// Not before this time, such as `2026-11-21T09:00:00Z`.
    #[arg(long)]
    pub(crate) from: Option<Timestamp>,
    /// Before this time.
    #[arg(long)]
    pub(crate) until: Option<Timestamp>,
    /// Also each single directive.
    #[arg(long)]
    pub(crate) directives: bool,
}

//! Going back, and stopping everything.

use clap::Args;
use sealift_protocol::api::RollbackTarget;
use sealift_protocol::id::{DeviceId, ModelName, Version};

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

#[derive(Debug, Args)]
pub(crate) struct Halt {
    /// All rollouts: new ones wait as well, going back does not.
    #[arg(long, requires = "reason")]
    pub(crate) all: bool,
    /// Why; kept in the audit log, and shown on every page.
    #[arg(long, requires = "all")]
    pub(crate) reason: Option<String>,
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Wait until all devices that are connected confirm it.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Seconds to wait at most.
    #[arg(long, default_value_t = 60)]
    pub(crate) timeout_s: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// Why; kept in the audit log.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Wait until all devices that are connected confirm it.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Seconds to wait at most.
    #[arg(long, default_value_t = 60)]
    pub(crate) timeout_s: u64,
}

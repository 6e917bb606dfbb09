//! How devices come in.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sealift_protocol::id::DeviceId;

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
    /// Claims: what a batch of devices carries from the factory.
    #[command(subcommand)]
    Claim(EnrolClaim),
    /// Lists devices that wait to be approved.
    Pending,
    /// Lets devices in that wait.
    Approve(EnrolApprove),
    /// Refuses a device that waits.
    Deny {
        /// As `pending` lists it.
        id: String,
        /// Why; the device is told, and the audit log keeps it.
        #[arg(long)]
        reason: String,
    },
    /// Serial numbers registered beforehand: their devices need no approval.
    #[command(subcommand)]
    Serials(EnrolSerials),
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnrolClaim {
    /// Makes a claim and writes its file, which holds a private key that the server never sees.
    Create {
        /// What to call the batch.
        #[arg(long)]
        batch: String,
        /// How many devices may be enrolled by it.
        #[arg(long)]
        max: u32,
        /// Until when, as `90d` or `12h`.
        #[arg(long, default_value = "90d", value_parser = seconds)]
        expires: u32,
        /// `key=value` that the devices get; may be repeated.
        #[arg(short = 'l', long = "label")]
        labels: Vec<String>,
        /// Where to write the claim; it must not be there yet.
        #[arg(long)]
        out: PathBuf,
    },
    /// Lists claims.
    List,
    /// Makes a claim worthless; devices that are enrolled stay.
    Revoke {
        /// As listed.
        id: String,
    },
}

#[derive(Debug, Args)]
#[group(id = "whom", required = true, multiple = true)]
pub(crate) struct EnrolApprove {
    /// As `pending` lists it; may be repeated.
    #[arg(group = "whom", conflicts_with = "all")]
    pub(crate) ids: Vec<String>,
    /// All that wait.
    #[arg(long, group = "whom")]
    pub(crate) all: bool,
    /// With `--all`: only those that would get this `key=value`; may be repeated.
    #[arg(short = 'l', long = "label", requires = "all")]
    pub(crate) labels: Vec<String>,
    /// With `--all`: only those of this batch.
    #[arg(long, requires = "all")]
    pub(crate) batch: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnrolSerials {
    /// Registers those of a CSV file: a column `serial`, perhaps `device`, and every other one is a label.
    Add {
        /// The file.
        file: PathBuf,
        /// Only for claims of this batch.
        #[arg(long)]
        batch: Option<String>,
    },
    /// Lists serial numbers, and which devices have used them.
    List,
}

fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is not a time such as `90d`, `12h`, `30m` or `45s`");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit_s = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit_s).ok_or_else(wrong)
}

//! Keys, and what they sign.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use crate::key::Secrets;
use crate::trust::publish::Holding;
use crate::trust::role::KeyRole;

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
    /// Gives a server that was restored from a backup the signed metadata back that this machine has followed since.
    HandBack,
    /// Brings what a stick has to the server, if all of it verifies and nothing goes back.
    Import {
        /// The folder on the stick.
        folder: PathBuf,
        /// The first root of this fleet's trust, to begin from.
        #[arg(long)]
        root: Option<PathBuf>,
    },
}

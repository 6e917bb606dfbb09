//! Who comes in: logins, operators, tokens, sessions.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sealift_protocol::api::Role;

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The operators' URL of the fleet server.
    pub(crate) server: String,
    /// The API token; asked for on standard input if not given.
    #[arg(long, conflicts_with_all = ["user", "oidc"])]
    pub(crate) api_token: Option<String>,
    /// Log in as this operator; password and code are asked for, or read from standard input, a line each.
    #[arg(long, conflicts_with = "oidc")]
    pub(crate) user: Option<String>,
    /// Log in through the provider of identities, with a browser on any machine.
    #[arg(long)]
    pub(crate) oidc: bool,
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    Viewer,
    Auditor,
    Operator,
    Publisher,
    Approver,
    SecurityAdmin,
    Admin,
}

impl From<RoleName> for Role {
    fn from(role: RoleName) -> Self {
        match role {
            RoleName::Viewer => Self::Viewer,
            RoleName::Auditor => Self::Auditor,
            RoleName::Operator => Self::Operator,
            RoleName::Publisher => Self::Publisher,
            RoleName::Approver => Self::Approver,
            RoleName::SecurityAdmin => Self::SecurityAdmin,
            RoleName::Admin => Self::Admin,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Operator {
    /// Lists operators with accounts.
    List,
    /// Makes an account; what its authenticator needs is shown this once.
    Create {
        /// The name.
        name: String,
        /// What they may do.
        #[arg(long)]
        role: RoleName,
        /// Which devices, as a filter of labels such as `site:osaka`; all if not given.
        #[arg(long, default_value = "")]
        scope: String,
        /// A file with the first password; asked for, or read from standard input, if not given.
        #[arg(long)]
        password_file: Option<PathBuf>,
        /// They need no authenticator.
        #[arg(long)]
        without_totp: bool,
    },
    /// Changes what somebody may do; their sessions and tokens end.
    SetRole {
        /// The operator.
        name: String,
        /// What they may do.
        #[arg(long)]
        role: RoleName,
        /// Which devices; as before if not given, all if empty.
        #[arg(long)]
        scope: Option<String>,
    },
    /// Locks somebody out; their sessions and tokens end.
    Disable {
        /// The operator.
        name: String,
    },
    /// Lets somebody in again.
    Enable {
        /// The operator.
        name: String,
    },
    /// Gives somebody a new password and a new authenticator; their sessions and tokens end.
    Reset {
        /// The operator.
        name: String,
        /// A file with the password; asked for, or read from standard input, if not given.
        #[arg(long)]
        password_file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Lists your tokens.
    List {
        /// Everybody's.
        #[arg(long)]
        all: bool,
    },
    /// Makes a token in your name; it is shown this once.
    Create {
        /// What it is for, such as `ci`.
        name: String,
        /// What it may do; as you if not given.
        #[arg(long)]
        role: Option<RoleName>,
        /// Which devices, as a filter of labels; as you if not given.
        #[arg(long, default_value = "")]
        scope: String,
        /// Days until it ends.
        #[arg(long, default_value_t = 30)]
        expires_days: u32,
        /// It may do without you what you would have to confirm.
        #[arg(long)]
        step_up: bool,
    },
    /// Makes a token worthless.
    Revoke {
        /// As listed.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    /// Lists your sessions.
    List {
        /// Everybody's.
        #[arg(long)]
        all: bool,
    },
    /// Ends a session.
    End {
        /// As listed.
        id: String,
    },
}

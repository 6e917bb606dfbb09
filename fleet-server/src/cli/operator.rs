//! `fleet-server operator`: the first account, and the way back in when nobody else can help.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use sealift_protocol::api::{OperatorChange, OperatorNew, OperatorSaved};

use super::{Place, RoleName, write_answer, write_error};
use crate::auth::{Auth, Rules, Seal};
use crate::clock;
use crate::store::Store;

/// A password is a line.
const PASSWORD_BYTES_MAX: u64 = 4 << 10;

#[derive(Subcommand)]
pub(super) enum OperatorCommand {
    /// Make an account and print what its authenticator needs: the only time that it is shown
    Create(Create),
    /// Give an account a new password and a new authenticator, and let it in again; its sessions and tokens end
    Reset(Reset),
}

#[derive(Args)]
pub(super) struct Create {
    #[command(flatten)]
    place: Place,
    /// The operator
    name: String,
    /// What they may do
    #[arg(long)]
    role: RoleName,
    /// Which devices, as a filter of labels such as `site:osaka`; all if not given
    #[arg(long, default_value = "")]
    scope: String,
    /// A file with the password; asked for at the terminal, or read from standard input, if not given
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// They need no authenticator
    #[arg(long)]
    without_totp: bool,
}

#[derive(Args)]
pub(super) struct Reset {
    #[command(flatten)]
    place: Place,
    /// The operator
    name: String,
    /// A file with the password; asked for at the terminal, or read from standard input, if not given
    #[arg(long)]
    password_file: Option<PathBuf>,
}

pub(super) async fn run(command: OperatorCommand) -> Result<()> {
    let now = clock::now();
    let saved = match command {
        OperatorCommand::Create(create) => {
            let password = password(create.password_file)?;
            let new = OperatorNew {
                name: create.name,
                role: create.role.into(),
                scope: create.scope,
                password,
                without_totp: create.without_totp,
            };
            doors(&create.place).await?.create_account(new, "server", now).await?
        }
        OperatorCommand::Reset(reset) => {
            let password = Some(password(reset.password_file)?);
            let wish =
                OperatorChange { disabled: Some(false), password, ..OperatorChange::default() };
            doors(&reset.place).await?.change_account(&reset.name, wish, "server", now).await?
        }
    };
    tell(&saved);
    Ok(())
}

async fn doors(place: &Place) -> Result<Auth> {
    let config = place.read()?;
    let store = Store::open(&config.store_url()).await?.tenant(&config.tenant);
    let seal = Seal::open_in(&config.keys(), &config.tenant)?;
    Ok(Auth::new(store, Rules::default(), seal, None))
}

/// Never an argument: those are seen by everybody on the machine.
fn password(file: Option<PathBuf>) -> Result<String> {
    if let Some(file) = file {
        let text = super::read_bounded(&file, PASSWORD_BYTES_MAX)?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password("password: ")?;
        if first != rpassword::prompt_password("the same again: ")? {
            bail!("the two passwords differ\nhelp: nothing was changed; try again");
        }
        return Ok(first);
    }
    let mut line = String::new();
    std::io::stdin().take(PASSWORD_BYTES_MAX).read_to_string(&mut line)?;
    Ok(line.lines().next().unwrap_or_default().to_owned())
}

fn tell(saved: &OperatorSaved) {
    let OperatorSaved { operator, totp_uri, recovery_codes } = saved;
    write_error(&format!("operator `{}` can log in; what follows is shown once", operator.name));
    if let Some(uri) = totp_uri {
        write_answer(&format!("authenticator   {uri}"));
    }
    for code in recovery_codes {
        write_answer(&format!("recovery code   {code}"));
    }
}

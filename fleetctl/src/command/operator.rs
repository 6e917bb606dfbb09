//! `fleetctl operator`.

use std::io::{self, Read as _};
use std::path::PathBuf;

use anyhow::Context as _;
use sealift_protocol::api::{OperatorChange, OperatorNew, OperatorSaved, OperatorView};

use crate::cli::Operator;
use crate::client::Client;
use crate::output::{Output, note, or_dash, prompt_secret, word};

/// A password is a line.
const PASSWORD_BYTES_MAX: u64 = 4 << 10;

pub(crate) async fn run(client: &Client, output: Output, operator: Operator) -> anyhow::Result<()> {
    let nothing = OperatorChange::default();
    match operator {
        Operator::List => list(client, output).await,
        Operator::Create { name, role, scope, password_file, without_totp } => {
            let password = read_password(password_file, "first password: ")?;
            let new = OperatorNew { name, role: role.into(), scope, password, without_totp };
            told(output, &client.post("operators", &new).await?)
        }
        Operator::SetRole { name, role, scope } => {
            let wish = OperatorChange { role: Some(role.into()), scope, ..nothing };
            change(client, output, &name, &wish).await
        }
        Operator::Disable { name } => {
            let wish = OperatorChange { disabled: Some(true), ..nothing };
            change(client, output, &name, &wish).await
        }
        Operator::Enable { name } => {
            let wish = OperatorChange { disabled: Some(false), ..nothing };
            change(client, output, &name, &wish).await
        }
        Operator::Reset { name, password_file } => {
            let password = Some(read_password(password_file, "new password: ")?);
            let wish = OperatorChange { password, ..nothing };
            change(client, output, &name, &wish).await
        }
    }
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let operators: Vec<OperatorView> = client.list("operators", &[]).await?;
    let rows = operators.iter().map(|operator| {
        let state = if operator.disabled_at.is_some() { "locked out" } else { "active" };
        [
            operator.name.clone(),
            word(operator.role),
            scope(&operator.scope),
            word(operator.method),
            if operator.has_totp { "yes" } else { "no" }.to_owned(),
            state.to_owned(),
            or_dash(operator.seen_at),
        ]
    });
    let columns = ["OPERATOR", "ROLE", "SCOPE", "LOGIN", "TOTP", "STATE", "SEEN"];
    output.rows(&operators, columns, rows)
}

async fn change(
    client: &Client,
    output: Output,
    name: &str,
    wish: &OperatorChange,
) -> anyhow::Result<()> {
    let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let path = format!("operators/{}", name.replace('+', "%20"));
    told(output, &client.patch(&path, wish).await?)
}

fn told(output: Output, saved: &OperatorSaved) -> anyhow::Result<()> {
    output.text(saved, |saved| {
        let OperatorSaved { operator, totp_uri, recovery_codes } = saved;
        let mut lines = vec![format!("{} {}", operator.name, word(operator.role))];
        lines.extend(totp_uri.iter().map(|uri| format!("authenticator   {uri}")));
        lines.extend(recovery_codes.iter().map(|code| format!("recovery code   {code}")));
        lines.join("\n")
    })?;
    if saved.totp_uri.is_some() {
        note("shown only now: give them to the operator, and to nobody else");
    }
    Ok(())
}

/// All devices, or a filter.
pub(super) fn scope(scope: &str) -> String {
    if scope.is_empty() { "all".to_owned() } else { scope.to_owned() }
}

/// A secret from a file, the terminal or standard input; never from the arguments, which everybody on the machine sees.
pub(super) fn read_password(file: Option<PathBuf>, question: &str) -> anyhow::Result<String> {
    if let Some(file) = file {
        let mut text = String::new();
        let open = std::fs::File::open(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        open.take(PASSWORD_BYTES_MAX).read_to_string(&mut text)?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    if let Some(secret) = prompt_secret(question)? {
        return Ok(secret);
    }
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

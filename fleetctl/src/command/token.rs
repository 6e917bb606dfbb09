//! `fleetctl token`.

use sealift_protocol::api::{TokenCreated, TokenNew, TokenView};

use super::operator::scope;
use crate::cli::Token;
use crate::client::Client;
use crate::output::{Output, note, or_dash, word};

const DAY_S: u32 = 24 * 3_600;

pub(crate) async fn run(client: &Client, output: Output, token: Token) -> anyhow::Result<()> {
    match token {
        Token::List { all } => list(client, output, all).await,
        Token::Create { name, role, scope, expires_days, step_up } => {
            let expires_in_s = Some(expires_days.saturating_mul(DAY_S));
            let role = role.map(Into::into);
            let new = TokenNew { name, role, scope, expires_in_s, step_up };
            create(client, output, &new).await
        }
        Token::Revoke { id } => client.delete(&format!("tokens/{id}")).await,
    }
}

async fn create(client: &Client, output: Output, new: &TokenNew) -> anyhow::Result<()> {
    let created: TokenCreated = client.post("tokens", new).await?;
    output.text(&created, |created| created.token.clone())?;
    note(&format!("shown only now; ends at {}", or_dash(created.view.expires_at)));
    Ok(())
}

async fn list(client: &Client, output: Output, all: bool) -> anyhow::Result<()> {
    let all = if all { "true" } else { "" };
    let tokens: Vec<TokenView> = client.list("tokens", &[("all", all)]).await?;
    let rows = tokens.iter().map(|token| {
        [
            token.id.clone(),
            token.operator.clone(),
            token.name.clone(),
            word(token.role),
            scope(&token.scope),
            if token.step_up { "yes" } else { "no" }.to_owned(),
            or_dash(token.used_at),
            or_dash(token.expires_at),
        ]
    });
    let columns = ["ID", "OPERATOR", "NAME", "ROLE", "SCOPE", "STEP-UP", "USED", "EXPIRES"];
    output.rows(&tokens, columns, rows)
}

//! `fleetctl login`, `fleetctl logout`.

use std::io;

use sealift_protocol::api::SessionView;

use crate::cli::Login;
use crate::client::Client;
use crate::context::Context;
use crate::output::{note, word};

/// Remembers a server and a token after they have worked once.
pub(crate) async fn login(login: Login) -> anyhow::Result<()> {
    let token = if let Some(token) = login.api_token {
        token
    } else {
        note("API token (made with `fleet-server token create`):");
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        line.trim().to_owned()
    };
    let context = Context { url: login.server, token };
    let client = Client::new(context.clone())?;
    let session: SessionView = client.get("session", &[]).await?;
    let file = context.save()?;
    let roles: Vec<_> = session.roles.into_iter().map(word).collect();
    note(&format!(
        "logged in to {} as {} ({}); kept in {}",
        context.url,
        session.operator,
        roles.join(", "),
        file.display(),
    ));
    Ok(())
}

pub(crate) fn logout() -> anyhow::Result<()> {
    note(if Context::forget()? { "logged out" } else { "was not logged in" });
    Ok(())
}

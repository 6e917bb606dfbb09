//! `fleetctl session`.

use sealift_protocol::api::SessionEntry;

use crate::cli::Session;
use crate::client::Client;
use crate::output::{Output, word};

pub(crate) async fn run(client: &Client, output: Output, session: Session) -> anyhow::Result<()> {
    match session {
        Session::List { all } => list(client, output, all).await,
        Session::End { id } => client.delete(&format!("sessions/{id}")).await,
    }
}

async fn list(client: &Client, output: Output, all: bool) -> anyhow::Result<()> {
    let all = if all { "true" } else { "" };
    let sessions: Vec<SessionEntry> = client.list("sessions", &[("all", all)]).await?;
    let rows = sessions.iter().map(|session| {
        [
            session.id.clone(),
            session.operator.clone(),
            word(session.method),
            session.browser.clone(),
            session.used_at.to_string(),
            session.expires_at.to_string(),
        ]
    });
    output.rows(&sessions, ["ID", "OPERATOR", "LOGIN", "BROWSER", "USED", "ENDS"], rows)
}

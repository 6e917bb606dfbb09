//! What an operator can do with rollouts can be done in the API, on the command line and in the console.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, ensure};
use sealift_protocol::api::Action;
use sealift_tests::process::{programs, root};
use serde_json::Value;

/// Every verb. A new one does not compile here until somebody has said where it is.
const fn place(action: Action) -> (&'static str, &'static [&'static str]) {
    match action {
        Action::Start => ("/api/v1/rollouts/{id}/{action}", &["rollout", "start"]),
        Action::Pause => ("/api/v1/rollouts/{id}/{action}", &["rollout", "pause"]),
        Action::Resume => ("/api/v1/rollouts/{id}/{action}", &["rollout", "resume"]),
        Action::Promote => ("/api/v1/rollouts/{id}/{action}", &["rollout", "promote"]),
        Action::Abort => ("/api/v1/rollouts/{id}/{action}", &["rollout", "abort"]),
        Action::Retry => ("/api/v1/rollouts/{id}/{action}", &["rollout", "retry"]),
        Action::Approve => ("/api/v1/rollouts/{id}/approve", &["rollout", "approve"]),
        Action::Reject => ("/api/v1/rollouts/{id}/reject", &["rollout", "reject"]),
        Action::Rollback => ("/api/v1/rollback", &["rollback"]),
    }
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| path.to_owned())
}

/// The verbs as the API describes them, so that none is forgotten here.
fn verbs(document: &Value) -> anyhow::Result<Vec<Action>> {
    let words = document["components"]["schemas"]["Action"]["enum"].clone();
    Ok(serde_json::from_value(words)?)
}

fn exists(words: &[&str]) -> anyhow::Result<()> {
    let program = programs()?.join("fleetctl");
    let help = Command::new(program).args(words).arg("--help").output()?;
    ensure!(help.status.success(), "`fleetctl {}` does not exist", words.join(" "));
    Ok(())
}

#[test]
fn every_verb_of_rollouts_is_in_the_api_on_the_command_line_and_in_the_console()
-> anyhow::Result<()> {
    let document: Value = serde_json::from_str(&read("fleet-server/openapi.json")?)?;
    let (english, calls) = (
        read("fleet-server/console/src/i18n/en/rollout.ts")?,
        read("fleet-server/console/src/api/calls.ts")?,
    );
    let verbs = verbs(&document)?;
    ensure!(!verbs.is_empty(), "the API names no verb");
    for action in verbs {
        let (path, words) = place(action);
        ensure!(document["paths"][path]["post"].is_object(), "{path} is not in the API");
        exists(words)?;
        let verb = serde_json::to_value(action)?;
        let verb = verb.as_str().context("a word")?;
        ensure!(english.contains(&format!("\"action.{verb}\"")), "the console has no {verb}");
        ensure!(calls.contains(path), "the console does not call {path}");
    }
    Ok(())
}

#[test]
fn halting_and_resuming_everything_is_in_all_three() -> anyhow::Result<()> {
    let document: Value = serde_json::from_str(&read("fleet-server/openapi.json")?)?;
    let calls = read("fleet-server/console/src/api/calls.ts")?;
    for (method, word) in [("post", "halt"), ("delete", "resume"), ("get", "halt")] {
        ensure!(document["paths"]["/api/v1/halt"][method].is_object(), "{method} /api/v1/halt");
        ensure!(calls.contains(&format!("http.{}(\"/api/v1/halt\"", method.to_uppercase())));
        exists(&[word])?;
    }
    Ok(())
}

//! `fleetctl apply`: makes what a file says so, as far as it is not; twice is once. It removes nothing, and starts no rollout.

use reqwest::Method;
use sealift_protocol::api::{ChannelView, KindView, RolloutView, RuleView, SilenceView};

use crate::cli::Apply;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, confirm, note, table, word};
use crate::trust;

mod difference;
mod file;
mod plan;

use file::File;
use plan::{Deed, Present, Step, Verb};

pub(crate) async fn run(client: &Client, output: Output, apply: Apply) -> anyhow::Result<()> {
    let file = File::read(&apply.file)?;
    let mut steps = plan::plan(&file, &present(client, &file).await?, trust::now())?;
    let is_done = steps.iter().all(|step| step.deed.is_none());
    if !apply.dry_run && !is_done {
        note(&text(&steps));
        if !apply.yes && !confirm("apply?")? {
            return Err(Failure::new(Exit::Declined, "nothing was changed")
                .help("--yes applies without asking")
                .into());
        }
        let all = steps.iter().filter(|step| step.deed.is_some()).count();
        for done in 0..steps.len() {
            let Some(step) = steps.get_mut(done) else { break };
            let place = file.place(step.line);
            let (what, name) = (step.what, step.name.clone());
            if let Err(error) = carry_out(client, step).await {
                let done = steps.iter().filter(|step| step.is_done).count();
                return Err(error.context(format!(
                    "{place}{what} `{name}` was not applied; {done} of {all} changes were"
                )));
            }
        }
    }
    output.rows(&steps, HEAD, steps.iter().map(row))
}

const HEAD: [&str; 4] = ["ACTION", "WHAT", "NAME", "CHANGES"];

fn text(steps: &[Step]) -> String {
    table(HEAD, steps.iter().map(row))
}

fn row(step: &Step) -> [String; 4] {
    let verb = word(step.action);
    let id = step.id.as_ref().map_or_else(String::new, |id| format!(" ({id})"));
    let changes = step.changes.join("; ");
    [verb, step.what.to_owned(), format!("{}{id}", step.name), changes]
}

/// What there is, of what the file speaks of.
async fn present(client: &Client, file: &File) -> anyhow::Result<Present> {
    let mut present = Present::default();
    if !file.alert_kinds.is_empty() {
        present.kinds = client.list::<KindView>("alert-kinds", &[]).await?;
    }
    if !file.alert_rules.is_empty() {
        present.rules = client.list::<RuleView>("alert-rules", &[]).await?;
    }
    if !file.channels.is_empty() {
        present.channels = client.list::<ChannelView>("channels", &[]).await?;
    }
    if !file.silences.is_empty() {
        present.silences = client.list::<SilenceView>("silences", &[]).await?;
    }
    let mut models: Vec<_> = file.rollouts.iter().map(|it| it.value.model.to_string()).collect();
    models.sort();
    models.dedup();
    for model in models {
        let rollouts: Vec<RolloutView> = client.list("rollouts", &[("model", &model)]).await?;
        present.rollouts.extend(rollouts);
    }
    Ok(present)
}

async fn carry_out(client: &Client, step: &mut Step) -> anyhow::Result<()> {
    let Some(deed) = step.deed.take() else { return Ok(()) };
    match deed {
        Deed::Kind(change) => client.put(&format!("alert-kinds/{}", step.name), &change).await?,
        Deed::Rule { new, was } => {
            let path = format!("alert-rules/{}", step.name);
            if was.is_some() {
                client.delete(&path).await?;
            }
            let made = client.post::<_, RuleView>("alert-rules", &new).await;
            if let (Err(_), Some(was)) = (&made, was) {
                // There was a rule before, and there is one after.
                client.post::<_, RuleView>("alert-rules", &was).await?;
            }
            made?;
        }
        Deed::Channel { new, was } => {
            if let Some(was) = was {
                client.delete(&format!("channels/{was}")).await?;
            }
            let made: ChannelView = client.post("channels", &new).await?;
            step.secret = made.secret;
            if let Some(secret) = &step.secret {
                let name = &step.name;
                note(&format!("channel {name} signs with {secret}, which is shown only now"));
            }
        }
        Deed::Silence { new, was } => {
            let made: SilenceView = client.post("silences", &new).await?;
            step.id = Some(made.id.to_string());
            if let Some(was) = was {
                client.delete(&format!("silences/{was}")).await?;
            }
        }
        Deed::Draft { new, was: None } => {
            let made: RolloutView = client.post("rollouts", &new).await?;
            step.id = Some(made.id.to_string());
        }
        Deed::Draft { new, was: Some(was) } => {
            let path = format!("/api/v1/rollouts/{was}");
            client.send(client.request(Method::PUT, &path)?.json(&new)).await?;
        }
    }
    step.is_done = true;
    if step.action == Verb::Create && step.what == "draft" {
        let id = step.id.as_deref().unwrap_or_default();
        note(&format!("`fleetctl rollout start {id}` begins with it"));
    }
    Ok(())
}

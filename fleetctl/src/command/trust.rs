//! `fleetctl trust`.

use std::path::Path;

use sealift_protocol::tuf::key::KeyId;
use serde::Serialize;

use crate::cli::Trust;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::key::{HeldKey, Secrets};
use crate::output::{Output, confirm, note};
use crate::trust::change::Missing;
use crate::trust::hand_back::{self, HandedBack};
use crate::trust::publish::{self, Outcome, lacks};
use crate::trust::view::View;
use crate::trust::{difference, edit, now, stick};

pub(crate) async fn run(
    connect: impl Fn() -> anyhow::Result<Client>,
    output: Output,
    command: Trust,
) -> anyhow::Result<()> {
    match command {
        Trust::Renew { role, holding } => {
            let draft = |view: &View, now| edit::renew(view, &role, now).map(Some);
            let reason = format!("{role} renewed");
            let outcome = holding.carry_out(&connect()?, Some(&reason), draft).await?;
            output.text(&outcome, Outcome::text)
        }
        Trust::Withdraw { role, reason, holding } => {
            let draft = |view: &View, now| edit::withdraw(view, &role, now).map(Some);
            let outcome = holding.carry_out(&connect()?, Some(&reason), draft).await?;
            output.text(&outcome, Outcome::text)
        }
        Trust::Show { folder, root } => {
            let (change, view) = publish::open_staged(&folder, root.as_deref()).await?;
            let shown = Shown {
                changes: difference::describe(&view, &change, now())?,
                missing: change.missing(&view)?,
                reason: change.reason,
            };
            output.text(&shown, Shown::text)
        }
        Trust::Sign { folder, keys, root, yes, secrets } => {
            let signed = sign(&folder, root.as_deref(), &keys, yes, &secrets).await?;
            output.text(&signed, Signed::text)
        }
        Trust::Submit { folder, root } => {
            let (change, view) = publish::open_staged(&folder, root.as_deref()).await?;
            let missing = change.missing(&view)?;
            if !missing.is_empty() {
                return Err(lacks(&missing).into());
            }
            change.submit(&connect()?).await?;
            let outcome = Outcome::Published { roles: change.drafts.into_keys().collect() };
            output.text(&outcome, Outcome::text)
        }
        Trust::Export { folder, models, root } => {
            let exported = stick::export(&connect()?, &folder, &models, root.as_deref()).await?;
            output.text(&exported, stick::Exported::text)
        }
        Trust::HandBack => {
            let handed = hand_back::run(&connect()?).await?;
            output.text(&handed, HandedBack::text)
        }
        Trust::Import { folder, root } => {
            let imported = stick::import(&connect()?, &folder, root.as_deref()).await?;
            output.text(&imported, stick::Imported::text)
        }
    }
}

/// What a change would do.
#[derive(Debug, Serialize)]
struct Shown {
    reason: Option<String>,
    changes: Vec<String>,
    missing: Vec<Missing>,
}

impl Shown {
    fn text(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or("none given");
        let missing = publish::describe(&self.missing);
        format!("reason: {reason}\n{}\n{missing}", self.changes.join("\n")).trim_end().to_owned()
    }
}

/// Who has signed what, and who is still to come.
#[derive(Debug, Serialize)]
struct Signed {
    signed: Vec<(String, KeyId)>,
    missing: Vec<Missing>,
}

impl Signed {
    fn text(&self) -> String {
        let signed = self.signed.iter().map(|(role, key)| format!("signed {role} with {key}\n"));
        let signed: String = signed.collect();
        if self.missing.is_empty() {
            return format!("{signed}all have signed who must; next: fleetctl trust submit DIR");
        }
        format!("{signed}{}", publish::describe(&self.missing)).trim_end().to_owned()
    }
}

/// Shows what is to be signed, asks, and signs it.
async fn sign(
    folder: &Path,
    root: Option<&Path>,
    keys: &[String],
    yes: bool,
    secrets: &Secrets,
) -> anyhow::Result<Signed> {
    let (mut change, view) = publish::open_staged(folder, root).await?;
    let reason = change.reason.as_deref().unwrap_or("none given");
    note(&format!("reason: {reason}"));
    for line in difference::describe(&view, &change, now())? {
        note(&line);
    }
    if !yes && !confirm("sign this?")? {
        return Err(Failure::new(Exit::Declined, "nothing was signed").into());
    }
    let keys = HeldKey::open_all(keys, secrets)?;
    let signed = change.sign(&view, &keys)?;
    if signed.is_empty() {
        let ids: Vec<_> = keys.iter().map(|key| key.public().id().to_string()).collect();
        let what = format!("no draft is signed by {}", ids.join(", "));
        return Err(Failure::new(Exit::Failed, what)
            .help("`fleetctl trust show DIR` says whose signatures are missing")
            .into());
    }
    change.write_drafts(folder)?;
    let missing = change.missing(&view)?;
    Ok(Signed { signed, missing })
}

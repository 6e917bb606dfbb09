//! The way of a change: look, draft, sign with the keys that are here, and hand it in; or leave it for other holders.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::tuf::key::KeyId;
use serde::Serialize;

use super::change::{Change, Missing};
use super::view::{Source, View};
use super::{Expired, Trust, now};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::key::{HeldKey, Secrets};
use crate::output::note;

/// Somebody else published in between this often: then a person should look.
const ATTEMPTS_MAX: u32 = 5;

/// With what a change is signed, and where it goes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Holding {
    /// A key to sign with: a PKCS#8 PEM, or `pkcs11:token=…;object=…`; once for each.
    #[arg(long = "key")]
    pub(crate) keys: Vec<String>,
    /// Write the change into this folder, for other holders to sign with `fleetctl trust sign`, and hand nothing in.
    #[arg(long)]
    pub(crate) stage: Option<PathBuf>,
    /// The first root of this fleet's trust, to begin from; otherwise the one remembered, or the server's on first use.
    #[arg(long)]
    pub(crate) root: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) secrets: Secrets,
}

/// What became of a change.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// The fleet had it already.
    Unchanged,
    /// Every device will see it.
    Published { roles: Vec<String> },
    /// It waits for these signatures.
    Staged { folder: PathBuf, signed: Vec<(String, KeyId)>, missing: Vec<Missing> },
}

impl Holding {
    /// Drafts a change on the newest metadata, signs it, and hands it in or leaves it. Whoever publishes in between is followed, and
    /// the change drafted anew: nothing of theirs is lost.
    pub(crate) async fn carry_out(
        &self,
        client: &Client,
        reason: Option<&str>,
        draft: impl Fn(&View, UnixMillis) -> anyhow::Result<Option<Change>>,
    ) -> anyhow::Result<Outcome> {
        let keys = HeldKey::open_all(&self.keys, &self.secrets)?;
        for attempt in 1.. {
            let mut trust = Trust::open(client, self.root.as_deref()).await?;
            let view = trust.view(Source::Server(client), Expired::Renewed).await?;
            let Some(mut change) = draft(&view, now())? else { return Ok(Outcome::Unchanged) };
            change.reason = reason.map(str::to_owned);
            let signed = change.sign(&view, &keys)?;
            let missing = change.missing(&view)?;
            if let Some(folder) = &self.stage {
                change.write(folder, &view)?;
                return Ok(Outcome::Staged { folder: folder.clone(), signed, missing });
            }
            if !missing.is_empty() {
                return Err(lacks(&missing).into());
            }
            match change.submit(client).await {
                Err(error) if attempt < ATTEMPTS_MAX && is_conflict(&error) => {
                    note("somebody else has published in between; following them");
                }
                handed_in => {
                    handed_in?;
                    keep(&mut trust, client).await;
                    let roles = change.drafts.into_keys().collect();
                    return Ok(Outcome::Published { roles });
                }
            }
        }
        anyhow::bail!("attempts have no end")
    }
}

/// What was handed in is followed and kept here, too: a server that loses it gets it back by `fleetctl trust hand-back`.
async fn keep(trust: &mut Trust, client: &Client) {
    if let Err(error) = trust.view(Source::Server(client), Expired::Renewed).await {
        note(&format!("published, but not kept on this machine: {error:#}"));
    }
}

impl Outcome {
    /// In words, with what to do next.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Unchanged => "nothing to do: the fleet has it already".to_owned(),
            Self::Published { roles } => format!("published: {}", roles.join(", ")),
            Self::Staged { folder, missing, .. } if missing.is_empty() => {
                let folder = folder.display();
                format!("signed by all who must; next: fleetctl trust submit {folder}")
            }
            Self::Staged { folder, missing, .. } => {
                let folder = folder.display();
                let missing = describe(missing);
                format!("{missing}next: fleetctl trust sign {folder} --key KEY.pem")
            }
        }
    }
}

fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.exit == Exit::Conflict)
}

/// One line for each set of holders who have not all signed.
pub(crate) fn describe(missing: &[Missing]) -> String {
    let line = |it: &Missing| {
        let ids: Vec<_> =
            it.may_sign.iter().map(|id| id.as_str().get(..16).unwrap_or_default()).collect();
        let (role, of, signed, needed) = (&it.role, it.of, it.signed, it.needed);
        format!(
            "{role}: {signed} of {needed} {of} have signed; may still sign: {}\n",
            ids.join(", ")
        )
    };
    missing.iter().map(line).collect()
}

/// The failure of a change that not all have signed who must.
pub(crate) fn lacks(missing: &[Missing]) -> Failure {
    let what = format!("signatures are missing\n{}", describe(missing).trim_end());
    Failure::new(Exit::Failed, what).help(
        "give more keys with `--key`, or leave the change for the other holders with `--stage DIR`",
    )
}

/// Reads a change and what it was made from, verified from the root that this machine trusts, or else from the one that comes with it.
pub(crate) async fn open_staged(
    folder: &Path,
    root: Option<&Path>,
) -> anyhow::Result<(Change, View)> {
    let trusted = super::change::trusted_folder(folder);
    let anchor = anchor(&trusted, root).await?;
    let mut trust = Trust::anchored(anchor)?;
    let view = trust.view(Source::Folder(&trusted), Expired::Allowed).await?;
    Ok((Change::read(folder)?, view))
}

async fn anchor(trusted: &Path, root: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    if let Some(root) = root {
        return std::fs::read(root).with_context(|| format!("cannot read {}", root.display()));
    }
    let first = Source::Folder(trusted).fetch("1.root.json").await?;
    let bytes = first.context("the change comes without a root")?;
    let digest = Digest::of(&bytes);
    note(&format!(
        "trusting the root that comes with the change: {digest}\n\
         compare it with `sha256sum` of the 1.root.json that you were given, or give that with --root"
    ));
    Ok(bytes)
}

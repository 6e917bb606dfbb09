//! `fleetctl key`.

use std::path::Path;

use anyhow::{Context as _, ensure};
use reqwest::Method;
use sealift_protocol::tuf::key::{Algorithm, Key as PublicKey};
use serde::Serialize;

use crate::cli::Key;
use crate::client::{Client, send};
use crate::key;
use crate::output::{Output, note, or_dash};
use crate::trust::edit::{self, Revocation, Rotation};
use crate::trust::publish::{Holding, Outcome};
use crate::trust::role::KeyRole;
use crate::trust::view::{Source, View};
use crate::trust::{Expired, Trust};

pub(crate) async fn run(
    connect: impl Fn() -> anyhow::Result<Client>,
    output: Output,
    command: Key,
) -> anyhow::Result<()> {
    match command {
        Key::Init { role, folder, algorithm, no_passphrase, secrets } => {
            ensure!(
                !role.is_online(),
                "the server makes the keys of {role} itself\nhelp: `fleetctl key rotate {role}`"
            );
            if no_passphrase {
                note("whoever reads the file can sign: keep it on an encrypted medium");
            }
            let stem = role.to_string().replace(':', "-");
            let secrets = (!no_passphrase).then_some(&secrets);
            let made = key::make(&folder, &stem, algorithm.into(), secrets)?;
            output.text(&made, |made| {
                format!(
                    "key      {}\nprivate  {}\npublic   {}\nnext: hand the public file to those who \
                     sign for the role above it",
                    made.key_id,
                    made.private.display(),
                    made.public.display(),
                )
            })
        }
        Key::List { keys, root } => list(&connect()?, output, &keys, root.as_deref()).await,
        Key::Rotate { role, add, remove, threshold, reason, holding } => {
            let client = connect()?;
            let mut keys = add
                .iter()
                .map(|path| key::read_public(path))
                .collect::<anyhow::Result<Vec<_>>>()?;
            if role.is_online() && remove.is_empty() {
                keys.push(prepare(&client, &role).await?);
            }
            let rotation = Rotation { role, add: keys, remove, threshold };
            rotate(&client, output, &rotation, &reason, &holding).await
        }
        Key::Revoke { key, add, last, reason, holding } => {
            let add = add
                .iter()
                .map(|path| key::read_public(path))
                .collect::<anyhow::Result<Vec<_>>>()?;
            let client = connect()?;
            let revocation = Revocation { key, add, may_be_last: last };
            let draft = |view: &View, now| edit::revoke(view, &revocation, now).map(Some);
            let outcome = holding.carry_out(&client, Some(&reason), draft).await?;
            output.text(&outcome, Outcome::text)
        }
    }
}

async fn rotate(
    client: &Client,
    output: Output,
    rotation: &Rotation,
    reason: &str,
    holding: &Holding,
) -> anyhow::Result<()> {
    let draft = |view: &View, now| {
        let mut rotation = Rotation { ..rotation.clone() };
        if rotation.role.is_online() && rotation.remove.is_empty() {
            rotation.remove = replaced(view, &rotation);
        }
        edit::rotate(view, &rotation, now).map(Some)
    };
    let outcome = holding.carry_out(client, Some(reason), draft).await?;
    output.text(&outcome, Outcome::text)
}

/// The server's key of snapshot or timestamp goes when its successor comes: nothing that is signed has to outlive it. A director's
/// stays, for directives that are on their way.
fn replaced(view: &View, rotation: &Rotation) -> Vec<String> {
    let Some((keys, _)) = edit::present_keys(view, &rotation.role) else { return Vec::new() };
    let ids = keys.iter().map(PublicKey::id);
    let stays = |id: &_| rotation.add.iter().any(|key| key.id() == *id);
    ids.filter(|id| !stays(id)).map(|id| id.to_string()).collect()
}

/// Has the server make a successor of one of its own keys.
async fn prepare(client: &Client, role: &KeyRole) -> anyhow::Result<PublicKey> {
    let path = format!("/api/v1/trust/keys/{role}");
    let answer = send(client.request(Method::POST, &path)?).await?.bytes().await?;
    let key = PublicKey::from_json(&answer).context("the server's answer is no public key")?;
    note(&format!("the server's new key for {role} is {}", key.id()));
    Ok(key)
}

/// A key of a role.
#[derive(Debug, Serialize)]
struct Row {
    role: String,
    key_id: String,
    algorithm: String,
    threshold: String,
    expires: String,
    here: Option<String>,
}

async fn list(
    client: &Client,
    output: Output,
    folder: &Path,
    root: Option<&Path>,
) -> anyhow::Result<()> {
    let here = key::here(folder)?;
    let view =
        Trust::open(client, root).await?.view(Source::Server(client), Expired::Renewed).await?;
    let mut rows = Vec::new();
    for (role, keys) in edit::roles_of(&view) {
        let Some((objects, _)) = edit::present_keys(&view, &role) else { continue };
        let threshold = format!("{} of {}", keys.threshold, keys.keyids.len());
        let expires = expires(&view, &role);
        rows.extend(objects.iter().map(|key| row(&role, key, &threshold, &expires, &here)));
    }
    for director in &view.bundle.directors {
        let key = PublicKey::ed25519(director.public());
        let is_revoked = view.revocations.directors.contains(director.keyid());
        let threshold = if is_revoked { "revoked" } else { "obeyed" };
        rows.push(row(&KeyRole::Director, &key, threshold, "-", &here));
    }
    let table = rows.iter().map(|row| {
        let id = row.key_id.get(..16).unwrap_or(&row.key_id).to_owned();
        let Row { role, algorithm, threshold, expires, .. } = row;
        let texts = [role, &id, algorithm, threshold, expires].map(Clone::clone);
        let [role, id, algorithm, threshold, expires] = texts;
        [role, id, algorithm, threshold, expires, or_dash(row.here.as_ref())]
    });
    output.rows(&rows, ["ROLE", "KEY", "ALGORITHM", "THRESHOLD", "EXPIRES", "FILE"], table)
}

fn row(
    role: &KeyRole,
    key: &PublicKey,
    threshold: &str,
    expires: &str,
    here: &[(sealift_protocol::tuf::key::KeyId, std::path::PathBuf)],
) -> Row {
    let id = key.id();
    let file = here.iter().find(|(present, _)| *present == id);
    Row {
        role: role.to_string(),
        key_id: id.to_string(),
        algorithm: or_dash(key.algorithm()),
        threshold: threshold.to_owned(),
        expires: expires.to_owned(),
        here: file.map(|(_, path)| path.display().to_string()),
    }
}

/// When what a role has signed expires; the server renews its own.
fn expires(view: &View, role: &KeyRole) -> String {
    use sealift_protocol::tuf::Role;
    let at = match role.metadata() {
        Some(Role::Root) => Some(view.root.expires),
        Some(Role::Targets) => Some(view.targets.expires),
        Some(Role::Delegated(name)) => view.roles.get(&name).map(|targets| targets.expires),
        Some(Role::Snapshot | Role::Timestamp) | None => None,
    };
    or_dash(at)
}

impl From<crate::cli::KeyAlgorithm> for Algorithm {
    fn from(algorithm: crate::cli::KeyAlgorithm) -> Self {
        match algorithm {
            crate::cli::KeyAlgorithm::Ed25519 => Self::Ed25519,
            crate::cli::KeyAlgorithm::P256 => Self::P256,
        }
    }
}

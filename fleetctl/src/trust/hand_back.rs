//! Gives a restored server back what it has lost: the signed metadata that this machine has verified since the backup was made.
//!
//! No key is needed: what the holders have signed is still signed. The server checks it as if it came from them.

use std::collections::BTreeMap;

use anyhow::Context as _;
use reqwest::Method;
use sealift_protocol::tuf::client::TARGETS_FOLDER;
use sealift_protocol::tuf::{BUNDLE_PATH, REVOCATIONS_PATH, REVOCATIONS_ROLE, Role};
use serde::{Deserialize, Serialize};

use super::stick::Newer;
use super::view::{Source, version_of};
use super::{ROOT_FILE, directory_of, read_directory};
use crate::client::{Client, send};

/// What the server has again.
#[derive(Debug, Serialize)]
pub(crate) struct HandedBack {
    /// Roles with newer metadata than the server had.
    roles: Vec<String>,
    /// Roots that this machine has not kept, between the server's newest and the one that is here.
    missing_roots: Vec<u64>,
}

impl HandedBack {
    pub(crate) fn text(&self) -> String {
        if !self.missing_roots.is_empty() {
            let missing: Vec<_> = self.missing_roots.iter().map(ToString::to_string).collect();
            return format!(
                "nothing was handed back: the server lacks root {}, which is not kept here\n\
                 next: `fleetctl trust submit DIR` with the folder of that ceremony, then this again",
                missing.join(", ")
            );
        }
        if self.roles.is_empty() {
            return "the server has everything that this machine has".to_owned();
        }
        format!("handed back: {}", self.roles.join(", "))
    }
}

#[derive(Deserialize)]
struct Roles {
    items: Vec<RoleVersion>,
}

#[derive(Deserialize)]
struct RoleVersion {
    name: String,
    version: u64,
}

pub(crate) async fn run(client: &Client) -> anyhow::Result<HandedBack> {
    let directory = directory_of(client)?;
    let kept = read_directory(&directory)
        .with_context(|| format!("nothing is kept of this server in {}", directory.display()))?;
    let listed = send(client.request(Method::GET, "/api/v1/trust/roles")?).await?;
    let listed: Roles = listed.json().await?;
    let here: BTreeMap<_, _> =
        listed.items.into_iter().map(|role| (role.name, role.version)).collect();
    let mut newer = Newer::default();
    let missing_roots = take_root(client, &kept, &mut newer).await?;
    if !missing_roots.is_empty() {
        return Ok(HandedBack { roles: Vec::new(), missing_roots });
    }
    for (file, bytes) in &kept {
        let Some(role) = role_of(file) else { continue };
        if version_of(bytes)? <= here.get(role).copied().unwrap_or_default() {
            continue;
        }
        newer.roles.insert(role.to_owned(), bytes.clone());
        let path = match role {
            "targets" => BUNDLE_PATH,
            REVOCATIONS_ROLE => REVOCATIONS_PATH,
            _ => continue, // names images, which lie in the registry
        };
        let name = format!("{TARGETS_FOLDER}{path}").replace('/', "_");
        let target = kept.get(&name).with_context(|| format!("{path} is not kept here"))?;
        newer.files.insert(path.to_owned(), target.clone());
    }
    // Also with nothing new: the server looks again which of the images that were pushed anew are signed.
    newer.submit(client, "handed back after a restore").await?;
    Ok(HandedBack { roles: newer.names(), missing_roots })
}

/// The role whose metadata a file has, if people sign them.
fn role_of(file: &str) -> Option<&str> {
    let name = file.strip_suffix(".json")?;
    let is_online =
        [Role::Root, Role::Snapshot, Role::Timestamp].iter().any(|it| it.name() == name);
    (!is_online && !name.starts_with("targets_")).then_some(name)
}

/// Takes the root that is kept here if it is the next one; returns which are missing before it.
async fn take_root(
    client: &Client,
    kept: &BTreeMap<String, Vec<u8>>,
    newer: &mut Newer,
) -> anyhow::Result<Vec<u64>> {
    let Some(root) = kept.get(ROOT_FILE) else { return Ok(Vec::new()) };
    let version = version_of(root)?;
    let mut missing = Vec::new();
    for earlier in (1..=version).rev() {
        let file = Role::Root.versioned_file(earlier);
        if Source::Server(client).fetch(&file).await?.is_some() {
            break;
        }
        missing.push(earlier);
    }
    if missing.first() == Some(&version) {
        newer.roots.push(root.clone());
        missing.remove(0);
    }
    missing.reverse();
    Ok(missing)
}

//! A change on its way: drafts of the next metadata, which holders sign one after the other, and the files that belong to them.
//!
//! ```text
//! DIR/trusted/  the fleet's metadata when the change was made: what each holder checks the drafts against
//! DIR/next/     the drafts, one file for each role, with the signatures gathered so far
//! DIR/files/    new target files, such as trust/bundle.json
//! DIR/reason    why, in the words of whoever made it
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use sealift_protocol::tuf::Role;
use sealift_protocol::tuf::key::{Authority, Key, KeyId, RoleKeys};
use sealift_protocol::tuf::metadata::{Root, Targets};
use sealift_protocol::tuf::signed::{self, Signed};
use serde::Serialize;
use serde_json::json;

use super::view::View;
use crate::client::{Client, send};
use crate::key::HeldKey;

const TRUSTED: &str = "trusted";
const NEXT: &str = "next";
const FILES: &str = "files";
const REASON: &str = "reason";
/// Files in a folder of a change; ten drafts and a few hundred files of metadata are far below.
const FILES_MAX: usize = 2_000;
/// Bytes of one of them.
const FILE_BYTES_MAX: u64 = 6 << 20;

/// Drafts of the next metadata, by the role's name in metadata, and new target files by path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    pub(crate) drafts: BTreeMap<String, Vec<u8>>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) reason: Option<String>,
}

/// Some holders who have not all signed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    pub(crate) role: String,
    /// `holders`, or `holders before` and `holders after` where a root changes its own keys.
    pub(crate) of: &'static str,
    pub(crate) signed: usize,
    pub(crate) needed: u32,
    /// Those who may still sign.
    pub(crate) may_sign: Vec<KeyId>,
}

/// The keys of a role, owned: those of a draft live no longer than its reading.
struct Holders {
    of: &'static str,
    keys: BTreeMap<KeyId, Key>,
    role: RoleKeys,
}

impl Holders {
    fn authority(&self) -> Authority<'_> {
        Authority { keys: &self.keys, role: &self.role }
    }

    fn of_root(of: &'static str, root: &Root, role: &Role) -> Option<Self> {
        let keys = match role {
            Role::Root => &root.roles.root,
            Role::Targets => &root.roles.targets,
            Role::Snapshot | Role::Timestamp | Role::Delegated(_) => return None,
        };
        Some(Self { of, keys: root.keys.clone(), role: keys.clone() })
    }
}

impl Change {
    /// The role behind a draft's name.
    pub(crate) fn role(name: &str) -> Role {
        match name {
            "root" => Role::Root,
            "targets" => Role::Targets,
            _ => Role::Delegated(name.to_owned()),
        }
    }

    /// What a draft of the root says; none where the root stays.
    pub(crate) fn root(&self) -> anyhow::Result<Option<Root>> {
        let draft = self.drafts.get(Role::Root.name());
        let read = |bytes: &Vec<u8>| Signed::<Root>::parse(Role::Root, bytes.clone())?.unverified();
        Ok(draft.map(read).transpose()?)
    }

    /// What a draft of a role that names targets says.
    pub(crate) fn targets(&self, name: &str) -> anyhow::Result<Option<Targets>> {
        let role = Self::role(name);
        let read = |bytes: &Vec<u8>| Signed::<Targets>::parse(role, bytes.clone())?.unverified();
        Ok(self.drafts.get(name).map(read).transpose()?)
    }

    /// Who must sign a draft. TUF 5.3.4: a root needs the holders that the present root names and those that it names itself; every
    /// other role those that will be named once the change is published.
    fn holders(&self, view: &View, name: &str) -> anyhow::Result<Vec<Holders>> {
        let role = Self::role(name);
        let root = self.root()?;
        let next_root = root.as_ref().unwrap_or(&view.root);
        if role == Role::Root {
            let before = Holders::of_root("holders before", &view.root, &role);
            let after = Holders::of_root("holders after", next_root, &role);
            let is_same = view.root.roles.root == next_root.roles.root;
            let all = before.into_iter().chain(after.filter(|_| !is_same));
            return Ok(all
                .map(|it| if is_same { Holders { of: "holders", ..it } } else { it })
                .collect());
        }
        if role == Role::Targets {
            return Ok(Holders::of_root("holders", next_root, &role).into_iter().collect());
        }
        let targets = self.targets(Role::Targets.name())?;
        let targets = targets.as_ref().unwrap_or(&view.targets);
        let delegations = targets.delegations.as_ref();
        let delegation = delegations.and_then(|it| Some((it.keys.clone(), it.role(name)?)));
        let (keys, delegation) =
            delegation.with_context(|| format!("nothing is delegated to {name}"))?;
        Ok(vec![Holders { of: "holders", keys, role: delegation.keys.clone() }])
    }

    /// Signs every draft for which one of `keys` may sign; returns which key signed what.
    pub(crate) fn sign(
        &mut self,
        view: &View,
        keys: &[HeldKey],
    ) -> anyhow::Result<Vec<(String, KeyId)>> {
        let mut signed_by = Vec::new();
        let names: Vec<_> = self.drafts.keys().cloned().collect();
        for name in names {
            let holders = self.holders(view, &name)?;
            let role = Self::role(&name);
            for key in keys {
                let public = key.public();
                let id = public.id();
                if !holders.iter().any(|holders| holders.role.keyids.contains(&id)) {
                    continue;
                }
                let draft = self.drafts.get(&name).context("a draft is gone")?;
                let signature = key.sign(&signed::message(&role, draft)?)?;
                let draft = signed::attach(&role, draft, &public, &signature)?;
                self.drafts.insert(name.clone(), draft);
                signed_by.push((name.clone(), id));
            }
        }
        Ok(signed_by)
    }

    /// Which signatures are still to come.
    pub(crate) fn missing(&self, view: &View) -> anyhow::Result<Vec<Missing>> {
        let mut missing = Vec::new();
        for (name, draft) in &self.drafts {
            let role = Self::role(name);
            for holders in self.holders(view, name)? {
                let (signed, signers) = match role {
                    Role::Root => counted::<Root>(&role, draft, &holders)?,
                    Role::Targets | Role::Delegated(_) | Role::Snapshot | Role::Timestamp => {
                        counted::<Targets>(&role, draft, &holders)?
                    }
                };
                let needed = holders.role.threshold.get();
                if u32::try_from(signed).unwrap_or(u32::MAX) < needed {
                    let open = holders.role.keyids.iter().filter(|id| !signers.contains(id));
                    let may_sign = open.cloned().collect();
                    let of = holders.of;
                    missing.push(Missing { role: name.clone(), of, signed, needed, may_sign });
                }
            }
        }
        Ok(missing)
    }

    /// Hands the change in. The server takes all of it, or nothing.
    pub(crate) async fn submit(&self, client: &Client) -> anyhow::Result<()> {
        let root = self.drafts.get(Role::Root.name());
        let roles = self.drafts.iter().filter(|(name, _)| *name != Role::Root.name());
        let encoded = |(name, bytes): (&String, &Vec<u8>)| (name.clone(), STANDARD.encode(bytes));
        let body = json!({
            "roots": root.iter().map(|root| STANDARD.encode(root)).collect::<Vec<_>>(),
            "roles": roles.map(encoded).collect::<BTreeMap<_, _>>(),
            "files": self.files.iter().map(encoded).collect::<BTreeMap<_, _>>(),
            "reason": self.reason,
        });
        send(client.request(Method::PUT, "/api/v1/trust/changes")?.json(&body)).await?;
        Ok(())
    }

    /// Writes the change for holders elsewhere. A folder that has one already is not touched.
    pub(crate) fn write(&self, folder: &Path, view: &View) -> anyhow::Result<()> {
        ensure!(
            !folder.join(NEXT).exists(),
            "{} has a change already\nhelp: submit it, or take another folder",
            folder.display()
        );
        write_all(&folder.join(TRUSTED), &view.files)?;
        write_all(&folder.join(FILES), &self.files)?;
        if let Some(reason) = &self.reason {
            fs::write(folder.join(REASON), reason)?;
        }
        self.write_drafts(folder)
    }

    /// Writes the drafts anew, with the signatures that they have now.
    pub(crate) fn write_drafts(&self, folder: &Path) -> anyhow::Result<()> {
        let named = self.drafts.iter().map(|(name, bytes)| (format!("{name}.json"), bytes.clone()));
        write_all(&folder.join(NEXT), &named.collect())
    }

    /// Reads a change. Nothing of it is trusted yet.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut drafts = BTreeMap::new();
        for (file, bytes) in read_all(&folder.join(NEXT))? {
            let name = file.strip_suffix(".json").with_context(|| format!("{file} is no draft"))?;
            drafts.insert(name.to_owned(), bytes);
        }
        ensure!(!drafts.is_empty(), "{} has no drafts", folder.display());
        let files = match read_all(&folder.join(FILES)) {
            Ok(files) => files,
            Err(_) if !folder.join(FILES).exists() => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let reason = match fs::read_to_string(folder.join(REASON)) {
            Ok(reason) => Some(reason),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).context("cannot read the reason"),
        };
        Ok(Self { drafts, files, reason })
    }
}

/// Where the metadata lie that a change in this folder was made from.
pub(crate) fn trusted_folder(folder: &Path) -> std::path::PathBuf {
    folder.join(TRUSTED)
}

fn counted<T: sealift_protocol::tuf::metadata::Metadata>(
    role: &Role,
    draft: &[u8],
    holders: &Holders,
) -> anyhow::Result<(usize, Vec<KeyId>)> {
    let draft = Signed::<T>::parse(role.clone(), draft.to_vec())?;
    Ok((draft.count(holders.authority()), draft.signers().cloned().collect()))
}

/// Writes files below a folder: each whole or not at all, so that a stick that is pulled out leaves no half of one.
pub(super) fn write_all(folder: &Path, files: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
    for (name, bytes) in files {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let partial = path.with_extension("partial");
        let written = fs::File::create(&partial).and_then(|mut file| {
            std::io::Write::write_all(&mut file, bytes)?;
            file.sync_all()?;
            fs::rename(&partial, &path)
        });
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Reads all files below a folder, by their paths in it.
pub(super) fn read_all(folder: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let (mut files, mut open) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        let entries =
            fs::read_dir(&next).with_context(|| format!("cannot look into {}", next.display()))?;
        for entry in entries {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() && path.extension().is_none_or(|it| it != "partial") {
                ensure!(
                    entry.metadata()?.len() <= FILE_BYTES_MAX,
                    "{} is too large",
                    path.display()
                );
                ensure!(files.len() < FILES_MAX, "{} has too many files", folder.display());
                let name = path.strip_prefix(folder)?.to_string_lossy().into_owned();
                files.insert(name, fs::read(&path)?);
            } else if !kind.is_file() {
                bail!("{} is neither a file nor a folder", path.display());
            }
        }
    }
    Ok(files)
}

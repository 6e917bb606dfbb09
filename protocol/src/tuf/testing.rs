//! A small repository, a device in front of it, and a forger between them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::bundle::{Director, TrustBundle};
use super::client::{Client, Persist, RoleNames, Want};
use super::error::{Role, TufError};
use super::json;
use super::key::SigningKey;
use super::metadata::TargetFile;
use super::repository::{
    CeremonyKeys, Change, Lifetimes, OnlineKeys, Repository, TargetsDraft, ceremony,
};
use super::signed::sign_value;
use crate::id::{Epoch, TeamId, UnixMillis};

pub(crate) const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
pub(crate) const HOUR_MS: i64 = 60 * 60 * 1000;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;
pub(crate) const MODEL: &str = "models/vision/digits/7";
pub(crate) const PUBLISHER: &str = "publisher-vision";

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// The key that this name stands for.
pub(crate) fn key(name: &str) -> SigningKey {
    SigningKey::from_seed(crate::digest::Digest::of(name.as_bytes()).as_bytes())
}

pub(crate) fn director() -> Director {
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    Director::new(key.verifying_key()).unwrap()
}

pub(crate) fn bundle() -> TrustBundle {
    let certificate = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_owned();
    TrustBundle::new(vec![director()], vec![certificate], Vec::new()).unwrap()
}

pub(crate) fn ceremony_keys() -> CeremonyKeys {
    let three = |role: &str| [1, 2, 3].map(|holder| key(&format!("{role} {holder}")));
    CeremonyKeys {
        root: three("root"),
        targets: three("targets"),
        snapshot: key("snapshot"),
        timestamp: key("timestamp"),
        team: TeamId::parse("vision").unwrap(),
        publisher: key("publisher"),
        revocations: key("revocations"),
        runtime: three("runtime"),
    }
}

/// A repository whose one team has published one model image.
pub(crate) struct World {
    pub(crate) keys: CeremonyKeys,
    pub(crate) repository: Repository,
}

impl World {
    pub(crate) fn new() -> Self {
        let keys = ceremony_keys();
        let repository = ceremony(&keys, &bundle(), Lifetimes::ONLINE, NOW).unwrap();
        let mut world = Self { keys, repository };
        world.publish(MODEL, NOW).unwrap();
        world
    }

    pub(crate) fn online(keys: &CeremonyKeys) -> OnlineKeys<'_> {
        OnlineKeys { snapshot: &keys.snapshot, timestamp: &keys.timestamp }
    }

    pub(crate) fn publish(
        &mut self,
        path: &str,
        now: UnixMillis,
    ) -> Result<Vec<Persist>, TufError> {
        let role = Role::Delegated(PUBLISHER.into());
        let current = self.repository.delegated(PUBLISHER).unwrap().to_vec();
        let mut draft = TargetsDraft::next(role, current, &[self.keys.publisher.public()]).unwrap();
        draft.set(path, TargetFile::of_model(path.as_bytes(), Epoch(3)));
        let metadata = draft.sign(now.plus(90 * DAY_MS), &[&self.keys.publisher]).unwrap();
        self.repository.accept(Change::of(PUBLISHER, metadata), Self::online(&self.keys), now)
    }

    pub(crate) fn refresh(&mut self, now: UnixMillis) -> Vec<Persist> {
        self.repository.refresh_timestamp(Self::online(&self.keys), now).unwrap()
    }

    /// What the repository serves, for a forger to alter.
    pub(crate) fn mirror(&self) -> Mirror {
        Mirror { files: self.repository.files().clone(), keys: self.keys.clone() }
    }
}

/// Files on their way to devices, in the hands of somebody who may hold keys.
#[derive(Clone)]
pub(crate) struct Mirror {
    pub(crate) files: Files,
    pub(crate) keys: CeremonyKeys,
}

impl Mirror {
    /// A mirror whose snapshot and timestamp name versions alone, so that one file can be altered without the others.
    pub(crate) fn without_digests() -> Self {
        let mut mirror = World::new().mirror();
        let (snapshot, timestamp) = (mirror.keys.snapshot.clone(), mirror.keys.timestamp.clone());
        let versions_only = |body: &mut Value| {
            for meta in body["meta"].as_object_mut().unwrap().values_mut() {
                *meta = json!({"version": meta["version"]});
            }
        };
        mirror.edit("2.snapshot.json", &[&snapshot], versions_only);
        mirror.edit("timestamp.json", &[&timestamp], versions_only);
        mirror
    }

    /// Alters what a file says, and signs it with these keys.
    pub(crate) fn edit(&mut self, file: &str, keys: &[&SigningKey], edit: impl FnOnce(&mut Value)) {
        let mut body = self.body(file);
        edit(&mut body);
        self.files.insert(file.to_owned(), sign_value(&body, keys).unwrap());
    }

    /// Writes a file anew under another name, altered and signed with these keys.
    pub(crate) fn copy(
        &mut self,
        from: &str,
        to: &str,
        keys: &[&SigningKey],
        edit: impl FnOnce(&mut Value),
    ) {
        self.files.insert(to.to_owned(), self.files[from].clone());
        self.edit(to, keys, edit);
    }

    /// Signs a new timestamp and snapshot version.
    pub(crate) fn announce(&mut self, version: u64, edit: impl FnOnce(&mut Value)) {
        let (snapshot, timestamp) = (self.keys.snapshot.clone(), self.keys.timestamp.clone());
        self.copy("2.snapshot.json", &format!("{version}.snapshot.json"), &[&snapshot], |body| {
            body["version"] = version.into();
            edit(body);
        });
        self.edit("timestamp.json", &[&timestamp], |body| {
            body["version"] = version.into();
            body["meta"]["snapshot.json"] = json!({"version": version});
        });
    }

    pub(crate) fn body(&self, file: &str) -> Value {
        json::parse(&self.files[file]).unwrap()["signed"].clone()
    }

    /// The keys that sign `file`.
    pub(crate) fn signers(&self, file: &str) -> Vec<SigningKey> {
        let keys = &self.keys;
        match file.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.') {
            "root.json" => keys.root.to_vec(),
            "targets.json" => keys.targets.to_vec(),
            "snapshot.json" => vec![keys.snapshot.clone()],
            "timestamp.json" => vec![keys.timestamp.clone()],
            "revocations.json" => vec![keys.revocations.clone()],
            "runtime.json" => keys.runtime.to_vec(),
            _ => vec![keys.publisher.clone()],
        }
    }
}

/// A device with its disk.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) disk: Files,
    pub(crate) fetched: Vec<String>,
    pub(crate) role_names: RoleNames,
}

impl Device {
    /// A new device, with the first root that the files hold.
    pub(crate) fn new(files: &Files) -> Self {
        let disk = BTreeMap::from([("root.json".to_owned(), files["1.root.json"].clone())]);
        Self { disk, fetched: Vec::new(), role_names: RoleNames::Plain }
    }

    /// Starts anew from its disk, updates, and looks for targets.
    pub(crate) fn update(
        &mut self,
        files: &Files,
        wants: &[Want],
        now: UnixMillis,
    ) -> Result<Client, TufError> {
        let mut client = Client::open(self.disk.clone(), self.role_names)?;
        self.fetched.clear();
        client.refresh(now);
        self.fetch(&mut client, files)?;
        for want in wants {
            client.want(want.clone());
            self.fetch(&mut client, files)?;
        }
        Ok(client)
    }

    fn fetch(&mut self, client: &mut Client, files: &Files) -> Result<(), TufError> {
        while let Some(need) = client.need()? {
            let answer = files.get(&need.file).cloned();
            self.fetched.push(need.file);
            let changes = client.on(answer)?;
            for change in changes {
                match change {
                    Persist::Write { name, bytes } => self.disk.insert(name, bytes),
                    Persist::Remove { name } => self.disk.remove(&name),
                };
            }
        }
        Ok(())
    }

    /// The code with which an update is refused.
    pub(crate) fn refusal(&mut self, files: &Files, wants: &[Want]) -> &'static str {
        match self.update(files, wants, NOW) {
            Ok(_) => "accepted",
            Err(error) => error.code(),
        }
    }
}

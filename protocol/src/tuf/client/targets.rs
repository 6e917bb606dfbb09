//! From a trusted snapshot to targets: the roles that name them, and their bytes.

use super::{
    Client, Edge, Fetch, Need, Persist, RoleNames, Stage, State, TARGETS_FOLDER, Want,
    check_version, waiting, write,
};
use crate::tuf::TARGET_FILE_BYTES_MAX;
use crate::tuf::delegation::is_plain;
use crate::tuf::error::{Role, TufError, quoted};
use crate::tuf::key::Authority;
use crate::tuf::metadata::{TargetFile, Targets};
use crate::tuf::signed::{Signed, Verified};

/// Roles that one search meets, the top-level targets included. A fleet's teams are told apart by pattern, so few are met.
const ROLES_MAX: usize = 32;

/// How far a search came with the roles that are loaded.
enum Search<'a> {
    Found(&'a TargetFile),
    Absent,
    Unloaded(Edge),
}

impl Client {
    /// What trusted metadata say about a target that was wanted.
    pub fn target(&self, path: &str) -> Result<&TargetFile, TufError> {
        match self.search(path)? {
            Search::Found(entry) => Ok(entry),
            Search::Absent => Err(TufError::NoTarget { path: path.to_owned() }),
            Search::Unloaded(_) => Err(TufError::NotReady { what: path.to_owned() }),
        }
    }

    /// The checked bytes of a target file that was wanted.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    pub(super) fn next_targets(&mut self) -> Result<State, TufError> {
        let edge = top_edge();
        if let Ok(targets) = self.check_stored(&edge) {
            self.roles.insert(edge, targets);
            return Ok(State::Idle);
        }
        self.wait_for(&edge, Fetch::Targets)
    }

    pub(super) fn next_of_search(&mut self, want: Want) -> Result<State, TufError> {
        let path = want.path();
        match self.search(path)? {
            Search::Found(entry) => {
                let entry = entry.clone();
                self.next_of_target(want, entry)
            }
            Search::Absent => Err(TufError::NoTarget { path: path.to_owned() }),
            Search::Unloaded(edge) => {
                // Persisted metadata that does not pass, an expired one too, may have been replaced: then it is fetched.
                let Ok(targets) = self.check_stored(&edge) else {
                    return self.wait_for(&edge.clone(), Fetch::Delegated { edge, want });
                };
                self.roles.insert(edge, targets);
                Ok(State::Next(Stage::Search { want }))
            }
        }
    }

    pub(super) fn on_targets(
        &mut self,
        bytes: Vec<u8>,
        edge: Edge,
    ) -> Result<Vec<Persist>, TufError> {
        let targets = self.check_targets(&edge, bytes)?;
        // TUF 5.6.6: only now is it trusted and kept.
        let role = Role::of_targets(&edge.role);
        let changes = vec![write(&role, targets.bytes())];
        self.stored.insert(role.file(), targets.bytes().to_vec());
        self.roles.insert(edge, targets);
        Ok(changes)
    }

    pub(super) fn on_file(
        &mut self,
        bytes: Vec<u8>,
        path: String,
        entry: &TargetFile,
    ) -> Result<Vec<Persist>, TufError> {
        entry.check(&path, &bytes)?;
        let name = format!("{TARGETS_FOLDER}{path}");
        self.stored.insert(name.clone(), bytes.clone());
        self.files.insert(path, bytes.clone());
        Ok(vec![Persist::Write { name, bytes }])
    }

    /// Checks persisted targets metadata as if it had just come.
    pub(super) fn check_stored(&self, edge: &Edge) -> Result<Verified<Targets>, TufError> {
        let file = Role::of_targets(&edge.role).file();
        let stored = self.stored.get(&file).ok_or(TufError::Missing { file })?;
        self.check_targets(edge, stored.clone())
    }

    /// The checks of targets metadata, top-level and delegated alike.
    fn check_targets(&self, edge: &Edge, bytes: Vec<u8>) -> Result<Verified<Targets>, TufError> {
        let role = Role::of_targets(&edge.role);
        let meta = self.trusted_snapshot()?.listed(&role)?;
        // TUF 5.6.2: the very bytes that the snapshot names.
        meta.check(&role, &bytes)?;
        // TUF 5.6.3: a threshold of the keys that the delegator gives this role must have signed it.
        let signed = Signed::<Targets>::parse(role.clone(), bytes)?;
        let targets = signed.verify(self.authority(edge)?)?;
        // TUF 5.6.4: the version that the snapshot names.
        check_version(&role, meta.version, targets.version)?;
        // TUF 5.6.5: one that is no longer valid may hide newer ones.
        targets.check_expiry(&role, self.now)?;
        self.check_names(&targets)?;
        Ok(targets)
    }

    /// A role's name becomes part of a URL and of a file's name; a device takes only those that mean nothing in either.
    fn check_names(&self, targets: &Targets) -> Result<(), TufError> {
        let mut names = targets.delegations.iter().flat_map(|delegations| delegations.names());
        match names.find(|name| self.role_names == RoleNames::Plain && !is_plain(name)) {
            Some(name) => Err(TufError::RoleName { name: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// Who signs for the role at the end of `edge`.
    fn authority(&self, edge: &Edge) -> Result<Authority<'_>, TufError> {
        if *edge == top_edge() {
            return Ok(self.root.authority(&self.root.roles.targets));
        }
        let mut delegators = self.roles.iter().filter(|(from, _)| from.role == edge.delegator);
        let delegations = delegators.find_map(|(_, targets)| targets.delegations.as_ref());
        let unknown = || TufError::UnknownRole { role: edge.role.clone() };
        delegations.and_then(|roles| roles.authority(&edge.role)).ok_or_else(unknown)
    }

    fn wait_for(&self, edge: &Edge, fetch: Fetch) -> Result<State, TufError> {
        let role = Role::of_targets(&edge.role);
        let meta = self.trusted_snapshot()?.listed(&role)?;
        // TUF 5.6.1: no more bytes than the snapshot names.
        Ok(waiting(self.file_of(&role, meta.version), meta.bytes_max(&role), fetch))
    }

    /// TUF 5.6.7: searches roles for `path`, each before those it delegates to, in the order in which they are listed.
    fn search(&self, path: &str) -> Result<Search<'_>, TufError> {
        let mut open = vec![top_edge()];
        let mut met: Vec<String> = Vec::new();
        while let Some(edge) = open.pop() {
            // TUF 5.6.7.1: no role is asked twice, so that cycles end, and no search meets more roles than a fleet has use for.
            if met.contains(&edge.role) {
                continue;
            }
            if met.len() == ROLES_MAX {
                return Err(TufError::TooManyRoles { path: path.to_owned(), max: ROLES_MAX });
            }
            let Some(targets) = self.roles.get(&edge) else {
                let nothing_is_trusted = || TufError::NotReady { what: path.to_owned() };
                let unloaded = (edge != top_edge()).then_some(Search::Unloaded(edge));
                return unloaded.ok_or_else(nothing_is_trusted);
            };
            if let Some(entry) = targets.targets.get(path) {
                return Ok(Search::Found(entry));
            }
            let asked = targets.delegations.as_ref().map(|roles| roles.asked(path));
            let asked = asked.unwrap_or_default();
            // TUF 5.6.7.2.1: behind a terminating delegation nobody else is asked.
            if asked.last().is_some_and(|last| last.is_terminating) {
                open.clear();
            }
            let edges = asked.into_iter().rev().map(|asked| Edge::new(&edge.role, &asked.role));
            open.extend(edges);
            met.push(edge.role);
        }
        Ok(Search::Absent)
    }

    fn next_of_target(&mut self, want: Want, entry: TargetFile) -> Result<State, TufError> {
        let Want::File(path) = want else { return Ok(State::Idle) };
        let stored = self.stored.get(&format!("{TARGETS_FOLDER}{path}"));
        if let Some(bytes) = stored.filter(|bytes| entry.check(&path, bytes).is_ok()) {
            self.files.insert(path, bytes.clone());
            return Ok(State::Idle);
        }
        let need = need_target(&path, &entry, self.root.consistent_snapshot)?;
        Ok(State::Waiting { need, fetch: Fetch::File { path, entry } })
    }
}

/// TUF 5.7.3: no more bytes than signed, and never more than a device can hold in memory.
fn need_target(path: &str, entry: &TargetFile, is_consistent: bool) -> Result<Need, TufError> {
    // The path becomes a URL and a file's name below a folder: neither may be left.
    if path.split('/').any(|part| ["", ".", ".."].contains(&part)) || path.contains(['\\', '\0']) {
        return Err(TufError::NoTarget { path: path.to_owned() });
    }
    let max_bytes = usize::try_from(entry.length).unwrap_or(usize::MAX);
    if max_bytes > TARGET_FILE_BYTES_MAX {
        let (given_bytes, max_bytes) = (max_bytes, TARGET_FILE_BYTES_MAX);
        return Err(TufError::TooLarge { file: path.to_owned(), given_bytes, max_bytes });
    }
    let location = entry.location(path, is_consistent);
    let parts: Vec<_> = location.split('/').map(quoted).collect();
    Ok(Need { file: format!("{TARGETS_FOLDER}{}", parts.join("/")), max_bytes })
}

impl Want {
    fn path(&self) -> &str {
        match self {
            Self::Entry(path) | Self::File(path) => path,
        }
    }
}

impl Edge {
    fn new(delegator: &str, role: &str) -> Self {
        Self { delegator: delegator.to_owned(), role: role.to_owned() }
    }
}

pub(super) fn top_edge() -> Edge {
    Edge::new(Role::Root.name(), Role::Targets.name())
}

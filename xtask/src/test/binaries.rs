//! The Rust tests: all built at once, then each group run by itself, so that each has its own log, limit and line.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use cargo_metadata::{Artifact, Message, TargetKind};

use super::BUILD_LIMIT;
use crate::{child, workspace};

/// Groups whose stories mostly wait for what devices do by the clock: retries, time limits, probations. So many of them run at a time;
/// of other groups, as many as there are processors.
const WAITING: [(&str, usize); 1] = [("tests: download", 8)];

/// A program of tests.
#[derive(Debug)]
pub(super) struct Binary {
    /// `agent`, or `tests: rollback`.
    pub(super) name: String,
    executable: PathBuf,
    package: PathBuf,
}

impl Binary {
    /// The command that runs the tests whose names contain one of `filters`, or all.
    pub(super) fn command(&self, filters: &[String]) -> Command {
        let mut command = Command::new(&self.executable);
        // As cargo runs it.
        command.current_dir(&self.package).env("CARGO_MANIFEST_DIR", &self.package);
        command.args(filters);
        let processors = thread::available_parallelism().map_or(1, usize::from);
        if let Some(count) = at_a_time(&self.name).filter(|count| *count > processors) {
            command.args(["--test-threads", &count.to_string()]);
        }
        command
    }

    /// The command that runs just these tests, which otherwise do not run.
    pub(super) fn command_for_ignored(&self, names: &[String]) -> Command {
        let mut command = self.command(names);
        command.args(["--exact", "--ignored"]);
        command
    }
}

/// How many tests of a group run at a time, where the number of processors does not tell.
fn at_a_time(name: &str) -> Option<usize> {
    WAITING.iter().find(|(group, _)| *group == name).map(|(_, count)| *count)
}

/// Builds all targets, tests and programs alike; none if that fails.
pub(super) fn build(logs: &Path) -> anyhow::Result<Option<Vec<Binary>>> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--locked", "--workspace", "--all-targets"]);
    // The one thing that is only built when asked for: a story runs it against a token in software.
    cargo.args(["--features", "fleetctl/pkcs11,sealift-agent/pkcs11"]);
    cargo.arg("--message-format=json-render-diagnostics");
    let messages = logs.join("build.json");
    let log = logs.join("build.log");
    if !child::run_apart("build", &mut cargo, &messages, &log, BUILD_LIMIT)?.success() {
        return Ok(None);
    }
    let mut binaries = Vec::new();
    for message in Message::parse_stream(BufReader::new(File::open(messages)?)) {
        if let Message::CompilerArtifact(artifact) = message? {
            binaries.extend(binary(artifact));
        }
    }
    binaries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Some(binaries))
}

fn binary(artifact: Artifact) -> Option<Binary> {
    if !artifact.profile.test {
        return None;
    }
    let package = artifact.manifest_path.parent()?;
    let directory = package.file_name()?;
    let target = &artifact.target;
    let name = match target.kind.first()? {
        TargetKind::Lib => directory.to_owned(),
        TargetKind::Bin => format!("{directory}: program {}", target.name),
        // Measured, not tested: `cargo xtask bench`.
        TargetKind::Bench => return None,
        _ => format!("{directory}: {}", target.name),
    };
    Some(Binary { name, executable: artifact.executable?.into(), package: package.into() })
}

/// Returns the groups that `names` ask for: a group by part of its name, otherwise tests by part of theirs.
pub(super) fn chosen<'a>(
    binaries: &'a [Binary],
    names: &[String],
) -> Vec<(&'a Binary, Vec<String>)> {
    let is_group =
        |name: &String| binaries.iter().any(|binary| binary.name.contains(name.as_str()));
    let filters: Vec<String> = names.iter().filter(|name| !is_group(name)).cloned().collect();
    let mut chosen = Vec::new();
    for binary in binaries {
        if names.is_empty() || names.iter().any(|name| binary.name.contains(name.as_str())) {
            chosen.push((binary, Vec::new()));
        } else if !filters.is_empty() {
            chosen.push((binary, filters.clone()));
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> Vec<Binary> {
        let binary = |name: &str| Binary {
            name: name.to_owned(),
            executable: PathBuf::new(),
            package: PathBuf::new(),
        };
        vec![binary("agent"), binary("tests: layers"), binary("tests: rollback")]
    }

    fn choose(names: &[&str]) -> Vec<(String, Vec<String>)> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let groups = groups();
        let chosen = chosen(&groups, &names).into_iter();
        chosen.map(|(binary, filters)| (binary.name.clone(), filters)).collect()
    }

    #[test]
    fn without_names_every_group_runs_whole() {
        assert_eq!(choose(&[]).len(), 3);
        assert!(choose(&[]).iter().all(|(_, filters)| filters.is_empty()));
    }

    #[test]
    fn a_group_that_waits_runs_more_tests_at_a_time() {
        let threads = |name: &str| {
            let package = PathBuf::new();
            let binary = Binary { name: name.to_owned(), executable: "true".into(), package };
            let command = binary.command_for_ignored(&[]);
            let mut words = command.get_args().skip_while(|word| *word != "--test-threads");
            words.nth(1).map(|count| count.to_string_lossy().into_owned())
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let expected = (processors < 8).then(|| "8".to_owned());
        assert_eq!((threads("tests: download"), threads("tests: rollback")), (expected, None));
    }

    #[test]
    fn a_name_of_a_group_runs_it_alone_and_whole() {
        assert_eq!(choose(&["layers"]), [("tests: layers".to_owned(), Vec::new())]);
    }

    #[test]
    fn any_other_name_is_looked_for_in_every_group() {
        let chosen = choose(&["is_never_lost"]);
        assert_eq!(chosen.len(), 3);
        assert!(chosen.iter().all(|(_, filters)| filters == &["is_never_lost"]));
    }
}

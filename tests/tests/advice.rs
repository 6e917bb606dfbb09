//! What help texts, alerts, the console and the documents tell people to type exists, with the options that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_tests::process::{programs, root};

const PROGRAMS: [&str; 3] = ["fleetctl", "fleet-server", "fleet-agent"];

/// Where commands are advised.
const PLACES: [&str; 8] = [
    "README.md",
    "SECURITY.md",
    "docs",
    "agent/src",
    "fleet-server/src",
    "fleet-server/console/src",
    "fleetctl/src",
    "packaging",
];

/// A command as far as it can be told from a text: program and subcommands, and the long options behind them.
type Advice = BTreeMap<Vec<String>, BTreeSet<String>>;

#[test]
fn every_command_that_people_are_told_to_type_exists() {
    let mut advice = Advice::new();
    for file in PLACES.iter().flat_map(|place| files(&root().join(place))) {
        let text = fs::read_to_string(&file).unwrap_or_default().replace("\\\n", " ");
        text.lines().for_each(|line| read(line, &mut advice));
    }
    assert!(advice.len() > 20, "few commands were found; has the way they are written changed?");

    let wrong: Vec<_> =
        advice.iter().filter_map(|(words, options)| fault(words, options)).collect();

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Takes the commands of a line: in backquotes anywhere, or the line itself in a block of a document.
fn read(line: &str, advice: &mut Advice) {
    let quoted = line.split('`').skip(1).step_by(2);
    let shell = line.split("&&").filter(|_| !line.contains('`')).map(str::trim);
    for command in quoted.chain(shell) {
        let mut words = command.split_whitespace().peekable();
        let Some(program) = words.next().filter(|word| PROGRAMS.contains(word)) else { continue };
        let mut path = vec![program.to_owned()];
        while let Some(word) = words.next_if(|word| is_subcommand(word)) {
            path.push(word.to_owned());
        }
        let is_option = |word: &&str| {
            word.strip_prefix("--")
                .is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        };
        let options = words.take_while(|word| !word.starts_with('#')).filter(is_option);
        let name = |word: &str| word.split(['=', '\'', '"']).next().unwrap_or(word).to_owned();
        advice.entry(path).or_default().extend(options.map(name));
    }
}

fn is_subcommand(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

/// What is wrong with a command; nothing if its program knows it.
fn fault(words: &[String], options: &BTreeSet<String>) -> Option<String> {
    let (program, subcommands) = words.split_first()?;
    let help = Command::new(programs().unwrap().join(program))
        .args(subcommands)
        .arg("--help")
        .output()
        .unwrap();
    if !help.status.success() {
        return Some(format!("`{}` does not exist", words.join(" ")));
    }
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let unknown: Vec<_> = options.iter().filter(|option| !knows(&help, option)).collect();
    (!unknown.is_empty()).then(|| format!("`{}` has no {unknown:?}", words.join(" ")))
}

fn knows(help: &str, option: &str) -> bool {
    help.split(|c: char| c.is_whitespace() || ",<[=".contains(c)).any(|word| word == option)
}

fn files(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries.flat_map(|entry| files(&entry.path())).collect()
}

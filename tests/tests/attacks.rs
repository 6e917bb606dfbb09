//! `docs/attacks.md` names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use sealift_tests::process::root;

/// Folders with Rust sources of ours.
const FOLDERS: [&str; 5] = ["agent", "fleet-server", "fleetctl", "protocol", "tests"];

/// Adds the names of the tests in every source below a folder. A file's own name says nothing: a test may move.
fn tests_below(folder: &Path, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !["node_modules", "dist", "target"].contains(&name.as_str()) {
            tests_below(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            found.extend(tests_in(&text).map(str::to_owned));
            found.extend(stories_in(&text).map(str::to_owned));
        }
    }
    Ok(())
}

/// The functions right behind a `#[test]` or `#[tokio::test]`, with other attributes between.
fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    let starts = text.match_indices("test").filter(|(at, _)| is_attribute(text, *at));
    starts.filter_map(|(at, _)| {
        let (head, rest) = text.get(at..)?.split_once("fn ")?;
        // A brace between them means that something else stands behind the attribute.
        (!head.contains('{')).then(|| name(rest))
    })
}

fn is_attribute(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    before.ends_with("#[") || before.ends_with("#[tokio::")
}

/// Stories that a macro makes tests of: `pub(super) async fn name(ground: Ground)`.
fn stories_in(text: &str) -> impl Iterator<Item = &str> {
    let functions = text.match_indices("pub(super) async fn ");
    let names = functions.filter_map(|(at, found)| text.get(at + found.len()..));
    names.filter(|rest| rest.contains("(ground: Ground)")).map(name)
}

fn name(text: &str) -> &str {
    let end = text.find(|character: char| !(character.is_alphanumeric() || character == '_'));
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

/// The rows of the page's tables: what is attacked, and the tests that are named.
fn rows(page: &str) -> Vec<(&str, Vec<&str>)> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    // No cell holds a bar; some are empty.
    let rows = cells.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|cells| cells.first() != Some(&"attack"))
        .filter_map(|cells| {
            let tests = cells.last()?.split_whitespace().map(|name| name.trim_matches('`'));
            Some((*cells.first()?, tests.collect()))
        })
        .collect()
}

/// The codes that a row names; of a family, such as `enrol.token-*`, what its codes begin with.
fn codes(page: &str) -> impl Iterator<Item = &str> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = rows.filter_map(|line| line.split('|').nth(2));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2))
}

/// Everything in the sources below a folder, as one text.
fn sources(folder: &Path, text: &mut String) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, text)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[test]
fn every_attack_names_codes_that_are_given() -> anyhow::Result<()> {
    let page = fs::read_to_string(root().join("docs/attacks.md"))?;
    let mut text = String::new();
    for folder in ["agent/src", "fleet-server/src", "protocol/src"] {
        sources(&root().join(folder), &mut text)?;
    }
    let codes: Vec<_> = codes(&page).collect();
    ensure!(codes.len() > 40, "only {} codes are named", codes.len());
    for code in codes {
        let literal = match code.split_once('*') {
            Some((family, _)) => format!("\"{family}"),
            None => format!("\"{code}\""),
        };
        ensure!(text.contains(&literal), "no source gives {code}");
    }
    Ok(())
}

#[test]
fn every_attack_names_tests_that_exist() -> anyhow::Result<()> {
    let page = fs::read_to_string(root().join("docs/attacks.md"))?;
    let mut found = BTreeSet::new();
    for folder in FOLDERS {
        tests_below(&root().join(folder), &mut found).with_context(|| folder.to_owned())?;
    }
    ensure!(found.len() > 500, "only {} tests were found", found.len());
    let rows = rows(&page);
    ensure!(rows.len() > 50, "only {} attacks are named", rows.len());
    for (attack, tests) in rows {
        ensure!(!tests.is_empty(), "nothing tries: {attack}");
        for test in tests {
            ensure!(found.contains(test), "`{attack}` names {test}, which is no test");
        }
    }
    Ok(())
}

#[test]
fn tests_are_found_behind_their_attributes() {
    let text = "#[test]\nfn one() {}\n#[tokio::test]\n#[ignore = \"needs much\"]\nasync fn two() {}\n\
                fn helper() {}\npub(super) async fn told(ground: Ground) {}\n";
    let found: Vec<_> = tests_in(text).chain(stories_in(text)).collect();
    assert_eq!(found, ["one", "two", "told"]);
}

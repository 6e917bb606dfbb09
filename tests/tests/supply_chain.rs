//! What is built into the programs for this platform: licences, one crypto provider, one TLS stack, one CBOR.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use sealift_tests::process::root;
use serde::Deserialize;

/// `deny.toml`, as far as these tests judge by it.
#[derive(Deserialize)]
struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licences {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
}

fn rules() -> Rules {
    toml::from_str(&fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap()
}

#[test]
fn every_licence_is_one_that_was_agreed_to() {
    let allowed = rules().licenses.allow;
    for package in built() {
        assert!(is_allowed(&package.licence, &allowed), "{package:?}");
    }
}

#[test]
fn no_licence_is_agreed_to_without_need() {
    let licences: BTreeSet<_> = built().into_iter().map(|package| package.licence).collect();
    for allowed in rules().licenses.allow {
        let without: BTreeSet<_> =
            rules().licenses.allow.into_iter().filter(|other| *other != allowed).collect();
        let is_needed = licences.iter().any(|licence| !is_allowed(licence, &without));
        assert!(is_needed, "nothing needs {allowed}");
    }
}

#[test]
fn nothing_banned_is_built_in() {
    let banned: BTreeSet<_> = rules().bans.deny.into_iter().map(|banned| banned.name).collect();
    assert!(
        ["ring", "openssl-sys", "native-tls", "ciborium"].iter().all(|name| banned.contains(*name))
    );
    for package in built() {
        assert!(!banned.contains(&package.name), "{package:?}");
    }
}

#[test]
fn there_is_one_tls_stack_with_one_crypto_provider_and_one_cbor() {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in built() {
        versions.entry(package.name).or_default().push(package.version);
    }
    let one = |name: &str| match versions.get(name).map(Vec::as_slice) {
        Some([version]) => version.clone(),
        other => panic!("{name}: {other:?}"),
    };

    assert!(one("rustls").starts_with("0.23."));
    one("aws-lc-rs");
    one("serde_cbor_2");
    one("tokio-rustls");
    let cbor: Vec<_> = versions.keys().filter(|name| name.contains("cbor")).collect();
    assert_eq!(cbor, ["serde_cbor_2"]);
}

#[test]
fn every_crate_comes_from_the_registry_or_from_here() {
    for package in built() {
        let is_here =
            package.place.as_deref().is_none_or(|place| Path::new(place).starts_with(root()));
        assert!(is_here, "{package:?}");
    }
}

#[test]
fn the_stand_in_is_nearly_empty() {
    let text = fs::read_to_string(root().join("patches/rustls-webpki/src/lib.rs")).unwrap();
    assert!(text.len() < 1_200, "it has grown to {} bytes", text.len());
}

#[test]
fn expressions_of_licences_are_judged_as_written() {
    let allowed: BTreeSet<_> = ["MIT", "ISC"].map(str::to_owned).into();
    for good in ["MIT", "MIT/GPL-3.0", "GPL-3.0 OR ISC", "MIT AND (GPL-3.0 OR ISC)"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "", "MIT WITH x"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

/// A package that ends up in a program or builds one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Built {
    name: String,
    version: String,
    /// A directory or a repository, if it does not come from the registry.
    place: Option<String>,
    licence: String,
}

/// What is built on this platform with the features that are on, but for what tests alone use. `cargo tree` is exact here;
/// `cargo metadata` also lists what a weak feature could have asked for.
fn built() -> BTreeSet<Built> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args([
        "tree",
        "--workspace",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--no-dedupe",
    ]);
    tree.args(["--locked", "--offline", "--format", "{p}|{l}"]).current_dir(root());
    let output = tree.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let built: BTreeSet<_> = text.lines().filter(|line| !line.is_empty()).map(package).collect();
    assert!(built.len() > 200, "only {} packages were found", built.len());
    built
}

/// Reads `name v1.2.3 (proc-macro) (/place)|licence`.
fn package(line: &str) -> Built {
    let (package, licence) = line.split_once('|').unwrap();
    let mut words = package.split(' ');
    let name = words.next().unwrap().to_owned();
    let version = words.next().unwrap().trim_start_matches('v').to_owned();
    let place = words
        .find(|word| *word != "(proc-macro)")
        .map(|word| word.trim_matches(['(', ')']).to_owned());
    Built { name, version, place, licence: licence.to_owned() }
}

/// Judges an SPDX expression; `A/B` is the old way to write `A OR B`.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let verdict = any_of(&mut rest, allowed);
    verdict && rest.is_empty()
}

fn any_of(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut verdict = all_of(words, allowed);
    while take(words, "OR") {
        verdict |= all_of(words, allowed);
    }
    verdict
}

fn all_of(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut verdict = one_of(words, allowed);
    while take(words, "AND") {
        verdict &= one_of(words, allowed);
    }
    verdict
}

fn one_of(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    if take(words, "(") {
        let verdict = any_of(words, allowed);
        return take(words, ")") && verdict;
    }
    let Some((name, rest)) = words.split_first() else { return false };
    *words = rest;
    // An exception only adds freedom, but it has to be agreed to as it stands.
    if take(words, "WITH") {
        let Some((exception, rest)) = words.split_first() else { return false };
        *words = rest;
        return allowed.contains(&format!("{name} WITH {exception}"));
    }
    allowed.contains(*name)
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let Some((first, rest)) = words.split_first() else { return false };
    let is_next = *first == word;
    if is_next {
        *words = rest;
    }
    is_next
}

//! Arrows between crates point one way, the pure modules stay pure, and files stay small.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use sealift_tests::process::root;

/// Who may use whom of the workspace. Tests may use everything, in tests.
const ARROWS: [(&str, &[&str]); 6] = [
    ("sealift-protocol", &[]),
    ("sealift-agent", &["sealift-protocol"]),
    ("sealift-fleet-server", &["sealift-protocol"]),
    ("fleetctl", &["sealift-protocol"]),
    ("sealift-tests", &["sealift-protocol"]),
    ("xtask", &["sealift-protocol", "sealift-tests"]),
];

/// What decides from values alone: files, and directories with everything in them.
const PURE: [&str; 28] = [
    "protocol/src",
    "agent/src/device.rs",
    "agent/src/device",
    "agent/src/behaviour.rs",
    "agent/src/behaviour",
    "agent/src/download/order.rs",
    "agent/src/serve/challenger/agreement.rs",
    "agent/src/serve/challenger/allowance.rs",
    "agent/src/download/pace.rs",
    "fleet-server/src/rollout.rs",
    "fleet-server/src/rollout",
    "fleet-server/src/alert.rs",
    "fleet-server/src/alert/finding.rs",
    "fleet-server/src/alert/backtest.rs",
    "fleet-server/src/alert/health.rs",
    "fleet-server/src/alert/matcher.rs",
    "fleet-server/src/blame.rs",
    "fleet-server/src/blame",
    "fleet-server/src/sensors.rs",
    "fleet-server/src/sensors",
    "fleet-server/src/alert/rule.rs",
    "fleet-server/src/permission.rs",
    "fleet-server/src/review/accuracy.rs",
    "fleet-server/src/review/agreement.rs",
    "fleet-server/src/review/choose.rs",
    "fleet-server/src/reach.rs",
    "fleet-server/src/auth/totp.rs",
    "fleet-server/src/auth/oidc/id_token.rs",
];

/// What lies below a pure module by its noun, and acts: it sends alerts that were decided on.
const SHELLS: [&str; 1] = ["fleet-server/src/alert/deliver"];

/// The world outside: waiting, storage, network, clock, chance, log.
const OUTSIDE: [&str; 18] = [
    "tokio",
    "sqlx",
    "axum",
    "reqwest",
    "rumqttc",
    "rmqtt",
    "object_store",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "async fn",
    ".await",
    "::now()",
    "SystemTime",
    "getrandom",
    "tracing::",
];

/// The only files that may contain `unsafe`, each for a reason that it states itself.
const UNSAFE: [&str; 3] =
    ["agent/src/engine/onnxruntime.rs", "agent/src/worker/post.rs", "agent/src/worker/shared.rs"];

/// A file is split by noun long before this.
const LINES_MAX: usize = 600;

#[test]
fn crates_use_only_what_is_below_them() {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec().unwrap();
    let members: Vec<_> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    for package in &metadata.packages {
        let arrow = ARROWS.iter().find(|(name, _)| *name == package.name.as_str());
        let (name, below) = arrow.unwrap_or_else(|| panic!("{} is in no layer", package.name));
        let used = own_dependencies(package, &members);
        let below = below.iter().map(|&name| name.to_owned()).collect();
        assert!(used.is_subset(&below), "{name} uses {used:?}, and may use {below:?}");
    }
    assert_eq!(members.len(), ARROWS.len(), "{members:?}");
}

/// Tests of `sealift-tests` alone may reach into every crate.
fn own_dependencies(package: &Package, members: &[&str]) -> BTreeSet<String> {
    let is_free = |kind| kind == DependencyKind::Development && package.name == "sealift-tests";
    let dependencies = package.dependencies.iter().filter(|used| !is_free(used.kind));
    dependencies.map(|used| used.name.clone()).filter(|name| members.contains(&&**name)).collect()
}

#[test]
fn pure_modules_touch_nothing_outside() {
    let mut seen = 0;
    for path in PURE {
        let files = files_below(&root().join(path), &["rs"]);
        for file in files.into_iter().filter(|file| !is_shell(file)) {
            let text = production(&fs::read_to_string(&file).unwrap());
            for word in OUTSIDE {
                assert!(!text.contains(word), "{} mentions `{word}`", file.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} pure files were found");
}

fn is_shell(file: &Path) -> bool {
    let inside = file.with_extension("");
    SHELLS.iter().any(|shell| inside.starts_with(root().join(shell)))
}

#[test]
fn unsafe_code_is_only_where_it_is_expected() {
    let mut found = BTreeSet::new();
    for file in sources(&["rs"]) {
        let text = without_comments(&fs::read_to_string(&file).unwrap());
        let forms = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait"];
        // This file names the forms; it is the one that cannot be asked.
        if forms.iter().any(|form| text.contains(form)) && !file.ends_with("tests/tests/layers.rs")
        {
            found.insert(file.strip_prefix(root()).unwrap().display().to_string());
        }
    }
    assert_eq!(found, UNSAFE.map(str::to_owned).into());
}

#[test]
fn no_file_is_too_long() {
    let mut too_long = Vec::new();
    for file in sources(&["rs", "ts", "tsx", "css", "py", "js", "mjs", "sql", "sh"]) {
        let text = fs::read_to_string(&file).unwrap();
        let is_generated = text.lines().take(5).any(|line| line.contains("auto-generated"));
        if !is_generated && text.lines().count() > LINES_MAX {
            too_long.push(format!("{}: {} lines", file.display(), text.lines().count()));
        }
    }
    assert!(too_long.is_empty(), "longer than {LINES_MAX} lines:\n{}", too_long.join("\n"));
}

#[test]
fn the_rules_see_through_comments_and_tests() {
    let text = "use a::b; // not tokio\n//! sqlx\nlet url = \"https://axum\";\n\
                #[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";

    let production = production(text);

    assert!(production.contains("a::b") && production.contains("https://axum"));
    assert!(!["tokio", "sqlx", "std::fs"].iter().any(|word| production.contains(word)));
}

/// All files with one of these extensions that people write here.
fn sources(extensions: &[&str]) -> Vec<PathBuf> {
    files_below(&root(), extensions)
}

fn files_below(path: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    /// Made by tools, or hidden.
    const NOT_OURS: [&str; 4] = ["target", "node_modules", "dist", "coverage"];
    if path.is_file() {
        let extension = path.extension().and_then(|extension| extension.to_str());
        return extension
            .filter(|found| extensions.contains(found))
            .map_or(Vec::new(), |_| vec![path.to_owned()]);
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !NOT_OURS.contains(&name.as_str()) && !name.starts_with('.') {
            files.extend(files_below(&entry.path(), extensions));
        }
    }
    files.sort();
    files
        .into_iter()
        .filter(|file| extensions != ["rs"] || path == root() || !is_test(file))
        .collect()
}

/// Files of tests alone; the parent module has them behind `#[cfg(test)]`.
fn is_test(file: &Path) -> bool {
    let mut parts = file.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    parts.any(|part| ["tests.rs", "testing.rs"].contains(&part.as_str()))
        || file.parent().is_some_and(|directory| directory.ends_with("tests"))
}

/// What is compiled into a program: without comments, and without the tests at the file's end.
fn production(text: &str) -> String {
    let text = without_comments(text);
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].to_owned()
}

fn without_comments(text: &str) -> String {
    let code = |line: &str| {
        let begins = line.match_indices("//").map(|(at, _)| at);
        let is_comment = |&at: &usize| at == 0 || line[..at].ends_with([' ', '\t']);
        let end = begins.into_iter().find(is_comment).unwrap_or(line.len());
        format!("{}\n", line[..end].trim_end())
    };
    text.lines().map(code).collect()
}

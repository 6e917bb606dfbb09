//! What the file says. Whatever is wrong with it is said with file, line and field, before anything is changed.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sealift_protocol::api::{
    AlertSeverity, ChannelNew, Destination, KindChange, RolloutNew, RuleNew,
};
use sealift_protocol::id::UnixMillis;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::command::notify;
use crate::command::rollout::order;

/// Entries of one section: more are no file that a person wrote.
const ENTRIES_MAX: usize = 1_000;

const SECTIONS: [&str; 5] = ["alert_kinds", "alert_rules", "channels", "silences", "rollouts"];

/// A file that was understood as a whole.
#[derive(Debug)]
pub(super) struct File {
    name: String,
    pub(super) alert_kinds: Vec<Entry<(String, KindChange)>>,
    pub(super) alert_rules: Vec<Entry<RuleNew>>,
    pub(super) channels: Vec<Entry<ChannelNew>>,
    pub(super) silences: Vec<Entry<Silence>>,
    pub(super) rollouts: Vec<Entry<RolloutNew>>,
}

/// Something that should be there, and the line where it is said.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) line: Option<usize>,
    pub(super) value: T,
}

/// A silence with an end, so that applying it again does not prolong it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Silence {
    pub(super) matchers: Vec<String>,
    pub(super) reason: String,
    #[serde(deserialize_with = "moment")]
    pub(super) until: UnixMillis,
}

/// A channel as in the API; what is secret of it stands in another file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Channel {
    name: String,
    #[serde(default)]
    least: AlertSeverity,
    #[serde(default)]
    matchers: Vec<String>,
    destination: Value,
    /// The URL of a webhook, otherwise the password; beside the file.
    #[serde(default)]
    secret_file: Option<PathBuf>,
}

impl File {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let text = order::text(path)?;
        let beside = path.parent().unwrap_or_else(|| Path::new(""));
        Self::parse(&name, &text, beside)
    }

    fn parse(name: &str, text: &str, beside: &Path) -> anyhow::Result<Self> {
        // The library says the line itself.
        let whole: Value = serde_norway::from_str(text).with_context(|| name.to_owned())?;
        let Value::Object(whole) = whole else {
            bail!("{name}: it has none of the sections {}", SECTIONS.join(", "));
        };
        let source = Source { name, text };
        for section in whole.keys() {
            if !SECTIONS.contains(&section.as_str()) {
                let place = source.place(source.section(section).map(|(line, _)| line));
                bail!("{place}`{section}` is no section; there are {}", SECTIONS.join(", "));
            }
        }
        let list = |section: &str| whole.get(section).cloned().unwrap_or_default();
        let file = Self {
            name: name.to_owned(),
            alert_kinds: source.kinds(list("alert_kinds"))?,
            alert_rules: source.list("alert_rules", list("alert_rules"), typed)?,
            channels: source.list("channels", list("channels"), |it| channel(it, beside))?,
            silences: source.list("silences", list("silences"), typed)?,
            rollouts: source.list("rollouts", list("rollouts"), |it| order::checked(&it))?,
        };
        let rules = file.alert_rules.iter().map(|it| (it.line, it.value.name.clone()));
        source.are_different("alert_rules", rules)?;
        let channels = file.channels.iter().map(|it| (it.line, it.value.name.clone()));
        source.are_different("channels", channels)?;
        let rollouts = file.rollouts.iter().map(|it| {
            let RolloutNew { model, version, filter, .. } = &it.value;
            (it.line, format!("{model}@{version} {filter}").trim().to_owned())
        });
        source.are_different("rollouts", rollouts)?;
        Ok(file)
    }

    /// `fleet.yaml:12: `
    pub(super) fn place(&self, line: Option<usize>) -> String {
        place(&self.name, line)
    }
}

fn place(name: &str, line: Option<usize>) -> String {
    line.map_or_else(|| format!("{name}: "), |line| format!("{name}:{line}: "))
}

/// The file's text, for finding lines in it.
struct Source<'a> {
    name: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn place(&self, line: Option<usize>) -> String {
        place(self.name, line)
    }

    fn list<T>(
        &self,
        section: &str,
        value: Value,
        read: impl Fn(Value) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<Entry<T>>> {
        let items = match value {
            Value::Null => Vec::new(),
            Value::Array(items) if items.len() <= ENTRIES_MAX => items,
            Value::Array(_) => bail!("{}: {section} has over {ENTRIES_MAX} entries", self.name),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                let place = self.place(self.section(section).map(|(line, _)| line));
                bail!("{place}{section} is not a list")
            }
        };
        let entry = |(number, item)| {
            let lines = self.item(section, number);
            let line = lines.as_ref().map(|lines| lines.start);
            let value = read(item).map_err(|error| {
                let what = format!("{error:#}");
                let place = self.place(self.word(&what, lines).or(line));
                anyhow::anyhow!("{place}{section}[{number}]: {what}")
            })?;
            Ok(Entry { line, value })
        };
        items.into_iter().enumerate().map(entry).collect()
    }

    fn kinds(&self, value: Value) -> anyhow::Result<Vec<Entry<(String, KindChange)>>> {
        let kinds = match value {
            Value::Null => return Ok(Vec::new()),
            Value::Object(kinds) => kinds,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                bail!("{}alert_kinds is not a map from kinds", self.place(None))
            }
        };
        let entry = |(kind, change): (String, Value)| {
            let found = self.section("alert_kinds").and_then(|(_, lines)| self.key(&kind, lines));
            let value = typed(change).map_err(|error| {
                anyhow::anyhow!("{}alert_kinds.{kind}: {error:#}", self.place(found))
            })?;
            Ok(Entry { line: found, value: (kind, value) })
        };
        kinds.into_iter().map(entry).collect()
    }

    fn are_different(
        &self,
        section: &str,
        names: impl Iterator<Item = (Option<usize>, String)>,
    ) -> anyhow::Result<()> {
        let mut seen = BTreeSet::new();
        for (line, name) in names {
            if !seen.insert(name.clone()) {
                bail!("{}{section}: `{name}` stands there twice", self.place(line));
            }
        }
        Ok(())
    }

    /// The lines, from 1, of the file with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The line of a section's name, and those that belong to it.
    fn section(&self, section: &str) -> Option<(usize, Range<usize>)> {
        let is_it = |line: &str| line.trim_start_matches('"').starts_with(section);
        let (at, _) = self.lines().find(|(_, line)| is_it(line))?;
        let is_next = |line: &str| !line.starts_with([' ', '-', '#', '\t']) && !line.is_empty();
        let next = self.lines().find(|&(number, line)| number > at && is_next(line));
        let end = next.map_or(usize::MAX, |(number, _)| number);
        Some((at, at + 1..end))
    }

    /// The lines of an entry, where each stands on lines of its own.
    fn item(&self, section: &str, wanted: usize) -> Option<Range<usize>> {
        let (_, lines) = self.section(section)?;
        let indent = |line: &str| line.len() - line.trim_start().len();
        let is_item = |line: &str| line.trim_start().starts_with("- ") || line.trim() == "-";
        let within = self.lines().filter(|(number, _)| lines.contains(number));
        let items: Vec<_> = within.filter(|(_, line)| is_item(line)).collect();
        let outer = items.first().map(|(_, line)| indent(line))?;
        let mut starts = items.iter().filter(|(_, line)| indent(line) == outer);
        let (start, _) = starts.nth(wanted)?;
        let end = starts.next().map_or(lines.end, |(next, _)| *next);
        Some(*start..end)
    }

    /// The line, of some, that has a word which an error quotes.
    fn word(&self, error: &str, lines: Option<Range<usize>>) -> Option<usize> {
        let (_, quoted) = error.split_once('`')?;
        let (word, _) = quoted.split_once('`')?;
        self.key(word, lines?)
    }

    fn key(&self, word: &str, lines: Range<usize>) -> Option<usize> {
        let key = format!("{word}:");
        let has_it =
            |line: &str| line.split([' ', '{', ',', '"']).any(|part| part == key || part == word);
        let found = self.lines().find(|&(number, line)| lines.contains(&number) && has_it(line));
        found.map(|(number, _)| number)
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> anyhow::Result<T> {
    Ok(serde_json::from_value(value)?)
}

fn channel(value: Value, beside: &Path) -> anyhow::Result<ChannelNew> {
    let Channel { name, least, matchers, mut destination, secret_file } = typed(value)?;
    if let Some(file) = secret_file {
        let kind = destination.get("kind").and_then(Value::as_str).unwrap_or_default();
        let word = if matches!(kind, "webhook" | "slack") { "url" } else { "password" };
        let secret = notify::read(&beside.join(file)).context("`secret_file`")?;
        let Value::Object(fields) = &mut destination else { bail!("`destination` is not a map") };
        if fields.insert(word.to_owned(), Value::String(secret)).is_some() {
            bail!("`{word}` stands both here and in `secret_file`");
        }
    }
    let destination: Destination = serde_json::from_value(destination).context("`destination`")?;
    Ok(ChannelNew { name, least, matchers, destination })
}

fn moment<'de, D: serde::Deserializer<'de>>(value: D) -> Result<UnixMillis, D::Error> {
    let text = String::deserialize(value)?;
    let at: Result<jiff::Timestamp, _> = text.parse();
    let rule = || {
        serde::de::Error::custom(format!(
            "`until` is a time such as 2026-07-01T03:00:00Z, not {text}"
        ))
    };
    at.map(|at| UnixMillis(at.as_millisecond())).map_err(|_| rule())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("fleet.yaml");

    fn parse(text: &str) -> anyhow::Result<File> {
        File::parse("fleet.yaml", text, Path::new(""))
    }

    fn refused(right: &str, wrong: &str) -> String {
        assert!(FILE.contains(right), "{right}");
        format!("{:#}", parse(&FILE.replacen(right, wrong, 1)).unwrap_err())
    }

    #[test]
    fn every_section_is_read_with_its_lines() {
        let file = parse(FILE).unwrap();

        let kinds: Vec<_> = file.alert_kinds.iter().map(|it| (it.line, &*it.value.0)).collect();
        assert_eq!(kinds, [(Some(3), "device-silent")]);
        let rules: Vec<_> = file.alert_rules.iter().map(|it| (it.line, &*it.value.name)).collect();
        assert_eq!(rules, [(Some(5), "osaka-offline"), (Some(10), "anywhere-hot")]);
        assert_eq!((file.channels[0].line, file.silences[0].line), (Some(12), Some(17)));
        assert_eq!(file.rollouts[0].line, Some(21));
        assert_eq!(file.rollouts[0].value.waves.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_said_with_file_line_and_field() {
        let errors = [
            refused("filter: site:osaka", "filtre: site:osaka"),
            refused("at_least: { percent: 5 }", "at_least: { parts: 5 }"),
            refused("soak_s: 1800", "soak: 1800"),
            refused("until: '2030-07-01T03:00:00Z'", "until: next week"),
            refused("silences:", "silence:"),
            refused("name: anywhere-hot", "name: osaka-offline"),
            refused("hold_s: 900", "hold_s: soon"),
            refused("rollouts:", "rollouts: ["),
        ];

        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn a_secret_stands_in_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("slack-url"), "https://hooks.example/T0/secret\n")
            .unwrap();
        let text = FILE.replacen(
            "destination: { kind: webhook, url: 'https://ops.example/hook' }",
            "destination: { kind: slack }\n    secret_file: slack-url",
            1,
        );

        let file = File::parse("fleet.yaml", &text, folder.path()).unwrap();

        let Destination::Slack { url } = &file.channels[0].value.destination else { panic!() };
        assert_eq!(url, "https://hooks.example/T0/secret");
    }
}

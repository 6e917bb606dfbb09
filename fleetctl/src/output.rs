//! Results on standard output, progress on standard error.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::cli::Format;

/// Where and how a command prints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) const fn new(format: Format) -> Self {
        Self { format }
    }

    /// How results are printed, for what prints while it works.
    pub(crate) const fn format(self) -> Format {
        self.format
    }

    /// Prints `value` as JSON, or the table that `rows` makes.
    pub(crate) fn rows<T: Serialize, const N: usize>(
        self,
        value: &T,
        head: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Json => json(value),
            Format::Table => line(&table(head, rows)),
        }
    }

    /// Prints `value` as JSON, or the lines that `text` makes.
    pub(crate) fn text<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Json => json(value),
            Format::Table => line(&text(value)),
        }
    }
}

/// A table without lines, as wide as the terminal.
pub(crate) fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head).add_rows(rows.into_iter().map(|row| row.map(|cell| printable(&cell))));
    table.trim_fmt()
}

/// Text from devices must not steer a terminal: control characters are shown, not sent.
pub(crate) fn printable(text: &str) -> String {
    let is_plain = !text.chars().any(char::is_control);
    if is_plain { text.to_owned() } else { text.escape_debug().to_string() }
}

fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// A line on standard output; a closed pipe ends the program quietly.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// A line on standard error.
pub(crate) fn note(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Asks on the terminal; without one the answer is no.
pub(crate) fn confirm(question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    write!(io::stderr().lock(), "{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Asks for a secret without showing it; none without a terminal.
pub(crate) fn prompt_secret(question: &str) -> anyhow::Result<Option<String>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    Ok(Some(rpassword::prompt_password(question)?))
}

/// Any serialised enum as the word it has in JSON.
pub(crate) fn word<T: Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// An optional value, or a dash.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_from_a_device_do_not_reach_the_terminal() {
        let text = table(["a"], [["\u{1b}[2Jgone".to_owned()]]);
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}

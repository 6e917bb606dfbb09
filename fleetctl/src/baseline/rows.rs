//! A table of text in memory, whatever file it came from.

use std::path::Path;

use anyhow::{Context as _, ensure};

/// Cells that are read: 2 million rows of 100 columns are more than a baseline needs.
const CELLS_MAX: usize = 200_000_000;

/// Rows below a head.
#[derive(Debug)]
pub(crate) struct Rows {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    /// Reads a CSV file whose first line names the columns.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        Self::csv(path).with_context(|| format!("cannot read the rows of {}", path.display()))
    }

    fn csv(path: &Path) -> anyhow::Result<Self> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path)?;
        let head: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
        ensure!(head.iter().any(|name| !name.is_empty()), "the file is empty or has no head");
        let mut rows = Vec::new();
        for row in reader.records() {
            rows.push(row?.iter().map(str::to_owned).collect());
            ensure!(rows.len() * head.len() <= CELLS_MAX, "more than {CELLS_MAX} cells");
        }
        Self::new(head, rows)
    }

    fn new(head: Vec<String>, rows: Vec<Vec<String>>) -> anyhow::Result<Self> {
        let mut known = std::collections::BTreeSet::new();
        for (place, name) in head.iter().enumerate() {
            ensure!(!name.is_empty(), "column {} has no name", place + 1);
            ensure!(known.insert(name), "column `{name}` is there twice");
        }
        ensure!(!rows.is_empty(), "there are no rows below the head");
        Ok(Self { head, rows })
    }

    /// The names of the columns.
    pub(crate) fn head(&self) -> &[String] {
        &self.head
    }

    /// Where a column is.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.head.iter().position(|column| column == name)
    }

    /// The cells of a column.
    pub(crate) fn column(&self, place: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().map(move |row| row.get(place).map_or("", String::as_str))
    }

    /// All rows.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[String]> {
        self.rows.iter().map(Vec::as_slice)
    }
}

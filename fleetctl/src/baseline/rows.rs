//! A table in memory, whatever file it came from: eight bytes a cell, each text once.

mod packed;

use std::path::Path;

use anyhow::{Context as _, ensure};
use sealift_protocol::table::Value;

use super::source::{Source, Told};
use packed::Texts;

pub(crate) use packed::{Cell, Packed, name_of};

/// Cells that are kept: 2 million rows of 100 columns are more than a baseline needs, and take 1.6 GB.
const CELLS_MAX: usize = 200_000_000;

/// Rows below a head.
#[derive(Debug)]
pub(crate) struct Rows {
    columns: Vec<Column>,
    rows: usize,
}

/// The cells of one column.
#[derive(Debug)]
struct Column {
    name: String,
    refused: Option<&'static str>,
    cells: Vec<Packed>,
    texts: Texts,
}

impl Rows {
    /// Reads a file of rows.
    pub(crate) fn read(path: &Path, told: Told<'_>) -> anyhow::Result<Self> {
        Self::of(path, told).with_context(|| format!("cannot read the rows of {}", path.display()))
    }

    fn of(path: &Path, told: Told<'_>) -> anyhow::Result<Self> {
        let mut source = Source::open(path, told)?;
        let column = |head: &super::source::Head| Column {
            name: head.name.clone(),
            refused: head.refused,
            cells: Vec::new(),
            texts: Texts::default(),
        };
        let mut rows = Self { columns: source.head().iter().map(column).collect(), rows: 0 };
        while let Some(block) = source.next()? {
            rows.extend(block);
            ensure!(
                rows.rows.saturating_mul(rows.columns.len()) <= CELLS_MAX,
                "more than {CELLS_MAX} cells\nhelp: a baseline keeps 50,000 rows: take every n-th row of the file"
            );
        }
        ensure!(rows.rows > 0, "there are no rows below the head");
        Ok(rows)
    }

    fn extend(&mut self, block: Vec<Vec<Value>>) {
        self.rows += block.first().map_or(0, Vec::len);
        for (column, values) in self.columns.iter_mut().zip(block) {
            let Column { cells, texts, .. } = column;
            cells.extend(values.into_iter().map(|value| texts.pack(value)));
        }
    }

    /// How many rows there are.
    pub(crate) const fn len(&self) -> usize {
        self.rows
    }

    /// The names of the columns.
    pub(crate) fn head(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.name.as_str()).collect()
    }

    /// Where a column is.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Why a column's cells cannot be read, if they cannot.
    pub(crate) fn refused(&self, place: usize) -> Option<&'static str> {
        self.columns.get(place)?.refused
    }

    /// Whether a column has more texts than are kept apart.
    pub(crate) fn is_overfull(&self, place: usize) -> bool {
        self.columns.get(place).is_some_and(|column| column.texts.is_overfull())
    }

    /// A cell; null beyond the table.
    pub(crate) fn cell(&self, row: usize, place: usize) -> Cell<'_> {
        let column = self.columns.get(place);
        let packed = column.and_then(|column| Some((column, *column.cells.get(row)?)));
        packed.map_or(Cell::Null, |(column, packed)| column.texts.cell(packed))
    }

    /// The cells of a column, each with what equal cells have alike.
    pub(crate) fn keyed(&self, place: usize) -> impl Iterator<Item = (Packed, Cell<'_>)> {
        let column = self.columns.get(place);
        let cells = column.into_iter().flat_map(|column| &column.cells);
        cells.zip(self.column(place)).map(|(packed, cell)| (*packed, cell))
    }

    /// The cells of a column.
    pub(crate) fn column(&self, place: usize) -> impl Iterator<Item = Cell<'_>> {
        (0..self.rows).map(move |row| self.cell(row, place))
    }
}

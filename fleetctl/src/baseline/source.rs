//! A file of rows, whatever its format, block by block. What it is, is told by its first bytes, and where those tell nothing by its name.

mod json;
mod text;

use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use sealift_protocol::limits::TABLE_COLUMNS_MAX;
use sealift_protocol::table::{Value, npy, npz, parquet};

use self::json::JsonLines;
use self::text::Csv;
use crate::failure::{Exit, Failure};

/// Cells that are read at once: some 30 MB.
const BLOCK_CELLS: usize = 1 << 20;

/// What files of rows may be.
const KINDS: &str = "rows come as CSV, JSON Lines, Parquet, .npy or .npz";

/// What is said of a file beside itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told<'a> {
    /// Which array of an archive.
    pub(crate) array: Option<&'a str>,
    /// The columns of an array that does not name them itself.
    pub(crate) columns: Option<&'a [String]>,
}

/// A file of rows, while it is read.
pub(super) struct Source {
    rows: Format,
    head: Vec<Head>,
}

/// What is known of a column before its cells are read.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) name: String,
    /// Why its cells are none.
    pub(super) refused: Option<&'static str>,
}

enum Format {
    Csv(Csv),
    JsonLines(JsonLines),
    /// With where it is, for the case that it is damaged.
    Parquet(Box<parquet::Table<File>>, PathBuf),
    Npy(npy::Table<File>),
    Npz(npy::Table<Cursor<Vec<u8>>>),
}

impl Source {
    /// Opens a file.
    pub(super) fn open(path: &Path, told: Told<'_>) -> anyhow::Result<Self> {
        let mut file = File::open(path)?;
        ensure!(
            !file.metadata()?.is_dir(),
            "it is a directory\nhelp: {KINDS}; a folder of pictures goes with a folder of pictures"
        );
        let mut front = [0; 8];
        let length = read_front(&mut file, &mut front)?;
        let front = front.get(..length).unwrap_or_default();
        ensure!(!front.is_empty(), "the file is empty");
        file.rewind()?;
        let kind = kind(front, path)?;
        ensure!(
            told.array.is_none() || matches!(kind, Kind::Npz),
            "it is no archive of arrays\nhelp: leave the name of an array out"
        );
        let source = match kind {
            Kind::Parquet => Self::parquet(file, path)?,
            Kind::Npy => Self::npy(npy::Table::open(file)?, told, Format::Npy)?,
            Kind::Npz => Self::npz(file, told)?,
            Kind::JsonLines => {
                let rows = JsonLines::open(file)?;
                Self { head: rows.head(), rows: Format::JsonLines(rows) }
            }
            Kind::Csv => {
                let rows = Csv::open(file)?;
                Self { head: rows.head(), rows: Format::Csv(rows) }
            }
        };
        source.check()
    }

    fn parquet(file: File, path: &Path) -> anyhow::Result<Self> {
        let table = parquet::reading(path, || parquet::Table::open(file))?;
        let head =
            |column: &parquet::Column| Head { name: column.name.clone(), refused: column.refused };
        let head = table.columns().iter().map(head).collect();
        Ok(Self { head, rows: Format::Parquet(Box::new(table), path.to_owned()) })
    }

    /// Reads one array into memory: rows are read from any place of it.
    fn npz(file: File, told: Told<'_>) -> anyhow::Result<Self> {
        let archive = npz::Archive::open(file)?;
        let refused = |error: npz::NotNpz| -> anyhow::Error {
            if matches!(error, npz::NotNpz::Several(_)) {
                return Failure::new(Exit::Failed, error.to_string())
                    .help("--array says which")
                    .into();
            }
            error.into()
        };
        let mut array = archive.array(told.array).map_err(refused)?;
        let mut bytes = Vec::new();
        array.read_to_end(&mut bytes)?;
        Self::npy(npy::Table::open(Cursor::new(bytes))?, told, Format::Npz)
    }

    fn npy<R: Read + Seek>(
        table: npy::Table<R>,
        told: Told<'_>,
        format: fn(npy::Table<R>) -> Format,
    ) -> anyhow::Result<Self> {
        let width = table.width();
        let names = match (table.names(), told.columns) {
            (Some(own), _) => own,
            (None, Some(names)) if names.len() == width => names.to_vec(),
            (None, Some(names)) => {
                let count = names.len();
                bail!("the array has {width} columns, {count} features are expected")
            }
            (None, None) => (0..width).map(|place| place.to_string()).collect(),
        };
        let head = names.into_iter().map(|name| Head { name, refused: None }).collect();
        Ok(Self { head, rows: format(table) })
    }

    fn check(self) -> anyhow::Result<Self> {
        let count = self.head.len();
        ensure!(count > 0, "there is no column");
        ensure!(
            count <= TABLE_COLUMNS_MAX,
            "there are {count} columns; at most {TABLE_COLUMNS_MAX} are taken"
        );
        let mut known = std::collections::BTreeSet::new();
        for Head { name, .. } in &self.head {
            ensure!(known.insert(name), "column `{name}` is there twice");
        }
        Ok(self)
    }

    /// The columns, in their order.
    pub(super) fn head(&self) -> &[Head] {
        &self.head
    }

    /// Some rows, by column; nothing at the end.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Vec<Vec<Value>>>> {
        let rows = (BLOCK_CELLS / self.head.len().max(1)).clamp(1, 65_536);
        match &mut self.rows {
            Format::Csv(file) => file.next(rows),
            Format::JsonLines(file) => file.next(rows),
            Format::Parquet(table, path) => Ok(parquet::reading(path, || table.next(rows))?),
            Format::Npy(table) => table.next(rows).context("cannot read the array's elements"),
            Format::Npz(table) => table.next(rows).context("cannot read the array's elements"),
        }
    }
}

fn read_front(file: &mut File, front: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = front.get_mut(length..).filter(|rest| !rest.is_empty()) {
        let read = file.read(rest)?;
        if read == 0 {
            break;
        }
        length += read;
    }
    Ok(length)
}

enum Kind {
    Csv,
    JsonLines,
    Parquet,
    Npy,
    Npz,
}

fn kind(front: &[u8], path: &Path) -> anyhow::Result<Kind> {
    let refused = |what: &str, help: &str| {
        Err(Failure::new(Exit::Failed, what.to_owned()).help(help.to_owned()).into())
    };
    let extension = path.extension().map(|kind| kind.to_string_lossy().to_lowercase());
    let extension = extension.as_deref().unwrap_or("csv");
    match front {
        [b'P', b'A', b'R', b'1', ..] => Ok(Kind::Parquet),
        [b'P', b'A', b'R', b'E', ..] => {
            refused("it is an encrypted Parquet file", "write it without encryption")
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Ok(Kind::Npy),
        [b'P', b'K', ..] if extension == "npz" => Ok(Kind::Npz),
        [b'P', b'K', ..] => refused(
            "it is an archive: .xlsx or .zip",
            "save the sheet as CSV, or arrays with `numpy.savez` as .npz",
        ),
        [0x1f, 0x8b, ..] => {
            refused("it is compressed with gzip", "unpack it first: gunzip FILE.gz")
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => refused("its text is UTF-16", "save it as UTF-8"),
        [0x80, 2..=5, ..] => {
            refused("it is a pickle, which is a program", "save the rows as Parquet or CSV")
        }
        _ => match extension {
            "csv" | "tsv" | "txt" | "tab" => Ok(Kind::Csv),
            "jsonl" | "ndjson" | "json" => Ok(Kind::JsonLines),
            "parquet" | "pq" => refused(
                "it is not a Parquet file: it does not begin with PAR1",
                "write it again, or name it for what it is",
            ),
            "npy" => refused("it is not a .npy file", "write it again with `numpy.save`"),
            "npz" => refused("it is not a .npz file", "write it again with `numpy.savez`"),
            _ => refused("nothing tells what it is", KINDS), // the format of some other tool
        },
    }
}

//! Rows of a file, chunk by chunk. The same file always gives the same chunks, by which a job that was broken off goes on.

#[cfg(feature = "parquet")]
mod columns;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use sealift_protocol::table::npy::{Header, NotNpy};
use sealift_protocol::table::npz::{Archive, NotNpz};
#[cfg(feature = "parquet")]
use sealift_protocol::table::parquet::reading;
use serde_json::value::RawValue;

#[cfg(feature = "parquet")]
use columns::{Columns, NoColumns};

/// What one request may take; far below the agent's own limit, so that many may be in flight.
const CHUNK_BYTES_MAX: usize = 8 << 20;

/// A file of rows, while it is read.
pub(super) struct Input {
    path: PathBuf,
    rows: Rows,
    /// Lines of JSON so far, for people.
    line: u64,
}

enum Rows {
    JsonLines(BufReader<File>, u64),
    /// With the line of names, if there is one.
    Csv(csv::Reader<File>, Option<csv::ByteRecord>),
    #[cfg(feature = "parquet")]
    Parquet(Box<Columns>, u64),
    /// A file of an array, or an array of an archive.
    Npy {
        file: Box<dyn Read + Send>,
        header: Header,
        left: u64,
        read_bytes: u64,
    },
}

/// Rows of one request.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) rows: usize,
    pub(super) body: Body,
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Body {
    /// An array of rows.
    Json(Vec<u8>),
    /// Lines, with names if the file has them.
    Csv(Vec<u8>),
    /// A tensor's elements, and its type and the shape of a row.
    Tensor { bytes: Vec<u8>, datatype: &'static str, row_shape: Vec<u64> },
}

/// Why a file has no rows to ask with.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Not readable.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A name that says nothing.
    #[error("{0}: rows come as .jsonl, .csv, .parquet, .npy or .npz")]
    Kind(PathBuf),
    /// The agent was built without what reads it.
    #[cfg(not(feature = "parquet"))]
    #[error(
        "{0}: this agent is the small build, which reads no Parquet; give .csv, .jsonl or .npy, or install the standard build"
    )]
    NoParquet(PathBuf),
    /// Not a Parquet file, or one of columns that no request takes.
    #[cfg(feature = "parquet")]
    #[error("cannot read the rows of {path}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: NoColumns,
    },
    /// A line that is not JSON.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// Not a file of numpy, or of elements that no tensor has.
    #[error("{path}: {source}")]
    Npy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: NotNpy,
    },
    /// Not an archive of numpy, or without the array that is asked for.
    #[error("{path}: {source}")]
    Npz {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: NotNpz,
    },
    /// An array was named of what has none.
    #[error("{0} is no archive of arrays, of which one could be named")]
    NoArchive(PathBuf),
}

impl Input {
    /// Opens a file, by the end of its name; of an archive, the array of a name, or the only one.
    pub(super) fn open(
        path: &Path,
        no_header: bool,
        array: Option<&str>,
    ) -> Result<Self, InputError> {
        let refused = |source| InputError::Read { path: path.to_owned(), source };
        let kind = path.extension().map(|kind| kind.to_string_lossy().to_lowercase());
        let open = || File::open(path).map_err(refused);
        if array.is_some() && kind.as_deref() != Some("npz") {
            return Err(InputError::NoArchive(path.to_owned()));
        }
        let rows = match kind.as_deref() {
            Some("jsonl" | "ndjson") => Rows::JsonLines(BufReader::new(open()?), 0),
            Some("csv") => {
                let mut reader = csv::ReaderBuilder::new()
                    .has_headers(false)
                    .flexible(true)
                    .from_reader(open()?);
                let mut names = csv::ByteRecord::new();
                let broken = |error: csv::Error| refused(io::Error::other(error));
                let has_names =
                    !no_header && reader.read_byte_record(&mut names).map_err(broken)?;
                Rows::Csv(reader, has_names.then_some(names))
            }
            Some("npy") => Rows::npy(path, BufReader::new(open()?))?,
            Some("npz") => {
                let npz = |source| InputError::Npz { path: path.to_owned(), source };
                let archive = Archive::open(BufReader::new(open()?)).map_err(npz)?;
                Rows::npy(path, archive.array(array).map_err(npz)?)?
            }
            #[cfg(feature = "parquet")]
            Some("parquet" | "pq") => {
                let file = open()?;
                let bytes = file.metadata().map_err(refused)?.len();
                let columns = reading(path, || Columns::open(file));
                let columns = columns
                    .map_err(|source| InputError::Parquet { path: path.to_owned(), source })?;
                Rows::Parquet(Box::new(columns), bytes)
            }
            #[cfg(not(feature = "parquet"))]
            Some("parquet" | "pq") => return Err(InputError::NoParquet(path.to_owned())),
            _ => return Err(InputError::Kind(path.to_owned())),
        };
        Ok(Self { path: path.to_owned(), rows, line: 0 })
    }

    /// At most so many rows, fewer where they are long; none at the end.
    pub(super) fn next_chunk(&mut self, rows_max: usize) -> Result<Option<Chunk>, InputError> {
        let path = self.path.clone();
        let chunk = match &mut self.rows {
            Rows::JsonLines(file, bytes) => {
                let reader = Lines { file, bytes, line: &mut self.line, path: &path };
                return reader.chunk(rows_max);
            }
            Rows::Csv(reader, names) => of_csv(reader, names.as_ref(), rows_max),
            #[cfg(feature = "parquet")]
            Rows::Parquet(columns, _) => {
                let next = reading(&path, || columns.next(rows_max, CHUNK_BYTES_MAX));
                let (rows, body) = next.map_err(|source| InputError::Parquet { path, source })?;
                return Ok((rows > 0).then_some(Chunk { rows, body: Body::Json(body) }));
            }
            Rows::Npy { file, header, left, read_bytes } => {
                let rows = (rows_max as u64).min(*left).min(header.rows_within(CHUNK_BYTES_MAX));
                let chunk = of_npy(file, header, rows);
                *left -= rows;
                *read_bytes += rows * header.row_bytes;
                chunk
            }
        };
        chunk.map_err(|source| InputError::Read { path, source })
    }

    /// Bytes of the file so far, for progress.
    pub(super) fn read_bytes(&self) -> u64 {
        match &self.rows {
            Rows::JsonLines(_, bytes) => *bytes,
            Rows::Csv(reader, _) => reader.position().byte(),
            #[cfg(feature = "parquet")]
            Rows::Parquet(columns, bytes) => columns.share_of(*bytes),
            Rows::Npy { read_bytes, .. } => *read_bytes,
        }
    }
}

impl Rows {
    fn npy(path: &Path, mut file: impl Read + Send + 'static) -> Result<Self, InputError> {
        let npy = |source| InputError::Npy { path: path.to_owned(), source };
        let header = Header::read(&mut file).map_err(npy)?;
        let left = header.rows;
        Ok(Self::Npy { file: Box::new(file), header, left, read_bytes: 0 })
    }
}

/// Lines of JSON, and where they are.
struct Lines<'a> {
    file: &'a mut BufReader<File>,
    bytes: &'a mut u64,
    line: &'a mut u64,
    path: &'a Path,
}

impl Lines<'_> {
    fn chunk(self, rows_max: usize) -> Result<Option<Chunk>, InputError> {
        let Self { file, bytes, line, path } = self;
        let refused = |source| InputError::Read { path: path.to_owned(), source };
        let (mut rows, mut body, mut text) = (0, vec![b'['], Vec::new());
        while rows < rows_max && body.len() < CHUNK_BYTES_MAX {
            text.clear();
            let taken = file.take(CHUNK_BYTES_MAX as u64).read_until(b'\n', &mut text);
            let taken = taken.map_err(refused)?;
            if taken == 0 {
                break;
            }
            *bytes += taken as u64;
            *line += 1;
            let at =
                |reason: String| InputError::Line { path: path.to_owned(), line: *line, reason };
            if taken == CHUNK_BYTES_MAX && !text.ends_with(b"\n") {
                return Err(at(format!("more than {CHUNK_BYTES_MAX} bytes")));
            }
            let row = text.trim_ascii();
            if row.is_empty() {
                continue;
            }
            let checked: Result<&RawValue, _> = serde_json::from_slice(row);
            checked.map_err(|error| at(format!("not JSON: {error}")))?;
            if rows > 0 {
                body.push(b',');
            }
            body.extend(row);
            rows += 1;
        }
        body.push(b']');
        Ok((rows > 0).then_some(Chunk { rows, body: Body::Json(body) }))
    }
}

fn of_csv(
    reader: &mut csv::Reader<File>,
    names: Option<&csv::ByteRecord>,
    rows_max: usize,
) -> io::Result<Option<Chunk>> {
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    if let Some(names) = names {
        writer.write_byte_record(names).map_err(io::Error::other)?;
    }
    let (mut rows, mut bytes) = (0, 0);
    let mut record = csv::ByteRecord::new();
    while rows < rows_max && bytes < CHUNK_BYTES_MAX {
        if !reader.read_byte_record(&mut record).map_err(io::Error::other)? {
            break;
        }
        bytes += record.as_slice().len() + record.len();
        writer.write_byte_record(&record).map_err(io::Error::other)?;
        rows += 1;
    }
    let body = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    Ok((rows > 0).then_some(Chunk { rows, body: Body::Csv(body) }))
}

fn of_npy(file: &mut impl Read, header: &Header, rows: u64) -> io::Result<Option<Chunk>> {
    if rows == 0 {
        return Ok(None);
    }
    let length = usize::try_from(rows * header.row_bytes).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    let (datatype, row_shape) = (header.datatype, header.row_shape.clone());
    let rows = usize::try_from(rows).map_err(io::Error::other)?;
    Ok(Some(Chunk { rows, body: Body::Tensor { bytes, datatype, row_shape } }))
}

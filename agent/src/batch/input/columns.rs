//! Rows of a Parquet file as objects of JSON, in which applications give rows with names.

use std::collections::VecDeque;
use std::fs::File;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealift_protocol::table::Value;
use sealift_protocol::table::parquet::{NotParquet, Table};
use serde_json::{Number, Value as Json};

/// Cells that are read at once: some 2 MB.
const BLOCK_CELLS: usize = 1 << 16;

/// A file of columns, while it is read.
pub(super) struct Columns {
    table: Table<File>,
    /// Names as JSON writes them.
    names: Vec<String>,
    /// Rows that were read and not asked yet.
    waiting: VecDeque<Vec<u8>>,
    taken: u64,
}

/// Why a file has no rows to ask with.
#[derive(Debug, thiserror::Error)]
pub enum NoColumns {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] NotParquet),
    /// A column is no column of a table.
    #[error(
        "column `{name}`: {reason}; a request takes numbers, texts and images: leave the column out of the file"
    )]
    Column {
        /// Its name.
        name: String,
        /// Why.
        reason: &'static str,
    },
}

impl Columns {
    /// Reads what the end of the file says of the rest.
    pub(super) fn open(file: File) -> Result<Self, NoColumns> {
        let table = Table::open(file)?;
        if let Some(column) = table.columns().iter().find(|column| column.refused.is_some()) {
            let reason = column.refused.unwrap_or_default();
            return Err(NoColumns::Column { name: column.name.clone(), reason });
        }
        let name = |name: &str| Json::String(name.to_owned()).to_string();
        let names = table.columns().iter().map(|column| name(&column.name)).collect();
        Ok(Self { table, names, waiting: VecDeque::new(), taken: 0 })
    }

    /// The next rows as an array; fewer where they are long.
    pub(super) fn next(
        &mut self,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<(usize, Vec<u8>), NoColumns> {
        let (mut rows, mut body) = (0, vec![b'[']);
        while rows < rows_max && body.len() < bytes_max {
            let Some(row) = self.row()? else { break };
            if rows > 0 {
                body.push(b',');
            }
            body.extend(row);
            rows += 1;
        }
        body.push(b']');
        self.taken += rows as u64;
        Ok((rows, body))
    }

    /// How much of a file of this length was asked.
    pub(super) fn share_of(&self, bytes: u64) -> u64 {
        let share = u128::from(bytes) * u128::from(self.taken);
        let share = share.checked_div(u128::from(self.table.rows())).unwrap_or(0);
        u64::try_from(share).unwrap_or(bytes)
    }

    fn row(&mut self) -> Result<Option<Vec<u8>>, NoColumns> {
        while self.waiting.is_empty() {
            let rows = (BLOCK_CELLS / self.names.len().max(1)).max(1);
            let Some(block) = self.table.next(rows)? else { return Ok(None) };
            let rows = block.first().map_or(0, Vec::len);
            let mut columns: Vec<_> = block.into_iter().map(Vec::into_iter).collect();
            for _ in 0..rows {
                let mut row = Vec::from(*b"{");
                for (place, (name, column)) in self.names.iter().zip(&mut columns).enumerate() {
                    if place > 0 {
                        row.push(b',');
                    }
                    row.extend(name.as_bytes());
                    row.push(b':');
                    row.extend(json(column.next().unwrap_or(Value::Null)).into_bytes());
                }
                row.push(b'}');
                self.waiting.push_back(row);
            }
        }
        Ok(self.waiting.pop_front())
    }
}

/// What applications write for a value; a number that is not finite is none to JSON.
fn json(value: Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Unsigned(value) => value.to_string(),
        // Its own digits: those of the double next to it would be others.
        Value::Single(value) if value.is_finite() => value.to_string(),
        Value::Null | Value::Single(_) => "null".to_owned(),
        Value::Double(value) => {
            Number::from_f64(value).map_or_else(|| "null".to_owned(), |number| number.to_string())
        }
        Value::Decimal(digits) => digits,
        Value::Time(text) | Value::Text(text) => Json::String(text).to_string(),
        Value::Bytes(bytes) => Json::String(STANDARD.encode(bytes)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_applications_write_them() {
        assert_eq!(json(Value::Single(0.1)), "0.1");
        assert_eq!(json(Value::Double(0.1)), "0.1");
        assert_eq!(json(Value::Double(f64::NAN)), "null");
        assert_eq!(json(Value::Single(f32::INFINITY)), "null");
        assert_eq!(json(Value::Int(i64::MIN)), "-9223372036854775808");
        assert_eq!(json(Value::Decimal("-0.05".to_owned())), "-0.05");
        assert_eq!(json(Value::Text("a\"b".to_owned())), "\"a\\\"b\"");
        assert_eq!(json(Value::Bytes(vec![0xff, 0xd8])), "\"/9g=\"");
    }
}

//! Parquet files, row group by row group and block by block, so that memory is taken for one page of each column alone.

mod cells;
mod damage;
mod within;

use ::parquet::column::reader::ColumnReader;
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{ChunkReader, FileReader as _, SerializedFileReader};

use self::cells::{Meaning, read};
pub use self::damage::{Damaged, on_damage, reading};
use self::within::Within;
use super::Value;
use crate::limits::TABLE_COLUMNS_MAX;

/// Why a file has no rows to read.
#[derive(Debug, thiserror::Error)]
pub enum NotParquet {
    /// It is none, or is damaged.
    #[error("not a whole Parquet file: {0}; was it cut off?")]
    Form(ParquetError),
    /// A column cannot be read.
    #[error("column `{name}`, row group {group}: {reason}")]
    Column {
        /// The column.
        name: String,
        /// From 0.
        group: usize,
        /// What is wrong.
        reason: String,
    },
    /// More columns than a table may have.
    #[error("the file has {0} columns; at most {TABLE_COLUMNS_MAX} are taken")]
    Columns(usize),
}

/// A column at the top of the schema.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Why its cells cannot be read, if they cannot: lists, maps and records are no cells.
    pub refused: Option<&'static str>,
    /// Where it is among the leaves, and what its values mean.
    leaf: Option<(usize, Meaning)>,
}

/// A file of rows, while it is read.
pub struct Table<R: ChunkReader + 'static> {
    file: SerializedFileReader<Within<R>>,
    columns: Vec<Column>,
    /// Which of them are read.
    wanted: Vec<usize>,
    /// The next row group.
    group: usize,
    readers: Vec<ColumnReader>,
    /// Rows of the current group that are not read yet.
    left: u64,
}

impl<R: ChunkReader + 'static> Table<R> {
    /// Reads what the end of the file says of the rest.
    pub fn open(file: R) -> Result<Self, NotParquet> {
        let file = SerializedFileReader::new(Within(file)).map_err(NotParquet::Form)?;
        let columns = columns(&file)?;
        let wanted = (0..columns.len()).collect();
        Ok(Self { file, columns, wanted, group: 0, readers: Vec::new(), left: 0 })
    }

    /// All columns, in the order of the file.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Reads these columns alone, in this order.
    pub fn select(&mut self, wanted: Vec<usize>) {
        self.wanted = wanted;
    }

    /// Rows of the whole file, as its end says.
    pub fn rows(&self) -> u64 {
        u64::try_from(self.file.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// At most so many rows of one row group, by column; nothing at the end. What is no cell is null.
    pub fn next(&mut self, rows_max: usize) -> Result<Option<Vec<Vec<Value>>>, NotParquet> {
        while self.left == 0 {
            if self.group >= self.file.num_row_groups() {
                return Ok(None);
            }
            self.open_group()?;
        }
        let rows = usize::try_from(self.left).unwrap_or(usize::MAX).min(rows_max.max(1));
        let (mut readers, mut block) = (self.readers.iter_mut(), Vec::new());
        for place in &self.wanted {
            let column = self.columns.get(*place);
            let Some(Column { name, leaf: Some((_, meaning)), .. }) = column else {
                block.push(vec![Value::Null; rows]);
                continue;
            };
            let values = readers.next().map(|reader| read(reader, *meaning, rows));
            let group = self.group.saturating_sub(1);
            let failed = |reason| NotParquet::Column { name: name.clone(), group, reason };
            let values = values.unwrap_or_else(|| Ok(Vec::new()));
            let values = values.map_err(|error| failed(error.to_string()))?;
            if values.len() != rows {
                let reason = format!("{} values are there, {rows} are missing", values.len());
                return Err(failed(reason));
            }
            block.push(values);
        }
        self.left -= rows as u64;
        Ok(Some(block))
    }

    fn open_group(&mut self) -> Result<(), NotParquet> {
        let group = self.file.get_row_group(self.group).map_err(NotParquet::Form)?;
        self.left = u64::try_from(group.metadata().num_rows()).unwrap_or(0);
        self.readers.clear();
        for place in &self.wanted {
            let Some(Column { name, leaf: Some((leaf, _)), .. }) = self.columns.get(*place) else {
                continue;
            };
            let reader = group.get_column_reader(*leaf).map_err(|error| NotParquet::Column {
                name: name.clone(),
                group: self.group,
                reason: error.to_string(),
            })?;
            self.readers.push(reader);
        }
        self.group += 1;
        Ok(())
    }
}

fn columns<R: ChunkReader + 'static>(
    file: &SerializedFileReader<Within<R>>,
) -> Result<Vec<Column>, NotParquet> {
    let schema = file.metadata().file_metadata().schema_descr();
    let roots = schema.root_schema().get_fields();
    if roots.len() > TABLE_COLUMNS_MAX {
        return Err(NotParquet::Columns(roots.len()));
    }
    let mut columns: Vec<Column> = roots
        .iter()
        .map(|root| {
            let refused = Some("it holds lists, maps or records");
            Column { name: root.name().to_owned(), refused, leaf: None }
        })
        .collect();
    for (leaf, descr) in schema.columns().iter().enumerate() {
        let is_flat = descr.max_rep_level() == 0 && descr.path().parts().len() == 1;
        let column = columns.get_mut(schema.get_column_root_idx(leaf));
        let Some(column) = column.filter(|_| is_flat) else { continue };
        match Meaning::of(descr) {
            Ok(meaning) => {
                column.leaf = Some((leaf, meaning));
                column.refused = None;
            }
            Err(why) => column.refused = Some(why),
        }
    }
    Ok(columns)
}

#[cfg(test)]
mod tests;

//! Predictions as one Parquet file, made of the finished parts once every row has an answer.
//!
//! A Parquet file says at its end what is in it: one that was broken off holds nothing, and none can be gone on with. So the parts stay what
//! a job goes on by, and the file is made of them in one go; killed meanwhile, it is made anew, from the same lines.

mod column;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use ::parquet::basic::{Compression, Repetition};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::types::Type;
use sealift_protocol::request::BatchFormat;
use serde_json::value::RawValue;

use super::ask::Described;
use super::file_name;
use super::job::{Directory, JobError};
use column::Column;

/// Rows of one group: readers take memory for a group at a time.
const GROUP_ROWS_MAX: usize = 65_536;

/// Bytes of JSON that become one group, where rows are long.
const GROUP_BYTES_MAX: usize = 32 << 20;

/// Why predictions do not become a table.
#[derive(Debug, thiserror::Error)]
pub enum NoTable {
    /// The parts cannot be read, or the file not be written.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The file cannot be made.
    #[error("the columns cannot be written")]
    Parquet(#[from] ParquetError),
    /// The model does not say what it answers with.
    #[error("the model names no outputs; take --format jsonl")]
    Outputs,
    /// A row that is not what the model's contract says.
    #[error("part {part}, line {line}: {reason}; take --format jsonl")]
    Row {
        /// From 0.
        part: u64,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

impl NoTable {
    /// Whether trying it again would end the same way.
    pub(super) const fn is_final(&self) -> bool {
        match self {
            // The disk may have room again.
            Self::Job(_) | Self::Parquet(_) => false,
            Self::Outputs | Self::Row { .. } => true,
        }
    }
}

/// Makes the file of all parts. Each output of the model is a column of its own type.
pub(super) fn write(
    directory: &Directory,
    outputs: &[Described],
    parts: u64,
) -> Result<(), NoTable> {
    if outputs.is_empty() {
        return Err(NoTable::Outputs);
    }
    let name = file_name(BatchFormat::Parquet);
    let mut table = Table::begin(directory.begin(&name)?, outputs)?;
    for part in 0..parts {
        for (place, text) in directory.read(part)?.lines().enumerate() {
            let refused = |reason| NoTable::Row { part, line: place + 1, reason };
            table.take(text).map_err(refused)?;
            if table.is_full() {
                table.write_group()?;
            }
        }
    }
    table.write_group()?;
    Ok(directory.put(&name, &table.writer.into_inner()?)?)
}

/// A file that is being made, and the rows of its next group.
struct Table {
    writer: SerializedFileWriter<File>,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

impl Table {
    fn begin(file: File, outputs: &[Described]) -> Result<Self, ParquetError> {
        let columns: Vec<Column> = outputs.iter().map(Column::new).collect();
        let fields = columns.iter().map(|column| column.field().map(Arc::new));
        let schema = Type::group_type_builder("predictions")
            .with_repetition(Repetition::REQUIRED)
            .with_fields(fields.collect::<Result<_, _>>()?)
            .build()?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?;
        Ok(Self { writer, columns, rows: 0, bytes: 0 })
    }

    /// Takes a line: the value of the only output, or an object of all by their names.
    fn take(&mut self, text: &str) -> Result<(), String> {
        if let [only] = self.columns.as_mut_slice() {
            let value: &RawValue = serde_json::from_str(text).map_err(|it| it.to_string())?;
            only.push(value)?;
        } else {
            let row: BTreeMap<String, &RawValue> =
                serde_json::from_str(text).map_err(|error| error.to_string())?;
            for column in &mut self.columns {
                let missing = || format!("output `{}` is missing", column.name());
                let value = row.get(column.name()).copied().ok_or_else(missing)?;
                column.push(value)?;
            }
        }
        self.rows += 1;
        self.bytes += text.len();
        Ok(())
    }

    const fn is_full(&self) -> bool {
        self.rows >= GROUP_ROWS_MAX || self.bytes >= GROUP_BYTES_MAX
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let missing = || ParquetError::General("a column is missing".to_owned());
            let mut into = group.next_column()?.ok_or_else(missing)?;
            column.write(into.untyped())?;
            into.close()?;
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::table::Value;
    use sealift_protocol::table::parquet;
    use sealift_protocol::tensor::Datatype;

    use super::*;

    fn described(name: &str, datatype: Datatype, shape: &[i64]) -> Described {
        Described { name: name.to_owned(), datatype, shape: shape.to_vec() }
    }

    fn written(outputs: &[Described], lines: &[&str]) -> Result<File, String> {
        let file = tempfile::tempfile().unwrap();
        let mut table = Table::begin(file.try_clone().unwrap(), outputs).unwrap();
        for line in lines {
            table.take(line)?;
            table.write_group().unwrap();
        }
        table.writer.into_inner().unwrap();
        Ok(file)
    }

    #[test]
    fn every_type_comes_back_as_it_was_written() {
        let outputs = [
            described("single", Datatype::Fp32, &[-1]),
            described("double", Datatype::Fp64, &[-1]),
            described("small", Datatype::Uint32, &[-1]),
            described("large", Datatype::Uint64, &[-1]),
            described("negative", Datatype::Int8, &[-1]),
            described("is", Datatype::Bool, &[-1]),
            described("text", Datatype::Bytes, &[-1]),
        ];
        let line = r#"{"single":0.1,"double":0.1,"small":4294967295,"large":18446744073709551615,
            "negative":-128,"is":true,"text":"a\"b"}"#;
        let none = r#"{"single":null,"double":null,"small":null,"large":null,"negative":null,"is":null,"text":null}"#;

        let file = written(&outputs, &[line, none]).unwrap();

        let mut table = parquet::Table::open(file).unwrap();
        let first: Vec<_> = table.next(9).unwrap().unwrap().concat();
        let text = Value::Text("a\"b".to_owned());
        let expected = [
            Value::Single(0.1),
            Value::Double(0.1),
            Value::Unsigned(u64::from(u32::MAX)),
            Value::Unsigned(u64::MAX),
            Value::Int(-128),
            Value::Bool(true),
            text,
        ];
        assert_eq!(first, expected);
        let second = table.next(9).unwrap().unwrap().concat();
        assert_eq!(second, vec![Value::Null; 7]);
    }

    #[test]
    fn a_row_that_is_not_what_the_contract_says_is_named() {
        let two = [
            described("label", Datatype::Int64, &[-1]),
            described("scores", Datatype::Fp32, &[-1, 2]),
        ];
        for line in [
            r#"{"label": 1}"#,
            r#"{"label": 1.5, "scores": [0.1, 0.2]}"#,
            r#"{"label": 1, "scores": 0.1}"#,
            r#"{"label": 1, "scores": [[0.1]]}"#,
            "7",
        ] {
            assert!(written(&two, &[line]).is_err(), "{line}");
        }
        assert!(written(&two, &[r#"{"label": 1, "scores": [0.1, null]}"#]).is_ok());
    }
}

//! Samples as an Apache Parquet file: what is known of each in columns, and a column of bytes for each tensor, as they lie in memory.

use std::fs::File;
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use sealift_protocol::api::{SampleDetail, TensorView};

/// Columns of every export.
const HEAD: &str = "
    REQUIRED BYTE_ARRAY sample (STRING);
    REQUIRED BYTE_ARRAY inference (STRING);
    REQUIRED BYTE_ARRAY device (STRING);
    REQUIRED BYTE_ARRAY model (STRING);
    REQUIRED BYTE_ARRAY version (STRING);
    REQUIRED INT64 at (TIMESTAMP_MILLIS);
    REQUIRED BYTE_ARRAY why (STRING);
    REQUIRED DOUBLE chance;
    REQUIRED BOOLEAN is_audit;
    OPTIONAL BYTE_ARRAY prediction (STRING);
    OPTIONAL DOUBLE confidence;
    OPTIONAL BYTE_ARRAY label (STRING);
    REQUIRED BYTE_ARRAY labels (STRING);
    REQUIRED BYTE_ARRAY tensors (STRING);";

/// A file that is being written. Its columns are known with the first sample.
pub(super) struct Table {
    file: Option<File>,
    writer: Option<SerializedFileWriter<File>>,
    /// Names of the tensors that have columns: of inputs, then of outputs.
    tensors: Vec<(bool, String)>,
}

/// The values of one column.
enum Column {
    Text(Vec<String>),
    OptionalText(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Number(Vec<f64>),
    OptionalNumber(Vec<Option<f64>>),
    Whole(Vec<i64>),
    Flag(Vec<bool>),
}

impl Table {
    pub(super) const fn new(file: File) -> Self {
        Self { file: Some(file), writer: None, tensors: Vec::new() }
    }

    /// Writes a page as a group of rows.
    pub(super) fn write(&mut self, items: &[SampleDetail]) -> anyhow::Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        let columns = {
            self.begin(items)?;
            self.columns(items)?
        };
        let writer = self.writer.as_mut().context("the file has no columns")?;
        let mut group = writer.next_row_group()?;
        for column in &columns {
            let mut into = group.next_column()?.context("a column is missing")?;
            column.write(into.untyped())?;
            into.close()?;
        }
        group.close()?;
        Ok(())
    }

    /// Ends the file; one without samples has the columns that all have.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.begin(&[])?;
        if let Some(writer) = self.writer {
            writer.close()?;
        }
        Ok(())
    }

    fn begin(&mut self, items: &[SampleDetail]) -> anyhow::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        if let Some(first) = items.first() {
            let named = |is_input: bool, tensors: &[TensorView]| {
                tensors.iter().map(|tensor| (is_input, tensor.name.clone())).collect::<Vec<_>>()
            };
            self.tensors = [named(true, &first.inputs), named(false, &first.outputs)].concat();
        }
        let column = |(at, (is_input, _)): (usize, &(bool, String))| {
            let place = if *is_input { "input" } else { "output" };
            format!("OPTIONAL BYTE_ARRAY {place}_{at};")
        };
        let tensors: String = self.tensors.iter().enumerate().map(column).collect();
        let schema = parse_message_type(&format!("message samples {{ {HEAD} {tensors} }}"))?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        self.writer =
            Some(SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?);
        Ok(())
    }

    fn columns(&self, items: &[SampleDetail]) -> anyhow::Result<Vec<Column>> {
        let text =
            |of: &dyn Fn(&SampleDetail) -> String| Column::Text(items.iter().map(of).collect());
        let json = |detail: &SampleDetail| serde_json::to_string(&detail.labels);
        let labels: Vec<String> = items.iter().map(json).collect::<Result<_, _>>()?;
        let shapes: Vec<String> = items.iter().map(|detail| self.shapes(detail)).collect();
        let mut columns = vec![
            text(&|detail| detail.sample.id.to_string()),
            text(&|detail| detail.sample.inference.to_string()),
            text(&|detail| detail.sample.device.to_string()),
            text(&|detail| detail.sample.model.to_string()),
            text(&|detail| detail.sample.version.to_string()),
            Column::Whole(items.iter().map(|detail| detail.sample.at.0).collect()),
            text(&|detail| {
                let why: Vec<_> = detail.sample.why.iter().map(|why| why.as_str()).collect();
                why.join(",")
            }),
            Column::Number(items.iter().map(|detail| detail.sample.chance).collect()),
            Column::Flag(items.iter().map(|detail| detail.sample.is_audit).collect()),
            Column::OptionalText(items.iter().map(|it| it.sample.prediction.clone()).collect()),
            Column::OptionalNumber(items.iter().map(|it| it.sample.confidence).collect()),
            Column::OptionalText(items.iter().map(|detail| detail.label.clone()).collect()),
            Column::Text(labels),
            Column::Text(shapes),
        ];
        for (is_input, name) in &self.tensors {
            let bytes = items.iter().map(|detail| bytes(detail, *is_input, name));
            columns.push(Column::Bytes(bytes.collect::<Result<_, _>>()?));
        }
        Ok(columns)
    }

    /// Names, types and shapes of the tensors, by their columns.
    fn shapes(&self, detail: &SampleDetail) -> String {
        let shape = |(at, (is_input, name)): (usize, &(bool, String))| {
            let place = if *is_input { "input" } else { "output" };
            let found = find(detail, *is_input, name)?;
            let value = serde_json::json!({
                "name": name, "datatype": found.datatype, "shape": found.shape,
            });
            Some((format!("{place}_{at}"), value))
        };
        let shapes: serde_json::Map<_, _> =
            self.tensors.iter().enumerate().filter_map(shape).collect();
        serde_json::Value::Object(shapes).to_string()
    }
}

fn find<'a>(detail: &'a SampleDetail, is_input: bool, name: &str) -> Option<&'a TensorView> {
    let tensors = if is_input { &detail.inputs } else { &detail.outputs };
    tensors.iter().find(|tensor| tensor.name == name)
}

fn bytes(detail: &SampleDetail, is_input: bool, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(found) = find(detail, is_input, name) else { return Ok(None) };
    Ok(Some(STANDARD.decode(&found.base64)?))
}

impl Column {
    /// Writes the values, and for optional ones whether there is a value.
    fn write(&self, writer: &mut ColumnWriter<'_>) -> anyhow::Result<()> {
        match (self, writer) {
            (Self::Text(values), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                let values: Vec<_> =
                    values.iter().map(|text| ByteArray::from(text.as_str())).collect();
                writer.write_batch(&values, None, None)?;
            }
            (Self::OptionalText(values), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                let given: Vec<_> =
                    values.iter().flatten().map(|text| ByteArray::from(text.as_str())).collect();
                writer.write_batch(&given, Some(&levels(values)), None)?;
            }
            (Self::Bytes(values), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                let given: Vec<_> = values.iter().flatten().cloned().map(ByteArray::from).collect();
                writer.write_batch(&given, Some(&levels(values)), None)?;
            }
            (Self::Number(values), ColumnWriter::DoubleColumnWriter(writer)) => {
                writer.write_batch(values, None, None)?;
            }
            (Self::OptionalNumber(values), ColumnWriter::DoubleColumnWriter(writer)) => {
                let given: Vec<_> = values.iter().flatten().copied().collect();
                writer.write_batch(&given, Some(&levels(values)), None)?;
            }
            (Self::Whole(values), ColumnWriter::Int64ColumnWriter(writer)) => {
                writer.write_batch(values, None, None)?;
            }
            (Self::Flag(values), ColumnWriter::BoolColumnWriter(writer)) => {
                writer.write_batch(values, None, None)?;
            }
            _ => anyhow::bail!("a column is not of the kind that the file says"),
        }
        Ok(())
    }
}

/// 1 where there is a value, 0 where there is none.
fn levels<T>(values: &[Option<T>]) -> Vec<i16> {
    values.iter().map(|value| i16::from(value.is_some())).collect()
}

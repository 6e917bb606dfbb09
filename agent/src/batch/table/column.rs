//! One output of a model as a column of Parquet: a value for each row, or a list for each further dimension.

use std::sync::Arc;

use ::parquet::basic::{IntType, LogicalType, Repetition, Type as Physical};
use ::parquet::column::writer::ColumnWriter;
use ::parquet::data_type::ByteArray;
use ::parquet::errors::ParquetError;
use ::parquet::schema::types::Type;
use sealift_protocol::tensor::Datatype;
use serde_json::value::RawValue;

use super::Described;

/// The cells of a row group, as Parquet stores nested values: the values that are there, and for each place how much of the way to it is
/// defined and at which list it repeats (Melnik et al., "Dremel: interactive analysis of web-scale datasets", VLDB 2010, section 4.1).
pub(super) struct Column {
    name: String,
    datatype: Datatype,
    /// How many lists a value is in.
    depth: i16,
    values: Values,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

enum Values {
    Bool(Vec<bool>),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Single(Vec<f32>),
    Double(Vec<f64>),
    Text(Vec<ByteArray>),
}

impl Column {
    pub(super) fn new(output: &Described) -> Self {
        let depth = i16::try_from(output.shape.len().saturating_sub(1)).unwrap_or(i16::MAX);
        Self {
            name: output.name.clone(),
            datatype: output.datatype,
            depth,
            values: Values::of(output.datatype),
            definitions: Vec::new(),
            repetitions: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the schema says of it. A number that is not finite is null in JSON, and here.
    pub(super) fn field(&self) -> Result<Type, ParquetError> {
        let innermost = if self.depth == 0 { &self.name } else { "element" };
        let (physical, logical) = kind(self.datatype);
        let mut field = Type::primitive_type_builder(innermost, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
            .build()?;
        for level in (0..self.depth).rev() {
            let repeated = Type::group_type_builder("list")
                .with_repetition(Repetition::REPEATED)
                .with_fields(vec![Arc::new(field)])
                .build()?;
            let name = if level == 0 { &self.name } else { "element" };
            field = Type::group_type_builder(name)
                .with_repetition(Repetition::OPTIONAL)
                .with_logical_type(Some(LogicalType::List))
                .with_fields(vec![Arc::new(repeated)])
                .build()?;
        }
        Ok(field)
    }

    /// Takes the value of a row.
    pub(super) fn push(&mut self, value: &RawValue) -> Result<(), String> {
        self.put(value, 0, 0)
    }

    /// Takes what is at `level` lists below the row, and repeats the list of level `repetition`.
    fn put(&mut self, value: &RawValue, level: i16, repetition: i16) -> Result<(), String> {
        if value.get() == "null" {
            self.place(2 * level, repetition);
            return Ok(());
        }
        if level == self.depth {
            self.values.push(self.datatype, value.get()).ok_or_else(|| self.misfit(value))?;
            self.place(2 * level + 1, repetition);
            return Ok(());
        }
        let items: Vec<&RawValue> =
            serde_json::from_str(value.get()).map_err(|_| self.misfit(value))?;
        if items.is_empty() {
            self.place(2 * level + 1, repetition);
        }
        for (place, item) in items.into_iter().enumerate() {
            self.put(item, level + 1, if place == 0 { repetition } else { level + 1 })?;
        }
        Ok(())
    }

    fn place(&mut self, definition: i16, repetition: i16) {
        self.definitions.push(definition);
        self.repetitions.push(repetition);
    }

    fn misfit(&self, value: &RawValue) -> String {
        const QUOTED_CHARS_MAX: usize = 40;
        let quoted: String = value.get().chars().take(QUOTED_CHARS_MAX).collect();
        let Self { name, datatype, depth, .. } = self;
        format!("output `{name}` has {quoted} where {datatype} in {depth} lists should be")
    }

    /// Writes what was taken, and forgets it.
    pub(super) fn write(&mut self, writer: &mut ColumnWriter<'_>) -> Result<(), ParquetError> {
        let definitions = Some(self.definitions.as_slice());
        let repetitions = (self.depth > 0).then_some(self.repetitions.as_slice());
        match (&mut self.values, writer) {
            (Values::Bool(values), ColumnWriter::BoolColumnWriter(writer)) => {
                writer.write_batch(values, definitions, repetitions)?;
                values.clear();
            }
            (Values::Int(values), ColumnWriter::Int32ColumnWriter(writer)) => {
                writer.write_batch(values, definitions, repetitions)?;
                values.clear();
            }
            (Values::Long(values), ColumnWriter::Int64ColumnWriter(writer)) => {
                writer.write_batch(values, definitions, repetitions)?;
                values.clear();
            }
            (Values::Single(values), ColumnWriter::FloatColumnWriter(writer)) => {
                writer.write_batch(values, definitions, repetitions)?;
                values.clear();
            }
            (Values::Double(values), ColumnWriter::DoubleColumnWriter(writer)) => {
                writer.write_batch(values, definitions, repetitions)?;
                values.clear();
            }
            (Values::Text(values), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                writer.write_batch(values, definitions, repetitions)?;
                values.clear();
            }
            // The schema was made of the same types.
            _ => return Err(ParquetError::General(format!("column `{}` is another", self.name))),
        }
        self.definitions.clear();
        self.repetitions.clear();
        Ok(())
    }
}

impl Values {
    fn of(datatype: Datatype) -> Self {
        match kind(datatype).0 {
            Physical::BOOLEAN => Self::Bool(Vec::new()),
            Physical::INT32 => Self::Int(Vec::new()),
            Physical::FLOAT => Self::Single(Vec::new()),
            Physical::DOUBLE => Self::Double(Vec::new()),
            Physical::INT64 => Self::Long(Vec::new()),
            Physical::INT96 | Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY => {
                Self::Text(Vec::new())
            }
        }
    }

    /// Takes a value as JSON writes it, digit by digit: nothing is rounded on the way but to the type itself. Nothing if it is none.
    fn push(&mut self, datatype: Datatype, text: &str) -> Option<()> {
        match self {
            Self::Bool(values) => values.push(text.parse().ok()?),
            Self::Int(values) if datatype == Datatype::Uint32 => {
                values.push(text.parse::<u32>().ok()?.cast_signed());
            }
            Self::Int(values) => values.push(text.parse().ok()?),
            Self::Long(values) if datatype == Datatype::Uint64 => {
                values.push(text.parse::<u64>().ok()?.cast_signed());
            }
            Self::Long(values) => values.push(text.parse().ok()?),
            Self::Single(values) => values.push(text.parse().ok()?),
            Self::Double(values) => values.push(text.parse().ok()?),
            Self::Text(values) => {
                let text: String = serde_json::from_str(text).ok()?;
                values.push(ByteArray::from(text.as_str()));
            }
        }
        Some(())
    }
}

/// How Parquet stores a type, and what it means.
const fn kind(datatype: Datatype) -> (Physical, Option<LogicalType>) {
    const fn integer(bit_width: i8, is_signed: bool) -> LogicalType {
        LogicalType::Integer(IntType { bit_width, is_signed })
    }
    match datatype {
        Datatype::Bool => (Physical::BOOLEAN, None),
        Datatype::Uint8 => (Physical::INT32, Some(integer(8, false))),
        Datatype::Uint16 => (Physical::INT32, Some(integer(16, false))),
        Datatype::Uint32 => (Physical::INT32, Some(integer(32, false))),
        Datatype::Uint64 => (Physical::INT64, Some(integer(64, false))),
        Datatype::Int8 => (Physical::INT32, Some(integer(8, true))),
        Datatype::Int16 => (Physical::INT32, Some(integer(16, true))),
        Datatype::Int32 => (Physical::INT32, Some(integer(32, true))),
        Datatype::Int64 => (Physical::INT64, Some(integer(64, true))),
        // 16 bits fit into 32 exactly, which every reader knows.
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 => (Physical::FLOAT, None),
        Datatype::Fp64 => (Physical::DOUBLE, None),
        Datatype::Bytes => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
    }
}

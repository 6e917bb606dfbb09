//! The values of a leaf column as cells.

use std::fmt::Write as _;

use ::parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type as Physical};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::DataType;
use ::parquet::errors::ParquetError;
use ::parquet::schema::types::ColumnDescriptor;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::super::Value;
use crate::tensor::half;

const NANOS_PER_DAY: i128 = 86_400_000_000_000;

/// What the values of a column mean, beyond their type on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What their type says.
    Plain,
    /// Whole numbers without a sign.
    Unsigned,
    /// A number without its point.
    Decimal { scale: u32 },
    /// Days since 1970.
    Date,
    /// Nanoseconds in a unit, since midnight.
    TimeOfDay { nanos: i128 },
    /// Nanoseconds in a unit, since 1970; of the world, or of some place.
    Moment { nanos: i128, is_utc: bool },
    /// A number of 16 bits.
    Half,
    /// 16 bytes.
    Uuid,
    /// A text, unless it is none.
    Text,
}

impl Meaning {
    /// What a column's values mean, or why they cannot be read.
    pub(super) fn of(column: &ColumnDescriptor) -> Result<Self, &'static str> {
        if let Some(logical) = column.logical_type_ref() {
            return Self::logical(logical, column);
        }
        Ok(match column.converted_type() {
            ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64 => Self::Unsigned,
            ConvertedType::DECIMAL => Self::decimal(column.type_scale())?,
            ConvertedType::DATE => Self::Date,
            ConvertedType::TIME_MILLIS => Self::TimeOfDay { nanos: 1_000_000 },
            ConvertedType::TIME_MICROS => Self::TimeOfDay { nanos: 1_000 },
            ConvertedType::TIMESTAMP_MILLIS => Self::Moment { nanos: 1_000_000, is_utc: true },
            ConvertedType::TIMESTAMP_MICROS => Self::Moment { nanos: 1_000, is_utc: true },
            ConvertedType::INTERVAL => return Err("it holds intervals of time"),
            ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON => Self::Text,
            ConvertedType::NONE
            | ConvertedType::MAP
            | ConvertedType::MAP_KEY_VALUE
            | ConvertedType::LIST
            | ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::INT_64
            | ConvertedType::BSON => Self::physical(column),
        })
    }

    fn logical(logical: &LogicalType, column: &ColumnDescriptor) -> Result<Self, &'static str> {
        Ok(match logical {
            LogicalType::Integer(int) if !int.is_signed => Self::Unsigned,
            LogicalType::Decimal(decimal) => Self::decimal(decimal.scale)?,
            LogicalType::Date => Self::Date,
            LogicalType::Time(time) => Self::TimeOfDay { nanos: nanos(time.unit) },
            LogicalType::Timestamp(time) => {
                Self::Moment { nanos: nanos(time.unit), is_utc: time.is_adjusted_to_u_t_c }
            }
            LogicalType::Float16 => Self::Half,
            LogicalType::Uuid => Self::Uuid,
            LogicalType::Variant(_) => return Err("it holds values of any type"),
            LogicalType::Geometry(_) | LogicalType::Geography(_) => {
                return Err("it holds geometry");
            }
            LogicalType::String | LogicalType::Enum | LogicalType::Json => Self::Text,
            LogicalType::Map
            | LogicalType::List
            | LogicalType::Integer(_)
            | LogicalType::Unknown
            | LogicalType::Bson
            | LogicalType::File
            | LogicalType::_Unknown { .. } => Self::physical(column),
        })
    }

    fn decimal(scale: i32) -> Result<Self, &'static str> {
        let scale = u32::try_from(scale).ok().filter(|scale| *scale <= 38);
        scale.map(|scale| Self::Decimal { scale }).ok_or("it holds decimals of a scale beyond 38")
    }

    fn physical(column: &ColumnDescriptor) -> Self {
        if column.physical_type() == Physical::BYTE_ARRAY { Self::Text } else { Self::Plain }
    }

    fn whole(self, value: i64, bits: u32) -> Value {
        match self {
            Self::Unsigned => Value::Unsigned(value.cast_unsigned() & (u64::MAX >> (64 - bits))),
            Self::Decimal { scale } => Value::Decimal(decimal(i128::from(value), scale)),
            Self::Date => moment(i128::from(value) * NANOS_PER_DAY, Shown::Date),
            Self::TimeOfDay { nanos } => moment(i128::from(value) * nanos, Shown::TimeOfDay),
            Self::Moment { nanos, is_utc } => {
                let shown = if is_utc { Shown::Utc } else { Shown::Local };
                moment(i128::from(value) * nanos, shown)
            }
            Self::Plain | Self::Half | Self::Uuid | Self::Text => Value::Int(value),
        }
    }

    fn bytes(self, bytes: &[u8]) -> Value {
        match self {
            Self::Decimal { scale } => {
                let unscaled = big_endian(bytes);
                unscaled.map_or(Value::Null, |value| Value::Decimal(decimal(value, scale)))
            }
            Self::Half => {
                let bits = <[u8; 2]>::try_from(bytes).map(u16::from_le_bytes);
                bits.map_or(Value::Null, |bits| Value::Single(half::to_f32(bits)))
            }
            Self::Uuid => Value::Text(uuid(bytes)),
            Self::Text => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(text.to_owned()),
                Err(_) => Value::Bytes(bytes.to_vec()),
            },
            Self::Plain
            | Self::Unsigned
            | Self::Date
            | Self::TimeOfDay { .. }
            | Self::Moment { .. } => Value::Bytes(bytes.to_vec()),
        }
    }
}

const fn nanos(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::MILLIS => 1_000_000,
        TimeUnit::MICROS => 1_000,
        TimeUnit::NANOS => 1,
    }
}

/// Reads at most so many values.
pub(super) fn read(
    reader: &mut ColumnReader,
    meaning: Meaning,
    rows: usize,
) -> Result<Vec<Value>, ParquetError> {
    match reader {
        ColumnReader::BoolColumnReader(reader) => cells(reader, rows, |value| Value::Bool(*value)),
        ColumnReader::Int32ColumnReader(reader) => {
            cells(reader, rows, |value| meaning.whole(i64::from(*value), 32))
        }
        ColumnReader::Int64ColumnReader(reader) => {
            cells(reader, rows, |value| meaning.whole(*value, 64))
        }
        ColumnReader::Int96ColumnReader(reader) => {
            cells(reader, rows, |value| moment(i128::from(value.to_nanos()), Shown::Local))
        }
        ColumnReader::FloatColumnReader(reader) => {
            cells(reader, rows, |value| Value::Single(*value))
        }
        ColumnReader::DoubleColumnReader(reader) => {
            cells(reader, rows, |value| Value::Double(*value))
        }
        ColumnReader::ByteArrayColumnReader(reader) => {
            cells(reader, rows, |value| meaning.bytes(value.data()))
        }
        ColumnReader::FixedLenByteArrayColumnReader(reader) => {
            cells(reader, rows, |value| meaning.bytes(value.data()))
        }
    }
}

/// Values lie without gaps; the levels say which rows have one.
fn cells<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    cell: impl Fn(&T::T) -> Value,
) -> Result<Vec<Value>, ParquetError> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (read, ..) = reader.read_records(rows, Some(&mut levels), None, &mut values)?;
    let mut values = values.iter();
    if levels.is_empty() {
        return Ok(values.take(read).map(cell).collect());
    }
    // A column without a column above it is there at level 1.
    let of_level = |level: &i16| {
        let value = if *level > 0 { values.next() } else { None };
        value.map_or(Value::Null, &cell)
    };
    Ok(levels.iter().take(read).map(of_level).collect())
}

/// How a moment is written.
#[derive(Debug, Clone, Copy)]
enum Shown {
    Date,
    TimeOfDay,
    Utc,
    Local,
}

/// Null for a moment that no calendar has.
fn moment(nanos: i128, shown: Shown) -> Value {
    let Ok(moment) = Timestamp::from_nanosecond(nanos) else { return Value::Null };
    let civil = TimeZone::UTC.to_datetime(moment);
    Value::Time(match shown {
        Shown::Date => civil.date().to_string(),
        Shown::TimeOfDay => civil.time().to_string(),
        Shown::Utc => moment.to_string(),
        Shown::Local => civil.to_string(),
    })
}

fn decimal(unscaled: i128, scale: u32) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

/// A number in two's complement; nothing beyond 128 bits.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let is_negative = bytes.first()? & 0x80 != 0;
    if bytes.len() > 16 {
        return None;
    }
    let filled = if is_negative { -1 } else { 0 };
    Some(bytes.iter().fold(filled, |number: i128, byte| (number << 8) | i128::from(*byte)))
}

fn uuid(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (place, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&place) {
            text.push('-');
        }
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

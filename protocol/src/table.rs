//! Rows of files, whatever format they came in. Readers are given what they read; they open nothing.

pub mod npy;
#[cfg(feature = "npz")]
pub mod npz;
#[cfg(feature = "parquet")]
pub mod parquet;

/// What a cell of a table holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that is not negative.
    Unsigned(u64),
    /// A number of 16 or 32 bits.
    Single(f32),
    /// A number.
    Double(f64),
    /// A decimal, as people write it.
    Decimal(String),
    /// A date, a time of the day or a moment, as ISO 8601 has it.
    Time(String),
    /// A text.
    Text(String),
    /// Bytes that are no text, such as an image.
    Bytes(Vec<u8>),
}

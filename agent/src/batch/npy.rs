//! The head of a `.npy` file: NumPy Enhancement Proposal 1, "A simple file format".

use std::io::{self, Read};

/// The head of an array of many dimensions takes some hundred bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What an array holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// By the name of the Open Inference Protocol.
    pub(super) datatype: &'static str,
    pub(super) rows: u64,
    pub(super) row_shape: Vec<u64>,
    pub(super) row_bytes: u64,
}

/// Why a file is no array of rows.
#[derive(Debug, thiserror::Error)]
pub enum NotNpy {
    /// It begins otherwise, or ends too early.
    #[error("not a .npy file")]
    Form(#[source] io::Error),
    /// Elements that no tensor has, in that order of bytes.
    #[error("elements of type `{0}` are not taken; little-endian numbers and booleans are")]
    Element(String),
    /// Stored column by column.
    #[error("the array is stored column by column; save `numpy.ascontiguousarray` of it")]
    Fortran,
    /// No rows.
    #[error("the array has no dimension")]
    Scalar,
}

impl Header {
    /// Reads the head, and leaves the reader at the first element.
    pub(super) fn read(file: &mut impl Read) -> Result<Self, NotNpy> {
        let form = |text: &str| NotNpy::Form(io::Error::other(text.to_owned()));
        let mut front = [0; 8];
        file.read_exact(&mut front).map_err(NotNpy::Form)?;
        let [0x93, b'N', b'U', b'M', b'P', b'Y', major, _] = front else {
            return Err(form("it begins otherwise"));
        };
        let length = if major == 1 {
            let mut length = [0; 2];
            file.read_exact(&mut length).map_err(NotNpy::Form)?;
            usize::from(u16::from_le_bytes(length))
        } else {
            let mut length = [0; 4];
            file.read_exact(&mut length).map_err(NotNpy::Form)?;
            usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX)
        };
        if length > HEAD_BYTES_MAX {
            return Err(form("its head is too long"));
        }
        let mut head = vec![0; length];
        file.read_exact(&mut head).map_err(NotNpy::Form)?;
        Self::parse(&String::from_utf8_lossy(&head))
    }

    fn parse(head: &str) -> Result<Self, NotNpy> {
        let missing = |key: &str| NotNpy::Form(io::Error::other(format!("its head has no {key}")));
        let element = value(head, "descr").ok_or_else(|| missing("descr"))?;
        let element = element.trim_matches(['\'', '"']);
        if value(head, "fortran_order").ok_or_else(|| missing("fortran_order"))? == "True" {
            return Err(NotNpy::Fortran);
        }
        let shape = value(head, "shape").ok_or_else(|| missing("shape"))?;
        let lengths = shape.trim_matches(['(', ')']).split(',').map(str::trim);
        let lengths: Option<Vec<u64>> =
            lengths.filter(|length| !length.is_empty()).map(|length| length.parse().ok()).collect();
        let lengths = lengths.ok_or_else(|| missing("shape of lengths"))?;
        let (&rows, row_shape) = lengths.split_first().ok_or(NotNpy::Scalar)?;
        let (datatype, element_bytes) =
            datatype(element).ok_or_else(|| NotNpy::Element(element.to_owned()))?;
        let row_bytes = row_shape
            .iter()
            .try_fold(element_bytes, |product, &length| product.checked_mul(length));
        let row_bytes = row_bytes.ok_or_else(|| missing("row of a length that can be"))?;
        Ok(Self { datatype, rows, row_shape: row_shape.to_vec(), row_bytes })
    }

    /// Rows that fit into so many bytes; at least one.
    pub(super) fn rows_within(&self, bytes: usize) -> u64 {
        (bytes as u64).checked_div(self.row_bytes).unwrap_or(u64::MAX).max(1)
    }
}

/// The value of a key in the head, which is written as Python writes a dictionary.
fn value<'a>(head: &'a str, key: &str) -> Option<&'a str> {
    let rest = head.split_once(&format!("'{key}':"))?.1.trim_start();
    let end = if rest.starts_with('(') { rest.find(')')? + 1 } else { rest.find([',', '}'])? };
    Some(rest.get(..end)?.trim())
}

fn datatype(element: &str) -> Option<(&'static str, u64)> {
    Some(match element {
        "|b1" => ("BOOL", 1),
        "|u1" => ("UINT8", 1),
        "<u2" => ("UINT16", 2),
        "<u4" => ("UINT32", 4),
        "<u8" => ("UINT64", 8),
        "|i1" => ("INT8", 1),
        "<i2" => ("INT16", 2),
        "<i4" => ("INT32", 4),
        "<i8" => ("INT64", 8),
        "<f2" => ("FP16", 2),
        "<f4" => ("FP32", 4),
        "<f8" => ("FP64", 8),
        _ => return None, // big-endian, complex, text, objects, …
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Header, String> {
        Header::parse(head).map_err(|error| error.to_string())
    }

    #[test]
    fn heads_as_numpy_writes_them_are_read() {
        let head = "{'descr': '<f4', 'fortran_order': False, 'shape': (10, 8, 8), }          \n";
        let expected = Header { datatype: "FP32", rows: 10, row_shape: vec![8, 8], row_bytes: 256 };
        assert_eq!(parse(head).unwrap(), expected);
        let list = parse("{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }").unwrap();
        assert_eq!((list.rows, list.row_bytes), (3, 1));
        let mut file = b"\x93NUMPY\x01\x00\x48\x00".to_vec();
        file.extend(head.as_bytes());
        assert_eq!(Header::read(&mut file.as_slice()).unwrap(), expected);
    }

    #[test]
    fn what_is_no_array_of_rows_is_told() {
        let head = |element: &str, order: &str, shape: &str| {
            parse(&format!(
                "{{'descr': '{element}', 'fortran_order': {order}, 'shape': {shape}, }}"
            ))
            .unwrap_err()
        };
        assert!(head(">f4", "False", "(1,)").contains("`>f4`"));
        assert!(head("|O", "False", "(1,)").contains("`|O`"));
        assert!(head("<f4", "True", "(1, 2)").contains("column by column"));
        assert_eq!(head("<f4", "False", "()"), "the array has no dimension");
        assert!(Header::read(&mut b"PK\x03\x04 and more".as_slice()).is_err());
        assert!(Header::read(&mut b"\x93NUMPY\x02\x00\xff\xff\xff\xff".as_slice()).is_err());
    }
}

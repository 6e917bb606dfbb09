//! `.npy` files: NumPy Enhancement Proposal 1, "A simple file format".

mod element;
mod head;

use std::io::{self, Read, Seek, SeekFrom};

use self::element::Element;
use self::head::{Descr, Head};
use super::Value;
use crate::limits::TABLE_COLUMNS_MAX;

/// What an array holds, for whoever passes its bytes on as a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// By the name of the Open Inference Protocol.
    pub datatype: &'static str,
    /// Length of the first dimension.
    pub rows: u64,
    /// The other dimensions.
    pub row_shape: Vec<u64>,
    /// Bytes of a row.
    pub row_bytes: u64,
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
    /// Elements that no column has.
    #[error(
        "elements of type `{0}` are not taken; save numbers, booleans or texts: `array.astype(\"float32\")`"
    )]
    Cell(String),
    /// Stored column by column.
    #[error("the array is stored column by column; save `numpy.ascontiguousarray` of it")]
    Fortran,
    /// No rows.
    #[error("the array has no dimension")]
    Scalar,
    /// More columns than a table may have.
    #[error("the array has {0} columns; at most {TABLE_COLUMNS_MAX} are taken")]
    Columns(u64),
    /// It ends early.
    #[error("its head tells of {expected} bytes, the file has {given}; was it cut off?")]
    Short {
        /// By the head.
        expected: u64,
        /// That are there.
        given: u64,
    },
}

fn form(text: &str) -> NotNpy {
    NotNpy::Form(io::Error::other(text.to_owned()))
}

impl Header {
    /// Reads the head, and leaves the reader at the first element.
    pub fn read(file: &mut impl Read) -> Result<Self, NotNpy> {
        Self::of(&Head::read(file)?)
    }

    fn of(head: &Head) -> Result<Self, NotNpy> {
        if head.is_by_column {
            return Err(NotNpy::Fortran);
        }
        let Descr::Plain(element) = &head.descr else {
            return Err(NotNpy::Element("a record".to_owned()));
        };
        let (&rows, row_shape) = head.shape.split_first().ok_or(NotNpy::Scalar)?;
        let (datatype, element_bytes) =
            datatype(element).ok_or_else(|| NotNpy::Element(element.clone()))?;
        let row_bytes = product(element_bytes, row_shape)?;
        Ok(Self { datatype, rows, row_shape: row_shape.to_vec(), row_bytes })
    }

    /// Rows that fit into so many bytes; at least one.
    pub fn rows_within(&self, bytes: usize) -> u64 {
        (bytes as u64).checked_div(self.row_bytes).unwrap_or(u64::MAX).max(1)
    }
}

fn product(first: u64, lengths: &[u64]) -> Result<u64, NotNpy> {
    let product = lengths.iter().try_fold(first, |product, &length| product.checked_mul(length));
    product.ok_or_else(|| form("its head has no row of a length that can be"))
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

/// An array as a table: a row for each place of its first dimension, in either order of elements and of bytes.
#[derive(Debug)]
pub struct Table<R> {
    file: R,
    /// Where the first element is.
    start: u64,
    rows: u64,
    done: u64,
    columns: Vec<Column>,
    row_bytes: u64,
    is_by_column: bool,
}

/// A column of an array, or a field of its records.
#[derive(Debug)]
struct Column {
    name: Option<String>,
    element: Element,
    /// Where it is in a row.
    offset: usize,
}

impl<R: Read + Seek> Table<R> {
    /// Reads the head, and compares it with the length of the file.
    pub fn open(mut file: R) -> Result<Self, NotNpy> {
        let head = Head::read(&mut file)?;
        let (&rows, row_shape) = head.shape.split_first().ok_or(NotNpy::Scalar)?;
        if head.is_by_column && row_shape.len() > 1 {
            return Err(NotNpy::Fortran);
        }
        let count = product(1, row_shape)?;
        let is_record = matches!(head.descr, Descr::Record(_));
        if is_record && count != 1 {
            return Err(form("its records are not in one line"));
        }
        let columns = columns(&head.descr, count)?;
        let row_bytes = columns.last().map_or(0, |last| last.offset + last.element.bytes) as u64;
        let start = file.stream_position().map_err(NotNpy::Form)?;
        let end = file.seek(SeekFrom::End(0)).map_err(NotNpy::Form)?;
        let (expected, given) = (product(rows, &[row_bytes])?, end.saturating_sub(start));
        if given < expected {
            return Err(NotNpy::Short { expected, given });
        }
        let is_by_column = head.is_by_column && !is_record && count > 1;
        Ok(Self { file, start, rows, done: 0, columns, row_bytes, is_by_column })
    }

    /// The names of an array of records; none for any other.
    pub fn names(&self) -> Option<Vec<String>> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// How many columns there are.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// At most so many rows, by column; nothing at the end.
    pub fn next(&mut self, rows_max: usize) -> io::Result<Option<Vec<Vec<Value>>>> {
        let rows = self.rows.saturating_sub(self.done).min(rows_max as u64);
        if rows == 0 || self.columns.is_empty() {
            return Ok(None);
        }
        let values = if self.is_by_column { self.by_column(rows) } else { self.by_row(rows) }?;
        self.done += rows;
        Ok(Some(values))
    }

    fn by_row(&mut self, rows: u64) -> io::Result<Vec<Vec<Value>>> {
        let bytes = self.read_at(self.done * self.row_bytes, rows * self.row_bytes)?;
        let row_bytes = usize::try_from(self.row_bytes).map_err(io::Error::other)?.max(1);
        let column = |column: &Column| {
            let cell = |row: &[u8]| {
                let cell = row.get(column.offset..column.offset + column.element.bytes);
                cell.map_or(Value::Null, |cell| column.element.value(cell))
            };
            bytes.chunks_exact(row_bytes).map(cell).collect()
        };
        Ok(self.columns.iter().map(column).collect())
    }

    fn by_column(&mut self, rows: u64) -> io::Result<Vec<Vec<Value>>> {
        let mut values = Vec::with_capacity(self.columns.len());
        for place in 0..self.columns.len() {
            let Some(Column { element, .. }) = self.columns.get(place) else { break };
            let element = *element;
            let begin = (place as u64 * self.rows + self.done) * element.bytes as u64;
            let bytes = self.read_at(begin, rows * element.bytes as u64)?;
            let cells = bytes.chunks_exact(element.bytes.max(1));
            values.push(cells.map(|cell| element.value(cell)).collect());
        }
        Ok(values)
    }

    fn read_at(&mut self, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(self.start + offset))?;
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn columns(descr: &Descr, count: u64) -> Result<Vec<Column>, NotNpy> {
    if count > TABLE_COLUMNS_MAX as u64 {
        return Err(NotNpy::Columns(count));
    }
    let fields: Vec<(Option<String>, &str)> = match descr {
        Descr::Plain(element) => (0..count).map(|_| (None, element.as_str())).collect(),
        Descr::Record(fields) => {
            fields.iter().map(|(name, element)| (Some(name.clone()), element.as_str())).collect()
        }
    };
    if fields.len() > TABLE_COLUMNS_MAX {
        return Err(NotNpy::Columns(fields.len() as u64));
    }
    let (mut offset, mut columns) = (0, Vec::with_capacity(fields.len()));
    for (name, text) in fields {
        let element = Element::parse(text).ok_or_else(|| NotNpy::Cell(text.to_owned()))?;
        columns.push(Column { name, element, offset });
        offset += element.bytes;
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn file(head: &str, elements: &[u8]) -> Cursor<Vec<u8>> {
        let length = u16::try_from(head.len()).unwrap().to_le_bytes();
        let front = [b"\x93NUMPY\x01\x00".as_slice(), &length, head.as_bytes()].concat();
        Cursor::new([front.as_slice(), elements].concat())
    }

    fn array(descr: &str, order: &str, shape: &str, elements: &[u8]) -> Cursor<Vec<u8>> {
        let head = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n");
        file(&head, elements)
    }

    fn refused(result: Result<impl std::fmt::Debug, NotNpy>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn heads_as_numpy_writes_them_are_read() {
        let mut images = array("'<f4'", "False", "(10, 8, 8)", &[]);
        let expected = Header { datatype: "FP32", rows: 10, row_shape: vec![8, 8], row_bytes: 256 };
        assert_eq!(Header::read(&mut images).unwrap(), expected);
        let list = Header::read(&mut array("'|b1'", "False", "(3,)", &[])).unwrap();
        assert_eq!((list.rows, list.row_bytes), (3, 1));
    }

    #[test]
    fn what_is_no_array_of_rows_is_told() {
        let told = |descr: &str, order: &str, shape: &str| {
            refused(Header::read(&mut array(descr, order, shape, &[])))
        };
        assert!(told("'>f4'", "False", "(1,)").contains("`>f4`"));
        assert!(told("'|O'", "False", "(1,)").contains("`|O`"));
        assert!(told("'<f4'", "True", "(1, 2)").contains("column by column"));
        assert_eq!(told("'<f4'", "False", "()"), "the array has no dimension");
        assert!(Header::read(&mut b"PK\x03\x04 and more".as_slice()).is_err());
        assert!(Header::read(&mut b"\x93NUMPY\x02\x00\xff\xff\xff\xff".as_slice()).is_err());
    }

    #[test]
    fn both_orders_of_elements_and_of_bytes_are_one_table() {
        let rows = [[1_i16, 2, 3], [4, 5, 6]];
        let little: Vec<u8> = rows.as_flattened().iter().flat_map(|v| v.to_le_bytes()).collect();
        let big: Vec<u8> = rows.as_flattened().iter().flat_map(|v| v.to_be_bytes()).collect();
        let turned: Vec<u8> = [1_i16, 4, 2, 5, 3, 6].iter().flat_map(|v| v.to_le_bytes()).collect();
        let files = [
            array("'<i2'", "False", "(2, 3)", &little),
            array("'>i2'", "False", "(2, 3)", &big),
            array("'<i2'", "True", "(2, 3)", &turned),
        ];
        for file in files {
            let mut table = Table::open(file).unwrap();
            let first = table.next(1).unwrap().unwrap();
            let second = table.next(10).unwrap().unwrap();
            let ints = |values: [i64; 3]| values.map(|value| vec![Value::Int(value)]).to_vec();
            assert_eq!((first, second), (ints([1, 2, 3]), ints([4, 5, 6])));
            assert_eq!(table.next(10).unwrap(), None);
        }
    }

    #[test]
    fn records_have_names() {
        let elements = [0.5_f64.to_le_bytes().as_slice(), b"a\0\0\0b\0\0\0", &[1]].concat();
        let descr = "[('size', '<f8'), ('code', '<U2'), ('is_new', '|b1')]";
        let mut table = Table::open(array(descr, "False", "(1,)", &elements)).unwrap();

        assert_eq!(table.names().unwrap(), ["size", "code", "is_new"]);
        let row = table.next(5).unwrap().unwrap().concat();
        assert_eq!(row, [Value::Double(0.5), Value::Text("ab".to_owned()), Value::Bool(true)]);
    }

    #[test]
    fn a_file_that_is_cut_off_or_promises_too_much_is_refused_before_memory_is_taken() {
        let cut = Table::open(array("'<f4'", "False", "(2, 2)", &[0; 12]));
        assert!(refused(cut).contains("16 bytes, the file has 12"));
        let huge = Table::open(array("'<f4'", "False", "(4611686018427387904, 1)", &[0; 12]));
        assert!(matches!(huge, Err(NotNpy::Form(_))));
        let wide = Table::open(array("'<f4'", "False", "(1, 1000000)", &[0; 12]));
        assert!(refused(wide).contains("1000000 columns"));
        let objects = Table::open(array("'|O'", "False", "(1, 1)", &[0; 12]));
        assert!(refused(objects).contains("`|O`"));
    }
}

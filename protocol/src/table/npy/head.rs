//! The head of an array: a dictionary as Python writes it.

use std::io::Read;

use super::{NotNpy, form};

/// The head of an array of many dimensions takes some hundred bytes, of records with a thousand fields some ten thousand.
const HEAD_BYTES_MAX: usize = 256 << 10;

/// What an array says of itself.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) descr: Descr,
    pub(super) is_by_column: bool,
    pub(super) shape: Vec<u64>,
}

/// Types of elements.
#[derive(Debug)]
pub(super) enum Descr {
    /// All of one.
    Plain(String),
    /// Fields of a record, by name.
    Record(Vec<(String, String)>),
}

impl Head {
    /// Reads the head, and leaves the reader at the first element.
    pub(super) fn read(file: &mut impl Read) -> Result<Self, NotNpy> {
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
        let missing = |key: &str| form(&format!("its head has no {key}"));
        let descr = value(head, "descr").ok_or_else(|| missing("descr"))?;
        let descr = if descr.starts_with('[') {
            Descr::Record(fields(descr)?)
        } else {
            Descr::Plain(descr.trim_matches(['\'', '"']).to_owned())
        };
        let order = value(head, "fortran_order").ok_or_else(|| missing("fortran_order"))?;
        let shape = value(head, "shape").ok_or_else(|| missing("shape"))?;
        let lengths = shape.trim_matches(['(', ')']).split(',').map(str::trim);
        let lengths: Option<Vec<u64>> =
            lengths.filter(|length| !length.is_empty()).map(|length| length.parse().ok()).collect();
        let shape = lengths.ok_or_else(|| missing("shape of lengths"))?;
        Ok(Self { descr, is_by_column: order == "True", shape })
    }
}

/// The value of a key in the head.
fn value<'a>(head: &'a str, key: &str) -> Option<&'a str> {
    let rest = head.split_once(&format!("'{key}':"))?.1.trim_start();
    let end = match rest.chars().next()? {
        '(' => rest.find(')')? + 1,
        '[' => end_of_list(rest)?,
        _ => rest.find([',', '}'])?, // a word or a quoted text
    };
    Some(rest.get(..end)?.trim())
}

/// Where a list ends; brackets within quotes are part of a name.
fn end_of_list(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_u32, None);
    for (place, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => depth = depth.checked_sub(1)?,
            (_, _) => (), // within quotes, commas, blanks
        }
        if depth == 0 && quote.is_none() {
            return Some(place + letter.len_utf8());
        }
    }
    None
}

/// Reads `[('name', '<f8'), ('other', '<i4')]`.
fn fields(list: &str) -> Result<Vec<(String, String)>, NotNpy> {
    let mut fields = Vec::new();
    let mut rest = list.trim_start_matches('[');
    while let Some((_, field)) = rest.split_once('(') {
        let (name, after) = quoted(field).ok_or_else(|| form("a field has no name"))?;
        let Some((element, after)) = quoted(after) else {
            return Err(NotNpy::Cell(format!("{name}: a record in a record")));
        };
        let after = after.trim_start();
        let Some(next) = after.strip_prefix(')') else {
            return Err(NotNpy::Cell(format!("{name}: an array in a record")));
        };
        fields.push((name.to_owned(), element.to_owned()));
        rest = next;
    }
    if fields.is_empty() { Err(form("its records have no fields")) } else { Ok(fields) }
}

/// The next quoted text, and what follows it; nothing where something else comes first.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches([' ', ',']);
    let quote = text.chars().next().filter(|quote| ['\'', '"'].contains(quote))?;
    text.get(1..)?.split_once(quote)
}

//! CSV, with the separators and the quirks of tools that write it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};

use anyhow::ensure;
use sealift_protocol::table::Value;

use super::Head;

/// What programs for sheets put before text in UTF-8.
const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// What may stand between cells, the most usual first.
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// The line of names is at most so long: 20,000 columns with names of 80 letters.
const HEAD_BYTES_MAX: u64 = 2 << 20;

/// A file of text, while it is read.
pub(super) struct Csv {
    reader: csv::Reader<File>,
    head: Vec<String>,
    /// Whether the first column has no name, as the row numbers of pandas have none.
    has_index: bool,
    /// Cells without a name at the end, as a separator at the end of lines makes one.
    has_tail: bool,
    /// Where a semicolon separates, a comma is the decimal point.
    has_decimal_comma: bool,
}

impl Csv {
    /// Reads the line of names.
    pub(super) fn open(mut file: File) -> anyhow::Result<Self> {
        let mut first = Vec::new();
        BufReader::new(&mut file).take(HEAD_BYTES_MAX).read_until(b'\n', &mut first)?;
        ensure!(!first.contains(&0), "it holds bytes that are no text");
        let begin = if first.starts_with(&MARK) { MARK.len() } else { 0 };
        let separator = separator(first.get(begin..).unwrap_or_default());
        file.seek(SeekFrom::Start(begin as u64))?;
        let mut reader =
            csv::ReaderBuilder::new().delimiter(separator).trim(csv::Trim::All).from_reader(file);
        let names = reader.headers().map_err(told)?;
        let mut head: Vec<String> = names.iter().map(str::to_owned).collect();
        ensure!(head.iter().any(|name| !name.is_empty()), "there is no line of names");
        ensure!(
            !head.iter().all(|name| is_measure(name)),
            "the first line holds numbers, not the names of columns"
        );
        let has_index = head.len() > 1 && head.first().is_some_and(String::is_empty);
        if has_index {
            head.remove(0);
        }
        let has_tail = head.len() > 1 && head.last().is_some_and(String::is_empty);
        if has_tail {
            head.pop();
        }
        let nameless = head.iter().position(String::is_empty);
        ensure!(nameless.is_none(), "column {} has no name", nameless.unwrap_or(0) + 1);
        Ok(Self { reader, head, has_index, has_tail, has_decimal_comma: separator == b';' })
    }

    pub(super) fn head(&self) -> Vec<Head> {
        self.head.iter().map(|name| Head { name: name.clone(), refused: None }).collect()
    }

    pub(super) fn next(&mut self, rows_max: usize) -> anyhow::Result<Option<Vec<Vec<Value>>>> {
        let mut columns = vec![Vec::new(); self.head.len()];
        let mut record = csv::StringRecord::new();
        let mut rows = 0;
        while rows < rows_max && self.reader.read_record(&mut record).map_err(told)? {
            if self.has_tail {
                let tail = record.get(record.len().saturating_sub(1)).unwrap_or_default();
                let line = record.position().map_or(0, csv::Position::line);
                ensure!(tail.is_empty(), "line {line} has a cell in a column without a name");
            }
            let cells = record.iter().skip(usize::from(self.has_index));
            for (column, cell) in columns.iter_mut().zip(cells) {
                let number = self.has_decimal_comma.then(|| with_point(cell)).flatten();
                column.push(Value::Text(number.unwrap_or_else(|| cell.to_owned())));
            }
            rows += 1;
        }
        Ok((rows > 0).then_some(columns))
    }
}

/// What separates the names: whatever is there most often outside of quotes.
fn separator(line: &[u8]) -> u8 {
    let mut counts = [0_usize; SEPARATORS.len()];
    let mut is_quoted = false;
    for byte in line {
        is_quoted ^= *byte == b'"';
        let place = SEPARATORS.iter().position(|separator| separator == byte);
        if let Some(count) = place.filter(|_| !is_quoted).and_then(|place| counts.get_mut(place)) {
            *count += 1;
        }
    }
    let most = counts.iter().copied().max().unwrap_or(0);
    let pairs = SEPARATORS.iter().zip(counts);
    let found = pairs.into_iter().find(|(_, count)| *count == most && most > 0);
    found.map_or(b',', |(separator, _)| *separator)
}

/// Whether a name is a number that no column is named by; `0`, `1` and so on are what pandas makes of none.
fn is_measure(name: &str) -> bool {
    name.parse::<f64>().is_ok_and(|number| number.fract() != 0.0 || number < 0.0)
}

/// A number with a decimal comma, with a point.
fn with_point(cell: &str) -> Option<String> {
    let (whole, part) = cell.split_once(',')?;
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let is_number = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && part.bytes().all(|byte| byte.is_ascii_digit() || b"eE+-".contains(&byte))
        && !part.is_empty();
    is_number.then(|| format!("{whole}.{part}"))
}

fn told(error: csv::Error) -> anyhow::Error {
    let line = error.position().map_or(0, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => anyhow::anyhow!(
            "line {line} is not UTF-8\nhelp: save the file as UTF-8: iconv -f latin1 -t utf8 FILE"
        ),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => anyhow::anyhow!(
            "line {line} has {len} cells, the line of names has {expected_len}\nhelp: cells with a separator in them are written in quotes"
        ),
        csv::ErrorKind::Io(_)
        | csv::ErrorKind::Seek
        | csv::ErrorKind::Serialize(_)
        | csv::ErrorKind::Deserialize { .. }
        | _ => anyhow::Error::from(error), // of the disk
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn open(text: &[u8]) -> anyhow::Result<Csv> {
        let mut file = tempfile::tempfile()?;
        file.write_all(text)?;
        file.rewind()?;
        Csv::open(file)
    }

    fn cells(text: &[u8]) -> (Vec<String>, Vec<Vec<String>>) {
        let mut csv = open(text).unwrap();
        let columns = csv.next(100).unwrap().unwrap_or_default();
        let text = |value: Value| {
            let Value::Text(text) = value else { panic!("{value:?}") };
            text
        };
        let columns = columns.into_iter().map(|cells| cells.into_iter().map(text).collect());
        (csv.head, columns.collect())
    }

    #[test]
    fn separators_marks_and_line_ends_make_no_difference() {
        let expected = cells(b"a,b\n1.5,x\n2,y\n");
        assert_eq!(expected.0, ["a", "b"]);
        assert_eq!(expected.1, [["1.5", "2"], ["x", "y"]]);
        for same in [
            "\u{feff}a,b\r\n1.5,x\r\n2,y\r\n",
            "a;b\n1,5;x\n2;y\n",
            "a\tb\n1.5\tx\n2\ty",
            "a|b\n1.5|x\n2|y",
            "\"a\",\"b\"\n\"1.5\",\"x\"\n2,y\n",
            ",a,b\n0,1.5,x\n1,2,y\n",
            "a,b,\n1.5,x,\n2,y,\n",
            " a , b \n 1.5 , x \n\n2,y\n",
        ] {
            assert_eq!(cells(same.as_bytes()), expected, "{same:?}");
        }
    }

    #[test]
    fn what_is_no_table_is_told_with_its_line() {
        let told = |text: &[u8]| match open(text) {
            Err(error) => error.to_string(),
            Ok(mut csv) => csv.next(100).unwrap_err().to_string(),
        };
        assert!(told(b"a,b\n1,2\n3\n").contains("line 3 has 1 cells"));
        assert!(told(b"a,b\n1,\xe9\n").contains("line 2 is not UTF-8"));
        assert!(told(b"1.5,2.5\n3.5,4.5\n").contains("not the names"));
        assert!(told(b"a,,b\n1,2,3\n").contains("column 2 has no name"));
        assert!(told(b"a\0b\n").contains("no text"));
        assert!(told(b"\n\n").contains("no line of names"));
    }
}

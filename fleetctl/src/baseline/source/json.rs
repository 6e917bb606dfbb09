//! JSON Lines: an object in each line, whose fields are columns, or an array, whose places are.

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _};

use anyhow::ensure;
use sealift_protocol::limits::TABLE_COLUMNS_MAX;
use sealift_protocol::table::Value;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use super::Head;

/// A line of 20,000 cells.
const LINE_BYTES_MAX: usize = 8 << 20;

/// A file of objects or arrays, while it is read.
pub(super) struct JsonLines {
    file: BufReader<File>,
    line: u64,
    /// The columns by name, in the order in which they first come.
    head: Vec<Head>,
    places: std::collections::BTreeMap<String, usize>,
}

impl JsonLines {
    /// Reads the file once, for rows may lack what others have.
    pub(super) fn open(file: File) -> anyhow::Result<Self> {
        let mut rows = Self {
            file: BufReader::new(file),
            line: 0,
            head: Vec::new(),
            places: std::collections::BTreeMap::new(),
        };
        while let Some(row) = rows.row()? {
            rows.learn(&row)?;
        }
        ensure!(!rows.head.is_empty(), "there are no rows");
        rows.file.rewind()?;
        rows.line = 0;
        Ok(rows)
    }

    pub(super) fn head(&self) -> Vec<Head> {
        self.head.clone()
    }

    pub(super) fn next(&mut self, rows_max: usize) -> anyhow::Result<Option<Vec<Vec<Value>>>> {
        let mut columns = vec![Vec::new(); self.head.len()];
        let mut rows = 0;
        while rows < rows_max {
            let Some(row) = self.row()? else { break };
            rows += 1;
            for (name, value) in row {
                let column = self.places.get(&name).and_then(|place| columns.get_mut(*place));
                if let Some(column) = column.filter(|column| column.len() < rows) {
                    column.push(cell(value));
                }
            }
            for column in &mut columns {
                column.resize(rows, Value::Null);
            }
        }
        Ok((rows > 0).then_some(columns))
    }

    fn row(&mut self) -> anyhow::Result<Option<Vec<(String, Json)>>> {
        let mut text = Vec::new();
        loop {
            text.clear();
            let limit = LINE_BYTES_MAX as u64 + 1;
            let taken = (&mut self.file).take(limit).read_until(b'\n', &mut text)?;
            if taken == 0 {
                return Ok(None);
            }
            self.line += 1;
            let line = self.line;
            ensure!(taken <= LINE_BYTES_MAX, "line {line} has more than {LINE_BYTES_MAX} bytes");
            let row = text.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(&text).trim_ascii();
            if row.is_empty() {
                continue;
            }
            let Fields(fields) = serde_json::from_slice(row).map_err(|error| {
                anyhow::anyhow!(
                    "line {line} is no object and no array of JSON: {error}\nhelp: in JSON Lines each line is a row of its own"
                )
            })?;
            return Ok(Some(fields));
        }
    }

    fn learn(&mut self, row: &[(String, Json)]) -> anyhow::Result<()> {
        for (name, value) in row {
            let place = *self.places.entry(name.clone()).or_insert(self.head.len());
            if place == self.head.len() {
                ensure!(!name.is_empty(), "line {} has a field without a name", self.line);
                self.head.push(Head { name: name.clone(), refused: None });
            }
            if matches!(value, Json::Array(_) | Json::Object(_))
                && let Some(head) = self.head.get_mut(place)
            {
                head.refused = Some("it holds lists or objects");
            }
        }
        let count = self.head.len();
        ensure!(count <= TABLE_COLUMNS_MAX, "more than {TABLE_COLUMNS_MAX} columns");
        Ok(())
    }
}

/// Fields in the order in which they are written; the places of an array are their names.
struct Fields(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Fields(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Fields, A::Error> {
        let mut fields: Vec<(String, Json)> = Vec::new();
        while let Some(cell) = list.next_element()? {
            fields.push((fields.len().to_string(), cell));
        }
        Ok(Fields(fields))
    }
}

fn cell(value: Json) -> Value {
    match value {
        Json::Null | Json::Array(_) | Json::Object(_) => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => number
            .as_i64()
            .map(Value::Int)
            .or_else(|| number.as_u64().map(Value::Unsigned))
            .or_else(|| number.as_f64().map(Value::Double))
            .unwrap_or(Value::Null),
        Json::String(text) => Value::Text(text),
    }
}

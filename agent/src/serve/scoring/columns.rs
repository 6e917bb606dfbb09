//! Tables as tensors: a column for each feature of the only input, or for each input.

use std::collections::BTreeMap;

use sealift_protocol::image::{IoContract, TensorSpec};
use sealift_protocol::tensor::Tensor;
use serde_json::value::RawValue;

use super::request::{InvalidScoring, is_text, names};
use crate::serve::elements::{self, InvalidElements, Null};

/// A value of a table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cell<'a> {
    /// As it stands in JSON.
    Json(&'a str),
    /// As it stands in CSV; empty for a missing value.
    Text(&'a str),
    Missing,
}

/// A table while it is read, row by row.
pub(super) struct Columns<'a> {
    contract: &'a IoContract,
    /// Names of the columns in the contract's order.
    names: Vec<&'a str>,
    /// In which place of a row the contract's columns are.
    places: Vec<usize>,
    is_features: bool,
    rows: u64,
    inputs: Vec<Input>,
}

/// An input while it is read.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    /// The shape of a row of it, once one was read.
    row_shape: Option<Vec<u64>>,
}

impl<'a> Columns<'a> {
    /// A table with columns of these names, or with the contract's in their order.
    pub(super) fn new(
        contract: &'a IoContract,
        given: Option<&Vec<String>>,
    ) -> Result<Self, InvalidScoring> {
        let names = column_names(contract);
        let places = match given {
            // Columns that the contract does not name are in its order.
            Some(given) if !is_unnamed(contract, given) => places(contract, &names, given)?,
            Some(_) | None => (0..names.len()).collect(),
        };
        let is_features = features(contract).is_some();
        let inputs = contract.inputs.iter().map(|_| Input::default()).collect();
        Ok(Self { contract, names, places, is_features, rows: 0, inputs })
    }

    /// Whether a line of CSV has names of columns.
    pub(super) fn is_names(contract: &IoContract, cells: &[&str]) -> bool {
        let names = column_names(contract);
        cells.iter().any(|cell| names.contains(cell))
    }

    /// Adds a row whose values are in the order of the columns given.
    pub(super) fn push(&mut self, cells: &[Cell<'_>]) -> Result<(), InvalidScoring> {
        // A row of the only input without names is as wide as it is.
        let expected = if self.names.is_empty() { cells.len() } else { self.names.len() };
        if cells.len() != expected {
            let (row, given) = (self.rows, cells.len());
            return Err(InvalidScoring::Width { row, given, expected });
        }
        if self.names.is_empty() {
            for cell in cells {
                self.push_cell(0, "", *cell, Wide::Yes(cells.len()))?;
            }
        }
        for column in 0..self.places.len() {
            let place = self.places.get(column).copied().unwrap_or(column);
            let cell = cells.get(place).copied().unwrap_or(Cell::Missing);
            self.push_column(column, cell)?;
        }
        self.rows += 1;
        Ok(())
    }

    /// Adds a row whose values have names; one that is not there is missing.
    pub(super) fn push_record(
        &mut self,
        record: &BTreeMap<String, &RawValue>,
    ) -> Result<(), InvalidScoring> {
        // Features may come one by one, or all of them under the name of their input.
        if self.is_features && record.keys().all(|name| is_input(self.contract, name)) {
            self.is_features = false;
            self.names = input_names(self.contract);
        }
        let unknown = record.keys().find(|name| !self.names.contains(&name.as_str()));
        if let Some(name) = unknown {
            let (name, expected) = (name.clone(), quoted(&self.names));
            return Err(InvalidScoring::UnknownColumn { name, expected });
        }
        for column in 0..self.names.len() {
            let name = self.names.get(column).copied().unwrap_or_default();
            let cell = record.get(name).map_or(Cell::Missing, |json| Cell::Json(json.get()));
            self.push_column(column, cell)?;
        }
        self.rows += 1;
        Ok(())
    }

    fn push_column(&mut self, column: usize, cell: Cell<'_>) -> Result<(), InvalidScoring> {
        let name = self.names.get(column).copied().unwrap_or_default();
        if self.is_features {
            self.push_cell(0, name, cell, Wide::Yes(self.names.len()))
        } else {
            self.push_cell(column, name, cell, Wide::No)
        }
    }

    fn push_cell(
        &mut self,
        input: usize,
        column: &str,
        cell: Cell<'_>,
        wide: Wide,
    ) -> Result<(), InvalidScoring> {
        let row = self.rows;
        let (Some(spec), Some(target)) =
            (self.contract.inputs.get(input), self.inputs.get_mut(input))
        else {
            return Ok(()); // there are as many as the contract has, by construction
        };
        let row_shape = target.push(spec, cell).map_err(|error| InvalidScoring::Cell {
            row,
            column: column.to_owned(),
            error,
        })?;
        let row_shape = match wide {
            Wide::Yes(columns) => vec![columns as u64],
            Wide::No => row_shape,
        };
        match &target.row_shape {
            Some(before) if *before != row_shape => {
                let (column, given) = (column.to_owned(), row_shape);
                Err(InvalidScoring::Ragged { row, column, given })
            }
            Some(_) => Ok(()),
            None => {
                target.row_shape = Some(row_shape);
                Ok(())
            }
        }
    }

    /// The inputs of the contract.
    pub(super) fn finish(self) -> Result<Vec<Tensor>, InvalidScoring> {
        let mut tensors = Vec::with_capacity(self.inputs.len());
        for (spec, input) in self.contract.inputs.iter().zip(self.inputs) {
            let fixed = || spec.shape.iter().skip(1).map(|&length| length.try_into().unwrap_or(0));
            let mut shape = vec![self.rows];
            match input.row_shape {
                // Features that the contract has in several dimensions came in one.
                Some(_) if self.is_features => shape.extend(fixed()),
                Some(row_shape) if row_shape.is_empty() && spec.shape.len() == 2 => shape.push(1),
                Some(row_shape) => shape.extend(row_shape),
                None => shape.extend(fixed()),
            }
            tensors.push(Tensor::new(spec.name.clone(), spec.datatype, shape, input.bytes)?);
        }
        Ok(tensors)
    }
}

/// Whether a value is one of several in a row of its input.
#[derive(Clone, Copy)]
enum Wide {
    Yes(usize),
    No,
}

impl Input {
    /// Adds a value, which may be an array, and returns its shape.
    fn push(&mut self, spec: &TensorSpec, cell: Cell<'_>) -> Result<Vec<u64>, InvalidElements> {
        let datatype = spec.datatype;
        let token = match cell {
            Cell::Json(json) if json.starts_with('[') => {
                let shape = elements::shape_of(json);
                self.bytes.extend(elements::parse(json, datatype, &shape, Null::Missing)?);
                return Ok(shape);
            }
            Cell::Json("null") | Cell::Text("") | Cell::Missing if !is_text(datatype) => "null",
            Cell::Text(text) if is_text(datatype) => {
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                self.bytes.extend(length.to_le_bytes());
                self.bytes.extend(text.as_bytes());
                return Ok(Vec::new());
            }
            Cell::Json(token) | Cell::Text(token) => token,
            Cell::Missing => "null",
        };
        let pushed = match token {
            "null" => elements::push_missing(&mut self.bytes, datatype),
            token => elements::push(&mut self.bytes, datatype, token),
        };
        pushed.map(|()| Vec::new()).ok_or_else(|| InvalidElements::element(token, datatype))
    }
}

/// The features of the only input; none where inputs are the columns.
fn features(contract: &IoContract) -> Option<&TensorSpec> {
    match contract.inputs.as_slice() {
        [only] if !only.features.is_empty() => Some(only),
        _ => None,
    }
}

/// The contract's columns; none for a single input of rows that nobody has named.
fn column_names(contract: &IoContract) -> Vec<&str> {
    if let Some(input) = features(contract) {
        return input.features.iter().map(|feature| feature.name.as_str()).collect();
    }
    match contract.inputs.as_slice() {
        [only] if only.shape.len() > 1 => Vec::new(),
        _ => input_names(contract),
    }
}

fn input_names(contract: &IoContract) -> Vec<&str> {
    contract.inputs.iter().map(|spec| spec.name.as_str()).collect()
}

fn is_input(contract: &IoContract, name: &str) -> bool {
    contract.inputs.iter().any(|spec| spec.name == name)
}

/// Names that are numbers are those that a data frame gives to columns without one.
fn is_unnamed(contract: &IoContract, given: &[String]) -> bool {
    column_names(contract).is_empty()
        || given.iter().enumerate().all(|(place, name)| *name == place.to_string())
}

fn places(
    contract: &IoContract,
    names: &[&str],
    given: &[String],
) -> Result<Vec<usize>, InvalidScoring> {
    let expected =
        || if features(contract).is_some() { quoted(names) } else { self::names(contract) };
    if let Some(name) = given.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(InvalidScoring::UnknownColumn { name: name.clone(), expected: expected() });
    }
    let place = |name: &&str| {
        let missing =
            || InvalidScoring::MissingColumn { name: (*name).to_owned(), expected: expected() };
        given.iter().position(|given| given == name).ok_or_else(missing)
    };
    names.iter().map(place).collect()
}

/// The first names, for people.
fn quoted(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    let mut text: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    if names.len() > SHOWN {
        text.push(format!("… ({} in all)", names.len()));
    }
    text.join(", ")
}

//! Makes a baseline from a table of reference rows.

pub(crate) mod rows;
pub(crate) mod table;

use std::path::Path;

use anyhow::{Context as _, ensure};
use sealift_protocol::image::{IoContract, Role};
use sealift_protocol::profile::{Baseline, BaselineBuilder, Column};
use sealift_protocol::tensor::Datatype;

/// Column that holds the predicted class.
const PREDICTION: &str = "prediction";
/// Column that holds the confidence, 0 to 1.
const CONFIDENCE: &str = "confidence";

/// Reads a CSV with a column per feature of the contract; `prediction` and `confidence` are taken where they are there.
pub(crate) fn from_csv(path: &Path, contract: &IoContract) -> anyhow::Result<Baseline> {
    read(path, contract).with_context(|| format!("cannot make a baseline of {}", path.display()))
}

fn read(path: &Path, contract: &IoContract) -> anyhow::Result<Baseline> {
    let is_text = contract.observed_inputs().any(|input| input.datatype == Datatype::Bytes);
    if is_text {
        return table::of_contract(path, contract);
    }
    let inputs: Vec<_> = contract.observed_inputs().collect();
    ensure!(!inputs.is_empty(), "the I/O contract names no features");
    let labels = contract.output_with(Role::Probabilities).map(|output| output.labels.clone());
    let named = || inputs.iter().flat_map(|input| &input.features);
    let columns = named().map(|feature| Column::numeric(&feature.name, &feature.group)).collect();
    let mut builder =
        BaselineBuilder::new(columns, labels.unwrap_or_default()).with_summary().with_joint();

    let mut reader = csv::Reader::from_path(path)?;
    let head = reader.headers()?.clone();
    let place = |name: &str| head.iter().position(|column| column == name);
    let features: Vec<_> = named()
        .map(|feature| {
            place(&feature.name).with_context(|| format!("there is no column `{}`", feature.name))
        })
        .collect::<anyhow::Result<_>>()?;
    let (prediction, confidence) = (place(PREDICTION), place(CONFIDENCE));
    for row in reader.records() {
        let row = row?;
        let cell = |index: usize| row.get(index).unwrap_or_default().trim();
        // An empty or wrong cell is a missing value, as it would be on a device.
        let number = |index: usize| cell(index).parse::<f64>().unwrap_or(f64::NAN);
        let values: Vec<_> = features.iter().copied().map(number).collect();
        builder.push(&values, prediction.map(cell), confidence.map(number))?;
    }
    Ok(builder.build()?)
}

//! Makes a baseline from reference rows, or from a folder of pictures.

pub(crate) mod pictures;
pub(crate) mod rows;
pub(crate) mod source;
pub(crate) mod table;
pub(crate) mod types;

use std::path::Path;

use anyhow::{Context as _, ensure};
use sealift_protocol::image::IoContract;
use sealift_protocol::profile::{Baseline, Season};

use pictures::{Pictures, View};
use rows::Rows;
use source::Told;
use table::Schema;
use types::Types;

/// Column that holds the predicted class.
const PREDICTION: &str = "prediction";
/// Column that holds the confidence, 0 to 1.
const CONFIDENCE: &str = "confidence";

/// What a baseline is made of.
pub(crate) struct Reference<'a> {
    /// The rows, or a folder of pictures.
    pub(crate) data: &'a Path,
    /// Of an archive of arrays: which one.
    pub(crate) array: Option<&'a str>,
    /// What names the features; without one, each column that can be watched is a feature.
    pub(crate) contract: Option<&'a IoContract>,
    pub(crate) types: &'a Types,
    pub(crate) season: Option<Season>,
    /// Of a folder of pictures: whether one that cannot be read refuses all.
    pub(crate) is_strict: bool,
}

/// A baseline, and what of the rows is not in it.
pub(crate) struct Made {
    pub(crate) baseline: Baseline,
    /// Columns that are not watched, and why.
    pub(crate) ignored: Vec<(String, &'static str)>,
    /// Pictures that could not be read.
    pub(crate) skipped: usize,
}

impl Reference<'_> {
    /// Reads the rows.
    pub(crate) fn rows(&self) -> anyhow::Result<Rows> {
        let names = self.contract.map(|contract| {
            let features = contract.observed_inputs().flat_map(|input| &input.features);
            features.map(|feature| feature.name.clone()).collect::<Vec<_>>()
        });
        let names = names.filter(|names| !names.is_empty());
        Rows::read(self.data, Told { array: self.array, columns: names.as_deref() })
    }

    /// Makes the baseline.
    pub(crate) fn make(&self) -> anyhow::Result<Made> {
        if self.data.is_dir() && self.array.is_none() {
            return self.of_pictures();
        }
        let rows = self.rows()?;
        self.of(&rows).with_context(|| format!("cannot make a baseline of {}", self.data.display()))
    }

    /// Makes the baseline of rows that were read before.
    pub(crate) fn of(&self, rows: &Rows) -> anyhow::Result<Made> {
        let schema = match self.contract {
            Some(contract) => Schema::of_contract(rows, contract, self.types)?,
            None => Schema::guess(rows, self.types)?,
        };
        let baseline = schema.baseline(rows, self.season)?;
        self.has_every_phase(&baseline)?;
        Ok(Made { baseline, ignored: schema.ignored, skipped: 0 })
    }

    fn of_pictures(&self) -> anyhow::Result<Made> {
        ensure!(
            self.types.is_empty(),
            "{} is a folder of pictures, which have no columns\nhelp: leave the types out",
            self.data.display()
        );
        let pictures = Pictures::read(self.data, View::of(self.contract)?, self.is_strict)?;
        let baseline = pictures.baseline(self.contract, self.season)?;
        self.has_every_phase(&baseline)?;
        Ok(Made { baseline, ignored: Vec::new(), skipped: pictures.skipped.len() })
    }

    fn has_every_phase(&self, baseline: &Baseline) -> anyhow::Result<()> {
        let Some(season) = self.season else { return Ok(()) };
        ensure!(
            !baseline.phases().is_empty(),
            "there are not rows of every phase\nhelp: a season of {} phases of {} rows needs that many reference rows, better several times",
            season.phases,
            season.rows,
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests;

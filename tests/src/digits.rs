//! The handwritten digits: held-out rows as traffic, and the same rows drifted.

pub mod moody;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::process::{root, write};

/// Pixels of a row.
const PIXELS: usize = 64;

/// The model that the digits are for.
pub const MODEL: &str = "vision/digits";

/// The directory of a version, with its `model.toml`: `v1`, `v2`, `v3-bad`.
pub fn directory(version: &str) -> PathBuf {
    root().join("tests/fixtures/digits").join(version)
}

/// A copy of version 2 below `directory` under another version, with lines for its `model.toml`, so that a story has an image of its own.
pub fn as_version(directory: &Path, version: &str, lines: &str) -> anyhow::Result<PathBuf> {
    let copy = directory.join(format!("model-{version}"));
    fs::create_dir_all(&copy)?;
    for entry in fs::read_dir(self::directory("v2"))? {
        let entry = entry?;
        fs::copy(entry.path(), copy.join(entry.file_name()))?;
    }
    let file = copy.join("model.toml");
    let text = fs::read_to_string(&file)?;
    let text = text.replace("version = \"2\"", &format!("version = \"{version}\""));
    write(&file, &format!("{text}\n{lines}"))?;
    Ok(copy)
}

/// Rows of pixels, 0 to 16, with the digit they show.
#[derive(Debug, Clone)]
pub struct Rows {
    rows: Vec<(u8, [f32; PIXELS])>,
}

impl Rows {
    /// Rows that no model has seen.
    pub fn held_out() -> anyhow::Result<Self> {
        Self::read(&root().join("tests/fixtures/digits/data/holdout.csv"))
    }

    /// The same rows, rotated and noisy.
    pub fn drifted() -> anyhow::Result<Self> {
        Self::read(&root().join("tests/fixtures/digits/data/drifted.csv"))
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let mut reader =
            csv::Reader::from_path(path).with_context(|| format!("{}", path.display()))?;
        let rows = reader.records().map(|record| {
            let record = record?;
            let label = record.get(0).context("a label")?.parse()?;
            let pixels: Vec<f32> =
                record.iter().skip(1).map(str::parse).collect::<Result<_, _>>()?;
            let pixels = pixels.try_into().ok().context("64 pixels")?;
            Ok((label, pixels))
        });
        let rows = rows.collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(!rows.is_empty(), "{} has no rows", path.display());
        Ok(Self { rows })
    }

    /// `count` rows from position `start`, round and round.
    pub fn batch(&self, start: usize, count: usize) -> Batch {
        let rows = self.rows.iter().cycle().skip(start % self.rows.len()).take(count);
        let (labels, pixels) = rows.copied().unzip();
        Batch { labels, pixels }
    }
}

/// Some rows, as one request.
#[derive(Debug, Clone)]
pub struct Batch {
    labels: Vec<u8>,
    pixels: Vec<[f32; PIXELS]>,
}

impl Batch {
    /// The same rows with their first pixel lit, as it never is in the data.
    #[must_use]
    pub fn marked(mut self) -> Self {
        self.pixels.iter_mut().for_each(|row| row[0] = 1.0);
        self
    }

    /// The request of the Open Inference Protocol v2.
    pub fn request(&self) -> Value {
        let data: Vec<f32> = self.pixels.iter().flatten().copied().collect();
        json!({ "inputs": [{
            "name": "pixels",
            "datatype": "FP32",
            "shape": [self.pixels.len(), PIXELS],
            "data": data,
        }]})
    }

    /// Whether its first row shows this digit.
    pub fn is(&self, digit: u8) -> bool {
        self.labels.first() == Some(&digit)
    }

    /// The pixels as they would lie in memory.
    pub fn plain(&self) -> Vec<u8> {
        self.pixels.iter().flatten().flat_map(|pixel| pixel.to_le_bytes()).collect()
    }

    /// How many rows of an answer name the right digit.
    pub fn correct(&self, answer: &Value) -> anyhow::Result<usize> {
        let outputs = answer["outputs"].as_array().context("no outputs")?;
        let label = outputs.iter().find(|output| output["name"] == "label").context("no label")?;
        let given = label["data"].as_array().context("label has no data")?;
        ensure!(given.len() == self.labels.len(), "{} answers", given.len());
        let right = self.labels.iter().zip(given);
        Ok(right.filter(|(label, given)| given.as_u64() == Some(u64::from(**label))).count())
    }
}

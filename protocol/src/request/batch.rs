//! A batch job over files of a device, in the directories that its owner has opened for that.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{ModelName, UnixMillis};

/// Jobs that a device keeps: waiting, at work and ended.
pub const BATCH_JOBS_MAX: usize = 16;

/// Rows of one request that a job puts to the model.
pub const BATCH_ROWS_MAX: u32 = 65_536;

/// Characters of a path.
const PATH_CHARS_MAX: usize = 1_000;

/// Characters of a job's name, and of a reason.
const NAME_CHARS_MAX: usize = 40;

/// Bytes of an array's name; with its ending an archive's list has no longer ones.
const ARRAY_BYTES_MAX: usize = 196;
const REASON_CHARS_MAX: usize = 500;

/// What is asked about batch jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Batch {
    /// Begin a job. One that is there by that name already is not begun again.
    Run(BatchRun),
    /// How all jobs stand.
    List,
    /// End a job; what it has written stays.
    Cancel(String),
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchRun {
    /// Its own name on the device: small letters, digits and hyphens.
    pub name: String,
    /// The model that answers.
    pub model: ModelName,
    /// The file of rows, on the device.
    pub input: String,
    /// The directory for predictions, on the device.
    pub output: String,
    /// Rows of one request, and of one part of the output.
    pub rows: u32,
    /// Whether the first line of CSV is a row.
    #[serde(default)]
    pub no_header: bool,
    /// Of an archive of several arrays, which one has the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// What a file of predictions is.
    #[serde(default, skip_serializing_if = "BatchFormat::is_json_lines")]
    pub format: BatchFormat,
    /// Whether the device also brings the predictions up to the server, as one file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upload: bool,
}

/// What a file of predictions is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BatchFormat {
    /// A line of JSON for each row.
    #[default]
    Jsonl,
    /// A row of typed columns for each row.
    Parquet,
}

impl BatchFormat {
    /// The end of a file's name.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
        }
    }

    /// Whether it is what an agent of before writes, too.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls it with")]
    fn is_json_lines(&self) -> bool {
        *self == Self::Jsonl
    }
}

/// How far the predictions of a job that are brought up are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchUpload {
    /// Bytes that the server has.
    pub bytes: u64,
    /// Bytes in all.
    pub size_bytes: u64,
    /// Digest of all of them.
    pub digest: Digest,
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BatchState {
    /// Others are before it, or it is tried again soon.
    Waiting,
    /// It is at work.
    Running,
    /// Every row has an answer.
    Done,
    /// It cannot go on.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

/// A job as its device knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchJob {
    /// What it is.
    pub run: BatchRun,
    /// Who asked for it.
    pub by: String,
    /// How it stands.
    pub state: BatchState,
    /// Rows that have an answer.
    pub answered: u64,
    /// Files that were written.
    pub parts: u64,
    /// Starts that ended badly.
    pub failures: u32,
    /// What went wrong last; empty if nothing did.
    pub reason: String,
    /// When it was asked for, by the device's clock.
    pub asked_at: UnixMillis,
    /// When it came to how it stands.
    pub changed_at: UnixMillis,
    /// Whether every row has an answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_answered: bool,
    /// How far its predictions are brought up, once every row has an answer; none if they stay on the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brought: Option<BatchUpload>,
}

impl Batch {
    /// Whether it could be asked of anybody.
    pub fn check(&self) -> Result<(), &'static str> {
        let run = match self {
            Self::List => return Ok(()),
            Self::Cancel(name) => return named(name),
            Self::Run(run) => run,
        };
        named(&run.name)?;
        let is_path = |path: &str| (1..=PATH_CHARS_MAX).contains(&path.chars().count());
        if !is_path(&run.input) || !is_path(&run.output) {
            return Err("a batch on a path that is none");
        }
        if !(1..=BATCH_ROWS_MAX).contains(&run.rows) {
            return Err("a batch of no rows at a time, or of too many");
        }
        let is_array = |name: &String| (1..=ARRAY_BYTES_MAX).contains(&name.len());
        if !run.array.as_ref().is_none_or(is_array) {
            return Err("a batch of an array by a name that is none");
        }
        Ok(())
    }

    /// What is asked, in one word.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Run(_) => "batch-run",
            Self::List => "batch-list",
            Self::Cancel(_) => "batch-cancel",
        }
    }
}

/// A name is that of a file on the device as well.
fn named(name: &str) -> Result<(), &'static str> {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(is_letter)
        && !name.starts_with('-');
    if is_name { Ok(()) } else { Err("a batch by a name that is none") }
}

impl BatchJob {
    /// No longer than an answer may be.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.reason = self.reason.chars().take(REASON_CHARS_MAX).collect();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, input: &str, rows: u32) -> Batch {
        let model = ModelName::parse("vision/digits").unwrap();
        let (name, input, output) = (name.to_owned(), input.to_owned(), "/data/out".to_owned());
        let format = BatchFormat::Jsonl;
        Batch::Run(BatchRun {
            name,
            model,
            input,
            output,
            rows,
            no_header: false,
            array: None,
            format,
            upload: false,
        })
    }

    #[test]
    fn names_paths_and_rows_have_limits() {
        assert!(run("night-1", "/data/rows.csv", 256).check().is_ok());
        for name in ["", "../x", "A", "a b", "-a", &"a".repeat(41)] {
            assert!(run(name, "/data/rows.csv", 256).check().is_err(), "{name}");
            assert!(Batch::Cancel(name.to_owned()).check().is_err(), "{name}");
        }
        assert!(run("a", "", 256).check().is_err());
        assert!(run("a", &"x".repeat(1_001), 256).check().is_err());
        assert!(run("a", "/data/rows.csv", 0).check().is_err());
        assert!(run("a", "/data/rows.csv", 65_537).check().is_err());
        for (length, is_name) in [(0, false), (1, true), (196, true), (197, false)] {
            let Batch::Run(run) = run("a", "/data/rows.npz", 256) else { unreachable!() };
            let of = Batch::Run(BatchRun { array: Some("x".repeat(length)), ..run });
            assert_eq!(of.check().is_ok(), is_name, "{length}");
        }
    }

    #[test]
    fn a_job_of_before_is_read_and_one_that_asks_for_nothing_new_is_written_as_before() {
        let Batch::Run(plain) = run("a", "/data/rows.csv", 256) else { unreachable!() };
        let text = serde_json::to_string(&plain).unwrap();
        for new in ["format", "upload", "array"] {
            assert!(!text.contains(new), "{text}");
        }
        assert_eq!(serde_json::from_str::<BatchRun>(&text).unwrap(), plain);

        let array = Some("rows".to_owned());
        let fresh = BatchRun { array, format: BatchFormat::Parquet, upload: true, ..plain };
        let text = serde_json::to_string(&fresh).unwrap();
        let new = r#""array":"rows","format":"parquet","upload":true"#;
        assert!(text.contains(new), "{text}");
        assert_eq!(serde_json::from_str::<BatchRun>(&text).unwrap(), fresh);
    }
}

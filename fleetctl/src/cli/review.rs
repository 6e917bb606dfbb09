//! Predictions that devices keep for people to look at.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sealift_protocol::id::{ModelName, UnixMillis, Version};

use super::recall;

#[derive(Debug, Subcommand)]
pub(crate) enum Review {
    /// Has devices keep predictions of a model; their owners may forbid it.
    Enable(ReviewEnable),
    /// Has devices keep nothing more of a model, and delete what waits on them.
    Disable {
        /// `team/name`.
        model: ModelName,
    },
    /// What devices keep of which models, and what came of it.
    Status,
    /// What is to be labelled next, the most telling first.
    Queue {
        /// Only of this model.
        #[arg(long)]
        model: Option<ModelName>,
        /// How many at most.
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: u32,
    },
    /// Says what a prediction should have been.
    Label {
        /// The sample, as `queue` names it.
        sample: String,
        /// The label; none takes back what was said.
        #[arg(required_unless_present = "undo")]
        label: Option<String>,
        /// Takes back what you have said of it.
        #[arg(long, conflicts_with = "label")]
        undo: bool,
    },
    /// Says what really happened, by inference id: a JSON array, or JSON Lines of `{"inference": …, "label": …}`.
    Truth {
        /// The file, or `-` for standard input.
        file: PathBuf,
    },
    /// Writes samples with their labels, to train with.
    Export(ReviewExport),
    /// How often a model is right, with an interval.
    Accuracy {
        /// `team/name`.
        model: ModelName,
        /// Only this version.
        #[arg(long)]
        version: Option<Version>,
        /// Told apart by `day`, or by the value of a device's label such as `site`.
        #[arg(long)]
        by: Option<String>,
        /// Predictions from then on: `2026-07-01T03:00:00Z`, or `30d ago`.
        #[arg(long, value_parser = recall::moment)]
        since: Option<UnixMillis>,
        /// Predictions before then.
        #[arg(long, value_parser = recall::moment)]
        until: Option<UnixMillis>,
    },
    /// How far people agree who have labelled the same samples.
    Agreement {
        /// `team/name`.
        model: ModelName,
    },
    /// Tells every channel that takes warnings that a model is to be trained anew.
    RequestRetraining {
        /// `team/name`.
        model: ModelName,
        /// Why; receivers are told.
        #[arg(long)]
        reason: String,
    },
}

/// By which rules, and how many.
#[derive(Debug, Args)]
pub(crate) struct ReviewEnable {
    /// `team/name`.
    pub(crate) model: ModelName,
    /// Predictions whose confidence is below this, such as `0.6` or `60%`.
    #[arg(long, value_parser = share)]
    pub(crate) below: Option<f64>,
    /// Predictions whose two likeliest classes are less than this apart.
    #[arg(long, value_parser = share)]
    pub(crate) margin: Option<f64>,
    /// Predictions that a shadow of the model does not share.
    #[arg(long)]
    pub(crate) disagreement: bool,
    /// This share of all predictions, such as `0.1%`: without it nobody knows how good the confident ones are.
    #[arg(long, value_parser = share, default_value = "0")]
    pub(crate) share: f64,
    /// Samples that a device keeps in a day.
    #[arg(long, default_value_t = 200)]
    pub(crate) budget: u32,
    /// KiB that a device keeps in a day.
    #[arg(long, default_value_t = 32 << 10)]
    pub(crate) kib: u32,
    /// For how long the server keeps a sample, such as `30d`.
    #[arg(long, value_parser = days, default_value = "30d")]
    pub(crate) keep: u32,
    /// What the people whom it is about were told.
    #[arg(long, value_name = "TEXT")]
    pub(crate) notice: String,
    /// Ask for training when the measured accuracy is below this for sure.
    #[arg(long, value_parser = share)]
    pub(crate) retrain_below: Option<f64>,
    /// Ask for training when so many samples were labelled since the last time.
    #[arg(long)]
    pub(crate) retrain_after: Option<u32>,
}

/// Which samples, and how they are written.
#[derive(Debug, Args)]
pub(crate) struct ReviewExport {
    /// `team/name`.
    pub(crate) model: ModelName,
    /// How.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReviewFormat,
    /// Where to.
    #[arg(short = 'f', long = "file")]
    pub(crate) file: PathBuf,
    /// Taken from then on: `2026-07-01T03:00:00Z`, or `30d ago`.
    #[arg(long, value_parser = recall::moment)]
    pub(crate) since: Option<UnixMillis>,
    /// Taken before then.
    #[arg(long, value_parser = recall::moment)]
    pub(crate) until: Option<UnixMillis>,
    /// Also what nobody has labelled.
    #[arg(long)]
    pub(crate) unlabelled: bool,
}

/// How samples are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ReviewFormat {
    /// A line of JSON each.
    #[default]
    Jsonl,
    /// A table with a column of bytes for each tensor.
    Parquet,
}

/// A share as `0.6` or `60%`.
fn share(text: &str) -> Result<f64, String> {
    let refused = || format!("`{text}` is not a share such as 0.6 or 60%");
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map_err(|_| refused())? / 100.0,
        None => text.parse().map_err(|_| refused())?,
    };
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(refused()) }
}

/// Days as `30d`.
fn days(text: &str) -> Result<u32, String> {
    let days = text.strip_suffix('d').unwrap_or(text).parse().ok().filter(|&days| days > 0);
    days.ok_or_else(|| format!("`{text}` is not a number of days such as 30d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_days_are_read_as_people_write_them() {
        assert_eq!(share("0.6"), Ok(0.6));
        assert!((share("0.1%").unwrap() - 0.001).abs() < 1e-15);
        assert!(share("60").is_err() && share("-1%").is_err() && share("x").is_err());
        assert_eq!(days("30d"), Ok(30));
        assert!(days("0d").is_err() && days("30h").is_err());
    }
}

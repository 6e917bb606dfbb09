//! What a device is asked.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use sealift_protocol::id::{DeviceId, ModelName, Version};
use sealift_protocol::request::LogLevel;

/// A test inference.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["input", "image"])))]
pub(crate) struct Infer {
    /// The device.
    pub(crate) device: DeviceId,
    /// `team/name`, or `team/name@version` for only this version.
    #[arg(value_parser = model)]
    pub(crate) model: (ModelName, Option<Version>),
    /// A request of the Open Inference Protocol v2 in JSON, or `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// A JPEG or PNG image, for a model that takes images; or `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
}

fn model(text: &str) -> Result<(ModelName, Option<Version>), String> {
    if text.contains('@') {
        return super::model_version(text).map(|(model, version)| (model, Some(version)));
    }
    ModelName::parse(text).map(|model| (model, None)).map_err(|error| error.to_string())
}

/// How bad a line of a log is at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LineLevel {
    /// A state changed.
    #[default]
    Info,
    /// It healed itself.
    Warn,
    /// A person must act.
    Error,
}

impl From<LineLevel> for LogLevel {
    fn from(level: LineLevel) -> Self {
        match level {
            LineLevel::Info => Self::Info,
            LineLevel::Warn => Self::Warn,
            LineLevel::Error => Self::Error,
        }
    }
}

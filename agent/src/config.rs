//! `agent.toml`: what the owner of a device may set. Every key has a default; unknown keys are errors.

mod download;
mod otlp;
mod serve;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use sealift_protocol::id::ModelName;
use sealift_protocol::request::Ask;
use serde::Deserialize;

use crate::disk;
use crate::worker::{Budget, EngineChoice, RuntimeCandidate};

pub use download::{DownloadConfig, DownloadWindow};
pub use otlp::OtlpConfig;
pub use serve::ServeTls;

/// A configuration is a page of text.
const CONFIG_BYTES_MAX: u64 = 64 << 10;

/// How an agent runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where applications on the device reach the models; port 0 takes a free one.
    pub serve_listen: SocketAddr,
    /// Whether `serve_listen` may be open to the network, where everybody on the way can read along and ask: something else guards it.
    pub serve_plain: bool,
    /// Where applications on other machines reach the models; nowhere if not given.
    pub serve_tls: Option<ServeTls>,
    /// The Unix socket for the same; `run/infer.sock` in the store if not given.
    pub serve_socket: Option<PathBuf>,
    /// What runs the graphs.
    pub engine: EngineName,
    /// Inference libraries, tried in order.
    #[serde(rename = "runtime")]
    pub runtimes: Vec<RuntimeCandidate>,
    /// What all workers may hold together, in MiB; 0 for no limit. Models that may be unloaded make room, and are loaded by the next request.
    pub memory_budget_mb: u64,
    /// Models that may be unloaded, as `team/name`; the one that nobody has asked for the longest goes first.
    pub on_demand: BTreeSet<ModelName>,
    /// Seconds between two heartbeats.
    pub beat_s: u32,
    /// Rows that close a profile window.
    pub window_rows: u64,
    /// Seconds that close a profile window.
    pub window_s: u32,
    /// Seconds between two questions for the directive over HTTPS, more or less a half.
    pub poll_s: u32,
    /// Seconds of silence before the broker sends the last will.
    pub will_delay_s: u32,
    /// Whether a directive's image is run only with an operator's signature under its rollout, besides publisher's and director's.
    pub require_cosign: bool,
    /// Where the device stands, for maintenance windows: a name such as `Asia/Tokyo`; the system's own zone, if there is none. Where
    /// the system has none either, it is UTC.
    pub time_zone: Option<String>,
    /// What the fleet's operators may ask this device from afar.
    pub remote_requests: RemoteRequests,
    /// Whether predictions may be kept for people to look at, where the fleet's operators have switched that on.
    pub capture: Capture,
    /// Over which files batches may be asked for from afar.
    pub batch: BatchConfig,
    /// How and when layers are fetched.
    pub download: DownloadConfig,
    /// Where metrics are sent; nowhere if not given.
    pub otlp: Option<OtlpConfig>,
}

/// The owner's word on predictions that are kept for people to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capture {
    /// By the rules that the fleet's director has signed; without them nothing is.
    #[default]
    Allowed,
    /// Nothing, whoever says otherwise.
    Forbidden,
}

/// What batches from afar may touch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Directories in which rows may be read and predictions written, as full paths; none, if nothing is said.
    pub directories: Vec<PathBuf>,
}

/// What a device answers to those who ask it from afar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemoteRequests {
    /// Everything: also the tail of the agent's log, which may tell what its users do, and when.
    All,
    /// What cannot tell anything of its users: diagnoses, and test inferences on inputs that come with the question.
    #[default]
    Diagnose,
    /// Nothing.
    None,
}

impl RemoteRequests {
    /// Whether a question may be answered.
    pub(crate) const fn lets(self, ask: &Ask) -> bool {
        match (self, ask) {
            (Self::All, _) | (Self::Diagnose, Ask::Diagnose | Ask::Infer(_)) => true,
            (Self::Diagnose, Ask::Logs(_) | Ask::Batch(_)) | (Self::None, _) => false,
        }
    }

    /// As it is written in `agent.toml`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Diagnose => "diagnose",
            Self::None => "none",
        }
    }
}

/// The engines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineName {
    /// ONNX Runtime, from one of the configured libraries.
    OnnxRuntime,
    /// Made-up answers, for simulated devices.
    Fake,
}

/// Why a configuration was not read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not there, or not readable.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML of this form.
    #[error("{path}: {reason}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            serve_listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            serve_plain: false,
            serve_tls: None,
            serve_socket: None,
            engine: EngineName::OnnxRuntime,
            runtimes: Vec::new(),
            memory_budget_mb: 0,
            on_demand: BTreeSet::new(),
            beat_s: 60,
            window_rows: 1_000,
            window_s: 60,
            poll_s: 900,
            will_delay_s: 30,
            require_cosign: false,
            time_zone: None,
            remote_requests: RemoteRequests::default(),
            capture: Capture::default(),
            batch: BatchConfig::default(),
            download: DownloadConfig::default(),
            otlp: None,
        }
    }
}

impl Config {
    /// Reads the file that was named, or `agent.toml` in the store; without either, everything is at its default.
    pub fn read(store: &Path, named: Option<&Path>) -> Result<Self, ConfigError> {
        let path = named.map_or_else(|| store.join("agent.toml"), Path::to_owned);
        let refused = |source| ConfigError::Read { path: path.clone(), source };
        let Some(bytes) = disk::read(&path, CONFIG_BYTES_MAX).map_err(refused)? else {
            let absent = std::io::Error::from(std::io::ErrorKind::NotFound);
            return if named.is_some() { Err(refused(absent)) } else { Ok(Self::default()) };
        };
        let form = |reason: String| ConfigError::Form { path: path.clone(), reason };
        let text = String::from_utf8(bytes).map_err(|error| form(error.to_string()))?;
        let config: Self = toml::from_str(&text).map_err(|error| form(error.to_string()))?;
        config.check().map_err(|reason| form(reason.to_owned()))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), &'static str> {
        self.download.check()?;
        serve::check(self)?;
        self.otlp.as_ref().map_or(Ok(()), OtlpConfig::check)?;
        if !self.batch.directories.iter().all(|directory| directory.is_absolute()) {
            return Err("batch.directories must be full paths");
        }
        if self.time_zone.as_ref().is_some_and(|name| TimeZone::get(name).is_err()) {
            return Err("time_zone is not known; write a name such as \"Asia/Tokyo\"");
        }
        let is_positive = self.beat_s > 0
            && self.window_rows > 0
            && self.window_s > 0
            && self.poll_s > 0
            && self.will_delay_s > 0;
        if !self.on_demand.is_empty() && self.memory_budget_mb == 0 {
            return Err("on_demand needs a memory_budget_mb");
        }
        let is_absolute = self.runtimes.iter().all(|runtime| runtime.library.is_absolute());
        match (is_positive, is_absolute) {
            (false, _) => Err("times and rows must be above 0"),
            (true, false) => Err("a runtime's library must be a full path"),
            (true, true) => Ok(()),
        }
    }

    /// What the workers share, if there is a limit.
    pub(crate) fn budget(&self) -> Option<Budget> {
        (self.memory_budget_mb > 0).then(|| Budget::new(self.memory_budget_mb))
    }

    /// Where the device stands; UTC, and said so, where nobody knows.
    pub(crate) fn zone(&self) -> TimeZone {
        let named = self.time_zone.as_ref().and_then(|name| TimeZone::get(name).ok());
        let zone = named.unwrap_or_else(TimeZone::system);
        if zone.is_unknown() {
            tracing::warn!(
                "the device's time zone is not known, windows are in UTC; set time_zone"
            );
            return TimeZone::UTC;
        }
        zone
    }

    pub(crate) fn engine_choice(&self) -> EngineChoice {
        match self.engine {
            EngineName::OnnxRuntime => EngineChoice::OnnxRuntime(self.runtimes.clone()),
            EngineName::Fake => EngineChoice::Fake,
        }
    }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::request::{LogLevel, Logs};

    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("agent.toml"), text).unwrap();
        Config::read(dir.path(), None).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_set_means_the_defaults() {
        assert_eq!(read("").unwrap(), Config::default());
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(Config::read(empty.path(), None).unwrap(), Config::default());
        assert!(Config::read(empty.path(), Some(&empty.path().join("named.toml"))).is_err());
    }

    #[test]
    fn unknown_keys_and_senseless_values_are_errors() {
        assert!(read("beat_seconds = 5").unwrap_err().contains("beat_seconds"));
        assert!(read("beat_s = 0").is_err());
        assert!(read("beat_s = -1").is_err());
        assert!(read("on_demand = [\"vision/digits\"]").unwrap_err().contains("memory_budget_mb"));
        assert!(read("memory_budget_mb = 64\non_demand = [\"digits\"]").is_err());
        let relative = "[[runtime]]\nlibrary = \"x.so\"\nproviders = []\nstrict = false";
        assert!(read(relative).unwrap_err().contains("full path"));
    }

    #[test]
    fn downloads_have_sources_a_rate_and_windows() {
        let text = "[download]\nsources = [\"http://10.0.0.5:8080\"]\nrate_bytes_s = 1000000\n\
                    windows = [\"22:00-06:00\", \"sat,sun 00:00-24:00\"]\n";
        let download = read(text).unwrap().download;
        assert_eq!((download.sources.len(), download.windows.len()), (1, 2));
        assert!(read("download.rate_bytes_s = 100").unwrap_err().contains("16384"));
        assert!(read("download.sources = [\"10.0.0.5\"]").unwrap_err().contains("https://"));
        assert!(read("download.sources = [\"https://\"]").is_err());
        assert!(read("download.windows = [\"at night\"]").unwrap_err().contains("22:00-06:00"));
        assert!(read("download.time_zone = \"Nowhere/At all\"").is_err());
    }

    #[test]
    fn a_device_stands_where_its_owner_says() {
        let config = read("time_zone = \"Asia/Tokyo\"").unwrap();
        assert_eq!(config.zone().iana_name(), Some("Asia/Tokyo"));
        assert!(read("time_zone = \"Nowhere/At all\"").unwrap_err().contains("Asia/Tokyo"));
    }

    #[test]
    fn a_log_tail_takes_the_owners_word_and_none_means_none() {
        let logs = || Ask::Logs(Logs { lines: 1, since: None, level: LogLevel::Info });
        let lets = |text: &str| {
            let remote = read(text).unwrap().remote_requests;
            (remote.lets(&Ask::Diagnose), remote.lets(&logs()))
        };
        assert_eq!(lets(""), (true, false));
        assert_eq!(lets("remote_requests = \"all\""), (true, true));
        assert_eq!(lets("remote_requests = \"diagnose\""), (true, false));
        assert_eq!(lets("remote_requests = \"none\""), (false, false));
        assert!(read("remote_requests = \"some\"").is_err());
    }

    #[test]
    fn a_runtime_is_read_as_written() {
        let text = "serve_listen = \"127.0.0.1:0\"\nengine = \"fake\"\n[[runtime]]\nlibrary = \
                    \"/lib/ort.so\"\nproviders = [\"CPUExecutionProvider\"]\nstrict = true";
        let config = read(text).unwrap();
        assert_eq!((config.engine, config.serve_listen.port()), (EngineName::Fake, 0));
        assert!(config.runtimes[0].strict);
    }
}

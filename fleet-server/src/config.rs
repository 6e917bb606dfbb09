//! `fleet-server.toml`: read once, checked as a whole. Unknown keys are errors; every key but `data` has a safe default.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sealift_protocol::id::TenantId;
use sealift_protocol::tuf::repository::Lifetimes;
use serde::{Deserialize, Serialize};

use crate::alert::deliver::{Inside, Network};
use crate::certificate;
use crate::drift::Policy;
pub use access::{Access, Approval, Approvals, Oidc};
pub use otlp::Otlp;
use ports::loopback;
pub use ports::{Devices, External, Mqtt, Operators};
pub use retention::Retention;
pub use review::ReviewBudget;

mod access;
mod otlp;
mod ports;
mod retention;
mod review;

use crate::reconcile::Patience;

/// A configuration is a page of text.
const CONFIG_BYTES_MAX: u64 = 256 << 10;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is too large to be one.
    #[error("configuration {0} is larger than {CONFIG_BYTES_MAX} bytes")]
    TooLarge(PathBuf),
    /// Not TOML, an unknown key, a value of the wrong kind.
    #[error("configuration {0} is refused")]
    Form(PathBuf, #[source] Box<toml::de::Error>),
    /// Read, but it contradicts itself or is not safe.
    #[error("{0}\nhelp: {1}")]
    Rule(String, &'static str),
}

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whose fleet it is.
    #[serde(default = "main_tenant")]
    pub tenant: TenantId,
    /// Where everything is kept: database, blobs, online keys.
    pub data: PathBuf,
    /// Where `init` wrote the offline keys; while they are there the console says so.
    #[serde(default)]
    pub offline_keys: Option<PathBuf>,
    /// The port for people and tools.
    #[serde(default)]
    pub operators: Operators,
    /// The port for devices.
    #[serde(default)]
    pub devices: Devices,
    /// The broker.
    #[serde(default)]
    pub mqtt: Mqtt,
    /// The database.
    #[serde(default)]
    pub store: Location,
    /// The blobs of model images.
    #[serde(default)]
    pub blobs: Location,
    /// What clients of the registry may do.
    #[serde(default)]
    pub registry: RegistryRules,
    /// Times.
    #[serde(default)]
    pub timing: Timing,
    /// For how long what was remembered for later rollouts is kept.
    #[serde(default)]
    pub retention: Retention,
    /// How much people are asked to label.
    #[serde(default)]
    pub review: ReviewBudget,
    /// How drift is judged.
    #[serde(default)]
    pub drift: Policy,
    /// Labels whose values are cohorts: drift is judged for each apart.
    #[serde(default = "cohort_labels")]
    pub cohort_labels: Vec<String>,
    /// Whom alerts may be sent to.
    #[serde(default)]
    pub alerts: Alerts,
    /// A collector that metrics are sent to.
    #[serde(default)]
    pub otlp: Option<Otlp>,
    /// How operators come in, and for how long.
    #[serde(default)]
    pub access: Access,
    /// What somebody else must approve.
    #[serde(default)]
    pub approval: Approvals,
    /// The provider of identities.
    #[serde(default)]
    pub oidc: Option<Oidc>,
    /// How long the server's own signatures are valid.
    #[serde(default)]
    pub trust: TrustSettings,
}

/// A place by URL.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Location {
    /// The URL; a place in the data directory if not given.
    pub url: Option<String>,
}

/// What clients of the registry may do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryRules {
    /// Whether a blob that any repository has is taken over where the client does not say from which; otherwise the client sends it.
    pub mount_from_anywhere: bool,
}

/// Times.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// How often the server looks whether something must be done, in milliseconds.
    pub reconcile_ms: u64,
    /// A device that was told something and says nothing for this long counts as bad.
    pub silent_after_s: u32,
    /// A device from which nothing came for this long is offline.
    pub offline_after_s: u32,
    /// How long after its signing a directive may be begun.
    pub directive_valid_s: u32,
    /// How often drift is judged.
    pub drift_interval_s: u32,
}

/// Whom alerts may be sent to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// Whether alerts may go to this machine, its link or any private address: for trials.
    pub webhooks_allow_loopback: bool,
    /// Private networks in which receivers may be, such as `10.1.0.0/16`.
    pub allow_networks: Vec<Network>,
}

impl Alerts {
    /// Which places on the inside may be called.
    pub(crate) fn inside(&self) -> Inside {
        Inside { is_open: self.webhooks_allow_loopback, networks: self.allow_networks.clone() }
    }
}

/// How long the server's own signatures are valid.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrustSettings {
    /// How devices reach this server.
    pub profile: Profile,
}

/// How devices reach this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Every day: snapshot 7 days, timestamp 24 hours.
    #[default]
    Online,
    /// By a stick, now and then: snapshot 90 days, timestamp 30 days.
    AirGapped,
}

impl Profile {
    pub(crate) const fn lifetimes(self) -> Lifetimes {
        match self {
            Self::Online => Lifetimes::ONLINE,
            Self::AirGapped => Lifetimes::AIR_GAPPED,
        }
    }
}

#[derive(Serialize)]
struct First<'a> {
    data: &'a str,
    offline_keys: &'a Path,
    operators: FirstListen,
    devices: FirstDevices<'a>,
    mqtt: FirstListen,
}

#[derive(Serialize)]
struct FirstListen {
    listen: SocketAddr,
}

#[derive(Serialize)]
struct FirstDevices<'a> {
    listen: SocketAddr,
    hosts: &'a [String],
}

fn cohort_labels() -> Vec<String> {
    vec!["site".to_owned()]
}

impl Default for RegistryRules {
    fn default() -> Self {
        Self { mount_from_anywhere: true }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            reconcile_ms: 1_000,
            silent_after_s: 120,
            offline_after_s: 90,
            directive_valid_s: 30 * 24 * 3_600,
            drift_interval_s: 60,
        }
    }
}

impl Timing {
    /// The times that rollouts depend on.
    pub(crate) fn patience(&self) -> Patience {
        Patience {
            silent_after_ms: i64::from(self.silent_after_s) * 1_000,
            offline_after_ms: i64::from(self.offline_after_s) * 1_000,
            directive_valid_ms: i64::from(self.directive_valid_s) * 1_000,
        }
    }
}

fn main_tenant() -> TenantId {
    #[expect(clippy::expect_used, reason = "see the text")]
    TenantId::parse("main").expect("four lower-case letters are a tenant id")
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |error| ConfigError::Read(path.to_owned(), error);
        if fs::metadata(path).map_err(unreadable)?.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLarge(path.to_owned()));
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let config: Self = toml::from_str(&text)
            .map_err(|error| ConfigError::Form(path.to_owned(), Box::new(error)))?;
        config.relative_to(path.parent().unwrap_or(Path::new("."))).checked()
    }

    /// The defaults, on loopback and free ports.
    pub fn of_data(data: &Path) -> Self {
        Self {
            tenant: main_tenant(),
            data: data.to_owned(),
            offline_keys: None,
            operators: Operators { listen: loopback(0), ..Operators::default() },
            devices: Devices { listen: loopback(0), ..Devices::default() },
            mqtt: Mqtt { listen: loopback(0), ..Mqtt::default() },
            store: Location::default(),
            blobs: Location::default(),
            registry: RegistryRules::default(),
            timing: Timing::default(),
            retention: Retention::default(),
            review: ReviewBudget::default(),
            drift: Policy::default(),
            cohort_labels: cohort_labels(),
            alerts: Alerts::default(),
            otlp: None,
            access: Access::default(),
            approval: Approvals::default(),
            oidc: None,
            trust: TrustSettings::default(),
        }
    }

    /// The configuration in a data directory.
    pub const FILE_NAME: &'static str = "fleet-server.toml";

    /// Reads the configuration that `init` wrote into `data`, or takes the defaults if there is none.
    pub fn in_data(data: &Path) -> Result<Self, ConfigError> {
        let file = data.join(Self::FILE_NAME);
        if file.exists() { Self::read(&file) } else { Ok(Self::of_data(data)) }
    }

    /// The configuration that `init` writes: everything on loopback, on free ports that stay the same.
    pub fn first(offline_keys: &Path, hosts: &[String]) -> Result<String, ConfigError> {
        let unusable = |_| {
            let text = format!("{} cannot be made absolute", offline_keys.display());
            ConfigError::Rule(text, "name a folder that can be reached")
        };
        let offline_keys = std::path::absolute(offline_keys).map_err(unusable)?;
        let first = First {
            data: ".",
            offline_keys: &offline_keys,
            operators: FirstListen { listen: loopback(0) },
            devices: FirstDevices { listen: loopback(0), hosts },
            mqtt: FirstListen { listen: loopback(0) },
        };
        toml::to_string(&first).map_err(|error| {
            ConfigError::Rule(error.to_string(), "name folders and hosts in plain text")
        })
    }

    /// The URL of the database.
    pub fn store_url(&self) -> String {
        match &self.store.url {
            Some(url) if url != "sqlite" => url.clone(),
            Some(_) | None => format!("sqlite://{}", self.data.join("fleet.db").display()),
        }
    }

    /// Where online keys are.
    pub fn keys(&self) -> PathBuf {
        self.data.join("keys")
    }

    /// Where the ceremony leaves the first trust metadata.
    pub fn ceremony_metadata(&self) -> PathBuf {
        self.data.join("trust")
    }

    /// What devices call the server.
    pub fn device_host(&self) -> &str {
        self.devices.hosts.first().map_or("localhost", String::as_str)
    }

    fn relative_to(mut self, folder: &Path) -> Self {
        self.data = folder.join(&self.data);
        let external = self.mqtt.external.as_mut();
        let of_external = external.map(|it| [&mut it.ca, &mut it.certificate, &mut it.key]);
        let secret = self.oidc.as_mut().map(|oidc| &mut oidc.client_secret_file);
        let own = [
            &mut self.offline_keys,
            &mut self.operators.tls_certificate,
            &mut self.operators.tls_key,
        ];
        let of_otlp = self.otlp.as_mut().map(Otlp::files);
        let own = own.into_iter().chain(of_otlp.into_iter().flatten());
        for path in own.chain(of_external.into_iter().flatten()).chain(secret).flatten() {
            *path = folder.join(&*path);
        }
        self
    }

    fn checked(self) -> Result<Self, ConfigError> {
        let rule = |text: String, help| Err(ConfigError::Rule(text, help));
        let has_tls = match (&self.operators.tls_certificate, &self.operators.tls_key) {
            (Some(_), Some(_)) => true,
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => {
                return rule(
                    "operators.tls_certificate and operators.tls_key belong together".to_owned(),
                    "give both, or neither on loopback",
                );
            }
        };
        let listen = self.operators.listen;
        if !has_tls && !listen.ip().is_loopback() {
            return rule(
                format!("operators.listen {listen} is not loopback and has no TLS"),
                "set operators.tls_certificate and operators.tls_key, or listen on 127.0.0.1",
            );
        }
        if let Some(url) = &self.operators.url
            && !url.starts_with(if has_tls { "https://" } else { "http://" })
        {
            return rule(
                format!("operators.url {url} does not fit: it is https with TLS, and http without"),
                "name the address under which people reach this port itself",
            );
        }
        if self.devices.hosts.is_empty() {
            return rule(
                "devices.hosts is empty".to_owned(),
                "name the host under which devices reach this server",
            );
        }
        if !certificate::DEVICE_LIFE_DAYS.contains(&self.devices.certificate_days) {
            return rule(
                format!("devices.certificate_days is {}", self.devices.certificate_days),
                "give 30 to 90 days, or leave it out for 90",
            );
        }
        if self.timing.reconcile_ms < 10 || self.timing.drift_interval_s == 0 {
            return rule(
                "timing.reconcile_ms is below 10, or timing.drift_interval_s is 0".to_owned(),
                "leave them out for the defaults",
            );
        }
        self.access.check()?;
        self.retention.check()?;
        self.review.check()?;
        if let Some(oidc) = &self.oidc {
            oidc.check()?;
        }
        if let Some(otlp) = &self.otlp {
            otlp.check()?;
        }
        if let Err(invalid) = self.drift.check() {
            return rule(invalid.to_string(), "leave [drift] out for the defaults");
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet-server.toml");
        fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    #[test]
    fn only_the_data_directory_must_be_given() {
        let config = read("data = 'd'").unwrap();
        assert_eq!(config.tenant.as_str(), "main");
        assert!(config.data.is_absolute() && config.data.ends_with("d"));
        assert!(config.operators.listen.ip().is_loopback());
        assert!(matches!(read(""), Err(ConfigError::Form(..))));
    }

    #[test]
    fn the_first_configuration_reads() {
        let hosts = ["fleet.local".to_owned()];
        let text = Config::first(Path::new("offline"), &hosts).unwrap();
        let config = read(&text).unwrap();
        assert_eq!((config.device_host(), config.mqtt.listen.port()), ("fleet.local", 0));
        assert!(config.offline_keys.unwrap().is_absolute());
    }

    #[test]
    fn unknown_keys_are_errors() {
        for text in ["colour = 1", "[operators]\nlisten_on = 1", "[timing]\nsilent_s = 1"] {
            let text = format!("data = 'd'\n{text}");
            assert!(matches!(read(&text), Err(ConfigError::Form(..))), "{text}");
        }
    }

    #[test]
    fn devices_certificates_live_a_month_to_a_season() {
        let days = |days: u16| read(&format!("data = 'd'\n[devices]\ncertificate_days = {days}"));
        assert!(days(30).is_ok() && days(90).is_ok());
        assert!(matches!(days(29), Err(ConfigError::Rule(..))));
        assert!(matches!(days(91), Err(ConfigError::Rule(..))));
    }

    #[test]
    fn headers_for_a_collector_never_go_in_plain_text() {
        let otlp = |text: &str| read(&format!("data = 'd'\n[otlp]\n{text}"));
        let near = otlp("endpoint = 'http://127.0.0.1:4318'\nheaders_file = 'h'").unwrap();
        let near = near.otlp.unwrap();
        assert_eq!(near.interval_s, 60);
        assert!(near.headers_file.unwrap().is_absolute());
        let refused = otlp("endpoint = 'http://collector.example'\nheaders_file = 'h'");
        assert!(matches!(refused, Err(ConfigError::Rule(..))));
        assert!(matches!(
            otlp("endpoint = 'http://a'\ninterval_s = 0"),
            Err(ConfigError::Rule(..))
        ));
        let refused = otlp("endpoint = 'http://a?token=1'");
        assert!(matches!(refused, Err(ConfigError::Form(..))));
    }

    #[test]
    fn plain_http_beyond_loopback_is_refused() {
        let plain = "data = 'd'\n[operators]\nlisten = '0.0.0.0:8080'";
        assert!(matches!(read(plain), Err(ConfigError::Rule(..))));
        assert!(read(&format!("{plain}\ntls_certificate = 'c'\ntls_key = 'k'")).is_ok());
        let half = format!("{plain}\ntls_certificate = 'c'");
        assert!(matches!(read(&half), Err(ConfigError::Rule(..))));
    }
}

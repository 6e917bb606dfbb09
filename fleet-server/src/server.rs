//! Puts the parts together, starts their tasks, and ends when one of them does.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealift_protocol::id::UnixMillis;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::alert::deliver;
use crate::audit::{self, Notary};
use crate::auth::Seal;
use crate::blobs::{BlobError, Blobs};
use crate::broker::{BrokerError, BrokerSettings, ExternalSettings};
use crate::certificate::{Authority, CertificateError, is_server_certificate_stale};
use crate::clock;
use crate::config::{Config, ConfigError, Operators};
use crate::directive::Director;
use crate::http;
use crate::listen::{self, Until};
use crate::otlp::Exporter;
use crate::registry::sweep::Sweeper;
use crate::store::{Store, StoreError};
use crate::tls::{self, TlsError};
use crate::trust::ceremony::{self, CeremonyError};
use crate::trust::keys::{self, KeyError};
use crate::trust::{Trust, TrustError};

mod apart;
mod endpoints;
mod fresh;
mod parts;
mod stop;

pub use endpoints::Endpoints;
use fresh::keep_trust_fresh;
use parts::Parts;
use stop::asked_to_stop;

/// Why the server did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory.
    #[error("cannot use the data directory {0}")]
    Data(PathBuf, #[source] io::Error),
    /// A port.
    #[error(
        "cannot listen on {0}\nhelp: another program may have the port; port 0 takes any free one"
    )]
    Listen(SocketAddr, #[source] io::Error),
    /// One of the parts.
    #[error("cannot start {part}")]
    Part {
        /// Which.
        part: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A task that should never end has ended.
    #[error("the task `{0}` has ended; the server stops, so that whoever runs it starts it again")]
    Ended(&'static str),
}

macro_rules! parts {
    ($($error:ty => $part:literal),* $(,)?) => {$(
        impl From<$error> for ServerError {
            fn from(source: $error) -> Self {
                Self::Part { part: $part, source: source.into() }
            }
        }
    )*};
}

parts! {
    StoreError => "the store",
    TrustError => "the trust repository",
    CeremonyError => "the trust repository",
    KeyError => "the trust repository",
    CertificateError => "the device CA",
    BlobError => "the blob store",
    BrokerError => "the broker",
    TlsError => "TLS",
}

/// Time that the parts have to end.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A server that listens.
pub struct Server {
    tasks: JoinSet<&'static str>,
    stop: CancellationToken,
}

/// Everything that is opened before anything listens.
struct Opened {
    config: Config,
    store: Store,
    trust: Arc<Trust>,
    director: Arc<Director>,
    notary: Notary,
    authority: Authority,
    blobs: Blobs,
    own: OwnCertificate,
}

/// The server's own certificate, in files, since the broker reads it from there.
struct OwnCertificate {
    certificate: PathBuf,
    key: PathBuf,
    device_ca: PathBuf,
}

impl Opened {
    async fn open(config: Config, now: UnixMillis) -> Result<Self, ServerError> {
        let keys = config.keys();
        if !keys.exists() {
            return Err(TrustError::NoCeremony.into());
        }
        let store = Store::open(&config.store_url()).await?;
        let tenant = store.tenant(&config.tenant);
        ceremony::adopt(&tenant, &config.ceremony_metadata(), now).await?;
        let director = Director::open(&keys, &config.tenant, config.timing.directive_valid_s)?;
        let director = Arc::new(director);
        let lifetimes = config.trust.profile.lifetimes();
        let trust = Trust::open(tenant, &keys, Arc::clone(&director), lifetimes).await?;
        let notary = Notary::open(&keys, &config.tenant)?;
        let authority = authority(&config)?;
        let own = OwnCertificate::ensure(&config, &authority, now)?;
        let tenant = store.tenant(&config.tenant);
        let seal = Seal::open_in(&keys, &config.tenant)?;
        let sealed = seal.seal_all(&tenant).await;
        sealed.map_err(|source| ServerError::Part { part: "operators", source: source.into() })?;
        let adopted = deliver::adopt(&tenant, &seal, now).await;
        adopted.map_err(|source| ServerError::Part { part: "channels", source: source.into() })?;
        audit::note_start(&tenant, &notary, &director.public(), now).await?;
        let blobs = Blobs::open(config.blobs.url.as_deref(), &config.data).await?;
        let blobs = blobs.of_tenant(&config.tenant);
        Ok(Self { config, store, trust: Arc::new(trust), director, notary, authority, blobs, own })
    }

    fn broker_settings(&self, last_port: u16) -> BrokerSettings {
        let OwnCertificate { certificate, key, device_ca } = &self.own;
        match &self.config.mqtt.external {
            None => BrokerSettings::Embedded {
                listen: endpoints::address(self.config.mqtt.listen, last_port),
                certificate: certificate.clone(),
                key: key.clone(),
                device_ca: device_ca.clone(),
            },
            Some(external) => BrokerSettings::External(ExternalSettings {
                host: external.host.clone(),
                port: external.port,
                devices: external.devices.clone(),
                client_id: external.client_id.clone(),
                ca: external.ca.as_ref().unwrap_or(device_ca).clone(),
                certificate: external.certificate.as_ref().unwrap_or(certificate).clone(),
                key: external.key.as_ref().unwrap_or(key).clone(),
            }),
        }
    }
}

impl OwnCertificate {
    /// The certificate in the key folder, made anew when it is old or for other hosts.
    fn ensure(
        config: &Config,
        authority: &Authority,
        now: UnixMillis,
    ) -> Result<Self, ServerError> {
        let folder = config.keys();
        let own = Self {
            certificate: folder.join(keys::SERVER_CERTIFICATE),
            key: folder.join(keys::SERVER_KEY),
            device_ca: folder.join(keys::CA_CERTIFICATE),
        };
        let present = std::fs::read_to_string(&own.certificate).unwrap_or_default();
        if !own.key.exists() || is_server_certificate_stale(&present, &config.devices.hosts, now) {
            let issued = authority.issue_server(&config.devices.hosts, now)?;
            keys::replace(&own.key, &issued.key_pem)?;
            keys::replace(&own.certificate, &issued.chain_pem)?;
            tracing::info!(hosts = ?config.devices.hosts, "server certificate issued");
        }
        Ok(own)
    }
}

impl Server {
    /// Opens everything, then listens, then starts the tasks.
    pub async fn start(config: Config) -> Result<Self, ServerError> {
        let now = clock::now();
        let last = Endpoints::read(&config.data).map_or([0; 3], |endpoints| endpoints.ports());
        let opened = Opened::open(config, now).await?;
        let [operators_port, devices_port, mqtt_port] = last;

        let operators = bind(opened.config.operators.listen, operators_port).await?;
        let devices = bind(opened.config.devices.listen, devices_port).await?;
        let url = opened.config.operators.address(local(&operators)?);
        let parts = Parts::start(opened, mqtt_port, local(&devices)?, &url).await?;
        let endpoints = parts.endpoints(url);
        let mut server = Self { tasks: JoinSet::new(), stop: CancellationToken::new() };
        let data = parts.config.data.clone();
        server.listen(&parts, operators, devices)?;
        server.spawn_all(parts)?;
        endpoints.write(&data).map_err(|error| ServerError::Data(data, error))?;
        let Endpoints { operator_url, device_url, mqtt, .. } = &endpoints;
        tracing::info!(operator_url, device_url, mqtt, "fleet server ready");
        Ok(server)
    }

    /// Goes on until a signal, or until a task has ended that never should.
    pub async fn run(mut self) -> Result<(), ServerError> {
        let ended = tokio::select! {
            () = asked_to_stop() => None,
            ended = self.tasks.join_next() => Some(ended),
        };
        self.stop.cancel();
        let rest = async {
            while let Some(Ok(task)) = self.tasks.join_next().await {
                tracing::debug!(task, "ended");
            }
        };
        if tokio::time::timeout(STOP_MAX, rest).await.is_err() {
            tracing::warn!("tasks cut short at the end");
        }
        match ended {
            None => {
                tracing::info!("fleet server stopped");
                Ok(())
            }
            Some(Some(Ok(task))) => Err(ServerError::Ended(task)),
            Some(Some(Err(_)) | None) => Err(ServerError::Ended("unknown")),
        }
    }

    fn listen(
        &mut self,
        parts: &Parts,
        operators: TcpListener,
        devices: TcpListener,
    ) -> Result<(), ServerError> {
        let OwnCertificate { certificate, key, device_ca } = &parts.own;
        let devices_tls = tls::devices_config(certificate, key, device_ca)?;
        let Operators { tls_certificate, tls_key, .. } = &parts.config.operators;
        let operators_tls = match (tls_certificate, tls_key) {
            (Some(certificate), Some(key)) => Some(tls::operators_config(certificate, key)?),
            (Some(_) | None, _) => None,
        };
        let device_router = http::device::router(parts.device_port());
        let operator_router = http::router(parts.app(), parts.edge());
        let until = Until { stop: self.stop.clone(), signals: parts.signals.clone() };
        let serve = listen::serve(devices, Some(devices_tls), device_router, until.clone());
        self.spawn_graceful("devices' port", serve);
        let operators = apart::socket(operators)?;
        let serve = async move || match TcpListener::from_std(operators) {
            Ok(operators) => listen::serve(operators, operators_tls, operator_router, until).await,
            Err(error) => tracing::error!(%error, "cannot listen for operators"),
        };
        self.spawn_graceful("operators' port", apart::on_own_threads("operators", serve)?);
        Ok(())
    }

    fn spawn_all(&mut self, parts: Parts) -> Result<(), ServerError> {
        self.spawn("browsers", http::tell_browsers(parts.app()));
        if let Some(otlp) = &parts.config.otlp {
            let exporter = Exporter::new(otlp, &parts.config.tenant, clock::now());
            let exporter = exporter.map_err(|source| ServerError::Part {
                part: "the export of metrics",
                source: source.into(),
            })?;
            self.spawn("metrics", http::export_metrics(parts.app(), exporter));
        }
        let sweeper = Sweeper::new(parts.tenant.clone(), parts.registry.blobs().clone());
        self.spawn("registry", sweeper.run());
        let Parts {
            config,
            tenant,
            trust,
            notary,
            courier,
            reconciler,
            watch,
            history,
            dispatch,
            review,
            results,
            tasks,
            ..
        } = parts;
        self.spawn("notary", audit::keep_signed(notary, tenant.clone()));
        self.spawn("trust", keep_trust_fresh(trust, courier.clone()));
        self.spawn("courier", courier.run());
        let pause = Duration::from_millis(config.timing.reconcile_ms);
        self.spawn("reconcile", reconciler.run(pause));
        self.spawn("watch", watch.run());
        let pause = Duration::from_secs(config.timing.drift_interval_s.into());
        self.spawn("history", history.run(pause));
        self.spawn("channels", dispatch.run());
        self.spawn("review", review.run());
        self.spawn("batches", results.run());
        for (name, task) in tasks {
            self.spawn(name, async {
                if let Err(error) = task.await {
                    tracing::error!(%error, "task failed");
                }
            });
        }
        Ok(())
    }

    /// A task that never ends by itself, and is dropped when the server stops.
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => (),
                () = stop.cancelled() => (),
            }
            name
        });
    }

    /// A task that ends by itself soon after the server stops.
    fn spawn_graceful(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }
}

/// The device CA, from the key folder.
pub(crate) fn authority(config: &Config) -> Result<Authority, ServerError> {
    let folder = config.keys();
    let certificate = keys::read_secret(&folder.join(keys::CA_CERTIFICATE))?;
    let key = keys::read_secret(&folder.join(keys::CA_KEY))?;
    Ok(Authority::open(&certificate, &key)?.for_days(config.devices.certificate_days))
}

async fn bind(configured: SocketAddr, last_port: u16) -> Result<TcpListener, ServerError> {
    let address = endpoints::address(configured, last_port);
    listen::bind(address).await.map_err(|error| ServerError::Listen(address, error))
}

fn local(listener: &TcpListener) -> Result<SocketAddr, ServerError> {
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    listener.local_addr().map_err(|error| ServerError::Listen(any, error))
}

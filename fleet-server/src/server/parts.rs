//! Everything that runs, put together before any of it is started.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use utoipa_axum::router::OpenApiRouter;

use super::endpoints::Endpoints;
use super::{Opened, OwnCertificate, ServerError};
use crate::alert::deliver::Dispatch;
use crate::audit::Notary;
use crate::auth::oidc::Provider;
use crate::auth::{Auth, Rules, Seal};
use crate::blobs::Blobs;
use crate::broker::Broker;
use crate::broker::courier::Courier;
use crate::broker::gate::Gate;
use crate::config::Config;
use crate::directive::Director;
use crate::enrol::claims::Claims;
use crate::enrol::{Enrolment, Places};
use crate::events::Hub;
use crate::history::History;
use crate::http::device::DevicePort;
use crate::http::models::Models;
use crate::http::questions::Devices;
use crate::http::rates::Rates;
use crate::http::registry::Registry;
use crate::http::trust::Roles;
use crate::http::{self, App};
use crate::ingest::Ingest;
use crate::metrics::Metrics;
use crate::question::Questions;
use crate::reconcile::Reconciler;
use crate::renewal::Renewal;
use crate::results::Results;
use crate::review::Review;
use crate::signals::Signals;
use crate::store::TenantStore;
use crate::trust::Trust;
use crate::watch::{Outlook, Watch};

/// Everything that runs, before its tasks are started.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) tenant: TenantStore,
    pub(super) trust: Arc<Trust>,
    pub(super) enrolment: Arc<Enrolment>,
    pub(super) claims: Arc<Claims>,
    pub(super) renewal: Renewal,
    pub(super) registry: Registry,
    pub(super) own: OwnCertificate,
    pub(super) broker: Broker,
    pub(super) courier: Courier,
    pub(super) director: Arc<Director>,
    pub(super) notary: Arc<Notary>,
    pub(super) reconciler: Reconciler,
    pub(super) metrics: Metrics,
    pub(super) signals: Signals,
    pub(super) hub: Hub,
    pub(super) watch: Watch,
    pub(super) history: History,
    pub(super) dispatch: Dispatch,
    pub(super) review: Review,
    pub(super) results: Results,
    pub(super) auth: Arc<Auth>,
    pub(super) tasks: [(&'static str, JoinHandle<()>); 2],
}

impl Parts {
    pub(super) async fn start(
        opened: Opened,
        mqtt_port: u16,
        devices: SocketAddr,
        url: &str,
    ) -> Result<Self, ServerError> {
        let settings = opened.broker_settings(mqtt_port);
        let Opened { config, store, trust, director, notary, authority, blobs, own } = opened;
        let tenant = store.tenant(&config.tenant);
        let (signals, hub, metrics) = (Signals::default(), Hub::default(), Metrics::default());
        let (ingest, ingest_task) = Ingest::start(store.clone(), signals.clone(), hub.clone());
        let gate = Gate::new(store.for_devices(), ingest, metrics.clone());
        let authority = Arc::new(authority);
        let crowd = tenant.for_devices();
        let renewal = Renewal::new(crowd.clone(), Arc::clone(&authority), gate.clone());
        let (broker, broker_task) = Broker::start(settings, gate, config.device_host())?;
        let courier = Courier::new(tenant.clone(), broker.clone(), signals.clone());
        let places = Places {
            url: format!("https://{}:{}", config.device_host(), devices.port()),
            mqtt: broker.address().to_owned(),
            first_root: trust.first_root().await?,
        };
        let claims = Claims::new(crowd.clone(), Arc::clone(&authority), places.clone()).into();
        let enrolment = Arc::new(Enrolment::new(crowd, authority, places));
        let registry = Registry::new(tenant.clone(), blobs)
            .mounting_from_anywhere(config.registry.mount_from_anywhere);
        let notary = Arc::new(notary);
        let reconciler = Reconciler::new(
            tenant.clone(),
            Arc::clone(&director),
            config.timing.patience(),
            signals.clone(),
            hub.clone(),
        )
        .with_images(registry.blobs().clone())
        .with_retention(config.retention);
        let blobs = registry.blobs().clone();
        let (watch, history) = onlookers(&config, &tenant, blobs, (signals.clone(), hub.clone()));
        let auth = Arc::new(authority_over_people(&config, &tenant, url)?);
        let inside = config.alerts.inside();
        let dispatch = Dispatch::new(tenant.clone(), auth.seal.clone(), inside, url);
        let review = Review::new(
            tenant.clone(),
            auth.seal.clone(),
            (Arc::clone(&director), signals.clone()),
            (config.review, config.retention),
        );
        let results = Results::new(tenant.clone(), registry.blobs().clone(), config.retention);
        let tasks = [("ingest", ingest_task), ("broker", broker_task)];
        Ok(Self {
            config,
            tenant,
            trust,
            enrolment,
            claims,
            renewal,
            registry,
            own,
            broker,
            courier,
            director,
            notary,
            reconciler,
            metrics,
            signals,
            hub,
            watch,
            history,
            dispatch,
            review,
            results,
            auth,
            tasks,
        })
    }

    /// What the devices' port serves from: by readers of the store that nobody else waits for.
    pub(super) fn device_port(&self) -> DevicePort {
        DevicePort {
            store: self.tenant.for_devices(),
            signals: self.signals.clone(),
            enrolment: Arc::clone(&self.enrolment),
            claims: Arc::clone(&self.claims),
            renewal: self.renewal.clone(),
            trust: Arc::clone(&self.trust),
            registry: self.registry.for_devices(),
            review: self.review.for_devices(),
            results: self.results.for_devices(),
        }
    }

    /// The routes that bring their own state: models, enrolment, trust, registry.
    pub(super) fn edge(&self) -> OpenApiRouter {
        let models = Models { store: self.tenant.clone(), blobs: self.registry.blobs().clone() };
        let roles = Roles {
            trust: Arc::clone(&self.trust),
            courier: self.courier.clone(),
            signals: self.signals.clone(),
            auth: Arc::clone(&self.auth),
            store: self.tenant.clone(),
            director: Arc::clone(&self.director),
        };
        let files = http::registry::router(self.registry.clone())
            .merge(http::trust::metadata_router(Arc::clone(&self.trust)));
        let questions = Questions::new(
            self.tenant.clone(),
            self.broker.clone(),
            Arc::clone(&self.director),
            self.signals.clone(),
        );
        let (patience, results) = (self.config.timing.patience(), self.results.clone());
        let devices = Devices { questions, patience, results };
        http::models::router(models)
            .merge(http::questions::router(devices))
            .merge(http::enrol::router(Arc::clone(&self.enrolment)))
            .merge(http::claims::router(Arc::clone(&self.claims)))
            .merge(http::trust::router(roles))
            .merge(OpenApiRouter::from(files))
    }

    pub(super) fn app(&self) -> App {
        App {
            store: self.tenant.clone(),
            reconciler: self.reconciler.clone(),
            director: Arc::clone(&self.director),
            notary: Arc::clone(&self.notary),
            patience: self.config.timing.patience(),
            signals: self.signals.clone(),
            hub: self.hub.clone(),
            watch: self.watch.clone(),
            history: self.history.clone(),
            dispatch: self.dispatch.clone(),
            review: self.review.clone(),
            metrics: self.metrics.clone(),
            auth: Arc::clone(&self.auth),
            rates: Rates::default(),
            approval: self.config.approval.rollouts,
            offline_keys: self.config.offline_keys.clone(),
            expiries: self.trust.expiries(),
        }
    }

    pub(super) fn endpoints(&self, operator_url: String) -> Endpoints {
        Endpoints {
            operator_url,
            device_url: self.enrolment.url().to_owned(),
            mqtt: self.broker.address().to_owned(),
            pid: std::process::id(),
        }
    }
}

/// Who looks at what models see: now, and long after.
fn onlookers(
    config: &Config,
    tenant: &TenantStore,
    blobs: Blobs,
    told: (Signals, Hub),
) -> (Watch, History) {
    let labels = config.cohort_labels.clone();
    let interval = Duration::from_secs(config.timing.drift_interval_s.into());
    let outlook = Outlook { policy: config.drift, labels: labels.clone(), interval };
    let patience = config.timing.patience();
    let watch = Watch::new(tenant.clone(), blobs.clone(), told, patience, outlook);
    let judging = (config.drift, labels);
    (watch, History::new(tenant.clone(), blobs, judging, config.retention))
}

/// Who may come in, by the configuration.
fn authority_over_people(
    config: &Config,
    tenant: &TenantStore,
    url: &str,
) -> Result<Auth, ServerError> {
    let provider = match &config.oidc {
        Some(oidc) => Some(Provider::new(oidc.settings(url)?).map_err(|source| {
            ServerError::Part { part: "the provider of identities", source: source.into() }
        })?),
        None => None,
    };
    let rules = Rules {
        idle_ms: i64::from(config.access.session_idle_s) * 1_000,
        life_ms: i64::from(config.access.session_s) * 1_000,
        step_up_devices: config.access.step_up_rollback_devices,
        has_tls: config.operators.tls_certificate.is_some(),
    };
    let seal = Seal::open_in(&config.keys(), &config.tenant)?;
    Ok(Auth::new(tenant.clone(), rules, seal, provider))
}

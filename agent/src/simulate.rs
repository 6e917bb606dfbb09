//! Many devices in one process: real supervisors, each with a store and an identity of its own, and made-up models.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealift_protocol::id::{DeviceId, InvalidName};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::system_time;
use crate::config::{Config, EngineName};
use crate::crowd::Crowd;
use crate::disk;
use crate::enrol::{self, EnrolError, Enrolment};
use crate::identity::Identity;
use crate::logs::Logs;
use crate::supervisor::{self, Setup, SupervisorError};
use crate::verify::spread_permille;

/// Devices begin within this time each, so that they do not all come at once: twelve a second.
const BEGIN_MS_EACH: u64 = 80;

/// Enrolments of one process at a time. The server has few of one address under way at once, and turns others away.
const ENROLLING_MAX: usize = 40;

/// Devices in one process; each takes a connection, a few tasks and a directory.
const COUNT_MAX: u32 = 5_000;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// Holds a directory for each device.
    pub store: PathBuf,
    /// The devices' port of the fleet server.
    pub url: String,
    /// A token with as many uses as there are devices.
    pub token: String,
    /// How many devices.
    pub count: u32,
    /// Their names begin with this.
    pub prefix: String,
    /// How each of them runs.
    pub config: Config,
}

/// Why devices are not simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// None, or more than one process holds.
    #[error("1 to {COUNT_MAX} devices can be simulated")]
    Count,
    /// The prefix does not begin a device's name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The directory of a device cannot be made.
    #[error("cannot create {path}")]
    Store {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A device was not enrolled.
    #[error("device {device} was not enrolled")]
    Enrol {
        /// The device.
        device: DeviceId,
        /// Why.
        #[source]
        source: EnrolError,
    },
    /// A device's agent ended.
    #[error("agent of device {device} ended")]
    Agent {
        /// The device.
        device: DeviceId,
        /// Why.
        #[source]
        source: SupervisorError,
    },
}

impl Simulation {
    /// Runs all devices until `stop` is cancelled, or the first of them fails.
    pub async fn run(self, stop: CancellationToken) -> Result<(), SimulateError> {
        if self.count == 0 || self.count > COUNT_MAX {
            return Err(SimulateError::Count);
        }
        let mut devices = JoinSet::new();
        let enrolling = Arc::new(Semaphore::new(ENROLLING_MAX));
        let crowd = Crowd::of(self.count);
        for number in 1..=self.count {
            let device = DeviceId::parse(&format!("{}-{number}", self.prefix))?;
            let shared = (Arc::clone(&enrolling), crowd.clone());
            devices.spawn(self.clone().device(device, shared, stop.clone()));
        }
        while let Some(ended) = devices.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                Err(error) => tracing::error!(%error, "a simulated device ended"),
            }
        }
        Ok(())
    }

    async fn device(
        self,
        device: DeviceId,
        (enrolling, crowd): (Arc<Semaphore>, Crowd),
        stop: CancellationToken,
    ) -> Result<(), SimulateError> {
        let span_ms = BEGIN_MS_EACH * u64::from(self.count);
        let pause = Duration::from_millis(span_ms * u64::from(spread_permille()) / 1_000);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Ok(()),
        }
        let store = self.store.join(device.as_str());
        disk::private_dir(&store)
            .map_err(|source| SimulateError::Store { path: store.clone(), source })?;
        if Identity::load(&store).is_err() {
            // Nobody closes it, so that there is a turn for each.
            let _turn = enrolling.acquire().await;
            let Self { url, token, .. } = self.clone();
            let is_replacement = false;
            let enrolment =
                Enrolment { url, token, device: device.clone(), is_replacement, key_on: None };
            let enrolled = enrol::enrol(&store, &enrolment).await;
            enrolled.map_err(|source| SimulateError::Enrol { device: device.clone(), source })?;
        }
        let config = Config { engine: EngineName::Fake, ..self.config };
        let setup = Setup {
            store,
            config,
            crowd: Some(crowd),
            wall: system_time,
            watchdog: None,
            logs: Logs::default(),
        };
        let ran = supervisor::run(setup, stop).await;
        ran.map_err(|source| SimulateError::Agent { device, source })
    }
}

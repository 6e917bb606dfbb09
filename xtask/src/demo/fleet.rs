//! The demo's fleet: a server, three agents, simulated devices, and applications that ask.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sealift_tests::fleet::{Device, DeviceOptions, Options, Server, Simulated};
use sealift_tests::process::Process;
use tokio::time::sleep;

use super::traffic::Traffic;

/// Where the three agents are.
pub(super) const SITES: [&str; 3] = ["tokyo", "osaka", "nagoya"];

/// How often processes are looked after.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Short intervals, so that a story of minutes has what takes hours elsewhere.
const TIMING: &str = "[timing]\nreconcile_ms = 300\ndrift_interval_s = 1\n";

/// Everything that runs. Dropping it ends everything.
pub(super) struct Fleet {
    pub(super) traffic: Vec<Traffic>,
    pub(super) simulated: Option<Simulated>,
    pub(super) devices: Vec<Device>,
    pub(super) server: Server,
}

/// Starts the fleet server.
pub(super) async fn start_server(directory: &Path) -> anyhow::Result<Server> {
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    Server::start(directory, &options).await
}

impl Fleet {
    /// Enrols the three agents and the simulated devices, and starts them.
    pub(super) async fn enrol(
        server: Server,
        directory: &Path,
        simulated: u32,
        onnxruntime: PathBuf,
    ) -> anyhow::Result<Self> {
        // They take their time to come, so they begin first.
        let labels = ["site=lab".to_owned()];
        let simulated = (simulated > 0)
            .then(|| Simulated::start(&server, directory, simulated, &labels))
            .transpose()?;
        let mut devices = Vec::new();
        for site in SITES {
            let options = DeviceOptions {
                labels: vec![format!("site={site}")],
                onnxruntime: Some(onnxruntime.clone()),
                extra: String::new(),
            };
            devices
                .push(Device::start(&server, directory, &format!("cam-{site}"), &options).await?);
        }
        Ok(Self { traffic: Vec::new(), simulated, devices, server })
    }

    /// Starts applications beside the three agents.
    pub(super) fn start_traffic(&mut self) -> anyhow::Result<()> {
        for (site, device) in SITES.into_iter().zip(&self.devices) {
            self.traffic.push(Traffic::start(site, device.caller())?);
        }
        Ok(())
    }

    /// Looks after the processes as a service manager would: what ended is started again.
    pub(super) async fn keep_running(&mut self) -> anyhow::Result<()> {
        loop {
            sleep(LOOK_INTERVAL).await;
            let devices = self.devices.iter_mut().map(|device| &mut device.process);
            let simulated = self.simulated.iter_mut().map(|simulated| &mut simulated.process);
            for process in devices.chain(simulated).chain([&mut self.server.process]) {
                revive(process)?;
            }
        }
    }
}

fn revive(process: &mut Process) -> anyhow::Result<()> {
    if let Some(status) = process.ended()? {
        println!("{} ended ({status}); started again", process.name());
        process.restart()?;
    }
    Ok(())
}

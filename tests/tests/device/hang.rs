//! An agent that hangs: it no longer says that it is alive, and the service manager starts it again.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use sealift_tests::digits::directory as model_directory;
use sealift_tests::fleet::{Device, Options, Server};
use sealift_tests::story::{self, TIMING, answers_with};

use super::pretending;

/// The agent's loop turns twice a second; a machine under load turns it later.
const SILENCE: Duration = Duration::from_secs(8);

/// A service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_read_timeout(Some(SILENCE))?;
        Ok(Self(socket))
    }

    /// Whether a sign of life comes in time.
    fn hears(&self) -> anyhow::Result<bool> {
        let mut message = [0; 64];
        match self.0.recv(&mut message) {
            Ok(length) => {
                let message = message.get(..length).context("a datagram fits")?;
                ensure!(message == b"WATCHDOG=1", "{message:?}");
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[tokio::test]
#[ignore = "needs programs"]
async fn an_agent_whose_loop_hangs_falls_silent_and_is_started_again() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    server.publish(&model_directory("v1"), "1")?;
    let socket = directory.path().join("notify");
    let manager = Manager::open(&socket)?;
    let socket = socket.display().to_string();
    // In the middle of a rollout.
    let environment = [("NOTIFY_SOCKET", socket.as_str()), ("SEALIFT_DRILL_HANG", "8")];
    let agent = (&pretending(), &environment[..]);
    let mut device = Device::begin(&server, directory.path(), "cam-1", agent)?;
    device.ready().await?;
    ensure!(manager.hears()?, "the agent never says that it is alive");

    let rollout = story::begin(&server, "1")?;
    let deadline = Instant::now() + Duration::from_mins(1);
    while manager.hears()? {
        if Instant::now() > deadline {
            bail!(
                "the agent's loop hangs, and it says that it is alive:\n{}",
                device.process.log()
            );
        }
    }

    ensure!(device.process.ended()?.is_none(), "it hangs, it did not end");
    device.process.kill()?;
    device.process.change_environment(&[("NOTIFY_SOCKET", &socket)]);
    device.process.restart()?;
    device.ready().await?;
    let succeeded = sealift_protocol::api::RolloutState::Succeeded;
    story::ended(&server.api()?, rollout, succeeded).await?;
    ensure!(manager.hears()?, "the new agent says nothing");
    answers_with(&device, "1").await
}

//! Others that serve the same model: FastAPI and MLServer, each a process of its own with one ONNX Runtime.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use sealift_tests::process::root;

/// Python, all packages of MLServer, and the model, on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(3);

/// How often to look whether one listens.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A peer that runs until this is dropped.
pub(super) struct Peer {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Peer {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `uvicorn` with one process, as its manual starts it.
    pub(super) fn fastapi(python: &Path, model: &Path, folder: &Path) -> anyhow::Result<Self> {
        let address = free()?;
        let mut command = Command::new(python);
        command.args(["-m", "uvicorn", "fastapi_peer:app", "--no-access-log", "--log-level"]);
        command.args(["warning", "--port", &address.port().to_string()]);
        Self::start(command.env("MODEL", model), address, folder, "fastapi.log")
    }

    /// MLServer with its workers switched off: one process, as the others.
    pub(super) fn mlserver(python: &Path, model: &Path, folder: &Path) -> anyhow::Result<Self> {
        let (address, grpc, metrics) = (free()?, free()?, free()?);
        let directory = folder.join("mlserver");
        fs::create_dir_all(directory.join("digits"))?;
        let settings = serde_json::json!({
            "host": "127.0.0.1", "http_port": address.port(), "grpc_port": grpc.port(),
            "metrics_port": metrics.port(), "parallel_workers": 0, "debug": false,
        });
        fs::write(directory.join("settings.json"), settings.to_string())?;
        let settings = serde_json::json!({
            "name": "digits", "implementation": "mlserver_peer.Digits",
            "parameters": { "uri": model },
        });
        fs::write(directory.join("digits/model-settings.json"), settings.to_string())?;
        let program = python.with_file_name("mlserver");
        let mut command = Command::new(program);
        Self::start(command.arg("start").arg(&directory), address, folder, "mlserver.log")
    }

    fn start(
        command: &mut Command,
        address: SocketAddr,
        folder: &Path,
        log: &str,
    ) -> anyhow::Result<Self> {
        let log = folder.join(log);
        let file = fs::File::create(&log)?;
        let child = command
            .env("PYTHONPATH", root().join("tests/bench"))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("cannot start a peer")?;
        let mut peer = Self { child, address };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = peer.child.try_wait()? {
                bail!("a peer ended ({status}): {}", fs::read_to_string(&log)?);
            }
            ensure!(began.elapsed() < START_LIMIT, "a peer does not listen; see {}", log.display());
            sleep(LOOK_INTERVAL);
        }
        Ok(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell otherwise.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

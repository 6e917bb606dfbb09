//! `endpoints.json`: where a running server is reached. Written when it is ready, read by tools and by the next start.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE: &str = "endpoints.json";

/// Where a server is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// For people and tools.
    pub operator_url: String,
    /// For devices.
    pub device_url: String,
    /// `host:port` of the broker.
    pub mqtt: String,
    /// The server's process.
    pub pid: u32,
}

impl Endpoints {
    /// What the server of `data` wrote when it was last ready.
    pub fn read(data: &Path) -> io::Result<Self> {
        let text = fs::read(data.join(FILE))?;
        serde_json::from_slice(&text).map_err(io::Error::from)
    }

    /// Writes it in one step: a reader sees all or nothing.
    pub(super) fn write(&self, data: &Path) -> io::Result<PathBuf> {
        let (path, next) = (data.join(FILE), data.join("endpoints.json.new"));
        fs::write(&next, serde_json::to_vec(self)?)?;
        fs::rename(&next, &path)?;
        Ok(path)
    }

    /// The ports of the last run, operators' then devices' then the broker's; 0 where there is none.
    pub(super) fn ports(&self) -> [u16; 3] {
        let port =
            |text: &str| text.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
        [port(&self.operator_url), port(&self.device_url), port(&self.mqtt)]
    }
}

/// Where to listen: a port of 0 is any free one, but the one of the last run if that is free, since devices have stored it.
pub(super) fn address(configured: SocketAddr, last_port: u16) -> SocketAddr {
    if configured.port() != 0 || last_port == 0 {
        return configured;
    }
    let last = SocketAddr::new(configured.ip(), last_port);
    // Bound and let go at once: another process could take it in between, and then the start fails and is tried again.
    match std::net::TcpListener::bind(last) {
        Ok(_) => last,
        Err(_) => configured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_of_the_last_run_is_taken_again() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let held = std::net::TcpListener::bind(any).unwrap();
        let port = held.local_addr().unwrap().port();
        assert_eq!(address(any, port), any);
        drop(held);
        assert_eq!(address(any, port).port(), port);
        let fixed: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(address(fixed, port), fixed);
    }

    #[test]
    fn ports_are_found_in_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let endpoints = Endpoints {
            operator_url: "http://127.0.0.1:8080".to_owned(),
            device_url: "https://localhost:8443".to_owned(),
            mqtt: "localhost:8883".to_owned(),
            pid: 1,
        };
        endpoints.write(folder.path()).unwrap();
        assert_eq!(Endpoints::read(folder.path()).unwrap().ports(), [8080, 8443, 8883]);
    }
}

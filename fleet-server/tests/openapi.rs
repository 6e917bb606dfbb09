//! The committed description of the API is the one that the server serves.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet-server");

/// Ends the server also when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn openapi_json_is_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let (data, offline) = (folder.path().join("data"), folder.path().join("offline"));
    let init = Command::new(PROGRAM)
        .args(["init", "--team", "vision", "--data"])
        .arg(&data)
        .arg("--offline")
        .arg(&offline)
        .output()
        .unwrap();
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let served = served(&data);

    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if std::env::var_os("SEALIFT_BLESS").is_some() {
        fs::write(&committed, &served).unwrap();
    }
    let committed = fs::read_to_string(&committed).unwrap_or_default();
    assert!(committed == served, "openapi.json is stale: run this test with SEALIFT_BLESS=1");
}

fn served(data: &Path) -> String {
    let mut server = Command::new(PROGRAM)
        .args(["run", "--data"])
        .arg(data)
        .stderr(Stdio::piped())
        .spawn()
        .map(Running)
        .unwrap();
    let log = BufReader::new(server.0.stderr.take().unwrap());
    let is_ready =
        log.lines().map_while(Result::ok).any(|line| line.contains("fleet server ready"));
    assert!(is_ready, "the server has ended");
    let endpoints = fs::read_to_string(data.join("endpoints.json")).unwrap();
    let endpoints: serde_json::Value = serde_json::from_str(&endpoints).unwrap();
    let address =
        endpoints["operator_url"].as_str().unwrap().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(stream, "GET /openapi.json HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    let document: serde_json::Value = serde_json::from_str(body).unwrap();
    serde_json::to_string_pretty(&document).unwrap() + "\n"
}

//! A fleet server in its own process, and what speaks to it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Once};

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use reqwest::{Client, Response, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sealift_protocol::api::{EnrolRequest, EnrolResponse, EnrolTokenCreated, EnrolTokenNew};
use sealift_protocol::id::DeviceId;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_fleet-server");

/// A running server; ended with it.
pub(crate) struct Fleet {
    pub(crate) folder: TempDir,
    pub(crate) endpoints: Endpoints,
    pub(crate) admin: String,
    process: Child,
}

#[derive(Deserialize)]
pub(crate) struct Endpoints {
    pub(crate) operator_url: String,
    pub(crate) device_url: String,
    pub(crate) mqtt: String,
}

/// A device's identity.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) key_pem: String,
    pub(crate) answer: EnrolResponse,
}

pub(crate) fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    });
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_remove("SEALIFT_LOG");
    command
}

/// Runs the binary to its end; the answer is what it wrote to stdout and to stderr.
pub(crate) fn run(arguments: &[&str]) -> Result<String, String> {
    let output = command(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

impl Fleet {
    /// Starts a server with the teams `vision` and `fraud`.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// The same, with more configuration.
    pub(crate) fn start_with(more: &str) -> Self {
        install_provider();
        let folder = tempfile::tempdir().unwrap();
        let (data, offline) = (folder.path().join("data"), folder.path().join("offline"));
        run(&[
            "init",
            "--data",
            text(&data),
            "--offline",
            text(&offline),
            "--team",
            "vision",
            "--team",
            "fraud",
        ])
        .unwrap();
        edit_configuration(&data, |config| format!("{config}\n{more}"));
        let process = start_process(&data);
        let endpoints = read_endpoints(&data);
        let admin = token(&data, "root", "admin");
        Self { folder, endpoints, admin, process }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn offline(&self) -> PathBuf {
        self.folder.path().join("offline")
    }

    /// An API token with a role.
    pub(crate) fn token(&self, name: &str, role: &str) -> String {
        token(&self.data(), name, role)
    }

    /// Ends the server as an operator does, and starts it again on the same data.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.process = start_process(&self.data());
    }

    /// Ends the server as a power cut does, and starts it again on the same data.
    pub(crate) fn kill_and_restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = start_process(&self.data());
        self.endpoints = read_endpoints(&self.data());
    }

    /// The same as [`Fleet::restart`], with more configuration.
    pub(crate) fn restart_with(&mut self, more: &str) {
        self.restart_edited(|config| format!("{config}\n{more}"));
    }

    /// The same, with another configuration.
    pub(crate) fn restart_edited(&mut self, edit: impl FnOnce(String) -> String) {
        self.stop();
        edit_configuration(&self.data(), edit);
        self.process = start_process(&self.data());
        self.endpoints = read_endpoints(&self.data());
    }

    fn stop(&mut self) {
        let pid = self.process.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(self.process.wait().unwrap().success());
    }

    /// A request to the operators' port, as admin.
    pub(crate) fn api(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.endpoints.operator_url);
        Client::new().request(method, url).bearer_auth(&self.admin)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.api(reqwest::Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    pub(crate) async fn enrol_token(&self, terms: EnrolTokenNew) -> EnrolTokenCreated {
        let request = self.api(reqwest::Method::POST, "/api/v1/enrol-tokens").json(&terms);
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.text().await.unwrap());
        response.json().await.unwrap()
    }

    /// The device CA, as it lies on the server.
    pub(crate) fn ca(&self) -> String {
        std::fs::read_to_string(self.data().join("keys/ca.pem")).unwrap()
    }

    /// Enrols with a token; the answer is the response as it came.
    pub(crate) async fn post_enrol(&self, token: &str, id: &str, csr_pem: String) -> Response {
        let request = EnrolRequest { token: token.to_owned(), device: device_id(id), csr_pem };
        let client = https(&self.ca(), None);
        let url = format!("{}/enrol", self.endpoints.device_url);
        client.post(url).json(&request).send().await.unwrap()
    }

    /// Enrols a new device.
    pub(crate) async fn enrol(&self, id: &str) -> Device {
        let token = self.enrol_token(terms()).await.token;
        self.enrol_by(&token, id).await
    }

    pub(crate) async fn enrol_by(&self, token: &str, id: &str) -> Device {
        let (key_pem, csr) = request();
        let response = self.post_enrol(token, id, csr).await;
        assert_eq!(response.status(), StatusCode::OK);
        Device { id: device_id(id), key_pem, answer: response.json().await.unwrap() }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
        }
    }
}

impl Device {
    /// TLS with the device's certificate.
    pub(crate) fn tls(&self) -> ClientConfig {
        let identity = (self.answer.certificate_pem.as_str(), self.key_pem.as_str());
        client_config(&self.answer.ca_pem, Some(identity))
    }

    /// HTTPS with the device's certificate.
    pub(crate) fn https(&self) -> Client {
        https(&self.answer.ca_pem, Some((&self.answer.certificate_pem, &self.key_pem)))
    }
}

fn start_process(data: &Path) -> Child {
    let mut process =
        command(&["run", "--data", text(data)]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let mut log = String::new();
    for line in lines.by_ref() {
        let line = line.unwrap();
        if line.contains("fleet server ready") {
            // Read on, so that the server never waits for its log to be read.
            std::thread::spawn(move || lines.for_each(drop));
            return process;
        }
        log.push_str(&line);
        log.push('\n');
    }
    process.wait().unwrap();
    panic!("the server did not start:\n{log}");
}

fn edit_configuration(data: &Path, edit: impl FnOnce(String) -> String) {
    let file = data.join("fleet-server.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, edit(config)).unwrap();
}

fn read_endpoints(data: &Path) -> Endpoints {
    serde_json::from_slice(&std::fs::read(data.join("endpoints.json")).unwrap()).unwrap()
}

fn token(data: &Path, name: &str, role: &str) -> String {
    run(&["token", "create", "--data", text(data), "--name", name, "--role", role]).unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn device_id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

pub(crate) fn terms() -> EnrolTokenNew {
    serde_json::from_value(json!({})).unwrap()
}

/// A fresh key and a certificate request for it, PEM.
pub(crate) fn request() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).unwrap();
    (key.serialize_pem(), request.pem().unwrap())
}

pub(crate) fn client_config(ca_pem: &str, identity: Option<(&str, &str)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(Arc::new(roots));
    let Some((certificate_pem, key_pem)) = identity else { return config.with_no_client_auth() };
    let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap();
    config.with_client_auth_cert(chain, key).unwrap()
}

pub(crate) fn https(ca_pem: &str, identity: Option<(&str, &str)>) -> Client {
    let config = client_config(ca_pem, identity);
    Client::builder().tls_backend_preconfigured(config).build().unwrap()
}

/// The stable code in a problem.
pub(crate) async fn code(response: Response) -> String {
    let problem: Value = response.json().await.unwrap();
    problem["code"].as_str().unwrap_or_default().to_owned()
}

//! A real OpenID provider on loopback, and a browser's share of a login: cookies and redirects, nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Method, Response, Url};

use crate::needs::variable;
use crate::process::{Process, free_port, root, write};
use crate::wait::{Look, until};

/// Loading the provider's packages on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);
const REDIRECTS_MAX: usize = 20;

/// The provider, until it is dropped.
pub struct Provider {
    /// How it names itself.
    pub issuer: String,
    secret: PathBuf,
    _process: Process,
}

impl Provider {
    /// Starts it for a fleet server that will listen at `operators`.
    pub async fn start(directory: &Path, operators: &str) -> anyhow::Result<Self> {
        let packages = PathBuf::from(variable("SEALIFT_OIDC_PROVIDER")?);
        ensure!(packages.join("oidc-provider").is_dir(), "{} has no provider", packages.display());
        let (port, script) = (free_port()?.to_string(), root().join("tests/oidc/provider.mjs"));
        let redirect = format!("{operators}/api/v1/session/oidc/callback");
        let script = script.display().to_string();
        let log = directory.join("provider.log");
        let arguments = [script.as_str(), port.as_str(), redirect.as_str()];
        let node = node()?;
        let process = Process::start("provider", &node, &arguments, &[], &log)?;
        let issuer = format!("http://127.0.0.1:{port}");
        until("the provider is ready", START_LIMIT, || async {
            let address = format!("{issuer}/.well-known/openid-configuration");
            let status = reqwest::get(address).await?.status();
            ensure!(status.is_success(), "it answers {status}");
            Ok(Look::Done(()))
        })
        .await?;
        let secret = directory.join("oidc-secret");
        write(&secret, "a secret of the tests alone\n")?;
        Ok(Self { issuer, secret, _process: process })
    }

    /// The section of the configuration that names it.
    pub fn section(&self) -> String {
        format!(
            "[oidc]\nissuer = \"{}\"\nclient_id = \"sealift\"\nclient_secret_file = \"{}\"\n\
             [[oidc.roles]]\ngroup = \"fleet-admins\"\nrole = \"admin\"\n\
             [[oidc.roles]]\ngroup = \"osaka\"\nrole = \"operator\"\nscope = \"site:osaka\"\n",
            self.issuer,
            self.secret.display(),
        )
    }
}

/// Somebody at a browser: keeps cookies by host, follows redirects, and is who they say.
pub struct Browser {
    http: reqwest::Client,
    person: String,
    cookies: BTreeMap<(String, String), String>,
    /// Where it is now.
    pub at: Option<Url>,
}

impl Browser {
    /// The browser of `person`, such as `ann fleet-admins`: the name, and the groups.
    pub fn of(person: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()?;
        Ok(Self { http, person: person.to_owned(), cookies: BTreeMap::new(), at: None })
    }

    /// Opens an address, and follows it wherever it leads.
    pub async fn open(&mut self, address: &str) -> anyhow::Result<Response> {
        self.send(Method::GET, address, None).await
    }

    /// Sends a form.
    pub async fn submit(&mut self, address: &str, form: String) -> anyhow::Result<Response> {
        self.send(Method::POST, address, Some(form)).await
    }

    /// A cookie of a host's.
    pub fn cookie(&self, url: &Url, name: &str) -> Option<&str> {
        let host = host(url);
        self.cookies.get(&(host, name.to_owned())).map(String::as_str)
    }

    /// The cookies for `url`, as a header.
    pub fn cookies_for(&self, url: &Url) -> String {
        let host = host(url);
        let own = self.cookies.iter().filter(|((of, _), _)| *of == host);
        own.map(|((_, name), value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    async fn send(
        &mut self,
        method: Method,
        address: &str,
        form: Option<String>,
    ) -> anyhow::Result<Response> {
        let mut url = Url::parse(address)?;
        let (mut method, mut form) = (method, form);
        for _ in 0..REDIRECTS_MAX {
            let request = self.http.request(method.clone(), url.clone());
            let request = request.header(COOKIE, self.cookies_for(&url));
            let mut request = request.header("x-person", &self.person);
            if let Some(form) = form.take() {
                request =
                    request.header("content-type", "application/x-www-form-urlencoded").body(form);
            }
            let response = request.send().await?;
            self.keep(&url, &response);
            self.at = Some(url.clone());
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).context("a redirect to nowhere")?;
            url = url.join(location.to_str()?)?;
            method = Method::GET;
        }
        bail!("{address} leads round in a circle")
    }

    fn keep(&mut self, url: &Url, response: &Response) {
        for cookie in response.headers().get_all(SET_COOKIE) {
            let text = cookie.to_str().unwrap_or_default();
            let pair = text.split(';').next().and_then(|pair| pair.split_once('='));
            let Some((name, value)) = pair else { continue };
            let key = (host(url), name.to_owned());
            if value.is_empty() {
                self.cookies.remove(&key);
            } else {
                self.cookies.insert(key, value.to_owned());
            }
        }
    }
}

/// Node.js, wherever it is.
fn node() -> anyhow::Result<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join("node"));
    let node = found.find(|file| file.is_file()).context("there is no Node.js")?;
    Ok(node.display().to_string())
}

fn host(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or_default())
}

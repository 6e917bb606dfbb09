//! `/api/v1` as a program sees it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::Method;
use sealift_protocol::api::{DeviceView, Page, RolloutView};
use sealift_protocol::id::{DeviceId, RolloutId};
use serde::Serialize;
use serde::de::DeserializeOwned;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// An operator's HTTP client.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    /// A client for the operators' URL of a server.
    pub fn new(base: &str, token: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build()?;
        Ok(Self { http, base: base.to_owned(), token: token.to_owned() })
    }

    /// A request to a path below the server's root.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    /// `GET /api/v1/{path}`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.request(Method::GET, &format!("/api/v1/{path}")).send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        ensure!(status.is_success(), "GET {path}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).with_context(|| format!("GET {path}: unexpected body"))
    }

    /// `POST /api/v1/{path}`.
    pub async fn post<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<T> {
        let request = self.request(Method::POST, &format!("/api/v1/{path}")).json(body);
        let response = request.send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        ensure!(status.is_success(), "POST {path}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).with_context(|| format!("POST {path}: unexpected body"))
    }

    /// The first page of a list.
    pub async fn list<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Vec<T>> {
        let page: Page<T> = self.get(path).await?;
        Ok(page.items)
    }

    /// One device.
    pub async fn device(&self, id: &DeviceId) -> anyhow::Result<DeviceView> {
        self.get(&format!("devices/{id}")).await
    }

    /// One rollout.
    pub async fn rollout(&self, id: RolloutId) -> anyhow::Result<RolloutView> {
        self.get(&format!("rollouts/{id}")).await
    }
}

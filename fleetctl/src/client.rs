//! HTTP to the fleet server: JSON in and out, problems turned into failures with their exit codes.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use sealift_protocol::api::{Page, Problem, StepUp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output::prompt_secret;

/// What the server refuses with until the person has confirmed.
const STEP_UP: &str = "auth.step-up";

/// A request that takes longer is given up; uploads have their own, longer limit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A page of a list: the server's own limit.
const PAGE_LIMIT: u32 = 1_000;
/// Pages that are followed at most: a million entries.
const PAGES_MAX: usize = 1_000;

/// A fleet server that can be asked.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: String,
}

impl Client {
    pub(crate) fn new(context: Context) -> anyhow::Result<Self> {
        let base =
            Url::parse(&context.url).with_context(|| format!("`{}` is not a URL", context.url))?;
        let http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build()?;
        Ok(Self { http, base, token: context.token })
    }

    /// The operators' URL.
    pub(crate) const fn base(&self) -> &Url {
        &self.base
    }

    /// Begins a request for a path below the server's root.
    pub(crate) fn request(&self, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        let url = self.base.join(path).with_context(|| format!("`{path}` is not a path"))?;
        Ok(self.http.request(method, url).bearer_auth(&self.token))
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<T> {
        let request = self.request(Method::GET, &with_query(&api(path), query))?;
        Ok(self.send(request).await?.json().await?)
    }

    /// The bytes that are behind a path of the API.
    pub(crate) async fn bytes(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let response = self.send(self.request(Method::GET, &api(path))?).await?;
        Ok(response.bytes().await?.to_vec())
    }

    /// Sends a request; where the server wants the person to confirm, asks them once and sends it again.
    pub(crate) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let again = request.try_clone();
        let refused = match send(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let code = refused.downcast_ref::<Failure>().and_then(|failure| failure.code.as_deref());
        let (Some(STEP_UP), Some(again)) = (code, again) else { return Err(refused) };
        let Some(secret) = prompt_secret("this must be confirmed; password or code: ")? else {
            return Err(refused);
        };
        let confirm = self.request(Method::POST, &api("session/step-up"))?;
        send(confirm.json(&StepUp { secret })).await?;
        send(again).await
    }

    pub(crate) async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<T> {
        Ok(self.send(self.request(Method::POST, &api(path))?.json(body)).await?.json().await?)
    }

    /// Posts what has no answer.
    pub(crate) async fn order<B: Serialize + Sync>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<()> {
        send(self.request(Method::POST, &api(path))?.json(body)).await?;
        Ok(())
    }

    pub(crate) async fn patch<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<T> {
        Ok(self.send(self.request(Method::PATCH, &api(path))?.json(body)).await?.json().await?)
    }

    /// Puts what has no answer.
    pub(crate) async fn put<B: Serialize + Sync>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<()> {
        self.send(self.request(Method::PUT, &api(path))?.json(body)).await?;
        Ok(())
    }

    /// Puts something, and returns what is there afterwards.
    pub(crate) async fn put_for<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<T> {
        Ok(self.send(self.request(Method::PUT, &api(path))?.json(body)).await?.json().await?)
    }

    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.send(self.request(Method::DELETE, &api(path))?).await?;
        Ok(())
    }

    /// Deletes something, and returns what is there afterwards.
    pub(crate) async fn delete_for<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<T> {
        let request = self.request(Method::DELETE, &with_query(&api(path), query))?;
        Ok(self.send(request).await?.json().await?)
    }

    /// Follows a list to its end.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<Vec<T>> {
        let limit = PAGE_LIMIT.to_string();
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query = [query, &[("limit", limit.as_str())]].concat();
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page: Page<T> = self.get(path, &query).await?;
            items.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(items);
            }
        }
        anyhow::bail!("list {path} has more than {PAGES_MAX} pages")
    }
}

/// A path of the API with a query, for whoever makes the request.
pub(crate) fn api_path(path: &str, query: &[(&str, &str)]) -> String {
    with_query(&api(path), query)
}

fn api(path: &str) -> String {
    format!("/api/v1/{path}")
}

fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(query.iter().filter(|(_, value)| !value.is_empty()));
    format!("{path}?{}", text.finish())
}

/// Sends a request; anything but success becomes a [`Failure`].
pub(crate) async fn send(request: RequestBuilder) -> anyhow::Result<Response> {
    let response = request.send().await.map_err(unreachable_server)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await?;
    Err(refused(status, &body).into())
}

fn unreachable_server(error: reqwest::Error) -> Failure {
    let url = error.url().map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    let exit = if error.is_timeout() { Exit::TimedOut } else { Exit::Failed };
    let cause = anyhow::Error::from(error.without_url());
    let cause: Vec<_> = cause.chain().skip(1).map(ToString::to_string).collect();
    Failure::new(exit, format!("cannot reach the fleet server at {url}: {}", cause.join(": ")))
        .help("is it running, and is the URL of `fleetctl login` the operators' one?")
}

/// The OCI distribution specification's error form, which the registry uses.
#[derive(serde::Deserialize)]
struct OciErrors {
    errors: Vec<OciError>,
}

#[derive(serde::Deserialize)]
struct OciError {
    code: String,
    #[serde(default)]
    message: String,
}

fn refused(status: StatusCode, body: &[u8]) -> Failure {
    let exit = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Auth,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Exit::Conflict,
        StatusCode::GATEWAY_TIMEOUT => Exit::TimedOut,
        _ => Exit::Failed,
    };
    if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        let failure = Failure::new(exit, format!("{} ({})", problem.detail, problem.code));
        let failure = Failure { code: Some(problem.code), ..failure };
        return match problem.help {
            Some(help) => failure.help(help),
            None => failure,
        };
    }
    if let Ok(OciErrors { errors }) = serde_json::from_slice::<OciErrors>(body) {
        let texts: Vec<_> =
            errors.iter().map(|error| format!("{}: {}", error.code, error.message)).collect();
        return Failure::new(exit, texts.join("; "));
    }
    Failure::new(exit, format!("the fleet server answered {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_becomes_its_text_its_help_and_its_exit_code() {
        let body = br#"{"type":"t","title":"x","status":409,"code":"conflict",
                        "detail":"rollout r-1 has changed","help":"look again"}"#;
        let failure = refused(StatusCode::CONFLICT, body);
        assert_eq!(failure.exit, Exit::Conflict);
        assert_eq!(failure.to_string(), "rollout r-1 has changed (conflict)\nhelp: look again");
    }

    #[test]
    fn a_registry_error_is_told_in_its_own_words() {
        let body = br#"{"errors":[{"code":"DIGEST_INVALID","message":"sha256 differs"}]}"#;
        let failure = refused(StatusCode::BAD_REQUEST, body);
        assert_eq!(failure.to_string(), "DIGEST_INVALID: sha256 differs");
    }

    #[test]
    fn a_page_of_html_is_not_printed() {
        let failure = refused(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(failure.to_string(), "the fleet server answered 502 Bad Gateway");
    }
}

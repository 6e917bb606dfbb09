//! The fleet server's HTTPS port for devices: metadata, images, directives. Everything that comes from it is checked elsewhere.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, RANGE};
use reqwest::{Client, Response, StatusCode};
use rustls::ClientConfig;
use sealift_protocol::api::Problem;
use sealift_protocol::limits::REASON_CHARS_MAX;
use serde::Serialize;

/// A server that does not answer in this time is out of reach.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A server that sends nothing for this long in the middle of an answer is out of reach.
const READ_MAX: Duration = Duration::from_secs(30);

/// Idle connections are closed after this time: most devices ask a few times an hour.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// A way to one fleet server, as one device.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// All clones are one: a new certificate is new for all.
    client: Arc<RwLock<Client>>,
    base: String,
}

/// Why the server gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OriginError {
    #[error("cannot use {0} as the server's address, or its TLS settings")]
    Setup(String),
    #[error("cannot reach the server: {0}")]
    Unreachable(String),
    #[error("server answers {status} to {path}: {text}")]
    Status { status: u16, path: String, code: String, text: String },
    #[error("{path} is longer than {max_bytes} bytes")]
    TooLarge { path: String, max_bytes: usize },
}

impl OriginError {
    /// The server's code for its refusal, if it gave one.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Status { code, .. } => Some(code),
            Self::Setup(_) | Self::Unreachable(_) | Self::TooLarge { .. } => None,
        }
    }
}

impl From<reqwest::Error> for OriginError {
    fn from(error: reqwest::Error) -> Self {
        // The innermost cause says what happened; the outer ones repeat the address.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Self::Unreachable(cause.to_string())
    }
}

impl Origin {
    pub(crate) fn new(url: &str, tls: Arc<ClientConfig>) -> Result<Self, OriginError> {
        let base = url.trim_end_matches('/').to_owned();
        if !base.starts_with("https://") {
            return Err(OriginError::Setup(base));
        }
        let client = Arc::new(RwLock::new(client(&base, tls)?));
        Ok(Self { client, base })
    }

    /// Goes on with other TLS settings; what is under way ends with the old ones.
    pub(crate) fn change_tls(&self, tls: Arc<ClientConfig>) -> Result<(), OriginError> {
        let fresh = client(&self.base, tls)?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// A handle of the present client, so that no lock is held while it waits.
    fn client(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A whole document of at most `max_bytes`; none where the server has none.
    pub(crate) async fn get(
        &self,
        path: &str,
        max_bytes: usize,
    ) -> Result<Option<Vec<u8>>, OriginError> {
        let response = self.client().get(format!("{}{path}", self.base)).send().await?;
        match response.status() {
            StatusCode::NOT_FOUND | StatusCode::NO_CONTENT => Ok(None),
            StatusCode::OK => read(response, path, max_bytes).await.map(Some),
            _ => Err(refusal(response, path).await),
        }
    }

    /// Posts JSON and returns the answer's body.
    pub(crate) async fn post<T: Serialize + Sync>(
        &self,
        path: &str,
        body: &T,
        max_bytes: usize,
    ) -> Result<Vec<u8>, OriginError> {
        let json =
            serde_json::to_vec(body).map_err(|error| OriginError::Setup(error.to_string()))?;
        let request = self.client().post(format!("{}{path}", self.base));
        let request = request.header(CONTENT_TYPE, "application/json").body(json);
        let response = request.send().await?;
        if response.status().is_success() {
            return read(response, path, max_bytes).await;
        }
        Err(refusal(response, path).await)
    }

    /// Begins to fetch a blob from byte `from` on. The answer says whether the server starts there or from the beginning.
    pub(crate) async fn blob(&self, path: &str, from: u64) -> Result<Blob, OriginError> {
        let mut request = self.client().get(format!("{}{path}", self.base));
        request = request.header(ACCEPT_ENCODING, "identity");
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = request.send().await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if from > 0 => Ok(Blob { response, starts_at: from }),
            StatusCode::OK => Ok(Blob { response, starts_at: 0 }),
            _ => Err(refusal(response, path).await),
        }
    }
}

fn client(base: &str, tls: Arc<ClientConfig>) -> Result<Client, OriginError> {
    Client::builder()
        .tls_backend_preconfigured(Arc::unwrap_or_clone(tls))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_MAX)
        .read_timeout(READ_MAX)
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(2)
        .build()
        .map_err(|_| OriginError::Setup(base.to_owned()))
}

/// A blob on its way.
#[derive(Debug)]
pub(crate) struct Blob {
    response: Response,
    /// The first byte that comes.
    pub(crate) starts_at: u64,
}

impl Blob {
    /// The next bytes; none at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, OriginError> {
        Ok(self.response.chunk().await?)
    }
}

async fn read(
    mut response: Response,
    path: &str,
    max_bytes: usize,
) -> Result<Vec<u8>, OriginError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > max_bytes {
            return Err(OriginError::TooLarge { path: path.to_owned(), max_bytes });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What the server says about its refusal, as far as a person needs it.
async fn refusal(response: Response, path: &str) -> OriginError {
    const TEXT_BYTES_MAX: usize = 4 << 10;
    const CODE_CHARS_MAX: usize = 60;
    let status = response.status().as_u16();
    let body = read(response, path, TEXT_BYTES_MAX).await.unwrap_or_default();
    let problem: Option<Problem> = serde_json::from_slice(&body).ok();
    let (code, detail) = match problem {
        Some(Problem { code, detail, help: Some(help), .. }) => {
            (code, format!("{detail} (help: {help})"))
        }
        Some(problem) => (problem.code, problem.detail),
        None => (String::new(), "no reason given".to_owned()),
    };
    let text = detail.chars().take(REASON_CHARS_MAX).collect();
    let code = code.chars().take(CODE_CHARS_MAX).collect();
    OriginError::Status { status, path: path.to_owned(), code, text }
}

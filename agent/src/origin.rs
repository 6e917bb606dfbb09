//! The fleet server's HTTPS port for devices: metadata, images, directives. Everything that comes from it is checked elsewhere.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    IF_RANGE, RANGE,
};
use reqwest::{Client, Response, StatusCode};
use rustls::ClientConfig;
use sealift_protocol::api::Problem;
use sealift_protocol::limits::REASON_CHARS_MAX;
use serde::Serialize;

/// A server that does not answer in this time is out of reach.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A server that sends nothing for this long in the middle of an answer is out of reach.
const READ_MAX: Duration = Duration::from_secs(30);

/// A whole document is here in this time, however steadily its bytes drip: metadata of 100 KB at 40 kbit/s. All that a directive
/// waits for are documents.
const DOCUMENT_MAX: Duration = Duration::from_secs(20);

/// Idle connections are closed after this time, within twice of it: what belongs together is asked at once, and ten thousand devices that
/// were told something together must not hold places at the server from each other.
const IDLE_MAX: Duration = Duration::from_secs(1);

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
    #[error("the server takes no connection within {} s", CONNECT_MAX.as_secs())]
    Crowded,
    #[error("server answers {status} to {path}: {text}")]
    Status { status: u16, path: String, code: String, text: String },
    #[error("{path} is longer than {max_bytes} bytes")]
    TooLarge { path: String, max_bytes: u64 },
    #[error("{path} took longer than {} s", DOCUMENT_MAX.as_secs())]
    Late { path: String },
    #[error("{path} came from another place, or in another form, than was asked for")]
    OtherPart { path: String },
}

impl OriginError {
    /// The server's code for its refusal, if it gave one.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Status { code, .. } => Some(code),
            Self::Setup(_)
            | Self::Unreachable(_)
            | Self::Crowded
            | Self::TooLarge { .. }
            | Self::Late { .. }
            | Self::OtherPart { .. } => None,
        }
    }
}

impl From<reqwest::Error> for OriginError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_connect() && error.is_timeout() {
            return Self::Crowded;
        }
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

    /// Another server, with the same TLS settings, now and later.
    pub(crate) fn beside(&self, base: &str) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        Self { client: Arc::clone(&self.client), base }
    }

    /// Where it is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// A whole document of at most `max_bytes`; none where the server has none.
    pub(crate) async fn get(
        &self,
        path: &str,
        max_bytes: usize,
    ) -> Result<Option<Vec<u8>>, OriginError> {
        in_time(path, self.get_whole(path, max_bytes)).await
    }

    async fn get_whole(
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
        in_time(path, async {
            let response = request.send().await?;
            if response.status().is_success() {
                return read(response, path, max_bytes).await;
            }
            Err(refusal(response, path).await)
        })
        .await
    }

    /// Puts bytes to where they belong.
    pub(crate) async fn put(&self, path: &str, bytes: Vec<u8>) -> Result<(), OriginError> {
        self.put_and_read(path, bytes, 0).await.map(drop)
    }

    /// Puts bytes to where they belong, and returns the answer's body.
    pub(crate) async fn put_and_read(
        &self,
        path: &str,
        bytes: Vec<u8>,
        max_bytes: usize,
    ) -> Result<Vec<u8>, OriginError> {
        let request = self.client().put(format!("{}{path}", self.base));
        let request = request.header(CONTENT_TYPE, "application/cbor").body(bytes);
        in_time(path, async {
            let response = request.send().await?;
            if response.status().is_success() {
                return read(response, path, max_bytes).await;
            }
            Err(refusal(response, path).await)
        })
        .await
    }

    /// Begins to fetch a part of a blob. The answer says whether it starts there or at the beginning.
    pub(crate) async fn blob(&self, part: &Part<'_>) -> Result<Blob, OriginError> {
        let Part { path, range, size, etag } = part;
        let mut request = self.client().get(format!("{}{path}", self.base));
        request = request.header(ACCEPT_ENCODING, "identity");
        let is_whole = *range == (0..*size);
        if !is_whole {
            // An open end where that is meant: fewer servers are confused by it.
            let last = if range.end < *size { (range.end - 1).to_string() } else { String::new() };
            request = request.header(RANGE, format!("bytes={}-{last}", range.start));
        }
        // RFC 9110, section 13.1.5: the part only if it is one of the same content, else the whole.
        if let Some(etag) = etag.filter(|_| !is_whole) {
            request = request.header(IF_RANGE, etag);
        }
        let response = in_time(path, async { Ok(request.send().await?) }).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if !is_whole => part.begin(response),
            StatusCode::OK => part.begin(response),
            _ => Err(refusal(response, path).await),
        }
    }
}

/// What is asked for of a blob.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) path: &'a str,
    /// Bytes from the first to before the last.
    pub(crate) range: Range<u64>,
    /// Of the whole blob, as it was signed.
    pub(crate) size: u64,
    /// What the server called the content when it sent another part.
    pub(crate) etag: Option<&'a str>,
}

impl Part<'_> {
    /// Looks at the head of an answer. Rule (RFC 9110, section 15.3.7): a part says which one it is, and that must be the one that was
    /// asked for.
    fn begin(&self, response: Response) -> Result<Blob, OriginError> {
        let headers = response.headers();
        let other = || OriginError::OtherPart { path: self.path.to_owned() };
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        let range = if is_part { self.range.clone() } else { 0..self.size };
        if text(headers, &CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(other());
        }
        let place = text(headers, &CONTENT_RANGE).filter(|_| is_part);
        if place.is_some_and(|place| content_range(place, self.size) != Some(range.clone())) {
            return Err(other());
        }
        let declared = response.content_length();
        let max_bytes = range.end - range.start;
        if declared.is_some_and(|declared| declared > max_bytes) {
            return Err(OriginError::TooLarge { path: self.path.to_owned(), max_bytes });
        }
        // A weak one says too little to go on with a part (RFC 9110, section 13.1.5).
        let etag = text(headers, &ETAG).filter(|etag| etag.starts_with('"'));
        let etag = etag.filter(|etag| etag.len() <= ETAG_BYTES_MAX).map(str::to_owned);
        let is_declared = declared == Some(max_bytes);
        Ok(Blob { response, range, is_declared, etag })
    }
}

/// A digest in quotes, and some more.
const ETAG_BYTES_MAX: usize = 200;

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// `bytes FIRST-LAST/SIZE`; none for another form or another size.
fn content_range(text: &str, size: u64) -> Option<Range<u64>> {
    let (place, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = place.split_once('-')?;
    let is_size = total == "*" || total.parse() == Ok(size);
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    is_size.then_some(first..last.checked_add(1)?)
}

/// Gives up on a document that does not come to its end.
async fn in_time<T>(
    path: &str,
    work: impl Future<Output = Result<T, OriginError>>,
) -> Result<T, OriginError> {
    let late = |_| Err(OriginError::Late { path: path.to_owned() });
    tokio::time::timeout(DOCUMENT_MAX, work).await.unwrap_or_else(late)
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

/// A part of a blob, on its way.
#[derive(Debug)]
pub(crate) struct Blob {
    response: Response,
    /// The bytes that come.
    pub(crate) range: Range<u64>,
    /// Whether the head promised exactly those, so that nothing comes after them.
    pub(crate) is_declared: bool,
    pub(crate) etag: Option<String>,
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
            let max_bytes = max_bytes as u64;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_says_which_one_it_is() {
        assert_eq!(content_range("bytes 2-9/10", 10), Some(2..10));
        assert_eq!(content_range("bytes 2-9/*", 10), Some(2..10));
        assert_eq!(content_range("bytes 2-9/11", 10), None, "of another content");
        assert_eq!(content_range("bytes 2-18446744073709551615/*", 10), None);
        assert_eq!(content_range("items 2-9/10", 10), None);
        assert_eq!(content_range("bytes */10", 10), None);
    }

    impl Origin {
        /// Whatever is at an address, also in clear text: for tests.
        pub(crate) fn of_test(base: &str) -> Self {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let tls = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            Self::new("https://127.0.0.1:1", Arc::new(tls)).unwrap().beside(base)
        }
    }
}

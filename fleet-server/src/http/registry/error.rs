//! Errors of the registry, in the form of the OCI distribution specification.

use axum::Json;
use axum::http::header::{CONTENT_RANGE, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::insert;
use super::upload::received;
use crate::blobs::BlobError;
use crate::http::error::ApiError;
use crate::registry::document::InvalidDocument;
use crate::registry::name::Repository;
use crate::store::StoreError;
use crate::store::loose::InUse;
use crate::store::repositories::LinkFault;

/// Why the registry refused a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OciError {
    /// No token, or one that is not known.
    #[error("a token is needed: as bearer token, or as password of any user")]
    Unauthorized,
    /// A token that may not push.
    #[error("pushing and deleting need the role publisher or admin")]
    Denied,
    /// Too many wrong tokens.
    #[error("too many wrong tokens from this address; wait a minute")]
    Throttled,
    /// A signed or deployed version needs it.
    #[error("{0}")]
    InUse(String),
    /// A version that is there with other bytes.
    #[error("{0} is a version with another digest; a version never changes, push a new one")]
    VersionTaken(String),
    /// A path that is none of the specification.
    #[error("there is no such path below /v2/")]
    NoRoute,
    /// A method that the path does not have.
    #[error("the registry does not do this")]
    Unsupported,
    /// A name that is none of a repository.
    #[error("{0}")]
    Name(String),
    /// A repository where nothing was ever pushed.
    #[error("there is no such repository")]
    NameUnknown,
    /// A tag that is not one.
    #[error("`{0}` is neither a tag nor a digest")]
    Tag(String),
    /// A page that cannot be had.
    #[error("`n` is not a number of tags")]
    PageSize,
    /// A digest that is none, or not that of the bytes.
    #[error("{0}")]
    Digest(String),
    /// No such blob in the repository.
    #[error("the blob is not in this repository")]
    BlobUnknown,
    /// No such manifest in the repository.
    #[error("the manifest is not in this repository")]
    ManifestUnknown,
    /// Bytes that are no manifest.
    #[error(transparent)]
    Document(InvalidDocument),
    /// What a manifest names is not as it says.
    #[error(transparent)]
    Link(LinkFault),
    /// No such upload, or one that has ended.
    #[error("the upload is not known; begin again")]
    UploadUnknown,
    /// A chunk out of order.
    #[error("the upload has {bytes} bytes; go on there")]
    UploadRange {
        /// Where the upload goes on.
        location: String,
        /// How much has come.
        bytes: u64,
    },
    /// A chunk that is longer or shorter than its range.
    #[error("the chunk's range is not as long as its content")]
    ChunkSize,
    /// A range beyond the blob, which has so many bytes.
    #[error("the blob has {0} bytes, the range is beyond them")]
    BlobRange(u64),
    /// Too much under way.
    #[error("too many uploads are under way; try again later")]
    TooMany,
    /// More bytes than allowed.
    #[error("more than {0} bytes")]
    TooLarge(u64),
    /// The connection broke in an upload.
    #[error("the upload broke off; what came is kept, ask where to go on")]
    Broken,
    /// Blob store or database failed.
    #[error("the registry failed; its log says why")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl OciError {
    /// Refuses to remove what a version needs.
    pub(super) fn in_use(repository: &Repository, InUse { version, is_signed }: InUse) -> Self {
        let why = if is_signed {
            "is signed: its publisher's metadata must stop naming it first"
        } else {
            "is deployed: roll its devices to another version first"
        };
        Self::InUse(format!("version {version} of {repository} needs this and {why}"))
    }

    const fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::Denied | Self::InUse(_) => (StatusCode::FORBIDDEN, "DENIED"),
            Self::VersionTaken(_) => (StatusCode::CONFLICT, "DENIED"),
            Self::NoRoute => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::Unsupported => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::PageSize => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
            Self::Name(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::NameUnknown => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Self::Document(InvalidDocument::TooLarge(_)) | Self::TooLarge(_) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID")
            }
            Self::Tag(_) | Self::Document(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::Link(LinkFault::Missing(_)) => (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
            Self::Link(LinkFault::Size { .. }) | Self::ChunkSize => {
                (StatusCode::BAD_REQUEST, "SIZE_INVALID")
            }
            Self::Digest(_) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::BlobUnknown => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::ManifestUnknown => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::UploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::UploadRange { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            Self::BlobRange(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID"),
            Self::TooMany | Self::Throttled => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::Broken => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }

    /// Whether clients hear it in the normal course of a push or a pull.
    const fn is_usual(&self) -> bool {
        matches!(
            self,
            Self::Unauthorized
                | Self::BlobUnknown
                | Self::ManifestUnknown
                | Self::NameUnknown
                | Self::NoRoute
                | Self::UploadRange { .. }
                | Self::BlobRange(_)
        )
    }

    fn log(&self, status: StatusCode, code: &'static str) {
        let status = status.as_u16();
        if let Self::Internal(error) = self {
            let error = error.as_ref() as &dyn std::error::Error;
            tracing::error!(error, "registry failed");
        } else if self.is_usual() {
            tracing::debug!(status, code, why = %self, "registry answered");
        } else {
            tracing::info!(status, code, why = %self, "registry refused");
        }
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        if matches!(self, Self::Unauthorized) {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"sealift\""));
        }
        if matches!(self, Self::Throttled | Self::TooMany) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
        }
        if let Self::UploadRange { location, bytes } = self {
            insert(headers, LOCATION, location);
            insert(headers, RANGE, &received(*bytes));
        }
        if let Self::BlobRange(size) = self {
            insert(headers, CONTENT_RANGE, &format!("bytes */{size}"));
        }
    }
}

impl From<StoreError> for OciError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Changed(_) => Self::InUse(error.to_string()),
            error @ (StoreError::Url(_)
            | StoreError::Open(_)
            | StoreError::Migrate(_)
            | StoreError::Query(_)
            | StoreError::Corrupt { .. }
            | StoreError::TooLarge(_)) => Self::Internal(error.into()),
        }
    }
}

/// What the door of the operators' port says, in the registry's words.
impl From<ApiError> for OciError {
    fn from(error: ApiError) -> Self {
        error.into_cause().map_or(Self::Denied, Self::Internal)
    }
}

impl From<BlobError> for OciError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Digest { .. } => Self::Digest(error.to_string()),
            BlobError::TooLarge(max) => Self::TooLarge(max),
            BlobError::Missing(digest) => {
                tracing::warn!(%digest, "content has a row and no bytes; push it again");
                Self::BlobUnknown
            }
            BlobError::Place(..) | BlobError::Hash(_) | BlobError::Store(_) => {
                Self::Internal(error.into())
            }
        }
    }
}

impl IntoResponse for OciError {
    fn into_response(self) -> Response {
        let (status, code) = self.kind();
        self.log(status, code);
        let body = json!({ "errors": [{ "code": code, "message": self.to_string() }] });
        let mut response = (status, Json(body)).into_response();
        self.add_headers(response.headers_mut());
        response
    }
}

//! Errors of the registry, in the form of the OCI distribution specification.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::blobs::BlobError;
use crate::registry::PushRefused;
use crate::store::StoreError;

/// Why the registry refused a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OciError {
    /// No token, or one that is not known.
    #[error("a token is needed: as bearer token, or as password of any user")]
    Unauthorized,
    /// A token that may not push.
    #[error("pushing needs the role publisher or admin")]
    Denied,
    /// A repository that is not `team/name`.
    #[error("{0}")]
    Name(String),
    /// A tag that is not one.
    #[error("`{0}` is neither a tag nor a sha256 digest")]
    Tag(String),
    /// A digest that is not SHA-256, or not that of the bytes.
    #[error("{0}")]
    Digest(String),
    /// No such blob in the repository.
    #[error("the blob is not in this repository")]
    BlobUnknown,
    /// No such manifest in the repository.
    #[error("the manifest is not in this repository")]
    ManifestUnknown,
    /// No such upload, or one that has ended.
    #[error("the upload is not known; begin again")]
    UploadUnknown,
    /// A chunk out of order, or a range beyond the blob.
    #[error("the range cannot be had")]
    Range,
    /// Too many uploads at a time.
    #[error("too many uploads are under way")]
    TooMany,
    /// More bytes than allowed.
    #[error("more than {0} bytes")]
    TooLarge(u64),
    /// The connection broke in an upload.
    #[error("the upload broke off")]
    Broken,
    /// A version that is there with other bytes.
    #[error(
        "version {0} is in the registry with another digest; a version never changes, push a new one"
    )]
    VersionTaken(String),
    /// The manifest was refused.
    #[error(transparent)]
    Refused(PushRefused),
    /// Blob store or database failed.
    #[error("the registry failed")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl OciError {
    const fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::Denied => (StatusCode::FORBIDDEN, "DENIED"),
            Self::Name(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::Tag(_) | Self::Refused(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::Digest(_) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::BlobUnknown => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::ManifestUnknown => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::UploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::Range => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Self::Broken => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::VersionTaken(_) => (StatusCode::CONFLICT, "DENIED"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }
}

impl From<StoreError> for OciError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.into())
    }
}

impl From<BlobError> for OciError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Digest { .. } => Self::Digest(error.to_string()),
            BlobError::TooLarge(max) => Self::TooLarge(max),
            BlobError::Missing(_) => Self::BlobUnknown,
            BlobError::Place(..) | BlobError::Staging(_) | BlobError::Store(_) => {
                Self::Internal(error.into())
            }
        }
    }
}

impl From<PushRefused> for OciError {
    fn from(refused: PushRefused) -> Self {
        match refused {
            PushRefused::Blobs(error) => error.into(),
            PushRefused::TooLarge(_)
            | PushRefused::Form(_)
            | PushRefused::Image(_)
            | PushRefused::Contract(_)
            | PushRefused::Layer(..)
            | PushRefused::Baseline(_)
            | PushRefused::Missing { .. }
            | PushRefused::Model { .. }
            | PushRefused::Versions(..)
            | PushRefused::Tag { .. } => Self::Refused(refused),
        }
    }
}

impl IntoResponse for OciError {
    fn into_response(self) -> Response {
        let (status, code) = self.kind();
        if let Self::Internal(error) = &self {
            tracing::error!(error = %Chain(error.as_ref()), "registry failed");
        }
        let body = json!({ "errors": [{ "code": code, "message": self.to_string() }] });
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let realm = axum::http::HeaderValue::from_static("Basic realm=\"sealift\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, realm);
        }
        response
    }
}

/// An error with its causes, for the log.
struct Chain<'a>(&'a (dyn std::error::Error + Send + Sync));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

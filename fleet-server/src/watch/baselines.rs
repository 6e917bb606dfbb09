//! The baselines of versions, out of the images that the registry has.

use std::sync::Arc;

use sealift_protocol::id::ModelName;
use sealift_protocol::limits::BASELINE_BYTES_MAX;
use sealift_protocol::profile::Baseline;
use sealift_protocol::report::ImageRef;

use crate::blobs::{BlobError, Blobs};
use crate::store::{StoreError, TenantStore};

/// Why a baseline cannot be read now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaselineError {
    /// The store.
    #[error("versions cannot be read")]
    Store(#[from] StoreError),
    /// The blobs.
    #[error("the baseline of {model} cannot be read")]
    Blob {
        /// The model.
        model: ModelName,
        /// Why.
        #[source]
        source: BlobError,
    },
}

/// Where baselines are found; cheap to clone.
#[derive(Clone)]
pub(crate) struct Baselines {
    store: TenantStore,
    blobs: Blobs,
}

impl Baselines {
    /// The baselines of one tenant's versions.
    pub(crate) const fn new(store: TenantStore, blobs: Blobs) -> Self {
        Self { store, blobs }
    }

    /// The baseline of an image. Without a valid one nothing is judged, and nothing else has to wait for it.
    pub(crate) async fn of(
        &self,
        model: &ModelName,
        image: &ImageRef,
    ) -> Result<Option<Arc<Baseline>>, BaselineError> {
        let version = &image.version;
        let row = self.store.version(model, version).await?;
        // Who sends a window may name any version; the image says which bins were counted on.
        let row = row.filter(|row| row.digest == image.index);
        let Some(digest) = row.and_then(|row| row.baseline) else { return Ok(None) };
        let bytes = match self.blobs.read(digest, BASELINE_BYTES_MAX as u64).await {
            Ok(bytes) => bytes,
            Err(error @ (BlobError::Missing(_) | BlobError::TooLarge(_))) => {
                tracing::warn!(%model, %version, %error, "no baseline; drift is not judged");
                return Ok(None);
            }
            Err(source) => return Err(BaselineError::Blob { model: model.clone(), source }),
        };
        match Baseline::decode(&bytes) {
            Ok(baseline) => Ok(Some(Arc::new(baseline))),
            Err(error) => {
                tracing::warn!(%model, %version, %error, "baseline not valid; drift is not judged");
                Ok(None)
            }
        }
    }
}

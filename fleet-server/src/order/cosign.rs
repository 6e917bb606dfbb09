//! An operator puts a second signature under a rollout, made with a key that is not on the server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealift_protocol::directive::{ApprovalRefused, Cosignature, DesiredSlot};
use sealift_protocol::id::RolloutId;

use super::{Asker, OrderError};
use crate::audit::Deed;
use crate::directive::Director;
use crate::store::{StoreError, TenantStore};
use crate::trust::{Trust, TrustError};

/// Why a signature was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CosignError {
    /// The rollout, or the store.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The trust bundle cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Not base64.
    #[error("the signature is not base64")]
    Form,
    /// No operator's, or for something else.
    #[error("the signature is refused: {0}")]
    Refused(#[from] ApprovalRefused),
}

impl From<StoreError> for CosignError {
    fn from(error: StoreError) -> Self {
        Self::Order(error.into())
    }
}

/// Takes a signature that devices would take, and signs the directives again that they have not followed yet.
pub(crate) async fn cosign(
    (store, trust, director): (&TenantStore, &Trust, &Director),
    id: RolloutId,
    text: &str,
    asker: Asker<'_>,
) -> Result<(), CosignError> {
    let row = store.rollout(id).await?.ok_or(OrderError::NoRollout(id))?;
    let bytes = STANDARD.decode(text).map_err(|_| CosignError::Form)?;
    let cosignature = Some(Cosignature(bytes));
    let slot = DesiredSlot { campaign: row.campaign, cosignature, ..row.order.slot(id) };
    let operator = slot.check_approval(store.tenant(), &trust.operators().await?)?;
    let mut change = store.begin().await?;
    change.set_cosignature(id, text).await?;
    let devices = store.devices_before(id).await?.into_iter().collect();
    change.renew_directives(&devices, director, asker.now).await?;
    let (subject, detail) = (id.to_string(), format!("operator key {operator}"));
    let deed = Deed {
        actor: asker.name,
        action: "rollout.cosign",
        subject: &subject,
        reason: None,
        detail: &detail,
    };
    change.audit(&deed, asker.now).await?;
    change.commit().await?;
    Ok(())
}

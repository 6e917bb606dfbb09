//! Bodies of `/api/v1`, shared by the server and whoever speaks to it. JSON; times are milliseconds since 1970 UTC.
//!
//! Lists are paged by keyset: `?limit=` (at most 1,000) and `?cursor=` from the page before. Errors are [`Problem`] (RFC 9457).

mod alert;
mod campaign;
mod device;
mod drift;
mod model;
mod operate;
mod revocation;
mod rollout;
#[cfg(feature = "openapi")]
mod schema;

pub use alert::{Acknowledge, AlertState, AlertView, WebhookNew, WebhookView};
pub use campaign::Campaign;
pub use device::{
    DeviceState, DeviceView, EnrolRequest, EnrolResponse, EnrolTokenCreated, EnrolTokenNew,
    EnrolTokenView, HealthView, LabelsChange, SlotView, TimelineEntry,
};
pub use drift::{DriftPoint, DriftQuery, DriftState, DriftView, HistogramView};
pub use model::{ModelView, VersionState, VersionView};
pub use operate::{
    AttentionItem, AuditEntry, ModelAdoption, Page, Problem, Role, SessionNew, SessionView, Status,
};
pub use revocation::{RevocationKind, RevocationView, RevokedVersion};
pub use rollout::{
    Action, AllowedAction, CosignNew, DeviceProgress, GateView, RollbackRequest, RollbackResult,
    RollbackTarget, RolloutNew, RolloutState, RolloutView, WavePlan, WaveState, WaveView, WhyView,
};

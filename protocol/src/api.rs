//! Bodies of `/api/v1`, shared by the server and whoever speaks to it. JSON; times are milliseconds since 1970 UTC.
//!
//! Lists are paged by keyset: `?limit=` (at most 1,000) and `?cursor=` from the page before. Errors are [`Problem`] (RFC 9457).

mod alert;
mod alerting;
mod campaign;
mod channel;
mod device;
mod drift;
mod enrol;
mod forecast;
mod halt;
mod model;
mod operate;
mod request;
mod review;
mod revocation;
mod operator;
mod rollback;
mod rollout;
#[cfg(feature = "openapi")]
mod schema;

pub use alert::{Acknowledge, AlertState, AlertView};
pub use alerting::{
    AtLeast, BacktestNew, BacktestOf, BacktestView, FiringView, KindChange, KindView, RuleNew,
    RuleView, SilenceNew, SilenceView,
};
pub use campaign::Campaign;
pub use channel::{
    AlertSeverity, ChannelKind, ChannelNew, ChannelView, DeliveryState, DeliveryView, Destination,
    Mail, MailTls,
};
pub use device::{
    DeviceForget, DeviceForgotten, DeviceRevoke, DeviceState, DeviceView, EnrolRequest,
    EnrolResponse, EnrolTokenCreated, EnrolTokenNew, EnrolTokenView, HealthView, LabelsChange,
    RenewRequest, RenewResponse, SlotView, TimelineEntry,
};
pub use drift::{
    ComparedWith, DeviceComparison, DeviceDriftView, DeviceNature, DifferentView, DriftPoint,
    DriftQuery, DriftState, DriftView, HistogramView, HistoryPoint, SeenTake, SeenTaken,
};
pub use enrol::{
    ClaimAnswer, ClaimFile, ClaimRequest, EnrolClaimCreated, EnrolClaimNew, EnrolClaimView,
    EnrolDeny, EnrolRequestState, EnrolRequestView, EnrolSerial, EnrolSerialView,
    EnrolSerialsAdded, EnrolSerialsNew,
};
pub use forecast::{
    FactPoint, Finding, FindingSeverity, ForecastBasis, ForecastPoint, ForecastRefusal,
    RolloutCourse, RolloutForecast,
};
pub use halt::{HaltNew, HaltOrder, HaltView};
pub use model::{ModelView, VersionState, VersionView};
pub use operate::{
    AttentionItem, AuditCheckpoint, AuditEntry, AuditKeyView, AuditProof, ModelAdoption, Page,
    Problem, Status, TargetGroup,
};
pub use operator::{
    DeviceLogin, DevicePoll, DeviceProgressed, LoginMethod, LoginToken, LoginWays, OperatorChange,
    OperatorNew, OperatorSaved, OperatorView, PasswordLogin, Role, SessionEntry, SessionNew,
    SessionView, StepUp, TokenCreated, TokenNew, TokenView,
};
pub use request::{BatchResultState, BatchResultView, InferView, LogsNew};
pub use review::{
    AccuracyGroup, AccuracyReport, AccuracyView, AgreementView, CaptureListView, CaptureNew,
    CaptureView, LabelNew, LabelSource, LabelView, LabelsTaken, QueueView, RetrainRule,
    RetrainingNew, RetrainingRequested, SampleDetail, SampleLabel, SampleView, TensorView,
};
pub use revocation::{RevocationKind, RevocationView, RevokedVersion};
pub use rollback::{
    RollbackRequest, RollbackResult, RollbackStep, RollbackTarget, RollbackUntouched,
};
pub use rollout::{
    Action, AllowedAction, Budget, CosignNew, DeviceProgress, EvidenceView, GateView, LateView,
    ModelGates, ReversionView, RolloutNew, RolloutState, RolloutView, WavePlan, WaveState,
    WaveView, WhyView,
};

//! Rules of alerts, silences, and what a rule would have done.

use serde::{Deserialize, Serialize};

use super::AlertSeverity;
use crate::id::UnixMillis;

/// `POST /silences`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SilenceNew {
    /// Nobody is told of alerts that all of these match: `site=osaka`, `kind=device-silent`.
    pub matchers: Vec<String>,
    /// Why.
    pub reason: String,
    /// For how long from now.
    pub for_s: u64,
}

/// `GET /silences`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SilenceView {
    /// Its number.
    pub id: u64,
    /// Nobody is told of alerts that all of these match.
    pub matchers: Vec<String>,
    /// Why.
    pub reason: String,
    /// Who said so.
    pub created_by: String,
    /// When.
    pub created_at: UnixMillis,
    /// Its end.
    pub until: UnixMillis,
    /// Open alerts that it covers now.
    pub covers: u64,
}

/// What an operator has changed about a kind of alert; what is not given is as built in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KindChange {
    /// How long it must hold before people are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_s: Option<u64>,
    /// How bad it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<AlertSeverity>,
    /// No alert of the kind is opened.
    pub is_off: bool,
}

/// `GET /alert-kinds`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KindView {
    /// Its name.
    pub kind: String,
    /// What it means.
    pub meaning: String,
    /// How long it must hold, as built in.
    pub hold_s: u64,
    /// What an operator has changed.
    pub change: KindChange,
}

/// How many devices a rule takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AtLeast {
    /// So many.
    Devices(u32),
    /// Such a share of all devices that are not revoked, in per cent.
    Percent(u8),
}

/// `POST /alert-rules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RuleNew {
    /// What people call it: 1 to 40 of a-z, 0-9, `-`, `_`; not taken.
    pub name: String,
    /// Which devices, such as `site:osaka state:offline`.
    pub filter: String,
    /// How many of them it takes.
    pub at_least: AtLeast,
    /// How long that must hold.
    #[serde(default)]
    pub hold_s: u64,
    /// How bad it is.
    pub severity: AlertSeverity,
}

/// `GET /alert-rules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RuleView {
    /// Its number.
    pub id: u64,
    /// What it asks.
    #[serde(flatten)]
    pub rule: RuleNew,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: UnixMillis,
    /// Since when it holds; none if it does not.
    pub since: Option<UnixMillis>,
}

/// What is to be tried on what was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BacktestOf {
    /// A kind of alert.
    Kind(String),
    /// A rule that there is, by its name.
    Rule(String),
    /// A rule that there is not yet.
    New(RuleNew),
}

/// `POST /alert-rules/test`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BacktestNew {
    /// What.
    pub of: BacktestOf,
    /// How long it must hold; as it is now if not given.
    #[serde(default)]
    pub hold_s: Option<u64>,
    /// How far back.
    pub since_s: u64,
}

/// What would have happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BacktestView {
    /// From when on something is recorded, and was looked at.
    pub from: UnixMillis,
    /// Until when.
    pub until: UnixMillis,
    /// How often people would have been told that it began.
    pub fired: u64,
    /// When, newest first; the newest hundred.
    pub firings: Vec<FiringView>,
    /// What it was looked up in, and what that does not hold.
    pub source: String,
}

/// One time that a rule would have fired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FiringView {
    /// When people would have been told.
    pub at: UnixMillis,
    /// When it would have been over; none if it still holds.
    pub until: Option<UnixMillis>,
    /// About what.
    pub subject: String,
}

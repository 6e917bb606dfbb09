//! Alerts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AlertId, UnixMillis};

/// Where an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AlertState {
    /// Nobody has said that they look after it.
    Open,
    /// Somebody looks after it.
    Acknowledged,
    /// What it was about is over.
    Closed,
}

/// `GET /alerts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlertView {
    /// Its id.
    pub id: AlertId,
    /// Where it is.
    pub state: AlertState,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// `drift`, `rollout-halted`, `device-silent`, `security`, …
    pub kind: String,
    /// In a few words.
    pub title: String,
    /// What happened, to what.
    pub detail: String,
    /// What to do next.
    pub help: String,
    /// What it is about: `model`, `scope`, `group`, `rollout`, `device`, …
    pub labels: BTreeMap<String, String>,
    /// When it was opened.
    pub opened_at: UnixMillis,
    /// When it was last seen to hold.
    pub seen_at: UnixMillis,
    /// When it was closed.
    pub closed_at: Option<UnixMillis>,
    /// Who looks after it.
    pub acknowledged_by: Option<String>,
    /// What they said.
    pub note: Option<String>,
    /// Until when nobody is told of it; none if no silence covers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silenced_until: Option<UnixMillis>,
}

/// `POST /alerts/{id}/acknowledge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Acknowledge {
    /// What to tell the others.
    #[serde(default)]
    pub note: String,
}

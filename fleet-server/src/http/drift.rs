//! `/api/v1/drift`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use sealift_protocol::api::{
    DeviceDriftView, DriftPoint, DriftView, HistogramView, HistoryPoint, Page, Problem,
};
use sealift_protocol::id::{DeviceId, ModelName, UnixMillis};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::Caller;
use super::error::ApiError;
use super::page::PageQuery;
use super::reach;
use crate::clock;
use crate::drift::{Scope, Subject};
use crate::history::{Question, SPANS_MAX};
use crate::store::spans::Length;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(devices))
        .routes(routes!(series))
        .routes(routes!(history))
        .routes(routes!(histogram))
}

/// Which verdicts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only of this model.
    #[serde(default)]
    model: Option<ModelName>,
    /// Only in this scope: `fleet`, `site=osaka`, `device:cam-1`.
    #[serde(default)]
    scope: Option<String>,
}

/// Lists the newest verdict of each subject in each scope, by model, scope and subject.
#[utoipa::path(get, path = "/api/v1/drift", tag = "drift", params(ListQuery, PageQuery),
    responses((status = 200, body = Page<DriftView>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(ListQuery { model, scope }): Query<ListQuery>,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<DriftView>>, ApiError> {
    let is_asked = |view: &DriftView| {
        model.as_ref().is_none_or(|model| view.model == *model)
            && scope.as_ref().is_none_or(|scope| view.scope == *scope)
    };
    let verdicts: Vec<_> = app.watch.verdicts().into_iter().filter(is_asked).collect();
    Ok(Json(slice(in_reach(&app, &caller, verdicts).await?, &paging)))
}

/// Which devices.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DevicesQuery {
    /// Only with this model.
    #[serde(default)]
    model: Option<ModelName>,
    /// Only this device.
    #[serde(default)]
    device: Option<DeviceId>,
}

/// Lists where devices stand, each by itself: against its cohort, its own past and the reference; by model and device.
#[utoipa::path(get, path = "/api/v1/drift/devices", tag = "drift", params(DevicesQuery, PageQuery),
    responses((status = 200, body = Page<DeviceDriftView>)))]
async fn devices(
    State(app): State<App>,
    caller: Caller,
    Query(DevicesQuery { model, device }): Query<DevicesQuery>,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<DeviceDriftView>>, ApiError> {
    let is_asked = |view: &DeviceDriftView| {
        model.as_ref().is_none_or(|model| view.model == *model)
            && device.as_ref().is_none_or(|device| view.device == *device)
    };
    let presence = app.patience.presence(clock::now());
    let mut seen = Vec::new();
    for view in app.watch.devices().into_iter().filter(is_asked) {
        let scope = Scope::Device(view.device.clone());
        if reach::sees_drift(&app, caller.reach(), &scope, presence).await? {
            seen.push(view);
        }
    }
    Ok(Json(slice(seen, &paging)))
}

async fn in_reach(
    app: &App,
    caller: &Caller,
    verdicts: Vec<DriftView>,
) -> Result<Vec<DriftView>, ApiError> {
    if caller.reach().is_whole() {
        return Ok(verdicts);
    }
    let presence = app.patience.presence(clock::now());
    let mut known: BTreeMap<String, bool> = BTreeMap::new();
    let mut seen = Vec::new();
    for verdict in verdicts {
        let is_seen = match known.get(&verdict.scope) {
            Some(&is_seen) => is_seen,
            None => match Scope::parse(&verdict.scope) {
                Ok(scope) => reach::sees_drift(app, caller.reach(), &scope, presence).await?,
                Err(_) => false, // nobody's
            },
        };
        known.insert(verdict.scope.clone(), is_seen);
        if is_seen {
            seen.push(verdict);
        }
    }
    Ok(seen)
}

/// A page of a list that is at hand; the cursor is a position.
fn slice<T>(all: Vec<T>, paging: &PageQuery) -> Page<T> {
    let total = all.len();
    let start = paging.number().and_then(|start| usize::try_from(start).ok()).unwrap_or(0);
    let limit = usize::try_from(paging.limit()).unwrap_or(usize::MAX);
    let items: Vec<_> = all.into_iter().skip(start).take(limit).collect();
    let end = start.saturating_add(items.len());
    let next_cursor = (end < total).then(|| end.to_string());
    Page { items, total: u64::try_from(total).unwrap_or(u64::MAX), next_cursor }
}

/// One subject in one scope.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SubjectQuery {
    /// The model.
    model: ModelName,
    /// `fleet`, `site=osaka`, `device:cam-1`.
    scope: String,
    /// `feature:p00`, `group:upper-left`, `prediction`, `confidence`.
    subject: String,
}

impl SubjectQuery {
    fn parse(&self) -> Result<(Scope, Subject), ApiError> {
        let scope = Scope::parse(&self.scope)
            .map_err(|error| ApiError::invalid("drift.scope", error.to_string()))?;
        let subject = Subject::parse(&self.subject)
            .map_err(|error| ApiError::invalid("drift.subject", error.to_string()))?;
        Ok((scope, subject))
    }
}

async fn check(app: &App, caller: &Caller, scope: &Scope) -> Result<(), ApiError> {
    let presence = app.patience.presence(clock::now());
    if reach::sees_drift(app, caller.reach(), scope, presence).await? {
        return Ok(());
    }
    let detail = format!("`{scope}` is beyond your scope `{}`", caller.reach());
    Err(ApiError::beyond_scope(detail))
}

/// What a subject's verdicts were, oldest first.
#[utoipa::path(get, path = "/api/v1/drift/series", tag = "drift", params(SubjectQuery),
    responses((status = 200, body = Vec<DriftPoint>)))]
async fn series(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<SubjectQuery>,
) -> Result<Json<Vec<DriftPoint>>, ApiError> {
    let (scope, subject) = query.parse()?;
    check(&app, &caller, &scope).await?;
    Ok(Json(app.watch.series(&query.model, &scope, &subject)))
}

/// From when to when, and how finely.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SpanQuery {
    /// Begin, ms since 1970; 14 days ago if not given.
    #[serde(default)]
    from: Option<UnixMillis>,
    /// End, ms since 1970; now if not given.
    #[serde(default)]
    until: Option<UnixMillis>,
    /// `hour` or `day`; days if not given. Hours become days when they are old.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    step: Option<Length>,
}

/// How a subject stood in each hour or day, oldest first, from sums that are kept long after the windows are gone.
#[utoipa::path(get, path = "/api/v1/drift/history", tag = "drift", params(SubjectQuery, SpanQuery),
    responses((status = 200, body = Vec<HistoryPoint>), (status = 422, body = Problem)))]
async fn history(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<SubjectQuery>,
    Query(SpanQuery { from, until, step }): Query<SpanQuery>,
) -> Result<Json<Vec<HistoryPoint>>, ApiError> {
    let (scope, subject) = query.parse()?;
    check(&app, &caller, &scope).await?;
    let until = until.unwrap_or_else(clock::now);
    let from = from.unwrap_or_else(|| until.plus(-14 * Length::Day.ms()));
    let length = step.unwrap_or(Length::Day);
    let spans = until.since(from) / length.ms();
    if !(0..=i64::from(SPANS_MAX)).contains(&spans) {
        let detail = format!("from {from} until {until} is not between 0 and {SPANS_MAX} spans");
        return Err(ApiError::invalid("drift.span", detail).help("ask for days, or for less"));
    }
    let asked = Question { model: query.model, scope, subject, length, from, until };
    Ok(Json(app.history.look(&asked).await?))
}

/// Reference and current rows of a subject, on the reference's bins.
#[utoipa::path(get, path = "/api/v1/drift/histogram", tag = "drift", params(SubjectQuery),
    responses((status = 200, body = HistogramView)))]
async fn histogram(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<SubjectQuery>,
) -> Result<Json<HistogramView>, ApiError> {
    let (scope, subject) = query.parse()?;
    check(&app, &caller, &scope).await?;
    let found = app.watch.histogram(&query.model, &scope, &subject);
    found.map(Json).ok_or_else(|| {
        let what = format!(
            "nothing was judged yet of {subject} in {scope} of {}, or it is a group: its features have histograms",
            query.model,
        );
        ApiError::not_found("drift.not-found", what)
    })
}

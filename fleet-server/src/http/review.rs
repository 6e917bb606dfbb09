//! `/api/v1/review`: what devices keep of their predictions, who labels it, and what the labels tell.

mod figures;
mod samples;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use sealift_protocol::api::{CaptureListView, CaptureNew, CaptureView, Problem};
use sealift_protocol::id::ModelName;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::Caller;
use super::error::ApiError;
use crate::clock;
use crate::order::Asker;
use crate::review::{self, ReviewError};
use crate::store::captures::{PolicyRow, Totals};
use crate::store::halt::{Confirmations, List};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(enable, disable))
        .merge(samples::router())
        .merge(figures::router())
}

impl From<ReviewError> for ApiError {
    fn from(error: ReviewError) -> Self {
        let text = error.to_string();
        match error {
            ReviewError::Store(error) => error.into(),
            ReviewError::Policy(_) | ReviewError::Share(_) | ReviewError::Models => {
                Self::invalid("review.policy", text)
                    .help("docs/review.md lists what a policy may say, and how much")
            }
            ReviewError::Off(_) => Self::new(StatusCode::CONFLICT, "capture.off", text)
                .help("`fleetctl review enable` has devices keep something of it"),
            ReviewError::UnknownModel(_) => Self::not_found("model.not-found", text),
            ReviewError::UnknownSample => Self::not_found("sample.not-found", text),
            ReviewError::Label => Self::invalid("label.invalid", text),
            ReviewError::Sample(_) | ReviewError::Sealed(_) => {
                Self::invalid("sample.invalid", text)
            }
            ReviewError::Part(_) => Self::invalid("sample.part", text),
            ReviewError::TooMany => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "sample.too-many", text)
            }
            ReviewError::TooMuch(_) => Self::invalid("review.too-much", text)
                .help("give `from` and `until` that are closer together"),
            error @ (ReviewError::Key(_) | ReviewError::Encode(_)) => Self::internal(error),
        }
    }
}

/// Lists what devices keep of which models, and what came of it.
#[utoipa::path(get, path = "/api/v1/review/policies", tag = "review",
    responses((status = 200, body = Vec<CaptureView>)))]
async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<CaptureView>>, ApiError> {
    let list = newest(&app, &caller).await?;
    let totals = app.store.sample_totals().await?;
    let totals: BTreeMap<_, _> =
        totals.into_iter().map(|totals| (totals.model.clone(), totals)).collect();
    let policies = app.store.capture_policies().await?;
    policies.into_iter().map(|row| view(row, &totals, list)).collect::<Result<_, _>>().map(Json)
}

/// Has devices keep predictions of a model, by these rules and under this notice. Their owners may forbid it.
#[utoipa::path(put, path = "/api/v1/review/policies/{team}/{name}", tag = "review",
    params(("team" = String, Path), ("name" = String, Path)), request_body = CaptureNew,
    responses((status = 200, body = CaptureView), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
async fn enable(
    State(app): State<App>,
    caller: Caller,
    Path((team, name)): Path<(String, String)>,
    Json(rules): Json<CaptureNew>,
) -> Result<Json<CaptureView>, ApiError> {
    let model = model_name(&team, &name)?;
    let asker = Asker { name: caller.name(), now: clock::now() };
    app.review.enable(&model, &rules, asker).await?;
    one(&app, &caller, &model).await
}

/// Has devices keep nothing more of a model, and delete what waits on them.
#[utoipa::path(delete, path = "/api/v1/review/policies/{team}/{name}", tag = "review",
    params(("team" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = CaptureView), (status = 409, body = Problem)))]
async fn disable(
    State(app): State<App>,
    caller: Caller,
    Path((team, name)): Path<(String, String)>,
) -> Result<Json<CaptureView>, ApiError> {
    let model = model_name(&team, &name)?;
    let asker = Asker { name: caller.name(), now: clock::now() };
    app.review.disable(&model, asker).await?;
    one(&app, &caller, &model).await
}

/// The newest list, and how many devices in the caller's scope have taken it.
async fn newest(app: &App, caller: &Caller) -> Result<CaptureListView, ApiError> {
    let presence = app.patience.presence(clock::now());
    let sequence = app.store.capture_list().await?.sequence;
    let filter = caller.reach().filter();
    let counts = app.store.confirmations((List::Captures, sequence), filter, presence).await?;
    let Confirmations { confirmed, unconfirmed, offline } = counts;
    Ok(CaptureListView { sequence, confirmed, unconfirmed, offline })
}

async fn one(app: &App, caller: &Caller, model: &ModelName) -> Result<Json<CaptureView>, ApiError> {
    let list = newest(app, caller).await?;
    let totals = app.store.sample_totals().await?;
    let totals = totals.into_iter().map(|totals| (totals.model.clone(), totals)).collect();
    let policies = app.store.capture_policies().await?;
    let row = policies.into_iter().find(|row| row.model == *model);
    let row = row.ok_or_else(|| ReviewError::Off(model.clone()))?;
    view(row, &totals, list).map(Json)
}

fn view(
    row: PolicyRow,
    totals: &BTreeMap<ModelName, Totals>,
    list: CaptureListView,
) -> Result<CaptureView, ApiError> {
    let notice_text = review::policy(&row.rules)?.notice_text();
    let totals = totals.get(&row.model);
    Ok(CaptureView {
        model: row.model,
        is_on: row.is_on,
        rules: row.rules,
        notice_text,
        changed_by: row.changed_by,
        changed_at: row.changed_at,
        samples: totals.map_or(0, |totals| totals.samples),
        bytes: totals.map_or(0, |totals| totals.bytes),
        labelled: totals.map_or(0, |totals| totals.labelled),
        lost: row.lost,
        newest_at: totals.map(|totals| totals.newest_at),
        retraining_at: row.retraining.map(|(at, _)| at),
        list,
    })
}

fn model_name(team: &str, name: &str) -> Result<ModelName, ApiError> {
    ModelName::parse(&format!("{team}/{name}"))
        .map_err(|error| ApiError::not_found("model.not-found", error.to_string()))
}

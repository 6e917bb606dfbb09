//! Accuracy, agreement, and the word that a model is to be trained anew.

use axum::Json;
use axum::extract::{Query, State};
use sealift_protocol::api::{
    AccuracyReport, AgreementView, Problem, RetrainingNew, RetrainingRequested,
};
use sealift_protocol::id::{ModelName, UnixMillis, Version};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::App;
use super::super::access::Caller;
use super::super::error::ApiError;
use crate::clock;
use crate::order::{Asker, required_reason};
use crate::review::{By, Question, Reason};
use crate::store::samples::Which;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(accuracy))
        .routes(routes!(agreement))
        .routes(routes!(retraining))
}

/// Of what.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct FiguresQuery {
    /// The model.
    #[param(value_type = String)]
    model: ModelName,
    /// Only this version.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    version: Option<Version>,
    /// Told apart by `day`, or by the value of a device's label such as `site`; by version alone if not given.
    #[serde(default)]
    by: Option<String>,
    /// Predictions from this moment on.
    #[serde(default)]
    from: Option<i64>,
    /// Predictions before this moment.
    #[serde(default)]
    until: Option<i64>,
}

impl FiguresQuery {
    fn which(&self) -> Which<'_> {
        let until = self.until.unwrap_or(clock::now().0.saturating_add(1));
        let from = UnixMillis(self.from.unwrap_or(0));
        Which { model: Some(&self.model), from, until: UnixMillis(until) }
    }
}

/// Measures how often a model is right, by what people and systems say of its predictions.
#[utoipa::path(get, path = "/api/v1/review/accuracy", tag = "review", params(FiguresQuery),
    responses((status = 200, body = AccuracyReport), (status = 422, body = Problem)))]
async fn accuracy(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<FiguresQuery>,
) -> Result<Json<AccuracyReport>, ApiError> {
    sees_all(&caller)?;
    let by = match query.by.as_deref() {
        None | Some("" | "version") => By::Version,
        Some("day") => By::Day,
        Some(label) => By::Label(label.to_owned()),
    };
    let question = Question { which: query.which(), version: query.version.as_ref(), by };
    Ok(Json(app.review.accuracy(&question).await?))
}

/// Says how far people agree who have labelled the same samples.
#[utoipa::path(get, path = "/api/v1/review/agreement", tag = "review", params(FiguresQuery),
    responses((status = 200, body = Vec<AgreementView>), (status = 422, body = Problem)))]
async fn agreement(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<FiguresQuery>,
) -> Result<Json<Vec<AgreementView>>, ApiError> {
    sees_all(&caller)?;
    Ok(Json(app.review.agreement(query.which()).await?))
}

/// Tells every channel that takes warnings that a model is to be trained anew: `retraining.requested`.
#[utoipa::path(post, path = "/api/v1/review/retraining", tag = "review",
    request_body = RetrainingNew,
    responses((status = 200, body = RetrainingRequested), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
async fn retraining(
    State(app): State<App>,
    caller: Caller,
    Json(RetrainingNew { model, reason }): Json<RetrainingNew>,
) -> Result<Json<RetrainingRequested>, ApiError> {
    required_reason(&reason)?;
    let asker = Asker { name: caller.name(), now: clock::now() };
    let reason = Reason::Asked(reason.trim().to_owned());
    Ok(Json(app.review.request_retraining(&model, &reason, asker).await?))
}

/// Rule: figures are of the whole fleet, and not for those whose scope is less.
fn sees_all(caller: &Caller) -> Result<(), ApiError> {
    if caller.reach().is_whole() {
        return Ok(());
    }
    Err(ApiError::beyond_scope("measured accuracy is about the whole fleet"))
}

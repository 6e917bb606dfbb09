//! `/api/v1/rollouts`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use sealift_protocol::api::{
    Action, AllowedAction, Page, Problem, RolloutCourse, RolloutForecast, RolloutNew, RolloutView,
    WaveView, WhyView,
};
use sealift_protocol::id::{DeviceId, ModelName, RolloutId};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::Caller;
use super::error::ApiError;
use super::page::{PageQuery, page};
use super::reach;
use crate::clock;
use crate::order::{self, Asker};
use crate::rollout::{self, Position, Stage, action};
use crate::store::rollouts::{RolloutRow, WaveRow, stage_words};

/// Every action, in the order in which people are shown them.
const ACTIONS: [Action; 6] = [
    Action::Pause,
    Action::Resume,
    Action::Promote,
    Action::Abort,
    Action::Retry,
    Action::Rollback,
];

/// What is shown only where something waits for it.
const OF_APPROVERS: [Action; 2] = [Action::Approve, Action::Reject];

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(plan))
        .routes(routes!(get, edit))
        .routes(routes!(why))
        .routes(routes!(course))
        .routes(routes!(approve))
        .routes(routes!(reject))
        .routes(routes!(act))
}

/// A rollout as people see it.
pub(super) fn view(row: RolloutRow) -> RolloutView {
    let standings = row.waves.iter().map(WaveRow::standing);
    let awaits = rollout::waits_for_approval(row.stage, row.held_from, standings);
    let allowed = |&action: &Action| AllowedAction {
        action,
        refused: action::refusal_now(action, row.stage, awaits).map(str::to_owned),
    };
    let of_approvers: &[Action] = if awaits { &OF_APPROVERS } else { &[] };
    let of_drafts: &[Action] = if row.stage == Stage::Draft { &[Action::Start] } else { &[] };
    let shown = of_drafts.iter().chain(&ACTIONS).chain(of_approvers);
    let allowed_actions = shown.map(allowed).collect();
    let tail_s = row.order.policy.tail_s();
    let completing = if let Stage::Completing { since } = row.stage { Some(since) } else { None };
    let tail_until = completing.map(|since| since.plus(i64::from(tail_s) * 1_000));
    RolloutView {
        id: row.id,
        model: row.order.model,
        version: row.order.version,
        filter: row.order.filter,
        state: stage_words(row.stage).0,
        is_rollback: row.order.is_rollback,
        reason: row.order.reason,
        why: row.why,
        created_by: row.order.created_by,
        campaign: row.campaign,
        is_cosigned: row.is_cosigned,
        approved_by: row.approved_by,
        created_at: row.created_at,
        start_at: row.order.start_at,
        finished_at: row.finished_at,
        waves: row.waves.into_iter().map(wave_view).collect(),
        progress: row.progress,
        budget: row.order.policy.budget,
        trial: row.order.trial,
        tail_until,
        tail_s,
        findings: row.findings,
        reverted_by: row.revert.by,
        reversion: row.revert.reversion,
        late: row.late,
        allowed_actions,
    }
}

fn wave_view(row: WaveRow) -> WaveView {
    let WaveRow { plan, state, opened_at, soak_until, devices, succeeded, bad, gates } = row;
    WaveView { plan, state, devices, succeeded, bad, opened_at, soak_until, gates }
}

/// Which rollouts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only those of this model.
    #[serde(default)]
    model: Option<String>,
}

/// Lists rollouts, newest first.
#[utoipa::path(get, path = "/api/v1/rollouts", tag = "rollouts", params(ListQuery, PageQuery),
    responses((status = 200, body = Page<RolloutView>), (status = 422, body = Problem)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<RolloutView>>, ApiError> {
    let model = query.model.as_deref().map(ModelName::parse).transpose();
    let model = model.map_err(|error| ApiError::invalid("model.invalid", error.to_string()))?;
    let before = paging.cursor.as_deref().map(RolloutId::parse).transpose();
    let before = before.map_err(|error| ApiError::invalid("cursor.invalid", error.to_string()))?;
    let limit = paging.limit();
    let presence = app.patience.presence(clock::now());
    let page_of = (before, limit);
    let (rows, total) = reach::rollouts(&app, &caller, model.as_ref(), page_of, presence).await?;
    let views = rows.into_iter().map(view).collect();
    Ok(Json(page(views, total, limit, |view: &RolloutView| view.id.to_string())))
}

/// Orders a rollout.
#[utoipa::path(post, path = "/api/v1/rollouts", tag = "rollouts", request_body = RolloutNew,
    responses((status = 201, body = RolloutView), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(mut new): Json<RolloutNew>,
) -> Result<(StatusCode, Json<RolloutView>), ApiError> {
    let asker = Asker { name: caller.name(), now: clock::now() };
    let presence = app.patience.presence(asker.now);
    new.filter = reach::within(&app, &caller, &new.filter, presence).await?;
    let order = order::checked(&app.store, &new, presence, asker).await?;
    reach::supersedes_only_within(&app, &caller, &order, presence).await?;
    let stage = if new.draft { Stage::Draft } else { Stage::Preflight };
    let id = order::commit(&app.store, &order, stage, app.approval, asker).await?;
    wake(&app, id);
    Ok((StatusCode::CREATED, shown(&app, id).await?))
}

/// Says what a rollout would do if it were made now, and whom it would not reach and why.
#[utoipa::path(post, path = "/api/v1/rollouts/plan", tag = "rollouts", request_body = RolloutNew,
    responses((status = 200, body = RolloutForecast), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn plan(
    State(app): State<App>,
    caller: Caller,
    Json(mut new): Json<RolloutNew>,
) -> Result<Json<RolloutForecast>, ApiError> {
    let asker = Asker { name: caller.name(), now: clock::now() };
    let presence = app.patience.presence(asker.now);
    new.filter = reach::within(&app, &caller, &new.filter, presence).await?;
    let order = order::checked(&app.store, &new, presence, asker).await?;
    let forecast = order::forecast::forecast(&app.reconciler, &order, app.approval, asker).await?;
    Ok(Json(forecast))
}

/// Shows one rollout.
#[utoipa::path(get, path = "/api/v1/rollouts/{id}", tag = "rollouts",
    params(("id" = String, Path, description = "The rollout")),
    responses((status = 200, body = RolloutView), (status = 404, body = Problem)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RolloutView>, ApiError> {
    Ok(Json(view(seen(&app, &caller, rollout_id(&id)?).await?)))
}

/// Changes a draft.
#[utoipa::path(put, path = "/api/v1/rollouts/{id}", tag = "rollouts", request_body = RolloutNew,
    params(("id" = String, Path, description = "The draft")),
    responses((status = 200, body = RolloutView), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn edit(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(mut new): Json<RolloutNew>,
) -> Result<Json<RolloutView>, ApiError> {
    let asker = Asker { name: caller.name(), now: clock::now() };
    let id = rollout_id(&id)?;
    let row = seen(&app, &caller, id).await?;
    let presence = app.patience.presence(asker.now);
    reach::within(&app, &caller, &row.order.filter, presence).await?;
    new.filter = reach::within(&app, &caller, &new.filter, presence).await?;
    let order = order::checked(&app.store, &new, presence, asker).await?;
    order::edit(&app.store, id, &order, app.approval, asker).await?;
    wake(&app, id);
    shown(&app, id).await
}

/// Shows what was foreseen of a rollout when it was started, and what has come of it.
#[utoipa::path(get, path = "/api/v1/rollouts/{id}/forecast", tag = "rollouts",
    params(("id" = String, Path, description = "The rollout")),
    responses((status = 200, body = RolloutCourse), (status = 404, body = Problem)))]
async fn course(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RolloutCourse>, ApiError> {
    let row = seen(&app, &caller, rollout_id(&id)?).await?;
    let mut course = app.store.course(row.id).await?;
    course.begun_at = row.waves.iter().find_map(|wave| wave.opened_at);
    if let Some(forecast) = &mut course.forecast
        && !caller.reach().is_whole()
    {
        // Names of devices are for those who may see all of them; the counts are of the rollout.
        forecast.refusals.clear();
        forecast.findings.iter_mut().for_each(|finding| finding.examples.clear());
    }
    Ok(Json(course))
}

/// About which device.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WhyQuery {
    /// Only this device.
    #[serde(default)]
    device: Option<String>,
}

/// Says of each device why it is where it is.
#[utoipa::path(get, path = "/api/v1/rollouts/{id}/why", tag = "rollouts",
    params(("id" = String, Path, description = "The rollout"), WhyQuery, PageQuery),
    responses((status = 200, body = Page<WhyView>), (status = 404, body = Problem)))]
async fn why(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<WhyQuery>,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<WhyView>>, ApiError> {
    let id = rollout_id(&id)?;
    let mut row = seen(&app, &caller, id).await?;
    // Of its devices only those in scope.
    row.order.filter = caller.reach().narrow(&row.order.filter);
    let plan = app.reconciler.look(&row, clock::now()).await?;
    let limit = paging.limit();
    let parsed = |text: Option<&str>, code| {
        let device = text.map(DeviceId::parse).transpose();
        device.map_err(|error| ApiError::invalid(code, error.to_string()))
    };
    let after = parsed(paging.cursor.as_deref(), "cursor.invalid")?;
    let only = parsed(query.device.as_deref(), "device.invalid")?;
    let is_asked = |device: &DeviceId| only.as_ref().is_none_or(|only| only == device);
    let asked = plan.devices.into_iter().filter(|(device, _)| is_asked(device));
    let asked: Vec<_> = asked.collect();
    let total = u64::try_from(asked.len()).unwrap_or(u64::MAX);
    let is_after = |device: &DeviceId| after.as_ref().is_none_or(|after| device > after);
    let views = asked.into_iter().filter(|(device, _)| is_after(device)).map(why_view);
    let views = views.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect();
    Ok(Json(page(views, total, limit, |view: &WhyView| view.device.to_string())))
}

fn why_view((device, position): (DeviceId, Position)) -> WhyView {
    let Position { wave, progress, why } = position;
    let wave = wave.and_then(|wave| u64::try_from(wave).ok()).unwrap_or_default();
    WhyView { device, wave, progress, why: why.to_string() }
}

/// Why an action is taken.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct ActionNew {
    /// The reason.
    #[serde(default)]
    reason: String,
}

/// Starts a draft; pauses, resumes, promotes, aborts or retries a rollout.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/{action}", tag = "rollouts",
    params(("id" = String, Path, description = "The rollout"),
        ("action" = String, Path, description = "`start`, `pause`, `resume`, `promote`, `abort` or `retry`")),
    request_body(content = Option<ActionNew>),
    responses((status = 200, body = RolloutView), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
async fn act(
    State(app): State<App>,
    caller: Caller,
    Path((id, action)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<RolloutView>, ApiError> {
    let id = rollout_id(&id)?;
    let action = match action.as_str() {
        "start" => Action::Start,
        "pause" => Action::Pause,
        "resume" => Action::Resume,
        "promote" => Action::Promote,
        "abort" => Action::Abort,
        "retry" => Action::Retry,
        other => {
            let detail = format!("`{other}` is not an action on a rollout");
            return Err(ApiError::not_found("action.unknown", detail));
        }
    };
    take(&app, &caller, id, action, &body).await
}

/// Lets a rollout go on that waits for it.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/approve", tag = "rollouts",
    params(("id" = String, Path, description = "The rollout")),
    request_body(content = Option<ActionNew>),
    responses((status = 200, body = RolloutView), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn approve(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<RolloutView>, ApiError> {
    take(&app, &caller, rollout_id(&id)?, Action::Approve, &body).await
}

/// Ends a rollout that waits for approval.
#[utoipa::path(post, path = "/api/v1/rollouts/{id}/reject", tag = "rollouts",
    params(("id" = String, Path, description = "The rollout")),
    request_body(content = Option<ActionNew>),
    responses((status = 200, body = RolloutView), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn reject(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<RolloutView>, ApiError> {
    take(&app, &caller, rollout_id(&id)?, Action::Reject, &body).await
}

/// Takes an action on a rollout all of whose devices are in scope.
async fn take(
    app: &App,
    caller: &Caller,
    id: RolloutId,
    action: Action,
    body: &[u8],
) -> Result<Json<RolloutView>, ApiError> {
    let asker = Asker { name: caller.name(), now: clock::now() };
    let reason = if body.is_empty() { ActionNew::default() } else { action_new(body)? }.reason;
    let row = seen(app, caller, id).await?;
    let presence = app.patience.presence(asker.now);
    reach::within(app, caller, &row.order.filter, presence).await?;
    if action == Action::Start {
        reach::supersedes_only_within(app, caller, &row.order, presence).await?;
    }
    order::act::take(&app.reconciler, &app.director, id, (action, &reason), asker).await?;
    app.signals.directives().notify_one();
    wake(app, id);
    shown(app, id).await
}

/// The body may be left out.
fn action_new(body: &[u8]) -> Result<ActionNew, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "request.invalid", error.to_string())
    })
}

pub(super) fn wake(app: &App, id: RolloutId) {
    app.signals.orders().notify_one();
    app.hub.touch_rollout(id);
}

/// A rollout that is there for the caller.
async fn seen(app: &App, caller: &Caller, id: RolloutId) -> Result<RolloutRow, ApiError> {
    let row = app.store.rollout(id).await?.ok_or_else(|| unknown(id))?;
    let presence = app.patience.presence(clock::now());
    let is_seen = reach::sees_rollout(app, caller.reach(), &row, presence).await?;
    if is_seen { Ok(row) } else { Err(unknown(id)) }
}

async fn shown(app: &App, id: RolloutId) -> Result<Json<RolloutView>, ApiError> {
    let row = app.store.rollout(id).await?.ok_or_else(|| unknown(id))?;
    Ok(Json(view(row)))
}

fn rollout_id(text: &str) -> Result<RolloutId, ApiError> {
    RolloutId::parse(text)
        .map_err(|error| ApiError::not_found("rollout.not-found", error.to_string()))
}

fn unknown(id: RolloutId) -> ApiError {
    ApiError::not_found("rollout.not-found", format!("there is no rollout {id}"))
}

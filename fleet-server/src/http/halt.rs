//! `/api/v1/halt`: all rollouts stopped at once, and let go on.

use axum::Json;
use axum::extract::{Query, State};
use sealift_protocol::api::{HaltNew, HaltOrder, HaltView, Problem};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::Caller;
use super::error::ApiError;
use crate::clock;
use crate::halt::{self, Halt};
use crate::order::Asker;
use crate::reach::Reach;
use crate::store::StoreError;
use crate::store::halt::{Confirmations, HaltRow, List};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get, stop, resume))
}

/// Says whether all rollouts are stopped, and which devices have confirmed it.
#[utoipa::path(get, path = "/api/v1/halt", tag = "rollouts",
    responses((status = 200, body = HaltView)))]
async fn get(State(app): State<App>, caller: Caller) -> Result<Json<HaltView>, ApiError> {
    let row = app.store.halt().await?;
    Ok(Json(view(&app, caller.reach(), row).await?))
}

/// Stops all rollouts, on the server and on every device. Doing it twice is doing it once.
#[utoipa::path(post, path = "/api/v1/halt", tag = "rollouts", request_body = HaltNew,
    responses((status = 200, body = HaltView), (status = 403, body = Problem),
        (status = 422, body = Problem)))]
async fn stop(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<HaltNew>,
) -> Result<Json<HaltView>, ApiError> {
    let asker = Asker { name: caller.name(), now: clock::now() };
    let row = halt::halt(&app.store, &app.director, &new.reason, asker).await?;
    tell(&app);
    Ok(Json(view(&app, caller.reach(), row).await?))
}

/// Why it goes on.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ResumeQuery {
    /// The reason.
    #[serde(default)]
    reason: String,
}

/// Lets all rollouts go on from where they were.
#[utoipa::path(delete, path = "/api/v1/halt", tag = "rollouts", params(ResumeQuery),
    responses((status = 200, body = HaltView), (status = 403, body = Problem),
        (status = 422, body = Problem)))]
async fn resume(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ResumeQuery>,
) -> Result<Json<HaltView>, ApiError> {
    let asker = Asker { name: caller.name(), now: clock::now() };
    let row = halt::resume(&app.store, &app.director, &query.reason, asker).await?;
    tell(&app);
    Ok(Json(view(&app, caller.reach(), row).await?))
}

/// Devices first, then the planner, then browsers.
fn tell(app: &App) {
    app.signals.directives().notify_one();
    app.signals.orders().notify_one();
    app.hub.touch_status();
}

async fn view(app: &App, reach: &Reach, row: HaltRow) -> Result<HaltView, StoreError> {
    let presence = app.patience.presence(clock::now());
    let counts =
        app.store.confirmations((List::Halts, row.sequence), reach.filter(), presence).await?;
    let Confirmations { confirmed, unconfirmed, offline } = counts;
    let halt = row.halt.map(order);
    Ok(HaltView { halt, sequence: row.sequence, confirmed, unconfirmed, offline })
}

fn order(halt: Halt) -> HaltOrder {
    let Halt { since, by, reason, newest, rollouts } = halt;
    HaltOrder { since, by, reason, newest, rollouts }
}

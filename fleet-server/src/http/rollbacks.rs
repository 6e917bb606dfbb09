//! `/api/v1/rollback`.

use axum::Json;
use axum::extract::State;
use sealift_protocol::api::{Problem, RollbackRequest, RollbackResult};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Caller;
use super::error::ApiError;
use super::rollouts::wake;
use super::{App, reach};
use crate::clock;
use crate::order::Asker;
use crate::rollback;
use crate::store::matching::Presence;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(roll_back))
}

/// Goes back to an earlier version.
#[utoipa::path(post, path = "/api/v1/rollback", tag = "rollouts", request_body = RollbackRequest,
    responses((status = 200, body = RollbackResult), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn roll_back(
    State(app): State<App>,
    caller: Caller,
    Json(mut request): Json<RollbackRequest>,
) -> Result<Json<RollbackResult>, ApiError> {
    let asker = Asker { name: caller.name(), now: clock::now() };
    let presence = app.patience.presence(asker.now);
    request.filter = within(&app, &caller, &request, presence).await?;
    if let Err(refusal) = caller.has_stepped_up(&app.auth, asker.now)
        && !request.dry_run
    {
        // Only for those who have not confirmed is it counted first: going back is to be quick.
        let dry = RollbackRequest { dry_run: true, ..request.clone() };
        let effect = rollback::roll_back(&app.store, &dry, presence, asker).await?;
        if effect.devices > app.auth.rules.step_up_devices {
            return Err(refusal);
        }
    }
    let result = rollback::roll_back(&app.store, &request, presence, asker).await?;
    let made = result.steps.iter().filter_map(|step| step.rollout.as_ref());
    let others = [&result.superseded, &result.reverting, &result.reverting_in_part];
    for id in made.chain(others.into_iter().flatten()) {
        wake(&app, *id);
    }
    Ok(Json(result))
}

/// The filter, within the caller's scope. Devices that are named one by one must all be in it.
async fn within(
    app: &App,
    caller: &Caller,
    request: &RollbackRequest,
    presence: Presence,
) -> Result<String, ApiError> {
    let reach = caller.reach();
    if reach.is_whole() || request.devices.is_empty() {
        return reach::within(app, caller, &request.filter, presence).await;
    }
    for device in &request.devices {
        if !reach::has_device(app, reach, device, presence).await? {
            let what = format!("device {device} is beyond your scope `{reach}`");
            return Err(ApiError::beyond_scope(what));
        }
    }
    Ok(reach.narrow(&request.filter))
}

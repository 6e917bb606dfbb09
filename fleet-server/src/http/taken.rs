//! `/api/v1/models/{team}/{name}/versions/{version}/seen`: what a version has seen, for a new baseline that its publisher signs.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealift_protocol::api::{Problem, SeenTake, SeenTaken};
use sealift_protocol::id::{DeviceId, ModelName, Version};
use sealift_protocol::profile::{Profile, SUCCESSOR_ROWS_MIN};
use sealift_protocol::report::ImageRef;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::Caller;
use super::error::ApiError;
use super::reach;
use crate::audit::Deed;
use crate::clock;
use crate::filter::Filter;
use crate::history::{NotTaken, TAKEN_DEVICES_MAX, Taken, Wanted};

/// Characters of a reason.
const REASON_CHARS_MAX: usize = 500;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(take))
}

/// Adds up what a version has seen in a span of time, on devices that match a filter, or on all: exact counts on the bins of its baseline.
/// Who took which span is in the audit log. Nothing becomes a baseline by it: that takes an image which its publisher signs.
#[utoipa::path(post, path = "/api/v1/models/{team}/{name}/versions/{version}/seen", tag = "models",
    params(("team" = String, Path), ("name" = String, Path), ("version" = String, Path)),
    request_body = SeenTake,
    responses((status = 200, body = SeenTaken), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn take(
    State(app): State<App>,
    caller: Caller,
    Path((team, name, version)): Path<(String, String, String)>,
    Json(asked): Json<SeenTake>,
) -> Result<Json<SeenTaken>, ApiError> {
    let invalid = |error: String| ApiError::invalid("version.name", error);
    let model = ModelName::parse(&format!("{team}/{name}"));
    let model = model.map_err(|error| invalid(error.to_string()))?;
    let version = Version::parse(&version).map_err(|error| invalid(error.to_string()))?;
    let now = clock::now();
    let until = asked.until.unwrap_or(now);
    if asked.from >= until {
        let detail = format!("a span from {} until {until} is none", asked.from);
        return Err(ApiError::invalid("seen.span", detail));
    }
    let row = app.store.version(&model, &version).await?.ok_or_else(|| {
        ApiError::not_found(
            "version.not-found",
            format!("there is no version {version} of {model}"),
        )
    })?;
    let devices = devices(&app, &caller, &asked.filter).await?;
    let image = ImageRef { version: version.clone(), index: row.digest };
    let wanted = Wanted { model: model.clone(), image, from: asked.from, until, devices };
    let taken = app.history.take(&wanted).await?;
    if taken.profile.rows() < SUCCESSOR_ROWS_MIN {
        let rows = taken.profile.rows();
        let detail = format!("{rows} rows were seen; a baseline needs {SUCCESSOR_ROWS_MIN}");
        return Err(ApiError::new(StatusCode::CONFLICT, "seen.few", detail)
            .help("take a longer span, or more devices"));
    }
    let view = view(&wanted, &taken)?;
    audit(&app, &caller, &asked, &view).await?;
    Ok(Json(view))
}

/// The devices that a filter names, each within the caller's scope; none for the whole fleet.
async fn devices(
    app: &App,
    caller: &Caller,
    filter: &str,
) -> Result<Option<Vec<DeviceId>>, ApiError> {
    if filter.trim().is_empty() && caller.reach().is_whole() {
        return Ok(None);
    }
    let presence = app.patience.presence(clock::now());
    let filter: Filter = reach::within(app, caller, filter, presence).await?.parse()?;
    let total = app.store.count_devices(&filter, presence).await?;
    if total > u64::from(TAKEN_DEVICES_MAX) {
        let detail = format!("{total} devices match; at most {TAKEN_DEVICES_MAX} are added up");
        return Err(ApiError::invalid("seen.devices", detail)
            .help("leave the filter out for the whole fleet, or name fewer devices"));
    }
    let devices = app.store.devices(&filter, presence, None, TAKEN_DEVICES_MAX).await?;
    if devices.is_empty() {
        return Err(ApiError::not_found("device.not-found", "no device matches"));
    }
    Ok(Some(devices.into_iter().map(|device| device.id).collect()))
}

fn view(wanted: &Wanted, taken: &Taken) -> Result<SeenTaken, ApiError> {
    let bytes = |profile: &Profile| {
        profile.encode().map(|bytes| STANDARD.encode(bytes)).map_err(ApiError::internal)
    };
    Ok(SeenTaken {
        model: wanted.model.clone(),
        version: wanted.image.version.clone(),
        digest: wanted.image.index,
        baseline: taken.baseline.digest(),
        from: taken.from,
        until: taken.until,
        rows: taken.profile.rows(),
        windows: taken.windows,
        devices: wanted.devices.as_ref().map(|devices| devices.len() as u64),
        profile: bytes(&taken.profile)?,
        phases: taken.phases.iter().map(bytes).collect::<Result<_, _>>()?,
    })
}

async fn audit(
    app: &App,
    caller: &Caller,
    asked: &SeenTake,
    view: &SeenTaken,
) -> Result<(), ApiError> {
    let subject = format!("{}@{}", view.model, view.version);
    let reason: String = asked.reason.chars().take(REASON_CHARS_MAX).collect();
    let whom = if asked.filter.trim().is_empty() { "the fleet" } else { asked.filter.trim() };
    let SeenTaken { from, until, rows, baseline, .. } = view;
    let detail = format!("{whom}, {from} to {until}, {rows} rows counted on {baseline}");
    let reason = Some(reason.as_str()).filter(|reason| !reason.is_empty());
    let deed = Deed {
        actor: caller.name(),
        action: "baseline.take",
        subject: &subject,
        reason,
        detail: &detail,
    };
    let mut change = app.store.begin().await?;
    change.audit(&deed, clock::now()).await?;
    Ok(change.commit().await?)
}

impl From<NotTaken> for ApiError {
    fn from(error: NotTaken) -> Self {
        let text = error.to_string();
        let conflict = |code| Self::new(StatusCode::CONFLICT, code, text.clone());
        match error {
            NotTaken::History(error) => (*error).into(),
            NotTaken::NoBaseline(_) => conflict("version.no-baseline"),
            NotTaken::Nothing => conflict("seen.nothing")
                .help("`fleetctl drift history` shows what is known; what came in the last half minute is not summed up yet"),
            NotTaken::Mixed { .. } => conflict("seen.mixed")
                .help("take a span in which the version was one image alone"),
            NotTaken::TooMany => conflict("seen.too-many").help("take a shorter span"),
            NotTaken::Season => conflict("seen.season")
                .help("take a span whose hours are kept: retention.hours_days"),
        }
    }
}

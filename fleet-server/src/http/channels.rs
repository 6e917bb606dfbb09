//! `/api/v1/channels`: whom alerts are sent to, and what became of it.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use sealift_protocol::api::{ChannelNew, ChannelView, DeliveryView, Destination, Page};
use sealift_protocol::id::UnixMillis;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::Caller;
use super::error::ApiError;
use super::page::{PageQuery, page};
use crate::alert::deliver::{self, Verb};
use crate::alert::matcher::{MATCHERS_MAX, Matcher};
use crate::clock;
use crate::store::channels::{Channel, ChannelRow, Due};

/// Channels of one tenant: each alert may be sent to each.
const CHANNELS_MAX: usize = 20;
/// Characters of a name.
const NAME_CHARS_MAX: usize = 40;
/// Bytes of an address with everything that is needed to get there; a chain of certificates is the most of it.
const DESTINATION_BYTES_MAX: usize = 32 << 10;
/// A test is the caller's for longer than a call may take.
const CLAIMED_MS: i64 = 60_000;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(remove))
        .routes(routes!(test))
        .routes(routes!(deliveries))
        .routes(routes!(resend))
}

/// Lists channels; what is secret of them is not shown.
#[utoipa::path(get, path = "/api/v1/channels", tag = "alerts",
    responses((status = 200, body = Page<ChannelView>)))]
async fn list(State(app): State<App>) -> Result<Json<Page<ChannelView>>, ApiError> {
    let items: Vec<_> = app.store.channels().await?.iter().map(Channel::view).collect();
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    Ok(Json(Page { items, total, next_cursor: None }))
}

/// Adds a channel; the answer for a webhook has the secret with which messages are signed, this once.
#[utoipa::path(post, path = "/api/v1/channels", tag = "alerts", request_body = ChannelNew,
    responses((status = 201, body = ChannelView)))]
async fn add(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<ChannelNew>,
) -> Result<(StatusCode, Json<ChannelView>), ApiError> {
    let ChannelNew { name, least, matchers, destination } = request;
    check_name(&name)?;
    let matchers = parsed(&matchers)?;
    let (destination, secret) = with_secret(destination)?;
    let address = deliver::shown(&destination)
        .map_err(|unsent| ApiError::invalid("channel.destination", unsent.in_words()))?;
    if app.store.channels().await?.len() >= CHANNELS_MAX {
        let what = format!("there are {CHANNELS_MAX} channels already");
        return Err(ApiError::new(StatusCode::CONFLICT, "channel.too-many", what));
    }
    let now = clock::now();
    let mut change = app.store.begin().await?;
    let id = change.next_channel().await?;
    let sealed = deliver::sealed(&app.auth.seal, id, &destination)?;
    let kind = destination.kind();
    let row = ChannelRow {
        id,
        name: &name,
        kind,
        address: &address,
        least,
        matchers: &matchers,
        destination: &sealed,
        created_by: caller.name(),
    };
    if !change.add_channel(row, now).await? {
        let what = format!("there is a channel `{name}` already");
        return Err(ApiError::new(StatusCode::CONFLICT, "channel.taken", what));
    }
    let detail = format!("{id}: {address}");
    change.audit(&caller.deed("channel.add", &name, &detail), now).await?;
    change.commit().await?;
    let view = app.channel(id).await?.view();
    Ok((StatusCode::CREATED, Json(ChannelView { secret, ..view })))
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let is_letter = |letter: char| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_".contains(letter)
    };
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(is_letter) {
        let what = "a channel's name is 1 to 40 of a-z, 0-9, `-` and `_`";
        return Err(ApiError::invalid("channel.name", what));
    }
    Ok(())
}

/// Reads conditions on alerts.
pub(super) fn parsed(texts: &[String]) -> Result<Vec<Matcher>, ApiError> {
    if texts.len() > MATCHERS_MAX {
        let what = format!("at most {MATCHERS_MAX} conditions are taken");
        return Err(ApiError::invalid("matcher.too-many", what));
    }
    let parse = |text: &String| text.parse::<Matcher>();
    texts
        .iter()
        .map(parse)
        .collect::<Result<_, _>>()
        .map_err(|error| ApiError::invalid("matcher.syntax", error.to_string()))
}

/// Gives a webhook without a key of signatures one, which is shown this once.
fn with_secret(destination: Destination) -> Result<(Destination, Option<String>), ApiError> {
    let size = serde_json::to_vec(&destination).map_or(usize::MAX, |bytes| bytes.len());
    if size > DESTINATION_BYTES_MAX {
        let what = format!("a destination is at most {DESTINATION_BYTES_MAX} bytes");
        return Err(ApiError::invalid("channel.destination", what));
    }
    match destination {
        Destination::Webhook { url, secret: None } => {
            let secret = deliver::new_secret()?;
            Ok((Destination::Webhook { url, secret: Some(secret.clone()) }, Some(secret)))
        }
        Destination::Webhook { secret: Some(secret), .. } if !deliver::is_secret(&secret) => {
            let what = "a webhook's secret is `whsec_` and 24 to 64 bytes in base64";
            Err(ApiError::invalid("channel.secret", what))
        }
        other @ (Destination::Webhook { .. }
        | Destination::Slack { .. }
        | Destination::Smtp(_)
        | Destination::Alertmanager { .. }) => Ok((other, None)),
    }
}

impl App {
    pub(super) async fn channel(&self, id: u64) -> Result<Channel, ApiError> {
        let channels = self.store.channels().await?;
        let found = channels.into_iter().find(|channel| channel.id == id);
        found.ok_or_else(|| no_channel(id))
    }
}

fn no_channel(id: u64) -> ApiError {
    ApiError::not_found("channel.not-found", format!("there is no channel {id}"))
}

/// Removes a channel, and what was still to be sent to it.
#[utoipa::path(delete, path = "/api/v1/channels/{id}", tag = "alerts",
    params(("id" = u64, Path)), responses((status = 204)))]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u64>,
) -> Result<StatusCode, ApiError> {
    let channel = app.channel(id).await?;
    let mut change = app.store.begin().await?;
    if !change.remove_channel(id).await? {
        return Err(no_channel(id));
    }
    let detail = format!("{id}: {}", channel.address);
    change.audit(&caller.deed("channel.remove", &channel.name, &detail), clock::now()).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a test, and says what became of it.
#[utoipa::path(post, path = "/api/v1/channels/{id}/test", tag = "alerts",
    params(("id" = u64, Path)), responses((status = 200, body = DeliveryView)))]
async fn test(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u64>,
) -> Result<Json<DeliveryView>, ApiError> {
    let channel = app.channel(id).await?;
    let now = clock::now();
    let number = queue_test(&app, &caller, &channel, now).await?;
    let claimed = app.store.delivery(id, number).await?.ok_or_else(|| no_delivery(number))?;
    app.dispatch.send_now(&Due { channel, deliveries: vec![claimed] }, clock::now()).await?;
    let mut log = app.store.deliveries(id, Some(number.saturating_add(1)), 1).await?;
    log.pop().map(Json).ok_or_else(|| no_delivery(number))
}

/// Queued as if somebody had taken it already, so that only this request sends it.
async fn queue_test(
    app: &App,
    caller: &Caller,
    channel: &Channel,
    now: UnixMillis,
) -> Result<u64, ApiError> {
    let alert = deliver::test_alert(&channel.name, caller.name(), now);
    let message = deliver::message_id(app.store.tenant().as_str(), alert.id, now);
    let mut change = app.store.begin().await?;
    let times = (now, now.plus(CLAIMED_MS));
    let number = change.queue(channel.id, (None, &alert, Verb::Test), &message, times).await?;
    change.audit(&caller.deed("channel.test", &channel.name, ""), now).await?;
    change.commit().await?;
    Ok(number)
}

fn no_delivery(number: u64) -> ApiError {
    let what = format!("there is no message {number} of this channel");
    ApiError::not_found("delivery.not-found", what)
}

/// Lists what was sent to a channel, newest first, and what became of it.
#[utoipa::path(get, path = "/api/v1/channels/{id}/deliveries", tag = "alerts",
    params(("id" = u64, Path), PageQuery), responses((status = 200, body = Page<DeliveryView>)))]
async fn deliveries(
    State(app): State<App>,
    Path(id): Path<u64>,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<DeliveryView>>, ApiError> {
    app.channel(id).await?;
    let limit = paging.limit();
    let items = app.store.deliveries(id, paging.number(), limit).await?;
    let total = app.store.count_deliveries(id).await?;
    Ok(Json(page(items, total, limit, |delivery| delivery.id.to_string())))
}

/// Sends a message again.
#[utoipa::path(post, path = "/api/v1/channels/{id}/deliveries/{number}/resend", tag = "alerts",
    params(("id" = u64, Path), ("number" = u64, Path)), responses((status = 204)))]
async fn resend(
    State(app): State<App>,
    caller: Caller,
    Path((id, number)): Path<(u64, u64)>,
) -> Result<StatusCode, ApiError> {
    let channel = app.channel(id).await?;
    let mut change = app.store.begin().await?;
    if !change.resend_delivery(id, number, clock::now()).await? {
        return Err(no_delivery(number).help("a message that waits is sent in any case"));
    }
    let detail = format!("message {number}");
    change.audit(&caller.deed("channel.resend", &channel.name, &detail), clock::now()).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

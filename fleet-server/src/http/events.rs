//! `/api/v1/events`: what changes, as it changes.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt as _};
use sealift_protocol::id::UnixMillis;
use tokio_stream::wrappers::BroadcastStream;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Caller;
use super::{App, reach, rollouts, status};
use crate::clock;
use crate::events;
use crate::reach::Reach;
use crate::store::StoreError;

/// Proxies cut connections on which nothing comes for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How often it is looked whether a listener is still let in.
const KNOWN_EVERY: Duration = Duration::from_secs(5);

/// The overview counts the whole fleet: that is not done for every change.
const STATUS_EVERY_MS: i64 = 2_000;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(listen))
}

/// Streams changes: `device`, `rollout`, `alert` and `status`, each with the new view.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(("Last-Event-ID" = Option<u64>, Header, description = "The last event that was seen")),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
async fn listen(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let after = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let (missed, receiver) = app.hub.listen(after);
    // A listener that is too far behind is cut off: it comes back with the last number that it has seen.
    let live = BroadcastStream::new(receiver)
        .take_while(|event| std::future::ready(event.is_ok()))
        .filter_map(|event| std::future::ready(event.ok()));
    let reach = caller.reach().clone();
    let all = stream::iter(missed)
        .chain(live)
        .filter(move |event| std::future::ready(reach::may_hear(&reach, event.kind, &event.body)))
        .take_until(Box::pin(until_unknown(app, caller)))
        .map(|event| Ok(wire(&event)));
    Sse::new(all).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// A stream lasts for hours; whoever listens may be locked out meanwhile.
async fn until_unknown(app: App, caller: Caller) {
    loop {
        tokio::time::sleep(KNOWN_EVERY).await;
        if !caller.is_still_known(&app.auth, clock::now()).await {
            return;
        }
    }
}

fn wire(event: &events::Event) -> Event {
    Event::default().id(event.number.to_string()).event(event.kind).data(&*event.body)
}

/// Tells browsers what has changed.
pub(super) struct Teller {
    app: App,
    is_status_due: bool,
    status_told_at: UnixMillis,
}

impl Teller {
    pub(super) const fn new(app: App) -> Self {
        Self { app, is_status_due: false, status_told_at: UnixMillis(0) }
    }

    /// Looks up what was touched and publishes it.
    pub(super) async fn tell(&mut self, now: UnixMillis) -> Result<(), StoreError> {
        let app = &self.app;
        let touched = app.hub.take_touched();
        if !app.hub.has_listeners() {
            return Ok(());
        }
        let presence = app.patience.presence(now);
        for view in app.store.devices_named(&touched.devices, presence).await? {
            app.hub.publish("device", &view);
        }
        for &rollout in &touched.rollouts {
            if let Some(row) = app.store.rollout(rollout).await? {
                app.hub.publish("rollout", &rollouts::view(row));
            }
        }
        self.is_status_due |= touched.status;
        if self.is_status_due && now.since(self.status_told_at) >= STATUS_EVERY_MS {
            app.hub.publish("status", &status::read(app, &Reach::default()).await?);
            (self.is_status_due, self.status_told_at) = (false, now);
        }
        Ok(())
    }
}

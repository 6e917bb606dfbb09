//! `/api/v1/silences`, `/api/v1/alert-kinds` and `/api/v1/alert-rules`: when people are told, and what a rule would have done.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use sealift_protocol::api::{
    AlertView, AtLeast, BacktestNew, BacktestOf, BacktestView, FiringView, KindChange, KindView,
    Page, RuleNew, RuleView, SilenceNew, SilenceView,
};
use sealift_protocol::id::UnixMillis;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::Caller;
use super::channels::parsed;
use super::error::ApiError;
use crate::alert::backtest::{self, Span};
use crate::alert::matcher::all_hold;
use crate::alert::rule;
use crate::audit::Deed;
use crate::clock;
use crate::filter::Filter;
use crate::limits::REASON_CHARS_MAX;
use crate::store::silences::SILENCES_MAX;
use crate::watch::health::{FLAPPING_MS, FLAPPING_OFTEN};

/// Rules of one's own: each is a count over the fleet in every interval.
const RULES_MAX: usize = 50;
/// Characters of a name.
const NAME_CHARS_MAX: usize = 40;
/// The longest silence: what is to be silent for longer is to be turned off.
const SILENCE_S_MAX: u64 = 31 * 24 * 3_600;
/// The longest time that something must hold.
const HOLD_S_MAX: u64 = 7 * 24 * 3_600;
/// How far back a back-test looks: alerts are kept for a year.
const SINCE_S_MAX: u64 = 366 * 24 * 3_600;
/// Firings that are told one by one.
const FIRINGS_MAX: usize = 100;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(silences, silence))
        .routes(routes!(unsilence))
        .routes(routes!(kinds))
        .routes(routes!(change_kind))
        .routes(routes!(rules, add_rule))
        .routes(routes!(remove_rule))
        .routes(routes!(test))
}

/// Lists silences that are not over, with how many open alerts each covers.
#[utoipa::path(get, path = "/api/v1/silences", tag = "alerts",
    responses((status = 200, body = Page<SilenceView>)))]
async fn silences(State(app): State<App>) -> Result<Json<Page<SilenceView>>, ApiError> {
    let rows = app.store.silences(clock::now()).await?;
    let live = app.store.live_alerts().await?;
    let view = |row: &crate::store::silences::SilenceRow| {
        let covered = live.iter().filter(|alert| all_hold(&row.silence.matchers, &alert.finding));
        row.view(u64::try_from(covered.count()).unwrap_or(u64::MAX))
    };
    Ok(Json(whole(rows.iter().map(view).collect())))
}

/// Lets nobody be told of some alerts for a while.
#[utoipa::path(post, path = "/api/v1/silences", tag = "alerts", request_body = SilenceNew,
    responses((status = 201, body = SilenceView)))]
async fn silence(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<SilenceNew>,
) -> Result<(StatusCode, Json<SilenceView>), ApiError> {
    whole_fleet(&caller)?;
    let SilenceNew { matchers, reason, for_s } = request;
    let matchers = parsed(&matchers)?;
    if matchers.is_empty() {
        let what = "a silence without a condition would hide everything";
        return Err(ApiError::invalid("silence.empty", what).help("`kind=*` says so on purpose"));
    }
    if reason.trim().is_empty() || reason.chars().count() > REASON_CHARS_MAX {
        return Err(ApiError::invalid("silence.reason", "a silence has a reason"));
    }
    if for_s == 0 || for_s > SILENCE_S_MAX {
        return Err(ApiError::invalid("silence.time", "a silence lasts for up to 31 days"));
    }
    let now = clock::now();
    if app.store.silences(now).await?.len() >= SILENCES_MAX {
        let what = format!("there are {SILENCES_MAX} silences already");
        return Err(ApiError::new(StatusCode::CONFLICT, "silence.too-many", what));
    }
    let until = now.plus(millis(for_s));
    let mut change = app.store.begin().await?;
    let by = caller.name();
    let id = change.add_silence(&matchers, (by, reason.trim()), (now, until)).await?;
    let texts: Vec<_> = matchers.iter().map(ToString::to_string).collect();
    let detail = format!("{} until {until}", texts.join(" "));
    let subject = id.to_string();
    let deed = caller.deed("alert.silence", &subject, &detail);
    let reason = Some(reason.as_str()).filter(|reason| !reason.is_empty());
    change.audit(&Deed { reason, ..deed }, now).await?;
    change.commit().await?;
    app.hub.touch_status();
    let rows = app.store.silences(now).await?;
    let made = rows.iter().find(|row| row.id == id).ok_or_else(|| no_silence(id))?;
    Ok((StatusCode::CREATED, Json(made.view(0))))
}

/// Who sees a part of the fleet alone could hide what others must see.
fn whole_fleet(caller: &Caller) -> Result<(), ApiError> {
    if caller.reach().is_whole() {
        return Ok(());
    }
    Err(ApiError::beyond_scope("a silence is of the whole fleet"))
}

fn no_silence(id: u64) -> ApiError {
    ApiError::not_found("silence.not-found", format!("there is no silence {id}, or it is over"))
}

/// Ends a silence.
#[utoipa::path(delete, path = "/api/v1/silences/{id}", tag = "alerts",
    params(("id" = u64, Path)), responses((status = 204)))]
async fn unsilence(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<u64>,
) -> Result<StatusCode, ApiError> {
    whole_fleet(&caller)?;
    let now = clock::now();
    let mut change = app.store.begin().await?;
    if !change.end_silence(id, now).await? {
        return Err(no_silence(id));
    }
    change.audit(&caller.deed("alert.unsilence", &id.to_string(), ""), now).await?;
    change.commit().await?;
    app.hub.touch_status();
    Ok(StatusCode::NO_CONTENT)
}

/// Says of alerts until when nobody is told of them.
pub(super) async fn mark_silenced(app: &App, alerts: &mut [AlertView]) -> Result<(), ApiError> {
    let rows = app.store.silences(clock::now()).await?;
    for alert in alerts.iter_mut().filter(|alert| alert.closed_at.is_none()) {
        let covering = rows.iter().filter(|row| all_hold(&row.silence.matchers, &*alert));
        alert.silenced_until = covering.map(|row| row.silence.until).max();
    }
    Ok(())
}

/// Lists every kind of alert, as it is built in and as it was changed.
#[utoipa::path(get, path = "/api/v1/alert-kinds", tag = "alerts",
    responses((status = 200, body = Page<KindView>)))]
async fn kinds(State(app): State<App>) -> Result<Json<Page<KindView>>, ApiError> {
    let mut changes = app.store.alert_kinds().await?;
    let view = |kind: &rule::Kind| KindView {
        kind: kind.name.to_owned(),
        meaning: kind.meaning.to_owned(),
        hold_s: kind.hold_s,
        change: changes.remove(kind.name).unwrap_or_default(),
    };
    Ok(Json(whole(rule::KINDS.iter().map(view).collect())))
}

/// Changes when and how people are told of a kind of alert; an empty change is as built in.
#[utoipa::path(put, path = "/api/v1/alert-kinds/{kind}", tag = "alerts",
    params(("kind" = String, Path)), request_body = KindChange, responses((status = 204)))]
async fn change_kind(
    State(app): State<App>,
    caller: Caller,
    Path(kind): Path<String>,
    Json(request): Json<KindChange>,
) -> Result<StatusCode, ApiError> {
    known(&kind)?;
    check_hold(request.hold_s.unwrap_or(0))?;
    let mut change = app.store.begin().await?;
    change.set_alert_kind(&kind, &request).await?;
    let detail = serde_json::to_string(&request).map_err(ApiError::internal)?;
    change.audit(&caller.deed("alert.kind", &kind, &detail), clock::now()).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn known(kind: &str) -> Result<&'static rule::Kind, ApiError> {
    let found = rule::KINDS.iter().find(|known| known.name == kind);
    found.ok_or_else(|| {
        ApiError::not_found("alert-kind.not-found", format!("there is no kind of alert `{kind}`"))
            .help("`fleetctl alert kinds` lists them")
    })
}

fn check_hold(hold_s: u64) -> Result<(), ApiError> {
    if hold_s > HOLD_S_MAX {
        return Err(ApiError::invalid("rule.hold", "something may have to hold for up to 7 days"));
    }
    Ok(())
}

/// Lists rules of one's own.
#[utoipa::path(get, path = "/api/v1/alert-rules", tag = "alerts",
    responses((status = 200, body = Page<RuleView>)))]
async fn rules(State(app): State<App>) -> Result<Json<Page<RuleView>>, ApiError> {
    Ok(Json(whole(app.store.alert_rules().await?)))
}

/// Adds a rule over devices that a filter names.
#[utoipa::path(post, path = "/api/v1/alert-rules", tag = "alerts", request_body = RuleNew,
    responses((status = 201, body = RuleView)))]
async fn add_rule(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<RuleNew>,
) -> Result<(StatusCode, Json<RuleView>), ApiError> {
    check(&request)?;
    let rules = app.store.alert_rules().await?;
    if rules.len() >= RULES_MAX {
        let what = format!("there are {RULES_MAX} rules already");
        return Err(ApiError::new(StatusCode::CONFLICT, "rule.too-many", what));
    }
    let now = clock::now();
    let mut change = app.store.begin().await?;
    let Some(id) = change.add_alert_rule(&request, caller.name(), now).await? else {
        let what = format!("there is a rule `{}` already", request.name);
        return Err(ApiError::new(StatusCode::CONFLICT, "rule.taken", what));
    };
    let detail = serde_json::to_string(&request).map_err(ApiError::internal)?;
    change.audit(&caller.deed("alert.rule.add", &request.name, &detail), now).await?;
    change.commit().await?;
    let created_by = caller.name().to_owned();
    let view = RuleView { id, rule: request, created_by, created_at: now, since: None };
    Ok((StatusCode::CREATED, Json(view)))
}

fn check(rule: &RuleNew) -> Result<Filter, ApiError> {
    let is_letter = |letter: char| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_".contains(letter)
    };
    let name = &rule.name;
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(is_letter) {
        let what = "a rule's name is 1 to 40 of a-z, 0-9, `-` and `_`";
        return Err(ApiError::invalid("rule.name", what));
    }
    check_hold(rule.hold_s)?;
    match rule.at_least {
        AtLeast::Devices(1..) | AtLeast::Percent(1..=100) => Ok(rule.filter.parse()?),
        AtLeast::Devices(0) | AtLeast::Percent(_) => {
            let what = "a rule takes at least 1 device, or 1 to 100 per cent";
            Err(ApiError::invalid("rule.at-least", what))
        }
    }
}

/// Removes a rule; its alert closes.
#[utoipa::path(delete, path = "/api/v1/alert-rules/{name}", tag = "alerts",
    params(("name" = String, Path)), responses((status = 204)))]
async fn remove_rule(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut change = app.store.begin().await?;
    if !change.remove_alert_rule(&name).await? {
        return Err(no_rule(&name));
    }
    change.audit(&caller.deed("alert.rule.remove", &name, ""), clock::now()).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn no_rule(name: &str) -> ApiError {
    ApiError::not_found("rule.not-found", format!("there is no rule `{name}`"))
        .help("`fleetctl alert rules` lists them")
}

/// Says how often a rule would have fired, by what is recorded.
#[utoipa::path(post, path = "/api/v1/alert-rules/test", tag = "alerts", request_body = BacktestNew,
    responses((status = 200, body = BacktestView)))]
async fn test(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<BacktestNew>,
) -> Result<Json<BacktestView>, ApiError> {
    whole_fleet(&caller)?;
    let BacktestNew { of, hold_s, since_s } = request;
    check_hold(hold_s.unwrap_or(0))?;
    let now = clock::now();
    let from = now.plus(-millis(since_s.min(SINCE_S_MAX)));
    let (recorded, hold_s) = match of {
        BacktestOf::Kind(kind) => {
            let built_in = known(&kind)?.hold_s;
            let changed = app.store.alert_kinds().await?.get(&kind).and_then(|it| it.hold_s);
            (recorded_kind(&app, &kind, from).await?, hold_s.or(changed).unwrap_or(built_in))
        }
        BacktestOf::Rule(name) => {
            let rules = app.store.alert_rules().await?;
            let view = rules.into_iter().find(|view| view.rule.name == name);
            let rule = view.ok_or_else(|| no_rule(&name))?.rule;
            (recorded_rule(&app, &rule, from).await?, hold_s.unwrap_or(rule.hold_s))
        }
        BacktestOf::New(rule) => {
            check(&rule)?;
            (recorded_rule(&app, &rule, from).await?, hold_s.unwrap_or(rule.hold_s))
        }
    };
    Ok(Json(judged(recorded, millis(hold_s), now)))
}

/// What is recorded of something.
struct Recorded {
    /// From when on.
    from: UnixMillis,
    /// When it held, by what it was about.
    spans: BTreeMap<String, Vec<Span>>,
    /// Where that was looked up, and what it does not hold.
    source: &'static str,
}

async fn recorded_kind(app: &App, kind: &str, from: UnixMillis) -> Result<Recorded, ApiError> {
    let presence = app.patience.presence(clock::now());
    if !matches!(kind, "device-silent" | "flapping") {
        let mut spans: BTreeMap<String, Vec<Span>> = BTreeMap::new();
        for (title, span) in app.store.alert_spans(kind, from).await? {
            spans.entry(title).or_default().push(span);
        }
        let source = "alerts of this kind that were opened: what did not hold for as long as was \
                      asked then, or was turned off, was never written down";
        return Ok(Recorded { from, spans, source });
    }
    let (comings, first) = app.store.comings(&Filter::default(), presence, from).await?;
    let spans = comings.into_iter().map(|(device, comings)| {
        let spans = match kind {
            "flapping" => {
                let often = usize::try_from(FLAPPING_OFTEN).unwrap_or(usize::MAX);
                backtest::flappings(&comings, often, FLAPPING_MS)
            }
            _ => backtest::absences(&comings), // the only other one that comes here
        };
        (device.to_string(), spans)
    });
    let source = "the connection history, which is kept for 30 days; a device that had left before \
                  it begins counts from its next coming on";
    Ok(Recorded { from: first.unwrap_or(from), spans: spans.collect(), source })
}

/// Which devices were offline is recorded; labels are as they are today, and what else a filter asks is not recorded.
async fn recorded_rule(app: &App, rule: &RuleNew, from: UnixMillis) -> Result<Recorded, ApiError> {
    let filter: Filter = rule.filter.parse()?;
    let Some(of) = filter.without_offline() else {
        let what = "only rules over devices that are offline can be tried on what was recorded";
        return Err(ApiError::invalid("backtest.filter", what).help(
            "a filter such as `site:osaka state:offline`: which versions devices served, and \
                   how healthy they were, is not recorded over time",
        ));
    };
    let presence = app.patience.presence(clock::now());
    let total = app.store.count_matching(&Filter::default(), presence).await?;
    let (comings, first) = app.store.comings(&of, presence, from).await?;
    let absences: Vec<Span> =
        comings.values().flat_map(|comings| backtest::absences(comings)).collect();
    let least = match rule.at_least {
        AtLeast::Devices(devices) => u64::from(devices),
        AtLeast::Percent(percent) => total.saturating_mul(u64::from(percent)).div_ceil(100),
    };
    let spans = BTreeMap::from([(rule.name.clone(), backtest::at_once(&absences, least))]);
    let source = "the connection history, which is kept for 30 days, with the labels and the number \
                  of devices of today";
    Ok(Recorded { from: first.unwrap_or(from), spans, source })
}

fn judged(recorded: Recorded, hold_ms: i64, now: UnixMillis) -> BacktestView {
    let mut firings: Vec<FiringView> = Vec::new();
    for (subject, spans) in recorded.spans {
        let fired = backtest::firings(&spans, hold_ms, now).into_iter();
        firings.extend(fired.map(|firing| FiringView {
            at: firing.at,
            until: firing.until,
            subject: subject.clone(),
        }));
    }
    firings.sort_by_key(|firing| std::cmp::Reverse(firing.at));
    let fired = u64::try_from(firings.len()).unwrap_or(u64::MAX);
    firings.truncate(FIRINGS_MAX);
    let source = recorded.source.to_owned();
    BacktestView { from: recorded.from, until: now, fired, firings, source }
}

fn whole<T>(items: Vec<T>) -> Page<T> {
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    Page { items, total, next_cursor: None }
}

fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

//! `/api/v1/operators` and `/api/v1/tokens`.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use sealift_protocol::api::{
    OperatorChange, OperatorNew, OperatorSaved, OperatorView, Page, Problem, TokenCreated,
    TokenNew, TokenView,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::access::Caller;
use super::error::ApiError;
use crate::auth::{self, AuthError, TokenTerms};
use crate::clock;
use crate::permission::{self, Permission};
use crate::reach::Reach;
use crate::store::operators::{Account, Operator};
use crate::store::tokens::id_of;

/// How long a token lasts that says nothing else.
const TOKEN_LIFE_S: u32 = 30 * 24 * 3_600;
/// How long it may last.
const TOKEN_LIFE_S_MAX: u32 = 366 * 24 * 3_600;
/// Tokens of one operator.
const TOKENS_MAX: usize = 100;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(change))
        .routes(routes!(tokens, create_token))
        .routes(routes!(revoke_token))
}

/// Whose.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Whose {
    /// Everybody's, which takes the permission to manage operators; one's own if not given.
    #[serde(default)]
    all: bool,
}

impl Whose {
    /// The operator whose; none for everybody.
    pub(super) fn of<'a>(&self, caller: &'a Caller) -> Result<Option<&'a str>, ApiError> {
        if self.all {
            caller.may(Permission::Access)?;
            return Ok(None);
        }
        Ok(Some(caller.name()))
    }
}

/// Lists operators with accounts, by name.
#[utoipa::path(get, path = "/api/v1/operators", tag = "operators",
    responses((status = 200, body = Page<OperatorView>), (status = 403, body = Problem)))]
async fn list(State(app): State<App>) -> Result<Json<Page<OperatorView>>, ApiError> {
    let items: Vec<_> = app.store.accounts().await?.iter().map(Account::view).collect();
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    Ok(Json(Page { items, total, next_cursor: None }))
}

/// Makes a local account; the answer is the only time that its secrets are shown.
#[utoipa::path(post, path = "/api/v1/operators", tag = "operators", request_body = OperatorNew,
    responses((status = 201, body = OperatorSaved), (status = 403, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<OperatorNew>,
) -> Result<(StatusCode, Json<OperatorSaved>), ApiError> {
    let now = clock::now();
    may_give(&caller, new.role)?;
    caller.has_stepped_up(&app.auth, now)?;
    let saved = app.auth.create_account(new, caller.name(), now).await?;
    Ok((StatusCode::CREATED, Json(saved)))
}

/// Changes what an operator may do, locks them out or lets them in again, or gives them new secrets. Their sessions and tokens end.
#[utoipa::path(patch, path = "/api/v1/operators/{name}", tag = "operators",
    params(("name" = String, Path, description = "The operator")), request_body = OperatorChange,
    responses((status = 200, body = OperatorSaved), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Json(wish): Json<OperatorChange>,
) -> Result<Json<OperatorSaved>, ApiError> {
    let now = clock::now();
    if name == caller.name() {
        let detail = "nobody changes what they may do themselves";
        return Err(ApiError::new(StatusCode::CONFLICT, "operator.self", detail)
            .help("ask another admin; or, on the server, `fleet-server operator reset`"));
    }
    let account =
        app.store.account(&name).await?.ok_or_else(|| AuthError::Unknown(name.clone()))?;
    // Whoever may not make an admin may neither lock one out nor take one over.
    may_give(&caller, account.operator.role)?;
    may_give(&caller, wish.role.unwrap_or(account.operator.role))?;
    caller.has_stepped_up(&app.auth, now)?;
    Ok(Json(app.auth.change_account(&name, wish, caller.name(), now).await?))
}

fn may_give(caller: &Caller, role: sealift_protocol::api::Role) -> Result<(), ApiError> {
    if permission::may_give(caller.role(), role) {
        return Ok(());
    }
    Err(ApiError::forbidden("only an admin makes, changes or locks out an admin"))
}

/// Lists tokens, newest first, without their secrets: one's own, or everybody's.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "operators", params(Whose),
    responses((status = 200, body = Page<TokenView>), (status = 403, body = Problem)))]
async fn tokens(
    State(app): State<App>,
    caller: Caller,
    Query(whose): Query<Whose>,
) -> Result<Json<Page<TokenView>>, ApiError> {
    let items = app.store.api_tokens(whose.of(&caller)?).await?;
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    Ok(Json(Page { items, total, next_cursor: None }))
}

/// Makes a token in one's own name, for what one may do or less; the answer is the only time that it is shown.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "operators", request_body = TokenNew,
    responses((status = 201, body = TokenCreated), (status = 403, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn create_token(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<TokenNew>,
) -> Result<(StatusCode, Json<TokenCreated>), ApiError> {
    let now = clock::now();
    let operator = lesser(&caller, &new)?;
    if new.step_up || caller.session().is_none() {
        // Rule: a token is no way around a confirmation, nor a way to outlive the token that it was made with.
        caller.has_stepped_up(&app.auth, now)?;
    }
    if app.store.api_tokens(Some(caller.name())).await?.len() >= TOKENS_MAX {
        let detail = format!("{} has {TOKENS_MAX} tokens already", caller.name());
        return Err(ApiError::new(StatusCode::CONFLICT, "token.too-many", detail)
            .help("revoke some that are not used any more"));
    }
    let life_s = new.expires_in_s.unwrap_or(TOKEN_LIFE_S);
    if new.name.trim().is_empty() || !(60..=TOKEN_LIFE_S_MAX).contains(&life_s) {
        let detail = "a token has a name, and lasts a minute to 366 days";
        return Err(ApiError::invalid("token.invalid", detail));
    }
    let terms = TokenTerms {
        operator,
        name: &new.name,
        step_up: new.step_up,
        is_account: caller.is_account(),
        expires_at: Some(now.plus(i64::from(life_s) * 1_000)),
    };
    let token = auth::issue_token(&app.store, &terms, caller.name(), now).await?;
    let id = id_of(&auth::hash(&token).to_string());
    let view = TokenView {
        id,
        name: new.name.clone(),
        operator: terms.operator.name.clone(),
        role: terms.operator.role,
        scope: terms.operator.scope.clone(),
        step_up: terms.step_up,
        created_by: caller.name().to_owned(),
        created_at: now,
        used_at: None,
        expires_at: terms.expires_at,
    };
    Ok((StatusCode::CREATED, Json(TokenCreated { token, view })))
}

/// What a token may do: no more than whoever makes it, in no wider scope.
fn lesser(caller: &Caller, new: &TokenNew) -> Result<Operator, ApiError> {
    let role = new.role.unwrap_or(caller.role());
    if !permission::is_no_more_than(role, caller.role()) {
        return Err(ApiError::forbidden("a token may do what its maker may, or look only"));
    }
    let scope = if new.scope.trim().is_empty() { caller.reach().text() } else { &new.scope };
    let operator = auth::operator(caller.name(), role, scope)?;
    let reach = Reach::parse(&operator.scope).map_err(AuthError::from)?;
    if !caller.reach().contains(&reach) {
        let detail = format!("`{reach}` is wider than your scope `{}`", caller.reach());
        return Err(ApiError::beyond_scope(detail));
    }
    Ok(operator)
}

/// Revokes a token: one's own, or, with the permission, somebody else's.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "operators",
    params(("id" = String, Path, description = "As `GET /tokens` names it")),
    responses((status = 204), (status = 404, body = Problem)))]
async fn revoke_token(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let of = caller.may(Permission::Access).is_err().then(|| caller.name());
    let now = clock::now();
    let mut change = app.store.begin().await?;
    let Some(token) = change.end_api_token(&id, of).await? else {
        return Err(ApiError::not_found("token.not-found", format!("there is no token {id}")));
    };
    if token.operator != caller.name() {
        caller.has_stepped_up(&app.auth, now)?;
    }
    let detail = format!("`{}` {}", token.name, token.id);
    let deed = caller.deed("token.revoke", &token.operator, &detail);
    change.audit(&deed, now).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

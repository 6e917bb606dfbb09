//! The description of `/api/v1`, made from the code.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use super::session;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sealift fleet server",
        description = "Lists are paged by `limit` and `cursor`. Errors are `application/problem+json` with a stable `code`. \
                       Times are milliseconds since 1970 UTC.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(session::begin),
    security(("token" = []))
)]
struct Head;

/// What stands above the routes.
pub(super) fn head() -> Document {
    let mut document = Head::openapi();
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", token);
    document
}

/// Serves the description.
pub(super) fn serve(document: &Document) -> Response {
    Json(document).into_response()
}

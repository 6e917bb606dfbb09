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
    paths(
        session::begin,
        session::ways,
        session::with_password,
        session::oidc::begin,
        session::oidc::callback,
        session::oidc::device,
        session::oidc::poll
    ),
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

/// Names each operation by method and path: handlers of different files may be named alike, operations may not.
pub(super) fn name_operations(document: &mut Document) {
    for (path, item) in &mut document.paths.paths {
        let words = path.trim_start_matches("/api/v1/").split(['/', '{', '}']);
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        let operations = [
            ("get", &mut item.get),
            ("put", &mut item.put),
            ("post", &mut item.post),
            ("patch", &mut item.patch),
            ("delete", &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                operation.operation_id = Some(format!("{method}-{}", words.join("-")));
            }
        }
    }
}

/// Serves the description.
pub(super) fn serve(document: &Document) -> Response {
    Json(document).into_response()
}

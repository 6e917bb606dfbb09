//! The web console, from the binary; without one, a page that says so.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse as _, Response};
use rust_embed::RustEmbed;

use super::App;
use super::error::ApiError;

/// Only what this server sends itself runs or shows; no inline script, no frame, no foreign origin.
pub(super) const POLICY: &str = "default-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'";

/// A build without the console compiles; the folder is then empty.
#[derive(RustEmbed)]
#[folder = "console/dist"]
#[allow_missing = true]
struct Files;

/// Serves a file of the console; any other path is a page of it, which its router knows.
pub(super) async fn serve(State(app): State<App>, method: Method, uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    let is_read = matches!(method, Method::GET | Method::HEAD);
    if let Some(file) = Files::get(path).filter(|_| is_read && !path.is_empty()) {
        return served(path, file);
    }
    if is_machine_path(path) || !is_read {
        let detail = format!("there is nothing at {}", uri.path());
        return ApiError::not_found("not-found", detail).into_response();
    }
    match Files::get("index.html") {
        Some(index) => served("index.html", index),
        None => Html(without_console(&app).await).into_response(),
    }
}

fn is_machine_path(path: &str) -> bool {
    ["api/", "v2/", "tuf/", "assets/"].iter().any(|prefix| path.starts_with(prefix))
}

fn served(path: &str, file: rust_embed::EmbeddedFile) -> Response {
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    // Files below `assets` carry a hash of their content in their name.
    let cache = if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let mut response = Response::new(Body::from(file.data));
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::try_from(kind.as_ref()) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    *response.status_mut() = StatusCode::OK;
    response
}

/// Says what is there; no numbers of the fleet, since nobody has logged in.
async fn without_console(app: &App) -> String {
    let store = match app.store.ping().await {
        Ok(()) => "answers",
        Err(_) => "does not answer",
    };
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sealift fleet server</title>\
         <h1>Sealift fleet server {}</h1><p>The server runs; its store {store}.</p>\
         <p>This build has no web console. To build one: <code>cargo xtask web</code>, then build the \
         server again. Until then use <code>fleetctl</code>, or the API described in \
         <a href=\"/openapi.json\">openapi.json</a>.</p></html>",
        env!("CARGO_PKG_VERSION")
    )
}

//! Answers that many devices ask for at once, kept for a moment: after a rollout's first directive a whole fleet fetches the same few
//! documents and weights, and the database and the disk are asked once in a while instead of once each.
//!
//! Only what is named by its version or digest is kept, so that no device is ever told of an older state. Whether it is still there is
//! asked again every [`KEPT_MS`] milliseconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, IF_RANGE, RANGE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use sealift_protocol::id::UnixMillis;

use crate::clock;

/// For so long an answer counts: after it, what was removed is gone for devices too.
const KEPT_MS: i64 = 2_000;
/// Bytes of an answer that is kept. Larger ones are streamed from where they are.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Bytes of all answers together, with what it takes to keep them.
const BYTES_MAX: usize = 32 << 20;
/// Bytes that an answer takes beside its body and its path, about: its head has half a dozen lines.
const HEAD_BYTES: usize = 1 << 10;

/// What was answered lately; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    by_path: BTreeMap<String, Answer>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Answer {
    at: UnixMillis,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// What it takes to keep it. A path has many spellings (RFC 3986, section 2.1): without theirs, small answers would take memory
    /// without end.
    const fn cost(&self, path: &str) -> usize {
        HEAD_BYTES + path.len() + self.body.len()
    }
}

impl Answers {
    fn get(&mut self, path: &str, now: UnixMillis) -> Option<Answer> {
        let answer = self.by_path.get(path)?;
        if (0..KEPT_MS).contains(&now.since(answer.at)) {
            return Some(answer.clone());
        }
        self.remove(path);
        None
    }

    fn put(&mut self, path: String, answer: Answer) {
        self.remove(&path);
        let cost = answer.cost(&path);
        if self.bytes + cost > BYTES_MAX {
            // The oldest are over in a moment anyhow.
            *self = Self::default();
        }
        self.bytes += cost;
        self.by_path.insert(path, answer);
    }

    fn remove(&mut self, path: &str) {
        if let Some(old) = self.by_path.remove(path) {
            self.bytes -= old.cost(path);
        }
    }
}

/// Answers from memory what was answered a moment ago, and remembers the rest.
pub(super) async fn answer(
    State(Recent(answers)): State<Recent>,
    request: Request,
    next: Next,
) -> Response {
    let Some(path) = fixed(&request) else { return next.run(request).await };
    let known = answers.lock().unwrap_or_else(PoisonError::into_inner).get(&path, clock::now());
    if let Some(Answer { headers, body, .. }) = known {
        let mut response = Response::new(Body::from(body));
        *response.headers_mut() = headers;
        return response;
    }
    let response = next.run(request).await;
    if response.status() != StatusCode::OK || !is_small(&response) {
        return response;
    }
    let (head, body) = response.into_parts();
    let Ok(body) = to_bytes(body, usize::try_from(ANSWER_BYTES_MAX).unwrap_or(0)).await else {
        return failed();
    };
    let answer = Answer { at: clock::now(), headers: head.headers.clone(), body: body.clone() };
    answers.lock().unwrap_or_else(PoisonError::into_inner).put(path, answer);
    Response::from_parts(head, Body::from(body))
}

/// The path of a whole document that is always the same: metadata with a version or digest in its name, and what has a digest.
fn fixed(request: &Request) -> Option<String> {
    let (path, headers) = (request.uri().path(), request.headers());
    let is_whole = !headers.contains_key(RANGE) && !headers.contains_key(IF_RANGE);
    let is_metadata = path.starts_with("/tuf/") && path != "/tuf/timestamp.json";
    let is_content = path.starts_with("/v2/") && path.contains("/sha256:");
    let is_fixed = request.method() == Method::GET && is_whole && (is_metadata || is_content);
    is_fixed.then(|| path.to_owned())
}

/// Whether it is known beforehand to be worth the memory: by its head where it is streamed, else by what is there.
fn is_small(response: &Response) -> bool {
    let length = match response.headers().get(CONTENT_LENGTH) {
        Some(length) => length.to_str().ok().and_then(|text| text.parse().ok()),
        None => response.body().size_hint().exact(),
    };
    length.is_some_and(|length| length <= ANSWER_BYTES_MAX)
}

/// The disk or the bucket broke off in the middle.
fn failed() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    fn answer_of(length: usize) -> Answer {
        let body = vec![0; length].into();
        Answer { at: UnixMillis(0), headers: HeaderMap::new(), body }
    }

    #[test]
    fn an_answer_is_forgotten_in_time() {
        let mut answers = Answers::default();
        answers.put("a".to_owned(), answer_of(10));
        assert!(answers.get("a", UnixMillis(KEPT_MS - 1)).is_some());
        assert!(answers.get("a", UnixMillis(KEPT_MS)).is_none());
        assert_eq!(answers.bytes, 0);
    }

    #[test]
    fn answers_never_hold_more_than_they_may() {
        let mut answers = Answers::default();
        for number in 0..100 {
            answers.put((number % 70).to_string(), answer_of(1 << 20));
            let held = answers.by_path.iter().map(|(path, answer)| answer.cost(path));
            assert_eq!(answers.bytes, held.sum::<usize>());
            assert!(answers.bytes <= BYTES_MAX);
        }
    }

    #[tokio::test]
    async fn attack_one_small_blob_by_many_spellings_fills_no_memory() {
        let recent = Recent::default();
        let router = Router::new()
            .route("/v2/{*path}", get(async || "{}"))
            .layer(from_fn_with_state(recent.clone(), answer));
        for spelling in 0..40_000_u32 {
            let digits = (0..16).map(|digit| if spelling >> digit & 1 == 1 { "%30" } else { "0" });
            let path = format!("/v2/a/b/blobs/sha256:{}", digits.collect::<String>());
            let request = Request::get(path).body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap();
        }
        let kept = recent.0.lock().unwrap().by_path.len();
        assert!(kept * HEAD_BYTES <= BYTES_MAX, "{kept} answers are kept");
    }

    #[tokio::test]
    async fn what_is_too_large_to_keep_is_answered_all_the_same() {
        let length = usize::try_from(ANSWER_BYTES_MAX).unwrap() + 1;
        let router = Router::new()
            .route("/{*path}", get(move || async move { vec![b'x'; length] }))
            .layer(from_fn_with_state(Recent::default(), answer));
        for _ in 0..2 {
            let request = Request::get("/tuf/7.targets.json").body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            assert_eq!(body.len(), length);
        }
    }

    async fn asked(paths: &[&str], range: bool) -> usize {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let serve = move || async move { counted.fetch_add(1, Ordering::Relaxed).to_string() };
        let router = Router::new()
            .route("/{*path}", get(serve))
            .layer(from_fn_with_state(Recent::default(), answer));
        for path in paths {
            let mut request = Request::get(*path);
            if range {
                request = request.header(RANGE, "bytes=0-1");
            }
            let request = request.body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap();
        }
        count.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn only_what_never_changes_is_answered_from_memory() {
        let blob = "/v2/vision/digits/blobs/sha256:00";
        assert_eq!(asked(&[blob, blob, blob], false).await, 1);
        assert_eq!(asked(&[blob, blob], true).await, 2, "parts of it");
        assert_eq!(asked(&["/tuf/3.root.json", "/tuf/3.root.json"], false).await, 1);
        assert_eq!(asked(&["/tuf/timestamp.json", "/tuf/timestamp.json"], false).await, 2);
        assert_eq!(asked(&["/directive", "/directive"], false).await, 2);
    }
}

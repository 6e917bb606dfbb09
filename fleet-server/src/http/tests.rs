use axum::body::{Body, to_bytes};
use axum::http::{Request, Response};
use ed25519_dalek::SigningKey;
use futures_util::StreamExt as _;
use sealift_protocol::api::Role;
use sealift_protocol::id::{TenantId, UnixMillis};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::alert::deliver::Inside;
use crate::auth::{self, Rules, Seal};
use crate::blobs::Blobs;
use crate::certificate::DeviceCertificate;
use crate::config::{Retention, ReviewBudget};
use crate::drift::Policy;
use crate::permission::{Entry, Permission};
use crate::review::Review;
use crate::store::Store;
use crate::store::enrol::{Given, Taken};
use crate::watch::Outlook;

mod alerting;
mod alerts;
mod channels;
mod operators;

/// A server's operators' port without a socket.
struct Port {
    app: App,
    router: Router,
    admin: String,
    _folder: tempfile::TempDir,
}

impl Port {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("fleet.db").display());
        let tenant = TenantId::parse("main").unwrap();
        let store = Store::open(&url).await.unwrap().tenant(&tenant);
        let key = SigningKey::from_bytes(&[7; 32]);
        let director = Arc::new(Director::new(key, tenant, 86_400));
        let notary = SigningKey::from_bytes(&[9; 32]);
        let notary = Arc::new(Notary::new(notary, store.tenant()));
        let patience = Patience {
            silent_after_ms: 120_000,
            offline_after_ms: 90_000,
            directive_valid_ms: 86_400_000,
        };
        let (signals, hub) = (Signals::default(), Hub::default());
        let reconciler = Reconciler::new(
            store.clone(),
            Arc::clone(&director),
            patience,
            signals.clone(),
            hub.clone(),
        );
        let blobs = Blobs::open(None, folder.path()).await.unwrap();
        let judging = (Policy::default(), Vec::new());
        let history = History::new(store.clone(), blobs.clone(), judging, Retention::default());
        let watch = Watch::new(
            store.clone(),
            blobs,
            (signals.clone(), hub.clone()),
            patience,
            Outlook {
                policy: Policy::default(),
                labels: Vec::new(),
                interval: Duration::from_mins(1),
            },
        );
        let admin = auth::create_token(&store, "ann", Role::Admin, clock::now()).await.unwrap();
        let seal = Seal::of_test(store.tenant());
        let inside = Inside { is_open: true, networks: Vec::new() };
        let review = Review::new(
            store.clone(),
            seal.clone(),
            (Arc::clone(&director), signals.clone()),
            (ReviewBudget::default(), Retention::default()),
        );
        let app = App {
            review,
            dispatch: Dispatch::new(store.clone(), seal.clone(), inside, "http://console"),
            reconciler,
            director,
            notary,
            patience,
            signals,
            hub,
            metrics: Metrics::default(),
            watch,
            history,
            auth: Arc::new(Auth::new(store.clone(), Rules::default(), seal, None)),
            rates: Rates::default(),
            approval: Approval::Never,
            offline_keys: None,
            store,
            expiries: crate::trust::expiry::Expiries::default(),
        };
        let router = router(app.clone(), OpenApiRouter::new());
        Self { app, router, admin, _folder: folder }
    }

    async fn token(&self, role: Role) -> String {
        let name = format!("{role:?}");
        auth::create_token(&self.app.store, &name, role, clock::now()).await.unwrap()
    }

    async fn enrol(&self, name: &str) {
        let certificate = DeviceCertificate {
            chain_pem: String::new(),
            serial: "1".to_owned(),
            expires_at: UnixMillis(1),
        };
        let mut change = self.app.store.begin().await.unwrap();
        let labels = [("site".to_owned(), "tokyo".to_owned())].into();
        change
            .enrol_device(
                &name.parse().unwrap(),
                &certificate,
                Given { labels: &labels, taken: Taken::Replaced },
                clock::now(),
            )
            .await
            .unwrap();
        change.commit().await.unwrap();
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Asks with a token; returns status and body.
    async fn ask(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = self.send(request.body(body).unwrap()).await;
        (response.status().as_u16(), json_of(response).await)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(&self.admin, "GET", path, Value::Null).await
    }
}

async fn json_of(response: Response<Body>) -> Value {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
}

#[tokio::test]
async fn every_route_that_is_described_needs_somebody_known() {
    let port = Port::open().await;
    let (_, document) = port.get("/openapi.json").await;
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let route = crate::permission::look_up(&method.to_uppercase(), path);
            if route == Entry::Takes(Permission::Open) {
                continue;
            }
            let path = path.replace(['{', '}'], "");
            for token in ["", "slt_guess"] {
                let (status, problem) =
                    port.ask(token, &method.to_uppercase(), &path, Value::Null).await;
                assert_eq!((status, &problem["code"]), (401, &json!("auth.missing")), "{path}");
                asked += 1;
            }
        }
    }
    assert!(asked > 20, "{asked}");
}

#[tokio::test]
async fn viewers_change_nothing_and_operators_do_not_revoke() {
    let port = Port::open().await;
    port.enrol("cam-1").await;
    let (viewer, publisher) = (port.token(Role::Viewer).await, port.token(Role::Publisher).await);
    let operator = port.token(Role::Operator).await;
    let rollout = json!({"model": "vision/digits", "version": "1"});
    let back = json!({"model": "vision/digits", "to": "previous", "reason": "r"});
    for (method, path, body) in [
        ("PATCH", "/api/v1/devices/cam-1/labels", json!({"labels": {"site": "osaka"}})),
        ("POST", "/api/v1/devices/cam-1/revoke", json!({"reason": "stolen"})),
        ("POST", "/api/v1/rollouts", rollout),
        ("POST", "/api/v1/rollouts/r-1/abort", Value::Null),
        ("POST", "/api/v1/rollback", back),
    ] {
        for token in [&viewer, &publisher] {
            let (status, problem) = port.ask(token, method, path, body.clone()).await;
            assert_eq!((status, &problem["code"]), (403, &json!("auth.forbidden")), "{path}");
        }
    }
    let path = "/api/v1/devices/cam-1/revoke";
    let order = json!({"reason": "stolen"});
    assert_eq!(port.ask(&operator, "POST", path, order.clone()).await.0, 403);
    let empty = json!({"reason": " "});
    assert_eq!(port.ask(&port.admin, "POST", path, empty).await.0, 422);
    let (status, device) = port.ask(&port.admin, "POST", path, order.clone()).await;
    assert_eq!((status, &device["state"]), (200, &json!("revoked")));
    let (status, problem) = port.ask(&port.admin, "POST", path, order).await;
    assert_eq!((status, &problem["code"]), (409, &json!("device.revoked")));
    assert_eq!(port.get("/api/v1/devices/cam-1").await.1["state"], "revoked");
}

#[tokio::test]
async fn a_problem_names_its_request() {
    let port = Port::open().await;
    let request = Request::builder()
        .uri("/api/v1/devices?filter=tokyo")
        .header("authorization", format!("Bearer {}", port.admin));
    let response = port.send(request.body(Body::empty()).unwrap()).await;

    assert_eq!(response.status(), 422);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let problem = json_of(response).await;
    assert_eq!(problem["code"], "filter.syntax");
    assert_eq!(problem["request_id"], json!(id));
    assert!(problem["help"].as_str().unwrap().contains("label:value"));
}

#[tokio::test]
async fn devices_come_in_pages() {
    let port = Port::open().await;
    for name in ["cam-1", "cam-2", "cam-3"] {
        port.enrol(name).await;
    }
    let (_, first) = port.get("/api/v1/devices?limit=2&filter=site:tokyo").await;
    assert_eq!((&first["total"], &first["next_cursor"]), (&json!(3), &json!("cam-2")));
    let (_, last) = port.get("/api/v1/devices?limit=2&filter=site:tokyo&cursor=cam-2").await;
    assert_eq!(last["items"].as_array().unwrap().len(), 1);
    assert_eq!((&last["items"][0]["id"], last.get("next_cursor")), (&json!("cam-3"), None));
    assert_eq!(port.get("/api/v1/devices?cursor=a/b").await.1["code"], "cursor.invalid");
    assert_eq!(port.get("/api/v1/devices/cam-9").await.1["code"], "device.not-found");
}

#[tokio::test]
async fn labels_are_changed_checked_and_written_down() {
    let port = Port::open().await;
    port.enrol("cam-1").await;
    let path = "/api/v1/devices/cam-1/labels";
    let change = |labels: Value| json!({ "labels": labels });
    let (status, view) =
        port.ask(&port.admin, "PATCH", path, change(json!({"site": null, "line": "4"}))).await;
    assert_eq!((status, &view["labels"]), (200, &json!({"line": "4"})));
    for labels in [
        json!({"": "x"}),
        json!({"state": "x"}),
        json!({"a b": "x"}),
        json!({"a": "\n"}),
        json!({"-a": "x"}),
        json!({"a": "x".repeat(81)}),
        json!({"a": ""}),
    ] {
        let (status, problem) = port.ask(&port.admin, "PATCH", path, change(labels.clone())).await;
        assert_eq!((status, &problem["code"]), (422, &json!("labels.invalid")), "{labels}");
    }
    let many: serde_json::Map<_, _> =
        (0..64).map(|number| (format!("l{number}"), json!("x"))).collect();
    let (status, problem) = port.ask(&port.admin, "PATCH", path, change(many.into())).await;
    assert_eq!((status, &problem["code"]), (422, &json!("labels.too-many")));
    let (_, audit) = port.get("/api/v1/audit?limit=1").await;
    assert_eq!(audit["items"][0]["detail"], "line=4 -site");
}

#[tokio::test]
async fn a_login_code_becomes_a_session_that_changes_nothing_without_its_csrf_token() {
    let port = Port::open().await;
    port.enrol("cam-1").await;
    let code = auth::create_login_code(&port.app.store, "ann", Role::Operator, clock::now()).await;
    let code = json!({ "code": code.unwrap() });
    let begin = || {
        let request = Request::post("/api/v1/session").header("content-type", "application/json");
        request.body(Body::from(code.to_string())).unwrap()
    };
    let response = port.send(begin()).await;
    let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    let csrf = json_of(response).await["csrf_token"].as_str().unwrap().to_owned();
    let again = port.send(begin()).await;
    assert_eq!(
        (again.status().as_u16(), json_of(again).await["code"].clone()),
        (401, json!("auth.code"))
    );

    let cookie = cookie.split(';').next().unwrap().to_owned();
    let change = |csrf: &str| {
        let body = json!({"labels": {"site": "osaka"}}).to_string();
        Request::patch("/api/v1/devices/cam-1/labels")
            .header("cookie", &cookie)
            .header("content-type", "application/json")
            .header("x-csrf-token", csrf)
            .body(Body::from(body))
            .unwrap()
    };
    let forged = port.send(change("guess")).await;
    assert_eq!(json_of(forged).await["code"], "auth.csrf");
    assert_eq!(port.send(change(&csrf)).await.status(), 200);

    let session = |method: &str| {
        let request = Request::builder().method(method).uri("/api/v1/session");
        let request = request.header("cookie", &cookie).header("x-csrf-token", &csrf);
        request.body(Body::empty()).unwrap()
    };
    let view = json_of(port.send(session("GET")).await).await;
    assert_eq!((&view["operator"], &view["roles"]), (&json!("ann"), &json!(["operator"])));
    assert_eq!(port.send(session("DELETE")).await.status(), 204);
    assert_eq!(port.send(session("GET")).await.status(), 401);
}

#[tokio::test]
async fn orders_that_cannot_be_are_refused_with_stable_codes() {
    let port = Port::open().await;
    port.enrol("cam-1").await;
    let new = json!({"model": "vision/digits", "version": "1"});
    let back = |reason: &str| json!({"model": "vision/digits", "to": "previous", "reason": reason});
    for (method, path, body, status, code) in [
        ("POST", "/api/v1/rollouts", new, 404, "version.not-found"),
        ("POST", "/api/v1/rollback", back(""), 422, "reason.missing"),
        ("POST", "/api/v1/rollback", back("bad"), 409, "rollback.no-earlier"),
        ("GET", "/api/v1/rollouts/r-9", Value::Null, 404, "rollout.not-found"),
        ("GET", "/api/v1/rollouts/x", Value::Null, 404, "rollout.not-found"),
        ("POST", "/api/v1/rollouts/r-9/pause", json!({}), 404, "rollout.not-found"),
        ("POST", "/api/v1/rollouts/r-9/explode", json!({}), 404, "action.unknown"),
        ("GET", "/api/v1/nothing", Value::Null, 404, "not-found"),
    ] {
        let (found, problem) = port.ask(&port.admin, method, path, body).await;
        assert_eq!((found, &problem["code"]), (status, &json!(code)), "{path}");
    }
}

#[tokio::test]
async fn changes_are_streamed_and_what_was_missed_comes_first() {
    let port = Port::open().await;
    port.enrol("cam-1").await;
    port.app.hub.publish("status", &json!({"n": 1}));
    port.app.hub.publish("status", &json!({"n": 2}));
    let request = Request::get("/api/v1/events")
        .header("authorization", format!("Bearer {}", port.admin))
        .header("last-event-id", "1");
    let response = port.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    let missed = stream.next().await.unwrap().unwrap();
    assert_eq!(&*missed, b"id: 2\nevent: status\ndata: {\"n\":2}\n\n");

    port.app.hub.touch_device("cam-1".parse().unwrap());
    events::Teller::new(port.app.clone()).tell(clock::now()).await.unwrap();
    let live = String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(live.starts_with("id: 3\nevent: device\ndata: {\"id\":\"cam-1\""), "{live}");
}

#[tokio::test]
async fn metrics_name_no_device() {
    let port = Port::open().await;
    port.enrol("cam-1").await;
    let request =
        Request::get("/metrics").header("authorization", format!("Bearer {}", port.admin));
    let response = port.send(request.body(Body::empty()).unwrap()).await;
    let text = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.contains("sealift_devices{state=\"offline\"} 1\n"), "{text}");
    assert!(text.ends_with("# EOF\n") && !text.contains("cam-1"), "{text}");
    assert_eq!(
        port.send(Request::get("/metrics").body(Body::empty()).unwrap()).await.status(),
        401
    );
}

#[tokio::test]
async fn a_page_is_served_for_people_and_problems_for_programs() {
    let port = Port::open().await;
    let get = async |path: &str| port.send(Request::get(path).body(Body::empty()).unwrap()).await;
    let page = get("/rollouts/r-3").await;
    assert_eq!(page.status(), 200);
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    assert!(
        page.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .starts_with("default-src 'self'")
    );
    for path in ["/api/v2/x", "/assets/none.js", "/tuf/none"] {
        assert_eq!(get(path).await.status(), 404, "{path}");
    }
    assert_eq!(get("/healthz").await.status(), 200);
}

#[tokio::test]
async fn a_refusal_can_be_read_by_whoever_takes_compressed_answers() {
    let port = Port::open().await;
    let asked = |path: &str| {
        Request::get(path)
            .header("authorization", format!("Bearer {}", port.admin))
            .header("accept-encoding", "gzip")
            .body(Body::empty())
            .unwrap()
    };

    let refused = port.send(asked("/api/v1/devices?filter=nonsense")).await;
    let answered = port.send(asked("/openapi.json")).await;

    assert!(!refused.headers().contains_key("content-encoding"));
    assert_eq!(json_of(refused).await["code"], "filter.syntax");
    assert_eq!(answered.headers()["content-encoding"], "gzip");
}

#[tokio::test]
async fn what_the_framework_refuses_is_a_problem_too() {
    let port = Port::open().await;
    let body = json!({"model": "vision/digits", "version": "1", "reason": "x".repeat(1 << 20)});
    let (status, problem) = port.ask(&port.admin, "POST", "/api/v1/rollouts", body).await;
    assert_eq!((status, &problem["code"]), (413, &json!("request.invalid")));
    let (status, problem) = port.ask(&port.admin, "POST", "/api/v1/rollouts", json!({})).await;
    assert_eq!((status, &problem["code"]), (422, &json!("request.invalid")));
    assert!(problem["detail"].as_str().unwrap().contains("missing field `model`"), "{problem}");
    let (status, problem) = port.get("/api/v1/devices?limit=many").await;
    assert_eq!((status, &problem["code"]), (400, &json!("request.invalid")));
}

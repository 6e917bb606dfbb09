//! Accounts, tokens, scopes and confirmations over HTTP.

use sealift_protocol::api::OperatorNew;

use super::*;
use crate::auth::{Seal, TokenTerms, Visit};
use crate::permission::ROUTES;

const PASSWORD: &str = "a quiet harbour at dawn";

impl Port {
    async fn scoped(&self, name: &str, role: Role, scope: &str) -> String {
        let operator = auth::operator(name, role, scope).unwrap();
        let terms =
            TokenTerms { operator, name: "", step_up: false, is_account: false, expires_at: None };
        auth::issue_token(&self.app.store, &terms, "server", clock::now()).await.unwrap()
    }

    async fn label(&self, device: &str, site: &str) {
        let change = json!({"labels": {"site": site}});
        let path = format!("/api/v1/devices/{device}/labels");
        assert_eq!(self.ask(&self.admin, "PATCH", &path, change).await.0, 200);
    }

    async fn account(&self, name: &str, role: Role, without_totp: bool) -> Option<String> {
        let new = OperatorNew {
            name: name.to_owned(),
            role,
            scope: String::new(),
            password: PASSWORD.to_owned(),
            without_totp,
        };
        self.app.auth.create_account(new, "server", clock::now()).await.unwrap().totp_uri
    }

    async fn log_in(&self, name: &str, password: &str, code: &str) -> Response<Body> {
        let login = json!({"operator": name, "password": password, "code": code});
        let request = Request::post("/api/v1/session/password")
            .header("content-type", "application/json")
            .body(Body::from(login.to_string()));
        self.send(request.unwrap()).await
    }

    async fn through_cookie(
        &self,
        (cookie, csrf): (&str, &str),
        method: &str,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("cookie", cookie)
            .header("x-csrf-token", csrf)
            .header("content-type", "application/json");
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = self.send(request.body(body).unwrap()).await;
        (response.status().as_u16(), json_of(response).await)
    }
}

async fn cookie_and_csrf(response: Response<Body>) -> (String, String) {
    let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    (cookie, json_of(response).await["csrf_token"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn every_described_route_is_in_the_table_and_nothing_else_of_the_api() {
    let document: Value = serde_json::from_str(include_str!("../../../openapi.json")).unwrap();
    let mut described = std::collections::BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            described.insert((method.to_uppercase(), path.clone()));
        }
    }
    let listed = ROUTES.iter().filter(|(_, path, _)| path.starts_with("/api/v1/"));
    let listed: std::collections::BTreeSet<_> =
        listed.map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, listed);
}

#[tokio::test]
async fn every_route_does_for_every_role_what_the_table_says() {
    let port = Port::open().await;
    let (_, document) = port.get("/openapi.json").await;
    let described =
        |method: &str, path: &str| document["paths"][path].get(method.to_lowercase()).is_some();
    let mut asked = 0;
    for role in Role::ALL {
        let token = port.token(role).await;
        for (method, path, permission) in ROUTES.iter().filter(|it| described(it.0, it.1)) {
            let concrete = path.replace("{id}", "r-9").replace("{action}", "pause");
            let concrete = concrete.replace(['{', '}'], "");
            if *permission == crate::permission::Permission::Open || concrete.ends_with("/events") {
                continue;
            }
            if (*method, *path) == ("DELETE", "/api/v1/session") {
                continue; // it would end the token's own session
            }
            let (_, problem) = port.ask(&token, method, &concrete, json!({})).await;
            let is_refused = problem["code"] == "auth.forbidden";
            assert_eq!(is_refused, !permission.is_of(role), "{role:?} {method} {path}: {problem}");
            asked += 1;
        }
    }
    assert!(asked > 200, "{asked}");
}

#[tokio::test]
async fn somebody_with_a_scope_sees_and_changes_only_their_site() {
    let port = Port::open().await;
    for (device, site) in [("cam-1", "tokyo"), ("cam-2", "osaka"), ("cam-3", "osaka")] {
        port.enrol(device).await;
        port.label(device, site).await;
    }
    let osaka = port.scoped("kei", Role::Operator, "site:osaka").await;

    let (_, page) = port.ask(&osaka, "GET", "/api/v1/devices", Value::Null).await;
    assert_eq!(page["total"], 2);
    let (_, none) = port.ask(&osaka, "GET", "/api/v1/devices?filter=site:tokyo", Value::Null).await;
    assert_eq!(none["total"], 0);
    let (_, status) = port.ask(&osaka, "GET", "/api/v1/status", Value::Null).await;
    assert_eq!(status["devices_offline"], 2);
    for path in ["/api/v1/devices/cam-1", "/api/v1/devices/cam-1/timeline"] {
        assert_eq!(port.ask(&osaka, "GET", path, Value::Null).await.0, 404, "{path}");
    }
    let label = |site: &str| json!({"labels": {"site": site}});
    let patch = async |device: &str, site: &str| {
        let path = format!("/api/v1/devices/{device}/labels");
        let (status, problem) = port.ask(&osaka, "PATCH", &path, label(site)).await;
        (status, problem["code"].clone())
    };
    assert_eq!(patch("cam-1", "osaka").await, (404, json!("device.not-found")), "drawn in");
    assert_eq!(patch("cam-2", "tokyo").await, (403, json!("auth.scope")), "put out");
    assert_eq!(patch("cam-2", "osaka").await.0, 200);
    for path in ["/api/v1/audit", "/api/v1/drift/series?model=a/b&scope=fleet&subject=confidence"] {
        let auditor = port.scoped("aki", Role::Auditor, "site:osaka").await;
        let (status, problem) = port.ask(&auditor, "GET", path, Value::Null).await;
        assert_eq!((status, &problem["code"]), (403, &json!("auth.scope")), "{path}");
    }
}

#[tokio::test]
async fn a_rollback_beyond_the_scope_is_refused_with_what_is_beyond() {
    let port = Port::open().await;
    for (device, site) in [("cam-1", "tokyo"), ("cam-2", "osaka")] {
        port.enrol(device).await;
        port.label(device, site).await;
    }
    let osaka = port.scoped("kei", Role::Operator, "site:osaka").await;
    let back = |filter: &str| json!({"model": "vision/digits", "to": "previous", "filter": filter, "reason": "r"});

    let (status, problem) = port.ask(&osaka, "POST", "/api/v1/rollback", back("")).await;
    assert_eq!((status, &problem["code"]), (403, &json!("auth.scope")));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("1 of 2 devices beyond") && detail.contains("cam-1"), "{detail}");
    // Within the scope it is the order itself that is looked at.
    let (_, problem) = port.ask(&osaka, "POST", "/api/v1/rollback", back("site:osaka")).await;
    assert_eq!(problem["code"], "rollback.no-earlier");
    let new = json!({"model": "vision/digits", "version": "1", "filter": "id:cam-*"});
    let (_, problem) = port.ask(&osaka, "POST", "/api/v1/rollouts", new).await;
    assert_eq!(problem["code"], "auth.scope");
}

#[tokio::test]
async fn sql_in_a_filter_or_a_scope_is_a_value_or_a_refusal() {
    let port = Port::open().await;
    port.enrol("cam-1").await;
    for text in ["site:x'%20OR%20'1'='1", "site:%22x%22);DROP%20TABLE%20devices;--", "id:%25"] {
        let (status, body) = port.get(&format!("/api/v1/devices?filter={text}")).await;
        assert!(status == 422 || body["total"] == 0, "{text}: {status} {body}");
    }
    assert_eq!(port.get("/api/v1/devices").await.1["total"], 1);
    let token = json!({"name": "t", "scope": "site:x' OR '1'='1"});
    let (status, problem) = port.ask(&port.admin, "POST", "/api/v1/tokens", token).await;
    assert_eq!((status, &problem["code"]), (422, &json!("scope.invalid")));
}

#[tokio::test]
async fn a_password_and_a_code_let_in_and_each_code_once() {
    let port = Port::open().await;
    let uri = port.account("ann", Role::Operator, false).await.unwrap();
    assert!(uri.starts_with("otpauth://totp/Sealift:ann?secret="), "{uri}");
    let code = totp_now(&uri);

    for (name, password, given) in [
        ("ann", PASSWORD, ""),
        ("ann", PASSWORD, "000000"),
        ("ann", "another password", code.as_str()),
        ("bob", PASSWORD, code.as_str()),
    ] {
        let refused = port.log_in(name, password, given).await;
        assert_eq!(refused.status(), 401);
        assert_eq!(json_of(refused).await["code"], "auth.wrong");
    }
    let entered = port.log_in("ann", PASSWORD, &code).await;
    assert_eq!(entered.status(), 200);
    let (cookie, csrf) = cookie_and_csrf(entered).await;
    assert_eq!(port.log_in("ann", PASSWORD, &code).await.status(), 401, "used before");
    let (_, session) =
        port.through_cookie((&cookie, &csrf), "GET", "/api/v1/session", Value::Null).await;
    assert_eq!((&session["operator"], &session["method"]), (&json!("ann"), &json!("password")));
    let (_, audit) = port.get("/api/v1/audit").await;
    let actions: Vec<_> =
        audit["items"].as_array().unwrap().iter().map(|row| &row["action"]).collect();
    assert!(
        actions.contains(&&json!("session.begin")) && actions.contains(&&json!("session.refused"))
    );
    assert!(!audit.to_string().contains("bob"), "what was typed may be a password");
}

#[tokio::test]
async fn many_wrong_passwords_make_an_account_wait_also_for_the_right_one() {
    let port = Port::open().await;
    port.account("ann", Role::Viewer, true).await;
    for _ in 0..10 {
        assert_eq!(port.log_in("ann", "wrong wrong wrong", "").await.status(), 401);
    }
    let refused = port.log_in("Ann", PASSWORD, "").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(json_of(refused).await["code"], "auth.too-many");
}

#[tokio::test]
async fn the_session_and_the_token_of_a_disabled_operator_end_at_once() {
    let port = Port::open().await;
    port.account("eve", Role::Operator, true).await;
    let (cookie, csrf) = cookie_and_csrf(port.log_in("eve", PASSWORD, "").await).await;
    let own = (cookie.as_str(), csrf.as_str());
    let new = json!({"name": "ci"});
    let (status, made) = port.through_cookie(own, "POST", "/api/v1/tokens", new).await;
    assert_eq!(status, 201);
    let token = made["token"].as_str().unwrap();
    assert_eq!(port.ask(token, "GET", "/api/v1/devices", Value::Null).await.0, 200);

    let wish = json!({"disabled": true});
    let (status, saved) = port.ask(&port.admin, "PATCH", "/api/v1/operators/eve", wish).await;
    assert_eq!(status, 200, "{saved}");
    assert!(saved["operator"]["disabled_at"].is_number());

    assert_eq!(port.ask(token, "GET", "/api/v1/devices", Value::Null).await.0, 401);
    assert_eq!(port.through_cookie(own, "GET", "/api/v1/session", Value::Null).await.0, 401);
    assert_eq!(port.log_in("eve", PASSWORD, "").await.status(), 401);
}

#[tokio::test]
async fn nobody_gives_themselves_or_others_more_than_they_have() {
    let port = Port::open().await;
    let security = port.token(Role::SecurityAdmin).await;
    let operator = port.scoped("kei", Role::Operator, "site:osaka").await;
    let account = |role: &str| json!({"name": "eve", "role": role, "password": PASSWORD, "without_totp": true});

    let (status, problem) =
        port.ask(&security, "POST", "/api/v1/operators", account("admin")).await;
    assert_eq!((status, &problem["code"]), (403, &json!("auth.forbidden")));
    assert_eq!(port.ask(&security, "POST", "/api/v1/operators", account("viewer")).await.0, 201);
    port.account("root", Role::Admin, true).await;
    let takeover = json!({"password": "now it is mine alone"});
    let (status, _) = port.ask(&security, "PATCH", "/api/v1/operators/root", takeover).await;
    assert_eq!(status, 403, "an admin's password is not reset by less");

    let wish = |role: &str, scope: &str| json!({"name": "t", "role": role, "scope": scope});
    for (role, scope, code) in [
        ("admin", "", "auth.forbidden"),
        ("publisher", "", "auth.forbidden"),
        ("viewer", "site:tokyo", "auth.scope"),
    ] {
        let (_, problem) = port.ask(&operator, "POST", "/api/v1/tokens", wish(role, scope)).await;
        assert_eq!(problem["code"], code, "{role} {scope}");
    }
    // A token without a person makes no tokens that would outlive it.
    let (_, problem) = port.ask(&operator, "POST", "/api/v1/tokens", wish("viewer", "")).await;
    assert_eq!(problem["code"], "auth.step-up");
}

#[tokio::test]
async fn a_token_ends_when_it_says_and_is_listed_without_its_secret() {
    let port = Port::open().await;
    let now = clock::now();
    let terms = |expires_at| TokenTerms {
        operator: auth::operator("ci", Role::Viewer, "").unwrap(),
        name: "old",
        step_up: false,
        is_account: false,
        expires_at,
    };
    let old =
        auth::issue_token(&port.app.store, &terms(Some(now.plus(-1))), "ann", now).await.unwrap();
    assert_eq!(port.ask(&old, "GET", "/api/v1/devices", Value::Null).await.0, 401);

    let new = json!({"name": "ci", "expires_in_s": 3600, "step_up": true});
    let (_, made) = port.ask(&port.admin, "POST", "/api/v1/tokens", new).await;
    let (token, id) = (made["token"].as_str().unwrap(), made["view"]["id"].as_str().unwrap());
    let (_, list) = port.get("/api/v1/tokens").await;
    assert!(list.to_string().contains(id) && !list.to_string().contains(token), "{list}");
    assert_eq!(port.ask(token, "GET", "/api/v1/devices", Value::Null).await.0, 200);
    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(port.ask(&port.admin, "DELETE", &path[..path.len() - 1], Value::Null).await.0, 404);
    assert_eq!(port.ask(&port.admin, "DELETE", &path, Value::Null).await.0, 204);
    assert_eq!(port.ask(token, "GET", "/api/v1/devices", Value::Null).await.0, 401);
}

#[tokio::test]
async fn revoking_must_be_confirmed_by_a_person_or_a_token_made_for_it() {
    let port = Port::open().await;
    port.enrol("cam-1").await;
    let path = "/api/v1/devices/cam-1/revoke";
    let program = port.scoped("ci", Role::Admin, "").await;
    let (status, problem) = port.ask(&program, "POST", path, Value::Null).await;
    assert_eq!((status, &problem["code"]), (403, &json!("auth.step-up")));

    port.account("ann", Role::SecurityAdmin, true).await;
    let (cookie, csrf) = cookie_and_csrf(port.log_in("ann", PASSWORD, "").await).await;
    let own = (cookie.as_str(), csrf.as_str());
    age_sessions(&port).await;
    let (status, problem) = port.through_cookie(own, "POST", path, Value::Null).await;
    assert_eq!((status, &problem["code"]), (403, &json!("auth.step-up")));
    let confirm = "/api/v1/session/step-up";
    let wrong = json!({"secret": "not the password"});
    assert_eq!(port.through_cookie(own, "POST", confirm, wrong).await.0, 401);
    let right = json!({"secret": PASSWORD});
    assert_eq!(port.through_cookie(own, "POST", confirm, right).await.0, 204);
    let because = json!({"reason": "stolen"});
    assert_eq!(port.through_cookie(own, "POST", path, because).await.0, 200);
}

#[tokio::test]
async fn a_session_given_before_the_login_is_not_the_one_after_it() {
    let port = Port::open().await;
    port.account("ann", Role::Viewer, true).await;
    let login = json!({"operator": "ann", "password": PASSWORD});
    let request = Request::post("/api/v1/session/password")
        .header("cookie", "sealift_session=known-to-the-attacker")
        .header("content-type", "application/json")
        .body(Body::from(login.to_string()));
    let (cookie, _) = cookie_and_csrf(port.send(request.unwrap()).await).await;
    assert!(!cookie.contains("known-to-the-attacker"), "{cookie}");
    let fixed = ("sealift_session=known-to-the-attacker", "x");
    assert_eq!(port.through_cookie(fixed, "GET", "/api/v1/session", Value::Null).await.0, 401);
}

#[tokio::test]
async fn sessions_of_others_are_seen_and_ended_only_with_the_permission() {
    let port = Port::open().await;
    port.account("ann", Role::Operator, true).await;
    let (cookie, csrf) = cookie_and_csrf(port.log_in("ann", PASSWORD, "").await).await;
    let own = (cookie.as_str(), csrf.as_str());
    let (_, list) = port.through_cookie(own, "GET", "/api/v1/sessions", Value::Null).await;
    assert_eq!((&list["total"], &list["items"][0]["is_own"]), (&json!(1), &json!(true)));
    let id = list["items"][0]["id"].as_str().unwrap();
    let path = format!("/api/v1/sessions/{id}");

    let bob = port.scoped("bob", Role::Operator, "").await;
    assert_eq!(port.ask(&bob, "GET", "/api/v1/sessions?all=true", Value::Null).await.0, 403);
    assert_eq!(port.ask(&bob, "DELETE", &path, Value::Null).await.0, 404);
    assert_eq!(port.ask(&port.admin, "DELETE", &path, Value::Null).await.0, 204);
    assert_eq!(port.through_cookie(own, "GET", "/api/v1/session", Value::Null).await.0, 401);
}

#[tokio::test]
async fn over_tls_the_cookie_is_the_hosts_alone_and_a_links_session_must_confirm_again() {
    let mut port = Port::open().await;
    let rules = Rules { has_tls: true, ..Rules::default() };
    let seal = Seal::of_test(port.app.store.tenant());
    port.app.auth = Arc::new(Auth::new(port.app.store.clone(), rules, seal, None));
    port.router = router(port.app.clone(), OpenApiRouter::new());
    port.enrol("cam-1").await;
    let code = auth::create_login_code(&port.app.store, "ann", Role::Admin, clock::now()).await;
    let request = Request::post("/api/v1/session").header("content-type", "application/json");
    let body = Body::from(json!({"code": code.unwrap()}).to_string());
    let response = port.send(request.body(body).unwrap()).await;
    let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        cookie.starts_with("__Host-sealift_session=") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
    assert!(response.headers()["strict-transport-security"].to_str().unwrap().contains("max-age"));

    let (cookie, csrf) = cookie_and_csrf(response).await;
    age_sessions(&port).await;
    let own = (cookie.as_str(), csrf.as_str());
    let path = "/api/v1/devices/cam-1/revoke";
    let (_, problem) = port.through_cookie(own, "POST", path, Value::Null).await;
    assert_eq!(problem["code"], "auth.step-up");
}

#[tokio::test]
async fn an_idle_session_ends() {
    let mut port = Port::open().await;
    let rules = Rules { idle_ms: 60_000, ..Rules::default() };
    let seal = Seal::of_test(port.app.store.tenant());
    port.app.auth = Arc::new(Auth::new(port.app.store.clone(), rules, seal, None));
    let code = auth::create_login_code(&port.app.store, "ann", Role::Viewer, clock::now()).await;
    let begun = port.app.auth.log_in(&code.unwrap(), &Visit::default(), clock::now()).await;
    let hash = auth::hash(&begun.unwrap().unwrap().secret);
    let at = |ms| port.app.store.session(hash, clock::now().plus(ms), 60_000);
    assert!(at(59_000).await.unwrap().is_some());
    assert!(at(125_000).await.unwrap().is_none());
}

/// Makes every session's confirmation an old one.
async fn age_sessions(port: &Port) {
    let mut change = port.app.store.begin().await.unwrap();
    let aged = change.run("UPDATE sessions SET stepped_up_at = 0 WHERE tenant = $1", |it| it);
    assert!(aged.await.unwrap() > 0);
    change.commit().await.unwrap();
}

/// The code that an authenticator with this key shows now.
fn totp_now(uri: &str) -> String {
    let key = uri.split_once("secret=").unwrap().1.split('&').next().unwrap();
    auth::totp_code(key, clock::now())
}

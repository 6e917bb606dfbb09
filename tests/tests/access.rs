//! Who comes in and what they may do, against a real server over real HTTP: each test is named for the attack, or for what must go on working.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::{Method, Response, StatusCode, Url};
use sealift_protocol::api::{Action, RolloutState, RolloutView};
use sealift_tests::digits::directory as model_directory;
use sealift_tests::fleet::{Api, Options, Server, Simulated};
use sealift_tests::oidc::{Browser, Provider};
use sealift_tests::process::{run, run_to_end, write};
use sealift_tests::story::{self, TIMING};
use sealift_tests::wait::{Look, until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const PASSWORD: &str = "a quiet harbour at dawn";
const ROLES: [&str; 7] =
    ["viewer", "auditor", "operator", "publisher", "approver", "security-admin", "admin"];

/// What the table must say: the roles beside admin that a route is open to; everybody where nothing is said.
const LIMITED: [(&str, &str, &[&str]); 10] = [
    ("POST", "/api/v1/rollouts", &["operator"]),
    ("POST", "/api/v1/rollback", &["operator"]),
    ("POST", "/api/v1/rollouts/{id}/approve", &["approver"]),
    ("POST", "/api/v1/devices/{id}/revoke", &["security-admin"]),
    ("PATCH", "/api/v1/devices/{id}/labels", &["operator"]),
    ("POST", "/api/v1/enrol-tokens", &["operator", "security-admin"]),
    ("GET", "/api/v1/audit", &["auditor", "security-admin"]),
    ("GET", "/api/v1/operators", &["security-admin"]),
    ("POST", "/api/v1/channels", &[]),
    ("PUT", "/api/v1/trust/roles/{role}", &["publisher", "security-admin"]),
];

async fn server(directory: &std::path::Path) -> anyhow::Result<Server> {
    Server::start(directory, &Options::default()).await
}

fn config(directory: &std::path::Path) -> String {
    directory.join("fleet-server.toml").display().to_string()
}

fn token(directory: &std::path::Path, role: &str, more: &[&str]) -> anyhow::Result<String> {
    let config = config(directory);
    let make = ["token", "create", "--config", &config, "--name", role, "--role", role];
    Ok(run("fleet-server", &[&make, more].concat(), &[])?.trim().to_owned())
}

fn account(directory: &std::path::Path, name: &str, role: &str) -> anyhow::Result<()> {
    let (config, secret) = (config(directory), directory.join("password"));
    write(&secret, PASSWORD)?;
    let secret = secret.display().to_string();
    let make = [
        "operator",
        "create",
        name,
        "--config",
        &config,
        "--role",
        role,
        "--password-file",
        &secret,
    ];
    run("fleet-server", &[&make[..], &["--without-totp"]].concat(), &[])?;
    Ok(())
}

async fn code_of(response: Response) -> anyhow::Result<(u16, String)> {
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap_or(Value::Null);
    Ok((status, problem["code"].as_str().unwrap_or_default().to_owned()))
}

/// Somebody who has logged in with a password.
struct Person {
    http: reqwest::Client,
    base: String,
    cookie: String,
    csrf: String,
}

impl Person {
    async fn log_in(server: &Server, name: &str) -> anyhow::Result<Self> {
        let (http, base) = (reqwest::Client::new(), server.endpoints.operator_url.clone());
        let body = json!({"operator": name, "password": PASSWORD});
        let request = http.post(format!("{base}/api/v1/session/password")).json(&body);
        let response = request.send().await?.error_for_status()?;
        let cookie = response.headers()[SET_COOKIE].to_str()?.split(';').next().unwrap().to_owned();
        let session: Value = response.json().await?;
        let csrf = session["csrf_token"].as_str().context("no csrf token")?.to_owned();
        Ok(Self { http, base, cookie, csrf })
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        request.header(COOKIE, &self.cookie).header("x-csrf-token", &self.csrf)
    }
}

#[tokio::test]
async fn every_route_is_closed_to_every_role_that_it_is_not_for() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let document: Value = reqwest::get(format!("{}/openapi.json", server.endpoints.operator_url))
        .await?
        .json()
        .await?;
    let mut asked = 0;
    for role in ROLES {
        let token = token(directory.path(), role, &["--no-step-up"])?;
        let api = Api::new(&server.endpoints.operator_url, &token)?;
        for (path, operations) in document["paths"].as_object().unwrap() {
            if path.starts_with("/api/v1/session") || path.ends_with("/events") {
                continue;
            }
            for method in operations.as_object().unwrap().keys() {
                let method = method.to_uppercase();
                let concrete = path.replace("{id}", "r-9").replace("{action}", "pause");
                let concrete = concrete.replace("{role}", "revocations");
                let request = api.request(method.parse()?, &concrete.replace(['{', '}'], ""));
                let (_, code) = code_of(request.json(&json!({})).send().await?).await?;
                let limited = LIMITED.iter().find(|it| it.0 == method && it.1 == path);
                if let Some((.., roles)) = limited {
                    let may = role == "admin" || roles.contains(&role);
                    assert_eq!(code != "auth.forbidden", may, "{role} {method} {path}: {code}");
                }
                asked += 1;
            }
        }
    }
    ensure!(asked > 250, "{asked}");
    Ok(())
}

#[tokio::test]
async fn csrf_changes_from_other_sites_and_without_the_token_are_refused() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    account(directory.path(), "ann", "admin")?;
    let ann = Person::log_in(&server, "ann").await?;
    let path = "/api/v1/enrol-tokens";
    let body = json!({"labels": {}});

    let forged =
        ann.http.post(format!("{}{path}", ann.base)).header(COOKIE, &ann.cookie).json(&body);
    assert_eq!(code_of(forged.send().await?).await?, (403, "auth.csrf".to_owned()), "no token");
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        let request = ann.request(Method::POST, path).header(name, value).json(&body);
        let refused = code_of(request.send().await?).await?;
        assert_eq!(refused, (403, "auth.csrf".to_owned()), "{name}: {value}");
    }
    // A form of another site cannot even log somebody in as the attacker.
    let login = json!({"operator": "ann", "password": PASSWORD});
    let request = ann.http.post(format!("{}/api/v1/session/password", ann.base));
    let refused = request.header("origin", "https://evil.example").json(&login).send().await?;
    assert_eq!(code_of(refused).await?.1, "auth.csrf");
    let own = ann.request(Method::POST, path).header("sec-fetch-site", "same-origin").json(&body);
    assert_eq!(own.send().await?.status(), StatusCode::CREATED);
    Ok(())
}

#[tokio::test]
async fn every_answer_forbids_frames_sniffing_and_foreign_scripts() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let base = &server.endpoints.operator_url;
    for path in ["/", "/healthz", "/api/v1/devices", "/v2/", "/assets/none.js", "/openapi.json"] {
        let response = reqwest::get(format!("{base}{path}")).await?;
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'self'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin", "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn guessing_a_password_ends_with_waiting_and_is_written_down() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    account(directory.path(), "ann", "viewer")?;
    let address = format!("{}/api/v1/session/password", server.endpoints.operator_url);
    let http = reqwest::Client::new();
    let mut codes = Vec::new();
    for attempt in 0..12 {
        let login = json!({"operator": "ann", "password": format!("guess number {attempt}")});
        codes.push(code_of(http.post(&address).json(&login).send().await?).await?.0);
    }
    assert_eq!(codes[..10], [401; 10]);
    assert_eq!(codes[10..], [429; 2]);
    let audit: Value = server.api()?.get("audit?limit=50").await?;
    let refused = audit["items"].as_array().unwrap().iter();
    assert_eq!(refused.filter(|row| row["action"] == "session.refused").count(), 10);
    assert!(!server.process.log().contains("guess number"), "secrets in the log");
    Ok(())
}

#[tokio::test]
async fn other_peoples_ids_and_other_sites_devices_are_not_there() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let _simulated = Simulated::start(&server, directory.path(), 3, &["site=tokyo".to_owned()])?;
    let api = server.api()?;
    until("three devices are enrolled", SOON, || async {
        let page: Value = api.get("devices").await?;
        ensure!(page["total"] == 3, "{}", page["total"]);
        Ok(Look::Done(()))
    })
    .await?;
    let all: Value = api.get("devices").await?;
    server.ctl(&["device", "label", all["items"][2]["id"].as_str().unwrap(), "site=osaka"])?;
    let osaka = token(directory.path(), "operator", &["--scope", "site:osaka"])?;
    let osaka = Api::new(&server.endpoints.operator_url, &osaka)?;

    let own: Value = osaka.get("devices").await?;
    assert_eq!(own["total"], 1);
    let others: Value = api.get("devices?filter=site:tokyo").await?;
    let other = others["items"][0]["id"].as_str().context("no device")?;
    for (method, path) in [
        (Method::GET, format!("/api/v1/devices/{other}")),
        (Method::GET, format!("/api/v1/devices/{other}/timeline")),
        (Method::PATCH, format!("/api/v1/devices/{other}/labels")),
    ] {
        let labels = json!({"labels": {"site": "osaka"}});
        let (status, _) = code_of(osaka.request(method, &path).json(&labels).send().await?).await?;
        assert_eq!(status, 404, "{path}");
    }
    // What a device has brought up is as little there as the device.
    let batch = format!("/api/v1/devices/{other}/batches/night");
    for (method, path) in [
        (Method::GET, format!("{batch}/result")),
        (Method::DELETE, format!("{batch}/result")),
        (Method::GET, format!("{batch}/file")),
    ] {
        let answer = code_of(osaka.request(method, &path).send().await?).await?;
        assert_eq!(answer, (404, "device.not-found".to_owned()), "{path}");
    }
    let back = json!({"model": "vision/digits", "to": "previous", "reason": "r"});
    let request = osaka.request(Method::POST, "/api/v1/rollback").json(&back);
    let problem: Value = request.send().await?.json().await?;
    assert_eq!(problem["code"], "auth.scope");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("2 of 3 devices beyond your scope `site:osaka`"), "{detail}");
    Ok(())
}

#[tokio::test]
async fn fleetctl_logs_a_person_in_makes_a_token_and_keeps_it_to_itself() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let secret = directory.path().join("first");
    write(&secret, PASSWORD)?;
    let secret = secret.display().to_string();
    let made = server.ctl_json(&[
        "operator",
        "create",
        "kei",
        "--role",
        "security-admin",
        "--password-file",
        &secret,
    ])?;
    let uri = made["totp_uri"].as_str().context("no authenticator")?;
    assert!(uri.starts_with("otpauth://totp/Sealift:kei?secret="), "{uri}");
    assert_eq!(made["recovery_codes"].as_array().map(Vec::len), Some(8));

    let recovery = made["recovery_codes"][0].as_str().unwrap();
    let login =
        json!({"operator": "kei", "password": PASSWORD, "code": recovery, "wants_token": true});
    let address = format!("{}/api/v1/session/password", server.endpoints.operator_url);
    let http = reqwest::Client::new();
    let answer: Value =
        http.post(&address).json(&login).send().await?.error_for_status()?.json().await?;
    let again = http.post(&address).json(&login).send().await?;
    assert_eq!(again.status(), StatusCode::UNAUTHORIZED, "a recovery code works once");

    let context = directory.path().join("kei/fleetctl.toml").display().to_string();
    let environment = [("SEALIFT_CONFIG", context.as_str())];
    let token = answer["token"].as_str().unwrap();
    run(
        "fleetctl",
        &["login", &server.endpoints.operator_url, "--api-token", token],
        &environment,
    )?;
    let permissions = std::fs::metadata(&context)?.permissions();
    assert_eq!(permissions.mode() & 0o777, 0o600);
    let ci = run("fleetctl", &["token", "create", "ci", "--role", "viewer"], &environment)?;
    let ci = Api::new(&server.endpoints.operator_url, ci.trim())?;
    let session: Value = ci.get("session").await?;
    assert_eq!((&session["operator"], &session["roles"]), (&json!("kei"), &json!(["viewer"])));

    server.ctl(&["operator", "disable", "kei"])?;
    let (status, ..) = run_to_end("fleetctl", &["token", "list"], &environment)?;
    assert_eq!(status.code(), Some(4), "the token of a disabled operator");
    assert!(ci.get::<Value>("session").await.is_err(), "and what was made with it");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the OpenID provider"]
async fn somebody_logs_in_through_a_real_provider_with_the_role_of_their_group()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, provider) = with_provider(directory.path()).await?;
    let base = server.endpoints.operator_url.clone();
    let url = Url::parse(&base)?;

    let mut kei = Browser::of("kei osaka")?;
    kei.open(&format!("{base}/api/v1/session/oidc")).await?;
    assert!(
        kei.cookie(&url, "sealift_session").is_some(),
        "at {:?}\n{}",
        kei.at,
        server.process.log()
    );
    let cookies = kei.cookies_for(&url);
    let request =
        reqwest::Client::new().get(format!("{base}/api/v1/session")).header(COOKIE, cookies);
    let session: Value = request.send().await?.json().await?;
    assert_eq!((&session["operator"], &session["roles"]), (&json!("kei"), &json!(["operator"])));
    assert_eq!((&session["scope"], &session["method"]), (&json!("site:osaka"), &json!("oidc")));

    let mut guest = Browser::of("guest visitors")?;
    guest.open(&format!("{base}/api/v1/session/oidc")).await?;
    assert!(guest.cookie(&url, "sealift_session").is_none());
    assert_eq!(guest.at.context("nowhere")?.query(), Some("problem=oidc.no-role"));
    drop(provider);
    Ok(())
}

#[tokio::test]
#[ignore = "needs the OpenID provider"]
async fn fleetctl_logs_in_with_a_code_that_somebody_confirms_in_a_browser() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (server, provider) = with_provider(directory.path()).await?;
    let nobody = Api::new(&server.endpoints.operator_url, "")?;
    let device: Value = nobody.post("session/oidc/device", &json!({})).await?;
    let poll = json!({"handle": device["handle"]});
    let early: Value = nobody.post("session/oidc/device/poll", &poll).await?;
    assert!(early["pending"].is_object(), "{early}");

    let mut ann = Browser::of("ann fleet-admins")?;
    let address = device["verification_uri_complete"].as_str().context("no address")?;
    let mut page = ann.open(address).await?.text().await?;
    for _ in 0..2 {
        let field = |name: &str| {
            let (_, rest) = page.split_once(&format!("name=\"{name}\""))?;
            let (_, rest) = rest.split_once("value=\"")?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let Some(xsrf) = field("xsrf") else { break };
        let code = device["user_code"].as_str().context("no code")?;
        let form = format!("xsrf={xsrf}&user_code={code}&confirm=yes");
        page = ann.submit(&format!("{}/device", provider.issuer), form).await?.text().await?;
    }
    let login = until("the provider has told the server", SOON, || async {
        let answer: Value = nobody.post("session/oidc/device/poll", &poll).await?;
        Ok(match answer.get("logged-in") {
            Some(login) => Look::Done(login.clone()),
            None => Look::NotYet(answer.to_string()),
        })
    })
    .await?;
    let token = login["token"].as_str().context("no token")?;
    let session: Value = Api::new(&server.endpoints.operator_url, token)?.get("session").await?;
    assert_eq!((&session["operator"], &session["roles"]), (&json!("ann"), &json!(["admin"])));
    Ok(())
}

#[tokio::test]
async fn who_asks_for_a_rollout_is_not_who_approves_it() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let extra = format!("{TIMING}[approval]\nrollouts = \"always\"\n");
    let server = Server::start(directory.path(), &Options { extra, ..Options::default() }).await?;
    let _simulated = Simulated::start(&server, directory.path(), 2, &["site=tokyo".to_owned()])?;
    let api = server.api()?;
    until("both devices are online", SOON, || async {
        let page: Value = api.get("devices?filter=state:online").await?;
        ensure!(page["total"] == 2, "{}", page["total"]);
        Ok(Look::Done(()))
    })
    .await?;
    server.publish(&model_directory("v1"), "1")?;

    let rollout = story::begin(&server, "1")?;
    let waiting = until("the rollout waits", SOON, || async {
        let view = api.rollout(rollout).await?;
        ensure!(view.why == "wave 1: waits for approval", "{}", view.why);
        Ok(Look::Done(view))
    })
    .await?;
    let allowed = |wanted| waiting.allowed_actions.iter().find(|it| it.action == wanted).unwrap();
    assert_eq!(allowed(Action::Approve).refused, None);
    assert!(allowed(Action::Promote).refused.is_some(), "no way around");
    let name = rollout.to_string();
    let (status, _, said) = server.ctl_to_end(&["rollout", "approve", &name])?;
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(said.contains("approval.own"), "{said}");

    let approver = token(directory.path(), "approver", &[])?;
    let approver = Api::new(&server.endpoints.operator_url, &approver)?;
    let path = format!("rollouts/{rollout}/approve");
    let view: RolloutView = approver.post(&path, &json!({"reason": "seen"})).await?;
    assert_eq!(view.approved_by.as_deref(), Some("approver"));
    story::ended(&api, rollout, RolloutState::Succeeded).await?;
    Ok(())
}

/// A server whose people come through a provider. Each must know the other's address before it starts.
async fn with_provider(directory: &std::path::Path) -> anyhow::Result<(Server, Provider)> {
    let port = sealift_tests::process::free_port()?;
    let base = format!("http://127.0.0.1:{port}");
    let provider = Provider::start(directory, &base).await?;
    let options =
        Options { extra: provider.section(), operators: Some(port), ..Options::default() };
    let server = Server::start(directory, &options).await?;
    assert_eq!(server.endpoints.operator_url, base);
    Ok((server, provider))
}

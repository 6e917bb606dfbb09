//! A provider that does what it is told to, also what no provider should: on a real socket, through the real client.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use sealift_protocol::api::DeviceProgressed as Progressed;
use sealift_protocol::id::TenantId;
use serde_json::{Value, json};

use super::enter::{Arrival, EnterError, Return};
use super::*;
use crate::auth::{Auth, Rules, Seal, Visit};
use crate::clock;
use crate::store::Store;

const GROUP: &str = "fleet-operators";

/// What the provider says next.
#[derive(Clone)]
struct Script {
    base: String,
    key: EncodingKey,
    keys: JwkSet,
    /// Changes of the claims of the next ID token; null removes one.
    claims: Value,
    /// The ID token itself, where no claims will do.
    token: Option<String>,
    user_info: Option<Value>,
    issuer: String,
    /// Times that the token endpoint says nobody has confirmed.
    pending: u32,
    nonce: String,
}

type Shared = Arc<Mutex<Script>>;

async fn metadata(State(script): State<Shared>) -> Json<Value> {
    let Script { base, issuer, user_info, .. } = script.lock().unwrap().clone();
    let mut metadata = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{base}/authorize"),
        "token_endpoint": format!("{base}/token"),
        "jwks_uri": format!("{base}/jwks"),
        "device_authorization_endpoint": format!("{base}/device"),
        "authorization_response_iss_parameter_supported": true,
    });
    if user_info.is_some() {
        metadata["userinfo_endpoint"] = json!(format!("{base}/me"));
    }
    Json(metadata)
}

async fn token(
    State(script): State<Shared>,
    body: String,
) -> Result<Json<Value>, (axum::http::StatusCode, Json<Value>)> {
    let mut script = script.lock().unwrap();
    if script.pending > 0 {
        script.pending -= 1;
        let pending = json!({"error": "authorization_pending"});
        return Err((axum::http::StatusCode::BAD_REQUEST, Json(pending)));
    }
    assert!(body.contains("code_verifier=") || body.contains("device_code="), "{body}");
    let now_s = clock::now().0 / 1_000;
    let mut claims = json!({
        "iss": script.base, "sub": "u-1", "aud": "sealift", "exp": now_s + 60, "iat": now_s,
        "nonce": script.nonce, "preferred_username": "ann", "groups": [GROUP],
    });
    for (name, value) in script.claims.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("k1".to_owned());
    let signed = encode(&header, &claims, &script.key).unwrap();
    Ok(Json(json!({"id_token": script.token.clone().unwrap_or(signed), "access_token": "at"})))
}

/// A server with an evil provider, and a browser.
struct Ground {
    auth: Auth,
    script: Shared,
    _folder: tempfile::TempDir,
}

impl Ground {
    async fn new() -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("k1".to_owned());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script {
            base: base.clone(),
            key,
            keys: JwkSet { keys: vec![jwk] },
            claims: json!({}),
            token: None,
            user_info: None,
            issuer: base.clone(),
            pending: 0,
            nonce: String::new(),
        }));
        let keys = async |State(script): State<Shared>| Json(script.lock().unwrap().keys.clone());
        let me =
            async |State(script): State<Shared>| Json(script.lock().unwrap().user_info.clone());
        let device = async || {
            Json(json!({"device_code": "dc", "user_code": "AB-CD", "expires_in": 600,
                "verification_uri": "https://id.example/device", "interval": 1}))
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/jwks", get(keys))
            .route("/me", get(me))
            .route("/device", post(device))
            .route("/token", post(token))
            .with_state(Arc::clone(&script));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("fleet.db").display());
        let tenant = TenantId::parse("main").unwrap();
        let store = Store::open(&url).await.unwrap().tenant(&tenant);
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let provider = Provider::new(settings(&base)).unwrap();
        let auth = Auth::new(store, Rules::default(), Seal::of_test(&tenant), Some(provider));
        Self { auth, script, _folder: folder }
    }

    fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    /// Goes to the provider; returns state and the browser's secret.
    async fn depart(&self) -> (String, String) {
        let departure = self.auth.depart(None, clock::now()).await.unwrap();
        let url = Url::parse(&departure.address).unwrap();
        let of = |name: &str| url.query_pairs().find(|(it, _)| it == name).unwrap().1.into_owned();
        assert_eq!(
            (of("code_challenge_method").as_str(), of("response_type").as_str()),
            ("S256", "code")
        );
        assert!(of("redirect_uri").ends_with("/api/v1/session/oidc/callback"));
        let nonce = of("nonce");
        self.set(|script| script.nonce = nonce);
        (of("state"), departure.browser)
    }

    async fn arrive(&self, state: &str, browser: &str) -> Result<String, String> {
        let issuer = self.script.lock().unwrap().base.clone();
        self.arrive_from(state, browser, Some(&issuer)).await
    }

    async fn arrive_from(
        &self,
        state: &str,
        browser: &str,
        issuer: Option<&str>,
    ) -> Result<String, String> {
        let back = Return { state, code: "c", issuer, browser };
        match self.auth.arrive(&back, &Visit::default(), clock::now()).await {
            Ok(Arrival::Session(begun)) => Ok(begun.session.operator.name),
            Ok(Arrival::SteppedUp) => Ok("stepped up".to_owned()),
            Err(EnterError::Oidc(error)) => Err(error.to_string()),
            Err(EnterError::Auth(error)) => Err(error.to_string()),
        }
    }

    async fn log_in(&self) -> Result<String, String> {
        let (state, browser) = self.depart().await;
        self.arrive(&state, &browser).await
    }
}

fn settings(base: &str) -> Settings {
    let grant = |group: &str, role, scope: &str| Grant {
        group: group.to_owned(),
        role,
        scope: scope.to_owned(),
    };
    Settings {
        issuer: base.to_owned(),
        client_id: "sealift".to_owned(),
        client_secret: Some("s".to_owned()),
        scopes: vec!["groups".to_owned()],
        name_claim: "preferred_username".to_owned(),
        groups_claim: "groups".to_owned(),
        grants: vec![grant("admins", Role::Admin, ""), grant(GROUP, Role::Operator, "site:osaka")],
        redirect: "http://127.0.0.1:1/api/v1/session/oidc/callback".to_owned(),
    }
}

#[tokio::test]
async fn a_group_becomes_a_role_with_its_scope() {
    let ground = Ground::new().await;
    assert_eq!(ground.log_in().await, Ok("ann".to_owned()));
    let account = ground.auth.store.account("ann").await.unwrap().unwrap();
    assert_eq!(
        (account.operator.role, account.operator.scope.as_str()),
        (Role::Operator, "site:osaka")
    );
    // The groups of today decide, and another name does not make another person.
    ground
        .set(|script| script.claims = json!({"groups": ["admins"], "preferred_username": "anna"}));
    assert_eq!(ground.log_in().await, Ok("ann".to_owned()));
    let account = ground.auth.store.account("ann").await.unwrap().unwrap();
    assert_eq!(account.operator.role, Role::Admin);
}

#[tokio::test]
async fn a_token_of_another_login_audience_time_or_key_lets_nobody_in() {
    let ground = Ground::new().await;
    for (claims, why) in [
        (json!({"nonce": "of-another-login"}), "nonce"),
        (json!({"nonce": null}), "nonce"),
        (json!({"aud": "another-client"}), "somebody else"),
        (json!({"exp": 1}), "expired"),
        (json!({"iss": "https://evil.example"}), "Issuer"),
        (json!({"groups": ["guests"]}), "none of the groups"),
        (json!({"groups": null}), "none of the groups"),
    ] {
        ground.set(|script| script.claims = claims.clone());
        let refused = ground.log_in().await.unwrap_err();
        assert!(refused.contains(why), "{claims}: {refused}");
    }
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}.", part(json!({"alg": "none"})), part(json!({"sub": "u-1"})));
    ground.set(|script| (script.claims, script.token) = (json!({}), Some(unsigned)));
    assert!(ground.log_in().await.unwrap_err().contains("ID token is refused"));
    assert!(ground.auth.store.accounts().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_counts_once_in_the_browser_that_asked_and_from_the_provider_that_was_asked() {
    let ground = Ground::new().await;
    let (state, browser) = ground.depart().await;
    assert!(ground.arrive(&state, "another browser").await.unwrap_err().contains("not begun"));
    // It was taken out by the first answer, whoever brought it.
    assert!(ground.arrive(&state, &browser).await.unwrap_err().contains("not begun"));
    assert!(ground.arrive("guessed", &browser).await.unwrap_err().contains("not begun"));

    for issuer in [Some("https://evil.example"), None] {
        let (state, browser) = ground.depart().await;
        let refused = ground.arrive_from(&state, &browser, issuer).await.unwrap_err();
        assert!(refused.contains("another provider"), "{refused}");
    }
}

#[tokio::test]
async fn metadata_of_another_issuer_is_not_believed() {
    let ground = Ground::new().await;
    ground.set(|script| script.issuer = "https://evil.example".to_owned());
    let refused = ground.auth.depart(None, clock::now()).await.err().unwrap();
    assert!(refused.to_string().contains("calls itself"), "{refused}");
}

#[tokio::test]
async fn groups_from_the_user_info_count_only_for_the_same_person() {
    let ground = Ground::new().await;
    ground.set(|script| {
        script.claims = json!({"groups": null});
        script.user_info = Some(json!({"sub": "u-2", "groups": ["admins"]}));
    });
    assert!(ground.log_in().await.unwrap_err().contains("about somebody else"));
    ground.set(|script| script.user_info = Some(json!({"sub": "u-1", "groups": [GROUP]})));
    assert_eq!(ground.log_in().await, Ok("ann".to_owned()));
}

#[tokio::test]
async fn nobody_takes_over_the_name_of_another_account() {
    let ground = Ground::new().await;
    assert_eq!(ground.log_in().await, Ok("ann".to_owned()));
    ground.set(|script| script.claims = json!({"sub": "u-2"}));
    assert!(ground.log_in().await.unwrap_err().contains("another operator `ann`"));
}

#[tokio::test]
async fn a_login_without_a_browser_waits_for_somebody_to_confirm() {
    let ground = Ground::new().await;
    ground.set(|script| script.pending = 1);
    let now = clock::now();
    let device = ground.auth.begin_device(now).await.unwrap();
    assert_eq!((device.user_code.as_str(), device.interval_s), ("AB-CD", 1));
    let poll =
        async |at: UnixMillis| ground.auth.poll_device(&device.handle, &Visit::default(), at).await;

    assert!(matches!(poll(now).await, Ok(Progressed::Pending { interval_s: 1 })));
    for _ in 0..3 {
        let early = poll(now.plus(500)).await;
        assert!(matches!(early, Ok(Progressed::Pending { .. })), "too soon to ask again");
    }
    let Ok(Progressed::LoggedIn(login)) = poll(now.plus(1_000)).await else { panic!("not in") };
    let token = ground.auth.store.api_token(crate::auth::hash(&login.token), now).await.unwrap();
    assert_eq!(token.unwrap().operator.name, "ann");
    assert!(poll(now.plus(4_000)).await.is_err(), "the handle works once");
}

#[test]
fn only_this_machine_is_asked_without_tls() {
    for address in
        ["https://id.example/a", "http://127.0.0.1:1/", "http://[::1]/", "http://localhost/"]
    {
        assert!(parse(address).is_ok(), "{address}");
    }
    for address in [
        "http://id.example/",
        "http://localhost.example/",
        "file:///etc/x",
        "x",
        "http://10.0.0.1/",
    ] {
        assert!(parse(address).is_err(), "{address}");
    }
}

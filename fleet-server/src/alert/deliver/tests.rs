//! Rules of signing and pausing, and messages to a receiver on loopback.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use sealift_protocol::api::WebhookView;
use sealift_protocol::id::TenantId;
use serde_json::Value;

use super::*;
use crate::alert::{Finding, Severity};
use crate::store::Store;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn a_signature_is_the_one_of_the_specifications_example() {
    let delivery = Delivery {
        number: 1,
        webhook: 1,
        url: String::new(),
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
        body: "{\"test\": 2432232314}".to_owned(),
        message: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
        attempt: 0,
    };
    let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    assert_eq!(signature(&delivery, 1_614_265_330), expected);
}

#[test]
fn addresses_of_the_servers_own_network_are_refused() {
    for inside in [
        "127.0.0.1",
        "10.1.2.3",
        "100.127.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
    ] {
        assert!(is_inside(inside.parse().unwrap()), "{inside}");
    }
    for outside in ["203.0.113.7", "100.128.0.1", "2001:db8::1"] {
        assert!(!is_inside(outside.parse().unwrap()), "{outside}");
    }
}

#[test]
fn pauses_grow_up_to_their_limit() {
    assert_eq!([0, 1, 2, 60].map(pause_ms), [5_000, 10_000, 20_000, PAUSE_MAX_MS]);
    let day_ms = 24 * 3_600 * 1_000;
    let last: i64 = (0..ATTEMPTS_MAX - 1).map(pause_ms).sum();
    assert!((day_ms * 3 / 4..day_ms * 5 / 4).contains(&last), "{last}");
}

#[test]
fn only_http_addresses_with_a_host_are_taken() {
    assert!(address("https://hooks.example/alerts").is_ok());
    for text in ["", "hooks", "file:///etc/passwd", "ftp://hooks.example"] {
        assert!(address(text).is_err(), "{text}");
    }
}

#[tokio::test]
async fn a_message_arrives_signed_after_the_receiver_has_failed() {
    let receiver = Receiver::open(vec![StatusCode::INTERNAL_SERVER_ERROR]).await;
    fail_and_arrive(&receiver, Sender::to(&[&receiver.url]).await).await;
}

#[tokio::test]
#[ignore = "needs SEALIFT_POSTGRES_URL"]
async fn a_message_arrives_signed_after_the_receiver_has_failed_on_postgres() {
    let url = std::env::var("SEALIFT_POSTGRES_URL");
    let url = url.expect("SEALIFT_POSTGRES_URL must name a database to write to");
    let receiver = Receiver::open(vec![StatusCode::INTERNAL_SERVER_ERROR]).await;
    let sender = Sender::on(&url, tempfile::tempdir().unwrap(), &[&receiver.url]).await;
    fail_and_arrive(&receiver, sender).await;
}

async fn fail_and_arrive(receiver: &Receiver, sender: Sender) {
    sender.alert("drift/a", NOW).await;

    turn(&sender.store, true, NOW).await.unwrap();
    let webhook = sender.webhook().await;
    assert_eq!(webhook.pending, 1);
    let outcome = webhook.last_delivery.unwrap();
    assert!(outcome.contains("the receiver answered 500"), "{outcome}");

    turn(&sender.store, true, NOW.plus(PAUSE_MS - 1)).await.unwrap();
    assert_eq!(receiver.messages().len(), 1, "the pause is not over");

    turn(&sender.store, true, NOW.plus(PAUSE_MS)).await.unwrap();
    let webhook = sender.webhook().await;
    assert_eq!(webhook.pending, 0);
    assert!(webhook.last_delivery.unwrap().ends_with(": delivered"));

    let messages = receiver.messages();
    assert_eq!(messages.len(), 2);
    let [first, second] = [&messages[0], &messages[1]];
    assert_eq!(first.id, second.id, "a receiver knows the message again");
    assert_eq!(first.body, second.body);
    assert_eq!(second.seconds, NOW.plus(PAUSE_MS).0 / 1_000);
    second.assert_signed();
    let event: Value = serde_json::from_str(&second.body).unwrap();
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["type"], "dev.sealift.alert.opened");
    assert_eq!(event["id"], second.id);
    assert_eq!(event["data"]["title"], "drift/a happened");
}

#[tokio::test]
async fn without_leave_loopback_is_not_called() {
    let receiver = Receiver::open(Vec::new()).await;
    let by_name = receiver.url.replace("127.0.0.1", "localhost");
    let sender = Sender::to(&[&receiver.url, &by_name]).await;
    sender.alert("drift/a", NOW).await;

    turn(&sender.store, false, NOW).await.unwrap();

    assert_eq!(receiver.messages().len(), 0);
    for webhook in sender.store.webhooks().await.unwrap() {
        let outcome = webhook.last_delivery.unwrap();
        assert!(outcome.contains("does not allow"), "{outcome}");
        assert_eq!(webhook.pending, 1);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let receiver = Receiver::open(vec![StatusCode::TEMPORARY_REDIRECT]).await;
    let sender = Sender::to(&[&receiver.url]).await;
    sender.alert("drift/a", NOW).await;

    turn(&sender.store, true, NOW).await.unwrap();

    assert_eq!(receiver.messages().len(), 1);
    assert_eq!(sender.webhook().await.pending, 1);
}

#[tokio::test]
async fn a_receiver_that_is_away_holds_up_no_other() {
    let receiver = Receiver::open(Vec::new()).await;
    let sender = Sender::to(&[&nobody().await, &receiver.url]).await;
    for number in 0..3 {
        sender.alert(&format!("drift/{number}"), NOW.plus(number)).await;
    }

    turn(&sender.store, true, NOW.plus(3)).await.unwrap();

    assert_eq!(receiver.messages().len(), 3);
    let pending: Vec<_> =
        sender.store.webhooks().await.unwrap().iter().map(|webhook| webhook.pending).collect();
    assert_eq!(pending, [3, 0]);
}

#[tokio::test]
async fn a_message_that_never_arrives_is_given_up() {
    let sender = Sender::to(&[&nobody().await]).await;
    sender.alert("drift/a", NOW).await;
    let mut now = NOW;
    for attempt in 0..ATTEMPTS_MAX {
        assert_eq!(sender.webhook().await.pending, 1, "{attempt}");
        turn(&sender.store, true, now).await.unwrap();
        now = now.plus(pause_ms(attempt));
    }
    let webhook = sender.webhook().await;
    assert_eq!(webhook.pending, 0);
    assert!(webhook.last_delivery.unwrap().contains("given up"));
}

#[tokio::test]
async fn a_full_queue_takes_no_more_and_says_so() {
    let sender = Sender::to(&[&nobody().await]).await;
    let view = sender.alert("drift/a", NOW).await;
    let mut change = sender.store.begin().await.unwrap();
    for _ in 0..1_005 {
        change.enqueue(&view, Verb::Repeated, NOW).await.unwrap();
    }
    change.commit().await.unwrap();

    let webhook = sender.webhook().await;
    assert_eq!(webhook.pending, 1_000);
    assert!(webhook.last_delivery.unwrap().contains("left out"));
}

/// A store with webhooks.
struct Sender {
    store: TenantStore,
    _folder: tempfile::TempDir,
}

impl Sender {
    async fn to(urls: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("fleet.db").display());
        Self::on(&url, folder, urls).await
    }

    /// In a tenant of its own, so that tests share a database.
    async fn on(url: &str, folder: tempfile::TempDir, urls: &[&str]) -> Self {
        // A second installation is refused, and changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let tenant = format!("t-{:x}", u64::from_be_bytes(random));
        let store = Store::open(url).await.unwrap().tenant(&TenantId::parse(&tenant).unwrap());
        let mut change = store.begin().await.unwrap();
        for url in urls {
            change.add_webhook(url, SECRET, NOW).await.unwrap();
        }
        change.commit().await.unwrap();
        Self { store, _folder: folder }
    }

    /// Opens an alert and queues it.
    async fn alert(&self, key: &str, now: UnixMillis) -> AlertView {
        let finding = Finding {
            key: key.to_owned(),
            kind: "drift".to_owned(),
            severity: Severity::Warning,
            title: format!("{key} happened"),
            detail: String::new(),
            help: String::new(),
            labels: BTreeMap::new(),
            since: now,
            hold_ms: 0,
        };
        let mut change = self.store.begin().await.unwrap();
        let id = change.open_alert(&finding, now).await.unwrap().unwrap();
        let view = change.alert(id).await.unwrap();
        change.enqueue(&view, Verb::Opened, now).await.unwrap();
        change.commit().await.unwrap();
        view
    }

    async fn webhook(&self) -> WebhookView {
        self.store.webhooks().await.unwrap().remove(0)
    }
}

/// An address at which nobody listens any more.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}

/// What a receiver got.
#[derive(Debug, Clone)]
struct Message {
    id: String,
    seconds: i64,
    signature: String,
    body: String,
}

impl Message {
    fn assert_signed(&self) {
        let key = STANDARD.decode(SECRET.strip_prefix(SECRET_PREFIX).unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.{}", self.id, self.seconds, self.body).as_bytes());
        let signature = STANDARD.decode(self.signature.strip_prefix("v1,").unwrap()).unwrap();
        mac.verify_slice(&signature).unwrap();
    }
}

/// Answers on loopback, first with some statuses, then with success; ends with its test's runtime.
struct Receiver {
    url: String,
    state: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    answers: Vec<StatusCode>,
    messages: Vec<Message>,
}

impl Receiver {
    async fn open(answers: Vec<StatusCode>) -> Self {
        let state = Arc::new(Mutex::new(Received { answers, messages: Vec::new() }));
        let router = Router::new().route("/hook", post(receive)).with_state(Arc::clone(&state));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, state }
    }

    fn messages(&self) -> Vec<Message> {
        self.state.lock().unwrap().messages.clone()
    }
}

async fn receive(
    State(state): State<Arc<Mutex<Received>>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1]) {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let message = Message {
        id: header("webhook-id"),
        seconds: header("webhook-timestamp").parse().unwrap(),
        signature: header("webhook-signature"),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let mut state = state.lock().unwrap();
    state.messages.push(message);
    let status = if state.answers.is_empty() { StatusCode::OK } else { state.answers.remove(0) };
    (status, [("location", "/hook")])
}

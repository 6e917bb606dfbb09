//! Rules of signing and pausing, and messages to a receiver on loopback.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sealift_protocol::api::{AlertSeverity, ChannelView};
use sealift_protocol::id::TenantId;
use serde_json::Value;
use sha2::Sha256;

use super::*;
use crate::alert::{Finding, Severity};
use crate::store::Store;
use crate::store::channels::ChannelRow;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn pauses_grow_up_to_their_limit() {
    assert_eq!([0, 1, 2, 60].map(pause_ms), [5_000, 10_000, 20_000, PAUSE_MAX_MS]);
    let day_ms = 24 * 3_600 * 1_000;
    let last: i64 = (0..ATTEMPTS_MAX - 1).map(pause_ms).sum();
    assert!((day_ms * 3 / 4..day_ms * 5 / 4).contains(&last), "{last}");
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

    sender.turn(NOW).await.unwrap();
    let channel = sender.channel().await;
    assert_eq!(channel.pending, 1);
    let outcome = channel.last_delivery.unwrap();
    assert!(outcome.contains("the receiver answered 500"), "{outcome}");

    sender.turn(NOW.plus(PAUSE_MS - 1)).await.unwrap();
    assert_eq!(receiver.messages().len(), 1, "the pause is not over");

    sender.turn(NOW.plus(PAUSE_MS)).await.unwrap();
    let channel = sender.channel().await;
    assert_eq!(channel.pending, 0);
    assert!(channel.last_delivery.unwrap().ends_with(": delivered"));

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

    sender.shut().turn(NOW).await.unwrap();

    assert_eq!(receiver.messages().len(), 0);
    for channel in sender.channels().await {
        let outcome = channel.last_delivery.unwrap();
        assert!(outcome.contains("does not allow"), "{outcome}");
        assert_eq!(channel.pending, 1);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let receiver = Receiver::open(vec![StatusCode::TEMPORARY_REDIRECT]).await;
    let sender = Sender::to(&[&receiver.url]).await;
    sender.alert("drift/a", NOW).await;

    sender.turn(NOW).await.unwrap();

    assert_eq!(receiver.messages().len(), 1);
    assert_eq!(sender.channel().await.pending, 1);
}

#[tokio::test]
async fn a_receiver_that_is_away_holds_up_no_other() {
    let receiver = Receiver::open(Vec::new()).await;
    let sender = Sender::to(&[&nobody().await, &receiver.url]).await;
    for number in 0..3 {
        sender.alert(&format!("drift/{number}"), NOW.plus(number)).await;
    }

    sender.turn(NOW.plus(3)).await.unwrap();

    assert_eq!(receiver.messages().len(), 3);
    let pending: Vec<_> = sender.channels().await.iter().map(|channel| channel.pending).collect();
    assert_eq!(pending, [3, 0]);
}

#[tokio::test]
async fn a_message_that_never_arrives_is_given_up() {
    let sender = Sender::to(&[&nobody().await]).await;
    sender.alert("drift/a", NOW).await;
    let mut now = NOW;
    for attempt in 0..ATTEMPTS_MAX {
        assert_eq!(sender.channel().await.pending, 1, "{attempt}");
        sender.turn(now).await.unwrap();
        now = now.plus(pause_ms(attempt));
    }
    let channel = sender.channel().await;
    assert_eq!(channel.pending, 0);
    assert!(channel.last_delivery.unwrap().contains("given up"));
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

    let channel = sender.channel().await;
    assert_eq!(channel.pending, 1_000);
    assert!(channel.last_delivery.unwrap().contains("left out"));
}

#[tokio::test]
async fn a_channel_is_sent_what_is_grave_enough_and_of_its_labels() {
    let receiver = Receiver::open(Vec::new()).await;
    let sender = Sender::to(&[]).await;
    let hook = || Destination::Webhook { url: receiver.url.clone(), secret: None };
    let grave = sender.add(hook(), AlertSeverity::Critical, &[]).await;
    let other = sender.add(hook(), AlertSeverity::Info, &["site=kobe"]).await;
    let own = sender.add(hook(), AlertSeverity::Info, &["site=osaka", "kind!=security"]).await;

    sender.alert("a", NOW).await;

    for (channel, expected) in [(grave, 0), (other, 0), (own, 1)] {
        let count = sender.store.count_deliveries(channel).await.unwrap();
        assert_eq!(count, expected, "channel {channel}");
    }
}

#[tokio::test]
async fn people_get_one_message_of_what_comes_at_once_and_what_is_critical_does_not_wait() {
    let receiver = Receiver::open(Vec::new()).await;
    let sender = Sender::to(&[]).await;
    let slack = Destination::Slack { url: receiver.url.clone() };
    sender.add(slack, AlertSeverity::Info, &[]).await;
    for number in 0..3 {
        sender.alert(&format!("drift/{number}"), NOW).await;
    }

    sender.turn(NOW.plus(5_000)).await.unwrap();
    assert_eq!(receiver.messages().len(), 0, "more may come");
    sender.turn(NOW.plus(10_000)).await.unwrap();
    let messages = receiver.messages();
    assert_eq!(messages.len(), 1);
    let text: Value = serde_json::from_str(&messages[0].body).unwrap();
    let text = text["text"].as_str().unwrap();
    assert!((0..3).all(|number| text.contains(&format!("drift/{number} happened"))), "{text}");

    let later = NOW.plus(20_000);
    sender.alert_of("drift/9", Severity::Critical, later).await;
    sender.turn(later).await.unwrap();
    assert_eq!(receiver.messages().len(), 2);
}

#[tokio::test]
async fn two_servers_send_a_message_once() {
    let receiver = Receiver::open(Vec::new()).await;
    let sender = Sender::to(&[&receiver.url]).await;
    sender.alert("drift/a", NOW).await;
    let (one, other) = (sender.dispatch.clone(), sender.dispatch.clone());

    let (first, second) = tokio::join!(one.turn(NOW), other.turn(NOW));

    first.and(second).unwrap();
    assert_eq!(receiver.messages().len(), 1);
}

#[tokio::test]
async fn webhooks_of_before_are_sealed_and_their_secrets_wiped_from_the_files() {
    let receiver = Receiver::open(Vec::new()).await;
    let sender = Sender::to(&[]).await;
    let url = format!("{}?token=herons-over-the-weir", receiver.url);
    let mut change = sender.store.begin().await.unwrap();
    change.add_old_webhook(&url, SECRET).await.unwrap();
    change.commit().await.unwrap();
    let secrets = ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "herons-over-the-weir"];
    assert!(secrets.iter().all(|secret| sender.holds(secret)), "they lay there in plain text");

    assert_eq!(adopt(&sender.store, &sender.seal, NOW).await.unwrap(), 1);

    for secret in secrets {
        assert!(!sender.holds(secret), "{secret}");
    }
    let channel = sender.channel().await;
    assert_eq!(
        (channel.name.as_str(), channel.created_by.as_str()),
        ("webhook-1", "an earlier server")
    );
    assert!(channel.address.ends_with("/…") && !channel.address.contains("herons"));
    assert_eq!(adopt(&sender.store, &sender.seal, NOW).await.unwrap(), 0, "once");
    sender.alert("drift/a", NOW).await;
    sender.turn(NOW).await.unwrap();
    receiver.messages()[0].assert_signed();
}

#[tokio::test]
async fn a_sealed_destination_opens_for_its_own_channel_alone() {
    let receiver = Receiver::open(Vec::new()).await;
    let sender = Sender::to(&[&receiver.url]).await;
    let channel = sender.store.channels().await.unwrap().remove(0);
    let mut swapped = channel.clone();
    swapped.id = 2;

    assert!(sender.dispatch.open(&channel).is_ok());
    assert!(matches!(sender.dispatch.open(&swapped), Err(Unsent::Sealed)));
    assert!(!sender.holds(&receiver.url) && !sender.holds(SECRET));
}

/// A store with channels.
struct Sender {
    store: TenantStore,
    dispatch: Dispatch,
    seal: Seal,
    path: std::path::PathBuf,
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
        let seal = Seal::of_test(store.tenant());
        let inside = Inside { is_open: true, networks: Vec::new() };
        let dispatch = Dispatch::new(store.clone(), seal.clone(), inside, "http://console/");
        let path = folder.path().to_owned();
        let sender = Self { store, dispatch, seal, path, _folder: folder };
        for url in urls {
            let secret = Some(SECRET.to_owned());
            let hook = Destination::Webhook { url: (*url).to_owned(), secret };
            sender.add(hook, AlertSeverity::Info, &[]).await;
        }
        sender
    }

    async fn add(&self, destination: Destination, least: AlertSeverity, matchers: &[&str]) -> u64 {
        let mut change = self.store.begin().await.unwrap();
        let id = change.next_channel().await.unwrap();
        let matchers: Vec<_> = matchers.iter().map(|text| text.parse().unwrap()).collect();
        let row = ChannelRow {
            id,
            name: &format!("c-{id}"),
            kind: destination.kind(),
            address: &shown(&destination).unwrap(),
            least,
            matchers: &matchers,
            destination: &sealed(&self.seal, id, &destination).unwrap(),
            created_by: "ann",
        };
        assert!(change.add_channel(row, NOW).await.unwrap());
        change.commit().await.unwrap();
        id
    }

    async fn turn(&self, now: UnixMillis) -> Result<(), StoreError> {
        self.dispatch.turn(now).await
    }

    /// The same, where no place on the inside may be called.
    fn shut(&self) -> Dispatch {
        Dispatch { inside: Inside::default(), ..self.dispatch.clone() }
    }

    /// Opens an alert and queues it.
    async fn alert(&self, key: &str, now: UnixMillis) -> AlertView {
        self.alert_of(key, Severity::Warning, now).await
    }

    async fn alert_of(&self, key: &str, severity: Severity, now: UnixMillis) -> AlertView {
        let finding = Finding {
            key: key.to_owned(),
            kind: "drift".to_owned(),
            severity,
            title: format!("{key} happened"),
            detail: String::new(),
            help: String::new(),
            labels: BTreeMap::from([("site".to_owned(), "osaka".to_owned())]),
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

    /// Whether a text stands in a file of the database.
    fn holds(&self, text: &str) -> bool {
        let files = std::fs::read_dir(&self.path).unwrap();
        files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    async fn channels(&self) -> Vec<ChannelView> {
        self.store.channels().await.unwrap().iter().map(Channel::view).collect()
    }

    async fn channel(&self) -> ChannelView {
        self.channels().await.remove(0)
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
        let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
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
    let header = |name: &str| {
        headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    let message = Message {
        id: header("webhook-id"),
        seconds: header("webhook-timestamp").parse().unwrap_or_default(),
        signature: header("webhook-signature"),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let mut state = state.lock().unwrap();
    state.messages.push(message);
    let status = if state.answers.is_empty() { StatusCode::OK } else { state.answers.remove(0) };
    (status, [("location", "/hook")])
}

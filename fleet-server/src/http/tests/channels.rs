//! Channels over HTTP: what is secret stays so, and what was sent can be looked up.

use super::*;

fn webhook(url: &str) -> Value {
    json!({"name": "hooks", "destination": {"kind": "webhook", "url": url}})
}

#[tokio::test]
async fn a_webhooks_secret_is_shown_once_and_its_life_is_audited() {
    let port = Port::open().await;
    let operator = port.token(Role::Operator).await;
    let new = webhook("https://hooks.example/alerts?token=heron-weir-7");
    let path = "/api/v1/channels";
    assert_eq!(port.ask(&operator, "POST", path, new.clone()).await.0, 403);
    assert_eq!(port.ask(&operator, "GET", path, Value::Null).await.0, 403);

    let (status, made) = port.ask(&port.admin, "POST", path, new.clone()).await;
    assert_eq!(status, 201, "{made}");
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"), "{made}");
    let (status, problem) = port.ask(&port.admin, "POST", path, new).await;
    assert_eq!((status, &problem["code"]), (409, &json!("channel.taken")));
    let (_, list) = port.get(path).await;
    assert_eq!(list["items"][0]["address"], "https://hooks.example/…");
    assert_eq!(list["items"][0]["pending"], 0);

    let one = format!("{path}/{}", made["id"]);
    assert_eq!(port.ask(&port.admin, "DELETE", &one, Value::Null).await.0, 204);
    assert_eq!(port.ask(&port.admin, "DELETE", &one, Value::Null).await.0, 404);
    let (_, audit) = port.get("/api/v1/audit").await;
    let actions: Vec<_> =
        audit["items"].as_array().unwrap().iter().map(|row| row["action"].clone()).collect();
    assert_eq!(actions[..2], ["channel.remove", "channel.add"]);
    for text in [list.to_string(), audit.to_string()] {
        assert!(!text.contains(secret) && !text.contains("heron-weir-7"), "{text}");
    }
}

#[tokio::test]
async fn a_test_says_what_became_of_it_and_is_sent_again_when_asked() {
    let port = Port::open().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    drop(listener); // nobody listens there any more
    let (_, made) = port.ask(&port.admin, "POST", "/api/v1/channels", webhook(&url)).await;
    let path = format!("/api/v1/channels/{}", made["id"]);

    let (status, tried) = port.ask(&port.admin, "POST", &format!("{path}/test"), Value::Null).await;
    assert_eq!((status, &tried["state"]), (200, &json!("given-up")), "{tried}");
    assert!(tried["outcome"].as_str().unwrap().contains("cannot be reached"), "{tried}");
    assert_eq!(tried["verb"], "test");

    let again = format!("{path}/deliveries/{}/resend", tried["id"]);
    assert_eq!(port.ask(&port.admin, "POST", &again, Value::Null).await.0, 204);
    assert_eq!(port.ask(&port.admin, "POST", &again, Value::Null).await.0, 404, "it waits");
    let (_, log) = port.get(&format!("{path}/deliveries")).await;
    assert_eq!(log["items"][0]["state"], "waiting", "{log}");
    let (_, list) = port.get("/api/v1/channels").await;
    assert_eq!(list["items"][0]["pending"], 1);
}

#[tokio::test]
async fn what_could_never_be_sent_is_refused_with_a_stable_code() {
    let port = Port::open().await;
    let smtp = json!({"kind": "smtp", "host": "mail.example", "port": 25, "tls": "none",
        "username": "a", "password": "b", "from": "a@b.example", "to": ["c@d.example"]});
    for (new, code) in [
        (webhook(""), "channel.destination"),
        (webhook("ftp://hooks.example"), "channel.destination"),
        (webhook("file:///etc/passwd"), "channel.destination"),
        (json!({"name": "A b", "destination": webhook("http://x")["destination"]}), "channel.name"),
        (json!({"name": "a", "destination": smtp}), "channel.destination"),
        (
            json!({"name": "a", "matchers": ["site"],
                "destination": webhook("http://x")["destination"]}),
            "matcher.syntax",
        ),
        (
            json!({"name": "a", "destination":
                {"kind": "webhook", "url": "http://x", "secret": "short"}}),
            "channel.secret",
        ),
    ] {
        let (status, problem) =
            port.ask(&port.admin, "POST", "/api/v1/channels", new.clone()).await;
        assert_eq!((status, &problem["code"]), (422, &json!(code)), "{new}");
    }
}

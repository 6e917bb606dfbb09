//! Silences, kinds, rules and back-tests over HTTP.

use sealift_protocol::telemetry::Conn;

use super::*;

#[tokio::test]
async fn a_silence_needs_conditions_a_reason_and_an_end_and_its_life_is_audited() {
    let port = Port::open().await;
    let (viewer, operator) = (port.token(Role::Viewer).await, port.token(Role::Operator).await);
    let path = "/api/v1/silences";
    let good = json!({"matchers": ["site=osaka"], "reason": "new roof", "for_s": 3600});
    assert_eq!(port.ask(&viewer, "POST", path, good.clone()).await.0, 403);
    for (change, code) in [
        (json!({"matchers": []}), "silence.empty"),
        (json!({"reason": " "}), "silence.reason"),
        (json!({"for_s": 0}), "silence.time"),
        (json!({"for_s": 32 * 24 * 3600}), "silence.time"),
        (json!({"matchers": ["osaka"]}), "matcher.syntax"),
    ] {
        let mut bad = good.clone();
        let change = change.as_object().unwrap().clone();
        bad.as_object_mut().unwrap().extend(change);
        let (status, problem) = port.ask(&operator, "POST", path, bad.clone()).await;
        assert_eq!((status, &problem["code"]), (422, &json!(code)), "{bad}");
    }

    let (status, made) = port.ask(&operator, "POST", path, good).await;
    assert_eq!((status, &made["created_by"]), (201, &json!("Operator")), "{made}");
    let one = format!("{path}/{}", made["id"]);
    assert_eq!(port.ask(&operator, "DELETE", &one, Value::Null).await.0, 204);
    assert_eq!(port.ask(&operator, "DELETE", &one, Value::Null).await.0, 404, "it is over");
    let (_, audit) = port.get("/api/v1/audit").await;
    let row = &audit["items"][1];
    assert_eq!((&row["action"], &row["reason"]), (&json!("alert.silence"), &json!("new roof")));
}

#[tokio::test]
async fn a_rule_is_checked_named_once_and_tried_on_the_connection_history() {
    let port = Port::open().await;
    port.enrol("cam-1").await;
    port.enrol("cam-2").await;
    let path = "/api/v1/alert-rules";
    let rule = json!({"name": "two-away", "filter": "state:offline",
        "at_least": {"devices": 2}, "hold_s": 60, "severity": "warning"});
    for (key, value, code) in [
        ("name", json!("Two away"), "rule.name"),
        ("filter", json!("osaka"), "filter.syntax"),
        ("at_least", json!({"percent": 0}), "rule.at-least"),
        ("hold_s", json!(8 * 24 * 3600), "rule.hold"),
    ] {
        let mut bad = rule.clone();
        bad[key] = value;
        let (status, problem) = port.ask(&port.admin, "POST", path, bad).await;
        assert_eq!((status, &problem["code"]), (422, &json!(code)), "{key}");
    }
    assert_eq!(port.ask(&port.admin, "POST", path, rule.clone()).await.0, 201);
    let (status, problem) = port.ask(&port.admin, "POST", path, rule).await;
    assert_eq!((status, &problem["code"]), (409, &json!("rule.taken")));

    // cam-1 is away from minute 1 to 5, cam-2 from 2 to 4: both for two minutes.
    let begin = clock::now().plus(-3_600_000);
    for (device, minute, online) in [
        ("cam-1", 0, true),
        ("cam-2", 0, true),
        ("cam-1", 1, false),
        ("cam-2", 2, false),
        ("cam-2", 4, true),
        ("cam-1", 5, true),
    ] {
        let conn = Conn { online, epoch: 1 };
        let mut change = port.app.store.begin().await.unwrap();
        let at = begin.plus(minute * 60_000);
        change.set_presence(&device.parse().unwrap(), conn, at).await.unwrap();
        change.commit().await.unwrap();
    }
    let tried = async |hold_s: u64| {
        let ask = json!({"of": {"rule": "two-away"}, "hold_s": hold_s, "since_s": 86_400});
        port.ask(&port.admin, "POST", "/api/v1/alert-rules/test", ask).await.1
    };
    let view = tried(60).await;
    assert_eq!(view["fired"], 1, "{view}");
    assert_eq!(view["firings"][0]["at"], json!(begin.plus(3 * 60_000).0));
    assert_eq!(view["firings"][0]["until"], json!(begin.plus(4 * 60_000).0));
    assert_eq!(tried(121).await["fired"], 0);

    let silent = json!({"of": {"kind": "device-silent"}, "hold_s": 180, "since_s": 86_400});
    let (_, view) = port.ask(&port.admin, "POST", "/api/v1/alert-rules/test", silent).await;
    assert_eq!((&view["fired"], &view["firings"][0]["subject"]), (&json!(1), &json!("cam-1")));
    let unknown = json!({"of": {"new": {"name": "x", "filter": "seen:<5m",
        "at_least": {"devices": 1}, "severity": "info"}}, "since_s": 60});
    let (status, problem) =
        port.ask(&port.admin, "POST", "/api/v1/alert-rules/test", unknown).await;
    assert_eq!((status, &problem["code"]), (422, &json!("backtest.filter")));
}

#[tokio::test]
async fn a_kind_is_changed_and_an_empty_change_puts_it_back() {
    let port = Port::open().await;
    let operator = port.token(Role::Operator).await;
    let path = "/api/v1/alert-kinds/device-silent";
    let change = json!({"hold_s": 1800, "severity": "critical"});
    assert_eq!(port.ask(&operator, "PUT", path, change.clone()).await.0, 403);
    assert_eq!(port.ask(&port.admin, "PUT", "/api/v1/alert-kinds/x", change.clone()).await.0, 404);

    assert_eq!(port.ask(&port.admin, "PUT", path, change).await.0, 204);
    let hold = async || {
        let (_, page) = port.get("/api/v1/alert-kinds").await;
        let kinds = page["items"].as_array().unwrap().clone();
        let kind = kinds.into_iter().find(|kind| kind["kind"] == "device-silent").unwrap();
        kind["change"]["hold_s"].clone()
    };
    assert_eq!(hold().await, 1800);
    assert_eq!(port.ask(&port.admin, "PUT", path, json!({})).await.0, 204);
    assert_eq!(hold().await, Value::Null);
}

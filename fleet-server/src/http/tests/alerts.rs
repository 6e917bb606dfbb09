//! Alerts and drift over HTTP.

use std::collections::BTreeMap;

use super::*;
use crate::alert::{Finding, Severity};

async fn open_alert(port: &Port, key: &str) -> String {
    let finding = Finding {
        key: key.to_owned(),
        kind: "drift".to_owned(),
        severity: Severity::Critical,
        title: format!("{key} happened"),
        detail: "psi 0.9".to_owned(),
        help: String::new(),
        labels: BTreeMap::new(),
        since: clock::now(),
        hold_ms: 0,
    };
    let mut change = port.app.store.begin().await.unwrap();
    let id = change.open_alert(&finding, clock::now()).await.unwrap().unwrap();
    change.commit().await.unwrap();
    id.to_string()
}

async fn close(port: &Port, id: &str) {
    let mut change = port.app.store.begin().await.unwrap();
    let closed = change.close_alert(id.parse().unwrap(), "all is well", clock::now()).await;
    assert!(closed.unwrap().is_some());
    change.commit().await.unwrap();
}

async fn ids(port: &Port, query: &str) -> Vec<String> {
    let (status, page) = port.get(&format!("/api/v1/alerts{query}")).await;
    assert_eq!(status, 200, "{page}");
    let items = page["items"].as_array().unwrap();
    assert_eq!(page["total"], json!(items.len()));
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn alerts_are_listed_by_state_and_acknowledged_by_name() {
    let port = Port::open().await;
    let (first, second) = (open_alert(&port, "a").await, open_alert(&port, "b").await);
    let third = open_alert(&port, "c").await;
    close(&port, &third).await;
    let path = format!("/api/v1/alerts/{first}/acknowledge");
    let (viewer, operator) = (port.token(Role::Viewer).await, port.token(Role::Operator).await);

    let note = json!({"note": "on my way"});
    assert_eq!(port.ask(&viewer, "POST", &path, note.clone()).await.0, 403);
    let (status, view) = port.ask(&operator, "POST", &path, note).await;

    assert_eq!((status, &view["state"]), (200, &json!("acknowledged")), "{view}");
    assert_eq!(view["acknowledged_by"], "Operator");
    assert_eq!(view["note"], "on my way");
    assert_eq!(ids(&port, "?state=open").await, [second.as_str()]);
    assert_eq!(ids(&port, "?state=acknowledged").await, [first.as_str()]);
    assert_eq!(ids(&port, "?state=open,acknowledged").await, [second.as_str(), &first]);
    for all in ["", "?state="] {
        assert_eq!(ids(&port, all).await, [third.as_str(), &second, &first]);
    }
    let (status, problem) = port.get("/api/v1/alerts?state=broken").await;
    assert_eq!((status, &problem["code"]), (422, &json!("alert.state")));
    let (_, audit) = port.get("/api/v1/audit").await;
    let row = &audit["items"][0];
    assert_eq!((&row["action"], &row["subject"]), (&json!("alert.acknowledge"), &json!(first)));
    assert_eq!((&row["actor"], &row["reason"]), (&json!("Operator"), &json!("on my way")));
}

#[tokio::test]
async fn what_is_over_cannot_be_acknowledged() {
    let port = Port::open().await;
    let alert = open_alert(&port, "a").await;
    close(&port, &alert).await;
    for id in [alert.as_str(), "a-99"] {
        let path = format!("/api/v1/alerts/{id}/acknowledge");
        let (status, problem) = port.ask(&port.admin, "POST", &path, json!({"note": ""})).await;
        assert_eq!((status, &problem["code"]), (404, &json!("alert.not-found")));
    }
    let (_, page) = port.get("/api/v1/alerts").await;
    assert_eq!(page["items"][0]["detail"], "psi 0.9; over: all is well");
}

#[tokio::test]
async fn drift_of_nothing_is_an_empty_list_and_nonsense_is_named() {
    let port = Port::open().await;
    let (status, page) = port.get("/api/v1/drift?limit=10").await;
    assert_eq!((status, &page["items"]), (200, &json!([])));
    let ask = "model=vision%2Fdigits&subject=prediction";
    let (status, points) = port.get(&format!("/api/v1/drift/series?{ask}&scope=fleet")).await;
    assert_eq!((status, points), (200, json!([])));
    let (status, problem) = port.get(&format!("/api/v1/drift/histogram?{ask}&scope=fleet")).await;
    assert_eq!((status, &problem["code"]), (404, &json!("drift.not-found")));
    let (status, problem) = port.get(&format!("/api/v1/drift/series?{ask}&scope=osaka")).await;
    assert_eq!((status, &problem["code"]), (422, &json!("drift.scope")));
}

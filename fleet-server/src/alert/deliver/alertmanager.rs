//! Prometheus' Alertmanager, by version 2 of its API. It forgets an alert that nobody sends any more: what is active is sent again
//! every minute, with an end in the future; what is over is sent once with its end in the past.

use std::collections::BTreeMap;
use std::time::Duration;

use sealift_protocol::api::{AlertView, ChannelKind, Destination};
use sealift_protocol::id::UnixMillis;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::message::{self, Verb};
use super::{Dispatch, Inside, Parcel, Unsent, concerns, failed, place};
use crate::clock;
use crate::store::StoreError;
use crate::store::channels::Channel;

/// How often active alerts are sent again, as Prometheus itself does.
const EVERY: Duration = Duration::from_mins(1);
/// An active alert ends by itself after so long without word of it: four are lost before anybody is told that all is well.
const ACTIVE_MS: i64 = 5 * 60_000;
/// Alerts in one request.
const BATCH: usize = 100;
/// Characters of a label's value.
const VALUE_CHARS_MAX: usize = 200;

/// An Alertmanager, and how to get in.
pub(super) struct Door {
    pub(super) url: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

pub(super) async fn send(inside: &Inside, door: &Door, parcel: &Parcel<'_>) -> Result<(), Unsent> {
    let alerts: Vec<Value> = parcel
        .deliveries
        .iter()
        .map(|delivery| {
            let ends_at = match delivery.verb {
                Verb::Closed => delivery.view.closed_at.unwrap_or(parcel.now),
                Verb::Opened | Verb::Repeated | Verb::Test | Verb::Retraining => {
                    parcel.now.plus(ACTIVE_MS)
                }
            };
            posted(&delivery.view, ends_at, parcel.url)
        })
        .collect();
    post(inside, door, &alerts).await
}

async fn post(inside: &Inside, door: &Door, alerts: &[Value]) -> Result<(), Unsent> {
    let root = door.url.trim_end_matches('/');
    let url = place::address(&format!("{root}/api/v2/alerts"))?;
    let client = inside.client(&url).await?;
    for batch in alerts.chunks(BATCH) {
        let mut request = client.post(url.clone()).json(batch);
        if let Some(name) = &door.username {
            request = request.basic_auth(name, door.password.as_ref());
        }
        place::send(request).await?;
    }
    Ok(())
}

/// Sends again what is active; never returns.
pub(super) async fn keep_active(dispatch: &Dispatch) {
    loop {
        sleep(EVERY).await;
        if let Err(error) = dispatch.send_active(clock::now()).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "active alerts were not sent again");
        }
    }
}

impl Dispatch {
    /// Sends every Alertmanager what is active and its own.
    pub(super) async fn send_active(&self, now: UnixMillis) -> Result<(), StoreError> {
        let channels = self.store.channels().await?;
        let managers = channels.iter().filter(|it| it.kind == ChannelKind::Alertmanager);
        let managers: Vec<&Channel> = managers.collect();
        if managers.is_empty() {
            return Ok(());
        }
        let active = self.store.told_alerts().await?;
        for channel in managers {
            let own = active.iter().filter(|alert| concerns(channel, alert));
            let alerts: Vec<Value> =
                own.map(|alert| posted(alert, now.plus(ACTIVE_MS), &self.url)).collect();
            if alerts.is_empty() {
                continue;
            }
            if let Err(unsent) = self.post_active(channel, &alerts).await {
                let (name, why) = (&channel.name, unsent.in_words());
                tracing::warn!(channel = name, why, "active alerts were not sent again");
                let mut change = self.store.begin().await?;
                change.note_delivery(channel.id, &failed(&unsent, now)).await?;
                change.commit().await?;
            }
        }
        Ok(())
    }

    async fn post_active(&self, channel: &Channel, alerts: &[Value]) -> Result<(), Unsent> {
        let Destination::Alertmanager { url, username, password } = self.open(channel)? else {
            return Err(Unsent::Sealed);
        };
        post(&self.inside, &Door { url, username, password }, alerts).await
    }
}

/// An alert in Alertmanager's words. Its labels are what it is known by; what changes while it lasts is an annotation.
fn posted(alert: &AlertView, ends_at: UnixMillis, url: &str) -> Value {
    let mut labels: BTreeMap<String, String> = alert
        .labels
        .iter()
        .map(|(name, value)| (label_name(name), message::one_line(value, VALUE_CHARS_MAX)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    for (name, value) in [
        ("alertname", alert.kind.clone()),
        ("severity", alert.severity.clone()),
        ("alert", alert.id.to_string()),
    ] {
        labels.insert(name.to_owned(), value);
    }
    let link = message::link(url, alert);
    json!({
        "labels": labels,
        "annotations": {
            "summary": message::one_line(&alert.title, VALUE_CHARS_MAX),
            "description": message::detail(alert),
            "help": message::one_line(&alert.help, VALUE_CHARS_MAX * 2),
            "link": link,
        },
        "startsAt": alert.opened_at.to_string(),
        "endsAt": ends_at.to_string(),
        "generatorURL": link,
    })
}

/// Prometheus, "Data model": a label's name is made of letters, digits and `_`, and does not begin with a digit.
fn label_name(name: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    let name: String = name.chars().map(plain).collect();
    if name.starts_with(|letter: char| letter.is_ascii_digit()) { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_names_and_values_that_alertmanager_takes() {
        let mut alert = message::test_alert("ops", "ann", UnixMillis(0));
        alert.labels = BTreeMap::from([
            ("a.b/c-d".to_owned(), "x\ny".to_owned()),
            ("1st".to_owned(), "z".to_owned()),
            ("none".to_owned(), String::new()),
        ]);

        let posted = posted(&alert, UnixMillis(60_000), "http://console");

        let expected = json!({
            "a_b_c_d": "x y", "_1st": "z", "alertname": "test", "severity": "info", "alert": "a-0",
        });
        assert_eq!(posted["labels"], expected);
        assert_eq!(posted["annotations"]["link"], "http://console/alerts#a-0");
        assert_eq!(posted["endsAt"], "1970-01-01T00:01:00Z");
    }
}

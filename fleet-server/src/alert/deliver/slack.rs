//! An incoming webhook in Slack's form, which Mattermost, Rocket.Chat and others take as well. What is due at once is one message.

use sealift_protocol::api::AlertView;
use serde_json::json;

use super::{Inside, Parcel, Unsent, message, place};
use crate::store::channels::Delivery;

pub(super) async fn send(inside: &Inside, url: &str, parcel: &Parcel<'_>) -> Result<(), Unsent> {
    let url = place::address(url)?;
    let client = inside.client(&url).await?;
    place::send(client.post(url).json(&json!({ "text": text(parcel) }))).await
}

fn text(parcel: &Parcel<'_>) -> String {
    let parts: Vec<String> =
        parcel.deliveries.iter().map(|delivery| part(delivery, parcel.url)).collect();
    parts.join("\n\n")
}

fn part(delivery: &Delivery, url: &str) -> String {
    let alert: &AlertView = &delivery.view;
    let headline = escaped(&message::headline(delivery));
    let (detail, help) = (escaped(&message::detail(alert)), escaped(&alert.help));
    let link = message::link(url, alert);
    format!("*{headline}*\n{detail}\nnext: {help}\n<{link}|{}>", alert.id)
}

/// Slack, "Formatting text": the three characters with a meaning are written as entities. Rule: text of devices cannot mention people
/// or hide a link behind other words.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_device_mentions_nobody_and_hides_no_link() {
        assert_eq!(
            escaped("<!channel> & <http://x|y>"),
            "&lt;!channel&gt; &amp; &lt;http://x|y&gt;"
        );
    }
}

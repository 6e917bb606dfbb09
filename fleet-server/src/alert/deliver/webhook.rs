//! A CloudEvents 1.0 body, signed as the Standard Webhooks specification says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

use super::{Inside, Parcel, Unsent, place};
use crate::auth::AuthError;
use crate::store::channels::Delivery;

/// Prefix of secrets, by the Standard Webhooks specification.
const SECRET_PREFIX: &str = "whsec_";

/// Makes a key of signatures: 256 random bits, of which the specification wants 192 at least.
pub(crate) fn new_secret() -> Result<String, AuthError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(AuthError::Random)?;
    Ok(format!("{SECRET_PREFIX}{}", STANDARD.encode(key)))
}

/// Whether it is one, by the Standard Webhooks specification: 24 to 64 bytes.
pub(crate) fn is_secret(text: &str) -> bool {
    let key = text.strip_prefix(SECRET_PREFIX).and_then(|key| STANDARD.decode(key).ok());
    key.is_some_and(|key| (24..=64).contains(&key.len()))
}

pub(super) async fn send(
    inside: &Inside,
    (url, secret): (&str, &str),
    parcel: &Parcel<'_>,
) -> Result<(), Unsent> {
    let url = place::address(url)?;
    let client = inside.client(&url).await?;
    let seconds = parcel.now.0.div_euclid(1_000);
    for delivery in parcel.deliveries {
        let body = body(parcel.tenant, delivery);
        let request = client
            .post(url.clone())
            .header("content-type", "application/cloudevents+json")
            .header("webhook-id", &delivery.message)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature(secret, (&delivery.message, seconds), &body))
            .body(body);
        place::send(request).await?;
    }
    Ok(())
}

/// The CloudEvents body that says what became of an alert; the same at each try.
fn body(tenant: &str, delivery: &Delivery) -> String {
    json!({
        "specversion": "1.0",
        "id": delivery.message,
        "source": format!("/sealift/{tenant}"),
        "type": delivery.verb.event_type(),
        "subject": delivery.view.id.to_string(),
        "time": delivery.queued_at.to_string(),
        "datacontenttype": "application/json",
        "data": delivery.view,
    })
    .to_string()
}

/// `v1,` and the base64 of HMAC-SHA256 over id, time and body, by the Standard Webhooks specification.
fn signature(secret: &str, (message, seconds): (&str, i64), body: &str) -> String {
    let secret = secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret);
    let key = STANDARD.decode(secret).unwrap_or_default();
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return String::new() };
    mac.update(format!("{message}.{seconds}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_of_the_specifications_example() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let message = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signature(secret, message, "{\"test\": 2432232314}"), expected);
    }
}

//! Keeps the timestamp of the trust metadata from expiring.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::courier::Courier;
use crate::clock;
use crate::trust::Trust;

/// How often the timestamp's age is looked at; it is renewed at half of its life, which is hours.
const TRUST_EVERY: Duration = Duration::from_mins(5);

/// Renews the timestamp at half of its life, and tells devices; never returns.
pub(super) async fn keep_trust_fresh(trust: Arc<Trust>, courier: Courier) {
    loop {
        match trust.refresh(clock::now()).await {
            Ok(Some(published)) => courier.hint(published.timestamp),
            Ok(None) => (),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "timestamp not renewed");
            }
        }
        tokio::time::sleep(TRUST_EVERY).await;
    }
}

//! Waiting for something to become true, never longer than a deadline.

use std::future::Future;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// What a look at a condition found.
pub enum Look<T> {
    /// It holds.
    Done(T),
    /// Not yet; what is there instead, for the error at the deadline.
    NotYet(String),
}

/// Looks again and again until the condition holds, or `limit` is over. An error of a look counts as "not yet": what is being waited for
/// may be restarting.
pub async fn until<T, F>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Look<T>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let found = match look().await {
            Ok(Look::Done(value)) => return Ok(value),
            Ok(Look::NotYet(found)) => found,
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= deadline {
            bail!("after {} s still waiting until {what}; at last: {found}", limit.as_secs());
        }
        sleep(INTERVAL).await;
    }
}

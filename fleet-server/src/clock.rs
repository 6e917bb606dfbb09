//! The one place that reads the clock; everything else is handed the time.

use std::time::{SystemTime, UNIX_EPOCH};

use sealift_protocol::id::UnixMillis;

/// Now, by the system's clock.
#[expect(clippy::disallowed_methods, reason = "this is the shell that the rule points to")]
pub(crate) fn now() -> UnixMillis {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}

//! What is thrown away when it is old.

use sealift_protocol::id::UnixMillis;

use super::requests::REQUESTS_KEPT_MS;
use super::{Change, StoreError};
use crate::config::Retention;

/// Timelines are kept for this long.
pub(crate) const KEPT_MS: i64 = 30 * DAY_MS;
/// Profile windows are kept for this long: verdicts look back for hours, and ten thousand devices send 15 million windows a day. Their
/// sums are kept longer.
pub(crate) const WINDOWS_KEPT_MS: i64 = 2 * DAY_MS;
/// Alerts that are over are kept for this long.
const ALERTS_KEPT_MS: i64 = 365 * DAY_MS;
/// Requests to be enrolled are forgotten after this time; a device that still waits asks again.
const ENROL_REQUESTS_KEPT_MS: i64 = 90 * DAY_MS;
/// Issued certificates are kept this long beyond their end, in which they may still be renewed.
const CERTIFICATES_KEPT_MS: i64 = 60 * DAY_MS;
/// Who has looked at what is remembered for this long; a look after that is a row of the audit log again.
const LOOKS_KEPT_MS: i64 = 365 * DAY_MS;
const DAY_MS: i64 = 24 * 3_600 * 1_000;

impl Change {
    /// Throws away what is past its time; returns how many rows went.
    pub(crate) async fn throw_away(
        &mut self,
        retention: Retention,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        self.write_pending().await?;
        let before = |kept_ms: i64| now.plus(-kept_ms).0;
        let mut gone = 0;
        for (statement, moment) in [
            ("DELETE FROM timeline WHERE tenant = $1 AND at < $2", before(KEPT_MS)),
            (
                // What is in no hour yet stays.
                "DELETE FROM profile_windows WHERE tenant = $1 AND received_at < $2 AND number <=
                 (SELECT value FROM counters WHERE tenant = $1 AND name = 'summed-windows')",
                before(WINDOWS_KEPT_MS),
            ),
            ("DELETE FROM alerts WHERE tenant = $1 AND closed_at < $2", before(ALERTS_KEPT_MS)),
            (
                "DELETE FROM certificates WHERE tenant = $1 AND expires_at < $2",
                before(CERTIFICATES_KEPT_MS),
            ),
            (
                "DELETE FROM enrol_requests WHERE tenant = $1 AND asked_at < $2",
                before(ENROL_REQUESTS_KEPT_MS),
            ),
            (
                "DELETE FROM deliveries WHERE tenant = $1 AND state <> 'waiting' AND due_at < $2",
                before(KEPT_MS),
            ),
            ("DELETE FROM silences WHERE tenant = $1 AND until_at < $2", before(ALERTS_KEPT_MS)),
            (
                "DELETE FROM forecasts WHERE tenant = $1 AND rollout IN (SELECT number
                 FROM rollouts WHERE tenant = $1 AND finished_at < $2)",
                before(retention.forecast_ms()),
            ),
            (
                "DELETE FROM habits WHERE tenant = $1 AND device IN (SELECT id FROM devices
                 WHERE tenant = $1 AND online = 0 AND COALESCE(seen_at, enrolled_at) < $2)",
                before(retention.habits_ms()),
            ),
            ("DELETE FROM requests WHERE tenant = $1 AND asked_at < $2", before(REQUESTS_KEPT_MS)),
            ("DELETE FROM looks WHERE tenant = $1 AND at < $2", before(LOOKS_KEPT_MS)),
            ("DELETE FROM login_codes WHERE tenant = $1 AND expires_at < $2", now.0),
            ("DELETE FROM sessions WHERE tenant = $1 AND expires_at < $2", now.0),
            ("DELETE FROM api_tokens WHERE tenant = $1 AND expires_at < $2", now.0),
            ("DELETE FROM oidc_logins WHERE tenant = $1 AND expires_at < $2", now.0),
        ] {
            gone += self.run(statement, |it| it.bind(moment)).await?;
        }
        Ok(gone)
    }
}

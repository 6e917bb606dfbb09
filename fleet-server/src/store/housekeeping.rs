//! What is thrown away when it is old.

use sealift_protocol::id::UnixMillis;

use super::{Change, StoreError};

/// Timelines and profile windows are kept for this long.
pub(crate) const KEPT_MS: i64 = 30 * 24 * 3_600 * 1_000;

impl Change {
    /// Throws away what is past its time; returns how many rows went.
    pub(crate) async fn throw_away(&mut self, now: UnixMillis) -> Result<u64, StoreError> {
        let oldest = now.plus(-KEPT_MS).0;
        let mut gone = 0;
        for (statement, moment) in [
            ("DELETE FROM timeline WHERE tenant = $1 AND at < $2", oldest),
            ("DELETE FROM profile_windows WHERE tenant = $1 AND received_at < $2", oldest),
            ("DELETE FROM login_codes WHERE tenant = $1 AND expires_at < $2", now.0),
            ("DELETE FROM sessions WHERE tenant = $1 AND expires_at < $2", now.0),
        ] {
            gone += self.run(statement, |it| it.bind(moment)).await?;
        }
        Ok(gone)
    }
}

//! When the device's certificate is renewed, and how, so that a kill at any step leaves an identity that works.
//!
//! ```text
//!  1 fresh key on disk      the old pair is in use; the fresh key is one file more
//!  2 server answers         the old certificate stays good until the new one is used
//!  3 identity.json replaced the new pair is in use, in one step: it names its key
//!  4 old key removed        again at the next start, if this one was too short
//! ```

use std::ops::RangeInclusive;
use std::path::Path;

use sealift_protocol::api::{RenewRequest, RenewResponse};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::UnixMillis;

use crate::device::pause_ms;
use crate::identity::{Identity, IdentityError};
use crate::key::{Key, KeyError};
use crate::origin::{Origin, OriginError};

/// A certificate and its authority.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

/// A device whose clock runs ahead would find each new certificate old again.
const AFTER_SUCCESS_MS: i64 = 60 * 60_000;

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    #[error("cannot make a fresh key")]
    Key(#[from] KeyError),
    #[error(transparent)]
    Server(#[from] OriginError),
    #[error("answer of the server cannot be used: {0}")]
    Answer(&'static str),
    #[error("cannot keep the new certificate")]
    Keep(#[from] IdentityError),
}

/// When to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// By the wall clock: the certificate is old enough.
    due_at: UnixMillis,
    /// By the steady clock: not before, after a try.
    not_before: UnixMillis,
    tries: u32,
    is_running: bool,
}

impl Schedule {
    /// For a certificate of this validity. `spread_permille` is the device's share of the time over which a fleet spreads its renewals.
    pub(crate) fn new(valid: &RangeInclusive<UnixMillis>, spread_permille: u16) -> Self {
        let due_at = due_at(valid, spread_permille);
        Self { due_at, not_before: UnixMillis(i64::MIN), tries: 0, is_running: false }
    }

    /// Whether a try begins now; it has then begun. A clock that is years ahead asks too early, which harms nobody: the server's clock
    /// decides.
    pub(crate) fn begin(&mut self, now: UnixMillis, steady: UnixMillis) -> bool {
        let begins = !self.is_running && now >= self.due_at && steady >= self.not_before;
        self.is_running |= begins;
        begins
    }

    /// The server takes nothing but a renewal: whatever the device's clock says, it is due.
    pub(crate) fn ask_now(&mut self) {
        self.due_at = UnixMillis(i64::MIN);
    }

    /// A try has failed.
    pub(crate) fn failed(&mut self, steady: UnixMillis, spread_permille: u16) {
        self.tries = self.tries.saturating_add(1);
        self.is_running = false;
        self.not_before = steady.plus(pause_ms(self.tries.saturating_add(3), spread_permille));
    }

    /// A try has brought a certificate of this validity.
    pub(crate) fn renewed(
        &mut self,
        valid: &RangeInclusive<UnixMillis>,
        steady: UnixMillis,
        spread_permille: u16,
    ) {
        let not_before = steady.plus(AFTER_SUCCESS_MS);
        *self = Self { not_before, ..Self::new(valid, spread_permille) };
    }
}

/// Two thirds of the certificate's life, and up to a twelfth more.
fn due_at(valid: &RangeInclusive<UnixMillis>, spread_permille: u16) -> UnixMillis {
    let life_ms = valid.end().since(*valid.start());
    let spread_ms = life_ms / 12 * i64::from(spread_permille.min(1_000)) / 1_000;
    valid.start().plus(life_ms / 3 * 2 + spread_ms)
}

/// A device's own share, the same after each start, and another for each certificate.
pub(crate) fn own_spread_permille(identity: &Identity) -> u16 {
    let digest = Digest::of(identity.certificate_pem.as_bytes());
    let [high, low, ..] = *digest.as_bytes();
    u16::from_be_bytes([high, low]) % 1_001
}

/// Renews the certificate with a fresh key, up to and with step 3; the answer is the identity that is now on disk.
pub(crate) async fn renew(
    store: &Path,
    identity: &Identity,
    origin: &Origin,
) -> Result<Identity, RenewError> {
    let key = Key::make(store, &identity.key)?;
    let request = RenewRequest { csr_pem: key.request()? };
    let answer = origin.post("/renew", &request, RESPONSE_BYTES_MAX).await?;
    let answer: RenewResponse =
        serde_json::from_slice(&answer).map_err(|_| RenewError::Answer("it is not JSON"))?;
    switch(store, identity, &key, answer.certificate_pem)
}

/// Rule: the new certificate is for the fresh key and for this device; what is on disk is replaced only by what works.
fn switch(
    store: &Path,
    identity: &Identity,
    key: &Key,
    certificate_pem: String,
) -> Result<Identity, RenewError> {
    let new = Identity { certificate_pem, key: key.name().to_owned(), ..identity.clone() };
    let Some(shown) = new.shown() else {
        return Err(RenewError::Answer("it is not a certificate"));
    };
    if shown.public_key != key.public() {
        return Err(RenewError::Answer("its certificate is for another key"));
    }
    if shown.common_name != new.common_name() {
        return Err(RenewError::Answer("its certificate is for another device"));
    }
    new.save(store)?;
    Ok(new)
}

#[cfg(test)]
mod tests;

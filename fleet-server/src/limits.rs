//! The server's own limits that more than one file must know; each with its unit and its reason.

use std::time::Duration;

/// Entries on one page of a list.
pub(crate) const PAGE_MAX: u32 = 1_000;
/// Entries on a page where the caller does not say.
pub(crate) const PAGE_DEFAULT: u32 = 100;

/// Bytes in the body of a request to `/api/v1`; a rollout with 64 waves is 10 KB.
pub(crate) const API_BODY_BYTES_MAX: usize = 1 << 20;

/// Time for one request to `/api/v1`.
pub(crate) const API_REQUEST_MAX: Duration = Duration::from_secs(30);

/// Requests to `/api/v1` worked on at a time; more wait, so that a burst does not starve the devices.
pub(crate) const API_REQUESTS_MAX: usize = 64;

/// Characters of a reason that an operator gives.
pub(crate) const REASON_CHARS_MAX: usize = 1_000;

/// Waves of a rollout.
pub(crate) const WAVES_MAX: usize = 64;

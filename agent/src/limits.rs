//! The device's limits; each with its unit and its reason. Those that the server shares are in `sealift_protocol::limits`.

use sealift_protocol::id::UnixMillis;

/// Signatures and space are checked in this time, or again later: a fetch of metadata takes a second on a slow link.
pub(crate) const CHECKING_MAX_MS: i64 = 30_000;

/// Hashing and scanning 16 GiB at 30 MB/s.
pub(crate) const VERIFYING_MAX_MS: i64 = 10 * 60_000;

/// Loading and golden tests; the image's own policy may be stricter.
pub(crate) const WARMING_MAX_MS: i64 = 2 * 60_000;

/// How an image compares is told the device, and with it the server, this often.
pub(crate) const SHADOW_TOLD_MS: i64 = 10_000;

/// Two renames and a swap in memory.
pub(crate) const ACTIVATING_MAX_MS: i64 = 30_000;

/// Going back may have to load the previous image from disk.
pub(crate) const REVERTING_MAX_MS: i64 = 3 * 60_000;

/// A download without a byte for this long is begun anew, and people are told.
pub(crate) const STALLED_AFTER_MS: i64 = 60 * 60_000;

/// Longest pause between two attempts to reach the server for an image.
pub(crate) const RETRY_MAX_MS: i64 = 15 * 60_000;

/// An image that waits for its window by a clock that cannot be right looks again after this,
pub(crate) const LOOK_MS: i64 = 15 * 60_000;

/// and waits no longer than this many looks: a day. A start of the agent is a look, too.
pub(crate) const LOOKS_MAX: u16 = 96;

/// Starts of the agent in one probation; the image may be what stops it.
pub(crate) const BOOTS_MAX: u8 = 3;

/// Downloads whose bytes are not those that were signed, before the attempt fails.
pub(crate) const CORRUPT_MAX: u8 = 3;

/// Starts of a worker for the live image that may fail before the device goes back.
pub(crate) const STARTS_FAILED_MAX: u8 = 3;

/// A device offline for a week on 64 MiB flash keeps its newest hours.
pub(crate) const SPOOL_BYTES_MAX: u64 = 8 << 20;

/// Messages on their way to the server without a receipt. Broker and server hold this many for each device.
pub(crate) const IN_FLIGHT_MAX: usize = 64;

/// A worker that was replaced stays this long, in case the new one crashes at once.
pub(crate) const KEEP_WARM_MS: i64 = 30_000;

/// The journal is rewritten beyond this length; a device writes about 10 KB a rollout.
pub(crate) const JOURNAL_BYTES_MAX: u64 = 1 << 20;

/// A disk that filled up while it was written to is looked at again after this: whoever filled it may be done.
pub(crate) const DISK_FULL_PAUSE_MS: i64 = 10_000;

/// No clock is right that shows a time before this version was made: 2026-11-01.
pub(crate) const BUILT_AT: UnixMillis = UnixMillis(1_793_491_200_000);

/// Samples that wait to be uploaded, on disk: a day's budget of 200 images of 160 KB, and no more of a small device's flash.
pub(crate) const CAPTURE_SPOOL_BYTES_MAX: u64 = 32 << 20;

/// Samples that wait to be encrypted; what comes when they are that many is lost, and counted.
pub(crate) const CAPTURE_QUEUE_MAX: usize = 16;

/// Pictures of a model that are looked at in a second, where more come: at some 100 µs each they take half a percent of a core,
pub(crate) const LOOKS_A_SECOND: f64 = 50.0;

/// and two percent in the second in which they become many.
pub(crate) const LOOKS_A_SECOND_MAX: u32 = 200;

/// Pictures of one request that are looked at, where it has more: whoever waits for the answer waits 5 ms longer,
pub(crate) const LOOKS_A_REQUEST: f64 = 48.0;

/// and once in a hundred requests some more.
pub(crate) const LOOKS_A_REQUEST_MAX: usize = 64;

//! The agent of a device: verifies signed model images, serves them, observes them, reports.
//!
//! ```text
//!  supervisor ── effects ──> trust, verify, download, slots, worker ── answers ──┐
//!      ^                                                                         │
//!      │ decides nothing: asks device::Device::on(event, now)  <─────────────────┘
//!      └── link (MQTT: directives in, spool out), origin (HTTPS: metadata, blobs, the directive again)
//! ```

pub mod batch;
mod jobs;
pub mod claim;
pub mod clock;
pub mod config;
pub mod drill;
pub mod enrol;
pub mod hold;
pub mod logs;
pub mod observe;
pub mod serve;
pub mod simulate;
pub mod status;
pub mod supervisor;
pub mod tuf;
pub mod twin;
pub mod untrusted;
pub mod watchdog;
pub mod worker;

mod behaviour;
mod asked;
mod capture;
mod crowd;
mod device;
mod dice;
mod disk;
mod download;
mod engine;
mod health;
mod identity;
mod journal;
mod kept;
mod key;
mod limits;
mod link;
mod origin;
mod otlp;
mod record;
mod renewal;
mod slots;
mod spool;
mod tls_clock;
mod trust;
mod upload;
mod verify;

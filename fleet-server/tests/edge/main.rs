//! The server's edge, from outside: the real binary, real TLS, the real broker, on loopback.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "everything here is a test or its helper, and lives in real time"
)]

mod attacks;
mod broker;
mod claims;
mod conformance;
mod external;
mod identity;
mod mqtt;
mod registry;
mod support;
mod trust;

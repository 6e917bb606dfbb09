//! What server and device must agree on: words on the wire, trust, and the maths of drift. No I/O, no clock.

pub mod id;
pub mod digest;
pub mod codec;
pub mod limits;
pub mod cose;
pub mod merkle;
pub mod tensor;
pub mod local;
pub mod image;
pub mod tuf;
#[cfg(feature = "pkcs11")]
pub mod token;
pub mod directive;
pub mod halt;
pub mod request;
pub mod capture;
pub mod report;
pub mod telemetry;
pub mod profile;
pub mod drift;
pub mod change;
pub mod topic;
#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "api")]
pub mod audit;

//! The Update Framework 1.0: which model images, revocations and director keys are trusted, and since when.
//!
//! Metadata are JSON files signed over the canonical form of their `signed` part. `root` names the keys of the other roles,
//! `timestamp` says which snapshot is newest, `snapshot` which version of every file belongs together, `targets` and the roles it
//! delegates to what may be installed. Section numbers in comments are those of the TUF specification 1.0.3x.
//!
//! [`client`] verifies, for devices; [`repository`] signs, for the fleet server, publishers and key holders. Neither opens a file,
//! a socket or a clock.

mod delegation;
mod error;
mod hashes;
mod json;
#[cfg(test)]
mod testing;
pub mod bundle;
pub mod client;
pub mod key;
pub mod metadata;
pub mod repository;
pub mod signed;

pub use delegation::{DelegatedRole, DelegatedRoles, Delegations, Paths, SuccinctRoles};
pub use error::{Role, TufError};
pub use hashes::Hashes;

use crate::id::{ModelName, TeamId, Version};

/// Bytes of a root, timestamp or snapshot file. 10,000 snapshot entries of 100 bytes fit.
const METADATA_BYTES_MAX: usize = 1 << 20;

/// Bytes of a targets file. 20,000 target files of 250 bytes fit.
const TARGETS_BYTES_MAX: usize = 5 << 20;

/// Bytes of a target file that the client itself fetches: trust bundles and revocations, never model images.
pub const TARGET_FILE_BYTES_MAX: usize = 1 << 20;

/// The target that holds the director keys and the certification authorities.
pub const BUNDLE_PATH: &str = "trust/bundle.json";

/// The delegated role that signs the deny list.
pub const REVOCATIONS_ROLE: &str = "revocations";

/// The target that holds the deny list.
pub const REVOCATIONS_PATH: &str = "trust/revocations.json";

/// The delegated role that signs native code: agents and inference libraries.
pub const RUNTIME_ROLE: &str = "runtime";

/// The targets of that role.
pub const RUNTIME_PATHS: &str = "runtime/*";

/// The target that names a model image: `models/<team>/<name>/<version>`.
pub fn model_path(model: &ModelName, version: &Version) -> String {
    format!("models/{model}/{version}")
}

/// The delegated role in which a team publishes its model images.
pub fn publisher_role(team: &TeamId) -> String {
    format!("publisher-{team}")
}

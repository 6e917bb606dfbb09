//! One file per noun of the command line.

pub(crate) mod alert;
pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod device;
pub(crate) mod drift;
pub(crate) mod enrol;
pub(crate) mod halt;
pub(crate) mod infer;
pub(crate) mod key;
pub(crate) mod login;
pub(crate) mod model;
pub(crate) mod review;
pub(crate) mod revoke;
pub(crate) mod notify;
pub(crate) mod operator;
pub(crate) mod rollback;
pub(crate) mod rollout;
pub(crate) mod session;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod trust;

use std::collections::BTreeMap;

/// `key=value, …`
fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(", ")
}

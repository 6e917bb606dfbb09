//! The fleet server: keeps the registry, the trust metadata and the fleet's desired state; plans rollouts; judges drift.

pub mod rollout;
pub mod alert;
pub mod filter;
pub mod cli;
pub mod config;
pub mod server;
mod audit;
mod auth;
mod blobs;
mod broker;
mod certificate;
mod clock;
mod content;
mod directive;
mod enrol;
mod events;
mod http;
mod ingest;
mod inventory;
mod limits;
mod listen;
mod metrics;
mod order;
mod permission;
mod reach;
mod reconcile;
mod recover;
mod registry;
mod renewal;
mod rollback;
mod signals;
mod store;
mod tls;
mod trust;
mod watch;

pub(crate) use sealift_protocol::drift;

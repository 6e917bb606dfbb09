//! A fleet of real processes on loopback: the server, agents, simulated devices and `fleetctl`, for stories and for the demo.
//!
//! Every process is ended when its value is dropped, every wait has a deadline, and what a process printed is in a file beside its
//! data, whose end is quoted where something went wrong.

pub mod batch;
pub mod bucket;
pub mod digits;
pub mod disk;
pub mod fleet;
mod https;
pub mod keys;
pub mod mosquitto;
pub mod needs;
pub mod oidc;
pub mod origin;
pub mod pictures;
pub mod process;
pub mod receivers;
pub mod story;
pub mod thief;
pub mod token;
pub mod wait;
pub mod wire;

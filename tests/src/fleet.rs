//! A fleet server, its devices and an operator.

mod api;
mod device;
mod server;

pub use api::Api;
pub use device::{Caller, Device, DeviceOptions, Keeping, Simulated, WayIn};
pub use server::{Options, Server, Store};

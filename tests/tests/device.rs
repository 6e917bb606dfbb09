//! A device through everything that can happen to it: real agents, killed, misled and neglected.

#[path = "device/kill.rs"]
mod kill;

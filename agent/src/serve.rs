//! Local endpoints: which worker is live for which model, and the protocols by which applications reach it.
//!
//! Every protocol is a thin codec onto [`Live::infer`], so that profiles and metrics see every request.

mod elements;
mod http;
mod infer;
mod live;
mod metrics;
mod refusal;
mod request;
mod response;
mod switchboard;

pub use http::{listen, router};
pub use live::{Live, LiveImage};
pub use switchboard::Switchboard;

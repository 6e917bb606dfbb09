//! Local endpoints: which worker is live for which model, and the protocols by which applications reach it.
//!
//! Every protocol is a thin codec onto [`Live::infer`], so that profiles and metrics see every request.

mod body;
#[cfg(test)]
mod captured;
mod challenger;
mod elements;
mod endpoint;
mod grpc;
mod http;
mod infer;
mod listen;
mod live;
mod metrics;
#[cfg(test)]
mod pictured;
mod probe;
mod refusal;
mod request;
mod response;
mod scoring;
mod switchboard;
mod thread;
mod tls;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unix;

pub(crate) use challenger::Challenger;
pub use listen::{Doors, listen, router};
pub use live::{Live, LiveImage};
pub(crate) use probe::{Probe, probe};
pub use switchboard::Switchboard;
pub use thread::ServeThread;
pub use tls::Certificates;

/// What `/metrics` says.
pub(crate) fn exposition(board: &Switchboard) -> String {
    metrics::write(board)
}

/// Reads an inference request and returns how many inputs it has.
pub(crate) fn count_inputs(
    body: &[u8],
    header_bytes: Option<usize>,
) -> Result<usize, impl std::error::Error> {
    request::InferRequest::parse(body, header_bytes).map(|request| request.inputs.len())
}

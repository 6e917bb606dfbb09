//! The doors through which strangers' bytes come to an agent besides the protocol's own, for whoever tries them with any bytes.

use crate::serve;
use crate::verify;

/// Looks into a model as before it is given to the library; says why not, if it may not be.
pub fn onnx_scan(model: &[u8]) -> Result<(), String> {
    verify::scan_model(model).map_err(|refused| refused.to_string())
}

/// Reads an inference request whose first `header_bytes` are JSON, all of it if none are given; returns how many inputs it has.
pub fn oip_request(body: &[u8], header_bytes: Option<usize>) -> Result<usize, String> {
    serve::count_inputs(body, header_bytes).map_err(|invalid| invalid.to_string())
}

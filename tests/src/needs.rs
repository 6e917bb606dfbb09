//! What a story needs besides the workspace's own programs. `cargo xtask test` provides it and says where it is.

use std::path::PathBuf;

use anyhow::Context as _;

/// The value of a variable that `cargo xtask test` sets.
pub fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set; `cargo xtask test` sets it"))
}

/// ONNX Runtime's library.
pub fn onnxruntime() -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(variable("SEALIFT_ONNXRUNTIME")?))
}

//! What is needed from package registries: by pinned version and hash, once, below the target directory.

mod console;
mod onnxruntime;
mod python;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::workspace;

pub(crate) use console::npm;

/// Something fetched, or why this machine cannot have it.
#[derive(Debug)]
pub(crate) enum Obtained {
    /// It is here.
    Ready(PathBuf),
    /// It is not; one line that says what is missing.
    Missing(String),
}

/// Fetches ONNX Runtime and returns the path of its library.
pub(crate) fn onnxruntime() -> anyhow::Result<PathBuf> {
    match obtain_onnxruntime()? {
        Obtained::Ready(library) => Ok(library),
        Obtained::Missing(why) => bail!(
            "there is no ONNX Runtime: {why}\nhelp: set SEALIFT_ONNXRUNTIME to the path of a libonnxruntime.so of 1.24 or newer; \
             the server, fleetctl and simulated devices work without it"
        ),
    }
}

/// Fetches ONNX Runtime; `SEALIFT_ONNXRUNTIME` names another library to use.
pub(crate) fn obtain_onnxruntime() -> anyhow::Result<Obtained> {
    match std::env::var_os("SEALIFT_ONNXRUNTIME") {
        Some(library) => Ok(Obtained::Ready(PathBuf::from(library))),
        None => onnxruntime::obtain(&fetched()?, &onnxruntime::PLAIN),
    }
}

/// Fetches ONNX Runtime with OpenVINO; `SEALIFT_OPENVINO` names another library to use.
pub(crate) fn openvino() -> anyhow::Result<Obtained> {
    match std::env::var_os("SEALIFT_OPENVINO") {
        Some(library) => Ok(Obtained::Ready(PathBuf::from(library))),
        None => onnxruntime::obtain(&fetched()?, &onnxruntime::OPENVINO),
    }
}

/// Builds the web console if its sources have changed since it was built.
pub(crate) fn console() -> anyhow::Result<Obtained> {
    console::obtain(&fetched()?)
}

/// Installs the console's packages alone, which its own tests need.
pub(crate) fn console_packages() -> anyhow::Result<Obtained> {
    console::obtain_packages(&fetched()?)
}

/// Installs the packages of the tests' OpenID provider.
pub(crate) fn oidc_provider() -> anyhow::Result<Obtained> {
    console::obtain_provider(&fetched()?)
}

/// Makes a Python environment with the pinned requirements of the model fixtures; returns its interpreter.
pub(crate) fn venv() -> anyhow::Result<Obtained> {
    python::obtain_venv(&workspace::target()?)
}

/// Makes a Python environment with the clients that try the agent's endpoints; returns its interpreter.
pub(crate) fn clients() -> anyhow::Result<Obtained> {
    python::obtain_clients(&workspace::target()?)
}

/// Makes a Python environment with what alerts are sent to in tests; returns its interpreter.
pub(crate) fn receivers() -> anyhow::Result<Obtained> {
    python::obtain_receivers(&workspace::target()?)
}

/// Makes a Python environment with what the agent is measured beside; returns its interpreter.
pub(crate) fn peers() -> anyhow::Result<Obtained> {
    python::obtain_peers(&workspace::target()?)
}

/// Makes a Python environment with what drift verdicts are compared with; returns its interpreter.
pub(crate) fn drift_venv() -> anyhow::Result<Obtained> {
    python::obtain_drift_venv(&workspace::target()?)
}

/// Carries out `cargo xtask web`.
pub(crate) fn web() -> anyhow::Result<()> {
    match console()? {
        Obtained::Ready(directory) => println!("the console is in {}", directory.display()),
        Obtained::Missing(why) => {
            bail!(
                "there is no console: {why}\nhelp: the server works without it; `/` shows a status page"
            )
        }
    }
    Ok(())
}

/// Carries out `cargo xtask fetch`.
pub(crate) fn everything() -> anyhow::Result<()> {
    let found = [
        ("ONNX Runtime", obtain_onnxruntime()?),
        ("OpenVINO", openvino()?),
        ("web console", console()?),
        ("OpenID provider", oidc_provider()?),
        ("Python environment", venv()?),
        ("clients of inference", clients()?),
        ("drift detectors", drift_venv()?),
        ("receivers of alerts", receivers()?),
    ];
    for (name, obtained) in found {
        match obtained {
            Obtained::Ready(path) => println!("{name}: {}", path.display()),
            Obtained::Missing(why) => println!("{name}: MISSING: {why}"),
        }
    }
    Ok(())
}

fn fetched() -> anyhow::Result<PathBuf> {
    let directory = workspace::target()?.join("fetched");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// Whether `stamp` says that what it stands for was made from just this.
fn is_stamped(stamp: &Path, made_from: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|text| text == made_from)
}

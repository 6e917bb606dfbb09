//! ONNX Runtime's library, taken out of its Python wheel.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sealift_protocol::digest::Digest;

use super::{Obtained, is_stamped, python};
use crate::child;

/// The version that the wheels below are of.
const VERSION: &str = "1.31.1";

/// Any of a release's wheels has the same library; these are the ones the hashes are of.
const PINS: &str = include_str!("onnxruntime.txt");

/// 24 MB on a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(15);

/// A platform that is pinned.
struct Platform {
    wheel: &'static str,
    library_sha256: &'static str,
}

const X86_64: Platform = Platform {
    wheel: "manylinux_2_28_x86_64",
    library_sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
};
const AARCH64: Platform = Platform {
    wheel: "manylinux_2_28_aarch64",
    library_sha256: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
};

/// Returns the library below `fetched`, downloading it unless an earlier call did.
pub(super) fn obtain(fetched: &Path) -> anyhow::Result<Obtained> {
    let platform = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => X86_64,
        ("linux", "aarch64") => AARCH64,
        (system, machine) => {
            return Ok(Obtained::Missing(format!(
                "no release is pinned for {system} on {machine}"
            )));
        }
    };
    let directory = fetched.join(format!("onnxruntime-{VERSION}"));
    let library = directory.join("lib").join(format!("libonnxruntime.so.{VERSION}"));
    let stamp = directory.join("verified");
    if library.is_file() && is_stamped(&stamp, platform.library_sha256) {
        return Ok(Obtained::Ready(library));
    }
    if let Some(why) = python::missing() {
        return Ok(Obtained::Missing(why));
    }
    let partial = tempfile::Builder::new().prefix("onnxruntime-").tempdir_in(fetched)?;
    if let Some(why) = download(partial.path(), &platform, fetched)? {
        return Ok(Obtained::Missing(why));
    }
    unpack(partial.path(), &platform)?;
    fs::write(partial.path().join("unpacked/verified"), platform.library_sha256)?;
    let _ = fs::remove_dir_all(&directory);
    fs::rename(partial.path().join("unpacked"), &directory)
        .with_context(|| format!("cannot put {} in place", directory.display()))?;
    Ok(Obtained::Ready(library))
}

fn download(
    directory: &Path,
    platform: &Platform,
    fetched: &Path,
) -> anyhow::Result<Option<String>> {
    let pins = directory.join("pins.txt");
    fs::write(&pins, PINS)?;
    let mut pip = python::pip();
    pip.args(["download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input"]);
    // Whatever Python runs this: the wheel is only a container here.
    pip.args(["--python-version", "3.12", "--implementation", "cp", "--abi", "cp312"]);
    pip.args(["--platform", platform.wheel, "--dest"])
        .arg(directory)
        .arg("--requirement")
        .arg(&pins);
    let log = fetched.join("onnxruntime.log");
    python::attempt("fetching ONNX Runtime", &mut pip, &log, DOWNLOAD_LIMIT)
}

/// Lays `unpacked/` out as `lib/libonnxruntime.so.VERSION` with the licences beside it, after checking the library.
fn unpack(directory: &Path, platform: &Platform) -> anyhow::Result<()> {
    let wheel = format!("onnxruntime-{VERSION}-cp312-cp312-{}.whl", platform.wheel);
    let mut unzip = Command::new("python3");
    unzip.args(["-m", "zipfile", "-e", &wheel, "wheel"]).current_dir(directory);
    child::output(&mut unzip).context("cannot unpack the wheel")?;
    let wheel = directory.join("wheel/onnxruntime");
    let name = format!("libonnxruntime.so.{VERSION}");
    let library = wheel.join("capi").join(&name);
    let bytes = fs::read(&library).with_context(|| format!("the wheel has no {name}"))?;
    let found = Digest::of(&bytes).hex();
    ensure!(
        found == platform.library_sha256,
        "{name} has SHA-256 {found}, pinned is {}",
        platform.library_sha256
    );
    let unpacked = directory.join("unpacked");
    fs::create_dir_all(unpacked.join("lib"))?;
    fs::rename(library, unpacked.join("lib").join(name))?;
    for licence in ["LICENSE", "ThirdPartyNotices.txt"] {
        fs::rename(wheel.join(licence), unpacked.join(licence))?;
    }
    Ok(())
}

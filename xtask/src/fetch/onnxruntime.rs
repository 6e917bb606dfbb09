//! ONNX Runtime's library, taken out of its Python wheel: the plain one, and the one with OpenVINO.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sealift_protocol::digest::Digest;

use super::{Obtained, is_stamped, python};
use crate::child;

/// A release of the library.
pub(super) struct Release {
    /// Of the wheel.
    package: &'static str,
    version: &'static str,
    /// Any of a release's wheels has the same library; these are the ones the hashes are of.
    pins: &'static str,
    platforms: &'static [Platform],
}

/// A platform that is pinned.
struct Platform {
    architecture: &'static str,
    wheel: &'static str,
    library_sha256: &'static str,
}

/// For processors alone.
pub(super) const PLAIN: Release = Release {
    package: "onnxruntime",
    version: "1.31.1",
    pins: include_str!("onnxruntime.txt"),
    platforms: &[
        Platform {
            architecture: "x86_64",
            wheel: "manylinux_2_28_x86_64",
            library_sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
        },
        Platform {
            architecture: "aarch64",
            wheel: "manylinux_2_28_aarch64",
            library_sha256: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
        },
    ],
};

/// With OpenVINO, all of whose parts lie beside it.
pub(super) const OPENVINO: Release = Release {
    package: "onnxruntime_openvino",
    version: "1.24.1",
    pins: include_str!("openvino.txt"),
    platforms: &[Platform {
        architecture: "x86_64",
        wheel: "manylinux_2_28_x86_64",
        library_sha256: "c7b0590c7825f7029ba17e20a5dea27f7f570d8241d60584caacd363648aa8e2",
    }],
};

/// 24 MB, or 84 MB with OpenVINO, on a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(15);

/// Returns the library below `fetched`, downloading it unless an earlier call did.
pub(super) fn obtain(fetched: &Path, release: &Release) -> anyhow::Result<Obtained> {
    let Release { package, version, platforms, .. } = release;
    let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
    let platform = platforms.iter().find(|platform| platform.architecture == machine);
    let Some(platform) = platform.filter(|_| system == "linux") else {
        let why = format!("no release of {package} is pinned for {system} on {machine}");
        return Ok(Obtained::Missing(why));
    };
    let directory = fetched.join(format!("{package}-{version}"));
    let library = directory.join("lib").join(format!("libonnxruntime.so.{version}"));
    let stamp = directory.join("verified");
    if library.is_file() && is_stamped(&stamp, platform.library_sha256) {
        return Ok(Obtained::Ready(library));
    }
    if let Some(why) = python::missing() {
        return Ok(Obtained::Missing(why));
    }
    let partial = tempfile::Builder::new().prefix("onnxruntime-").tempdir_in(fetched)?;
    if let Some(why) = download(partial.path(), release, platform, fetched)? {
        return Ok(Obtained::Missing(why));
    }
    unpack(partial.path(), release, platform)?;
    fs::write(partial.path().join("unpacked/verified"), platform.library_sha256)?;
    let _ = fs::remove_dir_all(&directory);
    fs::rename(partial.path().join("unpacked"), &directory)
        .with_context(|| format!("cannot put {} in place", directory.display()))?;
    Ok(Obtained::Ready(library))
}

fn download(
    directory: &Path,
    release: &Release,
    platform: &Platform,
    fetched: &Path,
) -> anyhow::Result<Option<String>> {
    let pins = directory.join("pins.txt");
    fs::write(&pins, release.pins)?;
    let mut pip = python::pip();
    pip.args(["download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input"]);
    // Whatever Python runs this: the wheel is only a container here.
    pip.args(["--python-version", "3.12", "--implementation", "cp", "--abi", "cp312"]);
    pip.args(["--platform", platform.wheel, "--dest"])
        .arg(directory)
        .arg("--requirement")
        .arg(&pins);
    let log = fetched.join(format!("{}.log", release.package));
    let title = format!("fetching {} {}", release.package, release.version);
    python::attempt(&title, &mut pip, &log, DOWNLOAD_LIMIT)
}

/// Lays `unpacked/` out as `lib/libonnxruntime.so.VERSION` with its parts, and the licences beside it, after checking the library.
fn unpack(directory: &Path, release: &Release, platform: &Platform) -> anyhow::Result<()> {
    let Release { package, version, .. } = release;
    let wheel = format!("{package}-{version}-cp312-cp312-{}.whl", platform.wheel);
    let mut unzip = Command::new("python3");
    unzip.args(["-m", "zipfile", "-e", &wheel, "wheel"]).current_dir(directory);
    child::output(&mut unzip).context("cannot unpack the wheel")?;
    let wheel = directory.join("wheel/onnxruntime");
    let name = format!("libonnxruntime.so.{version}");
    let bytes = fs::read(wheel.join("capi").join(&name));
    let bytes = bytes.with_context(|| format!("the wheel has no {name}"))?;
    let found = Digest::of(&bytes).hex();
    ensure!(
        found == platform.library_sha256,
        "{name} has SHA-256 {found}, pinned is {}",
        platform.library_sha256
    );
    let unpacked = directory.join("unpacked");
    fs::create_dir_all(unpacked.join("lib"))?;
    for entry in fs::read_dir(wheel.join("capi"))? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        // The others are for Python.
        if name.starts_with("lib") && name.contains(".so") {
            fs::rename(entry.path(), unpacked.join("lib").join(name))?;
        }
    }
    for licence in ["LICENSE", "ThirdPartyNotices.txt"] {
        fs::rename(wheel.join(licence), unpacked.join(licence))?;
    }
    Ok(())
}

//! `cargo xtask dist`: Debian packages of the programs, from the lists in `packaging/deb`.

mod package;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use self::package::{Package, Sources};
use crate::fetch::Obtained;
use crate::{child, fetch, install, programs, workspace};

/// Compressing debug programs on two slow cores.
const PACK_LIMIT: Duration = Duration::from_mins(10);

/// What is asked of `cargo xtask dist`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the packages go; target/packages if not given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Package the development programs, uncompressed: to try the packages themselves.
    #[arg(long)]
    quick: bool,
}

/// Builds and packages everything that can be packaged here.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(install::find("dpkg-deb").is_some(), "`dpkg-deb` is not installed (Debian: dpkg)");
    let target = workspace::target()?;
    let out = arguments.out.clone().unwrap_or_else(|| target.join("packages"));
    fs::create_dir_all(&out)?;
    let programs = if arguments.quick { programs::build()? } else { build()? };
    let onnxruntime = match fetch::obtain_onnxruntime()? {
        Obtained::Ready(library) => library.ancestors().nth(2).map(Path::to_owned),
        Obtained::Missing(why) => {
            println!("sealift-onnxruntime is not packaged: {why}");
            None
        }
    };
    let sources = Sources { root: workspace::root().to_owned(), programs, onnxruntime };
    for package in Package::all(&workspace::root().join("packaging/deb"))? {
        if package.can_be_made(&sources) {
            let made = pack(&package, &sources, &out, arguments.quick)?;
            println!("{} ({:.1} MB)", made.display(), megabytes(&made)?);
        }
    }
    Ok(())
}

fn build() -> anyhow::Result<PathBuf> {
    // The server's build embeds it.
    if let Obtained::Missing(why) = fetch::console()? {
        println!("the server is packaged without the web console: {why}");
    }
    programs::build_for_distribution()
}

fn pack(package: &Package, sources: &Sources, out: &Path, quick: bool) -> anyhow::Result<PathBuf> {
    let staged = tempfile::Builder::new().prefix("sealift-deb-").tempdir()?;
    package.stage(sources, staged.path())?;
    let made = out.join(package.file_name());
    let mut command = Command::new("dpkg-deb");
    command.args(["--build", "--root-owner-group", if quick { "-Znone" } else { "-Zxz" }]);
    command.arg(staged.path()).arg(&made).env("SOURCE_DATE_EPOCH", commit_time());
    let log = out.join(format!("{}.log", package.name));
    child::succeed(&format!("packing {}", package.name), &mut command, &log, PACK_LIMIT)?;
    fs::remove_file(log)?;
    Ok(made)
}

/// When what is packaged was committed, so that packing it again gives the same bytes.
fn commit_time() -> String {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(workspace::root());
    child::output(&mut git).map_or_else(|_| "0".to_owned(), |time| time.trim().to_owned())
}

/// Size of a file in units of a million bytes.
#[expect(clippy::cast_precision_loss, reason = "no file of ours has 2^52 bytes")]
pub(crate) fn megabytes(file: &Path) -> anyhow::Result<f64> {
    let length = file.metadata().with_context(|| format!("no {}", file.display()))?.len();
    Ok(length as f64 / 1e6)
}

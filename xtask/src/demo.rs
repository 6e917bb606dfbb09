//! `cargo xtask demo`: the whole loop on a real model, from an empty directory to a rollback that the devices prove.

mod fleet;
mod stage;
mod steal;
mod story;
mod traffic;

use std::path::PathBuf;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use self::stage::Stage;
use crate::fetch::{self, Obtained};
use crate::programs;

/// What the demo can be asked to do.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// End after the story: with 0 if every step was verified from outside, else with the name of the step.
    #[arg(long)]
    once: bool,
    /// Simulated devices beside the three real agents: the real state machine and link, an engine that only pretends.
    #[arg(long, default_value_t = 50)]
    devices: u32,
    /// After the story, steal the server with every online key, and see what that is good for.
    #[arg(long)]
    steal_the_server: bool,
    /// Do not build the web console.
    #[arg(long)]
    without_console: bool,
    /// Keep everything in this directory; otherwise in a temporary one that is removed at the end.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// Fetches, builds, then tells the story.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let onnxruntime = fetch::onnxruntime()?;
    if !arguments.without_console
        && let Obtained::Missing(why) = fetch::console()?
    {
        println!("no web console: {why}; everything else works, and `/` shows a plain status page");
    }
    sealift_tests::process::use_programs(programs::build()?);
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(until_interrupted(arguments, onnxruntime))
}

async fn until_interrupted(arguments: &Arguments, onnxruntime: PathBuf) -> anyhow::Result<()> {
    let temporary = tempfile::Builder::new().prefix("sealift-demo-").tempdir()?;
    let directory = arguments.directory.clone().unwrap_or_else(|| temporary.path().to_owned());
    let mut terminated = signal(SignalKind::terminate())?;
    // Whatever ends the story drops the fleet, and with it every process and the temporary directory.
    tokio::select! {
        told = tell(arguments, directory, onnxruntime) => told,
        _ = tokio::signal::ctrl_c() => {
            match &arguments.directory {
                None => println!("\nstopped; nothing is left behind"),
                Some(kept) => println!("\nstopped; what it made is in {}", kept.display()),
            }
            Ok(())
        }
        _ = terminated.recv() => Ok(()),
    }
}

async fn tell(
    arguments: &Arguments,
    directory: PathBuf,
    onnxruntime: PathBuf,
) -> anyhow::Result<()> {
    println!(
        "Sealift demo: one fleet server, three agents, {} simulated devices\n",
        arguments.devices
    );
    if arguments.steal_the_server {
        steal::prepare_keys(&directory)?;
    }
    let mut stage = Stage::new();
    let mut fleet = story::run(&mut stage, arguments.devices, &directory, onnxruntime).await?;
    if arguments.steal_the_server {
        steal::run(&mut stage, fleet, &directory).await?;
        println!("verified from outside, step by step, in {:.0} s", stage.seconds());
        return Ok(());
    }
    println!("\nverified from outside, step by step, in {:.0} s", stage.seconds());
    if arguments.once {
        return Ok(());
    }
    let console = fleet.server.login_link()?;
    println!("\nconsole      {}", fleet.server.endpoints.operator_url);
    println!("log in once  {console}");
    println!("directory    {}", directory.display());
    for (name, device) in fleet::SITES.iter().zip(&fleet.devices) {
        println!("{name:<12} {}/v2/models/digits", device.endpoint()?);
    }
    println!("\nosaka still sees rotated digits; Ctrl-C ends everything and leaves nothing behind");
    fleet.keep_running().await
}

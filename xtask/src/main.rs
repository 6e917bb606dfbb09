//! `cargo xtask`: everything one does in this repository besides writing.

mod bench;
mod child;
mod demo;
mod dist;
mod fetch;
mod install;
mod openapi;
mod postgres;
mod programs;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the whole loop on a real model: publish, roll out, drift, roll back.
    Demo(demo::Arguments),
    /// Run every check and test, and say what was not run and why.
    Test(test::Arguments),
    /// Build the web console, which the server's next build embeds.
    Web,
    /// Build the programs for distribution and package them for Debian.
    Dist(dist::Arguments),
    /// Measure the agent on this machine.
    Bench(bench::Arguments),
    /// Fetch what is pinned from package registries, so that later commands need no network.
    Fetch,
    /// Write fleet-server/openapi.json as the server gives it, and the types of the console from it.
    Openapi,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    child::stop_on_signals();
    // The harness speaks HTTPS too; a second installation of the same provider would only be refused.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ended = match arguments.command {
        Command::Demo(arguments) => demo::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Test(arguments) => test::run(&arguments),
        Command::Web => fetch::web().map(|()| ExitCode::SUCCESS),
        Command::Dist(arguments) => dist::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Bench(arguments) => bench::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Fetch => fetch::everything().map(|()| ExitCode::SUCCESS),
        Command::Openapi => openapi::run().map(|()| ExitCode::SUCCESS),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        if child::is_interrupted() { ExitCode::from(130) } else { ExitCode::FAILURE }
    })
}

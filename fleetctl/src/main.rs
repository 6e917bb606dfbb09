//! The operators' command line. Speaks only HTTP to the fleet server; keys of publishers never leave the machine that it runs on.

mod audit;
mod baseline;
mod cli;
mod client;
mod command;
mod context;
mod failure;
mod image;
mod key;
mod output;
mod registry;
mod trust;

use std::process::ExitCode;

use clap::Parser as _;
use sealift_protocol::table::parquet::{Damaged, on_damage};

use crate::cli::{Cli, Command};
use crate::client::Client;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // A second provider cannot be installed: there is one in the tree, and this is the only call.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    on_damage(damaged);
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Says that a file of rows is damaged, where the decoder cannot go back to say so.
fn damaged(file: &Damaged) -> ! {
    output::note(&format!("error: {file}\nhelp: {}", Damaged::HELP));
    #[expect(clippy::exit, reason = "in the middle of a panic; after it some builds abort")]
    std::process::exit(i32::from(failure::Exit::Failed.code()))
}

fn fail(error: &anyhow::Error) -> ExitCode {
    output::note(&format!("error: {error:#}"));
    let failure = error.downcast_ref::<Failure>();
    failure.map_or(ExitCode::FAILURE, |failure| ExitCode::from(failure.exit.code()))
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let output = Output::new(cli.output);
    let connect = || Client::new(Context::resolve(cli.url.clone(), cli.token.clone())?);
    match cli.command {
        Command::Login(login) => command::login::login(login).await,
        Command::Logout => command::login::logout(cli.url, cli.token).await,
        Command::Operator(operator) => command::operator::run(&connect()?, output, operator).await,
        Command::Token(token) => command::token::run(&connect()?, output, token).await,
        Command::Session(session) => command::session::run(&connect()?, output, session).await,
        Command::Status => command::status::run(&connect()?, output).await,
        Command::Rollback(rollback) => command::rollback::run(&connect()?, output, rollback).await,
        Command::Halt(halt) => command::halt::halt(&connect()?, output, halt).await,
        Command::Resume(resume) => command::halt::resume(&connect()?, output, resume).await,
        Command::Apply(apply) => command::apply::run(&connect()?, output, apply).await,
        Command::Device(device) => command::device::run(&connect()?, output, device).await,
        Command::Batch(batch) => command::batch::run(&connect()?, output, batch).await,
        Command::Infer(infer) => command::infer::run(&connect()?, output, infer).await,
        Command::Enrol(enrol) => command::enrol::run(&connect()?, output, enrol).await,
        Command::Model(model) => command::model::run(connect, output, model).await,
        Command::Revoke(revoke) => command::revoke::run(&connect()?, output, revoke).await,
        Command::Rollout(rollout) => command::rollout::run(&connect()?, output, rollout).await,
        Command::Drift(drift) => command::drift::run(connect, output, drift).await,
        Command::Review(review) => command::review::run(&connect()?, output, review).await,
        Command::Alert(alert) => command::alert::run(&connect()?, output, alert).await,
        Command::Notify(notify) => command::notify::run(&connect()?, output, notify).await,
        Command::Key(key) => command::key::run(connect, output, key).await,
        Command::Trust(trust) => command::trust::run(connect, output, trust).await,
        Command::Audit(audit) => command::audit::run(connect, output, audit).await,
    }
}

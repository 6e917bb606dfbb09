//! Through which broker the fleet of a measurement goes: the server's own, or Debian's mosquitto beside it.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use sealift_tests::fleet::{Options, Server};
use sealift_tests::mosquitto::Mosquitto;
use serde::Serialize;

use crate::install::Tool;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Choice {
    /// The server's own.
    Embedded,
    /// Debian's, as docs/operate/brokers.md sets it up.
    Mosquitto,
}

/// The broker of one measurement.
pub(super) enum Broker {
    Embedded,
    Beside(Box<Beside>),
}

/// One that is a process of its own.
pub(super) struct Beside {
    program: PathBuf,
    directory: PathBuf,
    names: Vec<String>,
    /// None between two of them.
    running: Option<Mosquitto>,
    port: u16,
}

impl Broker {
    /// Starts what was asked for, for devices of these names and the server whose files are to be in `directory`.
    pub(super) fn start(
        choice: Choice,
        directory: &Path,
        names: Vec<String>,
    ) -> anyhow::Result<Self> {
        if choice == Choice::Embedded {
            return Ok(Self::Embedded);
        }
        let mosquitto = Tool { program: "mosquitto", package: "mosquitto" };
        let program = mosquitto.obtain().map_err(|why| anyhow!(why))?;
        Server::init(directory)?;
        let port = sealift_tests::process::free_port()?;
        let directory = directory.to_owned();
        let mut beside = Beside { program, directory, names, running: None, port };
        beside.start()?;
        Ok(Self::Beside(Box::new(beside)))
    }

    /// What the server is told of it.
    pub(super) fn options(&self) -> Options {
        let mqtt = match self {
            Self::Embedded => None,
            Self::Beside(beside) => beside.running.as_ref().map(Mosquitto::section),
        };
        Options { mqtt, ..Options::default() }
    }

    /// The process, if it is not the server's.
    pub(super) fn id(&self) -> Option<u32> {
        match self {
            Self::Embedded => None,
            Self::Beside(beside) => beside.running.as_ref().map(Mosquitto::id),
        }
    }

    /// Connections to it that are not devices'.
    pub(super) const fn connections_of_server(&self) -> u64 {
        match self {
            Self::Embedded => 0,
            Self::Beside(_) => 1,
        }
    }

    /// Kills it and starts another one in its place; false if it is the server that would have to be.
    pub(super) fn restart(&mut self) -> anyhow::Result<bool> {
        match self {
            Self::Embedded => Ok(false),
            Self::Beside(beside) => beside.start().map(|()| true),
        }
    }
}

impl Beside {
    fn start(&mut self) -> anyhow::Result<()> {
        // The one before has to be gone: it has the port.
        self.running = None;
        let names: Vec<_> = self.names.iter().map(String::as_str).collect();
        let whom = (&*self.directory, &*names);
        self.running = Some(Mosquitto::start_program(&self.program, self.port, whom)?);
        Ok(())
    }
}

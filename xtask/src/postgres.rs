//! A PostgreSQL server of our own for the tests, in a temporary directory, on a free port of loopback.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{child, install};

/// `initdb` and the first start on a slow disk.
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A running server. Dropping it ends it and removes its data.
pub(crate) struct Postgres {
    child: Child,
    programs: PathBuf,
    port: u16,
    _directory: TempDir,
}

impl Postgres {
    /// Makes a database cluster and starts it; `initdb` and `postgres` are beside each other.
    pub(crate) fn start(initdb: &Path, log: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("sealift-postgres-").tempdir()?;
        let owner = unprivileged()?;
        if let Some((user, group)) = owner {
            chown(directory.path(), Some(user), Some(group))?;
        }
        let cluster = directory.path().join("cluster");
        let mut make = as_user(initdb, owner);
        make.args([
            "--username=sealift",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]);
        make.arg("--pgdata").arg(&cluster).current_dir(directory.path());
        child::succeed("making a PostgreSQL cluster", &mut make, log, START_LIMIT)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let postgres = fs::canonicalize(initdb)?.with_file_name("postgres");
        let mut serve = as_user(&postgres, owner);
        serve.arg("-D").arg(&cluster).current_dir(directory.path()).process_group(0);
        for setting in settings(port) {
            serve.args(["-c", &setting]);
        }
        let printed = File::options().append(true).open(log)?;
        serve.stdin(Stdio::null()).stdout(printed.try_clone()?).stderr(printed);
        let child = serve.spawn().context("cannot start postgres")?;
        let programs = postgres.with_file_name("");
        let mut started = Self { child, programs, port, _directory: directory };
        started.ready(log)?;
        Ok(started)
    }

    /// Makes an empty database; returns where a superuser reaches it, without a password.
    pub(crate) fn database(&self, name: &str) -> anyhow::Result<String> {
        let letters = name.chars().filter(char::is_ascii_alphanumeric);
        let name: String = letters.flat_map(char::to_lowercase).collect();
        let port = self.port;
        let mut create = Command::new(self.programs.join("createdb"));
        create.args(["--host=127.0.0.1", "--username=sealift", "--no-password"]);
        child::output(create.arg(format!("--port={port}")).arg(&name))?;
        Ok(format!("postgres://sealift@127.0.0.1:{port}/{name}"))
    }

    fn ready(&mut self, log: &Path) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline && !child::is_interrupted() {
            if let Some(status) = self.child.try_wait()? {
                bail!("postgres ended ({status}): {}", child::tail(log, 5));
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            sleep(LOOK_INTERVAL);
        }
        bail!("postgres does not answer: {}", child::tail(log, 5))
    }
}

/// Nothing outlives a test, so nothing has to reach the disk; each test may hold a pool of connections.
fn settings(port: u16) -> [String; 6] {
    [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        "fsync=off".to_owned(),
        "full_page_writes=off".to_owned(),
        "max_connections=300".to_owned(),
    ]
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT is its fast shutdown; one that does not obey is killed.
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            sleep(LOOK_INTERVAL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// PostgreSQL refuses to run as root: Debian's user for it, or `nobody`.
fn unprivileged() -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("cannot read the list of users")?;
    let found = ["postgres", "nobody"].iter().find_map(|name| ids(&users, name));
    Ok(Some(found.context("neither the user postgres nor nobody exists")?))
}

fn ids(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn as_user(program: &Path, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command
}

/// Finds `initdb`, installing PostgreSQL if need be.
pub(crate) fn obtain() -> Result<PathBuf, String> {
    install::Tool { program: "initdb", package: "postgresql" }.obtain()
}

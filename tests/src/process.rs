//! Programs of the workspace as child processes.

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to end when asked.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap_or_default()
}

/// Where the programs are, once somebody asked or said.
static DIRECTORY: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// Says where the programs are; to be called before any is started.
pub fn use_programs(directory: PathBuf) {
    // Programs that are in use already stay in use.
    let _ = DIRECTORY.set(Ok(directory));
}

/// The directory of the programs: `SEALIFT_BIN_DIR`, or where `cargo build` puts them, built once.
pub fn programs() -> anyhow::Result<&'static Path> {
    let directory = DIRECTORY.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    directory.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn build() -> anyhow::Result<PathBuf> {
    if let Some(directory) = std::env::var_os("SEALIFT_BIN_DIR") {
        return Ok(PathBuf::from(directory));
    }
    // The directory of this program: `target/debug/deps` for a test, `target/debug` for a tool.
    let own = std::env::current_exe()?;
    let own = own.parent().context("a program has a directory")?;
    let directory = if own.ends_with("deps") { own.parent().unwrap_or(own) } else { own };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(["build", "--quiet", "--bins"]);
    for package in ["sealift-fleet-server", "sealift-agent", "fleetctl"] {
        command.args(["--package", package]);
    }
    if let Some(target) = directory.parent() {
        command.env("CARGO_TARGET_DIR", target);
    }
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo build failed");
    Ok(directory.to_owned())
}

/// Below the ports that the system gives to outgoing connections: one of those could take the place of a server that is restarting.
const PORTS: Range<u16> = 10_240..32_768;
/// Ports tried before giving up.
const PORTS_TRIED: u16 = 1_000;

/// A free port on loopback, which no outgoing connection takes. Another listener may, before it is used: a fleet picks its ports early.
pub fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes begin at different places, and each goes on from where it was.
    let begin = u16::try_from(std::process::id() % u32::from(u16::MAX)).unwrap_or_default();
    for _ in 0..PORTS_TRIED {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = begin.wrapping_mul(97).wrapping_add(step) % (PORTS.end - PORTS.start);
        let port = PORTS.start + offset;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {} to {}", PORTS.start, PORTS.end)
}

/// A program that runs until it is stopped, and can be started again with the same arguments.
pub struct Process {
    name: String,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `program` (of the workspace) with `arguments`; what it prints goes to `log`.
    pub fn start(
        name: &str,
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let program = programs()?.join(program).display().to_string();
        let arguments = arguments.iter().copied().map(str::to_owned);
        let command: Vec<_> = [program].into_iter().chain(arguments).collect();
        let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        let environment: Vec<_> = environment.iter().map(owned).collect();
        let child = spawn(&command, &environment, log)?;
        Ok(Self { name: name.to_owned(), command, environment, log: log.to_owned(), child })
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails if it has ended, with the end of its log.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.log_tail()),
        }
    }

    /// Starts it again, as a service manager would. It must have ended.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.command, &self.environment, &self.log)?;
        Ok(())
    }

    /// Gives its next start these variables besides those of this process.
    pub fn change_environment(&mut self, environment: &[(&str, &str)]) {
        let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        self.environment = environment.iter().map(owned).collect();
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and ends it if it does not.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill()?;
        bail!("{} did not end within {} s of SIGTERM", self.name, STOP_LIMIT.as_secs())
    }

    /// Everything it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines it has printed.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell otherwise.
        let _ = self.kill();
    }
}

/// A program that is not of the workspace; it is ended when this is dropped.
pub struct Guest(Child);

impl Guest {
    /// Starts it.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let program = command.get_program().to_owned();
        let child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self(child))
    }

    /// Starts it; what it prints goes to a file.
    pub fn start_with_log(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log = File::create(log)?;
        Self::start(command.stdout(log.try_clone()?).stderr(log))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(
    command: &[String],
    environment: &[(String, String)],
    log: &Path,
) -> anyhow::Result<Child> {
    let [program, arguments @ ..] = command else { bail!("a command has a program") };
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .spawn()
        .with_context(|| format!("cannot start {program}"))
}

/// Runs `program` (of the workspace) to its end and returns what it printed on standard output.
pub fn run(
    program: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> anyhow::Result<String> {
    let (status, stdout, stderr) = run_to_end(program, arguments, environment)?;
    ensure!(status.success(), "{program} {} ({status}):\n{stderr}", arguments.join(" "));
    Ok(stdout)
}

/// Runs `program` to its end, however it ends: status, standard output, standard error.
pub fn run_to_end(
    program: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> anyhow::Result<(ExitStatus, String, String)> {
    let path = programs()?.join(program);
    let output = Command::new(&path)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", path.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status, text(&output.stdout), text(&output.stderr)))
}

/// Makes a file with the given text, and the directories above it.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(fs::write(path, text)?)
}

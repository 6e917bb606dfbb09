//! Programs run to their end: printed lines go to a log, the last of them is shown beside a spinner, and nothing outlives a Ctrl-C.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

/// How often a child is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Time to end by itself after being asked.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Enough of a log's end for its last line.
const TAIL_BYTES: u64 = 4 << 10;
/// What fits beside the spinner on a terminal of 100 columns.
const SHOWN_CHARS: usize = 60;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// One line of the terminal for each child that runs.
static SPINNERS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Notes SIGINT and SIGTERM from now on; whoever runs a child then ends it.
pub(crate) fn stop_on_signals() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let (mut interrupt, mut terminate) =
                (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            loop {
                tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
            #[expect(unreachable_code, reason = "names the type of `?` above")]
            std::io::Result::Ok(())
        })
    });
}

/// Whether a person or a service manager asked this program to end.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Prints a line above the spinners.
pub(crate) fn say(line: &str) {
    SPINNERS.suspend(|| println!("{line}"));
}

/// Runs `command` until it ends or `limit` is over; what it prints goes to `log`.
pub(crate) fn run(
    title: &str,
    command: &mut Command,
    log: &Path,
    limit: Duration,
) -> anyhow::Result<ExitStatus> {
    let printed = create(log)?;
    command.stdout(Stdio::from(printed.try_clone()?));
    run_with_stdout(title, command, (log, printed), limit)
}

/// Runs `command` as [`run`] does, but its standard output goes to `stdout`.
pub(crate) fn run_apart(
    title: &str,
    command: &mut Command,
    stdout: &Path,
    log: &Path,
    limit: Duration,
) -> anyhow::Result<ExitStatus> {
    command.stdout(Stdio::from(create(stdout)?));
    run_with_stdout(title, command, (log, create(log)?), limit)
}

/// Runs `command` as [`run`] does; that it fails is an error which quotes the end of its log.
pub(crate) fn succeed(
    title: &str,
    command: &mut Command,
    log: &Path,
    limit: Duration,
) -> anyhow::Result<()> {
    let status = run(title, command, log, limit)?;
    ensure!(
        status.success(),
        "{title}: {status}; the end of {}:\n{}",
        log.display(),
        tail(log, 20)
    );
    Ok(())
}

fn run_with_stdout(
    title: &str,
    command: &mut Command,
    (log, stderr): (&Path, File),
    limit: Duration,
) -> anyhow::Result<ExitStatus> {
    // A group of its own, so that whatever it starts can be ended with it.
    command.stdin(Stdio::null()).stderr(Stdio::from(stderr)).process_group(0);
    // Logs are read by people: an error's own words, not where in a test it was made; no colours.
    command.env("RUST_LIB_BACKTRACE", "0").env("NO_COLOR", "1");
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = Group(command.spawn().with_context(|| format!("cannot start {program}"))?);
    let began = Instant::now();
    let spinner = SPINNERS.add(ProgressBar::new_spinner());
    if spinner.is_hidden() {
        eprintln!("{title} …");
    }
    spinner.set_style(ProgressStyle::with_template("{spinner} {elapsed:>4} {msg}")?);
    loop {
        if let Some(status) = child.0.try_wait()? {
            spinner.finish_and_clear();
            return Ok(status);
        }
        if is_interrupted() {
            spinner.finish_and_clear();
            child.stop();
            bail!("interrupted");
        }
        if began.elapsed() > limit {
            spinner.finish_and_clear();
            child.stop();
            bail!("{title}: still running after {} s and ended", limit.as_secs());
        }
        let line: String = tail(log, 1).chars().take(SHOWN_CHARS).collect();
        spinner.set_message(format!("{title}: {}", line.trim()));
        spinner.tick();
        sleep(LOOK_INTERVAL);
    }
}

/// A child and everything in its process group.
struct Group(Child);

impl Group {
    fn stop(&mut self) {
        let Ok(id) = i32::try_from(self.0.id()) else { return };
        let Some(group) = Pid::from_raw(id) else { return };
        let _ = kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline && matches!(self.0.try_wait(), Ok(None)) {
            sleep(LOOK_INTERVAL);
        }
        // Its leader may be gone and others not; the group's number is not given away while one of them lives.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Returns what a short command printed on standard output.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {program}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}: {}", output.status, stderr.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the last `lines` lines of a log that are not blank.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let text = if lines == 1 { end_of(log) } else { fs::read(log) }.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut last: Vec<_> =
        text.lines().rev().filter(|line| !line.trim().is_empty()).take(lines).collect();
    last.reverse();
    last.join("\n")
}

fn end_of(log: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(end)
}

fn create(log: &Path) -> anyhow::Result<File> {
    if let Some(directory) = log.parent() {
        fs::create_dir_all(directory)?;
    }
    File::create(log).with_context(|| format!("cannot write {}", log.display()))
}

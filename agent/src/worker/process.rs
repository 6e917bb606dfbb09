//! Starts the child and waits for its end, on one thread that lives as long as the child.
//!
//! The thread matters: the child asks to be killed when its parent dies (`prctl(2)`, `PR_SET_PDEATHSIG`), and to the kernel the
//! parent is the thread that started it, not the process.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::{oneshot, watch};

use super::link::Link;
use super::post;

/// Variables that the child gets; it has no use for others, and secrets may be among those.
const ENVIRONMENT: [&str; 2] = [super::child::LOG_FILTER, "LD_LIBRARY_PATH"];

/// A started child, and how its end will be told.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) process_id: u32,
    /// Stands for this very process, even when its number is used again.
    pub(super) handle: OwnedFd,
}

/// Starts `fleet-agent worker` with a socket as its standard input.
pub(super) async fn spawn(executable: Option<&Path>, directory: &Path) -> io::Result<Link> {
    let executable = executable.map_or_else(std::env::current_exe, |path| Ok(path.to_owned()))?;
    let (ours, theirs) = UnixStream::pair()?;
    let post = post::open(&ours)?;
    ours.set_nonblocking(true)?;
    let (started, start) = oneshot::channel();
    let (ended, end) = watch::channel(None);
    let directory = directory.to_owned();
    std::thread::Builder::new().name("worker-keeper".to_owned()).spawn(move || {
        keep(command(&executable, &directory, theirs), started, &ended);
    })?;
    let lost = |_| io::Error::other("the thread that starts the worker ended");
    let started = start.await.map_err(lost)??;
    let socket = tokio::net::UnixStream::from_std(ours)?;
    Link::new(socket, post, started, end)
}

fn command(executable: &PathBuf, directory: &PathBuf, socket: UnixStream) -> Command {
    let mut command = Command::new(executable);
    let kept = ENVIRONMENT.iter().filter_map(|&name| Some((name, std::env::var_os(name)?)));
    command
        .arg("worker")
        .env_clear()
        .envs(kept)
        .current_dir(directory)
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::null())
        // Out of the terminal's group: Ctrl-C is for the supervisor, which then lets requests finish.
        .process_group(0);
    command
}

fn keep(
    mut command: Command,
    started: oneshot::Sender<io::Result<Started>>,
    ended: &watch::Sender<Option<String>>,
) {
    let spawned = command.spawn();
    // The command holds the child's end of the socket; kept open, its end would never be noticed.
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            // Nobody is left to be told when the receiver is gone.
            let _gone = started.send(Err(error));
            return;
        }
    };
    let opened = open(&child).inspect_err(|_| end(&mut child));
    if started.send(opened).is_err() {
        end(&mut child);
    }
    let reason = match child.wait() {
        Ok(status) => status.to_string(),
        Err(error) => format!("its end is unknown: {error}"),
    };
    ended.send_replace(Some(reason));
}

fn open(child: &Child) -> io::Result<Started> {
    let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    Ok(Started { process_id: child.id(), handle })
}

fn end(child: &mut Child) {
    if let Err(error) = child.kill() {
        tracing::warn!(%error, "worker that nobody wants was not ended");
    }
}

/// Resident memory of a process in MiB; 0 where it cannot be read.
pub(super) fn memory_mb(process_id: u32) -> u64 {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process_id}/status")) else {
        return 0;
    };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1024
}

/// Processor time of a process, user and system, in all its threads; none where it cannot be read. See `proc_pid_stat(5)`.
pub(super) fn processor_time(process_id: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
    let ticks_per_s = rustix::param::clock_ticks_per_second();
    let ticks = ticks(&stat)?;
    let millis = ticks.saturating_mul(1_000).checked_div(ticks_per_s)?;
    Some(Duration::from_millis(millis))
}

/// Fields 14 and 15. The second field is a name that may have blanks and brackets in it.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut field = || fields.next()?.parse::<u64>().ok();
    Some(field()?.saturating_add(field()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_that_of_user_and_system_whatever_the_process_is_called() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194304 9 9 9 9 120 34 5 6 20 0 1 0 99 1 1";
        assert_eq!(ticks(stat), Some(154));
        assert_eq!((ticks("7 (a) S 1"), ticks("")), (None, None));
        let own = || processor_time(std::process::id()).unwrap();
        let before = own();
        let mut sum = 0_u64;
        while own() < before + Duration::from_millis(20) {
            sum = (0..100_000).fold(sum, |sum, number| std::hint::black_box(sum ^ number));
        }
        assert_eq!(processor_time(u32::MAX), None, "nobody has that number: {sum}");
    }
}

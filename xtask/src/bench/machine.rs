//! What a measurement was made on, and what a process takes of it.

use std::fs;

use anyhow::Context as _;
use rustix::process::Pid;
use serde::Serialize;

/// How far a process stands back; 19 would be for what nobody waits for.
const NICE: i32 = 10;

/// The machine, in the words of its kernel.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    cpu: String,
    cores: usize,
    memory_gb: f64,
    kernel: String,
}

impl Machine {
    pub(super) fn read() -> anyhow::Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let cpu =
            cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        let memory = fs::read_to_string("/proc/meminfo")?;
        Ok(Self {
            cpu: cpu.trim_start_matches([' ', '\t', ':']).to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory_gb: round(kilobytes(&memory, "MemTotal:")? / (1024.0 * 1024.0)),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cores, memory_gb, kernel } = self;
        write!(out, "{cpu}, {cores} cores, {memory_gb} GiB, Linux {kernel}")
    }
}

/// Returns the proportional set size of a process and of all below it, in units of 1024 * 1024 bytes.
pub(super) fn pss_mb(process: u32) -> anyhow::Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))
        .with_context(|| format!("cannot read the memory of process {process}"))?;
    let mut total = kilobytes(&rollup, "Pss:")? / 1024.0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            total += pss_mb(child.parse()?)?;
        }
    }
    Ok(total)
}

/// Returns the resident memory of a process, in units of 1024 * 1024 bytes.
pub(super) fn rss_mb(process: u32) -> anyhow::Result<f64> {
    status_mb(process, "VmRSS:")
}

/// Returns the most memory that a process has had resident, in units of 1024 * 1024 bytes.
pub(super) fn peak_rss_mb(process: u32) -> anyhow::Result<f64> {
    status_mb(process, "VmHWM:")
}

fn status_mb(process: u32, key: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))
        .with_context(|| format!("cannot read the memory of process {process}"))?;
    Ok(kilobytes(&status, key)? / 1024.0)
}

/// Returns the seconds of processor time that a process and all below it have taken.
pub(super) fn cpu_s(process: u32) -> anyhow::Result<f64> {
    Ok(cpu_us(process)? / 1e6)
}

/// Lets other processes go first: all threads of one, and those that they start from now on.
pub(super) fn stand_back(process: u32) -> anyhow::Result<()> {
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let id = thread?.file_name().to_string_lossy().parse()?;
        // One that has just ended need not.
        let _ = rustix::process::setpriority_process(Pid::from_raw(id), NICE);
    }
    Ok(())
}

/// Returns how many TCP connections to a local port are established.
pub(super) fn connections_to(port: u16) -> anyhow::Result<u64> {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string("/proc/net/tcp")?;
    let local = format!(":{port:04X}");
    // Number, local address, remote address, state; proc_net_tcp.
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let is_local = fields.next().is_some_and(|address| address.ends_with(&local));
        is_local && fields.nth(1) == Some(ESTABLISHED)
    };
    Ok(u64::try_from(table.lines().filter(is_one).count())?)
}
/// Returns the processor time that a process and all below it have taken, in microseconds.
pub(super) fn cpu_us(process: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in brackets, may hold anything; after it come state, parent, … and, 12th and 13th, time in user and kernel.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let mut ticks = fields.split_whitespace().skip(11);
    let mut next =
        || -> anyhow::Result<f64> { Ok(ticks.next().context("stat is cut off")?.parse()?) };
    let mut total = (next()? + next()?) * 1e6 / TICKS_PER_S;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            total += cpu_us(child.parse()?)?;
        }
    }
    Ok(total)
}

/// `USER_HZ`, which Linux has on every platform that this is built for.
const TICKS_PER_S: f64 = 100.0;

fn kilobytes(text: &str, key: &str) -> anyhow::Result<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .with_context(|| format!("no {key}"))?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Two decimals are more than repetitions agree on.
pub(super) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Returns the middle of the values; of an even number, the mean of the two in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), middle.checked_sub(1).and_then(|below| sorted.get(below))) {
        (Some(above), Some(below)) if sorted.len().is_multiple_of(2) => {
            f64::midpoint(*above, *below)
        }
        (Some(value), _) => *value,
        (None, _) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 9.0, 2.0]) - 3.0).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn this_process_has_memory() {
        assert!(pss_mb(std::process::id()).unwrap() > 0.1);
    }
}

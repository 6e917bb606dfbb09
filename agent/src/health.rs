//! What a device is and how it does, read from the kernel.

use std::fs;
use std::path::Path;

use sealift_protocol::image::Accelerator;
use sealift_protocol::telemetry::Facts;

use crate::config::{Config, EngineName};
use crate::worker;

/// Readings of one moment; what cannot be read is 0, and -128 for the temperature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Readings {
    pub(crate) cpu_permille: u16,
    pub(crate) memory_free_mb: u32,
    pub(crate) disk_free_mb: u32,
    pub(crate) temperature_c: i8,
}

/// Remembers the processors' counters, so that load is that of the time in between.
#[derive(Debug, Default)]
pub(crate) struct Health {
    busy: u64,
    all: u64,
}

impl Health {
    pub(crate) fn read(&mut self, store: &Path) -> Readings {
        Readings {
            cpu_permille: self.load(&fs::read_to_string("/proc/stat").unwrap_or_default()),
            memory_free_mb: narrow(memory_mb("MemAvailable:")),
            disk_free_mb: narrow(disk_mb(store).0),
            temperature_c: temperature_c(),
        }
    }

    /// Busy share since the last reading, from the first line of `/proc/stat`: user, nice, system, idle, waiting, …
    fn load(&mut self, stat: &str) -> u16 {
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> =
            line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        let all: u64 = ticks.iter().sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        let busy = all.saturating_sub(idle);
        let (span, active) = (all.saturating_sub(self.all), busy.saturating_sub(self.busy));
        (self.all, self.busy) = (all, busy);
        let permille = active.saturating_mul(1_000).checked_div(span).unwrap_or(0);
        u16::try_from(permille.min(1_000)).unwrap_or(1_000)
    }
}

/// Hardware and system, as far as they do not change.
pub(crate) fn facts(store: &Path, config: &Config, is_simulated: bool) -> Facts {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Facts {
        os: std::env::consts::OS.to_owned(),
        architecture: architecture.to_owned(),
        processors: u32::try_from(processors).unwrap_or(u32::MAX),
        memory_mb: memory_mb("MemTotal:"),
        disk_mb: disk_mb(store).1,
        providers: config.runtimes.iter().flat_map(|each| each.providers.clone()).collect(),
        runtime: String::new(),
        simulated: is_simulated,
        sandbox_gaps: sandbox_gaps(config),
    }
}

/// What the kernel cannot keep from a worker. Where answers are made up there are no workers to shut in.
fn sandbox_gaps(config: &Config) -> Vec<String> {
    match config.engine {
        EngineName::OnnxRuntime => worker::sandbox_gaps(),
        EngineName::Fake => Vec::new(),
    }
}

/// What can compute here, best first: the configured providers in their order, and the processor in any case.
pub(crate) fn accelerators(config: &Config) -> Vec<Accelerator> {
    let providers = config.runtimes.iter().flat_map(|runtime| &runtime.providers);
    match config.engine {
        EngineName::OnnxRuntime => Accelerator::of_providers(providers.map(String::as_str)),
        EngineName::Fake => vec![Accelerator::Cpu],
    }
}

/// A value of `/proc/meminfo`, in MiB.
fn memory_mb(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1_024
}

/// Free and all space below `path`, in MiB.
fn disk_mb(path: &Path) -> (u64, u64) {
    let Ok(stat) = rustix::fs::statvfs(path) else { return (0, 0) };
    let mb = |blocks: u64| blocks.saturating_mul(stat.f_frsize) >> 20;
    (mb(stat.f_bavail), mb(stat.f_blocks))
}

/// The hottest sensor, in degrees Celsius; -128 for none.
fn temperature_c() -> i8 {
    let zones = fs::read_dir("/sys/class/thermal").into_iter().flatten().flatten();
    let read = |zone: fs::DirEntry| {
        let text = fs::read_to_string(zone.path().join("temp")).ok()?;
        Some(text.trim().parse::<i64>().ok()? / 1_000)
    };
    let hottest = zones.filter_map(read).max();
    hottest.map_or(i8::MIN, |celsius| i8::try_from(celsius.clamp(-127, 127)).unwrap_or(i8::MAX))
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_that_of_the_time_between_two_readings() {
        let mut health = Health::default();
        health.load("cpu  100 0 100 800 0 0 0 0 0 0\n");
        assert_eq!(health.load("cpu  150 0 150 1600 100 0 0 0 0 0\ncpu0 1 1 1"), 100);
        assert_eq!(health.load(""), 0);
    }

    #[test]
    fn the_processor_is_always_an_accelerator_and_comes_last() {
        let mut config = Config::default();
        assert_eq!(accelerators(&config), [Accelerator::Cpu]);
        config.runtimes.push(crate::worker::RuntimeCandidate {
            library: "/x.so".into(),
            providers: vec!["OpenVINOExecutionProvider".into(), "CPUExecutionProvider".into()],
            strict: false,
            sessions: std::num::NonZeroU8::MIN,
        });
        assert_eq!(accelerators(&config), [Accelerator::Openvino, Accelerator::Cpu]);
    }
}

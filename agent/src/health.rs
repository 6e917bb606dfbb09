//! What a device is and how it does, read from the kernel.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

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
    pub(crate) load_permille: u16,
    /// None where the system does not say.
    pub(crate) accelerator_permille: Option<u16>,
    /// Since the last reading.
    pub(crate) is_throttled: bool,
}

/// Remembers the processors' counters, so that load is that of the time in between.
#[derive(Debug, Default)]
pub(crate) struct Health {
    busy: u64,
    all: u64,
    throttles: Option<u64>,
}

impl Health {
    pub(crate) fn read(&mut self, store: &Path) -> Readings {
        Readings {
            cpu_permille: self.load(&fs::read_to_string("/proc/stat").unwrap_or_default()),
            memory_free_mb: narrow(memory_mb("MemAvailable:")),
            disk_free_mb: narrow(disk_mb(store).0),
            temperature_c: temperature_c(),
            load_permille: run_queue_permille(
                &fs::read_to_string("/proc/loadavg").unwrap_or_default(),
                processors(),
            ),
            accelerator_permille: accelerator_permille(Path::new("/sys/class/drm")),
            is_throttled: self.throttled(throttles(Path::new("/sys/devices/system/cpu")))
                || is_supply_weak(Path::new("/sys/devices/platform/soc")),
        }
    }

    /// Whether the processors' counters of slowing down have risen since the last reading; the first one only remembers them.
    fn throttled(&mut self, count: Option<u64>) -> bool {
        let before = std::mem::replace(&mut self.throttles, count);
        matches!((before, count), (Some(before), Some(count)) if count > before)
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
    Facts {
        os: std::env::consts::OS.to_owned(),
        architecture: architecture.to_owned(),
        processors: u32::try_from(processors()).unwrap_or(u32::MAX),
        memory_mb: memory_mb("MemTotal:"),
        disk_mb: disk_mb(store).1,
        providers: config.runtimes.iter().flat_map(|each| each.providers.clone()).collect(),
        runtime: String::new(),
        simulated: is_simulated,
        sandbox_gaps: sandbox_gaps(config),
    }
}

/// How many processors there are for the agent, asked once: the answer takes several files to read.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS
        .get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
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

/// The first figure of `/proc/loadavg`, per processor.
fn run_queue_permille(loadavg: &str, processors: usize) -> u16 {
    let (whole, hundredths) =
        loadavg.split(' ').next().and_then(|it| it.split_once('.')).unwrap_or_default();
    let read = |text: &str| text.parse::<u64>().unwrap_or(0);
    let permille =
        read(whole).saturating_mul(1_000).saturating_add(read(hundredths).saturating_mul(10));
    let processors = u64::try_from(processors).unwrap_or(1).max(1);
    u16::try_from(permille / processors).unwrap_or(u16::MAX)
}

/// How busy the busiest graphics card is, where its driver says so in per cent.
fn accelerator_permille(cards: &Path) -> Option<u16> {
    let cards = fs::read_dir(cards).into_iter().flatten().flatten();
    let busy = cards.filter_map(|card| {
        let text = fs::read_to_string(card.path().join("device/gpu_busy_percent")).ok()?;
        Some(text.trim().parse::<u16>().ok()?.min(100) * 10)
    });
    busy.max()
}

/// How often the kernel has slowed processors down for heat; none where it does not count.
fn throttles(processors: &Path) -> Option<u64> {
    let processors = fs::read_dir(processors).into_iter().flatten().flatten();
    let counts = processors.filter_map(|processor| {
        let file = processor.path().join("thermal_throttle/core_throttle_count");
        fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
    });
    counts.reduce(u64::saturating_add)
}

/// A Raspberry Pi's firmware: bits 0 to 2 say that the voltage is low, the clock capped, the processor slowed down now.
fn is_supply_weak(platform: &Path) -> bool {
    let file = platform.join("soc:firmware/get_throttled");
    let bits = fs::read_to_string(file)
        .ok()
        .and_then(|text| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok());
    bits.is_some_and(|bits| bits & 0b111 != 0)
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
    fn the_run_queue_is_per_processor() {
        assert_eq!(run_queue_permille("3.50 2.00 1.00 1/200 4321\n", 2), 1_750);
        assert_eq!(run_queue_permille("", 2), 0);
        assert_eq!(run_queue_permille("999999.00 0 0", 1), u16::MAX);
    }

    #[test]
    fn throttling_is_a_counter_that_rises_or_a_bit_of_the_firmware() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let mut health = Health::default();
        assert!(!health.throttled(throttles(folder.path())), "nothing is counted here");
        write("cpu0/thermal_throttle/core_throttle_count", "3\n");
        write("cpu1/thermal_throttle/core_throttle_count", "4\n");
        assert!(!health.throttled(throttles(folder.path())), "that was before");
        write("cpu1/thermal_throttle/core_throttle_count", "5\n");
        assert!(health.throttled(throttles(folder.path())));
        assert!(!health.throttled(throttles(folder.path())));

        assert!(!is_supply_weak(folder.path()));
        write("soc:firmware/get_throttled", "50000\n");
        assert!(!is_supply_weak(folder.path()), "it was, since the start");
        write("soc:firmware/get_throttled", "50004\n");
        assert!(is_supply_weak(folder.path()));

        assert_eq!(accelerator_permille(folder.path()), None);
        write("card0/device/gpu_busy_percent", "37\n");
        assert_eq!(accelerator_permille(folder.path()), Some(370));
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

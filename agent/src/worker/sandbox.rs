//! What the child gives up before it loads foreign code: privileges, core dumps, memory, the file system, the network.
//!
//! Landlock and seccomp depend on the kernel; what is missing is logged and the rest holds. Limits and privileges must hold.

mod calls;

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::set_no_new_privs;

use super::frame::LoadOrder;

/// Beside the model's own memory: stacks and arenas of threads, the library's tables, one frame in and one out.
const MEMORY_BESIDE_MB: u64 = 1_024;

/// Files that a worker may have open: a socket, a model, a library and its parts.
const OPEN_FILES_MAX: u64 = 256;

/// What dynamic linking, the C library and the processor detection of inference libraries read.
const SYSTEM_PATHS: [&str; 8] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/etc/ld.so.cache",
    "/proc/self",
    "/proc/cpuinfo",
    "/sys/devices/system",
];

/// What drivers of accelerators read besides.
const DRIVER_PATHS: [&str; 5] = ["/usr", "/opt", "/etc/OpenCL", "/proc/driver", "/sys"];

/// The newest that is asked for: files, TCP, devices, signals and abstract sockets. Older kernels give what they have.
const LANDLOCK: ABI = ABI::V6;

/// The provider that needs no device file.
const CPU: &str = "CPUExecutionProvider";

/// Shuts this process in. To be called while there is one thread: each thread has its own restrictions.
pub(super) fn enter(order: &LoadOrder) -> io::Result<()> {
    // A hung library would not notice that the supervisor has gone.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    set_no_new_privs(true)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, OPEN_FILES_MAX)?;
    limit(Resource::Data, (u64::from(order.memory_max_mb) + MEMORY_BESIDE_MB) << 20)?;
    match restrict(order) {
        Ok(RulesetStatus::FullyEnforced) => (),
        Ok(status) => tracing::warn!(?status, "kernel does not shut the worker in completely"),
        Err(error) => tracing::warn!(%error, "kernel does not shut the worker in"),
    }
    if let Err(error) = calls::give_up(std::process::id(), needs_device(order)) {
        tracing::warn!(%error, "worker may make any system call");
    }
    Ok(())
}

/// What this kernel cannot keep from a worker, in words for people; nothing if it can shut one in completely.
pub(super) fn gaps() -> Vec<&'static str> {
    let is_possible = |ruleset: Result<Ruleset, RulesetError>| {
        ruleset.and_then(Ruleset::create).is_ok() // made, and not imposed on anybody
    };
    let strict = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let mut gaps = Vec::new();
    if !is_possible(strict().handle_access(AccessFs::from_all(ABI::V1))) {
        gaps.push("files: kernel has no Landlock, a model's process can read what the agent can");
    } else if !is_possible(strict().handle_access(AccessFs::from_all(ABI::V5))) {
        gaps.push("files: Landlock of this kernel is older than Linux 6.10 and leaves some out");
    }
    if !is_possible(strict().scope(Scope::from_all(LANDLOCK))) {
        gaps.push(
            "signals: Landlock of this kernel is older than Linux 6.12, seccomp alone refuses them",
        );
    }
    gaps
}

/// Lowers a limit for good; one that is lower already stays.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let maximum = getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(maximum), maximum: Some(maximum) })?)
}

/// No path but those of the model, the library and the scratch directory; no TCP; no signal to anybody else.
fn restrict(order: &LoadOrder) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::from_read(LANDLOCK);
    let write = AccessFs::from_all(LANDLOCK);
    let devices = needs_device(order).then_some(PathBuf::from("/dev"));
    let writable = [order.scratch_dir.clone()].into_iter().chain(devices);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(write)?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rules(path_beneath_rules(readable(order), read))?
        .add_rules(path_beneath_rules(writable, write))?
        .restrict_self()?;
    Ok(status.ruleset)
}

fn needs_device(order: &LoadOrder) -> bool {
    order.candidate.providers.iter().any(|provider| provider != CPU)
}

fn readable(order: &LoadOrder) -> Vec<PathBuf> {
    // The library may be a link: what counts is where the file and its parts lie.
    let library = order.candidate.library.canonicalize();
    let library = library.unwrap_or_else(|_| order.candidate.library.clone());
    let directory = |file: &Path| file.parent().map(Path::to_owned);
    let layers = [&order.weights, &order.contract, &order.golden].into_iter().cloned();
    let drivers = if needs_device(order) { DRIVER_PATHS.as_slice() } else { &[] };
    let search_path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    SYSTEM_PATHS
        .iter()
        .chain(drivers)
        .map(PathBuf::from)
        .chain(std::env::split_paths(&search_path).filter(|path| path.is_absolute()))
        .chain([order.slot_dir.clone()])
        .chain(layers)
        .chain(directory(&library))
        .chain(directory(&order.candidate.library))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::worker::RuntimeCandidate;

    fn order(directory: &Path) -> LoadOrder {
        let path = |name: &str| directory.join(name);
        LoadOrder {
            slot_dir: path("slot"),
            scratch_dir: path("scratch"),
            weights: path("slot/model"),
            weights_digest: sealift_protocol::digest::Digest::of(b""),
            contract: path("slot/contract"),
            golden: path("slot/golden"),
            candidate: RuntimeCandidate {
                library: path("library/lib.so"),
                providers: vec![CPU.to_owned()],
                strict: false,
                sessions: std::num::NonZeroU8::MIN,
            },
            latency_max_ms: 1,
            memory_max_mb: 1,
        }
    }

    #[test]
    fn gaps_are_those_that_the_kernel_has() {
        let directory = tempfile::tempdir().unwrap();
        let order = order(directory.path());
        let status = std::thread::spawn(move || restrict(&order).unwrap()).join().unwrap();
        assert_eq!(gaps().is_empty(), status == RulesetStatus::FullyEnforced, "{:?}", gaps());
    }

    /// Landlock restricts the thread that asks for it, so that a thread can stand for the child.
    #[test]
    fn a_worker_reads_its_image_and_library_and_reaches_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        for name in ["slot", "scratch", "library", "keys"] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("file"), name).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let within = move || {
            let status = restrict(&order(&root)).unwrap();
            let file = |name: &str| root.join(name).join("file");
            let reads =
                ["slot", "library", "scratch", "keys"].map(|name| fs::read(file(name)).is_ok());
            let writes = ["slot", "scratch"].map(|name| fs::write(file(name), "new").is_ok());
            (status, reads, writes, TcpStream::connect(address).is_ok())
        };

        let (status, reads, writes, connects) = std::thread::spawn(within).join().unwrap();

        if status == RulesetStatus::NotEnforced {
            return; // a kernel without Landlock: `enter` says so in the log
        }
        assert_eq!(reads, [true, true, true, false]);
        assert_eq!(writes, [false, true]);
        assert!(!connects || status != RulesetStatus::FullyEnforced);
    }
}

//! The system calls that a worker gives up: what no inference needs, and a captured process would.

use seccompiler::{BpfMap, TargetArch, apply_filter, compile_from_json};
use serde_json::{Value, json};

/// Refused whatever their arguments.
const REFUSED: [&str; 58] = [
    // Starting programs, and looking into other processes or taking things from them.
    "execve",
    "execveat",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "kcmp",
    "pidfd_open",
    "pidfd_getfd",
    "perf_event_open",
    // Signals that name no process in their first argument.
    "tkill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "pidfd_send_signal",
    // Work that the kernel does on somebody's behalf, past this filter.
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "bpf",
    "userfaultfd",
    // Rights, owners and times of files: Landlock does not know them, and the agent's keys have the worker's owner.
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fchown",
    "fchownat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "open_by_handle_at",
    // The agent's name spaces, keys and the system itself, for an agent that runs as root.
    "add_key",
    "keyctl",
    "request_key",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "setns",
    "unshare",
    "swapon",
    "swapoff",
    "sethostname",
    "setdomainname",
    "settimeofday",
    "clock_settime",
    "reboot",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
];

/// Older forms of the same, which newer processors do not have.
const REFUSED_OF_X86: [&str; 8] =
    ["fork", "vfork", "chmod", "chown", "lchown", "iopl", "ioperm", "modify_ldt"];

/// `EPERM`.
const REFUSAL: u32 = 1;

/// `ENOSYS`: the C library then takes the older call.
const UNKNOWN: u32 = 38;

/// Of `clone(2)`: what is made is a thread of this process. Without it, a process of its own.
const CLONE_THREAD: u32 = 0x0001_0000;

/// Families of sockets that drivers of accelerators use: this machine's own, and the kernel's messages.
const AF_UNIX: u32 = 1;
const AF_NETLINK: u32 = 16;

/// Gives the calls up, for this thread and those that it will start.
pub(super) fn give_up(process_id: u32, needs_device: bool) -> Result<(), seccompiler::Error> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    for filter in [refused(process_id, needs_device), unknown()] {
        let filters: BpfMap = compile_from_json(filter.to_string().as_bytes(), architecture)?;
        filters.values().try_for_each(|filter| apply_filter(filter))?;
    }
    Ok(())
}

fn refused(process_id: u32, needs_device: bool) -> Value {
    let of_x86 = if cfg!(target_arch = "x86_64") { REFUSED_OF_X86.as_slice() } else { &[] };
    let mut rules: Vec<_> =
        REFUSED.iter().chain(of_x86).map(|name| json!({ "syscall": name })).collect();
    rules.push(if needs_device {
        json!({ "syscall": "socket", "args": [other(AF_UNIX), other(AF_NETLINK)] })
    } else {
        json!({ "syscall": "socket" })
    });
    // `abort` signals its own thread; nobody else is signalled, and no other process' limits are set.
    rules.push(json!({ "syscall": "kill", "args": [other(process_id)] }));
    rules.push(json!({ "syscall": "tgkill", "args": [other(process_id)] }));
    rules.push(json!({ "syscall": "prlimit64", "args": [other(process_id), other(0)] }));
    let is_process = json!({ "masked_eq": CLONE_THREAD });
    let is_process = json!({ "index": 0, "type": "dword", "op": is_process, "val": 0 });
    rules.push(json!({ "syscall": "clone", "args": [is_process] }));
    filter(&rules, REFUSAL)
}

/// `clone3` has its flags in memory, where no filter can look.
fn unknown() -> Value {
    filter(&[json!({ "syscall": "clone3" })], UNKNOWN)
}

/// The first argument is not `value`.
fn other(value: u32) -> Value {
    json!({ "index": 0, "type": "dword", "op": "ne", "val": value })
}

fn filter(rules: &[Value], errno: u32) -> Value {
    json!({ "worker": {
        "mismatch_action": "allow",
        "match_action": { "errno": errno },
        "filter": rules,
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The filter is the thread's that asks for it, so that a thread can stand for the child.
    fn within<T: Send + 'static>(
        needs_device: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let confined = move || {
            give_up(std::process::id(), needs_device).unwrap();
            work()
        };
        std::thread::spawn(confined).join().unwrap()
    }

    #[test]
    fn a_worker_starts_no_program_and_opens_no_socket() {
        let (program, udp, unix, pair) = within(false, || {
            let program = std::process::Command::new("/bin/true").status();
            let udp = std::net::UdpSocket::bind("127.0.0.1:0");
            let unix = std::os::unix::net::UnixDatagram::unbound();
            let pair = std::os::unix::net::UnixStream::pair();
            (program.is_ok(), udp.is_ok(), unix.is_ok(), pair.is_ok())
        });
        assert_eq!((program, udp, unix, pair), (false, false, false, true));
    }

    #[test]
    fn a_worker_with_a_device_reaches_drivers_and_no_network() {
        let (tcp, udp, unix) = within(true, || {
            let tcp = std::net::TcpListener::bind("127.0.0.1:0");
            let udp = std::net::UdpSocket::bind("[::1]:0");
            (tcp.is_ok(), udp.is_ok(), std::os::unix::net::UnixDatagram::unbound().is_ok())
        });
        assert_eq!((tcp, udp, unix), (false, false, true));
    }

    #[test]
    fn a_worker_still_has_threads() {
        assert_eq!(within(false, || std::thread::spawn(|| 7).join().unwrap()), 7);
    }

    #[test]
    fn every_call_is_known_on_both_processors() {
        for architecture in [TargetArch::x86_64, TargetArch::aarch64] {
            for name in REFUSED {
                let filter = filter(&[json!({ "syscall": name })], REFUSAL).to_string();
                let compiled: Result<BpfMap, _> =
                    compile_from_json(filter.as_bytes(), architecture);
                assert!(compiled.is_ok(), "{name} on {architecture:?}");
            }
        }
    }
}

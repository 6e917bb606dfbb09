//! The Debian packages: made, installed into a root directory of their own, tried, and removed again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sealift_tests::process::{programs, root};

const PACKAGES: [&str; 4] =
    ["sealift-agent", "sealift-fleet-server", "sealift-fleetctl", "sealift-onnxruntime"];

/// What an administrator may change, and dpkg therefore keeps until a purge.
const CONFIGURATION: [&str; 2] = ["etc/sealift/agent.toml", "etc/sealift/fleet-server.toml"];

#[test]
#[ignore = "needs dpkg and ONNX Runtime"]
fn packages_install_work_and_leave_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let packages = pack(place.path());
    let system = System::empty(place.path().join("system"));

    system.dpkg("--install", &packages);

    system.has("usr/bin/fleet-agent", 0o755);
    system.has("usr/bin/fleet-server", 0o755);
    system.has("usr/bin/fleetctl", 0o755);
    system.has("usr/lib/sealift/libonnxruntime.so", 0o644);
    for program in ["fleet-agent", "fleet-server", "fleetctl"] {
        let version = printed(Command::new(system.file("usr/bin").join(program)).arg("--version"));
        assert!(version.contains(env!("CARGO_PKG_VERSION")), "{program}: {version}");
    }
    system.configurations_are_read();
    for unit in ["sealift-agent.service", "sealift-fleet-server.service"] {
        system.unit_starts_what_is_installed(unit);
    }

    system.dpkg("--remove", &PACKAGES.map(PathBuf::from));

    assert!(!system.file("usr/bin/fleet-agent").exists());
    assert!(CONFIGURATION.iter().all(|path| system.file(path).is_file()));

    system.dpkg("--purge", &PACKAGES.map(PathBuf::from));

    assert_eq!(system.left_behind(), Vec::<PathBuf>::new());
}

#[test]
#[ignore = "needs systemd-analyze"]
fn units_pass_the_service_managers_own_check() {
    let place = tempfile::tempdir().unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for unit in ["sealift-agent.service", "sealift-fleet-server.service"] {
        // The check insists that the program exists on this machine.
        let text = fs::read_to_string(root().join("packaging/systemd").join(unit)).unwrap();
        let text = text.replace("ExecStart=/usr/bin/fleet-", "ExecStart=/bin/true fleet-");
        let copy = place.path().join(unit);
        fs::write(&copy, text).unwrap();
        verify.arg(copy);
    }
    let output = verify.output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<_> = complaints.lines().filter(|line| line.contains("sealift")).collect();
    assert!(output.status.success() && ours.is_empty(), "{complaints}");
}

/// Makes the packages from the programs that the other tests use.
fn pack(place: &Path) -> Vec<PathBuf> {
    let out = place.join("packages");
    let built = programs().unwrap();
    let mut xtask = Command::new(built.join("xtask"));
    if !built.join("xtask").is_file() {
        xtask = Command::new(env!("CARGO"));
        xtask.args(["run", "--quiet", "--package", "xtask", "--"]);
    }
    xtask.args(["dist", "--quick", "--out"]).arg(&out);
    let said = printed(xtask.env("SEALIFT_BIN_DIR", built).current_dir(root()));
    let mut packages: Vec<_> =
        fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path()).collect();
    packages.sort();
    let of =
        |name: &&str| packages.iter().any(|path| file_name(path).starts_with(&format!("{name}_")));
    assert!(PACKAGES.iter().all(of) && packages.len() == PACKAGES.len(), "{packages:?}\n{said}");
    packages
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// An empty root directory with a list of packages of its own.
struct System(PathBuf);

impl System {
    fn empty(root: PathBuf) -> Self {
        let database = root.join("var/lib/dpkg");
        for directory in ["info", "updates", "triggers"] {
            fs::create_dir_all(database.join(directory)).unwrap();
        }
        fs::write(database.join("status"), "").unwrap();
        Self(root)
    }

    fn file(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// Runs dpkg in this root. Scripts run outside of it and are told so; what the packages depend on is not there.
    fn dpkg(&self, action: &str, operands: &[PathBuf]) {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", self.0.display())).arg("--log=/dev/null");
        for force in ["not-root", "depends", "script-chrootless", "bad-path"] {
            dpkg.arg(format!("--force-{force}"));
        }
        printed(dpkg.args(["--no-triggers", action]).args(operands));
    }

    fn has(&self, path: &str, mode: u32) {
        let metadata =
            fs::metadata(self.file(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{path}");
        assert!(metadata.len() > 10_000, "{path} has only {} bytes", metadata.len());
    }

    fn configurations_are_read(&self) {
        let [agent, server] = CONFIGURATION.map(|path| self.file(path));
        let agent = sealift_agent::config::Config::read(&self.0, Some(&agent)).unwrap();
        let [runtime] = &agent.runtimes[..] else { panic!("{:?}", agent.runtimes) };
        let library = runtime.library.strip_prefix("/").unwrap();
        assert!(self.0.join(library).is_file(), "{} is not installed", library.display());
        let server = sealift_fleet_server::config::Config::read(&server).unwrap();
        assert_eq!(server.data, Path::new("/var/lib/sealift-fleet-server"));
        assert!(server.operators.listen.ip().is_loopback());
    }

    /// The unit's program is installed and knows each option that the unit gives it.
    fn unit_starts_what_is_installed(&self, unit: &str) {
        let path = self.file("usr/lib/systemd/system").join(unit);
        let text = fs::read_to_string(path).unwrap();
        let command = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let words: Vec<_> = command.split(' ').collect();
        let program = self.file(words[0].trim_start_matches('/'));
        let help = printed(Command::new(program).args([words[1], "--help"]));
        for option in words.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(option), "{unit}: `{option}` is not in:\n{help}");
        }
    }

    /// Files and directories that are not dpkg's own.
    fn left_behind(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        let mut open = vec![self.0.clone()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let inside = path.strip_prefix(&self.0).unwrap();
                if Path::new("var/lib/dpkg").starts_with(inside) && path.is_dir() {
                    open.extend((!inside.ends_with("dpkg")).then_some(path));
                } else if inside != Path::new("var/log") {
                    left.push(inside.to_owned());
                }
            }
        }
        left
    }
}

/// Runs a command that must succeed; returns its standard output.
fn printed(command: &mut Command) -> String {
    // dpkg looks for programs that only root's path has.
    let path = std::env::var("PATH").unwrap_or_default();
    let output = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).output();
    let Output { status, stdout, stderr } =
        output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

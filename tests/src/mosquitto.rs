//! Debian's mosquitto, set up as docs/operate/brokers.md says: certificates of the fleet's CA, identity from the certificate, an ACL line
//! for each device.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::needs::variable;
use crate::process::{Guest, free_port, write};

/// Whom the server's certificate names.
const SERVER_NAME: &str = "fleet-server";

/// A broker that runs until it is dropped.
pub struct Mosquitto {
    process: Guest,
    /// Where it listens on loopback.
    pub port: u16,
}

impl Mosquitto {
    /// Starts a broker with the certificates of the server whose data is `server/` in `directory`, for these devices of the tenant `main`.
    pub fn start(directory: &Path, devices: &[&str]) -> anyhow::Result<Self> {
        Self::start_at(free_port()?, directory, devices)
    }

    /// The same, where another one was.
    pub fn start_at(port: u16, directory: &Path, devices: &[&str]) -> anyhow::Result<Self> {
        Self::start_program(variable("SEALIFT_MOSQUITTO")?.as_ref(), port, (directory, devices))
    }

    /// The same, of a program that was found otherwise.
    pub fn start_program(
        program: &Path,
        port: u16,
        (directory, devices): (&Path, &[&str]),
    ) -> anyhow::Result<Self> {
        let keys = directory.join("server/keys");
        let acl = directory.join("mosquitto.acl");
        write(&acl, &rights(devices)?)?;
        let config = directory.join("mosquitto.conf");
        write(
            &config,
            &format!(
                "listener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\n\
                 require_certificate true\nuse_identity_as_username true\nallow_anonymous false\n\
                 acl_file {}\npersistence false\nmax_packet_size 262144\n\
                 max_queued_messages 100000\nuser root\n",
                keys.join("ca.pem").display(),
                keys.join("server.pem").display(),
                keys.join("server-key.pem").display(),
                acl.display(),
            ),
        )?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&config);
        let log = directory.join("mosquitto.log");
        Ok(Self { process: Guest::start_with_log(&mut command, &log)?, port })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What a server's configuration says of it.
    pub fn section(&self) -> String {
        format!("[mqtt.external]\nhost = \"localhost\"\nport = {}\n", self.port)
    }
}

fn rights(devices: &[&str]) -> anyhow::Result<String> {
    let mut text = format!("user {SERVER_NAME}\ntopic readwrite sl/1/#\n");
    for device in devices {
        writeln!(text, "user main:{device}")?;
        writeln!(text, "topic write sl/1/main/u/{device}/#")?;
        writeln!(text, "topic read sl/1/main/d/{device}/#")?;
        writeln!(text, "topic read sl/1/main/b/all/#")?;
    }
    Ok(text)
}

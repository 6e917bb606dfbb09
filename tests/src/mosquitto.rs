//! Debian's mosquitto, set up as docs/operate/brokers.md says: certificates of the fleet's CA, identity from the certificate, an ACL line
//! for each device.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use crate::needs::variable;
use crate::process::{free_port, write};

/// A broker that runs until it is dropped.
pub struct Mosquitto {
    child: Child,
    /// Where it listens on loopback.
    pub port: u16,
}

/// Certificates for a broker.
pub struct Certificates<'a> {
    /// Whom it believes.
    pub ca: &'a Path,
    /// Its own chain.
    pub certificate: &'a Path,
    /// Its own key.
    pub key: &'a Path,
}

impl Mosquitto {
    /// Starts a broker for these devices of the tenant `main`; the server's certificate names it `server`.
    pub fn start(
        directory: &Path,
        port: u16,
        certificates: &Certificates<'_>,
        (server, devices): (&str, &[&str]),
    ) -> anyhow::Result<Self> {
        let acl = directory.join("mosquitto.acl");
        write(&acl, &rights(server, devices)?)?;
        let config = directory.join("mosquitto.conf");
        write(
            &config,
            &format!(
                "listener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\n\
                 require_certificate true\nuse_identity_as_username true\nallow_anonymous false\n\
                 acl_file {}\npersistence false\nmax_packet_size 262144\nuser root\n",
                certificates.ca.display(),
                certificates.certificate.display(),
                certificates.key.display(),
                acl.display(),
            ),
        )?;
        let log = fs::File::create(directory.join("mosquitto.log"))?;
        let program = variable("SEALIFT_MOSQUITTO")?;
        let child = Command::new(&program)
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self { child, port })
    }

    /// A port that is free now.
    pub fn port() -> anyhow::Result<u16> {
        free_port()
    }
}

fn rights(server: &str, devices: &[&str]) -> anyhow::Result<String> {
    let mut text = format!("user {server}\ntopic readwrite sl/1/#\n");
    for device in devices {
        writeln!(text, "user main:{device}")?;
        writeln!(text, "topic write sl/1/main/u/{device}/#")?;
        writeln!(text, "topic read sl/1/main/d/{device}/#")?;
        writeln!(text, "topic read sl/1/main/b/all/#")?;
    }
    Ok(text)
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

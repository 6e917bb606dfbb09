//! A token in software (`SoftHSM`), for stories about keys that never leave one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::fleet::Server;

/// The PIN of every token here.
pub const PIN: &str = "4711";

const LABEL: &str = "story";

/// A token in software, in a directory of its own.
pub struct Token {
    config: PathBuf,
    module: PathBuf,
    tool: String,
}

impl Token {
    /// Makes an empty token whose PIN is 4711.
    pub fn make(directory: &Path) -> anyhow::Result<Self> {
        let tool = crate::needs::variable("SEALIFT_SOFTHSM")?;
        let (tokens, config) = (directory.join("tokens"), directory.join("softhsm2.conf"));
        fs::create_dir_all(&tokens)?;
        fs::write(&config, format!("directories.tokendir = {}\n", tokens.display()))?;
        let module = [
            "/usr/lib/softhsm",
            "/usr/lib/x86_64-linux-gnu/softhsm",
            "/usr/lib/aarch64-linux-gnu/softhsm",
        ]
        .map(|folder| Path::new(folder).join("libsofthsm2.so"));
        let module = module.into_iter().find(|path| path.exists()).context("no libsofthsm2.so")?;
        let token = Self { config, module, tool };
        token.tool(&[
            "--init-token",
            "--free",
            "--label",
            LABEL,
            "--so-pin",
            "4712",
            "--pin",
            PIN,
        ])?;
        Ok(token)
    }

    /// Puts a private key from a file on it, with its public half.
    pub fn import(&self, key: &str, label: &str, id: &str) -> anyhow::Result<()> {
        self.tool(&["--import", key, "--token", LABEL, "--label", label, "--id", id, "--pin", PIN])
    }

    /// How a device's key on it is named: with its library, and the PIN in a file of `directory`.
    pub fn for_devices(&self, directory: &Path) -> anyhow::Result<String> {
        let pin = directory.join("pin");
        fs::write(&pin, format!("{PIN}\n"))?;
        fs::set_permissions(&pin, fs::Permissions::from_mode(0o600))?;
        let (module, pin) = (self.module.display(), pin.display());
        Ok(format!("pkcs11:token={LABEL}?module-path={module}&pin-source={pin}"))
    }

    /// What a program needs to find it.
    pub fn environment(&self) -> (&'static str, String) {
        ("SOFTHSM2_CONF", self.config.display().to_string())
    }

    /// How many objects are on it: two for each key.
    pub fn objects(&self) -> anyhow::Result<usize> {
        let mut count = 0;
        for token in fs::read_dir(self.config.with_file_name("tokens"))? {
            for file in fs::read_dir(token?.path())? {
                let name = file?.file_name().into_string().unwrap_or_default();
                // The token itself is an object, too.
                let is_object = name.ends_with(".object") && name != "token.object";
                count += usize::from(is_object);
            }
        }
        Ok(count)
    }

    fn tool(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = std::process::Command::new(&self.tool);
        let output = command.args(arguments).env("SOFTHSM2_CONF", &self.config).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Runs `fleetctl` with the token at hand.
    pub fn ctl(&self, server: &Server, arguments: &[&str], pin: &str) -> anyhow::Result<()> {
        let (status, _, stderr) = self.ctl_to_end(server, arguments, pin)?;
        ensure!(status.success(), "fleetctl {}: {stderr}", arguments.join(" "));
        Ok(())
    }

    /// As [`Token::ctl`], whatever the end.
    pub fn ctl_to_end(
        &self,
        server: &Server,
        arguments: &[&str],
        pin: &str,
    ) -> anyhow::Result<(std::process::ExitStatus, String, String)> {
        let (config, module) =
            (self.config.display().to_string(), self.module.display().to_string());
        let more = [
            ("SOFTHSM2_CONF", config.as_str()),
            ("SEALIFT_PKCS11_MODULE", &module),
            ("SEALIFT_PIN", pin),
        ];
        server.ctl_with(arguments, &more)
    }
}

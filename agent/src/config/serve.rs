//! `[serve_tls]`: how applications on other machines reach the models.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::Config;

/// A second port, over TLS. The files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeTls {
    /// Where; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The certificate and those that lead to its authority, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authorities of applications, PEM: whoever shows no certificate of theirs is turned away. Without it everybody may ask.
    pub client_ca: Option<PathBuf>,
}

/// Rule: nothing is open to the network by itself, and what is goes over TLS, unless the owner says that something else guards it.
pub(super) fn check(config: &Config) -> Result<(), &'static str> {
    if !config.serve_listen.ip().is_loopback() && !config.serve_plain {
        return Err(
            "serve_listen is open to the network without TLS; leave it on loopback and add \
                    [serve_tls], or set serve_plain = true if something else guards it",
        );
    }
    let Some(tls) = &config.serve_tls else { return Ok(()) };
    let mut files = [Some(&tls.certificate), Some(&tls.key), tls.client_ca.as_ref()].into_iter();
    if files.any(|file| file.is_some_and(|file| file.is_relative())) {
        return Err("the files of [serve_tls] must be full paths");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn read(text: &str) -> Result<Config, String> {
        let store = tempfile::tempdir().unwrap();
        std::fs::write(store.path().join("agent.toml"), text).unwrap();
        Config::read(store.path(), None).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_open_to_the_network_without_tls_or_the_owners_word() {
        assert!(read("serve_listen = \"0.0.0.0:8080\"").unwrap_err().contains("[serve_tls]"));
        assert!(read("serve_listen = \"[::]:8080\"").is_err());
        assert!(read("serve_listen = \"0.0.0.0:8080\"\nserve_plain = true").is_ok());
        assert!(read("serve_listen = \"[::1]:8080\"").is_ok());

        let tls = |certificate: &str| {
            let key = "key = \"/etc/key.pem\"";
            read(&format!(
                "[serve_tls]\nlisten = \"0.0.0.0:8443\"\ncertificate = \"{certificate}\"\n{key}"
            ))
        };
        assert!(tls("cert.pem").unwrap_err().contains("full paths"));
        let config = tls("/etc/cert.pem").unwrap();
        assert!(config.serve_tls.unwrap().client_ca.is_none());
        assert!(config.serve_listen.ip().is_loopback());
    }
}

//! The device's private keys: made here, kept in files that nobody else may read or on a token, never sent anywhere.

#[cfg(feature = "pkcs11")]
mod token;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _};
use rustls::crypto::CryptoProvider;
use rustls::sign::SigningKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use sealift_protocol::digest::Digest;

use crate::disk::{self, Secrecy};

/// A P-256 key in PKCS #8 is 250 bytes.
const BYTES_MAX: u64 = 16 << 10;

/// Bits that others must not have on the file: group and everybody.
const OTHERS: u32 = 0o077;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("cannot read or write {path}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "others than its owner may read the key {0}\nhelp: whoever could read it may have it: make \
         a token for this device and enrol it anew with --replace, or, if nobody could, chmod 600"
    )]
    Exposed(PathBuf),
    /// Not a key in PEM.
    #[error("{0} holds no private key in PEM")]
    Form(PathBuf),
    /// The token does not do what it should, or this agent knows no tokens.
    #[error("{0}")]
    Token(String),
    /// The key or the request for its certificate cannot be made.
    #[error("cannot make a key and a request for its certificate")]
    Make(#[source] rcgen::Error),
}

/// What begins the name of a key on a token; any other name is that of a file in the store.
const TOKEN_SCHEME: &str = "pkcs11:";

/// A key of this device.
#[derive(Debug)]
pub(crate) enum Key {
    /// In a file of the store.
    File { name: String, pair: Box<KeyPair> },
    /// On a token.
    #[cfg(feature = "pkcs11")]
    Token(std::sync::Arc<token::TokenKey>),
}

impl Key {
    /// Makes a key where `near`, the name of another or of a token, says, under a name of its own, beside all others.
    pub(crate) fn make(store: &Path, near: &str) -> Result<Self, KeyError> {
        if near.starts_with(TOKEN_SCHEME) {
            return on_token::make(store, near);
        }
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(KeyError::Make)?;
        let name = format!("key-{}.pem", Digest::of(pair.der_bytes()).short());
        let path = store.join(&name);
        disk::replace(&path, pair.serialize_pem().as_bytes(), Secrecy::Private)
            .map_err(|source| KeyError::Disk { path, source })?;
        Ok(Self::File { name, pair: Box::new(pair) })
    }

    /// Opens a key that was made; none if it is not there.
    pub(crate) fn open(store: &Path, name: &str) -> Result<Option<Self>, KeyError> {
        if name.starts_with(TOKEN_SCHEME) {
            return on_token::open(name);
        }
        let path = store.join(name);
        let Some(pem) = read(&path)? else { return Ok(None) };
        let text = String::from_utf8(pem).map_err(|_| KeyError::Form(path.clone()))?;
        let pair = KeyPair::from_pem(&text).map_err(|_| KeyError::Form(path))?;
        Ok(Some(Self::File { name: name.to_owned(), pair: Box::new(pair) }))
    }

    /// The name of its file, or of the key on the token.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::File { name, .. } => name,
            #[cfg(feature = "pkcs11")]
            Self::Token(key) => key.name(),
        }
    }

    /// Its public half, as a certificate holds it.
    pub(crate) fn public(&self) -> &[u8] {
        match self {
            Self::File { pair, .. } => pair.der_bytes(),
            #[cfg(feature = "pkcs11")]
            Self::Token(key) => key.point(),
        }
    }

    /// A request for a certificate, PEM. It names nobody and asks for nothing: the server decides on all of that.
    pub(crate) fn request(&self) -> Result<String, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = match self {
            Self::File { pair, .. } => params.serialize_request(pair.as_ref()),
            #[cfg(feature = "pkcs11")]
            Self::Token(key) => params.serialize_request(key.as_ref()),
        };
        request.and_then(|request| request.pem()).map_err(KeyError::Make)
    }
}

/// The key of that name as TLS uses it.
pub(crate) fn for_tls(
    store: &Path,
    name: &str,
    provider: &CryptoProvider,
) -> Result<Arc<dyn SigningKey>, KeyError> {
    if name.starts_with(TOKEN_SCHEME) {
        return on_token::for_tls(name);
    }
    let path = store.join(name);
    let form = || KeyError::Form(path.clone());
    let pem = read(&path)?.ok_or_else(form)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| form())?;
    provider.key_provider.load_private_key(key).map_err(|_| form())
}

#[cfg(feature = "pkcs11")]
mod on_token {
    use super::{Arc, Key, KeyError, Path, SigningKey, token};

    pub(super) fn make(store: &Path, near: &str) -> Result<Key, KeyError> {
        Ok(Key::Token(Arc::new(token::TokenKey::make(store, near)?)))
    }

    pub(super) fn open(name: &str) -> Result<Option<Key>, KeyError> {
        Ok(token::TokenKey::open(name)?.map(|key| Key::Token(Arc::new(key))))
    }

    pub(super) fn for_tls(name: &str) -> Result<Arc<dyn SigningKey>, KeyError> {
        let gone = || KeyError::Token(format!("the token has no key {name}"));
        let key = token::TokenKey::open(name)?.ok_or_else(gone)?;
        Ok(Arc::new(token::TlsKey(Arc::new(key))))
    }
}

/// An agent without tokens, which says so.
#[cfg(not(feature = "pkcs11"))]
mod on_token {
    use super::{Arc, Key, KeyError, Path, SigningKey};

    fn unknown<T>() -> Result<T, KeyError> {
        let what =
            "this fleet-agent was built without PKCS#11\nhelp: build it with `--features pkcs11`";
        Err(KeyError::Token(what.to_owned()))
    }

    pub(super) fn make(_store: &Path, _near: &str) -> Result<Key, KeyError> {
        unknown()
    }

    pub(super) fn open(_name: &str) -> Result<Option<Key>, KeyError> {
        unknown()
    }

    pub(super) fn for_tls(_name: &str) -> Result<Arc<dyn SigningKey>, KeyError> {
        unknown()
    }
}

/// Removes all keys but the one of that name. What cannot be removed is removed the next time.
pub(crate) fn tidy(store: &Path, kept: &str) {
    for entry in std::fs::read_dir(store).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        // With what a power loss left behind: `key-….pem.new`.
        if !name.starts_with("key") || !name.contains(".pem") || name == kept {
            continue;
        }
        if let Err(error) = disk::remove(&store.join(&name)) {
            tracing::warn!(%error, name, "old key is not removed");
        }
    }
    #[cfg(feature = "pkcs11")]
    token::tidy(store, kept);
}

/// Rule: a private key that anybody else may read is refused, as ssh does it: it may have been copied.
fn read(path: &Path) -> Result<Option<Vec<u8>>, KeyError> {
    read_secret(path, BYTES_MAX)
}

/// Reads a file with a private key, by the rule above; none if it is not there.
pub(crate) fn read_secret(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, KeyError> {
    let at = |source| KeyError::Disk { path: path.to_owned(), source };
    let Some(bytes) = disk::read(path, bytes_max).map_err(at)? else { return Ok(None) };
    let mode = path.metadata().map_err(at)?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(KeyError::Exposed(path.to_owned()));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls_key(store: &Path, name: &str) -> Result<Arc<dyn SigningKey>, KeyError> {
        for_tls(store, name, &rustls::crypto::aws_lc_rs::default_provider())
    }

    #[test]
    fn a_key_is_kept_for_its_owner_alone_and_read_again() {
        let store = tempfile::tempdir().unwrap();
        let key = Key::make(store.path(), "").unwrap();
        let path = store.path().join(key.name());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let again = Key::open(store.path(), key.name()).unwrap().unwrap();

        assert_eq!(again.public(), key.public());
        assert!(tls_key(store.path(), key.name()).is_ok());
        assert!(Key::open(store.path(), "key-none.pem").unwrap().is_none());
    }

    #[test]
    fn attack_a_key_that_others_may_read() {
        let store = tempfile::tempdir().unwrap();
        let key = Key::make(store.path(), "").unwrap();
        let path = store.path().join(key.name());
        for mode in [0o640, 0o604, 0o620, 0o660, 0o666] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let refused = tls_key(store.path(), key.name()).unwrap_err();
            assert!(matches!(refused, KeyError::Exposed(_)), "{mode:o}: {refused}");
        }
    }

    #[test]
    fn tidying_leaves_the_key_in_use_and_other_files() {
        let store = tempfile::tempdir().unwrap();
        let names = [0; 3].map(|_| Key::make(store.path(), "").unwrap().name().to_owned());
        std::fs::write(store.path().join("key-half.pem.new"), "-----BEG").unwrap();
        std::fs::write(store.path().join("agent.toml"), "").unwrap();

        tidy(store.path(), &names[1]);

        let mut left: Vec<_> =
            std::fs::read_dir(store.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["agent.toml", &names[1]]);
    }
}

//! Key files: PKCS #8 PEM, readable by nobody else, never overwritten.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey as Ed25519;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use sealift_protocol::tuf::key::{InvalidKey, Salt, SigningKey};

/// Signs directives.
pub(crate) const DIRECTOR: &str = "director.pem";
/// Signs snapshots.
pub(crate) const SNAPSHOT: &str = "snapshot.pem";
/// Signs timestamps.
pub(crate) const TIMESTAMP: &str = "timestamp.pem";
/// Signs checkpoints of the audit log.
pub(crate) const AUDIT: &str = "audit.pem";
/// Opens the secrets of operators that lie sealed in the database.
pub(crate) const SECRETS: &str = "secrets.key";
/// The device CA's certificate.
pub(crate) const CA_CERTIFICATE: &str = "ca.pem";
/// The device CA's key.
pub(crate) const CA_KEY: &str = "ca-key.pem";
/// The server's own certificate chain.
pub(crate) const SERVER_CERTIFICATE: &str = "server.pem";
/// The server's own key.
pub(crate) const SERVER_KEY: &str = "server-key.pem";

/// A key file is a few hundred bytes.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// Why a key was not read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// The file cannot be written.
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    /// Others can read the file.
    #[error("{0} can be read by others\nhelp: `chmod 600` it, and find out who has read it")]
    Exposed(PathBuf),
    /// Not an Ed25519 key in PKCS #8 PEM.
    #[error("{0} is not an Ed25519 key in PKCS #8 PEM")]
    Form(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// A key that cannot be written down.
    #[error("cannot write a key as PKCS #8 PEM")]
    Encode(#[source] InvalidKey),
    /// No random bytes from the system.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
}

/// Makes a key from the system's random bytes.
pub(crate) fn generate() -> Result<SigningKey, KeyError> {
    Ok(SigningKey::from_seed(&seed()?))
}

/// 32 random bytes.
pub(crate) fn seed() -> Result<[u8; 32], KeyError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(KeyError::Random)?;
    Ok(seed)
}

/// Random bytes for one key under a passphrase.
pub(crate) fn salt() -> Result<Salt, KeyError> {
    let (mut salt, mut nonce) = ([0; 16], [0; 12]);
    getrandom::fill(&mut salt).map_err(KeyError::Random)?;
    getrandom::fill(&mut nonce).map_err(KeyError::Random)?;
    Ok(Salt { salt, nonce })
}

/// Reads the private key of a TUF role.
pub(crate) fn read_role(path: &Path) -> Result<SigningKey, KeyError> {
    let pem = read_secret(path)?;
    SigningKey::from_pem(&pem).map_err(|error| KeyError::Form(path.to_owned(), error.into()))
}

/// Reads an Ed25519 private key.
pub(crate) fn read_ed25519(path: &Path) -> Result<Ed25519, KeyError> {
    let pem = read_secret(path)?;
    Ed25519::from_pkcs8_pem(&pem).map_err(|error| KeyError::Form(path.to_owned(), error.into()))
}

/// Reads a file that only its owner may read.
pub(crate) fn read_secret(path: &Path) -> Result<String, KeyError> {
    let failed = |error| KeyError::Read(path.to_owned(), error);
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(KeyError::Exposed(path.to_owned()));
    }
    if metadata.len() > KEY_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    fs::read_to_string(path).map_err(failed)
}

/// Makes a folder that only its owner may enter.
pub(crate) fn make_folder(path: &Path) -> Result<(), KeyError> {
    let failed = |error| KeyError::Write(path.to_owned(), error);
    fs::create_dir_all(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)
}

/// Writes a file that only its owner may read; one that is there already is an error.
pub(crate) fn write_new(path: &Path, text: &str) -> Result<(), KeyError> {
    let failed = |error| KeyError::Write(path.to_owned(), error);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

/// Writes a file that only its owner may read, in the place of what was there.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), KeyError> {
    let failed = |error| KeyError::Write(path.to_owned(), error);
    let next = path.with_extension("new");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => (),
    }
    write_new(&next, text)?;
    fs::rename(&next, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let key = generate().unwrap();
        write_new(&path, &key.to_pem().unwrap()).unwrap();

        assert_eq!(read_role(&path).unwrap().id(), key.id());
        let refused = write_new(&path, "other").unwrap_err();
        assert!(matches!(refused, KeyError::Write(..)), "{refused}");
        assert_eq!(read_role(&path).unwrap().id(), key.id());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write_new(&path, &generate().unwrap().to_pem().unwrap()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_role(&path), Err(KeyError::Exposed(_))));
    }
}

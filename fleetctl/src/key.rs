//! Keys that sign: files, under a passphrase unless somebody insists, and tokens.

use std::fs::{self, OpenOptions};
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use sealift_protocol::tuf::key::{Algorithm, Key, KeyId, Salt, SigningKey, is_encrypted};

use crate::failure::{Exit, Failure};

#[cfg(feature = "pkcs11")]
mod token;

/// The variable with the passphrase, for programs.
const PASSPHRASE_VARIABLE: &str = "SEALIFT_PASSPHRASE";
/// A passphrase that is guessed in an afternoon protects nothing.
const PASSPHRASE_CHARS_MIN: usize = 12;
/// A key file is a few hundred bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// What names a key on a token.
const TOKEN_SCHEME: &str = "pkcs11:";
/// The public part of `x.pem` is `x.pub.json`.
const PUBLIC_SUFFIX: &str = ".pub.json";
/// Tries to find a scalar of P-256; the first fails once in 2^32.
const SEEDS_MAX: u32 = 8;

/// Where passphrases and PINs come from; never from the arguments, which other users of a machine can read.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Secrets {
    /// A file whose first line is the passphrase of the key files; otherwise `SEALIFT_PASSPHRASE`, otherwise the terminal is asked.
    #[arg(long)]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// A file whose first line is the PIN of the token; otherwise `SEALIFT_PIN`, otherwise the terminal is asked.
    #[arg(long)]
    pub(crate) pin_file: Option<PathBuf>,
}

impl Secrets {
    fn passphrase(&self, what: &str) -> anyhow::Result<String> {
        secret(self.passphrase_file.as_deref(), PASSPHRASE_VARIABLE, what)
    }

    /// A passphrase for a new file: asked for twice where a person types it.
    fn new_passphrase(&self, path: &Path) -> anyhow::Result<String> {
        let is_typed =
            self.passphrase_file.is_none() && std::env::var_os(PASSPHRASE_VARIABLE).is_none();
        let passphrase = self.passphrase(&format!("new passphrase for {}", path.display()))?;
        if is_typed {
            let again = rpassword::prompt_password("the same again: ")?;
            ensure!(passphrase == again, "the two passphrases differ");
        }
        let chars = passphrase.chars().count();
        ensure!(
            chars >= PASSPHRASE_CHARS_MIN,
            "the passphrase has {chars} characters, at least {PASSPHRASE_CHARS_MIN} are needed"
        );
        Ok(passphrase)
    }

    #[cfg(feature = "pkcs11")]
    fn pin(&self, what: &str) -> anyhow::Result<String> {
        secret(self.pin_file.as_deref(), "SEALIFT_PIN", what)
    }
}

/// File, then variable, then terminal.
fn secret(file: Option<&Path>, variable: &str, what: &str) -> anyhow::Result<String> {
    if let Some(file) = file {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        return Ok(text.lines().next().unwrap_or_default().to_owned());
    }
    if let Ok(secret) = std::env::var(variable) {
        return Ok(secret);
    }
    if !std::io::stdin().is_terminal() {
        let failure = Failure::new(Exit::Auth, format!("{what} is needed"));
        return Err(failure.help(format!("give a file, or set {variable}")).into());
    }
    Ok(rpassword::prompt_password(format!("{what}: "))?)
}

/// A private key that can sign here and now.
pub(crate) enum HeldKey {
    /// In memory, from a file.
    File(Box<SigningKey>),
    /// On a token that it never leaves.
    #[cfg(feature = "pkcs11")]
    Token(Box<token::TokenKey>),
}

impl HeldKey {
    /// Opens what `--key` names: a file, or `pkcs11:token=…;object=…`.
    pub(crate) fn open(name: &str, secrets: &Secrets) -> anyhow::Result<Self> {
        if name.starts_with(TOKEN_SCHEME) {
            return Self::open_token(name, secrets);
        }
        Ok(Self::File(Box::new(read(Path::new(name), secrets)?)))
    }

    /// Opens all of them.
    pub(crate) fn open_all(names: &[String], secrets: &Secrets) -> anyhow::Result<Vec<Self>> {
        names.iter().map(|name| Self::open(name, secrets)).collect()
    }

    #[cfg(feature = "pkcs11")]
    fn open_token(uri: &str, secrets: &Secrets) -> anyhow::Result<Self> {
        let key = token::TokenKey::open(uri, |what| secrets.pin(what))?;
        Ok(Self::Token(Box::new(key)))
    }

    #[cfg(not(feature = "pkcs11"))]
    fn open_token(_uri: &str, _secrets: &Secrets) -> anyhow::Result<Self> {
        bail!("this fleetctl was built without PKCS#11\nhelp: build it with `--features pkcs11`")
    }

    /// Its public part.
    pub(crate) fn public(&self) -> Key {
        match self {
            Self::File(key) => key.public(),
            #[cfg(feature = "pkcs11")]
            Self::Token(key) => key.public(),
        }
    }

    /// Signs as TUF writes signatures.
    #[cfg_attr(
        not(feature = "pkcs11"),
        expect(clippy::unnecessary_wraps, reason = "a token can refuse, a key in memory cannot")
    )]
    pub(crate) fn sign(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::File(key) => Ok(key.sign(message)),
            #[cfg(feature = "pkcs11")]
            Self::Token(key) => key.sign(message),
        }
    }
}

fn read(path: &Path, secrets: &Secrets) -> anyhow::Result<SigningKey> {
    let unreadable = || format!("cannot read {}", path.display());
    let metadata = fs::metadata(path).with_context(unreadable)?;
    ensure!(metadata.len() <= FILE_BYTES_MAX, "{} is too large for a key", path.display());
    let pem = fs::read_to_string(path).with_context(unreadable)?;
    let key = if is_encrypted(&pem) {
        let passphrase = secrets.passphrase(&format!("passphrase of {}", path.display()))?;
        SigningKey::from_encrypted_pem(&pem, passphrase.as_bytes())
    } else {
        SigningKey::from_pem(&pem)
    };
    key.with_context(|| format!("cannot open the key {}", path.display()))
}

/// A key that was made, by its files.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Made {
    pub(crate) key_id: KeyId,
    pub(crate) private: PathBuf,
    pub(crate) public: PathBuf,
    pub(crate) is_encrypted: bool,
}

/// Makes a key and writes it to `stem-<id>.pem`, its public part beside it. Nothing is overwritten.
pub(crate) fn make(
    folder: &Path,
    stem: &str,
    algorithm: Algorithm,
    secrets: Option<&Secrets>,
) -> anyhow::Result<Made> {
    let key = generate(algorithm)?;
    let (key_id, public) = (key.id(), key.public().to_json());
    let short = key_id.as_str().get(..8).unwrap_or_default();
    let path = folder.join(format!("{stem}-{short}.pem"));
    let pem = match secrets {
        None => key.to_pem()?,
        Some(secrets) => {
            let passphrase = secrets.new_passphrase(&path)?;
            key.to_encrypted_pem(passphrase.as_bytes(), &salt()?)?
        }
    };
    fs::create_dir_all(folder)?;
    write_new(&path, pem.as_bytes(), 0o600)?;
    let public_path = public_path(&path);
    write_new(&public_path, &public, 0o644)?;
    Ok(Made { key_id, private: path, public: public_path, is_encrypted: secrets.is_some() })
}

fn generate(algorithm: Algorithm) -> anyhow::Result<SigningKey> {
    for _ in 0..SEEDS_MAX {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        if let Some(key) = SigningKey::generate(algorithm, &seed) {
            return Ok(key);
        }
    }
    bail!("the system's random bytes are not random")
}

fn salt() -> anyhow::Result<Salt> {
    let (mut salt, mut nonce) = ([0; 16], [0; 12]);
    getrandom::fill(&mut salt)?;
    getrandom::fill(&mut nonce)?;
    Ok(Salt { salt, nonce })
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut open = OpenOptions::new();
    open.write(true).create_new(true).mode(mode);
    let mut file = open.open(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(bytes)?;
    Ok(file.sync_all()?)
}

fn public_path(private: &Path) -> PathBuf {
    let name = private.file_stem().unwrap_or_default().to_string_lossy();
    private.with_file_name(format!("{name}{PUBLIC_SUFFIX}"))
}

/// Reads a public key: the JSON that `key init` writes.
pub(crate) fn read_public(path: &Path) -> anyhow::Result<Key> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Key::from_json(&bytes).with_context(|| format!("{} is no public key", path.display()))
}

/// The keys whose files lie in a folder, by id: told by their public part, or by a private one that is not under a passphrase.
pub(crate) fn here(folder: &Path) -> anyhow::Result<Vec<(KeyId, PathBuf)>> {
    let mut here = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot look into {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(stem) = name.strip_suffix(PUBLIC_SUFFIX) {
            let private = path.with_file_name(format!("{stem}.pem"));
            if private.exists() {
                here.push((read_public(&path)?.id(), private));
            }
        } else if path.extension().is_some_and(|it| it == "pem")
            && !public_path(&path).exists()
            && let Ok(pem) = fs::read_to_string(&path)
            && let Ok(key) = SigningKey::from_pem(&pem)
        {
            here.push((key.id(), path));
        }
    }
    here.sort_by(|one, other| one.1.cmp(&other.1));
    Ok(here)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn secrets(folder: &Path, passphrase: &str) -> Secrets {
        let file = folder.join("passphrase");
        fs::write(&file, format!("{passphrase}\n")).unwrap();
        Secrets { passphrase_file: Some(file), pin_file: None }
    }

    #[test]
    fn a_made_key_opens_with_its_passphrase_and_is_found_by_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = secrets(folder.path(), "twelve letters");

        let made = make(folder.path(), "root", Algorithm::P256, Some(&secrets)).unwrap();

        let name = made.private.display().to_string();
        assert_eq!(HeldKey::open(&name, &secrets).unwrap().public().id(), made.key_id);
        assert_eq!(read_public(&made.public).unwrap().id(), made.key_id);
        assert_eq!(here(folder.path()).unwrap(), [(made.key_id, made.private.clone())]);
        assert_eq!(fs::metadata(&made.private).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_short_passphrase_makes_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = secrets(folder.path(), "short");
        let refused = make(folder.path(), "root", Algorithm::Ed25519, Some(&secrets)).unwrap_err();
        assert!(refused.to_string().contains("at least 12"), "{refused}");
        assert!(here(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn a_key_without_passphrase_is_found_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let made = make(folder.path(), "x", Algorithm::Ed25519, None).unwrap();
        fs::remove_file(&made.public).unwrap();
        assert_eq!(here(folder.path()).unwrap(), [(made.key_id, made.private)]);
    }
}

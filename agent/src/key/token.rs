//! The device's key on a token (TPM, secure element, HSM): made there, used there, never read.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use sealift_protocol::digest::Digest;
use sealift_protocol::token::TokenName;
use sealift_protocol::tuf::key::ecdsa_der;

use super::{KeyError, disk, read_secret};
use crate::disk::Secrecy;

/// RFC 5480, section 2.1.1.1: the curve P-256 by its name, in DER.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// DER's tag of an octet string, in which tokens wrap a point.
const OCTET_STRING: u8 = 4;

/// SEC 1, section 2.3.3: an uncompressed point on P-256.
const POINT_BYTES: usize = 65;

/// Far longer than any PIN.
const PIN_BYTES_MAX: u64 = 256;

/// Beside the identity, one file for each key that was made on a token: a token is shared, and only one's own keys are tidied away.
const MARK: &str = ".token-key";

/// Libraries stay as they are for as long as the process lives: they are one for all who use them.
static LIBRARIES: LazyLock<Mutex<BTreeMap<PathBuf, Pkcs11>>> = LazyLock::new(Mutex::default);

/// A key on a token.
pub(crate) struct TokenKey {
    name: String,
    point: Vec<u8>,
    open: Mutex<Open>,
}

/// A session, logged in, and the key in it.
struct Open {
    session: Session,
    key: ObjectHandle,
}

impl TokenKey {
    /// Makes a key on the token that `near` names.
    pub(super) fn make(store: &Path, near: &str) -> Result<Self, KeyError> {
        let near = parse(near)?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| KeyError::Token("no randomness".to_owned()))?;
        let label = format!("sealift-{}", Digest::of(&random).short());
        let name = near.with_object(&label);
        // First the mark: a key without one would stay on the token for ever.
        let mark = store.join(format!("{label}{MARK}"));
        disk::replace(&mark, name.to_string().as_bytes(), Secrecy::Private)
            .map_err(|source| KeyError::Disk { path: mark, source })?;
        let session = session(&name)?;
        let labelled = Attribute::Label(label.into_bytes());
        let public = [
            Attribute::Token(true),
            Attribute::EcParams(P256.to_vec()),
            Attribute::Verify(true),
            labelled.clone(),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            labelled,
        ];
        let (public, key) = session
            .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)
            .map_err(|error| refused(&name, "makes no key on P-256", &error))?;
        let point = point(&session, &name, public)?;
        Ok(Self { name: name.to_string(), point, open: Mutex::new(Open { session, key }) })
    }

    /// Opens a key that was made; none if it is not on the token.
    pub(super) fn open(text: &str) -> Result<Option<Self>, KeyError> {
        let name = parse(text)?;
        let session = session(&name)?;
        let find = |class| find(&session, &name, class);
        let Some(key) = find(ObjectClass::PRIVATE_KEY)?.pop() else { return Ok(None) };
        let Some(public) = find(ObjectClass::PUBLIC_KEY)?.pop() else { return Ok(None) };
        let point = point(&session, &name, public)?;
        let open = Mutex::new(Open { session, key });
        Ok(Some(Self { name: text.to_owned(), point, open }))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn point(&self) -> &[u8] {
        &self.point
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let name = parse(&self.name)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Not every token hashes; all of them sign a hash.
        let hash = Digest::of(message);
        let sign = |open: &Open| open.session.sign(&Mechanism::Ecdsa, open.key, hash.as_bytes());
        let raw = sign(&open).or_else(|error| {
            // A token that was pulled out and put back in has forgotten its sessions.
            tracing::warn!(%error, token = name.token, "token does not sign; opening it again");
            let session = session(&name)?;
            let key = find(&session, &name, ObjectClass::PRIVATE_KEY)?.pop();
            let gone = || KeyError::Token(format!("token {} has lost the key", name.token));
            *open = Open { session, key: key.ok_or_else(gone)? };
            sign(&open).map_err(|error| refused(&name, "does not sign", &error))
        })?;
        ecdsa_der(&raw)
            .ok_or_else(|| KeyError::Token(format!("token {} signs in no form", name.token)))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl rcgen::PublicKeyData for TokenKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for TokenKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signature(message).map_err(|error| {
            tracing::warn!(%error, "request for a certificate is not signed");
            rcgen::Error::RemoteKeyError
        })
    }
}

/// As TLS uses it.
#[derive(Debug, Clone)]
pub(super) struct TlsKey(pub(super) Arc<TokenKey>);

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(rcgen::PublicKeyData::subject_public_key_info(&*self.0).into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.0.signature(message).map_err(|error| rustls::Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

/// Destroys the keys that this store has made on tokens, but for the one of that name. What cannot be destroyed is tried the next time.
pub(super) fn tidy(store: &Path, kept: &str) {
    for entry in std::fs::read_dir(store).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().ends_with(MARK) {
            continue;
        }
        let Ok(Some(name)) = read_secret(&path, 4 << 10) else { continue };
        let name = String::from_utf8_lossy(&name).into_owned();
        if name == kept {
            continue;
        }
        match destroy(&name) {
            Ok(()) => drop(disk::remove(&path)),
            Err(error) => tracing::warn!(%error, name, "old key stays on its token"),
        }
    }
}

fn destroy(text: &str) -> Result<(), KeyError> {
    let name = parse(text)?;
    let session = session(&name)?;
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        for object in find(&session, &name, class)? {
            session
                .destroy_object(object)
                .map_err(|error| refused(&name, "does not destroy the key", &error))?;
        }
    }
    Ok(())
}

fn parse(name: &str) -> Result<TokenName, KeyError> {
    TokenName::parse(name).map_err(|error| KeyError::Token(error.to_string()))
}

/// A session that may write, and may use the key.
fn session(name: &TokenName) -> Result<Session, KeyError> {
    let TokenName { token, module, pin_source, .. } = name;
    let missing = |what| KeyError::Token(format!("the token's name has no `{what}=`"));
    let module = module.as_ref().ok_or_else(|| missing("module-path"))?;
    let pin_path = pin_source.as_ref().ok_or_else(|| missing("pin-source"))?;
    let pin = read_secret(pin_path, PIN_BYTES_MAX)?
        .ok_or_else(|| KeyError::Token(format!("there is no PIN in {}", pin_path.display())))?;
    let pin = String::from_utf8(pin).map_err(|_| KeyError::Form(pin_path.clone()))?;
    let library = library(module)?;
    let failed = |what: &str, error: &Error| refused(name, what, error);
    let slots =
        library.get_slots_with_token().map_err(|error| failed("cannot be found", &error))?;
    let is_it = |info: &cryptoki::slot::TokenInfo| info.label().trim_end() == token;
    let slot =
        slots.into_iter().find(|slot| library.get_token_info(*slot).is_ok_and(|i| is_it(&i)));
    let slot = slot.ok_or_else(|| KeyError::Token(format!("there is no token {token}")))?;
    let session =
        library.open_rw_session(slot).map_err(|error| failed("opens no session", &error))?;
    match session.login(UserType::User, Some(&AuthPin::new(pin.trim_end().into()))) {
        // PKCS #11 3.0, section 5.6.8: a login is one for all sessions of the process.
        Ok(()) | Err(Error::Pkcs11(cryptoki::error::RvError::UserAlreadyLoggedIn, _)) => {
            Ok(session)
        }
        Err(error) => Err(failed("refuses the PIN", &error)),
    }
}

fn library(module: &Path) -> Result<Pkcs11, KeyError> {
    let failed = |error: Error| {
        KeyError::Token(format!("cannot load the token's library {}: {error}", module.display()))
    };
    let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = libraries.get(module) {
        return Ok(library.clone());
    }
    let library = Pkcs11::new(module).map_err(failed)?;
    let flags = CInitializeFlags::OS_LOCKING_OK;
    library.initialize(CInitializeArgs::new(flags)).map_err(failed)?;
    libraries.insert(module.to_owned(), library.clone());
    Ok(library)
}

fn find(
    session: &Session,
    name: &TokenName,
    class: ObjectClass,
) -> Result<Vec<ObjectHandle>, KeyError> {
    let Some(label) = &name.object else { return Ok(Vec::new()) };
    let label = Attribute::Label(label.clone().into_bytes());
    session
        .find_objects(&[Attribute::Class(class), label])
        .map_err(|error| refused(name, "does not list its keys", &error))
}

/// The public half, as a certificate holds it.
fn point(session: &Session, name: &TokenName, public: ObjectHandle) -> Result<Vec<u8>, KeyError> {
    let attributes = session
        .get_attributes(public, &[AttributeType::EcPoint])
        .map_err(|error| refused(name, "does not show the public key", &error))?;
    let no_point = || KeyError::Token(format!("token {} shows no point on P-256", name.token));
    let Some(Attribute::EcPoint(wrapped)) = attributes.first() else { return Err(no_point()) };
    let point = match wrapped.as_slice() {
        [OCTET_STRING, length, point @ ..] if usize::from(*length) == point.len() => point,
        point => point,
    };
    (point.len() == POINT_BYTES).then(|| point.to_vec()).ok_or_else(no_point)
}

fn refused(name: &TokenName, what: &str, error: &Error) -> KeyError {
    KeyError::Token(format!("token {} {what}: {error}", name.token))
}

//! Keys on tokens, by PKCS#11. A key is named as RFC 7512 names it, and signs where it is.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use sealift_protocol::digest::Digest;
use sealift_protocol::token::TokenName;
use sealift_protocol::tuf::key::{Algorithm, Key, ecdsa_der};

/// The variable that says where the token's library is, unless the URI does.
const MODULE_VARIABLE: &str = "SEALIFT_PKCS11_MODULE";
/// DER's tag of an octet string, in which tokens wrap a point.
const OCTET_STRING: u8 = 4;

/// A key that stays on its token.
pub(crate) struct TokenKey {
    session: Session,
    key: ObjectHandle,
    public: Key,
    algorithm: Algorithm,
}

fn module(name: &TokenName) -> anyhow::Result<PathBuf> {
    let named = name.module.clone();
    named.or_else(|| std::env::var_os(MODULE_VARIABLE).map(PathBuf::from)).with_context(|| {
        format!(
            "the token's library is not named\n\
             help: set {MODULE_VARIABLE}, such as /usr/lib/softhsm/libsofthsm2.so"
        )
    })
}

impl TokenKey {
    /// Opens the key that `uri` names; `pin` is asked once the token is found.
    pub(crate) fn open(
        uri: &str,
        pin: impl Fn(&str) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let name = TokenName::parse(uri)?;
        let label = name.object.as_deref().context("the token's name has no `object=`")?;
        let module = module(&name)?;
        let context = Pkcs11::new(&module)
            .with_context(|| format!("cannot load the token's library {}", module.display()))?;
        let flags = CInitializeFlags::OS_LOCKING_OK;
        match context.initialize(CInitializeArgs::new(flags)) {
            // Another key of the same library is open.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => (),
            Err(error) => return Err(error).context("the token's library does not start"),
        }
        let slot = slot(&context, &name.token)?;
        let session = context.open_ro_session(slot).context("the token opens no session")?;
        let pin = match &name.pin_source {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the PIN's file {}", path.display()))?,
            None => pin(&format!("PIN of token {}", name.token))?,
        };
        let secret = AuthPin::new(pin.trim_end().into());
        match session.login(UserType::User, Some(&secret)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => (),
            Err(error) => {
                return Err(error).with_context(|| format!("token {} refuses the PIN", name.token));
            }
        }
        let key = object(&session, (&name.token, label), ObjectClass::PRIVATE_KEY)?;
        let public =
            public(&session, object(&session, (&name.token, label), ObjectClass::PUBLIC_KEY)?)?;
        let algorithm = public.algorithm().context("the token's key is of no use here")?;
        Ok(Self { session, key, public, algorithm })
    }

    /// Its public part.
    pub(crate) fn public(&self) -> Key {
        self.public.clone()
    }

    /// Signs as TUF writes signatures.
    pub(crate) fn sign(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let refused = "the token does not sign";
        match self.algorithm {
            Algorithm::Ed25519 => {
                let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
                self.session.sign(&mechanism, self.key, message).context(refused)
            }
            Algorithm::P256 => {
                // Not every token hashes; all of them sign a hash.
                let hash = Digest::of(message);
                let raw = self.session.sign(&Mechanism::Ecdsa, self.key, hash.as_bytes());
                ecdsa_der(&raw.context(refused)?).context("the token's signature has no form")
            }
        }
    }
}

fn slot(context: &Pkcs11, token: &str) -> anyhow::Result<Slot> {
    let slots = context.get_slots_with_token().context("the tokens cannot be listed")?;
    for slot in slots {
        if context.get_token_info(slot).is_ok_and(|info| info.label().trim_end() == token) {
            return Ok(slot);
        }
    }
    bail!("there is no token {token}\nhelp: is it plugged in?")
}

fn object(
    session: &Session,
    (token, label): (&str, &str),
    class: ObjectClass,
) -> anyhow::Result<ObjectHandle> {
    let named = Attribute::Label(label.as_bytes().to_vec());
    let found = session.find_objects(&[Attribute::Class(class), named])?;
    match found.as_slice() {
        [object] => Ok(*object),
        [] => bail!("token {token} has no {class} {label}"),
        _ => bail!("token {token} has several {class} {label}"),
    }
}

fn public(session: &Session, object: ObjectHandle) -> anyhow::Result<Key> {
    let attributes = session.get_attributes(object, &[AttributeType::EcPoint])?;
    let Some(Attribute::EcPoint(point)) = attributes.first() else {
        bail!("the token's key has no point: it is neither on Ed25519 nor on P-256");
    };
    let bytes = match point.as_slice() {
        [OCTET_STRING, length, bytes @ ..] if usize::from(*length) == bytes.len() => bytes,
        bytes => bytes,
    };
    let key = Key::ed25519_bytes(bytes).or_else(|| Key::p256_point(bytes));
    key.context("the token's key is neither on Ed25519 nor on P-256")
}

//! Keys on tokens, by PKCS#11. A key is named as RFC 7512 names it, and signs where it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use sealift_protocol::digest::Digest;
use sealift_protocol::tuf::key::{Algorithm, Key, ecdsa_der};

use super::TOKEN_SCHEME;

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

/// The parts of a URI that name a key: `pkcs11:token=T;object=O?module-path=/lib/x.so`.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    token: String,
    object: String,
    module: Option<PathBuf>,
}

impl Name {
    fn parse(uri: &str) -> anyhow::Result<Self> {
        let rest = uri.strip_prefix(TOKEN_SCHEME).context("a token's URI begins with `pkcs11:`")?;
        let mut attributes = BTreeMap::new();
        for pair in rest.split([';', '?', '&']).filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').with_context(|| format!("`{pair}` is not name=value"))?;
            ensure!(
                ["token", "object", "type", "module-path"].contains(&name),
                "`{name}` in a token's URI is not understood\n\
                 help: name the key by `pkcs11:token=…;object=…`, and PINs by a file"
            );
            let is_first = attributes.insert(name, decoded(value)?).is_none();
            ensure!(is_first, "`{name}` stands twice in the token's URI");
        }
        let mut take = |name: &str| attributes.remove(name);
        let token = take("token").context("the token's URI has no `token=`")?;
        let object = take("object").context("the token's URI has no `object=`")?;
        Ok(Self { token, object, module: take("module-path").map(PathBuf::from) })
    }

    fn module(&self) -> anyhow::Result<PathBuf> {
        let named = self.module.clone();
        named.or_else(|| std::env::var_os(MODULE_VARIABLE).map(PathBuf::from)).with_context(|| {
            format!(
                "the token's library is not named\n\
                 help: set {MODULE_VARIABLE}, such as /usr/lib/softhsm/libsofthsm2.so"
            )
        })
    }
}

fn decoded(text: &str) -> anyhow::Result<String> {
    // A URI percent-encodes as a form does, but for the plus sign, which stands for itself.
    let form = format!("v={}", text.replace('+', "%2B").replace('&', "%26"));
    let mut pairs = url::form_urlencoded::parse(form.as_bytes());
    Ok(pairs.next().context("an empty value in the token's URI")?.1.into_owned())
}

impl TokenKey {
    /// Opens the key that `uri` names; `pin` is asked once the token is found.
    pub(crate) fn open(
        uri: &str,
        pin: impl Fn(&str) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let name = Name::parse(uri)?;
        let module = name.module()?;
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
        let secret = AuthPin::new(pin(&format!("PIN of token {}", name.token))?.into());
        match session.login(UserType::User, Some(&secret)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => (),
            Err(error) => {
                return Err(error).with_context(|| format!("token {} refuses the PIN", name.token));
            }
        }
        let key = object(&session, &name, ObjectClass::PRIVATE_KEY)?;
        let public = public(&session, object(&session, &name, ObjectClass::PUBLIC_KEY)?)?;
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

fn object(session: &Session, name: &Name, class: ObjectClass) -> anyhow::Result<ObjectHandle> {
    let label = Attribute::Label(name.object.as_bytes().to_vec());
    let found = session.find_objects(&[Attribute::Class(class), label])?;
    match found.as_slice() {
        [object] => Ok(*object),
        [] => bail!("token {} has no {class} {}", name.token, name.object),
        _ => bail!("token {} has several {class} {}", name.token, name.object),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_token_object_and_library() {
        let name = Name::parse("pkcs11:token=on%20call;object=k1?module-path=/lib/x.so").unwrap();
        assert_eq!((name.token.as_str(), name.object.as_str()), ("on call", "k1"));
        assert_eq!(name.module, Some(PathBuf::from("/lib/x.so")));
    }

    #[test]
    fn a_uri_that_says_more_than_is_understood_is_refused() {
        for uri in ["pkcs11:token=a", "pkcs11:object=a", "pkcs11:token=a;token=b;object=c"] {
            assert!(Name::parse(uri).is_err(), "{uri}");
        }
        let pin = Name::parse("pkcs11:token=a;object=b?pin-value=1234").unwrap_err();
        assert!(pin.to_string().contains("pin-value"), "{pin}");
    }
}

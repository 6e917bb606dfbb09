//! Secrets that must be read again, such as the key of an authenticator, lie in the database under a key that does not lie there: whoever
//! has the database alone, or a backup of it, has none of them.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealift_protocol::id::TenantId;

use super::AuthError;
use crate::store::TenantStore;
use crate::trust::keys::{self, KeyError};

/// Tells a sealed text from what stood there before, and this way of sealing from later ones.
const PREFIX: &str = "sealed1:";

/// What a sealed text is for: one that was sealed for one purpose opens for no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The key of an operator's authenticator.
    Totp,
    /// Where alerts are sent, and with which secret.
    Channel,
    /// The key that opens what devices keep for people to look at.
    Capture,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Totp => "sealift-totp-v1",
            Self::Channel => "sealift-channel-v1",
            Self::Capture => "sealift-capture-v1",
        }
    }
}

/// Seals and opens; cheap to clone.
#[derive(Clone)]
pub(crate) struct Seal {
    key: Arc<LessSafeKey>,
    tenant: TenantId,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl Seal {
    /// Reads the key from the folder of keys; a server of before gets one.
    pub(crate) fn open_in(folder: &Path, tenant: &TenantId) -> Result<Self, KeyError> {
        let path = folder.join(keys::SECRETS);
        if !path.exists() {
            let written = keys::write_new(&path, &STANDARD.encode(keys::seed()?));
            // Another process of this server may have been quicker.
            if !path.exists() {
                written?;
            }
        }
        let text = keys::read_secret(&path)?;
        let form = || KeyError::Form(path.clone(), "not 32 bytes in base64".into());
        let bytes = STANDARD.decode(text.trim()).map_err(|_| form())?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| form())?;
        Ok(Self { key: Arc::new(LessSafeKey::new(key)), tenant: tenant.clone() })
    }

    /// Seals a secret of somebody. RFC 8439, 2.8, and RFC 5116, 3.2: a nonce is never used twice under one key. Rule: it is random, of
    /// 96 bits, for a key that seals a few thousand times in its life.
    pub(crate) fn seal(
        &self,
        purpose: Purpose,
        owner: &str,
        secret: &str,
    ) -> Result<String, AuthError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(AuthError::Random)?;
        let mut bytes = secret.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(self.context(purpose, owner)),
                &mut bytes,
            )
            .map_err(|_| AuthError::Seal)?;
        Ok(format!("{PREFIX}{}", STANDARD.encode([&nonce[..], &bytes].concat())))
    }

    /// Opens what was sealed for `owner`; none of what was sealed for somebody else, with another key, or changed since.
    pub(crate) fn open(&self, purpose: Purpose, owner: &str, sealed: &str) -> Option<String> {
        let bytes = STANDARD.decode(sealed.strip_prefix(PREFIX)?).ok()?;
        let (nonce, rest) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut rest = rest.to_vec();
        let aad = Aad::from(self.context(purpose, owner));
        let secret = self.key.open_in_place(nonce, aad, &mut rest).ok()?;
        String::from_utf8(secret.to_vec()).ok()
    }

    /// Rule: a sealed text is good only where it was put and for what it is, so that nobody with the database can give an operator
    /// another's authenticator.
    fn context(&self, purpose: Purpose, owner: &str) -> String {
        format!("{}\n{}\n{owner}", purpose.as_str(), self.tenant)
    }

    /// Seals what a server of before has written in plain text. Returns how many secrets that were.
    pub(crate) async fn seal_all(&self, store: &TenantStore) -> Result<u64, AuthError> {
        let mut sealed = 0;
        for account in store.accounts().await? {
            let Some((key, _)) = &account.totp else { continue };
            let name = &account.operator.name;
            if key.starts_with(PREFIX) {
                if self.open(Purpose::Totp, name, key).is_none() {
                    let help =
                        "put back the newest `keys` folder, or `fleet-server operator reset`";
                    tracing::error!(operator = name, help, "an authenticator's key cannot be read");
                }
                continue;
            }
            let text = self.seal(Purpose::Totp, name, key)?;
            let mut change = store.begin().await?;
            sealed += change.seal_totp_key(name, key, &text).await?;
            change.commit().await?;
        }
        if sealed > 0 {
            tracing::info!(sealed, "keys of authenticators that lay in plain text are sealed");
        }
        Ok(sealed)
    }
}

#[cfg(test)]
impl Seal {
    /// One with a key of its own.
    pub(crate) fn of_test(tenant: &TenantId) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::open_in(folder.path(), tenant).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantId {
        TenantId::parse("main").unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_by_its_owners_name_alone() {
        let seal = Seal::of_test(&tenant());
        let sealed = seal.seal(Purpose::Totp, "ann", "MZXW6YTBOI").unwrap();

        assert!(!sealed.contains("MZXW6YTBOI"));
        assert_eq!(seal.open(Purpose::Totp, "ann", &sealed).as_deref(), Some("MZXW6YTBOI"));
        assert_eq!(seal.open(Purpose::Totp, "eve", &sealed), None);
        assert_eq!(seal.open(Purpose::Channel, "ann", &sealed), None);
        assert_ne!(
            seal.seal(Purpose::Totp, "ann", "MZXW6YTBOI").unwrap(),
            sealed,
            "each has a nonce of its own"
        );
    }

    #[test]
    fn another_key_another_tenant_a_changed_text_and_plain_text_open_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let seal = Seal::open_in(folder.path(), &tenant()).unwrap();
        let sealed = seal.seal(Purpose::Totp, "ann", "MZXW6YTBOI").unwrap();
        let other = Seal::open_in(folder.path(), &TenantId::parse("other").unwrap()).unwrap();
        let changed = format!("{PREFIX}B{}", &sealed[PREFIX.len() + 1..]);

        assert_eq!(Seal::of_test(&tenant()).open(Purpose::Totp, "ann", &sealed), None);
        assert_eq!(other.open(Purpose::Totp, "ann", &sealed), None);
        assert_eq!(seal.open(Purpose::Totp, "ann", &changed), None);
        assert_eq!(seal.open(Purpose::Totp, "ann", "MZXW6YTBOI"), None);
        let again = Seal::open_in(folder.path(), &tenant()).unwrap();
        assert_eq!(again.open(Purpose::Totp, "ann", &sealed).as_deref(), Some("MZXW6YTBOI"));
    }
}

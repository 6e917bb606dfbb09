//! How a device gets its identity: a one-time token and a request signed by the device's own key become a certificate.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sealift_protocol::api::{
    EnrolRequest, EnrolResponse, EnrolTokenCreated, EnrolTokenNew, EnrolTokenView,
};
use sealift_protocol::digest::{Digest, encode_hex};
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::limits::LABELS_MAX;
use subtle::ConstantTimeEq as _;

use crate::audit::Deed;
use crate::certificate::{Authority, CertificateError, Identity, Request, RequestError};
use crate::filter;
use crate::store::enrol::{Given, NewToken, Taken, Token};
use crate::store::{StoreError, TenantStore};

pub(crate) mod claims;
mod limiter;

use limiter::Limiter;

/// Names the form of the token; another form gets another name.
const TOKEN_FORM: &str = "sle1";

/// 128 bits cannot be guessed.
const SECRET_BYTES: usize = 16;

/// Devices that one token may let in: a factory batch.
const USES_MAX: u32 = 100_000;

/// An hour is enough to carry a token to a device.
const LIFE_DEFAULT_S: u32 = 3_600;

/// A token for a factory batch lives a year at most.
const LIFE_MAX_S: u32 = 365 * 24 * 3_600;

/// Why a device was not enrolled, or a token not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    /// No such token: guessed, revoked, mistyped, or of another server.
    #[error("the enrolment token is not known")]
    Unknown,
    /// Too late.
    #[error("the enrolment token has expired")]
    Expired,
    /// Every use is used.
    #[error("the enrolment token was used before")]
    Used,
    /// Bound to another device.
    #[error("the enrolment token is for another device than {0}")]
    Bound(DeviceId),
    /// The id is taken.
    #[error("a device {0} is enrolled already")]
    Taken(DeviceId),
    /// The certificate request.
    #[error("the certificate request of {device} is refused: {source}")]
    Request {
        /// Who asked.
        device: DeviceId,
        /// Why.
        #[source]
        source: RequestError,
    },
    /// The authority does not sign.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Too many refusals.
    #[error("too many enrolments from {0} at once, or too many refused")]
    TooMany(IpAddr),
    /// A token with impossible terms.
    #[error("{0}")]
    Terms(&'static str),
    /// No random bytes from the system.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EnrolError {
    /// The stable code of the refusal; none where the server is at fault.
    pub(crate) const fn code(&self) -> Option<&'static str> {
        match self {
            Self::Unknown => Some("enrol.token-unknown"),
            Self::Expired => Some("enrol.token-expired"),
            Self::Used => Some("enrol.token-used"),
            Self::Bound(_) => Some("enrol.token-bound"),
            Self::Taken(_) => Some("enrol.device-taken"),
            Self::Request { source, .. } => Some(source.code()),
            Self::TooMany(_) => Some("enrol.too-many"),
            Self::Terms(_) => Some("enrol.terms"),
            Self::Certificate(_) | Self::Random(_) | Self::Store(_) => None,
        }
    }

    /// What to do about it.
    pub(crate) const fn help(&self) -> Option<&'static str> {
        match self {
            Self::Unknown | Self::Expired | Self::Used => {
                Some("make a new token with `fleetctl enrol create`")
            }
            Self::Bound(_) => Some("give the device id that the token was made for"),
            Self::Taken(_) => {
                Some("take another id, or make a token with `--device` to replace the device")
            }
            Self::TooMany(_) => Some("wait a minute"),
            Self::Request { .. }
            | Self::Certificate(_)
            | Self::Terms(_)
            | Self::Random(_)
            | Self::Store(_) => None,
        }
    }
}

/// Makes tokens and lets devices in.
pub(crate) struct Enrolment {
    store: TenantStore,
    authority: Arc<Authority>,
    places: Places,
    limiter: Limiter,
}

/// What a device is told of the server.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The devices' HTTPS URL.
    pub(crate) url: String,
    /// `host:port` of the broker.
    pub(crate) mqtt: String,
    /// The first TUF root, as signed.
    pub(crate) first_root: Vec<u8>,
}

impl Enrolment {
    /// Enrols devices of the store's tenant.
    pub(crate) fn new(store: TenantStore, authority: Arc<Authority>, places: Places) -> Self {
        Self { store, authority, places, limiter: Limiter::default() }
    }

    /// The devices' HTTPS URL.
    pub(crate) fn url(&self) -> &str {
        &self.places.url
    }

    /// Makes a token; the answer is the only time that it is shown.
    pub(crate) async fn create_token(
        &self,
        terms: EnrolTokenNew,
        by: &str,
        now: UnixMillis,
    ) -> Result<EnrolTokenCreated, EnrolError> {
        let (secret, token) = new_token(terms, now)?;
        let mut change = self.store.begin().await?;
        change.add_enrol_token(&token, by, now).await?;
        let detail = format!("{} uses until {}", token.uses, token.expires_at);
        change.audit(&deed((by, "enrol-token.create"), &token.id, &detail), now).await?;
        change.commit().await?;
        Ok(EnrolTokenCreated {
            id: token.id,
            token: self.write_token(&secret),
            expires_at: token.expires_at,
            url: self.places.url.clone(),
        })
    }

    /// All tokens that were not revoked, newest first.
    pub(crate) async fn tokens(&self) -> Result<Vec<EnrolTokenView>, StoreError> {
        self.store.enrol_tokens().await
    }

    /// Revokes a token. Returns whether it was there.
    pub(crate) async fn revoke_token(
        &self,
        id: &str,
        by: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let mut change = self.store.begin().await?;
        let was_there = change.remove_enrol_token(id).await?;
        if was_there {
            change.audit(&deed((by, "enrol-token.revoke"), id, ""), now).await?;
            change.commit().await?;
        }
        Ok(was_there)
    }

    /// Lets a device in, or says why not. Refusals are counted by address.
    pub(crate) async fn enrol(
        &self,
        request: EnrolRequest,
        from: IpAddr,
        now: UnixMillis,
    ) -> Result<EnrolResponse, EnrolError> {
        let attempt = self.limiter.begin(from, now).ok_or(EnrolError::TooMany(from))?;
        let device = request.device.clone();
        let outcome = self.try_enrol(request, now).await;
        if let Err(error) = &outcome
            && let Some(code) = error.code()
        {
            attempt.refuse();
            tracing::warn!(%device, %from, code, help = error.help(), "enrolment refused");
            self.note_refusal((&device, code), from, now).await?;
        }
        outcome
    }

    async fn note_refusal(
        &self,
        (device, code): (&DeviceId, &str),
        from: IpAddr,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        if !self.limiter.is_audited(now) {
            return Ok(());
        }
        let detail = format!("{code} from {from}");
        let mut change = self.store.begin().await?;
        let deed = deed(("unknown", "device.enrol-refused"), device.as_str(), &detail);
        change.audit(&deed, now).await?;
        change.commit().await
    }

    async fn try_enrol(
        &self,
        request: EnrolRequest,
        now: UnixMillis,
    ) -> Result<EnrolResponse, EnrolError> {
        let hash = read_token(&request.token).ok_or(EnrolError::Unknown)?;
        let token = self.store.enrol_token(hash).await?.ok_or(EnrolError::Unknown)?;
        let device = request.device;
        let is_known = self.store.is_device_known(&device).await?;
        check(&token, hash, &device, is_known, now)?;
        let identity = Identity { tenant: self.store.tenant().clone(), device: device.clone() };
        let own = [device.as_str(), &identity.common_name()];
        let request = Request::read(&request.csr_pem, &own)
            .map_err(|source| EnrolError::Request { device: device.clone(), source })?;
        let certificate = self.authority.issue_device(&identity, &request, now)?;

        let mut change = self.store.begin().await?;
        if !change.use_enrol_token(&token.id, now).await? {
            return Err(EnrolError::Used);
        }
        let is_bound = token.device.is_some();
        let given = Given {
            labels: &token.labels,
            taken: if is_bound { Taken::Replaced } else { Taken::LeftAlone },
        };
        if !change.enrol_device(&device, &certificate, given, now).await? {
            return Err(EnrolError::Taken(device)); // by another token, at the same moment
        }
        let actor = format!("device:{device}");
        let detail = format!("token {}, certificate {}", token.id, certificate.serial);
        change.audit(&deed((&actor, "device.enrol"), device.as_str(), &detail), now).await?;
        change.commit().await?;
        tracing::info!(%device, token = token.id, "device enrolled");
        Ok(EnrolResponse {
            tenant: identity.tenant,
            device,
            certificate_pem: certificate.chain_pem,
            ca_pem: self.authority.certificate_pem().to_owned(),
            tuf_root: String::from_utf8_lossy(&self.places.first_root).into_owned(),
            mqtt: self.places.mqtt.clone(),
            labels: token.labels,
        })
    }

    fn write_token(&self, secret: &[u8; SECRET_BYTES]) -> String {
        let ca = self.authority.digest().hex();
        let root = Digest::of(&self.places.first_root).hex();
        format!("{TOKEN_FORM}.{}.{ca}.{root}", URL_SAFE_NO_PAD.encode(secret))
    }
}

fn deed<'a>((actor, action): (&'a str, &'a str), subject: &'a str, detail: &'a str) -> Deed<'a> {
    Deed { actor, action, subject, reason: None, detail }
}

fn new_token(
    terms: EnrolTokenNew,
    now: UnixMillis,
) -> Result<([u8; SECRET_BYTES], NewToken), EnrolError> {
    let uses = terms.uses.unwrap_or(1);
    let life_s = terms.expires_in_s.unwrap_or(LIFE_DEFAULT_S);
    if uses == 0 || uses > USES_MAX {
        return Err(EnrolError::Terms("a token has 1 to 100,000 uses"));
    }
    if life_s == 0 || life_s > LIFE_MAX_S {
        return Err(EnrolError::Terms("a token lives a second to a year"));
    }
    if terms.device.is_some() && uses != 1 {
        return Err(EnrolError::Terms("a token for one device has one use"));
    }
    check_labels(&terms.labels)?;
    let mut random = [0; SECRET_BYTES + 4];
    getrandom::fill(&mut random).map_err(EnrolError::Random)?;
    let mut secret = [0; SECRET_BYTES];
    let (head, tail) = random.split_at(SECRET_BYTES);
    secret.copy_from_slice(head);
    let token = NewToken {
        id: format!("t-{}", encode_hex(tail)),
        hash: Digest::of(&secret),
        labels: terms.labels,
        device: terms.device,
        uses,
        expires_at: now.plus(i64::from(life_s) * 1_000),
    };
    Ok((secret, token))
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), EnrolError> {
    if labels.len() > LABELS_MAX {
        return Err(EnrolError::Terms("a device has at most 64 labels"));
    }
    if !labels.iter().all(|(name, value)| filter::is_label(name, value)) {
        return Err(EnrolError::Terms(filter::LABEL_RULE));
    }
    Ok(())
}

/// The hash of a token's secret. The digests in it are for the device to check, not for the server.
fn read_token(token: &str) -> Option<Digest> {
    let mut parts = token.split('.');
    if parts.next() != Some(TOKEN_FORM) {
        return None;
    }
    let secret = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
    (secret.len() == SECRET_BYTES).then(|| Digest::of(&secret))
}

/// Rule: the token is the one presented, in time, unused, and for this device; an id that is taken needs a token bound to it.
fn check(
    token: &Token,
    hash: Digest,
    device: &DeviceId,
    is_known: bool,
    now: UnixMillis,
) -> Result<(), EnrolError> {
    // The lookup was by this hash; compared once more so that no collation of the database decides.
    if !bool::from(token.hash.as_bytes().ct_eq(hash.as_bytes())) {
        return Err(EnrolError::Unknown);
    }
    if token.expires_at <= now {
        return Err(EnrolError::Expired);
    }
    if token.uses_left == 0 {
        return Err(EnrolError::Used);
    }
    match &token.device {
        Some(bound) if bound != device => Err(EnrolError::Bound(device.clone())),
        None if is_known => Err(EnrolError::Taken(device.clone())),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn device(id: &str) -> DeviceId {
        DeviceId::parse(id).unwrap()
    }

    fn terms() -> EnrolTokenNew {
        EnrolTokenNew { labels: BTreeMap::new(), device: None, uses: None, expires_in_s: None }
    }

    fn token(device: Option<DeviceId>) -> Token {
        let (_, new) = new_token(EnrolTokenNew { device, ..terms() }, NOW).unwrap();
        let NewToken { id, hash, labels, device, uses, expires_at } = new;
        Token { id, hash, labels, device, uses_left: uses, expires_at }
    }

    fn code(token: &Token, id: &str, is_known: bool, now: UnixMillis) -> &'static str {
        match check(token, token.hash, &device(id), is_known, now) {
            Ok(()) => "ok",
            Err(error) => error.code().unwrap(),
        }
    }

    #[test]
    fn a_token_is_for_one_use_in_time_and_for_its_device() {
        let free = token(None);
        assert_eq!(code(&free, "cam-1", false, NOW), "ok");
        assert_eq!(code(&free, "cam-1", false, free.expires_at), "enrol.token-expired");
        assert_eq!(code(&Token { uses_left: 0, ..free }, "cam-1", false, NOW), "enrol.token-used");
        let bound = token(Some(device("cam-1")));
        assert_eq!(code(&bound, "cam-2", false, NOW), "enrol.token-bound");
    }

    #[test]
    fn an_id_that_is_taken_needs_a_token_bound_to_it() {
        assert_eq!(code(&token(None), "cam-1", true, NOW), "enrol.device-taken");
        assert_eq!(code(&token(Some(device("cam-1"))), "cam-1", true, NOW), "ok");
    }

    #[test]
    fn only_whole_tokens_of_this_form_are_looked_up() {
        let secret = URL_SAFE_NO_PAD.encode([7; SECRET_BYTES]);
        assert_eq!(read_token(&format!("sle1.{secret}.a.b")), Some(Digest::of(&[7; 16])));
        for text in ["", "sle1", "sle2.AAAA", "sle1.AAAA.a.b", "sle1.!!!"] {
            assert_eq!(read_token(text), None, "{text}");
        }
    }

    #[test]
    fn impossible_terms_and_labels_are_refused() {
        let refused = |terms| new_token(terms, NOW).is_err();
        assert!(refused(EnrolTokenNew { uses: Some(0), ..terms() }));
        assert!(refused(EnrolTokenNew { uses: Some(USES_MAX + 1), ..terms() }));
        assert!(refused(EnrolTokenNew { expires_in_s: Some(0), ..terms() }));
        assert!(refused(EnrolTokenNew { device: Some(device("cam-1")), uses: Some(2), ..terms() }));
        for (key, value) in [("Site", "x"), ("", "x"), ("a b", "x"), ("site", "a\nb")] {
            let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            assert!(refused(EnrolTokenNew { labels, ..terms() }), "{key}={value}");
        }
    }
}

//! Enrolment of batches: a certificate that all devices of a batch carry lets each of them ask, and nothing more.
//!
//! ```text
//! asked ──▶ waiting ── approved by somebody ──▶ approved ── device asks again ──▶ enrolled
//!   │          └────── denied ──▶ denied                                             ▲
//!   └── its serial number is on the list, unused ────────────────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sealift_protocol::api::{
    ClaimAnswer, ClaimRequest, EnrolClaimCreated, EnrolClaimNew, EnrolClaimView, EnrolRequestState,
    EnrolRequestView, EnrolResponse, EnrolSerialView, EnrolSerialsNew,
};
use sealift_protocol::digest::{Digest, encode_hex};
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::limits::REASON_CHARS_MAX;

use super::limiter::Limiter;
use super::{Places, check_labels, deed};
use crate::audit::Deed;
use crate::certificate::{Authority, Claim, Identity, Presented, Request, Timeliness, Whose};
use crate::filter;
use crate::store::claims::{Ask, Decision, NewAsk, NewClaim};
use crate::store::enrol::{Given, Taken};
use crate::store::{StoreError, TenantStore};

mod refusal;

pub(crate) use refusal::ClaimError;

/// Devices that one claim may let in.
const PLACES_MAX: u32 = 100_000;

/// A batch is sold within a season.
const LIFE_DEFAULT_S: u32 = 90 * 24 * 3_600;

/// A batch that lies in a warehouse is made ready again after two years.
const LIFE_MAX_S: u32 = 2 * 365 * 24 * 3_600;

/// Requests that may wait by one claim: whoever has its key must not fill the list of those who decide.
const WAITING_MAX: u64 = 1_000;

/// Characters of a batch's name and of a serial number.
const NAME_CHARS_MAX: usize = 80;

/// Serial numbers in one request: 2 MB.
const SERIALS_MAX: usize = 10_000;

/// Claims, those who ask by them, and serial numbers.
pub(crate) struct Claims {
    store: TenantStore,
    authority: Arc<Authority>,
    places: Places,
    limiter: Limiter,
}

/// Who asks, once the claim is known to be good.
struct Asking<'a> {
    claim: &'a EnrolClaimView,
    request: Request,
    device: DeviceId,
    serial: Option<EnrolSerialView>,
    given_serial: Option<&'a str>,
    labels: BTreeMap<String, String>,
}

impl Claims {
    /// Claims of the store's tenant.
    pub(crate) fn new(store: TenantStore, authority: Arc<Authority>, places: Places) -> Self {
        Self { store, authority, places, limiter: Limiter::default() }
    }

    /// Makes a claim for the key of a certificate request.
    pub(crate) async fn create(
        &self,
        new: EnrolClaimNew,
        by: &str,
        now: UnixMillis,
    ) -> Result<EnrolClaimCreated, ClaimError> {
        let life_s = new.expires_in_s.unwrap_or(LIFE_DEFAULT_S);
        check_terms(&new, life_s)?;
        let request = Request::read(&new.csr_pem, &[])?;
        let id = random_id("c")?;
        let claim = Claim { tenant: self.store.tenant().clone(), id: id.clone() };
        let expires_at = now.plus(i64::from(life_s) * 1_000);
        let issued = self.authority.issue_claim(&claim, &request, now, expires_at)?;
        let new = NewClaim {
            id: id.clone(),
            batch: new.batch,
            labels: new.labels,
            certificate_serial: issued.serial,
            places: new.places,
            expires_at,
        };
        let detail = format!("batch {}, {} places until {expires_at}", new.batch, new.places);
        let mut change = self.store.begin().await?;
        change.add_claim(&new, by, now).await?;
        change.audit(&deed((by, "enrol-claim.create"), &id, &detail), now).await?;
        change.commit().await?;
        Ok(EnrolClaimCreated {
            id,
            certificate_pem: issued.chain_pem,
            ca_sha256: self.authority.digest(),
            tuf_root_sha256: Digest::of(&self.places.first_root),
            url: self.places.url.clone(),
            expires_at,
        })
    }

    /// All claims, newest first.
    pub(crate) async fn list(&self) -> Result<Vec<EnrolClaimView>, StoreError> {
        self.store.claims().await
    }

    /// Revokes a claim; devices that are enrolled stay. Returns whether it was good before.
    pub(crate) async fn revoke(
        &self,
        id: &str,
        by: &str,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let mut change = self.store.begin().await?;
        let was_good = change.revoke_claim(id, now).await?;
        if was_good {
            change.audit(&deed((by, "enrol-claim.revoke"), id, ""), now).await?;
            change.commit().await?;
        }
        Ok(was_good)
    }

    /// Answers a device that asks by a claim. Refusals are counted by address.
    pub(crate) async fn ask(
        &self,
        presented: Option<&Presented>,
        request: &ClaimRequest,
        from: IpAddr,
        now: UnixMillis,
    ) -> Result<ClaimAnswer, ClaimError> {
        let attempt = self.limiter.begin(from, now).ok_or(ClaimError::TooMany(from))?;
        let outcome = self.try_ask(presented, request, from, now).await;
        if let Err(error) = &outcome
            && let Some(code) = error.code()
        {
            attempt.refuse();
            tracing::warn!(%from, code, %error, help = error.help(), "claim refused");
            if self.limiter.is_audited(now) {
                let detail = format!("{code} from {from}: {error}");
                let deed = deed(("unknown", "device.enrol-refused"), "claim", &detail);
                let mut change = self.store.begin().await?;
                change.audit(&deed, now).await?;
                change.commit().await?;
            }
        }
        outcome
    }

    async fn try_ask(
        &self,
        presented: Option<&Presented>,
        request: &ClaimRequest,
        from: IpAddr,
        now: UnixMillis,
    ) -> Result<ClaimAnswer, ClaimError> {
        let claim = self.good_claim(presented, now).await?;
        let asking = self.read(&claim, request).await?;
        let key = asking.request.key();
        let ask = match self.store.ask(&claim.id, key).await? {
            Some(ask) => ask,
            None => self.keep(&asking, from, now).await?,
        };
        match ask.state {
            EnrolRequestState::Denied => {
                let reason = ask.reason.unwrap_or_else(|| "no reason given".to_owned());
                Err(ClaimError::Denied(ask.device, reason))
            }
            EnrolRequestState::Enrolled => {
                let certificate_pem = ask.certificate.unwrap_or_default();
                Ok(self.enrolled(ask.device, ask.labels, certificate_pem))
            }
            EnrolRequestState::Approved => self.admit(&asking, ask, "approval", now).await,
            EnrolRequestState::Waiting if asking.serial.is_some() => {
                self.admit(&asking, ask, "serial number", now).await
            }
            EnrolRequestState::Waiting => Ok(ClaimAnswer::Waiting { id: ask.id }),
        }
    }

    /// Rule: the certificate is a claim's that this server has made, in time, and not revoked.
    async fn good_claim(
        &self,
        presented: Option<&Presented>,
        now: UnixMillis,
    ) -> Result<EnrolClaimView, ClaimError> {
        let presented = presented.ok_or(ClaimError::NoClaim)?;
        let Whose::Claim(named) = &presented.whose else { return Err(ClaimError::NoClaim) };
        let claim = self.store.claim(&presented.serial).await?;
        let claim = claim.filter(|claim| named.id == claim.id).ok_or(ClaimError::NoClaim)?;
        if named.tenant != *self.store.tenant() {
            return Err(ClaimError::NoClaim);
        }
        if claim.revoked_at.is_some() {
            return Err(ClaimError::Revoked(claim.batch));
        }
        if presented.timeliness(now) != Timeliness::Timely || claim.expires_at <= now {
            return Err(ClaimError::Expired(claim.batch));
        }
        Ok(claim)
    }

    /// Rule: a serial number that is on the list counts for its batch and its id only.
    async fn read<'a>(
        &self,
        claim: &'a EnrolClaimView,
        request: &'a ClaimRequest,
    ) -> Result<Asking<'a>, ClaimError> {
        let given_serial = request.serial.as_deref();
        if given_serial.is_some_and(|serial| !is_name(serial)) {
            return Err(ClaimError::Terms("a serial number has 1 to 80 printable characters"));
        }
        let serial = match given_serial {
            Some(serial) => self.store.serial(serial).await?,
            None => None,
        };
        let own: Vec<&str> = request.device.iter().map(DeviceId::as_str).collect();
        let csr = Request::read(&request.csr_pem, &own)?;
        let mut labels = claim.labels.clone();
        let mut device = request.device.clone();
        if let Some(listed) = &serial {
            let is_of_batch = listed.batch.as_ref().is_none_or(|batch| *batch == claim.batch);
            let is_of_device = match (&listed.device, &device) {
                (Some(bound), Some(given)) => bound == given,
                (Some(_) | None, _) => true,
            };
            if !is_of_batch || !is_of_device {
                return Err(ClaimError::SerialBound(listed.serial.clone()));
            }
            labels.extend(listed.labels.clone());
            device = listed.device.clone().or(device);
        }
        let device = device.or_else(|| DeviceId::parse(&given_serial?.to_lowercase()).ok());
        let device = device.ok_or(ClaimError::Terms(
            "give the id that the device would like: its serial number makes none",
        ))?;
        Ok(Asking { claim, request: csr, device, serial, given_serial, labels })
    }

    /// Keeps a request that came for the first time.
    async fn keep(
        &self,
        asking: &Asking<'_>,
        from: IpAddr,
        now: UnixMillis,
    ) -> Result<Ask, ClaimError> {
        let Asking { claim, device, serial, .. } = asking;
        if self.store.is_device_known(device).await? {
            return Err(ClaimError::Taken(device.clone()));
        }
        if let Some(used) = serial.as_ref().filter(|serial| serial.used_at.is_some()) {
            return Err(ClaimError::SerialUsed(used.serial.clone()));
        }
        if self.store.count_waiting(&claim.id).await? >= WAITING_MAX {
            return Err(ClaimError::Queue(claim.batch.clone()));
        }
        let (id, address) = (random_id("q")?, from.to_string());
        let ask = NewAsk {
            id: &id,
            claim: &claim.id,
            key: asking.request.key(),
            device,
            serial: asking.given_serial,
            address: &address,
            labels: &asking.labels,
        };
        let actor = format!("claim:{}", claim.id);
        let detail = format!("{device} of batch {} from {from}", claim.batch);
        let mut change = self.store.begin().await?;
        if change.add_ask(&ask, now).await? {
            change.audit(&deed((&actor, "enrol-request.create"), &id, &detail), now).await?;
            change.commit().await?;
            tracing::info!(%device, batch = claim.batch, id, "device asks to be enrolled");
        }
        let kept = self.store.ask(&claim.id, asking.request.key()).await?;
        kept.ok_or(ClaimError::Store(StoreError::Changed("the request")))
    }

    /// Enrols the device: its place, its serial number, its id and its certificate in one decision.
    async fn admit(
        &self,
        asking: &Asking<'_>,
        ask: Ask,
        by: &str,
        now: UnixMillis,
    ) -> Result<ClaimAnswer, ClaimError> {
        let Asking { claim, request, .. } = asking;
        let Ask { id, device, labels, .. } = ask;
        let tenant = self.store.tenant().clone();
        let identity = Identity { tenant, device: device.clone() };
        let issued = self.authority.issue_device(&identity, request, now)?;
        let mut change = self.store.begin().await?;
        if !change.take_place(&claim.id, now).await? {
            return Err(ClaimError::Full(claim.batch.clone()));
        }
        if let Some(listed) = &asking.serial
            && !change.use_serial(&listed.serial, &device, now).await?
        {
            return Err(ClaimError::SerialUsed(listed.serial.clone()));
        }
        // The list may have come after the request was kept.
        let labels = if asking.serial.is_some() { asking.labels.clone() } else { labels };
        let given = Given { labels: &labels, taken: Taken::LeftAlone };
        if !change.enrol_device(&device, &issued, given, now).await? {
            return Err(ClaimError::Taken(device));
        }
        if !change.finish_ask(&id, &device, &issued.chain_pem).await? {
            return Err(ClaimError::Store(StoreError::Changed("the request")));
        }
        let actor = format!("device:{device}");
        let detail =
            format!("claim {} by {by}, request {id}, certificate {}", claim.id, issued.serial);
        change.audit(&deed((&actor, "device.enrol"), device.as_str(), &detail), now).await?;
        change.commit().await?;
        tracing::info!(%device, batch = claim.batch, by, "device enrolled");
        Ok(self.enrolled(device, labels, issued.chain_pem))
    }

    fn enrolled(
        &self,
        device: DeviceId,
        labels: BTreeMap<String, String>,
        certificate_pem: String,
    ) -> ClaimAnswer {
        ClaimAnswer::Enrolled(Box::new(EnrolResponse {
            tenant: self.store.tenant().clone(),
            device,
            certificate_pem,
            ca_pem: self.authority.certificate_pem().to_owned(),
            tuf_root: String::from_utf8_lossy(&self.places.first_root).into_owned(),
            mqtt: self.places.mqtt.clone(),
            labels,
        }))
    }

    /// Requests in a state, oldest first.
    pub(crate) async fn requests(
        &self,
        state: EnrolRequestState,
    ) -> Result<Vec<EnrolRequestView>, StoreError> {
        self.store.asks(state).await
    }

    /// Approves a request, or denies it with a reason. Returns whether there was one to decide on.
    pub(crate) async fn decide(
        &self,
        id: &str,
        denied: Option<&str>,
        by: &str,
        now: UnixMillis,
    ) -> Result<bool, ClaimError> {
        let reason = denied.map(str::trim);
        if reason.is_some_and(|it| it.is_empty() || it.chars().count() > REASON_CHARS_MAX) {
            return Err(ClaimError::Terms("a reason has 1 to 400 characters"));
        }
        let (state, action) = match reason {
            None => (EnrolRequestState::Approved, "enrol-request.approve"),
            Some(_) => (EnrolRequestState::Denied, "enrol-request.deny"),
        };
        let mut change = self.store.begin().await?;
        if !change.decide_ask(id, Decision { state, by, reason }, now).await? {
            return Ok(false);
        }
        let deed = Deed { actor: by, action, subject: id, reason, detail: "" };
        change.audit(&deed, now).await?;
        change.commit().await?;
        Ok(true)
    }

    /// Registers serial numbers, all or none; returns how many.
    pub(crate) async fn add_serials(
        &self,
        new: &EnrolSerialsNew,
        by: &str,
        now: UnixMillis,
    ) -> Result<u64, ClaimError> {
        if new.serials.is_empty() || new.serials.len() > SERIALS_MAX {
            return Err(ClaimError::Terms("1 to 10,000 serial numbers are added at a time"));
        }
        let batch = new.batch.as_deref();
        if batch.is_some_and(|batch| !is_name(batch)) {
            return Err(ClaimError::Terms("a batch has 1 to 80 printable characters"));
        }
        let mut change = self.store.begin().await?;
        for serial in &new.serials {
            if !is_name(&serial.serial) {
                return Err(ClaimError::Terms("a serial number has 1 to 80 printable characters"));
            }
            check_labels(&serial.labels).map_err(|_| ClaimError::Terms(filter::LABEL_RULE))?;
            if !change.add_serial(serial, batch, by, now).await? {
                return Err(ClaimError::SerialKnown(serial.serial.clone()));
            }
        }
        let detail = format!("{} serial numbers", new.serials.len());
        let subject = batch.unwrap_or("any batch");
        change.audit(&deed((by, "enrol-serials.add"), subject, &detail), now).await?;
        change.commit().await?;
        Ok(u64::try_from(new.serials.len()).unwrap_or(u64::MAX))
    }

    /// Serial numbers after one, and how many there are.
    pub(crate) async fn serials(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<(Vec<EnrolSerialView>, u64), StoreError> {
        Ok((self.store.serials(after, limit).await?, self.store.count_serials().await?))
    }
}

fn check_terms(new: &EnrolClaimNew, life_s: u32) -> Result<(), ClaimError> {
    if new.places == 0 || new.places > PLACES_MAX {
        return Err(ClaimError::Terms("a claim has 1 to 100,000 places"));
    }
    if life_s == 0 || life_s > LIFE_MAX_S {
        return Err(ClaimError::Terms("a claim lives a second to two years"));
    }
    if !is_name(&new.batch) {
        return Err(ClaimError::Terms("a batch has 1 to 80 printable characters"));
    }
    check_labels(&new.labels).map_err(|_| ClaimError::Terms(filter::LABEL_RULE))
}

/// Names are shown to people and written to the log: nothing invisible, nothing endless.
fn is_name(text: &str) -> bool {
    let is_plain = |character: char| !character.is_control() && character != '"';
    (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && text.chars().all(is_plain)
}

fn random_id(kind: &str) -> Result<String, ClaimError> {
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(ClaimError::Random)?;
    Ok(format!("{kind}-{}", encode_hex(&random)))
}

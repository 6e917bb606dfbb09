//! Predictions that devices keep for people to look at: which, where they arrive, who labels them, and what the labels tell.
//!
//! ```text
//!  operator ──▶ rules ──▶ signed list ──▶ broker, GET /capture ──▶ devices
//!                                                                     │ encrypted, in parts, over HTTPS
//!  people ◀── queue ◀── choose (pure) ◀── samples ◀── open, check ◀───┘
//!    └──▶ labels ──▶ accuracy, agreement (pure) ──▶ retraining.requested ──▶ channels
//! ```
//!
//! A sample stays encrypted where it is stored; it is opened for whoever may look at it, and for the moment in which the queue is ordered.

mod accuracy;
mod agreement;
mod arrive;
mod choose;
mod figures;
mod queue;
mod retraining;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256;
use rustls::crypto::hpke::Hpke as _;
use sealift_protocol::api::CaptureNew;
use sealift_protocol::capture::{CaptureKey, CapturePolicy, InvalidPolicy, InvalidSample, Ppm};
use sealift_protocol::codec::CodecError;
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::limits::{CAPTURE_MODELS_MAX, LABEL_CHARS_MAX};
use sealift_protocol::upload::InvalidPart;
use tokio::time::sleep;

use crate::audit::Deed;
use crate::auth::{AuthError, Purpose, Seal};
use crate::clock;
use crate::config::{Retention, ReviewBudget};
use crate::directive::Director;
use crate::order::Asker;
use crate::signals::Signals;
use crate::store::captures::{KeyRow, ListRow};
use crate::store::{Change, StoreError, TenantStore};

pub(crate) use figures::{By, Question, settled};
pub(crate) use retraining::Reason;

/// Lists are signed anew when they are this old: seven times before they lapse.
const SIGNED_AGAIN_MS: i64 = DAY_MS;
/// Keys are followed by others when they are this old, so that one that was stolen opens a quarter of a year.
const KEY_LIFE_MS: i64 = 90 * DAY_MS;
/// Parts of samples that nobody goes on with are given up.
const PARTS_KEPT_MS: i64 = DAY_MS;
/// Between two looks at what is old, and at what the labels tell.
const EVERY: Duration = Duration::from_secs(20);
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// Why something about samples was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReviewError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No such rules.
    #[error(transparent)]
    Policy(#[from] InvalidPolicy),
    /// A number that is no share.
    #[error("{0} is not from 0 to 1")]
    Share(&'static str),
    /// More models than a list may name.
    #[error("devices keep samples of {CAPTURE_MODELS_MAX} models already, and no more")]
    Models,
    /// Nothing is kept of it.
    #[error("nothing is kept of {0}")]
    Off(ModelName),
    /// Nobody knows it.
    #[error("there is no model {0}")]
    UnknownModel(ModelName),
    /// There is no such sample, or not any more.
    #[error("there is no such sample; it may have been deleted")]
    UnknownSample,
    /// A label that is empty, or a novel.
    #[error("a label has 1 to {LABEL_CHARS_MAX} characters")]
    Label,
    /// What a device sends is no sample of it.
    #[error("what was sent is no sample of this device")]
    Sample(#[from] InvalidSample),
    /// Encrypted for another key, or for another device, or changed since.
    #[error("what was sent cannot be opened: {0}")]
    Sealed(&'static str),
    /// It sends what does not fit.
    #[error("a part of a sample has {0}")]
    Part(#[from] InvalidPart),
    /// It has begun too many.
    #[error("the device has begun to send more samples than it ends")]
    TooMany,
    /// More samples than figures are made of.
    #[error("there are more than {0} samples; ask for a shorter span")]
    TooMuch(u32),
    /// A secret cannot be sealed or opened.
    #[error("a key of samples cannot be used")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A list cannot be encoded.
    #[error("the capture list cannot be signed")]
    Encode(#[from] CodecError),
}

impl From<AuthError> for ReviewError {
    fn from(error: AuthError) -> Self {
        Self::Key(error.into())
    }
}

/// What people keep an eye on, of one tenant; cheap to clone.
#[derive(Clone)]
pub(crate) struct Review {
    store: TenantStore,
    seal: Seal,
    director: Arc<Director>,
    signals: Signals,
    budget: ReviewBudget,
    retention: Retention,
}

impl Review {
    /// The same for what devices bring.
    pub(crate) fn for_devices(&self) -> Self {
        Self { store: self.store.for_devices(), ..self.clone() }
    }

    /// Of one tenant.
    pub(crate) fn new(
        store: TenantStore,
        seal: Seal,
        (director, signals): (Arc<Director>, Signals),
        (budget, retention): (ReviewBudget, Retention),
    ) -> Self {
        Self { store, seal, director, signals, budget, retention }
    }

    /// Renews what lapses, throws away what is old, and looks at what the labels tell; never returns.
    pub(crate) async fn run(self) {
        loop {
            match self.turn(clock::now()).await {
                // Another server was quicker.
                Ok(()) | Err(ReviewError::Store(StoreError::Changed(_))) => (),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "review waits");
                }
            }
            sleep(EVERY).await;
        }
    }

    async fn turn(&self, now: UnixMillis) -> Result<(), ReviewError> {
        if self.is_list_old(now).await? {
            let mut change = self.store.begin().await?;
            self.sign(&mut change, now).await?;
            change.commit().await?;
            self.signals.directives().notify_one();
        }
        self.throw_away(now).await?;
        self.look_for_retraining(now).await
    }

    /// A list that nobody goes by is not kept fresh.
    async fn is_list_old(&self, now: UnixMillis) -> Result<bool, ReviewError> {
        let list = self.store.capture_list().await?;
        if list.sequence == 0 {
            return Ok(false);
        }
        let is_replaced =
            self.director.newest_signer().is_some_and(|signer| list.signer != signer.to_string());
        let is_on = self.store.capture_policies().await?.iter().any(|policy| policy.is_on);
        Ok(is_replaced || (is_on && now.since(list.signed_at) >= SIGNED_AGAIN_MS))
    }

    async fn throw_away(&self, now: UnixMillis) -> Result<(), ReviewError> {
        let mut change = self.store.begin().await?;
        let labels_before = now.plus(-self.retention.labels_ms());
        let old = change.throw_away_samples((now, now.plus(-PARTS_KEPT_MS)), labels_before).await?;
        let limit_mb = self.retention.samples_mb;
        let crowded = change.shrink_samples(u64::from(limit_mb) << 20).await?;
        change.commit().await?;
        if crowded > 0 {
            tracing::warn!(
                crowded,
                limit_mb,
                "samples are too large: the oldest go before their time; see retention.samples_mb"
            );
        }
        if old > 0 {
            tracing::info!(old, "samples deleted after their time");
        }
        Ok(())
    }

    /// Has devices keep predictions of a model from now on, by these rules.
    pub(crate) async fn enable(
        &self,
        model: &ModelName,
        rules: &CaptureNew,
        asker: Asker<'_>,
    ) -> Result<(), ReviewError> {
        let policy = policy(rules)?;
        policy.check()?;
        if !self.store.versions(Some(model)).await?.contains_key(model) {
            return Err(ReviewError::UnknownModel(model.clone()));
        }
        let mut change = self.store.begin().await?;
        change.lock_captures().await?;
        change.set_capture_policy(model, rules, (asker.name, asker.now)).await?;
        if change.policies_that_are_on().await?.len() > CAPTURE_MODELS_MAX {
            return Err(ReviewError::Models);
        }
        self.sign(&mut change, asker.now).await?;
        let (subject, detail) = (model.to_string(), policy.notice_text());
        let deed = Deed {
            actor: asker.name,
            action: "review.enable",
            subject: &subject,
            reason: None,
            detail: &detail,
        };
        change.audit(&deed, asker.now).await?;
        change.commit().await?;
        self.signals.directives().notify_one();
        tracing::warn!(%model, by = asker.name, notice = detail, "devices keep predictions");
        Ok(())
    }

    /// Has devices keep nothing more of a model, and delete what waits on them. What the server has stays until its time.
    pub(crate) async fn disable(
        &self,
        model: &ModelName,
        asker: Asker<'_>,
    ) -> Result<(), ReviewError> {
        let mut change = self.store.begin().await?;
        change.lock_captures().await?;
        if !change.end_capture_policy(model, (asker.name, asker.now)).await? {
            return Err(ReviewError::Off(model.clone()));
        }
        self.sign(&mut change, asker.now).await?;
        let subject = model.to_string();
        let deed = Deed {
            actor: asker.name,
            action: "review.disable",
            subject: &subject,
            reason: None,
            detail: "",
        };
        change.audit(&deed, asker.now).await?;
        change.commit().await?;
        self.signals.directives().notify_one();
        tracing::info!(%model, by = asker.name, "devices keep no more predictions");
        Ok(())
    }

    /// Signs what devices are to keep, above every list before. It is no lower than the time, so that a server that was restored from a
    /// backup is ahead of what its devices have heard.
    async fn sign(&self, change: &mut Change, now: UnixMillis) -> Result<(), ReviewError> {
        let before = change.lock_captures().await?;
        let sequence = before.saturating_add(1).max(u64::try_from(now.0).unwrap_or(0));
        let mut models = BTreeMap::new();
        for row in change.policies_that_are_on().await? {
            models.insert(row.model, policy(&row.rules)?);
        }
        let key = self.key(change, now).await?;
        let (body, signer) = self.director.sign_captures((sequence, now), key, models)?;
        let list = ListRow { sequence, signer: signer.to_string(), signed_at: now };
        Ok(change.set_captures(&list, body).await?)
    }

    /// The key to which devices encrypt; a new one where there is none, or only an old one.
    async fn key(&self, change: &mut Change, now: UnixMillis) -> Result<CaptureKey, ReviewError> {
        let newest = self.store.capture_keys().await?.into_iter().next();
        if let Some(key) = newest.as_ref().filter(|key| now.since(key.made_at) < KEY_LIFE_MS) {
            return Ok(CaptureKey { number: key.number, public: key.public.clone() });
        }
        let number = newest.map_or(1, |key| key.number.saturating_add(1));
        let (public, private) = DH_KEM_X25519_HKDF_SHA256_AES_256
            .generate_key_pair()
            .map_err(|error| ReviewError::Key(error.into()))?;
        let text = STANDARD.encode(private.secret_bytes());
        let private = self.seal.seal(Purpose::Capture, &number.to_string(), &text)?;
        let row = KeyRow { number, public: public.0.clone(), private, made_at: now };
        if !change.add_capture_key(row).await? {
            return Err(StoreError::Changed("key of samples").into());
        }
        Ok(CaptureKey { number, public: public.0 })
    }
}

/// Rules as devices take them.
pub(crate) fn policy(rules: &CaptureNew) -> Result<CapturePolicy, ReviewError> {
    let share =
        |what: &'static str, share: f64| Ppm::of_share(share).ok_or(ReviewError::Share(what));
    let optional = |what, given: Option<f64>| given.map(|given| share(what, given)).transpose();
    if let Some(accuracy) = rules.retrain.and_then(|rule| rule.accuracy_below) {
        share("accuracy_below", accuracy)?;
    }
    Ok(CapturePolicy {
        below: optional("below", rules.below)?,
        margin: optional("margin", rules.margin)?,
        disagreement: rules.disagreement,
        share: share("share", rules.share)?,
        samples_a_day: rules.samples_a_day,
        kib_a_day: rules.kib_a_day,
        keep_days: rules.keep_days,
        notice: rules.notice.trim().to_owned(),
    })
}

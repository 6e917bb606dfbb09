//! Samples as they come from devices: part by part, checked when they are whole, and stored as they came.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey};
use sealift_protocol::capture::{HPKE_INFO, Sample, SampleId, SealedSample};
use sealift_protocol::id::{DeviceId, UnixMillis};
use sealift_protocol::limits::SEALED_SAMPLE_BYTES_MAX;
use sealift_protocol::upload::{Place, Upload};

use super::{DAY_MS, Review, ReviewError};
use crate::auth::Purpose;
use crate::store::captures::KeyRow;
use crate::store::samples::{Part, SampleRow};
use crate::store::{Change, StoreError};

/// Bytes that a device may have begun to send: two of the largest samples.
const UNFINISHED_BYTES_MAX: u64 = 2 * SEALED_SAMPLE_BYTES_MAX as u64;

/// Keys that open samples, the newest first.
pub(super) struct Keys(Vec<(u32, HpkePrivateKey)>);

impl Keys {
    /// Opens a device's sample. RFC 9180, section 5.2: whoever opens gives the same context as whoever sealed. Rule: ours names the device
    /// that the certificate names, so that no device hands in what another has kept.
    pub(super) fn open(
        &self,
        review: &Review,
        (device, id): (&DeviceId, SampleId),
        sealed: &[u8],
    ) -> Result<Sample, ReviewError> {
        let sealed = SealedSample::decode(sealed)?;
        let key = self.0.iter().find(|(number, _)| *number == sealed.key);
        let (_, key) = key.ok_or(ReviewError::Sealed("its key is not known here"))?;
        let context = SealedSample::context(review.store.tenant(), device, id);
        let secret = EncapsulatedSecret(sealed.encapsulated);
        let opened =
            DH_KEM_X25519_HKDF_SHA256_AES_256.open(&secret, HPKE_INFO, &context, &sealed.body, key);
        let plain = opened.map_err(|_| ReviewError::Sealed("it is not what this device sealed"))?;
        let sample = Sample::decode(&plain)?;
        if sample.id == id { Ok(sample) } else { Err(ReviewError::Sealed("it names another")) }
    }
}

impl Review {
    /// How far a device's sample is here.
    pub(crate) async fn upload(
        &self,
        device: &DeviceId,
        id: SampleId,
        size: u64,
    ) -> Result<Upload, ReviewError> {
        Ok(match self.store.sample_offset(device, id).await? {
            Some(offset) => Upload { offset, is_complete: false },
            None => Upload { offset: size, is_complete: true },
        })
    }

    /// Takes a part of a sample, and the sample where it was the last. A part that does not come next changes nothing: the answer says
    /// which one does.
    pub(crate) async fn take_part(
        &self,
        device: &DeviceId,
        id: SampleId,
        part: Part,
        now: UnixMillis,
    ) -> Result<Upload, ReviewError> {
        let (length, size) = (part.body.len() as u64, part.size);
        let until = Place { from: part.from, size }
            .until(part.body.len(), SEALED_SAMPLE_BYTES_MAX as u64)?;
        let known = self.upload(device, id, size).await?;
        if known.is_complete || known.offset != part.from {
            return Ok(known);
        }
        let mut change = self.store.begin().await?;
        if change.unfinished_bytes(device).await?.saturating_add(length) > UNFINISHED_BYTES_MAX {
            return Err(ReviewError::TooMany);
        }
        change.add_sample_part(device, id, (part, now)).await?;
        if until < size {
            change.commit().await?;
            return Ok(Upload { offset: until, is_complete: false });
        }
        let sealed = change.take_sample_parts(device, id).await?;
        let taken = self.take(&mut change, (device, id), sealed, now).await;
        // What is no sample goes with its parts.
        if taken.is_ok() || taken.as_ref().is_err_and(is_final) {
            change.commit().await?;
        }
        taken.map(|()| Upload { offset: size, is_complete: true })
    }

    async fn take(
        &self,
        change: &mut Change,
        (device, id): (&DeviceId, SampleId),
        sealed: Vec<u8>,
        now: UnixMillis,
    ) -> Result<(), ReviewError> {
        let sample = self.keys().await?.open(self, (device, id), &sealed)?;
        let policies = self.store.capture_policies().await?;
        let policy = policies.iter().find(|row| row.model == sample.model && row.is_on);
        let policy = policy.ok_or_else(|| ReviewError::Off(sample.model.clone()))?;
        let kept_ms = i64::from(policy.rules.keep_days) * DAY_MS;
        let row = SampleRow {
            id,
            device: device.clone(),
            model: sample.model,
            version: sample.image.version,
            digest: sample.image.index,
            inference: sample.inference,
            // A device's clock may be ahead; what it says of the future nobody asks for.
            at: sample.at.min(now),
            received_at: now,
            delete_at: now.plus(kept_ms),
            prediction: sample.prediction,
            confidence: sample.confidence.filter(|confidence| confidence.is_finite()),
            why: sample.why,
            chance: sample.chance,
            audit: self.draw(now).await?,
            lost: sample.lost,
        };
        if !change.add_sample(&row, sealed).await? {
            return Err(ReviewError::Sealed("there is another sample of this name"));
        }
        if row.lost > 0 {
            change.add_lost_samples(&row.model, row.lost).await?;
        }
        Ok(())
    }

    /// Draws a sample to be labelled, whoever it is of, with a chance at which half of a day's labels suffice for what came in the last day.
    async fn draw(&self, now: UnixMillis) -> Result<Option<f64>, ReviewError> {
        let lately = self.store.samples_since(now.plus(-DAY_MS)).await?;
        let lately = f64::from(u32::try_from(lately).unwrap_or(u32::MAX)).max(1.0);
        let chance = (f64::from(self.budget.labels_a_day) / 2.0 / lately).min(1.0);
        // The server's own dice: a device that could choose its samples' names would otherwise choose what is labelled.
        let dice = getrandom::u32().map_err(|error| ReviewError::Key(Box::new(error)))?;
        Ok((f64::from(dice) / f64::from(u32::MAX) <= chance).then_some(chance))
    }

    /// The keys that open what is here.
    pub(super) async fn keys(&self) -> Result<Keys, ReviewError> {
        let open = |row: KeyRow| {
            let owner = row.number.to_string();
            let text = self.seal.open(Purpose::Capture, &owner, &row.private);
            let key = text.and_then(|text| STANDARD.decode(text).ok());
            if key.is_none() {
                let help = "put back the newest `keys` folder";
                tracing::error!(key = row.number, help, "a key of samples cannot be read");
            }
            key.map(|key| (row.number, HpkePrivateKey::from(key)))
        };
        let rows: Result<_, StoreError> = self.store.capture_keys().await;
        Ok(Keys(rows?.into_iter().filter_map(open).collect()))
    }

    /// A sample's row, and what is in it.
    pub(crate) async fn look(&self, id: SampleId) -> Result<(SampleRow, Sample), ReviewError> {
        let row = self.store.sample(id).await?.ok_or(ReviewError::UnknownSample)?;
        let body = self.store.sample_body(id).await?.ok_or(ReviewError::UnknownSample)?;
        let sample = self.keys().await?.open(self, (&row.device, id), &body)?;
        Ok((row, sample))
    }
}

/// Whether no later try makes a sample of it.
pub(crate) const fn is_final(error: &ReviewError) -> bool {
    matches!(error, ReviewError::Sample(_) | ReviewError::Sealed(_) | ReviewError::Off(_))
}

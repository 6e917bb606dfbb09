//! What stands between a message and a running model, in this order: metadata, deny list, directive; then for each image the
//! publisher's digest, epoch, index, variant, manifest, configuration, room; then every blob; then a look into the graph.

#[cfg(test)]
mod attacks;
mod onnx_scan;
mod variant;

pub(crate) use onnx_scan::scan_bytes as scan_model;

use std::path::Path;

use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{Audience, DesiredSlot, Directive, VerifiedDirective};
use sealift_protocol::id::{DeviceId, Epoch, Generation, ModelName, TenantId, UnixMillis};
use sealift_protocol::image::{
    Accelerator, Golden, ImageError, ImageManifest, IoContract, LayerKind, ModelConfig, ModelIndex,
    Policy,
};
use sealift_protocol::limits::{DISK_RESERVE_BYTES, MANIFEST_BYTES_MAX, SCRATCH_BYTES};
use sealift_protocol::profile::Baseline;
use sealift_protocol::telemetry::Facts;
use sealift_protocol::tuf::metadata::TargetFile;

use crate::clock::Reading;
use crate::device::{Fault, FaultKind};
use crate::disk::{self, Secrecy};
use crate::limits::DISK_FULL_PAUSE_MS;
use crate::origin::{Origin, OriginError};
use crate::slots::{self, CONFIG_FILE, INDEX_FILE, MANIFEST_FILE, SlotError, Slots};
use crate::trust::Trust;

/// Whom a directive must be for.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    pub(crate) tenant: TenantId,
    pub(crate) device: DeviceId,
    pub(crate) facts: Facts,
    /// What can compute here, best first; the processor always can.
    pub(crate) accelerators: Vec<Accelerator>,
    /// Whether an operator must have signed, too.
    pub(crate) require_cosign: bool,
}

/// What a check of an image found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) epoch: Epoch,
    pub(crate) total_bytes: u64,
}

/// Why a directive was not accepted.
#[derive(Debug)]
pub(crate) enum NotAccepted {
    /// Redelivered: nothing new.
    Stale,
    /// Metadata, key, signature or content.
    Refused(Fault),
}

/// Checks a directive against metadata of now.
pub(crate) async fn directive(
    trust: &mut Trust,
    (me, slots): (&Me, &Slots),
    message: &[u8],
    (newest, clock): (Generation, Reading),
) -> Result<VerifiedDirective, NotAccepted> {
    let now = clock.now;
    if clock.is_trusted && trust.is_followed(now) {
        let audience = Audience { tenant: &me.tenant, device: &me.device, newest, now };
        match Directive::verify(message, &trust.directors(), &audience) {
            // All that it asks for is here and was checked: a fleet that goes back does not ask one server for leave all at once.
            Ok(verified) if goes_back(&verified, slots) => return Ok(verified),
            Err(refused) if !refused.is_security_event() => return Err(NotAccepted::Stale),
            // Newer metadata may know the key, and must know the image.
            Ok(_) | Err(_) => (),
        }
    }
    trust
        .refresh_now(now)
        .await
        .map_err(|error| NotAccepted::Refused(error.fault(spread_permille())))?;
    let audience = Audience { tenant: &me.tenant, device: &me.device, newest, now };
    let directors = trust.directors();
    let verified = if clock.is_trusted {
        Directive::verify(message, &directors, &audience)
    } else {
        // Without a clock nobody knows whether a directive is from the future. Metadata of offline keys bound what a director can claim,
        // and with it how far a stolen director's key could push the time floor.
        Directive::verify_until(message, &directors, &audience, trust.earliest_expiry())
    };
    verified.map_err(|refused| {
        if !refused.is_security_event() {
            return NotAccepted::Stale;
        }
        let reason = with_cause(&refused);
        NotAccepted::Refused(Fault::new(FaultKind::Untrusted, refused.code(), &reason))
    })
}

/// Whether all that it asks for is on the device. To have nothing served is no way back.
fn goes_back(directive: &VerifiedDirective, slots: &Slots) -> bool {
    let wanted = &directive.get().slots;
    !wanted.is_empty() && wanted.iter().all(|slot| slots.has(slot.index))
}

/// Checks what a directive asks for, as far as that takes no layer, and leaves index, manifest and configuration in staging.
pub(crate) async fn image(
    trust: &mut Trust,
    (me, slots, origin): (&Me, &Slots, &Origin),
    (desired, floor): (&DesiredSlot, Epoch),
    now: UnixMillis,
) -> Result<Checked, Fault> {
    if !(slots.has(desired.index) && trust.is_followed(now)) {
        trust.refresh(now).await.map_err(|error| error.fault(spread_permille()))?;
    }
    let target = trust.target(&desired.target()).await;
    let target = target.map_err(|error| error.fault(spread_permille()))?;
    let epoch = check_target(trust, desired, &target, floor)?;
    check_approval(trust, me, desired)?;
    let fetch = Fetch { origin, model: &desired.model };
    if slots.has(desired.index) {
        let manifest = slots::read_manifest(&slots.path(desired.index)).map_err(|e| on_disk(&e))?;
        let digest = slots.manifest_digest(desired.index).map_err(|error| on_disk(&error))?;
        check_manifest(trust, desired, digest)?;
        return Ok(Checked { epoch, total_bytes: manifest.size_bytes() });
    }
    let length = usize::try_from(target.length).unwrap_or(usize::MAX);
    let index_bytes = fetch.document(desired.index, length.min(MANIFEST_BYTES_MAX)).await?;
    let index = ModelIndex::parse(&index_bytes).map_err(|error| refused_image(&error))?;
    let variant = variant::choose(&index, me)?;
    check_manifest(trust, desired, variant.manifest.digest)?;
    let manifest_bytes = fetch.described(&variant.manifest.digest, variant.manifest.size).await?;
    let manifest = ImageManifest::parse(&manifest_bytes).map_err(|error| refused_image(&error))?;
    let config = manifest.config();
    let config_bytes = fetch.blob(config.digest, config.size).await?;
    check_config(&config_bytes, desired, &manifest)?;
    check_room(slots, desired.index, &manifest)?;
    let documents =
        [(INDEX_FILE, index_bytes), (MANIFEST_FILE, manifest_bytes), (CONFIG_FILE, config_bytes)];
    stage(&slots.partial(desired.index), &documents).map_err(|error| on_disk(&error))?;
    Ok(Checked { epoch, total_bytes: manifest.size_bytes() })
}

/// Two signatures must agree: the director's on the directive and the publisher's on the target.
fn check_target(
    trust: &Trust,
    desired: &DesiredSlot,
    target: &TargetFile,
    floor: Epoch,
) -> Result<Epoch, Fault> {
    let untrusted = |code, reason: String| Err(Fault::new(FaultKind::Untrusted, code, &reason));
    if target.digest() != Some(desired.index) {
        let signed = target.digest().map_or("no SHA-256".to_owned(), |digest| digest.to_string());
        let reason = format!(
            "publisher signed {signed} for {}, directive names {}",
            desired.target(),
            desired.index
        );
        return untrusted("image.target", reason);
    }
    if trust.is_revoked(desired.index) {
        return Err(revoked(desired));
    }
    let epoch = target.epoch().unwrap_or_default();
    if epoch < floor {
        let reason = format!("security epoch {} is below the device's floor {}", epoch.0, floor.0);
        return untrusted("image.epoch", reason);
    }
    Ok(epoch)
}

/// trust.md, 8: where the device's owner demands it, an operator has approved this rollout of this image.
fn check_approval(trust: &Trust, me: &Me, desired: &DesiredSlot) -> Result<(), Fault> {
    if !me.require_cosign {
        return Ok(());
    }
    let approved = desired.check_approval(&me.tenant, &trust.operators());
    let refused = |code, reason: &str| Fault::new(FaultKind::Untrusted, code, reason);
    let operator = approved.map_err(|error| refused(error.code(), &with_cause(&error)))?;
    tracing::info!(%operator, model = %desired.model, "rollout is approved");
    Ok(())
}

/// trust.md, 9: the variant is the one that the director names, if it names one, and is not revoked.
fn check_manifest(trust: &Trust, desired: &DesiredSlot, manifest: Digest) -> Result<(), Fault> {
    if trust.is_revoked(manifest) {
        return Err(revoked(desired));
    }
    match desired.manifest {
        Some(named) if named != manifest => {
            let reason =
                format!("directive names variant {named}, the one for this device is {manifest}");
            Err(Fault::new(FaultKind::Untrusted, "image.manifest", &reason))
        }
        Some(_) | None => Ok(()),
    }
}

fn revoked(desired: &DesiredSlot) -> Fault {
    let reason = format!("{} is on the deny list", desired.target());
    Fault::new(FaultKind::Untrusted, "image.revoked", &reason)
}

/// The configuration must name the model and version that the publisher signed, and the manifest's own layers.
fn check_config(
    bytes: &[u8],
    desired: &DesiredSlot,
    manifest: &ImageManifest,
) -> Result<(), Fault> {
    let config = ModelConfig::parse(bytes).map_err(|error| refused_image(&error))?;
    let same_name = config.descriptor.name == desired.model;
    let same_version = config.descriptor.version == desired.version;
    let layers = manifest.layers().iter().map(|layer| &layer.blob.digest);
    if same_name && same_version && config.modelfs.diff_ids.iter().eq(layers) {
        return Ok(());
    }
    let reason = format!(
        "configuration is of {}@{}, directive names {}@{}",
        config.descriptor.name, config.descriptor.version, desired.model, desired.version
    );
    Err(Fault::new(FaultKind::Untrusted, "image.config", &reason))
}

fn check_room(slots: &Slots, index: Digest, manifest: &ImageManifest) -> Result<(), Fault> {
    let free_bytes = slots.free_bytes().map_err(|error| on_disk(&error))?;
    let missing_bytes = manifest.size_bytes().saturating_sub(slots.present_bytes(index));
    let needed_bytes = missing_bytes.saturating_add(SCRATCH_BYTES + DISK_RESERVE_BYTES);
    if needed_bytes <= free_bytes {
        return Ok(());
    }
    let reason = format!("{needed_bytes} bytes needed, {free_bytes} free");
    Err(Fault::new(FaultKind::NoRoom, "image.no-room", &reason))
}

fn stage(dir: &Path, documents: &[(&str, Vec<u8>)]) -> Result<(), SlotError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| SlotError::Disk { path, source }
    };
    disk::private_dir(dir).map_err(at(dir))?;
    for (name, bytes) in documents {
        let path = dir.join(name);
        disk::replace(&path, bytes, Secrecy::Private).map_err(at(&path))?;
    }
    Ok(())
}

/// Where a model's blobs come from.
struct Fetch<'a> {
    origin: &'a Origin,
    model: &'a ModelName,
}

impl Fetch<'_> {
    async fn document(&self, digest: Digest, max_bytes: usize) -> Result<Vec<u8>, Fault> {
        let path = format!("/v2/{}/manifests/{digest}", self.model);
        self.checked(&path, digest, max_bytes).await
    }

    async fn described(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Fault> {
        self.document(*digest, usize::try_from(size).unwrap_or(MANIFEST_BYTES_MAX)).await
    }

    async fn blob(&self, digest: Digest, size: u64) -> Result<Vec<u8>, Fault> {
        let path = format!("/v2/{}/blobs/{digest}", self.model);
        self.checked(&path, digest, usize::try_from(size).unwrap_or(MANIFEST_BYTES_MAX)).await
    }

    /// Bytes that do not have their digest are not parsed.
    async fn checked(
        &self,
        path: &str,
        digest: Digest,
        max_bytes: usize,
    ) -> Result<Vec<u8>, Fault> {
        let bytes = self.origin.get(path, max_bytes).await.map_err(|error| unreachable(&error))?;
        let Some(bytes) = bytes else {
            let spread_permille = spread_permille();
            let kind = FaultKind::Unreachable { spread_permille };
            return Err(Fault::new(kind, "image.missing", &format!("server has no {digest}")));
        };
        if Digest::of(&bytes) == digest {
            return Ok(bytes);
        }
        let reason = format!("{path} has another digest than was signed");
        Err(Fault::new(FaultKind::Corrupt, "image.digest", &reason))
    }
}

/// Checks everything that is staged, or complete, and looks into it; then gives it its final name.
pub(crate) fn staged(slots: &Slots, index: Digest) -> Result<(), Fault> {
    if slots.has(index) {
        let checked = slots.check(index);
        if checked.is_err() {
            slots.reopen(index).map_err(|error| on_disk(&error))?;
        }
        return settle(checked, &slots.partial(index)).map(|_| ());
    }
    let partial = slots.partial(index);
    let manifest = settle(slots::check_files(&partial, index), &partial)?;
    check_content(&partial, &manifest)?;
    slots.complete(index).map_err(|error| on_disk(&error))
}

/// Removes a file that is not the one that was signed, so that it is fetched again.
fn settle(
    checked: Result<ImageManifest, SlotError>,
    partial: &Path,
) -> Result<ImageManifest, Fault> {
    checked.map_err(|error| {
        if let SlotError::Digest { path } | SlotError::Form { path } = &error {
            let name = path.file_name().map(|name| partial.join(name));
            if let Some(Err(error)) = name.map(|path| disk::remove(&path)) {
                return on_disk(&SlotError::Disk { path: path.clone(), source: error });
            }
        }
        on_disk(&error)
    })
}

/// What the digests cannot say: whether the layers are what they claim to be.
fn check_content(dir: &Path, manifest: &ImageManifest) -> Result<(), Fault> {
    let content = |code, reason: String| Fault::new(FaultKind::Untrusted, code, &reason);
    for layer in manifest.layers() {
        let path = dir.join(&layer.name);
        let bytes_max = layer.kind.bytes_max();
        let read = || {
            let bytes = disk::read(&path, bytes_max).ok().flatten();
            bytes.ok_or_else(|| on_disk(&SlotError::Form { path: path.clone() }))
        };
        match layer.kind {
            LayerKind::Weights => onnx_scan::scan(&path)
                .map_err(|refused| content(refused.code(), with_cause(&refused)))?,
            LayerKind::Contract => IoContract::parse(&read()?)
                .map(|_| ())
                .map_err(|error| content("image.contract", with_cause(&error)))?,
            LayerKind::Golden => Golden::parse(&read()?)
                .map(|_| ())
                .map_err(|error| content("image.golden", with_cause(&error)))?,
            LayerKind::Policy => serde_json::from_slice::<Policy>(&read()?)
                .map(|_| ())
                .map_err(|error| content("image.policy", error.to_string()))?,
            LayerKind::Baseline => Baseline::decode(&read()?)
                .map(|_| ())
                .map_err(|error| content("image.baseline", with_cause(&error)))?,
            LayerKind::Doc => {}
        }
    }
    Ok(())
}

/// What an error of the store means for an attempt.
pub(crate) fn on_disk(error: &SlotError) -> Fault {
    let reason = with_cause(error);
    match error {
        SlotError::Digest { .. } | SlotError::Form { .. } | SlotError::Absent(_) => {
            Fault::new(FaultKind::Corrupt, "image.digest", &reason)
        }
        SlotError::Disk { source, .. } => {
            let full = [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded];
            if full.contains(&source.kind()) {
                // There was room when it began. The next check says how much is missing, if still some is.
                let kind = FaultKind::Later { pause_ms: DISK_FULL_PAUSE_MS };
                return Fault::new(kind, "image.disk-full", &reason);
            }
            // A disk that fails otherwise is no better in a second.
            Fault::new(FaultKind::Failed, "image.disk", &reason)
        }
    }
}

/// What an error of the way to the server means for an attempt.
pub(crate) fn unreachable(error: &OriginError) -> Fault {
    let reason = error.to_string();
    match error {
        OriginError::TooLarge { .. } => Fault::new(FaultKind::Corrupt, "image.size", &reason),
        OriginError::Setup(_)
        | OriginError::Unreachable(_)
        | OriginError::Crowded
        | OriginError::Late { .. }
        | OriginError::OtherPart { .. }
        | OriginError::Status { .. } => {
            let kind = FaultKind::Unreachable { spread_permille: spread_permille() };
            Fault::new(kind, "image.unreachable", &reason)
        }
    }
}

fn refused_image(error: &ImageError) -> Fault {
    Fault::new(FaultKind::Untrusted, error.code(), &with_cause(error))
}

/// An error and the one below it, in one line.
pub(crate) fn with_cause(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

/// A random share of a pause, in per mille.
pub(crate) fn spread_permille() -> u16 {
    getrandom::u32().map_or(1_000, |random| u16::try_from(random % 1_001).unwrap_or(1_000))
}

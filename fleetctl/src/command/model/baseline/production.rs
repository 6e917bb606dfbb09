//! A baseline of what a version has seen in the field: the server adds up, the publisher makes, looks at and signs it.
//!
//! The server alone can never set a baseline: what is made here becomes a layer of a new version of the image, which a device takes with
//! its publisher's signature alone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealift_protocol::api::{SeenTake, SeenTaken};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, UnixMillis, Version};
use sealift_protocol::image::{ImageManifest, LayerKind, ModelIndex};
use sealift_protocol::profile::{Baseline, Profile};
use serde::Serialize;

use crate::client::Client;
use crate::output::{Output, note, table};
use crate::registry;

/// Features that are shown to people.
const SHOWN_MAX: usize = 12;

/// What was made.
#[derive(Serialize)]
struct Made {
    file: PathBuf,
    model: ModelName,
    version: Version,
    from: UnixMillis,
    until: UnixMillis,
    rows: u64,
    windows: u64,
    devices: Option<u64>,
    /// Digest of the baseline on whose bins rows were counted.
    bins_of: Digest,
    /// What has moved, the most first.
    moved: Vec<Moved>,
}

/// A feature, and how far its mean is from the old reference's.
#[derive(Serialize)]
struct Moved {
    feature: String,
    mean_before: f64,
    mean: f64,
    /// In standard deviations of the old reference.
    by_sd: f64,
}

/// Makes the baseline and writes it.
pub(super) async fn run(
    client: &Client,
    output: Output,
    (model, version): (&ModelName, &Version),
    asked: &SeenTake,
    file: &Path,
) -> anyhow::Result<()> {
    let path = format!("models/{model}/versions/{version}/seen");
    let taken: SeenTaken = client.post(&path, asked).await?;
    let old = bins(client, model, version, &taken).await?;
    let profile = profile(&taken.profile)?;
    ensure!(profile.rows() == taken.rows, "the server has sent another profile than it says");
    let phases = taken.phases.iter().map(|text| self::profile(text));
    let phases = phases.collect::<anyhow::Result<Vec<_>>>()?;
    let new = old
        .succeeded_by(&profile, &phases)
        .with_context(|| format!("what {model}@{version} has seen makes no baseline"))?;
    fs::write(file, new.encode()?).with_context(|| format!("cannot write {}", file.display()))?;
    let SeenTaken { from, until, rows, windows, devices, baseline: bins_of, .. } = taken;
    let (model, version, file) = (model.clone(), version.clone(), file.to_owned());
    let moved = moved(&old, &new);
    let made = Made { file, model, version, from, until, rows, windows, devices, bins_of, moved };
    output.text(&made, text)?;
    note(&format!(
        "look at what has moved: signed, it is what counts as usual; then `baseline = \"{}\"` in model.toml, a new version, \
         `fleetctl model push` and `fleetctl model sign`",
        made.file.display()
    ));
    Ok(())
}

/// The baseline of the version's image, out of the registry.
///
/// Rule (trust.md, 10): bytes are those that the image names by digest; what the server says of them is not believed.
async fn bins(
    client: &Client,
    model: &ModelName,
    version: &Version,
    taken: &SeenTaken,
) -> anyhow::Result<Baseline> {
    let index = registry::manifest(client, model, version.as_str()).await?;
    ensure!(
        Digest::of(&index) == taken.digest,
        "{model}@{version} is another image now than the one that was counted\nhelp: ask again"
    );
    let index = ModelIndex::parse(&index)?;
    let variant = index.variants().first().context("the image has no variant")?;
    let digest = variant.manifest.digest;
    let manifest = registry::manifest(client, model, &digest.to_string()).await?;
    ensure!(Digest::of(&manifest) == digest, "the registry has sent another manifest");
    let manifest = ImageManifest::parse(&manifest)?;
    let layer = manifest.layers().iter().find(|layer| layer.kind == LayerKind::Baseline);
    let layer = layer.with_context(|| format!("{model}@{version} has no baseline"))?;
    let path = format!("models/{model}/versions/{version}/baseline");
    let bytes = client.bytes(&path).await?;
    ensure!(
        Digest::of(&bytes) == layer.blob.digest && layer.blob.digest == taken.baseline,
        "the server has sent another baseline than the image has"
    );
    Ok(Baseline::decode(&bytes)?)
}

fn profile(text: &str) -> anyhow::Result<Profile> {
    let bytes = STANDARD.decode(text).context("the server's profile is not base64")?;
    Profile::decode(&bytes).context("the server's profile is none")
}

fn moved(old: &Baseline, new: &Baseline) -> Vec<Moved> {
    let pairs = old.features().iter().zip(new.features());
    let moved = pairs.filter_map(|(before, after)| {
        let (was, is) = (before.numeric()?, after.numeric()?);
        let by_sd = if was.sd > 0.0 { (is.mean - was.mean) / was.sd } else { 0.0 };
        let feature = before.name.clone();
        Some(Moved { feature, mean_before: was.mean, mean: is.mean, by_sd })
    });
    let mut moved: Vec<_> = moved.collect();
    moved.sort_by(|left, right| right.by_sd.abs().total_cmp(&left.by_sd.abs()));
    moved
}

fn text(made: &Made) -> String {
    let whom = made.devices.map_or_else(|| "the fleet".to_owned(), |n| format!("{n} devices"));
    let rows = made.moved.iter().take(SHOWN_MAX).map(|moved| {
        let figure = |value: f64| format!("{value:.4}");
        [
            moved.feature.clone(),
            figure(moved.mean_before),
            figure(moved.mean),
            format!("{:+.2}", moved.by_sd),
        ]
    });
    format!(
        "{}: {} rows in {} windows of {whom}, {} to {}\n{}",
        made.file.display(),
        made.rows,
        made.windows,
        made.from,
        made.until,
        table(["FEATURE", "MEAN BEFORE", "MEAN", "MOVED BY SD"], rows)
    )
}

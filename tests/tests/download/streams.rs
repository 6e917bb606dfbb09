//! Streams that are not what was signed: endless, slow, too long, too short, with another byte in them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use sealift_protocol::digest::Digest;
use sealift_protocol::report::OutcomeKind;
use sealift_tests::origin::{Built, Conduct, Image};
use sealift_tests::story::answers_with;

use super::Story;

/// Every digest of an image that is its own, by name.
fn own(built: &Built) -> Vec<(&str, Digest)> {
    let documents =
        [("index", built.index), ("manifest", built.manifest), ("config", built.config)];
    let layers = built.layers.iter().map(|(name, digest)| (name.as_str(), *digest));
    documents.into_iter().chain(layers).collect()
}

/// Asks for an image whose blob of this name comes like that. It ends with `code`, and honestly sent it is taken.
async fn refused(
    story: &mut Story,
    (image, name): (&Image, &str),
    conduct: Conduct,
    code: &str,
) -> anyhow::Result<()> {
    let built = story.origin.publish(image)?;
    let digest = own(&built).into_iter().find(|(own, _)| *own == name).context("such a blob")?.1;
    story.origin.wire.behave(digest, conduct);
    story.want_again(image, &built)?;

    let ended = story.ends(OutcomeKind::Failed, code).await;

    ended.with_context(|| format!("{name} of {} with {conduct:?}", image.version))?;
    story.is_unharmed().await?;
    story.origin.wire.relent();
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn endless_data_is_cut_off_where_the_signed_size_ends() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    for (version, name) in (2..).zip(["index", "manifest", "config"]) {
        let image = Image::of(&version.to_string())?.padded(100_000);
        refused(&mut story, (&image, name), Conduct::Endless, "image.size").await?;
    }

    // Of a layer the signed bytes come first, and count; what follows them is told, and cut off.
    let image = Image::of("9")?.padded(100_000);
    let built = story.origin.publish(&image)?;
    let weights = built.layer("model.onnx").context("weights")?;
    story.origin.wire.behave(weights, Conduct::Endless);
    let from = story.log_length();
    story.want_again(&image, &built)?;
    story.says(from, "image.size").await?;
    story.serves("9").await?;
    let kept = walk(&story.device.store.join("slots"))?;
    ensure!(kept < 2 << 20, "{kept} bytes of endless data were kept");
    Ok(())
}

fn walk(directory: &std::path::Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { walk(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn more_bytes_than_declared_are_refused() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    for (version, name) in (2..).zip(["index", "manifest", "config", "model.onnx"]) {
        let image = Image::of(&version.to_string())?.padded(100_000);
        refused(&mut story, (&image, name), Conduct::Longer(1), "image.size").await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn fewer_bytes_than_declared_are_never_an_image() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    for (version, name) in (2..).zip(["index", "manifest", "config"]) {
        let image = Image::of(&version.to_string())?.padded(100_000);
        refused(&mut story, (&image, name), Conduct::Shorter(1), "image.digest").await?;
    }

    let image = Image::of("9")?.padded(100_000);
    let built = story.origin.publish(&image)?;
    let weights = built.layer("model.onnx").context("weights")?;
    story.origin.wire.behave(weights, Conduct::Shorter(1));
    story.want_again(&image, &built)?;
    let asked_again = |wire: &sealift_tests::origin::Wire| wire.asked(weights).len() >= 3;
    story.until("it asks for the rest", |_| asked_again(&story.origin.wire)).await?;
    answers_with(&story.device, "1").await?;
    let complete = story.complete_images()?;
    ensure!(complete.len() == 1, "{complete:?}");
    story.origin.wire.relent();
    story.serves("9").await
}

/// The first byte of a blob, the last, and three between: by another number for each blob, so that no place is special.
async fn flipped_bytes_are_refused(blobs: [(usize, &str); 2]) -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let places = |blob: usize| [0, 7 + blob, 101 * (blob + 1), 4_099 * (blob + 3), usize::MAX];
    let mut version = 2;
    for (blob, name) in blobs {
        for place in places(blob) {
            let image = Image::of(&version.to_string())?.padded(100_000);
            version += 1;
            refused(&mut story, (&image, name), Conduct::Flipped(place), "image.digest").await?;
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn one_flipped_byte_anywhere_is_refused() -> anyhow::Result<()> {
    // A device for each two of six blobs, as every refusal waits for the next question for the directive.
    tokio::try_join!(
        flipped_bytes_are_refused([(0, "index"), (1, "manifest")]),
        flipped_bytes_are_refused([(2, "config"), (3, "model.onnx")]),
        flipped_bytes_are_refused([(4, "contract.json"), (5, "golden.cbor")]),
    )?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn slow_metadata_do_not_hold_the_device() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let slow = Conduct::Trickle(Duration::from_secs(5));
    let from = story.log_length();
    story.origin.wire.behave_at("/tuf/timestamp.json", slow);
    let image = Image::of("2")?.padded(1_000);
    story.want(&image)?;

    story.says(from, "took longer than").await?;
    answers_with(&story.device, "1").await?;
    story.origin.wire.relent();
    story.serves("2").await?;

    let (image, from) = (Image::of("3")?.padded(1_000), story.log_length());
    let newest = story.origin.publish(&image)?;
    story.origin.wire.behave(newest.index, slow);
    story.want_again(&image, &newest)?;
    story
        .until("the check is begun again", |_| story.origin.wire.asked(newest.index).len() > 1)
        .await?;
    ensure!(!story.device.process.log()[from..].contains("panicked"), "it panicked");
    story.origin.wire.relent();
    story.serves("3").await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_byte_a_minute_is_noticed_and_the_download_goes_on_elsewhen() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let image = Image::of("2")?.padded(200_000);
    let built = story.origin.publish(&image)?;
    let weights = built.layer("model.onnx").context("weights")?;
    story.origin.wire.behave(weights, Conduct::Trickle(Duration::from_mins(1)));
    let from = story.log_length();
    story.want_again(&image, &built)?;

    story.says(from, "nothing came for").await?;

    answers_with(&story.device, "1").await?;
    story.origin.wire.relent();
    story.serves("2").await?;
    let ranges = story.origin.wire.asked(weights);
    ensure!(ranges.iter().skip(1).all(|asked| asked.range.is_some()), "{ranges:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_server_that_takes_requests_and_says_nothing_is_left() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let image = Image::of("2")?.padded(1_000);
    let built = story.origin.publish(&image)?;
    let weights = built.layer("model.onnx").context("weights")?;
    story.origin.wire.behave(weights, Conduct::Silent);
    story.want_again(&image, &built)?;

    story.until("it asks again", |_| story.origin.wire.asked(weights).len() > 1).await?;

    answers_with(&story.device, "1").await?;
    story.origin.wire.relent();
    story.serves("2").await
}

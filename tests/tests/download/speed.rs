//! How fast a large image is fetched and hashed, beside a plain fetch of the same bytes.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use sealift_protocol::report::Phase;
use sealift_tests::origin::{Image, Origin};

use super::Story;

const MEGABYTES: usize = 200;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: a measurement"]
async fn a_large_image_is_fetched_about_as_fast_as_by_curl() -> anyhow::Result<()> {
    let image = Image::of("2")?.padded(MEGABYTES * 1_000_000).with_signed_chunks();
    let built = image.build()?;
    let weights = built.layer("model.onnx").context("weights")?;
    let peer = Origin::peer_with(&built).await?;
    let url = format!("http://127.0.0.1:{}", peer.port());
    let blob = format!("{url}/v2/vision/digits/blobs/{weights}");
    let mut story = Story::with(&format!("download.sources = [\"{url}\"]\n")).await?;
    let file = story.directory.path().join("fetched");

    let begun = Instant::now();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--output"]).arg(&file).arg(&blob);
    let fetched = tokio::task::spawn_blocking(move || curl.status()).await??;
    ensure!(fetched.success(), "curl: {fetched}");
    let by_curl = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    story.origin.publish(&image)?;
    let published = begun.elapsed();
    let begun = Instant::now();
    story.want_again(&image, &built)?;
    story.until("it is fetched", |slot| slot.phase >= Phase::Verifying).await?;
    let by_agent = begun.elapsed().as_secs_f64();
    story.serves("2").await?;
    let in_all = begun.elapsed().as_secs_f64();

    println!(
        "{MEGABYTES} MB: curl {by_curl:.2} s, agent {by_agent:.2} s with poll and checks, {in_all:.2} s until it answers (published in {published:?})"
    );
    ensure!(by_agent < by_curl + 30.0, "{by_agent} s");
    Ok(())
}

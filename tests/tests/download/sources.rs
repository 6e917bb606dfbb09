//! Several sources: who fails or lies is put aside and the next one is asked; only what was signed counts, and only what is wrong is
//! fetched again.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use sealift_tests::origin::{Built, Conduct, Image, Wire};
use sealift_tests::story::answers_with;

use super::Story;

const MIB: usize = 1 << 20;

/// A device with these peers before its server, which all have version 2; the peers still serve whatever is published.
async fn with_peers(image: &Image, count: usize) -> anyhow::Result<(Story, Vec<Wire>, Built)> {
    let built = image.build()?;
    let peers = Story::peers(count, &built).await?;
    let address = |peer: &Wire| format!("\"http://127.0.0.1:{}\"", peer.port());
    let addresses: Vec<_> = peers.iter().map(address).collect();
    let lines = format!("download.sources = [{}]\n", addresses.join(", "));
    let mut story = Story::with(&lines).await?;
    story.origin.publish(image)?;
    Ok((story, peers, built))
}

fn weights(built: &Built) -> anyhow::Result<sealift_protocol::digest::Digest> {
    built.layer("model.onnx").context("weights")
}

/// The bytes before which each request began.
fn begins(wire: &Wire, built: &Built) -> anyhow::Result<Vec<u64>> {
    let asked = wire.asked(weights(built)?);
    let begin = |range: &String| {
        let begin = range.trim_start_matches("bytes=").split('-').next();
        begin.and_then(|begin| begin.parse().ok()).unwrap_or(0)
    };
    Ok(asked.iter().map(|asked| asked.range.as_ref().map_or(0, begin)).collect())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_sound_peer_is_asked_and_the_server_is_not() -> anyhow::Result<()> {
    let image = Image::of("2")?.padded(3 * MIB);
    let (mut story, peers, built) = with_peers(&image, 1).await?;

    story.want_again(&image, &built)?;

    story.serves("2").await?;
    ensure!(begins(&peers[0], &built)? == [0], "{:?}", begins(&peers[0], &built)?);
    ensure!(begins(&story.origin.wire, &built)?.is_empty(), "the server was asked for layers");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_peer_that_breaks_off_is_followed_by_the_next_one_where_it_stopped() -> anyhow::Result<()>
{
    let image = Image::of("2")?.padded(4 * MIB);
    let (mut story, peers, built) = with_peers(&image, 2).await?;
    peers[0].behave(weights(&built)?, Conduct::Cut(MIB + 1_000));
    peers[1].behave(weights(&built)?, Conduct::Status(403));

    story.want_again(&image, &built)?;

    story.serves("2").await?;
    let (second, server) = (begins(&peers[1], &built)?, begins(&story.origin.wire, &built)?);
    let stopped_at = u64::try_from(MIB + 1_000)?;
    ensure!(second.first() == Some(&stopped_at), "{second:?}");
    ensure!(server.iter().all(|begin| *begin >= stopped_at), "{server:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_peer_whose_bytes_are_not_the_signed_ones_is_put_aside_and_named() -> anyhow::Result<()> {
    let image = Image::of("2")?.padded(3 * MIB);
    for conduct in [Conduct::Flipped(2 * MIB), Conduct::Longer(1), Conduct::Endless] {
        let (mut story, peers, built) = with_peers(&image, 1).await?;
        peers[0].behave(weights(&built)?, conduct);
        let from = story.log_length();

        story.want_again(&image, &built)?;

        story.serves("2").await.with_context(|| format!("{conduct:?}"))?;
        let news = story.device.process.log()[from..].to_owned();
        let peer = format!("127.0.0.1:{}", peers[0].port());
        let named = news.lines().any(|line| line.contains("image.") && line.contains(&peer));
        ensure!(named, "{conduct:?}: nobody is told of {peer}");
        ensure!(begins(&peers[0], &built)?.len() == 1, "the liar was asked again");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn where_chunks_are_signed_only_the_wrong_one_is_fetched_again() -> anyhow::Result<()> {
    let image = Image::of("2")?.padded(6 * MIB).with_signed_chunks();
    let (mut story, peers, built) = with_peers(&image, 1).await?;
    peers[0].behave(weights(&built)?, Conduct::Flipped(3 * MIB + 5));

    story.want_again(&image, &built)?;

    story.serves("2").await?;
    let server = begins(&story.origin.wire, &built)?;
    ensure!(server == [3 * MIB as u64], "what was right before came again: {server:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_server_that_lies_once_is_asked_again_for_the_wrong_chunk_alone() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let image = Image::of("2")?.padded(6 * MIB).with_signed_chunks();
    let built = story.origin.publish(&image)?;
    story.origin.wire.behave(weights(&built)?, Conduct::Flipped(3 * MIB + 5));
    let from = story.log_length();
    story.want_again(&image, &built)?;
    story.says(from, "image.digest").await?;
    answers_with(&story.device, "1").await?;

    story.origin.wire.relent();

    story.serves("2").await?;
    let asked = begins(&story.origin.wire, &built)?;
    ensure!(asked.iter().skip(1).all(|begin| *begin == 3 * MIB as u64), "{asked:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn an_answer_from_another_place_is_not_taken_for_the_one_that_was_asked_for()
-> anyhow::Result<()> {
    let image = Image::of("2")?.padded(4 * MIB);
    for conduct in [Conduct::Misplaced, Conduct::Unranged] {
        let (mut story, peers, built) = with_peers(&image, 2).await?;
        peers[0].behave(weights(&built)?, Conduct::Cut(MIB + 1_000));
        peers[1].behave(weights(&built)?, conduct);

        story.want_again(&image, &built)?;

        story.serves("2").await.with_context(|| format!("{conduct:?}"))?;
        let news = story.device.process.log();
        ensure!(!news.contains("image.digest"), "{conduct:?} was taken into the image");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn the_owners_limit_is_kept() -> anyhow::Result<()> {
    const RATE: usize = 400_000;
    let mut story = Story::with(&format!("download.rate_bytes_s = {RATE}\n")).await?;
    let image = Image::of("2")?.padded(4 * RATE);

    let begun = Instant::now();
    story.want(&image)?;
    story.serves("2").await?;

    let seconds = begun.elapsed().as_secs_f64();
    ensure!(seconds >= 3.5, "4 s worth of bytes came in {seconds} s");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn outside_its_window_a_download_waits_unless_it_mends_a_hole() -> anyhow::Result<()> {
    let mut story = Story::with(&far_window()?).await?;
    let image = Image::of("2")?.padded(1_000);
    let from = story.log_length();
    let built = story.want(&image)?;
    story.until("it waits", |slot| slot.phase == sealift_protocol::report::Phase::Waiting).await?;
    ensure!(story.origin.wire.asked(weights(&built)?).is_empty(), "it was fetched all the same");
    answers_with(&story.device, "1").await?;
    ensure!(!story.device.process.log()[from..].contains("did not pass"), "a window is no fault");

    // A higher security epoch is the publisher's word that the live image has a hole.
    let mut mended = Image::of("3")?.padded(2_000);
    mended.epoch = 2;
    story.want(&mended)?;
    story.serves("3").await
}

/// A window that does not open within the next ten hours.
fn far_window() -> anyhow::Result<String> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let hour = (since.as_secs() / 3_600 + 11) % 24;
    let window = format!("{hour:02}:00-{hour:02}:59");
    Ok(format!("download.windows = [\"{window}\"]\ndownload.time_zone = \"UTC\"\n"))
}

//! A disk that is full, at every step, and an agent that is killed at every step: the live model serves on, nothing half-written is used,
//! and in the end the device runs what it was told.

use anyhow::{Context as _, ensure};
use sealift_protocol::report::{OutcomeKind, Phase};
use sealift_tests::disk::SmallDisk;
use sealift_tests::origin::{Built, Conduct, DEVICE, Image};
use sealift_tests::story::answers_with;

use super::Story;

const MIB: usize = 1 << 20;

/// Larger than the reserves that an image's admission leaves alone.
const DISK_MIB: u32 = 96;

/// A device on a small disk that serves version 1.
async fn on_a_small_disk() -> anyhow::Result<(Story, SmallDisk)> {
    let directory = tempfile::tempdir()?;
    let disk = SmallDisk::mount(&directory.path().join("disk"), DISK_MIB)?;
    let story = Story::at(directory, |root| root.join("disk").join(DEVICE), "").await?;
    Ok((story, disk))
}

/// Whatever happened, the device answers with version 1 and ends on version `image` once it is told again and nothing is in its way.
async fn recovers(story: &mut Story, image: &Image, built: &Built) -> anyhow::Result<()> {
    story.origin.wire.relent();
    story.want_again(image, built)?;
    story.serves(&image.version).await?;
    story.device.process.check()?;
    let log = story.device.process.log();
    ensure!(!log.contains("panicked"), "it panicked");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs and a disk to mount"]
async fn an_image_without_room_is_rejected_with_what_it_needs() -> anyhow::Result<()> {
    let (mut story, disk) = on_a_small_disk().await?;
    disk.fill_but(20 * MIB)?;
    let image = Image::of("2")?.padded(8 * MIB);
    let built = story.want(&image)?;

    let slot = story.ends(OutcomeKind::Rejected, "image.no-room").await?;

    let reason = slot.outcome.context("an outcome")?.reason;
    let mut numbers = reason.split(' ').filter_map(|word| word.parse::<usize>().ok());
    let (needed, free) = numbers.next().zip(numbers.next()).with_context(|| reason.clone())?;
    ensure!(needed > 8 * MIB && free <= 20 * MIB && needed > free, "{reason}");
    let weights = built.layer("model.onnx").context("weights")?;
    ensure!(story.origin.wire.asked(weights).is_empty(), "a layer was fetched");
    disk.empty()?;
    recovers(&mut story, &image, &built).await
}

#[tokio::test]
#[ignore = "needs the programs and a disk to mount"]
async fn unused_images_give_way_before_an_image_is_rejected() -> anyhow::Result<()> {
    let (mut story, _disk) = on_a_small_disk().await?;
    // Each is live once: with the one before it, it is all that may stay.
    for version in 2..6 {
        let image = Image::of(&version.to_string())?.padded(14 * MIB);
        story.want(&image)?;
        story.serves(&image.version).await?;
    }
    let complete = story.complete_images()?;
    ensure!(complete.len() <= 3, "{complete:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs and a disk to mount"]
async fn a_disk_that_fills_up_during_a_download_stops_that_alone() -> anyhow::Result<()> {
    let (mut story, disk) = on_a_small_disk().await?;
    let image = Image::of("2")?.padded(8 * MIB);
    let built = story.origin.publish(&image)?;
    let weights = built.layer("model.onnx").context("weights")?;
    story.origin.wire.behave(weights, Conduct::Throttled(4 * MIB));
    story.want_again(&image, &built)?;
    story
        .until("bytes come", |slot| slot.progress.is_some_and(|so_far| so_far.done_bytes > 0))
        .await?;

    let from = story.log_length();
    disk.fill()?;

    // The report of it has no room either: the log is elsewhere.
    story.says(from, "image.no-room").await?;
    ensure!(story.complete_images()?.len() == 1, "half an image is one");
    answers_with(&story.device, "1").await?;
    story.device.process.check()?;
    ensure!(!story.device.process.log()[from..].contains("panicked"), "it panicked");
    disk.empty()?;
    recovers(&mut story, &image, &built).await
}

#[tokio::test]
#[ignore = "needs the programs and a disk to mount"]
async fn a_disk_with_room_again_during_the_pause_costs_nothing_but_time() -> anyhow::Result<()> {
    let (mut story, disk) = on_a_small_disk().await?;
    let image = Image::of("2")?.padded(8 * MIB);
    let built = story.origin.publish(&image)?;
    let weights = built.layer("model.onnx").context("weights")?;
    story.origin.wire.behave(weights, Conduct::Throttled(4 * MIB));
    story.want_again(&image, &built)?;
    story
        .until("bytes come", |slot| slot.progress.is_some_and(|so_far| so_far.done_bytes > 0))
        .await?;
    disk.fill()?;
    // The report of it has no room either.
    story.says(0, "No space left").await?;

    disk.empty()?;

    story.origin.wire.relent();
    story.serves("2").await
}

#[tokio::test]
#[ignore = "needs the programs and a disk to mount"]
async fn an_agent_starts_and_serves_on_a_full_disk() -> anyhow::Result<()> {
    let (mut story, disk) = on_a_small_disk().await?;
    disk.fill()?;
    let image = Image::of("2")?.padded(MIB);
    let built = story.want(&image)?;
    for _ in 0..3 {
        story.device.process.kill()?;
        story.device.process.restart()?;
        story.device.ready().await?;
        answers_with(&story.device, "1").await?;
    }
    disk.empty()?;
    recovers(&mut story, &image, &built).await
}

/// A step of the way to a new image, and how the story knows that the device is at it.
const STEPS: [Phase; 6] = [
    Phase::Checking,
    Phase::Waiting,
    Phase::Downloading,
    Phase::Verifying,
    Phase::Warming,
    Phase::Probation,
];

/// Waits until the device is at a step, or has passed it.
async fn reaches(story: &Story, step: Phase) -> anyhow::Result<()> {
    let is_there = |slot: &sealift_protocol::report::SlotReport| {
        slot.phase >= step
            || slot.serving.as_ref().is_some_and(|image| image.version.as_str() != "1")
    };
    story.until(&format!("it is at {step:?}"), is_there).await.map(|_| ())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn an_agent_killed_at_every_step_serves_and_finishes() -> anyhow::Result<()> {
    for step in STEPS {
        let mut story = Story::begin().await?;
        let image = Image::of("2")?.padded(6 * MIB);
        let built = story.origin.publish(&image)?;
        let weights = built.layer("model.onnx").context("weights")?;
        story.origin.wire.behave(weights, Conduct::Throttled(3 * MIB));
        story.want_again(&image, &built)?;

        reaches(&story, step).await?;
        story.device.process.kill()?;
        let complete = story.complete_images()?;
        ensure!(complete.len() <= 2, "{complete:?}");
        story.device.process.restart()?;
        story.device.ready().await?;

        story.serves("2").await.with_context(|| format!("killed at {step:?}"))?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn an_agent_killed_again_and_again_while_it_downloads_fetches_little_twice()
-> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let image = Image::of("2")?.padded(8 * MIB);
    let built = story.origin.publish(&image)?;
    let weights = built.layer("model.onnx").context("weights")?;
    // However slow the machine, it has no more of it than a tenth beyond where it is killed.
    let stall = |tenth: usize| Conduct::Stalled(8 * MIB * (tenth + 1) / 10);
    story.origin.wire.behave(weights, stall(2));
    story.want_again(&image, &built)?;
    let mut asked_before_restarts = Vec::new();
    for tenth in [2, 4, 6] {
        let is_so_far = |slot: &sealift_protocol::report::SlotReport| {
            slot.progress
                .is_some_and(|so_far| so_far.done_bytes * 10 >= so_far.total_bytes * tenth as u64)
        };
        story.until(&format!("{tenth} tenths are there"), is_so_far).await?;
        story.device.process.kill()?;
        asked_before_restarts.push(story.origin.wire.asked(weights).len());
        story.origin.wire.behave(weights, stall(tenth + 2));
        story.device.process.restart()?;
        story.device.ready().await?;
        answers_with(&story.device, "1").await?;
    }
    story.origin.wire.relent();

    story.serves("2").await?;

    let asked = story.origin.wire.asked(weights);
    let begins: Vec<u64> = asked
        .iter()
        .map(|asked| {
            let range = asked.range.as_ref()?.strip_prefix("bytes=")?;
            range.split('-').next()?.parse().ok()
        })
        .map(Option::unwrap_or_default)
        .collect();
    ensure!(begins.is_sorted(), "it went back: {begins:?}");
    // A process that waited out a stall knows what it hashed itself; one that begins believes whole chunks alone.
    for before in asked_before_restarts {
        let begin = *begins.get(before).with_context(|| format!("{before} of {begins:?}"))?;
        ensure!(begin >= MIB as u64, "all was fetched again: {begins:?}");
        ensure!(begin % MIB as u64 == 0, "a tail was believed: {begins:?}");
    }
    Ok(())
}

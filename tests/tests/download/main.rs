//! Downloads of a real agent, over the wire, from a server that answers as badly as it can. Whatever comes, the live model serves on.

mod disk;
mod images;
mod sources;
mod speed;
mod streams;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sealift_protocol::id::{Generation, ModelName};
use sealift_protocol::report::{OutcomeKind, SlotReport};
use sealift_tests::digits::MODEL;
use sealift_tests::fleet::Device;
use sealift_tests::origin::{Built, DEVICE, Image, Origin, Wanted, Wire, reported};
use sealift_tests::story::answers_with;
use sealift_tests::wait::{Look, until};
use tempfile::TempDir;

/// Anything that an agent does within a few tries of a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A device that serves version 1, and a server with every key.
struct Story {
    origin: Origin,
    device: Device,
    directory: TempDir,
}

impl Story {
    async fn begin() -> anyhow::Result<Self> {
        Self::with("").await
    }

    /// The same with more lines in the agent's configuration.
    async fn with(lines: &str) -> anyhow::Result<Self> {
        Self::at(tempfile::tempdir()?, |root| root.join(DEVICE), lines).await
    }

    /// The same with a store somewhere else below a directory.
    async fn at(
        directory: TempDir,
        place: impl Fn(&Path) -> PathBuf,
        lines: &str,
    ) -> anyhow::Result<Self> {
        let mut origin = Origin::start().await?;
        let first = Image::of("1")?;
        let built = origin.publish(&first)?;
        origin.direct(&[Wanted::new(&first, &built)])?;
        let place = place(directory.path());
        let device = origin.device(directory.path(), &place, lines).await?;
        let story = Self { origin, device, directory };
        story.serves("1").await?;
        Ok(story)
    }

    /// Servers that have the layers of one image, without TLS.
    async fn peers(count: usize, built: &Built) -> anyhow::Result<Vec<Wire>> {
        let mut peers = Vec::new();
        for _ in 0..count {
            peers.push(Origin::peer_with(built).await?);
        }
        Ok(peers)
    }

    /// Publishes an image and asks the device for it.
    fn want(&mut self, image: &Image) -> anyhow::Result<Built> {
        let built = self.origin.publish(image)?;
        self.want_again(image, &built)?;
        Ok(built)
    }

    /// Asks the device for an image once more.
    fn want_again(&mut self, image: &Image, built: &Built) -> anyhow::Result<Generation> {
        self.origin.direct(&[Wanted::new(image, built)])
    }

    fn slot(&self) -> anyhow::Result<SlotReport> {
        let model = ModelName::parse(MODEL)?;
        reported(&self.device.reported()?, &model).context("a slot")
    }

    /// Waits until the device reports this of the model.
    async fn until(
        &self,
        what: &str,
        is_so: impl Fn(&SlotReport) -> bool,
    ) -> anyhow::Result<SlotReport> {
        until(what, PATIENCE, || async {
            let slot = self.slot()?;
            Ok(if is_so(&slot) { Look::Done(slot) } else { Look::NotYet(format!("{slot:?}")) })
        })
        .await
        .with_context(|| self.device.process.log_tail())
    }

    /// Waits until a version serves and answers.
    async fn serves(&self, version: &str) -> anyhow::Result<()> {
        let is_served = |slot: &SlotReport| {
            slot.serving.as_ref().is_some_and(|image| image.version.as_str() == version)
        };
        self.until(&format!("{version} is served"), is_served).await?;
        answers_with(&self.device, version).await
    }

    /// Waits until the newest directive has ended like this, while version 1 answers.
    async fn ends(&self, result: OutcomeKind, code: &str) -> anyhow::Result<SlotReport> {
        let newest = self.origin.generation();
        let is_ended = |slot: &SlotReport| {
            slot.outcome.as_ref().is_some_and(|outcome| outcome.generation == newest)
        };
        let slot = self.until(&format!("the attempt ends with {code}"), is_ended).await?;
        let outcome = slot.outcome.as_ref().context("an outcome")?;
        ensure!(
            (outcome.result, outcome.code.as_str()) == (result, code),
            "{:?} {}: {}",
            outcome.result,
            outcome.code,
            outcome.reason
        );
        answers_with(&self.device, "1").await?;
        Ok(slot)
    }

    /// Waits until the agent's log has this after what it had when it was so long.
    async fn says(&self, after: usize, words: &str) -> anyhow::Result<()> {
        until(&format!("the agent says {words}"), PATIENCE, || async {
            let log = self.device.process.log();
            let news = log.get(after..).unwrap_or_default();
            Ok(if news.contains(words) {
                Look::Done(())
            } else {
                Look::NotYet(self.device.process.log_tail())
            })
        })
        .await
    }

    fn log_length(&self) -> usize {
        self.device.process.log().len()
    }

    /// Only whole images have a final name, and nothing of what was refused is one.
    fn complete_images(&self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.device.store.join("slots"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".partial") {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Nothing beside version 1 has become an image, and the agent lives.
    async fn is_unharmed(&mut self) -> anyhow::Result<()> {
        let complete = self.complete_images()?;
        ensure!(complete.len() == 1, "{complete:?}");
        self.device.process.check()?;
        ensure!(!self.device.process.log().contains("panicked"), "it panicked");
        answers_with(&self.device, "1").await
    }
}

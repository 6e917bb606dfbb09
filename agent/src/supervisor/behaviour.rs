//! Has images on trial judged by how they behave, and keeps what images have shown on disk, so that it outlives the agent and the worker.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sealift_protocol::digest::Digest;
use sealift_protocol::directive::Trial;
use sealift_protocol::id::UnixMillis;

use super::{Supervisor, SupervisorError};
use crate::behaviour::{HABITS_BYTES_MAX, Habits, hour_of};
use crate::device::Event;
use crate::disk::{self, Secrecy};
use crate::serve::Live;

/// Files of habits, one for each image that the device still has. A file that is lost costs a comparison and nothing else.
#[derive(Debug)]
pub(super) struct Memory {
    dir: PathBuf,
    /// The hour in which all were written last.
    written_in: usize,
}

impl Memory {
    pub(super) fn new(store: &Path, now: UnixMillis) -> Self {
        Self { dir: store.join("habits"), written_in: hour_of(now) }
    }

    fn path(&self, image: Digest) -> PathBuf {
        self.dir.join(format!("{}.cbor", image.hex()))
    }

    /// What an image has shown, if that was written down.
    pub(super) fn recalled(&self, image: Digest) -> Option<Habits> {
        let path = self.path(image);
        let read = disk::read(&path, HABITS_BYTES_MAX as u64);
        let read = read.inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "what an image has shown cannot be read");
        });
        Habits::decode(&read.ok()??)
    }

    /// Writes down what an image has shown. It was seen, so that it is asked for; without room for it, it is not.
    pub(super) fn remember(&self, live: &Live) {
        let habits = live.observer().habits();
        let Some(bytes) = habits.encode().filter(|_| !habits.is_empty()) else { return };
        let path = self.path(live.image().index);
        let written = disk::private_dir(&self.dir)
            .and_then(|()| disk::replace(&path, &bytes, Secrecy::Private));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "what an image has shown is not written down");
        }
    }

    /// Forgets images that the device does not have any more.
    pub(super) fn prune(&self, keep: &BTreeSet<Digest>) {
        // Nothing was written down yet, or it cannot be looked at: nothing to remove.
        let Ok(files) = fs::read_dir(&self.dir) else { return };
        for path in files.filter_map(Result::ok).map(|file| file.path()) {
            let hex = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let is_kept = Digest::from_hex(hex).is_ok_and(|image| keep.contains(&image));
            if !is_kept && let Err(error) = disk::remove(&path) {
                tracing::warn!(path = %path.display(), %error, "unused file was not removed");
            }
        }
    }
}

impl Supervisor {
    /// Lets each live image be judged by the rules of its trial.
    pub(super) fn judge_behaviour(&mut self) -> Result<(), SupervisorError> {
        let steady = self.clock.steady();
        let all = self.switchboard.all();
        for live in &all {
            live.observer().tell_the_time(steady);
        }
        if hour_of(steady) != self.memory.written_in {
            self.memory.written_in = hour_of(steady);
            for live in &all {
                self.memory.remember(live);
            }
        }
        for live in &all {
            self.judge_one(live, &all)?;
        }
        Ok(())
    }

    fn judge_one(&mut self, live: &Live, all: &[Live]) -> Result<(), SupervisorError> {
        let (model, image) = (live.model(), live.image().index);
        let Some((rules, previous)) = self.rules_for(live) else {
            live.observer().is_settled();
            return Ok(());
        };
        let others = all.iter().filter(|other| other.model() != model);
        let others: Vec<_> = others.map(|other| other.image().index).collect();
        if !live.observer().is_on_trial() {
            let before = self.memory.recalled(previous);
            let is_known = before.is_some();
            tracing::info!(%model, %image, is_known, "image is judged by the one before");
            live.observer().try_out(rules, others.clone(), before);
        }
        let Some(misstep) = live.observer().judge(&rules, &others) else { return Ok(()) };
        self.feed(Event::Misbehaved { model: model.clone(), image, misstep })
    }

    /// The rules of its trial, if it is this image that is on trial and not one that stands in, and what is gone back to.
    fn rules_for(&self, live: &Live) -> Option<(Trial, Digest)> {
        let mut serving = self.device.serving();
        let is_meant = serving.any(|(model, image)| model == live.model() && image == live.image());
        let (rules, previous) = self.device.trial(live.model()).filter(|_| is_meant)?;
        (!rules.behaviour.is_off()).then_some((*rules, previous))
    }

    /// Has an image that is about to be live go on from what it has shown before.
    pub(super) fn recall(&self, live: &Live) {
        if let Some(before) = self.switchboard.live(live.model()) {
            self.memory.remember(&before);
        }
        if let Some(habits) = self.memory.recalled(live.image().index) {
            live.observer().recall(habits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::Signed;

    #[test]
    fn what_was_written_is_recalled_until_the_image_is_gone_and_damage_is_as_nothing() {
        let store = tempfile::tempdir().unwrap();
        let memory = Memory::new(store.path(), UnixMillis(0));
        let [kept, gone, damaged] = [b"kept", b"gone", b"harm"].map(|text| Digest::of(text));
        fs::create_dir(store.path().join("habits")).unwrap();
        let habits = Habits::new(Signed::default());
        for image in [kept, gone] {
            fs::write(memory.path(image), habits.encode().unwrap()).unwrap();
        }
        fs::write(memory.path(damaged), b"{}").unwrap();
        fs::write(store.path().join("habits/x.cbor.new"), b"half").unwrap();

        memory.prune(&BTreeSet::from([kept, damaged]));

        assert_eq!(memory.recalled(kept), Some(habits));
        assert_eq!((memory.recalled(gone), memory.recalled(damaged)), (None, None));
        assert_eq!(fs::read_dir(store.path().join("habits")).unwrap().count(), 2);
    }
}

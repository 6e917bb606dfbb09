//! Which worker is live: the pointer on disk first, then the switchboard; what was live stays warm for a while.

use std::collections::btree_map::Entry;

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::report::ImageRef;

use super::{Input, Purpose, Ready, Supervisor, SupervisorError};
use crate::device::{Answer, Event, Fault, FaultKind, Ticket};
use crate::limits::KEEP_WARM_MS;
use crate::serve::Live;
use crate::slots::Pointer;
use crate::verify;

/// A model's worker that was swapped out and is still warm.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) live: Live,
    until: UnixMillis,
}

/// What becomes of the worker of another image that answered until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// It may have to stand in, or be gone back to.
    StaysWarm,
    /// It did badly.
    Ends,
}

impl Supervisor {
    /// Makes the warm worker live. Requests in flight finish on the one before.
    pub(super) fn activate(
        &mut self,
        model: &ModelName,
        image: ImageRef,
        previous: Option<ImageRef>,
    ) -> Answer {
        self.end_shadow(model);
        let warm = self.workers.warm.remove(model).filter(|live| *live.image() == image);
        let Some(live) = warm else {
            let reason = "the worker ended before it was made live";
            return Answer::Failed(Fault::new(FaultKind::Failed, "activate.no-worker", reason));
        };
        match self.point(model, image, previous) {
            Ok(()) => {
                let providers = self.make_live(model, live, Before::StaysWarm);
                Answer::Activated { providers }
            }
            Err(fault) => {
                self.retire(live);
                Answer::Failed(fault)
            }
        }
    }

    /// Goes back to `image`: to its worker if that is still warm, else to a new one from disk.
    pub(super) fn revert(
        &mut self,
        model: ModelName,
        ticket: Ticket,
        image: ImageRef,
    ) -> Option<Event> {
        let answer = if let Err(fault) = self.point(&model, image.clone(), None) {
            Answer::Failed(fault)
        } else if let Some(live) = self.running(&model, &image) {
            Answer::Reverted { providers: self.make_live(&model, live, Before::Ends) }
        } else {
            self.start_worker(&model, image, Purpose::Revert(ticket), 0);
            return None;
        };
        Some(Event::Answer { model, ticket, answer })
    }

    /// A worker of `image` that runs: the live one, or the one that was kept warm.
    fn running(&mut self, model: &ModelName, image: &ImageRef) -> Option<Live> {
        let live = self.switchboard.live(model).filter(|_| !self.workers.dead.contains(model));
        let kept = self.workers.kept.get(model).map(|kept| kept.live.clone());
        [live, kept].into_iter().flatten().find(|live| live.image() == image)
    }

    /// Takes a model off the switchboard and its pointer off the disk.
    pub(super) fn clear(&mut self, model: &ModelName, done: Answer) -> Answer {
        if let Err(error) = self.slots.unpoint(model) {
            return Answer::Failed(verify::on_disk(&error));
        }
        let live = self.switchboard.swap(model, None);
        let kept = self.workers.kept.remove(model).map(|kept| kept.live);
        for live in live.into_iter().chain(kept) {
            self.retire(live);
        }
        self.workers.dead.remove(model);
        if let Some(start) = self.workers.starts.remove(model) {
            start.abort();
        }
        self.prune();
        done
    }

    fn point(
        &self,
        model: &ModelName,
        active: ImageRef,
        previous: Option<ImageRef>,
    ) -> Result<(), Fault> {
        let pointer = Pointer { model: model.clone(), active, previous };
        self.slots.point(&pointer, &self.reserve).map_err(|error| verify::on_disk(&error))
    }

    /// Swaps, and watches the new worker. Another image's worker that answered until now stays warm, or is ended.
    fn make_live(&mut self, model: &ModelName, live: Live, before: Before) -> Vec<(String, u32)> {
        let providers = live.providers().to_vec();
        let index = live.image().index;
        tracing::info!(%model, version = %live.image().version, %index, "image is live");
        self.watch(&live);
        self.recall(&live);
        let is_other = |live: &Live| live.image().index != index;
        let replaced = self.switchboard.swap(model, Some(live)).filter(is_other);
        let was_dead = self.workers.dead.remove(model);
        let kept = self.workers.kept.remove(model).map(|kept| kept.live).filter(is_other);
        let (kept, ended) = match replaced {
            None => (kept, None),
            Some(replaced) if was_dead => (kept, Some(replaced)),
            // What was kept may be what stood in for a crashed worker until now.
            Some(replaced) => {
                let older = kept.filter(|kept| kept.image() != replaced.image());
                (Some(replaced), older)
            }
        };
        let (kept, also_ended) = match before {
            Before::StaysWarm => (kept, None),
            Before::Ends => (None, kept),
        };
        for live in ended.into_iter().chain(also_ended) {
            self.retire(live);
        }
        if let Some(live) = kept {
            let until = self.clock.steady().plus(KEEP_WARM_MS);
            self.workers.kept.insert(model.clone(), Kept { live, until });
        }
        self.prune();
        providers
    }

    /// Makes sure that a worker answers for the live image.
    pub(super) fn serve(
        &mut self,
        model: ModelName,
        image: ImageRef,
        after_ms: i64,
    ) -> Option<Event> {
        let live = self.switchboard.live(&model);
        let live =
            live.filter(|live| *live.image() == image && !self.workers.dead.contains(&model));
        let Some(live) = live else {
            let purpose = Purpose::Serve(image.index);
            self.start_worker(&model, image, purpose, after_ms);
            return None;
        };
        let providers = live.providers().to_vec();
        Some(Event::Served { model, image: image.index, providers })
    }

    /// A worker that was started is ready, or is not.
    pub(super) fn on_worker(
        &mut self,
        model: &ModelName,
        purpose: Purpose,
        ready: Result<Ready, Fault>,
    ) -> Option<Event> {
        let model = model.clone();
        let ready = ready.map(|Ready { live, runtime }| {
            if self.me.facts.runtime != runtime {
                self.me.facts.runtime = runtime;
                self.is_birth_due = true;
            }
            live
        });
        match (purpose, ready) {
            (Purpose::Warm(ticket), Ok(live)) => {
                self.watch(&live);
                if let Some(before) = self.workers.warm.insert(model.clone(), live) {
                    self.retire(before);
                }
                Some(Event::Answer { model, ticket, answer: Answer::Warmed })
            }
            (Purpose::Revert(ticket), Ok(live)) => {
                let answer =
                    Answer::Reverted { providers: self.make_live(&model, live, Before::Ends) };
                Some(Event::Answer { model, ticket, answer })
            }
            (Purpose::Warm(ticket) | Purpose::Revert(ticket), Err(fault)) => {
                Some(Event::Answer { model, ticket, answer: Answer::Failed(fault) })
            }
            (Purpose::Serve(image), Ok(live)) => {
                if !self.is_wanted(&model, image) {
                    self.retire(live);
                    return None;
                }
                let providers = self.make_live(&model, live, Before::StaysWarm);
                Some(Event::Served { model, image, providers })
            }
            (Purpose::Serve(image), Err(fault)) => {
                tracing::warn!(%model, code = fault.code, reason = fault.reason, "worker not started");
                Some(Event::NotServed { model, image, reason: fault.reason })
            }
        }
    }

    fn is_wanted(&self, model: &ModelName, image: Digest) -> bool {
        self.device.serving().any(|(found, serving)| found == model && serving.index == image)
    }

    /// A worker ended by itself. While a new one starts, the one before answers, if it is still warm.
    pub(super) fn on_exited(
        &mut self,
        model: ModelName,
        image: Digest,
        reason: String,
    ) -> Result<(), SupervisorError> {
        self.workers.watchers.remove(&(model.clone(), image));
        self.restarts = self.restarts.saturating_add(1);
        tracing::warn!(%model, %image, reason, "worker ended");
        if self.workers.warm.get(&model).is_some_and(|live| live.image().index == image) {
            self.end_shadow(&model);
            self.workers.warm.remove(&model);
        }
        if let Entry::Occupied(kept) = self.workers.kept.entry(model.clone())
            && kept.get().live.image().index == image
        {
            kept.remove();
        }
        let live = self.switchboard.live(&model);
        if let Some(live) = live.filter(|live| live.image().index == image) {
            self.memory.remember(&live);
            match self.workers.kept.get(&model) {
                Some(kept) => drop(self.switchboard.swap(&model, Some(kept.live.clone()))),
                None => drop(self.workers.dead.insert(model.clone())),
            }
        }
        self.feed(Event::Crashed { model, image, reason })
    }

    fn watch(&mut self, live: &Live) {
        let (model, image) = (live.model().clone(), live.image().index);
        let (inputs, worker) = (self.inputs.clone(), live.worker().clone());
        let key = (model.clone(), image);
        let watcher = tokio::spawn(async move {
            let reason = worker.exited().await;
            // The supervisor may have gone meanwhile.
            drop(inputs.send(Input::Exited { model, image, reason }).await);
        });
        if let Some(before) = self.workers.watchers.insert(key, watcher.abort_handle()) {
            before.abort();
        }
    }

    /// Ends a worker after its last request.
    pub(super) fn retire(&mut self, live: Live) {
        let key = (live.model().clone(), live.image().index);
        let is_live_again =
            self.switchboard.live(&key.0).is_some_and(|now| now.image().index == key.1);
        if !is_live_again && let Some(watcher) = self.workers.watchers.remove(&key) {
            watcher.abort();
        }
        tokio::spawn(live.retire());
    }

    /// Ends what was kept warm long enough, unless it stands in for a worker that crashed.
    pub(super) fn retire_kept(&mut self, now: UnixMillis) {
        let due = |kept: &Kept| kept.until <= now;
        let models: Vec<_> = self
            .workers
            .kept
            .iter()
            .filter(|(_, kept)| due(kept))
            .map(|(model, _)| model.clone())
            .collect();
        for model in models {
            let stands_in = |kept: &Kept| {
                let live = self.switchboard.live(&model);
                live.is_some_and(|live| live.image() == kept.live.image())
            };
            if self.workers.kept.get(&model).is_some_and(stands_in) {
                continue;
            }
            if let Some(kept) = self.workers.kept.remove(&model) {
                self.retire(kept.live);
            }
        }
    }

    /// Removes images that nothing refers to any more.
    pub(super) fn prune(&self) {
        let mut keep = self.device.images();
        keep.extend(self.switchboard.all().iter().map(|live| live.image().index));
        keep.extend(self.workers.kept.values().map(|kept| kept.live.image().index));
        if let Err(error) = self.slots.prune(&keep) {
            tracing::warn!(%error, "unused images were not removed");
        }
        self.memory.prune(&keep);
    }
}

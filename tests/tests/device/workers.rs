//! Worker processes of an agent, looked at from outside.

use std::fs;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use sealift_tests::fleet::Device;
use sealift_tests::story::SOON;
use sealift_tests::wait::{Look, until};

/// A process, younger ones last: ids are given again and say nothing of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Worker {
    started: u64,
    id: i32,
}

impl Worker {
    fn read(id: i32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The 22nd field; the second is a name in parentheses, which may hold anything.
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        let started = fields.split_whitespace().nth(19).context("no start time")?.parse()?;
        Ok(Self { started, id })
    }

    /// Whether this very process is there, and is not merely waited for by nobody.
    pub(super) fn is_running(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id)).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().next());
        Self::read(self.id).is_ok_and(|now| now == self) && state != Some("Z")
    }

    pub(super) fn kill(self) -> anyhow::Result<()> {
        let id = Pid::from_raw(self.id).context("a process id is not 0")?;
        Ok(kill_process(id, Signal::KILL)?)
    }
}

/// All workers of an agent, the youngest last.
pub(super) fn all(device: &Device) -> anyhow::Result<Vec<Worker>> {
    let agent = device.process.id();
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{agent}/task"))? {
        // A thread that has ended meanwhile had no workers.
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        let workers = children.split_whitespace().map(|child| Worker::read(child.parse()?));
        found.extend(workers.filter_map(Result::ok));
    }
    found.sort_unstable();
    Ok(found)
}

/// The newest worker, once that is newer than `before`: it has the newest image. The one before is kept warm.
pub(super) async fn newest(device: &Device, before: Option<Worker>) -> anyhow::Result<Worker> {
    until("a newer worker runs", SOON, || async {
        let newest = all(device)?.last().copied();
        Ok(match newest {
            Some(worker) if newest > before => Look::Done(worker),
            _ => Look::NotYet(format!("{newest:?}")),
        })
    })
    .await
}

//! Jobs on disk: a file for each, beside the agent's own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sealift_protocol::request::{BATCH_JOBS_MAX, BatchJob, BatchState};

use crate::disk::{self, Secrecy};

/// A job has two paths and a reason.
const BYTES_MAX: u64 = 64 << 10;

/// The jobs, in the order in which they were asked for.
pub(super) struct Kept {
    directory: PathBuf,
    jobs: Vec<BatchJob>,
}

impl Kept {
    /// Reads what was kept; what was at work waits again. A file that cannot be read is left out, and said so.
    pub(super) fn read(store: &Path) -> Self {
        let directory = store.join("batches");
        let mut jobs = Vec::new();
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|kind| kind != "json") {
                continue;
            }
            let read = disk::read(&path, BYTES_MAX).ok().flatten();
            match read.and_then(|bytes| serde_json::from_slice::<BatchJob>(&bytes).ok()) {
                Some(job) => jobs.push(job),
                None => {
                    tracing::warn!(path = %path.display(), "a batch was kept and is not readable");
                }
            }
        }
        jobs.sort_by(|one, other| {
            (one.asked_at, &one.run.name).cmp(&(other.asked_at, &other.run.name))
        });
        for job in jobs.iter_mut().filter(|job| job.state == BatchState::Running) {
            job.state = BatchState::Waiting;
        }
        Self { directory, jobs }
    }

    pub(super) fn all(&self) -> Vec<BatchJob> {
        self.jobs.clone()
    }

    pub(super) fn find(&self, name: &str) -> Option<&BatchJob> {
        self.jobs.iter().find(|job| job.run.name == name)
    }

    pub(super) fn find_mut(&mut self, name: &str) -> Option<&mut BatchJob> {
        self.jobs.iter_mut().find(|job| job.run.name == name)
    }

    /// What comes next: rows before predictions that wait for a server which may be out of reach.
    pub(super) fn first_waiting(&self) -> Option<&BatchJob> {
        let waiting = || self.jobs.iter().filter(|job| job.state == BatchState::Waiting);
        waiting().find(|job| !job.is_answered).or_else(|| waiting().next())
    }

    /// Forgets the oldest job that is over, if there is no room; false if all are at work or wait.
    pub(super) fn make_room(&mut self) -> bool {
        if self.jobs.len() < BATCH_JOBS_MAX {
            return true;
        }
        let is_over =
            |job: &BatchJob| !matches!(job.state, BatchState::Waiting | BatchState::Running);
        let Some(oldest) = self.jobs.iter().position(is_over) else { return false };
        let job = self.jobs.remove(oldest);
        let path = self.path(&job.run.name);
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a batch of before is not forgotten");
        }
        true
    }

    /// Keeps a job, over what it was.
    pub(super) fn put(&mut self, job: BatchJob) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let bytes = serde_json::to_vec_pretty(&job)?;
        disk::replace(&self.path(&job.run.name), &bytes, Secrecy::Private)?;
        match self.jobs.iter_mut().find(|known| known.run.name == job.run.name) {
            Some(known) => *known = job,
            None => self.jobs.push(job),
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::id::{ModelName, UnixMillis};
    use sealift_protocol::request::{BatchFormat, BatchRun};

    use super::*;

    fn job(name: &str, at: i64, state: BatchState) -> BatchJob {
        let run = BatchRun {
            name: name.to_owned(),
            model: ModelName::parse("vision/digits").unwrap(),
            input: "/data/rows.csv".to_owned(),
            output: "/data/out".to_owned(),
            rows: 256,
            no_header: false,
            array: None,
            format: BatchFormat::Jsonl,
            upload: false,
        };
        let (by, reason) = ("alice".to_owned(), String::new());
        let (asked_at, changed_at) = (UnixMillis(at), UnixMillis(at));
        BatchJob {
            run,
            by,
            state,
            answered: 0,
            parts: 0,
            failures: 0,
            reason,
            asked_at,
            changed_at,
            is_answered: false,
            brought: None,
        }
    }

    #[test]
    fn after_a_restart_jobs_are_there_in_their_order_and_what_was_at_work_waits() {
        let store = tempfile::tempdir().unwrap();
        let mut kept = Kept::read(store.path());
        kept.put(job("b", 2, BatchState::Running)).unwrap();
        kept.put(job("a", 1, BatchState::Done)).unwrap();
        fs::write(store.path().join("batches/c.json"), "junk").unwrap();

        let kept = Kept::read(store.path());

        let found = kept.all().into_iter().map(|job| (job.run.name, job.state));
        let expected = [("a".to_owned(), BatchState::Done), ("b".to_owned(), BatchState::Waiting)];
        assert_eq!(found.collect::<Vec<_>>(), expected);
        assert_eq!(kept.first_waiting().unwrap().run.name, "b");
    }

    #[test]
    fn no_more_jobs_are_kept_than_there_is_room_for_and_none_that_waits_is_forgotten() {
        let store = tempfile::tempdir().unwrap();
        let mut kept = Kept::read(store.path());
        for place in 0..BATCH_JOBS_MAX {
            let state = if place == 3 { BatchState::Done } else { BatchState::Waiting };
            assert!(kept.make_room());
            kept.put(job(&format!("n{place}"), i64::try_from(place).unwrap(), state)).unwrap();
        }
        assert!(kept.make_room());
        assert!(kept.find("n3").is_none() && !store.path().join("batches/n3.json").exists());
        kept.put(job("more", 99, BatchState::Waiting)).unwrap();
        assert!(!kept.make_room());
    }
}

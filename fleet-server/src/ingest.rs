//! Everything that comes from devices, over whichever broker: checked, stored once, acknowledged after the commit.
//!
//! Messages of many devices are committed together: one wait for the disk serves all that came in the meantime.

use std::collections::BTreeMap;
use std::time::Duration;

use sealift_protocol::id::{DeviceId, TenantId, UnixMillis};
use sealift_protocol::telemetry::Ack;
use sealift_protocol::topic::Up;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::certificate::Identity;
use crate::events::Hub;
use crate::signals::Signals;
use crate::store::{Store, StoreError};

mod apply;
mod message;

use apply::Touched;
use message::Message;
pub(crate) use message::{InvalidMessage, plain};

/// Messages that wait for a commit, decoded. Beyond it the broker waits, and with it the devices, with what came as it came.
const QUEUE_MAX: usize = 1_024;
/// Messages in one commit: about 50 ms of work, so that no device waits longer for others.
const BATCH_MAX: usize = 256;

/// So many messages in a commit say that more are on their way,
const BUSY_MIN: usize = 8;
/// which are then waited for: a commit of fifty costs hardly more than one of five, and whoever sends alone does not wait.
const GATHER: Duration = Duration::from_millis(40);

/// Why a message was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    /// Not a message of ours.
    #[error("the message is refused")]
    Invalid(#[from] InvalidMessage),
    /// Nobody by that name is enrolled, or not any more.
    #[error("device {0} is not enrolled or is revoked")]
    UnknownDevice(DeviceId),
    /// Numbered far beyond what is stored: the device must send what is missing first.
    #[error("message {sequence} of device {device} is too far beyond a gap")]
    TooFarAhead {
        /// Whose.
        device: DeviceId,
        /// Its number.
        sequence: u64,
    },
    /// The store did not take it; it may come again.
    #[error("the message was not stored")]
    Store(#[source] StoreError),
    /// The server stops.
    #[error("the server stops")]
    Stopped,
}

impl IngestError {
    /// Whether the message itself is at fault, so that storing it later would not help.
    pub(crate) const fn is_refusal(&self) -> bool {
        match self {
            Self::Invalid(_) | Self::UnknownDevice(_) | Self::TooFarAhead { .. } => true,
            Self::Store(_) | Self::Stopped => false,
        }
    }
}

impl From<StoreError> for IngestError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Takes messages; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Ingest {
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    tenant: TenantId,
    device: DeviceId,
    message: Message,
    now: UnixMillis,
    answer: oneshot::Sender<Stored>,
}

/// How a message fared, with the receipt to send, if one is due.
type Stored = Result<Option<Ack>, IngestError>;

/// A place for one message.
type Room<'a> = mpsc::Permit<'a, Job>;

impl Ingest {
    /// Starts the task that commits. It ends when the last [`Ingest`] is dropped.
    pub(crate) fn start(store: Store, signals: Signals, hub: Hub) -> (Self, JoinHandle<()>) {
        let (jobs, inbox) = mpsc::channel(QUEUE_MAX);
        let task = tokio::spawn(commit_batches(Writer { store, signals, hub }, inbox));
        (Self { jobs }, task)
    }

    /// Stores one message of a device. Returns, after the commit, the receipt to send, if one is due.
    pub(crate) async fn accept(
        &self,
        from: &Identity,
        channel: Up,
        payload: &[u8],
        now: UnixMillis,
    ) -> Stored {
        let room = self.room().await?;
        let message = Message::decode(channel, payload, now)?;
        let answered = queue(room, from, message, now);
        answered.await.map_err(|_| IngestError::Stopped)?
    }

    /// Stores that a device was refused something.
    pub(crate) async fn security_event(
        &self,
        of: &Identity,
        code: &str,
        text: &str,
        now: UnixMillis,
    ) -> Result<(), IngestError> {
        let room = self.room().await?;
        let answered = queue(room, of, Message::security(code, text, now), now);
        answered.await.map_err(|_| IngestError::Stopped)?.map(|_| ())
    }

    /// Waits for room. Nothing is decoded before: of a fleet that speaks at once, thousands wait here.
    async fn room(&self) -> Result<Room<'_>, IngestError> {
        self.jobs.reserve().await.map_err(|_| IngestError::Stopped)
    }
}

fn queue(
    room: Room<'_>,
    Identity { tenant, device }: &Identity,
    message: Message,
    now: UnixMillis,
) -> oneshot::Receiver<Stored> {
    let (answer, answered) = oneshot::channel();
    room.send(Job { tenant: tenant.clone(), device: device.clone(), message, now, answer });
    answered
}

struct Writer {
    store: Store,
    signals: Signals,
    hub: Hub,
}

async fn commit_batches(writer: Writer, mut inbox: mpsc::Receiver<Job>) {
    let mut jobs = Vec::with_capacity(BATCH_MAX);
    loop {
        let came = inbox.recv_many(&mut jobs, BATCH_MAX).await;
        if came == 0 {
            break;
        }
        // One order for all writers, so that two servers on one database do not wait for each other in a circle. The sort is stable:
        // what one device sent stays in its order.
        jobs.sort_by(|left, right| {
            (&left.tenant, &left.device).cmp(&(&right.tenant, &right.device))
        });
        let mut rest = jobs.drain(..).peekable();
        while let Some(first) = rest.next() {
            let mut batch = vec![first];
            while let Some(next) =
                rest.next_if(|next| batch.first().is_some_and(|first| first.tenant == next.tenant))
            {
                batch.push(next);
            }
            writer.commit(batch).await;
        }
        if is_worth_a_wait(came) {
            sleep(GATHER).await;
        }
    }
}

/// Whether more messages should come together before the next commit. A full one says that they are there already.
const fn is_worth_a_wait(came: usize) -> bool {
    came >= BUSY_MIN && came < BATCH_MAX
}

impl Writer {
    /// Commits all together; if that fails, each alone, so that one cannot spoil the others.
    async fn commit(&self, batch: Vec<Job>) {
        match self.try_commit(&batch).await {
            Ok(answers) => {
                for (job, answer) in batch.into_iter().zip(answers) {
                    // Whoever asked may have gone: the message is stored all the same.
                    let _ = job.answer.send(answer);
                }
            }
            Err(error) if batch.len() == 1 => {
                for job in batch {
                    let answer = Err(IngestError::Store(StoreError::Changed("the store")));
                    tracing::error!(%error, device = %job.device, "message not stored");
                    let _ = job.answer.send(answer);
                }
            }
            Err(error) => {
                tracing::warn!(%error, messages = batch.len(), "messages are stored one by one");
                for job in batch {
                    Box::pin(self.commit(vec![job])).await;
                }
            }
        }
    }

    /// One answer per job, all committed; or nothing is.
    async fn try_commit(
        &self,
        batch: &[Job],
    ) -> Result<Vec<Result<Option<Ack>, IngestError>>, StoreError> {
        let Some(first) = batch.first() else { return Ok(Vec::new()) };
        let mut change = self.store.tenant(&first.tenant).begin().await?;
        let known = apply::known_senders(&mut change, batch).await?;
        let mut touched = Touched::default();
        let mut answers = BTreeMap::new();
        for round in rounds(batch) {
            let (places, jobs): (Vec<_>, Vec<_>) = round.into_iter().unzip();
            let applied = apply::apply(&mut change, &jobs, &known, &mut touched).await?;
            answers.extend(places.into_iter().zip(applied));
        }
        change.commit().await?;
        touched.tell(&self.signals, &self.hub);
        Ok(answers.into_values().collect())
    }
}

/// The messages with their places, sorted by device as they are: in each round at most one of a device, in the order in which it sent
/// them.
fn rounds(batch: &[Job]) -> Vec<Vec<(usize, &Job)>> {
    let mut rounds: Vec<Vec<(usize, &Job)>> = Vec::new();
    let mut number = 0;
    for (place, job) in batch.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|before| batch.get(before));
        let is_same = before.is_some_and(|before| before.device == job.device);
        number = if is_same { number + 1 } else { 0 };
        match rounds.get_mut(number) {
            Some(round) => round.push((place, job)),
            None => rounds.push(vec![(place, job)]),
        }
    }
    rounds
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_round_has_one_message_of_a_device_and_rounds_keep_its_order() {
        let batch = [job("a", 1), job("a", 2), job("a", 3), job("b", 4), job("c", 5), job("c", 6)];

        let rounds: Vec<Vec<_>> = rounds(&batch)
            .iter()
            .map(|round| round.iter().map(|(place, job)| (*place, job.now.0)).collect())
            .collect();

        assert_eq!(rounds, [vec![(0, 1), (3, 4), (4, 5)], vec![(1, 2), (5, 6)], vec![(2, 3)]]);
    }

    #[test]
    fn nobody_waits_who_sends_alone_or_behind_many() {
        assert!(!is_worth_a_wait(1) && !is_worth_a_wait(BATCH_MAX));
        assert!(is_worth_a_wait(BUSY_MIN) && is_worth_a_wait(BATCH_MAX - 1));
    }

    #[tokio::test]
    async fn what_waits_for_room_is_not_looked_at_before() {
        let (jobs, mut inbox) = mpsc::channel(1);
        let ingest = Ingest { jobs };
        let Job { tenant, device, .. } = job("cam-1", 1);
        let from = Identity { tenant, device };
        ingest.jobs.send(job("cam-2", 1)).await.unwrap();
        let refused = ingest.accept(&from, Up::Beat, b"no heartbeat", UnixMillis(2));
        tokio::pin!(refused);

        assert!(refused.as_mut().now_or_never().is_none(), "it was looked at");
        inbox.recv().await.unwrap();
        assert!(matches!(refused.await, Err(IngestError::Invalid(_))));
        // A refused one leaves its room to the next.
        ingest.jobs.try_send(job("cam-2", 3)).unwrap();
    }

    fn job(device: &str, at: i64) -> Job {
        let now = UnixMillis(at);
        Job {
            tenant: TenantId::parse("acme").unwrap(),
            device: DeviceId::parse(device).unwrap(),
            message: Message::security("code", "text", now),
            now,
            answer: oneshot::channel().0,
        }
    }
}

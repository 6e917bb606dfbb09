//! The power may go at any moment: what a device has once believed is never taken back by that.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use sealift_protocol::id::{Epoch, Generation};
use sealift_protocol::tuf::bundle::Revocations;
use sealift_protocol::tuf::client::{Client, RoleNames};

use super::*;
use crate::disk::Secrecy;
use crate::drill;
use crate::identity::Identity;
use crate::trust::{Trust, files, kept_metadata};

const REVOCATIONS: &str = "tuf/targets/trust/revocations.json";

/// What a device that starts from a directory holds others to.
#[derive(Debug)]
struct Held {
    generation: Generation,
    issued_at: UnixMillis,
    floor: Epoch,
    is_kept: bool,
    root: u64,
    timestamp: Option<u64>,
    snapshot: Option<u64>,
    denied: BTreeSet<Digest>,
}

impl Held {
    fn by(store: &Path) -> Self {
        let (_, entries) = Journal::open(&store.join("journal")).unwrap();
        let device = Device::restore(entries);
        let tuf = store.join("tuf");
        files::recover(&tuf, Secrecy::Private).unwrap();
        let client = Client::open(kept_metadata(&tuf).unwrap(), RoleNames::Plain).unwrap();
        let list = std::fs::read(store.join(REVOCATIONS)).ok();
        let report = device.report(UnixMillis(0));
        let kept = |slot: &SlotReport| {
            let outcome = slot.outcome.as_ref();
            slot.phase == Phase::Watch
                && outcome.is_some_and(|outcome| outcome.image.version.as_str() == "2")
        };
        Self {
            generation: device.generation(),
            issued_at: device.issued_at(),
            floor: device.floor(&model()),
            is_kept: report.slots.iter().any(kept),
            root: client.root().version,
            timestamp: client.timestamp().map(|timestamp| timestamp.version),
            snapshot: client.snapshot().map(|snapshot| snapshot.version),
            denied: list
                .map_or_else(BTreeSet::new, |list| Revocations::parse(&list).unwrap().images),
        }
    }

    fn check_is_not_before(&self, earlier: &Self) {
        assert!(self.generation >= earlier.generation && self.issued_at >= earlier.issued_at);
        assert!(self.floor >= earlier.floor && self.root >= earlier.root);
        assert!(self.denied.is_superset(&earlier.denied));
        // A root that takes a key away takes with it what that key may have raised, in the same step.
        if self.root == earlier.root {
            assert!(self.timestamp >= earlier.timestamp && self.snapshot >= earlier.snapshot);
        }
        assert_eq!(self.floor >= Epoch(5), self.is_kept || earlier.floor >= Epoch(5));
    }
}

/// Copies what a device believes each time that the power could go.
fn photograph(store: &Path, into: &Path) -> Rc<RefCell<Vec<PathBuf>>> {
    let pictures = Rc::new(RefCell::new(Vec::new()));
    let (taken, store, into) = (Rc::clone(&pictures), store.to_owned(), into.to_owned());
    drill::watch(move |_| {
        let picture = into.join(taken.borrow().len().to_string());
        for name in ["tuf", "tuf/targets", "tuf/targets/trust", "."] {
            std::fs::create_dir_all(picture.join(name)).unwrap();
            let files = std::fs::read_dir(store.join(name)).into_iter().flatten().flatten();
            let plain = files.filter(|file| file.path().is_file() && file.file_name() != "reserve");
            for file in plain {
                std::fs::copy(file.path(), picture.join(name).join(file.file_name())).unwrap();
            }
        }
        taken.borrow_mut().push(picture);
    });
    pictures
}

#[tokio::test]
async fn no_power_loss_at_any_write_lets_anything_older_back_in() {
    let mut fleet = Fleet::start().await;
    let first = fleet.publish("1", 1);
    fleet.direct(1, "1", first);
    let mut agent = Agent::enrolled(&fleet).await;
    let album = tempfile::tempdir().unwrap();
    let pictures = photograph(agent.store.path(), album.path());
    agent.start();
    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "1")).await;

    fleet.rotate_timestamp_key();
    let second = fleet.publish("2", 5);
    fleet.direct(2, "2", second);
    agent.until(|slot| slot.phase == Phase::Watch && serves(slot, "2")).await;
    fleet.revoke(first);
    agent.wait(|| agent.denies(first).then_some(())).await;
    agent.kill().await;
    drill::watch(|_| ());

    let held: Vec<_> = pictures.take().iter().map(|picture| Held::by(picture)).collect();
    assert!(held.len() > 40, "only {} moments", held.len());
    for (earlier, later) in held.iter().zip(held.iter().skip(1)) {
        later.check_is_not_before(earlier);
    }
    let last = Held::by(agent.store.path());
    assert_eq!((last.generation, last.floor, last.root), (Generation(2), Epoch(5), 2));
    assert!(last.denied.contains(&first) && last.timestamp > Some(1) && last.snapshot > Some(1));
}

#[tokio::test]
async fn metadata_that_cannot_be_written_are_not_relied_on() {
    let mut fleet = Fleet::start().await;
    let agent = Agent::enrolled(&fleet).await;
    let mut trust = trust_of(&agent);
    trust.refresh_now(now()).await.unwrap();
    fleet.publish("2", 1);
    // A directory where the new file would be made: nothing can be written over it.
    let in_the_way = agent.path().join("tuf/timestamp.json.new");
    std::fs::create_dir(&in_the_way).unwrap();

    for _ in 0..2 {
        assert!(matches!(trust.refresh_now(now()).await, Err(TrustError::Disk { .. })));
    }

    std::fs::remove_dir(&in_the_way).unwrap();
    trust.refresh_now(now()).await.unwrap();
    let kept = Client::open(kept_metadata(&agent.path().join("tuf")).unwrap(), RoleNames::Plain);
    assert_eq!(kept.unwrap().timestamp().unwrap().version, 2);
}

/// What a device trusts, without the rest of it.
pub(super) fn trust_of(agent: &Agent) -> Trust {
    let identity = Identity::load(agent.store.path()).unwrap();
    let clock = Clock::new(UnixMillis(0), system_time);
    let tls = identity.tls(agent.store.path(), &[], &clock).unwrap();
    let origin = Origin::new(&identity.url, tls).unwrap();
    Trust::open(&agent.path().join("tuf"), origin).unwrap()
}

use sealift_protocol::id::TenantId;
use sealift_protocol::topic::{Broadcast, Down};

use super::*;

const WISH: Wish = Wish { acknowledges: true, retained_as_published: false };

fn identity(name: &str) -> Identity {
    Identity::parse(name).unwrap()
}

fn directive(to: &Identity, text: &str) -> Message {
    let topic = Topic::Down(to.tenant.clone(), to.device.clone(), Down::Directive);
    Message { topic, payload: text.as_bytes().to_vec(), retain: true }
}

fn halt(tenant: &str, text: &str) -> Message {
    let topic = Topic::Broadcast(TenantId::parse(tenant).unwrap(), Broadcast::Halt);
    Message { topic, payload: text.as_bytes().to_vec(), retain: true }
}

fn enter(hall: &Arc<Hall>, identity: &Identity) -> Claimed {
    let claimed = hall.claim(identity.clone(), false);
    claimed.place.begin(false);
    for filter in [Filter::Own, Filter::Broadcasts] {
        hall.subscribe((identity, &claimed.place), (filter, WISH), Backlog::Always);
    }
    claimed
}

fn got(claimed: &Claimed) -> Vec<(bool, String)> {
    let next = || claimed.place.mailbox().next(usize::MAX);
    let text = |payload: &Bytes| String::from_utf8(payload.to_vec()).unwrap();
    std::iter::from_fn(next)
        .map(|sent| (sent.parcel.is_retained, text(&sent.parcel.payload)))
        .collect()
}

#[test]
fn a_message_goes_to_its_device_and_to_whoever_subscribes_later() {
    let (hall, cam_1, cam_2) =
        (Arc::<Hall>::default(), identity("main:cam-1"), identity("main:cam-2"));
    let (first, other) = (enter(&hall, &cam_1), enter(&hall, &cam_2));

    hall.publish(directive(&cam_1, "one"));

    assert_eq!(got(&first), [(false, "one".to_owned())]);
    assert!(got(&other).is_empty());
    let filter = (Filter::Own, WISH);
    hall.subscribe((&cam_1, &first.place), filter, Backlog::Always);
    assert_eq!(got(&first), [(true, "one".to_owned())]);
    for backlog in [Backlog::IfNew, Backlog::Never] {
        hall.subscribe((&cam_1, &first.place), filter, backlog);
        assert!(got(&first).is_empty(), "{backlog:?}");
    }
}

#[test]
fn a_broadcast_goes_to_every_device_of_its_tenant_and_of_no_other() {
    let hall = Arc::<Hall>::default();
    let ours = ["main:cam-1", "main:cam-2"].map(|name| enter(&hall, &identity(name)));
    let theirs = enter(&hall, &identity("other:cam-1"));

    hall.publish(halt("main", "stop"));

    assert!(ours.iter().all(|claimed| got(claimed).len() == 1));
    assert!(got(&theirs).is_empty());
}

#[test]
fn an_empty_message_ends_what_is_retained() {
    let (hall, cam_1) = (Arc::<Hall>::default(), identity("main:cam-1"));
    hall.publish(halt("main", "stop"));
    hall.publish(directive(&cam_1, "one"));
    hall.publish(halt("main", ""));

    assert_eq!(got(&enter(&hall, &cam_1)), [(true, "one".to_owned())]);
}

#[tokio::test]
async fn a_place_is_lost_to_the_next_connection_and_waits_for_it() {
    let (hall, cam_1) = (Arc::<Hall>::default(), identity("main:cam-1"));
    let first = hall.claim(cam_1.clone(), true);
    let place = Arc::clone(&first.place);
    let seat = place.take_seat().await;
    assert!(!place.begin(true), "there was no session");

    let second = hall.claim(cam_1.clone(), true);

    assert!(Arc::ptr_eq(&second.place, &place));
    let newest = Claim::Connection { number: second.number, resumes: true };
    assert_eq!(first.lost().await, newest);
    // Whoever was there goes last, and must not take the place away.
    drop(first);
    drop(seat);
    let _seat = place.take_seat().await;
    assert!(place.begin(true), "the session goes on");
    drop(second);
    assert!(!Arc::ptr_eq(&hall.claim(cam_1, true).place, &place), "the session is over");
}

#[tokio::test]
async fn a_connection_that_is_cut_off_while_it_waits_leaves_nothing_behind() {
    let (hall, cam_1) = (Arc::<Hall>::default(), identity("main:cam-1"));
    let first = hall.claim(cam_1.clone(), true);
    let _seat = first.place.take_seat().await;

    let waiting = async {
        let second = hall.claim(cam_1, true);
        let _seat = second.place.take_seat().await;
    };
    let cut_off = tokio::time::timeout(std::time::Duration::from_millis(10), waiting).await;

    assert!(cut_off.is_err(), "the seat was taken");
    drop(first);
    assert!(hall.state().places.is_empty());
}

#[tokio::test]
async fn a_session_that_is_ended_is_nobodys() {
    let (hall, cam_1) = (Arc::<Hall>::default(), identity("main:cam-1"));
    let claimed = hall.claim(cam_1.clone(), true);

    hall.end(&cam_1);
    hall.end(&cam_1);

    assert_eq!(claimed.lost().await, Claim::Nobody);
    let next = hall.claim(cam_1, true);
    assert!(!Arc::ptr_eq(&next.place, &claimed.place));
    drop(claimed);
    assert!(!hall.state().places.is_empty(), "it was another's by then");
}

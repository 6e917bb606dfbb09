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

fn enter(hall: &Hall, identity: &Identity) -> Arc<Place> {
    let (place, _) = hall.claim(identity, false);
    place.begin(false);
    for filter in [Filter::Own, Filter::Broadcasts] {
        hall.subscribe((identity, &place), (filter, WISH), Backlog::Always);
    }
    place
}

fn got(place: &Place) -> Vec<(bool, String)> {
    let next = || place.mailbox().next(usize::MAX);
    let text = |payload: &Bytes| String::from_utf8(payload.to_vec()).unwrap();
    std::iter::from_fn(next)
        .map(|sent| (sent.parcel.is_retained, text(&sent.parcel.payload)))
        .collect()
}

#[test]
fn a_message_goes_to_its_device_and_to_whoever_subscribes_later() {
    let (hall, cam_1, cam_2) = (Hall::default(), identity("main:cam-1"), identity("main:cam-2"));
    let (first, other) = (enter(&hall, &cam_1), enter(&hall, &cam_2));

    hall.publish(directive(&cam_1, "one"));

    assert_eq!(got(&first), [(false, "one".to_owned())]);
    assert!(got(&other).is_empty());
    let filter = (Filter::Own, WISH);
    hall.subscribe((&cam_1, &first), filter, Backlog::Always);
    assert_eq!(got(&first), [(true, "one".to_owned())]);
    for backlog in [Backlog::IfNew, Backlog::Never] {
        hall.subscribe((&cam_1, &first), filter, backlog);
        assert!(got(&first).is_empty(), "{backlog:?}");
    }
}

#[test]
fn a_broadcast_goes_to_every_device_of_its_tenant_and_of_no_other() {
    let hall = Hall::default();
    let ours = ["main:cam-1", "main:cam-2"].map(|name| enter(&hall, &identity(name)));
    let theirs = enter(&hall, &identity("other:cam-1"));

    hall.publish(halt("main", "stop"));

    assert!(ours.iter().all(|place| got(place).len() == 1));
    assert!(got(&theirs).is_empty());
}

#[test]
fn an_empty_message_ends_what_is_retained() {
    let (hall, cam_1) = (Hall::default(), identity("main:cam-1"));
    hall.publish(halt("main", "stop"));
    hall.publish(directive(&cam_1, "one"));
    hall.publish(halt("main", ""));

    assert_eq!(got(&enter(&hall, &cam_1)), [(true, "one".to_owned())]);
}

#[tokio::test]
async fn a_place_is_lost_to_the_next_connection_and_waits_for_it() {
    let (hall, cam_1) = (Hall::default(), identity("main:cam-1"));
    let (place, first) = hall.claim(&cam_1, true);
    let seat = place.take_seat().await;
    assert!(!place.begin(true), "there was no session");

    let (same, second) = hall.claim(&cam_1, true);

    assert!(Arc::ptr_eq(&same, &place));
    assert_eq!(place.lost(first).await, Claim::Connection { number: second, resumes: true });
    // Whoever was there goes last, and must not take the place away.
    hall.leave(&cam_1, &place, first);
    drop(seat);
    let _seat = same.take_seat().await;
    assert!(same.begin(true), "the session goes on");
    hall.leave(&cam_1, &same, second);
    assert!(!Arc::ptr_eq(&hall.claim(&cam_1, true).0, &place), "the session is over");
}

#[tokio::test]
async fn a_session_that_is_ended_is_nobodys() {
    let (hall, cam_1) = (Hall::default(), identity("main:cam-1"));
    let (place, number) = hall.claim(&cam_1, true);

    hall.end(&cam_1);
    hall.end(&cam_1);

    assert_eq!(place.lost(number).await, Claim::Nobody);
    assert!(!Arc::ptr_eq(&hall.claim(&cam_1, true).0, &place));
}

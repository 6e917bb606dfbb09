use proptest::prelude::*;
use sealift_protocol::topic::Broadcast;

use super::*;

const WISH: Wish = Wish { acknowledges: true, retained_as_published: false };
const LIVE: Origin = Origin::New { is_retained: true };
const DIRECTIVE: Channel = Channel::Down(Down::Directive);
const REQUEST: Channel = Channel::Down(Down::Request);
const ACK: Channel = Channel::Down(Down::Ack);
const HALT: Channel = Channel::Broadcast(Broadcast::Halt);

/// Subscribed to all that a device subscribes to.
fn subscribed() -> Mailbox {
    let mut mailbox = Mailbox::default();
    mailbox.begin(false);
    for filter in [Filter::Own, Filter::Broadcasts] {
        assert!(mailbox.subscribe(filter, WISH));
    }
    mailbox
}

fn put(mailbox: &mut Mailbox, channel: Channel, text: &'static str) -> bool {
    mailbox.put(channel, &Bytes::from_static(text.as_bytes()), LIVE)
}

fn sent(mailbox: &mut Mailbox, window: usize) -> Vec<(Channel, String)> {
    let next = || mailbox.next(window);
    let text = |sent: Sent| {
        (sent.parcel.channel, String::from_utf8(sent.parcel.payload.to_vec()).unwrap())
    };
    std::iter::from_fn(next).map(text).collect()
}

#[test]
fn a_halt_goes_before_all_and_of_each_channel_only_the_newest() {
    let mut mailbox = subscribed();
    for text in ["1", "2", "3"] {
        assert!(put(&mut mailbox, DIRECTIVE, text));
    }
    put(&mut mailbox, ACK, "7");
    put(&mut mailbox, REQUEST, "a");
    put(&mut mailbox, REQUEST, "b");
    put(&mut mailbox, HALT, "stop");

    let order = [(HALT, "stop"), (DIRECTIVE, "3"), (REQUEST, "a"), (REQUEST, "b"), (ACK, "7")];
    assert_eq!(sent(&mut mailbox, 16), order.map(|(channel, text)| (channel, text.to_owned())));
}

#[test]
fn what_nobody_subscribed_to_is_not_kept() {
    let mut mailbox = Mailbox::default();
    mailbox.begin(false);
    assert!(!put(&mut mailbox, HALT, "stop"));
    mailbox.subscribe(Filter::One(HALT), WISH);
    assert!(put(&mut mailbox, HALT, "stop") && !put(&mut mailbox, DIRECTIVE, "1"));
    assert!(mailbox.unsubscribe(Filter::One(HALT)) && !mailbox.unsubscribe(Filter::Own));
    assert!(!put(&mut mailbox, HALT, "go"));
}

#[test]
fn subscriptions_that_overlap_bring_a_message_once_with_the_higher_qos() {
    let mut mailbox = subscribed();
    let plain = Wish { acknowledges: false, retained_as_published: true };
    mailbox.subscribe(Filter::One(DIRECTIVE), plain);
    put(&mut mailbox, DIRECTIVE, "1");

    let first = mailbox.next(16).unwrap();

    assert!(first.id.is_some() && first.parcel.is_retained);
    assert_eq!(mailbox.next(16), None);
}

#[test]
fn a_receipt_waits_for_no_window_and_for_no_acknowledgement() {
    let mut mailbox = subscribed();
    put(&mut mailbox, DIRECTIVE, "1");
    let id = mailbox.next(1).unwrap().id.unwrap();
    put(&mut mailbox, DIRECTIVE, "2");
    put(&mut mailbox, ACK, "9");

    assert_eq!(sent(&mut mailbox, 1), [(ACK, "9".to_owned())]);

    mailbox.acknowledged(id);
    assert_eq!(sent(&mut mailbox, 1), [(DIRECTIVE, "2".to_owned())]);
}

#[test]
fn only_a_session_that_goes_on_sends_again_what_was_not_acknowledged() {
    let mut mailbox = subscribed();
    put(&mut mailbox, HALT, "stop");
    put(&mut mailbox, DIRECTIVE, "1");
    let ids: Vec<_> = [mailbox.next(16), mailbox.next(16)].map(|sent| sent.unwrap().id).into();

    assert!(mailbox.begin(true));

    let again = [mailbox.next(16), mailbox.next(16)].map(|sent| sent.unwrap());
    assert!(again.iter().all(|sent| sent.is_again));
    assert_eq!(again.map(|sent| sent.id).to_vec(), ids);
    assert_eq!(mailbox.next(16), None);

    assert!(!mailbox.begin(false));
    assert_eq!(mailbox.next(16), None);
    assert!(!put(&mut mailbox, HALT, "stop"), "subscriptions end with their session");
}

#[test]
fn there_is_nothing_to_go_on_with_before_the_first_connection() {
    assert!(!Mailbox::default().begin(true));
}

#[test]
fn requests_that_nobody_takes_push_out_the_oldest() {
    let mut mailbox = subscribed();
    for number in 0..=REQUESTS_MAX {
        mailbox.put(REQUEST, &Bytes::from(number.to_string()), LIVE);
    }
    let waiting = sent(&mut mailbox, usize::MAX);
    assert_eq!(waiting.len(), REQUESTS_MAX);
    assert_eq!(waiting.first().unwrap().1, "1");
}

#[derive(Debug, Clone)]
enum Step {
    Put(Channel),
    Send,
    /// The oldest, or one that was never sent.
    Acknowledge(bool),
    Lose,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let channels: Vec<_> = Channel::all().collect();
    let step = prop_oneof![
        4 => prop::sample::select(channels).prop_map(Step::Put),
        4 => Just(Step::Send),
        2 => any::<bool>().prop_map(Step::Acknowledge),
        1 => Just(Step::Lose),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// Whatever happens on the way: a device that is left in peace has the newest of everything.
    #[test]
    fn a_device_left_in_peace_has_the_newest_of_everything(story in steps(), window in 1_usize..4) {
        let mut mailbox = subscribed();
        let (mut newest, mut device) = (BTreeMap::new(), Told::default());
        for (number, step) in story.into_iter().enumerate() {
            match step {
                Step::Put(channel) => {
                    newest.insert(channel, number);
                    mailbox.put(channel, &Bytes::from(number.to_string()), LIVE);
                }
                Step::Send => {
                    if let Some(sent) = mailbox.next(window) {
                        device.take(sent);
                    }
                    prop_assert!(device.on_the_way.len() <= window);
                }
                Step::Acknowledge(true) => device.acknowledge(&mut mailbox),
                Step::Acknowledge(false) => mailbox.acknowledged(NonZeroU16::MAX),
                Step::Lose => {
                    prop_assert!(mailbox.begin(true));
                    device.on_the_way.clear();
                }
            }
        }
        mailbox.begin(true);
        device.on_the_way.clear();
        while let Some(sent) = mailbox.next(window) {
            device.take(sent);
            device.acknowledge(&mut mailbox);
        }
        prop_assert_eq!(device.has, newest);
    }
}

/// What a device has, and what it has not acknowledged: that it may lose.
#[derive(Default)]
struct Told {
    has: BTreeMap<Channel, usize>,
    on_the_way: VecDeque<(NonZeroU16, Parcel)>,
}

impl Told {
    fn take(&mut self, sent: Sent) {
        let Some(id) = sent.id else { return self.note(&sent.parcel) };
        assert!(self.on_the_way.iter().all(|(other, _)| *other != id), "two under one number");
        self.on_the_way.push_back((id, sent.parcel));
    }

    fn acknowledge(&mut self, mailbox: &mut Mailbox) {
        let Some((id, parcel)) = self.on_the_way.pop_front() else { return };
        self.note(&parcel);
        mailbox.acknowledged(id);
    }

    /// A later message of a channel says all that an earlier one said.
    fn note(&mut self, parcel: &Parcel) {
        let number: usize = std::str::from_utf8(&parcel.payload).unwrap().parse().unwrap();
        let had = self.has.entry(parcel.channel).or_default();
        *had = number.max(*had);
    }
}

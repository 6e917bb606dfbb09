use super::*;
use crate::directive::{Audience, Directive};
use crate::id::{DeviceId, Generation};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn directors(seeds: &[u8]) -> BTreeMap<KeyId, VerifyingKey> {
    let keys = seeds.iter().map(|seed| key(*seed).verifying_key());
    keys.map(|key| (KeyId::of(&key), key)).collect()
}

fn kid(seed: u8) -> KeyId {
    KeyId::of(&key(seed).verifying_key())
}

fn campaign(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn list(sequence: u64) -> HaltList {
    let campaigns = BTreeSet::from([campaign("r-1"), campaign("r-2")]);
    HaltList::new(tenant("main"), (sequence, UnixMillis(7)), "night".to_owned(), campaigns)
}

fn signed(list: &HaltList) -> Vec<u8> {
    list.sign(&key(7)).unwrap()
}

/// What a device that obeys list 5 of key 7 makes of a message, with these keys trusted.
fn verify_with(message: &[u8], trusted: &[u8]) -> &'static str {
    let (tenant, signer) = (tenant("main"), kid(7));
    let listener = Listener { tenant: &tenant, newest: Some((5, &signer)) };
    let verified = HaltList::verify(message, &directors(trusted), listener);
    verified.map_or_else(|refused| refused.code(), |_| "ok")
}

fn verify(message: &[u8]) -> &'static str {
    verify_with(message, &[7])
}

#[test]
fn a_newer_list_is_taken_with_what_it_names_and_who_signed_it() {
    let tenant = tenant("main");
    let listener = Listener { tenant: &tenant, newest: None };
    let verified = HaltList::verify(&signed(&list(6)), &directors(&[7]), listener).unwrap();

    assert_eq!((verified.get(), verified.signer()), (&list(6), &kid(7)));
    assert!(verified.get().stops(Some(campaign("r-1"))));
    assert!(!verified.get().stops(Some(campaign("r-3"))) && !verified.get().stops(None));
    assert_eq!(verify(&signed(&list(6))), "ok");
}

#[test]
fn a_list_that_was_checked_is_checked_again_for_others_but_for_its_signature() {
    let (ours, other, signer) = (tenant("main"), tenant("other"), kid(7));
    let listener = Listener { tenant: &ours, newest: None };
    let verified = HaltList::verify(&signed(&list(6)), &directors(&[7]), listener).unwrap();
    let again = |trusted: &[u8], listener| {
        let checked = verified.again(&directors(trusted), listener);
        checked.map_or_else(
            |refused| refused.code(),
            |same| if same == verified { "ok" } else { "another" },
        )
    };

    let obeys = |sequence| Listener { tenant: &ours, newest: Some((sequence, &signer)) };
    assert_eq!(again(&[7, 8], listener), "ok");
    assert_eq!(again(&[8], listener), "cose.key");
    assert_eq!(again(&[7], obeys(6)), "halt.known");
    assert_eq!(again(&[7], obeys(7)), "halt.stale");
    assert_eq!(again(&[7], Listener { tenant: &other, newest: None }), "halt.audience");
}

#[test]
fn a_list_of_a_key_that_is_not_a_directors_is_refused() {
    assert_eq!(verify(&list(6).sign(&key(8)).unwrap()), "cose.key");
}

#[test]
fn an_older_list_is_refused_and_the_same_is_no_news() {
    assert_eq!(verify(&signed(&list(4))), "halt.stale");
    assert_eq!(verify(&signed(&list(5))), "halt.known");
    assert!(!HaltRefused::NotNewer(NotNewer::Known(5)).is_security_event());
    assert!(HaltRefused::NotNewer(NotNewer::Stale { given: 4, newest: 5 }).is_security_event());
}

#[test]
fn a_list_of_another_tenant_is_refused() {
    let other = HaltList { tenant: tenant("other"), ..list(6) };
    assert_eq!(verify(&signed(&other)), "halt.audience");
}

#[test]
fn a_list_that_is_too_long_is_refused_by_its_bytes_and_by_what_it_names() {
    assert_eq!(verify(&vec![0xd2; HALT_BYTES_MAX + 1]), "halt.too-large");
    let many = (0..=HALTED_MAX).map(|number| campaign(&number.to_string())).collect();
    let many = HaltList { campaigns: many, ..list(6) };
    assert_eq!(verify(&signed(&many)), "halt.size");
    let novel = HaltList { reason: "x".repeat(REASON_CHARS_MAX + 1), ..list(6) };
    assert_eq!(verify(&signed(&novel)), "halt.size");
}

#[test]
fn the_longest_list_that_may_be_signed_is_not_too_long() {
    let many = (0..HALTED_MAX).map(|number| campaign(&number.to_string())).collect();
    let reason = "\u{10ffff}".repeat(REASON_CHARS_MAX);
    let longest = HaltList { campaigns: many, reason, ..list(u64::MAX) };
    assert_eq!(verify(&signed(&longest)), "ok");
}

#[test]
fn a_list_without_a_time_to_answer_in_is_as_it_ever_was_and_asks_for_an_answer_at_once() {
    let bytes = codec::encode(&list(6)).unwrap();

    assert!(!bytes.windows(10).any(|text| text == b"say_within"));
    let read: HaltList = codec::decode("list", &bytes, HALT_BYTES_MAX).unwrap();
    assert_eq!((read.say_within_ms(), &read), (0, &list(6)));
}

#[test]
fn no_list_has_devices_wait_long_with_their_answer() {
    let within = |ms| {
        let bytes = codec::encode(&list(6).said_within(ms)).unwrap();
        codec::decode::<HaltList>("list", &bytes, HALT_BYTES_MAX).unwrap().say_within_ms()
    };

    assert_eq!((within(5_000), within(u32::MAX)), (5_000, SAY_WITHIN_MAX_MS));
}

#[test]
fn another_format_is_refused() {
    assert_eq!(verify(&signed(&HaltList { version: 2, ..list(6) })), "halt.version");
    let nonsense = cose::sign(b"nonsense".to_vec(), Purpose::Halt, &key(7)).unwrap();
    assert_eq!(verify(&nonsense), "halt.form");
}

#[test]
fn a_directive_is_no_list_and_a_list_is_no_directive() {
    let device = DeviceId::parse("cam-1").unwrap();
    let times = (UnixMillis(0), UnixMillis(9));
    let whom = (tenant("main"), device.clone());
    let directive = Directive::new(whom, Generation(1), times, Vec::new());
    assert_eq!(verify(&directive.sign(&key(7)).unwrap()), "cose.signature");

    let tenant = tenant("main");
    let (newest, now) = (Generation(0), UnixMillis(5));
    let audience = Audience { tenant: &tenant, device: &device, newest, now };
    let refused = Directive::verify(&signed(&list(6)), &directors(&[7]), &audience).unwrap_err();
    assert_eq!(refused.code(), "cose.signature");
}

#[test]
fn every_flipped_bit_is_refused() {
    let message = signed(&list(6));
    for bit in 0..message.len() * 8 {
        let mut message = message.clone();
        message[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(verify(&message), "ok", "bit {bit}");
    }
}

#[test]
fn after_a_stolen_key_was_revoked_its_sequence_counts_no_more() {
    let next = HaltList { campaigns: BTreeSet::new(), ..list(1) };
    assert_eq!(verify_with(&next.sign(&key(8)).unwrap(), &[7, 8]), "halt.stale");
    assert_eq!(verify_with(&next.sign(&key(8)).unwrap(), &[8]), "ok");
}

#[test]
fn a_list_as_it_was_signed_before_is_still_read() {
    // Kept bytes: a device may have them on disk, and a broker may hold them.
    let kept = "a66776657273696f6e016674656e616e74646d61696e6873657175656e636506696973737565645f617407667265\
        61736f6e656e696768746963616d706169676e73825820211fc184341de0bdabb38d88129aa4eb4217eee7270933\
        f6485c01a7922307c35820a5fa777a3dc67268caea6eea038ba14177e360dba84e1db44e738dbae137e7ef";
    let byte = |at: usize| u8::from_str_radix(&kept[at..at + 2], 16).unwrap();
    let kept: Vec<_> = (0..kept.len()).step_by(2).map(byte).collect();

    assert_eq!(codec::decode::<HaltList>("list", &kept, HALT_BYTES_MAX).unwrap(), list(6));
    assert_eq!(codec::encode(&list(6)).unwrap(), kept);
}

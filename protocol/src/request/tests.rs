use proptest::prelude::*;

use super::*;
use crate::directive::{Audience, Directive};
use crate::halt::{HaltList, Listener};
use crate::id::Generation;
use crate::limits::{ANSWER_BYTES_MAX, REASON_CHARS_MAX};
use crate::report::ImageRef;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// Devices' clocks may be behind by this much.
const AHEAD_MS: i64 = 5 * 60_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn device(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

fn directors() -> BTreeMap<KeyId, VerifyingKey> {
    let key = key(7).verifying_key();
    BTreeMap::from([(KeyId::of(&key), key)])
}

fn nonce() -> Nonce {
    Nonce::new([0xab; 16])
}

fn infer(input: Input) -> Ask {
    let model = ModelName::parse("vision/digits").unwrap();
    let version = Some(Version::parse("2").unwrap());
    let content_type = "application/json".to_owned();
    Ask::Infer(Infer { model, version, input, content_type, header_bytes: None })
}

fn asking(ask: Ask) -> Request {
    let whom = (tenant("main"), device("cam-1"));
    Request::new(whom, nonce(), (NOW, NOW.plus(60_000)), "alice", ask)
}

fn request() -> Request {
    asking(infer(Input::of(b"{\"inputs\":[]}")))
}

fn signed(request: &Request) -> Vec<u8> {
    request.sign(&key(7)).unwrap()
}

/// What `cam-1` of `main` makes of a message at a time.
fn verify_at(message: &[u8], now: UnixMillis) -> Result<VerifiedRequest, RequestRefused> {
    let (tenant, device) = (tenant("main"), device("cam-1"));
    let issued_until = now.plus(AHEAD_MS);
    let asked = Asked { tenant: &tenant, device: &device, now, issued_until };
    Request::verify(message, &directors(), asked)
}

fn verify(message: &[u8]) -> &'static str {
    verify_at(message, NOW).map_or_else(|refused| refused.code(), |_| "ok")
}

#[test]
fn what_was_asked_comes_back() {
    let logs = Logs { lines: 200, since: Some(NOW), level: LogLevel::Warn };
    let there = infer(Input::of(&vec![7; INPUT_HERE_BYTES_MAX + 1]));
    for ask in [infer(Input::of(b"{}")), there, Ask::Logs(logs), Ask::Diagnose] {
        let request = asking(ask);
        assert_eq!(verify_at(&signed(&request), NOW).unwrap().into_inner(), request);
    }
}

#[test]
fn the_longest_input_that_travels_in_a_request_fits_into_it() {
    let message = signed(&asking(infer(Input::of(&vec![7; INPUT_HERE_BYTES_MAX]))));
    assert_eq!(verify(&message), "ok");
    assert!(matches!(Input::of(&vec![7; INPUT_HERE_BYTES_MAX + 1]), Input::There { length, .. }
        if length == INPUT_HERE_BYTES_MAX as u64 + 1));
}

#[test]
fn a_request_of_a_key_that_is_not_a_directors_is_refused() {
    assert_eq!(verify(&request().sign(&key(8)).unwrap()), "cose.key");
}

#[test]
fn a_request_for_another_device_or_another_tenant_is_refused() {
    assert_eq!(
        verify(&signed(&Request { device: device("cam-2"), ..request() })),
        "request.audience"
    );
    assert_eq!(
        verify(&signed(&Request { tenant: tenant("other"), ..request() })),
        "request.audience"
    );
}

#[test]
fn a_request_is_taken_within_its_minutes_alone() {
    let message = signed(&request());
    let code = |now| verify_at(&message, now).map_or_else(|refused| refused.code(), |_| "ok");
    assert_eq!(code(NOW.plus(60_000)), "ok");
    assert_eq!(code(NOW.plus(60_001)), "request.window", "it is over");
    assert_eq!(code(NOW.plus(-AHEAD_MS)), "ok", "the device's clock is behind");
    assert_eq!(code(NOW.plus(-AHEAD_MS - 1)), "request.window", "it is from the future");
}

#[test]
fn a_request_that_would_be_good_for_longer_or_for_no_time_is_refused() {
    let until = |ms: i64| signed(&Request { expires_at: NOW.plus(ms), ..request() });
    assert_eq!(verify(&until(REQUEST_LIFE_MS_MAX)), "ok");
    assert_eq!(verify(&until(REQUEST_LIFE_MS_MAX + 1)), "request.window");
    assert_eq!(verify(&until(0)), "request.window");
    assert_eq!(verify(&until(i64::MAX - NOW.0)), "request.window");
}

#[test]
fn whoever_signed_what_is_over_is_named_so_that_they_can_be_told() {
    let refused = verify_at(&signed(&request()), NOW.plus(REQUEST_LIFE_MS_MAX)).unwrap_err();
    assert!(matches!(refused, RequestRefused::Window { nonce: of, .. } if of == nonce()));
}

#[test]
fn a_request_for_more_than_there_is_is_refused() {
    let logs = |lines| Ask::Logs(Logs { lines, since: None, level: LogLevel::Info });
    assert_eq!(verify(&signed(&asking(logs(LOG_LINES_MAX)))), "ok");
    assert_eq!(verify(&signed(&asking(logs(LOG_LINES_MAX + 1)))), "request.size");
    let there = |length| infer(Input::There { digest: Digest::of(b"x"), length });
    assert_eq!(verify(&signed(&asking(there(INPUT_BYTES_MAX as u64)))), "ok");
    assert_eq!(verify(&signed(&asking(there(INPUT_BYTES_MAX as u64 + 1)))), "request.size");
    assert_eq!(verify(&signed(&asking(there(u64::MAX)))), "request.size");
    let novel = Request { by: "x".repeat(NAME_CHARS_MAX + 1), ..request() };
    assert_eq!(verify(&signed(&novel)), "request.size");
}

#[test]
fn a_message_that_is_too_long_is_not_looked_into() {
    assert_eq!(verify(&vec![0xd2; REQUEST_BYTES_MAX + 1]), "request.too-large");
}

#[test]
fn another_format_and_another_kind_are_refused() {
    assert_eq!(verify(&signed(&Request { version: 2, ..request() })), "request.version");
    let nonsense = cose::sign(b"nonsense".to_vec(), Purpose::Request, &key(7)).unwrap();
    assert_eq!(verify(&nonsense), "request.form");
    // Bytes of the same lengths, so that all else stays well-formed.
    let mut payload = codec::encode(&asking(Ask::Diagnose)).unwrap();
    let at = payload.windows(8).position(|part| part == b"diagnose").unwrap();
    payload[at..at + 8].copy_from_slice(b"shutdown");
    let unknown = cose::sign(payload, Purpose::Request, &key(7)).unwrap();
    assert_eq!(verify(&unknown), "request.form");
}

#[test]
fn a_directive_and_a_halt_are_no_requests_and_a_request_is_neither() {
    let whom = (tenant("main"), device("cam-1"));
    let times = (NOW, NOW.plus(60_000));
    let directive = Directive::new(whom, Generation(1), times, Vec::new());
    assert_eq!(verify(&directive.sign(&key(7)).unwrap()), "cose.signature");
    let halt = HaltList::new(tenant("main"), (1, NOW), String::new(), [].into());
    assert_eq!(verify(&halt.sign(&key(7)).unwrap()), "cose.signature");

    let (tenant, device) = (tenant("main"), device("cam-1"));
    let audience = Audience { tenant: &tenant, device: &device, newest: Generation(0), now: NOW };
    let refused = Directive::verify(&signed(&request()), &directors(), &audience).unwrap_err();
    assert_eq!(refused.code(), "cose.signature");
    let listener = Listener { tenant: &tenant, newest: None };
    let refused = HaltList::verify(&signed(&request()), &directors(), listener).unwrap_err();
    assert_eq!(refused.code(), "cose.signature");
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let message = signed(&request());
    for bit in 0..message.len() * 8 {
        let mut message = message.clone();
        message[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(verify(&message), "ok", "bit {bit}");
    }
    for length in 0..message.len() {
        assert_ne!(verify(&message[..length]), "ok", "{length} bytes");
    }
}

#[test]
fn a_nonce_has_one_name() {
    let name = nonce().to_string();
    assert_eq!(name.parse(), Ok(nonce()));
    for text in [name.to_uppercase(), name[1..].to_owned(), format!("{name}00"), "é".repeat(16)] {
        assert_eq!(text.parse::<Nonce>(), Err(InvalidNonce), "{text}");
    }
}

#[test]
fn bytes_of_another_length_are_no_nonce() {
    let short = codec::encode(&serde_cbor::Value::Bytes(vec![1; 15])).unwrap();
    assert!(codec::decode::<Nonce>("nonce", &short, 64).is_err());
}

/// Requests and answers as they were written before: servers and devices of different versions must go on understanding each other.
const GOLDEN: &str = include_str!("golden.txt");

fn inferred() -> Answer {
    let image = ImageRef { version: Version::parse("2").unwrap(), index: Digest::of(b"index") };
    let model = ModelName::parse("vision/digits").unwrap();
    let body = b"{\"outputs\":[]}".to_vec();
    let inferred = Inferred { model, image, latency_us: 812, body };
    Answer { nonce: nonce(), at: NOW, outcome: Outcome::Inferred(inferred) }
}

fn log_tail() -> Answer {
    let line = LogLine {
        at: NOW,
        level: LogLevel::Warn,
        target: "sealift_agent::link".to_owned(),
        text: "connection to the broker ended reason=eof".to_owned(),
    };
    let tail = LogTail { lines: vec![line], forgotten: 3 };
    Answer { nonce: nonce(), at: NOW, outcome: Outcome::Logs(tail) }
}

fn refused() -> Answer {
    let refused = Refused::new(403, "request.forbidden", "the owner says no");
    Answer { nonce: nonce(), at: NOW, outcome: Outcome::Refused(refused) }
}

#[test]
fn kept_bytes_are_read_and_written_as_ever() {
    let logs = Logs { lines: 200, since: Some(NOW), level: LogLevel::Warn };
    let there = Input::There { digest: Digest::of(b"input"), length: 123_456 };
    let requests =
        [request(), asking(infer(there)), asking(Ask::Logs(logs)), asking(Ask::Diagnose)];
    let answers = [inferred(), log_tail(), refused()];

    let written = requests.iter().map(|request| codec::encode(request).unwrap());
    let written = written.chain(answers.iter().map(|answer| answer.encode().unwrap()));
    let written: Vec<_> = written.map(|bytes| encode_hex(&bytes)).collect();
    assert_eq!(written, GOLDEN.lines().collect::<Vec<_>>());

    let kept: Vec<_> = GOLDEN.lines().map(|line| decode_hex(line).unwrap()).collect();
    let read = |bytes: &Vec<u8>| codec::decode::<Request>("request", bytes, 4_096).unwrap();
    assert_eq!(kept[..4].iter().map(read).collect::<Vec<_>>(), requests);
    let read = |bytes: &Vec<u8>| Answer::decode(bytes).unwrap();
    assert_eq!(kept[4..].iter().map(read).collect::<Vec<_>>(), answers);
}

#[test]
fn an_answer_of_a_hostile_device_is_bounded() {
    let told = |outcome| {
        let answer = Answer { nonce: nonce(), at: NOW, outcome };
        Answer::decode(&answer.encode().unwrap()).map_err(|error| error.to_string())
    };
    let Outcome::Logs(LogTail { lines, .. }) = log_tail().outcome else { unreachable!() };
    let many = LogTail { lines: vec![lines[0].clone(); LOG_LINES_MAX as usize + 1], forgotten: 0 };
    assert!(told(Outcome::Logs(many)).unwrap_err().contains("more lines"));
    let refused = |status, code: &str, reason: &str| {
        let (code, reason) = (code.to_owned(), reason.to_owned());
        told(Outcome::Refused(Refused { status, code, reason }))
    };
    assert!(refused(404, "x", "y").is_ok());
    assert!(refused(200, "x", "y").is_err() && refused(u16::MAX, "x", "y").is_err());
    assert!(refused(404, &"x".repeat(1_000), "y").is_err());
    assert!(refused(404, "x", &"y".repeat(REASON_CHARS_MAX + 1)).is_err());
    assert!(Answer::decode(&vec![0; ANSWER_BYTES_MAX + 1]).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_crash(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(verify_at(&bytes, NOW).is_err());
        prop_assert!(Answer::decode(&bytes).is_err() || bytes.len() > 20);
    }

    /// What a signer that has gone mad signs is refused or understood; nothing else.
    #[test]
    fn any_signed_bytes_are_refused_without_a_crash(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let message = cose::sign(bytes, Purpose::Request, &key(7)).unwrap();
        prop_assert_eq!(verify(&message), "request.form");
    }

    #[test]
    fn a_request_is_taken_by_its_device_in_its_time_and_by_nobody_else(
        issued in -400_000_i64..400_000, life in -10_i64..400_000, own in any::<bool>(), inputs in 0_usize..2_000,
    ) {
        let times = (NOW.plus(issued), NOW.plus(issued + life));
        let whom = (tenant("main"), device(if own { "cam-1" } else { "cam-2" }));
        let ask = infer(Input::of(&vec![1; inputs]));
        let request = Request::new(whom, nonce(), times, "alice", ask);
        let is_in_time = (1..=REQUEST_LIFE_MS_MAX).contains(&life)
            && issued <= AHEAD_MS && issued + life >= 0;
        let taken = verify_at(&signed(&request), NOW);
        prop_assert_eq!(taken.is_ok(), own && is_in_time);
    }
}

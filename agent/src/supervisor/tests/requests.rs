//! What operators ask a device from afar, and what an attacker would.

use sealift_protocol::codec;
use sealift_protocol::cose::KeyId;
use sealift_protocol::directive::Directive;
use sealift_protocol::id::{Generation, TenantId};
use sealift_protocol::request::{
    Answer, Ask, Batch, LogLevel, Logs as Wanted, Nonce, Outcome as Said, Refused, Request,
};

use super::*;
use crate::config::RemoteRequests;
use crate::supervisor::keeper::Unsigned;

/// A device that knows whom to believe.
async fn asked(remote_requests: RemoteRequests) -> (Supervisor, Agent) {
    let fleet = Fleet::start().await;
    let agent = Agent::enrolled(&fleet).await;
    let mut supervisor = agent.opened_with(Config { remote_requests, ..Config::default() });
    believe(&mut supervisor);
    (supervisor, agent)
}

fn believe(supervisor: &mut Supervisor) {
    let key = Fleet::director_key().verifying_key();
    let keys = BTreeMap::from([(KeyId::of(&key), key)]);
    supervisor.halts.trust(keys, now().plus(86_400_000));
}

fn request(nonce: u8, ask: Ask) -> Request {
    let whom = (TenantId::parse("main").unwrap(), DeviceId::parse("cam-1").unwrap());
    Request::new(whom, Nonce::new([nonce; 16]), (now(), now().plus(60_000)), "alice", ask)
}

fn changed(nonce: u8, change: impl FnOnce(&mut Request)) -> Vec<u8> {
    let mut request = request(nonce, Ask::Diagnose);
    change(&mut request);
    signed(&request)
}

fn signed(request: &Request) -> Vec<u8> {
    request.sign(&Fleet::director_key()).unwrap()
}

fn logs() -> Ask {
    Ask::Logs(Wanted { lines: 10, since: None, level: LogLevel::Info })
}

fn answers(supervisor: &mut Supervisor) -> Vec<Answer> {
    let messages = supervisor.spool.after(0, 1_000).unwrap();
    let results = messages.iter().filter(|message| message.channel == Up::Result);
    results.map(|message| Answer::decode(&message.envelope.body).unwrap()).collect()
}

fn events(supervisor: &mut Supervisor) -> Vec<(String, Severity)> {
    let messages = supervisor.spool.after(0, 1_000).unwrap();
    let events = messages.iter().filter(|message| message.channel == Up::Event);
    let events = events
        .map(|message| codec::decode::<Alarm>("event", &message.envelope.body, 10_000).unwrap());
    events.map(|event| (event.code, event.severity)).collect()
}

fn code(answer: &Answer) -> (u16, &str) {
    match &answer.outcome {
        Said::Refused(Refused { status, code, .. }) => (*status, code),
        Said::Inferred(_) | Said::Logs(_) | Said::Diagnosed(_) | Said::Batches(_) => (200, "ok"),
    }
}

#[tokio::test]
async fn a_diagnosis_is_given_once_also_after_a_restart_and_stands_on_the_timeline() {
    let (mut supervisor, agent) = asked(RemoteRequests::Diagnose).await;
    let message = signed(&request(1, Ask::Diagnose));

    supervisor.on_request(message.clone()).unwrap();
    supervisor.on_request(message.clone()).unwrap();

    let given = answers(&mut supervisor);
    let Said::Diagnosed(diagnosis) = &given[0].outcome else { panic!("{given:?}") };
    assert_eq!((given.len(), given[0].nonce), (1, Nonce::new([1; 16])));
    assert_eq!(diagnosis.remote_requests, "diagnose");
    assert_eq!(diagnosis.directors.len(), 1);
    assert!(diagnosis.clock.is_trusted && diagnosis.facts.processors > 0, "{diagnosis:?}");
    assert_eq!(events(&mut supervisor), [("request.answered".to_owned(), Severity::Info)]);

    drop(supervisor);
    let mut supervisor = agent.opened_with(Config::default());
    believe(&mut supervisor);
    supervisor.on_request(message).unwrap();
    assert_eq!(answers(&mut supervisor).len(), 1, "the one of before, in the spool");
}

#[tokio::test]
async fn what_its_owner_forbids_is_refused_and_the_asker_is_told_how_to_allow_it() {
    for (remote, ask, needed) in [
        (RemoteRequests::Diagnose, logs(), "\"all\""),
        (RemoteRequests::None, logs(), "\"diagnose\""),
        (RemoteRequests::None, Ask::Diagnose, "\"diagnose\""),
        (RemoteRequests::Diagnose, Ask::Batch(Batch::List), "\"all\""),
        (RemoteRequests::None, Ask::Batch(Batch::List), "\"all\""),
    ] {
        let (mut supervisor, _agent) = asked(remote).await;
        supervisor.on_request(signed(&request(1, ask))).unwrap();
        let given = answers(&mut supervisor);
        assert_eq!(code(&given[0]), (403, "request.forbidden"));
        let Said::Refused(refused) = &given[0].outcome else { panic!("{given:?}") };
        assert!(refused.reason.contains(needed), "{}", refused.reason);
        assert_eq!(events(&mut supervisor)[0].0, "request.forbidden");
    }
    let (mut supervisor, _agent) = asked(RemoteRequests::All).await;
    supervisor.on_request(signed(&request(1, logs()))).unwrap();
    assert_eq!(code(&answers(&mut supervisor)[0]), (200, "ok"));
}

#[tokio::test]
async fn whoever_is_not_believed_is_not_answered_and_people_are_told_once() {
    let (mut supervisor, _agent) = asked(RemoteRequests::All).await;
    let other = DeviceId::parse("cam-2").unwrap();
    let foreign = TenantId::parse("other").unwrap();
    let whom = (TenantId::parse("main").unwrap(), DeviceId::parse("cam-1").unwrap());
    let window = (now(), now().plus(60_000));
    let directive = Directive::new(whom, Generation(9), window, Vec::new());
    let mut flipped = signed(&request(3, Ask::Diagnose));
    *flipped.last_mut().unwrap() ^= 1;
    for (message, code) in [
        (changed(1, |request| request.device = other), "request.audience"),
        (changed(2, |request| request.tenant = foreign), "request.audience"),
        (flipped, "cose.signature"),
        (directive.sign(&Fleet::director_key()).unwrap(), "cose.signature"),
        (vec![0xd2; 100_000], "request.too-large"),
        (b"diagnose".to_vec(), "cose.form"),
    ] {
        let before = events(&mut supervisor).len();
        supervisor.on_request(message.clone()).unwrap();
        supervisor.on_request(message).unwrap();
        let told = events(&mut supervisor).split_off(before);
        assert_eq!(told, [(code.to_owned(), Severity::Security)]);
    }
    assert_eq!(answers(&mut supervisor), []);
}

#[tokio::test]
async fn a_key_that_is_revoked_asks_nothing_any_more() {
    let (mut supervisor, _agent) = asked(RemoteRequests::All).await;
    supervisor.halts.trust(BTreeMap::new(), now().plus(86_400_000));

    supervisor.on_request(signed(&request(1, Ask::Diagnose))).unwrap();
    let followed = Unsigned::Request(signed(&request(2, Ask::Diagnose)));
    supervisor.on_again(&followed, Ok(())).unwrap();

    assert_eq!(answers(&mut supervisor), []);
    assert_eq!(events(&mut supervisor), [("cose.key".to_owned(), Severity::Security)]);
}

#[tokio::test]
async fn what_is_over_is_refused_with_the_time_it_is_here() {
    let (mut supervisor, _agent) = asked(RemoteRequests::All).await;
    let over = changed(1, |request| {
        (request.issued_at, request.expires_at) = (now().plus(-120_000), now().plus(-1));
    });
    supervisor.on_request(over).unwrap();
    assert_eq!(code(&answers(&mut supervisor)[0]), (409, "request.window"));
    assert_eq!(events(&mut supervisor), [("request.window".to_owned(), Severity::Security)]);
}

#[tokio::test]
async fn a_device_that_is_asked_too_much_says_so() {
    let (mut supervisor, _agent) = asked(RemoteRequests::All).await;
    for nonce in 0..=30 {
        supervisor.on_request(signed(&request(nonce, Ask::Diagnose))).unwrap();
    }
    let given = answers(&mut supervisor);
    let codes: Vec<_> = given.iter().map(code).collect();
    assert_eq!(codes.len(), 31);
    assert!(codes[..30].iter().all(|code| *code == (200, "ok")), "{codes:?}");
    assert_eq!(codes[30], (429, "request.busy"));
}

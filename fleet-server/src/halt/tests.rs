use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use sealift_protocol::api::{ModelGates, WavePlan};
use sealift_protocol::id::{DeviceId, TenantId};

use super::*;
use crate::rollout::{DeviceView, Standing, Wave};
use crate::store::Store;

const NOW: UnixMillis = UnixMillis(1_000_000);

fn halted() -> Halt {
    let (by, reason) = ("ann".to_owned(), "smoke".to_owned());
    Halt { since: NOW, by, reason, newest: RolloutId(7), rollouts: 1 }
}

fn rollout(id: u64, is_rollback: bool, stage: Stage) -> Rollout {
    let plan = WavePlan {
        name: "all".to_owned(),
        percent: Some(100.0),
        gates: ModelGates::off(),
        ..WavePlan::default()
    };
    let wave = Wave { plan, standing: Standing::Pending, comparisons: Vec::new() };
    Rollout {
        id: RolloutId(id),
        turn: id,
        image: Digest::of(b"image"),
        waves: vec![wave],
        stage,
        probation_ms: 1,
        shadow_ms: 0,
        silent_after_ms: 1,
        is_rollback,
        held_from: None,
        start_at: None,
        budget: None,
        tail_ms: 1,
        reverted_by: Vec::new(),
    }
}

fn fleet(online: &[bool]) -> Fleet {
    let device = |(number, is_online): (usize, &bool)| {
        let view = DeviceView {
            online_since: is_online.then_some(UnixMillis(0)),
            ..DeviceView::default()
        };
        (DeviceId::parse(&format!("cam-{number}")).unwrap(), view)
    };
    online.iter().enumerate().map(device).collect::<BTreeMap<_, _>>()
}

#[test]
fn only_a_way_back_that_was_ordered_later_goes_on() {
    let stops = |id, is_rollback| halted().stops(&rollout(id, is_rollback, Stage::Running));
    assert!(stops(6, false) && stops(7, true), "what was there");
    assert!(stops(8, false), "what was ordered meanwhile");
    assert!(!stops(8, true));
    assert!(!halted().stops(&rollout(6, false, Stage::Succeeded)), "it is over");
}

#[test]
fn a_device_that_would_be_told_waits_and_says_why() {
    let fleet = fleet(&[true, false]);
    let running = rollout(3, false, Stage::Running);
    assert_eq!(rollout::plan(&running, &fleet, NOW).tell.len(), 1, "without the halt");

    let plan = halted().plan(&running, &fleet, NOW);

    assert_eq!((plan.stage, plan.tell.len()), (Stage::Running, 0));
    assert_eq!(plan.waves[0].standing, Standing::Pending, "no wave opens");
    assert!(plan.why.contains("halted by ann") && plan.why.contains("smoke"), "{}", plan.why);
    let why: Vec<_> = plan.devices.values().map(|position| position.why.to_string()).collect();
    assert!(why[0].contains("all rollouts are halted"), "{}", why[0]);
    assert!(why[1].contains("offline"), "{}", why[1]);
}

fn stages() -> impl Strategy<Value = Stage> {
    prop_oneof![
        Just(Stage::Running),
        Just(Stage::Paused),
        Just(Stage::Halted),
        Just(Stage::Completing { since: NOW }),
    ]
}

fn standings() -> impl Strategy<Value = Standing> {
    let (since, until) = (UnixMillis(0), UnixMillis(5));
    prop_oneof![
        Just(Standing::Pending),
        Just(Standing::Open { since }),
        Just(Standing::Soaking { since, until }),
        Just(Standing::Passed { since }),
    ]
}

proptest! {
    /// Planning again after the halt is planning as if there had been none.
    #[test]
    fn a_halt_moves_nothing(
        stage in stages(),
        standing in standings(),
        online in proptest::collection::vec(any::<bool>(), 0..8),
    ) {
        let mut rollout = rollout(3, false, stage);
        rollout.waves[0].standing = standing;

        let plan = halted().plan(&rollout, &fleet(&online), NOW);

        prop_assert!(plan.tell.is_empty());
        prop_assert_eq!(plan.stage, stage);
        prop_assert_eq!(plan.waves[0].standing, standing);
    }
}

/// A server that was restored from a backup of before the halt: its devices obey a list that it does not know.
#[tokio::test]
async fn a_lost_list_is_overtaken_and_one_from_the_future_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("fleet.db").display());
    let tenant = TenantId::parse("main").unwrap();
    let store = Store::open(&url).await.unwrap().tenant(&tenant);
    let director = Director::new(SigningKey::from_bytes(&[7; 32]), tenant, 86_400);
    let obeyed = u64::try_from(NOW.0).unwrap() + 5;

    overtake(&store, &director, obeyed, NOW).await.unwrap();

    let row = store.halt().await.unwrap();
    assert_eq!((row.sequence, row.halt, row.campaigns.len()), (obeyed + 1, None, 0));
    assert!(store.signed_halt().await.unwrap().is_some_and(|body| !body.is_empty()));

    let claimed = u64::try_from(NOW.0 + CLOCKS_DIFFER_MS).unwrap() + 1;
    overtake(&store, &director, claimed, NOW).await.unwrap();
    assert_eq!(store.halt().await.unwrap().sequence, obeyed + 1);
}

//! At most so many devices of a group at work at a time.

use super::*;

fn of_sites(count: Option<u64>, percent: Option<f64>) -> Rollout {
    let budget = Budget { label: "site".to_owned(), count, percent };
    Rollout { budget: Some(budget), ..rollout(vec![wave(100.0, 0)]) }
}

/// Every third device is of `osaka`, the others are of `tokyo`.
fn two_sites(devices: usize) -> Fleet {
    let mut fleet = fleet(devices);
    for (number, device) in fleet.values_mut().enumerate() {
        device.group = if number % 3 == 0 { "osaka" } else { "tokyo" }.to_owned();
    }
    fleet
}

fn at_work(fleet: &Fleet, plan: &Plan, site: &str) -> usize {
    use DeviceProgress as P;
    let is_at_work = |(id, view): &(&DeviceId, &DeviceView)| {
        let progress = plan.devices[*id].progress;
        view.group == site && matches!(progress, P::Offered | P::InProgress | P::Probation)
    };
    fleet.iter().filter(is_at_work).count()
}

#[test]
fn one_device_of_a_site_at_a_time() {
    let (mut rollout, mut fleet) = (of_sites(Some(1), None), two_sites(9));

    let first = turn(&mut rollout, &mut fleet, NOW);
    let waiting = turn(&mut rollout, &mut fleet, NOW);

    assert_eq!(first.tell.len(), 2, "one of each site");
    assert_eq!(waiting.tell, []);
    assert_eq!(waiting.why, "wave 1: 2 at work, 7 wait for others of their group");
    let blocked = fleet.keys().find(|id| fleet[*id].told.is_none()).unwrap();
    assert!(
        position(&waiting, blocked).why.to_string().ends_with("are at work as may be"),
        "{}",
        position(&waiting, blocked).why
    );

    let done = first.tell.iter().find(|(id, _)| fleet[id].group == "osaka").unwrap().0.clone();
    end(fleet.get_mut(&done).unwrap(), OutcomeKind::Committed);
    let next = turn(&mut rollout, &mut fleet, NOW);
    assert_eq!(next.tell.len(), 1);
    assert_eq!(fleet[&next.tell[0].0].group, "osaka");
}

#[test]
fn a_share_is_of_the_group_and_never_nobody() {
    let (mut rollout, mut fleet) = (of_sites(None, Some(34.0)), two_sites(9));

    let first = turn(&mut rollout, &mut fleet, NOW);

    let of = |site| first.tell.iter().filter(|(id, _)| fleet[id].group == site).count();
    assert_eq!((of("osaka"), of("tokyo")), (1, 2));
    let mut little = of_sites(None, Some(0.1));
    assert_eq!(turn(&mut little, &mut two_sites(9), NOW).tell.len(), 2);
}

#[test]
fn a_device_that_went_away_after_it_was_told_still_counts_and_blocks_nobody_for_ever() {
    let (mut rollout, mut fleet) = (of_sites(Some(1), None), fleet(3));
    let first = turn(&mut rollout, &mut fleet, NOW).tell[0].0.clone();
    fleet.get_mut(&first).unwrap().online_since = None;

    let waiting = turn(&mut rollout, &mut fleet, NOW);
    assert_eq!((waiting.stage, waiting.tell.len()), (Stage::Completing { since: NOW }, 0));

    let over = turn(&mut rollout, &mut fleet, NOW.plus(TAIL_MS));
    assert_eq!(over.stage, Stage::Succeeded);
    assert_eq!(
        over.why,
        "no device serves it; 1 stayed offline; 2 not offered it within the budget"
    );
}

#[test]
fn a_wave_does_not_wait_for_a_group_whose_device_is_away() {
    let mut rollout = of_sites(Some(1), None);
    rollout.waves = vec![wave(50.0, 0), wave(100.0, 0)];
    let mut fleet = two_sites(12);
    let first = turn(&mut rollout, &mut fleet, NOW);
    for (id, _) in &first.tell {
        match fleet[id].group.as_str() {
            "osaka" => fleet.get_mut(id).unwrap().online_since = None,
            _ => end(fleet.get_mut(id).unwrap(), OutcomeKind::Committed),
        }
    }
    for _ in 0..12 {
        turn(&mut rollout, &mut fleet, NOW);
        let online = fleet.values_mut().filter(|view| view.online_since.is_some());
        online
            .filter(|view| view.told.is_some())
            .for_each(|view| end(view, OutcomeKind::Committed));
    }

    let told = fleet.values().filter(|view| view.told.is_some() && view.group == "tokyo").count();
    assert_eq!(told, 8, "all of the site whose devices are there");
    assert_eq!(rollout.stage, Stage::Completing { since: NOW });
}

proptest::proptest! {
    /// Whatever the devices do: never more of a group at work than the budget allows, and healthy ones all get there.
    #[test]
    fn a_budget_is_never_exceeded(
        count in 1_u64..4,
        steps in proptest::collection::vec((0_usize..14, 0_u8..4), 0..120),
    ) {
        let (mut rollout, mut fleet) = (of_sites(Some(count), None), two_sites(14));
        rollout.waves = vec![wave(30.0, 0), wave(100.0, 0)];
        let mut now = NOW;
        for (number, what) in steps {
            turn(&mut rollout, &mut fleet, now);
            let seen = plan(&rollout, &fleet, now);
            for site in ["osaka", "tokyo"] {
                let working = u64::try_from(at_work(&fleet, &seen, site)).unwrap();
                proptest::prop_assert!(working <= count, "{working} at {site}");
            }
            now = now.plus(500);
            let device = fleet.get_mut(&id(number)).unwrap();
            match what {
                0 => device.online_since = None,
                1 => device.online_since = Some(now),
                _ if device.told.is_some() => end(device, OutcomeKind::Committed),
                _ => (),
            }
        }
        for _ in 0..60 {
            for view in fleet.values_mut() {
                view.online_since = Some(now);
            }
            turn(&mut rollout, &mut fleet, now);
            fleet.values_mut().filter(|view| view.told.is_some()).for_each(|view| end(view, OutcomeKind::Committed));
            now = now.plus(1_000);
        }
        proptest::prop_assert_eq!(rollout.stage, Stage::Succeeded);
        proptest::prop_assert_eq!(told(&fleet).len(), 14);
    }
}

//! What holds for every rollout, whatever happens to its devices.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Happening {
    Ends(usize, OutcomeKind),
    Works(usize, Phase),
    Goes(usize),
    Comes(usize),
    Time(i64),
    Action(Action),
}

fn happenings() -> impl Strategy<Value = Happening> {
    let device = 0_usize..12;
    let kinds = prop_oneof![
        4 => Just(OutcomeKind::Committed),
        1 => Just(OutcomeKind::Failed),
        1 => Just(OutcomeKind::RolledBack),
        1 => Just(OutcomeKind::NotApplicable),
    ];
    let phases = prop_oneof![Just(Phase::Downloading), Just(Phase::Probation)];
    let actions = prop_oneof![
        Just(Action::Pause),
        Just(Action::Resume),
        Just(Action::Retry),
        Just(Action::Promote),
        Just(Action::Abort),
    ];
    prop_oneof![
        6 => (device.clone(), kinds).prop_map(|(device, kind)| Happening::Ends(device, kind)),
        2 => (device.clone(), phases).prop_map(|(device, phase)| Happening::Works(device, phase)),
        1 => device.clone().prop_map(Happening::Goes),
        2 => device.prop_map(Happening::Comes),
        3 => (0_i64..200_000).prop_map(Happening::Time),
        1 => actions.prop_map(Happening::Action),
    ]
}

fn happen(rollout: &mut Rollout, fleet: &mut Fleet, happening: Happening, now: &mut UnixMillis) {
    match happening {
        Happening::Ends(number, kind) => {
            let device = fleet.get_mut(&id(number)).unwrap();
            if device.told.is_some() && device.online_since.is_some() {
                end(device, kind);
            }
        }
        Happening::Works(number, phase) => {
            let device = fleet.get_mut(&id(number)).unwrap();
            if let Some(told) = device.told.filter(|_| device.online_since.is_some()) {
                device.accepted = told.generation;
                device.slot = Some(slot(told.generation, phase, OLD, None));
            }
        }
        Happening::Goes(number) => fleet.get_mut(&id(number)).unwrap().online_since = None,
        Happening::Comes(number) => {
            fleet.get_mut(&id(number)).unwrap().online_since = Some(*now);
        }
        Happening::Time(ms) => *now = now.plus(ms),
        Happening::Action(action) => {
            if action::refusal(action, rollout.stage).is_none() {
                act(rollout, fleet, action);
            }
        }
    }
}

/// Devices that take room in the waves.
fn counted(fleet: &Fleet, plan: &Plan) -> usize {
    let counts = |id: &DeviceId, view: &DeviceView| {
        view.told.is_some_and(|told| !told.is_excused)
            && plan.devices[id].progress != DeviceProgress::NotApplicable
    };
    fleet.iter().filter(|(id, view)| counts(id, view)).count()
}

proptest! {
    /// Whatever happens: no more devices are told than the open waves allow, a failed gate opens nothing, and who tells nobody
    /// tells nobody.
    #[test]
    fn waves_are_never_overrun(story in prop::collection::vec(happenings(), 0..80)) {
        let mut rollout = rollout(vec![wave(9.0, 0), wave(50.0, 30), wave(100.0, 0)]);
        let (mut fleet, mut now) = (fleet(12), NOW);
        let reach = [2, 6, 12];
        for happening in story {
            let before = rollout.clone();
            let plan = turn(&mut rollout, &mut fleet, now);

            let is_open = |wave: &WaveReading| wave.standing != Standing::Pending;
            let open = plan.waves.iter().filter(|wave| is_open(wave)).count();
            let allowed = open.checked_sub(1).map_or(0, |last| reach[last]);
            if !plan.tell.is_empty() {
                prop_assert!(counted(&fleet, &plan) <= allowed);
                let is_moving = matches!(plan.stage, Stage::Running | Stage::Completing { .. });
                prop_assert!(is_moving);
            }
            let failed = plan.waves.iter().position(|wave| matches!(wave.standing, Standing::Failed { .. }));
            if let Some(failed) = failed {
                let stands = matches!(plan.stage, Stage::Halted | Stage::Aborted);
                prop_assert!(stands);
                prop_assert_eq!(&plan.tell, &[]);
                let next = before.waves.get(failed + 1).map(|wave| wave.standing);
                prop_assert_eq!(plan.waves.get(failed + 1).map(|wave| wave.standing), next);
            }
            if matches!(before.stage, Stage::Paused | Stage::Halted | Stage::Aborted | Stage::Succeeded) {
                prop_assert_eq!(&plan.tell, &[]);
                prop_assert_eq!(plan.stage, before.stage);
            }
            happen(&mut rollout, &mut fleet, happening, &mut now);
        }
    }

    /// The same inputs give the same plan, and a plan that was carried out is not carried out again.
    #[test]
    fn planning_twice_is_planning_once(story in prop::collection::vec(happenings(), 0..40)) {
        let mut rollout = rollout(vec![wave(20.0, 0), wave(100.0, 30)]);
        let (mut fleet, mut now) = (fleet(12), NOW);
        for happening in story {
            happen(&mut rollout, &mut fleet, happening, &mut now);
            let first = plan(&rollout, &fleet, now);
            prop_assert_eq!(&first, &plan(&rollout, &fleet, now));
            turn(&mut rollout, &mut fleet, now);
            let again = turn(&mut rollout, &mut fleet, now);
            let told_twice = again.tell.iter().any(|told| first.tell.contains(told));
            prop_assert!(!told_twice);
        }
    }

    /// Devices that come online and do well end a rollout that nobody stops.
    #[test]
    fn a_healthy_fleet_ends_well(
        online in prop::collection::vec(any::<bool>(), 1..40),
        first in 0.0..100.0_f64,
        soak_s in 0_u32..600,
    ) {
        let mut rollout = rollout(vec![wave(first, soak_s), wave(100.0, 0)]);
        let (mut fleet, mut now) = (fleet(online.len()), NOW);
        for (number, &is_online) in online.iter().enumerate() {
            fleet.get_mut(&id(number)).unwrap().online_since = is_online.then_some(NOW);
        }
        for _ in 0..8 {
            turn(&mut rollout, &mut fleet, now);
            end_all(&mut fleet, OutcomeKind::Committed);
            now = now.plus(600_000);
            for view in fleet.values_mut() {
                view.online_since = Some(now);
            }
        }
        prop_assert_eq!(rollout.stage, Stage::Succeeded);
        prop_assert_eq!(told(&fleet).len(), online.len());
    }
}

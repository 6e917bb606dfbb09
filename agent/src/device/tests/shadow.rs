//! Beside the live image: what is compared there decides whether the new one is made live, and nothing that happens there is felt.

use sealift_protocol::directive::{Quiet, Shadow};

use super::*;

const RULES: Shadow =
    Shadow { span_s: 1_800, agreement_permille: 980, rows_min: 500, ..Shadow::OFF };

fn shadowed(version: u8, shadow: Shadow) -> DesiredSlot {
    let slot = slot(&model(), version);
    DesiredSlot { trial: Trial { shadow, ..slot.trial }, ..slot }
}

/// Version 1 is kept, version 2 is beside it.
fn shadowing_2(shadow: Shadow) -> World {
    let mut world = World::serving_1();
    world.feed(directive(2, vec![shadowed(2, shadow)]));
    (0..4).for_each(|_| assert!(world.obey(&model())));
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Shadowing, Some(image(1))));
    world
}

fn compare(world: &mut World, rows: u64, agreed: u64) {
    world.answer(&model(), Answer::Compared(compared(rows, agreed)));
}

#[test]
fn an_image_that_agrees_is_made_live_as_soon_as_that_is_shown() {
    let mut world = shadowing_2(RULES);
    assert_eq!(world.slot().next, Some(image(2)));
    compare(&mut world, 499, 499);
    assert_eq!(world.slot().phase, Public::Shadowing);
    assert_eq!(world.slot().shadow.unwrap().counts.rows, 499);

    compare(&mut world, 500, 500);

    assert_eq!(world.slot().phase, Public::Activating);
    world.obey_all();
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Probation, Some(image(2))));
    let shadow = world.slot().shadow.unwrap();
    assert_eq!((shadow.image, shadow.live, shadow.counts.agreed), (image(2), image(1), 500));
}

#[test]
fn an_image_that_differs_is_rejected_with_the_figures_and_the_live_one_serves_on() {
    let mut world = shadowing_2(RULES);

    compare(&mut world, 500, 431);

    assert_eq!((world.slot().phase, world.slot().serving), (Public::Idle, Some(image(1))));
    assert_eq!(world.outcome(), (OutcomeKind::Rejected, "shadow.disagreement".to_owned()));
    assert_eq!(
        world.slot().outcome.unwrap().reason,
        "it agrees with version 1 on 431 of 500 rows (86.2 %), 98.0 % is asked for"
    );
    assert_eq!(world.alarms.concat(), "shadow.disagreement");
    assert_eq!(world.slot().shadow.unwrap().counts.rows, 500, "what was counted is still told");
    assert!(world.tasks.is_empty(), "its worker is given up");
    world.wait(86_400_000);
    assert_eq!(world.slot().phase, Public::Idle, "not tried again until it is told again");
}

#[test]
fn at_its_end_the_share_decides_and_where_too_little_was_seen_what_the_directive_says() {
    let fail = Shadow { quiet: Quiet::Fail, ..RULES };
    for (rules, (rows, agreed), code) in [
        (RULES, (600, 588), None),
        (RULES, (600, 587), Some("shadow.disagreement")),
        (RULES, (499, 0), None),
        (fail, (499, 499), Some("shadow.quiet")),
        (Shadow { agreement_permille: 0, ..fail }, (500, 0), None),
    ] {
        let mut world = shadowing_2(rules);
        compare(&mut world, rows, agreed);
        world.wait(1_799_999);
        assert_eq!(world.slot().phase, Public::Shadowing);

        world.wait(1);

        let phase = if code.is_some() { Public::Idle } else { Public::Activating };
        assert_eq!(world.slot().phase, phase, "{rows} {agreed}");
        if let Some(code) = code {
            assert_eq!(world.outcome(), (OutcomeKind::Rejected, code.to_owned()));
        }
    }
}

#[test]
fn a_worker_that_ends_beside_the_live_one_fails_the_image_and_disturbs_nobody() {
    let mut world = shadowing_2(RULES);
    world.crash(2);
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Idle, Some(image(1))));
    assert_eq!(world.outcome(), (OutcomeKind::Failed, "shadow.crashed".to_owned()));
    assert!(world.serves.is_empty(), "the live worker was never touched");

    let mut world = shadowing_2(RULES);
    world.crash(1);
    assert_eq!(world.slot().phase, Public::Shadowing, "the live one is started again");
    assert_eq!(world.serves.pop(), Some((model(), image(1))));
}

#[test]
fn where_nobody_answers_any_more_the_new_image_does() {
    let mut world = shadowing_2(Shadow { quiet: Quiet::Fail, ..RULES });
    for _ in 0..crate::limits::STARTS_FAILED_MAX {
        assert_eq!(world.slot().phase, Public::Shadowing);
        let (image, reason) = (image(1).index, "damaged".to_owned());
        world.feed(Event::NotServed { model: model(), image, reason });
    }
    assert_eq!(world.slot().phase, Public::Activating);

    // And a first image has nobody to be compared with.
    let mut world = World::new();
    world.feed(directive(1, vec![shadowed(1, RULES)]));
    world.obey_all();
    assert_eq!(world.slot().phase, Public::Probation);
}

#[test]
fn a_restart_begins_the_shadow_anew_and_too_many_end_it() {
    let mut world = shadowing_2(RULES);
    compare(&mut world, 499, 499);
    for boots in 1..=crate::limits::BOOTS_MAX {
        world.restart();
        (0..4).for_each(|_| assert!(world.obey(&model())));
        assert_eq!(world.slot().phase, Public::Shadowing, "{boots}");
        assert_eq!(world.slot().shadow.unwrap().counts.rows, 0);
    }
    world.restart();
    assert_eq!(world.outcome(), (OutcomeKind::Failed, "warming.boots".to_owned()));
}

#[test]
fn the_same_image_under_a_newer_directive_goes_on_by_the_newer_rules() {
    let mut world = shadowing_2(RULES);
    compare(&mut world, 500, 490);
    let longer = Shadow { span_s: 3_600, agreement_permille: 900, ..RULES };
    world.feed(directive(3, vec![shadowed(2, longer)]));
    world.wait(1_800_000);
    assert_eq!(world.slot().phase, Public::Shadowing);
    assert_eq!(world.device.shadow(&model()).unwrap().0, &longer);

    compare(&mut world, 501, 491);
    assert_eq!(world.slot().phase, Public::Activating, "98 % is more than 90 %");

    let mut world = shadowing_2(RULES);
    world.feed(directive(3, vec![shadowed(2, Shadow::OFF)]));
    world.wait(1);
    assert_eq!(world.slot().phase, Public::Activating, "nothing is asked for any more");
}

#[test]
fn a_newer_image_an_owners_hold_and_a_revocation_end_it_at_once() {
    let mut world = shadowing_2(RULES);
    world.feed(directive(3, vec![slot(&model(), 3)]));
    assert_eq!((world.slot().phase, world.slot().next), (Public::Checking, Some(image(3))));
    compare(&mut world, 500, 0);
    assert_eq!(world.slot().phase, Public::Checking, "those counts are of another image");

    let mut world = shadowing_2(RULES);
    let hold = Hold { until: UnixMillis(i64::MAX), reason: "a visit".to_owned() };
    world.feed(Event::Held(Some(hold)));
    assert_eq!(world.slot().phase, Public::Idle);
    world.feed(Event::Held(None));
    assert_eq!(world.slot().phase, Public::Checking);

    let mut world = shadowing_2(RULES);
    let revoked = Event::Revoked { image: image(2).index, action: OnRevoked::Fallback };
    world.feed(revoked);
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Idle, Some(image(1))));
    assert_eq!(world.outcome(), (OutcomeKind::Rejected, "image.revoked".to_owned()));
}

#[test]
fn an_image_that_proved_itself_after_its_window_waits_for_the_next_and_is_not_compared_again() {
    use sealift_protocol::directive::MaintenanceWindow;
    let window = MaintenanceWindow::new(0b111_1111, 60, 120).ok();
    let mut world = World::serving_1();
    // The steady clock of these stories stands at the beginning of 1970.
    world.now = UnixMillis(3 * 86_400_000 + 3_600_000);
    let desired = shadowed(2, Shadow { span_s: 7_200, ..RULES });
    let trial = Trial { window, ..desired.trial };
    world.feed(directive(2, vec![DesiredSlot { trial, ..desired }]));
    (0..4).for_each(|_| assert!(world.obey(&model())));
    assert_eq!(world.slot().phase, Public::Shadowing);

    world.wait(3_600_000);
    compare(&mut world, 500, 500);

    assert_eq!((world.slot().phase, world.slot().serving), (Public::Staged, Some(image(1))));
    assert!(world.tasks.is_empty());
    world.wait(23 * 3_600_000);
    assert_eq!(world.slot().phase, Public::Warming);
    world.obey(&model());
    assert_eq!(world.slot().phase, Public::Activating);
}

//! Maintenance windows: the image is fetched before, and the device is disturbed only in them.

use jiff::tz::TimeZone;
use sealift_protocol::image::OnRevoked;

use super::*;
use crate::limits::{LOOK_MS, LOOKS_MAX};

const HOUR_MS: i64 = 3_600_000;

/// A Monday at noon in UTC: 21:00 in Tokyo.
fn noon() -> UnixMillis {
    let noon: jiff::Timestamp = "2026-11-16T12:00:00Z".parse().unwrap();
    UnixMillis(noon.as_millisecond())
}

fn guarded(version: u8) -> DesiredSlot {
    let slot = slot(&model(), version);
    let window = Some("22:00-06:00".parse().unwrap());
    DesiredSlot { trial: Trial { window, ..slot.trial }, ..slot }
}

fn tokyo() -> Local {
    Local { zone: TimeZone::get("Asia/Tokyo").unwrap(), ..Local::default() }
}

/// It is 21:00 in Tokyo, version 1 is kept, and version 2 is complete on disk.
fn staged() -> World {
    staged_at(tokyo())
}

fn staged_at(local: Local) -> World {
    let mut world = World::serving_1();
    world.now = noon();
    world.set_clock(local);
    world.feed(directive(2, vec![guarded(2)]));
    world.obey_all();
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Staged, Some(image(1))));
    world
}

#[test]
fn an_image_is_fetched_before_its_window_and_loaded_when_that_opens() {
    let mut world = staged();
    let wait = world.slot().wait.unwrap();
    assert_eq!((wait.code.as_str(), wait.until), ("window.shut", noon().plus(HOUR_MS)));
    assert_eq!(
        wait.reason,
        "outside the maintenance window 22:00-06:00, opens at 2026-11-16 22:00 (Asia/Tokyo)"
    );

    world.wait(HOUR_MS - 1);
    assert_eq!(world.slot().phase, Public::Staged);
    world.wait(1);
    assert_eq!((world.slot().phase, world.slot().wait), (Public::Warming, None));
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(2)));
}

#[test]
fn in_its_window_an_image_does_not_wait() {
    let mut world = World::serving_1();
    world.now = noon().plus(2 * HOUR_MS);
    world.set_clock(tokyo());
    world.feed(directive(2, vec![guarded(2)]));
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(2)));
}

#[test]
fn without_a_window_or_with_nothing_to_disturb_nobody_waits() {
    let mut world = staged();
    world.feed(directive(3, vec![slot(&model(), 2)]));
    world.wait(0);
    assert_eq!(world.slot().phase, Public::Warming, "a directive that is urgent has no window");

    let mut world = World::new();
    world.now = noon();
    world.set_clock(tokyo());
    world.feed(directive(1, vec![guarded(1)]));
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(1)), "the first image");

    let mut world = staged();
    for _ in 0..3 {
        let (image, reason) = (image(1).index, "damaged".to_owned());
        world.feed(Event::NotServed { model: model(), image, reason });
    }
    world.wait(0);
    assert_eq!(world.slot().phase, Public::Warming, "the live image does not start");
}

#[test]
fn going_back_from_a_trial_and_from_a_revoked_image_waits_for_no_window() {
    let mut world = staged();
    world.wait(HOUR_MS);
    world.obey_all();
    world.now = noon().plus(12 * HOUR_MS);
    (0..2).for_each(|_| world.crash(2));
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(1)));

    let mut world = staged();
    world.feed(Event::Revoked { image: image(1).index, action: OnRevoked::Fallback });
    world.obey_all();
    world.wait(1_000);
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(2)), "nothing is left that could be disturbed");
}

#[test]
fn a_restart_outside_of_the_window_waits_on_and_loses_no_download() {
    let mut world = staged();
    world.restart();
    world.obey_all();
    assert_eq!(world.slot().phase, Public::Staged);
    world.wait(HOUR_MS);
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(2)));
}

#[test]
fn a_newer_directive_a_hold_and_a_revocation_take_over() {
    let mut world = staged();
    world.feed(directive(3, vec![slot(&model(), 3)]));
    world.obey_all();
    assert_eq!(world.slot().serving, Some(image(3)));

    let mut world = staged();
    world.feed(Event::Held(Some(Hold { until: noon().plus(9 * HOUR_MS), reason: String::new() })));
    world.wait(2 * HOUR_MS);
    assert_eq!((world.slot().phase, world.slot().serving), (Public::Idle, Some(image(1))));

    let mut world = staged();
    world.feed(Event::Revoked { image: image(2).index, action: OnRevoked::Fallback });
    assert_eq!(world.outcome(), (OutcomeKind::Rejected, "image.revoked".to_owned()));
}

#[test]
fn a_device_that_is_carried_elsewhere_or_whose_clock_is_set_goes_by_the_new_time() {
    let mut world = staged();
    // 21:00 in Tokyo is 23:00 in Sydney.
    world.set_clock(Local { zone: TimeZone::get("Australia/Sydney").unwrap(), ..tokyo() });
    world.wait(0);
    assert_eq!(world.slot().phase, Public::Warming);

    let mut world = staged();
    world.set_clock(Local { ahead_ms: HOUR_MS, ..tokyo() });
    world.wait(0);
    assert_eq!(world.slot().phase, Public::Warming);

    let mut world = staged();
    world.set_clock(Local { ahead_ms: -HOUR_MS, ..tokyo() });
    world.wait(HOUR_MS);
    assert_eq!(world.slot().phase, Public::Staged);
    let entries = world.journal.len();
    world.set_clock(Local { ahead_ms: -HOUR_MS + 999, ..tokyo() });
    world.wait(1);
    assert_eq!(world.journal.len(), entries, "a clock that creeps writes nothing");
    world.wait(HOUR_MS);
    assert_eq!(world.slot().phase, Public::Warming);
}

#[test]
fn by_a_clock_that_cannot_be_right_an_image_waits_for_a_day_of_running_at_most() {
    let doubtful = || Local { is_trusted: false, ..tokyo() };
    let mut world = staged_at(doubtful());
    assert!(world.slot().wait.unwrap().reason.contains("cannot be right"));
    world.wait(HOUR_MS);
    assert_eq!(world.slot().phase, Public::Warming, "its window, for all that it knows");

    // It is switched on each noon for an hour, and its clock stands still when it is off.
    let mut world = staged_at(doubtful());
    let mut days = 0;
    while world.slot().phase == Public::Staged {
        for _ in 0..3 {
            world.wait(LOOK_MS);
        }
        world.now = noon();
        world.restart();
        world.obey_all();
        days += 1;
        assert!(days <= 100, "it waits for ever");
    }
    assert_eq!(days, i64::from(LOOKS_MAX) / 4);
    assert_eq!(world.slot().serving, Some(image(2)));
}

#[test]
fn where_nobody_knows_the_zone_the_window_is_in_utc_and_says_so() {
    let mut world = staged_at(Local::default());
    assert!(world.slot().wait.unwrap().reason.ends_with("opens at 2026-11-16 22:00 (UTC)"));
    world.wait(10 * HOUR_MS);
    assert_eq!(world.slot().phase, Public::Warming);
}

//! What holds in every story, however wild: laws over long random sequences of events, faults, restarts and lost answers.

use jiff::tz::TimeZone;
use proptest::prelude::*;
use sealift_protocol::directive::{Behaviour, MaintenanceWindow, Opening, Quiet, Shadow, Trial};
use sealift_protocol::report::{Outcome, OutcomeKind, Phase as Public};

use super::slot::REVOKED;
use super::tests::{PROBATION_S, World, compared, directive, image, slot};
use super::*;
use crate::behaviour::{Kind, Misstep};

mod shadow;

/// Longer than a probation, shorter than a watch.
const LEASE_S: u32 = 300;

/// By as much a clock may be wrong that was never set.
const YEAR_MS: i64 = 365 * 86_400_000;

/// A step of a story. Numbers choose models and versions.
#[derive(Debug, Clone)]
enum Beat {
    /// A directive with a generation this much above the newest, that names these versions of the two models; 0 for none.
    Directive {
        rise: u64,
        versions: (u8, u8),
        terms: Terms,
    },
    /// The server has seen what is on trial, and says so.
    Countersign,
    /// The owner's word.
    Hold(bool),
    /// The clock is set, or the device carried elsewhere.
    Clock(usize, i64),
    Revoke {
        version: u8,
        action: OnRevoked,
    },
    Obey {
        which: u8,
    },
    Fail {
        which: u8,
        kind: FaultKind,
    },
    Progress {
        which: u8,
    },
    Crash {
        which: u8,
    },
    NotServed {
        which: u8,
    },
    Served,
    Count {
        which: u8,
        errors: u64,
    },
    /// The image is said to do worse than the one before; whether a rule forbids it or not.
    Misbehave {
        which: u8,
        kind: Kind,
    },
    /// Beside the live image so many rows were compared, and on so many both agree.
    Compare {
        which: u8,
        rows: u64,
        agreed: u64,
    },
    Wait {
        millis: i64,
    },
    /// All goes well until the probation is over.
    Prove,
    Restart,
    /// The power goes when so many more effects have been carried out.
    PowerLoss {
        effects: usize,
    },
    /// A power loss in the middle of writing: the last entries are not there.
    TornRestart {
        lost: usize,
    },
}

/// What a directive says besides versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Terms {
    /// The hour at which a window of two hours opens.
    window: Option<u16>,
    is_leased: bool,
    /// Whether how the image behaves is judged.
    is_judged: bool,
    /// Whether it is compared first, and what follows where little was seen.
    shadow: Option<Quiet>,
}

const NO_TERMS: Terms = Terms { window: None, is_leased: false, is_judged: false, shadow: None };

/// Compared for longer than a window is open, at times.
const COMPARED: Shadow =
    Shadow { span_s: 7_000, agreement_permille: 950, rows_min: 200, ..Shadow::OFF };

/// Slower than before is a fault where it is judged; other rules are off.
const JUDGED: Behaviour = Behaviour { latency_rise_permille: 500, ..Behaviour::OFF };

fn terms() -> impl Strategy<Value = Terms> {
    let window = prop_oneof![2 => Just(None), 1 => (0_u16..24).prop_map(Some)];
    let shadow =
        prop_oneof![2 => Just(None), 1 => Just(Some(Quiet::Pass)), 1 => Just(Some(Quiet::Fail))];
    let terms = (window, prop::bool::weighted(0.3), any::<bool>(), shadow);
    terms.prop_map(|(window, is_leased, is_judged, shadow)| Terms {
        window,
        is_leased,
        is_judged,
        shadow,
    })
}

fn on_terms(slot: DesiredSlot, terms: Terms) -> DesiredSlot {
    let window =
        |hour| MaintenanceWindow::new(0b111_1111, hour * 60, (hour + 2) % 24 * 60).unwrap();
    let lease_s = if terms.is_leased { LEASE_S } else { 0 };
    let behaviour = if terms.is_judged { JUDGED } else { Behaviour::OFF };
    let shadow = terms.shadow.map_or(Shadow::OFF, |quiet| Shadow { quiet, ..COMPARED });
    let window = terms.window.map(window);
    let trial = Trial { window, lease_s, behaviour, shadow, ..slot.trial };
    DesiredSlot { trial, ..slot }
}

/// Where devices stand; the last has a clock that cannot be right.
fn local(place: usize, ahead_ms: i64) -> Local {
    let zones = ["UTC", "Asia/Tokyo", "America/St_Johns"];
    let is_trusted = place < zones.len();
    let zone = TimeZone::get(zones.get(place).unwrap_or(&"UTC")).unwrap();
    Local { zone, ahead_ms: if is_trusted { ahead_ms } else { 0 }, is_trusted }
}

fn beats() -> impl Strategy<Value = Beat> {
    let kind = prop_oneof![
        (0_u16..1_000).prop_map(|spread_permille| FaultKind::Unreachable { spread_permille }),
        Just(FaultKind::Corrupt),
        Just(FaultKind::Untrusted),
        Just(FaultKind::NotApplicable),
        Just(FaultKind::NoRoom),
        Just(FaultKind::Failed),
    ];
    let action = prop_oneof![
        Just(OnRevoked::Fallback),
        Just(OnRevoked::Stop),
        Just(OnRevoked::KeepWithAlarm)
    ];
    prop_oneof![
        2 => (0_u64..3, (0_u8..4, 0_u8..4), terms())
            .prop_map(|(rise, versions, terms)| Beat::Directive { rise, versions, terms }),
        1 => Just(Beat::Countersign),
        1 => any::<bool>().prop_map(Beat::Hold),
        1 => (0_usize..4, prop_oneof![-100_000_i64..100_000, -YEAR_MS..YEAR_MS])
            .prop_map(|(place, ahead_ms)| Beat::Clock(place, ahead_ms)),
        1 => (1_u8..4, action).prop_map(|(version, action)| Beat::Revoke { version, action }),
        8 => (0_u8..2).prop_map(|which| Beat::Obey { which }),
        2 => (0_u8..2, kind).prop_map(|(which, kind)| Beat::Fail { which, kind }),
        1 => (0_u8..2).prop_map(|which| Beat::Progress { which }),
        1 => (0_u8..2).prop_map(|which| Beat::Crash { which }),
        1 => (0_u8..2).prop_map(|which| Beat::NotServed { which }),
        1 => Just(Beat::Served),
        1 => (0_u8..2, 0_u64..60).prop_map(|(which, errors)| Beat::Count { which, errors }),
        1 => (0_u8..2, prop_oneof![Just(Kind::Latency), Just(Kind::Confidence)])
            .prop_map(|(which, kind)| Beat::Misbehave { which, kind }),
        3 => (0_u8..2, 0_u64..1_000, 0_u64..100).prop_map(|(which, agreed, differed)| {
            Beat::Compare { which, rows: agreed + differed, agreed }
        }),
        4 => prop_oneof![0_i64..5_000, 0_i64..100_000, 0_i64..4_000_000, 0_i64..90_000_000]
            .prop_map(|millis| Beat::Wait { millis }),
        2 => Just(Beat::Prove),
        1 => Just(Beat::Restart),
        1 => (0_usize..6).prop_map(|effects| Beat::PowerLoss { effects }),
        1 => (0_usize..4).prop_map(|lost| Beat::TornRestart { lost }),
    ]
}

fn models() -> [ModelName; 2] {
    ["vision/digits", "sound/birds"].map(|name| ModelName::parse(name).unwrap())
}

/// A world and what the laws look at from outside.
struct Story {
    world: World,
    generation: u64,
    /// What the newest directive says.
    told: Vec<DesiredSlot>,
}

impl Story {
    fn new() -> Self {
        Self { world: World::new(), generation: 0, told: Vec::new() }
    }

    fn play(&mut self, beat: &Beat) {
        let models = models();
        let model = |which: &u8| models[usize::from(*which)].clone();
        match beat {
            Beat::Directive { rise, versions: (first, second), terms } => {
                self.generation = (self.generation + rise).max(1);
                let named = models.iter().zip([first, second]).filter(|(_, version)| **version > 0);
                let slot = |(model, version): (_, &u8)| on_terms(slot(model, *version), *terms);
                self.told = named.map(slot).collect();
                self.world.feed(directive(self.generation, self.told.clone()));
            }
            Beat::Countersign => self.countersign(),
            Beat::Hold(is_held) => {
                let hold = Hold { until: UnixMillis(i64::MAX), reason: "a visit".to_owned() };
                self.world.feed(Event::Held(is_held.then_some(hold)));
            }
            Beat::Clock(place, ahead_ms) => self.world.set_clock(local(*place, *ahead_ms)),
            Beat::Revoke { version, action } => {
                let image = image(*version).index;
                self.world.feed(Event::Revoked { image, action: *action });
            }
            Beat::Obey { which } => {
                self.world.obey(&model(which));
            }
            Beat::Fail { which, kind } => {
                let code = if *kind == FaultKind::NoRoom { "law.room" } else { "law.fault" };
                let fault = Fault::new(*kind, code, "a reason");
                self.world.answer(&model(which), Answer::Failed(fault));
            }
            Beat::Progress { which } => {
                let progress = Progress { done_bytes: 1, total_bytes: 10 };
                self.world.answer(&model(which), Answer::Progress(progress));
            }
            Beat::Crash { which } => self.about_live(&model(which), |model, image| {
                Event::Crashed { model, image, reason: "signal 11".to_owned() }
            }),
            Beat::NotServed { which } => self.about_live(&model(which), |model, image| {
                Event::NotServed { model, image, reason: "damaged".to_owned() }
            }),
            Beat::Count { which, errors } => self.about_live(&model(which), |model, image| {
                Event::Counted { model, image, requests: 100, errors: *errors }
            }),
            Beat::Misbehave { which, kind } => self.about_live(&model(which), |model, image| {
                let (before, now, requests, lasted_s) = (1_000, 9_000, 100, 300);
                let misstep = Misstep { kind: *kind, before, now, requests, lasted_s };
                Event::Misbehaved { model, image, misstep }
            }),
            Beat::Compare { which, rows, agreed } => {
                self.world.answer(&model(which), Answer::Compared(compared(*rows, *agreed)));
            }
            Beat::Served => self.serve(),
            Beat::Wait { millis } => self.world.wait(*millis),
            Beat::Prove => {
                self.world.obey_all();
                self.world.wait(i64::from(PROBATION_S) * 1_000);
            }
            Beat::Restart => self.world.restart(),
            Beat::PowerLoss { effects } => self.world.power = Some(*effects),
            Beat::TornRestart { lost } => {
                let whole = self.world.journal.len().saturating_sub(*lost);
                self.world.journal.truncate(whole);
                self.world.restart();
                self.generation = self.generation.max(self.world.device.generation().0);
            }
        }
    }

    fn play_all(&mut self, beats: &[Beat]) {
        for beat in beats {
            self.play(beat);
        }
    }

    fn about_live(&mut self, model: &ModelName, event: impl Fn(ModelName, Digest) -> Event) {
        let serving = self.world.device.serving().find(|(found, _)| *found == model);
        let Some(image) = serving.map(|(_, image)| image.index) else { return };
        self.world.feed(event(model.clone(), image));
    }

    fn serve(&mut self) {
        for (model, image) in std::mem::take(&mut self.world.serves) {
            self.world.feed(Event::Served { model, image: image.index, providers: Vec::new() });
        }
    }

    /// As the server does it: the same again, with its word for what it has seen on trial.
    fn countersign(&mut self) {
        let report = self.world.device.report(self.world.now);
        if report.slots.iter().all(|slot| slot.lease_until.is_none()) {
            return;
        }
        self.generation += 1;
        let seen = |slot: &DesiredSlot| {
            let report = report.slots.iter().find(|report| report.model == slot.model);
            let confirmed = report.map(|report| report.generation);
            DesiredSlot { confirmed, ..slot.clone() }
        };
        let slots = self.told.iter().map(seen).collect();
        self.world.feed(directive(self.generation, slots));
    }

    /// Nothing fails any more, the clock is right, nobody holds anything, and a day and a half passes.
    fn leave_in_peace(&mut self) {
        self.world.power = None;
        self.play(&Beat::Hold(false));
        self.play(&Beat::Clock(0, 0));
        for _ in 0..36 {
            self.world.obey_all();
            self.countersign();
            self.world.wait(3_600_000);
        }
    }
}

/// Whether the end of an attempt may give way to another.
fn may_follow(before: &Outcome, after: &Outcome) -> bool {
    use OutcomeKind as K;
    match before.result {
        // It is told again, or there is room.
        K::Superseded => true,
        K::Rejected if before.code == "law.room" => true,
        K::Committed => matches!(after.result, K::Committed | K::RolledBack),
        // What was gone back to was the image itself, and that was revoked.
        K::RolledBack => before == after || after.code == REVOKED,
        K::Rejected | K::Failed | K::NotApplicable => before == after,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// However the story went: told a last time and left in peace, the device ends on exactly what it was told, and says so.
    #[test]
    fn a_device_left_in_peace_ends_on_what_it_was_last_told(
        story in prop::collection::vec(beats(), 0..120),
        last in (0_u8..4, 0_u8..4),
        terms in terms(),
    ) {
        let mut played = Story::new();
        played.play_all(&story);
        played.world.power = None;
        played.play(&Beat::Directive { rise: 1, versions: last, terms });
        played.leave_in_peace();

        let report = played.world.device.report(played.world.now);
        prop_assert_eq!(report.generation.0, played.generation);
        for (model, version) in models().iter().zip([last.0, last.1]) {
            let slot = report.slots.iter().find(|slot| slot.model == *model);
            if version == 0 {
                prop_assert!(slot.is_none(), "{:?}", slot);
                continue;
            }
            let slot = slot.unwrap();
            prop_assert_eq!((slot.phase, slot.serving.as_ref()), (Public::Idle, Some(&image(version))));
            let outcome = slot.outcome.as_ref().unwrap();
            prop_assert_eq!(outcome.generation.0, played.generation, "the terminal outcome is reported");
            prop_assert_eq!(outcome.result, OutcomeKind::Committed);
        }
    }

    /// A model that has once been kept has an image to serve for as long as directives name it.
    #[test]
    fn a_working_image_is_never_lost(story in prop::collection::vec(beats(), 0..150)) {
        let mut played = Story::new();
        let model = &models()[0];
        played.world.feed(directive(1, vec![slot(model, 1)]));
        played.generation = 1;
        played.leave_in_peace();
        for beat in &story {
            // Removal is what a directive can ask for; a torn journal forgets what was never promised.
            let tame = if let Beat::Directive { rise, versions: (first, second), terms } = beat {
                let versions = ((*first).max(1), *second);
                Some(Beat::Directive { rise: *rise, versions, terms: *terms })
            } else if let Beat::Revoke { version, .. } = beat {
                // Nor may a revoked image stay where its publisher does not want that.
                Some(Beat::Revoke { version: *version, action: OnRevoked::KeepWithAlarm })
            } else {
                matches!(beat, Beat::TornRestart { .. }).then_some(Beat::Restart)
            };
            let beat = tame.as_ref().unwrap_or(beat);
            played.play(beat);
            let slot = &played.world.device.slots[model];
            let live = slot.serving().is_some();
            let on_the_way_back = matches!(slot.phase, phase::Phase::Reverting { to: Some(_), .. });
            prop_assert!(live || on_the_way_back, "{:?} after {:?}", slot.phase, beat);
            let images = played.world.device.images();
            prop_assert!(slot.serving().is_none_or(|image| images.contains(&image.index)));
        }
    }

    /// trust.md, 14: whatever is served, or could be gone back to, is at or above the epoch of every image that was kept, through every
    /// crash; and neither that floor nor the generation ever falls.
    #[test]
    fn nothing_below_the_floor_comes_back(story in prop::collection::vec(beats(), 0..200)) {
        let mut played = Story::new();
        played.world.epoch_of = |desired| Epoch(desired.version.as_str().parse().unwrap());
        let epoch = |image: &ImageRef| Epoch(image.version.as_str().parse().unwrap());
        let (mut floors, mut generation) = (BTreeMap::new(), Generation::default());
        for beat in &story {
            // What a torn journal forgets was never acted on.
            let is_torn = matches!(beat, Beat::TornRestart { .. });
            played.play(if is_torn { &Beat::Restart } else { beat });

            let device = &played.world.device;
            prop_assert!(device.generation >= generation);
            generation = device.generation;
            for (model, slot) in &device.slots {
                let floor = device.floor(model);
                prop_assert!(floors.insert(model.clone(), floor) <= Some(floor));
                let at_hand = slot.previous().map(phase::Previous::image).into_iter();
                for image in at_hand.chain(slot.serving().cloned()) {
                    prop_assert!(epoch(&image) >= floor, "{image:?} below {floor:?}: {slot:?}");
                }
                if let phase::Phase::Trial { stage: phase::Stage::Watch, live, .. } = &slot.phase {
                    prop_assert!(floor >= epoch(live.image()), "kept without its floor: {slot:?}");
                }
            }
        }
    }

    /// After a tick no deadline lies in the past: every phase ends by itself, or is tried again.
    #[test]
    fn no_phase_outlives_its_deadline(story in prop::collection::vec(beats(), 0..150)) {
        let mut played = Story::new();
        for beat in &story {
            played.play(beat);
            played.world.power = None;
            played.world.feed(Event::Tick);
            for slot in played.world.device.slots.values() {
                let deadline = slot.deadline();
                prop_assert!(deadline.is_none_or(|at| at > played.world.now), "{:?}", slot.phase);
            }
        }
    }

    /// The journal, cut off anywhere, brings the device to the same end once it is told again and left in peace.
    #[test]
    fn every_prefix_of_the_journal_leads_to_the_same_end(
        story in prop::collection::vec(beats(), 0..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut played = Story::new();
        played.play_all(&story);
        let entries = played.world.journal.clone();
        let last = Beat::Directive { rise: 1, versions: (2, 3), terms: NO_TERMS };
        let end = |journal: Vec<Entry>| {
            let mut story = Story { generation: 1_000, ..Story::new() };
            story.world.now = played.world.now;
            story.world.journal = journal;
            story.world.restart();
            story.play(&last);
            story.leave_in_peace();
            let slots = story.world.device.report(story.world.now).slots;
            slots.into_iter().map(|slot| (slot.model, slot.phase, slot.serving)).collect::<Vec<_>>()
        };
        let whole = end(entries.clone());
        prop_assert_eq!(end(entries[..cut.index(entries.len() + 1)].to_vec()), whole);
    }

    /// What the journal says is what the device is: a restart between any two events loses nothing that was decided.
    #[test]
    fn the_journal_tells_the_whole_device(story in prop::collection::vec(beats(), 0..120)) {
        let mut played = Story::new();
        for beat in story.iter().filter(|beat| !matches!(beat, Beat::TornRestart { .. })) {
            played.play(beat);
            let replayed = Device::restore(played.world.journal.clone());
            let compacted = Device::restore(played.world.device.entries());
            for restored in [replayed, compacted] {
                prop_assert_eq!(restored.generation, played.world.device.generation);
                prop_assert_eq!(&restored.floors, &played.world.device.floors);
                prop_assert!(restored.slots.keys().eq(played.world.device.slots.keys()));
                for (model, slot) in &played.world.device.slots {
                    prop_assert!(restored.slots[model].is_same_on_disk(slot), "{:?}", slot);
                }
            }
        }
    }

    /// What was reported last is what the device is, through every crash: nothing changes in silence. Where an attempt has ended, its
    /// end stays: for lack of room it may go on to another, what was kept may be taken back, and what was superseded be told again.
    #[test]
    fn every_result_is_reported_and_none_is_taken_back(
        story in prop::collection::vec(beats(), 0..150),
    ) {
        let mut played = Story::new();
        let mut ends: BTreeMap<(ModelName, Generation, Digest), Outcome> = BTreeMap::new();
        for beat in &story {
            // What a torn journal forgets was never reported.
            let is_torn = matches!(beat, Beat::TornRestart { .. });
            played.play(if is_torn { &Beat::Restart } else { beat });

            let slots = played.world.device.report(played.world.now).slots;
            prop_assert_eq!(&played.world.reported, &slots);
            let ended = |slot: SlotReport| Some((slot.model, slot.outcome?));
            for (model, outcome) in slots.into_iter().filter_map(ended) {
                let key = (model, outcome.generation, outcome.image.index);
                let Some(before) = ends.insert(key, outcome.clone()) else { continue };
                prop_assert!(may_follow(&before, &outcome), "{:?} became {:?}", before, outcome);
            }
        }
    }

    /// Outside of its window an image disturbs nothing that runs: it is neither loaded nor made live, whatever the clock does.
    #[test]
    fn nothing_that_runs_is_disturbed_outside_of_the_window(
        story in prop::collection::vec(beats(), 0..150),
    ) {
        use phase::{Phase as Inner, Step};
        let mut played = Story::new();
        let model = &models()[0];
        played.play(&Beat::Directive { rise: 1, versions: (1, 0), terms: NO_TERMS });
        played.leave_in_peace();
        let phase = |played: &Story| {
            played.world.device.slots.get(model).map(|slot| slot.report(model).phase)
        };
        for beat in &story {
            // Every other image comes with a window, and the clock moves as much as the image does.
            let tame = if let Beat::Directive { rise, versions, .. } = beat {
                let terms = Terms { window: Some(9), ..NO_TERMS };
                Some(Beat::Directive { rise: rise + 1, versions: (versions.0.max(1), versions.1), terms })
            } else if let Beat::Crash { .. } | Beat::NotServed { .. } | Beat::Fail { .. } = beat {
                Some(Beat::Clock(1, 3_600_000 * i64::try_from(played.world.journal.len()).unwrap()))
            } else {
                None
            };
            let before = phase(&played);
            played.play(tame.as_ref().unwrap_or(beat));
            let begins = before != Some(Public::Warming) && phase(&played) == Some(Public::Warming);
            let Some(slot) = played.world.device.slots.get(model).filter(|_| begins) else {
                continue;
            };
            let Inner::Preparing { attempt, live: Some(live), step: Step::Warming { .. } } =
                &slot.phase
            else {
                continue;
            };
            let local = &played.world.local;
            let window = attempt.desired.trial.window.filter(|_| local.is_trusted);
            let Some(window) = window else { continue };
            let is_down = live.starts_failed >= crate::limits::STARTS_FAILED_MAX;
            let now = played.world.now.plus(local.ahead_ms);
            let is_open = matches!(window.at(now, &local.zone), Opening::Open { .. });
            prop_assert!(is_open || is_down, "{:?}", attempt);
        }
    }

    /// What an image is said to do worse turns it back only on trial, by a rule that its directive has, to an image that was there before:
    /// with a result that says so.
    #[test]
    fn an_image_that_misbehaves_goes_back_by_its_rules_alone(
        story in prop::collection::vec(beats(), 0..150),
    ) {
        let mut played = Story::new();
        for beat in &story {
            let Beat::Misbehave { which, kind } = beat else {
                played.play(beat);
                continue;
            };
            let model = &models()[usize::from(*which)];
            let before = played.world.device.slots.get(model).cloned();
            played.world.power = None;
            played.play(beat);
            let Some(before) = before else { continue };
            let after = &played.world.device.slots[model];
            let rules = before.trial().map(|(rules, previous)| (rules.behaviour, previous));
            let is_forbidden = rules.is_some_and(|(rules, _)| rules == JUDGED) && *kind == Kind::Latency;
            if !is_forbidden {
                prop_assert!(before.is_same_on_disk(after), "{:?}", before);
                continue;
            }
            let phase::Phase::Reverting { to, fault, .. } = &after.phase else {
                return Err(TestCaseError::fail(format!("{:?}", after.phase)));
            };
            prop_assert_eq!(fault.code.as_str(), "trial.latency");
            prop_assert_eq!(to.as_ref().map(phase::Previous::index), rules.map(|(_, previous)| previous));
            let was_kept = matches!(before.phase, phase::Phase::Trial { stage: phase::Stage::Watch, .. });
            let image = before.serving().cloned();
            played.world.answer(model, Answer::Reverted { providers: Vec::new() });
            let outcome = played.world.device.slots[model].report(model).outcome.unwrap();
            prop_assert_eq!((outcome.result, Some(outcome.image.clone())), (OutcomeKind::RolledBack, image));
            // Late is what was kept in this very attempt.
            prop_assert!(outcome.is_late() <= was_kept, "{:?}", outcome);
        }
    }
}

use sealift_protocol::api::{Budget, WavePlan};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::RolloutId;
use sealift_protocol::image::ModelIndex;

use super::*;
use crate::rollout::{DeviceView, Stage, Standing, Wave, plan};

const NOW: UnixMillis = UnixMillis(1_672_617_600_000);
const MIB: u64 = 1 << 20;

fn variant(accelerator: &str, min_memory_mb: u64) -> Variant {
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",
        "artifactType":"application/vnd.sealift.model.index.v1+json","manifests":[{{
        "mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":10,
        "platform":{{"os":"linux","architecture":"amd64"}},
        "annotations":{{"dev.sealift.accelerator":"{accelerator}","dev.sealift.min-memory":"{min_memory_mb}"}}}}]}}"#,
        Digest::of(accelerator.as_bytes())
    );
    let index = index.replace(
        "application/vnd.sealift.model.index.v1+json",
        sealift_protocol::image::media_type::INDEX_ARTIFACT,
    );
    ModelIndex::parse(index.as_bytes()).unwrap().variants()[0].clone()
}

fn image() -> Image {
    let variants = vec![(variant("cuda", 4_096), 300 * MIB), (variant("cpu", 256), 100 * MIB)];
    Image { variants, epoch: Epoch(3) }
}

fn known(memory_mb: u64, free_mb: u64, providers: &[&str]) -> Known {
    let facts = Facts {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        memory_mb,
        providers: providers.iter().map(|&name| name.to_owned()).collect(),
        ..Facts::default()
    };
    let disk_free_bytes = Some(free_mb * MIB);
    Known { facts: Some(facts), disk_free_bytes, floor: Epoch(3), ..Known::default() }
}

fn code(fate: &Fate) -> &'static str {
    match fate {
        Fate::Takes { .. } => "",
        Fate::Refuses { code, .. } => code,
    }
}

#[test]
fn a_device_takes_the_variant_that_it_would_choose_itself() {
    let bytes = |known: &Known| fate(&image(), known);
    let cuda = ["CUDAExecutionProvider"];
    assert_eq!(bytes(&known(8_192, 9_000, &cuda)), Fate::Takes { bytes: 300 * MIB });
    assert_eq!(bytes(&known(2_048, 9_000, &cuda)), Fate::Takes { bytes: 100 * MIB });
    assert_eq!(bytes(&known(8_192, 9_000, &[])), Fate::Takes { bytes: 100 * MIB });
    let simulated = Facts { simulated: true, ..known(8_192, 9_000, &cuda).facts.unwrap() };
    let simulated = Known { facts: Some(simulated), ..known(8_192, 9_000, &cuda) };
    assert_eq!(bytes(&simulated), Fate::Takes { bytes: 100 * MIB });
}

#[test]
fn who_would_refuse_is_foreseen_with_the_devices_own_code() {
    assert_eq!(code(&fate(&image(), &known(128, 9_000, &[]))), "image.no-variant");
    assert_eq!(code(&fate(&image(), &known(512, 147, &[]))), "image.no-room");
    assert_eq!(code(&fate(&image(), &known(512, 148, &[]))), "", "with the reserve it just fits");
    let has_image = Known { has_image: true, ..known(128, 0, &[]) };
    assert_eq!(fate(&image(), &has_image), Fate::Takes { bytes: 0 });
    let high = Known { floor: Epoch(4), ..known(512, 9_000, &[]) };
    assert_eq!(code(&fate(&image(), &high)), "image.epoch");
}

#[test]
fn a_device_of_which_nothing_is_known_is_expected_to_take_the_most() {
    assert_eq!(
        fate(&image(), &Known { floor: Epoch(1), ..Known::default() }),
        Fate::Takes { bytes: 300 * MIB }
    );
}

fn rollout(waves: &[(f64, u32)], budget: Option<Budget>) -> Rollout {
    let wave = |&(percent, soak_s): &(f64, u32)| Wave {
        plan: WavePlan { percent: Some(percent), soak_s, ..WavePlan::default() },
        standing: Standing::Pending,
        comparisons: Vec::new(),
    };
    Rollout {
        id: RolloutId(1),
        turn: 1,
        image: Digest::of(b"new"),
        waves: waves.iter().map(wave).collect(),
        stage: Stage::Running,
        probation_ms: 60_000,
        shadow_ms: 0,
        silent_after_ms: 120_000,
        is_rollback: false,
        held_from: None,
        start_at: None,
        budget,
        tail_ms: 0,
        reverted_by: Vec::new(),
    }
}

fn fleet(devices: usize) -> (Fleet, BTreeMap<DeviceId, Known>) {
    let id = |number: usize| DeviceId::parse(&format!("cam-{number}")).unwrap();
    let view = DeviceView { online_since: Some(UnixMillis(0)), ..DeviceView::default() };
    let measured = Known { speed_bytes_s: Some(10 * MIB), ..known(512, 9_000, &[]) };
    (
        (0..devices).map(|number| (id(number), view.clone())).collect(),
        (0..devices).map(|number| (id(number), measured.clone())).collect(),
    )
}

/// 100 MiB at 10 MiB/s, warming, a minute of probation.
const ONE_S: u64 = 10 + 20 + 60;

#[test]
fn waves_come_one_after_the_other_with_their_soaks() {
    let rollout = rollout(&[(10.0, 600), (100.0, 0)], None);
    let (fleet, known) = fleet(10);

    let plan = plan(&rollout, &fleet, NOW);
    let foreseen = rehearse((&rollout, &plan, &fleet), &known, &image(), NOW);

    assert_eq!((foreseen.done, foreseen.bytes), (10, 1_000 * MIB));
    assert_eq!(foreseen.done_after_s, [2 * ONE_S + 600; 3]);
    assert_eq!(foreseen.curve[1], ForecastPoint { after_s: ONE_S, devices: 1 });
    assert_eq!(foreseen.curve.last().unwrap().devices, 10);
}

#[test]
fn a_budget_makes_devices_of_a_group_come_one_after_the_other() {
    let budget = Budget { label: "site".to_owned(), count: Some(2), percent: None };
    let rollout = rollout(&[(100.0, 0)], Some(budget));
    let (fleet, known) = fleet(6);

    let plan = plan(&rollout, &fleet, NOW);
    let foreseen = rehearse((&rollout, &plan, &fleet), &known, &image(), NOW);

    let after: Vec<_> = foreseen.curve.iter().skip(1).map(|point| point.after_s).collect();
    assert_eq!(after, [1, 1, 2, 2, 3, 3].map(|turn| turn * ONE_S));
}

#[test]
fn a_device_that_is_away_comes_when_it_usually_does_or_is_not_counted_on() {
    let rollout = rollout(&[(100.0, 0)], None);
    let (mut fleet, mut known) = fleet(3);
    let [morning, never] = [0, 1].map(|number| DeviceId::parse(&format!("cam-{number}")).unwrap());
    for id in [&morning, &never] {
        fleet.get_mut(id).unwrap().online_since = None;
    }
    let mut habits = Habits::new(NOW.plus(-7 * 86_400_000));
    for day in 1..=7 {
        let from = NOW.plus(-day * 86_400_000 + 8 * 3_600_000);
        habits.add(from, from.plus(3_600_000));
    }
    known.get_mut(&morning).unwrap().habits = Some(habits);

    let plan = plan(&rollout, &fleet, NOW);
    let foreseen = rehearse((&rollout, &plan, &fleet), &known, &image(), NOW);

    let after: Vec<_> = foreseen.curve.iter().map(|point| point.after_s).collect();
    assert_eq!(after, [0, ONE_S, 8 * 3_600 + ONE_S]);
    assert_eq!((foreseen.done, foreseen.basis.devices), (2, 3));
}

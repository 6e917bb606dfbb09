//! What a profile promises: the same bytes in any order and grouping, kept bytes stay readable, and nothing hostile gets in.

use proptest::prelude::*;

use super::baseline::Contents;
use super::moments::Wide;
use super::*;
use crate::codec;

fn columns() -> Vec<Column> {
    let colours = ["red", "green", "blue"].map(str::to_owned).to_vec();
    vec![
        Column::numeric("width", "size"),
        Column::numeric("height", "size"),
        Column {
            name: "colour".to_owned(),
            group: "look".to_owned(),
            kind: Kind::Categorical(colours),
        },
        Column::numeric("shutter", "look"),
    ]
}

/// Width is spread, height repeats a few values, the shutter never moves.
fn baseline() -> Baseline {
    let classes = ["ok", "bad"].map(str::to_owned).to_vec();
    let mut builder = BaselineBuilder::new(columns(), classes).with_summary();
    for row in 0..500_u32 {
        let width = f64::from(row) / 50.0 - 5.0;
        let features = [width, f64::from(row % 4), f64::from(row % 3), 1.0];
        let class = if row % 7 == 0 { "bad" } else { "ok" };
        builder.push(&features, Some(class), Some(f64::from(row) / 500.0)).unwrap();
    }
    builder.build().unwrap()
}

#[derive(Debug, Clone)]
struct Inference {
    row: Vec<Cell>,
    class: Option<usize>,
    confidence: Option<f32>,
    latency_us: Option<u64>,
}

fn profile_of(baseline: &Baseline, inferences: &[Inference]) -> Profile {
    let mut profiler = Profiler::new(baseline);
    for Inference { row, class, confidence, latency_us } in inferences {
        profiler.observe_cells(row, *class, *confidence, *latency_us);
    }
    profiler.close()
}

/// Its counts and sums.
fn without_ranges(profile: &Profile) -> Profile {
    let mut counts = profile.clone();
    counts.numeric.iter_mut().for_each(|numeric| numeric.moments.range = None);
    counts
}

/// What an agent counts that does not know how many different unseen values there were.
fn without_sketches(profile: &Profile) -> Profile {
    let mut older = profile.clone();
    older.categorical.iter_mut().for_each(|it| it.different = DistinctSketch::default());
    older
}

fn merged(baseline: &Baseline, profiles: &[Profile]) -> Profile {
    let mut all = Profile::empty(baseline);
    for profile in profiles {
        all.merge(profile).unwrap();
    }
    all
}

fn plain(row: [f32; 4]) -> Inference {
    let row = row.map(Cell::Number).to_vec();
    Inference { row, class: Some(0), confidence: Some(0.9), latency_us: Some(1_500) }
}

#[test]
fn every_value_is_counted_where_it_belongs() {
    let baseline = baseline();
    let rows = [
        plain([-5.0, 0.0, 0.0, 1.0]),
        plain([-5.1, 3.0, 2.0, 1.0]),
        plain([9.9, 4.0, 7.0, f32::NAN]),
        plain([f32::INFINITY, -0.0, f32::NAN, 2.0]),
    ];

    let profile = profile_of(&baseline, &rows);

    let reference = |place: usize| baseline.features()[place].numeric().unwrap();
    let width = &profile.numeric()[0];
    assert_eq!(width.bins(reference(0)), [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!((width.infinite, width.n(), width.range()), (1, 3, Some((-5.1, 9.9))));
    assert_eq!(profile.numeric()[1].bins(reference(1)), [0, 2, 0, 0, 1, 1]);
    let shutter = &profile.numeric()[2];
    assert_eq!((shutter.bins(reference(3)), shutter.nan), ([0, 2, 1].as_slice(), 1));
    let colour = &profile.categorical()[0];
    assert_eq!(
        (colour.domain.as_slice(), colour.unseen, colour.null),
        ([1, 0, 1].as_slice(), 1, 1)
    );
    assert_eq!(profile.confidence()[17..], [0, 4, 0]);
    assert_eq!(profile.latency().count(), 4);
}

#[test]
fn numbers_and_cells_are_counted_alike() {
    let baseline = baseline();
    let row = [0.5, 2.0, 1.0, 1.0];
    let mut profiler = Profiler::new(&baseline);
    profiler.observe(&row, Some(0), Some(0.9), Some(1_500));
    assert_eq!(profiler.rows(), 1);
    assert_eq!(profiler.close(), profile_of(&baseline, &[plain(row)]));
    assert_eq!(profiler.rows(), 0);
}

#[test]
fn the_reference_itself_falls_into_the_reference_bins() {
    let baseline = baseline();
    let mut profiler = Profiler::new(&baseline);
    for row in 0..500_u16 {
        let width = f64::from(row) / 50.0 - 5.0;
        #[expect(clippy::cast_possible_truncation, reason = "as the builder does")]
        let features = [width as f32, f32::from(row % 4), f32::from(row % 3), 1.0];
        profiler.observe(&features, None, None, None);
    }
    let profile = profiler.close();
    let references = baseline.features().iter().filter_map(Feature::numeric);
    for (counts, reference) in profile.numeric().iter().zip(references) {
        assert_eq!(counts.bins(reference), reference.counts_with_tails());
        let (mean, sd) = counts.mean_and_sd(reference).unwrap();
        assert!((mean - reference.mean).abs() < 1e-7 && (sd - reference.sd).abs() < 1e-6);
    }
}

#[test]
fn a_row_of_another_width_is_counted_as_misshapen() {
    let baseline = baseline();
    let mut profiler = Profiler::new(&baseline);
    profiler.observe(&[1.0; 3], Some(9), Some(1.5), None);
    let profile = profiler.close();
    assert_eq!((profile.rows(), profile.misshapen(), profile.numeric()[0].n()), (1, 1, 0));
    assert_eq!((profile.unseen_class(), profile.faulty_confidence()), (1, 1));
    assert_eq!(Profile::decode(&profile.encode().unwrap()).unwrap(), profile);
}

#[test]
fn profiles_of_two_baselines_do_not_add_up() {
    let mut builder = BaselineBuilder::new(vec![Column::numeric("a", "all")], vec![]);
    builder.push(&[1.0], None, None).unwrap();
    let (ours, theirs) = (baseline(), builder.build().unwrap());
    let mut profile = Profile::empty(&ours);
    let refused = profile.merge(&Profile::empty(&theirs)).unwrap_err();
    assert_eq!(refused, Mismatch::Baseline { given: ours.digest(), expected: theirs.digest() });
    assert!(profile.check(&theirs).is_err());
    assert_eq!(profile.check(&ours), Ok(()));
}

#[test]
fn a_profile_that_claims_our_baseline_with_another_shape_is_refused() {
    let baseline = baseline();
    let mut liar = profile_of(&baseline, &[plain([0.0; 4])]);
    liar.numeric.pop();
    let liar = Profile::decode(&liar.encode().unwrap()).unwrap();
    assert_eq!(liar.check(&baseline), Err(Mismatch::Shape));
    assert_eq!(Profile::empty(&baseline).merge(&liar), Err(Mismatch::Shape));

    // The shutter is constant and has one bin and two tails: a fourth count is in no bin.
    let mut liar = profile_of(&baseline, &[plain([0.0; 4])]);
    liar.numeric[2].bins.swap(0, 5);
    assert_eq!(liar.check(&baseline), Err(Mismatch::Shape));
}

#[test]
fn counts_that_no_rows_lead_to_are_refused() {
    let baseline = baseline();
    let honest = profile_of(&baseline, &[plain([0.0; 4]), plain([1.0; 4])]);
    let refused = |change: fn(&mut Profile)| {
        let mut profile = honest.clone();
        change(&mut profile);
        Profile::decode(&profile.encode().unwrap()).unwrap_err().to_string()
    };
    insta::assert_snapshot!(
        [
            refused(|profile| profile.rows = u64::MAX),
            refused(|profile| profile.misshapen = 3),
            refused(|profile| profile.numeric[0].bins[1] = u64::MAX),
            refused(|profile| profile.numeric[0].moments.range = None),
            refused(|profile| profile.numeric[0].moments.range = Some((f32::NAN, f32::NAN))),
            refused(|profile| profile.numeric[0].moments.squares = Wide(-1)),
            refused(|profile| profile.numeric[0].moments.sum = Wide(i128::MIN)),
            refused(|profile| profile.categorical[0].unseen = 1),
            refused(|profile| profile.categorical[0].domain = vec![0; CATEGORIES_MAX + 1]),
            refused(|profile| profile.classes = vec![2, 1]),
            refused(|profile| profile.confidence = vec![1; CONFIDENCE_BINS + 1]),
            refused(|profile| profile.numeric = vec![NumericCounts::default(); 2_001]),
        ]
        .join("\n"),
        @r"
    profile's counts of rows do not add up
    profile's counts of rows do not add up
    profile's counts of a numeric feature do not add up
    profile's counts of a numeric feature do not add up
    profile's counts of a numeric feature do not add up
    profile's counts of a numeric feature do not add up
    profile's counts of a numeric feature do not add up
    profile's counts of a categorical feature do not add up
    profile has more than 256 categories, or not the same number everywhere
    profile's counts of classes do not add up
    profile has more than 20 confidence bins, or not the same number everywhere
    profile has more than 2000 features, or not the same number everywhere
    "
    );
}

/// Bytes as version 1 wrote them. They must stay readable, and must be what is still written, for as long as `v` is 1.
const GOLDEN_BASELINE: &str = include_str!("golden/baseline-v1.hex");
const GOLDEN_PROFILE: &str = include_str!("golden/profile-v1.hex");

/// The same since there are finer edges and pairs.
const FINER_BASELINE: &str = include_str!("golden/baseline-v1-finer.hex");
const FINER_PROFILE: &str = include_str!("golden/profile-v1-finer.hex");

fn kept_baseline() -> Baseline {
    Baseline::decode(&crate::digest::decode_hex(GOLDEN_BASELINE.trim()).unwrap()).unwrap()
}

fn golden_profile(baseline: &Baseline) -> Profile {
    let mut odd = plain([f32::NAN, 2.0, 5.0, 1e9]);
    odd.row[1] = Cell::Null;
    profile_of(baseline, &[plain([0.25, 1.0, 2.0, 1.0]), plain([-7.5, 3.0, 1.0, 1.0]), odd])
}

#[test]
fn kept_bytes_are_read_and_written_as_ever() {
    let kept = kept_baseline();
    assert!(kept.pairs().is_empty() && kept.phases().is_empty());
    assert_eq!(crate::digest::encode_hex(&kept.encode().unwrap()), GOLDEN_BASELINE.trim());

    let bytes = crate::digest::decode_hex(GOLDEN_PROFILE.trim()).unwrap();
    let profile = Profile::decode(&bytes).unwrap();
    assert_eq!(profile, without_sketches(&golden_profile(&kept)));
    assert_eq!(crate::digest::encode_hex(&profile.encode().unwrap()), GOLDEN_PROFILE.trim());

    let finer = baseline();
    assert_eq!(crate::digest::encode_hex(&finer.encode().unwrap()), FINER_BASELINE.trim());
    let profile = without_sketches(&golden_profile(&finer));
    assert_eq!(crate::digest::encode_hex(&profile.encode().unwrap()), FINER_PROFILE.trim());
    let bytes = crate::digest::decode_hex(FINER_PROFILE.trim()).unwrap();
    assert_eq!(Profile::decode(&bytes).unwrap(), profile);
}

/// The same since unseen values are told from each other.
const DIFFERENT_PROFILE: &str = include_str!("golden/profile-v1-different.hex");

#[test]
fn kept_bytes_with_different_unseen_values_are_read_and_written_as_ever() {
    let profile = golden_profile(&baseline());
    assert_eq!(crate::digest::encode_hex(&profile.encode().unwrap()), DIFFERENT_PROFILE.trim());
    let bytes = crate::digest::decode_hex(DIFFERENT_PROFILE.trim()).unwrap();
    assert_eq!(Profile::decode(&bytes).unwrap(), profile);
}

#[test]
fn windows_of_older_agents_add_up_and_say_that_there_may_be_more() {
    let baseline = baseline();
    let unseen = |values: &[u64]| {
        let row = |hash: &u64| vec![Cell::Null, Cell::Null, Cell::Unseen(*hash), Cell::Null];
        let rows = values.iter().map(|hash| Inference {
            row: row(hash),
            class: None,
            confidence: None,
            latency_us: None,
        });
        profile_of(&baseline, &rows.collect::<Vec<_>>())
    };
    let known = plain([0.0, 0.0, 1.0, 0.0]);
    let (newer, known) = (unseen(&[1 << 60, 2 << 60, 2 << 60]), profile_of(&baseline, &[known]));
    let older = without_sketches(&unseen(&[5 << 60]));
    let cardinality =
        |profiles: &[Profile]| merged(&baseline, profiles).categorical[0].cardinality();

    let all_known = cardinality(&[newer.clone(), known.clone()]);
    assert!((all_known.values - 3.0).abs() < 0.1 && !all_known.is_at_least, "{all_known:?}");
    let some = cardinality(&[older, newer.clone(), known.clone()]);
    assert!((some.values - 3.0).abs() < 0.1 && some.is_at_least, "{some:?}");

    // Nobody can say which marks are those of others, too.
    let mut rest = merged(&baseline, &[newer.clone(), known.clone(), unseen(&[7 << 60])]);
    rest.take_out(&newer, &baseline).unwrap();
    assert_eq!(rest.categorical[0].unseen, 1);
    let left = rest.categorical[0].cardinality();
    assert!((left.values - 1.0).abs() < 0.1 && left.is_at_least, "{left:?}");
    let mut rest = merged(&baseline, &[newer.clone(), known.clone()]);
    rest.take_out(&known, &baseline).unwrap();
    assert_eq!(rest.categorical[0].different, newer.categorical[0].different);
}

/// Bytes as version 2 wrote them: features that are computed from several inputs, and a domain that was cut.
const JOINT_BASELINE: &str = include_str!("golden/baseline-v2.hex");
const JOINT_PROFILE: &str = include_str!("golden/profile-v2.hex");

#[test]
fn kept_bytes_of_version_two_are_read_and_written_as_ever() {
    let kinds = [Kind::Numeric, Kind::Numeric, Kind::Commonest(vec!["a".to_owned()])];
    let columns = ["x", "y", "word"].into_iter().zip(kinds).map(|(name, kind)| Column {
        name: name.to_owned(),
        group: "all".to_owned(),
        kind,
    });
    let mut builder = BaselineBuilder::new(columns.collect(), vec![]).with_joint();
    for row in 0..400_u32 {
        let whole = |value: u32| f32::from(u16::try_from(value).unwrap());
        let (x, y) = (whole(row * 7 % 101), whole(row * 13 % 89));
        let cells = [x, x + y, whole(row % 3)].map(Cell::Number);
        builder.push_cells(&cells, None, None).unwrap();
    }
    let made = builder.build().unwrap();
    let bytes = crate::digest::decode_hex(JOINT_BASELINE.trim()).unwrap();
    let baseline = Baseline::decode(&bytes).unwrap();
    assert_eq!(crate::digest::encode_hex(&baseline.encode().unwrap()), JOINT_BASELINE.trim());
    assert_eq!(made.features(), baseline.features(), "the same rows have the same bins");
    let mut older = bytes.clone();
    let version = older.windows(3).position(|bytes| bytes == [0x61, b'v', 2]).unwrap();
    older[version + 2] = 1;
    let refused = Baseline::decode(&older).unwrap_err();
    assert!(matches!(refused, InvalidBaseline::Version(1)), "{refused}");

    let mut profiler = Profiler::new(&baseline);
    for row in [[3.0, 50.0, 0.0], [100.0, 0.0, 1.0], [f32::NAN, 4.0, 9.0]] {
        profiler.observe(&row, None, None, None);
    }
    let profile = without_sketches(&profiler.close());
    assert_eq!(crate::digest::encode_hex(&profile.encode().unwrap()), JOINT_PROFILE.trim());
    let bytes = crate::digest::decode_hex(JOINT_PROFILE.trim()).unwrap();
    assert_eq!(Profile::decode(&bytes).unwrap(), profile);
}

#[test]
fn a_field_of_a_later_release_is_skipped_and_a_missing_one_has_its_default() {
    let bytes = crate::digest::decode_hex(GOLDEN_PROFILE.trim()).unwrap();
    let mut fields: std::collections::BTreeMap<String, serde_cbor::Value> =
        codec::decode("map", &bytes, bytes.len()).unwrap();
    fields.insert("entropy".to_owned(), serde_cbor::Value::Array(vec![]));
    let newer = codec::encode(&fields).unwrap();
    let expected = without_sketches(&golden_profile(&kept_baseline()));
    assert_eq!(Profile::decode(&newer).unwrap(), expected);

    let bytes = crate::digest::decode_hex(GOLDEN_BASELINE.trim()).unwrap();
    let mut of_baseline: std::collections::BTreeMap<String, serde_cbor::Value> =
        codec::decode("map", &bytes, bytes.len()).unwrap();
    of_baseline.insert("seasons".to_owned(), serde_cbor::Value::Array(vec![]));
    let newer = Baseline::decode(&codec::encode(&of_baseline).unwrap()).unwrap();
    assert_eq!(newer.features(), kept_baseline().features());
    assert_ne!(newer.digest(), kept_baseline().digest(), "other bytes are another baseline");

    fields.remove("latency");
    let older = codec::encode(&fields).unwrap();
    assert_eq!(Profile::decode(&older).unwrap().latency().count(), 0);
}

#[test]
fn rows_that_were_passed_over_are_told_and_change_no_count() {
    let baseline = kept_baseline();
    let mut profiler = Profiler::new(&baseline);
    profiler.skip(3, Some(900));
    profiler.skip(2, None);
    let some = profiler.close();
    let mut all = golden_profile(&baseline);
    let (rows, alone) = (all.rows(), all.clone());

    all.merge(&some).unwrap();

    assert_eq!((all.rows(), all.skipped(), some.rows()), (rows, 5, 0));
    let read = Profile::decode(&some.encode().unwrap()).unwrap();
    assert_eq!((read.skipped(), read.latency().count()), (5, 1));
    all.take_out(&some, &baseline).unwrap();
    assert_eq!((all.skipped(), all.latency()), (0, alone.latency()));
    assert!(all.take_out(&some, &baseline).is_err(), "it was taken out before");
}

#[test]
fn another_version_is_refused() {
    let bytes = crate::digest::decode_hex(GOLDEN_PROFILE.trim()).unwrap();
    let mut fields: std::collections::BTreeMap<String, serde_cbor::Value> =
        codec::decode("map", &bytes, bytes.len()).unwrap();
    fields.insert("v".to_owned(), serde_cbor::Value::Integer(2));
    let refused = Profile::decode(&codec::encode(&fields).unwrap()).unwrap_err();
    assert_eq!(refused.to_string(), "profile has version 2; this release reads version 1");
}

#[test]
fn a_baseline_that_contradicts_itself_is_refused() {
    let bytes = crate::digest::decode_hex(GOLDEN_BASELINE.trim()).unwrap();
    let refused = |change: fn(&mut Contents)| {
        let mut contents: Contents = codec::decode("baseline", &bytes, bytes.len()).unwrap();
        change(&mut contents);
        Baseline::decode(&codec::encode(&contents).unwrap()).unwrap_err().to_string()
    };
    insta::assert_snapshot!(
        [
            refused(|contents| contents.v = 3),
            refused(|contents| contents.rows = 0),
            refused(|contents| contents.features.clear()),
            refused(|contents| contents.inputs = 7),
            refused(|contents| contents.inputs = 3),
            refused(|contents| contents.features[1].name = "width".to_owned()),
            refused(|contents| contents.features[1].group = "g".repeat(81)),
            refused(|contents| width(contents).edges.swap(0, 1)),
            refused(|contents| width(contents).edges[0] = f32::NAN),
            refused(|contents| width(contents).edges[8] = 99.0),
            refused(|contents| width(contents).min = f32::NEG_INFINITY),
            refused(|contents| width(contents).counts[0] = u64::MAX),
            refused(|contents| width(contents).counts.truncate(9)),
            refused(|contents| width(contents).sd = f64::NAN),
            refused(|contents| colour(contents).unseen = 1),
            refused(|contents| colour(contents).domain.clear()),
            refused(|contents| contents.classes[0].count = 501),
            refused(|contents| contents.confidence = vec![0; 19]),
        ]
        .join("\n"),
        @r"
    baseline has version 3; this release reads versions 1 to 2
    baseline has 0 rows; 1 to 1099511627776 are allowed
    baseline has 0 features; 1 to 2000 are allowed
    baseline has 7 inputs; 1 to 6 are allowed
    feature `shutter`: it is neither an input nor a derived feature
    `width` is not a name of its own with 1 to 80 characters
    `gggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggg` is not a name of its own with 1 to 80 characters
    feature `width`: its edges are not up to 11 rising numbers inside its range
    feature `width`: its edges are not up to 11 rising numbers inside its range
    feature `width`: its edges are not up to 11 rising numbers inside its range
    feature `width`: its range is not finite and in order
    feature `width`: its counts do not add up to the rows
    feature `width`: it has not one count more than edges
    feature `width`: its mean or standard deviation is not a number
    feature `colour`: its counts do not add up to the rows
    baseline has 0 categories of a feature; 1 to 256 are allowed
    feature `prediction`: its counts are more than the rows
    confidence counts are not 20, or do not add up to at most the rows
    "
    );
}

fn width(contents: &mut Contents) -> &mut NumericReference {
    let Reference::Numeric(reference) = &mut contents.features[0].reference else { panic!() };
    reference
}

fn colour(contents: &mut Contents) -> &mut CategoricalReference {
    let reference = &mut contents.features[2].reference;
    let Reference::Categorical(reference) = reference else { panic!() };
    reference
}

fn cell() -> impl Strategy<Value = Cell> {
    prop_oneof![
        8 => (-9.0_f32..9.0).prop_map(Cell::Number),
        3 => (0_u8..5).prop_map(|value| Cell::Number(f32::from(value))),
        1 => any::<f32>().prop_map(Cell::Number),
        1 => Just(Cell::Number(-0.0)),
        1 => Just(Cell::Null),
        1 => Just(Cell::WrongType),
    ]
}

fn inferences() -> impl Strategy<Value = Vec<Inference>> {
    let row = prop_oneof![
        9 => prop::collection::vec(cell(), 4),
        1 => prop::collection::vec(cell(), 0..4),
    ];
    let outputs = (
        prop::option::of(0_usize..4),
        prop::option::of(-0.5_f32..1.5),
        prop::option::of(0_u64..1 << 40),
    );
    let inference = (row, outputs).prop_map(|(row, (class, confidence, latency_us))| Inference {
        row,
        class,
        confidence,
        latency_us,
    });
    prop::collection::vec(inference, 0..60)
}

#[test]
fn extremes_that_only_the_part_had_are_gone_with_it() {
    let baseline = baseline();
    let of = |width: f32| {
        let row = [width, 1.0, 0.0, 1.0].map(Cell::Number).to_vec();
        profile_of(&baseline, &[Inference { row, class: None, confidence: None, latency_us: None }])
    };
    let (low, middle, high) = (of(-1_000.0), of(0.5), of(2.0));
    let mut all = merged(&baseline, &[low.clone(), middle, high]);
    assert_eq!(all.numeric()[0].range(), Some((-1_000.0, 2.0)));

    all.take_out(&low, &baseline).unwrap();

    // The reference's smallest, and the largest as before: others had that.
    assert_eq!(all.numeric()[0].range(), Some((-5.0, 2.0)));
}

proptest! {
    #[test]
    fn any_partition_in_any_order_merges_to_the_bytes_of_the_whole(
        rows in inferences(),
        homes in prop::collection::vec(0_usize..5, 60),
        order in Just((0..5_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let baseline = baseline();
        let mut parts = vec![Vec::new(); 5];
        rows.iter().zip(homes).for_each(|(row, home)| parts[home].push(row.clone()));
        let profiles: Vec<_> =
            order.iter().map(|part| profile_of(&baseline, &parts[*part])).collect();

        let whole = profile_of(&baseline, &rows).encode().unwrap();

        prop_assert_eq!(merged(&baseline, &profiles).encode().unwrap(), whole.clone());
        let (left, right) = profiles.split_at(2);
        let grouped = [merged(&baseline, right), merged(&baseline, left)];
        prop_assert_eq!(merged(&baseline, &grouped).encode().unwrap(), whole);
    }

    #[test]
    fn a_part_taken_out_leaves_what_the_others_have_counted(
        others in inferences(),
        part in inferences(),
    ) {
        let baseline = baseline();
        let (others, part) = (profile_of(&baseline, &others), profile_of(&baseline, &part));
        let mut all = merged(&baseline, &[others.clone(), part.clone()]);

        all.take_out(&part, &baseline).unwrap();

        let read = Profile::decode(&all.encode().unwrap()).unwrap();
        prop_assert_eq!(&read, &all);
        let counts = |profile: &Profile| without_ranges(&without_sketches(profile));
        prop_assert_eq!(counts(&all), counts(&others));
    }

    #[test]
    fn more_than_there_is_is_not_taken_out(some in inferences(), more in inferences()) {
        prop_assume!(!more.is_empty());
        let baseline = baseline();
        let mut some = profile_of(&baseline, &some);
        let all = merged(&baseline, &[some.clone(), profile_of(&baseline, &more)]);
        let before = some.clone();

        prop_assert_eq!(some.take_out(&all, &baseline), Err(Mismatch::Part));

        prop_assert_eq!(some, before);
    }

    #[test]
    fn a_profile_survives_the_wire(rows in inferences()) {
        let baseline = baseline();
        let profile = profile_of(&baseline, &rows);
        let read = Profile::decode(&profile.encode().unwrap()).unwrap();
        prop_assert_eq!(&read, &profile);
        prop_assert_eq!(read.check(&baseline), Ok(()));
    }

    #[test]
    fn damaged_bytes_never_panic(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = crate::digest::decode_hex(GOLDEN_PROFILE.trim()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(profile) = Profile::decode(&bytes) {
            let mut all = Profile::empty(&baseline());
            let _ = all.merge(&profile);
            prop_assert!(all.rows() <= ROWS_MAX);
        }
    }
}

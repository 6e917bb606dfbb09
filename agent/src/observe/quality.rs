//! What is wrong with values, counted from the tensors of requests: missing, of another type, out of range, unseen, stuck.

use sealift_protocol::digest::Digest;
use sealift_protocol::id::Version;
use sealift_protocol::profile::{BaselineBuilder, Column, Kind, NumericCounts, Profile};
use sealift_protocol::tensor::Datatype;

use super::*;

/// Two columns of numbers, and two of texts: one that holds numbers, and one that holds words.
fn contract() -> IoContract {
    let json = br#"{"schema":1,
        "inputs":[{"name":"x","datatype":"FP32","shape":[-1,2],
                   "features":[{"name":"heat","group":"g"},{"name":"load","group":"g"}]},
                  {"name":"note","datatype":"BYTES","shape":[-1]},
                  {"name":"text","datatype":"BYTES","shape":[-1,2],
                   "features":[{"name":"amount","group":"g"},{"name":"country","group":"g"}]}],
        "outputs":[{"name":"y","datatype":"FP32","shape":[-1]}]}"#;
    IoContract::parse(json).unwrap()
}

fn baseline() -> Baseline {
    let words = ["JP", "FR"].map(str::to_owned).to_vec();
    let country = Column {
        name: "country".to_owned(),
        group: "g".to_owned(),
        kind: Kind::Categorical(words),
    };
    let numeric = ["heat", "load", "amount"].map(|name| Column::numeric(name, "g"));
    let columns = numeric.into_iter().chain([country]).collect();
    let mut builder = BaselineBuilder::new(columns, vec![]);
    for row in 0..100_u32 {
        let row = [row, row % 7, row % 5, row % 2].map(f64::from);
        builder.push(&row, None, None).unwrap();
    }
    builder.build().unwrap()
}

fn observer() -> Observer {
    let image = ImageRef { version: Version::parse("1").unwrap(), index: Digest::of(b"index") };
    let model = ModelName::parse("shop/fraud").unwrap();
    Observer::new(model, image, &contract(), Some(Arc::new(baseline())), UnixMillis(1_000))
}

/// The profile after one request of these rows.
fn seen(rows: &[([f32; 2], [&[u8]; 2])]) -> Profile {
    let observer = observer();
    let count = rows.len() as u64;
    let numbers: Vec<f32> = rows.iter().flat_map(|(numbers, _)| *numbers).collect();
    let texts = rows.iter().flat_map(|(_, texts)| *texts);
    let bytes = texts.flat_map(|text| {
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        length.into_iter().chain(text.iter().copied()).collect::<Vec<_>>()
    });
    let text = Tensor::new("text".to_owned(), Datatype::Bytes, vec![count, 2], bytes.collect());
    let x = Tensor::fp32("x", &[count, 2], &numbers).unwrap();
    let y = Tensor::fp32("y", &[count], &vec![0.0; rows.len()]).unwrap();
    let taken = Taken { whole: Duration::from_micros(500), engine: Duration::from_micros(300) };
    observer.answered((&[x, text.unwrap()], &[y]), Seen::default(), taken);
    let limits = WindowLimits { rows: 1, seconds: 60 };
    let window = observer.drain(UnixMillis(2_000), limits, true).unwrap();
    let profile = Profile::decode(&window.profile).unwrap();
    profile.check(&baseline()).unwrap();
    profile
}

#[test]
fn values_of_all_inputs_are_counted_in_the_order_of_the_contract() {
    let profile = seen(&[([50.0, 3.0], [b"2", b"JP"]), ([51.0, 4.0], [b" 3 ", b"FR"])]);
    assert_eq!((profile.rows(), profile.misshapen()), (2, 0));
    let found: Vec<_> = profile.numeric().iter().map(NumericCounts::range).collect();
    assert_eq!(found, [Some((50.0, 51.0)), Some((3.0, 4.0)), Some((2.0, 3.0))]);
    assert_eq!(profile.categorical()[0].domain, [1, 1]);
}

#[test]
fn missing_values_are_counted() {
    let profile = seen(&[([f32::NAN, 3.0], [b"", b"null"]), ([1.0, f32::INFINITY], [b"2", b"JP"])]);
    let [heat, load, amount] = profile.numeric() else { panic!() };
    assert_eq!((heat.nan, load.infinite, amount.null), (1, 1, 1));
    assert_eq!(profile.categorical()[0].null, 1);
}

#[test]
fn values_of_another_type_are_counted() {
    let profile = seen(&[([1.0, 3.0], [b"two", b"\xff\xfe"]), ([1.0, 3.0], [b"2", b"JP"])]);
    assert_eq!(profile.numeric()[2].wrong_type, 1);
    assert_eq!(profile.categorical()[0].wrong_type, 1);
}

#[test]
fn values_out_of_range_are_in_the_tails() {
    let profile = seen(&[([-1.0, 3.0], [b"2", b"JP"]), ([1_000.0, 3.0], [b"99", b"JP"])]);
    let baseline = baseline();
    let bins = |place: usize, feature: usize| {
        let reference = baseline.features()[feature].numeric().unwrap();
        profile.numeric()[place].bins(reference).to_vec()
    };
    let heat = bins(0, 0);
    assert_eq!((heat.first(), heat.last()), (Some(&1), Some(&1)));
    assert_eq!(bins(2, 2).last(), Some(&1));
}

#[test]
fn unseen_words_are_counted_and_so_is_how_many_there_are() {
    let rows = [&b"JP"[..], b"XX", b"YY", b"XX", b"jp"].map(|word| ([1.0, 2.0], [&b"1"[..], word]));
    let profile = seen(&rows);
    let country = &profile.categorical()[0];
    assert_eq!((country.domain.as_slice(), country.unseen), ([1, 0].as_slice(), 4));
    let cardinality = country.cardinality();
    assert!((cardinality.values - 4.0).abs() < 0.1 && !cardinality.is_at_least, "{cardinality:?}");
}

#[test]
fn a_stuck_sensor_has_a_range_of_nothing() {
    let profile = seen(&[([20.5, 1.0], [b"1", b"JP"]), ([20.5, 2.0], [b"2", b"FR"])]);
    assert_eq!(profile.numeric()[0].range(), Some((20.5, 20.5)));
}

#[test]
fn a_baseline_of_the_first_input_alone_is_still_observed() {
    let mut builder = BaselineBuilder::new(
        vec![Column::numeric("heat", "g"), Column::numeric("load", "g")],
        vec![],
    );
    builder.push(&[1.0, 2.0], None, None).unwrap();
    assert!(RowPlan::new(&contract(), &builder.build().unwrap()).is_some());

    let mut builder = BaselineBuilder::new(vec![Column::numeric("heat", "g")], vec![]);
    builder.push(&[1.0], None, None).unwrap();
    assert!(RowPlan::new(&contract(), &builder.build().unwrap()).is_none());
}

use std::sync::Arc;

use sealift_protocol::digest::Digest;
use sealift_protocol::id::{ModelName, UnixMillis, Version};
use sealift_protocol::picture::{FIGURES, columns, figure};
use sealift_protocol::profile::{BaselineBuilder, Column, Profile};
use sealift_protocol::report::ImageRef;
use sealift_protocol::tensor::Datatype;

use super::*;
use crate::observe::{Observer, Taken, WindowLimits};

const CONTRACT: &[u8] = br#"{"schema":1,
    "inputs":[{"name":"x","datatype":"UINT8","shape":[-1,2,2,3],"image":{"layout":"nhwc"}}],
    "outputs":[{"name":"label","datatype":"INT64","shape":[-1],"role":"class"}]}"#;

/// Seconds of so many requests of so many pictures: in each, how many were chosen.
fn chosen(eye: &mut Eye, seconds: u32, (requests, pictures): (u32, usize)) -> Vec<usize> {
    let begin = Instant::now();
    let in_second = |second: u32, request: u32| {
        begin + Duration::from_secs(u64::from(second)) + Duration::from_secs(1) * request / requests
    };
    let of_second = |second: u32| {
        (0..requests).map(|request| eye.choose(pictures, in_second(second, request)).len()).sum()
    };
    (0..seconds).map(of_second).collect()
}

#[test]
fn every_picture_is_looked_at_while_they_are_few() {
    assert_eq!(chosen(&mut Eye::default(), 3, (40, 1)), [40; 3]);
    assert_eq!(chosen(&mut Eye::default(), 2, (1, 40)), [40; 2]);
}

#[test]
fn many_pictures_cost_what_the_budget_says_and_chance_chooses_them() {
    for of_second in [(2_000, 1), (100, 20)] {
        let chosen = chosen(&mut Eye::default(), 30, of_second);
        assert!(chosen.iter().all(|count| *count <= 200), "{chosen:?}");
        let all = chosen[1..].iter().sum::<usize>();
        assert!((44 * 29..56 * 29).contains(&all), "{all} in 29 seconds");
    }
}

#[test]
fn no_place_in_a_request_is_looked_at_more_often_than_another() {
    let (mut eye, begin) = (Eye::default(), Instant::now());
    let mut places = [0_u32; 480];
    for request in 0..1_000 {
        let now = begin + Duration::from_secs(10) * request;
        let chosen = eye.choose(places.len(), now);
        assert!(chosen.len() <= LOOKS_A_REQUEST_MAX && chosen.is_sorted());
        for place in chosen {
            places[usize::from(place)] += 1;
        }
    }
    let of_part = |part: &[u32]| part.iter().sum::<u32>();
    let (first, last) = (of_part(&places[..160]), of_part(&places[320..]));
    assert!(first > 14_000 && first.abs_diff(last) < first / 20, "{first} {last}");
}

fn observer(columns: &[Column]) -> Observer {
    let mut builder = BaselineBuilder::new(columns.to_vec(), vec!["a".to_owned()]);
    for row in 0..100_u32 {
        builder.push(&vec![f64::from(row); columns.len()], Some("a"), None).unwrap();
    }
    let image = ImageRef { version: Version::parse("1").unwrap(), index: Digest::of(b"index") };
    let contract = IoContract::parse(CONTRACT).unwrap();
    let model = ModelName::parse("vision/digits").unwrap();
    let baseline = builder.build().unwrap();
    Observer::new(model, image, &contract, Some(Arc::new(baseline)), UnixMillis(0))
}

/// Three pictures, and what was seen of some of them.
fn answer(observer: &Observer, seen: Seen<'_>) {
    let x = Tensor::new("x".to_owned(), Datatype::Uint8, vec![3, 2, 2, 3], vec![7; 36]).unwrap();
    let label = Tensor::new("label".to_owned(), Datatype::Int64, vec![3], vec![0; 24]).unwrap();
    let engine = Duration::from_micros(300);
    observer.answered((&[x], &[label]), seen, Taken { whole: engine, engine });
}

fn window(observer: &Observer) -> Profile {
    let limits = WindowLimits { rows: 1, seconds: 60 };
    let window = observer.drain(UnixMillis(1_000), limits, true).unwrap();
    Profile::decode(&window.profile).unwrap()
}

#[test]
fn what_was_seen_is_counted_and_what_was_passed_over_is_told() {
    let observer = observer(&columns());
    let figures = |brightness: f32| {
        let mut figures = [5.0; FIGURES];
        figures[BRIGHTNESS] = brightness;
        figures
    };
    let looked = [figures(10.0), figures(30.0)];
    answer(&observer, Seen { places: &[0, 2], figures: &looked });
    answer(&observer, Seen::default());

    let profile = window(&observer);

    assert_eq!((profile.rows(), profile.skipped(), profile.misshapen()), (2, 4, 0));
    let brightness = figure("image.brightness").unwrap();
    assert_eq!(profile.numeric()[brightness].range(), Some((10.0, 30.0)));
    assert_eq!(profile.latency().count(), 2, "every request is timed");
    assert_eq!(observer.looks(), Some(Looks { looked_at: 2, passed_over: 4 }));
}

#[test]
fn a_worker_that_tells_less_than_was_asked_leaves_rows_uncounted() {
    let observer = observer(&columns());
    answer(&observer, Seen { places: &[0, 1, 2], figures: &[[1.0; FIGURES]] });
    let profile = window(&observer);
    assert_eq!((profile.rows(), profile.skipped()), (1, 2));
}

#[test]
fn a_baseline_may_have_some_of_the_figures_in_any_order() {
    let some = ["image.noise", "image.brightness"].map(|name| Column::numeric(name, "image"));
    let observer = observer(&some);
    let mut figures = [0.0; FIGURES];
    figures[figure("image.noise").unwrap()] = 3.0;
    figures[BRIGHTNESS] = 80.0;
    answer(&observer, Seen { places: &[1], figures: &[figures] });
    let profile = window(&observer);
    let ranges: Vec<_> = profile.numeric().iter().map(|counts| counts.range().unwrap().0).collect();
    assert_eq!(ranges, [3.0, 80.0]);
}

#[test]
fn without_figures_in_the_baseline_nothing_is_looked_at() {
    let observer = observer(&[Column::numeric("heat", "g")]);
    let x = Tensor::new("x".to_owned(), Datatype::Uint8, vec![3, 2, 2, 3], vec![7; 36]).unwrap();
    assert!(observer.choose(std::slice::from_ref(&x), Instant::now()).is_empty());
    assert_eq!(observer.looks(), None);
    let looking = self::observer(&columns());
    assert_eq!(looking.choose(&[x], Instant::now()), [0, 1, 2]);
}

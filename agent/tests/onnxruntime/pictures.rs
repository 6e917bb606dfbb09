//! What a device counts of the pictures that it is sent, through a real worker.

use axum::http::StatusCode;
use sealift_agent::observe::WindowLimits;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::picture;
use sealift_protocol::profile::{Baseline, BaselineBuilder, Profile};
use serde_json::json;

use crate::fixtures::{Slot, ask, board, pixels, png_of, post_body, rows};

const LIMITS: WindowLimits = WindowLimits { rows: 1, seconds: 60 };

/// So many at once are all looked at.
const A_REQUEST: usize = 40;

/// Pictures of digits that no model has seen.
fn files() -> Vec<Vec<u8>> {
    let rows = rows("holdout.csv", 1).into_iter().take(160);
    let digit = |row: Vec<f32>| png_of(&row.into_iter().map(f64::from).collect::<Vec<_>>());
    rows.map(digit).collect()
}

/// The baseline of these files, as a publisher makes it.
fn baseline(files: &[Vec<u8>]) -> Baseline {
    let mut builder = BaselineBuilder::new(picture::columns(), vec![]).with_joint();
    for file in files {
        let figures = picture::decode(file).unwrap().figures();
        builder.push(&figures.map(f64::from), None, None).unwrap();
    }
    builder.build().unwrap()
}

fn asking(files: &[Vec<u8>]) -> axum::http::Request<axum::body::Body> {
    use base64::Engine as _;
    let text = |file: &Vec<u8>| base64::engine::general_purpose::STANDARD.encode(file);
    let data: Vec<_> = files.iter().map(text).collect();
    let input = json!({"name": "image", "datatype": "BYTES", "shape": [data.len()], "data": data});
    post_body("application/json", json!({"inputs": [input]}).to_string().into_bytes())
}

#[tokio::test]
async fn a_device_that_sees_the_reference_counts_the_reference() {
    let files = files();
    let baseline = baseline(&files);
    let live = Slot::digits_of_images().live("1", Some(baseline.clone())).await;
    let (switchboard, router) = board(&live);

    for some in files.chunks(A_REQUEST) {
        assert_eq!(ask(&router, asking(some)).await.status(), StatusCode::OK);
    }

    let windows = switchboard.drain_windows(UnixMillis(1_000), LIMITS, true);
    let profile = Profile::decode(&windows[0].profile).unwrap();
    profile.check(&baseline).unwrap();
    assert_eq!((profile.rows(), profile.skipped(), profile.misshapen()), (160, 0, 0));
    assert_eq!(profile.latency().count(), 4);
    let features = baseline.features().iter().take(baseline.inputs());
    for (feature, counts) in features.zip(profile.numeric()) {
        let reference = feature.numeric().unwrap();
        assert_eq!(counts.bins(reference), reference.counts_with_tails(), "{}", feature.name);
        assert_eq!(counts.range(), Some((reference.min, reference.max)), "{}", feature.name);
    }
}

#[tokio::test]
async fn a_request_with_a_bad_picture_is_refused_whole_and_counted_nowhere() {
    let files = files();
    let live = Slot::digits_of_images().live("1", Some(baseline(&files))).await;
    let (switchboard, router) = board(&live);
    let bad = [files[0].clone(), files[1][..40].to_vec()];

    assert_eq!(ask(&router, asking(&bad)).await.status(), StatusCode::BAD_REQUEST);
    assert!(switchboard.drain_windows(UnixMillis(1_000), LIMITS, true).is_empty());

    let alone = post_body("image/png", png_of(&pixels().numbers().unwrap()));
    assert_eq!(ask(&router, alone).await.status(), StatusCode::OK);
    let windows = switchboard.drain_windows(UnixMillis(2_000), LIMITS, true);
    assert_eq!(Profile::decode(&windows[0].profile).unwrap().rows(), 1);
}

#[tokio::test]
async fn pictures_that_come_too_fast_are_answered_and_passed_over_by_chance() {
    let files = files();
    let live = Slot::digits_of_images().live("1", Some(baseline(&files))).await;
    let (switchboard, router) = board(&live);

    for _ in 0..4 {
        assert_eq!(ask(&router, asking(&files)).await.status(), StatusCode::OK);
    }

    let windows = switchboard.drain_windows(UnixMillis(1_000), LIMITS, true);
    let profile = Profile::decode(&windows[0].profile).unwrap();
    assert_eq!(profile.rows() + profile.skipped(), 640);
    assert!((60..=256).contains(&profile.rows()), "{} were looked at", profile.rows());
}

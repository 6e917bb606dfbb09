//! Pictures that applications send as numbers are counted as the baseline of the same pictures has them.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use sealift_protocol::id::UnixMillis;
use sealift_protocol::picture::{self, Pixels};
use sealift_protocol::profile::{Baseline, BaselineBuilder, Profile};
use serde_json::json;

use super::endpoint::Endpoint;
use super::testing::{get, live_watched, send};
use super::{Switchboard, http};
use crate::observe::WindowLimits;

const SIDE: usize = 12;

/// Pictures of 12 x 12 in this datatype and layout.
fn contract(datatype: &str, layout: &str) -> String {
    let shape = if layout == "nhwc" { [-1, 12, 12, 3] } else { [-1, 3, 12, 12] };
    json!({"schema": 1,
        "inputs": [{"name": "x", "datatype": datatype, "shape": shape, "image": {"layout": layout}}],
        "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1], "role": "class"}]})
    .to_string()
}

fn pictures() -> Vec<Pixels> {
    let of = |number: usize| {
        let byte = |place: usize| {
            u8::try_from((place * place * (number + 3) + place * 7 + number * 31) % 256).unwrap()
        };
        let data = (0..SIDE * SIDE * 3).map(byte).collect();
        Pixels { width: SIDE, height: SIDE, channels: 3, data }
    };
    (0..60).map(of).collect()
}

fn baseline() -> Baseline {
    let mut builder = BaselineBuilder::new(picture::columns(), vec![]);
    for picture in pictures() {
        builder.push(&picture.figures().map(f64::from), None, None).unwrap();
    }
    builder.build().unwrap()
}

/// The elements of pictures, in the order that the layout wants.
fn elements(pictures: &[Pixels], layout: &str) -> Vec<u8> {
    let of = |picture: &Pixels| -> Vec<u8> {
        if layout == "nhwc" {
            return picture.data.clone();
        }
        let channel = |channel: usize| picture.data.iter().skip(channel).step_by(3).copied();
        (0..3).flat_map(channel).collect()
    };
    pictures.iter().flat_map(of).collect()
}

fn request(pictures: &[Pixels], datatype: &str, layout: &str) -> Request<Body> {
    let count = pictures.len();
    let shape = if layout == "nhwc" { [count, 12, 12, 3] } else { [count, 3, 12, 12] };
    let bytes = elements(pictures, layout);
    let bytes: Vec<u8> = if datatype == "UINT8" {
        bytes
    } else {
        bytes.iter().flat_map(|pixel| (f32::from(*pixel) / 255.0).to_le_bytes()).collect()
    };
    let input = json!({"name": "x", "datatype": datatype, "shape": shape,
        "parameters": {"binary_data_size": bytes.len()}});
    let head = json!({"inputs": [input]}).to_string();
    Request::post("/v2/models/vision/digits/infer")
        .header("Inference-Header-Content-Length", head.len())
        .body(Body::from([head.as_bytes(), &bytes].concat()))
        .unwrap()
}

async fn device(contract: &str) -> (Switchboard, Router) {
    let board = Switchboard::new();
    let live = live_watched(contract, ("vision/digits", "3"), Some(baseline())).await;
    board.swap(&live.model().clone(), Some(live));
    (board.clone(), http::router(Endpoint::new(board)))
}

#[tokio::test]
async fn a_device_that_sees_the_reference_as_numbers_counts_the_reference() {
    for (datatype, layout) in
        [("UINT8", "nhwc"), ("UINT8", "nchw"), ("FP32", "nchw"), ("FP32", "nhwc")]
    {
        let (board, router) = device(&contract(datatype, layout)).await;
        for some in pictures().chunks(30) {
            let told = send(&router, request(some, datatype, layout)).await;
            assert_eq!(told.status, StatusCode::OK, "{told:?}");
        }

        let limits = WindowLimits { rows: 1, seconds: 60 };
        let windows = board.drain_windows(UnixMillis(1_000), limits, true);
        let profile = Profile::decode(&windows[0].profile).unwrap();
        assert_eq!((profile.rows(), profile.skipped()), (60, 0), "{datatype} {layout}");
        for (feature, counts) in baseline().features().iter().zip(profile.numeric()) {
            let reference = feature.numeric().unwrap();
            assert_eq!(counts.bins(reference), reference.counts_with_tails(), "{}", feature.name);
        }
        let metrics = String::from_utf8(get(&router, "/metrics").await.body.to_vec()).unwrap();
        let line = "sealift_model_pictures_total{model=\"vision/digits\",version=\"3\",result=\"looked-at\"} 60";
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn a_test_inference_is_not_looked_at() {
    let (board, _router) = device(&contract("UINT8", "nhwc")).await;
    let body = request(&pictures()[..1], "UINT8", "nhwc");
    let header_bytes = body.headers()["Inference-Header-Content-Length"].to_str().unwrap();
    let header_bytes = Some(header_bytes.parse().unwrap());
    let body = axum::body::to_bytes(body.into_body(), usize::MAX).await.unwrap();
    let (content_type, body) = ("application/octet-stream", body.as_ref());
    let probe =
        super::Probe { model: "vision/digits", version: None, content_type, header_bytes, body };

    super::probe(&board, probe).await.unwrap();

    let limits = WindowLimits { rows: 1, seconds: 60 };
    assert!(board.drain_windows(UnixMillis(1_000), limits, true).is_empty());
}

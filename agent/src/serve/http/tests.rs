//! The protocol as an application sees it, on an engine that needs no library.

use axum::body::{Body, Bytes};
use axum::http::Request;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::ModelName;

use super::*;
use crate::serve::body;
use crate::serve::endpoint::BODY_BYTES_MAX;
use crate::serve::testing::{REQUEST, device, get, live_of, post, send};

async fn digits() -> Router {
    device(&["vision/digits"]).await.1
}

#[tokio::test]
async fn server_and_model_describe_themselves() {
    let router = digits().await;

    let server = get(&router, "/v2").await.json();
    let model = get(&router, "/v2/models/vision/digits").await.json();

    assert_eq!(server["name"], "sealift");
    assert_eq!(server["extensions"][0], "binary_tensor_data");
    assert_eq!((&model["name"], &model["versions"]), (&json!("vision/digits"), &json!(["3"])));
    let input = json!({ "name": "x", "datatype": "FP32", "shape": [-1, 2] });
    assert_eq!(model["inputs"], json!([input]));
    assert_eq!(model["outputs"][1]["name"], "p");
    let config = get(&router, "/v2/models/digits/config").await.json();
    assert_eq!(config["input"][0]["data_type"], "TYPE_FP32");
}

#[tokio::test]
async fn a_device_without_a_model_is_live_and_not_ready() {
    let (board, router) = device(&[]).await;
    assert_eq!(get(&router, "/v2/health/live").await.status, 200);
    assert_eq!(get(&router, "/healthz").await.status, 200);
    assert_eq!(get(&router, "/v2/health/ready").await.status, 503);

    let live = live_of("vision/digits", "1").await;
    board.swap(&live.model().clone(), Some(live));

    assert_eq!(get(&router, "/v2/health/ready").await.json(), json!({ "ready": true }));
    assert_eq!(get(&router, "/v2/models/digits/ready").await.status, 200);
}

#[tokio::test]
async fn a_model_is_reached_by_every_form_of_its_name() {
    let router = digits().await;
    for name in ["vision/digits", "vision%2Fdigits", "digits"] {
        for version in ["", "/versions/3"] {
            let told = post(&router, &format!("/v2/models/{name}{version}/infer"), REQUEST).await;
            assert_eq!(told.status, 200, "{name}{version}");
            let answer = told.json();
            assert_eq!(answer["model_name"], "vision/digits");
            assert_eq!((&answer["model_version"], &answer["id"]), (&json!("3"), &json!("a1")));
            let image = Digest::of(b"3").to_string();
            assert_eq!(told.headers["x-sealift-image"].to_str().unwrap(), image);
        }
    }
}

#[tokio::test]
async fn a_short_name_that_two_teams_use_is_nobodys() {
    let (_, router) = device(&["vision/digits", "mail/digits"]).await;
    let told = post(&router, "/v2/models/digits/infer", REQUEST).await;
    let expected = "model `digits` is not served; served: mail/digits, vision/digits";
    assert_eq!(told.error(), (404, expected.to_owned()));
    assert_eq!(post(&router, "/v2/models/mail/digits/infer", REQUEST).await.status, 200);
}

#[tokio::test]
async fn what_is_not_served_is_named_with_what_is() {
    let router = digits().await;
    let infer = async |path: &str| post(&router, path, REQUEST).await.error();

    let version = infer("/v2/models/vision/digits/versions/9/infer").await;
    assert_eq!(version, (404, "version 9 of vision/digits is not served; 3 is".to_owned()));
    let model = infer("/v2/models/letters/infer").await;
    assert_eq!(model, (404, "model `letters` is not served; served: vision/digits".to_owned()));
    let path = (404, "nothing is served at this path".to_owned());
    // POST is for inference alone, whatever the path would mean to GET.
    assert_eq!(infer("/v2/models/vision/digits").await, path);
    assert_eq!(infer("/v2/models/a/b/c/infer").await, path);
    assert_eq!(infer("/v3").await, path);
    assert_eq!(get(&router, "/v2/models//").await.error(), path);
}

#[tokio::test]
async fn bad_inputs_are_told_names_expected_and_given() {
    let router = digits().await;
    let input = |fields: &str| format!(r#"{{"inputs":[{{{fields}}}]}}"#);
    let cases = [
        (
            input(r#""name":"y","datatype":"FP32","shape":[1,2],"data":[1,2]"#),
            "unexpected input `y`; expected `x`",
        ),
        (r#"{"inputs":[]}"#.to_owned(), "input `x` is missing; expected `x`"),
        (
            input(r#""name":"x","datatype":"FP64","shape":[1,2],"data":[1,2]"#),
            "input `x`: expected FP32, FP64 given",
        ),
        (
            input(r#""name":"x","datatype":"FP32","shape":[2],"data":[1,2]"#),
            "input `x`: expected shape [-1, 2], [2] given",
        ),
        (
            input(r#""name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]"#),
            "input `x`: expected shape [-1, 2], [1, 3] given",
        ),
        (
            input(r#""name":"x","datatype":"FP32","shape":[1,2],"data":[1,2,3]"#),
            "tensor `x`: FP32 [1, 2] needs 8 bytes, 12 given",
        ),
        (
            input(r#""name":"x","datatype":"FP32","shape":[1,2],"data":[1,"two"]"#),
            "input `x`: `\"two\"` is not a FP32",
        ),
        (
            REQUEST.replace("}]}", r#"}],"outputs":[{"name":"q"}]}"#),
            "unexpected output `q`; expected `label`, `p`",
        ),
    ];
    for (body, expected) in cases {
        let told = post(&router, "/v2/models/digits/infer", &body).await;
        assert_eq!(told.error(), (400, expected.to_owned()), "{body}");
    }
    let garbage = post(&router, "/v2/models/digits/infer", "{").await.error();
    assert!(garbage.0 == 400 && garbage.1.starts_with("not an inference request:"), "{garbage:?}");
}

#[tokio::test]
async fn a_header_length_that_is_none_is_refused() {
    let router = digits().await;
    let request = Request::post("/v2/models/digits/infer")
        .header("Inference-Header-Content-Length", "ten")
        .body(Body::from(REQUEST))
        .unwrap();
    let expected = "header Inference-Header-Content-Length: ten is not a length";
    assert_eq!(send(&router, request).await.error(), (400, expected.to_owned()));
}

#[tokio::test]
async fn outputs_come_as_asked_for() {
    let router = digits().await;
    let asking = |rest: &str| REQUEST.replace("}]}", &format!("}}],{rest}}}"));

    let one = asking(r#""outputs":[{"name":"p"}]"#);
    let one = post(&router, "/v2/models/digits/infer", &one).await;
    let mixed = r#""parameters":{"binary_data_output":true},
        "outputs":[{"name":"p"},{"name":"label","parameters":{"binary_data":false}}]"#;
    let mixed = post(&router, "/v2/models/digits/infer", &asking(mixed)).await;

    assert_eq!(one.headers["content-type"], "application/json");
    let one = one.json();
    assert_eq!(one["outputs"].as_array().unwrap().len(), 1);
    assert_eq!(mixed.headers["content-type"], "application/octet-stream");
    let head_bytes = mixed.headers["inference-header-content-length"].to_str().unwrap();
    let (head, binary) = mixed.body.split_at(head_bytes.parse().unwrap());
    let head: Value = serde_json::from_slice(head).unwrap();
    assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], 12);
    assert_eq!(head["outputs"][1]["data"].as_array().unwrap().len(), 1);
    let numbers = one["outputs"][0]["data"].as_array().unwrap().iter();
    let numbers =
        numbers.flat_map(|number| number.to_string().parse::<f32>().unwrap().to_le_bytes());
    assert_eq!(numbers.collect::<Vec<_>>(), binary);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_its_length_and_by_its_bytes() {
    let router = digits().await;
    let told = |error: &(u16, String)| (error.0, error.1.contains("33554432 bytes"));

    let announced = Body::from(vec![b' '; BODY_BYTES_MAX + 1]);
    let announced = Request::post("/v2/models/digits/infer").body(announced).unwrap();
    assert_eq!(told(&send(&router, announced).await.error()), (413, true));

    let chunk = Bytes::from(vec![b' '; 1 << 20]);
    let chunks = std::iter::repeat_n(chunk, 33).map(Ok::<_, std::io::Error>);
    let chunks = futures_util::stream::iter(chunks);
    let streamed =
        Request::post("/v2/models/digits/infer").body(Body::from_stream(chunks)).unwrap();
    assert_eq!(told(&send(&router, streamed).await.error()), (413, true));
}

#[tokio::test]
async fn more_requests_than_can_be_held_are_told_to_come_back() {
    let (board, _) = device(&["vision/digits"]).await;
    let endpoint = Endpoint::new(board);
    let large = BODY_BYTES_MAX as u64;

    let held: Vec<_> = (0..8).map(|_| endpoint.admit(large).unwrap()).collect();
    let refused = endpoint.admit(0).unwrap_err().into_response();
    drop(held);

    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    let small: Vec<_> = (0..64).map(|_| endpoint.admit(0).unwrap()).collect();
    assert!(endpoint.admit(0).is_err());
    drop(small);
    let held: Vec<_> = (0..7).map(|_| endpoint.admit(large).unwrap()).collect();
    let small: Vec<_> = (0..8).map(|_| endpoint.admit(0).unwrap()).collect();
    assert!(endpoint.admit(0).is_err());
    drop((held, small));
}

#[tokio::test]
async fn a_body_that_does_not_announce_its_length_holds_what_has_come_of_it() {
    let (board, _) = device(&["vision/digits"]).await;
    let endpoint = Endpoint::new(board);
    let read = async |pieces: usize, bytes: usize| {
        let pieces = std::iter::repeat_n(vec![b' '; bytes], pieces).map(Ok::<_, std::io::Error>);
        body::read(&endpoint, Body::from_stream(futures_util::stream::iter(pieces))).await
    };
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(read(2, 10).await.unwrap());
    }
    assert!(matches!(read(2, 10).await, Err(Refusal::Busy)));
    held.truncate(8);
    for _ in 0..7 {
        held.push(read(32, 1 << 20).await.unwrap());
    }
    assert!(matches!(read(1, 10).await, Err(Refusal::Busy)));
    held.pop();
    held.push(read(1, 10).await.unwrap());
    assert!(matches!(read(32, 1 << 20).await, Err(Refusal::Busy)), "seven parts are left");
    drop(held);
    let all: Vec<_> = (0..64).map(|_| endpoint.admit(0).unwrap()).collect();
    assert_eq!(all.len(), 64, "what was refused holds nothing");
}

#[tokio::test]
async fn the_repository_is_listed_and_managed_by_the_fleet() {
    let router = digits().await;
    let index = post(&router, "/v2/repository/index", "{}").await.json();
    let entry = json!({ "name": "vision/digits", "version": "3", "state": "READY", "reason": "" });
    assert_eq!(index, json!([entry]));
    for path in ["digits/load", "vision/digits/unload", "vision%2Fdigits/load"] {
        let told = post(&router, &format!("/v2/repository/models/{path}"), "").await.error();
        assert_eq!(told, (403, "models are managed by the fleet".to_owned()));
    }
}

#[tokio::test]
async fn requests_are_counted_and_shown() {
    let (board, router) = device(&["vision/digits"]).await;
    for _ in 0..3 {
        post(&router, "/v2/models/digits/infer", REQUEST).await;
    }
    post(&router, "/v2/models/digits/infer", "{").await;

    let metrics = String::from_utf8(get(&router, "/metrics").await.body.to_vec()).unwrap();
    let stats = get(&router, "/v2/models/digits/stats").await.json();

    for line in [
        "sealift_requests_total 3",
        "sealift_request_errors_total 0",
        "sealift_model_requests_total{model=\"vision/digits\",version=\"3\"} 3",
        "sealift_model_provider_nodes{model=\"vision/digits\",version=\"3\",provider=\"FakeExecutionProvider\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert_eq!(stats["model_stats"][0]["inference_count"], 3);
    let counters = board.model_counters(&ModelName::parse("vision/digits").unwrap()).unwrap();
    assert_eq!((counters.requests, counters.errors), (3, 0));
}

#[test]
fn paths_are_models_versions_and_wishes() {
    let path = |model: &str, version: Option<&str>, wish| {
        Some(ModelPath { model: model.to_owned(), version: version.map(str::to_owned), wish })
    };
    let cases = [
        ("a", path("a", None, Wish::Metadata)),
        ("a/b", path("a/b", None, Wish::Metadata)),
        ("a/versions/1", path("a", Some("1"), Wish::Metadata)),
        ("a/b/versions/1/ready", path("a/b", Some("1"), Wish::Ready)),
        ("a/versions/infer", path("a/versions", None, Wish::Infer)),
        ("a/b/c", None),
        ("/a", None),
        ("infer", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(ModelPath::parse(text), expected, "{text}");
    }
}

//! Scoring as the clients of the three know it.

use axum::http::Request;
use serde_json::Value;

use super::*;
use crate::serve::testing::{REQUEST, Told, device, device_with, get, post, send};

const FRAUD: &str = r#"{"schema":1,
    "inputs":[{"name":"amount","datatype":"FP32","shape":[-1,1]},{"name":"country","datatype":"BYTES","shape":[-1,1]},
              {"name":"hours","datatype":"INT64","shape":[-1,2],"numbers":"finite"}],
    "outputs":[{"name":"risk","datatype":"FP32","shape":[-1],"role":"value"}]}"#;

const FEATURES: &str = r#"{"schema":1,
    "inputs":[{"name":"x","datatype":"FP32","shape":[-1,2],"features":[{"name":"a","group":"g"},{"name":"b","group":"g"}]}],
    "outputs":[{"name":"y","datatype":"FP32","shape":[-1,2]}]}"#;

pub(in crate::serve) const CATS: &str = r#"{"schema":1,
    "inputs":[{"name":"image","datatype":"BYTES","shape":[-1]}],
    "outputs":[{"name":"y","datatype":"FP32","shape":[-1,2],"role":"probabilities"}],
    "processing":{"graph":{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,3,8,8]}],
        "outputs":[{"name":"y","datatype":"FP32","shape":[-1,2]}]},
        "before":[{"image":{"from":"image","to":"x","width":8,"height":8}}]}}"#;

/// The body is the image where the contract says image; a model of tensors says what it takes instead.
#[tokio::test]
async fn an_image_is_a_request_of_its_own() {
    let (_, cats) = device_with(CATS).await;
    let (_, rows) = device_with(FEATURES).await;
    for (kind, path) in [
        ("image/png", "/v2/models/digits/infer"),
        ("image/jpeg; q=1", "/v2/models/digits/infer"),
        ("image/png", "/invocations"),
        ("application/x-image", "/invocations"),
    ] {
        let request = || {
            let request = Request::post(path).header("content-type", kind);
            request.body(Body::from(b"\x89PNG\xff".to_vec())).unwrap()
        };
        let told = send(&cats, request()).await;
        assert_eq!(told.status, 200, "{told:?}");
        let refused = send(&rows, request()).await;
        assert_eq!(refused.status, 415);
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(text.contains("takes tensors, not an image: `x` FP32 [-1, 2]"), "{text}");
    }
}

async fn post_as(router: &axum::Router, content_type: &str, body: &str, accept: &str) -> Told {
    let request = Request::post("/invocations")
        .header("content-type", content_type)
        .header("accept", accept)
        .body(Body::from(body.to_owned()));
    send(router, request.unwrap()).await
}

async fn predictions(router: &axum::Router, body: &str) -> Value {
    let told = post(router, "/invocations", body).await;
    assert_eq!(told.status, 200, "{body}: {told:?}");
    told.json()["predictions"].take()
}

async fn message(router: &axum::Router, path: &str, body: &str) -> (u16, String) {
    let told = post(router, path, body).await;
    (told.status.as_u16(), told.json()["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn every_form_of_the_same_rows_gets_the_same_predictions() {
    let (_, router) = device_with(FEATURES).await;
    let forms = [
        r#"{"instances": [[1, 2], [3, null]]}"#,
        r#"{"inputs": [[1, 2], [3, null]]}"#,
        r#"{"inputs": {"x": [[1, 2], [3, null]]}}"#,
        r#"{"instances": [{"x": [1, 2]}, {"x": [3, null]}]}"#,
        r#"{"instances": [{"b": 2, "a": 1}, {"a": 3}]}"#,
        r#"{"dataframe_records": [{"b": 2, "a": 1}, {"a": 3, "b": null}]}"#,
        r#"{"dataframe_split": {"columns": ["b", "a"], "index": [0, 1], "data": [[2, 1], [null, 3]]}}"#,
        r#"{"dataframe_split": {"columns": [0, 1], "data": [[1, 2], [3, null]]}}"#,
        r#"{"dataframe_split": {"data": [[1, 2], [3, null]]}, "params": {"ignored": 1}}"#,
        r#"{"input_data": {"columns": ["a", "b"], "index": [0, 1], "data": [[1, 2], [3, null]]}}"#,
        r#"{"data": [[1, 2], [3, null]]}"#,
        "[[1, 2], [3, null]]",
    ];
    let first = predictions(&router, forms[0]).await;
    assert_eq!(first.as_array().unwrap().len(), 2);
    for form in forms {
        assert_eq!(predictions(&router, form).await, first, "{form}");
    }
    for csv in ["1,2\n3,\n", "b,a\r\n2,1\r\n,3\r\n", "\"1\", 2\n3,"] {
        let told = post_as(&router, "text/csv; charset=utf-8", csv, "*/*").await;
        assert_eq!(told.json()["predictions"], first, "{csv}");
    }
    assert_eq!(post(&router, "/score", forms[0]).await.json(), first);
}

#[tokio::test]
async fn several_inputs_are_columns_of_their_own_types() {
    let (_, router) = device_with(FRAUD).await;
    let forms = [
        r#"{"dataframe_records": [{"country": "JP", "amount": 1.5, "hours": [3, 4]}, {"country": "a,b", "amount": null, "hours": [5, 6]}]}"#,
        r#"{"dataframe_split": {"columns": ["hours", "amount", "country"], "data": [[[3, 4], 1.5, "JP"], [[5, 6], null, "a,b"]]}}"#,
        r#"{"inputs": {"amount": [1.5, null], "country": [["JP"], ["a,b"]], "hours": [[3, 4], [5, 6]]}}"#,
    ];
    let first = predictions(&router, forms[0]).await;
    for form in forms {
        assert_eq!(predictions(&router, form).await, first, "{form}");
    }
    let told = message(&router, "/invocations", "[[1, 2]]").await;
    assert_eq!(
        told,
        (400, "the model has several inputs; name them: `amount`, `country`, `hours`".to_owned())
    );
    let missing = r#"{"instances": [{"country": "JP", "amount": 1}]}"#;
    let told = message(&router, "/invocations", missing).await;
    assert_eq!(told, (400, "row 0, column `hours`: `null` is not a INT64".to_owned()));
    let ragged = r#"{"instances": [{"country": "JP", "amount": 1, "hours": [1, 2]}, {"country": "JP", "amount": 1, "hours": [1]}]}"#;
    let told = message(&router, "/invocations", ragged).await;
    assert_eq!(
        told,
        (400, "row 1, column `hours`: shape [1] differs from the rows before".to_owned())
    );
}

#[tokio::test]
async fn outputs_of_a_row_come_together() {
    let (_, router) = device(&["vision/digits"]).await;
    let rows = predictions(&router, "[[1, 2], [3, 4]]").await;
    assert_eq!(rows[0]["p"].as_array().unwrap().len(), 3);
    assert!(rows[1]["label"].is_u64(), "{rows}");
    let told = post_as(&router, "application/json", "[[1, 2], [3, 4]]", "text/csv").await;
    let text = String::from_utf8(told.body.to_vec()).unwrap();
    assert_eq!(told.headers["content-type"], "text/csv; charset=utf-8");
    let widths: Vec<_> = text.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(widths, [4, 4], "{text}");
}

#[tokio::test]
async fn what_is_no_scoring_request_is_told_so() {
    let (_, router) = device_with(FEATURES).await;
    let keys = "exactly one of `dataframe_split`, `dataframe_records`, `instances`, `inputs`, `input_data`, `data` is expected";
    let cases = [
        ("{}", format!("{keys}, 0 given")),
        (r#"{"instances": [[1, 2]], "inputs": [[1, 2]]}"#, format!("{keys}, 2 given")),
        (r#"{"instances": [[1, "a"]]}"#, "input `x`: `\"a\"` is not a FP32".to_owned()),
        (
            r#"{"instances": [[1, 2], [1]]}"#,
            "input `x`: 1 values in a row where the shape says 2".to_owned(),
        ),
        (
            r#"{"instances": [[1, 2, 3]]}"#,
            "input `x`: expected shape [-1, 2], [1, 3] given".to_owned(),
        ),
        (
            r#"{"instances": [{"a": 1, "c": 2}]}"#,
            "unexpected column `c`; expected `a`, `b`".to_owned(),
        ),
        (
            r#"{"dataframe_split": {"columns": ["a"], "data": [[1]]}}"#,
            "column `b` is missing; expected `a`, `b`".to_owned(),
        ),
        (
            r#"{"dataframe_split": {"columns": ["a", "b"], "data": [[1]]}}"#,
            "row 0 has 1 values, 2 are expected".to_owned(),
        ),
        (
            r#"{"dataframe_records": [{"a": 1, "b": 2}, 7]}"#,
            "row 1 is neither an array nor an object".to_owned(),
        ),
        (
            r#"{"dataframe_records": [{"a": 1, "b": "x"}]}"#,
            "row 0, column `b`: `\"x\"` is not a FP32".to_owned(),
        ),
        (r#"{"inputs": {"y": [[1, 2]]}}"#, "unexpected column `y`; expected `x`".to_owned()),
    ];
    for (body, expected) in cases {
        for path in ["/invocations", "/endpoints/digits/invocations", "/score"] {
            assert_eq!(
                message(&router, path, body).await,
                (400, expected.clone()),
                "{path} {body}"
            );
        }
    }
    assert_eq!(message(&router, "/invocations", "{").await.0, 400);
    assert_eq!(post_as(&router, "text/csv", "1,2\n3\n", "*/*").await.status, 400);
    let told = post_as(&router, "application/xml", "<a/>", "*/*").await;
    assert_eq!(
        (told.status.as_u16(), &told.headers["x-amzn-errortype"]),
        (415, &"ValidationError".parse().unwrap())
    );
}

#[tokio::test]
async fn a_path_without_a_name_means_the_only_model() {
    let (_, router) = device(&["vision/digits", "mail/spam"]).await;
    let told = message(&router, "/invocations", "[[1, 2]]").await;
    let words = "several models are served, and none is named; served: mail/spam, vision/digits";
    assert_eq!(told, (400, words.to_owned()));
    let named = Request::post("/invocations")
        .header("X-Amzn-SageMaker-Target-Model", "spam")
        .header("Authorization", "AWS4-HMAC-SHA256 Credential=x")
        .body(Body::from("[[1, 2]]"));
    assert_eq!(send(&router, named.unwrap()).await.status, 200);
    let told = post(&router, "/endpoints/digits/invocations", "[[1, 2]]").await;
    assert_eq!(told.headers["x-amzn-invoked-production-variant"], "sealift");
    assert_eq!(message(&router, "/endpoints/letters/invocations", REQUEST).await.0, 404);
}

#[tokio::test]
async fn signs_of_life_are_those_of_each() {
    let (_, router) = device(&["vision/digits"]).await;
    assert_eq!(&get(&router, "/").await.body[..], b"Healthy");
    for path in ["/ping", "/health"] {
        assert_eq!(get(&router, path).await.status, 200);
    }
    assert_eq!(&get(&router, "/version").await.body[..], VERSION.as_bytes());
    let (_, empty) = device(&[]).await;
    let told = get(&empty, "/ping").await;
    assert_eq!(
        (told.status.as_u16(), &told.json()["error_code"]),
        (503, &json!("TEMPORARILY_UNAVAILABLE"))
    );
}

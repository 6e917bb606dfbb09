//! One input by every protocol: the same bytes come out, whatever way they took.

use std::future::Future;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use proptest::prelude::*;
use sealift_protocol::local::{Answer, LENGTH_BYTES, Question};
use sealift_protocol::tensor::{Datatype, Tensor};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::challenger::Split;
use super::endpoint::{Asked, Endpoint};
use super::testing::{device_with, post, send};
use super::unix;

const CONTRACT: &str = r#"{"schema":1,
    "inputs":[{"name":"a","datatype":"FP32","shape":[-1,3]},{"name":"b","datatype":"INT64","shape":[-1]},
              {"name":"h","datatype":"FP16","shape":[-1]},{"name":"t","datatype":"BYTES","shape":[-1]}],
    "outputs":[{"name":"label","datatype":"INT64","shape":[-1],"role":"class"},
               {"name":"p","datatype":"FP32","shape":[-1,4],"role":"probabilities"},
               {"name":"h","datatype":"BF16","shape":[-1]},{"name":"t","datatype":"BYTES","shape":[-1]}]}"#;

/// Rows as every protocol can say them: JSON has no numbers but finite ones.
fn inputs() -> impl Strategy<Value = Vec<Tensor>> {
    let row = (
        prop::array::uniform3(-1e6_f32..1e6),
        any::<i64>(),
        0_u16..0x7c00,
        "[a-zA-Z0-9 \"\\\\é]{0,12}",
    );
    prop::collection::vec(row, 1..6).prop_map(|rows| {
        let count = rows.len() as u64;
        let (mut a, mut b, mut h, mut t) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (numbers, whole, half, text) in rows {
            a.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            b.extend(whole.to_le_bytes());
            h.extend(half.to_le_bytes());
            t.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
            t.extend(text.as_bytes());
        }
        let tensor = |name: &str, datatype, shape, bytes| {
            Tensor::new(name.to_owned(), datatype, shape, bytes).unwrap()
        };
        vec![
            tensor("a", Datatype::Fp32, vec![count, 3], a),
            tensor("b", Datatype::Int64, vec![count], b),
            tensor("h", Datatype::Fp16, vec![count], h),
            tensor("t", Datatype::Bytes, vec![count], t),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn all_paths_give_the_same_bytes(inputs in inputs()) {
        run(async {
            let (endpoint, router) = device_with(CONTRACT).await;
            let live = endpoint.only().unwrap();
            let (inference, split) = (endpoint.name(None), Split::Each);
            let asked = Asked { inference: &inference, inputs: &inputs, deadline: None, split };
            let (_, direct) = endpoint.ask(live, asked).await.unwrap();

            assert_eq!(by_json(&router, &inputs, false).await, direct, "JSON");
            assert_eq!(by_json(&router, &inputs, true).await, direct, "binary");
            assert_eq!(by_grpc(&router, &inputs).await, direct, "gRPC");
            assert_eq!(by_socket(&endpoint, &inputs).await, direct, "Unix socket");
            assert_eq!(by_scoring(&router, &inputs).await, direct, "scoring");
        });
    }
}

/// Whatever comes is answered or refused, and the next question is answered as if nothing had been.
#[test]
fn the_socket_lives_through_bad_questions() {
    run(async {
        let (endpoint, _) = device_with(super::testing::CONTRACT).await;
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let task = tokio::spawn(async move { unix::answer_all(theirs, &endpoint).await });
        let x = || Tensor::fp32("x", &[1, 2], &[1.0, 2.0]).unwrap();
        let good = Question {
            model: "digits".to_owned(),
            version: String::new(),
            timeout_ms: 0,
            inputs: vec![x()],
        };
        let letters = Question { model: "letters".to_owned(), ..good.clone() };
        let old = Question { version: "2".to_owned(), ..good.clone() };
        let twice = Question { inputs: vec![x(), x()], ..good.clone() };

        assert_eq!(
            refusal(&mut ours, &[0, 0, 0, 0]).await,
            (400, "not a question: the frame is cut off".to_owned())
        );
        assert_eq!(
            refusal(&mut ours, &[1, 0, 0, 0, 9]).await,
            (400, "not a question: form 9 is not known; 1 is".to_owned())
        );
        assert_eq!(refusal(&mut ours, &letters.frame().unwrap()).await.0, 404);
        assert_eq!(refusal(&mut ours, &old.frame().unwrap()).await.0, 404);
        assert_eq!(refusal(&mut ours, &twice.frame().unwrap()).await.0, 400);
        let answer = exchange(&mut ours, &good.frame().unwrap()).await;
        assert!(matches!(answer, Answer::Outputs { version, .. } if version == "3"));
        let too_large = u32::MAX.to_le_bytes();
        assert_eq!(refusal(&mut ours, &too_large).await.0, 413);
        task.await.unwrap().unwrap();
    });
}

fn run(story: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(story);
}

/// The Open Inference Protocol, with all data in JSON or all of it binary.
async fn by_json(router: &Router, inputs: &[Tensor], is_binary: bool) -> Vec<Tensor> {
    let entry = |tensor: &Tensor| {
        let mut entry =
            json!({ "name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape });
        if is_binary {
            entry["parameters"] = json!({ "binary_data_size": tensor.bytes.len() });
        } else {
            entry["data"] = json!(super::elements::Elements(tensor));
        }
        entry
    };
    let entries: Vec<_> = inputs.iter().map(entry).collect();
    let head = json!({ "inputs": entries, "parameters": { "binary_data_output": is_binary } });
    let mut body = serde_json::to_vec(&head).unwrap();
    let head_bytes = body.len();
    if is_binary {
        body.extend(inputs.iter().flat_map(|tensor| &tensor.bytes));
    }
    let request = Request::post("/v2/models/digits/infer")
        .header("Inference-Header-Content-Length", head_bytes)
        .body(Body::from(body));
    let told = send(router, request.unwrap()).await;
    assert_eq!(told.status, 200, "{told:?}");
    let head_bytes = told.headers.get("inference-header-content-length");
    let head_bytes =
        head_bytes.map_or(told.body.len(), |text| text.to_str().unwrap().parse().unwrap());
    let (head, mut binary) = told.body.split_at(head_bytes);
    let head: Value = serde_json::from_slice(head).unwrap();
    let read = |output: &Value| {
        let datatype: Datatype = output["datatype"].as_str().unwrap().parse().unwrap();
        let shape: Vec<u64> = serde_json::from_value(output["shape"].clone()).unwrap();
        let bytes = match output["parameters"]["binary_data_size"].as_u64() {
            Some(length) => binary.split_off(..usize::try_from(length).unwrap()).unwrap().to_vec(),
            None => elements(&output["data"], datatype, &shape),
        };
        Tensor::new(output["name"].as_str().unwrap().to_owned(), datatype, shape, bytes).unwrap()
    };
    head["outputs"].as_array().unwrap().iter().map(read).collect()
}

fn elements(data: &Value, datatype: Datatype, shape: &[u64]) -> Vec<u8> {
    super::elements::parse(&data.to_string(), datatype, shape, super::elements::Null::Refused)
        .unwrap()
}

/// The real encoder of requests is another's: the story of the clients has it. Here the bytes are put together by hand.
async fn by_grpc(router: &Router, inputs: &[Tensor]) -> Vec<Tensor> {
    let message = super::grpc::testing::request("digits", inputs);
    let request = Request::post("/inference.GRPCInferenceService/ModelInfer")
        .header("content-type", "application/grpc")
        .body(Body::from(message));
    let told = send(router, request.unwrap()).await;
    assert!(!told.headers.contains_key("grpc-status"), "{told:?}");
    super::grpc::testing::outputs(&told.body)
}

async fn by_socket(endpoint: &Endpoint, inputs: &[Tensor]) -> Vec<Tensor> {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let endpoint = endpoint.clone();
    tokio::spawn(async move { unix::answer_all(theirs, &endpoint).await });
    let (model, version) = ("vision/digits".to_owned(), "3".to_owned());
    let question = Question { model, version, timeout_ms: 60_000, inputs: inputs.to_vec() };
    match exchange(&mut ours, &question.frame().unwrap()).await {
        Answer::Outputs { outputs, .. } => outputs,
        refused @ Answer::Refused { .. } => panic!("{refused:?}"),
    }
}

async fn by_scoring(router: &Router, inputs: &[Tensor]) -> Vec<Tensor> {
    let values = |tensor: &Tensor| {
        let flat = json!(super::elements::Elements(tensor));
        match tensor.shape.as_slice() {
            [_, width] => flat
                .as_array()
                .unwrap()
                .chunks(usize::try_from(*width).unwrap())
                .map(Value::from)
                .collect(),
            _ => flat,
        }
    };
    let named: serde_json::Map<_, _> =
        inputs.iter().map(|tensor| (tensor.name.clone(), values(tensor))).collect();
    let told = post(router, "/invocations", &json!({ "inputs": named }).to_string()).await;
    assert_eq!(told.status, 200, "{told:?}");
    let rows = told.json()["predictions"].take();
    let rows = rows.as_array().unwrap();
    let count = rows.len() as u64;
    let output = |name: &str, datatype, shape: Vec<u64>| {
        let column: Vec<_> = rows.iter().map(|row| &row[name]).collect();
        let bytes = elements(&json!(column), datatype, &shape);
        Tensor::new(name.to_owned(), datatype, shape, bytes).unwrap()
    };
    vec![
        output("label", Datatype::Int64, vec![count]),
        output("p", Datatype::Fp32, vec![count, 4]),
        output("h", Datatype::Bf16, vec![count]),
        output("t", Datatype::Bytes, vec![count]),
    ]
}

async fn refusal(socket: &mut UnixStream, frame: &[u8]) -> (u16, String) {
    match exchange(socket, frame).await {
        Answer::Refused { status, why } => (status, why),
        answered @ Answer::Outputs { .. } => panic!("{answered:?}"),
    }
}

async fn exchange(socket: &mut UnixStream, frame: &[u8]) -> Answer {
    socket.write_all(frame).await.unwrap();
    let mut length = [0; LENGTH_BYTES];
    socket.read_exact(&mut length).await.unwrap();
    let mut body = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap()];
    socket.read_exact(&mut body).await.unwrap();
    Answer::read(&body).unwrap()
}

//! The service as its clients see it, by bytes that other encoders of the same messages make.

use axum::http::Request;
use sealift_protocol::tensor::Tensor;

use super::wire::{Fields, Value, put_bytes, put_number, put_text};
use super::*;
use crate::serve::testing::{Told, device, device_with, send};

/// Calls with bytes after the frame's prefix; returns the answer's message, or code and words.
async fn call_with(
    router: &Router,
    method: &str,
    message: &[u8],
) -> Result<Vec<u8>, (u16, String)> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    read(&frames(router, method, framed, &[]).await)
}

async fn frames(router: &Router, method: &str, body: Vec<u8>, headers: &[(&str, &str)]) -> Told {
    let uri = format!("/inference.GRPCInferenceService/{method}");
    let mut request = Request::post(uri).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(router, request.body(Body::from(body)).unwrap()).await
}

fn read(told: &Told) -> Result<Vec<u8>, (u16, String)> {
    assert_eq!(told.status, 200);
    assert_eq!(told.headers["content-type"], "application/grpc");
    match told.headers.get("grpc-status") {
        None => Ok(unframe(&told.body).unwrap().to_vec()),
        Some(code) => {
            let words = told.headers["grpc-message"].to_str().unwrap().to_owned();
            Err((code.to_str().unwrap().parse().unwrap(), words))
        }
    }
}

/// Field 3 of a tensor message, not packed, as old encoders write it.
fn input(name: &str, datatype: &str, shape: &[u64], contents: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, name);
    put_text(&mut out, 2, datatype);
    for &length in shape {
        put_number(&mut out, 3, length);
    }
    if let Some(contents) = contents {
        put_bytes(&mut out, 5, contents);
    }
    out
}

fn request(model: &str, input: &[u8], raw: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, model);
    put_text(&mut out, 3, "a1");
    put_bytes(&mut out, 5, input);
    if let Some(raw) = raw {
        put_bytes(&mut out, 7, raw);
    }
    out
}

fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn fields(message: &[u8], wanted: u32) -> Vec<Vec<u8>> {
    let mut fields = Fields(message);
    let mut found = Vec::new();
    while let Some((number, value)) = fields.next().unwrap() {
        if let (true, Value::Bytes(bytes)) = (number == wanted, value) {
            found.push(bytes.to_vec());
        }
    }
    found
}

#[tokio::test]
async fn raw_and_typed_contents_get_the_same_answer() {
    let (_, router) = device(&["vision/digits"]).await;
    let mut typed = Vec::new();
    put_bytes(&mut typed, 6, &floats(&[1.0, 2.0]));
    let typed = request("vision/digits", &input("x", "FP32", &[1, 2], Some(&typed)), None);
    let raw = request("digits", &input("x", "FP32", &[1, 2], None), Some(&floats(&[1.0, 2.0])));

    let from_typed = call_with(&router, "ModelInfer", &typed).await.unwrap();
    let from_raw = call_with(&router, "ModelInfer", &raw).await.unwrap();

    assert_eq!(from_typed, from_raw);
    assert_eq!(fields(&from_raw, 1), [b"vision/digits"]);
    assert_eq!(
        (fields(&from_raw, 2), fields(&from_raw, 3)),
        (vec![b"3".to_vec()], vec![b"a1".to_vec()])
    );
    let raw: Vec<_> = fields(&from_raw, 6).iter().map(Vec::len).collect();
    assert_eq!(raw, [8, 12], "one INT64 and three FP32");
}

#[tokio::test]
async fn server_and_models_describe_themselves() {
    let (_, router) = device(&["vision/digits"]).await;
    let named = |name: &str| {
        let mut out = Vec::new();
        put_text(&mut out, 1, name);
        out
    };

    assert_eq!(call_with(&router, "ServerLive", &[]).await.unwrap(), b"\x08\x01");
    assert_eq!(call_with(&router, "ServerReady", &[]).await.unwrap(), b"\x08\x01");
    assert_eq!(call_with(&router, "ModelReady", &named("digits")).await.unwrap(), b"\x08\x01");
    assert_eq!(call_with(&router, "ModelReady", &named("letters")).await.unwrap(), b"");
    let server = call_with(&router, "ServerMetadata", &[]).await.unwrap();
    assert_eq!(fields(&server, 1), [b"sealift"]);
    let model = call_with(&router, "ModelMetadata", &named("digits")).await.unwrap();
    let inputs = fields(&model, 4);
    assert_eq!(fields(&inputs[0], 2), [b"FP32"]);
    // -1 takes ten bytes.
    assert_eq!(fields(&inputs[0], 3), [b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02"]);
    let index = call_with(&router, "RepositoryIndex", &[]).await.unwrap();
    assert_eq!(fields(&fields(&index, 1)[0], 3), [b"READY"]);
}

#[tokio::test]
async fn bad_calls_are_told_by_code_and_words() {
    let (_, router) = device(&["vision/digits"]).await;
    let x = |datatype: &str, shape: &[u64]| input("x", datatype, shape, None);
    let infer = |input: &[u8], raw: &[u8]| request("digits", input, Some(raw));
    let mut bools = Vec::new();
    put_bytes(&mut bools, 1, &[1, 0]);
    let two = request("digits", &input("x", "FP32", &[1, 2], Some(&bools)), None);
    let cases = [
        (
            request("letters", &x("FP32", &[1, 2]), Some(&[0; 8])),
            5,
            "model `letters` is not served; served: vision/digits",
        ),
        (infer(&x("FP32", &[1, 2]), &[0; 7]), 3, "tensor `x`: FP32 [1, 2] needs 8 bytes, 7 given"),
        (
            infer(&x("FP32", &[1, 3]), &[0; 12]),
            3,
            "input `x`: expected shape [-1, 2], [1, 3] given",
        ),
        (infer(&x("FP64", &[1, 2]), &[0; 16]), 3, "input `x`: expected FP32, FP64 given"),
        (infer(&x("FLOAT", &[1, 2]), &[0; 8]), 3, "input `x`: `FLOAT` is not a datatype"),
        (
            infer(&x("FP32", &[1, u64::MAX]), &[0; 8]),
            3,
            "input `x`: shape [1, -1] has a negative length",
        ),
        (two, 3, "input `x`: contents are not those of FP32"),
        (b"\x2a\x05abc".to_vec(), 3, "not a message: message ends within a field"),
    ];
    for (message, code, words) in cases {
        let told = call_with(&router, "ModelInfer", &message).await.unwrap_err();
        assert_eq!(told, (code, words.to_owned()));
    }
    let managed = call_with(&router, "RepositoryModelLoad", &[]).await.unwrap_err();
    assert_eq!(managed, (7, "models are managed by the fleet".to_owned()));
    assert_eq!(call_with(&router, "ModelStreamInfer", &[]).await.unwrap_err().0, 12);
}

#[tokio::test]
async fn frames_that_are_none_are_refused() {
    let (_, router) = device(&["vision/digits"]).await;
    let told = async |body: &[u8]| read(&frames(&router, "ServerLive", body.to_vec(), &[]).await);
    assert_eq!(told(&[0, 0, 0, 0, 0]).await.unwrap(), b"\x08\x01");
    assert_eq!(told(&[0, 0, 0]).await.unwrap_err().0, 3);
    assert_eq!(told(&[0, 0, 0, 0, 9, 1]).await.unwrap_err().0, 3);
    assert_eq!(told(&[1, 0, 0, 0, 0]).await.unwrap_err().0, 12);
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_any_more_is_ended() {
    let (_, router) = device(&["vision/digits"]).await;
    let body = vec![0, 0, 0, 0, 0];
    let told = frames(&router, "ServerLive", body, &[("grpc-timeout", "0n")]).await;
    // Either is right: the answer was there at once, or the time had run out.
    assert!(matches!(read(&told), Ok(_) | Err((4, _))));
    assert_eq!(duration("250m"), Some(Duration::from_millis(250)));
    assert_eq!(duration("99999999H"), Some(Duration::from_hours(99_999_999)));
    for none in ["", "m", "1", "1x", "123456789S", "-1S", "1 S", "é"] {
        assert_eq!(duration(none), None, "{none}");
    }
}

#[tokio::test]
async fn every_type_has_its_own_contents() {
    let integers = [
        ("BOOL", 1, vec![1, 0]),
        ("INT8", 2, vec![5, 7]),
        ("INT16", 2, vec![5, 7]),
        ("INT32", 2, vec![5, 7]),
        ("INT64", 3, vec![5, 7]),
        ("UINT8", 4, vec![5, 7]),
        ("UINT16", 4, vec![5, 7]),
        ("UINT32", 4, vec![5, 7]),
        ("UINT64", 5, vec![5, 7]),
    ];
    for (datatype, field, packed) in integers {
        let (endpoint, router) = device_with(&contract(datatype)).await;
        let mut contents = Vec::new();
        put_bytes(&mut contents, field, &packed);
        let typed = request("digits", &input("x", datatype, &[2], Some(&contents)), None);
        let answer = call_with(&router, "ModelInfer", &typed).await.unwrap();
        let numbers: Vec<u64> = packed.iter().map(|&byte| u64::from(byte)).collect();
        assert_eq!(fields(&answer, 6), [direct(&endpoint, datatype, &numbers).await], "{datatype}");
    }
}

#[tokio::test]
async fn whole_numbers_out_of_range_and_texts_are_told_apart() {
    let (_, router) = device_with(&contract("INT8")).await;
    let mut contents = Vec::new();
    put_bytes(&mut contents, 2, b"\x80\x01");
    let typed = request("digits", &input("x", "INT8", &[1], Some(&contents)), None);
    let told = call_with(&router, "ModelInfer", &typed).await.unwrap_err();
    assert_eq!(told, (3, "input `x`: a value is out of the range of INT8".to_owned()));

    let (_, router) = device_with(&contract("BYTES")).await;
    let mut contents = Vec::new();
    put_bytes(&mut contents, 8, b"one");
    put_bytes(&mut contents, 8, b"");
    let typed = request("digits", &input("x", "BYTES", &[2], Some(&contents)), None);
    assert!(call_with(&router, "ModelInfer", &typed).await.is_ok());
}

fn contract(datatype: &str) -> String {
    format!(
        r#"{{"schema":1,"inputs":[{{"name":"x","datatype":"{datatype}","shape":[-1]}}],
            "outputs":[{{"name":"y","datatype":"FP32","shape":[-1],"role":"value"}}]}}"#
    )
}

/// What the model says without any protocol.
async fn direct(endpoint: &Endpoint, datatype: &str, numbers: &[u64]) -> Vec<u8> {
    let datatype: Datatype = datatype.parse().unwrap();
    let length = datatype.element_bytes().unwrap();
    let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()[..length].to_vec());
    let shape = vec![numbers.len() as u64];
    let x = Tensor::new("x".to_owned(), datatype, shape, bytes.collect()).unwrap();
    let live = endpoint.only().unwrap();
    let (inference, split) = (endpoint.name(None), Split::Each);
    let asked = Asked { inference: &inference, inputs: &[x], deadline: None, split };
    endpoint.ask(live, asked).await.unwrap().1.remove(0).bytes
}

//! A client's side of an inference.

use sealift_protocol::tensor::Tensor;

use super::unframe;
use super::wire::{Fields, Value, put_bytes, put_number, put_text};

/// A framed `ModelInferRequest` with raw contents.
pub(in crate::serve) fn request(model: &str, inputs: &[Tensor]) -> Vec<u8> {
    let mut message = Vec::new();
    put_text(&mut message, 1, model);
    for tensor in inputs {
        let mut input = Vec::new();
        put_text(&mut input, 1, &tensor.name);
        put_text(&mut input, 2, tensor.datatype.as_str());
        for &length in &tensor.shape {
            put_number(&mut input, 3, length);
        }
        put_bytes(&mut message, 5, &input);
    }
    for tensor in inputs {
        put_bytes(&mut message, 7, &tensor.bytes);
    }
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed
}

/// The outputs of a framed `ModelInferResponse`.
pub(in crate::serve) fn outputs(framed: &[u8]) -> Vec<Tensor> {
    let mut fields = Fields(unframe(framed).unwrap());
    let (mut heads, mut raw) = (Vec::new(), Vec::new());
    while let Some((number, value)) = fields.next().unwrap() {
        match (number, value) {
            (5, Value::Bytes(bytes)) => heads.push(bytes),
            (6, Value::Bytes(bytes)) => raw.push(bytes.to_vec()),
            _ => (), // who answered
        }
    }
    assert_eq!(heads.len(), raw.len());
    heads.into_iter().zip(raw).map(|(head, bytes)| output(head, bytes)).collect()
}

fn output(head: &[u8], bytes: Vec<u8>) -> Tensor {
    let mut fields = Fields(head);
    let (mut name, mut datatype, mut shape) = (String::new(), String::new(), Vec::new());
    while let Some((number, value)) = fields.next().unwrap() {
        match number {
            1 => name = value.text(number).unwrap(),
            2 => datatype = value.text(number).unwrap(),
            3 => value.varints(number, |length| shape.push(length)).unwrap(),
            other => panic!("field {other}"),
        }
    }
    Tensor::new(name, datatype.parse().unwrap(), shape, bytes).unwrap()
}

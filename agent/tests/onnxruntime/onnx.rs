//! Writes a model by hand: one `Identity` node per element type, in the protocol-buffer form of ONNX.

use sealift_protocol::tensor::Datatype;

/// Name of the type, and its number in `TensorProto.DataType`.
pub(crate) const TYPES: [(Datatype, u64); 14] = [
    (Datatype::Fp32, 1),
    (Datatype::Uint8, 2),
    (Datatype::Int8, 3),
    (Datatype::Uint16, 4),
    (Datatype::Int16, 5),
    (Datatype::Int32, 6),
    (Datatype::Int64, 7),
    (Datatype::Bytes, 8),
    (Datatype::Bool, 9),
    (Datatype::Fp16, 10),
    (Datatype::Fp64, 11),
    (Datatype::Uint32, 12),
    (Datatype::Uint64, 13),
    (Datatype::Bf16, 16),
];

/// A model that gives back each input `in_TYPE` of shape `[n, 2]` as `out_TYPE`.
pub(crate) fn identities() -> Vec<u8> {
    let mut graph = text(2, "identities");
    for (datatype, number) in TYPES {
        let (input, output) = (format!("in_{datatype}"), format!("out_{datatype}"));
        let node = [text(1, &input), text(2, &output), text(4, "Identity")].concat();
        graph.extend(field(1, &node));
        graph.extend(field(11, &value(&input, number)));
        graph.extend(field(12, &value(&output, number)));
    }
    let opset = [text(1, ""), number(2, 16)].concat();
    [number(1, 8), field(7, &graph), field(8, &opset)].concat()
}

/// The contract of [`identities`].
pub(crate) fn contract() -> Vec<u8> {
    let tensors = |prefix: &str| -> Vec<_> {
        let tensor = |(datatype, _): (Datatype, u64)| {
            let name = format!("{prefix}_{datatype}");
            serde_json::json!({ "name": name, "datatype": datatype, "shape": [-1, 2] })
        };
        TYPES.map(tensor).to_vec()
    };
    let contract = serde_json::json!({
        "schema": 1, "inputs": tensors("in"), "outputs": tensors("out")
    });
    serde_json::to_vec(&contract).unwrap()
}

fn value(name: &str, element_type: u64) -> Vec<u8> {
    let free = field(1, &text(2, "n"));
    let two = field(1, &number(1, 2));
    let tensor = [number(1, element_type), field(2, &[free, two].concat())].concat();
    [text(1, name), field(2, &field(1, &tensor))].concat()
}

fn text(tag: u64, text: &str) -> Vec<u8> {
    field(tag, text.as_bytes())
}

fn field(tag: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(tag << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn number(tag: u64, value: u64) -> Vec<u8> {
    [varint(tag << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

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

/// A model that counts to `trips` in a loop, and gives back the count that it was given. Shape inference and optimisers leave it
/// alone: the count comes with the request.
pub(crate) fn counting() -> Vec<u8> {
    /// Of elements, and of an attribute.
    const INT64: u64 = 7;
    const BOOL: u64 = 9;
    const GRAPH: u64 = 5;
    let node = |operator: &str, inputs: &[&str], outputs: &[&str], attribute: &[u8]| {
        let inputs = inputs.iter().flat_map(|name| text(1, name));
        let outputs = outputs.iter().flat_map(|name| text(2, name));
        let names: Vec<u8> = inputs.chain(outputs).collect();
        field(1, &[names, text(4, operator), attribute.to_vec()].concat())
    };
    let body = [
        node("Identity", &["goes_on"], &["still_goes_on"], b""),
        node("Identity", &["carried"], &["carried_on"], b""),
        text(2, "body"),
        field(11, &scalar("turn", INT64)),
        field(11, &scalar("goes_on", BOOL)),
        field(11, &list("carried", INT64)),
        field(12, &scalar("still_goes_on", BOOL)),
        field(12, &list("carried_on", INT64)),
    ];
    let body = [text(1, "body"), number(20, GRAPH), field(6, &body.concat())].concat();
    let yes = [number(2, BOOL), text(8, "yes"), field(9, &[1])].concat();
    let graph = [
        node("Loop", &["trips", "yes", "trips"], &["last"], &field(5, &body)),
        text(2, "counting"),
        field(5, &yes),
        field(11, &list("trips", INT64)),
        field(12, &list("last", INT64)),
    ];
    let opset = [text(1, ""), number(2, 16)].concat();
    [number(1, 8), field(7, &graph.concat()), field(8, &opset)].concat()
}

/// A model that gives back `x` as a map for each row, whose keys are 2, 0 and 1, and as a sequence of the same tensor twice.
pub(crate) fn maps_and_sequences() -> Vec<u8> {
    const FP32: u64 = 1;
    const INT64: u64 = 7;
    const INTS: u64 = 7;
    let keys = [number(8, 2), number(8, 0), number(8, 1)].concat();
    let keys = [text(1, "classlabels_int64s"), keys, number(20, INTS)].concat();
    let zip = [
        text(1, "x"),
        text(2, "shares"),
        text(4, "ZipMap"),
        field(5, &keys),
        text(7, "ai.onnx.ml"),
    ];
    let twice = [text(1, "x"), text(1, "x"), text(2, "pair"), text(4, "SequenceConstruct")];
    let tensor = field(1, &[number(1, FP32), field(2, b"")].concat());
    let map = field(5, &[number(1, INT64), field(2, &tensor)].concat());
    let sequence = |of: &[u8]| field(4, &field(1, of));
    let pair = field(1, &number(1, FP32));
    let graph = [
        field(1, &zip.concat()),
        field(1, &twice.concat()),
        text(2, "sequences"),
        field(11, &[text(1, "x"), field(2, &table())].concat()),
        field(12, &[text(1, "shares"), field(2, &sequence(&map))].concat()),
        field(12, &[text(1, "pair"), field(2, &sequence(&pair))].concat()),
    ];
    let opsets = [
        field(8, &[text(1, ""), number(2, 16)].concat()),
        field(8, &[text(1, "ai.onnx.ml"), number(2, 1)].concat()),
    ];
    [number(1, 8), field(7, &graph.concat()), opsets.concat()].concat()
}

/// FP32 of any number of rows and three columns.
fn table() -> Vec<u8> {
    let lengths = [field(1, &text(2, "n")), field(1, &number(1, 3))].concat();
    field(1, &[number(1, 1), field(2, &lengths)].concat())
}

/// The contract of [`counting`].
pub(crate) fn counting_contract() -> Vec<u8> {
    let tensor =
        |name: &str| serde_json::json!([{ "name": name, "datatype": "INT64", "shape": [-1] }]);
    let contract =
        serde_json::json!({ "schema": 1, "inputs": tensor("trips"), "outputs": tensor("last") });
    serde_json::to_vec(&contract).unwrap()
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

fn scalar(name: &str, element_type: u64) -> Vec<u8> {
    let tensor = [number(1, element_type), field(2, b"")].concat();
    [text(1, name), field(2, &field(1, &tensor))].concat()
}

fn list(name: &str, element_type: u64) -> Vec<u8> {
    let free = field(1, &text(2, "n"));
    let tensor = [number(1, element_type), field(2, &free)].concat();
    [text(1, name), field(2, &field(1, &tensor))].concat()
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

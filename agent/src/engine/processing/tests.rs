//! What the steps make is what Pillow and numpy make: `tests/fixtures/images/make.py` has written it down.

use proptest::prelude::*;
use sealift_protocol::image::IoContract;
use sealift_protocol::tensor::{Datatype, Tensor};
use serde_json::{Value, json};

use super::*;
use crate::engine::fake::Fake;

/// Gives its input back, under the name of its output.
struct Mirror(&'static str);

impl Engine for Mirror {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        Ok(vec![Tensor { name: self.0.to_owned(), ..inputs[0].clone() }])
    }

    fn providers(&self) -> &[(String, u32)] {
        &[]
    }

    fn runtime(&self) -> &'static str {
        "mirror"
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let directory =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/images");
    std::fs::read(directory.join(name)).unwrap()
}

fn engine(contract: &Value) -> Processed<Mirror> {
    let contract = IoContract::parse(contract.to_string().as_bytes()).unwrap();
    Processed::new(Mirror("y"), &contract).ok().unwrap()
}

/// A contract by which an image becomes what the graph takes, which the mirror gives back.
fn seeing(step: &Value, datatype: &str) -> Processed<Mirror> {
    let mut step = step.clone();
    (step["from"], step["to"]) = (json!("image"), json!("x"));
    let tensor =
        |name: &str| json!({"name": name, "datatype": datatype, "shape": [-1, -1, -1, -1]});
    engine(&json!({"schema": 1,
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}], "outputs": [tensor("y")],
        "processing": {"graph": {"inputs": [tensor("x")], "outputs": [tensor("y")]}, "before": [{"image": step}]}}))
}

fn images(files: &[&[u8]]) -> Tensor {
    Tensor::text("image", &[files.len() as u64], files.iter().copied()).unwrap()
}

fn told(engine: &mut impl Engine, inputs: &[Tensor]) -> String {
    match engine.run(inputs) {
        Err(EngineError::Input(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn images_become_what_pillow_and_numpy_make_of_them() {
    let cases: Vec<Value> = serde_json::from_slice(&fixture("expected.json")).unwrap();
    assert!(cases.len() >= 15);
    for case in cases {
        let file = case["file"].as_str().unwrap();
        let made = seeing(&case["step"], "FP32").run(&[images(&[&fixture(file)])]).unwrap();
        let given = made[0].numbers().unwrap();
        let expected: Vec<f64> = serde_json::from_value(case["expected"].clone()).unwrap();
        assert_eq!(given.len(), expected.len(), "{}", case["step"]);
        // The standard of JPEG leaves the last bits of decoding open, and the order of two passes is one rounding.
        let levels = match (file.contains(".jpg"), case["step"]["filter"].as_str()) {
            (true, _) => 4.0,
            (false, Some("nearest")) => 0.0,
            (false, _) => 1.0,
        };
        let std = case["step"]["std"][0].as_f64().unwrap_or(1.0);
        let allowed = levels / 255.0 / std + 1e-6;
        let off = given.iter().zip(&expected).map(|(given, expected)| (given - expected).abs());
        let off = off.fold(0.0, f64::max);
        assert!(off <= allowed, "{file} {}: off by {off}", case["step"]);
    }
}

#[test]
fn a_batch_has_an_image_in_each_row_and_types_are_kept() {
    let step = json!({"width": 4, "height": 3});
    let (wide, tall) = (fixture("wide.png"), fixture("tall.png"));
    let both = images(&[&wide, &tall]);

    let made = seeing(&step, "FP32").run(&[both]).unwrap().remove(0);
    let second = seeing(&step, "FP32").run(&[images(&[&tall])]).unwrap().remove(0);
    let raw = seeing(&step, "UINT8").run(&[images(&[&wide])]).unwrap().remove(0);
    let half = seeing(&step, "FP16").run(&[images(&[&wide])]).unwrap().remove(0);

    assert_eq!(made.shape, [2, 3, 3, 4]);
    assert_eq!(made.bytes[made.bytes.len() / 2..], second.bytes);
    assert_eq!((raw.datatype, raw.bytes.len()), (Datatype::Uint8, 36));
    let close = |left: &[f64], right: &[f64], off: f64| {
        left.iter().zip(right).all(|(left, right)| (left - right).abs() <= off)
    };
    let single = &made.numbers().unwrap()[..36];
    let of_bytes: Vec<_> = raw.numbers().unwrap().iter().map(|pixel| pixel / 255.0).collect();
    assert!(close(&of_bytes, single, 1e-6) && close(&half.numbers().unwrap(), single, 1e-3));
}

#[test]
fn an_image_in_base64_is_the_same_image() {
    use base64::Engine as _;
    let mut engine = seeing(&json!({"width": 4, "height": 3}), "FP32");
    for name in ["wide.png", "wide.jpg"] {
        let file = fixture(name);
        let text = base64::engine::general_purpose::STANDARD.encode(&file);
        let plain = engine.run(&[images(&[&file])]).unwrap();
        assert_eq!(engine.run(&[images(&[text.as_bytes()])]).unwrap(), plain);
    }
}

#[test]
fn what_is_no_image_is_told_by_input_and_element() {
    let mut engine = seeing(&json!({"width": 4, "height": 3}), "FP32");
    let good = fixture("wide.png");
    let mut tell = |bad: &[u8]| told(&mut engine, &[images(&[&good, bad])]);

    let neither = "input `image`, element 1: neither a JPEG nor a PNG image, nor one in base64";
    assert_eq!(tell(b"GIF89a"), neither);
    assert_eq!(tell(b""), neither);
    assert!(tell(&good[..good.len() / 2]).contains("element 1: broken"));
    assert!(tell(&fixture("wide.jpg")[..40]).contains("element 1: broken"));
    assert!(tell(&fixture("cmyk.jpg")).contains("grey and RGB are taken"));
}

/// A file of some dozen bytes that announces gigabytes of pixels.
#[test]
fn a_decompression_bomb_is_refused_by_its_header() {
    let mut engine = seeing(&json!({"width": 4, "height": 3}), "FP32");
    let mut png = fixture("wide.png");
    let header =
        [b"IHDR".as_slice(), &60_000_u32.to_be_bytes(), &60_000_u32.to_be_bytes(), &png[24..29]]
            .concat();
    png[12..29].copy_from_slice(&header);
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&header);
    png[29..33].copy_from_slice(&checksum.finalize().to_be_bytes());
    assert!(told(&mut engine, &[images(&[&png])]).contains("60000 x 60000 pixels; at most"));

    let mut jpeg = fixture("wide.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x3f, 0xff, 0x3f, 0xff]);
    assert!(told(&mut engine, &[images(&[&jpeg])]).contains("16383 x 16383 pixels; at most"));

    let many = vec![b"".as_slice(); 100_000];
    let mut large = seeing(&json!({"width": 1000, "height": 1000}), "FP32");
    assert!(told(&mut large, &[images(&many)]).contains("100000 images make"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_damage_to_an_image_is_an_answer_or_a_refusal(
        file in prop::sample::select(vec!["wide.png", "wide.jpg", "tall.jpg", "palette.png"]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = fixture(file);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(cut.index(bytes.len()).max(bytes.len() / 2));
        let mut engine = seeing(&json!({"width": 4, "height": 3, "fit": "crop"}), "FP32");
        match engine.run(&[images(&[&bytes])]) {
            Ok(made) => prop_assert_eq!(&made[0].shape, &[1, 3, 3, 4]),
            Err(EngineError::Input(_)) => (),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}

fn table() -> Processed<Mirror> {
    let column =
        |name: &str, datatype: &str| json!({"name": name, "datatype": datatype, "shape": [-1]});
    let matrix = |name: &str| json!({"name": name, "datatype": "FP32", "shape": [-1, 6]});
    engine(&json!({"schema": 1,
        "inputs": [column("age", "FP32"), column("city", "BYTES"), column("kind", "INT64"), column("size", "BYTES")],
        "outputs": [matrix("y")],
        "processing": {"graph": {"inputs": [matrix("x")], "outputs": [matrix("y")]}, "before": [{"table": {"to": "x", "columns": [
            {"number": {"from": "age", "mean": 40, "std": 10, "missing": 30}},
            {"category": {"from": "city", "categories": ["Bern", "Oslo"]}},
            {"category": {"from": "kind", "categories": ["7", "-1"], "unknown": "none"}},
            {"category": {"from": "size", "categories": ["S", "M", "L"], "encode": "index", "unknown": "none"}}]}}]}}))
}

fn row(city: &[u8]) -> [Tensor; 4] {
    let kinds = [7_i64, 5].iter().flat_map(|kind| kind.to_le_bytes()).collect();
    [
        Tensor::fp32("age", &[2], &[50.0, f32::NAN]).unwrap(),
        Tensor::text("city", &[2], [city, b"Bern"]).unwrap(),
        Tensor::new("kind".to_owned(), Datatype::Int64, vec![2], kinds).unwrap(),
        Tensor::text("size", &[2], [b"L".as_slice(), b"XL"]).unwrap(),
    ]
}

#[test]
fn columns_become_a_row_of_numbers() {
    let made = table().run(&row(b"Oslo")).unwrap();
    let expected = [1.0, 0.0, 1.0, 1.0, 0.0, 2.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0];
    assert_eq!(made[0].numbers().unwrap(), expected);
    assert_eq!(made[0].shape, [2, 6]);
}

#[test]
fn categories_that_are_not_known_and_columns_of_other_lengths_are_told() {
    let refused = told(&mut table(), &row(b"Rome"));
    assert_eq!(refused, "input `city`, row 0: `Rome` is none of 2 categories");
    let mut inputs = row(b"Oslo");
    inputs[3] = Tensor::text("size", &[1], [b"S".as_slice()]).unwrap();
    assert_eq!(told(&mut table(), &inputs), "input `size` has 1 rows, `age` has 2");
}

fn after(steps: &Value, outputs: &Value) -> Processed<Mirror> {
    let tensor = |name: &str| json!({"name": name, "datatype": "FP32", "shape": [-1, 3]});
    engine(&json!({"schema": 1, "inputs": [tensor("x")], "outputs": outputs,
        "processing": {"graph": {"inputs": [tensor("x")], "outputs": [tensor("y")]}, "after": steps}}))
}

#[test]
fn scores_become_probabilities_places_and_names() {
    let labels = ["cat", "dog", "owl"];
    let spec = |name: &str, datatype: &str, shape: &[i64]| json!({"name": name, "datatype": datatype, "shape": shape});
    let mut engine = after(
        &json!([{"softmax": {"from": "y", "to": "p"}}, {"argmax": {"from": "y", "to": "class"}},
            {"label": {"from": "class", "to": "name", "labels": labels}},
            {"top-k": {"from": "p", "k": 2, "values": "best", "places": "at", "names": "called", "labels": labels}},
            {"threshold": {"from": "p", "to": "sure", "at": 0.5, "column": 1}}, {"sigmoid": {"from": "y", "to": "each"}}]),
        &json!([
            spec("p", "FP32", &[-1, 3]),
            spec("name", "BYTES", &[-1]),
            spec("best", "FP32", &[-1, 2]),
            spec("at", "INT64", &[-1, 2]),
            spec("called", "BYTES", &[-1, 2]),
            spec("sure", "INT64", &[-1]),
            spec("each", "FP32", &[-1, 3])
        ]),
    );
    let scores = Tensor::fp32("x", &[2, 3], &[1.0, 3.0, 2.0, 1000.0, 0.0, 1000.0]).unwrap();

    let made = engine.run(&[scores]).unwrap();

    let names: Vec<_> = made.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["p", "name", "best", "at", "called", "sure", "each"]);
    let close = |tensor: &Tensor, expected: &[f64]| {
        let off = tensor
            .numbers()
            .unwrap()
            .iter()
            .zip(expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        assert!(off < 1e-6, "{tensor:?}");
    };
    // scipy.special.softmax and expit of the same.
    close(&made[0], &[0.090_030_573, 0.665_240_956, 0.244_728_471, 0.5, 0.0, 0.5]);
    close(&made[2], &[0.665_240_956, 0.244_728_471, 0.5, 0.5]);
    close(&made[6], &[0.731_058_579, 0.952_574_127, 0.880_797_078, 1.0, 0.5, 1.0]);
    assert_eq!(made[1].byte_elements().collect::<Vec<_>>(), [b"dog", b"cat"]);
    assert_eq!(made[3].numbers().unwrap(), [1.0, 2.0, 0.0, 2.0]);
    assert_eq!(made[4].byte_elements().collect::<Vec<_>>(), [b"dog", b"owl", b"cat", b"owl"]);
    assert_eq!(made[5].numbers().unwrap(), [1.0, 0.0]);
    assert_eq!(made[4].shape, [2, 2]);
}

#[test]
fn a_graph_that_gives_more_places_than_labels_is_the_model_s_fault() {
    let steps = json!([{"top-k": {"from": "y", "k": 1, "names": "n", "labels": ["a"]}}]);
    let mut engine = after(&steps, &json!([{"name": "n", "datatype": "BYTES", "shape": [-1, 1]}]));
    let refused = engine.run(&[Tensor::fp32("x", &[1, 3], &[0.0, 1.0, 2.0]).unwrap()]);
    assert!(matches!(refused, Err(EngineError::Run(_))), "{refused:?}");
}

#[test]
fn a_contract_without_steps_leaves_the_engine_as_it_is() {
    let json = br#"{"schema":1,"inputs":[{"name":"x","datatype":"FP32","shape":[1]}],
        "outputs":[{"name":"y","datatype":"FP32","shape":[1]}]}"#;
    let contract = IoContract::parse(json).unwrap();
    assert!(Processed::new(Fake::new(contract.clone()), &contract).is_err());
}

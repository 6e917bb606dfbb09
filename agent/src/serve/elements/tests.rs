//! Numbers and texts from JSON and back.

use proptest::prelude::*;

use sealift_protocol::tensor::Tensor;

use super::*;

fn fp32(json: &str, shape: &[u64]) -> Result<Vec<u8>, InvalidElements> {
    parse(json, Datatype::Fp32, shape, Null::Refused)
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[test]
fn flat_and_nested_data_are_the_same_elements() {
    let numbers = bytes(&[1.0, 2.5, -3.0, 4e2]);
    assert_eq!(fp32("[1, 2.5, -3, 4e2]", &[2, 2]).unwrap(), numbers);
    assert_eq!(fp32(" [ [1,2.5] ,\n[ -3 , 4E2] ] ", &[2, 2]).unwrap(), numbers);
}

#[test]
fn data_that_contradicts_its_shape_is_refused() {
    let cases = [
        ("[[1,2,3],[4]]", InvalidElements::Length { given: 3, expected: 2 }),
        ("[[1,2],[3,4],[5,6]]", InvalidElements::Length { given: 3, expected: 2 }),
        ("[1,[2]]", InvalidElements::Length { given: 1, expected: 2 }),
        ("[1,[2,3]]", InvalidElements::Mixed),
        ("[[[1]]]", InvalidElements::Depth),
        ("7", InvalidElements::NotAnArray),
    ];
    for (json, error) in cases {
        assert_eq!(fp32(json, &[2, 2]).unwrap_err(), error, "{json}");
    }
}

#[test]
fn a_value_of_another_type_is_refused_and_quoted() {
    let cases = [
        (Datatype::Fp32, "null"),
        (Datatype::Fp32, "\"1\""),
        (Datatype::Fp32, "true"),
        (Datatype::Fp32, "{}"),
        (Datatype::Fp32, "1e39"),
        (Datatype::Fp64, "1e309"),
        (Datatype::Fp16, "65520"),
        (Datatype::Bf16, "1e39"),
        (Datatype::Uint8, "256"),
        (Datatype::Uint8, "-1"),
        (Datatype::Int64, "1.0"),
        (Datatype::Int64, "9223372036854775808"),
        (Datatype::Bool, "2"),
        (Datatype::Bytes, "1"),
    ];
    for (datatype, token) in cases {
        let error = parse(&format!("[{token}]"), datatype, &[1], Null::Refused).unwrap_err();
        assert_eq!(error, InvalidElements::Element { token: token.to_owned(), datatype });
    }
}

#[test]
fn a_missing_number_is_nan_where_tables_have_it() {
    for datatype in [Datatype::Fp16, Datatype::Bf16, Datatype::Fp32, Datatype::Fp64] {
        let bytes = parse("[null,1]", datatype, &[2], Null::Missing).unwrap();
        let tensor = Tensor::new("x".to_owned(), datatype, vec![2], bytes).unwrap();
        let numbers = tensor.numbers().unwrap();
        assert!(numbers[0].is_nan() && numbers[1].total_cmp(&1.0).is_eq(), "{numbers:?}");
    }
    assert!(parse("[null]", Datatype::Int64, &[1], Null::Missing).is_err());
}

#[test]
fn the_shape_of_json_is_that_of_its_first_elements() {
    let cases: [(&str, &[u64]); 9] = [
        ("[1, 2, 3]", &[3]),
        ("[[1,2],[3,4],[5,6]]", &[3, 2]),
        ("[[[1],[2]],[[3],[4]]]", &[2, 2, 1]),
        ("[[],[]]", &[2, 0]),
        ("[]", &[0]),
        ("7", &[]),
        (r#"["a]b,[", "\"]"]"#, &[2]),
        ("[[1,2],[3,4,5]]", &[2, 2]),
        ("[1,[2]]", &[2, 1]),
    ];
    for (json, shape) in cases {
        assert_eq!(shape_of(json), shape, "{json}");
    }
    assert_eq!(shape_of(&"[".repeat(100_000)).len(), LEVELS_MAX);
}

#[test]
fn items_are_cut_at_their_own_commas() {
    let cases: [(&str, &[&str]); 5] = [
        (
            " [1, [2,3] ,{\"a\":[4],\"b,\":\"]\"}, \"é,\" ] ",
            &["1", "[2,3]", "{\"a\":[4],\"b,\":\"]\"}", "\"é,\""],
        ),
        ("[]", &[]),
        ("[ ]", &[]),
        ("{}", &[]),
        ("[[]]", &["[]"]),
    ];
    for (json, items) in cases {
        assert_eq!(Items::of(json).collect::<Vec<_>>(), items, "{json}");
    }
}

#[test]
fn a_hundred_thousand_brackets_are_refused_without_a_crash() {
    let json = "[".repeat(100_000) + &"]".repeat(100_000);
    let shape = vec![1; 100_000];
    assert_eq!(fp32(&json, &shape).unwrap_err(), InvalidElements::Depth);
}

fn tensor() -> impl Strategy<Value = Tensor> {
    let length = 0_usize..20;
    let datatype = prop::sample::select(vec![
        Datatype::Bool,
        Datatype::Uint8,
        Datatype::Uint16,
        Datatype::Uint32,
        Datatype::Uint64,
        Datatype::Int8,
        Datatype::Int16,
        Datatype::Int32,
        Datatype::Int64,
        Datatype::Fp16,
        Datatype::Bf16,
        Datatype::Fp32,
        Datatype::Fp64,
    ]);
    let fixed = (datatype, length.clone()).prop_flat_map(|(datatype, length)| {
        let count = length * datatype.element_bytes().unwrap();
        let byte = if datatype == Datatype::Bool { 0..2 } else { 0..256_u16 };
        prop::collection::vec(byte, count).prop_map(move |bytes| {
            let bytes = bytes.into_iter().map(|byte| u8::try_from(byte).unwrap()).collect();
            Tensor::new("x".to_owned(), datatype, vec![length as u64], bytes).unwrap()
        })
    });
    let text = prop::collection::vec(any::<String>(), length).prop_map(|texts| {
        let pack = |text: &String| {
            let length = u32::try_from(text.len()).unwrap();
            [&length.to_le_bytes(), text.as_bytes()].concat()
        };
        let bytes = texts.iter().flat_map(pack).collect();
        let shape = vec![texts.len() as u64];
        Tensor::new("x".to_owned(), Datatype::Bytes, shape, bytes).unwrap()
    });
    let is_finite = |tensor: &Tensor| {
        tensor.numbers().is_none_or(|numbers| numbers.iter().all(|number| number.is_finite()))
    };
    prop_oneof![fixed, text].prop_filter("JSON has finite numbers only", is_finite)
}

proptest! {
    #[test]
    fn every_bit_survives_json(tensor in tensor()) {
        let json = serde_json::to_string(&Elements(&tensor)).unwrap();
        let bytes = parse(&json, tensor.datatype, &tensor.shape, Null::Refused).unwrap();
        prop_assert_eq!(bytes, tensor.bytes);
    }

    #[test]
    fn any_json_is_elements_or_an_error(json in "[\\[\\]{}\",:0-9a-z. -]{0,40}") {
        if serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok() {
            let _ = fp32(&json, &[1, 1]).is_ok();
        }
    }
}

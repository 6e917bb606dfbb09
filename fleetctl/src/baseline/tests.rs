use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use types::Type;

const CONTRACT: &[u8] = br#"{"schema":1,
    "inputs":[{"name":"x","datatype":"FP32","shape":[-1,2],
               "features":[{"name":"a","group":"g"},{"name":"b","group":"g"}]}],
    "outputs":[{"name":"p","datatype":"FP32","shape":[-1,2],"role":"probabilities","labels":["none","7"]}]}"#;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn made(
    data: &Path,
    contract: Option<&IoContract>,
    types: &[(&str, Type)],
) -> anyhow::Result<Made> {
    let types: Types = types.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    Reference { data, array: None, contract, types: &types, season: None, is_strict: false }.make()
}

fn bytes(data: &Path, contract: Option<&IoContract>) -> Vec<u8> {
    made(data, contract, &[]).unwrap().baseline.encode().unwrap()
}

fn told(data: &Path, types: &[(&str, Type)]) -> String {
    match made(data, None, types) {
        Err(error) => format!("{error:#}"),
        Ok(made) => panic!("{:?} was taken", made.ignored),
    }
}

/// Rows of a number, a number with gaps and a word.
fn row(place: usize) -> (f64, Option<f32>, &'static str) {
    let gap =
        (!place.is_multiple_of(7)).then(|| f32::from(u8::try_from(place % 50).unwrap()) / 10.0);
    let word = ["red", "green", "blue"][place % 3];
    (f64::from(u32::try_from(place * 37 % 101).unwrap()) / 3.0, gap, word)
}

fn csv(separator: char) -> String {
    let mut text = format!("size{separator}gap{separator}colour\n");
    for place in 0..300 {
        let (size, gap, word) = row(place);
        let gap = gap.map(|gap| gap.to_string()).unwrap_or_default();
        writeln!(text, "{size}{separator}{gap}{separator}{word}").unwrap();
    }
    text
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.flat_map(|line| [line, "\n".to_owned()]).collect()
}

fn json_lines() -> String {
    let line = |place: usize| {
        let (size, gap, word) = row(place);
        let gap = gap.map_or_else(|| "null".to_owned(), |gap| gap.to_string());
        format!("{{\"size\": {size}, \"gap\": {gap}, \"colour\": \"{word}\"}}")
    };
    lines((0..300).map(line))
}

/// An array of records, as numpy writes one.
fn npy() -> Vec<u8> {
    let head = "{'descr': [('size', '<f8'), ('gap', '<f4'), ('colour', '<U5')], 'fortran_order': False, 'shape': (300,), }\n";
    let length = u16::try_from(head.len()).unwrap().to_le_bytes();
    let mut file = [b"\x93NUMPY\x01\x00".as_slice(), &length, head.as_bytes()].concat();
    for place in 0..300 {
        let (size, gap, word) = row(place);
        file.extend(size.to_le_bytes());
        file.extend(gap.unwrap_or(f32::NAN).to_le_bytes());
        let letters = word.chars().chain(std::iter::repeat('\0')).take(5);
        file.extend(letters.flat_map(|letter| u32::from(letter).to_le_bytes()));
    }
    file
}

#[test]
fn the_same_rows_make_the_same_baseline_to_the_byte_whatever_they_are_written_in() {
    let files = Files::new();
    let expected = bytes(&files.write("rows.csv", csv(',')), None);
    let with_comma = csv(';').replace('.', ",");
    let others = [
        files.write("rows.tsv", csv('\t')),
        files.write("europe.csv", with_comma),
        files.write("windows.csv", format!("\u{feff}{}", csv(',').replace('\n', "\r\n"))),
        files.write("rows.jsonl", json_lines()),
        files.write("rows.npy", npy()),
        files.write("rows.npz", npz(&[("rows", npy())])),
    ];
    for other in others {
        assert!(bytes(&other, None) == expected, "{}", other.display());
    }
}

/// An archive as `numpy.savez` writes it.
fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut list) = (Vec::new(), Vec::new());
    for (name, array) in arrays {
        let place = u32::try_from(file.len()).unwrap().to_le_bytes();
        let size = u32::try_from(array.len()).unwrap().to_le_bytes();
        let name = format!("{name}.npy");
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        let figures =
            [&[0; 8], checksum(array).to_le_bytes().as_slice(), &size, &size, &length].concat();
        file.extend(
            [b"PK\x03\x04\x14\0".as_slice(), &figures, &[0; 2], name.as_bytes(), array].concat(),
        );
        list.extend(
            [b"PK\x01\x02\x14\0\x14\0".as_slice(), &figures, &[0; 12], &place, name.as_bytes()]
                .concat(),
        );
    }
    let count = u16::try_from(arrays.len()).unwrap().to_le_bytes();
    let sizes = [list.len(), file.len()].map(|size| u32::try_from(size).unwrap().to_le_bytes());
    let end = [b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count, &sizes.concat(), &[0; 2]].concat();
    [file, list, end].concat()
}

fn checksum(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes
        .iter()
        .fold(u32::MAX, |sum, &byte| (0..8).fold(sum ^ u32::from(byte), |sum, _| step(sum)))
}

#[test]
fn of_an_archive_of_several_arrays_one_is_named() {
    let files = Files::new();
    let two = files.write("two.npz", npz(&[("other", npy()[..99].to_vec()), ("rows", npy())]));
    let make = |data: &Path, array| {
        let types = Types::new();
        let reference = Reference {
            data,
            array,
            contract: None,
            types: &types,
            season: None,
            is_strict: false,
        };
        reference.make().map(|made| made.baseline.encode().unwrap())
    };

    let expected = bytes(&files.write("rows.npy", npy()), None);
    assert!(make(&two, Some("rows")).unwrap() == expected);
    for (data, array, expected) in [
        (&two, None, "the archive holds several arrays: `other`, `rows`\nhelp: --array says which"),
        (&two, Some("row"), "no array `row`, but `other`, `rows`"),
        (&two, Some("other"), "cannot read the rows of"),
        (&files.write("rows.csv", csv(',')), Some("rows"), "it is no archive of arrays"),
    ] {
        let refused = format!("{:#}", make(data, array).unwrap_err());
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn types_are_guessed_and_can_be_written_corrected_and_read() {
    let files = Files::new();
    let mut text = String::from("size,postcode,day,note,flag,confidence\n");
    for place in 0..60 {
        let (size, ..) = row(place);
        let (postcode, day) = (100 + place % 4, 1 + place % 28);
        writeln!(
            text,
            "{size},{postcode},2024-01-{day:02},n{place},{},0.9",
            place.is_multiple_of(2)
        )
        .unwrap();
    }
    let path = files.write("rows.csv", text);
    let rows = Rows::read(&path, Told::default()).unwrap();
    let guess = types::text(&rows, &Types::new());
    let kinds = types::read(&files.write("types.toml", &guess)).unwrap();
    let kind = |name: &str| kinds[name];
    assert_eq!([kind("size"), kind("postcode")], [Type::Numeric; 2]);
    assert_eq!([kind("day"), kind("note")], [Type::Ignore; 2]);
    assert_eq!((kind("flag"), kind("confidence")), (Type::Categorical, Type::Confidence));

    let corrected = files.write(
        "types.toml",
        guess.replace("\"postcode\" = \"numeric\"", "\"postcode\" = \"categorical\""),
    );
    let types = types::read(&corrected).unwrap();
    let reference = Reference {
        data: &path,
        array: None,
        contract: None,
        types: &types,
        season: None,
        is_strict: false,
    };
    let baseline = reference.make().unwrap().baseline;
    assert_eq!(baseline.features().iter().filter(|feature| feature.numeric().is_none()).count(), 2);
}

#[test]
fn a_contract_says_which_columns_are_features_and_which_classes_there_are() {
    let files = Files::new();
    let contract = IoContract::parse(CONTRACT).unwrap();
    let text = |class: &str| {
        let rows = (0..40).map(|row| format!("{row},{},{class},x", row % 5));
        lines(["b,a,prediction,other".to_owned()].into_iter().chain(rows))
    };
    let path = files.write("rows.csv", text("none"));
    let baseline = made(&path, Some(&contract), &[]).unwrap().baseline;
    let names: Vec<_> = baseline.features().iter().take(2).map(|feature| &feature.name).collect();
    assert_eq!(names, ["a", "b"]);
    // A class may be called what tools write for nothing.
    assert_eq!(baseline.classes()[0].count, 40);
    assert_eq!(
        bytes(&files.write("seven.csv", text("7.0")), Some(&contract)),
        bytes(&files.write("same.csv", text("7")), Some(&contract))
    );

    let refused = |text: String| {
        format!("{:#}", made(&files.write("bad.csv", text), Some(&contract), &[]).err().unwrap())
    };
    assert!(refused(text("dog")).contains("row 1 predicts `dog`"));
    assert!(refused("a\n1\n".to_owned()).contains("no column `b`, which the contract has"));
    let codes = made(&path, Some(&contract), &[("a", Type::Categorical)]).unwrap().baseline;
    let sealift_protocol::profile::Reference::Categorical(codes) = &codes.features()[0].reference
    else {
        panic!()
    };
    assert_eq!(
        codes.domain.iter().map(|code| (code.name.as_str(), code.count)).next_back(),
        Some(("4", 8))
    );
}

#[test]
fn what_makes_no_baseline_is_told() {
    let files = Files::new();
    for (name, text, expected) in [
        ("empty.csv", "", "the file is empty"),
        ("head.csv", "a,b\n", "no rows below the head"),
        ("twice.csv", "a,a\n1,2\n", "column `a` is there twice"),
        ("none.csv", "a,b\n,\n,\n", "no column that can be watched: `a`: it is empty"),
        ("rows.xyz", "a,b\n1,2\n", "nothing tells what it is"),
        ("rows.parquet", "a,b\n1,2\n", "it is not a Parquet file"),
        ("rows.npz", "PK\x03\x04", "not a .npz archive, or a damaged one: its end is missing"),
        ("rows.xlsx", "PK\x03\x04", "it is an archive"),
        ("csv.npz", "a,b\n1,2\n", "it is not a .npz file"),
        ("rows.csv.gz", "\x1f", "nothing tells"),
        (
            "nested.jsonl",
            "{\"a\": 1, \"tags\": [1]}\n",
            "column `tags` cannot be watched: it holds lists",
        ),
        ("broken.jsonl", "{\"a\": 1}\n{\"a\":\n", "line 2"),
        ("list.json", "[\n{\"a\": 1}\n]\n", "line 1"),
    ] {
        let told = told(&files.write(name, text), &[]);
        assert!(told.contains(expected) && told.contains(name), "{name}: {told}");
    }
    let words = files.write("words.csv", "a,b\nx,1\ny,2\n");
    assert!(told(&words, &[("a", Type::Numeric)]).contains("`a` is numeric and has no number"));
    assert!(
        told(&words, &[("c", Type::Numeric)])
            .contains("no column `c`, which the file of types has")
    );
}

#[test]
fn a_nested_column_that_is_set_aside_is_no_obstacle() {
    let files = Files::new();
    let lines = lines((0..30).map(|row| format!("{{\"a\": {}, \"tags\": [{row}]}}", row * row)));
    let path = files.write("rows.jsonl", lines);
    assert_eq!(made(&path, None, &[("tags", Type::Ignore)]).unwrap().baseline.features().len(), 1);
}

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::super::Value;
use super::super::npy::Table;
use super::*;

/// `numpy.savez_compressed(file, rows=numpy.arange(6, dtype="<i2").reshape(2, 3), other=numpy.zeros(3, "<f4"))`, NumPy 2.4.6.
const TWO: &str = "UEsDBC0AAAAIAAAAIQAaTph+//////////8IABQAcm93cy5ucHkBABAAjAAAAAAAAABSAAAAAAAAAJvsF+ob\
    EMnIUMZQrZ6SWpxcpG6loG6TaaSuo6Cell9UUpSYF59flJIKEndLzClOBYoXZyQWpAL5GkY6CsaaOgq1CmQDLgYGRgYm\
    BmYGFgZWBgBQSwMELQAAAAgAAAAhAKn2mxj//////////wkAFABvdGhlci5ucHkBABAAjAAAAAAAAABHAAAAAAAAAJvs\
    F+obEMnIUMZQrZ6SWpxcpG6loG6TZqKuo6Cell9UUpSYF59flJIKEndLzClOBYoXZyQWpAL5GsY6mjoKtQoUAC4GJAAA\
    UEsBAi0DLQAAAAgAAAAhABpOmH5SAAAAjAAAAAgAAAAAAAAAAAAAAIABAAAAAHJvd3MubnB5UEsBAi0DLQAAAAgAAAAh\
    AKn2mxhHAAAAjAAAAAkAAAAAAAAAAAAAAIABjAAAAG90aGVyLm5weVBLBQYAAAAAAgACAG0AAAAOAQAAAAA=";

/// `numpy.savez(file, numpy.arange(6, dtype="<i2").reshape(2, 3))`, likewise.
const ONE: &str = "UEsDBC0AAAAAAAAAIQAaTph+//////////8JABQAYXJyXzAubnB5AQAQAIwAAAAAAAAAjAAAAAAAAACTTlVN\
    UFkBAHYAeydkZXNjcic6ICc8aTInLCAnZm9ydHJhbl9vcmRlcic6IEZhbHNlLCAnc2hhcGUnOiAoMiwgMyksIH0gICAg\
    ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgCgAAAQACAAMABAAFAFBL\
    AQItAy0AAAAAAAAAIQAaTph+jAAAAIwAAAAJAAAAAAAAAAAAAACAAQAAAABhcnJfMC5ucHlQSwUGAAAAAAEAAQA3AAAA\
    xwAAAAAA";

fn archive(text: &str) -> Vec<u8> {
    STANDARD.decode(text.split_whitespace().collect::<String>()).unwrap()
}

fn array(bytes: &[u8], name: Option<&str>) -> Result<Vec<u8>, String> {
    let archive = Archive::open(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let mut array = archive.array(name).map_err(|error| error.to_string())?;
    let mut read = Vec::new();
    array.read_to_end(&mut read).map_err(|error| error.to_string())?;
    assert_eq!(array.left(), 0);
    Ok(read)
}

fn rows(bytes: Vec<u8>) -> Vec<Vec<Value>> {
    Table::open(Cursor::new(bytes)).unwrap().next(9).unwrap().unwrap()
}

/// Where the list begins, and where in it the first array's entry is.
fn list(bytes: &[u8]) -> usize {
    bytes.windows(4).position(|four| four == LISTED.to_le_bytes()).unwrap()
}

fn with(mut bytes: Vec<u8>, place: usize, new: &[u8]) -> Vec<u8> {
    bytes[place..place + new.len()].copy_from_slice(new);
    bytes
}

#[test]
fn what_numpy_saves_is_read_stored_or_deflated() {
    let ints = |values: [i64; 2]| values.map(Value::Int).to_vec();
    let expected = vec![ints([0, 3]), ints([1, 4]), ints([2, 5])];
    assert_eq!(rows(array(&archive(ONE), None).unwrap()), expected);
    assert_eq!(rows(array(&archive(ONE), Some("arr_0")).unwrap()), expected);
    assert_eq!(rows(array(&archive(TWO), Some("rows")).unwrap()), expected);
    let remark = with(archive(ONE), archive(ONE).len() - 2, &[3, 0]);
    let remark = [remark.as_slice(), b"PK!"].concat();
    assert_eq!(rows(array(&remark, None).unwrap()), expected);
}

#[test]
fn of_several_arrays_it_must_be_said_which() {
    let told = |name| array(&archive(TWO), name).unwrap_err();
    assert_eq!(told(None), "the archive holds several arrays: `rows`, `other`");
    assert_eq!(told(Some("row")), "the archive holds no array `row`, but `rows`, `other`");
    let other = with(archive(ONE), list(&archive(ONE)) + LISTED_BYTES + 5, b".txt");
    assert_eq!(array(&other, None).unwrap_err(), "the archive holds no array");
    let twice = with(archive(ONE), archive(ONE).len() - 14, &[2, 0, 2, 0]);
    assert!(array(&twice, None).unwrap_err().contains("cut off"));
}

#[test]
fn what_is_not_taken_is_told_in_one_line() {
    let one = archive(ONE);
    let list = list(&one);
    let all = u32::MAX.to_le_bytes();
    for (bad, told) in [
        (with(one.clone(), list + 8, &[1, 0]), "array `arr_0` is encrypted"),
        (with(one.clone(), list + 10, &[14, 0]), "array `arr_0` is packed by method 14"),
        (with(one.clone(), list + 24, &all), "zip64"),
        (with(one.clone(), one.len() - 6, &all), "zip64"),
        (with(one.clone(), list + 24, &[0, 0, 0, 0x7f]), "at most 1073741824 are taken"),
        (with(one.clone(), list + 24, &[1, 0, 0, 0]), "two lengths"),
        (with(one.clone(), list + 42, &[1]), "not where its list says"),
        (with(one.clone(), list + 28, &[0xff, 0]), "a name in the archive has 255 bytes"),
        (with(one.clone(), one.len() - 14, &[0xe9, 3, 0xe9, 3]), "has 1001 entries"),
        (with(one.clone(), one.len() - 18, &[1]), "a part of one"),
        (with(one.clone(), 160, b"X"), "its checksum differs"),
        (one[..one.len() - 1].to_vec(), "its end is missing"),
        (b"PK\x03\x04 and more".to_vec(), "its end is missing"),
        (Vec::new(), "its end is missing"),
    ] {
        let refused = array(&bad, None).unwrap_err();
        assert!(refused.contains(told) && !refused.contains('\n'), "{told}: {refused}");
    }
}

/// A kilobyte that would become a gigabyte: 42.zip and its kin promise little and give much, or promise what cannot be.
#[test]
fn a_zip_bomb_is_refused_before_it_is_inflated_or_where_it_gives_more_than_it_said() {
    let two = archive(TWO);
    let (list, size) = (list(&two), 0x8c_u32);
    let told = |said: u32| {
        let bytes = with(two.clone(), list + 24, &said.to_le_bytes());
        array(&bytes, Some("rows")).unwrap_err()
    };
    assert!(told(1 << 30).contains("which 82 packed ones cannot hold"), "{}", told(1 << 30));
    assert!(told(82 * 1_032 + 1).contains("cannot hold"));
    assert!(told(82 * 1_032).contains("ends before its length"));
    assert!(told(size - 1).contains("longer than its length"), "{}", told(size - 1));
    assert!(array(&two, Some("rows")).is_ok());
}

proptest! {
    /// Whatever is flipped or cut, an archive is read as what it was or refused: never more, and never otherwise.
    #[test]
    fn a_damaged_archive_is_refused_or_read_as_it_was(
        place in any::<prop::sample::Index>(),
        flip in 1..=u8::MAX,
        cut in any::<prop::sample::Index>(),
    ) {
        for (text, name) in [(ONE, None), (TWO, Some("rows"))] {
            let whole = archive(text);
            let expected = array(&whole, name).unwrap();
            let mut bytes = whole.clone();
            bytes[place.index(whole.len())] ^= flip;
            for bad in [bytes.as_slice(), &whole[..cut.index(whole.len())]] {
                if let Ok(read) = array(bad, name) {
                    prop_assert_eq!(&read, &expected);
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = array(&[bytes.as_slice(), &archive(ONE)[archive(ONE).len() - 22..]].concat(), None);
        let _ = array(&bytes, None);
    }
}

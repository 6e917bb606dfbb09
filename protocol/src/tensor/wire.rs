//! Tensors as bytes, little-endian, read without a parser: on the Unix socket, and between agent and worker.
//!
//! ```text
//!  count u16 │ for each: datatype u8 │ rank u8 │ name length u16 │ data length u64 │ rank × u64 │ name │ data
//! ```

use std::io::{self, Write};

use super::{Datatype, InvalidTensor, Tensor};

/// Fixed bytes before the dimensions of a tensor.
const HEAD_BYTES: usize = 12;

/// Why bytes are not tensors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTensors {
    /// They end within a tensor.
    #[error("tensors are cut off")]
    CutOff,
    /// A number that stands for no element type.
    #[error("{0} is the number of no datatype")]
    Datatype(u8),
    /// A name that is not UTF-8.
    #[error("the name of a tensor is not UTF-8")]
    Name,
    /// Type, shape and data contradict each other.
    #[error("{0}")]
    Tensor(#[from] InvalidTensor),
    /// More tensors, dimensions or letters of a name than the form has room for.
    #[error("tensors do not fit their form: {0}")]
    TooMany(&'static str),
    /// Whatever they are written to does not take them.
    #[error("tensors cannot be written: {0}")]
    Write(io::ErrorKind),
}

/// Bytes that `tensors` take.
pub fn length(tensors: &[Tensor]) -> usize {
    let of_one = |tensor: &Tensor| {
        HEAD_BYTES + 8 * tensor.shape.len() + tensor.name.len() + tensor.bytes.len()
    };
    2 + tensors.iter().map(of_one).sum::<usize>()
}

/// Appends `tensors` to `out`.
pub fn write(tensors: &[Tensor], out: &mut Vec<u8>) -> Result<(), InvalidTensors> {
    out.reserve(length(tensors));
    write_to(tensors, out)
}

/// Writes `tensors` to `out`, which is best a buffer: it takes each of them in several pieces.
pub fn write_to(tensors: &[Tensor], out: &mut impl Write) -> Result<(), InvalidTensors> {
    let mut put =
        |bytes: &[u8]| out.write_all(bytes).map_err(|error| InvalidTensors::Write(error.kind()));
    let count = u16::try_from(tensors.len()).map_err(|_| InvalidTensors::TooMany("tensors"))?;
    put(&count.to_le_bytes())?;
    for tensor in tensors {
        let rank = u8::try_from(tensor.shape.len());
        let rank = rank.map_err(|_| InvalidTensors::TooMany("dimensions"))?;
        let name_bytes = u16::try_from(tensor.name.len());
        let name_bytes = name_bytes.map_err(|_| InvalidTensors::TooMany("letters of a name"))?;
        put(&[tensor.datatype.number(), rank])?;
        put(&name_bytes.to_le_bytes())?;
        put(&(tensor.bytes.len() as u64).to_le_bytes())?;
        tensor.shape.iter().try_for_each(|length| put(&length.to_le_bytes()))?;
        put(tensor.name.as_bytes())?;
        put(&tensor.bytes)?;
    }
    Ok(())
}

/// Takes tensors from the front of `bytes`; each is what it says it is.
pub fn read(bytes: &mut &[u8]) -> Result<Vec<Tensor>, InvalidTensors> {
    let count = u16::from_le_bytes(array(bytes)?);
    // The announced number reserves nothing: a tensor takes at least its head.
    let mut tensors = Vec::with_capacity(usize::from(count).min(bytes.len() / HEAD_BYTES));
    for _ in 0..count {
        tensors.push(read_one(bytes)?);
    }
    Ok(tensors)
}

fn read_one(bytes: &mut &[u8]) -> Result<Tensor, InvalidTensors> {
    let [number, rank] = array(bytes)?;
    let name_bytes = u16::from_le_bytes(array(bytes)?);
    let data_bytes = u64::from_le_bytes(array(bytes)?);
    let mut shape = Vec::with_capacity(usize::from(rank));
    for _ in 0..rank {
        shape.push(u64::from_le_bytes(array(bytes)?));
    }
    let name = str::from_utf8(take(bytes, u64::from(name_bytes))?);
    let name = name.map_err(|_| InvalidTensors::Name)?.to_owned();
    let data = take(bytes, data_bytes)?.to_vec();
    let datatype = Datatype::from_number(number).ok_or(InvalidTensors::Datatype(number))?;
    Ok(Tensor::new(name, datatype, shape, data)?)
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], InvalidTensors> {
    let (array, rest) = bytes.split_first_chunk().ok_or(InvalidTensors::CutOff)?;
    *bytes = rest;
    Ok(*array)
}

fn take<'a>(bytes: &mut &'a [u8], count: u64) -> Result<&'a [u8], InvalidTensors> {
    let count = usize::try_from(count).map_err(|_| InvalidTensors::CutOff)?;
    let (taken, rest) = bytes.split_at_checked(count).ok_or(InvalidTensors::CutOff)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
        let datatype = prop::sample::select(Datatype::ALL.to_vec());
        let tensor = ("[a-zé]{0,9}", datatype, 0_u64..5, any::<u8>()).prop_map(
            |(name, datatype, n, fill)| {
                let length = datatype.element_bytes();
                let bytes = match length {
                    Some(length) => vec![fill; length * usize::try_from(n).unwrap()],
                    None => (0..n).flat_map(|_| [1, 0, 0, 0, fill]).collect(),
                };
                Tensor::new(name, datatype, vec![1, n], bytes).unwrap()
            },
        );
        prop::collection::vec(tensor, 0..5)
    }

    proptest! {
        #[test]
        fn tensors_survive_and_what_follows_is_left(tensors in tensors(), after in prop::collection::vec(any::<u8>(), 0..9)) {
            let mut bytes = Vec::new();
            write(&tensors, &mut bytes).unwrap();
            let end = bytes.len();
            prop_assert_eq!(end, length(&tensors));
            bytes.extend(&after);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(read(&mut rest).unwrap(), tensors);
            prop_assert_eq!(rest, after.as_slice());
            for cut in 0..end {
                prop_assert!(read(&mut &bytes[..cut]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_tensors_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&mut bytes.as_slice()).is_ok();
        }
    }

    #[test]
    fn the_numbers_of_datatypes_never_change() {
        let numbers: Vec<_> = Datatype::ALL.iter().map(|datatype| datatype.number()).collect();
        assert_eq!(numbers, (0..14).collect::<Vec<u8>>());
        assert_eq!(Datatype::from_number(11), Some(Datatype::Fp32));
        assert_eq!(
            read(&mut [1, 0, 14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].as_slice()).unwrap_err(),
            InvalidTensors::Datatype(14)
        );
    }

    #[test]
    fn a_length_of_2_to_the_60_reserves_nothing() {
        let mut bytes = vec![1, 0, 1, 1, 0, 0];
        bytes.extend((1_u64 << 60).to_le_bytes());
        bytes.extend((1_u64 << 60).to_le_bytes());
        assert_eq!(read(&mut bytes.as_slice()).unwrap_err(), InvalidTensors::CutOff);
    }
}

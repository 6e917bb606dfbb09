//! Which pictures of a request are looked at, and what was seen of them, as parts of a frame: a count in 16 bits, and so many of them.

use sealift_protocol::picture::{FIGURES, Figures};

/// Bytes of one number.
const NUMBER_BYTES: usize = 4;

/// Writes places.
pub(super) fn write_places(places: &[u16], frame: &mut Vec<u8>) -> Option<()> {
    frame.extend(u16::try_from(places.len()).ok()?.to_le_bytes());
    frame.extend(places.iter().flat_map(|place| place.to_le_bytes()));
    Some(())
}

/// Reads places, and what comes after them; nothing if they are cut off.
pub(super) fn read_places(rest: &[u8]) -> Option<(Vec<u16>, &[u8])> {
    let (bytes, rest) = counted(rest, size_of::<u16>())?;
    Some((bytes.as_chunks().0.iter().map(|place| u16::from_le_bytes(*place)).collect(), rest))
}

/// Writes figures.
pub(super) fn write_figures(figures: &[Figures], frame: &mut Vec<u8>) -> Option<()> {
    frame.extend(u16::try_from(figures.len()).ok()?.to_le_bytes());
    frame.extend(figures.iter().flatten().flat_map(|figure| figure.to_le_bytes()));
    Some(())
}

/// Reads figures, and what comes after them; nothing if they are cut off.
pub(super) fn read_figures(rest: &[u8]) -> Option<(Vec<Figures>, &[u8])> {
    let (bytes, rest) = counted(rest, FIGURES * NUMBER_BYTES)?;
    let of_picture = |bytes: &[u8]| {
        let mut figures = [0.0; FIGURES];
        let numbers = figures.iter_mut().zip(bytes.as_chunks().0);
        numbers.for_each(|(to, number)| *to = f32::from_le_bytes(*number));
        figures
    };
    Some((bytes.chunks_exact(FIGURES * NUMBER_BYTES).map(of_picture).collect(), rest))
}

/// As many bytes as the count before them says, and the rest.
fn counted(rest: &[u8], element_bytes: usize) -> Option<(&[u8], &[u8])> {
    let (count, rest) = rest.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*count)) * element_bytes)
}

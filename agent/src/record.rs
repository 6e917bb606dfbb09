//! One record of an append-only file: length and CRC-32 of the content, then the content. A torn tail is recognised and ignored.

/// Bytes before the content: its length and its checksum, each 4 bytes, little-endian.
pub(crate) const HEADER_BYTES: usize = 8;

/// No record is longer; a length beyond it is damage.
pub(crate) const CONTENT_BYTES_MAX: usize = 1 << 20;

/// Frames `content`; none where it is longer than a record may be.
pub(crate) fn frame(content: &[u8]) -> Option<Vec<u8>> {
    let length =
        u32::try_from(content.len()).ok().filter(|_| content.len() <= CONTENT_BYTES_MAX)?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(crc32fast::hash(content).to_le_bytes());
    bytes.extend(content);
    Some(bytes)
}

/// The first record's content and what follows it; none at the end, and where the rest is torn or damaged.
pub(crate) fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (content, rest) = rest.split_at_checked(length)?;
    let is_whole = crc32fast::hash(content) == u32::from_le_bytes(*checksum);
    (is_whole && length <= CONTENT_BYTES_MAX).then_some((content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_torn_or_damaged_tail_costs_only_itself(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8),
            cut in any::<prop::sample::Index>(),
            flip in any::<bool>(),
        ) {
            let frames: Vec<_> = contents.iter().map(|content| frame(content).unwrap()).collect();
            let mut bytes = frames.concat();
            let at = cut.index(bytes.len());
            if flip { bytes[at] ^= 0x40 } else { bytes.truncate(at) }
            let whole = frames.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) });
            let whole = whole.take_while(|&end| end <= at).count();

            let mut read = Vec::new();
            let mut rest = bytes.as_slice();
            while let Some((content, after)) = split(rest) {
                read.push(content.to_vec());
                rest = after;
            }

            prop_assert_eq!(&read, &contents[..whole]);
        }
    }
}

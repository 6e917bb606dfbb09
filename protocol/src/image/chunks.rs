//! Digests of a layer's chunks, signed with its manifest: a device that has them knows a wrong byte within a MiB, and fetches only
//! that MiB again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::{Layer, annotation};
use crate::digest::Digest;

/// Bytes of a chunk; the last one of a layer is shorter.
pub const CHUNK_BYTES: u64 = 1 << 20;

/// The digests of all chunks of a layer, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkList(Vec<Digest>);

impl ChunkList {
    /// Hashes the chunks of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let chunk_bytes = usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX);
        Self(bytes.chunks(chunk_bytes).map(Digest::of).collect())
    }

    /// The digest of a chunk.
    pub fn get(&self, number: usize) -> Option<Digest> {
        self.0.get(number).copied()
    }

    /// The value of the annotation [`annotation::CHUNKS`]: all digests, 32 bytes each, in base64.
    pub fn write(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().flat_map(|digest| *digest.as_bytes()).collect();
        STANDARD_NO_PAD.encode(bytes)
    }

    /// Reads the annotation of a layer of `size_bytes`; none unless there is exactly one digest for each chunk.
    pub fn read(text: &str, size_bytes: u64) -> Option<Self> {
        let bytes = STANDARD_NO_PAD.decode(text).ok()?;
        let (digests, rest) = bytes.as_chunks::<32>();
        let is_complete = digests.len() as u64 == size_bytes.div_ceil(CHUNK_BYTES);
        let digests = digests.iter().map(|bytes| Digest::from_bytes(*bytes)).collect();
        (rest.is_empty() && is_complete).then_some(Self(digests))
    }
}

impl Layer {
    /// The digests of the layer's chunks, if its publisher has signed any.
    pub fn chunks(&self) -> Option<ChunkList> {
        ChunkList::read(self.blob.annotations.get(annotation::CHUNKS)?, self.blob.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_its_writing_and_fits_its_layer_alone() {
        let bytes = vec![7; 2 * 1024 * 1024 + 1];
        let list = ChunkList::of(&bytes);

        let text = list.write();

        assert_eq!(ChunkList::read(&text, bytes.len() as u64), Some(list.clone()));
        assert_eq!(list.get(2), Some(Digest::of(&[7])));
        assert_eq!((list.get(0) == list.get(1), list.get(3)), (true, None));
        assert_eq!(ChunkList::read(&text, bytes.len() as u64 - 1), None, "a chunk too many");
        assert_eq!(ChunkList::read(&text[..text.len() - 4], bytes.len() as u64), None);
        assert_eq!(ChunkList::read("", 0), Some(ChunkList(Vec::new())));
    }
}

//! Which requests fall to the challenger: by a key of the application, the same key always to the same image; or one by one.

use std::sync::atomic::{AtomicU64, Ordering};

use sealift_protocol::digest::Digest;

/// By what requests are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::serve) enum Split<'a> {
    /// Whoever or whatever the request is about.
    Key(&'a [u8]),
    /// Each for itself.
    Each,
    /// The application names the version that it wants.
    Never,
}

impl Split<'_> {
    /// Whether the request is in the challenger's share. The hash is keyed by the image: the same key falls alike on every device, and
    /// otherwise for the next image.
    pub(super) fn falls_to_challenger(self, permille: u16, seed: Digest, turn: &AtomicU64) -> bool {
        let place = match self {
            Self::Key(key) => place(seed, b'k', key),
            Self::Each => {
                let number = turn.fetch_add(1, Ordering::Relaxed);
                place(seed, b'n', &number.to_le_bytes())
            }
            Self::Never => return false,
        };
        // The two draws are 2^64 wide and a thousand parts: what is uneven is less than can be counted.
        place % 1_000 < u64::from(permille)
    }
}

fn place(seed: Digest, kind: u8, of: &[u8]) -> u64 {
    let mut hashed = seed.to_string().into_bytes();
    hashed.push(kind);
    hashed.extend_from_slice(of);
    let hex = Digest::of(&hashed).hex();
    let upper = hex.get(..16).unwrap_or_default();
    u64::from_str_radix(upper, 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(text: &[u8]) -> Digest {
        Digest::of(text)
    }

    fn share(permille: u16, split: impl Fn(&[u8]) -> bool) -> u32 {
        let fallen = (0..10_000_u32).filter(|number| split(&number.to_le_bytes()));
        let count = u32::try_from(fallen.count()).unwrap();
        // Five standard deviations of a fair draw.
        assert!(count.abs_diff(u32::from(permille) * 10) < 250, "{count} for {permille}");
        count
    }

    #[test]
    fn a_key_always_falls_alike_and_keys_fall_by_their_share() {
        let turn = AtomicU64::new(0);
        let falls = |permille, image: &[u8], key: &[u8]| {
            Split::Key(key).falls_to_challenger(permille, seed(image), &turn)
        };
        for permille in [50, 200, 500] {
            share(permille, |key| falls(permille, b"image", key));
        }
        let both = (0..10_000_u32).map(u32::to_le_bytes);
        let alike = both.filter(|key| falls(200, b"image", key) == falls(200, b"other", key));
        assert!((6_500..7_100).contains(&alike.count()), "other keys fall to the next image");
        // Who is in a small share is in every larger one.
        let small = (0..10_000_u32).map(u32::to_le_bytes).filter(|key| falls(50, b"image", key));
        assert!(small.into_iter().all(|key| falls(200, b"image", &key)));
        assert_eq!(turn.into_inner(), 0, "a key uses up no turn");
    }

    #[test]
    fn without_a_key_each_request_falls_for_itself_the_same_way_every_time() {
        let story = || {
            let turn = AtomicU64::new(0);
            let fall = |_: u32| Split::Each.falls_to_challenger(200, seed(b"image"), &turn);
            (0..1_000).map(fall).collect::<Vec<_>>()
        };
        assert_eq!(story(), story());
        let turn = AtomicU64::new(0);
        share(200, |_| Split::Each.falls_to_challenger(200, seed(b"image"), &turn));
        assert!(!Split::Never.falls_to_challenger(500, seed(b"image"), &turn));
    }
}

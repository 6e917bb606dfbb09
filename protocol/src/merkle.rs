//! A Merkle tree over a list that only grows, by RFC 9162, section 2.1 (the hashes of RFC 6962): who knows one root can tell whether any
//! row was edited, removed or put elsewhere since, and anybody can be shown one row without the rest.
//!
//! ```text
//!             root of 7                 a proof is a list of subtrees: which ones is said here,
//!            /         \                where their hashes are kept is the caller's business
//!        [0,4)          [4,7)
//!       /     \        /     \
//!    [0,2)   [2,4)  [4,6)     6         peaks of 7: [0,4) [4,6) [6,7)
//! ```

use std::ops::Range;

use crate::digest::{Digest, Hasher};

/// RFC 9162, section 2.1.1: leaves and nodes are hashed under different prefixes, so that a node cannot be passed off as a row.
const LEAF_PREFIX: u8 = 0;
/// As above, for nodes.
const NODE_PREFIX: u8 = 1;

/// Why a proof was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProof {
    /// The sizes make no sense: a row beyond the end, or a tree that shrank.
    #[error("row or size lies beyond the tree")]
    Range,
    /// More or fewer hashes than the sizes demand.
    #[error("proof has another number of hashes than the sizes demand")]
    Length,
    /// The hashes lead to another root.
    #[error("proof leads to another root")]
    Root,
}

/// RFC 9162, section 2.1.1: the hash of a row.
pub fn leaf_hash(row: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(&[LEAF_PREFIX]);
    hasher.update(row);
    hasher.finish()
}

/// RFC 9162, section 2.1.1: the hash of a node over its two children.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(&[NODE_PREFIX]);
    hasher.update(left.as_bytes());
    hasher.update(right.as_bytes());
    hasher.finish()
}

/// The right edge of a tree: all that appending needs, however many rows there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    size: u64,
    /// Roots of the complete subtrees, largest first: one for each bit that is set in `size`.
    peaks: Vec<Digest>,
}

impl Tree {
    /// A tree as it was kept; none unless there is one peak for each bit of `size`.
    pub fn of(size: u64, peaks: Vec<Digest>) -> Option<Self> {
        let is_whole = u32::try_from(peaks.len()).is_ok_and(|count| count == size.count_ones());
        is_whole.then_some(Self { size, peaks })
    }

    /// How many rows it has.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the complete subtrees, largest first.
    pub fn peaks(&self) -> &[Digest] {
        &self.peaks
    }

    /// Appends a row by its hash. RFC 9162, section 2.1.2: a subtree is complete as soon as its right half is.
    pub fn append(&mut self, leaf: Digest) {
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            // One peak for each bit that is set.
            let Some(left) = self.peaks.pop() else { break };
            node = node_hash(&left, &node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// RFC 9162, section 2.1.1: the root; of no rows, the hash of nothing.
    pub fn root(&self) -> Digest {
        let above = |right: Digest, left: &Digest| node_hash(left, &right);
        match self.peaks.split_last() {
            None => Digest::of(&[]),
            Some((last, rest)) => rest.iter().rev().fold(*last, above),
        }
    }
}

impl FromIterator<Digest> for Tree {
    fn from_iter<T: IntoIterator<Item = Digest>>(leaves: T) -> Self {
        let mut tree = Self::default();
        leaves.into_iter().for_each(|leaf| tree.append(leaf));
        tree
    }
}

/// The subtrees whose roots prove that row `index` (from 0) is in the tree of the first `size` rows, from the row upwards.
/// RFC 9162, section 2.1.3.1.
pub fn inclusion_subtrees(index: u64, size: u64) -> Result<Vec<Range<u64>>, InvalidProof> {
    if index >= size {
        return Err(InvalidProof::Range);
    }
    let mut subtrees = Vec::new();
    let mut tree = 0..size;
    while tree.end - tree.start > 1 {
        let (left, right) = halves(&tree);
        if index < left.end {
            subtrees.push(right);
            tree = left;
        } else {
            subtrees.push(left);
            tree = right;
        }
    }
    subtrees.reverse();
    Ok(subtrees)
}

/// The subtrees whose roots prove that the first `old` of `new` rows are the same as ever. RFC 9162, section 2.1.4.1.
pub fn consistency_subtrees(old: u64, new: u64) -> Result<Vec<Range<u64>>, InvalidProof> {
    if old > new {
        return Err(InvalidProof::Range);
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let mut subtrees = Vec::new();
    let mut tree = 0..new;
    while tree.end != old {
        let (left, right) = halves(&tree);
        if old <= left.end {
            subtrees.push(right);
            tree = left;
        } else {
            subtrees.push(left);
            tree = right;
        }
    }
    // Where the old tree is a whole subtree of the new one from the begin, its root is known to whoever asks.
    if tree.start > 0 {
        subtrees.push(tree);
    }
    subtrees.reverse();
    Ok(subtrees)
}

/// RFC 9162, section 2.1.1: the left half is the largest complete subtree that is smaller than the whole.
fn halves(tree: &Range<u64>) -> (Range<u64>, Range<u64>) {
    let size = tree.end - tree.start;
    let middle = tree.start + (1 << (size - 1).ilog2());
    (tree.start..middle, middle..tree.end)
}

/// RFC 9162, section 2.1.3.2: whether the hash of a row, `index` from 0, is in the tree of this size and root.
pub fn verify_inclusion(
    leaf: Digest,
    (index, size): (u64, u64),
    proof: &[Digest],
    root: &Digest,
) -> Result<(), InvalidProof> {
    if index >= size {
        return Err(InvalidProof::Range);
    }
    let mut path = Path { first: index, last: size - 1 };
    let mut node = leaf;
    for sibling in proof {
        node = match path.climb()? {
            Side::Left => node_hash(sibling, &node),
            Side::Right => node_hash(&node, sibling),
        };
    }
    path.end()?;
    if node == *root { Ok(()) } else { Err(InvalidProof::Root) }
}

/// RFC 9162, section 2.1.4.2: whether the tree of the second size and root begins with that of the first.
pub fn verify_consistency(
    (old, old_root): (u64, &Digest),
    (new, new_root): (u64, &Digest),
    proof: &[Digest],
) -> Result<(), InvalidProof> {
    if old > new {
        return Err(InvalidProof::Range);
    }
    if old == 0 || old == new {
        let expected = if old == 0 { Digest::of(&[]) } else { *new_root };
        let is_same = *old_root == expected;
        return match (proof, is_same) {
            ([], true) => Ok(()),
            ([], false) => Err(InvalidProof::Root),
            ([_, ..], _) => Err(InvalidProof::Length),
        };
    }
    // A complete old tree is itself the first node of the way up, and is not sent.
    let known = old.is_power_of_two().then_some(old_root);
    let mut nodes = known.into_iter().chain(proof);
    let seed = *nodes.next().ok_or(InvalidProof::Length)?;
    let below = (old - 1).trailing_ones();
    let mut path = Path { first: (old - 1) >> below, last: (new - 1) >> below };
    let (mut before, mut after) = (seed, seed);
    for node in nodes {
        match path.climb()? {
            Side::Left => {
                before = node_hash(node, &before);
                after = node_hash(node, &after);
            }
            Side::Right => after = node_hash(&after, node),
        }
    }
    path.end()?;
    if before == *old_root && after == *new_root { Ok(()) } else { Err(InvalidProof::Root) }
}

/// Where the next hash of a proof stands beside the node reached so far.
enum Side {
    Left,
    Right,
}

/// The way from a node up to the root: the numbers of the node and of the last node, on the level reached so far.
struct Path {
    first: u64,
    last: u64,
}

impl Path {
    fn climb(&mut self) -> Result<Side, InvalidProof> {
        if self.last == 0 {
            return Err(InvalidProof::Length);
        }
        let is_right_child = self.first & 1 == 1;
        let side = if is_right_child || self.first == self.last { Side::Left } else { Side::Right };
        if matches!(side, Side::Left) && !is_right_child {
            // A last node without a sibling rises until it has one.
            let levels = self.first.trailing_zeros().min(u64::BITS - 1);
            self.first >>= levels;
            self.last >>= levels;
        }
        self.first >>= 1;
        self.last >>= 1;
        Ok(side)
    }

    const fn end(&self) -> Result<(), InvalidProof> {
        if self.last == 0 { Ok(()) } else { Err(InvalidProof::Length) }
    }
}

#[cfg(test)]
mod tests;

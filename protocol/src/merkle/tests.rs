//! Against known answers, against the definition written down naively, and laws over trees of any size.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::digest::decode_hex;

/// The eight rows that implementations of RFC 6962 are compared with.
const ROWS: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];

/// The roots of the first 0, 1, … 8 of them.
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

/// RFC 9162, section 2.1.1, word for word: split at the largest power of two below the size.
fn naive_root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of(b""),
        [leaf] => *leaf,
        _ => {
            let mut split = 1;
            while split * 2 < leaves.len() {
                split *= 2;
            }
            let (left, right) = (naive_root(&leaves[..split]), naive_root(&leaves[split..]));
            let bytes = [&[1], &left.as_bytes()[..], &right.as_bytes()[..]].concat();
            Digest::of(&bytes)
        }
    }
}

/// RFC 9162, section 2.1.3.1, word for word.
fn naive_inclusion(index: usize, leaves: &[Digest]) -> Vec<Digest> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let split = 1 << (usize::BITS - 1 - (leaves.len() - 1).leading_zeros());
    let (left, right) = leaves.split_at(split);
    if index < split {
        [naive_inclusion(index, left), vec![naive_root(right)]].concat()
    } else {
        [naive_inclusion(index - split, right), vec![naive_root(left)]].concat()
    }
}

/// RFC 9162, section 2.1.4.1, word for word.
fn naive_consistency(old: usize, leaves: &[Digest], is_known: bool) -> Vec<Digest> {
    if old == leaves.len() {
        return if is_known { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let split = 1 << (usize::BITS - 1 - (leaves.len() - 1).leading_zeros());
    let (left, right) = leaves.split_at(split);
    if old <= split {
        [naive_consistency(old, left, is_known), vec![naive_root(right)]].concat()
    } else {
        [naive_consistency(old - split, right, false), vec![naive_root(left)]].concat()
    }
}

fn leaves(count: usize) -> Vec<Digest> {
    (0..count).map(|row| leaf_hash(&row.to_be_bytes())).collect()
}

fn hashes(subtrees: Vec<Range<u64>>, leaves: &[Digest]) -> Vec<Digest> {
    let place = |place| usize::try_from(place).unwrap();
    let subtree = |range: Range<u64>| naive_root(&leaves[place(range.start)..place(range.end)]);
    subtrees.into_iter().map(subtree).collect()
}

#[test]
fn roots_are_those_of_other_implementations() {
    let rows: Vec<_> = ROWS.iter().map(|hex| leaf_hash(&decode_hex(hex).unwrap())).collect();
    for (size, expected) in ROOTS.iter().enumerate() {
        let tree: Tree = rows[..size].iter().copied().collect();
        assert_eq!(tree.root().hex(), *expected, "{size} rows");
        assert_eq!(naive_root(&rows[..size]).hex(), *expected, "{size} rows, naively");
    }
}

#[test]
fn every_proof_of_small_trees_is_that_of_the_definition_and_verifies() {
    let all = leaves(40);
    for size in 1..=all.len() {
        let (tree, root) = (&all[..size], naive_root(&all[..size]));
        for index in 0..size {
            let place = (index as u64, size as u64);
            let proof = hashes(inclusion_subtrees(place.0, place.1).unwrap(), tree);
            assert_eq!(proof, naive_inclusion(index, tree), "row {index} of {size}");
            verify_inclusion(tree[index], place, &proof, &root).unwrap();
        }
        for old in 1..=size {
            let proof = hashes(consistency_subtrees(old as u64, size as u64).unwrap(), tree);
            assert_eq!(proof, naive_consistency(old, tree, true), "{old} to {size}");
            let before = naive_root(&all[..old]);
            verify_consistency((old as u64, &before), (size as u64, &root), &proof).unwrap();
        }
    }
}

#[test]
fn the_empty_tree_is_the_begin_of_every_tree_and_has_no_rows() {
    let (nothing, root) = (Digest::of(b""), naive_root(&leaves(3)));
    assert_eq!(verify_consistency((0, &nothing), (3, &root), &[]), Ok(()));
    assert_eq!(verify_consistency((0, &root), (3, &root), &[]), Err(InvalidProof::Root));
    assert_eq!(verify_consistency((4, &root), (3, &root), &[]), Err(InvalidProof::Range));
    assert_eq!(verify_inclusion(root, (0, 0), &[], &nothing), Err(InvalidProof::Range));
    assert_eq!(inclusion_subtrees(3, 3), Err(InvalidProof::Range));
    assert_eq!(consistency_subtrees(4, 3), Err(InvalidProof::Range));
}

#[test]
fn a_row_is_no_node() {
    let [left, right] = [leaf_hash(b"a"), leaf_hash(b"b")];
    let passed_off = [&left.as_bytes()[..], right.as_bytes()].concat();
    assert_ne!(leaf_hash(&passed_off), node_hash(&left, &right));
}

#[test]
fn peaks_that_do_not_fit_the_size_are_refused() {
    assert!(Tree::of(5, leaves(2)).is_some());
    assert!(Tree::of(5, leaves(3)).is_none());
    assert!(Tree::of(0, leaves(1)).is_none());
}

proptest! {
    #[test]
    fn a_tree_goes_on_from_where_it_was_kept(count in 0_usize..300, more in 0_usize..300) {
        let all = leaves(count + more);
        let kept: Tree = all[..count].iter().copied().collect();
        let mut tree = Tree::of(kept.size(), kept.peaks().to_vec()).unwrap();
        all[count..].iter().for_each(|leaf| tree.append(*leaf));
        prop_assert_eq!(tree.root(), naive_root(&all));
    }

    #[test]
    fn a_proof_holds_for_its_row_alone((size, index, other) in (1_u64..500).prop_flat_map(|size| {
        (Just(size), 0..size, 0..size)
    })) {
        let all = leaves(usize::try_from(size).unwrap());
        let root = naive_root(&all);
        let proof = hashes(inclusion_subtrees(index, size).unwrap(), &all);
        let leaf = |index: u64| all[usize::try_from(index).unwrap()];
        prop_assert_eq!(verify_inclusion(leaf(index), (index, size), &proof, &root), Ok(()));
        let elsewhere = verify_inclusion(leaf(other), (index, size), &proof, &root);
        prop_assert_eq!(elsewhere.is_ok(), other == index);
        let moved = verify_inclusion(leaf(index), (other, size), &proof, &root);
        prop_assert_eq!(moved.is_ok(), other == index);
    }

    #[test]
    fn no_edit_of_an_old_row_is_consistent((size, old, edited) in (2_u64..300).prop_flat_map(|size| {
        (1..size).prop_flat_map(move |old| (Just(size), Just(old), 0..old))
    })) {
        let all = leaves(usize::try_from(size).unwrap());
        let before = naive_root(&all[..usize::try_from(old).unwrap()]);
        let mut forged = all.clone();
        forged[usize::try_from(edited).unwrap()] = leaf_hash(b"forged");
        let proof = hashes(consistency_subtrees(old, size).unwrap(), &forged);
        let verdict = verify_consistency((old, &before), (size, &naive_root(&forged)), &proof);
        prop_assert_eq!(verdict, Err(InvalidProof::Root));
    }

    #[test]
    fn a_proof_with_a_hash_more_less_or_other_is_refused(
        size in 3_u64..300, old in 1_u64..300, at in any::<prop::sample::Index>(), noise in vec(any::<u8>(), 32)
    ) {
        prop_assume!(old < size);
        let all = leaves(usize::try_from(size).unwrap());
        let (before, after) = (naive_root(&all[..usize::try_from(old).unwrap()]), naive_root(&all));
        let proof = hashes(consistency_subtrees(old, size).unwrap(), &all);
        let check = |proof: &[Digest]| verify_consistency((old, &before), (size, &after), proof);
        prop_assert_eq!(check(&proof), Ok(()));
        let place = at.index(proof.len());
        let mut other = proof.clone();
        other[place] = Digest::of(&noise);
        prop_assert!(check(&other).is_err());
        other.remove(place);
        prop_assert!(check(&other).is_err());
        let longer = [&proof[..], &[after]].concat();
        prop_assert!(check(&longer).is_err());
    }
}

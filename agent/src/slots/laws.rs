//! Collecting what is not used never takes an image that is live, that is gone back to, or that is wanted.

use proptest::prelude::*;
use sealift_protocol::id::Version;

use super::*;

fn image(number: u8) -> ImageRef {
    let version = Version::parse(&number.to_string()).unwrap();
    ImageRef { version, index: Digest::of(&[number]) }
}

fn model(number: usize) -> ModelName {
    ModelName::parse(&format!("vision/m{number}")).unwrap()
}

/// Everything of an image, by name.
fn content(dir: &Path) -> Option<Vec<(String, Vec<u8>)>> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .ok()?
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    Some(files)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_live_or_gone_back_to_or_wanted_is_never_collected(
        complete in prop::collection::btree_set(0_u8..8, 0..8),
        staged in prop::collection::btree_set(0_u8..8, 0..8),
        pointers in prop::collection::vec((0_u8..8, prop::option::of(0_u8..8)), 0..4),
        wanted in prop::collection::btree_set(0_u8..8, 0..3),
        times in 1..3,
    ) {
        let root = tempfile::tempdir().unwrap();
        let slots = Slots::open(root.path()).unwrap();
        let reserve = Reserve::open(root.path().join("reserve"), 16);
        let dirs = |number: u8| {
            let index = image(number).index;
            [(complete.contains(&number), slots.path(index)), (staged.contains(&number), slots.partial(index))]
        };
        for number in 0..8 {
            for (_, dir) in dirs(number).into_iter().filter(|(is_there, _)| *is_there) {
                fs::create_dir(&dir).unwrap();
                fs::write(dir.join("model.onnx"), [number; 100]).unwrap();
            }
        }
        for (at, (active, previous)) in pointers.iter().enumerate() {
            let previous = previous.map(image);
            let pointer = Pointer { model: model(at), active: image(*active), previous };
            slots.point(&pointer, &reserve).unwrap();
        }
        let pointed: BTreeSet<u8> =
            pointers.iter().flat_map(|(active, previous)| [Some(*active), *previous]).flatten().collect();
        let before: Vec<_> = (0..8).map(|number| dirs(number).map(|(_, dir)| content(&dir))).collect();

        let keep = wanted.iter().map(|number| image(*number).index).collect();
        (0..times).for_each(|_| slots.prune(&keep).unwrap());

        for number in 0..8 {
            let after = dirs(number).map(|(_, dir)| content(&dir));
            let is_kept = pointed.contains(&number) || wanted.contains(&number);
            if is_kept {
                prop_assert_eq!(&after, &before[usize::from(number)], "image {} was touched", number);
            } else {
                prop_assert_eq!(after, [None, None], "image {} takes room for nothing", number);
            }
        }
    }
}

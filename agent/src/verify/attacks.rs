//! What is on disk is not what was signed: found at every byte, and never followed out of the staging directory.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;

use proptest::prelude::*;
use sealift_protocol::codec;
use sealift_protocol::id::Version;
use sealift_protocol::image::{Descriptor, Layer, ModelDescriptor, Variant, media_type};
use tempfile::TempDir;

use super::*;

/// An image of the fixture's files, complete in staging.
struct Staged {
    _root: TempDir,
    slots: Slots,
    index: Digest,
}

impl Staged {
    fn new() -> Self {
        Self::with_weights(&fs::read(fixture("model.onnx")).unwrap())
    }

    fn with_weights(weights: &[u8]) -> Self {
        let golden = codec::encode(&Golden { schema: 1, cases: Vec::new() }).unwrap();
        let contract = fs::read(fixture("contract.json")).unwrap();
        let files = [
            (LayerKind::Weights, "model.onnx", weights.to_vec()),
            (LayerKind::Contract, "contract.json", contract),
            (LayerKind::Golden, "golden.cbor", golden),
        ];
        let layers = files.each_ref().map(|(kind, name, bytes)| {
            let blob = Descriptor::of(kind.media_type(), bytes);
            Layer { kind: *kind, name: (*name).to_owned(), blob }
        });
        let descriptor = ModelDescriptor {
            name: ModelName::parse("vision/digits").unwrap(),
            version: Version::parse("1").unwrap(),
            family: String::new(),
            description: String::new(),
            licenses: Vec::new(),
        };
        let config = ModelConfig::onnx(descriptor, "fp32", &layers).write();
        let manifest = ImageManifest::write(Descriptor::of(media_type::CONFIG, &config), &layers);
        let variant = Variant {
            manifest: Descriptor::of(media_type::MANIFEST, &manifest),
            platform: None,
            accelerator: Accelerator::Cpu,
            precision: "fp32".to_owned(),
            min_memory_mb: 0,
        };
        let index_bytes = ModelIndex::write(&[variant]);
        let (root, index) = (tempfile::tempdir().unwrap(), Digest::of(&index_bytes));
        let slots = Slots::open(root.path()).unwrap();
        let documents =
            [(INDEX_FILE, index_bytes), (MANIFEST_FILE, manifest), (CONFIG_FILE, config)];
        stage(&slots.partial(index), &documents).unwrap();
        for (_, name, bytes) in files {
            fs::write(slots.partial(index).join(name), bytes).unwrap();
        }
        Self { _root: root, slots, index }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.slots.partial(self.index).join(name)
    }

    fn verify(&self) -> Result<(), &'static str> {
        staged(&self.slots, self.index).map_err(|fault| {
            ["image.digest", "image.disk", "onnx.foreign"]
                .into_iter()
                .find(|code| fault.code == *code)
                .unwrap_or("another code")
        })
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/digits/v1").join(name)
}

const FILES: [&str; 6] =
    [INDEX_FILE, MANIFEST_FILE, CONFIG_FILE, "model.onnx", "contract.json", "golden.cbor"];

#[test]
fn what_is_as_it_was_signed_gets_its_final_name() {
    let staged = Staged::new();
    assert_eq!(staged.verify(), Ok(()));
    assert!(staged.slots.has(staged.index));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn one_flipped_bit_anywhere_in_any_blob_is_found(
        file in prop::sample::select(&FILES[..]),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let staged = Staged::new();
        let path = staged.file(file);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();

        prop_assert_eq!(staged.verify(), Err("image.digest"), "{} at {}", file, at);
        prop_assert!(!staged.slots.has(staged.index));
    }

    #[test]
    fn more_or_fewer_bytes_than_were_declared_are_found(
        file in prop::sample::select(&FILES[..]),
        longer in any::<bool>(),
    ) {
        let staged = Staged::new();
        let path = staged.file(file);
        if longer {
            OpenOptions::new().append(true).open(&path).unwrap().write_all(b" ").unwrap();
        } else {
            let length = fs::metadata(&path).unwrap().len();
            OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
        }

        prop_assert!(staged.verify().is_err());
        prop_assert!(!staged.slots.has(staged.index));
    }
}

#[test]
fn a_link_in_staging_is_not_followed_even_to_the_right_bytes() {
    for file in ["model.onnx", "contract.json", "golden.cbor", CONFIG_FILE] {
        let staged = Staged::new();
        let path = staged.file(file);
        let outside = staged.slots.path(Digest::of(b"elsewhere"));
        fs::rename(&path, &outside).unwrap();
        symlink(&outside, &path).unwrap();
        assert!(staged.verify().is_err(), "{file} is a symbolic link");

        let staged = Staged::new();
        let path = staged.file(file);
        fs::hard_link(&path, staged.slots.path(Digest::of(b"another name"))).unwrap();
        assert!(staged.verify().is_err(), "{file} has a second name");
    }
}

#[test]
fn a_complete_image_that_is_damaged_later_is_found_and_fetched_again() {
    let staged = Staged::new();
    staged.verify().unwrap();
    let weights = staged.slots.path(staged.index).join("model.onnx");
    let file = OpenOptions::new().write(true).open(weights).unwrap();
    file.write_all_at(&[0xff], 100).unwrap();

    assert_eq!(staged.verify(), Err("image.digest"));
    assert!(!staged.slots.has(staged.index), "it is in staging again");
}

#[test]
fn pickles_offered_as_a_model_are_refused_with_words_that_help() {
    for head in [b"\x80\x04\x95\x00".as_slice(), b"PK\x03\x04archive/data.pkl", b"\x78\x9c\x00"] {
        let staged = Staged::with_weights(head);
        let fault = super::staged(&staged.slots, staged.index).unwrap_err();
        assert_eq!((fault.kind, fault.code.as_str()), (FaultKind::Untrusted, "onnx.foreign"));
        assert!(fault.reason.contains("export the model to ONNX"), "{}", fault.reason);
    }
}

//! Every byte sequence that fuzzing has kept is shown again to the function that it was made for, in an ordinary build.
//!
//! `SEALIFT_BLESS=1 cargo test -p sealift-tests --test corpus` writes the seeds anew; crashes that fuzzing found stay as they are.

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use sealift_protocol::codec;
use sealift_protocol::cose::{self, Purpose};
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::{DesiredSlot, Directive};
use sealift_protocol::id::{DeviceId, Epoch, Generation, ModelName, TenantId, UnixMillis, Version};
use sealift_protocol::image::{Descriptor, ImageManifest, Layer, LayerKind, media_type};
use sealift_protocol::report::{ImageRef, Phase, Report, SlotReport};
use sealift_protocol::telemetry::{
    Ack, Beat, Birth, Conn, Envelope, Event, Facts, Severity, SpoolId,
};
use sealift_protocol::tuf::key::SigningKey as TufKey;
use sealift_tests::process::root;

/// A file of the corpus: small enough to be kept, and to be read by people.
const FILE_BYTES_MAX: usize = 64 << 10;

/// Of one file, in a debug build on a busy machine; each takes far less than a millisecond.
const TIME_MAX: Duration = Duration::from_secs(2);

fn corpus(target: &str) -> PathBuf {
    root().join("fuzz/corpus").join(target)
}

#[test]
fn every_kept_input_is_still_survived_in_time() {
    for (name, target) in targets::ALL {
        let mut files: Vec<_> = fs::read_dir(corpus(name)).unwrap().flatten().collect();
        files.sort_by_key(fs::DirEntry::file_name);
        assert!(files.len() >= 5, "{name} has only {} inputs", files.len());
        for file in files {
            let bytes = fs::read(file.path()).unwrap();
            assert!(bytes.len() <= FILE_BYTES_MAX, "{}", file.path().display());
            let begin = Instant::now();
            target(&bytes);
            assert!(begin.elapsed() < TIME_MAX, "{} takes too long", file.path().display());
        }
    }
}

#[test]
fn seeds_are_kept_as_the_code_writes_them() {
    let is_blessed = std::env::var_os("SEALIFT_BLESS").is_some();
    for (target, seeds) in seeds() {
        for (name, bytes) in seeds {
            let file = corpus(target).join(format!("seed-{name}"));
            if is_blessed {
                fs::create_dir_all(corpus(target)).unwrap();
                fs::write(&file, &bytes).unwrap();
            }
            // A seed that is no longer understood would lead fuzzing nowhere.
            assert!(fs::read(&file).unwrap() == bytes, "{} has changed", file.display());
        }
    }
}

#[test]
fn seeds_reach_behind_the_doors() {
    let seeds = seeds();
    let of = |target: &str, name: &str| seeds[target][name].clone();
    assert!(codec::decode::<Report>("report", &of("codec", "report"), 1 << 20).is_ok());
    assert!(ImageManifest::parse(&of("oci_manifest", "manifest")).is_ok());
    assert!(sealift_agent::untrusted::onnx_scan(&of("onnx_scan", "digits")).is_ok());
    let request = of("oip_request", "json");
    assert_eq!(sealift_agent::untrusted::oip_request(&request[2..], None), Ok(1));
}

type Seeds = BTreeMap<&'static str, BTreeMap<&'static str, Vec<u8>>>;

fn seeds() -> Seeds {
    BTreeMap::from([
        ("codec", codec_seeds()),
        ("tuf_json", tuf_seeds()),
        ("cose", cose_seeds()),
        ("oci_manifest", manifest_seeds()),
        ("onnx_scan", onnx_seeds()),
        ("topic", topic_seeds()),
        ("oip_request", request_seeds()),
    ])
}

fn model() -> ModelName {
    ModelName::parse("vision/digits").unwrap()
}

fn image() -> ImageRef {
    ImageRef { version: Version::parse("7").unwrap(), index: Digest::of(b"index") }
}

fn slot() -> SlotReport {
    SlotReport {
        phase: Phase::Watch,
        serving: Some(image()),
        previous: Some(image()),
        providers: vec![("CPUExecutionProvider".to_owned(), 12)],
        ..SlotReport::idle(model(), Generation(7))
    }
}

fn directive() -> Directive {
    let version = Version::parse("7").unwrap();
    let slot =
        DesiredSlot { epoch: Epoch(1), ..DesiredSlot::new(model(), version, Digest::of(b"index")) };
    let (tenant, device) = (TenantId::parse("main").unwrap(), DeviceId::parse("cam-1").unwrap());
    let times = (UnixMillis(1), UnixMillis(2));
    Directive::new((tenant, device), Generation(7), times, vec![slot])
}

fn codec_seeds() -> BTreeMap<&'static str, Vec<u8>> {
    let hex = |text: &str| -> Vec<u8> {
        let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    };
    let golden = |name: &str| {
        hex(&fs::read_to_string(root().join("protocol/src/profile/golden").join(name)).unwrap())
    };
    let at = UnixMillis(1_790_000_000_000);
    let report =
        Report { generation: Generation(7), refused: None, slots: vec![slot()], at, trusted: None };
    let report = codec::encode(&report).unwrap();
    let envelope = Envelope { spool: SpoolId(1), sequence: 2, lowest: 1, body: report.clone() };
    let facts = Facts { os: "linux".to_owned(), ..Facts::default() };
    let birth = Birth {
        epoch: 3,
        agent: "0.1.0".to_owned(),
        facts,
        generation: Generation(7),
        slots: vec![slot()],
        endpoint: None,
        at,
        trusted: None,
    };
    let event = Event {
        code: "image.digest".to_owned(),
        severity: Severity::Security,
        text: "one byte differs".to_owned(),
        model: Some(model()),
        image: None,
        at,
    };
    BTreeMap::from([
        ("report", report),
        ("envelope", codec::encode(&envelope).unwrap()),
        ("birth", codec::encode(&birth).unwrap()),
        ("event", codec::encode(&event).unwrap()),
        ("beat", codec::encode(&Beat::default()).unwrap()),
        ("conn", codec::encode(&Conn { online: true, epoch: 3 }).unwrap()),
        ("ack", codec::encode(&Ack { spool: SpoolId(1), sequence: 2 }).unwrap()),
        ("directive", codec::encode(&directive()).unwrap()),
        ("baseline", golden("baseline-v1.hex")),
        ("profile", golden("profile-v1.hex")),
        ("nested", vec![0x81; 4_000]),
        ("length-of-2-to-the-63", vec![0x7b, 0x80, 0, 0, 0, 0, 0, 0, 0, b'x']),
    ])
}

fn tuf_seeds() -> BTreeMap<&'static str, Vec<u8>> {
    let golden =
        |name: &str| fs::read(root().join("protocol/tests/golden/tuf").join(name)).unwrap();
    let body = |name: &str| {
        let file: serde_json::Value = serde_json::from_slice(&golden(name)).unwrap();
        serde_json::to_vec(&file["signed"]).unwrap()
    };
    BTreeMap::from([
        ("root", golden("2.root.json")),
        ("root-content", body("2.root.json")),
        ("timestamp", golden("timestamp.json")),
        ("timestamp-content", body("timestamp.json")),
        ("snapshot-content", body("4.snapshot.json")),
        ("targets", golden("3.targets.json")),
        ("targets-content", body("3.targets.json")),
        ("bins-content", body("1.bins.json")),
        ("key", TufKey::from_seed(&[1; 32]).public().to_json()),
        ("repeated-key", br#"{"signed":{},"signed":{},"signatures":[]}"#.to_vec()),
        ("nested", vec![b'['; 4_000]),
    ])
}

fn cose_seeds() -> BTreeMap<&'static str, Vec<u8>> {
    let (trusted, stranger) = ([7; 32], [8; 32]);
    let signed = |key: [u8; 32], purpose| {
        cose::sign(targets::SIGNED.to_vec(), purpose, &SigningKey::from_bytes(&key)).unwrap()
    };
    let mut torn = signed(trusted, Purpose::Directive);
    torn.truncate(torn.len() - 1);
    BTreeMap::from([
        ("directive", signed(trusted, Purpose::Directive)),
        ("halt", signed(trusted, Purpose::Halt)),
        ("request", signed(trusted, Purpose::Request)),
        ("stranger", signed(stranger, Purpose::Directive)),
        ("torn", torn),
    ])
}

fn manifest_seeds() -> BTreeMap<&'static str, Vec<u8>> {
    let layer = |kind: LayerKind, name: &str, bytes: &[u8]| Layer {
        kind,
        name: name.to_owned(),
        blob: Descriptor::of(kind.media_type(), bytes),
    };
    let layers = [
        layer(LayerKind::Weights, "model.onnx", b"weights"),
        layer(LayerKind::Contract, "contract.json", b"{}"),
        layer(LayerKind::Golden, "golden.cbor", b"\xa0"),
    ];
    let manifest = ImageManifest::write(Descriptor::of(media_type::CONFIG, b"{}"), &layers);
    let text = String::from_utf8(manifest.clone()).unwrap();
    BTreeMap::from([
        ("manifest", manifest),
        ("negative-size", text.replacen("\"size\": 7", "\"size\": -1", 1).into_bytes()),
        ("md5", text.replacen("sha256:", "md5:", 1).into_bytes()),
        ("path", text.replacen("model.onnx", "../../etc/x", 2).into_bytes()),
        ("empty", b"{}".to_vec()),
    ])
}

fn onnx_seeds() -> BTreeMap<&'static str, Vec<u8>> {
    let digits = fs::read(root().join("tests/fixtures/digits/v1/model.onnx")).unwrap();
    BTreeMap::from([
        ("digits", digits),
        ("external-data", b"\x3a\x06\x2a\x04\x6a\x00\x70\x01".to_vec()),
        ("custom-domain", b"\x3a\x07\x0a\x05\x3a\x03foo".to_vec()),
        ("compiled", b"\x3a\x0d\x0a\x0b\x22\x09EPContext".to_vec()),
        ("huge", b"\x3a\x0d\x2a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec()),
        ("pickle", b"\x80\x04\x95pickle".to_vec()),
    ])
}

fn topic_seeds() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("up", b"sl/1/main/u/cam-1/report".to_vec()),
        ("down", b"sl/1/main/d/cam-1/directive".to_vec()),
        ("all", b"sl/1/main/b/all/trust".to_vec()),
        ("wildcard", b"sl/1/main/u/#".to_vec()),
        ("traversal", b"sl/1/../u/cam-1/report".to_vec()),
    ])
}

fn request_seeds() -> BTreeMap<&'static str, Vec<u8>> {
    let json =
        br#"{"id":"7","inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[1,2e3]]}]}"#;
    let head = br#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}"#;
    let with_length = |length: usize, body: &[u8]| {
        [u16::try_from(length).unwrap().to_be_bytes().as_slice(), body].concat()
    };
    let huge = br#"{"inputs":[{"name":"x","datatype":"FP64","shape":[18446744073709551615,2],"data":[]}]}"#;
    let deep = [
        br#"{"inputs":[{"name":"x","datatype":"BOOL","shape":[1],"data":"#.as_slice(),
        &[b'['; 100],
    ]
    .concat();
    BTreeMap::from([
        ("json", with_length(0, json)),
        ("binary", with_length(head.len(), &[head.as_slice(), &[0; 8]].concat())),
        ("huge", with_length(0, huge)),
        ("deep", with_length(0, &deep)),
        ("long-header", with_length(9_999, b"{}")),
    ])
}

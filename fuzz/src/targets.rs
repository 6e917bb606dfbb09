//! One function for each door through which strangers' bytes come. Each takes any bytes and must come back: without a panic, in time
//! that grows with the bytes, and, where something was understood, understanding the same of what it writes itself.
//!
//! The fuzz targets feed them; a test of the workspace replays the corpus through the same functions.

use std::collections::BTreeMap;

use ed25519_dalek::{SigningKey, VerifyingKey};
use sealift_agent::untrusted;
use sealift_protocol::codec;
use sealift_protocol::cose::{self, KeyId, Purpose};
use sealift_protocol::directive::Directive;
use sealift_protocol::image::{Golden, ImageManifest, IoContract, ModelConfig, ModelIndex};
use sealift_protocol::profile::{Baseline, Profile};
use sealift_protocol::report::Report;
use sealift_protocol::telemetry::{Ack, Beat, Birth, Conn, Envelope, Event};
use sealift_protocol::topic::Topic;
use sealift_protocol::tuf::Role;
use sealift_protocol::tuf::bundle::{Revocations, TrustBundle};
use sealift_protocol::tuf::key::Key;
use sealift_protocol::tuf::metadata::{Root, Snapshot, Targets, Timestamp};
use sealift_protocol::tuf::signed::Signed;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A door: its name, which is that of its corpus, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// Every door.
pub const ALL: [Target; 7] = [
    ("codec", codec),
    ("tuf_json", tuf_json),
    ("cose", cose),
    ("oci_manifest", oci_manifest),
    ("onnx_scan", onnx_scan),
    ("topic", topic),
    ("oip_request", oip_request),
];

/// More than any message may have.
const BYTES_MAX: usize = 1 << 20;

/// CBOR of every kind that comes over MQTT or lies in an image.
pub fn codec(bytes: &[u8]) {
    stays_itself::<Envelope>(bytes);
    stays_itself::<Report>(bytes);
    stays_itself::<Birth>(bytes);
    stays_itself::<Beat>(bytes);
    stays_itself::<Conn>(bytes);
    stays_itself::<Ack>(bytes);
    stays_itself::<Event>(bytes);
    stays_itself::<Directive>(bytes);
    let _ = Golden::parse(bytes);
    let _ = Baseline::decode(bytes);
    if let Ok(profile) = Profile::decode(bytes) {
        Profile::decode(&profile.encode().unwrap()).unwrap();
    }
}

/// What was understood and is written is understood again, and written the same.
fn stays_itself<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = codec::decode::<T>("value", bytes, BYTES_MAX) else { return };
    let written = codec::encode(&value).unwrap();
    let again: T = codec::decode("value", &written, 2 * BYTES_MAX).unwrap();
    assert_eq!(codec::encode(&again).unwrap(), written);
}

/// Metadata of every role, keys, and the two targets that every device reads.
pub fn tuf_json(bytes: &[u8]) {
    let _ = Signed::<Root>::parse(Role::Root, bytes.to_vec()).map(Signed::anchor);
    let _ = Signed::<Timestamp>::parse(Role::Timestamp, bytes.to_vec());
    let _ = Signed::<Snapshot>::parse(Role::Snapshot, bytes.to_vec());
    let _ = Signed::<Targets>::parse(Role::Targets, bytes.to_vec());
    let _ = (TrustBundle::parse(bytes), Revocations::parse(bytes), IoContract::parse(bytes));
    if let Ok(key) = Key::from_json(bytes) {
        assert_eq!(Key::from_json(&key.to_json()).unwrap().id(), key.id());
    }
    content::<Root>(bytes);
    content::<Timestamp>(bytes);
    content::<Snapshot>(bytes);
    content::<Targets>(bytes);
}

/// The signed part by itself: no made-up signature gets past the envelope.
fn content<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&value).unwrap();
    let again: T = serde_json::from_slice(&written).unwrap();
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
}

/// Signed messages: none of these bytes was signed, so none is accepted but the one that the corpus holds.
pub fn cose(bytes: &[u8]) {
    let trusted = SigningKey::from_bytes(&[7; 32]).verifying_key();
    let keys: BTreeMap<KeyId, VerifyingKey> = BTreeMap::from([(KeyId::of(&trusted), trusted)]);
    for purpose in [Purpose::Directive, Purpose::Halt, Purpose::Request] {
        if let Ok(payload) = cose::verify(bytes, purpose, &keys, BYTES_MAX) {
            assert_eq!(payload.bytes(), SIGNED, "a forgery");
        }
    }
}

/// The one payload that the trusted key has signed.
pub const SIGNED: &[u8] = b"signed once";

/// Index, manifest and configuration of an image.
pub fn oci_manifest(bytes: &[u8]) {
    if let Ok(index) = ModelIndex::parse(bytes) {
        let written = ModelIndex::write(index.variants());
        assert_eq!(ModelIndex::parse(&written).unwrap().variants(), index.variants());
    }
    if let Ok(manifest) = ImageManifest::parse(bytes) {
        let written = ImageManifest::write(manifest.config().clone(), manifest.layers());
        assert_eq!(ImageManifest::parse(&written).unwrap().layers(), manifest.layers());
        let _ = manifest.size_bytes();
    }
    let _ = ModelConfig::parse(bytes);
}

/// A model file.
pub fn onnx_scan(bytes: &[u8]) {
    let _ = untrusted::onnx_scan(bytes);
}

/// The topic of an MQTT message.
pub fn topic(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(topic) = Topic::parse(text) {
        assert_eq!(topic.to_string(), text);
    }
}

/// An inference request; the first two bytes say how long its JSON claims to be, if they are not zero.
pub fn oip_request(bytes: &[u8]) {
    let Some((length, body)) = bytes.split_first_chunk() else { return };
    let header_bytes = usize::from(u16::from_be_bytes(*length));
    let _ = untrusted::oip_request(body, (header_bytes > 0).then_some(header_bytes));
}

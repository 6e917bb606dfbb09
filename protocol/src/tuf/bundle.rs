//! The two targets that every device fetches: whom it obeys, and what it no longer trusts.

use std::collections::BTreeSet;

use ed25519_dalek::VerifyingKey;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::json;
use super::key::{Key, KeyId};
use crate::digest::{Digest, decode_hex, encode_hex};

/// Bytes of either file. 10,000 revoked images take 750 KB.
const BYTES_MAX: usize = super::TARGET_FILE_BYTES_MAX;

/// Director keys, and certification authorities of each kind: a few, so that keys can be replaced one by one.
const ENTRIES_MAX: usize = 16;

/// Bytes of one certificate in PEM.
const CERTIFICATE_BYTES_MAX: usize = 16 << 10;

/// Entries of each list of revocations.
const REVOKED_MAX: usize = 10_000;

/// The schema that this code reads and writes.
const SCHEMA: u32 = 1;

/// `trust/bundle.json`: the keys that may sign directives, and the authorities behind certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustBundle {
    schema: u32,
    /// Keys that may sign directives.
    pub directors: Vec<Director>,
    /// Authorities that certify devices, in PEM.
    pub device_cas: Vec<String>,
    /// Authorities that certify the fleet server and its broker, in PEM. None means those of the devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_cas: Vec<String>,
    /// Keys of operators whose second signature counts on devices that demand one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<Director>,
}

/// A key that may sign directives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Director {
    keyid: KeyId,
    public: VerifyingKey,
}

/// `trust/revocations.json`: what devices refuse although it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    schema: u32,
    /// Model images, by the digest of their index or manifest.
    #[serde(deserialize_with = "distinct")]
    pub images: BTreeSet<Digest>,
    /// Director keys.
    #[serde(deserialize_with = "distinct")]
    pub directors: BTreeSet<KeyId>,
    /// Serial numbers of device certificates, in lower-case hex.
    #[serde(deserialize_with = "distinct")]
    pub devices: BTreeSet<String>,
}

/// Why a bundle or revocations were refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBundle {
    /// Far more bytes than allowed.
    #[error("{given_bytes} bytes given, at most {BYTES_MAX} allowed")]
    TooLarge {
        /// How much came.
        given_bytes: usize,
    },
    /// Not the JSON expected.
    #[error("not valid JSON of this kind")]
    Json(#[source] serde_json::Error),
    /// A schema that this code does not know.
    #[error("schema {0} is not known")]
    Schema(u32),
    /// A list with more entries than allowed.
    #[error("{list} has {entries} entries, at most {max} are allowed")]
    TooMany {
        /// Which list.
        list: &'static str,
        /// How many it has.
        entries: usize,
        /// How many it may have.
        max: usize,
    },
    /// One entry twice.
    #[error("{list} holds an entry twice")]
    Repeated {
        /// Which list.
        list: &'static str,
    },
    /// An authority that is no certificate in PEM.
    #[error("{list} holds something other than a PEM certificate")]
    Certificate {
        /// Which list.
        list: &'static str,
    },
    /// Nobody could sign a directive, or no device could connect.
    #[error("{list} is empty")]
    Empty {
        /// Which list.
        list: &'static str,
    },
}

impl TrustBundle {
    /// Makes a bundle.
    pub fn new(
        directors: Vec<Director>,
        device_cas: Vec<String>,
        server_cas: Vec<String>,
    ) -> Result<Self, InvalidBundle> {
        let operators = Vec::new();
        let bundle = Self { schema: SCHEMA, directors, device_cas, server_cas, operators };
        bundle.check()?;
        Ok(bundle)
    }

    /// Reads the target file, whose digest TUF has checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidBundle> {
        let bundle: Self = read(bytes)?;
        bundle.check()?;
        Ok(bundle)
    }

    /// Writes the target file.
    pub fn to_bytes(&self) -> Vec<u8> {
        write(self)
    }

    /// The director key of this id.
    pub fn director(&self, keyid: &KeyId) -> Option<&VerifyingKey> {
        self.directors.iter().find(|director| director.keyid == *keyid).map(Director::public)
    }

    fn check(&self) -> Result<(), InvalidBundle> {
        check_schema(self.schema)?;
        check_count("directors", self.directors.len(), ENTRIES_MAX)?;
        let keyids: BTreeSet<_> = self.directors.iter().map(Director::keyid).collect();
        if keyids.len() != self.directors.len() {
            return Err(InvalidBundle::Repeated { list: "directors" });
        }
        check_count("operators", self.operators.len(), ENTRIES_MAX)?;
        let operators: BTreeSet<_> = self.operators.iter().map(Director::keyid).collect();
        // One key in both hands would make two signatures out of one theft.
        if operators.len() != self.operators.len() || !operators.is_disjoint(&keyids) {
            return Err(InvalidBundle::Repeated { list: "operators" });
        }
        if self.device_cas.is_empty() {
            return Err(InvalidBundle::Empty { list: "device_cas" });
        }
        check_certificates("device_cas", &self.device_cas)?;
        check_certificates("server_cas", &self.server_cas)
    }
}

impl Director {
    /// Names a director key by its TUF key id. A key of small order, which verifies forged signatures, is refused.
    pub fn new(public: VerifyingKey) -> Option<Self> {
        let keyid = Key::ed25519(&public).id();
        (!public.is_weak()).then_some(Self { keyid, public })
    }

    /// The id of the key: the SHA-256 of its TUF key object.
    pub const fn keyid(&self) -> &KeyId {
        &self.keyid
    }

    /// The key.
    pub const fn public(&self) -> &VerifyingKey {
        &self.public
    }
}

impl Default for Revocations {
    fn default() -> Self {
        let (images, directors, devices) = Default::default();
        Self { schema: SCHEMA, images, directors, devices }
    }
}

impl Revocations {
    /// Reads the target file, whose digest TUF has checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidBundle> {
        let revocations: Self = read(bytes)?;
        check_schema(revocations.schema)?;
        check_count("images", revocations.images.len(), REVOKED_MAX)?;
        check_count("directors", revocations.directors.len(), REVOKED_MAX)?;
        check_count("devices", revocations.devices.len(), REVOKED_MAX)?;
        Ok(revocations)
    }

    /// Writes the target file.
    pub fn to_bytes(&self) -> Vec<u8> {
        write(self)
    }
}

#[derive(Serialize, Deserialize)]
struct RawDirector {
    keyid: KeyId,
    public: String,
}

impl Serialize for Director {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let public = encode_hex(self.public.as_bytes());
        RawDirector { keyid: self.keyid.clone(), public }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Director {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawDirector::deserialize(deserializer)?;
        let bytes = decode_hex(&raw.public).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let public = bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        let director = public.and_then(Self::new);
        let director = director.ok_or_else(|| D::Error::custom("not a sound Ed25519 key"))?;
        if director.keyid == raw.keyid {
            Ok(director)
        } else {
            Err(D::Error::custom("a director's key id is not that of its key"))
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, InvalidBundle> {
    if bytes.len() > BYTES_MAX {
        return Err(InvalidBundle::TooLarge { given_bytes: bytes.len() });
    }
    json::parse(bytes).and_then(T::deserialize).map_err(InvalidBundle::Json)
}

#[expect(clippy::expect_used, reason = "neither file has a value without a JSON form")]
fn write<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and lists have a JSON form, and memory takes it")
}

fn distinct<'de, D: Deserializer<'de>, T: Deserialize<'de> + Ord>(
    deserializer: D,
) -> Result<BTreeSet<T>, D::Error> {
    let list = Vec::<T>::deserialize(deserializer)?;
    let count = list.len();
    let set: BTreeSet<_> = list.into_iter().collect();
    if set.len() == count { Ok(set) } else { Err(D::Error::custom("an entry is repeated")) }
}

fn check_schema(schema: u32) -> Result<(), InvalidBundle> {
    if schema == SCHEMA { Ok(()) } else { Err(InvalidBundle::Schema(schema)) }
}

fn check_count(list: &'static str, entries: usize, max: usize) -> Result<(), InvalidBundle> {
    if entries <= max { Ok(()) } else { Err(InvalidBundle::TooMany { list, entries, max }) }
}

fn check_certificates(list: &'static str, texts: &[String]) -> Result<(), InvalidBundle> {
    check_count(list, texts.len(), ENTRIES_MAX)?;
    let is_certificate = |text: &String| {
        let text = text.trim();
        text.len() <= CERTIFICATE_BYTES_MAX
            && text.starts_with("-----BEGIN CERTIFICATE-----")
            && text.ends_with("-----END CERTIFICATE-----")
            && text.matches("-----BEGIN ").count() == 1
    };
    if !texts.iter().all(is_certificate) {
        return Err(InvalidBundle::Certificate { list });
    }
    if texts.iter().collect::<BTreeSet<_>>().len() != texts.len() {
        return Err(InvalidBundle::Repeated { list });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuf::testing::{bundle, director};

    fn edited(edit: impl FnOnce(&mut serde_json::Value)) -> Result<TrustBundle, InvalidBundle> {
        let mut value = serde_json::from_slice(&bundle().to_bytes()).unwrap();
        edit(&mut value);
        TrustBundle::parse(&serde_json::to_vec(&value).unwrap())
    }

    #[test]
    fn a_bundle_survives_json_and_finds_its_directors() {
        let bundle = TrustBundle::parse(&bundle().to_bytes()).unwrap();

        let director = director();
        assert_eq!(bundle.director(director.keyid()), Some(director.public()));
        assert_eq!(bundle.director(&Key::ed25519(&VerifyingKey::default()).id()), None);
    }

    #[test]
    fn a_director_under_anothers_key_id_is_refused() {
        let refused = edited(|value| value["directors"][0]["keyid"] = "00".repeat(32).into());
        assert!(matches!(refused, Err(InvalidBundle::Json(_))));
    }

    #[test]
    fn a_weak_director_key_is_refused() {
        let weak = VerifyingKey::from_bytes(&[0; 32]).unwrap();
        assert!(Director::new(weak).is_none());
        let refused = edited(|value| value["directors"][0]["public"] = "00".repeat(32).into());
        assert!(matches!(refused, Err(InvalidBundle::Json(_))));
    }

    #[test]
    fn repeated_entries_are_refused() {
        let twice = |list: &'static str| {
            edited(|value| {
                let entries = value[list].as_array_mut().unwrap();
                entries.push(entries[0].clone());
            })
        };
        assert!(matches!(twice("directors"), Err(InvalidBundle::Repeated { .. })));
        assert!(matches!(twice("device_cas"), Err(InvalidBundle::Repeated { .. })));
        let digest = Digest::of(b"");
        let text = format!(
            r#"{{"schema":1,"images":["{digest}","{digest}"],"directors":[],"devices":[]}}"#
        );
        assert!(Revocations::parse(text.as_bytes()).is_err());
        assert!(
            Revocations::parse(
                br#"{"schema":1,"schema":1,"images":[],"directors":[],"devices":[]}"#
            )
            .is_err()
        );
    }

    #[test]
    fn too_much_and_unknown_schemas_are_refused() {
        let huge = Revocations::parse(&vec![b' '; BYTES_MAX + 1]);
        assert!(matches!(huge, Err(InvalidBundle::TooLarge { .. })));
        let later = edited(|value| value["schema"] = 2.into());
        assert!(matches!(later, Err(InvalidBundle::Schema(2))));
        let many = edited(|value| value["device_cas"] = vec!["x"; 17].into());
        assert!(matches!(many, Err(InvalidBundle::TooMany { entries: 17, .. })));
        let none = edited(|value| value["device_cas"] = serde_json::json!([]));
        assert!(matches!(none, Err(InvalidBundle::Empty { .. })));
        let key = "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----";
        let private = edited(|value| value["device_cas"] = vec![key].into());
        assert!(matches!(private, Err(InvalidBundle::Certificate { .. })));
    }

    #[test]
    fn fields_of_a_later_minor_schema_are_passed_over() {
        assert!(edited(|value| value["later"] = 1.into()).is_ok());
    }

    #[test]
    fn revocations_survive_json() {
        let mut revocations = Revocations::default();
        revocations.images.insert(Digest::of(b"image"));
        revocations.directors.insert(director().keyid().clone());
        revocations.devices.insert("0a1b".into());

        assert_eq!(Revocations::parse(&revocations.to_bytes()).unwrap(), revocations);
    }
}

//! A manifest as the registry reads it: what it names, what it is about, what kind it says it is. Nothing else in it matters here.

use std::collections::BTreeMap;

use sealift_protocol::image::media_type;
use sealift_protocol::limits::MANIFEST_BYTES_MAX;
use serde::Deserialize;

use crate::content::ContentDigest;

/// Contents that one manifest may name: images have tens of layers, indexes tens of platforms.
const LINKS_MAX: usize = 1_024;

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidDocument {
    /// Not JSON of that form.
    #[error("manifest is not JSON of the OCI image specification: {0}")]
    Form(#[source] serde_json::Error),
    /// Larger than allowed.
    #[error("manifest has {0} bytes, at most {MANIFEST_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// An old or a future form.
    #[error("manifest has schema version {0}, 2 is needed")]
    Schema(u64),
    /// Nobody says what it is.
    #[error("neither the manifest nor the request names a media type")]
    Untyped,
    /// The request says another kind than the manifest.
    #[error("manifest has media type {inside}, the request says {outside}")]
    MediaType {
        /// What the manifest says.
        inside: String,
        /// What the request says.
        outside: String,
    },
    /// A manifest without what its kind must have.
    #[error("manifest of type {0} has no {1}")]
    Without(String, &'static str),
    /// A digest that is not one.
    #[error("manifest names `{0}`, which is no digest of sha256 or sha512")]
    Digest(String),
    /// Names too much.
    #[error("manifest names {0} contents, at most {LINKS_MAX} are allowed")]
    Links(usize),
}

/// What kind of manifest it says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A model's variants; under its version's tag it may become a version.
    ModelIndex,
    /// Anything else.
    Other,
}

/// Something that a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// The length it says.
    pub(crate) size: u64,
    /// Whether it must have been pushed before.
    pub(crate) is_needed: bool,
}

/// A manifest or an index, as far as the registry reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    /// Its media type.
    pub(crate) media_type: String,
    /// What kind of artifact it is.
    pub(crate) artifact_type: Option<String>,
    /// The manifest that it is about.
    pub(crate) subject: Option<ContentDigest>,
    /// Its annotations.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Configuration, layers and manifests that it names; in the order of digests, so that two pushes lock rows in one order.
    pub(crate) links: BTreeMap<ContentDigest, Link>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<WireDescriptor>,
    layers: Option<Vec<WireDescriptor>>,
    manifests: Option<Vec<WireDescriptor>>,
    subject: Option<WireDescriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDescriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Vec<String>,
}

impl Document {
    /// Reads a manifest that a request sends as `content_type`.
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, InvalidDocument> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(InvalidDocument::TooLarge(bytes.len()));
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(InvalidDocument::Form)?;
        if wire.schema_version != 2 {
            return Err(InvalidDocument::Schema(wire.schema_version));
        }
        let media_type = agreed(wire.media_type.as_deref(), content_type)?;
        wire.check_shape(&media_type)?;
        let subject = wire.subject.as_ref().map(WireDescriptor::digest).transpose()?;
        let links = wire.links()?;
        let of_config = wire.config.map(|config| config.media_type);
        Ok(Self {
            artifact_type: wire.artifact_type.filter(|kind| !kind.is_empty()).or(of_config),
            media_type,
            subject,
            annotations: wire.annotations.unwrap_or_default(),
            links,
        })
    }

    /// What kind it says it is.
    pub(crate) fn kind(&self) -> Kind {
        match (self.media_type.as_str(), self.artifact_type.as_deref()) {
            (media_type::INDEX, Some(media_type::INDEX_ARTIFACT)) => Kind::ModelIndex,
            _ => Kind::Other, // images, charts, signatures: kept for whoever pushed them
        }
    }
}

/// Rule (OCI distribution specification, "pushing manifests"): a media type inside and a content type outside are the same.
fn agreed(inside: Option<&str>, outside: Option<&str>) -> Result<String, InvalidDocument> {
    let outside = outside.and_then(|outside| outside.split(';').next()).map(str::trim);
    match (inside, outside) {
        (Some(inside), Some(outside)) if inside != outside => {
            let (inside, outside) = (inside.to_owned(), outside.to_owned());
            Err(InvalidDocument::MediaType { inside, outside })
        }
        (Some(media_type), _) | (None, Some(media_type)) => Ok(media_type.to_owned()),
        (None, None) => Err(InvalidDocument::Untyped),
    }
}

impl Wire {
    fn check_shape(&self, media_type: &str) -> Result<(), InvalidDocument> {
        let missing = match media_type {
            media_type::MANIFEST if self.config.is_none() => "config",
            media_type::MANIFEST if self.layers.is_none() => "layers",
            media_type::INDEX if self.manifests.is_none() => "manifests",
            _ => return Ok(()), // what other kinds must have is for their readers to say
        };
        Err(InvalidDocument::Without(media_type.to_owned(), missing))
    }

    fn links(&self) -> Result<BTreeMap<ContentDigest, Link>, InvalidDocument> {
        let lists = [&self.layers, &self.manifests].into_iter().flatten().flatten();
        let mut links = BTreeMap::new();
        for descriptor in self.config.iter().chain(lists) {
            let is_needed = descriptor.is_needed();
            links.insert(descriptor.digest()?, Link { size: descriptor.size, is_needed });
        }
        if links.len() > LINKS_MAX {
            return Err(InvalidDocument::Links(links.len()));
        }
        Ok(links)
    }
}

impl WireDescriptor {
    fn digest(&self) -> Result<ContentDigest, InvalidDocument> {
        let unreadable = |_| InvalidDocument::Digest(self.digest.chars().take(150).collect());
        ContentDigest::parse(&self.digest).map_err(unreadable)
    }

    /// Rule (OCI image specification, "non-distributable layers"): what may be had elsewhere need not be pushed.
    fn is_needed(&self) -> bool {
        self.urls.is_empty() && !self.media_type.contains(".nondistributable.")
    }
}

#[cfg(test)]
mod tests {
    use sealift_protocol::digest::Digest;

    use super::*;

    fn descriptor(media_type: &str, content: &[u8], more: &str) -> String {
        let (digest, size) = (Digest::of(content), content.len());
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}{more}}}"#)
    }

    fn manifest(rest: &str) -> Vec<u8> {
        let config = descriptor("application/vnd.oci.empty.v1+json", b"{}", r#","new":"field""#);
        let layer = descriptor("text/plain", b"layer", "");
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{config},"layers":[{layer}]{rest}}}"#,
            media_type::MANIFEST
        )
        .into_bytes()
    }

    fn digest(content: &[u8]) -> ContentDigest {
        Digest::of(content).into()
    }

    #[test]
    fn an_artifact_tells_its_type_subject_and_contents() {
        let subject = descriptor(media_type::MANIFEST, b"about", "");
        let rest = format!(
            r#","artifactType":"a/b","subject":{subject},"annotations":{{"k":"v"}},"other":1"#
        );

        let document = Document::parse(&manifest(&rest), Some(media_type::MANIFEST)).unwrap();

        assert_eq!(document.artifact_type.as_deref(), Some("a/b"));
        assert_eq!(document.subject, Some(digest(b"about")));
        assert_eq!(document.annotations, BTreeMap::from([("k".to_owned(), "v".to_owned())]));
        let digests: Vec<_> = document.links.keys().copied().collect();
        let mut expected = vec![digest(b"{}"), digest(b"layer")];
        expected.sort();
        assert_eq!(digests, expected);
        assert_eq!(document.kind(), Kind::Other);
    }

    #[test]
    fn a_manifest_without_artifact_type_is_what_its_configuration_is() {
        let document = Document::parse(&manifest(""), None).unwrap();
        assert_eq!(document.artifact_type.as_deref(), Some("application/vnd.oci.empty.v1+json"));
    }

    #[test]
    fn only_an_index_of_a_model_is_one() {
        let index = |kind: &str| {
            let text = format!(
                r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"{kind}","manifests":[]}}"#,
                media_type::INDEX
            );
            Document::parse(text.as_bytes(), Some(media_type::INDEX)).unwrap().kind()
        };
        assert_eq!(index(media_type::INDEX_ARTIFACT), Kind::ModelIndex);
        assert_eq!(index("application/other"), Kind::Other);
    }

    #[test]
    fn a_layer_that_lies_elsewhere_need_not_be_pushed() {
        let nowhere = "application/vnd.oci.image.layer.nondistributable.v1.tar";
        for layer in [
            descriptor("text/plain", b"x", r#","urls":["https://example.com/x"]"#),
            descriptor(nowhere, b"x", ""),
        ] {
            let config = descriptor("application/vnd.oci.empty.v1+json", b"{}", "");
            let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
            let document = Document::parse(text.as_bytes(), Some(media_type::MANIFEST)).unwrap();
            assert!(!document.links[&digest(b"x")].is_needed, "{layer}");
            assert!(document.links[&digest(b"{}")].is_needed, "{layer}");
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let refused = |text: &str, content_type: Option<&str>| {
            Document::parse(text.as_bytes(), content_type).unwrap_err().to_string()
        };
        assert!(refused("blablabla", Some("a/b")).contains("not JSON"));
        assert!(refused(r#"{"schemaVersion":1}"#, Some("a/b")).contains("schema version 1"));
        assert!(refused(r#"{"schemaVersion":2}"#, None).contains("media type"));
        let other = r#"{"schemaVersion":2,"mediaType":"a/b"}"#;
        assert!(refused(other, Some("a/c")).contains("a/c"));
        assert!(Document::parse(other.as_bytes(), Some("a/b; charset=utf-8")).is_ok());
        let bare = r#"{"schemaVersion":2}"#;
        assert!(refused(bare, Some(media_type::MANIFEST)).contains("no config"));
        assert!(refused(bare, Some(media_type::INDEX)).contains("no manifests"));
        let weak =
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"a/b","digest":"md5:00","size":1}]}"#;
        assert!(refused(weak, Some(media_type::INDEX)).contains("md5:00"));
        let large = " ".repeat(MANIFEST_BYTES_MAX + 1);
        assert!(refused(&large, None).contains("bytes"));
    }

    #[test]
    fn a_manifest_names_a_bounded_number_of_contents() {
        let many: Vec<_> = (0..=LINKS_MAX)
            .map(|number| descriptor("a/b", number.to_string().as_bytes(), ""))
            .collect();
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, many.join(","));
        let refused = Document::parse(text.as_bytes(), Some(media_type::INDEX)).unwrap_err();
        assert!(matches!(refused, InvalidDocument::Links(1_025)), "{refused}");
    }
}

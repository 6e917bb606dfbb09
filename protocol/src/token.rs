//! How a key that stays on a token is named: `pkcs11:token=T;object=O?module-path=/lib/x.so&pin-source=/etc/pin` (RFC 7512).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What every such name begins with.
pub const SCHEME: &str = "pkcs11:";

/// Longer names than any token's labels and paths make.
const BYTES_MAX: usize = 1024;

/// RFC 7512, section 2.3: what stands for itself in both parts of a name.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The parts of a name that say which key it is, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenName {
    /// The token's label.
    pub token: String,
    /// The label of the key's objects; none where a key is still to be made.
    pub object: Option<String>,
    /// The token's library.
    pub module: Option<PathBuf>,
    /// The file that holds the PIN. The PIN itself never stands in a name.
    pub pin_source: Option<PathBuf>,
}

/// Why a text names no key on a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTokenName {
    /// Another scheme.
    #[error("the name of a key on a token begins with `pkcs11:`")]
    Scheme,
    /// Far longer than any.
    #[error("the name of a key on a token is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// A part without a value.
    #[error("`{0}` in the token's name is not name=value")]
    Form(String),
    /// A part that is not of those above: to pass over it could mean another key.
    #[error(
        "`{0}` in the token's name is not understood\n\
         help: name the key by `pkcs11:token=…;object=…`, and the PIN by `?pin-source=FILE`"
    )]
    Unknown(String),
    /// A part twice.
    #[error("`{0}` stands twice in the token's name")]
    Twice(String),
    /// Bytes that are not text.
    #[error("`{0}` in the token's name is not UTF-8")]
    Encoding(String),
    /// No token.
    #[error("the token's name has no `token=`")]
    NoToken,
}

impl TokenName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, InvalidTokenName> {
        let rest = text.strip_prefix(SCHEME).ok_or(InvalidTokenName::Scheme)?;
        if text.len() > BYTES_MAX {
            return Err(InvalidTokenName::TooLong);
        }
        let mut attributes = BTreeMap::new();
        for pair in rest.split([';', '?', '&']).filter(|pair| !pair.is_empty()) {
            let form = || InvalidTokenName::Form(pair.to_owned());
            let (name, value) = pair.split_once('=').ok_or_else(form)?;
            if !["token", "object", "type", "module-path", "pin-source"].contains(&name) {
                return Err(InvalidTokenName::Unknown(name.to_owned()));
            }
            let value = percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| InvalidTokenName::Encoding(name.to_owned()))?;
            if attributes.insert(name, value.into_owned()).is_some() {
                return Err(InvalidTokenName::Twice(name.to_owned()));
            }
        }
        let mut take = |name: &str| attributes.remove(name);
        let token = take("token").ok_or(InvalidTokenName::NoToken)?;
        let object = take("object");
        let module = take("module-path").map(PathBuf::from);
        // RFC 7512, section 2.4: the source is a path, or a URI of one.
        let plain =
            |source: String| source.strip_prefix("file:").map(str::to_owned).unwrap_or(source);
        let pin_source = take("pin-source").map(plain).map(PathBuf::from);
        Ok(Self { token, object, module, pin_source })
    }

    /// The key of that label on the same token.
    #[must_use]
    pub fn with_object(&self, object: &str) -> Self {
        Self { object: Some(object.to_owned()), ..self.clone() }
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}token={}", utf8_percent_encode(&self.token, ENCODED))?;
        if let Some(object) = &self.object {
            write!(f, ";object={}", utf8_percent_encode(object, ENCODED))?;
        }
        let paths = [("module-path", &self.module), ("pin-source", &self.pin_source)];
        let paths = paths.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?)));
        for (before, (name, path)) in ['?', '&'].into_iter().zip(paths) {
            let path = path.to_string_lossy();
            write!(f, "{before}{name}={}", utf8_percent_encode(&path, ENCODED))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_says_token_object_library_and_where_the_pin_is() {
        let text = "pkcs11:token=on%20call;object=k1?module-path=/lib/x.so&pin-source=file:/etc/p";
        let name = TokenName::parse(text).unwrap();
        assert_eq!((name.token.as_str(), name.object.as_deref()), ("on call", Some("k1")));
        assert_eq!(name.module, Some(PathBuf::from("/lib/x.so")));
        assert_eq!(name.pin_source, Some(PathBuf::from("/etc/p")));
    }

    #[test]
    fn a_name_that_says_more_than_is_understood_is_refused() {
        use InvalidTokenName as Invalid;
        let invalid = |text: &str| TokenName::parse(text).unwrap_err();
        assert_eq!(invalid("file:k"), Invalid::Scheme);
        assert_eq!(invalid("pkcs11:object=a"), Invalid::NoToken);
        assert_eq!(invalid("pkcs11:token=a;token=b"), Invalid::Twice("token".into()));
        assert_eq!(invalid("pkcs11:token=a?pin-value=1"), Invalid::Unknown("pin-value".into()));
        assert_eq!(invalid("pkcs11:token"), Invalid::Form("token".into()));
        assert_eq!(invalid("pkcs11:token=%ff"), Invalid::Encoding("token".into()));
        let long = format!("pkcs11:token={}", "a".repeat(BYTES_MAX));
        assert_eq!(invalid(&long), Invalid::TooLong);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            token in "\\PC{1,32}",
            object in proptest::option::of("\\PC{1,32}"),
            module in proptest::option::of("/[a-z ;&?=%+]{1,32}"),
        ) {
            let module = module.map(PathBuf::from);
            let name = TokenName { token, object, module, pin_source: None };
            prop_assert_eq!(TokenName::parse(&name.to_string()), Ok(name));
        }
    }
}

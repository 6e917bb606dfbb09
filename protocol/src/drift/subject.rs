//! Who saw it, and what of the data: the two names of a verdict, as text `site=osaka` and `group:upper-left`.

use std::fmt;

use crate::id::DeviceId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Whose windows were merged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All devices that run the version.
    Fleet,
    /// Those with a label.
    Cohort {
        /// The label's key, such as `site`.
        key: String,
        /// Its value, such as `osaka`.
        value: String,
    },
    /// One device.
    Device(DeviceId),
}

/// What of the data a verdict is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// One feature of the input.
    Feature(String),
    /// The features of a group.
    Group(String),
    /// The predicted classes.
    Prediction,
    /// The confidence.
    Confidence,
    /// How numeric features go together.
    Correlations,
}

/// A text that names no scope or no subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is none of {expected}")]
pub struct InvalidScope {
    text: String,
    expected: &'static str,
}

impl InvalidScope {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

impl Scope {
    /// Parses `fleet`, `key=value` or `device:id`.
    pub fn parse(text: &str) -> Result<Self, InvalidScope> {
        let refused = || InvalidScope::new(text, "`fleet`, `key=value`, `device:id`");
        if text == "fleet" {
            return Ok(Self::Fleet);
        }
        if let Some(id) = text.strip_prefix("device:") {
            return DeviceId::parse(id).map(Self::Device).map_err(|_| refused());
        }
        let (key, value) = text.split_once('=').ok_or_else(refused)?;
        if key.is_empty() {
            return Err(refused());
        }
        Ok(Self::Cohort { key: key.to_owned(), value: value.to_owned() })
    }
}

impl Subject {
    /// Parses `feature:name`, `group:name`, `prediction`, `confidence` or `correlations`.
    pub fn parse(text: &str) -> Result<Self, InvalidScope> {
        match text.split_once(':') {
            Some(("feature", name)) => Ok(Self::Feature(name.to_owned())),
            Some(("group", name)) => Ok(Self::Group(name.to_owned())),
            None if text == "prediction" => Ok(Self::Prediction),
            None if text == "confidence" => Ok(Self::Confidence),
            None if text == "correlations" => Ok(Self::Correlations),
            Some(_) | None => {
                let expected =
                    "`feature:name`, `group:name`, `prediction`, `confidence`, `correlations`";
                Err(InvalidScope::new(text, expected))
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet => f.write_str("fleet"),
            Self::Cohort { key, value } => write!(f, "{key}={value}"),
            Self::Device(id) => write!(f, "device:{id}"),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Feature(name) => write!(f, "feature:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Prediction => f.write_str("prediction"),
            Self::Confidence => f.write_str("confidence"),
            Self::Correlations => f.write_str("correlations"),
        }
    }
}

/// serde through `parse` and `Display`.
macro_rules! text_form {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

text_form!(Scope);
text_form!(Subject);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_and_subjects_survive_their_text() {
        for text in ["fleet", "site=osaka", "site=", "device:cam-1"] {
            assert_eq!(Scope::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "feature:p00",
            "feature:a:b",
            "group:upper-left",
            "prediction",
            "confidence",
            "correlations",
        ] {
            assert_eq!(Subject::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "osaka", "device:Cam 1", "=osaka"] {
            assert!(Scope::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(
            Subject::parse("p00").unwrap_err().to_string(),
            "`p00` is none of `feature:name`, `group:name`, `prediction`, `confidence`, `correlations`"
        );
    }
}

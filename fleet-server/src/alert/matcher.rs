//! One condition on an alert, as people write it: `site=osaka`, `site!=lab`, `model=vision/*`. Channels choose alerts with them, and
//! silences cover them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use sealift_protocol::api::AlertView;
use serde::{Deserialize, Serialize};

use super::Finding;

/// Characters of one matcher.
const CHARS_MAX: usize = 200;
/// Matchers of one channel or silence.
pub(crate) const MATCHERS_MAX: usize = 16;

/// A condition. `kind` and `severity` ask for those of the alert, any other key for the label of this name; `*` stands for any text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Matcher {
    key: String,
    pattern: String,
    is_negated: bool,
}

/// Text that is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no condition such as `site=osaka`, `kind!=drift` or `model=vision/*`")]
pub struct InvalidMatcher(String);

/// What conditions are asked of.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    kind: &'a str,
    severity: &'a str,
    labels: &'a BTreeMap<String, String>,
}

impl<'a> From<&'a Finding> for Subject<'a> {
    fn from(finding: &'a Finding) -> Self {
        let (kind, severity) = (finding.kind.as_str(), finding.severity.as_str());
        Self { kind, severity, labels: &finding.labels }
    }
}

impl<'a> From<&'a AlertView> for Subject<'a> {
    fn from(alert: &'a AlertView) -> Self {
        Self { kind: &alert.kind, severity: &alert.severity, labels: &alert.labels }
    }
}

impl Matcher {
    /// Whether it holds; a label that is not there is an empty text.
    pub fn holds(&self, subject: Subject<'_>) -> bool {
        let text = match self.key.as_str() {
            "kind" => subject.kind,
            "severity" => subject.severity,
            key => subject.labels.get(key).map(String::as_str).unwrap_or_default(),
        };
        is_like(&self.pattern, text) != self.is_negated
    }
}

/// Whether all of them hold; none hold for everything.
pub(crate) fn all_hold<'a>(matchers: &[Matcher], subject: impl Into<Subject<'a>>) -> bool {
    let subject = subject.into();
    matchers.iter().all(|matcher| matcher.holds(subject))
}

/// Whether `text` is the pattern, in which `*` stands for any characters. Looks at each character of the text at most once per star.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    text.ends_with(last)
}

impl FromStr for Matcher {
    type Err = InvalidMatcher;

    fn from_str(text: &str) -> Result<Self, InvalidMatcher> {
        let invalid = || InvalidMatcher(text.chars().take(CHARS_MAX).collect());
        let (key, pattern) = text.split_once('=').ok_or_else(invalid)?;
        let (key, is_negated) = key.strip_suffix('!').map_or((key, false), |key| (key, true));
        let is_plain = |part: &str| !part.chars().any(char::is_control);
        let is_key = |key: &str| {
            let mut letters = key.chars();
            !key.is_empty()
                && letters.all(|letter| letter.is_ascii_alphanumeric() || "-_./".contains(letter))
        };
        if text.chars().count() > CHARS_MAX || !is_key(key) || !is_plain(pattern) {
            return Err(invalid());
        }
        Ok(Self { key: key.to_owned(), pattern: pattern.to_owned(), is_negated })
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.is_negated { "!" } else { "" };
        write!(f, "{}{not}={}", self.key, self.pattern)
    }
}

impl From<Matcher> for String {
    fn from(matcher: Matcher) -> Self {
        matcher.to_string()
    }
}

impl TryFrom<String> for Matcher {
    type Error = InvalidMatcher;

    fn try_from(text: String) -> Result<Self, InvalidMatcher> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(matcher: &str, site: Option<&str>) -> bool {
        let labels = site.map(|site| ("site".to_owned(), site.to_owned())).into_iter().collect();
        let subject = Subject { kind: "drift", severity: "warning", labels: &labels };
        matcher.parse::<Matcher>().unwrap().holds(subject)
    }

    #[test]
    fn kind_severity_and_labels_are_compared_and_stars_stand_for_any_text() {
        for (matcher, site, expected) in [
            ("kind=drift", None, true),
            ("severity!=warning", None, false),
            ("site=osaka", Some("osaka"), true),
            ("site=osaka", Some("osaka-2"), false),
            ("site=osaka*", Some("osaka-2"), true),
            ("site=*-2", Some("osaka-2"), true),
            ("site=o*k*2", Some("osaka-2"), true),
            ("site=o*k*3", Some("osaka-2"), false),
            ("site=*", None, true),
            ("site=", None, true),
            ("site!=osaka", None, true),
            ("site=ab*ba", Some("aba"), false),
        ] {
            assert_eq!(holds(matcher, site), expected, "{matcher} {site:?}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_and_the_rest_reads_as_it_was_written() {
        for text in ["", "site", "=x", "!=x", "a b=x", "site=\n", &"x=y".repeat(100)] {
            assert!(text.parse::<Matcher>().is_err(), "{text}");
        }
        for text in ["site=osaka", "a.b/c-d!=x=y", "site="] {
            assert_eq!(text.parse::<Matcher>().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn a_text_is_like_itself_and_like_every_part_with_stars_around(
            before in "[a-c]{0,4}", middle in "[a-c]{0,4}", after in "[a-c]{0,4}",
        ) {
            let text = format!("{before}{middle}{after}");
            prop_assert!(is_like(&text, &text));
            let pattern = format!("*{middle}*");
            prop_assert!(is_like(&pattern, &text));
            let pattern = format!("{before}*{after}");
            prop_assert!(is_like(&pattern, &text));
        }
    }
}

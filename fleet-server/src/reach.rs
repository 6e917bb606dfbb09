//! How far an operator reaches: all devices, or those with certain labels. Decides from values.

use std::collections::BTreeMap;
use std::fmt;

use crate::filter::{Condition, Filter, InvalidFilter, Term};

/// Why a text is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidReach {
    /// It is no filter.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// It asks for what changes by itself, or for a pattern.
    #[error(
        "`{0}` is no scope: a scope has labels with exact values only, such as `site:osaka -line:4`"
    )]
    Term(String),
}

/// The devices that somebody sees and changes. What it names does not change unless somebody changes a label.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reach {
    text: String,
    filter: Filter,
}

impl Reach {
    /// Parses a scope; the empty one is every device.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidReach> {
        let filter: Filter = text.parse()?;
        if filter.terms().iter().any(|term| label(term).is_none()) {
            return Err(InvalidReach::Term(text.to_owned()));
        }
        Ok(Self { text: text.trim().to_owned(), filter })
    }

    /// Whether every device is meant.
    pub(crate) fn is_whole(&self) -> bool {
        self.filter.terms().is_empty()
    }

    /// The scope as a filter.
    pub(crate) const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The scope as it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a device with these labels is meant.
    pub(crate) fn has(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |term: &Term| {
            label(term).is_some_and(|(name, value)| {
                (labels.get(name).map(String::as_str) == Some(value)) != term.is_negated
            })
        };
        self.filter.terms().iter().all(holds)
    }

    /// Whether every device with the label `name` of this value is meant, whatever its other labels.
    pub(crate) fn has_all_of(&self, name: &str, value: &str) -> bool {
        let decides = |term: &Term| {
            label(term)
                .is_some_and(|(of, wanted)| of == name && (wanted == value) != term.is_negated)
        };
        self.filter.terms().iter().all(decides)
    }

    /// Whether everything that `other` means is meant: every term here stands there too.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        self.filter.terms().iter().all(|term| other.filter.terms().contains(term))
    }

    /// `filter`, and of it only what is meant.
    pub(crate) fn narrow(&self, filter: &str) -> String {
        match (filter.trim(), self.text.as_str()) {
            (filter, "") => filter.to_owned(),
            ("", scope) => scope.to_owned(),
            (filter, scope) if filter.ends_with(scope) => filter.to_owned(),
            (filter, scope) => format!("{filter} {scope}"),
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn label(term: &Term) -> Option<(&str, &str)> {
    match &term.condition {
        Condition::Label(name, value) => Some((name, value.exact()?)),
        Condition::State(_)
        | Condition::Model(..)
        | Condition::Id(_)
        | Condition::Seen(..)
        | Condition::Simulated(_)
        | Condition::Chosen(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(text: &str) -> Reach {
        Reach::parse(text).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_scope_is_made_of_labels_alone() {
        for text in ["state:online", "id:cam-1", "seen:<5m", "site:osak*", "model:a/b", "x"] {
            assert!(Reach::parse(text).is_err(), "{text}");
        }
        assert!(reach("").is_whole() && reach("  ").is_whole() && !reach("site:osaka").is_whole());
    }

    #[test]
    fn devices_are_in_scope_by_their_labels() {
        let osaka = reach("site:osaka -line:4");
        assert!(osaka.has(&labels(&[("site", "osaka")])));
        assert!(osaka.has(&labels(&[("site", "osaka"), ("line", "5")])));
        assert!(!osaka.has(&labels(&[("site", "osaka"), ("line", "4")])));
        assert!(!osaka.has(&labels(&[("line", "5")])));
        assert!(reach("").has(&labels(&[])));
    }

    #[test]
    fn a_cohort_is_in_scope_only_if_all_of_it_is() {
        assert!(reach("site:osaka").has_all_of("site", "osaka"));
        assert!(reach("-site:tokyo").has_all_of("site", "osaka"));
        assert!(!reach("site:osaka").has_all_of("site", "tokyo"));
        assert!(!reach("site:osaka -line:4").has_all_of("site", "osaka"));
        assert!(reach("").has_all_of("site", "osaka"));
    }

    #[test]
    fn one_scope_contains_another_that_says_more() {
        assert!(reach("site:osaka").contains(&reach("line:4 site:osaka")));
        assert!(!reach("site:osaka line:4").contains(&reach("site:osaka")));
        assert!(
            reach("").contains(&reach("site:osaka")) && !reach("site:osaka").contains(&reach(""))
        );
    }

    #[test]
    fn a_filter_is_narrowed_once() {
        let osaka = reach("site:osaka");
        assert_eq!(osaka.narrow("model:a/b"), "model:a/b site:osaka");
        assert_eq!(osaka.narrow("model:a/b site:osaka"), "model:a/b site:osaka");
        assert_eq!(
            (osaka.narrow(""), reach("").narrow("a:b")),
            ("site:osaka".into(), "a:b".into())
        );
    }
}

//! The one language in which devices are chosen: in the console, on the command line, in rollouts.
//!
//! Terms are separated by spaces and must all hold; `-` before a term turns it round.
//! `site:tokyo` a label, `state:offline`, `model:vision/digits@<2` what it serves, `id:cam-*`, `seen:<5m`, `sim:true`.
//! `chosen:7` stands for devices that a rollback has chosen one by one.
//! `*` stands for any characters; a value with spaces stands in double quotes.

use std::cmp::Ordering;
use std::str::FromStr;

use sealift_protocol::api::DeviceState;
use sealift_protocol::id::{ModelName, Version};
use sealift_protocol::limits::{LABEL_KEY_CHARS_MAX, LABEL_VALUE_CHARS_MAX};

/// A filter is a line that a person types.
const FILTER_BYTES_MAX: usize = 1_000;
/// Each term is a condition that the database checks for every device.
const TERMS_MAX: usize = 32;

/// Keys that mean something else than a label.
const RESERVED_KEYS: [&str; 6] = ["state", "model", "id", "seen", "sim", "chosen"];

/// What a label may be, for people.
pub const LABEL_RULE: &str = "a label's name is 1 to 40 of a-z, 0-9, `-`, `_`, `.` and `/`, does not begin with `-`, and is none of \
    state, model, id, seen, sim, chosen; its value is 1 to 80 printable characters without double quotes";

/// Whether `name` and `value` are a label, which is one that a filter can ask for.
pub fn is_label(name: &str, value: &str) -> bool {
    let is_inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_./".contains(&byte);
    let is_name = (1..=LABEL_KEY_CHARS_MAX).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !RESERVED_KEYS.contains(&name);
    let is_plain = |character: char| !character.is_control() && character != '"';
    is_name
        && (1..=LABEL_VALUE_CHARS_MAX).contains(&value.chars().count())
        && value.chars().all(is_plain)
}

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// More than a person types.
    #[error(
        "the filter is longer than {FILTER_BYTES_MAX} bytes or has more than {TERMS_MAX} terms"
    )]
    TooLong,
    /// A quote that does not end.
    #[error("a double quote is not closed")]
    Quote,
    /// A word without a colon.
    #[error(
        "`{0}` is not a term; write `label:value`, `state:…`, `model:…`, `id:…`, `seen:…` or `sim:…`"
    )]
    Term(String),
    /// A term whose value makes no sense.
    #[error("`{term}` is not understood: {rule}")]
    Value {
        /// The term.
        term: String,
        /// What would be.
        rule: &'static str,
    },
}

/// Terms that must all hold; without any, every device is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    terms: Vec<Term>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Whether the condition must not hold.
    pub is_negated: bool,
    /// The condition.
    pub condition: Condition,
}

/// What a device is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// A label with a value of this shape.
    Label(String, Glob),
    /// How it does.
    State(DeviceState),
    /// It serves the model, in a version that compares so.
    Model(ModelName, Option<(Comparison, Version)>),
    /// Its id.
    Id(Glob),
    /// How long ago something came from it, in milliseconds.
    Seen(Comparison, i64),
    /// Whether it is simulated.
    Simulated(bool),
    /// It is in a set that a rollback has written down.
    Chosen(u64),
}

/// A text in which `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`, or nothing.
    Equal,
    /// `<`.
    Less,
    /// `<=`.
    AtMost,
    /// `>`.
    Greater,
    /// `>=`.
    AtLeast,
}

impl Filter {
    /// The filter without `state:offline`, if it has that and asks else only what does not change by the minute.
    pub(crate) fn without_offline(&self) -> Option<Self> {
        let is_offline = |term: &Term| {
            term.condition == Condition::State(DeviceState::Offline) && !term.is_negated
        };
        let (offline, terms): (Vec<Term>, Vec<Term>) =
            self.terms.iter().cloned().partition(is_offline);
        let is_lasting = |term: &Term| match term.condition {
            Condition::Label(..)
            | Condition::Id(_)
            | Condition::Simulated(_)
            | Condition::Chosen(_) => true,
            Condition::State(_) | Condition::Model(..) | Condition::Seen(..) => false,
        };
        let can_be_looked_up = !offline.is_empty() && terms.iter().all(is_lasting);
        can_be_looked_up.then_some(Self { terms })
    }
}

impl Comparison {
    /// Whether `ordering` is one that is asked for.
    pub const fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Less => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::AtLeast => ordering.is_ge(),
        }
    }

    fn split(text: &str) -> (Self, &str) {
        let signs = [
            ("<=", Self::AtMost),
            (">=", Self::AtLeast),
            ("<", Self::Less),
            (">", Self::Greater),
            ("=", Self::Equal),
        ];
        let found = signs.iter().find_map(|&(sign, it)| Some((it, text.strip_prefix(sign)?)));
        found.unwrap_or((Self::Equal, text))
    }
}

impl Glob {
    /// The exact text, if there is no `*` in it.
    pub fn exact(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(self.0.as_str())
    }

    /// The same as a pattern of SQL's `LIKE` with `\` as its escape character.
    pub fn to_like(&self) -> String {
        let mut like = String::with_capacity(self.0.len() + 4);
        for character in self.0.chars() {
            match character {
                '*' => like.push('%'),
                '%' | '_' | '\\' => like.extend(['\\', character]),
                other => like.push(other),
            }
        }
        like
    }
}

impl Filter {
    /// What both name.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self { terms: self.terms.iter().chain(&other.terms).cloned().collect() }
    }

    /// Whether it names devices that were written down one by one.
    pub fn is_chosen(&self) -> bool {
        let is_set =
            |term: &Term| !term.is_negated && matches!(term.condition, Condition::Chosen(_));
        self.terms.iter().any(is_set)
    }

    /// Its terms.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }
}

impl FromStr for Filter {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(InvalidFilter::TooLong);
        }
        let words = split_words(text)?;
        if words.len() > TERMS_MAX {
            return Err(InvalidFilter::TooLong);
        }
        let terms = words.iter().map(|word| term(word)).collect::<Result<_, _>>()?;
        Ok(Self { terms })
    }
}

/// Splits at spaces outside of double quotes, and takes the quotes away.
fn split_words(text: &str) -> Result<Vec<String>, InvalidFilter> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut is_quoted = false;
    for character in text.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            space if space.is_whitespace() && !is_quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    if is_quoted {
        return Err(InvalidFilter::Quote);
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

fn term(word: &str) -> Result<Term, InvalidFilter> {
    let (is_negated, positive) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let no_term = || InvalidFilter::Term(word.to_owned());
    let (key, value) = positive.split_once(':').ok_or_else(no_term)?;
    if key.is_empty() || value.is_empty() {
        return Err(no_term());
    }
    let condition = condition(key, value)
        .map_err(|rule| InvalidFilter::Value { term: word.to_owned(), rule })?;
    Ok(Term { is_negated, condition })
}

fn condition(key: &str, value: &str) -> Result<Condition, &'static str> {
    match key {
        "state" => state(value).map(Condition::State),
        "model" => model(value),
        "id" => Ok(Condition::Id(Glob(value.to_owned()))),
        "seen" => seen(value),
        "chosen" => value
            .parse()
            .map(Condition::Chosen)
            .map_err(|_| "write the number of a set of devices, such as `chosen:7`"),
        "sim" => match value {
            "true" => Ok(Condition::Simulated(true)),
            "false" => Ok(Condition::Simulated(false)),
            _ => Err("`sim` is `true` or `false`"),
        },
        label => {
            if label.chars().count() > LABEL_KEY_CHARS_MAX
                || value.chars().count() > LABEL_VALUE_CHARS_MAX
            {
                return Err("no label is that long");
            }
            Ok(Condition::Label(label.to_owned(), Glob(value.to_owned())))
        }
    }
}

fn state(value: &str) -> Result<DeviceState, &'static str> {
    match value {
        "online" => Ok(DeviceState::Online),
        "unhealthy" => Ok(DeviceState::Unhealthy),
        "offline" => Ok(DeviceState::Offline),
        "revoked" => Ok(DeviceState::Revoked),
        _ => Err("a state is `online`, `unhealthy`, `offline` or `revoked`"),
    }
}

fn model(value: &str) -> Result<Condition, &'static str> {
    let rule = "write `model:team/name` or `model:team/name@<2`";
    let (name, version) = match value.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (value, None),
    };
    let name = ModelName::parse(name).map_err(|_| rule)?;
    let version = version.map(|text| {
        let (comparison, version) = Comparison::split(text);
        Version::parse(version).map(|version| (comparison, version)).map_err(|_| rule)
    });
    Ok(Condition::Model(name, version.transpose()?))
}

fn seen(value: &str) -> Result<Condition, &'static str> {
    let rule = "write `seen:<5m` or `seen:>2h`; units are s, m, h and d";
    let (comparison, duration) = Comparison::split(value);
    if comparison == Comparison::Equal {
        return Err(rule);
    }
    let unit_ms = match duration.chars().last() {
        Some('s') => 1_000,
        Some('m') => 60_000,
        Some('h') => 3_600_000,
        Some('d') => 86_400_000,
        Some(_) | None => return Err(rule),
    };
    let number: i64 = duration.get(..duration.len() - 1).unwrap_or("").parse().map_err(|_| rule)?;
    if number < 0 {
        return Err(rule);
    }
    Ok(Condition::Seen(comparison, number.saturating_mul(unit_ms)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn only(text: &str) -> Condition {
        let filter: Filter = text.parse().unwrap();
        let [term] = filter.terms() else { panic!("{text}: {filter:?}") };
        assert!(!term.is_negated);
        term.condition.clone()
    }

    #[test]
    fn every_kind_of_term_is_read() {
        let glob = |text: &str| Glob(text.to_owned());
        assert_eq!(only("site:tokyo"), Condition::Label("site".to_owned(), glob("tokyo")));
        assert_eq!(only("state:offline"), Condition::State(DeviceState::Offline));
        assert_eq!(only("id:cam-*"), Condition::Id(glob("cam-*")));
        assert_eq!(only("seen:<5m"), Condition::Seen(Comparison::Less, 300_000));
        assert_eq!(only("sim:true"), Condition::Simulated(true));
        let digits = ModelName::parse("vision/digits").unwrap();
        let two = Version::parse("2").unwrap();
        assert_eq!(only("model:vision/digits"), Condition::Model(digits.clone(), None));
        let at = |comparison| Condition::Model(digits.clone(), Some((comparison, two.clone())));
        assert_eq!(only("model:vision/digits@2"), at(Comparison::Equal));
        assert_eq!(only("model:vision/digits@<2"), at(Comparison::Less));
        assert_eq!(only("model:vision/digits@>=2"), at(Comparison::AtLeast));
    }

    #[test]
    fn terms_are_joined_negated_and_quoted() {
        let filter: Filter = "  site:\"new york\"  -state:offline ".parse().unwrap();
        let [site, state] = filter.terms() else { panic!("{filter:?}") };
        assert_eq!(
            site.condition,
            Condition::Label("site".to_owned(), Glob("new york".to_owned()))
        );
        assert!(state.is_negated);
        assert_eq!("".parse(), Ok(Filter::default()));
    }

    #[test]
    fn what_is_left_beside_offline_is_what_lasts() {
        let without = |text: &str| text.parse::<Filter>().unwrap().without_offline();
        assert_eq!(without("site:osaka state:offline"), Some("site:osaka".parse().unwrap()));
        assert_eq!(without("state:offline"), Some(Filter::default()));
        for text in ["site:osaka", "-state:offline", "state:offline seen:<5m", "state:unhealthy"] {
            assert_eq!(without(text), None, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_not_skipped() {
        for text in [
            "tokyo",
            "site:",
            ":tokyo",
            "-",
            "state:sleepy",
            "model:digits",
            "model:a/b@",
            "seen:5m",
            "seen:<5",
            "seen:<-5m",
            "seen:<m",
            "sim:maybe",
            "site:\"new york",
        ] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
        assert_eq!("a:b ".repeat(33).parse::<Filter>(), Err(InvalidFilter::TooLong));
    }

    #[test]
    fn a_label_is_what_a_filter_can_ask_for() {
        for (name, value) in [("site", "tokyo"), ("rack_1", "new york"), ("a.b/c-d", "東")] {
            assert!(is_label(name, value), "{name}");
            assert!(matches!(only(&format!("{name}:\"{value}\"")), Condition::Label(..)));
        }
        let long = "x".repeat(81);
        for (name, value) in [
            ("", "x"),
            ("state", "x"),
            ("a b", "x"),
            ("-a", "x"),
            ("A", "x"),
            ("a:b", "x"),
            ("a", ""),
            ("a", "\n"),
            ("a", "\""),
            ("a", &long),
        ] {
            assert!(!is_label(name, value), "{name} {value}");
        }
    }

    #[test]
    fn wildcards_of_sql_are_ordinary_characters() {
        assert_eq!(Glob("a_b%*\\".to_owned()).to_like(), "a\\_b\\%%\\\\");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = text.parse::<Filter>();
        }
    }
}

//! Cells in eight bytes: a number is itself, everything else a NaN that says what it is and where.
//!
//! What a format writes of one value, another writes otherwise: `7`, `7.0` and the number are one cell here, and so are `True` and true.
//! A text that a number would not be written as, such as `007`, stays a text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use sealift_protocol::profile::NAME_CHARS_MAX;
use sealift_protocol::table::Value;

/// Texts of one column that are kept apart. A column with more holds names or times.
const TEXTS_MAX: usize = 1 << 20;

/// Sign, exponent and the bit of a quiet NaN: no number has these bits once NaN is written in one way.
const TAG: u64 = 0xfff8_0000_0000_0000;

/// A cell of a [`super::Column`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Packed(u64);

/// What a cell holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell<'a> {
    /// Nothing.
    Null,
    /// A number, which may be NaN.
    Number(f64),
    /// True or false.
    Bool(bool),
    /// A date or a time.
    Time(&'a str),
    /// A text, at most as long as a name.
    Text(&'a str),
    /// Bytes that are no text.
    Bytes,
}

#[derive(Clone, Copy)]
enum Kind {
    Null = 1,
    False = 2,
    True = 3,
    Bytes = 4,
    Time = 5,
    Text = 6,
}

impl Packed {
    fn number(value: f64) -> Self {
        // Adding zero leaves one spelling of zero.
        let value = if value.is_nan() { f64::NAN.abs() } else { value + 0.0 };
        Self(value.to_bits())
    }

    const fn other(kind: Kind, place: u32) -> Self {
        Self(TAG | (kind as u64) << 32 | place as u64)
    }
}

/// The texts of a column.
#[derive(Debug, Default)]
pub(super) struct Texts {
    all: Vec<Rc<str>>,
    places: BTreeMap<Rc<str>, u32>,
    is_overfull: bool,
}

impl Texts {
    /// Takes a value.
    pub(super) fn pack(&mut self, value: Value) -> Packed {
        match value {
            Value::Null => Packed::other(Kind::Null, 0),
            Value::Bool(value) => of_bool(value),
            Value::Double(value) => Packed::number(value),
            // As people would write it: 0.1 of 32 bits is the 0.1 of a text.
            Value::Single(value) => {
                Packed::number(value.to_string().parse().unwrap_or_else(|_| f64::from(value)))
            }
            #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 it stays a text")]
            Value::Int(value) => self.whole(value.unsigned_abs(), value as f64, &value),
            #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 it stays a text")]
            Value::Unsigned(value) => self.whole(value, value as f64, &value),
            Value::Decimal(text) | Value::Text(text) => self.text(text.trim()),
            Value::Time(text) => self.intern(Kind::Time, &text),
            Value::Bytes(_) => Packed::other(Kind::Bytes, 0),
        }
    }

    fn whole(&mut self, size: u64, number: f64, text: &impl ToString) -> Packed {
        if size <= 1 << 53 {
            Packed::number(number)
        } else {
            self.intern(Kind::Text, &text.to_string())
        }
    }

    fn text(&mut self, text: &str) -> Packed {
        if text.is_empty() {
            return Packed::other(Kind::Null, 0);
        }
        if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
            return of_bool(text.eq_ignore_ascii_case("true"));
        }
        if let Some(number) = plain_number(text) {
            return Packed::number(number);
        }
        self.intern(if is_time(text) { Kind::Time } else { Kind::Text }, text)
    }

    fn intern(&mut self, kind: Kind, text: &str) -> Packed {
        let end = text.char_indices().nth(NAME_CHARS_MAX).map_or(text.len(), |(end, _)| end);
        let text = text.get(..end).unwrap_or(text);
        if let Some(place) = self.places.get(text) {
            return Packed::other(kind, *place);
        }
        if self.all.len() >= TEXTS_MAX {
            self.is_overfull = true;
            return Packed::other(kind, 0);
        }
        let (text, place) = (Rc::<str>::from(text), u32::try_from(self.all.len()).unwrap_or(0));
        self.all.push(Rc::clone(&text));
        self.places.insert(text, place);
        Packed::other(kind, place)
    }

    /// What a packed cell holds.
    pub(super) fn cell(&self, Packed(bits): Packed) -> Cell<'_> {
        if bits & TAG != TAG {
            return Cell::Number(f64::from_bits(bits));
        }
        let place = usize::try_from(bits & u64::from(u32::MAX)).unwrap_or(usize::MAX);
        let text = || self.all.get(place).map_or("", AsRef::as_ref);
        match (bits & !TAG) >> 32 {
            2 => Cell::Bool(false),
            3 => Cell::Bool(true),
            4 => Cell::Bytes,
            5 => Cell::Time(text()),
            6 => Cell::Text(text()),
            _ => Cell::Null, // 1, and no other is ever written
        }
    }

    /// Whether there are more than are kept apart.
    pub(super) const fn is_overfull(&self) -> bool {
        self.is_overfull
    }
}

impl<'a> Cell<'a> {
    /// Whether there is nothing, or what tools write for it.
    pub(crate) fn is_missing(self) -> bool {
        match self {
            Self::Null => true,
            Self::Text(text) => is_missing(text),
            Self::Number(_) | Self::Bool(_) | Self::Time(_) | Self::Bytes => false,
        }
    }

    /// The number that a cell is, also one that is written as a number is not.
    pub(crate) fn number(self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(value),
            Self::Text(text) => text.parse().ok(),
            Self::Null | Self::Bool(_) | Self::Time(_) | Self::Bytes => None,
        }
    }

    /// True and false as the numbers that a graph takes for them.
    pub(crate) fn bit(self) -> Option<f64> {
        if let Self::Bool(value) = self { Some(f64::from(u8::from(value))) } else { None }
    }

    /// The name of the category that a cell is, also where it is a word for nothing; none where nothing is written.
    pub(crate) fn name(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Null | Self::Bytes => None,
            Self::Number(value) if value.is_nan() => None,
            Self::Number(value) => Some(value.to_string().into()),
            Self::Bool(value) => Some(value.to_string().into()),
            Self::Time(text) | Self::Text(text) => Some(text.into()),
        }
    }
}

const fn of_bool(value: bool) -> Packed {
    Packed::other(if value { Kind::True } else { Kind::False }, 0)
}

/// The name that a cell would have in which this text is written.
pub(crate) fn name_of(text: &str) -> String {
    let mut texts = Texts::default();
    let packed = texts.text(text.trim());
    texts.cell(packed).name().map_or_else(String::new, Cow::into_owned)
}

/// What tools write for "nothing".
fn is_missing(text: &str) -> bool {
    const NOTHING: [&str; 11] =
        ["", "na", "n/a", "#n/a", "<na>", "nan", "nat", "null", "none", "nil", "-"];
    NOTHING.iter().any(|nothing| text.eq_ignore_ascii_case(nothing))
}

/// A number, unless the text says more than that: zeros before it, a plus, more digits than a number holds.
fn plain_number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let first = *digits.as_bytes().first()?;
    let is_padded = digits.len() > 1
        && digits.starts_with('0')
        && digits.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    if is_padded || !(first.is_ascii_digit() || first == b'.') {
        return None;
    }
    let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_whole && digits.parse::<u64>().map_or(true, |size| size > 1 << 53) {
        return None;
    }
    text.parse().ok()
}

/// Whether a text is a day, a moment, or a time of the day with seconds.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_form = |form: &[u8]| {
        bytes.len() >= form.len()
            && bytes.iter().zip(form).all(|(byte, form)| match form {
                b'9' => byte.is_ascii_digit(),
                mark => byte == mark,
            })
    };
    let forms: [&[u8]; 5] =
        [b"9999-99-99", b"9999/99/99", b"99/99/9999", b"99.99.9999", b"99:99:99"];
    forms.into_iter().any(is_form)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(value: Value) -> Option<String> {
        let mut texts = Texts::default();
        let packed = texts.pack(value);
        texts.cell(packed).name().map(Cow::into_owned)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn one_value_is_one_cell_whatever_wrote_it() {
        let same: [&[Value]; 6] = [
            &[
                text("7"),
                text("7.0"),
                text(" 7 "),
                Value::Int(7),
                Value::Single(7.0),
                Value::Double(7.0),
            ],
            &[
                text("0.1"),
                Value::Single(0.1),
                Value::Double(0.1),
                Value::Decimal("0.10".to_owned()),
            ],
            &[text("True"), text("true"), Value::Bool(true)],
            &[text(""), text("  "), Value::Null],
            &[text("0"), text("-0"), text("0.0"), Value::Double(-0.0)],
            &[text("18446744073709551615"), Value::Unsigned(u64::MAX)],
        ];
        for values in same {
            let mut texts = Texts::default();
            let packed: Vec<_> = values.iter().map(|value| texts.pack(value.clone())).collect();
            assert!(packed.iter().all(|other| *other == packed[0]), "{values:?}: {packed:?}");
        }
    }

    #[test]
    fn what_a_number_would_not_be_written_as_stays_a_text_and_can_be_read_as_one() {
        for odd in ["007", "+7", "123456789012345678901"] {
            assert_eq!(name(text(odd)).as_deref(), Some(odd));
            let mut texts = Texts::default();
            let packed = texts.pack(text(odd));
            assert_eq!(texts.cell(packed).number(), odd.parse().ok());
        }
        assert_eq!(name(text("2e3")).as_deref(), Some("2000"));
    }

    #[test]
    fn words_for_nothing_are_missing_and_can_still_be_the_name_of_a_class() {
        for word in ["NaN", "NULL", "none", "-", "#N/A"] {
            let mut texts = Texts::default();
            let packed = texts.pack(text(word));
            let cell = texts.cell(packed);
            assert!(cell.is_missing() && cell.name().as_deref() == Some(word), "{cell:?}");
        }
        assert!(!Cell::Text("nancy").is_missing());
    }

    #[test]
    fn times_are_told_from_texts() {
        let kind = |value: &str| {
            let mut texts = Texts::default();
            let packed = texts.pack(text(value));
            matches!(texts.cell(packed), Cell::Time(_))
        };
        assert!(kind("2024-01-31") && kind("2024-01-31 10:00:00+09:00") && kind("23:59:59"));
        assert!(!kind("2024-1") && !kind("osaka") && !kind("12:30"));
    }

    #[test]
    fn texts_are_no_longer_than_names_and_end_at_a_letter() {
        let long = "ü".repeat(NAME_CHARS_MAX + 5);
        assert_eq!(name(text(&long)).unwrap(), "ü".repeat(NAME_CHARS_MAX));
    }
}

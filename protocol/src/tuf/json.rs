//! JSON as TUF needs it: one reading of every text, and one text for every value.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads JSON without repeated keys and without floats. Nesting beyond 128 is refused by the parser beneath.
///
/// A repeated key has two readings, and a float has no canonical form: either would let two parties see different metadata
/// under one signature.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Canonical JSON as OLPC defines it: keys sorted by code point, no white space, only `"` and `\` escaped in texts.
pub(crate) fn canonical(value: &Value) -> Vec<u8> {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text.into_bytes()
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => write_object(members, out),
    }
}

fn write_object(members: &Map<String, Value>, out: &mut String) {
    // Sorted here: whether `Map` keeps its keys in order depends on a feature that any crate in the tree can switch.
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by_key(|(key, _)| key.as_str());
    out.push('{');
    for (index, (key, member)) in sorted.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_text(key, out);
        out.push(':');
        write_canonical(member, out);
    }
    out.push('}');
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without floats and repeated keys")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Err(E::custom(format_args!("the float {value} has no canonical form")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(Strict)?;
            if map.contains_key(&key) {
                return Err(de::Error::custom(format_args!("the key {key:?} is repeated")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form_is_the_one_of_olpc() {
        let value =
            parse("{\"b\":[1,-2,null,true],\n \"a\":\"\\u00e9\\n\\\"\\\\/\",\"B\":{}}".as_bytes());
        let text = String::from_utf8(canonical(&value.unwrap())).unwrap();
        assert_eq!(text, "{\"B\":{},\"a\":\"é\n\\\"\\\\/\",\"b\":[1,-2,null,true]}");
    }

    #[test]
    fn repeated_keys_are_refused_at_every_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#] {
            assert!(parse(text.as_bytes()).unwrap_err().to_string().contains("repeated"));
        }
    }

    #[test]
    fn floats_are_refused_in_every_spelling() {
        for text in ["1.0", "1e3", "-0", "[18446744073709551616]"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(canonical(&parse(b"18446744073709551615").unwrap()), b"18446744073709551615");
    }

    #[test]
    fn depth_bombs_and_trailing_bytes_are_refused() {
        assert!(parse("[".repeat(1_000_000).as_bytes()).is_err());
        assert!(parse(format!("{}{}", "[".repeat(129), "]".repeat(129)).as_bytes()).is_err());
        assert!(parse(b"{} {}").is_err());
        assert!(parse(b"\"\\ud800\"").is_err());
    }
}

//! In which words two values differ.

use serde::Serialize;
use serde_json::Value;

/// Longer lists of differences help nobody.
const DIFFERENCES_MAX: usize = 20;

/// What is another, each as `path: was → is`.
pub(super) fn between<T: Serialize, U: Serialize>(was: &T, is: &U) -> anyhow::Result<Vec<String>> {
    let (was, is) = (serde_json::to_value(was)?, serde_json::to_value(is)?);
    let mut differences = Vec::new();
    compare("", &was, &is, &mut differences);
    let more = differences.len().saturating_sub(DIFFERENCES_MAX);
    differences.truncate(DIFFERENCES_MAX);
    if more > 0 {
        differences.push(format!("and {more} more"));
    }
    Ok(differences)
}

fn compare(path: &str, was: &Value, is: &Value, found: &mut Vec<String>) {
    match (was, is) {
        _ if was == is => (),
        (Value::Object(first), Value::Object(second)) => {
            let mut words: Vec<_> = first.keys().chain(second.keys()).collect();
            words.sort();
            words.dedup();
            for word in words {
                let of = |map: &serde_json::Map<String, Value>| map.get(word).cloned();
                let (was, is) = (of(first).unwrap_or_default(), of(second).unwrap_or_default());
                let dot = if path.is_empty() { "" } else { "." };
                compare(&format!("{path}{dot}{word}"), &was, &is, found);
            }
        }
        (Value::Array(first), Value::Array(second)) if first.len() == second.len() => {
            for (number, (was, is)) in first.iter().zip(second).enumerate() {
                compare(&format!("{path}[{number}]"), was, is, found);
            }
        }
        // 100 and 100.0 are one number.
        (Value::Number(first), Value::Number(second)) if first.as_f64() == second.as_f64() => (),
        _ => found.push(format!("{path}: {} → {}", shown(was), shown(is))),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.len() > 3 => format!("{} items", items.len()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_named_by_their_path() {
        let was = json!({ "waves": [{ "soak_s": 600, "percent": 100 }], "reason": "a" });
        let is =
            json!({ "waves": [{ "soak_s": 60, "percent": 100.0 }], "reason": "a", "tail_s": 1 });

        let found = between(&was, &is).unwrap();

        assert_eq!(found, ["tail_s: nothing → 1", "waves[0].soak_s: 600 → 60"]);
    }
}

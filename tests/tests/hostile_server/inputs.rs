//! What is thrown: bombs, spoilt numbers, strings that mean something to a database.

use reqwest::Method;
use sealift_protocol::topic::Up;
use serde_json::{Map, Value, json};

/// Every channel that a device may publish on.
pub const CHANNELS: [Up; 7] =
    [Up::Conn, Up::Birth, Up::Report, Up::Beat, Up::Profile, Up::Event, Up::Result];

/// Messages that make a careless decoder recurse, allocate or wait.
pub fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let length = |first: u8| [&[first][..], &(1_u64 << 63).to_be_bytes()].concat();
    let list_in = |count: usize| vec![0x81; count];
    vec![
        ("250,000 lists in each other", list_in(250_000)),
        ("250,000 maps in each other", [0xa1, 0x60].repeat(100_000)),
        ("a byte string of 2^63", length(0x5b)),
        ("a text of 2^63", length(0x7b)),
        ("a list of 2^63", length(0x9b)),
        ("a map of 2^63", length(0xbb)),
        ("a list without end", vec![0x9f; 1_000]),
        ("tags in tags", vec![0xc1; 10_000]),
        ("bytes after the value", [0xa0, 0x00, 0x00].to_vec()),
        ("nothing", Vec::new()),
        (
            "one key ten thousand times",
            [&[0xb9, 0x27, 0x10][..], &[0x61, b'a', 0x00].repeat(10_000)].concat(),
        ),
    ]
}

/// The profile with each of its floats and its larger counts made what no sensor gives.
pub fn spoilt(profile: &[u8]) -> Vec<Vec<u8>> {
    const NAN: [u8; 4] = [0x7f, 0xc0, 0, 0];
    const INFINITE: [u8; 4] = [0x7f, 0x80, 0, 0];
    const LARGE: [u8; 8] = [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let with = |at: usize, old: usize, new: &[u8]| {
        let rest = profile.get(at + old..).unwrap_or_default();
        [&profile[..at], new, rest].concat()
    };
    let mut spoilt = Vec::new();
    for (at, byte) in profile.iter().enumerate() {
        match byte {
            0xfa => spoilt.extend([NAN, INFINITE].map(|bits| with(at + 1, 4, &bits))),
            0x18 => spoilt.push(with(at, 2, &[&[0x1b][..], &LARGE].concat())),
            0x19 => spoilt.push(with(at, 3, &[&[0x1b][..], &LARGE].concat())),
            _ => (), // not the head of a number that is changed here
        }
    }
    spoilt.truncate(300);
    spoilt
}

const INJECTIONS: [&str; 6] = [
    "x'; DROP TABLE devices; --",
    "' OR '1'='1",
    "\") OR 1=1 --",
    "1 UNION SELECT password FROM operators",
    "%' AND 1=CAST((SELECT totp_key FROM operators) AS INT) --",
    "$1; DELETE FROM audit",
];

/// A request of the described API in which one text is another than it should be.
pub struct Injected {
    pub method: Method,
    pub path: String,
    pub body: Option<Value>,
}

/// Every operation, once for each of its texts and each injection. Left out are those that end the asker's own session, and the stream
/// that has no end.
pub fn injected(document: &Value) -> Vec<Injected> {
    let mut requests = Vec::new();
    let paths = document["paths"].as_object().into_iter().flatten();
    for (path, operations) in paths {
        if path.ends_with("/events") || path.contains("/oidc") {
            continue;
        }
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            if path == "/api/v1/session" && method == Method::DELETE {
                continue;
            }
            for injection in INJECTIONS {
                requests.extend(of_operation(document, (&method, path), operation, injection));
            }
        }
    }
    requests
}

fn of_operation(
    document: &Value,
    (method, path): (&Method, &str),
    operation: &Value,
    injection: &str,
) -> Vec<Injected> {
    let parameters: Vec<&Value> =
        operation["parameters"].as_array().into_iter().flatten().collect();
    let name_of = |parameter: &Value| parameter["name"].as_str().unwrap_or_default().to_owned();
    let in_path: Vec<_> =
        parameters.iter().filter(|it| it["in"] == "path").map(|it| name_of(it)).collect();
    let in_query: Vec<_> =
        parameters.iter().filter(|it| it["in"] == "query").map(|it| name_of(it)).collect();
    let harmless = in_path
        .iter()
        .fold(path.to_owned(), |path, name| path.replace(&format!("{{{name}}}"), "none"));
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let mut requests = Vec::new();
    for name in &in_path {
        let evil = path.replace(&format!("{{{name}}}"), &encoded(injection));
        let evil =
            in_path.iter().fold(evil, |path, name| path.replace(&format!("{{{name}}}"), "none"));
        requests.push(Injected { method: method.clone(), path: evil, body: Some(json!({})) });
    }
    for name in &in_query {
        let path = format!("{harmless}?{name}={}", encoded(injection));
        requests.push(Injected { method: method.clone(), path, body: None });
    }
    for body in bodies(document, schema, injection) {
        requests.push(Injected {
            method: method.clone(),
            path: harmless.clone(),
            body: Some(body),
        });
    }
    requests
}

/// The body of a schema, once for each of its texts.
fn bodies(document: &Value, schema: &Value, injection: &str) -> Vec<Value> {
    let schema = resolved(document, schema);
    let properties = schema["properties"].as_object().into_iter().flatten();
    let names: Vec<_> =
        properties.map(|(name, property)| (name, resolved(document, property))).collect();
    let evil = |evil: &str| {
        let value = |name: &str, property: &Value| {
            if name == evil { wicked(property, injection) } else { plain(property) }
        };
        let pairs = names.iter().map(|(name, property)| ((*name).clone(), value(name, property)));
        Value::Object(pairs.collect::<Map<_, _>>())
    };
    names.iter().map(|(name, _)| evil(name)).collect()
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let of_many =
        schema["oneOf"].as_array().and_then(|list| list.iter().find(|it| it["type"] != "null"));
    let schema = of_many.unwrap_or(schema);
    let name = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/components/schemas/"));
    name.map_or(schema, |name| &document["components"]["schemas"][name])
}

fn is(property: &Value, kind: &str) -> bool {
    let types = &property["type"];
    types == kind || types.as_array().is_some_and(|list| list.iter().any(|it| it == kind))
}

fn wicked(property: &Value, injection: &str) -> Value {
    if is(property, "array") {
        return json!([injection]);
    }
    if is(property, "object") {
        return json!({injection: injection});
    }
    Value::from(injection)
}

fn plain(property: &Value) -> Value {
    if is(property, "null") {
        return Value::Null;
    }
    if let Some(first) = property["enum"].as_array().and_then(|list| list.first()) {
        return first.clone();
    }
    match property["type"].as_str() {
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(false),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("none"), // a text, or what is made of one
    }
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

//! `fleetctl infer`: what a model on a device makes of an input.

use std::cmp::Ordering;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use reqwest::Method;
use sealift_protocol::api::{InferView, VersionView};
use sealift_protocol::image::{IoContract, Role, TensorSpec};
use sealift_protocol::limits::INPUT_BYTES_MAX;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::Infer;
use crate::client::Client;
use crate::output::{Output, table};

/// Classes that are shown of each row, the likeliest first.
const CLASSES_MAX: usize = 5;
/// Rows that are shown of an output.
const ROWS_MAX: usize = 10;
/// Elements that are shown of a row.
const ELEMENTS_MAX: usize = 8;

/// What stands for standard input.
const STANDARD_INPUT: &str = "-";

pub(crate) async fn run(client: &Client, output: Output, infer: Infer) -> anyhow::Result<()> {
    let (body, content_type) = body(&infer)?;
    let Infer { device, model: (model, version), .. } = infer;
    let mut query = vec![("model", model.to_string())];
    query.extend(version.map(|version| ("version", version.to_string())));
    let query: Vec<_> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut random = [0; 16];
    getrandom::fill(&mut random).context("no random number for the request")?;
    // A connection that breaks on the way back is tried again by whoever sees it; the device is asked once.
    let key = sealift_protocol::digest::encode_hex(&random);
    let request = client
        .request(
            Method::POST,
            &crate::client::api_path(&format!("devices/{device}/infer"), &query),
        )?
        .header("content-type", content_type)
        .header("idempotency-key", key)
        .body(body);
    let view: InferView = client.send(request).await?.json().await?;
    let contract = contract(client, &view).await;
    output.text(&view, |view| text(view, contract.as_ref()))
}

/// The body that an application on the device would send, and its media type.
fn body(infer: &Infer) -> anyhow::Result<(Vec<u8>, &'static str)> {
    match (&infer.input, &infer.image) {
        (Some(file), None) => Ok((read(file)?, "application/json")),
        (None, Some(file)) => {
            let bytes = read(file)?;
            let content_type = match bytes.as_slice() {
                [0xff, 0xd8, 0xff, ..] => "image/jpeg",
                [0x89, b'P', b'N', b'G', ..] => "image/png",
                _ => bail!("{} is neither a JPEG nor a PNG image", file.display()),
            };
            Ok((bytes, content_type))
        }
        (Some(_), Some(_)) | (None, None) => bail!("one of --input and --image is needed"),
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = INPUT_BYTES_MAX as u64 + 1;
    let read = if file.as_os_str() == STANDARD_INPUT {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(limit).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read {}", file.display()))?;
    if bytes.len() > INPUT_BYTES_MAX {
        bail!("{} has more than {INPUT_BYTES_MAX} bytes", file.display());
    }
    Ok(bytes)
}

/// The names of classes are in the contract; without it, numbers are shown.
async fn contract(client: &Client, view: &InferView) -> Option<IoContract> {
    let path = format!("models/{}/versions/{}", view.model, view.version);
    let version: VersionView = client.get(&path, &[]).await.ok()?;
    version.contract
}

/// An answer of the Open Inference Protocol v2.
#[derive(Debug, Deserialize)]
struct Answer {
    outputs: Vec<Tensor>,
}

#[derive(Debug, Deserialize)]
struct Tensor {
    name: String,
    datatype: String,
    shape: Vec<u64>,
    #[serde(default)]
    data: Value,
}

fn text(view: &InferView, contract: Option<&IoContract>) -> String {
    let InferView { model, version, digest, latency_us, took_ms, answer } = view;
    let head = format!(
        "{model}@{version}  {}  {:.1} ms on the device, {took_ms} ms with the way\n\n",
        digest.short(),
        std::time::Duration::from_micros(*latency_us).as_secs_f64() * 1_000.0,
    );
    let Ok(Answer { outputs }) = serde_json::from_str(answer.get()) else {
        return format!("{head}{}", answer.get());
    };
    let spec = |tensor: &Tensor| {
        contract.and_then(|it| it.outputs.iter().find(|spec| spec.name == tensor.name))
    };
    let parts: Vec<_> = outputs.iter().map(|tensor| tensor_text(tensor, spec(tensor))).collect();
    format!("{head}{}", parts.join("\n\n"))
}

fn tensor_text(tensor: &Tensor, spec: Option<&TensorSpec>) -> String {
    let mut elements = Vec::new();
    flatten(&tensor.data, &mut elements);
    let columns = tensor.shape.last().and_then(|length| usize::try_from(*length).ok());
    let columns = match spec.and_then(|spec| spec.role) {
        Some(Role::Class | Role::Value) => Some(1),
        Some(Role::Probabilities) | None => columns,
    };
    let rows = elements.chunks(columns.unwrap_or(1).max(1)).take(ROWS_MAX).enumerate();
    let title = format!("{} {} {:?}", tensor.name, tensor.datatype, tensor.shape);
    let shown = if spec.and_then(|spec| spec.role) == Some(Role::Probabilities) {
        let rows = rows.flat_map(|(row, cells)| {
            let ranked = ranked(cells);
            ranked.into_iter().map(move |(class, share)| {
                [row.to_string(), name(spec, class), format!("{share:.4}")]
            })
        });
        table(["ROW", "CLASS", "PROBABILITY"], rows)
    } else {
        let rows = rows.map(|(row, cells)| [row.to_string(), cells_text(cells, spec)]);
        table(["ROW", "VALUES"], rows)
    };
    format!("{}\n{shown}", crate::output::printable(&title))
}

/// Rows may be nested or flat; either way they are in order.
fn flatten<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Object(_)) => into.push(other),
    }
}

/// The likeliest classes, by their index, with their probability.
fn ranked(cells: &[&Value]) -> Vec<(usize, f64)> {
    let share = |cell: &&Value| cell.as_f64().unwrap_or(f64::NAN);
    let mut ranked: Vec<_> = cells.iter().map(share).enumerate().collect();
    ranked.sort_by(|left, right| right.1.partial_cmp(&left.1).unwrap_or(Ordering::Equal));
    ranked.truncate(CLASSES_MAX);
    ranked
}

fn name(spec: Option<&TensorSpec>, class: usize) -> String {
    let label = spec.and_then(|spec| spec.labels.get(class));
    label.cloned().unwrap_or_else(|| class.to_string())
}

fn cells_text(cells: &[&Value], spec: Option<&TensorSpec>) -> String {
    let labelled = |cell: &&Value| match (spec.and_then(|spec| spec.role), cell.as_u64()) {
        (Some(Role::Class), Some(class)) => {
            let index = usize::try_from(class).unwrap_or(usize::MAX);
            let label = spec.and_then(|spec| spec.labels.get(index));
            label.map_or_else(|| class.to_string(), |label| format!("{class} {label}"))
        }
        (Some(_) | None, _) => cell.to_string(),
    };
    let shown: Vec<_> = cells.iter().take(ELEMENTS_MAX).map(labelled).collect();
    let more = if cells.len() > ELEMENTS_MAX { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use sealift_protocol::digest::Digest;
    use sealift_protocol::id::{ModelName, Version};
    use serde_json::value::RawValue;

    use super::*;

    fn view(answer: &str) -> InferView {
        InferView {
            model: ModelName::parse("vision/digits").unwrap(),
            version: Version::parse("2").unwrap(),
            digest: Digest::of(b"index"),
            latency_us: 812,
            took_ms: 47,
            answer: RawValue::from_string(answer.to_owned()).unwrap(),
        }
    }

    fn contract() -> IoContract {
        let contract = r#"{"schema": 1,
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [
                {"name": "label", "datatype": "INT64", "shape": [-1], "role": "class", "labels": ["cat", "dog"]},
                {"name": "p", "datatype": "FP32", "shape": [-1, 2], "role": "probabilities", "labels": ["cat", "dog"]},
                {"name": "raw", "datatype": "FP32", "shape": [-1, 9]}]}"#;
        IoContract::parse(contract.as_bytes()).unwrap()
    }

    /// The lines of a text, with single spaces.
    fn lines(text: &str) -> Vec<String> {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).filter(|line| !line.is_empty()).collect()
    }

    #[test]
    fn classes_have_their_names_and_the_likeliest_comes_first() {
        let answer = r#"{"outputs": [
            {"name": "label", "datatype": "INT64", "shape": [2], "data": [1, 0]},
            {"name": "p", "datatype": "FP32", "shape": [2, 2], "data": [0.25, 0.75, 0.9, 0.1]},
            {"name": "raw", "datatype": "FP32", "shape": [1, 9], "data": [[1, 2, 3, 4, 5, 6, 7, 8, 9]]}]}"#;
        let text = text(&view(answer), Some(&contract()));
        let short = Digest::of(b"index").short();
        assert_eq!(
            lines(&text),
            [
                &format!("vision/digits@2 {short} 0.8 ms on the device, 47 ms with the way"),
                "label INT64 [2]",
                "ROW VALUES",
                "0 1 dog",
                "1 0 cat",
                "p FP32 [2, 2]",
                "ROW CLASS PROBABILITY",
                "0 dog 0.7500",
                "0 cat 0.2500",
                "1 cat 0.9000",
                "1 dog 0.1000",
                "raw FP32 [1, 9]",
                "ROW VALUES",
                "0 1, 2, 3, 4, 5, 6, 7, 8, …",
            ]
        );
    }

    #[test]
    fn without_a_contract_numbers_are_shown_and_what_is_no_answer_as_it_came() {
        let answer = r#"{"outputs": [{"name": "y\u001b[31m", "datatype": "FP32", "shape": [1, 2], "data": [0.5, null]}]}"#;
        let shown = text(&view(answer), None);
        assert!(lines(&shown).contains(&"0 0.5, null".to_owned()), "{shown}");
        assert!(!shown.contains('\u{1b}'), "a terminal is not steered");
        assert!(text(&view("[1]"), None).ends_with("[1]"));
    }
}

//! Chunks to the agent's endpoint, predictions back as lines.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, RequestBuilder, StatusCode};
use sealift_protocol::tensor::Datatype;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::input::{Body, Chunk};

/// One request; the agent itself gives one up after that.
const REQUEST_MAX: Duration = Duration::from_secs(80);

/// How long a device that has no time is asked again: a worker is replaced within seconds, a model swapped within a minute.
const RETRY_MAX: Duration = Duration::from_mins(2);

/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A model that a device serves.
#[derive(Debug)]
pub(super) struct Model {
    client: Client,
    url: String,
    metadata: Metadata,
    image: String,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    versions: Vec<String>,
    inputs: Vec<Named>,
    #[serde(default)]
    outputs: Vec<Described>,
}

/// An output, as the model's contract has it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) datatype: Datatype,
    pub(super) shape: Vec<i64>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// Why rows have no predictions.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The agent is not reached.
    #[error("cannot reach the agent")]
    Socket(#[from] reqwest::Error),
    /// The agent said no.
    #[error("the agent answered {status}: {why}")]
    Refused {
        /// As HTTP has it.
        status: u16,
        /// In its words.
        why: String,
    },
    /// An answer that is not one line for each row.
    #[error("the answer cannot be split into rows: {0}")]
    Answer(String),
    /// Another image answers than the one that the job was begun with.
    #[error("image {now} answers now, the job was begun with {before}; use a new directory")]
    Swapped {
        /// Of the job.
        before: String,
        /// Of the answer.
        now: String,
    },
    /// The model does not take one tensor.
    #[error("the model has {0} inputs; an array is for a model of one, use .jsonl")]
    Inputs(usize),
}

impl Model {
    /// Asks the agent for the model's name, version, image and inputs.
    pub(super) async fn find(url: &str, name: &str) -> Result<Self, AskError> {
        // What is asked is on this device, whatever proxy the environment names.
        let client = Client::builder().no_proxy().timeout(REQUEST_MAX).build()?;
        let url = url.trim_end_matches('/').to_owned();
        let response = client.get(format!("{url}/v2/models/{name}")).send().await?;
        let status = response.status();
        let image = image(response.headers());
        let body = response.bytes().await?;
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        let answer = |error: serde_json::Error| AskError::Answer(error.to_string());
        let metadata = serde_json::from_slice(&body).map_err(answer)?;
        Ok(Self { client, url, metadata, image })
    }

    pub(super) fn name(&self) -> &str {
        &self.metadata.name
    }

    /// What it answers with; the first dimension of each is the rows.
    #[cfg(feature = "parquet")]
    pub(super) fn outputs(&self) -> &[Described] {
        &self.metadata.outputs
    }

    /// Digest of the image that is live.
    pub(super) fn image(&self) -> &str {
        &self.image
    }

    /// A line for each row. A device that is busy, or changes its worker, is asked again for a while.
    pub(super) async fn ask(&self, chunk: &Chunk, image: &str) -> Result<Vec<u8>, AskError> {
        let begin = Instant::now();
        loop {
            let asked = self.ask_once(chunk, image).await;
            let is_worth_it = match &asked {
                Err(AskError::Refused { status, .. }) => matches!(status, 429 | 503 | 504),
                Err(AskError::Socket(error)) => error.is_connect(),
                Ok(_)
                | Err(AskError::Answer(_) | AskError::Swapped { .. } | AskError::Inputs(_)) => {
                    false
                }
            };
            if !is_worth_it || begin.elapsed() > RETRY_MAX {
                return asked;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn ask_once(&self, chunk: &Chunk, expected: &str) -> Result<Vec<u8>, AskError> {
        let response = self.request(chunk)?.send().await?;
        let (status, now) = (response.status(), image(response.headers()));
        let body = response.bytes().await?;
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        if now != expected {
            return Err(AskError::Swapped { before: expected.to_owned(), now });
        }
        match chunk.body {
            Body::Json(_) | Body::Csv(_) => of_predictions(&body, chunk.rows),
            Body::Tensor { .. } => of_outputs(&body, chunk.rows),
        }
    }

    fn request(&self, chunk: &Chunk) -> Result<RequestBuilder, AskError> {
        let Self { client, url, metadata, .. } = self;
        let name = &metadata.name;
        let scoring =
            || client.post(format!("{url}/endpoints/{}/invocations", name.replace('/', "%2F")));
        Ok(match &chunk.body {
            Body::Json(body) => {
                scoring().header(CONTENT_TYPE, "application/json").body(body.clone())
            }
            Body::Csv(body) => scoring().header(CONTENT_TYPE, "text/csv").body(body.clone()),
            Body::Tensor { bytes, datatype, row_shape } => {
                let [input] = metadata.inputs.as_slice() else {
                    return Err(AskError::Inputs(metadata.inputs.len()));
                };
                let shape = [&[chunk.rows as u64], row_shape.as_slice()].concat();
                let head = serde_json::json!({"inputs": [{"name": input.name, "datatype": datatype, "shape": shape,
                    "parameters": {"binary_data_size": bytes.len()}}]});
                let head = head.to_string().into_bytes();
                let version = metadata.versions.first().map_or("", String::as_str);
                client
                    .post(format!("{url}/v2/models/{name}/versions/{version}/infer"))
                    .header("Inference-Header-Content-Length", head.len())
                    .body([head.as_slice(), bytes].concat())
            }
        })
    }
}

fn image(headers: &HeaderMap) -> String {
    let image = headers.get("x-sealift-image").and_then(|value| value.to_str().ok());
    image.unwrap_or_default().to_owned()
}

fn refused(status: StatusCode, body: &[u8]) -> AskError {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let words = json.get("error").or(json.get("message")).and_then(Value::as_str);
    let why = words.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    AskError::Refused { status: status.as_u16(), why }
}

#[derive(Deserialize)]
struct Predictions<'a> {
    #[serde(borrow)]
    predictions: &'a RawValue,
}

fn of_predictions(body: &[u8], rows: usize) -> Result<Vec<u8>, AskError> {
    let answer = |error: serde_json::Error| AskError::Answer(error.to_string());
    let body: Predictions<'_> = serde_json::from_slice(body).map_err(answer)?;
    let predictions: Vec<&RawValue> =
        serde_json::from_str(body.predictions.get()).map_err(answer)?;
    lines(&predictions, rows)
}

#[derive(Deserialize)]
struct Outputs {
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    shape: Vec<u64>,
    data: Vec<Value>,
}

/// A row is its only output's value, or an object of all, as the scoring protocols have it.
fn of_outputs(body: &[u8], rows: usize) -> Result<Vec<u8>, AskError> {
    let answer = |error: serde_json::Error| AskError::Answer(error.to_string());
    let Outputs { outputs } = serde_json::from_slice(body).map_err(answer)?;
    let mut columns = Vec::new();
    for Output { name, shape, data } in outputs {
        if shape.first().copied() != Some(rows as u64) {
            return Err(AskError::Answer(format!("output `{name}` has shape {shape:?}")));
        }
        let mut values = data.into_iter();
        let row_shape = shape.get(1..).unwrap_or_default();
        let column: Vec<Value> = (0..rows).map(|_| nested(row_shape, &mut values)).collect();
        columns.push((name, column.into_iter()));
    }
    let mut predictions = Vec::new();
    for _ in 0..rows {
        let mut row = columns
            .iter_mut()
            .map(|(name, column)| (name.clone(), column.next().unwrap_or_default()));
        let row = match row.len() {
            1 => row.next().map(|(_, value)| value).unwrap_or_default(),
            _ => Value::Object(row.collect()), // by the names of the outputs
        };
        predictions.push(row);
    }
    lines(&predictions, rows)
}

fn nested(shape: &[u64], values: &mut impl Iterator<Item = Value>) -> Value {
    match shape.split_first() {
        None => values.next().unwrap_or_default(),
        Some((&length, rest)) => (0..length).map(|_| nested(rest, values)).collect(),
    }
}

fn lines<T: serde::Serialize>(predictions: &[T], rows: usize) -> Result<Vec<u8>, AskError> {
    if predictions.len() != rows {
        let given = predictions.len();
        return Err(AskError::Answer(format!("{given} predictions for {rows} rows")));
    }
    let mut lines = Vec::new();
    for prediction in predictions {
        serde_json::to_writer(&mut lines, prediction)
            .map_err(|error| AskError::Answer(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

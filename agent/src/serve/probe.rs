//! A test inference: what an application would be told, without an application.
//!
//! It goes the way of every request: the same codec, contract, worker. What it does not do is leave a trace in what the fleet judges a
//! model by. Somebody who tries a model out with made-up inputs would otherwise move its drift profile, its error rate, by which a trial
//! turns back, and its latency.

use axum::http::StatusCode;
use sealift_protocol::report::ImageRef;
use sealift_protocol::request::{Inferred, Refused};
use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::refusal::Refusal;
use super::request::{self, InferRequest};
use super::response::{self, InferResponse, NoResponse};
use super::switchboard::Switchboard;
use crate::worker::InferError;

/// A test inference.
#[derive(Debug)]
pub(crate) struct Probe<'a> {
    /// `team/name`.
    pub(crate) model: &'a str,
    /// Only this version.
    pub(crate) version: Option<&'a str>,
    pub(crate) content_type: &'a str,
    /// Length of the JSON before binary data.
    pub(crate) header_bytes: Option<usize>,
    pub(crate) body: &'a [u8],
}

/// Answers a test inference, always in JSON: people read it.
pub(crate) async fn probe(board: &Switchboard, probe: Probe<'_>) -> Result<Inferred, Refused> {
    answer(board, probe).await.map_err(|refusal| told(&refusal))
}

async fn answer(board: &Switchboard, probe: Probe<'_>) -> Result<Inferred, Refusal> {
    let Probe { model, version, content_type, header_bytes, body } = probe;
    let live = Endpoint::new(board.clone()).find(model, version)?;
    let request = if request::is_image(content_type) {
        InferRequest::of_image(live.contract(), body)?
    } else {
        InferRequest::parse(body, header_bytes)?
    };
    let request = request.answered_in_json();
    response::check_wanted(&live, &request.outputs)?;
    live.contract().check_inputs(&request.inputs)?;
    let begin = Instant::now();
    let outputs = live.infer_unseen(&request.inputs).await?;
    let latency_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
    let InferResponse { body, .. } = InferResponse::write(&live, &request, &outputs)?;
    let (model, ImageRef { version, index }) = (live.model().clone(), live.image().clone());
    Ok(Inferred { model, image: ImageRef { version, index }, latency_us, body })
}

fn told(refusal: &Refusal) -> Refused {
    let code = match refusal {
        Refusal::UnknownModel { .. } | Refusal::NothingServed | Refusal::Unnamed { .. } => {
            "infer.not-served"
        }
        Refusal::UnknownVersion { .. } => "infer.version",
        Refusal::Withdrawn { .. } => "infer.withdrawn",
        Refusal::Infer(InferError::Model(_)) => "infer.failed",
        Refusal::Infer(InferError::WorkerGone { .. }) => "infer.worker-gone",
        Refusal::Infer(InferError::Deadline) => "infer.late",
        Refusal::Response(NoResponse::Json(_) | NoResponse::Csv) => "infer.no-json",
        Refusal::UnknownPath
        | Refusal::Request(_)
        | Refusal::Frame(_)
        | Refusal::Call(_)
        | Refusal::Scoring(_)
        | Refusal::Contract(_)
        | Refusal::Response(NoResponse::UnknownOutput { .. })
        | Refusal::Header { .. }
        | Refusal::TooLarge(_)
        | Refusal::Body
        | Refusal::Busy
        | Refusal::Managed
        | Refusal::Infer(InferError::Input(_))
        | Refusal::Deadline(_)
        | Refusal::TooLate(_) => "infer.input",
    };
    let status = match refusal.status() {
        // Another one than the server's own, by which callers would take it for one about them.
        StatusCode::BAD_REQUEST => StatusCode::UNPROCESSABLE_ENTITY,
        status => status,
    };
    Refused::new(status.as_u16(), code, &refusal.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{REQUEST, device, get, post};
    use super::*;

    fn asking<'a>(version: Option<&'a str>, body: &'a str) -> Probe<'a> {
        let content_type = "application/json";
        let body = body.as_bytes();
        Probe { model: "vision/digits", version, content_type, header_bytes: None, body }
    }

    #[tokio::test]
    async fn a_test_inference_gives_the_bytes_that_an_application_gets_and_leaves_no_trace() {
        let (board, router) = device(&["vision/digits"]).await;

        let inferred = probe(&board, asking(Some("3"), REQUEST)).await.unwrap();

        let model = inferred.model.clone();
        assert_eq!(board.counters().requests + board.model_counters(&model).unwrap().requests, 0);
        let stats = get(&router, "/v2/models/vision/digits/stats").await.json();
        assert_eq!(stats["model_stats"][0]["inference_count"], json!(0));
        let told = post(&router, "/v2/models/vision/digits/infer", REQUEST).await;
        assert_eq!(inferred.body, told.body, "{:?}", told.status);
        assert_eq!(inferred.image.version.as_str(), "3");
        assert_eq!(board.model_counters(&model).unwrap().requests, 1, "the application counts");
    }

    #[tokio::test]
    async fn a_binary_question_is_answered_in_json_all_the_same() {
        let (board, _router) = device(&["vision/digits"]).await;
        let json = probe(&board, asking(None, REQUEST)).await.unwrap();
        let head = r#"{"id":"a1","inputs":[{"name":"x","datatype":"FP32","shape":[1,2],
            "parameters":{"binary_data_size":8}}],"parameters":{"binary_data_output":true}}"#;
        let body = [head.as_bytes(), &1_f32.to_le_bytes(), &2_f32.to_le_bytes()].concat();
        let question =
            Probe { header_bytes: Some(head.len()), body: &body, ..asking(None, REQUEST) };
        assert_eq!(probe(&board, question).await.unwrap().body, json.body);
    }

    #[tokio::test]
    async fn what_cannot_be_answered_is_refused_with_a_code_of_its_own() {
        let (board, _router) = device(&["vision/digits"]).await;
        let refused = async |question: Probe<'_>| {
            let refused = probe(&board, question).await.unwrap_err();
            (refused.status, refused.code)
        };
        let code = |code: &str| code.to_owned();
        assert_eq!(refused(asking(Some("9"), REQUEST)).await, (404, code("infer.version")));
        let other = Probe { model: "vision/letters", ..asking(None, REQUEST) };
        assert_eq!(refused(other).await, (404, code("infer.not-served")));
        assert_eq!(refused(asking(None, "{")).await, (422, code("infer.input")));
        let short = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}]}"#;
        assert_eq!(refused(asking(None, short)).await, (422, code("infer.input")));
        let image = Probe { content_type: "image/png", ..asking(None, REQUEST) };
        assert_eq!(refused(image).await, (415, code("infer.input")));
    }
}

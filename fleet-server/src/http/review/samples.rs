//! The queue, samples, and what is said of them.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealift_protocol::api::{
    LabelNew, LabelsTaken, Page, Problem, QueueView, SampleDetail, SampleLabel, SampleView,
    TensorView,
};
use sealift_protocol::capture::{Sample, SampleId};
use sealift_protocol::id::{ModelName, UnixMillis};
use sealift_protocol::image::Role;
use sealift_protocol::tensor::Tensor;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::App;
use super::super::access::Caller;
use super::super::error::ApiError;
use super::super::page::PageQuery;
use crate::clock;
use crate::order::Asker;
use crate::review::{ReviewError, settled};
use crate::store::samples::{SampleRow, Which};

/// Labels in one request: a megabyte holds no more.
const LABELS_MAX: usize = 20_000;

/// Bytes of samples on one page of an export; the first is there whatever its size.
const EXPORT_BYTES_MAX: usize = 8 << 20;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(queue))
        .routes(routes!(get))
        .routes(routes!(label, unlabel))
        .routes(routes!(labels))
        .routes(routes!(export))
}

/// Which samples.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct QueueQuery {
    /// Only of this model.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    model: Option<ModelName>,
    /// At most so many; 20 if not given.
    #[serde(default)]
    limit: Option<u32>,
}

/// Lists what the caller labels next, the most telling first, and no more than the fleet's people have left today.
#[utoipa::path(get, path = "/api/v1/review/queue", tag = "review", params(QueueQuery),
    responses((status = 200, body = QueueView)))]
async fn queue(
    State(app): State<App>,
    caller: Caller,
    Query(QueueQuery { model, limit }): Query<QueueQuery>,
) -> Result<Json<QueueView>, ApiError> {
    let limit = limit.unwrap_or(20).clamp(1, 200);
    let queue = app.review.queue((model.as_ref(), caller.name()), limit, clock::now()).await?;
    Ok(Json(QueueView {
        items: queue.items.into_iter().map(sample_view).collect(),
        method: queue.method.to_owned(),
        budget: queue.budget,
        left: queue.left,
        waiting: queue.waiting,
    }))
}

/// Shows a sample with what went in and came out. The audit log notes who has looked, once for each sample.
#[utoipa::path(get, path = "/api/v1/review/samples/{id}", tag = "review",
    params(("id" = String, Path)),
    responses((status = 200, body = SampleDetail), (status = 404, body = Problem)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<SampleDetail>, ApiError> {
    let (row, sample) = app.review.look(parse(&id)?).await?;
    note_look(&app, &caller, &row).await?;
    detail(&app, row, sample).await.map(Json)
}

/// Says what a prediction should have been. Said again, it takes the place of what the caller has said before.
#[utoipa::path(put, path = "/api/v1/review/samples/{id}/label", tag = "review",
    params(("id" = String, Path)), request_body = SampleLabel,
    responses((status = 204), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn label(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(SampleLabel { label }): Json<SampleLabel>,
) -> Result<StatusCode, ApiError> {
    let asker = Asker { name: caller.name(), now: clock::now() };
    app.review.label(parse(&id)?, &label, asker).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes back what the caller has said of a sample.
#[utoipa::path(delete, path = "/api/v1/review/samples/{id}/label", tag = "review",
    params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
async fn unlabel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    app.review.unlabel(parse(&id)?, caller.name()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes ground truth by inference id: a JSON array, or JSON Lines. What is not among the samples waits for its sample. Said twice, it is
/// said once; what two callers say is kept under both.
#[utoipa::path(post, path = "/api/v1/labels", tag = "review",
    request_body(content = Vec<LabelNew>, description = "A JSON array, or JSON Lines"),
    responses((status = 200, body = LabelsTaken), (status = 422, body = Problem)))]
async fn labels(
    State(app): State<App>,
    caller: Caller,
    body: Bytes,
) -> Result<Json<LabelsTaken>, ApiError> {
    let labels = read_labels(&body)?;
    let asker = Asker { name: caller.name(), now: clock::now() };
    Ok(Json(app.review.take_labels(labels, asker).await?))
}

fn read_labels(body: &[u8]) -> Result<Vec<LabelNew>, ApiError> {
    let text = body.trim_ascii();
    let labels: Vec<LabelNew> = if text.starts_with(b"[") {
        let refused =
            |error: serde_json::Error| ApiError::invalid("labels.form", error.to_string());
        serde_json::from_slice(text).map_err(refused)?
    } else {
        let lines = text.split(|&byte| byte == b'\n').enumerate();
        let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
        let line = |(number, line): (usize, &[u8])| {
            serde_json::from_slice(line).map_err(|error| {
                ApiError::invalid("labels.form", format!("line {}: {error}", number + 1))
            })
        };
        lines.take(LABELS_MAX + 1).map(line).collect::<Result<_, _>>()?
    };
    if labels.len() > LABELS_MAX {
        let detail = format!("at most {LABELS_MAX} labels in one request");
        return Err(ApiError::invalid("labels.too-many", detail));
    }
    Ok(labels)
}

/// Which samples.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ExportQuery {
    /// Of this model.
    #[param(value_type = String)]
    model: ModelName,
    /// Taken from this moment on.
    #[serde(default)]
    from: Option<i64>,
    /// Taken before this moment.
    #[serde(default)]
    until: Option<i64>,
    /// Also those that nobody has labelled.
    #[serde(default)]
    unlabelled: bool,
}

/// Lists samples with everything that is known of them, to train with; a page ends before it becomes too long. The audit log notes it.
#[utoipa::path(get, path = "/api/v1/review/export", tag = "review", params(ExportQuery, PageQuery),
    responses((status = 200, body = Page<SampleDetail>)))]
async fn export(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ExportQuery>,
    Query(paging): Query<PageQuery>,
) -> Result<Json<Page<SampleDetail>>, ApiError> {
    let now = clock::now();
    let (from, until) = (query.from.unwrap_or(0), query.until.unwrap_or(now.0.saturating_add(1)));
    let which =
        Which { model: Some(&query.model), from: UnixMillis(from), until: UnixMillis(until) };
    let after = paging.cursor.as_deref().map(parse).transpose()?;
    let limit = paging.limit();
    if after.is_none() {
        note_export(&app, &caller, &query.model, now).await?;
    }
    let rows = app.store.samples(which, after, limit).await?;
    let mut is_full = u32::try_from(rows.len()).is_ok_and(|length| length == limit);
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
    for row in rows {
        if bytes > EXPORT_BYTES_MAX {
            is_full = true;
            break;
        }
        let id = row.id;
        last = Some(id);
        // Deleted in between.
        let Ok((row, sample)) = app.review.look(id).await else { continue };
        let detail = detail(&app, row, sample).await?;
        if !detail.labels.is_empty() || query.unlabelled {
            let tensors = detail.inputs.iter().chain(&detail.outputs);
            bytes += tensors.map(|tensor| tensor.base64.len()).sum::<usize>();
            items.push(detail);
        }
    }
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    let next_cursor = last.filter(|_| is_full).map(|id| id.to_string());
    Ok(Json(Page { items, total, next_cursor }))
}

/// Rule (ISO/IEC 27002, 8.15): who has looked at what people are in is written down, before it is shown. Once for each who looks and each
/// sample: whoever looks again has seen it already.
async fn note_look(app: &App, caller: &Caller, row: &SampleRow) -> Result<(), ApiError> {
    let (subject, detail) = (row.id.to_string(), format!("{}, {}", row.model, row.device));
    let deed = caller.deed("review.look", &subject, &detail);
    let mut change = app.store.begin().await?;
    change.audit_look(&deed, clock::now()).await?;
    Ok(change.commit().await?)
}

async fn note_export(
    app: &App,
    caller: &Caller,
    model: &ModelName,
    now: UnixMillis,
) -> Result<(), ApiError> {
    let subject = model.to_string();
    let deed = caller.deed("review.export", &subject, "");
    let mut change = app.store.begin().await?;
    change.audit(&deed, now).await?;
    Ok(change.commit().await?)
}

async fn detail(app: &App, row: SampleRow, sample: Sample) -> Result<SampleDetail, ApiError> {
    let labels = app.store.said_of(row.id).await?;
    let version = app.store.version(&row.model, &row.version).await?;
    let contract = version.map(|version| version.contract);
    let classes = contract.and_then(|contract| {
        let named = [Role::Probabilities, Role::Class].into_iter();
        let mut named = named.filter_map(|role| contract.output_with(role));
        named.find(|spec| !spec.labels.is_empty()).map(|spec| spec.labels.clone())
    });
    let said = labels.iter().map(|said| (said.label.as_str(), said.source));
    let label = settled(&said).map(|(label, _)| label.to_owned());
    Ok(SampleDetail {
        label,
        sample: sample_view(row),
        inputs: sample.inputs.iter().map(tensor_view).collect(),
        outputs: sample.outputs.iter().map(tensor_view).collect(),
        classes: classes.unwrap_or_default(),
        labels,
    })
}

fn tensor_view(tensor: &Tensor) -> TensorView {
    TensorView {
        name: tensor.name.clone(),
        datatype: tensor.datatype.to_string(),
        shape: tensor.shape.clone(),
        base64: STANDARD.encode(&tensor.bytes),
    }
}

fn sample_view(row: SampleRow) -> SampleView {
    SampleView {
        id: row.id,
        inference: row.inference,
        device: row.device,
        model: row.model,
        version: row.version,
        at: row.at,
        prediction: row.prediction,
        confidence: row.confidence,
        why: row.why.into_iter().collect(),
        chance: row.chance,
        is_audit: row.audit.is_some(),
        delete_at: row.delete_at,
    }
}

fn parse(text: &str) -> Result<SampleId, ApiError> {
    text.parse().map_err(|_| ReviewError::UnknownSample.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> Result<usize, String> {
        read_labels(text.as_bytes()).map(|labels| labels.len()).map_err(|error| error.code().into())
    }

    #[test]
    fn labels_come_as_an_array_or_as_lines() {
        let line = r#"{"inference":"a","label":"7"}"#;
        assert_eq!(count(&format!("[{line},{line}]")), Ok(2));
        assert_eq!(count(&format!("{line}\n\n{line}\r\n")), Ok(2));
        assert_eq!(count(""), Ok(0));
        assert_eq!(count(&format!("{line}\nnonsense")), Err("labels.form".to_owned()));
        assert_eq!(count(r#"{"inference":"a b","label":"7"}"#), Err("labels.form".to_owned()));
        let many = format!("{line}\n").repeat(LABELS_MAX + 1);
        assert_eq!(count(&many), Err("labels.too-many".to_owned()));
    }
}

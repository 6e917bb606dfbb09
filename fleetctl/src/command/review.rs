//! `fleetctl review`.

mod export;
mod parquet;

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use sealift_protocol::api::{
    AccuracyReport, AgreementView, CaptureListView, CaptureNew, CaptureView, LabelsTaken,
    QueueView, RetrainRule, RetrainingNew, RetrainingRequested, SampleLabel,
};
use sealift_protocol::id::UnixMillis;

use crate::cli::{Review, ReviewEnable};
use crate::client::{Client, api_path};
use crate::output::{Output, note, or_dash, printable, table};

/// Labels that are sent at once; the server takes no longer body.
const LABELS_BYTES_MAX: u64 = 1 << 20;

pub(crate) async fn run(client: &Client, output: Output, review: Review) -> anyhow::Result<()> {
    match review {
        Review::Enable(enable) => {
            let (model, rules) = (enable.model.clone(), rules(enable));
            let view: CaptureView =
                client.put_for(&format!("review/policies/{model}"), &rules).await?;
            output.text(&view, |view| {
                format!("devices keep predictions of {}: {}", view.model, view.notice_text)
            })
        }
        Review::Disable { model } => {
            let view: CaptureView =
                client.delete_for(&format!("review/policies/{model}"), &[]).await?;
            output.text(&view, |view| format!("devices keep nothing more of {}", view.model))
        }
        Review::Status => status(client, output).await,
        Review::Queue { model, limit } => {
            let (model, limit) =
                (model.map(|it| it.to_string()).unwrap_or_default(), limit.to_string());
            let query = [("model", model.as_str()), ("limit", limit.as_str())];
            let queue: QueueView = client.get("review/queue", &query).await?;
            output.text(&queue, queue_text)
        }
        Review::Label { sample, label, .. } => {
            let path = format!("review/samples/{sample}/label");
            match label {
                Some(label) => client.put(&path, &SampleLabel { label }).await,
                None => client.delete(&path).await,
            }
        }
        Review::Truth { file } => truth(client, output, &file).await,
        Review::Export(wanted) => export::run(client, output, wanted).await,
        Review::Accuracy { model, version, by, since, until } => {
            let model = model.to_string();
            let version = version.map(|version| version.to_string()).unwrap_or_default();
            let (from, until) = (moment(since), moment(until));
            let query = [
                ("model", model.as_str()),
                ("version", &version),
                ("by", by.as_deref().unwrap_or_default()),
                ("from", &from),
                ("until", &until),
            ];
            let report: AccuracyReport = client.get("review/accuracy", &query).await?;
            output.text(&report, accuracy_text)
        }
        Review::Agreement { model } => {
            let query = [("model", &*model.to_string())];
            let pairs: Vec<AgreementView> = client.get("review/agreement", &query).await?;
            let rows = pairs.iter().map(|pair| {
                let kappa = pair.kappa.map(|kappa| format!("{kappa:.2}"));
                let AgreementView { labellers, common, same, .. } = pair;
                [labellers.join(", "), common.to_string(), same.to_string(), or_dash(kappa)]
            });
            output.rows(&pairs, ["WHO", "COMMON", "SAME", "KAPPA"], rows)
        }
        Review::RequestRetraining { model, reason } => {
            let new = RetrainingNew { model, reason };
            let asked: RetrainingRequested = client.post("review/retraining", &new).await?;
            output.text(&asked, |asked| {
                format!("{} is on its way to {} channels", asked.id, asked.channels)
            })
        }
    }
}

fn rules(enable: ReviewEnable) -> CaptureNew {
    let rule = RetrainRule { accuracy_below: enable.retrain_below, labels: enable.retrain_after };
    CaptureNew {
        below: enable.below,
        margin: enable.margin,
        disagreement: enable.disagreement,
        share: enable.share,
        samples_a_day: enable.budget,
        kib_a_day: enable.kib,
        keep_days: enable.keep,
        notice: enable.notice,
        retrain: (rule != RetrainRule::default()).then_some(rule),
    }
}

fn moment(at: Option<UnixMillis>) -> String {
    at.map(|at| at.0.to_string()).unwrap_or_default()
}

async fn status(client: &Client, output: Output) -> anyhow::Result<()> {
    let policies: Vec<CaptureView> = client.get("review/policies", &[]).await?;
    let rows = policies.iter().map(|view| {
        [
            view.model.to_string(),
            if view.is_on { "on" } else { "off" }.to_owned(),
            view.samples.to_string(),
            view.labelled.to_string(),
            view.lost.to_string(),
            or_dash(view.newest_at),
            view.notice_text.clone(),
        ]
    });
    let head = ["MODEL", "STATE", "SAMPLES", "LABELLED", "LOST", "NEWEST", "NOTICE"];
    output.rows(&policies, head, rows)?;
    if let Some(CaptureView { list, .. }) = policies.first() {
        let CaptureListView { sequence, confirmed, unconfirmed, offline } = list;
        note(&format!(
            "list {sequence}: {confirmed} devices have taken it, {unconfirmed} that are connected have not, \
             {offline} are offline"
        ));
    }
    Ok(())
}

fn queue_text(queue: &QueueView) -> String {
    let row = |item: &sealift_protocol::api::SampleView| {
        let why: Vec<_> = item.why.iter().map(|why| why.as_str()).collect();
        [
            item.id.to_string(),
            item.model.to_string(),
            item.version.to_string(),
            item.device.to_string(),
            or_dash(item.prediction.clone()),
            or_dash(item.confidence.map(|confidence| format!("{confidence:.3}"))),
            why.join(", "),
        ]
    };
    let head = ["SAMPLE", "MODEL", "VERSION", "DEVICE", "PREDICTION", "CONFIDENCE", "WHY"];
    let rows = table(head, queue.items.iter().map(row));
    let QueueView { budget, left, waiting, method, .. } = queue;
    format!("{rows}\n\n{left} of {budget} labels left today; {waiting} samples wait ({method})")
}

fn accuracy_text(report: &AccuracyReport) -> String {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let row = |view: &sealift_protocol::api::AccuracyView| {
        [
            view.group.version.to_string(),
            or_dash(view.group.value.clone()),
            percent(view.accuracy),
            format!("{} to {}", percent(view.low), percent(view.high)),
            view.labels.to_string(),
            format!("{:.1}", view.effective),
            view.lost.to_string(),
        ]
    };
    let head = ["VERSION", "OF", "ACCURACY", "95 %", "LABELS", "WORTH", "LOST"];
    let rows = table(head, report.items.iter().map(row));
    let AccuracyReport { method, left_out, .. } = report;
    format!("{rows}\n\n{method}; {left_out} labelled samples count for no figure")
}

async fn truth(client: &Client, output: Output, file: &Path) -> anyhow::Result<()> {
    let mut body = Vec::new();
    let reader: Box<dyn std::io::Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(
            std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?,
        )
    };
    reader.take(LABELS_BYTES_MAX + 1).read_to_end(&mut body)?;
    if body.len() as u64 > LABELS_BYTES_MAX {
        anyhow::bail!(
            "{} is longer than 1 MiB; send it in parts",
            printable(&file.to_string_lossy())
        );
    }
    let request = client.request(Method::POST, &api_path("labels", &[]))?;
    let request = request.header(CONTENT_TYPE, "application/jsonl").body(body);
    let taken: LabelsTaken = client.send(request).await?.json().await?;
    output.text(&taken, |taken| {
        let LabelsTaken { changed, known, joined } = taken;
        format!(
            "{changed} labels are new, {known} were known; {joined} are of samples that are here"
        )
    })
}

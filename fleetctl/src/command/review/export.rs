//! Writes samples with their labels, page by page.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealift_protocol::api::{LabelView, Page, SampleDetail, SampleView, TensorView};
use sealift_protocol::tensor::Tensor;
use serde::Serialize;

use super::moment;
use super::parquet::Table;
use crate::cli::{ReviewExport, ReviewFormat};
use crate::client::Client;
use crate::output::Output;

/// Pages that are followed at most: as many samples as a server keeps.
const PAGES_MAX: usize = 100_000;

/// A line of an export.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    sample: &'a SampleView,
    label: &'a Option<String>,
    labels: &'a [LabelView],
    inputs: BTreeMap<&'a str, Elements<'a>>,
    outputs: BTreeMap<&'a str, Elements<'a>>,
}

/// A tensor: numbers where it has some, else its bytes.
#[derive(Debug, Serialize)]
struct Elements<'a> {
    datatype: &'a str,
    shape: &'a [u64],
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<&'a str>,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Exported {
    file: PathBuf,
    samples: u64,
}

enum Writer {
    Lines(BufWriter<File>),
    Table(Box<Table>),
}

impl Writer {
    fn write(&mut self, items: &[SampleDetail]) -> anyhow::Result<()> {
        match self {
            Self::Lines(file) => {
                for detail in items {
                    serde_json::to_writer(&mut *file, &line(detail)?)?;
                    file.write_all(b"\n")?;
                }
                Ok(())
            }
            Self::Table(table) => table.write(items),
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Lines(file) => Ok(file.into_inner()?.sync_all()?),
            Self::Table(table) => table.finish(),
        }
    }
}

pub(super) async fn run(
    client: &Client,
    output: Output,
    wanted: ReviewExport,
) -> anyhow::Result<()> {
    let ReviewExport { model, format, file, since, until, unlabelled } = wanted;
    let made = File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
    let mut writer = match format {
        ReviewFormat::Jsonl => Writer::Lines(BufWriter::new(made)),
        ReviewFormat::Parquet => Writer::Table(Box::new(Table::new(made))),
    };
    let (model, from, until) = (model.to_string(), moment(since), moment(until));
    let mut cursor = String::new();
    let mut samples = 0_u64;
    for _ in 0..PAGES_MAX {
        let query = [
            ("model", model.as_str()),
            ("from", &from),
            ("until", &until),
            ("unlabelled", if unlabelled { "true" } else { "" }),
            ("cursor", &cursor),
        ];
        let page: Page<SampleDetail> = client.get("review/export", &query).await?;
        writer.write(&page.items)?;
        samples += page.items.len() as u64;
        if let Some(next) = page.next_cursor {
            cursor = next;
            continue;
        }
        writer.finish()?;
        let exported = Exported { file, samples };
        return output.text(&exported, |exported| {
            format!("{} samples in {}", exported.samples, exported.file.display())
        });
    }
    anyhow::bail!("there are more than {PAGES_MAX} pages of samples")
}

fn line(detail: &SampleDetail) -> anyhow::Result<Line<'_>> {
    let elements = |tensors: &'_ [TensorView]| -> anyhow::Result<Vec<Option<Vec<f64>>>> {
        tensors.iter().map(|view| Ok(tensor(view)?.numbers())).collect()
    };
    let named = |tensors, numbers| named(tensors, numbers);
    Ok(Line {
        sample: &detail.sample,
        label: &detail.label,
        labels: &detail.labels,
        inputs: named(&detail.inputs, elements(&detail.inputs)?),
        outputs: named(&detail.outputs, elements(&detail.outputs)?),
    })
}

fn named(views: &[TensorView], numbers: Vec<Option<Vec<f64>>>) -> BTreeMap<&str, Elements<'_>> {
    let element = |(view, data): (_, Option<Vec<f64>>)| {
        let TensorView { name, datatype, shape, base64 }: &TensorView = view;
        // What is no number has no form in JSON.
        let data = data.filter(|numbers| numbers.iter().all(|number| number.is_finite()));
        let base64 = data.is_none().then_some(base64.as_str());
        (name.as_str(), Elements { datatype, shape, data, base64 })
    };
    views.iter().zip(numbers).map(element).collect()
}

/// A tensor out of what the server says of it.
fn tensor(view: &TensorView) -> anyhow::Result<Tensor> {
    let bytes = STANDARD.decode(&view.base64)?;
    Ok(Tensor::new(view.name.clone(), view.datatype.parse()?, view.shape.clone(), bytes)?)
}

#[cfg(test)]
mod tests {
    use sealift_protocol::tensor::Datatype;

    use super::*;

    #[test]
    fn numbers_are_written_as_such_and_everything_else_as_bytes() {
        let view = |datatype: Datatype, bytes: &[u8]| TensorView {
            name: datatype.to_string(),
            datatype: datatype.to_string(),
            shape: vec![1],
            base64: STANDARD.encode(bytes),
        };
        let views = [
            view(Datatype::Fp32, &1.5_f32.to_le_bytes()),
            view(Datatype::Fp64, &f64::NAN.to_le_bytes()),
            view(Datatype::Bytes, &[1, 0, 0, 0, b'x']),
        ];
        let numbers = views.iter().map(|view| tensor(view).unwrap().numbers()).collect();
        let json = serde_json::to_value(named(&views, numbers)).unwrap();
        assert_eq!(json["FP32"]["data"], serde_json::json!([1.5]));
        assert!(json["FP64"].get("data").is_none() && json["FP64"]["base64"].is_string());
        assert_eq!(json["BYTES"]["base64"], "AQAAAHg=");
    }
}

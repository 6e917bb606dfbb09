//! `fleetctl audit`.

use sealift_protocol::api::{AuditEntry, Page};

use crate::audit::{self, Exported, Memory, Report, Source};
use crate::cli::{Audit, AuditList};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, or_dash};

pub(crate) async fn run(
    connect: impl Fn() -> anyhow::Result<Client>,
    output: Output,
    audit: Audit,
) -> anyhow::Result<()> {
    match audit {
        Audit::List(wanted) => list(&connect()?, output, &wanted).await,
        Audit::Verify { file: Some(file), key } => {
            let (mut source, key) = Source::file(&file, key)?;
            tell(output, &audit::verify(&mut source, &key, &Memory::open(&key)?).await?)
        }
        Audit::Verify { file: None, key } => {
            let client = connect()?;
            let (mut source, key) = Source::server(&client, key).await?;
            tell(output, &audit::verify(&mut source, &key, &Memory::open(&key)?).await?)
        }
        Audit::Export { file, key } => {
            let client = connect()?;
            let (_, key) = Source::server(&client, key).await?;
            let exported = audit::export(&client, &key, &file).await?;
            output.text(&exported, |Exported { rows, added }| {
                format!("{rows} rows in {}, {added} of them new", file.display())
            })
        }
    }
}

async fn list(client: &Client, output: Output, wanted: &AuditList) -> anyhow::Result<()> {
    let moment = |time: Option<jiff::Timestamp>| {
        time.map(|time| time.as_millisecond().to_string()).unwrap_or_default()
    };
    let (limit, from, until) =
        (wanted.limit.to_string(), moment(wanted.from), moment(wanted.until));
    let query = [
        ("limit", limit.as_str()),
        ("actor", &wanted.actor),
        ("action", &wanted.action),
        ("target", &wanted.target),
        ("from", &from),
        ("until", &until),
        ("directives", if wanted.directives { "true" } else { "" }),
    ];
    let page: Page<AuditEntry> = client.get("audit", &query).await?;
    let rows = page.items.iter().map(|entry| {
        [
            entry.sequence.to_string(),
            entry.at.to_string(),
            entry.actor.clone(),
            entry.action.clone(),
            entry.subject.clone(),
            or_dash(entry.reason.as_ref()),
            entry.detail.clone(),
        ]
    });
    output.rows(&page.items, ["#", "AT", "WHO", "WHAT", "TO", "WHY", "EVIDENCE"], rows)
}

fn tell(output: Output, report: &Report) -> anyhow::Result<()> {
    output.text(report, |report| {
        let Report { key, rows, root, seen_before, checkpoints, finding } = report;
        let verdict = match finding {
            None => format!("all {rows} rows are as they were written"),
            Some(finding) => finding.to_string(),
        };
        format!(
            "{verdict}\nkey          {key}\nroot         {root}\ncheckpoints  {checkpoints}\n\
             seen before  {seen_before} rows"
        )
    })?;
    let Some(finding) = &report.finding else { return Ok(()) };
    Err(Failure::new(Exit::Tampered, format!("the audit log was changed: {finding}"))
        .help("keep the database and this client's state as they are; compare with an exported file or a backup")
        .into())
}

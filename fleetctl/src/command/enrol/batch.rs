//! Batches of devices: claims, those who wait, serial numbers.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use sealift_protocol::api::{
    ClaimFile, EnrolClaimCreated, EnrolClaimNew, EnrolClaimView, EnrolDeny, EnrolRequestView,
    EnrolSerial, EnrolSerialView, EnrolSerialsAdded, EnrolSerialsNew,
};
use sealift_protocol::id::DeviceId;

use super::{key_value, labels_or_dash};
use crate::cli::{EnrolApprove, EnrolClaim, EnrolSerials};
use crate::client::Client;
use crate::output::{Output, note, or_dash};

/// Serial numbers in one request: the server's own limit.
const SERIALS_AT_ONCE: usize = 10_000;

pub(super) async fn claim(
    client: &Client,
    output: Output,
    claim: EnrolClaim,
) -> anyhow::Result<()> {
    match claim {
        EnrolClaim::Create { batch, max, expires, labels, out } => {
            let labels = key_values(&labels)?;
            ensure!(!out.exists(), "{} is there already", out.display());
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            let csr_pem = params.serialize_request(&key)?.pem()?;
            let expires_in_s = Some(expires);
            let new = EnrolClaimNew { batch, places: max, expires_in_s, labels, csr_pem };
            let created: EnrolClaimCreated = client.post("enrol-claims", &new).await?;
            write(&out, &created, key.serialize_pem())?;
            output.text(&created, |created| created.id.clone())?;
            note(&format!("valid until {}; a secret. On each device:", created.expires_at));
            note(&format!("  fleet-agent enrol --claim {} --serial SERIAL", out.display()));
            Ok(())
        }
        EnrolClaim::List => {
            let claims: Vec<EnrolClaimView> = client.list("enrol-claims", &[]).await?;
            let rows = claims.iter().map(|claim| {
                [
                    claim.id.clone(),
                    claim.batch.clone(),
                    labels_or_dash(&claim.labels),
                    format!("{} of {}", claim.places_left, claim.places),
                    claim.expires_at.to_string(),
                    or_dash(claim.revoked_at),
                ]
            });
            output.rows(&claims, ["ID", "BATCH", "LABELS", "LEFT", "EXPIRES", "REVOKED"], rows)
        }
        EnrolClaim::Revoke { id } => client.delete(&format!("enrol-claims/{id}")).await,
    }
}

/// Writes the claim for its owner alone, and never over another one.
fn write(out: &Path, created: &EnrolClaimCreated, key_pem: String) -> anyhow::Result<()> {
    let file = ClaimFile {
        url: created.url.clone(),
        ca_sha256: created.ca_sha256,
        tuf_root_sha256: created.tuf_root_sha256,
        certificate_pem: created.certificate_pem.clone(),
        key_pem,
    };
    let cannot = || format!("cannot write {}; `enrol claim revoke {}`", out.display(), created.id);
    let mut opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .with_context(cannot)?;
    opened.write_all(&serde_json::to_vec_pretty(&file)?).with_context(cannot)?;
    opened.sync_all().with_context(cannot)
}

pub(super) async fn pending(client: &Client, output: Output) -> anyhow::Result<()> {
    let waiting: Vec<EnrolRequestView> = client.list("enrol-requests", &[]).await?;
    let rows = waiting.iter().map(|request| {
        [
            request.id.clone(),
            request.device.to_string(),
            or_dash(request.serial.as_ref()),
            request.batch.clone(),
            labels_or_dash(&request.labels),
            request.address.clone(),
            request.key.short(),
            request.asked_at.to_string(),
        ]
    });
    let columns = ["ID", "DEVICE", "SERIAL", "BATCH", "LABELS", "FROM", "KEY", "SINCE"];
    output.rows(&waiting, columns, rows)?;
    if waiting.is_empty() {
        note("no device waits");
    }
    Ok(())
}

pub(super) async fn approve(
    client: &Client,
    output: Output,
    approve: EnrolApprove,
) -> anyhow::Result<()> {
    let ids = if approve.all { matching(client, &approve).await? } else { approve.ids };
    for id in &ids {
        client.order(&format!("enrol-requests/{id}/approve"), &()).await?;
    }
    output.text(&ids, |ids| ids.join("\n"))?;
    note(&format!("{} approved; each fetches its certificate when it asks next", ids.len()));
    Ok(())
}

async fn matching(client: &Client, approve: &EnrolApprove) -> anyhow::Result<Vec<String>> {
    let wanted = key_values(&approve.labels)?;
    let waiting: Vec<EnrolRequestView> = client.list("enrol-requests", &[]).await?;
    let is_wanted = |request: &EnrolRequestView| {
        wanted.iter().all(|(key, value)| request.labels.get(key) == Some(value))
            && approve.batch.as_ref().is_none_or(|batch| *batch == request.batch)
    };
    Ok(waiting.into_iter().filter(is_wanted).map(|request| request.id).collect())
}

pub(super) async fn deny(client: &Client, id: &str, reason: String) -> anyhow::Result<()> {
    client.order(&format!("enrol-requests/{id}/deny"), &EnrolDeny { reason }).await
}

pub(super) async fn serials(
    client: &Client,
    output: Output,
    serials: EnrolSerials,
) -> anyhow::Result<()> {
    match serials {
        EnrolSerials::Add { file, batch } => {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let serials = parse(&text).with_context(|| file.display().to_string())?;
            let mut added = EnrolSerialsAdded { added: 0 };
            for part in serials.chunks(SERIALS_AT_ONCE) {
                let new = EnrolSerialsNew { batch: batch.clone(), serials: part.to_vec() };
                let done: EnrolSerialsAdded = client.post("enrol-serials", &new).await?;
                added.added += done.added;
            }
            output.text(&added, |added| format!("{} serial numbers added", added.added))
        }
        EnrolSerials::List => {
            let serials: Vec<EnrolSerialView> = client.list("enrol-serials", &[]).await?;
            let rows = serials.iter().map(|serial| {
                [
                    serial.serial.clone(),
                    or_dash(serial.batch.as_ref()),
                    or_dash(serial.device.as_ref()),
                    labels_or_dash(&serial.labels),
                    or_dash(serial.used_by.as_ref()),
                    or_dash(serial.used_at),
                ]
            });
            let columns = ["SERIAL", "BATCH", "DEVICE", "LABELS", "USED BY", "AT"];
            output.rows(&serials, columns, rows)
        }
    }
}

/// Reads `serial[,device][,label …]` with a line of names above; an empty cell is none.
fn parse(text: &str) -> anyhow::Result<Vec<EnrolSerial>> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let names = reader.headers()?.clone();
    ensure!(names.iter().any(|name| name == "serial"), "the first line names no column `serial`");
    let mut serials = Vec::new();
    for row in reader.records() {
        let row = row?;
        let line = row.position().map_or(0, csv::Position::line);
        let mut serial =
            EnrolSerial { serial: String::new(), device: None, labels: BTreeMap::new() };
        for (name, cell) in names.iter().zip(&row).filter(|(_, cell)| !cell.is_empty()) {
            match name {
                "serial" => cell.clone_into(&mut serial.serial),
                "device" => {
                    let device = DeviceId::parse(cell);
                    serial.device = Some(device.with_context(|| format!("line {line}"))?);
                }
                label => drop(serial.labels.insert(label.to_owned(), cell.to_owned())),
            }
        }
        if serial.serial.is_empty() {
            bail!("line {line} has no serial number");
        }
        serials.push(serial);
    }
    Ok(serials)
}

fn key_values(texts: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    texts.iter().map(|text| key_value(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_read_with_their_ids_and_labels() {
        let serials = parse("serial, device, site\nA1, cam-1, tokyo\nA2, , osaka\n").unwrap();
        assert_eq!(serials.len(), 2);
        assert_eq!(serials[0].device.as_ref().unwrap().as_str(), "cam-1");
        assert_eq!(serials[1].device, None);
        assert_eq!(serials[1].labels["site"], "osaka");
    }

    #[test]
    fn files_that_are_no_lists_are_refused_with_their_line() {
        assert!(parse("number\n1").unwrap_err().to_string().contains("`serial`"));
        assert!(format!("{:#}", parse("serial,site\nA1,x\n,y").unwrap_err()).contains("line 3"));
        let wrong_id = parse("serial,device\nA1,CAM 1").unwrap_err();
        assert!(format!("{wrong_id:#}").contains("line 2"), "{wrong_id:#}");
    }
}

//! `fleetctl revoke`: puts images, director keys and device certificates on the signed deny list.

use std::time::Duration;

use sealift_protocol::api::{DeviceView, RevocationKind, RevocationView, RevokedVersion};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::DeviceId;
use tokio::time::{Instant, sleep};

use crate::cli::{Revocation, Revoke};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, note, word};
use crate::trust::deny::{self, Denial, Subject};
use crate::trust::publish::Outcome;

/// How often the devices' reports are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(crate) async fn run(client: &Client, output: Output, revoke: Revoke) -> anyhow::Result<()> {
    match revoke {
        Revoke::Image { image, revocation } => {
            let subject = image_subject(&image)?;
            revoked(client, output, subject, revocation).await
        }
        Revoke::Director { key, revocation } => {
            revoked(client, output, Subject::Director(key), revocation).await
        }
        Revoke::Device { device, revocation } => {
            let serial = certificate_of(client, &device).await?;
            revoked(client, output, Subject::Device(serial), revocation).await
        }
        Revoke::List => list(client, output).await,
    }
}

/// The serial number of a device's present certificate; what names no device is taken for a serial number.
async fn certificate_of(client: &Client, text: &str) -> anyhow::Result<String> {
    let Ok(device) = DeviceId::parse(text) else { return Ok(text.to_owned()) };
    match client.get::<DeviceView>(&format!("devices/{device}"), &[]).await {
        Ok(view) if !view.certificate_serial.is_empty() => {
            note(&format!("{device} has the certificate {}", view.certificate_serial));
            Ok(view.certificate_serial)
        }
        Ok(_) => Err(anyhow::anyhow!("this server does not say which certificate {device} has")),
        Err(error) => {
            let code = error.downcast_ref::<Failure>().and_then(|failure| failure.code.as_deref());
            if code == Some("device.not-found") { Ok(text.to_owned()) } else { Err(error) }
        }
    }
}

fn image_subject(text: &str) -> anyhow::Result<Subject> {
    if let Ok(digest) = text.parse::<Digest>() {
        return Ok(Subject::Image(digest));
    }
    let (model, version) = crate::cli::model_version(text)
        .map_err(|_| anyhow::anyhow!("`{text}` is neither `team/name@version` nor a digest"))?;
    Ok(Subject::Version(model, version))
}

async fn revoked(
    client: &Client,
    output: Output,
    subject: Subject,
    revocation: Revocation,
) -> anyhow::Result<()> {
    let Revocation { reason, holding, undo, wait, timeout_s } = revocation;
    let denial = Denial { subject, is_lifted: undo, reason, holding };
    let begun = Instant::now();
    let denied = deny::deny(client, &denial).await?;
    let verb = if undo { "taken off" } else { "put on" };
    note(&format!(
        "{} {verb} the deny list: {} images, {} director keys, {} devices; {}",
        denied.subject,
        denied.images,
        denied.directors,
        denied.devices,
        denied.outcome.text(),
    ));
    let is_published = matches!(denied.outcome, Outcome::Published { .. });
    if wait && is_published && !undo && denied.kind == RevocationKind::Image {
        gone(client, &denied.subject, begun, Duration::from_secs(timeout_s)).await?;
    }
    output.text(&denied, |denied| format!("{} {}", word(denied.kind), denied.subject))
}

/// Waits until no device reports to serve the image any more.
async fn gone(
    client: &Client,
    subject: &str,
    begun: Instant,
    limit: Duration,
) -> anyhow::Result<()> {
    loop {
        let listed: Vec<RevocationView> = client.list("trust/revocations", &[]).await?;
        let views = listed.iter().filter(|view| view.subject == subject);
        let serving: u64 = views.flat_map(|view| &view.versions).map(|it| it.devices).sum();
        if serving == 0 {
            let seconds = begun.elapsed().as_secs_f64();
            note(&format!("no device reports to serve it, after {seconds:.1} s"));
            return Ok(());
        }
        if begun.elapsed() >= limit {
            let what = format!("{serving} devices still report to serve {subject}");
            return Err(Failure::new(Exit::TimedOut, what)
                .help("they are offline, or the image's own policy is `keep-with-alarm`; `fleetctl device list` tells")
                .into());
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let views: Vec<RevocationView> = client.list("trust/revocations", &[]).await?;
    let about = |view: &RevocationView| {
        let version =
            |it: &RevokedVersion| format!("{}@{} ({} devices)", it.model, it.version, it.devices);
        view.versions.iter().map(version).collect::<Vec<_>>().join(", ")
    };
    let rows = views.iter().map(|view| {
        [
            word(view.kind),
            view.subject.clone(),
            about(view),
            view.reason.clone(),
            view.by.clone(),
            view.at.to_string(),
        ]
    });
    output.rows(&views, ["KIND", "SUBJECT", "VERSIONS", "REASON", "BY", "AT"], rows)
}

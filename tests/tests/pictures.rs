//! Drift of pictures: a baseline of a folder, devices that are sent PNG and JPEG files, and what the fleet says of those that have changed.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use sealift_protocol::api::{DriftState, DriftView};
use sealift_tests::digits::MODEL;
use sealift_tests::fleet::{Api, Device, DeviceOptions, Options, Server};
use sealift_tests::needs::onnxruntime;
use sealift_tests::pictures::{self, Picture};
use sealift_tests::process::{run, run_to_end, write};
use sealift_tests::story::{TIMING, roll_out};
use sealift_tests::wait::{Look, until};
use std::time::Duration;

/// Pictures of the reference.
const REFERENCE: u64 = 500;

/// Four windows of each device, at the pace of a camera, on a busy machine.
const A_WHILE: Duration = Duration::from_mins(5);

/// What is done to pictures, and the figures that it moves and does not move.
const CHANGES: [(&str, &str, &str); 4] = [
    ("blur", "feature:image.sharpness", "feature:image.brightness"),
    ("noise", "feature:image.noise", "feature:image.brightness"),
    ("dark", "feature:image.brightness", "feature:image.slant"),
    ("askew", "feature:image.upright", "feature:image.width"),
];

/// Where nothing is done.
const QUIET: &str = "quiet";

/// Writes the reference, each other picture in the other format, in two folders.
fn reference(folder: &Path) -> anyhow::Result<()> {
    for day in ["monday", "tuesday"] {
        fs::create_dir_all(folder.join(day))?;
    }
    for number in 0..REFERENCE {
        let is_png = number.is_multiple_of(2);
        let (file, _) = Picture::of_yard(number).file(is_png)?;
        let (day, kind) = (
            if number < REFERENCE / 2 { "monday" } else { "tuesday" },
            if is_png { "png" } else { "jpg" },
        );
        fs::write(folder.join(day).join(format!("{number:04}.{kind}")), file)?;
    }
    Ok(())
}

/// What the camera of a site takes.
fn taken(site: &str, number: u64) -> anyhow::Result<(Vec<u8>, &'static str)> {
    let salt = site.bytes().map(u64::from).sum::<u64>() << 32;
    let picture = Picture::of_yard(salt + number);
    let picture = match site {
        "blur" => picture.blurred(),
        "noise" => picture.noisy(number),
        "dark" => picture.dark(),
        "askew" => picture.askew(),
        _ => picture, // as ever
    };
    picture.file(number.is_multiple_of(2))
}

/// Sends pictures until nobody wants any more; returns how many.
async fn send(device: &Device, site: &'static str, is_done: &AtomicBool) -> anyhow::Result<u64> {
    let url = format!("{}/v2/models/{MODEL}/infer", device.endpoint()?);
    let http = reqwest::Client::new();
    let mut sent = 0;
    // As fast as every picture is looked at.
    let mut pace = tokio::time::interval(Duration::from_millis(25));
    while !is_done.load(Ordering::Relaxed) {
        pace.tick().await;
        let (file, content_type) = tokio::task::spawn_blocking(move || taken(site, sent)).await??;
        let request = http.post(&url).header("content-type", content_type).body(file);
        request.send().await?.error_for_status()?;
        sent += 1;
    }
    Ok(sent)
}

async fn verdicts(api: &Api, site: &str) -> anyhow::Result<Vec<DriftView>> {
    let all: Vec<DriftView> = api.list("drift?limit=5000").await?;
    let scope = format!("site={site}");
    Ok(all.into_iter().filter(|verdict| verdict.scope == scope).collect())
}

fn has(verdicts: &[DriftView], subject: &str, state: DriftState) -> bool {
    verdicts.iter().any(|verdict| verdict.subject == subject && verdict.state == state)
}

/// Waits until every change is told by its feature, and the quiet site was judged as well.
async fn all_are_told(api: &Api) -> anyhow::Result<()> {
    until("the fleet says what has changed", A_WHILE, || async {
        let mut waiting = Vec::new();
        for (site, subject, _) in CHANGES {
            if !has(&verdicts(api, site).await?, subject, DriftState::Drifted) {
                waiting.push(subject);
            }
        }
        let quiet = verdicts(api, QUIET).await?;
        if !has(&quiet, "feature:image.brightness", DriftState::Steady) {
            waiting.push(QUIET);
        }
        Ok(if waiting.is_empty() { Look::Done(()) } else { Look::NotYet(format!("{waiting:?}")) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs ONNX Runtime"]
async fn blur_noise_darkness_and_a_camera_askew_are_told_by_what_they_are() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    reference(&folder.path().join("reference"))?;
    let directory = pictures::model(folder.path(), "baseline = \"baseline.cbor\"\n")?;
    let (data, contract) = (at("reference"), at("pictures/contract.json"));
    let make = ["model", "baseline", "--data", &data, "--contract", &contract, "-f"];
    let told = run("fleetctl", &[&make[..], &[&at("pictures/baseline.cbor")]].concat(), &[])?;
    ensure!(told.contains("26 features of 500 rows"), "{told}");

    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(folder.path(), &options).await?;
    let sites: Vec<_> = CHANGES.iter().map(|(site, ..)| *site).chain([QUIET]).collect();
    let mut devices = Vec::new();
    for site in &sites {
        let options = DeviceOptions {
            labels: vec![format!("site={site}")],
            onnxruntime: Some(onnxruntime()?),
            extra: String::new(),
        };
        let name = format!("cam-{site}");
        devices.push(Device::start(&server, folder.path(), &name, &options).await?);
    }
    server.publish(&directory, "1")?;
    roll_out(&server, "1").await?;

    let (api, is_done) = (server.api()?, AtomicBool::new(false));
    let told = async {
        let told = all_are_told(&api).await;
        is_done.store(true, Ordering::Relaxed);
        told
    };
    let [blur, noise, dark, askew, quiet] = devices.as_slice() else { anyhow::bail!("five") };
    let (told, one, two, three, four, five) = tokio::join!(
        told,
        send(blur, "blur", &is_done),
        send(noise, "noise", &is_done),
        send(dark, "dark", &is_done),
        send(askew, "askew", &is_done),
        send(quiet, QUIET, &is_done),
    );
    told?;
    let sent = [one?, two?, three?, four?, five?];
    ensure!(sent.iter().all(|count| *count > 200), "{sent:?}");

    for (site, subject, other) in CHANGES {
        let verdicts = verdicts(&api, site).await?;
        ensure!(!has(&verdicts, other, DriftState::Drifted), "{site}: {other} has not changed");
        let shown = server.ctl(&["drift", "list", "--scope", &format!("site={site}")])?;
        ensure!(shown.contains(subject), "{site}: {shown}");
    }
    let quiet: Vec<_> = verdicts(&api, QUIET).await?;
    let alarms = quiet.iter().filter(|verdict| verdict.state == DriftState::Drifted);
    let alarms: Vec<_> = alarms.map(|verdict| &verdict.why).collect();
    ensure!(alarms.is_empty(), "{alarms:?}");
    Ok(())
}

/// The same without a fleet: folders are judged window by window, and what cannot be read is told.
#[test]
fn a_folder_of_pictures_is_judged_in_the_order_of_its_names() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    reference(&folder.path().join("reference"))?;
    fs::create_dir(folder.path().join("rows"))?;
    for number in 0..500 {
        let site = if number < 200 { QUIET } else { "dark" };
        let (file, _) = taken(site, number)?;
        fs::write(folder.path().join(format!("rows/{number:04}.png")), file)?;
    }
    let (reference, rows) = (at("reference"), at("rows"));
    let replay = ["drift", "replay", "--window", "100", "-o", "json", "--baseline", &reference];
    let told = run("fleetctl", &[&replay[..], &["--data", &rows]].concat(), &[])?;
    let windows: Vec<serde_json::Value> = serde_json::from_str(&told)?;
    let verdict = |index: usize| windows.get(index).and_then(|window| window["verdict"].as_str());
    ensure!(windows.len() == 5 && verdict(0) == Some("ok") && verdict(1) == Some("ok"), "{told}");
    ensure!(verdict(3) == Some("drift"), "{:?}", windows.get(3));
    let why = windows.get(3).context("a window")?["why"].to_string();
    ensure!(why.contains("feature:image.brightness"), "{why}");

    write(&folder.path().join("rows/0100.png"), "GIF89a")?;
    let data = rows.clone();
    let into = at("b.cbor");
    let make = ["model", "baseline", "--data", &data, "-f", &into];
    let (status, _, stderr) = run_to_end("fleetctl", &make, &[])?;
    ensure!(
        status.success() && stderr.contains("0100.png is left out: neither a JPEG"),
        "{stderr}"
    );
    ensure!(stderr.contains("1 of 500 pictures"), "{stderr}");
    let before = fs::read(&into)?;
    run("fleetctl", &make, &[])?;
    ensure!(fs::read(&into)? == before, "the same files make another baseline");
    let (status, _, stderr) = run_to_end("fleetctl", &[&make[..], &["--strict"]].concat(), &[])?;
    ensure!(status.code() == Some(1) && stderr.contains("0100.png: neither a JPEG"), "{stderr}");
    Ok(())
}

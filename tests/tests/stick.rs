//! A signed repository on a stick: what is damaged, foreign or old does not come in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use sealift_tests::digits::{MODEL, directory as model_directory};
use sealift_tests::fleet::Server;
use sealift_tests::keys::{device, server, text};
use sealift_tests::story::{self, answers_with};

#[tokio::test]
async fn a_stick_brings_a_copy_of_the_fleets_server_up_to_date_and_never_back() -> anyhow::Result<()>
{
    let directory = tempfile::tempdir()?;
    let (near, far) = (directory.path().join("near"), directory.path().join("far"));
    fs::create_dir_all(&near)?;
    fs::create_dir_all(&far)?;
    Server::init(&near)?;
    copy(&near.join("server"), &far.join("server"))?;
    copy(&near.join("offline-keys"), &far.join("offline-keys"))?;
    let here = server(&near).await?;
    let there = server(&far).await?;
    here.publish(&model_directory("v1"), "1")?;
    let (early, stick) = (text(&directory.path().join("early")), directory.path().join("stick"));
    here.ctl(&["trust", "export", &early])?;
    here.publish(&model_directory("v2"), "2")?;
    here.ctl(&["trust", "export", &text(&stick)])?;
    let again = here.ctl_json(&["trust", "export", &text(&stick)])?;
    ensure!(again["copied_bytes"] == 0, "{again}");

    let blob = largest(&stick.join("blobs/sha256"))?;
    let sound = fs::read(&blob)?;
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    fs::write(&blob, flipped)?;
    let damaged = there.ctl_to_end(&["trust", "import", &text(&stick)])?;
    ensure!(damaged.2.contains("missing or damaged"), "{}", damaged.2);
    let unknown = there.ctl_to_end(&["model", "verify", &format!("{MODEL}@2")])?;
    ensure!(!unknown.0.success(), "metadata came without their images");

    fs::write(&blob, sound)?;
    let imported = there.ctl_json(&["trust", "import", &text(&stick)])?;
    ensure!(imported["roles"] == serde_json::json!(["publisher-vision"]), "{imported}");
    for version in ["1", "2"] {
        there.ctl(&["model", "verify", &format!("{MODEL}@{version}")])?;
    }
    let back = there.ctl_to_end(&["trust", "import", &early])?;
    ensure!(back.0.code() == Some(7) && back.2.contains("go back"), "{}", back.2);
    let device = device(&there, &far).await?;
    story::roll_out(&there, "2").await?;
    answers_with(&device, "2").await
}

#[tokio::test]
async fn a_stick_of_another_fleet_is_refused() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    fs::create_dir_all(&one)?;
    fs::create_dir_all(&other)?;
    let (one, other) = (server(&one).await?, server(&other).await?);
    one.publish(&model_directory("v1"), "1")?;
    let stick = text(&directory.path().join("stick"));
    one.ctl(&["trust", "export", &stick])?;

    let (status, _, why) = other.ctl_to_end(&["trust", "import", &stick])?;

    ensure!(!status.success() && why.contains("does not verify"), "{why}");
    ensure!(!other.ctl_json(&["model", "list"])?.to_string().contains(MODEL), "an image came in");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn largest(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut files = fs::read_dir(folder)?.flatten().collect::<Vec<_>>();
    files.sort_by_key(|file| file.metadata().map_or(0, |metadata| metadata.len()));
    Ok(files.last().context("there is no blob")?.path())
}

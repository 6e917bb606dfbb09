//! Keys come and go while the fleet works: ceremonies with files on a stick, publishers, a token that signs.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use reqwest::Method;
use sealift_protocol::api::Status;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::tuf::Role;
use sealift_protocol::tuf::key::SigningKey;
use sealift_protocol::tuf::repository::TargetsDraft;
use sealift_tests::digits::{MODEL, directory as model_directory};
use sealift_tests::keys::{Made, PASSPHRASE, device, holder, keys, make_key, server, text};
use sealift_tests::process::run_to_end;
use sealift_tests::story::{self, SOON, answers_with};
use sealift_tests::token::Token;
use sealift_tests::wait::{Look, until};
use serde_json::Value;

#[tokio::test]
async fn two_holders_replace_the_third_one_after_the_other() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let Made { private: fresh, public, id } =
        make_key(directory.path(), "root", &["--algorithm", "p256"])?;
    ensure!(fs::read_to_string(&fresh)?.contains("ENCRYPTED"), "the key is under no passphrase");
    let before = keys(&server, "root")?;
    ensure!(before.len() == 3 && before.iter().all(|key| key["threshold"] == "2 of 3"));
    ensure!(before.iter().all(|key| key["here"].is_string()), "a file is not found: {before:?}");
    let file = |name: &str| text(&server.offline_key(name));
    let first = before.iter().find(|key| key["here"] == file("root-1").as_str());
    let gone = first.and_then(|key| key["key_id"].as_str()).context("root-1 is listed")?.to_owned();

    let stick = text(&directory.path().join("stick"));
    server
        .ctl(&["key", "rotate", "root", "--add", &public, "--remove", &gone, "--stage", &stick])?;
    let shown = holder(&["trust", "show", &stick])?;
    for expected in
        [format!("+ root may be signed by {id}"), format!("no longer be signed by {gone}")]
    {
        ensure!(shown.contains(&expected), "{shown}");
    }
    let early = server.ctl_to_end(&["trust", "submit", &stick])?;
    ensure!(early.0.code() == Some(1) && early.2.contains("0 of 2 holders before"), "{}", early.2);
    holder(&["trust", "sign", &stick, "--key", &file("root-2"), "--yes"])?;
    // Without a word of consent nothing is signed: here is no terminal to ask at.
    let declined =
        run_to_end("fleetctl", &["trust", "sign", &stick, "--key", &file("root-3")], &[])?;
    ensure!(declined.0.code() == Some(3), "{}", declined.2);
    holder(&["trust", "sign", &stick, "--key", &file("root-3"), "--yes"])?;
    server.ctl(&["trust", "submit", &stick])?;

    let after = keys(&server, "root")?;
    let ids: Vec<_> = after.iter().filter_map(|key| key["key_id"].as_str()).collect();
    ensure!(ids.contains(&id.as_str()) && !ids.contains(&gone.as_str()), "{ids:?}");
    // The new holder signs, with a passphrase; the one who is gone does not.
    let renew = text(&directory.path().join("renew"));
    server.ctl(&["trust", "renew", "root", "--stage", &renew])?;
    let refused =
        run_to_end("fleetctl", &["trust", "sign", &renew, "--key", &file("root-1"), "--yes"], &[])?;
    ensure!(refused.2.contains("no draft is signed by"), "{}", refused.2);
    holder(&["trust", "sign", &renew, "--key", &fresh, "--yes"])?;
    holder(&["trust", "sign", &renew, "--key", &file("root-2"), "--yes"])?;
    server.ctl(&["trust", "submit", &renew])?;
    Ok(())
}

#[tokio::test]
async fn a_draft_that_was_altered_on_the_stick_is_not_signed() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let stick = directory.path().join("stick");
    server.ctl(&["trust", "renew", "targets", "--stage", &text(&stick)])?;
    let key = text(&server.offline_key("targets-1"));
    let sign = ["trust", "sign", &text(&stick), "--key", &key, "--yes"].map(str::to_owned);
    let sign: Vec<_> = sign.iter().map(String::as_str).collect();

    let draft = stick.join("next/targets.json");
    let sound = fs::read_to_string(&draft)?;
    fs::write(&draft, sound.replacen("\"version\":2", "\"version\":9", 1))?;
    let skipped = run_to_end("fleetctl", &sign, &[])?;
    ensure!(!skipped.0.success() && skipped.2.contains("version 9"), "{}", skipped.2);

    fs::write(&draft, sound)?;
    // Another's key under the id of a holder: what is shown would be the same.
    let root = text(&directory.path().join("root"));
    server.ctl(&["trust", "renew", "root", "--stage", &root])?;
    let draft = Path::new(&root).join("next/root.json");
    let mut swapped: Value = serde_json::from_slice(&fs::read(&draft)?)?;
    let keys = swapped["signed"]["keys"].as_object_mut().context("keys")?;
    let stranger = keys.values().next().context("a key")?.clone();
    keys.values_mut().last().context("a key")?.clone_from(&stranger);
    fs::write(&draft, serde_json::to_vec(&swapped)?)?;
    let root_key = text(&server.offline_key("root-1"));
    let masked =
        run_to_end("fleetctl", &["trust", "sign", &root, "--key", &root_key, "--yes"], &[])?;
    ensure!(!masked.0.success() && masked.2.contains("no draft of ours"), "{}", masked.2);

    let trusted = stick.join("trusted/1.targets.json");
    let genuine = fs::read_to_string(&trusted)?;
    fs::write(&trusted, genuine.replacen("models/vision", "models/visio0", 1))?;
    let forged = run_to_end("fleetctl", &sign, &[])?;
    ensure!(!forged.0.success(), "forged ground was accepted: {}", forged.1);

    fs::write(&trusted, genuine)?;
    holder(&sign)?;
    Ok(())
}

#[tokio::test]
async fn a_new_team_of_two_who_must_both_sign_is_delegated_to() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let more = ["--no-passphrase"];
    let one = make_key(directory.path(), "publisher:audio", &more)?;
    let two = make_key(directory.path(), "publisher:audio", &more)?;
    let stick = text(&directory.path().join("stick"));
    let rotate = ["key", "rotate", "publisher:audio", "--threshold", "2", "--stage", &stick];
    server.ctl(&[&rotate[..], &["--add", &one.public, "--add", &two.public]].concat())?;
    let targets = ["targets-1", "targets-3"].map(|name| text(&server.offline_key(name)));
    for key in targets.iter().chain([&one.private]) {
        holder(&["trust", "sign", &stick, "--key", key, "--yes"])?;
    }
    let half = server.ctl_to_end(&["trust", "submit", &stick])?;
    ensure!(half.2.contains("publisher-audio: 1 of 2 holders"), "{}", half.2);

    holder(&["trust", "sign", &stick, "--key", &two.private, "--yes"])?;
    server.ctl(&["trust", "submit", &stick])?;

    let listed = keys(&server, "publisher:audio")?;
    ensure!(listed.len() == 2 && listed[0]["threshold"] == "2 of 2", "{listed:?}");
    // Handed in twice, as after a lost answer, it is refused and nothing is undone.
    let twice = server.ctl_to_end(&["trust", "submit", &stick])?;
    ensure!(twice.0.code() == Some(7), "{}", twice.2);
    let end = ["trust", "withdraw", "publisher:audio", "--reason", "dissolved"];
    server.ctl(&[&end[..], &["--key", &targets[0], "--key", &targets[1]]].concat())?;
    ensure!(keys(&server, "publisher:audio")?.is_empty(), "the team goes on");
    Ok(())
}

#[tokio::test]
async fn what_has_expired_is_renewed_by_its_holder() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let api = server.api()?;
    let on_call = text(&server.offline_key("revocations-1"));
    let key = SigningKey::from_pem(&fs::read_to_string(&on_call)?)?;
    let role = Role::Delegated("revocations".to_owned());
    let current = api.request(Method::GET, "/tuf/1.revocations.json").send().await?;
    let current = current.error_for_status()?.bytes().await?.to_vec();
    let draft = TargetsDraft::next(role, current, &[key.public()])?;
    let expires = UnixMillis(now_ms()?).plus(3_000);
    let short = draft.sign(expires, &[&key])?;
    let put = api.request(Method::PUT, "/api/v1/trust/roles/revocations").body(short);
    put.send().await?.error_for_status()?;
    until("it has expired", SOON, || async {
        let left_ms = expires.0 - now_ms()?;
        Ok(if left_ms < 0 { Look::Done(()) } else { Look::NotYet(format!("{left_ms} ms left")) })
    })
    .await?;
    let status: Status = api.get("status").await?;
    let finding = status.attention.iter().find(|item| item.title.contains("revocations"));
    let finding = finding.context("nobody is told")?;
    ensure!(finding.severity == "critical", "{finding:?}");
    ensure!(finding.detail.contains("fleetctl trust renew revocations --key"), "{finding:?}");

    server.ctl(&["trust", "renew", "revocations", "--key", &on_call])?;

    let device = device(&server, directory.path()).await?;
    server.publish(&model_directory("v1"), "1")?;
    story::roll_out(&server, "1").await?;
    answers_with(&device, "1").await?;
    let status: Status = api.get("status").await?;
    ensure!(!status.attention.iter().any(|item| item.title.contains("revocations")));
    let metrics = api.request(Method::GET, "/metrics").send().await?.text().await?;
    for role in ["root", "targets", "publisher-vision", "revocations", "runtime"] {
        let line = format!("sealift_trust_expires_timestamp_seconds{{role=\"{role}\"}}");
        ensure!(metrics.contains(&line), "no {line}");
    }
    Ok(())
}

fn now_ms() -> anyhow::Result<i64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_millis())?)
}

#[tokio::test]
async fn a_team_loses_its_key_and_goes_on_with_another() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let device = device(&server, directory.path()).await?;
    server.publish(&model_directory("v1"), "1")?;
    story::roll_out(&server, "1").await?;
    let targets = ["targets-1", "targets-2"].map(|name| text(&server.offline_key(name)));
    let Made { private: fresh, public, .. } =
        make_key(directory.path(), "publisher:vision", &["--no-passphrase"])?;
    let lost = keys(&server, "publisher:vision")?;
    let lost = lost[0]["key_id"].as_str().context("an id")?.to_owned();

    let revoke = ["key", "revoke", &lost[..12], "--add", &public, "--reason", "laptop stolen"];
    let with = ["--key", &targets[0], "--key", &targets[1], "--key", &fresh];
    server.ctl(&[&revoke[..], &with[..]].concat())?;

    let version = format!("{MODEL}@2");
    server.ctl(&["model", "push", &text(&model_directory("v2"))])?;
    let old = text(&server.offline_key("publisher-vision-1"));
    let thief = server.ctl_to_end(&["model", "sign", &version, "--key", &old])?;
    ensure!(thief.2.contains("0 of 1 holders have signed"), "{}", thief.2);
    server.ctl(&["model", "sign", &version, "--key", &fresh])?;
    story::roll_out(&server, "2").await?;
    answers_with(&device, "2").await?;

    // Version 1 was signed anew with the new key when the old one went.
    server.ctl(&["model", "verify", &format!("{MODEL}@1")])?;
    let audit = server.ctl_json(&["audit", "list"])?.to_string();
    ensure!(audit.contains("laptop stolen"), "{audit}");
    Ok(())
}

#[tokio::test]
async fn two_publishers_at_once_lose_nothing_of_each_other() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = std::sync::Arc::new(server(directory.path()).await?);
    for version in ["v1", "v2"] {
        server.ctl(&["model", "push", &text(&model_directory(version))])?;
    }
    let key = text(&server.offline_key("publisher-vision-1"));
    let sign = |version: &str| {
        let (server, key) = (std::sync::Arc::clone(&server), key.clone());
        let version = format!("{MODEL}@{version}");
        tokio::task::spawn_blocking(move || server.ctl(&["model", "sign", &version, "--key", &key]))
    };

    let (one, two) = (sign("1"), sign("2"));
    one.await??;
    two.await??;

    for version in ["1", "2"] {
        server.ctl(&["model", "verify", &format!("{MODEL}@{version}")])?;
    }
    // Again, as after a lost answer: it is there already, and no further version is made.
    let again = server.ctl_json(&["model", "sign", &format!("{MODEL}@1"), "--key", &key])?;
    ensure!(again["outcome"] == "unchanged", "{again}");
    Ok(())
}

#[tokio::test]
async fn the_console_says_that_root_keys_are_here_until_they_are_gone() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let api = server.api()?;
    let finding = async || -> anyhow::Result<bool> {
        let status: Status = api.get("status").await?;
        Ok(status.attention.iter().any(|item| item.title == "root key is still on this server"))
    };

    ensure!(finding().await?, "it is not said");
    let folder = server.offline_key("root-1");
    let folder = folder.parent().context("a folder")?;
    fs::remove_file(folder.join("root-1.pem"))?;
    ensure!(finding().await?, "two of three are enough to sign");
    fs::rename(folder, directory.path().join("stick"))?;
    ensure!(!finding().await?, "it is still said");
    Ok(())
}

#[tokio::test]
async fn a_passphrase_can_protect_the_keys_of_the_first_ceremony() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (data, offline) = (directory.path().join("server"), directory.path().join("offline-keys"));
    let init = ["init", "--data", &text(&data), "--offline", &text(&offline), "--team", "vision"]
        .map(str::to_owned);
    let init: Vec<_> = init.iter().map(String::as_str).collect();
    let (status, _, stderr) =
        run_to_end("fleet-server", &init, &[("SEALIFT_PASSPHRASE", PASSPHRASE)])?;
    ensure!(status.success(), "{stderr}");
    for entry in fs::read_dir(&offline)? {
        let text = fs::read_to_string(entry?.path())?;
        ensure!(!text.contains("BEGIN PRIVATE KEY"), "a key lies open");
    }
    let server = server(directory.path()).await?;
    ensure!(keys(&server, "targets")?.iter().all(|key| key["here"].is_string()));

    server.ctl(&["model", "push", &text(&model_directory("v1"))])?;
    let key = text(&server.offline_key("publisher-vision-1"));
    let version = format!("{MODEL}@1");
    let without = server.ctl_to_end(&["model", "sign", &version, "--key", &key])?;
    ensure!(without.2.contains("is needed"), "{}", without.2);
    let file = directory.path().join("passphrase");
    fs::write(&file, PASSPHRASE)?;
    server.ctl(&["model", "sign", &version, "--key", &key, "--passphrase-file", &text(&file)])?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs softhsm2-util"]
async fn a_token_signs_and_its_key_never_leaves_it() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path()).await?;
    let token = Token::make(directory.path())?;
    let Made { private: p256, public, .. } = make_key(
        directory.path(),
        "publisher:vision",
        &["--algorithm", "p256", "--no-passphrase"],
    )?;
    token.import(&p256, "ci", "01")?;
    fs::remove_file(&p256)?;
    let gone = keys(&server, "publisher:vision")?;
    let gone = gone[0]["key_id"].as_str().context("an id")?.to_owned();
    let targets = ["targets-1", "targets-2"].map(|name| text(&server.offline_key(name)));
    let uri = "pkcs11:token=story;object=ci";
    let rotate = ["key", "rotate", "publisher:vision", "--add", &public, "--remove", &gone];
    let with = ["--key", &targets[0], "--key", &targets[1], "--key", uri];
    token.ctl(&server, &[&rotate[..], &with[..]].concat(), "4711")?;

    server.ctl(&["model", "push", &text(&model_directory("v1"))])?;
    let version = format!("{MODEL}@1");
    let wrong = token.ctl_to_end(&server, &["model", "sign", &version, "--key", uri], "0815")?;
    ensure!(wrong.2.contains("refuses the PIN"), "{}", wrong.2);
    token.ctl(&server, &["model", "sign", &version, "--key", uri], "4711")?;

    server.ctl(&["model", "verify", &version])?;
    let device = device(&server, directory.path()).await?;
    story::roll_out(&server, "1").await?;
    answers_with(&device, "1").await?;

    // Whoever is on call has an Ed25519 key on the same token.
    let Made { private: on_call, public, .. } =
        make_key(directory.path(), "revocations", &["--no-passphrase"])?;
    token.import(&on_call, "on call", "02")?;
    let gone = keys(&server, "revocations")?;
    let gone = gone[0]["key_id"].as_str().context("an id")?.to_owned();
    let on_call = "pkcs11:token=story;object=on%20call";
    let rotate = ["key", "rotate", "revocations", "--add", &public, "--remove", &gone];
    let with = ["--key", &targets[0], "--key", &targets[1], "--key", on_call];
    token.ctl(&server, &[&rotate[..], &with[..]].concat(), "4711")?;
    server.ctl(&["model", "push", &text(&model_directory("v2"))])?;
    let version = format!("{MODEL}@2");
    token.ctl(&server, &["model", "sign", &version, "--key", uri], "4711")?;
    story::roll_out(&server, "2").await?;
    answers_with(&device, "2").await?;
    let revoke = ["revoke", "image", &version, "--reason", "backdoor", "--key", on_call];
    token.ctl(&server, &revoke, "4711")?;
    story::security_event(&server.api()?, &device.id, "image.revoked").await?;
    answers_with(&device, "1").await
}

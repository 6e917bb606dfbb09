//! A server that was restored from an old backup: it notices that its devices are ahead, says what to run, and ends ahead of them again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use sealift_protocol::api::{AlertView, DeviceView, RolloutState};
use sealift_tests::digits::{as_version, directory as model_directory};
use sealift_tests::fleet::{Device, DeviceOptions, Options, Server, Store};
use sealift_tests::needs::{onnxruntime, variable};
use sealift_tests::process::run;
use sealift_tests::story::{self, SOON, TIMING, answers_with, begin, ended, serving};
use sealift_tests::wait::{Look, until};
use serde_json::Value;

/// A fleet of two devices, and how its database is saved and put back.
struct Fleet {
    directory: PathBuf,
    server: Server,
    devices: Vec<Device>,
    database: Database,
}

/// What of the server a backup has: keys and blobs survive, as where they lie elsewhere.
enum Database {
    Sqlite,
    Postgres(String),
}

impl Fleet {
    async fn start(directory: &Path, database: Database) -> anyhow::Result<Self> {
        let store = match &database {
            Database::Sqlite => Store::Sqlite,
            Database::Postgres(url) => Store::Postgres(url.clone()),
        };
        let options = Options { store, extra: TIMING.to_owned(), ..Options::default() };
        let server = Server::start(directory, &options).await?;
        let options = DeviceOptions {
            labels: vec!["site=tokyo".to_owned()],
            onnxruntime: Some(onnxruntime()?),
            extra: String::new(),
        };
        let mut devices = Vec::new();
        for id in ["cam-1", "cam-2"] {
            devices.push(Device::start(&server, directory, id, &options).await?);
        }
        server.publish(&model_directory("v1"), "1")?;
        story::roll_out(&server, "1").await?;
        Ok(Self { directory: directory.to_owned(), server, devices, database })
    }

    /// Saves the database while the server stands still, as the manual says.
    async fn back_up(&mut self) -> anyhow::Result<()> {
        self.server.process.stop()?;
        match &self.database {
            Database::Sqlite => copy_sqlite(&self.server.data(), &self.backup())?,
            Database::Postgres(url) => {
                postgres("pg_dump", &["--format=custom", "--file", &self.dump(), url])?;
            }
        }
        self.server.process.restart()?;
        self.server.ready().await
    }

    /// Puts the old database in the place of the present one.
    async fn restore(&mut self) -> anyhow::Result<()> {
        self.server.process.kill()?;
        match &self.database {
            Database::Sqlite => copy_sqlite(&self.backup(), &self.server.data())?,
            Database::Postgres(url) => {
                let into = ["--clean", "--if-exists", "--dbname", url, &self.dump()];
                postgres("pg_restore", &into)?;
            }
        }
        self.server.process.restart()?;
        self.server.ready().await
    }

    fn backup(&self) -> PathBuf {
        self.directory.join("backup")
    }

    fn dump(&self) -> String {
        self.directory.join("fleet.dump").display().to_string()
    }

    /// `fleet-server recover --json` with these arguments.
    fn recover(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let config = self.directory.join("fleet-server.toml").display().to_string();
        let fixed = ["recover", "--config", &config, "--json"];
        let text = run("fleet-server", &[&fixed[..], arguments].concat(), &[])?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    async fn alert(&self, kind: &str) -> anyhow::Result<Option<AlertView>> {
        let alerts: Vec<AlertView> = self.server.api()?.list("alerts?state=open&limit=100").await?;
        Ok(alerts.into_iter().find(|alert| alert.kind == kind))
    }

    /// Waits until the server says, in an alert, that its database is old.
    async fn notices(&self) -> anyhow::Result<AlertView> {
        until("the server notices that it is behind its devices", SOON, || async {
            let found = self.alert("store-behind").await?;
            Ok(found.map_or_else(|| Look::NotYet("no such alert".to_owned()), Look::Done))
        })
        .await
    }

    /// Waits until every device reports to be ahead of what the server knows.
    async fn is_behind_all(&self) -> anyhow::Result<()> {
        until("every device has reported", SOON, || async {
            let plan = self.recover(&[])?;
            let ahead = plan["ahead"].as_array().map_or(0, Vec::len);
            let is_all = ahead == self.devices.len();
            Ok(if is_all { Look::Done(()) } else { Look::NotYet(plan.to_string()) })
        })
        .await
    }

    async fn views(&self) -> anyhow::Result<Vec<DeviceView>> {
        let api = self.server.api()?;
        let mut views = Vec::new();
        for device in &self.devices {
            views.push(api.device(&device.id).await?);
        }
        Ok(views)
    }

    async fn all_answer_with(&self, version: &str) -> anyhow::Result<()> {
        for device in &self.devices {
            answers_with(device, version).await?;
        }
        Ok(())
    }
}

/// The database and what SQLite keeps beside it.
fn copy_sqlite(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for name in ["fleet.db", "fleet.db-wal", "fleet.db-shm"] {
        let (old, new) = (from.join(name), to.join(name));
        if new.exists() {
            fs::remove_file(&new)?;
        }
        if old.exists() {
            fs::copy(&old, &new)?;
        }
    }
    Ok(())
}

/// A program of PostgreSQL, from where its server is.
fn postgres(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(postgres_program(program)?).args(arguments).status()?;
    ensure!(status.success(), "{program}: {status}");
    Ok(())
}

/// `pg_dump` is on the path, or below the directory in which Debian keeps the programs of each version.
fn postgres_program(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path);
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let of_versions = versions.map(|version| version.path().join("bin"));
    let mut places = of_versions.chain(on_path).map(|directory| directory.join(program));
    places.find(|place| place.exists()).with_context(|| format!("{program} is not installed"))
}

/// Back up, roll out version 2, sign version 3, halt, restore the old backup, notice, recover, roll out version 3.
async fn an_old_backup_is_restored(mut fleet: Fleet) -> anyhow::Result<()> {
    fleet.back_up().await?;
    fleet.server.publish(&model_directory("v2"), "2")?;
    story::roll_out(&fleet.server, "2").await?;
    let third = as_version(&fleet.directory, "3", "")?;
    fleet.server.publish(&third, "3")?;
    // The backup knows nothing of it, and the devices, which keep it over restarts, would obey it for ever.
    fleet.server.ctl(&[
        "halt",
        "--all",
        "--reason",
        "lost with the database",
        "--yes",
        "--wait",
    ])?;
    let kept = fleet.server.ctl(&["-o", "json", "audit", "verify"])?;
    let kept: Value = serde_json::from_str(&kept)?;

    fleet.restore().await?;

    let alert = fleet.notices().await?;
    ensure!(alert.help.contains("fleet-server recover"), "{alert:?}");
    fleet.all_answer_with("2").await?;

    fleet.is_behind_all().await?;
    let shown = fleet.recover(&[])?;
    ensure!(shown["applied"] == false, "{shown}");
    ensure!(shown["ahead"][0]["serving"]["vision/digits"]["version"] == "2", "{shown}");
    ensure!(shown["ahead"][0]["desired"]["vision/digits"] == "1", "{shown}");
    ensure!(shown["lost_roles"][0]["role"] == "publisher-vision", "{shown}");
    ensure!(shown["timestamp"]["seen"].as_u64() > shown["timestamp"]["here"].as_u64(), "{shown}");
    let again = fleet.recover(&[])?;
    ensure!(again == shown, "a dry run changed something: {shown} {again}");

    let applied = fleet.recover(&["--apply"])?;
    ensure!(applied["applied"] == true, "{applied}");
    fleet.all_answer_with("2").await?;
    let handed = fleet.server.ctl_json(&["trust", "hand-back"])?;
    ensure!(handed["roles"][0] == "publisher-vision", "{handed}");
    // What devices run is what they should run again; its image is pushed anew, and needs no new signature.
    for model in [model_directory("v2"), third] {
        fleet.server.ctl(&["model", "push", &model.display().to_string()])?;
    }
    fleet.server.ctl(&["trust", "hand-back"])?;
    follows(&fleet, "2").await?;

    let third = begin(&fleet.server, "3")?;
    ended(&fleet.server.api()?, third, RolloutState::Succeeded).await?;
    fleet.all_answer_with("3").await?;
    follows(&fleet, "3").await?;
    until("the alert is over", SOON, || async {
        let alert = fleet.alert("store-behind").await?;
        Ok(alert.map_or(Look::Done(()), |alert| Look::NotYet(alert.detail)))
    })
    .await?;
    log_was_cut(&fleet, &kept)
}

/// Whoever looked at the audit log before sees that it was cut, and the log itself says by what.
fn log_was_cut(fleet: &Fleet, kept: &Value) -> anyhow::Result<()> {
    let (status, stdout, _) = fleet.server.ctl_to_end(&["-o", "json", "audit", "verify"])?;
    let report: Value = serde_json::from_str(&stdout)?;
    ensure!(!status.success(), "{report}");
    let (row, before) = (report["finding"]["row"].as_u64(), kept["rows"].as_u64());
    ensure!(row.is_some() && row < before, "{report} after {kept}");
    let deeds = fleet.server.ctl(&["-o", "json", "audit", "list", "--action", "server.recover"])?;
    ensure!(deeds.contains("2 of 2 devices adopted"), "{deeds}");
    Ok(())
}

/// Every device has followed the server's newest directive and runs this version, which the server wants it to run.
async fn follows(fleet: &Fleet, version: &str) -> anyhow::Result<()> {
    until(&format!("all devices follow to {version}"), SOON, || async {
        let views = fleet.views().await?;
        let is_there = |view: &DeviceView| {
            let slot = view.slots.iter().find(|slot| slot.model.to_string() == "vision/digits");
            let desired = slot.and_then(|slot| slot.desired.as_ref()).map(ToString::to_string);
            view.reported_generation == view.desired_generation
                && serving(view).as_deref() == Some(version)
                && desired.as_deref() == Some(version)
        };
        let all = views.iter().all(is_there);
        Ok(if all { Look::Done(()) } else { Look::NotYet(format!("{views:?}")) })
    })
    .await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn an_old_copy_of_the_database_is_brought_ahead_of_its_devices() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    an_old_backup_is_restored(Fleet::start(directory.path(), Database::Sqlite).await?).await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime and PostgreSQL"]
async fn an_old_dump_of_postgresql_is_brought_ahead_of_its_devices() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let database = Database::Postgres(variable("SEALIFT_POSTGRES_URL")?);
    an_old_backup_is_restored(Fleet::start(directory.path(), database).await?).await
}

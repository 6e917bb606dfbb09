//! Several servers that are one: a PostgreSQL, an S3-compatible store and a broker between them, and nothing on their own disks but keys.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use sealift_protocol::api::{DeviceProgress, DeviceState, DeviceView, RolloutState};
use sealift_tests::bucket::Bucket;
use sealift_tests::fleet::{Api, Device, DeviceOptions, Options, Server, Store};
use sealift_tests::mosquitto::Mosquitto;
use sealift_tests::needs::{onnxruntime, variable};
use sealift_tests::story::{SOON, TIMING, answers_with, begin, ended, roll_out};
use sealift_tests::wait::{Look, until};

/// Where their blobs lie.
const PREFIX: &str = "sealift";

/// What two servers share, until it is dropped.
struct Shared {
    bucket: Bucket,
    broker: Mosquitto,
    database: String,
}

impl Shared {
    /// Makes the keys in `first`, gives `second` a copy, and starts what both use.
    async fn start(first: &Path, second: &Path) -> anyhow::Result<Self> {
        Server::init(first)?;
        for folder in ["server/keys", "offline-keys"] {
            fs::create_dir_all(second.join(folder))?;
            for file in fs::read_dir(first.join(folder))? {
                let file = file?;
                fs::copy(file.path(), second.join(folder).join(file.file_name()))?;
            }
        }
        let broker = Mosquitto::start(first, &["cam-1", "cam-2"])?;
        let bucket = Bucket::start(first).await?;
        Ok(Self { bucket, broker, database: variable("SEALIFT_POSTGRES_URL")? })
    }

    async fn server(
        &self,
        directory: &Path,
        name: &str,
        token: Option<String>,
    ) -> anyhow::Result<Server> {
        let mqtt = format!("{}client_id = \"{name}\"\n", self.broker.section());
        let options = Options {
            store: Store::Postgres(self.database.clone()),
            mqtt: Some(mqtt),
            extra: format!("{}{TIMING}", Bucket::section(PREFIX)),
            token,
            environment: self.bucket.environment(),
            ..Options::default()
        };
        Server::start(directory, &options).await
    }
}

async fn device(server: &Server, folder: &Path, id: &str, site: &str) -> anyhow::Result<Device> {
    let options = DeviceOptions {
        labels: vec![format!("site={site}")],
        onnxruntime: Some(onnxruntime()?),
        extra: String::new(),
    };
    Device::start(server, folder, id, &options).await
}

async fn online(api: &Api, devices: usize) -> anyhow::Result<()> {
    until("the devices are online", SOON, || async {
        let views = api.list::<DeviceView>("devices").await?;
        let online = views.iter().filter(|view| view.state == DeviceState::Online).count();
        Ok(if online == devices { Look::Done(()) } else { Look::NotYet(format!("{online}")) })
    })
    .await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime, mosquitto, PostgreSQL and S3 store"]
async fn two_servers_are_one_fleet() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let shared = Shared::start(&first, &second).await?;
    let mut one = shared.server(&first, "fleet-server-1", None).await?;
    let two = shared.server(&second, "fleet-server-2", Some(one.token.clone())).await?;
    let mut cam_1 = device(&one, &first, "cam-1", "tokyo").await?;
    let cam_2 = device(&two, &second, "cam-2", "osaka").await?;
    online(&two.api()?, 2).await?;

    // What one takes in, the other gives out.
    one.publish(&sealift_tests::digits::directory("v1"), "1")?;
    roll_out(&two, "1").await?;
    answers_with(&cam_1, "1").await?;
    answers_with(&cam_2, "1").await?;
    let blobs = shared.bucket.objects(PREFIX).await?;
    ensure!(blobs.iter().any(|name| name.contains("/sha256/")), "{blobs:?}");
    ensure!(!one.data().join("blobs").exists() && !two.data().join("blobs").exists());

    // One dies in the middle of a rollout; the other goes on with it.
    two.publish(&sealift_tests::digits::directory("v2"), "2")?;
    let rollout = begin(&one, "2")?;
    one.process.kill()?;
    answers_with(&cam_2, "2").await?;
    one.process.restart()?;
    one.ready().await?;
    cam_1.ready().await?;
    ended(&two.api()?, rollout, RolloutState::Succeeded).await?;
    answers_with(&cam_1, "2").await?;

    // Each counts what either was told, and once.
    let told = two.api()?.rollout(rollout).await?;
    ensure!(told == one.api()?.rollout(rollout).await?, "the servers disagree on {rollout}");
    ensure!(told.progress.get(&DeviceProgress::Succeeded) == Some(&2), "{:?}", told.progress);
    // Whichever of them is asked, and whichever hears the answer.
    for server in [&one, &two, &one, &two] {
        for cam in ["cam-1", "cam-2"] {
            ensure!(server.ctl(&["device", "diagnose", cam])?.contains("may be asked diagnose"));
        }
    }
    one.ctl(&["audit", "verify"])?;
    Ok(())
}

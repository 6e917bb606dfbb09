//! The same loop on both set-ups: everything in one process, and an external broker with PostgreSQL.

use sealift_tests::fleet::{Device, DeviceOptions, Options, Server, Store};
use sealift_tests::mosquitto::Mosquitto;
use sealift_tests::needs::{onnxruntime, variable};
use sealift_tests::story::{TIMING, whole_loop};

fn device_options(site: &str) -> anyhow::Result<DeviceOptions> {
    Ok(DeviceOptions {
        labels: vec![format!("site={site}")],
        onnxruntime: Some(onnxruntime()?),
        extra: String::new(),
    })
}

#[tokio::test]
#[ignore = "needs ONNX Runtime"]
async fn the_loop_passes_with_the_embedded_broker_and_sqlite() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = Options { extra: TIMING.to_owned(), ..Options::default() };
    let server = Server::start(directory.path(), &options).await?;
    let tokyo =
        Device::start(&server, directory.path(), "cam-1", &device_options("tokyo")?).await?;
    let osaka =
        Device::start(&server, directory.path(), "cam-2", &device_options("osaka")?).await?;

    whole_loop(&server, &[tokyo, osaka]).await
}

#[tokio::test]
#[ignore = "needs ONNX Runtime, mosquitto and PostgreSQL"]
async fn the_loop_passes_with_mosquitto_and_postgresql() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    Server::init(directory.path())?;
    let broker = Mosquitto::start(directory.path(), &["cam-1", "cam-2"])?;
    let options = Options {
        store: Store::Postgres(variable("SEALIFT_POSTGRES_URL")?),
        mqtt: Some(broker.section()),
        extra: TIMING.to_owned(),
        ..Options::default()
    };
    let server = Server::start(directory.path(), &options).await?;
    let tokyo =
        Device::start(&server, directory.path(), "cam-1", &device_options("tokyo")?).await?;
    let osaka =
        Device::start(&server, directory.path(), "cam-2", &device_options("osaka")?).await?;

    whole_loop(&server, &[tokyo, osaka]).await
}

//! What publishers do to the registry with `fleetctl`.

use anyhow::ensure;
use sealift_tests::digits::{MODEL, directory};
use sealift_tests::fleet::{Options, Server};

#[tokio::test]
async fn a_version_is_deleted_only_as_long_as_nobody_has_signed_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(folder.path(), &Options::default()).await?;
    server.publish(&directory("v1"), "1")?;
    server.ctl(&["model", "push", &directory("v2").display().to_string()])?;
    let list = || anyhow::Ok(server.ctl(&["model", "list"])?.matches(MODEL).count());
    ensure!(list()? == 2);

    let deleted = server.ctl(&["model", "delete", &format!("{MODEL}@2")])?;
    let (status, _, refusal) = server.ctl_to_end(&["model", "delete", &format!("{MODEL}@1")])?;

    ensure!(deleted.contains("is deleted"), "{deleted}");
    ensure!(!status.success() && refusal.contains("is signed"), "{refusal}");
    ensure!(list()? == 1);
    let inspected = server.ctl(&["model", "inspect", &format!("{MODEL}@1")])?;
    ensure!(inspected.contains("model.onnx"), "{inspected}");
    server.ctl(&["model", "push", &directory("v2").display().to_string()])?;
    ensure!(list()? == 2);
    Ok(())
}

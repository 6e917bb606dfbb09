//! The other story of the demo: somebody copies the server's disk with every online key, and stands where the server stood.

use std::path::Path;

use anyhow::Context as _;
use sealift_tests::fleet::{Device, Server};
use sealift_tests::thief::{self, Attack, TEAMS, Thief};

use super::fleet::Fleet;
use super::stage::Stage;

/// A second team, whose genuine key the thief has as well, must be there from the beginning.
pub(super) fn prepare_keys(directory: &Path) -> anyhow::Result<()> {
    Server::init_for(directory, &TEAMS)
}

/// Tells it. The fleet stays with the thief, and ends with the story.
pub(super) async fn run(stage: &mut Stage, fleet: Fleet, directory: &Path) -> anyhow::Result<()> {
    let Fleet { server, mut devices, traffic, simulated } = fleet;
    drop(traffic);
    let mut device = devices.swap_remove(0);
    let publish = async {
        let targets = thief::prepare(&server, directory, "1").await?;
        thief::hurry(directory, &mut device).await?;
        let found = format!("every device keeps version {}, security epoch 2", targets.good);
        Ok((targets, found))
    };
    let targets = stage.step("A version without the old hole replaces the others", publish).await?;
    let steal = async {
        let thief = Thief::steal(server, directory, targets).await?;
        let found = "data, database, broker, and the keys of director, snapshot, timestamp, TLS and device CA";
        Ok((thief, found))
    };
    let mut thief =
        stage.step("Somebody steals the server's disk and takes its place", steal).await?;
    for attack in Attack::ALL {
        stage.step(&sentence(attack), attempt(&mut thief, attack, &device)).await?;
    }
    drop((thief, simulated));
    println!(
        "\n{} attempts, none of which ran an image that no publisher signed",
        Attack::ALL.len()
    );
    Ok(())
}

async fn attempt(
    thief: &mut Thief,
    attack: Attack,
    device: &Device,
) -> anyhow::Result<((), String)> {
    let refused = thief.attempt(attack, device).await.with_context(|| format!("{attack:?}"))?;
    let told = if attack.is_told() { ", told as a security event" } else { "" };
    let found =
        format!("{} refuses: {}{told}; its model answers all the while", device.id, refused.code);
    Ok(((), found))
}

fn sentence(attack: Attack) -> String {
    format!("The thief tries {}", attack.name())
}

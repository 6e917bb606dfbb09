//! `fleet-server recover`: after a database was restored from a backup. Shows what was lost; changes nothing without `--apply`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use sealift_protocol::id::UnixMillis;

use super::{Place, write_answer};
use crate::audit::Notary;
use crate::clock;
use crate::directive::Director;
use crate::recover::{self, Choice, Wishes};
use crate::store::Store;
use crate::trust::Trust;

/// A checkpoint is a few lines.
const NOTE_BYTES_MAX: u64 = 64 << 10;

#[derive(Args)]
pub(super) struct Recover {
    #[command(flatten)]
    place: Place,
    /// Carry it out; otherwise it is only shown
    #[arg(long)]
    apply: bool,
    /// What becomes of devices that run something else than the database says
    #[arg(long, value_enum, default_value = "adopt")]
    devices: Choice,
    /// The highest generation that a device is known to have followed, if higher than what devices report
    #[arg(long, default_value_t = 0)]
    generation: u64,
    /// The highest version of the timestamp that a device is known to have, if higher than what devices report
    #[arg(long, default_value_t = 0)]
    timestamp: u64,
    /// The highest version of the snapshot that a device is known to have, if higher than what devices report
    #[arg(long, default_value_t = 0)]
    snapshot: u64,
    /// When the backup was made, as `2026-06-01T12:00:00Z`; when the audit log ended, if not given
    #[arg(long)]
    backup_at: Option<jiff::Timestamp>,
    /// A checkpoint of the audit log that was kept elsewhere: says which rows were lost
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(recover: Recover) -> Result<()> {
    let config = recover.place.read()?;
    let store = Store::open(&config.store_url()).await?.tenant(&config.tenant);
    let folder = config.keys();
    let director = Director::open(&folder, &config.tenant, config.timing.directive_valid_s)?;
    let director = Arc::new(director);
    let lifetimes = config.trust.profile.lifetimes();
    let trust = Trust::open(store.clone(), &folder, Arc::clone(&director), lifetimes).await?;
    let wishes = Wishes {
        choice: recover.devices,
        generation: recover.generation,
        timestamp: recover.timestamp,
        snapshot: recover.snapshot,
        backup_at: recover.backup_at.map(|at| UnixMillis(at.as_millisecond())),
    };
    let mut plan = recover::look(&store, &trust, wishes).await?;
    if let Some(file) = &recover.checkpoint {
        let note = super::read_bounded(file, NOTE_BYTES_MAX)?;
        let key = Notary::open(&folder, &config.tenant)?.public();
        plan.audit = Some(recover::compare(&store, &key, &note).await?);
    }
    if recover.apply {
        recover::apply(&store, (&trust, &director), &plan, clock::now()).await?;
        plan.applied = true;
    }
    if recover.json {
        write_answer(&serde_json::to_string_pretty(&plan).context("the plan is no JSON")?);
    } else {
        write_answer(&plan.in_words());
    }
    Ok(())
}

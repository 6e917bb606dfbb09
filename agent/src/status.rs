//! What an agent last said about itself, for people at the device.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use sealift_protocol::report::{ImageRef, Report, ShadowCounts};
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::identity::{Identity, IdentityError};
use crate::worker;

/// A report of all slots takes about 30 KB.
const BYTES_MAX: u64 = 1 << 20;

/// A device's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its id.
    pub device: String,
    /// Whose it is.
    pub tenant: String,
    /// Where its models are reached; none while no agent has run.
    pub endpoint: Option<String>,
    /// What it last reported.
    pub report: Option<Report>,
    /// What the kernel cannot keep from a model's process.
    pub sandbox_gaps: Vec<String>,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No device.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Deserialize)]
struct Endpoint {
    http: String,
}

/// Reads what the agent on `store` has written last.
pub fn read(store: &Path) -> Result<Status, StatusError> {
    let identity = Identity::load(store)?;
    let file = |name: &str| {
        let path = store.join("run").join(name);
        disk::read(&path, BYTES_MAX).map_err(|source| StatusError::Read { path, source })
    };
    let endpoint = file("endpoint.json")?;
    let endpoint = endpoint.and_then(|bytes| serde_json::from_slice::<Endpoint>(&bytes).ok());
    let report = file("status.json")?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(Status {
        device: identity.device.to_string(),
        tenant: identity.tenant.to_string(),
        endpoint: endpoint.map(|endpoint| endpoint.http),
        report,
        sandbox_gaps: worker::sandbox_gaps(),
    })
}

impl Status {
    /// The status as a few lines of text.
    pub fn text(&self) -> String {
        let mut text = format!("device {} of {}\n", self.device, self.tenant);
        let endpoint = self.endpoint.as_deref().unwrap_or("not served yet");
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "models at {endpoint}");
        for gap in &self.sandbox_gaps {
            let _ = writeln!(text, "sandbox leaves open {gap}");
        }
        let Some(report) = &self.report else { return text + "nothing reported yet\n" };
        let _ = writeln!(text, "generation {}, reported {}", report.generation, report.at);
        if let Some(refused) = &report.refused {
            let _ = writeln!(text, "refused: {} ({})", refused.reason, refused.code);
        }
        for slot in &report.slots {
            let version = |image: &Option<ImageRef>| {
                image.as_ref().map_or("none".to_owned(), |image| image.version.to_string())
            };
            let (model, phase) = (&slot.model, slot.phase);
            let _ = writeln!(text, "{model}: serves {}, {phase:?}", version(&slot.serving));
            if let Some(held) = &slot.held {
                let _ = writeln!(text, "  held until {}: {}", held.until, held.reason);
            }
            if slot.next.is_some() {
                let _ = writeln!(text, "  next {}", version(&slot.next));
            }
            if let Some(shadow) = &slot.shadow {
                let (new, live) = (&shadow.image.version, &shadow.live.version);
                let ShadowCounts { rows, agreed, .. } = shadow.counts;
                let _ = writeln!(text, "  {new} beside {live}: agrees on {agreed} of {rows} rows");
            }
            if let Some(outcome) = &slot.outcome {
                let (version, result) = (&outcome.image.version, outcome.result);
                let _ = writeln!(text, "  last {version}: {result:?} {}", outcome.reason);
            }
        }
        text
    }
}

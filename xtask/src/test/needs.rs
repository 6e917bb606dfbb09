//! What tests need besides the workspace's own programs; tests find each through the environment.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::bail;

use super::report::Outcome;
use crate::fetch::Obtained;
use crate::install::Tool;
use crate::postgres::{self, Postgres};
use crate::{child, fetch, workspace};

const POSTGRES: &str = "SEALIFT_POSTGRES_URL";

/// Programs of the operating system, by the variable that says where they are.
const TOOLS: [(&str, Tool); 9] = [
    ("SEALIFT_MOSQUITTO", Tool { program: "mosquitto", package: "mosquitto" }),
    ("SEALIFT_SKOPEO", Tool { program: "skopeo", package: "skopeo" }),
    ("SEALIFT_SOFTHSM", Tool { program: "softhsm2-util", package: "softhsm2" }),
    ("SEALIFT_CHROMIUM", Tool { program: "chromium", package: "chromium" }),
    ("SEALIFT_PROMETHEUS", Tool { program: "prometheus", package: "prometheus" }),
    ("SEALIFT_PROMTOOL", Tool { program: "promtool", package: "prometheus" }),
    (
        "SEALIFT_ALERTMANAGER",
        Tool { program: "prometheus-alertmanager", package: "prometheus-alertmanager" },
    ),
    ("SEALIFT_DPKG", Tool { program: "dpkg", package: "dpkg" }),
    ("SEALIFT_SYSTEMD_ANALYZE", Tool { program: "systemd-analyze", package: "systemd" }),
];

/// Whether a test may mount a small disk for itself: what root may, unless it is in a container that keeps it from it.
fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// Services that run and programs that are there, until this value is dropped.
pub(super) struct Needs {
    environment: Vec<(&'static str, String)>,
    postgres: Option<Postgres>,
    /// What tests may say they need, in lower case, and whether it is here.
    known: Vec<(String, bool)>,
    /// What could not be had, and why.
    pub(super) missing: Vec<(&'static str, Outcome)>,
}

impl Needs {
    /// Fetches, installs and starts what this machine allows.
    pub(super) fn obtain(logs: &Path) -> anyhow::Result<Self> {
        let programs = workspace::target()?.join("debug").display().to_string();
        let mut needs = Self {
            environment: vec![("SEALIFT_BIN_DIR", programs)],
            postgres: None,
            known: vec![("programs".to_owned(), true), ("disk to mount".to_owned(), may_mount())],
            missing: Vec::new(),
        };
        needs.fetched("ONNX Runtime", "SEALIFT_ONNXRUNTIME", fetch::obtain_onnxruntime())?;
        needs.fetched("OpenVINO", "SEALIFT_OPENVINO", fetch::openvino())?;
        needs.fetched("Python packages", "SEALIFT_PYTHON", fetch::venv())?;
        needs.fetched("clients of inference", "SEALIFT_SERVING_PYTHON", fetch::clients())?;
        needs.fetched("S3 store", "SEALIFT_S3_PYTHON", fetch::clients())?;
        needs.fetched("drift detectors", "SEALIFT_DRIFT_PYTHON", fetch::drift_venv())?;
        needs.fetched("receivers of alerts", "SEALIFT_RECEIVERS_PYTHON", fetch::receivers())?;
        needs.fetched("console", "SEALIFT_CONSOLE", fetch::console())?;
        needs.fetched("OpenID provider", "SEALIFT_OIDC_PROVIDER", fetch::oidc_provider())?;
        for (variable, tool) in TOOLS {
            let obtained = tool.obtain().map_or_else(Obtained::Missing, Obtained::Ready);
            needs.fetched(tool.program, variable, Ok(obtained))?;
        }
        let log = logs.join("postgres.log");
        match postgres::obtain().map(|initdb| Postgres::start(&initdb, &log)) {
            Ok(Ok(postgres)) => needs.postgres = Some(postgres),
            Ok(Err(error)) => needs.broken("PostgreSQL", &error, &log)?,
            Err(why) => needs.missing.push(("PostgreSQL", Outcome::Skipped(why))),
        }
        needs.know("PostgreSQL", POSTGRES, needs.postgres.is_some());
        Ok(needs)
    }

    /// The variables for a group of tests, with a database of its own.
    pub(super) fn environment(&self, group: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
        let database =
            self.postgres.as_ref().map(|postgres| postgres.database(group)).transpose()?;
        let database = database.map(|url| (POSTGRES, url));
        Ok(self.environment.iter().cloned().chain(database).collect())
    }

    /// Whether everything that `reason` mentions is here; a reason that mentions nothing known is not met.
    pub(super) fn meet(&self, reason: &str) -> bool {
        let reason = reason.to_lowercase();
        let mut mentioned = self.known.iter().filter(|(word, _)| reason.contains(word)).peekable();
        mentioned.peek().is_some() && mentioned.all(|(_, is_here)| *is_here)
    }

    fn fetched(
        &mut self,
        name: &'static str,
        variable: &'static str,
        obtained: anyhow::Result<Obtained>,
    ) -> anyhow::Result<()> {
        self.know(name, variable, matches!(obtained, Ok(Obtained::Ready(_))));
        match obtained {
            Ok(Obtained::Ready(path)) => {
                self.environment.push((variable, path.display().to_string()));
            }
            Ok(Obtained::Missing(why)) => self.missing.push((name, Outcome::Skipped(why))),
            Err(error) => self.broken(name, &error, Path::new("no log"))?,
        }
        Ok(())
    }

    fn know(&mut self, name: &str, variable: &str, is_here: bool) {
        self.known.extend([name, variable].map(|word| (word.to_lowercase(), is_here)));
    }

    /// What should be there and is not is a failure, and the tests that can do without it still run.
    fn broken(
        &mut self,
        name: &'static str,
        error: &anyhow::Error,
        log: &Path,
    ) -> anyhow::Result<()> {
        if child::is_interrupted() {
            bail!("interrupted");
        }
        self.missing.push((name, Outcome::broken(&format!("{error:#}"), log)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_mentioned_must_be_here() {
        let known = [("mosquitto", true), ("postgresql", false), ("sealift_postgres_url", false)];
        let needs = Needs {
            environment: Vec::new(),
            postgres: None,
            known: known.map(|(word, is_here)| (word.to_owned(), is_here)).into(),
            missing: Vec::new(),
        };

        assert!(needs.meet("needs mosquitto 2 on this machine"));
        assert!(!needs.meet("needs SEALIFT_POSTGRES_URL"));
        assert!(!needs.meet("needs mosquitto and PostgreSQL"));
        assert!(!needs.meet("needs a blue moon"));
    }
}

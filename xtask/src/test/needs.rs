//! What tests need besides the workspace's own programs; tests find each through the environment.

use std::path::Path;

use anyhow::bail;

use super::report::Outcome;
use crate::fetch::Obtained;
use crate::install::Tool;
use crate::postgres::{self, Postgres};
use crate::{child, fetch, workspace};

/// Services that run and programs that are there, until this value is dropped.
pub(super) struct Needs {
    /// Variables for the tests.
    pub(super) environment: Vec<(&'static str, String)>,
    /// What could not be had, and why.
    pub(super) missing: Vec<(&'static str, Outcome)>,
    postgres: Option<Postgres>,
}

const MOSQUITTO: Tool = Tool { program: "mosquitto", package: "mosquitto" };
const CHROMIUM: Tool = Tool { program: "chromium", package: "chromium" };

impl Needs {
    /// Fetches, installs and starts what this machine allows.
    pub(super) fn obtain(logs: &Path) -> anyhow::Result<Self> {
        let programs = workspace::target()?.join("debug").display().to_string();
        let mut needs = Self {
            environment: vec![("SEALIFT_BIN_DIR", programs)],
            missing: Vec::new(),
            postgres: None,
        };
        needs.fetched("ONNX Runtime", "SEALIFT_ONNXRUNTIME", fetch::obtain_onnxruntime())?;
        needs.fetched("Python packages", "SEALIFT_PYTHON", fetch::venv())?;
        needs.tool("mosquitto", "SEALIFT_MOSQUITTO", &MOSQUITTO);
        needs.tool("Chromium", "SEALIFT_CHROMIUM", &CHROMIUM);
        needs.postgres(logs)?;
        Ok(needs)
    }

    fn postgres(&mut self, logs: &Path) -> anyhow::Result<()> {
        let log = logs.join("postgres.log");
        let initdb = match postgres::obtain() {
            Ok(initdb) => initdb,
            Err(why) => {
                self.missing.push(("PostgreSQL", Outcome::Skipped(why)));
                return Ok(());
            }
        };
        match Postgres::start(&initdb, &log) {
            Ok(postgres) => {
                self.environment.push(("SEALIFT_POSTGRES_URL", postgres.url.clone()));
                self.postgres = Some(postgres);
            }
            Err(error) => self.broken("PostgreSQL", &error, &log)?,
        }
        Ok(())
    }

    fn fetched(
        &mut self,
        name: &'static str,
        variable: &'static str,
        obtained: anyhow::Result<Obtained>,
    ) -> anyhow::Result<()> {
        match obtained {
            Ok(Obtained::Ready(path)) => {
                self.environment.push((variable, path.display().to_string()));
            }
            Ok(Obtained::Missing(why)) => self.missing.push((name, Outcome::Skipped(why))),
            Err(error) => self.broken(name, &error, Path::new("no log"))?,
        }
        Ok(())
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

    fn tool(&mut self, name: &'static str, variable: &'static str, tool: &Tool) {
        match tool.obtain() {
            Ok(path) => self.environment.push((variable, path.display().to_string())),
            Err(why) => self.missing.push((name, Outcome::Skipped(why))),
        }
    }
}

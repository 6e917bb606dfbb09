//! The process that does a job, and what it says: a line of JSON for each part, and one for the end.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sealift_protocol::request::BatchRun;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

pub(super) use crate::batch::News;

/// A line is some hundred bytes.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// A process at work; dropped, it is killed.
pub(super) struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    /// What was read of the next line.
    line: Vec<u8>,
}

impl Process {
    /// Starts it. It answers through the agent's own endpoint, as if the owner had started it.
    pub(super) fn start(
        store: &Path,
        run: &BatchRun,
        (input, output): &(PathBuf, PathBuf),
    ) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("batch").arg("--store").arg(store).args(["--model", &run.model.to_string()]);
        command.arg("--input").arg(input).arg("--output").arg(output);
        command.args(["--rows", &run.rows.to_string(), "--report"]);
        command.args(["--format", run.format.extension()]);
        if run.no_header {
            command.arg("--no-header");
        }
        if let Some(array) = &run.array {
            // In one word: a name may begin with a hyphen.
            command.arg(format!("--array={array}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let output = child.stdout.take();
        let output = output.ok_or_else(|| io::Error::other("the process has no output"))?;
        Ok(Self { child, output: BufReader::new(output), line: Vec::new() })
    }

    /// What it says next. Whoever waits may go away and come again: what was read of a line stays.
    pub(super) async fn next(&mut self) -> News {
        let read = (&mut self.output).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line).await;
        let line = std::mem::take(&mut self.line);
        let news = read.ok().and_then(|_| serde_json::from_slice(&line).ok());
        match news {
            Some(news) => news,
            None => self.ended().await,
        }
    }

    async fn ended(&mut self) -> News {
        let reason = match self.child.wait().await {
            Ok(status) => format!("its process ended: {status}"),
            Err(error) => format!("its process is lost: {error}"),
        };
        News::Failed { is_final: false, reason }
    }
}

//! A batch that the agent has started: what becomes of it, line by line, for whoever started it.

use std::io::{self, Write as _};

use rustix::process::{Signal, set_parent_process_death_signal};
#[cfg(feature = "parquet")]
use sealift_protocol::table::parquet::{Damaged, on_damage};
use serde::{Deserialize, Serialize};

use super::{Arguments, AskError, BatchError, JobError, Summary, run_with};

/// What a batch says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum News {
    /// So many rows have answers.
    Progress { rows: u64, parts: u64 },
    /// All have.
    Done { rows: u64, parts: u64 },
    /// It cannot go on, now or at all.
    Failed { is_final: bool, reason: String },
}

/// Answers every row that has no answer yet, and says so on standard output.
pub async fn report(arguments: &Arguments) -> io::Result<()> {
    #[cfg(feature = "parquet")]
    on_damage(damaged);
    // With the agent goes what it has started; it is started anew with the next agent.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let progress = |summary: Summary| {
        // Nobody who reads is nobody who minds; the end is told with its error.
        let _ = tell(&News::Progress { rows: summary.rows, parts: summary.parts });
    };
    let news = match run_with(arguments, progress).await {
        Ok(summary) => News::Done { rows: summary.rows, parts: summary.parts },
        Err(error) => {
            News::Failed { is_final: is_final(&error), reason: crate::verify::with_cause(&error) }
        }
    };
    tell(&news)
}

/// Says that the input is damaged, where the decoder cannot go back to say so.
#[cfg(feature = "parquet")]
fn damaged(file: &Damaged) -> ! {
    let reason = format!("{file}; {}", Damaged::HELP);
    // Nobody who reads is nobody who minds.
    let _ = tell(&News::Failed { is_final: true, reason });
    #[expect(clippy::exit, reason = "in the middle of a panic; after it some builds abort")]
    std::process::exit(1)
}

fn tell(news: &News) -> io::Result<()> {
    let mut line = serde_json::to_vec(news)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Whether trying it again would end the same way.
fn is_final(error: &BatchError) -> bool {
    match error {
        BatchError::Input(_) | BatchError::Job(JobError::Other { .. }) => true,
        #[cfg(feature = "parquet")]
        BatchError::Table(error) => error.is_final(),
        #[cfg(not(feature = "parquet"))]
        BatchError::NoParquet => true,
        // The disk may have room again, the one before may end, the model may be served again.
        BatchError::NoAgent(_) | BatchError::Job(_) | BatchError::Model(_) => false,
        BatchError::Ask { source, .. } => match source {
            AskError::Swapped { .. } | AskError::Inputs(_) | AskError::Answer(_) => true,
            AskError::Refused { status, .. } => {
                (400..500).contains(status) && !matches!(status, 404 | 408 | 429)
            }
            AskError::Socket(_) => false,
        },
    }
}

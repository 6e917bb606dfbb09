//! How a command can end badly: what happened, what to do, and the exit code that scripts rely on.

use std::fmt;

/// Exit codes; they never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed,
    Declined,
    Auth,
    RolloutEndedBadly,
    TimedOut,
    Conflict,
    NeedsAttention,
    Tampered,
    Interrupted,
}

impl Exit {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Declined => 3,
            Self::Auth => 4,
            Self::RolloutEndedBadly => 5,
            Self::TimedOut => 6,
            Self::Conflict => 7,
            Self::NeedsAttention => 8,
            Self::Tampered => 9,
            Self::Interrupted => 130,
        }
    }
}

/// An error with its exit code and advice.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) what: String,
    pub(crate) help: Option<String>,
    /// The server's stable code, where the server has refused.
    pub(crate) code: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), help: None, code: None }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

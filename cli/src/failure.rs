//! How a command can fail, and the exit code that tells scripts which way it was.

use std::time::Duration;

/// A command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The flags do not make sense together. Exit code 2.
    #[error("{reason}")]
    Usage {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// No server could be reached. Exit code 3.
    #[error("cannot connect to any server:\n{}", attempts.join("\n"))]
    Connect {
        /// One line for each server: its address, and why not.
        attempts: Vec<String>,
    },
    /// It took too long. Exit code 4.
    #[error("timed out after {} s: {what}", after.as_secs())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// Anything else. Exit code 1.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Failure {
    /// 1, 2, 3 or 4.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage { .. } => 2,
            Self::Connect { .. } => 3,
            Self::TimedOut { .. } => 4,
        }
    }

    /// The same failure of a write whose outcome is not known.
    #[must_use]
    pub(crate) fn with_unclear_outcome(self) -> Self {
        const NOTE: &str = "a server may have carried it out before it stopped answering: see 'ringfence policy get'";
        match self {
            Self::Usage { reason } => Self::Usage { reason },
            Self::Connect { mut attempts } => {
                attempts.push(NOTE.to_owned());
                Self::Connect { attempts }
            }
            Self::TimedOut { what, after } => Self::TimedOut { what: format!("{what}\n{NOTE}"), after },
            Self::Failed(error) => Self::Failed(anyhow::anyhow!("{error:#}\n{NOTE}")),
        }
    }
}

//! How a command of `kwscale` ends: its exit code and, when it fails, one message.

use std::fmt;
use std::io;
use std::path::Path;

use kwdb_scale_core::ports::{PortError, PortErrorKind};
use serde_json::Value;

/// The exit codes of `kwscale`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// What was asked for is true.
    Done = 0,
    /// A failure that none of the others names.
    Failed = 1,
    /// Wrong usage; a file or key that is missing or malformed.
    Usage = 2,
    /// Refused by a check, or the cluster cannot be read.
    Refused = 3,
    /// Stopped on the way; `kwscale resume` goes on.
    Stopped = 4,
    /// Stopped on the way; a person has to look first.
    NeedsPerson = 5,
}

impl Exit {
    /// The word for it in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
            Self::NeedsPerson => "needs_person",
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// One message that names the input, the reason and, where known, the cure.
    pub message: String,
    /// More for a reader of JSON.
    pub details: Option<Value>,
}

impl Failure {
    /// A failure.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), details: None }
    }

    /// Wrong usage, or a file that is missing or malformed.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A file of the command line that cannot be read.
    pub fn unreadable(what: &str, path: &Path, error: &io::Error) -> Self {
        let shown = path.display();
        Self::usage(format!(
            "{what} {shown} cannot be read: {error}; name a file that is there and that you may read"
        ))
    }

    /// A failure that none of the other codes names.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code that fits an error of a port.
pub fn exit_of(kind: PortErrorKind) -> Exit {
    use PortErrorKind as Kind;
    match kind {
        Kind::Config | Kind::NotFound => Exit::Usage,
        Kind::Unreachable
        | Kind::Deadline
        | Kind::ConnectionLost
        | Kind::Tls
        | Kind::Authentication
        | Kind::Denied
        | Kind::NotInitialised
        | Kind::ShuttingDown
        | Kind::UnknownNode
        | Kind::SingleReplica
        | Kind::Upgrading
        | Kind::Licence => Exit::Refused,
        _ => Exit::Failed,
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        Self::new(exit_of(error.kind()), error.chain())
    }
}

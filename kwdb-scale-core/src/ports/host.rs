//! Running commands and moving files on a named host.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::PortError;
use crate::topology::{Address, HostName};

/// A command line: argv, never a shell text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Added to the environment, from which every `KWBASE_*` variable is cleared first and in which `LC_ALL` is
    /// `C`.
    pub env: BTreeMap<String, String>,
    /// Bytes for standard input; `None` is an empty input (`/dev/null`).
    pub stdin: Option<Vec<u8>>,
    /// After so long the command (and its process group) is ended and the call fails with
    /// [`Deadline`](super::PortErrorKind::Deadline).
    pub deadline: Duration,
    /// Bytes kept of each of stdout and stderr; the rest is read, dropped and flagged as truncated.
    pub output_cap: usize,
}

impl Command {
    /// A command with an empty input, a deadline of 30 s and 4 MiB of output.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            stdin: None,
            deadline: Duration::from_secs(30),
            output_cap: 4 << 20,
        }
    }

    /// The same with another deadline.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CommandEnd {
    /// With an exit code.
    Exit(i32),
    /// By a signal.
    Signal(i32),
}

impl CommandEnd {
    /// Exit code zero.
    pub fn success(self) -> bool {
        self == Self::Exit(0)
    }
}

impl fmt::Display for CommandEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What a command left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandOutput {
    /// How it ended.
    pub end: CommandEnd,
    /// Standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, invalid UTF-8 replaced.
    pub stderr: String,
    /// Whether either was cut at the cap.
    pub truncated: bool,
}

/// A command that outlives the caller: its own session, standard input empty, output appended to a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Detached {
    /// Program, arguments and environment; `stdin`, `deadline` and `output_cap` of it are not used.
    pub command: Command,
    /// Absolute path of the file that takes stdout and stderr; made with mode 0600 when absent.
    pub output_file: String,
    /// How long to wait for it to end by itself.
    pub wait: Duration,
}

/// What became of a detached command within its wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spawned {
    /// It ended.
    Ended(CommandEnd),
    /// It still runs, with this process id. It was not touched.
    Running(u32),
}

/// Whether something listens at an address.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// A connection was accepted.
    Open,
    /// It was refused: nothing listens.
    Closed,
    /// No answer in time: unknown.
    NoAnswer,
}

/// Runs commands on named hosts. A lost connection is its own error kind, told apart from a failed command.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait HostTransport: Debug + Send + Sync {
    /// Makes ready what a command needs, such as a connection, so that the next one takes no longer than itself. May be
    /// repeated. Where nothing is to be made ready this does nothing; wrappers pass it on.
    ///
    /// Fails as [`run`](Self::run) does before anything runs.
    async fn connect(&self, _host: &HostName) -> Result<(), PortError> {
        Ok(())
    }

    /// Runs a command to its end. A non-zero exit is `Ok`. Dropping the future ends the command.
    ///
    /// Fails with `NotFound` when the program does not exist, `Config` when the host is not known.
    async fn run(&self, host: &HostName, command: &Command) -> Result<CommandOutput, PortError>;

    /// Starts a command that outlives the caller and waits a while for it to end.
    ///
    /// Neither dropping the future, nor the wait, nor the caller's death (nor its Ctrl-C) ends the command.
    async fn spawn(&self, host: &HostName, detached: &Detached) -> Result<Spawned, PortError>;

    /// Writes a file atomically (temporary name, sync, rename) with the mode bits given. Durable when `Ok`; may be
    /// repeated.
    ///
    /// Replaces a regular file, or a link to one. Anything else that is there (a directory, a device, a named pipe, a
    /// socket, a link to one of them) stays, and is `Malformed`.
    async fn put(&self, host: &HostName, path: &str, content: &[u8], mode: u32) -> Result<(), PortError>;

    /// Reads at most `max` bytes of a file; a longer one is an error (`Malformed`), an absent one `NotFound`.
    async fn get(&self, host: &HostName, path: &str, max: usize) -> Result<Vec<u8>, PortError>;

    /// Tries to connect from `host` to `address`.
    async fn probe(
        &self,
        host: &HostName,
        address: &Address,
        deadline: Duration,
    ) -> Result<PortState, PortError>;
}

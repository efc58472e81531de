//! The one error of the ports.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a caller can decide by.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PortErrorKind {
    /// Nobody answers there (refused, no route, name not found). Nothing was done.
    Unreachable,
    /// The answer did not come in time. The act may or may not have been done.
    Deadline,
    /// The connection was lost in the middle. The act may or may not have been done.
    ConnectionLost,
    /// TLS failed: wrong CA, wrong name, a plaintext server where TLS is demanded, or the reverse.
    Tls,
    /// The credentials were not accepted.
    Authentication,
    /// The user lacks a right (such as the admin role).
    Denied,
    /// The cluster was not initialised yet.
    NotInitialised,
    /// The node is draining or shutting down.
    ShuttingDown,
    /// The node id is not in the liveness table. Other ids of the same call may have been marked.
    UnknownNode,
    /// The cluster runs in single-replica mode, in which nodes cannot be decommissioned.
    SingleReplica,
    /// A node of the cluster is being upgraded.
    Upgrading,
    /// The release does not support this without a licence (before 2.2.1).
    Licence,
    /// A command ended with a failure that is none of the above.
    CommandFailed,
    /// The program or file is not there or not usable.
    NotFound,
    /// The answer could not be understood.
    Malformed,
    /// This implementation cannot do that.
    Unsupported,
    /// The configuration given does not make sense.
    Config,
    /// Anything else.
    Other,
}

impl PortErrorKind {
    /// Whether the act may have been done although an error came back.
    pub fn may_have_been_done(self) -> bool {
        matches!(self, Self::Deadline | Self::ConnectionLost | Self::UnknownNode | Self::Other)
    }

    /// Whether trying the same again, elsewhere or later, can help.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Deadline | Self::ConnectionLost | Self::ShuttingDown)
    }
}

/// An error of a port: a kind to decide by and one line to read; the cause is in [`Error::source`]. A clone has the same
/// cause.
#[derive(Clone, Debug)]
pub struct PortError {
    kind: PortErrorKind,
    message: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl PortError {
    /// An error of `kind`; `message` is one line that names the input, the reason and, where known, the cure.
    pub fn new(kind: PortErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// What to decide by.
    pub fn kind(&self) -> PortErrorKind {
        self.kind
    }

    /// This error and all its causes on one line, joined by `: `.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for PortError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

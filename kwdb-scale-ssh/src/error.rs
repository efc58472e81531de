//! Errors of this crate, and those of russh made into the ports' one error.

use std::error::Error;
use std::{fmt, io};

use kwdb_scale_core::ports::{PortError, PortErrorKind};

use crate::connection::NotConnected;

pub(crate) fn config(message: impl Into<String>) -> PortError {
    PortError::new(PortErrorKind::Config, message)
}

/// An error with which nothing was done on the host.
pub(crate) fn unreachable(message: impl Into<String>) -> PortError {
    PortError::new(PortErrorKind::Unreachable, message)
}

/// Runs file work and key derivation on the runtime's blocking threads.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, PortError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, PortError> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
        Err(PortError::new(PortErrorKind::Other, "a background task was ended before it was done")
            .with_source(e))
    })
}

/// Makes the error of a local file that the configuration names.
pub(crate) fn local_file(what: impl Into<String>, error: io::Error) -> PortError {
    PortError::new(local_file_kind(&error), what).with_source(error)
}

/// Its kind.
pub(crate) fn local_file_kind(error: &io::Error) -> PortErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => PortErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => PortErrorKind::Denied,
        _ => PortErrorKind::Config,
    }
}

/// What is wrong, where a caller may have to know more than the kind tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SshFault {
    /// No host of the ssh_config can be resolved: `ssh` cannot be run, does not end, or does not take the file.
    SshConfig,
    /// A key file is encrypted and no passphrase was given, or the one that was given does not open it.
    Passphrase,
}

impl SshFault {
    /// That of an error of this crate, or of what caused it.
    pub fn of(error: &PortError) -> Option<Self> {
        let mut next: Option<&(dyn Error + 'static)> = error.source();
        while let Some(cause) = next {
            if let Some(marked) = cause.downcast_ref::<Marked>() {
                return Some(marked.fault);
            }
            next = cause.source();
        }
        None
    }

    /// A cause that reads as before, and by which the fault is known.
    pub(crate) fn caused_by(self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Marked {
        Marked { fault: self, cause: cause.into() }
    }
}

/// A cause with its fault.
#[derive(Debug)]
pub(crate) struct Marked {
    fault: SshFault,
    cause: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl Error for Marked {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

/// The error that russh hands through from our side of a handshake: russh's own, or a refusal of the host's key.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    Ssh(russh::Error),
    Refused(PortError),
}

impl From<russh::Error> for HandshakeError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl HandshakeError {
    /// Whether the server closed the connection without a word of the protocol against it, as sshd does when too many
    /// are logging in.
    fn turned_away(&self) -> bool {
        match self {
            Self::Ssh(russh::Error::Disconnect) => true,
            Self::Ssh(russh::Error::IO(e)) => matches!(
                e.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
            ),
            _ => false,
        }
    }

    /// Nothing was done on the host, whatever happened.
    pub(crate) fn into_not_connected(self, host: &str) -> NotConnected {
        if self.turned_away() {
            return NotConnected::TurnedAway(unreachable(format!(
                "'{host}' closes the connection before the SSH handshake is done: too many may be logging in there \
                 (MaxStartups in its sshd_config), or it does not take this client's address"
            )));
        }
        NotConnected::Failed(match self {
            Self::Refused(error) => error,
            Self::Ssh(error @ russh::Error::NoCommonAlgo { .. }) => PortError::new(
                PortErrorKind::Unsupported,
                format!(
                    "'{host}' and this program have no algorithm in common (only modern ones are offered): \
                     update its SSH server"
                ),
            )
            .with_source(error),
            Self::Ssh(error @ russh::Error::WrongServerSig) => PortError::new(
                PortErrorKind::Authentication,
                format!("'{host}' could not prove that it holds its host key: see that nobody listens in, or mend its SSH server"),
            )
            .with_source(error),
            Self::Ssh(error) => {
                unreachable(format!("the SSH handshake with '{host}' failed")).with_source(error)
            }
        })
    }
}

//! From the operating system's errors to the ports' one error.

use std::io::{self, ErrorKind};

use kwdb_scale_core::ports::{PortError, PortErrorKind};

/// Runs file and lock work on the runtime's blocking threads. The work goes on to its end when the future is dropped.
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

/// Makes the error of a file operation; `what` says what was tried on which path.
pub(crate) fn file_error(what: impl Into<String>, error: io::Error) -> PortError {
    let kind = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => PortErrorKind::NotFound,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => PortErrorKind::Denied,
        ErrorKind::InvalidInput | ErrorKind::InvalidFilename | ErrorKind::IsADirectory => {
            PortErrorKind::Config
        }
        _ => PortErrorKind::Other,
    };
    PortError::new(kind, what).with_source(error)
}

/// Makes the error of a program that could not be started: nothing was done, whatever the kind.
pub(crate) fn start_error(program: &str, error: io::Error) -> PortError {
    let (kind, why) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => (
            PortErrorKind::NotFound,
            "it does not exist (or the interpreter that its first line names does not)",
        ),
        ErrorKind::PermissionDenied => (PortErrorKind::NotFound, "it is not an executable file"),
        ErrorKind::InvalidInput => (PortErrorKind::Config, "an argument or a variable holds a NUL byte"),
        ErrorKind::ArgumentListTooLong => (PortErrorKind::Config, "its arguments are too long"),
        // ENOEXEC has no stable kind of its own.
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            (PortErrorKind::NotFound, "it is not a program of this machine")
        }
        _ => (PortErrorKind::CommandFailed, "the operating system refused"),
    };
    PortError::new(kind, format!("'{program}' could not be started: {why}")).with_source(error)
}

//! What every started program has in common: its argv, its environment and the retry of a busy file.

use std::io;
use std::process::Command as StdCommand;
use std::time::Duration;

use kwdb_scale_core::ports::{Command, CommandEnd, PortError, PortErrorKind};

/// How often and how long apart a "text file busy" is tried again. A file that was just written can be busy for a
/// moment because a process forked in that moment by another thread still holds the descriptor.
pub(crate) const BUSY_TRIES: u32 = 50;
/// See [`BUSY_TRIES`].
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// The program's name, for messages: never an argument, which could hold anything.
pub(crate) fn program(command: &Command) -> Result<&str, PortError> {
    match command.argv.first() {
        Some(program) if !program.is_empty() => Ok(program),
        _ => Err(PortError::new(PortErrorKind::Config, "a command line without a program")),
    }
}

/// The command with its arguments and its environment; descriptors are the caller's matter.
pub(crate) fn prepare(command: &Command) -> Result<StdCommand, PortError> {
    let mut std = StdCommand::new(program(command)?);
    std.args(command.argv.iter().skip(1));
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"KWBASE_") {
            std.env_remove(name);
        }
    }
    std.env("LC_ALL", "C");
    std.envs(&command.env);
    Ok(std)
}

/// Whether starting failed only because the program's file was still open for writing somewhere.
pub(crate) fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ExecutableFileBusy
}

/// Tells an exit from a signal.
pub(crate) fn end_of(status: std::process::ExitStatus) -> CommandEnd {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => CommandEnd::Exit(code),
        (None, Some(signal)) => CommandEnd::Signal(signal),
        // A stopped or continued process is never reported by a plain wait; should it be, it is not a success.
        (None, None) => CommandEnd::Exit(-1),
    }
}

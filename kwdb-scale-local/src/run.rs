//! Running a command to its end: pipes, cap, deadline and the end of its whole process group.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use kwdb_scale_core::ports::{Command, CommandOutput, PortError, PortErrorKind};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::error::start_error;
use crate::launch::{BUSY_PAUSE, BUSY_TRIES, end_of, is_busy, prepare, program};

/// Between the polite signal and the one that cannot be refused.
const TERM_GRACE: Duration = Duration::from_secs(1);
/// For a killed process to be gone; only one stuck in the kernel takes longer.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// For the pipes to reach their end once the command itself has ended.
const PIPE_GRACE: Duration = Duration::from_secs(2);

pub(crate) async fn run(command: &Command) -> Result<CommandOutput, PortError> {
    let group = Group(launch(command).await?);
    // A task of its own ends the group politely even when this future is dropped: then `caller` is, too.
    let (caller, gone) = oneshot::channel();
    let task = tokio::spawn(supervise(group, command.clone(), gone));
    let result = task.await;
    drop(caller);
    result.unwrap_or_else(|e| {
        Err(PortError::new(PortErrorKind::Other, "the command was ended because the runtime shut down")
            .with_source(e))
    })
}

async fn launch(command: &Command) -> Result<Child, PortError> {
    let mut tries = 0;
    loop {
        let mut tokio_command = tokio::process::Command::from(prepare(command)?);
        tokio_command
            .stdin(if command.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        match tokio_command.spawn() {
            Ok(child) => return Ok(child),
            Err(e) if is_busy(&e) && tries < BUSY_TRIES => tries += 1,
            Err(e) => return Err(start_error(program(command)?, e)),
        }
        sleep(BUSY_PAUSE).await;
    }
}

enum Why {
    Ended(io::Result<std::process::ExitStatus>),
    Deadline,
    Dropped,
}

async fn supervise(
    mut group: Group,
    command: Command,
    mut gone: oneshot::Receiver<()>,
) -> Result<CommandOutput, PortError> {
    let program = program(&command)?;
    let mut deadline = pin!(sleep(command.deadline));
    let (mut out, mut err) = (Capture::new(command.output_cap), Capture::new(command.output_cap));
    let (out_pipe, err_pipe, in_pipe) = (group.0.stdout.take(), group.0.stderr.take(), group.0.stdin.take());
    let why = {
        let mut read = pin!(async { tokio::join!(out.fill(out_pipe), err.fill(err_pipe)) });
        let mut write = pin!(feed(in_pipe, command.stdin.as_deref().unwrap_or_default()));
        let (mut all_read, mut all_written) = (false, false);
        let why = loop {
            tokio::select! {
                status = group.0.wait() => break Why::Ended(status),
                _ = &mut read, if !all_read => all_read = true,
                () = &mut write, if !all_written => all_written = true,
                () = &mut deadline => break Why::Deadline,
                _ = &mut gone => break Why::Dropped,
            }
        };
        match why {
            // A descendant may hold the pipes open for ever. What the command wrote before it ended is in them by now.
            Why::Ended(_) if !all_read => drop(timeout(PIPE_GRACE, &mut read).await),
            Why::Ended(_) => {}
            // Read on meanwhile: what is written after the polite signal must not fail on a closed pipe.
            Why::Deadline | Why::Dropped => {
                let reading = async {
                    if !all_read {
                        read.await;
                    }
                    pending::<()>().await;
                };
                tokio::select! {
                    () = group.end() => {}
                    () = reading => {}
                }
            }
        }
        why
    };
    match why {
        Why::Ended(Ok(status)) => {
            let end = end_of(status);
            tracing::debug!(program, %end, "command ended");
            let truncated = out.incomplete() || err.incomplete();
            Ok(CommandOutput { end, stdout: out.text(), stderr: err.text(), truncated })
        }
        Why::Ended(Err(e)) => {
            Err(PortError::new(PortErrorKind::Other, format!("how '{program}' ended cannot be told"))
                .with_source(e))
        }
        Why::Deadline => {
            tracing::debug!(program, deadline = ?command.deadline, "command ended at its deadline");
            Err(PortError::new(
                PortErrorKind::Deadline,
                format!(
                    "'{program}' had not come back after {:?}; it was ended with the processes of its group",
                    command.deadline
                ),
            ))
        }
        Why::Dropped => {
            tracing::debug!(program, "command ended because its caller went away");
            Err(PortError::new(PortErrorKind::Other, format!("the caller of '{program}' went away")))
        }
    }
}

/// Writes everything and closes. A command that does not read its input to the end closes the pipe early: its exit
/// says whether that is a failure, so an error here is none.
async fn feed(pipe: Option<ChildStdin>, bytes: &[u8]) {
    if let Some(mut pipe) = pipe
        && let Err(e) = pipe.write_all(bytes).await
    {
        tracing::debug!(error = %e, "standard input was not read to its end");
    }
}

/// The command and whatever it started and left in its group. Ends the group when dropped while the command runs
/// (which happens only when the runtime shuts down).
struct Group(Child);

impl Group {
    fn signal(&self, id: Option<u32>, signal: Signal) {
        let pid = id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Fails only when nobody is left.
            let _ = kill_process_group(pid, signal);
        }
    }

    async fn end(&mut self) {
        // Kept because the id is gone once the leader is reaped, while others of its group may still be there. The
        // number stays theirs for as long as one of them lives.
        let id = self.0.id();
        self.signal(id, Signal::TERM);
        let _ = timeout(TERM_GRACE, self.0.wait()).await;
        self.signal(id, Signal::KILL);
        let _ = timeout(KILL_GRACE, self.0.wait()).await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(self.0.id(), Signal::KILL);
    }
}

/// What is kept of one output.
struct Capture {
    kept: Vec<u8>,
    cap: usize,
    cut: bool,
    ended: bool,
}

impl Capture {
    fn new(cap: usize) -> Self {
        Self { kept: Vec::new(), cap, cut: false, ended: false }
    }

    /// Reads to the end, keeps the first bytes and drops the rest, so that the command is never blocked.
    async fn fill(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else { return };
        let mut buffer = vec![0; 16 << 10];
        loop {
            match pipe.read(&mut buffer).await {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    let fresh = buffer.get(..n).unwrap_or_default();
                    let keep = fresh.len().min(self.cap.saturating_sub(self.kept.len()));
                    self.kept.extend_from_slice(fresh.get(..keep).unwrap_or_default());
                    self.cut |= keep < fresh.len();
                    continue;
                }
                Err(e) => tracing::debug!(error = %e, "an output could not be read to its end"),
            }
            return;
        }
    }

    /// Whether something may be missing.
    fn incomplete(&self) -> bool {
        self.cut || !self.ended
    }

    fn text(self) -> String {
        String::from_utf8(self.kept).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }
}

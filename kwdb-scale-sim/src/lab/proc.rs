//! Processes by pid: found by the files that they leave, checked before they are touched, never looked up by name.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const POLL: Duration = Duration::from_millis(10);

/// A process that runs and whose command line holds what was looked for.
#[derive(Debug)]
pub(super) struct Process {
    /// Stands for this process and for no later one with its number.
    handle: rustix::fd::OwnedFd,
}

impl Process {
    /// The process whose number a file holds, when one of its arguments is `marker`.
    pub(super) fn of_pid_file(path: &Path, marker: &str) -> Option<Self> {
        Self::find(fs::read_to_string(path).ok()?.trim().parse().ok()?, marker)
    }

    /// The process of that number, when one of its arguments is `marker`.
    pub(super) fn find(pid: u32, marker: &str) -> Option<Self> {
        let process = Self::open(pid)?;
        // Read after the handle was had, so that both are of one process.
        arguments(pid).iter().any(|a| a == marker).then_some(process)
    }

    /// The process of that number, whatever it is.
    pub(super) fn open(pid: u32) -> Option<Self> {
        let handle = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
        Some(Self { handle })
    }

    /// Sends a signal; nothing happens when the process has ended.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// Whether it ends within the time.
    pub(super) fn ends_within(&self, time: Duration) -> bool {
        // The handle is readable once the process has ended and its ports and locks are free.
        let time = Timespec::try_from(time).ok();
        poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], time.as_ref()).is_ok_and(|ready| ready > 0)
    }
}

/// The arguments of a process; none for a zombie, or one that has gone.
pub(super) fn arguments(pid: u32) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = text.strip_suffix(b"\0").unwrap_or(&text);
    text.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
}

/// What a command left.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a command with an empty input; ends it at the deadline.
pub(super) fn run(command: &mut Command, deadline: Duration) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let reader = |stream: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stream) = stream {
                // What was read before an error is still of use.
                let _ = stream.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = reader(child.stdout.take().map(|s| Box::new(s) as _));
    let stderr = reader(child.stderr.take().map(|s| Box::new(s) as _));
    let end = Instant::now() + deadline;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end within {deadline:?}")));
        }
        thread::sleep(POLL);
    };
    let text = |thread: thread::JoinHandle<String>| thread.join().unwrap_or_default();
    Ok(Output { code: status.code(), stdout: text(stdout), stderr: text(stderr) })
}

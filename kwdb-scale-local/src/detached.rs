//! Starting a command that outlives its caller.
//!
//! One thread per started command opens the output file, starts the command, waits for its end and reaps it. It knows
//! nothing of the future that asked for it nor of any runtime, so neither can end the command or leave a zombie.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::thread;

use kwdb_scale_core::ports::{Command, Detached, PortError, PortErrorKind, Spawned};
use process_wrap::std::{ChildWrapper, CommandWrap, ProcessSession};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::error::{file_error, start_error};
use crate::launch::{BUSY_PAUSE, BUSY_TRIES, end_of, is_busy, prepare, program};

pub(crate) async fn spawn(detached: &Detached) -> Result<Spawned, PortError> {
    let program = program(&detached.command)?.to_owned();
    if !Path::new(&detached.output_file).is_absolute() {
        let message =
            format!("the output file '{}' of '{program}' is not an absolute path", detached.output_file);
        return Err(PortError::new(PortErrorKind::Config, message));
    }
    let (started, on_start) = oneshot::channel();
    let (ended, on_end) = oneshot::channel();
    let (command, output_file) = (detached.command.clone(), detached.output_file.clone());
    thread::Builder::new()
        .name("kwdb-scale-wait".into())
        .spawn(move || keep(&command, &output_file, started, ended))
        .map_err(|e| start_error(&program, e))?;

    let lost = |pid: Option<u32>| {
        let pid = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
        PortError::new(PortErrorKind::Other, format!("what became of '{program}'{pid} cannot be told"))
    };
    let pid = on_start.await.map_err(|_| lost(None))??;
    match timeout(detached.wait, on_end).await {
        Err(_) => Ok(Spawned::Running(pid)),
        Ok(Ok(Ok(status))) => Ok(Spawned::Ended(end_of(status))),
        Ok(Ok(Err(e))) => Err(lost(Some(pid)).with_source(e)),
        Ok(Err(_)) => Err(lost(Some(pid))),
    }
}

fn keep(
    command: &Command,
    output_file: &str,
    started: oneshot::Sender<Result<u32, PortError>>,
    ended: oneshot::Sender<io::Result<ExitStatus>>,
) {
    match launch(command, output_file) {
        Err(e) => {
            let _ = started.send(Err(e));
        }
        Ok(mut child) => {
            let _ = started.send(Ok(child.id()));
            // The inner child is the command alone. The wrapper would also wait for its descendants where they become
            // ours to wait for (a caller that is process 1 of a container), such as a node that went to the background.
            let _ = ended.send(child.inner_mut().wait());
        }
    }
}

fn launch(command: &Command, output_file: &str) -> Result<Box<dyn ChildWrapper>, PortError> {
    let output = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(output_file)
        .map_err(|e| file_error(format!("the output file '{output_file}' cannot be opened"), e))?;
    let mut tries = 0;
    loop {
        let std = prepare(command)?;
        match launch_once(std, &output) {
            Ok(child) => return Ok(child),
            Err(e) if is_busy(&e) && tries < BUSY_TRIES => tries += 1,
            Err(e) => return Err(start_error(program(command)?, e)),
        }
        thread::sleep(BUSY_PAUSE);
    }
}

fn launch_once(mut std: std::process::Command, output: &File) -> io::Result<Box<dyn ChildWrapper>> {
    std.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    // Its own session: no terminal's Ctrl-C or hang-up reaches it.
    CommandWrap::from(std).wrap(ProcessSession).spawn()
}

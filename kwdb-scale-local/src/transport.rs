//! The host transport of this machine.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use kwdb_scale_core::ports::{
    Command, CommandOutput, Detached, HostTransport, PortError, PortErrorKind, PortState, Spawned,
    async_trait,
};
use kwdb_scale_core::topology::{Address, HostName};

use crate::error::blocking;
use crate::{detached, files, probe, run};

/// Runs commands, moves files and probes ports on this machine, under one or several host names.
///
/// * A command of [`run`](HostTransport::run) is the leader of its own process group. At the deadline, or when the
///   future is dropped, the group gets SIGTERM and a second later SIGKILL; when the runtime shuts down it gets
///   SIGKILL at once. Processes that left the group by themselves are not followed.
/// * A command that ended but left a process that holds its output open makes the call wait two seconds more; then
///   what was read is returned, flagged as truncated, and the pipes are closed. That process is left alone, but a
///   further write of it fails: what is meant to stay is started with [`spawn`](HostTransport::spawn).
/// * A command of `spawn` leads its own session, so that neither the terminal's Ctrl-C nor its hang-up reaches it,
///   and is reaped in the background for as long as this process lives.
/// * [`put`](HostTransport::put) needs the directory to exist and replaces a symbolic link to a file by the file.
///   Relative paths are taken from the caller's working directory.
/// * [`probe`](HostTransport::probe) fails with [`Unreachable`](PortErrorKind::Unreachable) when the name cannot be
///   resolved, and answers [`NoAnswer`](PortState::NoAnswer) for a network error other than a refusal.
///
/// If this process is killed, commands of `run` go on until they end by themselves.
#[derive(Clone, Debug)]
pub struct LocalTransport {
    /// `None`: any.
    known: Option<BTreeSet<HostName>>,
}

impl LocalTransport {
    /// The names in `hosts` all mean this machine; any other is refused with [`Config`](PortErrorKind::Config).
    pub fn new(hosts: impl IntoIterator<Item = HostName>) -> Self {
        Self { known: Some(hosts.into_iter().collect()) }
    }

    /// Every name means this machine.
    pub fn any_host() -> Self {
        Self { known: None }
    }

    fn check(&self, host: &HostName) -> Result<(), PortError> {
        match &self.known {
            Some(known) if !known.contains(host) => {
                let names: Vec<&str> = known.iter().map(HostName::as_str).collect();
                let message = format!(
                    "host '{host}' is not one of this transport's ({}): correct the name or add the host",
                    names.join(", ")
                );
                Err(PortError::new(PortErrorKind::Config, message))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl HostTransport for LocalTransport {
    async fn run(&self, host: &HostName, command: &Command) -> Result<CommandOutput, PortError> {
        self.check(host)?;
        run::run(command).await
    }

    async fn spawn(&self, host: &HostName, detached: &Detached) -> Result<Spawned, PortError> {
        self.check(host)?;
        detached::spawn(detached).await
    }

    async fn put(&self, host: &HostName, path: &str, content: &[u8], mode: u32) -> Result<(), PortError> {
        self.check(host)?;
        let (path, content) = (PathBuf::from(path), content.to_vec());
        blocking(move || files::put(&path, &content, mode)).await
    }

    async fn get(&self, host: &HostName, path: &str, max: usize) -> Result<Vec<u8>, PortError> {
        self.check(host)?;
        let path = PathBuf::from(path);
        blocking(move || files::get(&path, max)).await
    }

    async fn probe(
        &self,
        host: &HostName,
        address: &Address,
        deadline: Duration,
    ) -> Result<PortState, PortError> {
        self.check(host)?;
        probe::probe(address, deadline).await
    }
}

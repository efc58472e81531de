//! The host transport over SSH.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kwdb_scale_core::ports::{
    Command, CommandOutput, Detached, HostTransport, PortError, PortErrorKind, PortState, Spawned,
    async_trait,
};
use kwdb_scale_core::topology::{Address, HostName};

use crate::config::{Answer, SshHost, SshLimits};
use crate::error::config;
use crate::pool::Pool;
use crate::{detached, files, probe, run};

/// Runs commands, moves files and probes ports on hosts that are reached over SSH. Clones share their connections,
/// which close when the last clone is gone.
///
/// * A deadline of [`run`](HostTransport::run) counts from the call, connecting included. When it passes, or the future
///   is dropped, the command's process group gets SIGTERM and a second later SIGKILL, through a second session. In case
///   the connection is lost, a small watcher on the host does the same a few seconds after the deadline.
///   Processes that left the group by themselves are not followed.
/// * A command that ended but left a process that holds its output open makes the call wait two seconds more; then
///   what was read is returned, flagged as truncated. That process is left alone, but a further write of it fails:
///   what is meant to stay is started with [`spawn`](HostTransport::spawn).
/// * A command of `spawn` is what the SSH server started, so that it leads its own session and its end is told exactly.
///   When the connection is lost during the wait, that is an error
///   ([`ConnectionLost`](PortErrorKind::ConnectionLost)) that names the process, which stays. A host that ends the
///   processes of users who logged out (`KillUserProcesses=yes` of systemd-logind) ends it, too.
/// * [`put`](HostTransport::put) needs the directory to exist and replaces a symbolic link to a file by the file.
///   Relative paths are taken from the home directory of the user. A transfer that takes longer than five minutes
///   fails.
/// * [`probe`](HostTransport::probe) asks the SSH server to connect (`direct-tcpip`) or, where that is not allowed,
///   the host's bash. It answers [`Closed`](PortState::Closed) only when it is told that the connection was refused,
///   and [`NoAnswer`](PortState::NoAnswer) for every other failure; it fails with
///   [`Unreachable`](PortErrorKind::Unreachable) when the host cannot resolve the name, and with
///   [`Unsupported`](PortErrorKind::Unsupported) when there is no bash either. Its deadline counts from when the host
///   is connected.
/// * Whatever login scripts write to the outputs before the command starts is left out.
/// * Exit codes 126 and 127 of a program that is there may also come from the shell that could not start it (a missing
///   interpreter, say); standard error then holds the shell's words.
///
/// If this process is killed, commands of `run` go on until they end by themselves or their watcher ends them.
#[derive(Clone)]
pub struct SshTransport {
    hosts: Arc<BTreeMap<HostName, SshHost>>,
    pool: Arc<Pool>,
}

impl fmt::Debug for SshTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshTransport").field("hosts", &self.hosts.keys()).finish_non_exhaustive()
    }
}

impl SshTransport {
    /// A transport to these hosts, with the default limits. Connects to nothing.
    ///
    /// Fails with [`Config`](PortErrorKind::Config) when a host cannot be reached as described (no way to log in, a
    /// fingerprint that is none, …); the message names it.
    pub fn new(hosts: impl IntoIterator<Item = (HostName, SshHost)>) -> Result<Self, PortError> {
        Self::with_limits(hosts, SshLimits::default())
    }

    /// The same with limits.
    pub fn with_limits(
        hosts: impl IntoIterator<Item = (HostName, SshHost)>,
        limits: SshLimits,
    ) -> Result<Self, PortError> {
        limits.check()?;
        let hosts: BTreeMap<HostName, SshHost> = hosts.into_iter().collect();
        for (name, host) in &hosts {
            host.check().map_err(|e| config(format!("host '{name}' cannot be used: {e}")).with_source(e))?;
        }
        Ok(Self { hosts: Arc::new(hosts), pool: Arc::new(Pool::new(limits)) })
    }

    /// Runs a command on a pseudo-terminal and answers its prompts: each answer is typed, with a line break, when its
    /// prompt appears after the one before. Otherwise as [`run`](HostTransport::run).
    ///
    /// The terminal does not echo, so that answers are not part of the output, in which stderr is one with stdout.
    /// Fails with [`Config`](PortErrorKind::Config), and runs nothing, when the command has bytes for its standard input, which
    /// is the terminal, or an answer or sudo's password holds a control character.
    pub async fn run_on_terminal(
        &self,
        host: &HostName,
        command: &Command,
        answers: Vec<Answer>,
    ) -> Result<CommandOutput, PortError> {
        if command.stdin.is_some() {
            return Err(config("a command on a terminal has no other standard input"));
        }
        let host = self.host(host)?;
        host.privilege.check_typed()?;
        answers.iter().try_for_each(Answer::check_typed)?;
        run::run(&self.pool, host, command, Some(answers)).await.map(Into::into)
    }

    /// As [`put`](HostTransport::put), and gives the file to `owner` (`user`, `user:group` or `:group`) before it
    /// takes its place. Fails with [`Denied`](PortErrorKind::Denied) when that is not allowed; nothing is left then.
    pub async fn put_owned(
        &self,
        host: &HostName,
        path: &str,
        content: &[u8],
        mode: u32,
        owner: &str,
    ) -> Result<(), PortError> {
        files::put(&self.pool, self.host(host)?, path, content, mode, Some(owner)).await
    }

    fn host(&self, name: &HostName) -> Result<&SshHost, PortError> {
        self.hosts.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.hosts.keys().map(HostName::as_str).collect();
            PortError::new(
                PortErrorKind::Config,
                format!(
                    "host '{name}' is not one of this transport's ({}): correct the name or add the host",
                    names.join(", ")
                ),
            )
        })
    }
}

#[async_trait]
impl HostTransport for SshTransport {
    async fn connect(&self, host: &HostName) -> Result<(), PortError> {
        self.pool.connection(self.host(host)?).await.map(drop)
    }

    async fn run(&self, host: &HostName, command: &Command) -> Result<CommandOutput, PortError> {
        run::run(&self.pool, self.host(host)?, command, None).await.map(Into::into)
    }

    async fn spawn(&self, host: &HostName, detached: &Detached) -> Result<Spawned, PortError> {
        detached::spawn(&self.pool, self.host(host)?, detached).await
    }

    async fn put(&self, host: &HostName, path: &str, content: &[u8], mode: u32) -> Result<(), PortError> {
        files::put(&self.pool, self.host(host)?, path, content, mode, None).await
    }

    async fn get(&self, host: &HostName, path: &str, max: usize) -> Result<Vec<u8>, PortError> {
        files::get(&self.pool, self.host(host)?, path, max).await
    }

    async fn probe(
        &self,
        host: &HostName,
        address: &Address,
        deadline: Duration,
    ) -> Result<PortState, PortError> {
        probe::probe(&self.pool, self.host(host)?, address, deadline).await
    }
}

#[cfg(test)]
mod tests {
    use kwdb_scale_core::secret::Secret;

    use super::*;
    use crate::config::{Agent, Privilege};
    use crate::host_keys::HostKeyPolicy;

    /// Nobody listens there: whoever went on would say so.
    fn transport(privilege: Privilege) -> Result<SshTransport, PortError> {
        let keys = HostKeyPolicy::Strict { files: vec!["/nonexistent/known_hosts".into()] };
        let host = SshHost::new("127.0.0.1", "ops", keys).port(1).login(Agent::at("/nonexistent/agent"));
        SshTransport::new([("n1".into(), host.privilege(privilege))])
    }

    /// A task of an embedder takes each of them. Compiling it is the test.
    #[test]
    fn every_call_can_be_a_task_of_its_own() {
        fn shared<T: Send + Sync + 'static>(_: &T) {}
        fn task<T: Send + 'static>(call: impl Future<Output = Result<T, PortError>> + Send + 'static) {
            drop(call);
        }
        let all = transport(Privilege::AsIs).unwrap();
        shared(&all);
        let (command, wait) = (Command::new(["true"]), Duration::ZERO);
        let detached = Detached { command: command.clone(), output_file: "/log".into(), wait };
        let (n1, terminal) = (HostName::from("n1"), command.clone());
        let clone = || (all.clone(), n1.clone());
        let (ssh, host) = clone();
        task(async move { ssh.connect(&host).await });
        let (ssh, host) = clone();
        task(async move { ssh.run(&host, &command).await });
        let (ssh, host) = clone();
        task(async move { ssh.run_on_terminal(&host, &terminal, Vec::new()).await });
        let (ssh, host) = clone();
        task(async move { ssh.spawn(&host, &detached).await });
        let (ssh, host) = clone();
        task(async move { ssh.put(&host, "/f", b"x", 0o600).await });
        let (ssh, host) = clone();
        task(async move { ssh.put_owned(&host, "/f", b"x", 0o600, "ops").await });
        let (ssh, host) = clone();
        task(async move { ssh.get(&host, "/f", 1).await });
        let (ssh, host) = clone();
        task(async move { ssh.probe(&host, &Address::from("h:1"), wait).await });
    }

    #[tokio::test]
    async fn what_a_terminal_would_not_take_is_refused_before_anything_is_sent() {
        let run = async |privilege: Privilege, answer: &str| {
            let answers = ["yes", answer].map(|text| Answer::new("Password:", Secret::new(text)));
            let ssh = transport(privilege).unwrap();
            ssh.run_on_terminal(&"n1".into(), &Command::new(["true"]), answers.into()).await.unwrap_err()
        };
        assert_eq!(run(Privilege::AsIs, "hunter2").await.kind(), PortErrorKind::Unreachable);
        let error = run(Privilege::AsIs, "hunter2\nyes").await;
        assert_eq!(error.kind(), PortErrorKind::Config);
        assert!(error.to_string().contains("'Password:' holds a line break"), "{error}");
        // A tab is a sign of a password to sudo, and not on a terminal.
        let password = |text: &str| Privilege::SudoPassword { user: None, password: Secret::new(text) };
        assert_eq!(run(password("hunter2"), "x").await.kind(), PortErrorKind::Unreachable);
        assert_eq!(run(password("hunter\u{3}"), "x").await.kind(), PortErrorKind::Config);
        let error = transport(password("hunter2\n")).unwrap_err().chain();
        assert!(error.starts_with("host 'n1' cannot be used") && error.contains("a line break"), "{error}");
    }
}

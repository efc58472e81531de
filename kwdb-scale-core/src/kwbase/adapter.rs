//! [`Kwbase`]: a [`HostTransport`] and the description of the hosts make [`DecommissionControl`] and
//! [`NodeLifecycle`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;

use super::certificates::Authority;
use super::command::{CommandError, CommandLine, StatusOptions, Wait};
use super::host::{HostError, KwbaseHost};
use super::{begun, clear, error, inspect, output, parse};
use crate::fact::Fact;
use crate::host_facts::probe::Also;
use crate::host_facts::read::{self, RoundTrip};
use crate::owner::{self, Owner};
use crate::ports::{
    BegunMark, BegunWork, ClearData, Clock, Command, CommandEnd, CommandOutput, DecommissionControl,
    DecommissionStatus, Detached, Gateway, HostFacts, HostTransport, NodeLifecycle, PortError, PortErrorKind,
    PortState, ProcessState, Spawned, StartNode, StartOutcome, StopNode,
};
use crate::topology::{Address, HostName, NodeId};
use crate::version::Version;

/// For a command that only looks.
pub(super) const LOOK: Duration = Duration::from_secs(30);
/// For one attempt to connect.
const PROBE: Duration = Duration::from_secs(3);
/// A start in the foreground never comes back: so long is waited for it to fail.
const FOREGROUND: Duration = Duration::from_secs(5);
/// Of a stop's deadline, kept for what follows the drain: kwbase waits 10 s for the process to end.
const AFTER_DRAIN: Duration = Duration::from_secs(15);
/// A start prints some hundred bytes; its output file holds only the last start.
const OUTPUT_MAX: usize = 1 << 20;
/// Lines of a failed start that are shown.
const OUTPUT_LINES: usize = 12;

/// Scaling with the kwbase command line, run through a [`HostTransport`].
///
/// Commands on the cluster run on the host of the gateway they go through. Where that host is not known, or has no
/// kwbase here, they run on the control host.
#[derive(Debug)]
pub struct Kwbase<H: HostTransport + ?Sized> {
    pub(super) transport: Arc<H>,
    hosts: BTreeMap<HostName, KwbaseHost>,
    control: Option<HostName>,
    clock: Option<Arc<dyn Clock>>,
    pub(super) authority: Option<Authority>,
}

impl<H: HostTransport + ?Sized> Clone for Kwbase<H> {
    fn clone(&self) -> Self {
        Self {
            transport: self.transport.clone(),
            hosts: self.hosts.clone(),
            control: self.control.clone(),
            clock: self.clock.clone(),
            authority: self.authority.clone(),
        }
    }
}

impl<H: HostTransport + ?Sized> Kwbase<H> {
    /// Takes the hosts in, each [validated](KwbaseHost::validate); no name may stand there twice.
    pub fn new(transport: Arc<H>, hosts: impl IntoIterator<Item = KwbaseHost>) -> Result<Self, HostError> {
        let mut map = BTreeMap::new();
        for host in hosts {
            host.validate()?;
            if let Some(twice) = map.insert(host.name.clone(), host) {
                return Err(HostError::twice(twice.name));
            }
        }
        Ok(Self { transport, hosts: map, control: None, clock: None, authority: None })
    }

    /// Names the host on which commands run when the gateway's is not known or has no kwbase.
    pub fn with_control_host(mut self, host: HostName) -> Result<Self, HostError> {
        if !self.hosts.contains_key(&host) {
            return Err(HostError {
                host,
                field: "control host".to_owned(),
                reason: "is not among the hosts".to_owned(),
                cure: "describe it like the others".to_owned(),
            });
        }
        self.control = Some(host);
        Ok(self)
    }

    /// Gives the operator's clock, with which those of the hosts are compared. Without it their offsets are unknown.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Names who issues certificates for hosts that join: without one, they must lie there.
    #[must_use]
    pub fn with_authority(mut self, authority: Authority) -> Self {
        self.authority = Some(authority);
        self
    }

    /// The description of a host.
    pub fn host(&self, name: &HostName) -> Option<&KwbaseHost> {
        self.hosts.get(name)
    }

    /// The transport.
    pub(crate) fn transport(&self) -> &Arc<H> {
        &self.transport
    }

    /// Says who owns the nodes of a host.
    pub(crate) fn set_owner(&mut self, host: &HostName, owner: Owner) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.owner = owner;
        }
    }

    /// The host whose node is known at an address.
    pub(crate) fn host_at(&self, address: &Address) -> Option<&KwbaseHost> {
        self.hosts.values().find(|h| h.is_own(address))
    }

    /// All rows of `node status --decommission` through a gateway.
    pub(crate) async fn status_rows(
        &self,
        via: &Gateway,
        deadline: Duration,
    ) -> Result<Vec<parse::StatusRow>, PortError> {
        let host = self.runner(via)?;
        let options = StatusOptions { decommission: true, ..StatusOptions::default() };
        let output = self.run(host, &host.node_status(&via.address, options)?, deadline).await?;
        Ok(parse::node_status(&output.stdout)?)
    }

    pub(crate) fn known(&self, name: &HostName) -> Result<&KwbaseHost, PortError> {
        let message = || format!("host {name} has no description of how it runs kwbase; add one");
        self.hosts.get(name).ok_or_else(|| PortError::new(PortErrorKind::Config, message()))
    }

    /// The host on which a command through `via` runs.
    pub(crate) fn runner(&self, via: &Gateway) -> Result<&KwbaseHost, PortError> {
        let named = via.host.iter().chain(&self.control).find_map(|h| self.hosts.get(h));
        named.ok_or_else(|| {
            let message =
                format!("no host with kwbase is known for {via}; describe its host, or name a control host");
            PortError::new(PortErrorKind::Config, message)
        })
    }

    async fn run(
        &self,
        host: &KwbaseHost,
        line: &CommandLine,
        deadline: Duration,
    ) -> Result<CommandOutput, PortError> {
        tracing::debug!(host = %host.name, command = %line, "run");
        let output = self.transport.run(&host.name, &line.command(deadline)).await?;
        let said = output::diagnostics(&output.stderr);
        for warning in &said.warnings {
            tracing::info!(host = %host.name, command = line.name(), %warning, "kwbase warns");
        }
        for text in &said.log {
            tracing::debug!(host = %host.name, command = line.name(), %text, "kwbase logs");
        }
        if !output.end.success() {
            return Err(error::classify(&host.name, line.name(), &output));
        }
        Ok(output)
    }

    async fn act(
        &self,
        host: &KwbaseHost,
        line: &CommandLine,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        let output = self.run(host, line, deadline).await?;
        let answer = parse::decommission(&output.stdout)?.last().to_vec();
        match nodes.iter().find(|n| !answer.iter().any(|s| s.node == **n)) {
            None => Ok(answer),
            Some(node) => {
                let message = format!("kwbase {} on {} answered without {node}", line.name(), host.name);
                Err(PortError::new(PortErrorKind::Malformed, message))
            }
        }
    }

    async fn build(&self, host: &KwbaseHost) -> Result<String, PortError> {
        let output = self.run(host, &host.version(), LOOK).await?;
        Ok(parse_version(&output.stdout)?)
    }

    async fn listening(&self, host: &KwbaseHost) -> Fact<Vec<Address>> {
        let mut open = Vec::new();
        let mut unclear = None;
        for address in host.listening_addresses() {
            match self.transport.probe(&host.name, &address, PROBE).await {
                Ok(PortState::Open) => open.push(address),
                Ok(PortState::Closed) => {}
                Ok(PortState::NoAnswer) => unclear = Some(format!("no answer from {address}")),
                Err(e) => unclear = Some(e.chain()),
            }
        }
        match unclear {
            // One that is taken is enough to know that the host is not free.
            Some(why) if open.is_empty() => Fact::Unknown(why),
            _ => Fact::Known(open),
        }
    }

    /// The host of a node that a service manager owns.
    fn owner_of(&self, node: &StopNode) -> Option<&KwbaseHost> {
        self.hosts.get(node.host.as_ref()?).filter(|h| !h.owner.is_quit())
    }

    /// Stops through the owner, guarded on the host itself.
    async fn stop_owned(&self, host: &KwbaseHost, node: &StopNode) -> Result<(), PortError> {
        let via = &node.via.address;
        let options = StatusOptions { decommission: true, node: Some(node.node), ..StatusOptions::default() };
        let guard = owner::Guard {
            node: node.node,
            address: &node.address,
            status: &host.node_status(via, options)?,
            count: &host.node_decommission(via, &[node.node], Wait::None)?,
            grace: drain_wait(node.deadline).as_secs(),
        };
        let output = self.script(host, owner::stop(&host.owner, &guard), node.deadline).await?;
        let report = owner::read_stop(&host.name, &host.owner, &output.stdout)?;
        tracing::debug!(host = %host.name, owner = %host.owner, was_down = report.was_down, "stopped");
        if let Some(policy) = report.kept {
            // Only podman below 5.1, without podman-restart.service.
            tracing::warn!(host = %host.name, owner = %host.owner, policy, "the engine cannot change the restart policy");
        }
        Ok(())
    }

    /// Starts through the owner, whose own command line must make a node join.
    async fn start_owned(&self, host: &KwbaseHost, node: &StartNode) -> Result<StartOutcome, PortError> {
        let owner = &host.owner;
        let look = (owner::start(owner, false, 0), host.env.clone());
        let found = owner::read_start(&host.name, owner, &self.script(host, look, LOOK).await?.stdout)?;
        owner::fits(host, &node.mode, &found.command)?;
        if found.pid.is_some_and(|pid| pid != 0) {
            let message =
                format!("{owner} on {} runs already; stop it first, or take another host", host.name);
            return Err(PortError::new(PortErrorKind::Config, message));
        }
        let settle = node.deadline.min(FOREGROUND).as_secs();
        let act = (owner::start(owner, true, settle), host.env.clone());
        let output = self.script(host, act, node.deadline.saturating_add(FOREGROUND)).await?;
        match owner::read_start(&host.name, owner, &output.stdout) {
            Ok(_) => Ok(StartOutcome::Started),
            Err(e) if e.kind() == PortErrorKind::CommandFailed => Ok(StartOutcome::Failed(e.to_string())),
            Err(e) => Err(e),
        }
    }

    /// Nothing listens at the node's address: does its owner agree? A host that does not answer changes nothing.
    async fn owner_says(&self, node: &StopNode) -> ProcessState {
        let Some(host) = self.owner_of(node) else { return ProcessState::Stopped };
        let look = (owner::start(&host.owner, false, 0), host.env.clone());
        let Ok(output) = self.script(host, look, LOOK).await else { return ProcessState::Stopped };
        match owner::read_start(&host.name, &host.owner, &output.stdout) {
            Ok(found) if found.pid.is_some_and(|pid| pid != 0) => ProcessState::Running,
            _ => ProcessState::Stopped,
        }
    }

    /// Looks on a host for processes: `what` and their ids when there are some.
    pub(crate) async fn goes_on(
        &self,
        host: &KwbaseHost,
        what: &str,
        groups: &begun::Groups,
    ) -> Result<Option<String>, PortError> {
        let output = self.transport.run(&host.name, &begun::command(host, groups).command(LOOK)).await?;
        let pids = begun::read(host, &output)?;
        let list: Vec<String> = pids.iter().map(u32::to_string).collect();
        let process = if pids.len() == 1 { "process" } else { "processes" };
        let (name, list) = (&host.name, list.join(", "));
        Ok((!pids.is_empty()).then(|| format!("{what} on host {name} ({process} {list})")))
    }

    /// The same on every host on which commands through one of the gateways may run. One that cannot be asked leaves it
    /// unknown, unless another shows it.
    async fn goes_on_through(
        &self,
        via: &[Gateway],
        what: &str,
        groups: &begun::Groups,
    ) -> Result<Option<String>, PortError> {
        let mut runners: BTreeMap<&HostName, &KwbaseHost> = BTreeMap::new();
        for gateway in via {
            let host = self.runner(gateway)?;
            runners.insert(&host.name, host);
        }
        let looks = runners.into_values().map(|host| self.goes_on(host, what, groups));
        first_found(join_all(looks).await)
    }

    /// Runs a script of ours on the host itself, outside of its `exec_prefix`.
    pub(crate) async fn script(
        &self,
        host: &KwbaseHost,
        (argv, env): (Vec<String>, BTreeMap<String, String>),
        deadline: Duration,
    ) -> Result<CommandOutput, PortError> {
        let mut command = Command::new(argv).deadline(deadline);
        command.env = env;
        let output = self.transport.run(&host.name, &command).await?;
        if output.end.success() {
            return Ok(output);
        }
        Err(error::classify(&host.name, "script", &output))
    }

    /// [`inspect`](NodeLifecycle::inspect), and what another script found on the machine meanwhile, in the same command.
    pub(crate) async fn inspect_also(
        &self,
        name: &HostName,
        also: Option<Also>,
    ) -> Result<(HostFacts, Fact<Vec<String>>), PortError> {
        let host = self.known(name)?;
        let key = self.authority.as_ref().and_then(|a| a.issuer.key_file());
        let key = key.filter(|(at, _)| *at == name).map(|(_, path)| path);
        let question = inspect::question(host, key, also);
        let now = || self.clock.as_ref().map(|clock| clock.now());
        if self.clock.is_some() {
            // A handshake and a login take longer than clocks may differ.
            self.transport.connect(name).await?;
        }
        let sent = now();
        let found = match self.run(host, &inspect::command(host, &question), LOOK).await {
            Ok(output) if output.truncated => read::nothing(&question, "the answer of the host was too long"),
            Ok(output) => {
                let trip = sent.zip(now()).map(|(sent, answered)| RoundTrip { sent, answered });
                read::read(&question, &output.stdout, &output.stderr, trip)
            }
            // The host answers, and only the look failed.
            Err(e) if matches!(e.kind(), PortErrorKind::CommandFailed | PortErrorKind::NotFound) => {
                read::nothing(&question, &e.chain())
            }
            Err(e) => return Err(e),
        };
        let told = found.also.clone();
        let mut facts = inspect::facts(host, found);
        // Only a machine without Linux's table of sockets is asked in another way. A prefix may lead into a container
        // with a network of its own, where a probe from outside would meet the engine's proxy instead.
        if facts.listening.known().is_none() && host.exec_prefix.is_empty() {
            facts.listening = self.listening(host).await;
        }
        Ok((facts, told))
    }

    async fn failed_start(&self, host: &KwbaseHost, file: &str, end: CommandEnd) -> String {
        let text = match self.transport.get(&host.name, file, OUTPUT_MAX).await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) => return format!("{end}; its output in {file} could not be read: {}", e.chain()),
        };
        let last = output::last_lines(&text, OUTPUT_LINES);
        let advice = output::start(&text).failure.map(|f| f.advice());
        match (advice, last.is_empty()) {
            (Some(advice), _) => format!("{advice}\n{last}"),
            (None, false) => format!("{end}\n{last}"),
            (None, true) => format!("{end}, and it said nothing; see the logs in the store"),
        }
    }
}

fn parse_version(stdout: &str) -> Result<String, parse::ParseError> {
    output::version(stdout).map(|v| v.build)
}

impl From<CommandError> for PortError {
    fn from(e: CommandError) -> Self {
        Self::new(PortErrorKind::Config, e.to_string())
    }
}

/// What one of several looks found; an error when none did and one failed.
pub(crate) fn first_found(
    looks: Vec<Result<Option<String>, PortError>>,
) -> Result<Option<String>, PortError> {
    let mut result = Ok(None);
    for look in looks {
        match look {
            Ok(Some(what)) => return Ok(Some(what)),
            Ok(None) => {}
            Err(e) => result = Err(e),
        }
    }
    result
}

/// How long a drain may try so that what follows it still fits into `deadline`.
fn drain_wait(deadline: Duration) -> Duration {
    deadline.saturating_sub(AFTER_DRAIN).max(deadline / 2)
}

#[async_trait]
impl<H: HostTransport + ?Sized> DecommissionControl for Kwbase<H> {
    async fn mark(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        let host = self.runner(via)?;
        let line = host.node_decommission(&via.address, nodes, Wait::None)?;
        self.act(host, &line, nodes, deadline).await
    }

    async fn recommission(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        let host = self.runner(via)?;
        let line = host.node_recommission(&via.address, nodes)?;
        self.act(host, &line, nodes, deadline).await
    }

    // The command line cannot ask without marking: `status` stays `Ok(None)`.

    async fn mark_under_way(&self, begun: &BegunMark) -> Result<Option<String>, PortError> {
        let what = format!("kwbase node decommission or recommission of {}", crate::plan::ids(&begun.nodes));
        self.goes_on_through(&begun.via, &what, &begun::marking(begun)).await
    }
}

#[async_trait]
impl<H: HostTransport + ?Sized> NodeLifecycle for Kwbase<H> {
    async fn inspect(&self, name: &HostName) -> Result<HostFacts, PortError> {
        Ok(self.inspect_also(name, None).await?.0)
    }

    fn owned(&self) -> BTreeSet<HostName> {
        self.hosts.values().filter(|h| !h.owner.is_quit()).map(|h| h.name.clone()).collect()
    }

    async fn reach(
        &self,
        name: &HostName,
        to: &[Address],
        deadline: Duration,
    ) -> Result<Vec<Fact<PortState>>, PortError> {
        let host = self.known(name)?;
        let attempts = to.iter().map(|address| self.transport.probe(&host.name, address, deadline));
        let told = join_all(attempts).await;
        Ok(told.into_iter().map(|r| r.map_or_else(|e| Fact::Unknown(e.chain()), Fact::Known)).collect())
    }

    async fn start(&self, node: &StartNode) -> Result<StartOutcome, PortError> {
        let host = self.known(&node.host)?;
        // Refused before anything runs.
        host.start(&node.mode, &node.join, None)?;
        if !host.owner.is_quit() {
            return self.start_owned(host, node).await;
        }
        let version = Version::parse(&self.build(host).await?).ok();
        let line = host.start(&node.mode, &node.join, version)?;
        let output_file = host.start_output();
        // Without what an earlier start left there, which would be taken for this one's.
        let fresh = || self.transport.put(&host.name, &output_file, b"", 0o600);
        match (fresh().await, output_file.rsplit_once('/')) {
            // Beside the store, whose parents kwbase makes too.
            (Err(e), Some((parent, _)))
                if e.kind() == PortErrorKind::NotFound && host.output_file.is_none() =>
            {
                let make = Command::new(["mkdir", "-p", "--", parent]).deadline(LOOK);
                let made = self.transport.run(&host.name, &make).await?;
                if !made.end.success() {
                    let why = output::clean(&made.stderr);
                    let text = format!(
                        "{parent} cannot be made on host {}: {}; nothing was started",
                        host.name,
                        why.trim()
                    );
                    return Err(PortError::new(PortErrorKind::Denied, text));
                }
                fresh().await?;
            }
            (put, _) => put?,
        }
        let wait = if host.background { node.deadline } else { node.deadline.min(FOREGROUND) };
        let detached = Detached { command: line.command(node.deadline), output_file, wait };
        tracing::debug!(host = %host.name, command = %line, "start");
        match self.transport.spawn(&host.name, &detached).await? {
            Spawned::Running(pid) => Ok(StartOutcome::StillStarting(pid)),
            Spawned::Ended(end) if end.success() => Ok(StartOutcome::Started),
            Spawned::Ended(end) => {
                Ok(StartOutcome::Failed(self.failed_start(host, &detached.output_file, end).await))
            }
        }
    }

    async fn clear_data(&self, job: &ClearData) -> Result<String, PortError> {
        let host = self.known(&job.host)?;
        let config = |e: HostError| PortError::new(PortErrorKind::Config, e.to_string());
        let line = clear::command(host, &job.directories).map_err(config)?;
        tracing::debug!(host = %host.name, directories = ?job.directories, "clear old data");
        let output = self.transport.run(&host.name, &line.command(job.deadline)).await?;
        clear::read(host, &output)
    }

    async fn drain(&self, node: &StopNode) -> Result<(), PortError> {
        let host = self.runner(&node.via)?;
        let line = host.node_drain(&node.address, Some(drain_wait(node.deadline)))?;
        self.run(host, &line, node.deadline).await.map(drop)
    }

    async fn stop(&self, node: &StopNode) -> Result<(), PortError> {
        if let Some(owned) = self.owner_of(node) {
            return self.stop_owned(owned, node).await;
        }
        let host = self.runner(&node.via)?;
        let line = host.quit(&node.address, Some(drain_wait(node.deadline)))?;
        match self.run(host, &line, node.deadline).await {
            Ok(_) => Ok(()),
            // Refused: nothing listens there, so the node is down already. A host that does not answer at all
            // proves nothing.
            Err(e) if e.kind() == PortErrorKind::Unreachable && e.chain().contains("connection refused") => {
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    async fn work_under_way(&self, begun: &BegunWork) -> Result<Option<String>, PortError> {
        match begun {
            BegunWork::Start(name) => {
                let host = self.known(name)?;
                if let Some(groups) = begun::starting_owned(host) {
                    let what = format!("the start of {}", host.owner);
                    if let Some(found) = self.goes_on(host, &what, &groups).await? {
                        return Ok(Some(found));
                    }
                    let look = (owner::start(&host.owner, false, 0), host.env.clone());
                    let output = self.script(host, look, LOOK).await?;
                    let pid = owner::read_start(&host.name, &host.owner, &output.stdout)?.pid;
                    return Ok(pid
                        .filter(|pid| *pid != 0)
                        .map(|pid| format!("the node of {} on host {name} (process {pid})", host.owner)));
                }
                self.goes_on(host, "the node that was started", &begun::starting(host)).await
            }
            BegunWork::ClearData(job) => {
                let host = self.known(&job.host)?;
                self.goes_on(host, "the clearing of old data", &begun::clearing(job)).await
            }
            BegunWork::Stop { node, via } => {
                let what = format!("the drain or stop of {}", node.node);
                let through = self.goes_on_through(via, &what, &begun::stopping(&node.address)).await;
                let Some(host) = self.owner_of(node) else { return through };
                let by_owner = self.goes_on(host, &what, &begun::stopping_owned(&node.address)).await;
                first_found(vec![through, by_owner])
            }
        }
    }

    async fn process(&self, node: &StopNode) -> Result<ProcessState, PortError> {
        let from = node.via.host.iter().chain(&node.host).chain(&self.control).next();
        let Some(from) = from else { return Ok(ProcessState::Unknown) };
        match self.transport.probe(from, &node.address, PROBE).await {
            Ok(PortState::Open) => Ok(ProcessState::Running),
            Ok(PortState::Closed) => Ok(self.owner_says(node).await),
            Ok(PortState::NoAnswer) => Ok(ProcessState::Unknown),
            Err(e) if e.kind().is_transient() => Ok(ProcessState::Unknown),
            Err(e) => Err(e),
        }
    }
}

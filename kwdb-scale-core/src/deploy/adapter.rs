//! [`DeployScript`]: `deploy.sh` on the hosts that are described for it, kwbase for everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;

use super::host::DeployHost;
use super::look::{self, Installation};
use super::output::{self, DeployError, ScriptCommand};
use super::shown::{Shown, shown};
use super::{CERTS_DIR, UNIT};
use crate::fact::Fact;
use crate::host_facts::InstallMethod;
use crate::kwbase::begun;
use crate::kwbase::parse::StatusRow;
use crate::kwbase::{HostError, Kwbase, KwbaseHost, Security, StatusOptions, first_found, quote};
use crate::owner::Owner;
use crate::ports::{
    BegunMark, BegunWork, ClearData, Command, CommandEnd, DecommissionControl, DecommissionStatus, Detached,
    Gateway, HostFacts, HostTransport, NodeLifecycle, PortError, PortErrorKind, PortState, ProcessState,
    Spawned, StartNode, StartOutcome, StopNode,
};
use crate::topology::{Address, HostName, NodeId};

const COMMON: &str = include_str!("common.sh");
const JOIN: &str = include_str!("join.sh");
const DECOMMISSION: &str = include_str!("decommission.sh");
const TIDY: &str = include_str!("tidy.sh");
const SHOW: &str = include_str!("show.sh");
const REMAINS: &str = include_str!("remains.sh");

/// For a command that only looks.
pub(super) const LOOK: Duration = Duration::from_secs(30);
/// The script prints some hundred bytes.
const OUTPUT_MAX: usize = 1 << 20;
/// A mark is made of three parts: the look, the script, the count. Each gets so much of the deadline.
const PARTS: u32 = 3;

/// Scaling with `deploy.sh` on some hosts, and with kwbase on the others.
///
/// Every node that stands on a host of the script's is owned by the unit `kaiwudb`, and stopped through it.
#[derive(Debug)]
pub struct DeployScript<H: HostTransport + ?Sized> {
    pub(super) kwbase: Kwbase<H>,
    pub(super) hosts: BTreeMap<HostName, DeployHost>,
}

impl<H: HostTransport + ?Sized> Clone for DeployScript<H> {
    fn clone(&self) -> Self {
        Self { kwbase: self.kwbase.clone(), hosts: self.hosts.clone() }
    }
}

impl<H: HostTransport + ?Sized> DeployScript<H> {
    /// Takes the hosts in, each [validated](DeployHost::validate) and known to `kwbase`.
    pub fn new(
        mut kwbase: Kwbase<H>,
        hosts: impl IntoIterator<Item = DeployHost>,
    ) -> Result<Self, HostError> {
        let mut map = BTreeMap::new();
        for host in hosts {
            host.validate()?;
            let fail = |field: &str, reason: &str, cure: &str| HostError {
                host: host.name.clone(),
                field: field.to_owned(),
                reason: reason.to_owned(),
                cure: cure.to_owned(),
            };
            let Some(described) = kwbase.host(&host.name) else {
                return Err(fail("method", "has no description of how it runs kwbase", "add one"));
            };
            let unit = Owner::Systemd { unit: UNIT.to_owned() };
            if described.owner != unit && described.owner != Owner::Quit {
                let reason = format!("is {}, and deploy.sh knows only unit {UNIT}", described.owner);
                return Err(fail("owner", &reason, "leave it out, or use the method kwbase"));
            }
            if let (Security::Certs { certs_dir }, true) =
                (&described.security, described.exec_prefix.is_empty())
                && *certs_dir != format!("{}{CERTS_DIR}", host.root)
            {
                let reason = format!("is {certs_dir}, and deploy.sh uses {CERTS_DIR}");
                return Err(fail("certs_dir", &reason, "correct it, or use the method kwbase"));
            }
            kwbase.set_owner(&host.name, unit);
            if let Some(twice) = map.insert(host.name.clone(), host) {
                return Err(HostError::twice(twice.name));
            }
        }
        Ok(Self { kwbase, hosts: map })
    }

    /// The kwbase command line that it falls back on.
    pub fn kwbase(&self) -> &Kwbase<H> {
        &self.kwbase
    }

    /// What the script, `kw-status` and `decommission_progress` say on a host, for display.
    ///
    /// # Errors
    /// The host is not one of the script's, or cannot be reached.
    pub async fn show(&self, host: &HostName) -> Result<Shown, PortError> {
        let Some(deploy) = self.hosts.get(host) else {
            let message = format!("host {host} does not use deploy.sh; ask kwbase node status");
            return Err(PortError::new(PortErrorKind::Config, message));
        };
        let kwbase = self.kwbase.known(host)?;
        let mode = self.look(deploy, kwbase).await?.usable(deploy)?;
        let argv = script(SHOW, [deploy.install_dir.clone(), terminal(mode.method)]);
        let output = self.kwbase.script(kwbase, (argv, kwbase.env.clone()), 2 * LOOK).await?;
        Ok(shown(&output.stdout))
    }

    pub(super) async fn look(
        &self,
        host: &DeployHost,
        kwbase: &KwbaseHost,
    ) -> Result<Installation, PortError> {
        let argv = look::also(host, kwbase).alone();
        let output = self.kwbase.script(kwbase, (argv, kwbase.env.clone()), LOOK).await?;
        look::read(output.stdout.split_terminator('\0')).ok_or_else(|| {
            let message = format!("the look at the installation on {} was cut off", host.name);
            PortError::new(PortErrorKind::Malformed, message)
        })
    }

    /// What a join that was cut off left on a host, each with its place; taken back first when `take_back`.
    pub(super) async fn remains(&self, host: &DeployHost, take_back: bool) -> Result<Vec<String>, PortError> {
        let kwbase = self.kwbase.known(&host.name)?;
        let verb = if take_back { "take-back" } else { "look" };
        let keep = if host.keep_ca_key { "keep" } else { "" };
        let dir = host.install_dir.trim_end_matches('/');
        let arguments = [verb, dir, host.root.as_str(), keep].map(str::to_owned);
        let output =
            self.kwbase.script(kwbase, (script(REMAINS, arguments), kwbase.env.clone()), LOOK).await?;
        let mut items: Vec<&str> = output.stdout.split_terminator('\0').collect();
        if items.pop() != Some("E") {
            let message = format!("the look for what a join left on {} was cut off", host.name);
            return Err(PortError::new(PortErrorKind::Malformed, message));
        }
        let paths = items.iter().filter_map(|item| item.strip_prefix('L'));
        Ok(paths.map(|path| format!("{} on host {}", path.escape_debug(), host.name)).collect())
    }

    /// A `deploy.sh join` that goes on on a host, with what ours does after it.
    pub(super) async fn joining(&self, deploy: &DeployHost) -> Result<Option<String>, PortError> {
        let running = running(deploy, ScriptCommand::Join);
        self.kwbase.goes_on(self.kwbase.known(&deploy.name)?, "deploy.sh join", &running).await
    }

    /// Starts a script of ours detached, which prints into a file.
    async fn detached(
        &self,
        host: &KwbaseHost,
        argv: Vec<String>,
        file: &str,
        wait: Duration,
    ) -> Result<Spawned, PortError> {
        let transport = self.kwbase.transport();
        // Without what an earlier run left there, which would be taken for this one's.
        transport.put(&host.name, file, b"", 0o600).await?;
        let mut command = Command::new(argv);
        command.env.clone_from(&host.env);
        let detached = Detached { command, output_file: file.to_owned(), wait };
        transport.spawn(&host.name, &detached).await
    }

    /// What a script of ours printed, which is then removed.
    async fn printed(&self, host: &KwbaseHost, file: &str) -> Result<String, PortError> {
        let transport = self.kwbase.transport();
        let text = transport.get(&host.name, file, OUTPUT_MAX).await?;
        let rm = Command::new(["rm", "-f", file]).deadline(LOOK);
        if let Err(e) = transport.run(&host.name, &rm).await {
            tracing::info!(host = %host.name, file, error = %e.chain(), "an output file was left");
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs `deploy.sh decommission` on the hosts of those of `nodes` that are not marked and stand on hosts of the
    /// script's.
    async fn decommission(&self, via: &Gateway, nodes: &[NodeId], part: Duration) -> Result<(), PortError> {
        if self.hosts.is_empty() || nodes.is_empty() {
            return Ok(());
        }
        let rows = self.kwbase.status_rows(via, part).await?;
        let mut ours: Vec<(&DeployHost, &KwbaseHost)> = Vec::new();
        for node in nodes {
            let Some(row) = rows.iter().find(|r| r.node_id == *node) else {
                // Before anything is marked.
                let message = format!("{node} is not among the nodes that {via} knows; nothing was marked");
                return Err(PortError::new(PortErrorKind::UnknownNode, message));
            };
            if row.is_decommissioning == Some(true) {
                continue;
            }
            let host = row.address.as_ref().and_then(|a| self.kwbase.host_at(a));
            if let Some(host) = host
                && let Some(deploy) = self.hosts.get(&host.name)
            {
                ours.push((deploy, host));
            }
        }
        // Everything is looked at before anything is marked.
        let looks = join_all(ours.iter().map(|(deploy, host)| self.look(deploy, host))).await;
        let mut runs = Vec::new();
        for ((deploy, host), found) in ours.into_iter().zip(looks) {
            let found = found?;
            let mode = found.usable(deploy)?;
            if !found.runs() {
                return Err(DeployError::NotRunning.on(&deploy.name, ScriptCommand::Decommission));
            }
            only_these(deploy, &mode.host, &rows, nodes)?;
            runs.push((deploy, host, mode.method));
        }
        let runs = runs.into_iter().map(|(deploy, host, method)| async move {
            let argv = script(DECOMMISSION, [deploy.install_dir.clone(), terminal(method)]);
            let file = output_file(deploy, ScriptCommand::Decommission);
            tracing::debug!(host = %host.name, dir = deploy.install_dir, "deploy.sh decommission");
            match self.detached(host, argv, &file, part).await? {
                Spawned::Ended(end) => {
                    let text = self.printed(host, &file).await?;
                    output::judge(ScriptCommand::Decommission, end, &text)
                        .map(drop)
                        .map_err(|e| e.on(&deploy.name, ScriptCommand::Decommission))
                }
                Spawned::Running(pid) => {
                    let message = format!(
                        "deploy.sh decommission on {} had not come back after {part:?}; it goes on as process {pid}",
                        deploy.name
                    );
                    Err(PortError::new(PortErrorKind::Deadline, message))
                }
            }
        });
        join_all(runs).await.into_iter().collect()
    }

    /// What of a `deploy.sh decommission` still goes on, its loop left out: that marks nobody any more.
    async fn marking(&self, deploy: &DeployHost, begun: &BegunMark) -> Result<Option<String>, PortError> {
        const WHAT: &str = "deploy.sh decommission";
        let host = self.kwbase.known(&deploy.name)?;
        let mut groups = begun::marking(begun);
        // The script goes to the node itself, by the loopback address.
        groups.truncate(2);
        if let Some(found) = self.kwbase.goes_on(host, WHAT, &groups).await? {
            return Ok(Some(found));
        }
        let running = running(deploy, ScriptCommand::Decommission);
        let Some(found) = self.kwbase.goes_on(host, WHAT, &running).await? else { return Ok(None) };
        let file = output_file(deploy, ScriptCommand::Decommission);
        match self.kwbase.transport().get(&host.name, &file, OUTPUT_MAX).await {
            Ok(text) => {
                let said = output::read(ScriptCommand::Decommission, &String::from_utf8_lossy(&text));
                Ok(said.completed.is_none().then_some(found))
            }
            // Its end was seen: the file was fetched, and removed then.
            Err(e) if e.kind() == PortErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Ends the script's loops and removes outputs that lie about. What cannot be done is told and does no harm.
    async fn tidy<'a>(&self, hosts: impl Iterator<Item = &'a DeployHost>) {
        let tidied = hosts.map(|deploy| async move {
            let kwbase = self.kwbase.known(&deploy.name)?;
            let argv = script(TIDY, [deploy.install_dir.clone()]);
            self.kwbase.script(kwbase, (argv, kwbase.env.clone()), LOOK).await
        });
        for error in join_all(tidied).await.into_iter().filter_map(Result::err) {
            tracing::info!(error = %error.chain(), "the loop of deploy.sh decommission may go on");
        }
    }
}

/// Where a run of the script prints.
fn output_file(deploy: &DeployHost, command: ScriptCommand) -> String {
    format!("{}/kwdb-scale.{}.out", deploy.install_dir.trim_end_matches('/'), command.word())
}

/// A run of the script, or of what runs it.
fn running(deploy: &DeployHost, command: ScriptCommand) -> begun::Groups {
    let dir = deploy.install_dir.trim_end_matches('/');
    let file = output_file(deploy, command);
    let program = [format!("{dir}/deploy.sh"), format!("{}/deploy.sh", deploy.install_dir), file.clone()];
    vec![program.to_vec(), vec![command.word().to_owned(), file]]
}

fn script(text: &str, arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let fixed = ["sh".to_owned(), "-c".to_owned(), format!("{COMMON}{text}"), "kwdb-scale".to_owned()];
    fixed.into_iter().chain(arguments).collect()
}

/// In containers the script runs `docker exec -it`, which wants a terminal.
fn terminal(method: InstallMethod) -> String {
    if method == InstallMethod::Container { "terminal".to_owned() } else { String::new() }
}

/// The script marks every node whose SQL address has the host's address, whatever its port.
fn only_these(deploy: &DeployHost, own: &str, rows: &[StatusRow], nodes: &[NodeId]) -> Result<(), PortError> {
    let there: Vec<NodeId> = rows
        .iter()
        // The script asks for the default view, which leaves removed nodes out.
        .filter(|r| r.is_decommissioning != Some(true) || r.is_available == Some(true))
        .filter(|r| r.sql_address.as_ref().is_some_and(|a| a.host() == own))
        .map(|r| r.node_id)
        .collect();
    let fail = |what: String| {
        let message = format!("deploy.sh decommission on {}: {what}; nothing was marked", deploy.name);
        Err(PortError::new(PortErrorKind::Config, message))
    };
    if there.is_empty() {
        return fail(format!("no node has the SQL address {own}, which the installation takes for its own"));
    }
    let others: Vec<String> =
        there.iter().filter(|n| !nodes.contains(n)).map(|n| format!("node {}", n.0)).collect();
    if !others.is_empty() {
        return fail(format!(
            "it would also mark {}, because the script marks every node at {own}: give the host the method kwbase",
            others.join(", ")
        ));
    }
    Ok(())
}

/// The members that the script can be given: IPv4 with a port.
fn seeds(host: &KwbaseHost, join: &[Address]) -> Result<Vec<String>, PortError> {
    let numeric = |a: &&Address| a.host().parse::<Ipv4Addr>().is_ok() && a.port().is_some_and(|p| p != 0);
    let mut found: Vec<String> = Vec::new();
    for address in join.iter().filter(numeric).filter(|a| !host.is_own(a)) {
        if !found.iter().any(|f| f == address.as_str()) {
            found.push(address.to_string());
        }
    }
    if found.is_empty() {
        let given: Vec<&str> = join.iter().map(Address::as_str).collect();
        let message = format!(
            "deploy.sh join on {}: none of '{}' is the IPv4 address and port of another node, which is all that the \
             script takes; nothing was started",
            host.name,
            given.join(", ")
        );
        return Err(PortError::new(PortErrorKind::Config, message));
    }
    Ok(found)
}

#[async_trait]
impl<H: HostTransport + ?Sized> DecommissionControl for DeployScript<H> {
    async fn mark(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        let part = deadline / PARTS;
        self.decommission(via, nodes, part).await?;
        // The script says what it began: the count, and the mark of nodes elsewhere, are the server's own.
        self.kwbase.mark(via, nodes, part).await
    }

    async fn recommission(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        let statuses = self.kwbase.recommission(via, nodes, deadline).await?;
        if !self.hosts.is_empty() {
            let rows = self.kwbase.status_rows(via, LOOK).await.unwrap_or_default();
            let of = |row: &StatusRow| self.hosts.get(&self.kwbase.host_at(row.address.as_ref()?)?.name);
            self.tidy(rows.iter().filter(|r| nodes.contains(&r.node_id)).filter_map(of)).await;
        }
        Ok(statuses)
    }

    async fn mark_under_way(&self, begun: &BegunMark) -> Result<Option<String>, PortError> {
        let ours = begun.hosts.iter().filter_map(|host| self.hosts.get(host));
        let looks = ours.map(|deploy| self.marking(deploy, begun));
        let mut told = join_all(looks).await;
        told.push(self.kwbase.mark_under_way(begun).await);
        first_found(told)
    }
}

#[async_trait]
impl<H: HostTransport + ?Sized> NodeLifecycle for DeployScript<H> {
    async fn inspect(&self, host: &HostName) -> Result<HostFacts, PortError> {
        let Some(deploy) = self.hosts.get(host) else { return self.kwbase.inspect(host).await };
        let kwbase = self.kwbase.known(host)?;
        // The script needs more than a node does.
        let (facts, told) = self.kwbase.inspect_also(host, Some(look::also(deploy, kwbase))).await?;
        let script = match told {
            Fact::Known(items) => {
                let found = look::read(items.iter().map(String::as_str));
                let facts = found.map(|found| found.facts(deploy, kwbase));
                Fact::from_option(facts, "the look at the installation was cut off")
            }
            Fact::Unknown(why) => Fact::Unknown(why),
        };
        // `deploy.sh join` makes the certificates, and starts the node by its service.
        Ok(HostFacts { archive_only: true, script: Some(script), by_service: true, ..facts })
    }

    async fn start(&self, node: &StartNode) -> Result<StartOutcome, PortError> {
        let Some(deploy) = self.hosts.get(&node.host) else { return self.kwbase.start(node).await };
        let kwbase = self.kwbase.known(&node.host)?;
        let mut seeds = seeds(kwbase, &node.join)?.into_iter();
        let first = seeds.next().unwrap_or_default();
        let mode = self.look(deploy, kwbase).await?.fit_to_join(deploy, kwbase, &node.mode)?;
        let status = kwbase.node_status(&mode.address(), StatusOptions::default())?;
        let dir = deploy.install_dir.trim_end_matches('/');
        let file = output_file(deploy, ScriptCommand::Join);
        let flag = |on: bool, word: &str| if on { word.to_owned() } else { String::new() };
        let arguments = [
            dir.to_owned(),
            first,
            flag(kwbase.secure(), "tls"),
            deploy.ca_dir().to_owned(),
            deploy.root.clone(),
            flag(deploy.keep_ca_key, "keep"),
            terminal(mode.method),
            file.clone(),
            node.deadline.as_secs().to_string(),
            // Given to `eval`: what the one quoting function made means exactly the argv.
            quote::line(status.argv()),
        ];
        let more = seeds.filter(|_| deploy.all_seeds);
        let argv = script(JOIN, arguments.into_iter().chain(more));
        tracing::debug!(host = %deploy.name, dir, "deploy.sh join");
        match self.detached(kwbase, argv, &file, node.deadline).await? {
            Spawned::Running(pid) => Ok(StartOutcome::StillStarting(pid)),
            // The script has removed its output then, also for a caller that is gone.
            Spawned::Ended(end) if end.success() => Ok(StartOutcome::Started),
            Spawned::Ended(end) => {
                Ok(StartOutcome::Failed(failed_join(end, &self.printed(kwbase, &file).await?)))
            }
        }
    }

    fn owned(&self) -> BTreeSet<HostName> {
        NodeLifecycle::owned(&self.kwbase)
    }

    async fn reach(
        &self,
        host: &HostName,
        to: &[Address],
        deadline: Duration,
    ) -> Result<Vec<Fact<PortState>>, PortError> {
        self.kwbase.reach(host, to, deadline).await
    }

    async fn clear_data(&self, job: &ClearData) -> Result<String, PortError> {
        self.kwbase.clear_data(job).await
    }

    async fn drain(&self, node: &StopNode) -> Result<(), PortError> {
        self.kwbase.drain(node).await
    }

    async fn stop(&self, node: &StopNode) -> Result<(), PortError> {
        self.kwbase.stop(node).await?;
        self.tidy(node.host.iter().filter_map(|h| self.hosts.get(h))).await;
        Ok(())
    }

    async fn work_under_way(&self, begun: &BegunWork) -> Result<Option<String>, PortError> {
        if let BegunWork::Start(host) = begun
            && let Some(deploy) = self.hosts.get(host)
            && let Some(found) = self.joining(deploy).await?
        {
            return Ok(Some(found));
        }
        self.kwbase.work_under_way(begun).await
    }

    async fn process(&self, node: &StopNode) -> Result<ProcessState, PortError> {
        self.kwbase.process(node).await
    }
}

/// Why no node came of a join, on one or more lines.
fn failed_join(end: CommandEnd, text: &str) -> String {
    let (ours, theirs): (Vec<&str>, Vec<&str>) = text.lines().partition(|l| l.starts_with("kwdb-scale "));
    let ours: Vec<&str> = ours.iter().filter_map(|l| l.strip_prefix("kwdb-scale ")).collect();
    let code = ours.iter().find_map(|l| l.strip_prefix("exit ")?.trim().parse().ok());
    let died = ours.contains(&"died");
    let mut lines = Vec::new();
    if let Some(code) = code {
        let end = CommandEnd::Exit(code);
        match output::judge(ScriptCommand::Join, end, &theirs.join("\n")) {
            // It was cut short because its node had died, or looked before that: its own end says nothing then.
            Err(DeployError::NoMarker { .. } | DeployError::NotJoinedYet(_)) | Ok(_) if died => {
                lines.push("the unit was started and its process ended; see the logs of the node".to_owned());
            }
            Ok(words) => lines.push(format!("the script said '{words}', and the node does not answer")),
            Err(e) => lines.push(e.to_string()),
        }
    } else {
        lines.push(format!("deploy.sh join was not run ({end})"));
    }
    lines.extend(ours.iter().filter_map(|l| l.strip_prefix("failed ")).map(str::to_owned));
    let log: Vec<&str> = ours.iter().filter_map(|l| l.strip_prefix("log ")).collect();
    if !log.is_empty() {
        lines.push(crate::kwbase::output::last_lines(&log.join("\n"), 12));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT_1: CommandEnd = CommandEnd::Exit(1);

    #[test]
    fn why_no_node_came_of_a_join() {
        let ended = "the unit was started and its process ended";
        let red =
            |text: &str| format!("{:90}\r\u{1b}[31m [ERROR] 2026-11-27 12:57:07 {text} \u{1b}[0m\n", "");
        let killed = "Terminated\nkwdb-scale exit 143\nkwdb-scale died\nkwdb-scale log no such flag\n";
        let early = red("Join to cluster failed. For more information, check kwbase's log.");
        for text in [killed, &format!("{early}kwdb-scale exit 1\nkwdb-scale died\n")] {
            let words = failed_join(EXIT_1, text);
            assert!(words.contains(ended) && !words.contains("the node runs"), "{words}");
        }
        // It never came to the unit.
        let unlogged = "/opt/k/utils/kaiwudb_log.sh: line 77: /opt/k/log/2026-11-27: Permission denied\n";
        for (text, told) in [
            (unlogged, "could not write to its log /opt/k/log/2026-11-27"),
            (&red("Join failed: tar: x"), "the certificates could not be made: tar: x"),
            ("bash: no such thing\n", "bash: no such thing"),
        ] {
            let words = failed_join(EXIT_1, &format!("{text}kwdb-scale exit 1\n"));
            assert!(words.contains(told) && !words.contains(ended), "{words}");
        }
        assert!(failed_join(EXIT_1, "kwdb-scale failed x\n").contains("was not run"));
    }
}

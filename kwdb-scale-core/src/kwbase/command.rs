//! Builders of every command line, as argv and as text.
//!
//! Order of flags follows the KWDB page "Cluster Scaling". What would silently mean something else cannot be
//! built: an empty `--host` (localhost), an empty list of ids (the gateway itself), a start without `--join` (a
//! new cluster).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::host::{KwbaseHost, Security};
use super::quote;
use super::validate::check_address;
use crate::ports::Command;
use crate::topology::{Address, HostName, NodeId, StartMode};
use crate::version::{Capabilities, Version};

/// A command line of kwbase on one host. `Display` is its shell text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandLine {
    name: &'static str,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
}

impl CommandLine {
    /// The sub-command, such as `node status`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Program and arguments.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// What is added to the environment.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// A shell text that means exactly the argv.
    pub fn text(&self) -> String {
        quote::line(&self.argv)
    }

    /// For a [`HostTransport`](crate::ports::HostTransport); standard input is empty.
    pub fn command(&self, deadline: Duration) -> Command {
        let mut command = Command::new(self.argv.iter().cloned()).deadline(deadline);
        command.env.clone_from(&self.env);
        command
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// Which column groups and rows `node status` gives.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StatusOptions {
    /// `--ranges`: leaders, leases, ranges, unavailable, under-replicated (some 10 s old).
    pub ranges: bool,
    /// `--stats`: bytes.
    pub stats: bool,
    /// `--decommission`: gossiped replicas and the two bits; also lists removed nodes.
    pub decommission: bool,
    /// `--all`: all of these.
    pub all: bool,
    /// Only this node.
    pub node: Option<NodeId>,
}

/// `--wait` of `node decommission`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// Comes back when no replica is left, and never when they cannot move.
    All,
    /// Comes back at once.
    None,
}

/// Why a command line cannot be built.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// An address is unusable.
    #[error("{what} {reason}; give host:port of a live node")]
    Address {
        /// Which one: `--host` or `--join`.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No node id: to the server that would mean the gateway itself.
    #[error("{0} without a node id would mean the gateway itself; name at least one node")]
    NoNodes(&'static str),
    /// No address to join: the node would found a cluster of its own.
    #[error(
        "no address to join is left for {host}: without --join the node would found a cluster of its own; \
         name live members other than {host} itself"
    )]
    NoJoin {
        /// The host that was to start a node.
        host: HostName,
    },
    /// Nodes of this mode do not join clusters.
    #[error("a node cannot join with '{0}'; use start or start-single-replica, as the cluster does")]
    StartMode(StartMode),
}

impl KwbaseHost {
    /// `kwbase version`.
    pub fn version(&self) -> CommandLine {
        self.line("version", ["version"].map(String::from))
    }

    /// `kwbase node status`. Plain SQL through `gateway`: it fails there with 57P01 once that node drains.
    pub fn node_status(
        &self,
        gateway: &Address,
        options: StatusOptions,
    ) -> Result<CommandLine, CommandError> {
        let mut args = vec!["node".to_owned(), "status".to_owned()];
        args.extend(options.node.map(|n| n.0.to_string()));
        for (on, flag) in [
            (options.ranges, "--ranges"),
            (options.stats, "--stats"),
            (options.decommission, "--decommission"),
            (options.all, "--all"),
        ] {
            args.extend(on.then(|| flag.to_owned()));
        }
        self.node_client("node status", args, gateway)
    }

    /// `kwbase node ls`.
    pub fn node_ls(&self, gateway: &Address) -> Result<CommandLine, CommandError> {
        self.node_client("node ls", vec!["node".to_owned(), "ls".to_owned()], gateway)
    }

    /// `kwbase node decommission ID… --wait=…`, ids sorted and without repetition.
    ///
    /// Marks nodes, and marks them again at each repetition: it is no way to read the status.
    pub fn node_decommission(
        &self,
        gateway: &Address,
        nodes: &[NodeId],
        wait: Wait,
    ) -> Result<CommandLine, CommandError> {
        let mut args = self.with_nodes("decommission", nodes)?;
        args.push(match wait {
            Wait::All => "--wait=all".to_owned(),
            Wait::None => "--wait=none".to_owned(),
        });
        self.node_client("node decommission", args, gateway)
    }

    /// `kwbase node recommission ID…`, ids sorted and without repetition.
    pub fn node_recommission(
        &self,
        gateway: &Address,
        nodes: &[NodeId],
    ) -> Result<CommandLine, CommandError> {
        let args = self.with_nodes("recommission", nodes)?;
        self.node_client("node recommission", args, gateway)
    }

    /// `kwbase node drain` of the node at `node`. There is no way back but a restart of that node.
    ///
    /// `drain_wait`: how long the command tries (kwbase: 10 minutes unless given).
    pub fn node_drain(
        &self,
        node: &Address,
        drain_wait: Option<Duration>,
    ) -> Result<CommandLine, CommandError> {
        let mut args = vec!["node".to_owned(), "drain".to_owned()];
        args.extend(drain_wait.map(drain_wait_flag));
        self.node_client("node drain", args, node)
    }

    /// `kwbase quit` of the node at `node`: drains it for at most `drain_wait` and ends its process either way.
    pub fn quit(&self, node: &Address, drain_wait: Option<Duration>) -> Result<CommandLine, CommandError> {
        let mut args = vec!["quit".to_owned()];
        args.extend(drain_wait.map(drain_wait_flag));
        self.client("quit", args, node)
    }

    /// `kwbase init`, which founds a cluster. **Never run by scaling**: on a node that is to join it would found a
    /// second cluster. Here for laboratories.
    pub fn init(&self, node: &Address) -> Result<CommandLine, CommandError> {
        self.client("init", vec!["init".to_owned()], node)
    }

    /// `kwbase start` or `kwbase start-single-replica` of a node that joins.
    ///
    /// The host's own address and repetitions are taken out of `join`; what is left must not be empty. `version`
    /// (the newest release when unknown) decides on `--brpc-addr`.
    pub fn start(
        &self,
        mode: &StartMode,
        join: &[Address],
        version: Option<Version>,
    ) -> Result<CommandLine, CommandError> {
        let name = match mode {
            StartMode::MultiReplica => "start",
            StartMode::SingleReplica => "start-single-replica",
            other => return Err(CommandError::StartMode(other.clone())),
        };
        let mut seeds: Vec<&str> = Vec::new();
        for address in join {
            check_address(address).map_err(|reason| CommandError::Address { what: "--join", reason })?;
            if !self.is_own(address) && !seeds.contains(&address.as_str()) {
                seeds.push(address.as_str());
            }
        }
        if seeds.is_empty() {
            return Err(CommandError::NoJoin { host: self.name.clone() });
        }

        let mut args = vec![name.to_owned(), self.security_flag()];
        args.extend(self.stores.iter().map(|s| format!("--store={}", s.value())));
        args.extend(self.ts_store.iter().map(|s| format!("--ts-store={s}")));
        let brpc = Capabilities::of(version).brpc_addr.then(|| self.brpc());
        for (flag, address) in [
            ("brpc-addr", brpc.as_ref()),
            ("listen-addr", self.listen_addr.as_ref()),
            ("advertise-addr", self.advertise_addr.as_ref()),
            ("sql-addr", self.sql_addr.as_ref()),
            ("advertise-sql-addr", self.advertise_sql_addr.as_ref()),
            ("http-addr", self.http_addr.as_ref()),
        ] {
            args.extend(address.map(|a| format!("--{flag}={a}")));
        }
        args.push(format!("--join={}", seeds.join(",")));
        if let Some(locality) = self.locality.as_ref().filter(|l| !l.tiers().is_empty()) {
            args.push(format!("--locality={locality}"));
        }
        if !self.attrs.is_empty() {
            args.push(format!("--attrs={}", self.attrs.join(":")));
        }
        for (flag, text) in [
            ("cache", &self.cache),
            ("max-sql-memory", &self.max_sql_memory),
            ("max-offset", &self.max_offset),
            ("pid-file", &self.pid_file),
        ] {
            args.extend(text.as_ref().map(|t| format!("--{flag}={t}")));
        }
        args.extend(self.use_raft_store.then(|| "--use-raft-store".to_owned()));
        args.extend(self.extra_flags.iter().cloned());
        args.extend(self.background.then(|| "--background".to_owned()));
        Ok(self.line(name, args))
    }

    /// What stands before every program that is run for kwbase on this host.
    pub(super) fn prefix(&self) -> Vec<String> {
        let mut prefix = self.exec_prefix.clone();
        // A prefix such as `docker exec` does not hand its own environment on.
        if !prefix.is_empty() && !self.env.is_empty() {
            prefix.push("env".to_owned());
            prefix.extend(self.env.iter().map(|(k, v)| format!("{k}={v}")));
        }
        prefix
    }

    /// A command line of the machine itself, outside of the prefix.
    pub(super) fn on_machine(&self, name: &'static str, argv: Vec<String>) -> CommandLine {
        // Behind a prefix the environment is handed on by other means.
        let env = if self.exec_prefix.is_empty() { self.env.clone() } else { BTreeMap::new() };
        CommandLine { name, argv, env }
    }

    /// The same behind the prefix, with kwbase's environment: for a script that runs kwbase.
    pub(crate) fn script(&self, name: &'static str, argv: impl IntoIterator<Item = String>) -> CommandLine {
        self.on_machine(name, self.prefix().into_iter().chain(argv).collect())
    }

    fn line(&self, name: &'static str, args: impl IntoIterator<Item = String>) -> CommandLine {
        self.script(name, [self.program.clone()].into_iter().chain(args))
    }

    fn security_flag(&self) -> String {
        match &self.security {
            Security::Insecure => "--insecure".to_owned(),
            Security::Certs { certs_dir } => format!("--certs-dir={certs_dir}"),
        }
    }

    fn client(
        &self,
        name: &'static str,
        mut args: Vec<String>,
        to: &Address,
    ) -> Result<CommandLine, CommandError> {
        check_address(to).map_err(|reason| CommandError::Address { what: "--host", reason })?;
        if to.host().is_empty() {
            let reason = format!("'{to}' names no host, which kwbase takes for localhost");
            return Err(CommandError::Address { what: "--host", reason });
        }
        args.push(format!("--host={to}"));
        args.push(self.security_flag());
        Ok(self.line(name, args))
    }

    fn node_client(
        &self,
        name: &'static str,
        mut args: Vec<String>,
        to: &Address,
    ) -> Result<CommandLine, CommandError> {
        args.push("--format=csv".to_owned());
        self.client(name, args, to)
    }

    fn with_nodes(&self, verb: &'static str, nodes: &[NodeId]) -> Result<Vec<String>, CommandError> {
        if nodes.is_empty() {
            return Err(CommandError::NoNodes(verb));
        }
        let mut sorted = nodes.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let ids = sorted.iter().map(|n| n.0.to_string());
        Ok(["node".to_owned(), verb.to_owned()].into_iter().chain(ids).collect())
    }
}

/// Zero would mean "without limit" to kwbase.
fn drain_wait_flag(wait: Duration) -> String {
    format!("--drain-wait={}ms", wait.as_millis().max(1))
}

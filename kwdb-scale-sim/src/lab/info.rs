//! What a lab is made with, what there is to know of it, and how it fails.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kwdb_scale_core::topology::{Address, HostName, StartMode};
use serde::{Deserialize, Serialize};

use super::netns::{CERTS, Hosts, LabNet, PROGRAM};

/// What a lab is made with.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Where everything lies. Absent or empty; made when absent.
    pub dir: PathBuf,
    /// How many nodes are started, `n1` to `nN`; node ids are the numbers.
    pub nodes: usize,
    /// With certificates, which are made in `certs/`, or insecure.
    pub secure: bool,
    /// `start-single-replica` instead of `start`.
    pub single_replica: bool,
    /// Ranges of a table `app.kv`; zero makes none.
    pub ranges: u32,
    /// Stores of each node.
    pub stores_per_node: usize,
    /// Model seconds in a real one, for the twin. A real kwbase has no other speed than 1.
    pub speed: f64,
    /// A real kwbase; the twin when `None`.
    pub kwbase: Option<PathBuf>,
    /// The executable that calls [`hook`](crate::process::hook) first; the running one when `None`.
    pub executable: Option<PathBuf>,
    /// Everything that is left to chance in the twin follows from it, but for the cluster's UUID.
    pub seed: u64,
    /// The twin ends with the process that made the lab, however that ends. Files stay until they are removed.
    pub ends_with_caller: bool,
    /// What its hosts are.
    pub hosts: Hosts,
    /// How long [`Lab::up`](super::Lab::up) may take in all.
    pub deadline: Duration,
    /// Once it is set, [`Lab::up`](super::Lab::up) ends what it has made so far and comes back with [`LabError::Cancelled`],
    /// after the command that it waits for.
    pub cancel: Arc<AtomicBool>,
}

impl LabOptions {
    /// Four insecure nodes of the twin at speed 1, one store each, no table; ten minutes.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            nodes: 4,
            secure: false,
            single_replica: false,
            ranges: 0,
            stores_per_node: 1,
            speed: 1.0,
            kwbase: None,
            executable: None,
            seed: 1,
            ends_with_caller: false,
            hosts: Hosts::Processes,
            deadline: Duration::from_secs(600),
            cancel: Arc::default(),
        }
    }
}

/// What there is to know of a lab.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LabInfo {
    /// Its directory, absolute.
    pub dir: PathBuf,
    /// The program to be run as `kwbase`: the twin's wrapper or the real one.
    pub kwbase: PathBuf,
    /// Whether `kwbase` is a real one.
    pub real: bool,
    /// The certificates' directory of a secure lab, with the client certificate of root.
    pub certs_dir: Option<PathBuf>,
    /// The sub-command that starts nodes.
    pub start_mode: StartMode,
    /// Model seconds in a real one: waits meant for a real cluster are to be divided by it.
    pub speed: f64,
    /// Started or only prepared by [`Lab::add`](super::Lab::add), in the order in which they were made.
    pub hosts: Vec<LabHost>,
    /// The network of hosts that are machines of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<LabNet>,
    pub(super) executable: PathBuf,
    pub(super) block: u16,
    pub(super) stores_per_node: usize,
}

impl LabInfo {
    /// SQL addresses of the first three hosts.
    pub fn seeds(&self) -> Vec<Address> {
        self.hosts.iter().take(3).map(|host| host.sql_address.clone()).collect()
    }

    /// The program that a host runs as `kwbase`.
    pub fn host_program(&self) -> PathBuf {
        if self.net.is_some() { PathBuf::from(PROGRAM) } else { self.kwbase.clone() }
    }

    /// The certificates' directory on the hosts of a secure lab.
    pub fn host_certs_dir(&self) -> Option<PathBuf> {
        let own = self.net.as_ref().map(|_| PathBuf::from(CERTS));
        self.certs_dir.as_ref().map(|dir| own.unwrap_or_else(|| dir.clone()))
    }

    /// A host's own file as this machine sees it, such as `/var/lib/kaiwudb/LOCK`; the path itself where hosts are
    /// directories of this machine. Only what is below a directory that a host has to itself can be seen so.
    pub fn seen_here(&self, host: &str, path: &str) -> PathBuf {
        match &self.net {
            Some(net) => super::netns::Machine::new(&self.dir, net, host).own(path),
            None => PathBuf::from(path),
        }
    }

    /// RPC addresses of the first three hosts, for `--join`.
    pub fn join(&self) -> Vec<Address> {
        self.hosts.iter().take(3).map(|host| host.address.clone()).collect()
    }
}

/// One host of a lab: a directory and three ports, or a machine of its own, on which its paths then are.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LabHost {
    /// `n1`, `n2` …
    pub name: HostName,
    /// RPC address (`--listen-addr`).
    pub address: Address,
    /// SQL address: the RPC address.
    pub sql_address: Address,
    /// HTTP address (`--http-addr`).
    pub http_address: Address,
    /// `--brpc-addr`.
    pub brpc_address: Address,
    /// `--store`, one or more.
    pub stores: Vec<PathBuf>,
    /// Where the node writes its pid as its host counts it, when it is started with [`extra_flags`](Self::extra_flags).
    pub pid_file: PathBuf,
    /// Takes the node's output when the lab starts it; a path of this machine.
    pub output_file: PathBuf,
    /// Further flags of the start command: small caches and the pid file, without which [`Lab::kill`](super::Lab::kill) and
    /// [`Lab::down`](super::Lab::down) do not find the node (on a machine of its own they do).
    pub extra_flags: Vec<String>,
}

/// Why something of a lab failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// There is no lab in the directory.
    #[error("there is no lab in {0}")]
    NoLab(PathBuf),
    /// So few nodes never hold the replicas that every range needs, which is what a lab waits for.
    #[error(
        "a lab of {0} nodes cannot hold three replicas of every range; make one of 3 or more, or a single-replica one"
    )]
    TooFewNodes(usize),
    /// The directory holds something already.
    #[error(
        "{0} is not empty: a lab is made in an absent or empty directory; if one is there, `lab down` ends and deletes it"
    )]
    NotEmpty(PathBuf),
    /// No host of that name.
    #[error("the lab has no host '{0}'")]
    NoHost(String),
    /// The node does not run.
    #[error("{0} does not run")]
    NotRunning(String),
    /// The node runs.
    #[error("{0} runs already")]
    Running(String),
    /// A kwbase command ended badly; its words.
    #[error("`{command}` {end}: {words}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        end: String,
        /// The last of what it printed.
        words: String,
    },
    /// This machine cannot make such a lab.
    #[error("{what}: {cure}")]
    Unfit {
        /// What is missing.
        what: String,
        /// What to do about it.
        cure: &'static str,
    },
    /// What was asked for is only of hosts in namespaces.
    #[error("the hosts of this lab are directories of this machine: make a lab with --hosts netns for that")]
    NoMachines,
    /// The making of the lab was given up on request.
    #[error("the making of the lab was given up")]
    Cancelled,
    /// Something did not come about in time.
    #[error("{0} within the deadline")]
    Deadline(String),
    /// The operating system said no.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

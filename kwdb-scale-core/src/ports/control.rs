//! Acts on the whole cluster: the decommissioning bit, cluster settings, and a word to the replicate queues.

use std::fmt::{self, Debug};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::PortError;
use crate::topology::{Address, HostName, NodeId, RangeId};

/// A node that stays, through which an act is done.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Gateway {
    /// The node.
    pub node: NodeId,
    /// Its RPC address (`--host`).
    pub address: Address,
    /// Its SQL address (equal to `address` unless `--sql-addr` was given).
    pub sql_address: Address,
    /// The host it runs on by the caller's inventory, when known: where a command line is run.
    pub host: Option<HostName>,
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.node, self.address)
    }
}

/// What the server says of a node when it is marked, recommissioned or asked about.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DecommissionStatus {
    /// The node.
    pub node: NodeId,
    /// Whether the server holds it for live.
    pub is_live: bool,
    /// Replicas by a scan of the meta ranges, learners counted: authoritative.
    pub replicas: u64,
    /// The decommissioning bit.
    pub decommissioning: bool,
    /// The draining bit.
    pub draining: bool,
}

/// Marks, or their taking back, that were begun and whose end is not known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BegunMark {
    /// The nodes.
    pub nodes: Vec<NodeId>,
    /// Their hosts by the caller's inventory, as far as known.
    pub hosts: Vec<HostName>,
    /// The nodes that stay: it was begun through one of these.
    pub via: Vec<Gateway>,
}

/// With what acts on a cluster are done, and why with that.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Means {
    /// KWDB's admin RPC: the nodes themselves are asked, and no host needs kwbase for it.
    AdminRpc {
        /// Why, for people.
        why: String,
        /// Whether nodes are marked on hosts all the same, as `deploy.sh` wants it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        marks_on_hosts: bool,
    },
    /// Commands on hosts.
    CommandLine {
        /// Why, for people.
        why: String,
        /// The client certificate that a member refused when the admin RPC was tried, as 64 lower-case hex digits of its
        /// SHA-256: a host that has the same cannot mark.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
}

impl Means {
    /// Whether a host of a member that stays, or a control host, has to have kwbase for marks.
    pub fn marks_on_hosts(&self) -> bool {
        match self {
            Self::AdminRpc { marks_on_hosts, .. } => *marks_on_hosts,
            Self::CommandLine { .. } => true,
        }
    }
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdminRpc { why, marks_on_hosts } => {
                let marks = if *marks_on_hosts { "; marks by commands on hosts" } else { "" };
                write!(f, "the admin RPC ({why}{marks})")
            }
            Self::CommandLine { why, .. } => write!(f, "the command line ({why})"),
        }
    }
}

/// Sets and clears the decommissioning bit.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait DecommissionControl: Debug + Send + Sync {
    /// With what it acts, for the checks and for people. `None`, as here, where it does not say: then a host with
    /// kwbase is demanded.
    fn means(&self) -> Option<Means> {
        None
    }

    /// Sets the bit of all `nodes` in one call and returns at once, without waiting for replicas to move.
    ///
    /// Durable in the cluster when it returns `Ok`. May be repeated. Not atomic on the server: when it fails some
    /// nodes may be marked, so the caller proves every id first and looks again after an error. `nodes` is never
    /// empty (an empty list means the gateway itself to the server): implementations refuse it.
    async fn mark(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError>;

    /// Clears the bit of `nodes`; works on nodes that are down too. Durable when `Ok`; may be repeated.
    async fn recommission(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError>;

    /// Reads the authoritative status without changing anything, where the implementation can: `Ok(None)` says
    /// that it cannot (the command line has no such command; asking it again would mark again).
    async fn status(
        &self,
        _via: &Gateway,
        _nodes: &[NodeId],
        _deadline: Duration,
    ) -> Result<Option<Vec<DecommissionStatus>>, PortError> {
        Ok(None)
    }

    /// Whether a [`mark`](Self::mark) or [`recommission`](Self::recommission) that was begun still goes on, whoever
    /// waits for it: `Some` says what, in a few words for people. Only reads.
    ///
    /// An error says that it cannot be told, as this one does.
    async fn mark_under_way(&self, _begun: &BegunMark) -> Result<Option<String>, PortError> {
        let message = "whether a mark still goes on cannot be told by this implementation";
        Err(PortError::new(super::PortErrorKind::Unsupported, message))
    }
}

/// What a server's replicate queue said of one range.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Enqueued {
    /// It looked at the range, and did what was to be done, if anything was.
    Processed,
    /// The range or its lease is no longer on that node: look up who has it. The server's words.
    Stale(String),
    /// Another change of the range came in between: harmless. The server's words.
    Raced(String),
    /// It could not do what was to be done: why, in the server's words.
    Failed(String),
}

/// Asks servers to look at a range sooner than their scanner would.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ReplicateQueue: Debug + Send + Sync {
    /// Sends `range` to the replicate queue of `node`, which should hold its lease, and returns when the queue is done
    /// with it.
    ///
    /// Changes nothing that the allocator would not do by itself a little later, so it may be repeated and given up at
    /// any time; it is not journalled.
    async fn enqueue(
        &self,
        via: &Gateway,
        node: NodeId,
        range: RangeId,
        deadline: Duration,
    ) -> Result<Enqueued, PortError>;
}

/// Reads and sets cluster settings.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait SettingsControl: Debug + Send + Sync {
    /// The value in force, `None` when the server does not know the setting. Only reads.
    async fn get(&self, gateway: &Address, name: &str) -> Result<Option<String>, PortError>;

    /// `SET CLUSTER SETTING name = value`. Durable in the cluster when `Ok`; may be repeated.
    async fn set(&self, gateway: &Address, name: &str, value: &str) -> Result<(), PortError>;
}

//! What the caller wants: the operation, the inventory of hosts, and the choices the KWDB page leaves open.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::topology::{Address, HostName, NodeId};

/// A membership change that is asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Request {
    /// What to do.
    pub operation: Operation,
    /// The hosts that the caller knows.
    pub inventory: Inventory,
    /// The choices.
    #[serde(default)]
    pub options: Options,
}

impl Request {
    /// Whether it matters who issues certificates: they are asked for, or nodes leave, whose hosts may hold the only key of the
    /// cluster's authority.
    pub fn concerns_authority(&self) -> bool {
        !self.options.certificates.is_present() || !matches!(self.operation, Operation::ScaleOut { .. })
    }
}

/// The kinds of membership change.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// Start a node on each host; they join one after another.
    ScaleOut {
        /// The hosts, in order of joining.
        hosts: Vec<HostName>,
    },
    /// Move everything off these nodes, all marked in one command unless a [batch](Options::batch) is asked for, then stop them.
    ScaleIn {
        /// The nodes that leave.
        nodes: Vec<NodeRef>,
    },
    /// Add nodes on `hosts` first, then move everything off `nodes`.
    Replace {
        /// The nodes that leave.
        nodes: Vec<NodeRef>,
        /// The hosts that take their place.
        hosts: Vec<HostName>,
    },
    /// Make the members be exactly the nodes of these hosts. Empty when that is true already.
    Reach {
        /// The hosts whose nodes shall be the members.
        members: Vec<HostName>,
    },
}

/// Names a node by its id or by the host it runs on.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeRef {
    /// By id.
    Id(NodeId),
    /// By the inventory's name of its host.
    Host(HostName),
}

impl NodeRef {
    /// Digits are an id, anything else is a host name.
    pub fn parse(text: &str) -> Self {
        match text.parse::<u32>() {
            Ok(id) => Self::Id(NodeId(id)),
            Err(_) => Self::Host(HostName::new(text)),
        }
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "node {}", id.0),
            Self::Host(host) => write!(f, "host {host}"),
        }
    }
}

/// The hosts that the caller knows.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Inventory {
    /// By name.
    pub hosts: BTreeMap<HostName, InventoryHost>,
    /// Where commands on the cluster run when no host of a member can run them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<HostName>,
    /// Where the private key of the cluster's authority lies, when the caller has configured it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<HostName>,
    /// Whether the caller knows that this key lies on none of the hosts, or that there is none because the cluster is insecure. Believed
    /// only where no [authority is looked at](crate::observation::Observation::authority). A leaving host that cannot be looked at is
    /// refused as long as it may hold the only one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub authority_elsewhere: bool,
}

/// What planning needs to know of a host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InventoryHost {
    /// The RPC address that its node advertises.
    pub address: Address,
    /// The SQL address that its node advertises; `None` when it is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql_address: Option<Address>,
    /// The brpc address that its node advertises, when the caller knows it: the cluster does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brpc_address: Option<Address>,
}

impl Inventory {
    /// The host whose node advertises `address`.
    pub fn host_at(&self, address: &Address) -> Option<&HostName> {
        self.hosts.iter().find(|(_, h)| h.address == *address).map(|(name, _)| name)
    }
}

/// What to do with `kv.allocator.ts_consider_rebalance.enabled` (KWDB page, "Data Redistribution").
///
/// The setting stops only the balancing of time-series ranges; decommissioning, repair and relational ranges go on.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Redistribution {
    /// Leave the setting as it is.
    #[default]
    Leave,
    /// Set it to false and leave it so.
    Off,
    /// Set it to false for the time of the operation and restore the former value after it.
    OffDuring,
}

/// What ends a scale-in (the KWDB page calls the quit optional).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// Stop the emptied node's process: the end state is Removed.
    #[default]
    Stop,
    /// Leave the emptied node running: the end state is Drained (it still serves SQL).
    LeaveDrained,
}

/// What to do with the data that a removed node left on a host that shall join (the KWDB page: "you must first clear
/// its data directory and rejoin it as a new node").
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OldData {
    /// Refuse the host.
    #[default]
    Refuse,
    /// Rename each directory to `<directory>.node-<id of the removed node>`, in the same place. Nothing is lost.
    MoveAside,
    /// Delete what the directories hold.
    Delete,
}

impl OldData {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where the certificates of hosts that join a secure cluster come from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Certificates {
    /// They lie there already.
    #[default]
    Present,
    /// They are made where the authority's private key lies, which stays there, and are installed.
    Issue,
    /// The KWDB page's way: `kaiwudb_certs.tar.gz` with the authority's private key goes to the host, and they are made
    /// there.
    Archive,
}

impl Certificates {
    /// Whether they lie there already.
    pub fn is_present(&self) -> bool {
        *self == Self::Present
    }
}

impl fmt::Display for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Present => "present",
            Self::Issue => "issue",
            Self::Archive => "archive",
        })
    }
}

/// Whether servers are asked to look at ranges sooner than their scanner would: at those of leaving nodes, and at those
/// that want one more replica because a node joined.
///
/// A store's scanner walks its ranges slowly, and with small data a scale-in spends nearly all its time on that wait.
/// Only the moment of looking changes: the allocator still decides what moves, where to, and at what rate. It needs a
/// [`ReplicateQueue`](crate::ports::ReplicateQueue); without one every pace is `Server`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Never: the documented pace.
    Server,
    /// For the last ranges, and when moving falls to less than half of what it was.
    #[default]
    Tail,
    /// From the start.
    Full,
}

impl Pace {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The choices that the KWDB page leaves to the operator.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Options {
    /// Time-series redistribution.
    pub redistribution: Redistribution,
    /// How a scale-in ends.
    pub finish: Finish,
    /// Whether to wait, once at the end, until ranges and leases are spread evenly after a scale-out.
    pub await_balance: bool,
    /// Whether to drain an emptied node (`node drain`) as a step of its own before it is stopped.
    pub drain: bool,
    /// What to do with a removed node's data on a host that shall join. Anything but a refusal needs the nodes to be
    /// [`safe_to_wipe`](crate::safety::safe_to_wipe) and the caller's [consent](crate::plan::Plan::consent).
    #[serde(skip_serializing_if = "OldData::is_default")]
    pub old_data: OldData,
    /// Where the certificates of hosts that join come from.
    #[serde(skip_serializing_if = "Certificates::is_present")]
    pub certificates: Certificates,
    /// How soon the ranges of leaving nodes are looked at.
    #[serde(skip_serializing_if = "Pace::is_default")]
    pub pace: Pace,
    /// At most so many leaving nodes are marked, emptied and stopped at a time; all of them in one when `None`.
    ///
    /// Marked together they take fewer moves and less time, because nothing moves to a node that leaves later.
    /// Smaller batches spread the load of moving, which for time-series ranges nothing else slows down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<NonZeroU32>,
}

impl Options {
    /// How many of `leaving` nodes leave at a time, at least one.
    pub fn at_a_time(&self, leaving: usize) -> usize {
        let asked = self.batch.and_then(|n| usize::try_from(n.get()).ok());
        asked.unwrap_or(leaving).min(leaving).max(1)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            redistribution: Redistribution::Leave,
            finish: Finish::Stop,
            await_balance: true,
            drain: false,
            old_data: OldData::Refuse,
            certificates: Certificates::Present,
            pace: Pace::Tail,
            batch: None,
        }
    }
}

//! Starting, stopping and looking at the process of a node.

use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Gateway, PortError, PortErrorKind, PortState};
use crate::fact::Fact;
use crate::host_facts::HostFacts;
use crate::plan::OldDirectory;
use crate::topology::{Address, HostName, NodeId, StartMode};

/// Starts a node that joins. There is always at least one address to join.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StartNode {
    /// Where.
    pub host: HostName,
    /// With which sub-command.
    pub mode: StartMode,
    /// Members that stay.
    pub join: Vec<Address>,
    /// How long to wait for the start command to come back.
    pub deadline: Duration,
}

/// What became of a start command. None of these proves that the node joined.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StartOutcome {
    /// The command came back with success: the process is up, and may or may not have joined yet.
    Started,
    /// The command had not come back by the deadline. The process goes on: this is its id.
    StillStarting(u32),
    /// The process ended with a failure; the last lines of its output.
    Failed(String),
}

/// Clears directories that removed nodes left on a host. The caller has proven them removed, and a person consented.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClearData {
    /// Where.
    pub host: HostName,
    /// The directories, and what becomes of each.
    pub directories: Vec<OldDirectory>,
    /// How long it may take.
    pub deadline: Duration,
}

/// Names a node to drain or stop.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StopNode {
    /// The node's id; the caller has proven that the address is this node's.
    pub node: NodeId,
    /// Its RPC address (`--host`).
    pub address: Address,
    /// The host it runs on by the caller's inventory, when known.
    pub host: Option<HostName>,
    /// A node that stays, for implementations that need one.
    pub via: Gateway,
    /// How long it may take.
    pub deadline: Duration,
}

/// Something on a host that was begun and whose end is not known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BegunWork {
    /// A start. One whose node runs goes on, whether the node joined or not.
    Start(HostName),
    /// A clearing of old data.
    ClearData(ClearData),
    /// A drain or a stop.
    Stop {
        /// The node.
        node: StopNode,
        /// The nodes that stay: it was begun through one of these.
        via: Vec<Gateway>,
    },
}

/// Whether a node's process is there.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// Something accepts connections at the node's address.
    Running,
    /// Nothing listens there.
    Stopped,
    /// Could not be told.
    Unknown,
}

/// Whether a node takes clients, as it says itself.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Readiness {
    /// It is a live member that takes clients.
    Ready,
    /// It belongs to no cluster yet: waits for `init`, or has not joined.
    WaitingForInit,
    /// It is draining or shutting down.
    ShuttingDown,
    /// It says that it is not ready, for this reason (such as a liveness record that expired).
    NotReady(String),
    /// Nothing answers there, for this reason.
    Unreachable(String),
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("it is ready"),
            Self::WaitingForInit => f.write_str("it waits to be initialised, or has not joined"),
            Self::ShuttingDown => f.write_str("it is shutting down"),
            Self::NotReady(why) => write!(f, "it is not ready: {why}"),
            Self::Unreachable(why) => write!(f, "nothing answers: {why}"),
        }
    }
}

/// The life of a node's process. What a Kubernetes operator would implement without any shell.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait NodeLifecycle: Debug + Send + Sync {
    /// Looks at a host. Only reads. A part that cannot be had is an unknown in the result; `Err` is for a host
    /// that cannot be looked at at all.
    async fn inspect(&self, host: &HostName) -> Result<HostFacts, PortError>;

    /// Hosts where something owns the process of a node, a unit or a container: it is stopped there, by a command on the
    /// host itself. Known without asking anybody; none, as here, where the implementation has no such hosts.
    fn owned(&self) -> BTreeSet<HostName> {
        BTreeSet::new()
    }

    /// Tries to connect from `host` to each of `to`, all at once, and gives what came of each in their order. Only
    /// reads; ends by `deadline` for each attempt.
    ///
    /// An implementation that cannot fails with [`Unsupported`](super::PortErrorKind::Unsupported), as this one does.
    async fn reach(
        &self,
        host: &HostName,
        _to: &[Address],
        _deadline: Duration,
    ) -> Result<Vec<Fact<PortState>>, PortError> {
        let message = format!("what host {host} reaches cannot be told by this implementation");
        Err(PortError::new(super::PortErrorKind::Unsupported, message))
    }

    /// Starts a node. Not to be repeated blindly: the caller looks first whether the node came up. Dropping the
    /// future never ends the node.
    async fn start(&self, node: &StartNode) -> Result<StartOutcome, PortError>;

    /// Moves directories aside, or deletes what they hold, and says in one line what was done. Only directories of the
    /// host's own description, and none on which a process runs. May be repeated: what is cleared already stays so.
    /// When one directory cannot be cleared those before it are, and the error says which.
    ///
    /// Implementations that clear nothing fail with `Unsupported`, as this one does.
    async fn clear_data(&self, job: &ClearData) -> Result<String, PortError> {
        let message = format!(
            "old data on host {} cannot be cleared by this implementation; clear it by hand",
            job.host
        );
        Err(PortError::new(PortErrorKind::Unsupported, message))
    }

    /// Makes the node refuse new clients and hand over its leases (cannot be undone without a restart). May be
    /// repeated.
    async fn drain(&self, node: &StopNode) -> Result<(), PortError>;

    /// Drains and ends the node's process. May be repeated: a node that is down already is `Ok`. Only the cluster
    /// and [`process`](Self::process) prove that it is gone.
    async fn stop(&self, node: &StopNode) -> Result<(), PortError>;

    /// Whether something that was begun still goes on, whoever waits for it: `Some` says what, in a few words for
    /// people. Only reads.
    ///
    /// An error says that it cannot be told, as this one does.
    async fn work_under_way(&self, _begun: &BegunWork) -> Result<Option<String>, PortError> {
        let message = "whether something that was begun still goes on cannot be told by this implementation";
        Err(PortError::new(PortErrorKind::Unsupported, message))
    }

    /// What the node at the RPC address `node` says itself of whether it takes clients. Only reads.
    ///
    /// `Ok(None)`, as here, where this implementation cannot ask. A node that cannot be told is an error.
    async fn readiness(&self, _node: &Address, _deadline: Duration) -> Result<Option<Readiness>, PortError> {
        Ok(None)
    }

    /// Whether the node's process is there. Only reads.
    async fn process(&self, node: &StopNode) -> Result<ProcessState, PortError>;
}

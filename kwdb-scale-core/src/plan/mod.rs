//! Plans: every choice made, nothing yet done.
//!
//! A [`Plan`] is immutable and serialisable. It says *what* is to be done, never with which command line, so that
//! any implementation of the ports can carry it out. [`plan`] makes one from an observation; [`check`] judges any
//! plan, hand-edited ones too, without sharing a line with the planner.

mod check;
mod diff;
mod fingerprint;
mod planner;
mod text;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use check::{Rule, Violation, check, rules};
pub use diff::diff;
pub use fingerprint::{Drift, Fingerprint, NodePrint, ZonePrint};
pub use planner::{Refusal, gateways, plan};
pub(crate) use text::ids;

use crate::assess::{Change, Finding, OperationKind};
use crate::canonical;
use crate::policy::Policy;
use crate::ports::Gateway;
use crate::request::{Certificates, Finish, Request};
use crate::schema::{self, ReadError};
use crate::topology::{Address, ClusterId, HostName, NodeId, StartMode, StoreId};

/// Schema id of a plan's JSON form.
pub const SCHEMA: &str = "kwdb-scale.plan/v1";

/// A membership change with every choice made.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Plan {
    /// [`SCHEMA`].
    pub schema: String,
    /// The first 16 hex digits of the SHA-256 of everything else, in canonical form.
    pub id: String,
    /// The cluster it was made for.
    pub cluster_id: ClusterId,
    /// What was asked for.
    pub request: Request,
    /// What that means on this cluster.
    pub change: Change,
    /// Thresholds and waits.
    pub policy: Policy,
    /// What the checks said: warnings and things to know. A plan never holds a refusal.
    pub findings: Vec<Finding>,
    /// The facts that it rests on; compared once more before the first step.
    pub fingerprint: Fingerprint,
    /// How the members of the cluster run.
    pub start_mode: StartMode,
    /// Every node id that the cluster had given when the plan was made, Removed ones included: a node that joins
    /// has an id that is not one of these.
    pub known_ids: BTreeSet<NodeId>,
    /// Members that the allocator counts before the first step.
    pub members_before: usize,
    /// Members that remain or come in; known exactly only where no node joins (ids are the server's choice).
    pub members_after: usize,
    /// Members that stay, in order of preference: through these everything is asked, done and verified.
    pub gateways: Vec<Gateway>,
    /// Nodes that leave, with the identity that was proven.
    pub leaving: Vec<Leaving>,
    /// What to do, one after another.
    pub steps: Vec<Step>,
}

/// A node that leaves.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Leaving {
    /// Its id.
    pub node: NodeId,
    /// Its stores, pinned: these are counted, whatever the status rows say later.
    pub stores: BTreeSet<StoreId>,
    /// Its RPC address.
    pub address: Address,
    /// The host it runs on, when the inventory knows it.
    pub host: Option<HostName>,
    /// Its incarnation.
    pub started_at: Timestamp,
}

/// One step.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// Set a cluster setting; the former value is recorded first.
    SetSetting {
        /// Name.
        name: String,
        /// Value to set.
        value: String,
    },
    /// Prove once more that `nodes` are removed, then clear what they left on `host`. Needs [`Plan::consent`].
    ClearData {
        /// The host that shall join.
        host: HostName,
        /// The removed nodes that had its address.
        nodes: Vec<NodeId>,
        /// Their stores, pinned.
        stores: BTreeSet<StoreId>,
        /// The directories, and what becomes of each.
        directories: Vec<OldDirectory>,
    },
    /// Make certificates for `host`, install them there, and keep older ones aside.
    Certify {
        /// Where its node will run.
        host: HostName,
        /// How they are made; never [`Present`](Certificates::Present).
        method: Certificates,
        /// SHA-256 of the certificate of the cluster's authority, as 64 lower-case hex digits.
        authority: String,
    },
    /// Start a node on `host` and wait until it is proven to have joined.
    Join {
        /// Where.
        host: HostName,
        /// The address that it will advertise.
        address: Address,
        /// The sub-command.
        mode: StartMode,
        /// Members that stay, at least one.
        join: Vec<Address>,
    },
    /// Wait until ranges and leases are spread evenly, or nothing moves any more.
    AwaitBalance,
    /// Set the decommissioning bit of these nodes, in one call.
    Mark {
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// Wait until no range names a store of these nodes.
    AwaitEmpty {
        /// The nodes.
        nodes: Vec<NodeId>,
    },
    /// Make an emptied node refuse clients.
    Drain {
        /// The node.
        node: NodeId,
    },
    /// Confirm once more that the node is empty, stop it, and wait until the survivors hold it for removed.
    Stop {
        /// The node.
        node: NodeId,
    },
    /// Put back the value recorded by the [`SetSetting`](Self::SetSetting) of the same name, if it is still ours.
    RestoreSetting {
        /// Name.
        name: String,
    },
    /// Prove the end state from nodes that stay.
    Verify {
        /// Nodes that must be members.
        members: Vec<NodeId>,
        /// Hosts whose new nodes must be members.
        joined: Vec<HostName>,
        /// Nodes that must have left.
        left: Vec<NodeId>,
        /// Whether they are stopped or left running empty.
        finish: Finish,
    },
}

/// A directory with a removed node's data.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct OldDirectory {
    /// Absolute path: a store, or a time-series directory, of the host's description.
    pub path: String,
    /// Where it is moved, in the same parent directory; its content is deleted when `None`.
    pub aside: Option<String>,
    /// Everything that lies in it, by name: only this is cleared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<OldEntry>,
}

/// What lies in a directory with a removed node's data.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct OldEntry {
    /// Its name.
    pub name: String,
    /// Whether no store of KWDB has entries of that name. Such a thing is never deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
}

impl OldDirectory {
    /// SHA-256 of the names in order, one a line, as hex digits: that of `sort | sha256sum` in the C locale.
    pub fn digest(&self) -> String {
        let mut names: Vec<&str> = self.entries.iter().map(|e| e.name.as_str()).collect();
        names.sort_unstable();
        let lines: String = names.iter().flat_map(|name| [*name, "\n"]).collect();
        canonical::sha256_hex(&lines)
    }
}

impl Step {
    /// A short stable name, such as `join`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SetSetting { .. } => "set-setting",
            Self::ClearData { .. } => "clear-data",
            Self::Certify { .. } => "certify",
            Self::Join { .. } => "join",
            Self::AwaitBalance => "await-balance",
            Self::Mark { .. } => "mark",
            Self::AwaitEmpty { .. } => "await-empty",
            Self::Drain { .. } => "drain",
            Self::Stop { .. } => "stop",
            Self::RestoreSetting { .. } => "restore-setting",
            Self::Verify { .. } => "verify",
        }
    }
}

/// Why a plan's JSON cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Not JSON, or not of a plan's shape.
    #[error("this is not a plan: {0}")]
    Shape(#[source] serde_json::Error),
    /// Written by another major version.
    #[error("the plan has schema '{0}', this library reads '{SCHEMA}': make the plan again")]
    Schema(String),
    /// The id does not fit the content.
    #[error(
        "the plan was changed after it was made: its id is {id}, its content gives {actual}; make the plan again"
    )]
    Changed {
        /// Id in the file.
        id: String,
        /// Id of the content.
        actual: String,
    },
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Out, in or replace.
    pub fn kind(&self) -> OperationKind {
        self.change.kind
    }

    /// The canonical JSON text, ending in a newline.
    pub fn to_json(&self) -> Result<String, PlanError> {
        let mut text = canonical::to_string(self).map_err(PlanError::Shape)?;
        text.push('\n');
        Ok(text)
    }

    /// Reads a plan; refuses another schema and content that does not fit its id.
    ///
    /// ```
    /// # use kwdb_scale_core::plan::{Plan, PlanError};
    /// assert!(matches!(Plan::from_json("{}"), Err(PlanError::Shape(_))));
    /// ```
    pub fn from_json(text: &str) -> Result<Self, PlanError> {
        let plan: Self = schema::read(text, SCHEMA).map_err(|e| match e {
            ReadError::Shape { source, .. } => PlanError::Shape(source),
            ReadError::Schema { found, .. } => PlanError::Schema(found),
        })?;
        // The text itself is judged, so that a field that a later minor version added does no harm.
        let mut bare: serde_json::Value = serde_json::from_str(text).map_err(PlanError::Shape)?;
        if let Some(id) = bare.get_mut("id") {
            *id = serde_json::Value::String(String::new());
        }
        let actual = id_of(&bare)?;
        if plan.id != actual {
            return Err(PlanError::Changed { id: plan.id, actual });
        }
        Ok(plan)
    }

    /// The id that fits the content.
    pub fn content_id(&self) -> Result<String, PlanError> {
        let bare = Self { id: String::new(), ..self.clone() };
        id_of(&bare)
    }

    /// The token with which a caller consents to what this plan clears: needed by
    /// [`Operation::begin_with_consent`](crate::execute::Operation::begin_with_consent). It holds the plan's id, so it
    /// cannot be given before there is a plan, nor for another one. `None` when nothing is cleared.
    pub fn consent(&self) -> Option<String> {
        let clears = self.steps.iter().any(|s| matches!(s, Step::ClearData { .. }));
        clears.then(|| format!("clear-{}", self.id))
    }

    /// The leaving node with this id.
    pub fn leaving(&self, node: NodeId) -> Option<&Leaving> {
        self.leaving.iter().find(|l| l.node == node)
    }
}

fn id_of<T: Serialize>(bare: &T) -> Result<String, PlanError> {
    let text = canonical::to_string(bare).map_err(PlanError::Shape)?;
    Ok(canonical::sha256_hex(&text).chars().take(16).collect())
}

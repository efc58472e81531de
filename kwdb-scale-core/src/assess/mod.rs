//! The catalogue of checks: what must hold, what should, and what is good to know before membership changes.
//!
//! [`resolve`] turns a request into a [`Change`] of membership, [`assess`] runs every [`Check`] of [`catalogue`] on
//! it. Both are pure: the same observation, request and policy give the same findings in the same order.

mod checks;
mod context;
mod finding;
mod resolve;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use checks::{Check, catalogue};
pub(crate) use checks::{OldDataOf, is_foreign};
pub use context::Context;
pub use finding::{Finding, Retry, Severity};
pub use resolve::resolve;

use crate::observation::Observation;
use crate::policy::Policy;
use crate::request::Request;
use crate::topology::{HostName, NodeId};

/// What a change amounts to, whatever it was asked as.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// The members are as wanted.
    Nothing,
    /// Nodes join, none leaves.
    Out,
    /// Nodes leave, none joins.
    In,
    /// Nodes join, then others leave.
    Replace,
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing to do",
            Self::Out => "scale-out",
            Self::In => "scale-in",
            Self::Replace => "replace",
        })
    }
}

/// A request resolved on an observation: who joins and who leaves.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Change {
    /// By whether there is something to add and to remove.
    pub kind: OperationKind,
    /// Hosts on which nodes are started, in the order of joining.
    pub add: Vec<HostName>,
    /// Nodes that leave, lowest id first.
    pub remove: Vec<NodeId>,
}

impl Change {
    /// A change with its kind.
    pub fn new(add: Vec<HostName>, mut remove: Vec<NodeId>) -> Self {
        remove.sort_unstable();
        let kind = match (add.is_empty(), remove.is_empty()) {
            (true, true) => OperationKind::Nothing,
            (false, true) => OperationKind::Out,
            (true, false) => OperationKind::In,
            (false, false) => OperationKind::Replace,
        };
        Self { kind, add, remove }
    }
}

/// What all checks say of a change.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Assessment {
    /// The change.
    pub change: Change,
    /// Refusals first (those for good before all others), then warnings, then information; within each in the order
    /// of the catalogue.
    pub findings: Vec<Finding>,
}

impl Assessment {
    /// Whether any check refuses.
    pub fn refused(&self) -> bool {
        self.refusals().next().is_some()
    }

    /// The refusals.
    pub fn refusals(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.severity == Severity::Refuse)
    }

    /// The gravest finding of each check that found something.
    pub fn verdicts(&self) -> BTreeMap<String, Severity> {
        let mut verdicts: BTreeMap<String, Severity> = BTreeMap::new();
        for finding in &self.findings {
            let worst = verdicts.entry(finding.check.clone()).or_insert(finding.severity);
            *worst = (*worst).max(finding.severity);
        }
        verdicts
    }
}

/// Resolves the request and runs every check that applies to what it amounts to.
pub fn assess(obs: &Observation, request: &Request, policy: &Policy) -> Assessment {
    let (change, mut findings) = resolve(obs, request);
    let context = Context::new(obs, request, policy, &change);
    for check in catalogue() {
        findings.extend(check.run(&context));
    }
    findings.sort_by_key(|f| (std::cmp::Reverse(f.severity), f.retry != Some(Retry::Never)));
    Assessment { change, findings }
}

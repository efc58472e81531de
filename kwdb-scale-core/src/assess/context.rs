//! What the checks look at, worked out once.

use std::collections::BTreeSet;

use crate::fact::Fact;
use crate::health::{RangeHealth, range_health};
use crate::observation::{Node, Observation};
use crate::policy::Policy;
use crate::request::Request;
use crate::topology::{HostName, Locality, NodeClass, StartMode, StoreId};
use crate::zone::ZoneSet;

use super::Change;

/// The input of a [`Check`](super::Check).
#[derive(Debug)]
pub struct Context<'a> {
    /// The cluster.
    pub obs: &'a Observation,
    /// What was asked.
    pub request: &'a Request,
    /// The thresholds.
    pub policy: &'a Policy,
    /// What it amounts to.
    pub change: &'a Change,
    /// Every zone.
    pub zones: Fact<ZoneSet>,
    /// Health of all ranges at the present number of members.
    pub health: Fact<RangeHealth>,
    /// The start mode of the cluster.
    pub mode: Fact<StartMode>,
    /// The nodes that leave.
    pub leaving: Vec<&'a Node>,
    /// Live Members that do not leave.
    pub staying: Vec<&'a Node>,
}

impl<'a> Context<'a> {
    /// Works out who stays and who leaves.
    pub fn new(obs: &'a Observation, request: &'a Request, policy: &'a Policy, change: &'a Change) -> Self {
        let leaves = |n: &Node| change.remove.contains(&n.id);
        Self {
            obs,
            request,
            policy,
            change,
            zones: obs.zones.as_ref().map(|rows| ZoneSet::build(rows)),
            health: range_health(obs, obs.counted_members(), &BTreeSet::new()),
            mode: obs.start_mode(),
            leaving: obs.nodes.values().filter(|n| leaves(n)).collect(),
            staying: obs.of_class(NodeClass::Member).filter(|n| !leaves(n)).collect(),
        }
    }

    /// Whether the cluster is known to run in single-replica mode.
    pub fn single_replica(&self) -> bool {
        self.mode.known() == Some(&StartMode::SingleReplica)
    }

    /// Live Members after the change.
    pub fn live_after(&self) -> usize {
        self.staying.len() + self.change.add.len()
    }

    /// What the allocator counts after the change: nodes without the bit, dead ones too.
    pub fn counted_after(&self) -> usize {
        let counted = self.obs.counted_members();
        let leaving =
            self.leaving.iter().filter(|n| matches!(n.class, NodeClass::Member | NodeClass::Dead)).count();
        (counted + self.change.add.len()).saturating_sub(leaving)
    }

    /// Localities of the leaving nodes, as far as they are known.
    pub fn leaving_localities(&self) -> Vec<&'a Locality> {
        self.leaving.iter().filter_map(|n| n.locality.known()).collect()
    }

    /// Stores of the leaving nodes.
    pub fn leaving_stores(&self) -> BTreeSet<StoreId> {
        self.leaving.iter().flat_map(|n| n.stores.keys().copied()).collect()
    }

    /// The inventory's host of a node.
    pub fn host_of(&self, node: &Node) -> Option<&'a HostName> {
        self.request.inventory.host_at(node.address.known()?)
    }
}

//! The facts that a plan rests on, and what drifted since it was made.
//!
//! Never counters, times or range ids: those change without anybody's doing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::assess::{Finding, Severity};
use crate::fact::Fact;
use crate::observation::Observation;
use crate::policy::{TS_DEAD_REBALANCE, TS_REBALANCE};
use crate::topology::{NodeClass, NodeId, StoreId};
use crate::zone::{ConstraintGroup, ZoneSet};

/// The settings that a plan relies on.
const RELIED_ON: [&str; 2] = [TS_REBALANCE, TS_DEAD_REBALANCE];

/// The facts that a plan rests on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fingerprint {
    /// Identity of the cluster.
    pub cluster_id: Fact<String>,
    /// Nodes that are not Removed.
    pub nodes: BTreeMap<NodeId, NodePrint>,
    /// Zone configurations by target.
    pub zones: BTreeMap<String, ZonePrint>,
    /// Values of the settings relied on.
    pub settings: BTreeMap<String, Fact<String>>,
    /// Checks that refused; a plan has none, so one that appears later is drift.
    pub refused: BTreeSet<String>,
}

/// What identifies a node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NodePrint {
    /// Member, Leaving, Dead.
    pub class: NodeClass,
    /// Store ids.
    pub stores: BTreeSet<StoreId>,
    /// RPC address.
    pub address: Fact<String>,
    /// Start mode.
    pub start_mode: Fact<String>,
    /// Build tag.
    pub build: Fact<String>,
}

/// What matters of a zone configuration.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ZonePrint {
    /// Replication factor.
    pub num_replicas: Fact<u32>,
    /// Constraints in a canonical order.
    pub constraints: Fact<String>,
}

/// One difference between two fingerprints.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Drift {
    /// What differs, such as `node 2: class`.
    pub what: String,
    /// What it was.
    pub was: String,
    /// What it is.
    pub now: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: was {}, is {}", self.what, self.was, self.now)
    }
}

impl Fingerprint {
    /// Takes the fingerprint of an observation and what the checks said of it.
    pub fn of(observation: &Observation, findings: &[Finding]) -> Self {
        let nodes = observation
            .nodes
            .values()
            .filter(|n| n.class != NodeClass::Removed)
            .map(|n| {
                let print = NodePrint {
                    class: n.class,
                    stores: n.stores.keys().copied().collect(),
                    address: n.address.clone().map(|a| a.to_string()),
                    start_mode: n.start_mode.clone().map(|m| m.to_string()),
                    build: n.build.clone(),
                };
                (n.id, print)
            })
            .collect();
        let zones = observation
            .zones
            .known()
            .map(|rows| {
                ZoneSet::build(rows)
                    .iter()
                    .map(|z| {
                        let constraints = z.constraints.clone().map(|groups| {
                            let mut texts: Vec<String> = groups.iter().map(group_text).collect();
                            texts.sort();
                            texts.join(" ")
                        });
                        (z.target.clone(), ZonePrint { num_replicas: z.num_replicas.clone(), constraints })
                    })
                    .collect()
            })
            .unwrap_or_default();
        let settings = RELIED_ON
            .iter()
            .map(|name| {
                let value = observation.setting(name).map(|v| v.unwrap_or("(no such setting)").to_owned());
                ((*name).to_owned(), value)
            })
            .collect();
        Self {
            cluster_id: observation.cluster_id.clone().map(|id| id.to_string()),
            nodes,
            zones,
            settings,
            refused: findings
                .iter()
                .filter(|f| f.severity == Severity::Refuse)
                .map(|f| f.check.clone())
                .collect(),
        }
    }

    /// What differs now, oldest value first; empty when the plan still fits.
    pub fn drift(&self, now: &Self) -> Vec<Drift> {
        let mut found = Vec::new();
        let mut note = |what: String, was: String, is: String| {
            if was != is {
                found.push(Drift { what, was, now: is });
            }
        };
        note("cluster id".into(), self.cluster_id.to_string(), now.cluster_id.to_string());
        let ids: BTreeSet<NodeId> = self.nodes.keys().chain(now.nodes.keys()).copied().collect();
        for id in ids {
            let what = |part: &str| format!("node {}: {part}", id.0);
            match (self.nodes.get(&id), now.nodes.get(&id)) {
                (Some(was), Some(is)) => {
                    note(what("class"), was.class.to_string(), is.class.to_string());
                    note(what("stores"), join(&was.stores), join(&is.stores));
                    note(what("address"), was.address.to_string(), is.address.to_string());
                    note(what("start mode"), was.start_mode.to_string(), is.start_mode.to_string());
                    note(what("build"), was.build.to_string(), is.build.to_string());
                }
                (Some(was), None) => note(what("class"), was.class.to_string(), "gone".into()),
                (None, Some(is)) => note(what("class"), "not there".into(), is.class.to_string()),
                (None, None) => {}
            }
        }
        let targets: BTreeSet<&String> = self.zones.keys().chain(now.zones.keys()).collect();
        for target in targets {
            let text = |zone: Option<&ZonePrint>| {
                zone.map_or("no configuration".to_owned(), |z| {
                    format!("num_replicas {} constraints [{}]", z.num_replicas, z.constraints)
                })
            };
            note(format!("zone {target}"), text(self.zones.get(target)), text(now.zones.get(target)));
        }
        for (name, was) in &self.settings {
            let is = now.settings.get(name).map_or("unknown".to_owned(), ToString::to_string);
            note(format!("setting {name}"), was.to_string(), is);
        }
        for check in now.refused.difference(&self.refused) {
            note(format!("check {check}"), "passed".into(), "refuses".into());
        }
        found
    }
}

fn group_text(group: &ConstraintGroup) -> String {
    let list: Vec<String> = group.constraints.iter().map(ToString::to_string).collect();
    match group.count {
        Some(count) => format!("{}: {count}", list.join(",")),
        None => list.join(","),
    }
}

fn join(stores: &BTreeSet<StoreId>) -> String {
    let list: Vec<String> = stores.iter().map(ToString::to_string).collect();
    if list.is_empty() { "none known".into() } else { list.join(", ") }
}

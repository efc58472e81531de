//! `recommission`: take back the decommissioning mark.

use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::observation::{Node, Observation};
use kwdb_scale_core::ports::{DecommissionControl, OperationLock};
use kwdb_scale_core::request::{Inventory, NodeRef};
use kwdb_scale_core::topology::{NodeClass, NodeId};

use crate::cli::Global;
use crate::connect::{Cluster, port_failure};
use crate::failure::{Exit, Failure};
use crate::ui::Ui;

pub(crate) async fn recommission(ui: &Ui, global: &Global, nodes: &[String]) -> Result<Exit, Failure> {
    let cluster = Cluster::open(&global.cluster)?;
    let config = &cluster.config;
    // An operation that still runs would take this for somebody else's doing.
    let lock = cluster.lock();
    let _held = lock.acquire("recommission").await.map_err(|e| port_failure("the operation lock", &e))?;
    let observation = cluster.observe(None).await?;
    let inventory = config.inventory();
    let mut ids: Vec<NodeId> = Vec::new();
    let mut clear: Vec<NodeId> = Vec::new();
    for name in nodes {
        let node = find(&observation, &inventory, name)?;
        match &node.decommissioning {
            Fact::Known(true) if !ids.contains(&node.id) => ids.push(node.id),
            Fact::Known(true) => {}
            Fact::Known(false) => clear.push(node.id),
            Fact::Unknown(why) => {
                return Err(Failure::new(
                    Exit::Refused,
                    format!("whether node {} is marked is unknown: {why}", node.id.0),
                ));
            }
        }
    }
    for id in &clear {
        ui.say(format_args!("node {} is not marked: nothing to do for it", id.0));
    }
    if !ids.is_empty() {
        let gateway = observation
            .of_class(NodeClass::Member)
            .filter(|n| !ids.contains(&n.id) && n.is_healthy() == Fact::Known(true))
            .filter_map(|n| observation.gateway_of(n, &inventory))
            .min_by_key(|g| (g.host.is_none(), g.node))
            .ok_or_else(|| {
                Failure::new(Exit::Refused, "no live member that stays is known, so nothing can be done")
            })?;
        let deadline = config.policy.act_deadline.unsigned_abs();
        cluster
            .kwbase
            .recommission(&gateway, &ids, deadline)
            .await
            .map_err(|e| port_failure("recommission failed", &e))?;
        // The mark travels by gossip: looked at again until it is seen to be gone.
        let until = tokio::time::Instant::now() + deadline;
        loop {
            let after = cluster.observe(None).await?;
            let left: Vec<String> = ids
                .iter()
                .filter(|id| after.nodes.get(id).is_none_or(|n| n.decommissioning != Fact::Known(false)))
                .map(|id| id.0.to_string())
                .collect();
            if left.is_empty() {
                break;
            }
            if tokio::time::Instant::now() >= until {
                return Err(Failure::other(format!("still marked after recommission: {}", left.join(", "))));
            }
            tokio::time::sleep(config.policy.poll.unsigned_abs()).await;
        }
    }
    let list = |ids: &[NodeId]| ids.iter().map(|n| n.0).collect::<Vec<_>>();
    if ui.json() {
        ui.print_json(&serde_json::json!({
            "schema": "kwscale.recommission/v1",
            "recommissioned": list(&ids),
            "not_marked": list(&clear),
        }))?;
    } else if !ids.is_empty() {
        let names: Vec<String> = ids.iter().map(|n| n.0.to_string()).collect();
        ui.print(format_args!("recommissioned: {}", names.join(", ")));
    }
    Ok(Exit::Done)
}

fn find<'a>(observation: &'a Observation, inventory: &Inventory, name: &str) -> Result<&'a Node, Failure> {
    let refuse = |why: String| Failure::new(Exit::Refused, why);
    match NodeRef::parse(name) {
        NodeRef::Id(id) => observation.nodes.get(&id).ok_or_else(|| {
            let known: Vec<String> = observation.nodes.keys().map(|n| n.0.to_string()).collect();
            refuse(format!(
                "no node {} is in the cluster's liveness table; it has {}",
                id.0,
                known.join(", ")
            ))
        }),
        NodeRef::Host(host) => {
            let entry = inventory.hosts.get(&host).ok_or_else(|| {
                refuse(format!("host '{host}' is not in the cluster's file; add it or give the node id"))
            })?;
            match observation.at_address(&entry.address).as_slice() {
                [node] => Ok(node),
                [] => Err(refuse(format!(
                    "no node of the cluster is at {} of host {host}; give the node id",
                    entry.address
                ))),
                _ => Err(refuse(format!(
                    "several nodes are at {} of host {host}; give the node id",
                    entry.address
                ))),
            }
        }
    }
}

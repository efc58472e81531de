//! `recommission`: take back the decommissioning mark.

use std::collections::BTreeSet;

use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::observation::{Node, Observation};
use kwdb_scale_core::ports::OperationLock;
use kwdb_scale_core::request::{Inventory, NodeRef};
use kwdb_scale_core::topology::{NodeClass, NodeId};

use super::{apply, unfinished};
use crate::cli::{Global, RecommissionArgs};
use crate::connect::{Cluster, port_failure};
use crate::failure::{Exit, Failure};
use crate::ui::Ui;

pub(crate) async fn recommission(ui: &Ui, global: &Global, args: &RecommissionArgs) -> Result<Exit, Failure> {
    let cluster = Cluster::open(&global.cluster).await?;
    let config = &cluster.config;
    // An operation that still runs would take this for somebody else's doing.
    let lock = cluster.lock();
    let held = match cluster.journal_dir(args.journal.as_deref()) {
        Ok(_) => {
            Some(lock.acquire("recommission").await.map_err(|e| port_failure("the operation lock", &e))?)
        }
        // The way back is not barred by a full or a missing disk: an operation that runs stops when it sees it.
        Err(e) => {
            ui.say(format_args!("warning: {e}; the mark is taken back without the lock"));
            None
        }
    };
    let observation = cluster.observe(None).await?;
    let inventory = config.inventory();
    let mut named: BTreeSet<NodeId> = BTreeSet::new();
    for name in &args.nodes {
        let node = find(&observation, &inventory, name)?;
        can_come_back(node)?;
        named.insert(node.id);
    }
    let is_marked =
        |id: &NodeId| observation.nodes.get(id).is_some_and(|n| n.decommissioning == Fact::Known(true));
    let (mut ids, clear): (BTreeSet<NodeId>, BTreeSet<NodeId>) = named.iter().copied().partition(is_marked);
    let mut recommissioned = ids.clone();
    for id in &clear {
        ui.say(format_args!("node {} is not marked: nothing to do for it", id.0));
    }
    // The operation that set the mark is undone by its own journal, so that it has ended and is not gone on with.
    let dir = args.journal.clone().unwrap_or_else(|| config.journal.clone());
    let mut undone = Vec::new();
    let unfinished = match (&held, observation.cluster_id.known()) {
        (Some(_), Some(id)) => unfinished::newest(&dir, id).await.unwrap_or_else(|e| {
            ui.say(format_args!("warning: {e}; the mark is taken back, and no operation is undone"));
            None
        }),
        _ => None,
    };
    if let Some((journal, ledger)) = unfinished {
        // Those that it marked; before the mark, those that were to leave. Who is gone already is not named any more.
        let is_there = |id: &NodeId| observation.nodes.get(id).is_some_and(|n| n.class != NodeClass::Removed);
        let mut ours = ledger.marked.clone();
        if ours.is_empty() && !ledger.restorable().is_empty() {
            ours.extend(ledger.plan.leaving.iter().map(|l| l.node));
        }
        ours.retain(is_there);
        if !ours.is_empty() && ours.is_subset(&named) {
            drop(held);
            undone = apply::undo(ui, &cluster, &ledger.plan.gateways, journal).await?;
            ids.retain(|id| !ours.contains(id));
        } else if !ours.is_disjoint(&named) {
            let others: Vec<NodeId> = ours.difference(&named).copied().collect();
            ui.say(format_args!(
                "warning: the operation that set the mark has marked node {} too, so it is not undone: it can be resumed, and will \
                 stop because somebody took a mark back; name them all here, or undo it with kwscale resume --undo",
                crate::report::ids(&others)
            ));
        }
    }
    if !ids.is_empty() {
        // The lock was given up for the undo, if there was one.
        let _held = match undone.is_empty() {
            true => None,
            false => {
                Some(lock.acquire("recommission").await.map_err(|e| port_failure("the operation lock", &e))?)
            }
        };
        take_back(ui, &cluster, &observation, &ids).await?;
    }
    // An undo leaves out who was told to stop and is on the way.
    let mut going = BTreeSet::new();
    if !undone.is_empty() {
        let after = cluster.observe(None).await?;
        let is_back =
            |id: &NodeId| after.nodes.get(id).is_some_and(|n| n.decommissioning == Fact::Known(false));
        (recommissioned, going) = recommissioned.into_iter().partition(is_back);
    }
    for id in &going {
        ui.say(format_args!("node {} was told to stop already: it stays marked, and goes", id.0));
    }
    let drained = |id: &&NodeId| observation.nodes.get(*id).is_some_and(|n| n.draining == Fact::Known(true));
    for id in recommissioned.iter().filter(drained) {
        ui.say(format_args!(
            "warning: node {} is drained: it refuses clients, and no other node may leave, until its process is ended \
             and started again on its own store",
            id.0
        ));
    }
    let list = |ids: &BTreeSet<NodeId>| ids.iter().map(|n| n.0).collect::<Vec<_>>();
    if ui.json() {
        ui.print_json(&serde_json::json!({
            "schema": "kwscale.recommission/v1",
            "recommissioned": list(&recommissioned),
            "not_marked": list(&clear),
            "going": list(&going),
            "undone": undone,
        }))?;
    } else {
        for line in &undone {
            ui.say(format_args!("the stopped operation was undone: {line}"));
        }
        if !recommissioned.is_empty() {
            let names: Vec<String> = recommissioned.iter().map(|n| n.0.to_string()).collect();
            ui.print(format_args!("recommissioned: {}", names.join(", ")));
        }
    }
    Ok(if going.is_empty() { Exit::Done } else { Exit::Failed })
}

/// A node that is gone is no member again because its mark is cleared: it would count as a dead one.
fn can_come_back(node: &Node) -> Result<(), Failure> {
    let refuse = |why: String| Err(Failure::new(Exit::Refused, why));
    match (node.class, &node.decommissioning) {
        (NodeClass::Removed, _) => refuse(format!(
            "node {} is removed: it holds nothing and its process is gone; without its mark it would count as a \
             dead member; cure: clear its store and scale out, it joins as a new node",
            node.id.0
        )),
        (_, Fact::Unknown(why)) => refuse(format!(
            "whether node {} is marked is unknown: {why}; cure: ask again when its liveness can be read",
            node.id.0
        )),
        _ => Ok(()),
    }
}

/// Clears the bit of these nodes and waits until that is seen.
async fn take_back(
    ui: &Ui,
    cluster: &Cluster,
    observation: &Observation,
    ids: &BTreeSet<NodeId>,
) -> Result<(), Failure> {
    let config = &cluster.config;
    let gateway = observation
        .of_class(NodeClass::Member)
        .filter(|n| !ids.contains(&n.id) && n.is_healthy() == Fact::Known(true))
        .filter_map(|n| observation.gateway_of(n, &config.inventory()))
        .min_by_key(|g| (g.host.is_none(), g.node))
        .ok_or_else(|| {
            Failure::new(Exit::Refused, "no live member that stays is known, so nothing can be done")
        })?;
    let deadline = config.policy.act_deadline.unsigned_abs();
    let list: Vec<NodeId> = ids.iter().copied().collect();
    let chosen = cluster.control(std::slice::from_ref(&gateway)).await?;
    ui.say(format_args!("by {}", chosen.means));
    chosen
        .control
        .recommission(&gateway, &list, deadline)
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
            return Ok(());
        }
        if tokio::time::Instant::now() >= until {
            return Err(Failure::other(format!("still marked after recommission: {}", left.join(", "))));
        }
        tokio::time::sleep(config.policy.poll.unsigned_abs()).await;
    }
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

//! The proof of the end state, from nodes that stay.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::super::event::Look;
use super::super::machine::{Ctx, State, Verdict};
use super::view::{Bit, ask, bit, counted, health_queries, seen, told_of_the_dead, unfit};
use crate::fact::Fact;
use crate::ports::ProcessState;
use crate::request::Finish;
use crate::rows::Query;
use crate::topology::{HostName, NodeClass, NodeId};

pub(super) fn look(state: &State, at: Timestamp, left: &[NodeId]) -> Look {
    let mut first = vec![Query::Cluster];
    first.extend(health_queries());
    let mut look = ask(state, at, &first, &[Query::Cluster, Query::Liveness]);
    look.processes.extend(left.iter().filter_map(|n| state.stop_target(*n, at)));
    look.certificates = super::certify::look_end(state, at);
    look
}

pub(super) fn judge(
    ctx: &mut Ctx<'_>,
    members: &[NodeId],
    joined: &[HostName],
    left: &[NodeId],
    finish: Finish,
) -> Verdict {
    let mut why = Vec::new();
    let mut expected: BTreeSet<NodeId> = members.iter().copied().collect();
    for host in joined {
        match ctx.state.ledger.joined.get(host) {
            Some(node) => {
                expected.insert(*node);
            }
            None => why.push(format!("host {host} has no new node")),
        }
    }
    let needed = ctx.state.views_needed();
    let views = seen(ctx.looked);
    if views.iter().filter(|v| v.liveness().is_some()).count() < needed {
        return Verdict::Wait(format!("{needed} members that stay to answer"));
    }
    let plan = ctx.plan();
    for view in &views {
        if let Some(cluster) = view.cluster()
            && cluster.cluster_id != plan.cluster_id
        {
            why.push(format!("{} answers for another cluster ({})", view.gateway, cluster.cluster_id));
        }
        for id in &expected {
            let live = view.row(*id).is_some_and(|(r, now)| {
                r.expiration.is_some_and(|e| e > now) && r.decommissioning == Some(false)
            });
            if !live {
                why.push(format!("node {} is not a live member by {}", id.0, view.gateway));
            }
        }
    }
    for id in left {
        why.extend(not_left(ctx, *id, finish, needed));
    }
    let leaving: BTreeSet<NodeId> = left.iter().copied().collect();
    why.extend(unfit(ctx, &leaving, counted(ctx)));
    if !why.is_empty() {
        return super::gate(ctx, why);
    }
    if let Some(verdict) = super::certify::judge_end(ctx) {
        return verdict;
    }
    let list: Vec<String> = ctx.obs.members().iter().map(|n| n.0.to_string()).collect();
    let ranges = ctx.obs.ranges.known().map_or(0, Vec::len);
    Verdict::Done(format!(
        "verified through {needed} members: nodes {} are live members; none of {ranges} ranges is unavailable{}{}{}",
        list.join(", "),
        if plan.start_mode == crate::topology::StartMode::MultiReplica { " or under-replicated" } else { "" },
        told_of_the_dead(ctx),
        left.iter()
            .map(|n| format!(
                "; node {} is {}",
                n.0,
                if finish == Finish::Stop { "removed" } else { "empty, still marked and running" }
            ))
            .collect::<String>()
    ))
}

/// Why a node has not left yet.
fn not_left(ctx: &Ctx<'_>, id: NodeId, finish: Finish, needed: usize) -> Option<String> {
    if bit(ctx.looked, id, needed) != Bit::Set {
        return Some(format!("node {} is not marked by {needed} members", id.0));
    }
    let node = ctx.obs.nodes.get(&id)?;
    match (&node.replicas, finish) {
        (Fact::Unknown(why), _) => Some(format!("replicas of node {}: {why}", id.0)),
        (Fact::Known(n), _) if *n > 0 => Some(format!("{n} ranges name a store of node {}", id.0)),
        (Fact::Known(_), Finish::LeaveDrained) => None,
        (Fact::Known(_), Finish::Stop) if node.class != NodeClass::Removed => {
            Some(format!("node {} is {} still", id.0, node.class))
        }
        (Fact::Known(_), Finish::Stop) if ctx.looked.processes.get(&id) == Some(&ProcessState::Running) => {
            // A machine may be re-used at once: an id that is Removed with a listener at its address is another
            // node only when the cluster knows it.
            let address = node.address.known()?;
            let reused = ctx.obs.at_address(address).iter().any(|n| n.class == NodeClass::Member);
            (!reused).then(|| format!("something still listens at {address}"))
        }
        (Fact::Known(_), Finish::Stop) => None,
    }
}

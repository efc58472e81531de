//! Marking nodes, and waiting until they are empty.
//!
//! Empty is zero by the meta scan through two gateways that stay, in several samples spaced by the server's clock,
//! while the bit is set. Where the port has a status, each sample wants that too to say zero through both. The node's own
//! gauges are never asked.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::super::event::{Look, Progress};
use super::super::machine::{Ctx, State, Verdict, scan_pause};
use super::super::nudge::{LISTED, Moving};
use super::super::record::{Act, ActResult, StopReason};
use super::view::{Bit, ask, bit, health_queries, not_there, seen, unfit};
use crate::fact::Fact;
use crate::plan::{Plan, ids};
use crate::rows::{Query, RangeRow};
use crate::topology::{NodeClass, NodeId, StoreId};

pub(super) fn pinned(plan: &Plan, nodes: &[NodeId]) -> BTreeSet<StoreId> {
    nodes.iter().filter_map(|n| plan.leaving(*n)).flat_map(|l| l.stores.iter().copied()).collect()
}

pub(super) fn look_mark(state: &State, at: Timestamp) -> Look {
    let first = if state.scratch.want_health {
        health_queries().to_vec()
    } else {
        vec![Query::Liveness, Query::Nodes, Query::Stores]
    };
    ask(state, at, &first, &[Query::Liveness])
}

pub(super) fn judge_mark(ctx: &mut Ctx<'_>, nodes: &[NodeId]) -> Verdict {
    let needed = ctx.state.views_needed();
    let bits: Vec<Bit> = nodes.iter().map(|n| bit(ctx.looked, *n, needed)).collect();
    let names = || ids(nodes);
    let ours = nodes.iter().any(|n| ctx.state.ledger.marked.contains(n));
    if bits.iter().all(|b| *b == Bit::Set) && ours {
        return Verdict::Done(format!("{} marked, seen through {needed} members", names()));
    }
    if bits.contains(&Bit::Unclear) {
        return Verdict::Wait("the members that stay to agree on which nodes are marked".into());
    }
    if matches!(ctx.state.ledger.last, Some((Act::Mark { .. }, ActResult::Done(_) | ActResult::Counted(_)))) {
        return Verdict::Wait("the mark to be seen by the members that stay".into());
    }
    if let Some(why) = changed_identity(ctx, nodes) {
        return Verdict::stop(StopReason::GateClosed, why);
    }
    if !ctx.state.scratch.want_health {
        ctx.state.scratch.want_health = true;
        return Verdict::Again;
    }
    // A partly done mark is finished, not refused: the nodes that are marked already are ours.
    let leaving: BTreeSet<NodeId> = if ours { nodes.iter().copied().collect() } else { BTreeSet::new() };
    let counted = ctx.obs.counted_members();
    let why = unfit(ctx, &leaving, counted);
    if !why.is_empty() {
        return super::gate(ctx, why);
    }
    super::attempt(ctx, Act::Mark { nodes: nodes.to_vec() }, &format!("marking {}", names()))
}

/// A leaving node that is not the one of the plan any more. `None` when all are, or when it cannot be told yet
/// (the gate then waits).
fn changed_identity(ctx: &Ctx<'_>, nodes: &[NodeId]) -> Option<String> {
    for id in nodes {
        let pinned = ctx.state.ledger.plan.leaving(*id)?;
        let node = ctx.obs.nodes.get(id)?;
        if let Some(address) = node.address.known().filter(|a| **a != pinned.address) {
            return Some(format!(
                "node {} is at {address} now, the plan knows it at {}",
                id.0, pinned.address
            ));
        }
        let stores: BTreeSet<StoreId> = node.stores.keys().copied().collect();
        if !stores.is_empty() && stores != pinned.stores {
            return Some(format!("node {} has other stores than the plan knows", id.0));
        }
    }
    None
}

pub(super) fn look_empty(state: &State, at: Timestamp, nodes: &[NodeId]) -> Look {
    let stores: Vec<StoreId> = pinned(&state.ledger.plan, nodes).into_iter().collect();
    let mut first = vec![Query::Liveness, Query::Nodes];
    let mut further = vec![Query::Liveness];
    if state.scratch.want_leftovers {
        let limit = state.policy().list_ranges;
        first.push(Query::RangesOn { stores: stores.clone(), limit });
    }
    let leases = Query::LeasesOn { stores: stores.clone(), limit: LISTED };
    if state.scratch.drain.scan_due(at) {
        first.push(Query::ReplicaCounts(stores.clone()));
        if state.scratch.want_health {
            further.push(Query::ReplicaCounts(stores));
        }
    }
    let mut look = ask(state, at, &first, &further);
    if state.scratch.drain.scan_due(at) && state.scratch.want_health {
        let gateways = state.gateways(at).into_iter().cloned();
        look.statuses = gateways.map(|via| (via, nodes.to_vec())).collect();
    }
    if let Some(via) = state.gateways(at).first() {
        state.scratch.nudges.ask(at, via, leases, &mut look);
    }
    look
}

pub(super) fn judge_empty(ctx: &mut Ctx<'_>, nodes: &[NodeId]) -> Verdict {
    let plan = ctx.plan();
    let needed = ctx.state.views_needed();
    for id in nodes {
        match bit(ctx.looked, *id, needed) {
            Bit::Set => {}
            Bit::Clear => return recommissioned(*id),
            Bit::Unclear => {
                ctx.state.scratch.samples.reset();
                let what = format!("{needed} members to say that node {} is still marked", id.0);
                return super::patience(ctx, what);
            }
        }
    }
    note_events(ctx, nodes);
    let stores = pinned(&plan, nodes);
    let views = seen(ctx.looked);
    let counts: Vec<(u64, Timestamp)> = views.iter().filter_map(|v| v.count(&stores)).collect();
    let asked = ctx.looked.replies.iter().any(|r| matches!(r.query, Query::ReplicaCounts(_)));
    if asked {
        let pause = scan_pause(ctx.state);
        ctx.state.scratch.drain.scanned(ctx.at, pause);
    }
    let counted = counts.first().copied();
    let scratch = &mut ctx.state.scratch;
    let drain = Moving {
        pace: plan.request.options.pace,
        left: counted.map_or(scratch.drain.left(), |(left, _)| left),
        watch: &scratch.drain,
        leaving: nodes,
        pause: plan.policy.poll,
    };
    let tell = scratch.nudges.judge(ctx.at, &drain, ctx.looked, ctx.obs);
    if let Some(text) = tell {
        ctx.note(text);
    }
    let Some((left, server_time)) = counted else {
        if asked {
            ctx.state.scratch.samples.reset();
            return super::patience(ctx, "the count of replicas on the leaving nodes".into());
        }
        if goes_on(ctx) {
            return Verdict::Again;
        }
        return Verdict::Wait("replicas to move".into());
    };
    let objection = objection(ctx, nodes);
    if objection.is_none() || left > 0 {
        ctx.state.scratch.gate_since = None;
    }
    ctx.state.scratch.drain.counted(ctx.at, left);
    let (per_minute, eta) = ctx.state.scratch.drain.pace();
    ctx.notify.push(Progress::Replicas { left, of: ctx.state.scratch.drain.of(), per_minute, eta });
    if left > 0 || counts.iter().any(|(n, _)| *n > 0) {
        ctx.state.scratch.samples.reset();
        ctx.state.scratch.want_health = false;
        return moving(ctx, left, nodes);
    }
    ctx.state.scratch.want_leftovers = false;
    if counts.len() < needed {
        // Zero by one member: from now on ask them both.
        let first_zero = !ctx.state.scratch.want_health;
        ctx.state.scratch.want_health = true;
        if first_zero {
            return Verdict::Wait("a second member to count zero as well".into());
        }
        ctx.state.scratch.samples.reset();
        return Verdict::Wait(format!("{needed} members to count the replicas"));
    }
    if let Some(waiting) = objection {
        ctx.state.scratch.samples.reset();
        return super::patience(ctx, waiting);
    }
    let (samples, spacing) = (plan.policy.samples.max(1), plan.policy.sample_spacing);
    let agreeing = ctx.state.scratch.samples.add(server_time, spacing);
    if agreeing >= samples {
        let asked = ctx.state.scratch.nudges.summary();
        return Verdict::Done(format!(
            "no range names a store of the leaving nodes: {agreeing} samples through {needed} members{asked}"
        ));
    }
    Verdict::Wait(format!("{samples} samples that agree on zero ({agreeing} so far)"))
}

/// What is waited for while the server's own status does not say that the nodes are marked and empty, through every member
/// that was asked. `None` too where the port has no status.
fn objection(ctx: &Ctx<'_>, nodes: &[NodeId]) -> Option<String> {
    ctx.looked.statuses.iter().find_map(|(gateway, said)| {
        let said = match said {
            Ok(None) => return None,
            Ok(Some(said)) => said,
            Err(why) => return Some(format!("the server's own count through {gateway} ({why})")),
        };
        nodes.iter().find_map(|node| match said.iter().find(|s| s.node == *node) {
            Some(status) if status.decommissioning && status.replicas == 0 => None,
            Some(status) if status.decommissioning => Some(format!(
                "the server's own count of replicas on node {}, {} through {gateway}, to be zero too",
                node.0, status.replicas
            )),
            _ => Some(format!("{gateway} to say that node {} is still marked", node.0)),
        })
    })
}

/// Whether there are ranges to ask for at once, and time for it: the deadline is looked at only between waits.
fn goes_on(ctx: &Ctx<'_>) -> bool {
    let until = ctx.entered().checked_add(ctx.state.policy().empty_deadline);
    ctx.state.scratch.nudges.has_work(ctx.at) && until.is_ok_and(|until| ctx.at < until)
}

/// Replicas are left: fine while they move; a stall is explained and stops the operation.
fn moving(ctx: &mut Ctx<'_>, left: u64, nodes: &[NodeId]) -> Verdict {
    let limit = ctx.state.policy().stall_after;
    if ctx.state.scratch.drain.idle(ctx.at) < limit {
        if goes_on(ctx) {
            return Verdict::Again;
        }
        return Verdict::Wait(format!("{left} replicas to move"));
    }
    let leftovers = seen(ctx.looked).iter().find_map(|v| v.leftovers().map(<[RangeRow]>::to_vec));
    let ranges = match (leftovers, ctx.state.scratch.want_leftovers) {
        (Some(ranges), _) => ranges,
        (None, false) => {
            ctx.state.scratch.want_leftovers = true;
            return Verdict::Again;
        }
        (None, true) => {
            ctx.note("the ranges that are left could not be listed");
            Vec::new()
        }
    };
    let mut evidence: Vec<String> = ranges
        .iter()
        .map(|r| {
            let stores: Vec<String> = r.replicas.iter().map(ToString::to_string).collect();
            let table = match (&r.database, &r.table) {
                (Some(d), Some(t)) if !t.is_empty() => format!(" of {d}.{t}"),
                _ => String::new(),
            };
            format!("{} at {}{table} on {}", r.range_id, r.start_key, stores.join(", "))
        })
        .collect();
    evidence.extend(ctx.state.scratch.nudges.reasons().take(ctx.state.policy().list_ranges as usize));
    let down: Vec<String> = ctx.obs.of_class(NodeClass::Dead).map(|n| n.id.0.to_string()).collect();
    if !down.is_empty() {
        evidence.push(format!("nodes down: {}", down.join(", ")));
    }
    let list = ids(nodes);
    Verdict::stop_with(
        StopReason::Stalled,
        format!("{left} replicas on {list} have not moved for {limit:#}; no other store takes them"),
        evidence,
        super::next_moves(ctx.state),
    )
}

pub(super) fn recommissioned(node: NodeId) -> Verdict {
    Verdict::stop_with(
        StopReason::Recommissioned,
        format!("node {} was recommissioned by someone else while it was leaving", node.0),
        vec!["the mark that this operation had set is cleared".to_owned()],
        vec!["ask who did it; then make a new plan, or leave the node in".to_owned()],
    )
}

/// Tells of what happens to nodes meanwhile; none of it ends the wait.
fn note_events(ctx: &mut Ctx<'_>, nodes: &[NodeId]) {
    let plan = ctx.plan();
    let mut notes = Vec::new();
    for node in ctx.obs.nodes.values() {
        if nodes.contains(&node.id) {
            if node.is_available == Fact::Known(false) {
                notes
                    .push(format!("leaving node {} is down; its replicas are moved all the same", node.id.0));
            }
            let was = plan.leaving(node.id).map(|l| l.started_at);
            if let (Some(now), Some(was)) = (node.started_at.known(), was)
                && *now != was
            {
                notes.push(format!("leaving node {} was restarted at {now}", node.id.0));
            }
        } else if node.class == NodeClass::Dead && plan.fingerprint.nodes.contains_key(&node.id) {
            notes.push(format!("member {} is down", node.id.0));
        }
    }
    for note in notes {
        ctx.note(note);
    }
}

pub(super) fn look_drain(state: &State, at: Timestamp, node: NodeId) -> Look {
    let count = Query::ReplicaCounts(pinned(&state.ledger.plan, &[node]).into_iter().collect());
    ask(state, at, &[Query::Liveness, Query::Nodes, count.clone()], &[Query::Liveness, count])
}

/// A drain cannot be undone, so the node must still be ours and empty, and at its address.
pub(super) fn judge_drain(ctx: &mut Ctx<'_>, node: NodeId) -> Verdict {
    let id = node.0;
    let needed = ctx.state.views_needed();
    match bit(ctx.looked, node, needed) {
        Bit::Set => {}
        Bit::Clear => return recommissioned(node),
        Bit::Unclear => {
            return Verdict::Wait(format!("{needed} members to say that node {id} is still marked"));
        }
    }
    let stores = pinned(&ctx.plan(), &[node]);
    let views = seen(ctx.looked);
    let counts: Vec<u64> = views.iter().filter_map(|v| v.count(&stores)).map(|(n, _)| n).collect();
    if let Some(left) = counts.iter().copied().find(|n| *n > 0) {
        return refilled(ctx, node, left, "drained");
    }
    let rows: Vec<_> = views.iter().filter_map(|v| v.row(node)).collect();
    if rows.iter().filter(|(row, now)| row.expiration.is_some_and(|e| e <= *now)).count() >= needed {
        return Verdict::Done(format!("node {id} is down already"));
    }
    if rows.iter().all(|(row, _)| row.draining == Some(true)) {
        return Verdict::Done(format!("node {id} is drained"));
    }
    if counts.len() < needed {
        return Verdict::Wait(format!("{needed} members to count the replicas on node {id}"));
    }
    if matches!(ctx.state.ledger.last, Some((Act::Drain { .. }, ActResult::Done(_)))) {
        return Verdict::Wait(format!("the drain of node {id} to be seen"));
    }
    if let Some(why) = not_there(ctx, node) {
        return super::gate(ctx, vec![why]);
    }
    super::attempt(ctx, Act::Drain { node }, &format!("draining node {id}"))
}

/// An emptied node holds replicas again.
pub(super) fn refilled(ctx: &Ctx<'_>, node: NodeId, left: u64, not: &str) -> Verdict {
    Verdict::stop_with(
        StopReason::GateClosed,
        format!("node {} holds {left} replicas again; it was not {not}", node.0),
        Vec::new(),
        super::next_moves(ctx.state),
    )
}

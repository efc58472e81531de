//! Stopping an emptied node: the gate, the last confirmation, the act, and the proof from the survivors.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp, Unit};

use super::super::event::Look;
use super::super::machine::{Ctx, State, Verdict};
use super::super::record::{Act, ActResult, StopReason};
use super::leave::{pinned, recommissioned, refilled};
use super::view::{Bit, ask, bit, health_queries, not_there, seen, successor, unfit};
use crate::fact::Fact;
use crate::plan::Step;
use crate::ports::ProcessState;
use crate::rows::Query;
use crate::topology::{NodeId, StoreId};

/// A confirmation older than this is made again before the stop.
const CONFIRMATION_LASTS: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn look(state: &State, at: Timestamp, node: NodeId) -> Look {
    let stores: Vec<StoreId> = pinned(&state.ledger.plan, &[node]).into_iter().collect();
    let count = Query::ReplicaCounts(stores);
    let mut first = vec![Query::Liveness, Query::Nodes, count.clone()];
    if state.scratch.want_health {
        first = health_queries().to_vec();
        first.push(count.clone());
    }
    let mut look = ask(state, at, &first, &[Query::Liveness, count]);
    look.processes.extend(state.stop_target(node, at));
    look
}

pub(super) fn judge(ctx: &mut Ctx<'_>, node: NodeId) -> Verdict {
    let needed = ctx.state.views_needed();
    let id = node.0;
    match bit(ctx.looked, node, needed) {
        Bit::Set => {}
        Bit::Clear => return recommissioned(node),
        Bit::Unclear => {
            return Verdict::Wait(format!("{needed} members to say that node {id} is still marked"));
        }
    }
    let plan = ctx.plan();
    let stores = pinned(&plan, &[node]);
    let views = seen(ctx.looked);
    let counts: Vec<u64> = views.iter().filter_map(|v| v.count(&stores)).map(|(n, _)| n).collect();
    if counts.len() < needed {
        return Verdict::Wait(format!("{needed} members to count the replicas on node {id}"));
    }
    if let Some(left) = counts.iter().copied().find(|n| *n > 0) {
        return refilled(ctx, node, left, "stopped");
    }
    let expired = views
        .iter()
        .filter_map(|v| v.row(node))
        .filter(|(row, now)| row.expiration.is_some_and(|e| e <= *now))
        .count();
    let process = ctx.looked.processes.get(&node).copied().unwrap_or(ProcessState::Unknown);
    let successor = successor(ctx, node);
    let ended_there = ctx.state.ledger.ended_there.contains(&node);
    if successor.is_none() && came_back(ctx, node, process, expired) {
        return brought_back(ctx, node);
    }
    if expired >= needed && process == ProcessState::Running && successor.is_none() {
        // Frozen, or cut off, or somebody else's process: a stop could hit the wrong one or none.
        let address = plan.leaving(node).map_or_else(String::new, |l| l.address.to_string());
        return super::patience(
            ctx,
            format!("node {id}, whose liveness has expired, to stop listening at {address} or to come back"),
        );
    }
    if expired >= needed && process == ProcessState::Unknown && successor.is_none() && !ended_there {
        return unproven(ctx, node);
    }
    if expired >= needed {
        let stays_down = ctx.state.policy().stays_down;
        let since = *ctx.state.scratch.down_since.get_or_insert(ctx.at);
        let down_for = ctx.at.duration_since(since);
        if successor.is_none() && down_for < stays_down {
            let left = (stays_down - down_for).round(Unit::Second).unwrap_or(stays_down);
            return Verdict::Wait(format!("node {id} to stay down for another {left:#}"));
        }
        let proof = match (successor, process) {
            (Some(other), _) => format!("its address is that of node {} now", other.0),
            (None, ProcessState::Stopped) => "nothing listens at its address".to_owned(),
            (None, _) => "its process was ended, and its address could not be tried since".to_owned(),
        };
        return Verdict::Done(format!(
            "node {id} is removed: {needed} members hold its liveness for expired, no range names its stores, {proof}"
        ));
    }
    if process == ProcessState::Stopped {
        return Verdict::Wait(format!("node {id} to be held for removed by the members that stay"));
    }
    if expired > 0 {
        return Verdict::Wait(format!("the members that stay to agree on whether node {id} is up"));
    }
    match ctx.state.ledger.last.clone() {
        Some((Act::Stop { .. }, ActResult::Done(_))) => {
            Verdict::Wait(format!("node {id} to be held for removed by the members that stay"))
        }
        Some((Act::Stop { .. }, ActResult::Failed { kind, .. }))
            if kind.may_have_been_done() && stop_is_recent(ctx) =>
        {
            Verdict::Wait(format!("node {id} to stop: the stop command was lost, the cluster will tell"))
        }
        Some((Act::Confirm { .. }, ActResult::Counted(counted))) if confirmation_is_recent(ctx) => {
            match counted.get(&node) {
                Some(0) => fit_to_stop(ctx, node),
                Some(left) => Verdict::stop_with(
                    StopReason::GateClosed,
                    format!("the server counts {left} replicas on node {id}; it was not stopped"),
                    Vec::new(),
                    super::next_moves(ctx.state),
                ),
                None => Verdict::Wait(format!("the server's own count for node {id}")),
            }
        }
        last => {
            if let Some((act @ Act::Stop { .. }, ActResult::Failed { .. })) = &last {
                match super::attempt(ctx, act.clone(), &format!("stopping node {id}")) {
                    // Not without a count that is newer.
                    Verdict::Act(_) => {}
                    other => return other,
                }
            }
            confirm(ctx, node)
        }
    }
}

/// The members hold it for expired, and nobody knows of its process: it may be cut off and come back.
fn unproven(ctx: &mut Ctx<'_>, node: NodeId) -> Verdict {
    let id = node.0;
    let (address, host) = ctx.plan().leaving(node).map_or_else(Default::default, |leaving| {
        let host = leaving.host.as_ref().map_or_else(|| "its host".to_owned(), |host| format!("host {host}"));
        (leaving.address.to_string(), host)
    });
    let waiting = format!("proof that the process of node {id} has ended: nothing answers from {address}");
    match super::patience(ctx, waiting) {
        Verdict::Stop(mut stopped) => {
            stopped.evidence.insert(
                0,
                format!(
                    "node {id} is empty and marked, and its liveness has expired; it may be cut off, and comes back when it \
                     is not any more"
                ),
            );
            stopped
                .next
                .insert(0, format!("let {host} be reached, or end the process there by hand, then resume"));
            stopped.next.push(format!(
                "if {host} is gone for good, the cluster holds node {id} for removed already: leave it so, and never let that \
                 machine come back with its old store"
            ));
            Verdict::Stop(stopped)
        }
        verdict => verdict,
    }
}

/// Whether the node was down and is up again, or was started again since its stop: its service manager does that.
fn came_back(ctx: &Ctx<'_>, node: NodeId, process: ProcessState, expired: usize) -> bool {
    let scratch = &ctx.state.scratch;
    if scratch.down_since.is_some() && (process == ProcessState::Running || expired == 0) {
        return true;
    }
    let stopped = matches!(ctx.state.ledger.last, Some((Act::Stop { .. }, ActResult::Done(_))));
    stopped
        && expired == 0
        && match (scratch.stopped_start, ctx.obs.nodes.get(&node).map(|n| &n.started_at)) {
            (Some(was), Some(Fact::Known(now))) => *now > was,
            _ => false,
        }
}

fn brought_back(ctx: &Ctx<'_>, node: NodeId) -> Verdict {
    let id = node.0;
    Verdict::stop_with(
        StopReason::GateClosed,
        format!("node {id} was stopped and was started again by something else, such as its service manager"),
        vec!["it is empty and marked; nothing is lost while it runs".to_owned()],
        std::iter::once(format!(
            "tell what owns its process (owner of its host), or disable that, then resume: node {id} is stopped again"
        ))
        .chain(super::next_moves(ctx.state))
        .collect(),
    )
}

fn stop_is_recent(ctx: &Ctx<'_>) -> bool {
    let limit = ctx.state.policy().removed_deadline;
    ctx.state.scratch.acted_at.is_some_and(|t| ctx.at.duration_since(t) < limit)
}

fn confirmation_is_recent(ctx: &Ctx<'_>) -> bool {
    ctx.state.scratch.acted_at.is_some_and(|t| ctx.at.duration_since(t) < CONFIRMATION_LASTS)
}

/// The gate once more, on facts that are newer than the confirmation.
fn fit_to_stop(ctx: &mut Ctx<'_>, node: NodeId) -> Verdict {
    if let Some(verdict) = closed_gate(ctx, node) {
        return verdict;
    }
    ctx.state.scratch.stopped_start = ctx.obs.nodes.get(&node).and_then(|n| n.started_at.known().copied());
    Verdict::Act(Act::Stop { node })
}

/// The gate, then the server's own count.
fn confirm(ctx: &mut Ctx<'_>, node: NodeId) -> Verdict {
    if let Some(verdict) = closed_gate(ctx, node) {
        return verdict;
    }
    ctx.state.scratch.gate_since = None;
    let act = Act::Confirm { nodes: vec![node] };
    super::attempt(ctx, act, &format!("counting the replicas on node {}", node.0))
}

/// What to do instead of the act: look at everything first, or wait. `None` when the gate is open.
fn closed_gate(ctx: &mut Ctx<'_>, node: NodeId) -> Option<Verdict> {
    if !ctx.state.scratch.want_health {
        ctx.state.scratch.want_health = true;
        return Some(Verdict::Again);
    }
    let why = unfit_to_stop(ctx, node);
    (!why.is_empty()).then(|| super::gate(ctx, why))
}

fn unfit_to_stop(ctx: &Ctx<'_>, node: NodeId) -> Vec<String> {
    let mut why = unfit(ctx, &marked_nodes(ctx), ctx.obs.counted_members());
    why.extend(not_there(ctx, node));
    why
}

/// Leaving nodes that were marked up to here. Those of later batches are members still.
fn marked_nodes(ctx: &Ctx<'_>) -> BTreeSet<NodeId> {
    let plan = ctx.plan();
    plan.steps
        .iter()
        .take(ctx.state.ledger.cursor)
        .filter_map(|s| match s {
            Step::Mark { nodes } => Some(nodes.clone()),
            _ => None,
        })
        .flatten()
        .collect()
}

//! Taking back what can be taken back: the mark, and settings.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::super::event::Look;
use super::super::machine::{Ctx, State, Verdict};
use super::super::record::{Act, ActResult, StopReason};
use super::view::{Bit, ask, bit, seen};
use super::{certify, setting};
use crate::plan::{Step, ids};
use crate::rows::Query;
use crate::topology::{HostName, NodeId};

pub(in super::super) fn look(state: &State, at: Timestamp) -> Look {
    let names: Vec<String> = state.ledger.wanted_back().into_keys().collect();
    let mut first = vec![Query::Liveness];
    if !state.ledger.started.is_empty() {
        first.push(Query::Nodes);
    }
    if !names.is_empty() {
        first.push(Query::Settings(names));
    }
    Look { certificates: certify::look_undo(state, at), ..ask(state, at, &first, &[Query::Liveness]) }
}

pub(in super::super) fn judge(ctx: &mut Ctx<'_>) -> Verdict {
    let needed = ctx.state.views_needed();
    let mut targets = ctx.state.ledger.recommissionable();
    match stayed(ctx) {
        Ok(nodes) => targets.extend(nodes),
        Err(waiting) => return waiting,
    }
    // A mark whose end was not told may have left more behind than the bit, which taking it back removes.
    let in_doubt = ctx.state.ledger.begun.iter().any(Act::marks);
    let set: Vec<NodeId> =
        targets.iter().copied().filter(|n| in_doubt || bit(ctx.looked, *n, needed) != Bit::Clear).collect();
    if !set.is_empty() {
        let list = ids(&set);
        if matches!(ctx.state.ledger.last, Some((Act::Recommission { .. }, ActResult::Done(_)))) {
            return Verdict::Wait(format!("the mark of {list} to be seen cleared"));
        }
        return super::attempt(ctx, Act::Recommission { nodes: set }, &format!("recommissioning {list}"));
    }
    if let Some(verdict) = certify::judge_undo(ctx) {
        return verdict;
    }
    for name in ctx.state.ledger.wanted_back().into_keys() {
        match setting::judge_restore(ctx, &name) {
            Verdict::Done(_) => {}
            other => return other,
        }
    }
    // The mark that was taken back is of a later state of the record than the drain, so a drain of ours is seen.
    let is_draining = |n: &NodeId| {
        seen(ctx.looked).iter().any(|s| s.row(*n).is_some_and(|(r, _)| r.draining == Some(true)))
    };
    let draining: Vec<NodeId> = targets.into_iter().filter(is_draining).collect();
    if !draining.is_empty() {
        let list = ids(&draining);
        return Verdict::stop_with(
            StopReason::Cancelled,
            format!(
                "the mark was taken back, but what was drained stays so until it is started again: {list}"
            ),
            Vec::new(),
            vec![format!(
                "end the process of {list}, start it again on its own store, then resume the operation"
            )],
        );
    }
    let gone: Vec<NodeId> = ctx
        .state
        .ledger
        .stopped
        .iter()
        .copied()
        .filter(|n| bit(ctx.looked, *n, needed) != Bit::Clear)
        .collect();
    if !gone.is_empty() {
        let list = ids(&gone);
        let back: Vec<NodeId> = ctx.state.ledger.recommissionable().into_iter().collect();
        let back = match back.is_empty() {
            true => "what could be put back is".to_owned(),
            false => format!("what could be put back is: the mark of {}", ids(&back)),
        };
        return Verdict::Done(format!(
            "{back}; {list}, which was told to stop already, stays marked and goes"
        ));
    }
    Verdict::Done("no mark and no setting that was to be put back is left".into())
}

/// Nodes that were told to stop, and did not: the command was lost, or never sent. Whether one that is up is about to go
/// cannot be told at once, so that is waited for.
fn stayed(ctx: &Ctx<'_>) -> Result<Vec<NodeId>, Verdict> {
    let needed = ctx.state.views_needed();
    let views = seen(ctx.looked);
    let is_up = |id: &NodeId| {
        let rows: Vec<_> = views.iter().filter_map(|v| v.row(*id)).collect();
        rows.len() >= needed
            && rows
                .iter()
                .all(|(row, now)| row.expiration.is_some_and(|e| e > *now) && row.draining == Some(false))
    };
    let stopped = ctx.state.ledger.stopped.iter().copied();
    let up: Vec<NodeId> = stopped.filter(|id| !ctx.state.ledger.was_marked_before(id) && is_up(id)).collect();
    let marked = up.iter().any(|id| bit(ctx.looked, *id, needed) != Bit::Clear);
    if marked && ctx.at.duration_since(ctx.entered()) < ctx.state.policy().act_deadline {
        let list = ids(&up);
        return Err(Verdict::Wait(format!("{list} to go, or to show that the command to stop never came")));
    }
    Ok(up)
}

/// What the undo came to, one a line.
pub(in super::super) fn summary(state: &State, note: String) -> Vec<String> {
    let mut lines = vec![note];
    if let Some(Step::Join { host, .. }) = state.step_at_hand()
        && state.ledger.started.contains(host)
        && !state.ledger.joined.contains_key(host)
    {
        let unseen = state.scratch.over.iter().find_map(|(act, why)| match act {
            Act::Start { host: started, .. } if started == host => why.as_ref(),
            _ => None,
        });
        lines.push(match unseen {
            Some(why) => format!("a node was started on host {host} and may still join by itself ({why})"),
            None => format!("the node that was started on host {host} did not join and runs no more"),
        });
    }
    for certification in state.ledger.restorable_certificates() {
        lines.push(format!("host {} has the certificates that it had before", certification.host));
    }
    let archives: BTreeSet<&HostName> = state.ledger.left_archives().map(|c| &c.host).collect();
    for host in state.ledger.certified.keys().filter(|host| state.ledger.started.contains(*host)) {
        if !state.ledger.joined.contains_key(host) && !archives.contains(host) {
            lines.push(format!(
                "the certificates that were made for host {host} stay there: a node was started with them"
            ));
        }
    }
    for certification in state.ledger.left_archives() {
        lines.push(format!(
            "no archive with the authority's private key is left on host {}, nor anything that its join had kept aside",
            certification.host
        ));
    }
    let back = state.ledger.wanted_back();
    for (name, saved) in &back {
        let old = saved.old.as_deref().unwrap_or("what it was");
        lines.push(format!("{name} is {old}, unless somebody else gave it another value meanwhile"));
    }
    for (name, saved) in state.ledger.saved.iter().filter(|(name, _)| !back.contains_key(*name)) {
        lines.push(format!("{name} stays {}, as the request wants it", saved.ours));
    }
    for (host, node) in &state.ledger.joined {
        lines.push(format!("node {} on host {host} has joined and stays a member", node.0));
    }
    lines
}

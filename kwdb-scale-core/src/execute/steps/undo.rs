//! Taking back what can be taken back: the mark, and settings.

use jiff::Timestamp;

use super::super::event::Look;
use super::super::machine::{Ctx, State, Verdict};
use super::super::record::{Act, ActResult, StopReason};
use super::setting;
use super::view::{Bit, ask, bit, seen};
use crate::plan::{Step, ids};
use crate::rows::Query;
use crate::topology::NodeId;

pub(in super::super) fn look(state: &State, at: Timestamp) -> Look {
    let names: Vec<String> = state.ledger.restorable().into_keys().collect();
    let mut first = vec![Query::Liveness];
    if !names.is_empty() {
        first.push(Query::Settings(names));
    }
    ask(state, at, &first, &[Query::Liveness])
}

pub(in super::super) fn judge(ctx: &mut Ctx<'_>) -> Verdict {
    let needed = ctx.state.views_needed();
    let targets = ctx.state.ledger.recommissionable();
    let set: Vec<NodeId> =
        targets.iter().copied().filter(|n| bit(ctx.looked, *n, needed) != Bit::Clear).collect();
    if !set.is_empty() {
        let list = ids(&set);
        if matches!(ctx.state.ledger.last, Some((Act::Recommission { .. }, ActResult::Done(_)))) {
            return Verdict::Wait(format!("the mark of {list} to be seen cleared"));
        }
        return super::attempt(ctx, Act::Recommission { nodes: set }, &format!("recommissioning {list}"));
    }
    for name in ctx.state.ledger.restorable().into_keys() {
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
    if !ctx.state.ledger.stopped.is_empty() {
        let stopped: Vec<NodeId> = ctx.state.ledger.stopped.iter().copied().collect();
        let list = ids(&stopped);
        return Verdict::stop_with(
            StopReason::Cancelled,
            format!("{list}: told to stop already, which cannot be undone; what could be was put back"),
            Vec::new(),
            vec![
                "re-add the machines as new nodes with empty stores, or scale in what is left by a new plan"
                    .to_owned(),
            ],
        );
    }
    Verdict::Done("no mark and no setting that was to be put back is left".into())
}

/// What the undo came to, one a line.
pub(in super::super) fn summary(state: &State, note: String) -> Vec<String> {
    let mut lines = vec![note];
    if let Some(Step::Join { host, .. }) = state.step_at_hand().filter(|_| state.ledger.attempted) {
        lines.push(format!("a node was started on host {host} and may still join by itself"));
    }
    let back = state.ledger.restorable();
    for (name, saved) in state.ledger.saved.iter().filter(|(name, _)| !back.contains_key(*name)) {
        lines.push(format!("{name} stays {}, as the request wants it", saved.ours));
    }
    for (host, node) in &state.ledger.joined {
        lines.push(format!("node {} on host {host} has joined and stays a member", node.0));
    }
    lines
}

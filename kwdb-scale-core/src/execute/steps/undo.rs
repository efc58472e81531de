//! Taking back what can be taken back: the mark, and settings.

use jiff::Timestamp;

use super::super::event::Look;
use super::super::machine::{Ctx, State, Verdict};
use super::super::record::{Act, ActResult, StopReason};
use super::setting;
use super::view::{Bit, ask, bit};
use crate::rows::Query;
use crate::topology::NodeId;

fn targets(state: &State) -> Vec<NodeId> {
    state.ledger.marked.difference(&state.ledger.stopped).copied().collect()
}

pub(in super::super) fn look(state: &State, at: Timestamp) -> Look {
    let names: Vec<String> = state.ledger.saved.keys().cloned().collect();
    let mut first = vec![Query::Liveness];
    if !names.is_empty() {
        first.push(Query::Settings(names));
    }
    ask(state, at, &first, &[Query::Liveness])
}

pub(in super::super) fn judge(ctx: &mut Ctx<'_>) -> Verdict {
    let needed = ctx.state.views_needed();
    let targets = targets(ctx.state);
    let set: Vec<NodeId> =
        targets.iter().copied().filter(|n| bit(ctx.looked, *n, needed) != Bit::Clear).collect();
    if !set.is_empty() {
        let list = set.iter().map(|n| n.0.to_string()).collect::<Vec<_>>().join(", ");
        if matches!(ctx.state.ledger.last, Some((Act::Recommission { .. }, ActResult::Done(_)))) {
            return Verdict::Wait(format!("the mark of nodes {list} to be seen cleared"));
        }
        return super::attempt(
            ctx,
            Act::Recommission { nodes: set },
            &format!("recommissioning nodes {list}"),
        );
    }
    let names: Vec<String> = ctx.state.ledger.saved.keys().cloned().collect();
    for name in names {
        match setting::judge_restore(ctx, &name) {
            Verdict::Done(_) => {}
            other => return other,
        }
    }
    if !ctx.state.ledger.stopped.is_empty() {
        let list = ctx.state.ledger.stopped.iter().map(|n| n.0.to_string()).collect::<Vec<_>>().join(", ");
        return Verdict::stop_with(
            StopReason::Cancelled,
            format!(
                "nodes {list} were stopped already, which cannot be undone; the others were recommissioned"
            ),
            Vec::new(),
            vec!["resume the operation, or re-add the machines as new nodes with empty stores".to_owned()],
        );
    }
    Verdict::Done("no mark and no setting of this operation is left".into())
}

/// What the undo came to, one a line.
pub(in super::super) fn summary(state: &State, note: String) -> Vec<String> {
    let mut lines = vec![note];
    for (host, node) in &state.ledger.joined {
        lines.push(format!("node {} on host {host} has joined and stays a member", node.0));
    }
    lines
}

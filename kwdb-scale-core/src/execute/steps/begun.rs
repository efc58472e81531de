//! Acts that were begun and whose end is not known: the operator was ended in the middle, or the connection was lost. What
//! was begun may still go on, so nothing is judged, repeated or undone before it is over.
//!
//! Over: the port that did it sees nothing of it any more in two looks, because a command that is just about to begin shows
//! only in the second; or a node that was started has joined. Where that cannot be told,
//! it is waited for as long as the act may take. After that only a look that is newer counts.

use jiff::{SignedDuration, Timestamp};

use super::super::driver::ACT_MARGIN;
use super::super::event::Begun;
use super::super::machine::{Ctx, Stage, State, Verdict};
use super::super::record::{Act, Record, StopReason};
use super::join::candidate;
use super::view::seen;
use crate::fact::Fact;
use crate::plan::{Step, ids};
use crate::ports::{BegunMark, BegunWork, ClearData};
use crate::topology::NodeId;

/// The acts that may still go on. For an undo also every start of a node that did not join: its command coming back
/// says nothing.
fn open(state: &State) -> Vec<Act> {
    let mut acts = state.ledger.begun.clone();
    if state.scratch.stage == Stage::Undo {
        for step in &state.ledger.plan.steps {
            let Step::Join { host, address, mode, join } = step else { continue };
            let (host, address, mode, join) = (host.clone(), address.clone(), mode.clone(), join.clone());
            if state.ledger.started.contains(&host) && !state.ledger.joined.contains_key(&host) {
                let start = Act::Start { host, address, mode, join };
                acts.retain(|a| *a != start);
                acts.push(start);
            }
        }
    }
    acts.retain(|act| !state.scratch.over.iter().any(|(over, _)| over == act));
    acts
}

/// What to ask of which port; `None` for acts that end with whoever waits for them, or that wait for one another on their
/// host.
fn question(state: &State, at: Timestamp, act: &Act) -> Option<Begun> {
    let mark = |nodes: &[NodeId]| {
        let leaving = nodes.iter().filter_map(|n| state.ledger.plan.leaving(*n));
        Begun::Mark(BegunMark {
            nodes: nodes.to_vec(),
            hosts: leaving.filter_map(|l| l.host.clone()).collect(),
            via: state.ledger.plan.gateways.clone(),
        })
    };
    match act {
        Act::Mark { nodes } | Act::Confirm { nodes } | Act::Recommission { nodes } => Some(mark(nodes)),
        Act::Start { host, .. } => Some(Begun::Work(BegunWork::Start(host.clone()))),
        Act::ClearData { host, directories } => Some(Begun::Work(BegunWork::ClearData(ClearData {
            host: host.clone(),
            directories: directories.clone(),
            deadline: super::act_deadline(state, act).unsigned_abs(),
        }))),
        Act::Drain { node } | Act::Stop { node } => {
            let via = state.ledger.plan.gateways.clone();
            state.stop_target(*node, at).map(|node| Begun::Work(BegunWork::Stop { node, via }))
        }
        Act::SetSetting { .. }
        | Act::RestoreSetting { .. }
        | Act::Certify { .. }
        | Act::RestoreCertificates { .. }
        | Act::CleanCertificates { .. } => None,
    }
}

/// How long it may take until it is known of every such act, or until it had the time to end.
pub(in super::super) fn patience(state: &State) -> SignedDuration {
    let acts = open(state);
    let acts = acts.iter().chain(&state.ledger.begun);
    acts.map(|act| super::act_deadline(state, act).saturating_add(ACT_MARGIN)).max().unwrap_or_default()
}

pub(in super::super) fn look(state: &State, at: Timestamp) -> Vec<(Act, Begun)> {
    open(state).into_iter().filter_map(|act| question(state, at, &act).map(|begun| (act, begun))).collect()
}

/// What to wait for before anything else. `None` when nothing that was begun may still go on.
pub(in super::super) fn judge(ctx: &mut Ctx<'_>) -> Option<Verdict> {
    let open: Vec<Act> = look(ctx.state, ctx.at).into_iter().map(|(act, _)| act).collect();
    let mut verdict = None;
    for act in open {
        match still(ctx, &act) {
            Ok(why_unseen) => {
                ctx.state.scratch.over.push((act, why_unseen));
                // What was looked at may be older than its end.
                verdict = Some(Verdict::Again);
            }
            Err(waiting) => return Some(waiting),
        }
    }
    verdict
}

/// What to do about an act that may go on. `Ok` when it is over, with the reason when that could not be looked up.
fn still(ctx: &mut Ctx<'_>, act: &Act) -> Result<Option<String>, Verdict> {
    if let Act::Start { host, address, .. } = act {
        let row = seen(ctx.looked)
            .iter()
            .filter_map(|s| candidate(ctx.state, s.nodes()?, host, address))
            .find(|row| row.is_live == Some(true))
            .map(|row| row.node_id);
        if let Some(node) = row {
            if ctx.state.scratch.stage == Stage::Undo {
                ctx.records.push(Record::Joined { host: host.clone(), node });
            }
            return Ok(None);
        }
    }
    let limit = super::act_deadline(ctx.state, act).saturating_add(ACT_MARGIN);
    let since = ctx.state.scratch.acted_at.map_or(ctx.entered(), |acted| acted.max(ctx.entered()));
    let is_late = ctx.at.duration_since(since) >= limit;
    let told = ctx.looked.begun.iter().find(|(a, _)| a == act).map(|(_, fact)| fact.clone());
    if matches!(told, Some(Fact::Known(Some(_)))) {
        ctx.state.scratch.quiet.retain(|(a, _)| a != act);
    }
    match told.unwrap_or_else(|| Fact::unknown("it was not looked at")) {
        Fact::Known(None) => {
            let quiet = &mut ctx.state.scratch.quiet;
            let since = quiet.iter().find(|(a, _)| a == act).map(|(_, since)| *since);
            if since.is_some_and(|since| since < ctx.at) {
                return Ok(None);
            }
            if since.is_none() {
                quiet.push((act.clone(), ctx.at));
            }
            Err(Verdict::Wait(format!("{} to show itself, if it still goes on", words(act))))
        }
        // A node that starts has the time that its step gives it.
        Fact::Known(Some(what)) if is_late && !is_forward_start(ctx, act) => Err(Verdict::stop_with(
            StopReason::Deadline,
            format!("{what} still goes on after {limit:#}; until it is over nothing is repeated or undone"),
            super::standing(ctx.state),
            std::iter::once("let it end, or end it on its host".to_owned())
                .chain(super::next_moves(ctx.state))
                .collect(),
        )),
        Fact::Known(Some(what)) => Err(Verdict::Wait(match act {
            Act::Start { .. } => format!("{what} to join or to end"),
            _ => format!("{what} to end"),
        })),
        Fact::Unknown(why) if is_late => {
            ctx.note(format!(
                "whether {} still goes on could not be looked up ({why}); it had {limit:#} to end",
                words(act)
            ));
            Ok(Some(why))
        }
        Fact::Unknown(why) => {
            let words = words(act);
            Err(Verdict::Wait(format!(
                "{words} to be over, which cannot be looked up ({why}): {limit:#} in all"
            )))
        }
    }
}

fn is_forward_start(ctx: &Ctx<'_>, act: &Act) -> bool {
    matches!(act, Act::Start { .. }) && ctx.state.scratch.stage == Stage::Step
}

fn words(act: &Act) -> String {
    match act {
        Act::Mark { nodes } | Act::Confirm { nodes } => format!("the mark of {}", ids(nodes)),
        Act::Recommission { nodes } => format!("the recommissioning of {}", ids(nodes)),
        Act::Start { host, .. } => format!("the start on host {host}"),
        Act::ClearData { host, .. } => format!("the clearing of old data on host {host}"),
        Act::Drain { node } => format!("the drain of {node}"),
        Act::Stop { node } => format!("the stop of {node}"),
        _ => "an act".to_owned(),
    }
}

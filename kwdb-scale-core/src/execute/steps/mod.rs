//! The reconcilers: for each step what to look at and how to judge it.

pub(super) mod balance;
pub(super) mod begun;
pub(in super::super) mod certify;
pub(super) mod clear;
pub(super) mod join;
pub(super) mod leave;
pub(super) mod preflight;
pub(super) mod setting;
pub(super) mod stop;
pub(super) mod undo;
pub(super) mod verify;
mod view;

use jiff::{SignedDuration, Timestamp};

use super::event::Look;
use super::machine::{Ctx, State, Verdict};
use super::record::{Act, ActResult, Cancel, StopReason, Stopped};
use crate::plan::{Step, ids};
use crate::topology::NodeId;

/// Times that an act which fails for a passing reason is tried.
const TRIES: u32 = 3;
/// Between tries after those, doubled each time, so often.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(2);
const DOUBLINGS: u32 = 4;

pub(super) fn look(state: &State, at: Timestamp) -> Look {
    match state.step_at_hand() {
        Some(Step::SetSetting { name, .. } | Step::RestoreSetting { name }) => setting::look(state, at, name),
        Some(Step::ClearData { host, stores, .. }) => clear::look(state, at, host, stores),
        Some(Step::Certify { host, method, authority }) => certify::look(state, at, host, *method, authority),
        Some(Step::Join { host, .. }) => join::look(state, at, host),
        Some(Step::AwaitBalance) => balance::look(state, at),
        Some(Step::Mark { .. }) => leave::look_mark(state, at),
        Some(Step::AwaitEmpty { nodes }) => leave::look_empty(state, at, nodes),
        Some(Step::Drain { node }) => leave::look_drain(state, at, *node),
        Some(Step::Stop { node }) => stop::look(state, at, *node),
        Some(Step::Verify { left, .. }) => verify::look(state, at, left),
        None => Look::default(),
    }
}

pub(super) fn judge(ctx: &mut Ctx<'_>) -> Verdict {
    let plan = ctx.plan();
    match plan.steps.get(ctx.state.ledger.cursor) {
        Some(Step::SetSetting { name, value }) => setting::judge_set(ctx, name, value),
        Some(Step::RestoreSetting { name }) => setting::judge_restore(ctx, name),
        Some(Step::ClearData { host, nodes, stores, directories }) => {
            clear::judge(ctx, host, nodes, stores, directories)
        }
        Some(Step::Certify { host, method, authority }) => certify::judge(ctx, host, *method, authority),
        Some(Step::Join { host, address, mode, join }) => join::judge(ctx, host, address, mode, join),
        Some(Step::AwaitBalance) => balance::judge(ctx),
        Some(Step::Mark { nodes }) => leave::judge_mark(ctx, nodes),
        Some(Step::AwaitEmpty { nodes }) => leave::judge_empty(ctx, nodes),
        Some(Step::Drain { node }) => leave::judge_drain(ctx, *node),
        Some(Step::Stop { node }) => stop::judge(ctx, *node),
        Some(Step::Verify { members, joined, left, finish }) => {
            verify::judge(ctx, members, joined, left, *finish)
        }
        None => Verdict::Done("nothing left to do".into()),
    }
}

/// How long the step at hand may take.
pub(super) fn deadline(state: &State) -> SignedDuration {
    let policy = state.policy();
    match state.step_at_hand() {
        Some(Step::Join { .. }) => policy.start_deadline.saturating_add(policy.join_deadline),
        Some(Step::ClearData { .. }) => policy.join_deadline.saturating_add(policy.start_deadline),
        Some(Step::AwaitBalance) => policy.balance_deadline,
        Some(Step::AwaitEmpty { .. }) => policy.empty_deadline,
        Some(Step::Stop { .. }) => {
            policy.stop_deadline.saturating_add(policy.removed_deadline).saturating_add(policy.stall_after)
        }
        Some(Step::Drain { .. }) => policy.stop_deadline.saturating_add(policy.act_deadline),
        Some(Step::Certify { .. } | Step::Mark { .. } | Step::Verify { .. }) => policy.join_deadline,
        Some(Step::SetSetting { .. } | Step::RestoreSetting { .. }) | None => {
            policy.act_deadline.saturating_mul(4)
        }
    }
}

/// How long an act may take.
pub(super) fn act_deadline(state: &State, act: &Act) -> SignedDuration {
    let policy = state.policy();
    match act {
        Act::Drain { .. } | Act::Stop { .. } => policy.stop_deadline,
        Act::Start { .. } | Act::ClearData { .. } => policy.start_deadline,
        Act::Certify { .. } | Act::RestoreCertificates { .. } | Act::CleanCertificates { .. } => {
            certify::deadline(&state.ledger)
        }
        _ => policy.act_deadline,
    }
}

/// What can be done about an operation that stopped here.
pub(super) fn next_moves(state: &State) -> Vec<String> {
    let undoing = state.ledger.cancel == Some(Cancel::Undo);
    let goes_on = if undoing { "goes on undoing" } else { "goes on from here" };
    let mut next = vec![format!("resume the operation: it looks again and {goes_on}")];
    let undo: Vec<String> = state.ledger.recommissionable().iter().map(|n| n.0.to_string()).collect();
    if !undo.is_empty() {
        next.push(format!("recommission {}: takes the mark back, replicas may return", undo.join(" ")));
    }
    for (name, saved) in &state.ledger.saved {
        if let (Some(old), false) = (&saved.old, state.ledger.restored.contains(name)) {
            next.push(format!("{name} is '{}' now and was '{old}' before the operation", saved.ours));
        }
    }
    next
}

fn standing(state: &State) -> Vec<String> {
    let ledger = &state.ledger;
    let mut lines = vec![format!(
        "{} of {} steps are done; at hand: {}",
        ledger.cursor,
        ledger.plan.steps.len(),
        ledger.plan.describe(ledger.cursor)
    )];
    if let Some(Step::Join { host, .. }) = state.step_at_hand().filter(|_| ledger.attempted)
        && ledger.started.contains(host)
    {
        lines.push(format!("a node may have been started on host {host}; it goes on joining by itself then"));
    }
    let (failed, marked): (Vec<NodeId>, Vec<NodeId>) =
        ledger.marked.iter().copied().partition(|n| ledger.mark_failed(*n));
    if !marked.is_empty() {
        lines.push(format!("marked as decommissioning: {}", ids(&marked)));
    }
    if !failed.is_empty() {
        lines.push(format!(
            "the mark of {} failed; the cluster tells whether it is set all the same",
            ids(&failed)
        ));
    }
    for certification in ledger.restorable_certificates() {
        let host = &certification.host;
        lines.push(match state.scratch.as_before.contains(host) {
            true => format!("the certificates of host {host} are those that it had before"),
            false => {
                format!(
                    "certificates of host {host} may have been replaced; an undo puts back what was there"
                )
            }
        });
    }
    for certification in ledger.left_archives() {
        lines.push(format!(
            "the archive with the private key of the certificates' authority may lie on host {}: a join that succeeds removes \
             it where it is deploy.sh's, and so does an undo",
            certification.host
        ));
    }
    for (host, node) in &ledger.joined {
        lines.push(format!("node {} joined on host {host}", node.0));
    }
    lines
}

pub(super) fn cancelled(state: &State) -> Stopped {
    Stopped {
        reason: StopReason::Cancelled,
        message: "stopped on request; everything was left as it is".into(),
        evidence: standing(state),
        next: next_moves(state),
    }
}

pub(super) fn deadline_reached(state: &State, limit: SignedDuration, waiting_for: &str) -> Stopped {
    Stopped {
        reason: StopReason::Deadline,
        message: format!("the deadline of {limit:#} passed while waiting for {waiting_for}"),
        evidence: standing(state),
        next: next_moves(state),
    }
}

pub(super) fn no_gateway() -> Stopped {
    Stopped {
        reason: StopReason::GateClosed,
        message: "the plan names no member through which anything could be done".into(),
        evidence: Vec::new(),
        next: Vec::new(),
    }
}

/// An act. One that failed for a passing reason is tried again: at once, through other members where there are some, at most
/// [`TRIES`] times; then after pauses that grow, for as long as four acts may take. An sshd that is started again, or a network
/// that is away for a moment, ends no operation. Else it stops.
fn attempt(ctx: &Ctx<'_>, act: Act, what: &str) -> Verdict {
    let scratch = &ctx.state.scratch;
    let Some((_, ActResult::Failed { kind, message })) =
        ctx.state.ledger.last.as_ref().filter(|(last, _)| *last == act)
    else {
        return Verdict::Act(act);
    };
    if !kind.is_transient() {
        return stopped(ctx, StopReason::ActFailed, format!("{what} failed: {message}"));
    }
    // What is taken up again after a replay begins anew.
    let (Some(since), Some(last)) = (scratch.failing_since, scratch.acted_at) else {
        return Verdict::Act(act);
    };
    if scratch.tries < TRIES {
        return Verdict::Act(act);
    }
    let patience = ctx.state.policy().act_deadline.saturating_mul(4);
    if ctx.at.duration_since(since) >= patience {
        // What passes by itself is gone on with when it has passed; anything else wants a person.
        return stopped(
            ctx,
            StopReason::GateClosed,
            format!("{what} failed, {} times in {patience:#}: {message}", scratch.tries),
        );
    }
    let doublings = (scratch.tries - TRIES).min(DOUBLINGS);
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings);
    if ctx.at.duration_since(last) >= pause {
        return Verdict::Act(act);
    }
    Verdict::Wait(format!("another try: {what} failed: {message}"))
}

fn stopped(ctx: &Ctx<'_>, reason: StopReason, message: String) -> Verdict {
    Verdict::stop_with(reason, message, standing(ctx.state), next_moves(ctx.state))
}

/// Something that must be known is not: wait for it, and stop after the policy's stall time.
fn patience(ctx: &mut Ctx<'_>, waiting_for: String) -> Verdict {
    let limit = ctx.state.policy().stall_after;
    if ctx.gate_open_for() < limit {
        return Verdict::Wait(waiting_for);
    }
    stopped(ctx, StopReason::GateClosed, format!("waited {limit:#} in vain for {waiting_for}"))
}

/// The gate before an act stays closed: wait for it to open, and stop after the policy's stall time. Before the first
/// act the plan is compared again instead, so that drift which shows only now refuses.
fn gate(ctx: &mut Ctx<'_>, why: Vec<String>) -> Verdict {
    if ctx.state.ledger.cursor == 0 && !ctx.state.ledger.attempted {
        return Verdict::Unfit(why);
    }
    let open_for = ctx.gate_open_for();
    let limit = ctx.state.policy().stall_after;
    let first = why.first().cloned().unwrap_or_default();
    if open_for >= limit {
        return Verdict::stop_with(
            StopReason::GateClosed,
            format!("the cluster is not fit for the next act since {limit:#}: {first}"),
            why,
            next_moves(ctx.state),
        );
    }
    Verdict::Wait(format!("the cluster to be fit for the next act: {first}"))
}

//! Before the first act: does the plan still fit the cluster, and do the checks still pass?

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::super::event::Look;
use super::super::machine::{Ctx, State, Verdict};
use super::super::record::StopReason;
use super::clear::differs;
use super::view::seen;
use crate::assess::{Change, Severity, assess};
use crate::fact::Fact;
use crate::host_facts::StoreContent;
use crate::observation::{Observation, full_survey, view_survey};
use crate::plan::{Drift, Fingerprint, OldDirectory, Plan, Step};
use crate::topology::HostName;

/// Looks that must find the plan unfit before it is refused: at the default pause of 2 s they span the 10 s by which
/// nodes' own gauges lag.
const LOOKS: u32 = 8;
/// The same when half of the time for the comparison is gone.
const LEAST_LOOKS: u32 = 2;

/// The hosts that were looked at when the plan was made, so that its checks find what they found then: those that join,
/// those of the nodes, and the control host.
pub(super) fn hosts(plan: &Plan) -> Vec<HostName> {
    let inventory = &plan.request.inventory;
    let mut hosts: BTreeSet<HostName> = plan.change.add.iter().chain(&inventory.control).cloned().collect();
    let addresses: BTreeSet<&str> =
        plan.fingerprint.nodes.values().filter_map(|n| n.address.known().map(String::as_str)).collect();
    let of_nodes = inventory.hosts.iter().filter(|(_, entry)| addresses.contains(entry.address.as_str()));
    hosts.extend(of_nodes.map(|(name, _)| name.clone()));
    hosts.into_iter().collect()
}

pub(in super::super) fn look(state: &State, at: Timestamp) -> Look {
    let mut look = super::view::ask(state, at, &full_survey(), &view_survey());
    let plan = &state.ledger.plan;
    look.hosts = hosts(plan);
    if plan.request.concerns_authority() {
        look.authority = Some(plan.gateways.iter().filter_map(|g| g.host.clone()).take(2).collect());
    }
    look
}

pub(in super::super) fn judge(ctx: &mut Ctx<'_>) -> Verdict {
    let answered = seen(ctx.looked).iter().filter(|s| s.liveness().is_some()).count();
    if answered < ctx.state.views_needed() && ctx.state.scratch.tries < super::TRIES {
        ctx.state.scratch.tries += 1;
        return Verdict::Wait(format!("{} members that stay to answer", ctx.state.views_needed()));
    }
    let plan = ctx.plan();
    let assessment = assess(ctx.obs, &plan.request, &plan.policy);
    let now = Fingerprint::of(ctx.obs, &assessment.findings);
    let mut drift = plan.fingerprint.drift(&now);
    drift.extend(restarted(&plan, ctx.obs));
    let refusals: Vec<String> = assessment
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Refuse)
        .map(ToString::to_string)
        .chain(old_data(&plan, ctx.obs))
        .collect();
    if drift.is_empty() && refusals.is_empty() && assessment.change == plan.change {
        return Verdict::Done("the plan fits the cluster; nothing drifted since it was made".into());
    }
    // Gossip may lose sight of a node for a moment, and gauges lag ten seconds; what is really so is so in the next
    // looks as well. Where looks take long, fewer of them say so before the deadline.
    let spent = ctx.at.duration_since(ctx.entered());
    let in_time = spent.checked_mul(2).is_some_and(|twice| twice < plan.policy.join_deadline);
    if ctx.state.scratch.tries < if in_time { LOOKS } else { LEAST_LOOKS } {
        ctx.state.scratch.tries += 1;
        return Verdict::Wait("the cluster to be as the plan knows it".into());
    }
    let mut evidence: Vec<String> = drift.iter().map(|d| format!("drift: {d}")).collect();
    evidence.extend(refusals);
    if assessment.change != plan.change {
        let (now, was) = (text(&assessment.change), text(&plan.change));
        evidence.push(format!("drift: the request means {now} now, the plan says {was}"));
    }
    let message = if drift.is_empty() {
        "a check refuses now; nothing was done".to_owned()
    } else {
        format!("the cluster drifted from the plan ({}); nothing was done", drift.len())
    };
    let next = vec!["mend what is listed, or make the plan again".to_owned()];
    Verdict::stop_with(StopReason::Refused, message, evidence, next)
}

/// Leaving nodes that are another incarnation than the plan's.
fn restarted(plan: &Plan, obs: &Observation) -> Vec<Drift> {
    plan.leaving
        .iter()
        .filter_map(|leaving| {
            let now = obs.nodes.get(&leaving.node)?.started_at.known()?;
            (*now != leaving.started_at).then(|| Drift {
                what: format!("node {}: start time", leaving.node.0),
                was: leaving.started_at.to_string(),
                now: now.to_string(),
            })
        })
        .collect()
}

/// Old data that is not what the consent was given for. The step looks again, but others would be done before it.
fn old_data(plan: &Plan, obs: &Observation) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &plan.steps {
        let Step::ClearData { host, directories, .. } = step else { continue };
        let stores = obs.hosts.get(host).and_then(Fact::known).map(|facts| facts.stores.iter());
        for store in stores.into_iter().flatten() {
            let Fact::Known(StoreContent::InUse(names)) = &store.content else { continue };
            let none = OldDirectory { path: store.path.clone(), aside: None, entries: Vec::new() };
            let planned = directories.iter().find(|d| d.path == store.path).unwrap_or(&none);
            lines.extend(differs(planned, names, false).map(|why| format!("host {host}: {why}")));
        }
    }
    lines
}

fn text(change: &Change) -> String {
    let add: Vec<String> = change.add.iter().map(ToString::to_string).collect();
    let remove: Vec<String> = change.remove.iter().map(|n| n.0.to_string()).collect();
    format!("{} (add [{}], remove [{}])", change.kind, add.join(", "), remove.join(", "))
}

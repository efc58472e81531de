//! Starting a node and proving that it joined.
//!
//! Joined: live through two old gateways, with an id never seen before, the planned address and start mode, the
//! cluster's build and id, the bit not set, and nothing under-replicated at the new member count. Exit codes and
//! ready messages prove nothing: `start --background` reports success within two seconds, joined or not.

use jiff::Timestamp;

use super::super::event::Look;
use super::super::machine::{Ctx, State, Verdict};
use super::super::nudge::{LISTED, Moving};
use super::super::record::{Act, ActResult, Record, StopReason};
use super::view::{ask, brief, counted, health_queries, range_trouble, seen, short_ranges, told_of_the_dead};
use crate::fact::Fact;
use crate::host_facts::first_names;
use crate::plan::ids;
use crate::ports::{Readiness, StoreContent};
use crate::rows::{NodeRow, Query};
use crate::topology::{Address, HostName, NodeClass, NodeId, StartMode};

pub(super) fn look(state: &State, at: Timestamp, host: &HostName) -> Look {
    let mut first = vec![Query::Cluster, Query::Liveness, Query::Nodes];
    if state.scratch.want_health {
        first.extend(health_queries().into_iter().filter(|q| !matches!(q, Query::Liveness | Query::Nodes)));
    }
    let mut look = ask(state, at, &first, &[Query::Liveness, Query::Nodes]);
    if state.scratch.want_health
        && let Some(entry) = state.ledger.plan.request.inventory.hosts.get(host)
    {
        let own = entry.sql_address.clone().unwrap_or_else(|| entry.address.clone());
        look.asks.push((own, Query::Cluster));
        look.ready.push(entry.address.clone());
    }
    if state.scratch.want_host {
        look.hosts.push(host.clone());
    }
    ask_servers(state, at, &mut look);
    look
}

/// Servers are asked to look at the ranges that want a replica on the new node.
fn ask_servers(state: &State, at: Timestamp, look: &mut Look) {
    let short = &state.scratch.short;
    if !state.scratch.want_health || short.is_empty() {
        return;
    }
    if let Some(via) = state.gateways(at).first() {
        let few = usize::try_from(LISTED).unwrap_or(usize::MAX);
        let leases = Query::LeasesOf(short.iter().take(few).copied().collect());
        state.scratch.nudges.ask(at, via, leases, look);
    }
}

/// Takes in what servers said, and what is still to be asked for.
fn hasten(ctx: &mut Ctx<'_>, members: usize) {
    // Nothing else is done with it, and it judges every range once more.
    if !ctx.looked.can_nudge {
        return;
    }
    let short = short_ranges(ctx, members);
    let (pace, pause) = (ctx.state.ledger.plan.request.options.pace, ctx.state.policy().poll);
    let left = u64::try_from(short.len()).unwrap_or(u64::MAX);
    let scratch = &mut ctx.state.scratch;
    scratch.drain.counted(ctx.at, left);
    scratch.short = short;
    let moving = Moving { pace, left, watch: &scratch.drain, leaving: &[], pause };
    let tell = scratch.nudges.judge(ctx.at, &moving, ctx.looked, ctx.obs);
    if let Some(text) = tell {
        ctx.note(text);
    }
}

pub(super) fn candidate<'a>(
    state: &State,
    rows: &'a [NodeRow],
    host: &HostName,
    address: &Address,
) -> Option<&'a NodeRow> {
    let ledger = &state.ledger;
    let taken = |id: NodeId| {
        ledger.plan.known_ids.contains(&id) || ledger.joined.iter().any(|(h, n)| h != host && *n == id)
    };
    // Two failed tries on one address may leave two new ids; the live one, else the newest, is ours.
    rows.iter()
        .filter(|r| r.address.as_ref() == Some(address) && !taken(r.node_id))
        .max_by_key(|r| (r.is_live == Some(true), r.node_id))
}

pub(super) fn judge(
    ctx: &mut Ctx<'_>,
    host: &HostName,
    address: &Address,
    mode: &StartMode,
    join: &[Address],
) -> Verdict {
    let found = seen(ctx.looked)
        .iter()
        .find_map(|s| s.nodes().and_then(|rows| candidate(ctx.state, rows, host, address)).cloned());
    match found {
        Some(row) => prove(ctx, host, address, mode, &row),
        None => start(ctx, host, address, mode, join),
    }
}

/// No new node at the address yet: start it, unless that was done already.
fn start(
    ctx: &mut Ctx<'_>,
    host: &HostName,
    address: &Address,
    mode: &StartMode,
    join: &[Address],
) -> Verdict {
    if !seen(ctx.looked).iter().any(|s| s.nodes().is_some()) {
        return Verdict::Wait("a member to say which nodes there are".into());
    }
    let act =
        Act::Start { host: host.clone(), address: address.clone(), mode: mode.clone(), join: join.to_vec() };
    let appear = || Verdict::Wait(format!("the node on host {host} to appear at {address} in the cluster"));
    match &ctx.state.ledger.last {
        Some((Act::Start { .. }, ActResult::Done(_) | ActResult::Counted(_))) => return appear(),
        Some((Act::Start { .. }, ActResult::Failed { kind, message }))
            if !kind.may_have_been_done() && !kind.is_transient() =>
        {
            let next = vec![
                format!("look at the start output on host {host}, mend the cause and clear the new store"),
                "resume the operation, or make another plan: the cluster is as it was".to_owned(),
            ];
            let message = format!("the node on host {host} did not start: {message}");
            return Verdict::stop_with(StopReason::ActFailed, message, Vec::new(), next);
        }
        _ => {}
    }
    if !ctx.state.scratch.want_host {
        ctx.state.scratch.want_host = true;
        return Verdict::Again;
    }
    let facts = match ctx.looked.hosts.get(host) {
        Some(Fact::Known(facts)) => facts,
        Some(Fact::Unknown(why)) => return super::gate(ctx, vec![format!("host {host} is unknown: {why}")]),
        None => return Verdict::Again,
    };
    let listening = match &facts.listening {
        Fact::Known(list) => list.clone(),
        Fact::Unknown(why) => {
            return super::gate(ctx, vec![format!("ports of host {host} are unknown: {why}")]);
        }
    };
    let tried = ctx.state.ledger.attempted;
    let mut in_use = Vec::new();
    for store in &facts.stores {
        match &store.content {
            Fact::Known(StoreContent::Absent | StoreContent::Empty) => {}
            Fact::Known(StoreContent::InUse(names)) => {
                in_use.push(format!("{} holds {}", store.path, first_names(names)));
            }
            Fact::Unknown(why) => in_use.push(format!("{} is unknown: {why}", store.path)),
        }
    }
    if tried && !listening.is_empty() {
        return appear();
    }
    // A start whose end is not known may be under way: its process leaves files before it listens, and a second one
    // would fight with it.
    let since = ctx.state.scratch.acted_at.unwrap_or_else(|| ctx.entered());
    let is_over = ctx.state.scratch.over.iter().any(|(a, why_unseen)| *a == act && why_unseen.is_none());
    if tried && !is_over && ctx.at.duration_since(since) < ctx.state.policy().start_deadline {
        return Verdict::Wait(format!("a start on host {host} that may be under way to show itself"));
    }
    if !listening.is_empty() || !in_use.is_empty() {
        let mut evidence: Vec<String> =
            listening.iter().map(|a| format!("something listens at {a}")).collect();
        evidence.extend(in_use);
        let (reason, message) = if tried {
            (
                StopReason::ActFailed,
                format!("the node on host {host} was started, left files and does not run"),
            )
        } else {
            (StopReason::GateClosed, format!("host {host} is not fresh any more"))
        };
        let next = vec![format!(
            "read the start output, clear the new node's stores on host {host} (never those of a member), then resume"
        )];
        return Verdict::stop_with(reason, message, evidence, next);
    }
    super::attempt(ctx, act, &format!("starting the node on host {host}"))
}

/// A new node is at the address: is it a member in every respect?
fn prove(ctx: &mut Ctx<'_>, host: &HostName, address: &Address, mode: &StartMode, row: &NodeRow) -> Verdict {
    let id = row.node_id;
    let not_yet = |what: String| Verdict::Wait(format!("node {} on host {host}: {what}", id.0));
    if let Some(other) = row.start_mode.as_ref().filter(|m| *m != mode) {
        let message = format!("node {} joined with '{other}', the cluster runs with '{mode}'", id.0);
        return Verdict::stop(StopReason::GateClosed, message);
    }
    let builds: Vec<&String> =
        ctx.state.ledger.plan.fingerprint.nodes.values().filter_map(|n| n.build.known()).collect();
    if let (Some(build), false) = (&row.build, builds.is_empty())
        && !builds.contains(&build)
    {
        let message = format!("node {} joined with build {build}, which no member had", id.0);
        return Verdict::stop(StopReason::GateClosed, message);
    }
    let mut agreeing = 0;
    for view in seen(ctx.looked) {
        let (Some(nodes), Some((live, now))) = (view.nodes(), view.row(id)) else { continue };
        let seen_row = nodes.iter().find(|r| r.node_id == id);
        let at_address = seen_row.and_then(|r| r.address.as_ref()) == Some(address);
        let heard = seen_row.and_then(|r| r.is_live) == Some(true);
        let lasting = live.expiration.is_some_and(|e| e > now);
        if live.decommissioning == Some(true) {
            let message = format!("node {} is marked as decommissioning", id.0);
            return Verdict::stop(StopReason::GateClosed, message);
        }
        if at_address && heard && lasting && live.draining == Some(false) && live.upgrading == Some(false) {
            agreeing += 1;
        }
    }
    let needed = ctx.state.views_needed();
    if agreeing < needed {
        return not_yet(format!("to be live through {needed} members ({agreeing} so far)"));
    }
    if !ctx.state.scratch.want_health {
        ctx.state.scratch.want_health = true;
        return Verdict::Again;
    }
    let own = ctx
        .state
        .ledger
        .plan
        .request
        .inventory
        .hosts
        .get(host)
        .map(|h| h.sql_address.clone().unwrap_or_else(|| h.address.clone()));
    let said = seen(ctx.looked)
        .iter()
        .find(|s| Some(s.gateway) == own.as_ref())
        .and_then(|s| s.cluster().map(|c| (c.cluster_id.clone(), c.gateway_node)));
    match said {
        Some((cluster, _)) if cluster != ctx.state.ledger.plan.cluster_id => {
            let message = format!("host {host} answers for cluster {cluster}, which is another one");
            return Verdict::stop(StopReason::GateClosed, message);
        }
        Some((_, node)) if node != id => {
            let message =
                format!("host {host} answers as node {}, the cluster knows node {} there", node.0, id.0);
            return Verdict::stop(StopReason::GateClosed, message);
        }
        Some(_) => {}
        None => return not_yet("to answer SQL itself".into()),
    }
    let ready = match ctx.looked.ready.get(address).cloned() {
        Some(Fact::Known(Some(Readiness::Ready))) => ", ready by its own word",
        Some(Fact::Known(Some(other))) => return not_yet(format!("to be ready by its own word: {other}")),
        Some(Fact::Unknown(why)) => {
            // The members and its own SQL say enough.
            ctx.note(format!("node {} could not be asked whether it is ready: {why}", id.0));
            ""
        }
        Some(Fact::Known(None)) | None => "",
    };
    let members = counted(ctx);
    let trouble = range_trouble(ctx, members);
    if let Some(first) = trouble.first() {
        hasten(ctx, members);
        let plan = ctx.plan();
        let fell: Vec<NodeId> = ctx
            .obs
            .of_class(NodeClass::Dead)
            .map(|n| n.id)
            .filter(|id| plan.fingerprint.nodes.get(id).is_some_and(|n| n.class == NodeClass::Member))
            .collect();
        let down = match fell.is_empty() {
            true => String::new(),
            false => format!("; {} went down meanwhile: start it again", ids(&fell)),
        };
        return not_yet(format!(
            "nothing to be under-replicated at {members} members: {}{down}",
            brief(first)
        ));
    }
    ctx.records.push(Record::Joined { host: host.clone(), node: id });
    let asked = ctx.state.scratch.nudges.summary();
    Verdict::Done(format!(
        "node {} joined on host {host} at {address}: live through {agreeing} members, cluster {}{ready}, nothing \
         under-replicated at {members} members{}{asked}",
        id.0,
        ctx.state.ledger.plan.cluster_id,
        told_of_the_dead(ctx),
    ))
}

//! Clearing what removed nodes left on a host that shall join.
//!
//! Before the act: the nodes are removed (marked and expired) through two members, no range names one of their stores,
//! nobody is live at the host's address and nothing listens there. Done: the directories hold no node's files.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::super::event::Look;
use super::super::machine::{Ctx, State, Verdict};
use super::super::record::{Act, StopReason};
use super::view::{Bit, ask, bit, seen};
use crate::fact::Fact;
use crate::host_facts::first_names;
use crate::plan::{OldDirectory, ids};
use crate::ports::StoreContent;
use crate::rows::Query;
use crate::topology::{HostName, NodeId, StoreId};

pub(super) fn look(state: &State, at: Timestamp, host: &HostName, stores: &BTreeSet<StoreId>) -> Look {
    let queries =
        [Query::Liveness, Query::Nodes, Query::ReplicaCounts(stores.iter().copied().collect::<Vec<_>>())];
    let mut look = ask(state, at, &queries, &queries);
    look.hosts.push(host.clone());
    look
}

pub(super) fn judge(
    ctx: &mut Ctx<'_>,
    host: &HostName,
    nodes: &[NodeId],
    stores: &BTreeSet<StoreId>,
    directories: &[OldDirectory],
) -> Verdict {
    let facts = match ctx.looked.hosts.get(host) {
        Some(Fact::Known(facts)) => facts,
        Some(Fact::Unknown(why)) => return super::gate(ctx, vec![format!("host {host} is unknown: {why}")]),
        None => return Verdict::Again,
    };
    let mut held: Vec<OldDirectory> = Vec::new();
    for directory in directories {
        match facts.stores.iter().find(|s| s.path == directory.path).map(|s| &s.content) {
            Some(Fact::Known(StoreContent::Absent | StoreContent::Empty)) => {}
            Some(Fact::Known(StoreContent::InUse(names))) => {
                // What an earlier try has cleared is missing by right.
                if let Some(why) = differs(directory, names, ctx.state.ledger.attempted) {
                    return Verdict::stop_with(
                        StopReason::GateClosed,
                        format!("host {host}: {why}; nothing more was cleared"),
                        Vec::new(),
                        vec!["make another plan, which shows what lies there now".to_owned()],
                    );
                }
                let entries = directory.entries.iter().filter(|e| names.contains(&e.name)).cloned().collect();
                held.push(OldDirectory { entries, ..directory.clone() });
            }
            Some(Fact::Unknown(why)) => {
                return super::gate(
                    ctx,
                    vec![format!("{} of host {host} is unknown: {why}", directory.path)],
                );
            }
            None => {
                let message = format!("host {host} does not describe {} any more", directory.path);
                return Verdict::stop(StopReason::GateClosed, message);
            }
        }
    }
    if held.is_empty() {
        return Verdict::Done(fate(host, nodes, directories));
    }
    match &facts.listening {
        Fact::Known(list) if list.is_empty() => {}
        Fact::Known(list) => {
            let at: Vec<String> = list.iter().map(ToString::to_string).collect();
            let message =
                format!("something listens on host {host} at {}; nothing was cleared", at.join(", "));
            return Verdict::stop(StopReason::GateClosed, message);
        }
        Fact::Unknown(why) => {
            return super::gate(ctx, vec![format!("ports of host {host} are unknown: {why}")]);
        }
    }
    if let Some(verdict) = not_removed(ctx, host, nodes, stores) {
        return verdict;
    }
    let act = Act::ClearData { host: host.clone(), directories: held };
    super::attempt(ctx, act, &format!("clearing old data on host {host}"))
}

/// Why a directory does not hold what the consent was given for. `tried`: something may be missing by right.
pub(super) fn differs(directory: &OldDirectory, names: &[String], tried: bool) -> Option<String> {
    let listed: BTreeSet<&String> = directory.entries.iter().map(|e| &e.name).collect();
    let there: BTreeSet<&String> = names.iter().collect();
    let some = |set: Vec<String>| (!set.is_empty()).then(|| first_names(&set));
    let new = some(there.difference(&listed).map(|n| (*n).clone()).collect());
    let gone = some(listed.difference(&there).map(|n| (*n).clone()).collect()).filter(|_| !tried);
    let path = &directory.path;
    new.map(|new| format!("{path} holds what was not there when the consent was given: {new}")).or_else(
        || gone.map(|gone| format!("{path} does not hold any more what the consent was given for: {gone}")),
    )
}

/// Why the nodes are not, or not yet, proven removed.
fn not_removed(
    ctx: &mut Ctx<'_>,
    host: &HostName,
    nodes: &[NodeId],
    stores: &BTreeSet<StoreId>,
) -> Option<Verdict> {
    let needed = ctx.state.views_needed();
    let views = seen(ctx.looked);
    for node in nodes {
        let up = views
            .iter()
            .filter_map(|v| v.row(*node))
            .any(|(row, now)| row.expiration.is_none_or(|e| e > now));
        match bit(ctx.looked, *node, needed) {
            Bit::Set if !up => {}
            Bit::Unclear => {
                return Some(super::patience(ctx, format!("{needed} members to say that {node} is removed")));
            }
            Bit::Set | Bit::Clear => {
                let message =
                    format!("{node} is not removed any more; its data on host {host} was not touched");
                return Some(Verdict::stop(StopReason::GateClosed, message));
            }
        }
    }
    let counts: Vec<u64> = views.iter().filter_map(|v| v.count(stores)).map(|(n, _)| n).collect();
    if counts.len() < needed {
        return Some(super::patience(
            ctx,
            format!("{needed} members to count the replicas of {}", ids(nodes)),
        ));
    }
    if let Some(left) = counts.iter().find(|n| **n > 0) {
        let message = format!("{left} ranges name a store of {}; its data was not touched", ids(nodes));
        return Some(Verdict::stop(StopReason::GateClosed, message));
    }
    let address = ctx.state.ledger.plan.request.inventory.hosts.get(host).map(|h| &h.address);
    let live = views.iter().filter_map(|v| v.nodes()).flatten().find(|row| {
        row.address.as_ref() == address && row.is_live == Some(true) && !nodes.contains(&row.node_id)
    });
    live.map(|row| {
        let message = format!("{} is live at the address of host {host}; nothing was cleared", row.node_id);
        Verdict::stop(StopReason::GateClosed, message)
    })
}

fn fate(host: &HostName, nodes: &[NodeId], directories: &[OldDirectory]) -> String {
    let each = directories.iter().map(|d| match &d.aside {
        Some(aside) => format!("{} lies in {aside} now", d.path),
        None => format!("what was in {} is deleted", d.path),
    });
    format!("host {host} holds nothing of {} any more: {}", ids(nodes), each.collect::<Vec<_>>().join(", "))
}

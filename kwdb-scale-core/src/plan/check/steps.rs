//! Rules on the steps: which there are, in which order, and what each names.

use std::collections::BTreeSet;

use super::{
    Case, EMPTY_FIRST, FORMAT, Judge, PAGE_IN, PAGE_OUT, PAGE_REDISTRIBUTION, REQUEST, Report, Rule, list,
    repeated,
};
use crate::assess::OperationKind;
use crate::plan::Step;
use crate::request::{Finish, OldData, Redistribution};
use crate::topology::{HostName, NodeId, StartMode};

/// The setting that the KWDB page names under "Data Redistribution".
const REDISTRIBUTION: &str = "kv.allocator.ts_consider_rebalance.enabled";

/// What a `--join` list is for.
const JOIN: &str = "KWDB page, \"Scale-Out Operations\", --join; design: live members that stay";
/// One command marks all; two overlapping ones wedge.
const ONE_MARK: &str = "cockroachdb issues 35156 and 41561: overlapping decommissions wedge";

const fn rule(
    name: &'static str,
    source: &'static str,
    judge: fn(&Case<'_>, &mut Report),
    says: &'static str,
) -> Rule {
    Rule { name, says, source, judge: Judge::Plan(judge) }
}

pub(super) const RULES: &[Rule] = &[
    rule(
        "joins-as-changed",
        FORMAT,
        joins_as_changed,
        "the join steps are the hosts of the change, in its order",
    ),
    rule("join-host", FORMAT, join_host, "each join is on its own host, at the inventory's address"),
    rule(
        "join-address-free",
        "KWDB V3.2.1: two nodes at one address cannot be told apart",
        join_address_free,
        "nobody of the fingerprint is at the address of a node that joins, nor does another join there",
    ),
    rule("join-mode", PAGE_OUT, join_mode, "a node joins with the cluster's own start mode"),
    rule(
        "clear-as-asked",
        REQUEST,
        clear_as_asked,
        "old data is cleared only if asked, in the way asked, on a host that joins, and before it joins",
    ),
    rule(
        "clear-removed-only",
        "design: a node is wiped only after it is proven removed",
        clear_removed_only,
        "only data of nodes that the fingerprint does not hold is cleared, with their stores pinned",
    ),
    rule(
        "clear-own-directories",
        FORMAT,
        clear_own_directories,
        "a directory is cleared once, is a node's own, and moves within its parent",
    ),
    rule(
        "join-list",
        JOIN,
        join_list,
        "a join list names members that stay, each once, never the node itself",
    ),
    rule(
        "balance-placed",
        PAGE_OUT,
        balance_placed,
        "balance is awaited once, after the last join, not amid a drain",
    ),
    rule(
        "balance-multi-replica",
        "KWDB page: a single-replica cluster does not migrate existing data",
        balance_multi_replica,
        "balance is awaited only where data moves",
    ),
    rule("balance-as-asked", REQUEST, balance_as_asked, "balance is awaited after a scale-out if asked for"),
    rule(
        "mark-once",
        ONE_MARK,
        mark_once,
        "each leaving node is marked once, all in one step or in batches as asked, and nobody else",
    ),
    rule(
        "mark-after-empty",
        ONE_MARK,
        mark_after_empty,
        "a batch is marked after the ones before it are proven empty",
    ),
    rule(
        "mark-after-joins",
        "design: add before remove",
        mark_after_joins,
        "every join comes before the mark",
    ),
    rule("empty-after-mark", EMPTY_FIRST, empty_after_mark, "emptiness is awaited after the mark"),
    rule(
        "empty-covers",
        EMPTY_FIRST,
        empty_covers,
        "emptiness is awaited of every leaving node, and nobody else",
    ),
    rule("stop-leaving-only", PAGE_IN, stop_leaving_only, "only leaving nodes are drained or stopped"),
    rule(
        "stop-after-empty",
        EMPTY_FIRST,
        stop_after_empty,
        "a node is drained and stopped after it is proven empty",
    ),
    rule("stop-once", FORMAT, stop_once, "a node is drained and stopped at most once, drained first"),
    rule(
        "finish-as-asked",
        REQUEST,
        finish_as_asked,
        "leaving nodes are stopped, all of them, exactly if asked",
    ),
    rule("drain-as-asked", REQUEST, drain_as_asked, "emptied nodes are drained by a step only if asked"),
    rule(
        "setting-as-asked",
        PAGE_REDISTRIBUTION,
        setting_as_asked,
        "redistribution is switched off first of all, exactly if asked, and no other setting is touched",
    ),
    rule(
        "restore-as-asked",
        "design: what was changed is restored only where the request says so",
        restore_as_asked,
        "the setting is restored exactly if asked, and only the verification follows",
    ),
    rule("verify-last", FORMAT, verify_last, "the last step, and no other, is the verification"),
    rule(
        "verify-complete",
        FORMAT,
        verify_complete,
        "the verification names what was done, and everything of it",
    ),
];

fn joins_as_changed(case: &Case<'_>, report: &mut Report) {
    let joins: Vec<&HostName> = case.joins().map(|j| j.host).collect();
    if joins.iter().copied().ne(&case.plan.change.add) {
        report.whole(format!(
            "the steps start nodes on {}, by the change hosts {} join",
            list(joins),
            list(&case.plan.change.add)
        ));
    }
}

fn join_host(case: &Case<'_>, report: &mut Report) {
    let mut seen = BTreeSet::new();
    for join in case.joins() {
        if !seen.insert(join.host) {
            report.at(join.index, format!("host {} gets a second node", join.host));
        }
        match case.inventory().hosts.get(join.host) {
            Some(entry) if entry.address == *join.address => {}
            Some(entry) => report.at(
                join.index,
                format!(
                    "host {} joins at {}, by the inventory it is at {}",
                    join.host, join.address, entry.address
                ),
            ),
            None => report.at(join.index, format!("host {} is not in the inventory", join.host)),
        }
    }
}

fn join_address_free(case: &Case<'_>, report: &mut Report) {
    let mut seen = BTreeSet::new();
    for join in case.joins() {
        if !seen.insert(join.address) {
            report.at(join.index, format!("two nodes join at {}", join.address));
        }
        let used = |a: Option<&String>| a.map(String::as_str) == Some(join.address.as_str());
        for (id, _) in case.fingerprint().nodes.iter().filter(|(_, n)| used(n.address.known())) {
            report.at(join.index, format!("node {} is at {} already", id.0, join.address));
        }
    }
}

fn join_mode(case: &Case<'_>, report: &mut Report) {
    for join in case.joins() {
        if join.mode != &case.plan.start_mode {
            report.at(join.index, format!("'{}' joins a cluster of '{}'", join.mode, case.plan.start_mode));
        }
        if matches!(join.mode, StartMode::SingleNode | StartMode::Unknown(_)) {
            report.at(join.index, format!("a node that runs with '{}' joins nothing", join.mode));
        }
    }
}

fn clear_as_asked(case: &Case<'_>, report: &mut Report) {
    let asked = case.plan.request.options.old_data;
    let mut hosts = BTreeSet::new();
    for (index, host, directories) in case.clears() {
        if !hosts.insert(host) {
            report.at(index, format!("host {host} is cleared a second time"));
        }
        if !case.joins().any(|j| j.host == host && j.index > index) {
            report.at(index, format!("no node joins on host {host} afterwards"));
        }
        if directories.is_empty() {
            report.at(index, "no directory is named");
        }
        for directory in directories {
            let fits = match asked {
                OldData::Refuse => false,
                OldData::MoveAside => directory.aside.is_some(),
                OldData::Delete => directory.aside.is_none(),
            };
            if !fits {
                report.at(index, format!("{} is not treated as was asked", directory.path));
            }
            if directory.entries.is_empty() {
                report.at(index, format!("what {} holds is not listed", directory.path));
            }
            for entry in directory.entries.iter().filter(|e| e.foreign && directory.aside.is_none()) {
                report.at(index, format!("{} of {} is none of KWDB's", entry.name, directory.path));
            }
        }
    }
}

fn clear_removed_only(case: &Case<'_>, report: &mut Report) {
    for (index, step) in case.steps() {
        let Step::ClearData { nodes, stores, .. } = step else { continue };
        if nodes.is_empty() || stores.is_empty() {
            report.at(index, "nobody is named whose data it is, or no store of theirs");
        }
        for node in nodes {
            if case.fingerprint().nodes.contains_key(node) {
                report.at(index, format!("node {} is not removed", node.0));
            }
            if !case.plan.known_ids.contains(node) {
                report.at(index, format!("node {} is none that ever joined", node.0));
            }
        }
        for (id, other) in &case.fingerprint().nodes {
            for store in other.stores.intersection(stores) {
                report.at(index, format!("store {} is node {}'s", store.0, id.0));
            }
        }
    }
}

fn clear_own_directories(case: &Case<'_>, report: &mut Report) {
    for (index, _, directories) in case.clears() {
        for path in repeated(directories.iter().map(|d| &d.path)) {
            report.at(index, format!("{path} is cleared twice"));
        }
        for directory in directories {
            let path = directory.path.as_str();
            let parts: Vec<&str> = path.split('/').skip(1).collect();
            let odd = parts.iter().any(|p| matches!(*p, "." | ".."));
            if !path.starts_with('/') || odd || parts.iter().filter(|p| !p.is_empty()).count() < 2 {
                report.at(index, format!("{path} is no directory of a node's own"));
            }
            let parent = |p: &str| p.trim_end_matches('/').rsplit_once('/').map(|(dir, _)| dir.to_owned());
            if directory.aside.as_deref().is_some_and(|a| parent(a) != parent(path) || a == path) {
                report
                    .at(index, format!("{path} would be moved out of its parent directory, or onto itself"));
            }
        }
    }
}

fn join_list(case: &Case<'_>, report: &mut Report) {
    let survivors = case.survivors();
    for join in case.joins() {
        for address in repeated(join.join) {
            report.at(join.index, format!("{address} is twice in the join list"));
        }
        for address in join.join {
            if address == join.address {
                report.at(join.index, format!("the node is to join itself at {address}"));
            } else if case.plan.leaving.iter().any(|l| l.address == *address) {
                report.at(join.index, format!("{address} in the join list is a leaving node's"));
            } else if !case.members_at(address).any(|id| survivors.contains(&id)) {
                report.at(join.index, format!("{address} in the join list is no live member's"));
            }
        }
        if join.join.is_empty() {
            report.at(join.index, "the join list is empty: the node would wait for an init for ever");
        }
    }
}

/// Indices of the steps that wait for balance.
fn balances<'a>(case: &'a Case<'a>) -> impl Iterator<Item = usize> + 'a {
    case.steps().filter(|(_, s)| matches!(s, Step::AwaitBalance)).map(|(i, _)| i)
}

fn balance_placed(case: &Case<'_>, report: &mut Report) {
    let last_join = case.joins().map(|j| j.index).max();
    let mark = case.marks().map(|(i, _)| i).min();
    let last_wait = case.waits().map(|(i, _)| i).max();
    for (n, index) in balances(case).enumerate() {
        if n > 0 {
            report.at(index, "balance is awaited a second time");
        }
        if last_join.is_none_or(|join| index < join) {
            report.at(index, "balance is awaited before the last node joined");
        }
        if mark.is_some_and(|m| index > m) && last_wait.is_none_or(|w| index < w) {
            report.at(index, "balance is awaited while nodes are emptied");
        }
    }
}

fn balance_multi_replica(case: &Case<'_>, report: &mut Report) {
    if case.plan.start_mode != StartMode::MultiReplica {
        for index in balances(case) {
            report.at(index, format!("nothing moves in a cluster that runs with '{}'", case.plan.start_mode));
        }
    }
}

fn balance_as_asked(case: &Case<'_>, report: &mut Report) {
    let asked = case.plan.request.options.await_balance;
    match balances(case).next() {
        Some(index) if !asked => report.at(index, "balance is awaited unasked"),
        None if asked
            && case.plan.change.kind == OperationKind::Out
            && case.plan.start_mode == StartMode::MultiReplica =>
        {
            report.whole("balance was to be awaited and is not");
        }
        _ => {}
    }
}

fn mark_once(case: &Case<'_>, report: &mut Report) {
    let leaving = case.leaving_ids();
    let at_a_time = case.plan.request.options.at_a_time(leaving.len());
    let mut marked = BTreeSet::new();
    for (index, nodes) in case.marks() {
        if nodes.is_empty() {
            report.at(index, "nobody is marked: to the server that means the gateway itself");
        }
        for node in nodes {
            if !marked.insert(*node) {
                report.at(index, format!("node {} is marked twice", node.0));
            }
            if !leaving.contains(node) {
                report.at(index, format!("node {} is marked and does not leave", node.0));
            }
        }
        let left = leaving.len().saturating_sub(marked.len());
        if nodes.len() > at_a_time || (nodes.len() < at_a_time && left > 0) {
            let asked = format!("{} nodes are marked, {at_a_time} at a time were asked for", nodes.len());
            report.at(index, asked);
        }
    }
    for node in leaving.difference(&marked) {
        report.whole(format!("node {} leaves and is never marked", node.0));
    }
}

fn mark_after_empty(case: &Case<'_>, report: &mut Report) {
    for (index, _) in case.marks() {
        let before: BTreeSet<NodeId> =
            case.marks().filter(|(i, _)| *i < index).flat_map(|(_, nodes)| nodes.iter().copied()).collect();
        let awaited: BTreeSet<NodeId> =
            case.waits().filter(|(i, _)| *i < index).flat_map(|(_, nodes)| nodes.iter().copied()).collect();
        for node in before.difference(&awaited) {
            report.at(index, format!("more nodes are marked before node {} is proven empty", node.0));
        }
    }
}

fn mark_after_joins(case: &Case<'_>, report: &mut Report) {
    let Some(mark) = case.marks().map(|(i, _)| i).min() else { return };
    for join in case.joins().filter(|j| j.index > mark) {
        report.at(join.index, format!("host {} joins after nodes were marked", join.host));
    }
}

fn empty_after_mark(case: &Case<'_>, report: &mut Report) {
    for (index, nodes) in case.waits() {
        let marked = |node: &&NodeId| case.marks().any(|(i, marked)| i < index && marked.contains(node));
        let early: Vec<&NodeId> = nodes.iter().filter(|node| !marked(node)).collect();
        // Those that are never marked are told of by `mark-once`.
        let later = case.marks().any(|(i, marked)| i > index && early.iter().any(|n| marked.contains(n)));
        if later {
            report.at(index, format!("{} are awaited empty before they are marked", list(early)));
        }
    }
}

fn empty_covers(case: &Case<'_>, report: &mut Report) {
    let leaving = case.leaving_ids();
    let mut awaited = BTreeSet::new();
    for (index, nodes) in case.waits() {
        if nodes.is_empty() {
            report.at(index, "nobody is awaited empty");
        }
        for node in nodes {
            if !leaving.contains(node) {
                report.at(index, format!("node {} is awaited empty and does not leave", node.0));
            }
            awaited.insert(*node);
        }
    }
    for node in leaving.difference(&awaited) {
        report.whole(format!("node {} leaves and is never awaited empty", node.0));
    }
}

fn stop_leaving_only(case: &Case<'_>, report: &mut Report) {
    let leaving = case.leaving_ids();
    for (index, node) in case.stops().chain(case.drains()).filter(|(_, n)| !leaving.contains(n)) {
        report.at(index, format!("node {} is drained or stopped and does not leave", node.0));
    }
}

fn stop_after_empty(case: &Case<'_>, report: &mut Report) {
    let leaving = case.leaving_ids();
    // Others are told of by `stop-leaving-only`. That the wait comes after the mark is `empty-after-mark`.
    for (index, node) in case.stops().chain(case.drains()).filter(|(_, n)| leaving.contains(n)) {
        if !case.waits().any(|(wait, nodes)| wait < index && nodes.contains(&node)) {
            report.at(index, format!("node {} is drained or stopped before it is proven empty", node.0));
        }
    }
}

fn stop_once(case: &Case<'_>, report: &mut Report) {
    for acts in [case.stops().collect::<Vec<_>>(), case.drains().collect()] {
        let mut seen = BTreeSet::new();
        for (index, node) in acts {
            if !seen.insert(node) {
                report.at(index, format!("node {} is drained or stopped a second time", node.0));
            }
        }
    }
    for (index, node) in case.drains() {
        if case.stops().any(|(stop, n)| n == node && stop < index) {
            report.at(index, format!("node {} is drained after it was stopped", node.0));
        }
    }
}

fn finish_as_asked(case: &Case<'_>, report: &mut Report) {
    match case.plan.request.options.finish {
        Finish::Stop => {
            let stopped: BTreeSet<NodeId> = case.stops().map(|(_, n)| n).collect();
            for node in case.leaving_ids().difference(&stopped) {
                report.whole(format!("node {} was to be stopped and is not", node.0));
            }
        }
        Finish::LeaveDrained => {
            for (index, node) in case.stops() {
                report.at(index, format!("node {} was to be left running and is stopped", node.0));
            }
        }
    }
}

fn drain_as_asked(case: &Case<'_>, report: &mut Report) {
    if !case.plan.request.options.drain {
        for (index, node) in case.drains() {
            report.at(index, format!("node {} is drained unasked", node.0));
        }
        return;
    }
    for (index, node) in case.stops() {
        if !case.drains().any(|(_, n)| n == node) {
            report.at(index, format!("node {} was to be drained before its stop and is not", node.0));
        }
    }
}

fn setting_as_asked(case: &Case<'_>, report: &mut Report) {
    let asked =
        case.plan.request.options.redistribution != Redistribution::Leave && !case.plan.steps.is_empty();
    let mut set = false;
    for (index, step) in case.steps() {
        let Step::SetSetting { name, value } = step else { continue };
        if !asked {
            report.at(index, format!("{name} is set unasked"));
        }
        if name != REDISTRIBUTION || value != "false" {
            report.at(index, format!("{name} is set to '{value}', only {REDISTRIBUTION} may be, to 'false'"));
        }
        if index > 0 {
            report.at(index, format!("{name} is set after something else was done"));
        }
        set = true;
    }
    // The fingerprint holds the value, so that it is drift when it changes.
    let value = case.fingerprint().settings.get(REDISTRIBUTION).and_then(|v| v.known());
    if asked && !set && value.map(String::as_str) != Some("false") {
        report.whole("redistribution was to be switched off and is not");
    }
}

fn restore_as_asked(case: &Case<'_>, report: &mut Report) {
    let set: Vec<&String> = case
        .steps()
        .filter_map(|(_, s)| if let Step::SetSetting { name, .. } = s { Some(name) } else { None })
        .collect();
    let asked = case.plan.request.options.redistribution == Redistribution::OffDuring;
    let mut restored = Vec::new();
    for (index, step) in case.steps() {
        let Step::RestoreSetting { name } = step else { continue };
        if !asked {
            report.at(index, format!("{name} is restored unasked"));
        }
        if !set.contains(&name) {
            report.at(index, format!("{name} is restored and was never set"));
        }
        if restored.contains(&name) {
            report.at(index, format!("{name} is restored twice"));
        }
        restored.push(name);
        let follows = case.steps().filter(|(i, _)| *i > index);
        for (later, step) in
            follows.filter(|(_, s)| !matches!(s, Step::Verify { .. } | Step::RestoreSetting { .. }))
        {
            report.at(later, format!("{} comes after {name} was restored", step.name()));
        }
    }
    if asked {
        for name in set.iter().filter(|name| !restored.contains(name)) {
            report.whole(format!("{name} was to be restored and is not"));
        }
    }
}

fn verify_last(case: &Case<'_>, report: &mut Report) {
    let last = case.plan.steps.len().checked_sub(1);
    for (index, step) in case.steps() {
        let verifies = matches!(step, Step::Verify { .. });
        if Some(index) == last && !verifies {
            report.at(index, format!("the last step is {}, nothing proves the end state", step.name()));
        } else if Some(index) != last && verifies {
            report.at(index, "the end state is verified before the end");
        }
    }
}

fn verify_complete(case: &Case<'_>, report: &mut Report) {
    let Some((index, Step::Verify { members, joined, left, finish })) =
        case.steps().filter(|(_, s)| matches!(s, Step::Verify { .. })).last()
    else {
        return;
    };
    let nodes = |ids: &[NodeId]| ids.iter().copied().collect::<BTreeSet<_>>();
    for twice in repeated(members).into_iter().chain(repeated(left)) {
        report.at(index, format!("node {} is verified twice", twice.0));
    }
    if nodes(members) != case.survivors() {
        report.at(
            index,
            format!(
                "members {} are verified, the live ones that stay are {}",
                list(members),
                list(case.survivors())
            ),
        );
    }
    if nodes(left) != case.leaving_ids() {
        report.at(index, format!("{} are verified as gone, {} leave", list(left), list(case.leaving_ids())));
    }
    let hosts: BTreeSet<&HostName> = case.plan.change.add.iter().collect();
    if joined.iter().collect::<BTreeSet<_>>() != hosts || !repeated(joined).is_empty() {
        report.at(
            index,
            format!("new nodes of hosts {} are verified, {} join", list(joined), list(&case.plan.change.add)),
        );
    }
    if *finish != case.plan.request.options.finish {
        report.at(index, "the verification expects another finish than was asked for");
    }
}

//! Rules that hold a plan against an observation. What is not known never counts as fine.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ALLOCATOR, Case, FEWEST_MEMBERS, IDENTITY, Judge, PAGE_IN, PAGE_OUT, Report, Rule, list, needed_replicas,
};
use crate::fact::Fact;
use crate::observation::{Node, Observation};
use crate::plan::Step;
use crate::ports::StoreContent;
use crate::request::{NodeRef, Operation};
use crate::rows::ZoneRow;
use crate::topology::{Locality, NodeClass, NodeId, StoreId};

const fn rule(
    name: &'static str,
    source: &'static str,
    judge: fn(&Case<'_>, &Observation, &mut Report),
    says: &'static str,
) -> Rule {
    Rule { name, says, source, judge: Judge::Facts(judge) }
}

pub(super) const RULES: &[Rule] = &[
    rule(
        "observed-cluster",
        IDENTITY,
        cluster,
        "the observation is of the plan's cluster and tells its members",
    ),
    rule("observed-request", IDENTITY, request, "a host whose node is to leave has, or had, one"),
    rule("observed-known-ids", IDENTITY, known_ids, "known_ids hold every node that ever joined"),
    rule("observed-start-mode", PAGE_OUT, start_mode, "the members run in the plan's start mode"),
    rule("observed-members-before", ALLOCATOR, before, "members_before counts the nodes without the bit"),
    rule(
        "observed-leaving",
        IDENTITY,
        leaving,
        "leaving nodes are live members or were left drained: same address, stores, incarnation",
    ),
    rule(
        "observed-gateways",
        "design: everything is asked and proven through live members that stay",
        gateways,
        "gateways are live members at the addresses given",
    ),
    rule(
        "observed-several",
        "design: joining is proven through two gateways; --join names several members",
        several,
        "where two live members stay there are two gateways, and two addresses to join",
    ),
    rule(
        "observed-alive",
        PAGE_IN,
        alive,
        "when one leaves all nodes are live, none drains, upgrades or leaves already",
    ),
    rule("observed-minimum", PAGE_IN, minimum, "at least 3 live members remain when one leaves"),
    rule(
        "observed-zone-need",
        ALLOCATOR,
        zone_need,
        "the live members that remain can hold what each zone needs",
    ),
    rule(
        "observed-constraints",
        "KWDB page, \"Scale-In Operations\", replica constraints",
        constraints,
        "enough members that remain satisfy the constraints that a leaving node satisfies",
    ),
    rule(
        "observed-ranges",
        PAGE_IN,
        ranges,
        "when one leaves no range is unavailable or surely under-replicated",
    ),
    rule("observed-address-free", IDENTITY, address_free, "no node uses the address of one that joins"),
    rule(
        "observed-cleared",
        "design: a node is wiped only after it is proven removed",
        cleared,
        "whose data is cleared is removed, had the host's address, and no range names its stores",
    ),
    rule(
        "observed-store-free",
        "KWDB page: a decommissioned node's data directory is cleared before it rejoins",
        store_free,
        "a host that was looked at has no node's files where a node joins",
    ),
];

/// Live by everything that is known: a Member, heard, not draining, not upgrading, the bit surely not set.
fn is_live_member(node: &Node) -> bool {
    node.class == NodeClass::Member
        && node.is_healthy() == Fact::Known(true)
        && node.decommissioning == Fact::Known(false)
        && node.draining == Fact::Known(false)
        && node.upgrading == Fact::Known(false)
}

/// Marked and proven empty, but not gone.
fn was_left_drained(node: &Node) -> bool {
    node.class == NodeClass::Leaving && node.replicas == Fact::Known(0)
}

/// Nodes that are not Removed.
fn present(observation: &Observation) -> impl Iterator<Item = &Node> {
    observation.nodes.values().filter(|n| n.class != NodeClass::Removed)
}

/// Live members that do not leave.
fn staying<'a>(case: &Case<'_>, observation: &'a Observation) -> Vec<&'a Node> {
    let leaving = case.leaving_ids();
    present(observation).filter(|n| is_live_member(n) && !leaving.contains(&n.id)).collect()
}

fn cluster(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    if observation.cluster_id.known() != Some(&case.plan.cluster_id) {
        report.whole(format!(
            "the plan is for cluster {}, observed is cluster {}",
            case.plan.cluster_id, observation.cluster_id
        ));
    }
    if let Some(why) = observation.membership.why_unknown() {
        report.whole(format!("who is a member is not known: {why}"));
    }
}

fn request(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    let (Operation::ScaleIn { nodes } | Operation::Replace { nodes, .. }) = &case.plan.request.operation
    else {
        return;
    };
    for reference in nodes {
        let NodeRef::Host(host) = reference else { continue };
        let address = case.inventory().hosts.get(host).map(|h| &h.address);
        // Removed ones too: what was asked for is so already.
        let known = observation.nodes.values().any(|n| address.is_some() && n.address.known() == address);
        if !known {
            report
                .whole(format!("the node of host {host} was to leave, and no node is or was at its address"));
        }
    }
}

fn known_ids(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    for node in observation.nodes.keys().filter(|id| !case.plan.known_ids.contains(id)) {
        report.whole(format!("node {} joined once and is not among the known ids", node.0));
    }
}

fn start_mode(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    if case.plan.steps.is_empty() {
        return;
    }
    // A dead node has no say: its descriptor leaves the gossip.
    for node in present(observation).filter(|n| n.class != NodeClass::Dead) {
        if node.start_mode.known() != Some(&case.plan.start_mode) {
            report.whole(format!(
                "node {} runs with {}, the plan says {}",
                node.id.0, node.start_mode, case.plan.start_mode
            ));
        }
    }
}

fn before(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    let count = |bit: Option<bool>| {
        observation.nodes.values().filter(|n| n.decommissioning.known().copied() == bit).count()
    };
    let (least, open) = (count(Some(false)), count(None));
    if !(least..=least + open).contains(&case.plan.members_before) {
        report.whole(format!(
            "{} members before, observed are {least} without the decommissioning bit",
            case.plan.members_before
        ));
    }
}

fn leaving(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    for leaving in &case.plan.leaving {
        let id = leaving.node.0;
        let Some(node) = observation.nodes.get(&leaving.node) else {
            report.whole(format!("leaving node {id} is not there"));
            continue;
        };
        // Or it was left drained earlier and is only to be stopped.
        let only_to_stop = was_left_drained(node) && node.is_healthy() == Fact::Known(true);
        if !is_live_member(node) && !only_to_stop {
            report.whole(format!("leaving node {id} ({}) is not proven to be a live member", node.class));
        }
        if node.address.known() != Some(&leaving.address) {
            report
                .whole(format!("leaving node {id} is at {}, observed at {}", leaving.address, node.address));
        }
        if !node.stores.keys().eq(&leaving.stores) {
            report.whole(format!(
                "stores {} are pinned for leaving node {id}, observed are {}",
                list(&leaving.stores),
                list(node.stores.keys())
            ));
        }
        if node.started_at.known() != Some(&leaving.started_at) {
            report.whole(format!(
                "leaving node {id} started at {}, observed {}: another incarnation",
                leaving.started_at, node.started_at
            ));
        }
    }
}

fn gateways(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    if case.plan.steps.is_empty() {
        return;
    }
    for gateway in &case.plan.gateways {
        let Some(node) = observation.nodes.get(&gateway.node).filter(|n| is_live_member(n)) else {
            report.whole(format!("gateway {gateway} is not proven to be a live member"));
            continue;
        };
        if node.address.known() != Some(&gateway.address) {
            report.whole(format!("gateway {gateway} is observed at {}", node.address));
        }
        if node.sql_address.known().is_some_and(|a| *a != gateway.sql_address) {
            report.whole(format!(
                "gateway {gateway} answers SQL at {}, observed at {}",
                gateway.sql_address, node.sql_address
            ));
        }
    }
}

fn several(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    if case.plan.steps.is_empty() {
        return;
    }
    let reachable = |n: &&Node| n.address.known().is_some();
    let several = staying(case, observation).into_iter().filter(reachable).count().min(2);
    // That there is one at all is told of by `gateways-enough` and `join-list`.
    if (1..several).contains(&case.plan.gateways.len()) {
        report.whole(format!("there is one gateway where {several} members could be"));
    }
    for join in case.joins().filter(|j| (1..several).contains(&j.join.len())) {
        report.at(join.index, "the join list has one address where two members stay");
    }
}

fn alive(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    if !case.something_leaves() {
        return;
    }
    // Leaving nodes and gateways are told of by rules of their own.
    let mut told = case.leaving_ids();
    told.extend(case.plan.gateways.iter().map(|g| g.node));
    // A node that was left drained on purpose may run on.
    let at_fault = |n: &&Node| !told.contains(&n.id) && !is_live_member(n) && !was_left_drained(n);
    for node in present(observation).filter(at_fault) {
        report.whole(format!(
            "node {} is {} (available {}, live {}, draining {}, upgrading {}) while a node leaves",
            node.id.0, node.class, node.is_available, node.is_live, node.draining, node.upgrading
        ));
    }
}

fn minimum(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    if !case.something_leaves() {
        return;
    }
    let after = staying(case, observation).len() + case.joins().count();
    if after < FEWEST_MEMBERS {
        report.whole(format!("{after} live members remain where {FEWEST_MEMBERS} are the least"));
    }
}

/// The factor in the text of a zone's whole configuration; `None` when it is not told.
fn factor(zone: &ZoneRow) -> Option<u32> {
    let (_, rest) = zone.full_config_sql.as_deref()?.split_once("num_replicas = ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|f| *f > 0)
}

fn target(zone: &ZoneRow) -> &str {
    zone.target.as_deref().unwrap_or("a zone without a target")
}

fn zone_need(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    if !case.something_leaves() {
        return;
    }
    let zones = match &observation.zones {
        Fact::Known(zones) if !zones.is_empty() => zones,
        Fact::Known(_) => return report.whole("there is no zone configuration, not even RANGE default"),
        Fact::Unknown(why) => return report.whole(format!("the zone configurations are not known: {why}")),
    };
    let live = staying(case, observation).len() + case.joins().count();
    for zone in zones {
        match factor(zone) {
            None => report.whole(format!("the replication factor of {} is not known", target(zone))),
            Some(factor) => {
                let need = needed_replicas(factor, case.plan.members_after);
                if need > live {
                    report
                        .whole(format!("{} needs {need} replicas, {live} live members remain", target(zone)));
                }
            }
        }
    }
}

/// `+key=value` or `-key=value`.
type Term = (bool, String, String);

/// The groups of a zone's own constraints with the number of replicas that each is for; `None` inside where that is
/// all of them. Terms on store attributes are left out: they say nothing about localities.
fn constraint_groups(zone: &ZoneRow) -> Vec<(Vec<Term>, Option<usize>)> {
    let sql = zone.raw_config_sql.as_deref().unwrap_or_default();
    let Some((_, rest)) = sql.split_once("constraints = ") else { return Vec::new() };
    let Some(open) = rest.find(['[', '{']) else { return Vec::new() };
    let inner = rest.get(open + 1..).unwrap_or_default();
    let inner = inner.split([']', '}']).next().unwrap_or_default();
    let term = |text: &str| -> Option<Term> {
        let text = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '\\'));
        let (positive, rest) = match text.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('-')?),
        };
        let (key, value) = rest.split_once('=')?;
        Some((positive, key.to_owned(), value.to_owned()))
    };
    let mut groups = Vec::new();
    let mut terms = Vec::new();
    for piece in inner.split(',') {
        let (text, count) = match piece.rsplit_once(':') {
            Some((text, count)) => (text, count.trim().parse::<usize>().ok()),
            None => (piece, None),
        };
        terms.extend(term(text));
        if count.is_some() {
            groups.push((std::mem::take(&mut terms), count));
        }
    }
    groups.push((terms, None));
    groups.retain(|(terms, _)| !terms.is_empty());
    groups
}

fn satisfies(locality: &Locality, terms: &[Term]) -> bool {
    terms.iter().all(|(positive, key, value)| locality.has(key, value) == *positive)
}

/// Whether a range of the table that `zone` belongs to has a replica on a leaving node.
fn has_replicas_to_move(case: &Case<'_>, observation: &Observation, zone: &ZoneRow) -> bool {
    let table = format!("/Table/{}", zone.zone_id);
    let of_table =
        |key: &str| key.strip_prefix(&table).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let leaves = |store: &StoreId| case.plan.leaving.iter().any(|l| l.stores.contains(store));
    let mut ranges = observation.ranges.known().into_iter().flatten();
    ranges.any(|r| of_table(&r.start_key) && r.replicas.iter().any(leaves))
}

fn constraints(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    let staying = staying(case, observation);
    let joins = case.joins().count();
    let zones = observation.zones.known().into_iter().flatten();
    for zone in zones.filter(|zone| has_replicas_to_move(case, observation, zone)) {
        for (terms, count) in constraint_groups(zone) {
            let able = |node: &Node| node.locality.known().is_some_and(|l| satisfies(l, &terms));
            let leaver = case.plan.leaving.iter().find(|l| observation.nodes.get(&l.node).is_some_and(able));
            let Some(leaver) = leaver else { continue };
            // A factor that is not known is told of by `observed-zone-need`.
            let need = count.or_else(|| Some(needed_replicas(factor(zone)?, case.plan.members_after)));
            // Replicas that have no place by the constraints now are elsewhere already and stay there.
            let before = present(observation).filter(|n| able(n)).count();
            let need = need.map(|need| need.min(before));
            let left = staying.iter().filter(|n| able(n)).count() + joins;
            if need.is_some_and(|need| left < need) {
                report.whole(format!(
                    "{left} members remain for the {} replicas that the constraints of {} allow on leaving node {}",
                    need.unwrap_or_default(),
                    target(zone),
                    leaver.node.0
                ));
            }
        }
    }
}

fn ranges(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    if !case.something_leaves() {
        return;
    }
    let ranges = match &observation.ranges {
        Fact::Known(ranges) => ranges,
        Fact::Unknown(why) => return report.whole(format!("the ranges are not known: {why}")),
    };
    let owner: BTreeMap<StoreId, &Node> =
        observation.nodes.values().flat_map(|n| n.stores.keys().map(move |s| (*s, n))).collect();
    // Whatever zone a range belongs to, it wants at least the least that any zone wants.
    let least = observation
        .zones
        .known()
        .into_iter()
        .flatten()
        .filter_map(factor)
        .map(|factor| needed_replicas(factor, case.plan.members_before))
        .min()
        .unwrap_or(1);
    for range in ranges {
        let holders: BTreeSet<NodeId> = range
            .replicas
            .iter()
            .filter_map(|store| owner.get(store))
            .filter(|n| n.is_healthy() == Fact::Known(true))
            .map(|n| n.id)
            .collect();
        let (live, voters) = (holders.len(), range.replicas.len());
        if live * 2 <= voters {
            report.whole(format!("{} has {live} live replicas of {voters}: unavailable", range.range_id));
        } else if live < least {
            report.whole(format!("{} has {live} live replicas where {least} are wanted", range.range_id));
        }
    }
}

fn address_free(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    for join in case.joins() {
        for node in present(observation) {
            if node.address.known() == Some(join.address) || node.sql_address.known() == Some(join.address) {
                report.at(join.index, format!("node {} is at {} already", node.id.0, join.address));
            }
        }
    }
}

fn cleared(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    for (index, step) in case.steps() {
        let Step::ClearData { host, nodes, stores, directories } = step else { continue };
        let facts = observation.hosts.get(host).and_then(Fact::known);
        for directory in directories {
            let found = facts.and_then(|f| f.stores.iter().find(|s| s.path == directory.path));
            let Some(found) = found else { continue };
            let names: BTreeSet<&String> = match &found.content {
                Fact::Known(StoreContent::InUse(names)) => names.iter().collect(),
                _ => BTreeSet::new(),
            };
            if names != directory.entries.iter().map(|e| &e.name).collect() {
                report.at(index, format!("{} on host {host} holds something else", directory.path));
            }
        }
        let address = case.inventory().hosts.get(host).map(|h| &h.address);
        for id in nodes {
            let Some(node) = observation.nodes.get(id) else {
                report.at(index, format!("node {} was not observed", id.0));
                continue;
            };
            if node.class != NodeClass::Removed || node.replicas != Fact::Known(0) {
                report.at(index, format!("node {} is not surely removed", id.0));
            }
            if node.address.known() != address {
                report.at(index, format!("node {} did not have the address of host {host}", id.0));
            }
            if !node.stores.keys().all(|s| stores.contains(s)) {
                report.at(index, format!("not every store of node {} is pinned", id.0));
            }
        }
        let mut ranges = observation.ranges.known().into_iter().flatten();
        let names = |s: &StoreId| stores.contains(s);
        if observation.ranges.known().is_none()
            || ranges.any(|r| r.replicas.iter().chain(&r.learners).any(names))
        {
            report.at(index, format!("ranges name the stores of host {host}, or are not known"));
        }
    }
}

fn store_free(case: &Case<'_>, observation: &Observation, report: &mut Report) {
    for join in case.joins() {
        let Some(facts) = observation.hosts.get(join.host).and_then(Fact::known) else { continue };
        for store in &facts.stores {
            let cleared = case.clears().any(|(index, host, directories)| {
                index < join.index && host == join.host && directories.iter().any(|d| d.path == store.path)
            });
            if cleared {
                continue;
            }
            if let Fact::Known(StoreContent::InUse(files)) = &store.content {
                report.at(join.index, format!("{} on host {} holds {}", store.path, join.host, list(files)));
            }
        }
    }
}

//! Rules on everything of a plan but its steps: identity, policy, what was asked, members, zones.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::{
    ALLOCATOR, Case, FEWEST_MEMBERS, FORMAT, IDENTITY, Judge, PAGE_IN, PAGE_OUT, Report, Rule, list,
    needed_replicas, repeated,
};
use crate::assess::{OperationKind, Severity};
use crate::request::{Finish, NodeRef, Operation};
use crate::topology::{Address, HostName, NodeClass, NodeId, StartMode};

const fn rule(
    name: &'static str,
    source: &'static str,
    judge: fn(&Case<'_>, &mut Report),
    says: &'static str,
) -> Rule {
    Rule { name, says, source, judge: Judge::Plan(judge) }
}

pub(super) const RULES: &[Rule] = &[
    rule("schema", FORMAT, schema, "the schema id is kwdb-scale.plan/v1"),
    rule("content-id", FORMAT, content_id, "the id is the first 16 hex digits of the content's SHA-256"),
    rule("no-refusal", "design: a plan never holds a refusal", no_refusal, "no check refused"),
    rule(
        "policy-sane",
        "design: every wait has a deadline",
        policy_sane,
        "samples, waits and deadlines make sense",
    ),
    rule("change-kind", FORMAT, change_kind, "the kind of the change says who joins and who leaves"),
    rule("change-asked", FORMAT, change_asked, "nobody joins or leaves who was not asked to"),
    rule("request-covered", FORMAT, request_covered, "all that was asked is done or true already"),
    rule(
        "leaving-as-changed",
        FORMAT,
        leaving_as_changed,
        "the leaving nodes are those of the change, each once",
    ),
    rule(
        "empty-iff-nothing",
        FORMAT,
        empty_iff_nothing,
        "there are steps exactly if there is something to do",
    ),
    rule("fingerprint-cluster", IDENTITY, fingerprint_cluster, "the fingerprint is of the same cluster"),
    rule(
        "start-mode-uniform",
        PAGE_OUT,
        start_mode_uniform,
        "the cluster can grow and runs in one start mode",
    ),
    rule(
        "single-replica-stays",
        "KWDB page: scale-in of a single-replica cluster is not supported",
        single_replica_stays,
        "nothing leaves unless the cluster is multi-replica",
    ),
    rule("known-ids", IDENTITY, known_ids, "known_ids hold every node that the plan names"),
    rule(
        "leaving-stores",
        IDENTITY,
        leaving_stores,
        "the stores of each leaving node are pinned and its own",
    ),
    rule("leaving-identity", IDENTITY, leaving_identity, "leaving nodes are live members by the fingerprint"),
    rule("leaving-host", FORMAT, leaving_host, "a leaving node's host has the node's address"),
    rule("gateways-distinct", FORMAT, gateways_distinct, "no gateway is named twice"),
    rule("gateways-stay", "design: a leaving node is never the gateway", gateways_stay, "no gateway leaves"),
    rule(
        "gateways-enough",
        "design: emptiness is proven through two gateways",
        gateways_enough,
        "there are enough gateways to prove the end state",
    ),
    rule("gateways-members", IDENTITY, gateways_members, "gateways are live members by the fingerprint"),
    rule(
        "members-before",
        FORMAT,
        members_before,
        "members_before counts the fingerprint's nodes without the bit",
    ),
    rule(
        "members-after",
        FORMAT,
        members_after,
        "members_after is members_before plus joins minus the leaving nodes that were counted",
    ),
    rule("members-minimum", PAGE_IN, members_minimum, "at least 3 live members remain when one leaves"),
    rule(
        "zone-need",
        ALLOCATOR,
        zone_need,
        "the members that remain can hold the replicas that each zone needs",
    ),
    rule("all-alive", PAGE_IN, all_alive, "no node is down when one leaves"),
];

fn schema(case: &Case<'_>, report: &mut Report) {
    if case.plan.schema != "kwdb-scale.plan/v1" {
        report.whole(format!("the schema is '{}'", case.plan.schema));
    }
}

fn content_id(case: &Case<'_>, report: &mut Report) {
    match case.plan.content_id() {
        Ok(actual) if actual == case.plan.id => {}
        Ok(actual) => report.whole(format!("the id is '{}', the content gives {actual}", case.plan.id)),
        Err(e) => report.whole(format!("the content has no id: {e}")),
    }
}

fn no_refusal(case: &Case<'_>, report: &mut Report) {
    for finding in case.plan.findings.iter().filter(|f| f.severity == Severity::Refuse) {
        report.whole(format!("the check {} refused: {}", finding.check, finding.message));
    }
    for check in &case.fingerprint().refused {
        report.whole(format!("the fingerprint holds a refusal of the check {check}"));
    }
}

fn policy_sane(case: &Case<'_>, report: &mut Report) {
    let p = &case.plan.policy;
    for (name, value) in [
        ("start_deadline", p.start_deadline),
        ("join_deadline", p.join_deadline),
        ("act_deadline", p.act_deadline),
        ("stop_deadline", p.stop_deadline),
        ("empty_deadline", p.empty_deadline),
        ("stall_after", p.stall_after),
        ("removed_deadline", p.removed_deadline),
        ("stays_down", p.stays_down),
        ("balance_deadline", p.balance_deadline),
        ("settled_after", p.settled_after),
        ("poll", p.poll),
        ("sample_spacing", p.sample_spacing),
        ("max_status_age", p.max_status_age),
        ("max_clock_skew", p.max_clock_skew),
    ] {
        if value <= SignedDuration::ZERO {
            report.whole(format!("{name} is {value:#}, which is no time"));
        }
    }
    if p.samples < 2 {
        report.whole(format!("{} sample proves nothing, it takes at least 2", p.samples));
    }
    if p.poll > p.stall_after {
        report.whole(format!("stall_after {:#} is shorter than a poll of {:#}", p.stall_after, p.poll));
    }
}

fn change_kind(case: &Case<'_>, report: &mut Report) {
    let change = &case.plan.change;
    let kind = match (change.add.is_empty(), change.remove.is_empty()) {
        (true, true) => OperationKind::Nothing,
        (false, true) => OperationKind::Out,
        (true, false) => OperationKind::In,
        (false, false) => OperationKind::Replace,
    };
    if change.kind != kind {
        report.whole(format!(
            "the kind is {}, yet hosts {} join and {} leave",
            change.kind,
            list(&change.add),
            list(&change.remove)
        ));
    }
}

/// Members by the fingerprint, down or not, whose address is that of `host` in the inventory.
fn members_of_host(case: &Case<'_>, host: &HostName) -> BTreeSet<NodeId> {
    let Some(entry) = case.inventory().hosts.get(host) else { return BTreeSet::new() };
    let nodes = case.fingerprint().nodes.iter().filter(|(_, n)| {
        matches!(n.class, NodeClass::Member | NodeClass::Dead | NodeClass::Leaving)
            && n.address.known().map(String::as_str) == Some(entry.address.as_str())
    });
    nodes.map(|(id, _)| *id).collect()
}

/// Hosts that may get a node and nodes that may leave, by the request.
fn allowed(case: &Case<'_>) -> (Vec<HostName>, BTreeSet<NodeId>) {
    let named = |refs: &[NodeRef]| -> BTreeSet<NodeId> {
        refs.iter()
            .flat_map(|r| match r {
                NodeRef::Id(id) => BTreeSet::from([*id]),
                NodeRef::Host(host) => members_of_host(case, host),
            })
            .collect()
    };
    match &case.plan.request.operation {
        Operation::ScaleOut { hosts } => (hosts.clone(), BTreeSet::new()),
        Operation::ScaleIn { nodes } => (Vec::new(), named(nodes)),
        Operation::Replace { nodes, hosts } => (hosts.clone(), named(nodes)),
        Operation::Reach { members } => {
            let keep: BTreeSet<NodeId> = members.iter().flat_map(|h| members_of_host(case, h)).collect();
            // Who leaves already, or was left drained, is no member.
            let nodes = case.fingerprint().nodes.iter().filter(|(_, n)| n.class != NodeClass::Leaving);
            (members.clone(), nodes.map(|(id, _)| *id).filter(|id| !keep.contains(id)).collect())
        }
    }
}

fn change_asked(case: &Case<'_>, report: &mut Report) {
    let (hosts, nodes) = allowed(case);
    for host in case.plan.change.add.iter().filter(|h| !hosts.contains(h)) {
        report.whole(format!("host {host} joins unasked"));
    }
    for node in case.plan.change.remove.iter().filter(|n| !nodes.contains(n)) {
        report.whole(format!("node {} leaves unasked", node.0));
    }
}

fn request_covered(case: &Case<'_>, report: &mut Report) {
    let change = &case.plan.change;
    let (hosts, nodes) = allowed(case);
    for host in &hosts {
        if !change.add.contains(host) && members_of_host(case, host).is_empty() {
            report.whole(format!("host {host} was asked for, does not join and has no member"));
        }
    }
    let left_drained = |class: NodeClass| {
        class == NodeClass::Leaving && case.plan.request.options.finish == Finish::LeaveDrained
    };
    for node in &nodes {
        let gone = case.fingerprint().nodes.get(node).is_none_or(|n| left_drained(n.class));
        if !change.remove.contains(node) && !gone {
            report.whole(format!("node {} was to leave and stays", node.0));
        }
    }
    // Removed nodes are in no fingerprint; that there was one on a host is told by `observed-request`.
    if let Operation::ScaleIn { nodes } | Operation::Replace { nodes, .. } = &case.plan.request.operation {
        for reference in nodes {
            if matches!(reference, NodeRef::Id(id) if !case.plan.known_ids.contains(id)) {
                report.whole(format!("{reference} was to leave and was never there"));
            }
        }
    }
}

fn leaving_as_changed(case: &Case<'_>, report: &mut Report) {
    let leaving: Vec<NodeId> = case.plan.leaving.iter().map(|l| l.node).collect();
    for node in repeated(&leaving).into_iter().chain(repeated(&case.plan.change.remove)) {
        report.whole(format!("node {} leaves twice", node.0));
    }
    let changed: BTreeSet<NodeId> = case.plan.change.remove.iter().copied().collect();
    if changed != case.leaving_ids() {
        report.whole(format!(
            "the leaving nodes are {}, by the change {} leave",
            list(leaving),
            list(&case.plan.change.remove)
        ));
    }
}

fn empty_iff_nothing(case: &Case<'_>, report: &mut Report) {
    let nothing = case.plan.change.kind == OperationKind::Nothing;
    match (nothing, case.plan.steps.len()) {
        (true, 0) => {}
        (true, n) => report.whole(format!("there is nothing to do, yet there are {n} steps")),
        (false, 0) => report.whole(format!("a {} without any step", case.plan.change.kind)),
        (false, _) => {}
    }
}

fn fingerprint_cluster(case: &Case<'_>, report: &mut Report) {
    let id = case.plan.cluster_id.as_str();
    match case.fingerprint().cluster_id.known() {
        Some(known) if known == id && !id.is_empty() => {}
        _ => report.whole(format!(
            "the plan is for cluster '{id}', its fingerprint is of cluster {}",
            case.fingerprint().cluster_id
        )),
    }
}

fn start_mode_uniform(case: &Case<'_>, report: &mut Report) {
    if case.plan.steps.is_empty() {
        return;
    }
    let mode = &case.plan.start_mode;
    if !matches!(mode, StartMode::MultiReplica | StartMode::SingleReplica) {
        report.whole(format!("a cluster that runs with '{mode}' cannot be scaled"));
    }
    for (id, node) in &case.fingerprint().nodes {
        match node.start_mode.known() {
            Some(known) if known == mode.as_str() => {}
            // A dead node's descriptor leaves the gossip after two hours.
            None if node.class == NodeClass::Dead => {}
            _ => report.whole(format!("node {} runs with {}, the plan says {mode}", id.0, node.start_mode)),
        }
    }
}

fn single_replica_stays(case: &Case<'_>, report: &mut Report) {
    if case.plan.start_mode != StartMode::MultiReplica && case.something_leaves() {
        report.whole(format!(
            "{} leave a cluster that runs with '{}'",
            list(case.leaving_ids()),
            case.plan.start_mode
        ));
    }
}

fn known_ids(case: &Case<'_>, report: &mut Report) {
    let plan = case.plan;
    let named: BTreeSet<NodeId> = plan
        .leaving
        .iter()
        .map(|l| l.node)
        .chain(plan.gateways.iter().map(|g| g.node))
        .chain(plan.fingerprint.nodes.keys().copied())
        .collect();
    for node in named.difference(&plan.known_ids) {
        report.whole(format!("node {} is not among the known ids, so it could pass for a new one", node.0));
    }
}

fn leaving_stores(case: &Case<'_>, report: &mut Report) {
    for leaving in case.plan.leaving.iter().filter(|l| l.stores.is_empty()) {
        report.whole(format!("no store of node {} is pinned: emptiness could not be told", leaving.node.0));
    }
    for store in repeated(case.plan.leaving.iter().flat_map(|l| &l.stores)) {
        report.whole(format!("store {} is pinned for two leaving nodes", store.0));
    }
}

fn leaving_identity(case: &Case<'_>, report: &mut Report) {
    for leaving in &case.plan.leaving {
        let id = leaving.node.0;
        let Some(print) = case.fingerprint().nodes.get(&leaving.node) else {
            report.whole(format!("leaving node {id} is not in the fingerprint"));
            continue;
        };
        if print.address.known().map(String::as_str) != Some(leaving.address.as_str()) {
            report.whole(format!(
                "leaving node {id} is at {}, by the fingerprint at {}",
                leaving.address, print.address
            ));
        }
        // An empty set is told of by `leaving-stores`.
        if print.stores != leaving.stores && !leaving.stores.is_empty() {
            report.whole(format!(
                "stores {} are pinned for leaving node {id}, by the fingerprint it has {}",
                list(&leaving.stores),
                list(&print.stores)
            ));
        }
    }
}

fn leaving_host(case: &Case<'_>, report: &mut Report) {
    for leaving in &case.plan.leaving {
        let Some(host) = &leaving.host else { continue };
        match case.inventory().hosts.get(host) {
            Some(entry) if entry.address == leaving.address => {}
            Some(entry) => report.whole(format!(
                "node {} at {} is said to run on host {host}, whose node is at {}",
                leaving.node.0, leaving.address, entry.address
            )),
            None => report.whole(format!("host {host} of node {} is not in the inventory", leaving.node.0)),
        }
    }
}

fn gateways_distinct(case: &Case<'_>, report: &mut Report) {
    let gateways = &case.plan.gateways;
    for node in repeated(gateways.iter().map(|g| g.node)) {
        report.whole(format!("node {} is a gateway twice", node.0));
    }
    let addresses = repeated(gateways.iter().map(|g| &g.address)).into_iter();
    for address in addresses.chain(repeated(gateways.iter().map(|g| &g.sql_address))) {
        report.whole(format!("two gateways are at {address}"));
    }
}

fn gateways_stay(case: &Case<'_>, report: &mut Report) {
    for gateway in &case.plan.gateways {
        let same = |a: &Address| *a == gateway.address || *a == gateway.sql_address;
        if case.plan.leaving.iter().any(|l| l.node == gateway.node || same(&l.address)) {
            report.whole(format!("gateway {gateway} leaves"));
        }
    }
}

fn gateways_enough(case: &Case<'_>, report: &mut Report) {
    if case.plan.steps.is_empty() {
        return;
    }
    // Where none leaves, live members may be few: see `observed-several`.
    let enough = if case.something_leaves() { 2 } else { 1 };
    let there = case.plan.gateways.len();
    if there < enough {
        report.whole(format!("there are {there} gateways where it takes {enough}"));
    }
}

fn gateways_members(case: &Case<'_>, report: &mut Report) {
    for gateway in &case.plan.gateways {
        let member = case.fingerprint().nodes.get(&gateway.node).is_some_and(|n| {
            n.class == NodeClass::Member
                && n.address.known().map(String::as_str) == Some(gateway.address.as_str())
        });
        if !member {
            report.whole(format!("gateway {gateway} is no live member at that address by the fingerprint"));
        }
    }
}

fn members_before(case: &Case<'_>, report: &mut Report) {
    let nodes = &case.fingerprint().nodes;
    let count = |class: NodeClass| nodes.values().filter(|n| n.class == class).count();
    // Whether the bit is set on a node of unknown class is not to be told from its class.
    let least = count(NodeClass::Member) + count(NodeClass::Dead);
    let most = least + count(NodeClass::Unknown);
    if !(least..=most).contains(&case.plan.members_before) {
        report.whole(format!(
            "{} members before, by the fingerprint {least} nodes are without the decommissioning bit",
            case.plan.members_before
        ));
    }
}

fn members_after(case: &Case<'_>, report: &mut Report) {
    let (before, after) = (case.plan.members_before, case.plan.members_after);
    // A node that was left drained is not counted before either.
    let drained =
        |node: &NodeId| case.fingerprint().nodes.get(node).is_some_and(|n| n.class == NodeClass::Leaving);
    let leaving = case.plan.leaving.iter().filter(|l| !drained(&l.node)).count();
    let joins = case.joins().count();
    if (before + joins).checked_sub(leaving) != Some(after) {
        report.whole(format!("{before} members before, {joins} join and {leaving} leave, yet {after} after"));
    }
}

fn members_minimum(case: &Case<'_>, report: &mut Report) {
    if !case.something_leaves() {
        return;
    }
    let live = case.survivors().len() + case.joins().count();
    let after = live.min(case.plan.members_after);
    if after < FEWEST_MEMBERS {
        report.whole(format!("{after} live members remain where {FEWEST_MEMBERS} are the least"));
    }
}

fn zone_need(case: &Case<'_>, report: &mut Report) {
    if !case.something_leaves() {
        return;
    }
    let zones = &case.fingerprint().zones;
    if zones.is_empty() {
        report.whole("no zone configuration is known, so what ranges need is not either");
    }
    let after = case.plan.members_after;
    for (target, zone) in zones {
        match zone.num_replicas.known() {
            Some(0) | None => {
                report.whole(format!("{target} wants {} replicas: its need is not known", zone.num_replicas));
            }
            Some(factor) => {
                let need = needed_replicas(*factor, after);
                if need > after {
                    report.whole(format!("{target} needs {need} replicas, {after} members remain"));
                }
            }
        }
    }
}

fn all_alive(case: &Case<'_>, report: &mut Report) {
    if !case.something_leaves() {
        return;
    }
    // A node that was left drained on purpose may run on; `observed-alive` tells whether it holds replicas.
    let at_fault = |class: NodeClass| !matches!(class, NodeClass::Member | NodeClass::Leaving);
    for (id, node) in case.fingerprint().nodes.iter().filter(|(_, n)| at_fault(n.class)) {
        report.whole(format!("node {} is {} while a node leaves", id.0, node.class));
    }
}

//! One synthetic cluster per finding: which checks refuse and warn, and with which words.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod support;

use jiff::SignedDuration;
use kwdb_scale_core::assess::{Assessment, OperationKind, Severity};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::host_facts::ScriptFacts;
use kwdb_scale_core::ports::{Means, StoreContent};
use kwdb_scale_core::request::{NodeRef, Operation};
use kwdb_scale_core::topology::{Address, NodeId, StartMode, StoreId};
use support::*;

/// Every refusal and warning with its words. What the checks should say is the test's; how they say it is the
/// snapshot's.
fn expect(name: &str, assessment: &Assessment, refuse: &[&str], warn: &[&str]) {
    assert_eq!(checks(assessment, Severity::Refuse), refuse, "{name}: refusals\n{:#?}", assessment.findings);
    assert_eq!(checks(assessment, Severity::Warn), warn, "{name}: warnings\n{:#?}", assessment.findings);
    let lines: Vec<String> = assessment
        .findings
        .iter()
        .filter(|f| f.severity > Severity::Info)
        .map(|f| match &f.retry {
            Some(retry) => format!("{f}\n    retry: {}", serde_json::to_string(retry).unwrap()),
            None => f.to_string(),
        })
        .collect();
    for finding in assessment.refusals() {
        assert!(finding.retry.is_some(), "{name}: a refusal says when to ask again");
    }
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "snapshots/assess", omit_expression => true }, {
        insta::assert_snapshot!(name, lines.join("\n"));
    });
}

macro_rules! case {
    ($name:ident, $nodes:literal, |$c:ident| $change:block, refuse $refuse:expr, warn $warn:expr) => {
        #[test]
        fn $name() {
            #[allow(unused_mut)]
            let mut $c = Cluster::new($nodes);
            let operation: Operation = $change;
            expect(stringify!($name), &$c.assess(operation), &$refuse, &$warn);
        }
    };
}

#[test]
fn a_healthy_cluster_is_scaled_out_in_and_replaced() {
    for (operation, kind) in [
        (scale_out(&[6]), OperationKind::Out),
        (scale_out(&[6, 7]), OperationKind::Out),
        (scale_in(&[5]), OperationKind::In),
        (scale_in(&[4, 5]), OperationKind::In),
        (replace(&[2], &[6]), OperationKind::Replace),
        (reach(&[1, 2, 3, 4]), OperationKind::In),
        (reach(&[1, 2, 3, 4, 6]), OperationKind::Replace),
    ] {
        for per_node in [1, 2] {
            let cluster = Cluster::with_stores(5, per_node);
            let assessment = cluster.assess(operation.clone());
            assert_eq!(assessment.change.kind, kind);
            assert!(!assessment.refused(), "{operation:?}: {:#?}", assessment.findings);
            assert_eq!(checks(&assessment, Severity::Warn), Vec::<String>::new());
        }
    }
}

#[test]
fn what_is_so_already_is_nothing_to_do() {
    let mut cluster = Cluster::new(5);
    cluster.remove(5);
    for operation in [
        reach(&[1, 2, 3, 4]),
        scale_out(&[4]),
        scale_in(&[5]),
        Operation::ScaleIn { nodes: vec![NodeRef::Host(host(5))] },
    ] {
        let assessment = cluster.assess(operation.clone());
        assert_eq!(assessment.change.kind, OperationKind::Nothing, "{operation:?}");
        assert!(!assessment.refused(), "{operation:?}: {:#?}", assessment.findings);
        assert!(checks(&assessment, Severity::Warn).is_empty(), "{operation:?}: {:#?}", assessment.findings);
    }
    // A fulfilled request is not refused for what would hinder a change.
    cluster.kill(2);
    let assessment = cluster.assess(reach(&[1, 2, 3, 4]));
    assert_eq!(assessment.change.kind, OperationKind::Nothing);
    assert!(!assessment.refused());
    assert_eq!(checks(&assessment, Severity::Warn), ["members-alive"]);
}

#[test]
fn information_of_each_kind() {
    let mut cluster = Cluster::new(5);
    cluster.remove(5);
    cluster.set("kv.allocator.ts_store_dead_rebalance.enabled", "false");
    let out = cluster.assess(scale_out(&[4, 5]));
    let mut single = Cluster::new(3);
    single.all_nodes(|n| n.start_mode = Some(StartMode::SingleReplica));
    single.spread();
    let mut old = Cluster::new(5);
    old.all_nodes(|n| n.build = Some("V3.1.0".into()));
    let informed = |a: &Assessment| {
        let lines: Vec<String> =
            a.findings.iter().filter(|f| f.severity == Severity::Info).map(ToString::to_string).collect();
        lines.join("\n")
    };
    let text = format!(
        "-- scale-out of a member and of a removed node's host\n{}\n-- scale-in from 5 to 4\n{}\n-- single-replica scale-out\n{}\n-- replace on V3.1.0\n{}",
        informed(&out),
        informed(&Cluster::new(5).assess(scale_in(&[5]))),
        informed(&single.assess(scale_out(&[4]))),
        informed(&old.assess(replace(&[5], &[6])))
    );
    assert!(!single.assess(scale_out(&[4])).refused());
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "snapshots/assess", omit_expression => true }, {
        insta::assert_snapshot!("information", text);
    });
}

// ---- the request

case!(unknown_node, 4, |c| { scale_in(&[9]) }, refuse ["targets-known"], warn []);
case!(node_named_twice, 5, |c| {
    Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(5)), NodeRef::Host(host(5))] }
}, refuse ["targets-known"], warn []);
case!(host_without_node, 4, |c| { Operation::ScaleIn { nodes: vec![NodeRef::Host(host(9))] } },
    refuse ["targets-known"], warn []);
case!(host_unknown, 4, |c| { Operation::ScaleIn { nodes: vec![NodeRef::Host("elsewhere".into())] } },
    refuse ["hosts-known"], warn []);
case!(two_nodes_at_one_address, 5, |c| {
    c.node_row(4).address = Some(address(5));
    c.node_row(4).sql_address = Some(address(5));
    Operation::ScaleIn { nodes: vec![NodeRef::Host(host(5))] }
}, refuse ["targets-known"], warn []);
case!(new_host_unknown, 4, |c| { Operation::ScaleOut { hosts: vec!["elsewhere".into()] } },
    refuse ["hosts-known"], warn []);
case!(new_host_named_twice, 4, |c| { scale_out(&[5, 5]) }, refuse ["hosts-known"], warn []);
case!(hosts_with_one_address, 4, |c| {
    c.inventory.hosts.get_mut(&host(6)).unwrap().address = address(5);
    scale_out(&[5])
}, refuse ["hosts-known"], warn []);
case!(new_host_at_a_dead_member, 5, |c| { c.kill(5); scale_out(&[5, 6]) },
    refuse ["hosts-known"], warn ["members-alive", "ranges-replicated"]);
case!(new_host_at_a_leaving_node, 5, |c| { c.mark(5); scale_out(&[5, 6]) },
    refuse ["hosts-known", "none-leaving"], warn []);
case!(replaced_by_itself, 4, |c| { replace(&[4], &[4]) }, refuse ["hosts-known"], warn []);
case!(replace_without_hosts, 4, |c| { replace(&[4], &[]) }, refuse ["targets-known"], warn []);
case!(reach_with_an_unknown_address, 5, |c| {
    c.node_row(5).address = None;
    c.store_row(5).node_address = None;
    reach(&[1, 2, 3, 4])
},  refuse ["targets-known"], warn []);

// ---- the cluster

case!(
    liveness_unreadable,
    4,
    |c| {
        c.failing.push(("Liveness", "10.0.0.1:26257: timed out"));
        scale_in(&[4])
    },
    refuse["targets-known"],
    warn["cluster-readable"]
);
case!(not_initialised, 4, |c| { c.failing.push(("1:Cluster", "10.0.0.1:26257: not initialised")); scale_in(&[4]) },
    refuse ["cluster-readable", "admin-role"], warn []);
case!(not_admin, 4, |c| { c.is_admin = Some(false); scale_out(&[5]) }, refuse ["admin-role"], warn []);
case!(two_clusters, 4, |c| { c.view_cluster.insert(2, "another".into()); scale_out(&[5]) },
    refuse ["gateways-agree"], warn []);
case!(gateways_see_different_members, 4, |c| {
    let mut other = c.liveness.clone();
    other.pop();
    other[1].decommissioning = Some(true);
    c.view_liveness.insert(3, other);
    scale_out(&[5])
}, refuse ["gateways-agree"], warn []);
case!(one_gateway_for_scale_in, 4, |c| { c.views = vec![4]; scale_in(&[4]) }, refuse ["two-gateways"], warn []);
case!(one_gateway_for_scale_out, 4, |c| { c.views.clear(); scale_out(&[5]) }, refuse [], warn ["two-gateways"]);
case!(second_gateway_silent, 4, |c| {
    c.views = vec![2];
    c.failing.push(("2:Liveness", "10.0.0.2:26257: refused"));
    scale_in(&[4])
}, refuse ["two-gateways"], warn []);
case!(clocks_apart, 4, |c| {
    c.view_offset.insert(2, SignedDuration::from_millis(900));
    c.view_offset.insert(3, SignedDuration::from_millis(-700));
    scale_in(&[4])
}, refuse [], warn ["clock-skew"]);

// ---- the members

case!(class_unknown, 5, |c| { c.live_row(3).decommissioning = None; scale_in(&[5]) },
    refuse ["members-known"], warn []);
case!(descriptor_not_gossiped, 5, |c| { c.nodes.retain(|n| n.node_id.0 != 3); scale_out(&[6]) },
    refuse ["members-described", "start-mode"], warn ["members-alive"]);
case!(member_dead_for_scale_in, 5, |c| { c.kill(3); scale_in(&[5]) },
    refuse ["members-alive", "ranges-replicated"], warn []);
case!(member_dead_for_replace, 5, |c| { c.kill(3); replace(&[5], &[6]) },
    refuse ["members-alive", "zone-need", "ranges-replicated"], warn []);
case!(member_dead_for_scale_out, 5, |c| { c.kill(3); scale_out(&[6]) },
    refuse [], warn ["members-alive", "ranges-replicated"]);
case!(long_dead_member_for_scale_out, 5, |c| {
    c.kill(3);
    c.nodes.retain(|n| n.node_id.0 != 3);
    scale_out(&[6])
}, refuse [], warn ["members-alive", "ranges-replicated"]);
case!(member_not_heard, 5, |c| { c.node_row(3).is_live = Some(false); scale_in(&[5]) },
    refuse ["members-alive"], warn []);
case!(target_dead, 5, |c| { c.kill(5); scale_in(&[5]) }, refuse ["target-alive", "ranges-replicated"], warn []);
case!(member_draining, 5, |c| { c.live_row(3).draining = Some(true); scale_in(&[5]) },
    refuse ["none-draining"], warn []);
case!(member_draining_for_scale_out, 5, |c| { c.live_row(3).draining = Some(true); scale_out(&[6]) },
    refuse [], warn ["none-draining"]);
case!(member_upgrading, 5, |c| { c.live_row(3).upgrading = Some(true); scale_out(&[6]) },
    refuse ["none-upgrading"], warn []);
case!(another_decommission, 6, |c| { c.mark(6); scale_in(&[5]) }, refuse ["none-leaving"], warn []);
case!(target_marked_already, 5, |c| { c.mark(5); scale_in(&[5]) }, refuse ["none-leaving"], warn []);
case!(target_emptied_already, 5, |c| { c.mark(5); c.empty(5); scale_in(&[5]) }, refuse [], warn []);
case!(drained_node_runs, 6, |c| { c.mark(6); c.empty(6); scale_in(&[5]) },
    refuse [], warn ["drained-still-running"]);

// ---- modes and releases

case!(mode_unknown, 4, |c| { c.all_nodes(|n| n.start_mode = None); scale_out(&[5]) },
    refuse ["members-described", "start-mode"], warn []);
case!(mode_of_another_word, 4, |c| { c.all_nodes(|n| n.start_mode = Some("start-other".into())); scale_out(&[5]) },
    refuse ["start-mode"], warn []);
case!(modes_mixed, 4, |c| { c.node_row(3).start_mode = Some(StartMode::SingleReplica); scale_out(&[5]) },
    refuse ["start-mode"], warn []);
case!(single_node, 1, |c| { c.all_nodes(|n| n.start_mode = Some(StartMode::SingleNode)); scale_out(&[2]) },
    refuse ["start-mode"], warn ["two-gateways", "ranges-replicated"]);
case!(single_replica_scale_in, 4, |c| {
    c.all_nodes(|n| n.start_mode = Some(StartMode::SingleReplica));
    c.spread();
    scale_in(&[4])
}, refuse ["single-replica-scale-in"], warn []);
case!(release_too_old, 4, |c| { c.all_nodes(|n| n.build = Some("V2.2.0".into()));
    c.host_mut(5).build = Fact::Known("V2.2.0".into()); scale_out(&[5]) },
    refuse ["version-supported"], warn []);
case!(releases_mixed, 4, |c| { c.node_row(2).build = Some("V3.2.0".into()); scale_in(&[4]) },
    refuse ["version-uniform"], warn []);
case!(release_newer, 4, |c| { c.all_nodes(|n| n.build = Some("V4.0.0".into())); scale_in(&[4]) },
    refuse [], warn ["version-known"]);
case!(release_unparsable, 4, |c| { c.all_nodes(|n| n.build = Some("unknown".into())); scale_in(&[4]) },
    refuse [], warn ["version-known"]);

// ---- how many remain

case!(two_would_remain, 3, |c| { scale_in(&[3]) }, refuse ["members-remain", "zone-need"], warn []);
case!(replace_that_leaves_two, 4, |c| { replace(&[2, 3, 4], &[5]) }, refuse ["two-gateways", "members-remain", "zone-need"], warn []);
case!(factor_unknown, 5, |c| { c.zones[2].full_config_sql = None; scale_in(&[5]) },
    refuse ["zone-need", "ranges-available"], warn []);
case!(zones_unreadable, 5, |c| { c.failing.push(("Zones", "permission denied")); scale_in(&[5]) },
    refuse ["zone-need", "ranges-available", "constraints-block"], warn []);

// ---- ranges

case!(ranges_unreadable, 5, |c| { c.failing.push(("Ranges", "timed out")); scale_out(&[6]) },
    refuse ["ranges-available"], warn []);
case!(range_unavailable, 5, |c| {
    c.kill(4);
    c.kill(5);
    c.ranges[6].replicas = vec![StoreId(110), StoreId(140), StoreId(150)];
    scale_out(&[6])
}, refuse ["ranges-available"], warn ["members-alive", "ranges-replicated"]);
case!(range_under_replicated, 5, |c| { c.ranges[6].replicas.pop(); scale_in(&[5]) },
    refuse ["ranges-replicated"], warn []);
case!(replica_on_an_unknown_store, 5, |c| { c.ranges[6].replicas[0] = StoreId(999); scale_in(&[5]) },
    refuse ["ranges-mapped"], warn []);
case!(partition_factor_unclear, 5, |c| {
    c.zones.push(partition(1, "a", 5, "num_replicas = 5"));
    scale_in(&[5])
}, refuse [], warn ["ranges-unclear"]);
case!(learner, 5, |c| { c.ranges[3].learners.push(StoreId(110)); scale_in(&[5]) },
    refuse [], warn ["moves-under-way"]);
case!(gauges_not_zero, 5, |c| { c.store_row(2).ranges_underreplicated = Some(3); scale_in(&[5]) },
    refuse ["page-query"], warn []);
case!(gauge_null, 5, |c| { c.store_row(2).ranges_unavailable = None; scale_in(&[5]) },
    refuse ["page-query"], warn []);
case!(status_stale, 5, |c| {
    let old = c.now - SignedDuration::from_secs(90);
    c.store_row(2).updated_at = Some(old);
    scale_in(&[5])
}, refuse ["status-fresh"], warn []);
case!(status_missing, 6, |c| {
    c.stores.retain(|s| s.node_id.0 != 6);
    let known: Vec<StoreId> = c.stores.iter().map(|s| s.store_id).collect();
    c.ranges.iter_mut().for_each(|r| r.replicas.retain(|s| known.contains(s)));
    c.spread_known();
    scale_in(&[5])
}, refuse ["status-fresh"], warn []);
case!(purgatory, 5, |c| { c.store_row(2).replicate_purgatory = Some(2); scale_in(&[5]) },
    refuse [], warn ["purgatory"]);

// ---- zones and jobs

case!(constraint_leaves_too_few, 4, |c| {
    c.zones.push(partition(1, "a", 3, "constraints = '[-region=NODE3]'"));
    c.ranges[8].replicas = vec![StoreId(110), StoreId(120), StoreId(140)];
    scale_in(&[4])
}, refuse ["constraints-block"], warn []);
case!(constraint_wants_the_leaving_node, 5, |c| {
    c.zones.push(partition(1, "a", 3, "num_replicas = 3,\n\tconstraints = '{+region=NODE1: 1, +region=NODE5: 1}'"));
    scale_in(&[5])
}, refuse ["constraints-block"], warn []);
case!(constraint_wants_only_the_leaving_node, 5, |c| {
    c.zones.push(partition(1, "a", 3, "constraints = '[+region=NODE5]'"));
    scale_in(&[5])
}, refuse ["constraints-block"], warn []);
case!(constraint_names_the_leaving_node, 5, |c| {
    c.zones.push(partition(1, "a", 3, "constraints = '[-region=NODE5]',\n\tlease_preferences = '[[+region=NODE5], [+region=NODE1]]'"));
    scale_in(&[5])
}, refuse [], warn ["constraints-name", "lease-preferences"]);
case!(constraint_not_understood, 5, |c| {
    c.zones.push(partition(1, "a", 3, "constraints = 'what'"));
    scale_in(&[5])
}, refuse ["constraints-block"], warn []);
case!(schema_change_running, 5, |c| { c.jobs.push(job("SCHEMA CHANGE", "running")); scale_in(&[5]) },
    refuse ["jobs"], warn []);
case!(import_running_for_scale_out, 5, |c| { c.jobs.push(job("IMPORT", "running")); scale_out(&[6]) },
    refuse [], warn ["jobs"]);
case!(jobs_unreadable, 5, |c| { c.failing.push(("Jobs", "timed out")); scale_in(&[5]) }, refuse ["jobs"], warn []);

// ---- hosts

case!(host_not_looked_at, 4, |c| { c.hosts.remove(&host(5)); scale_out(&[5]) }, refuse ["host-facts"], warn []);
case!(host_unreachable, 4, |c| { c.hosts.insert(host(5), Fact::unknown("connection refused")); scale_out(&[5]) },
    refuse ["host-facts"], warn []);
case!(host_store_in_use, 4, |c| {
    c.host_mut(5).stores[0].content = Fact::Known(StoreContent::InUse(vec!["kwbase.start_mode".into(), "CURRENT".into()]));
    scale_out(&[5])
}, refuse ["host-store-empty"], warn []);
case!(host_store_unknown, 4, |c| {
    c.host_mut(5).stores[0].content = Fact::unknown("permission denied");
    replace(&[4], &[5])
}, refuse ["host-store-empty"], warn []);
case!(host_without_stores, 4, |c| { c.host_mut(5).stores.clear(); scale_out(&[5]) },
    refuse ["host-store-empty"], warn []);
case!(host_of_another_release, 4, |c| { c.host_mut(5).build = Fact::Known("V3.1.0".into()); scale_out(&[5]) },
    refuse ["host-version"], warn []);
case!(host_without_kwbase, 4, |c| { c.host_mut(5).build = Fact::unknown("kwbase is not there"); scale_out(&[5]) },
    refuse ["host-version"], warn []);
case!(host_port_taken, 4, |c| { c.host_mut(5).listening = Fact::Known(vec![address(5)]); scale_out(&[5]) },
    refuse ["host-ports-free"], warn []);
case!(host_ports_unknown, 4, |c| { c.host_mut(5).listening = Fact::unknown("no answer"); scale_out(&[5]) },
    refuse ["host-ports-free"], warn []);
case!(host_secure_in_an_insecure_cluster, 4, |c| { c.host_mut(5).secure = true; scale_out(&[5]) },
    refuse ["host-secure"], warn []);
case!(host_without_credentials, 4, |c| { c.host_mut(5).can_authenticate = Fact::Known(false); scale_out(&[5]) },
    refuse [], warn ["host-credentials"]);
case!(host_with_a_loopback_address, 4, |c| {
    c.inventory.hosts.get_mut(&host(5)).unwrap().address = Address::new("127.0.0.1:26261");
    scale_out(&[5])
}, refuse [], warn ["host-address"]);
case!(only_the_control_host_can_mark, 4, |c| {
    for n in 1..=3 { c.inventory.hosts.remove(&host(n)); }
    c.inventory.control = Some(host(9));
    c.hosts.insert(host(9), c.hosts[&host(1)].clone());
    scale_in(&[4])
}, refuse [], warn []);
case!(no_host_can_mark, 4, |c| {
    for n in 1..=3 { c.host_mut(n).can_authenticate = Fact::Known(false); }
    c.hosts.remove(&host(2));
    c.inventory.hosts.remove(&host(3));
    scale_in(&[4])
}, refuse ["marking-host"], warn []);
case!(no_host_need_mark_over_the_rpc, 4, |c| {
    for n in 1..=4 { c.host_mut(n).build = Fact::unknown("kwbase is not there"); }
    c.hosts.insert(host(2), Fact::unknown("no route to host"));
    c.means = Some(rpc(false));
    scale_in(&[4])
}, refuse [], warn ["hosts-of-members"]);
case!(hosts_mark_by_the_script_over_the_rpc_too, 4, |c| {
    for n in 1..=3 { c.host_mut(n).build = Fact::unknown("kwbase is not there"); }
    c.means = Some(rpc(true));
    scale_in(&[4])
}, refuse ["marking-host"], warn []);
case!(a_service_is_stopped_on_its_host, 4, |c| {
    let leaving = c.host_mut(4);
    leaving.by_service = true;
    leaving.build = Fact::unknown("kwbase is not there");
    c.means = Some(rpc(false));
    scale_in(&[4])
}, refuse ["stopping-host"], warn []);

case!(
    a_service_on_a_host_that_is_not_reached,
    4,
    |c| {
        c.hosts.insert(host(4), Fact::unknown("no route to host"));
        c.owned = [host(4)].into();
        c.means = Some(rpc(false));
        scale_in(&[4])
    },
    refuse["stopping-host"],
    warn["hosts-of-members"]
);
case!(a_node_that_commands_stop_from_elsewhere, 4, |c| {
    c.hosts.insert(host(4), Fact::unknown("no route to host"));
    c.owned = [host(3)].into();
    scale_in(&[4])
}, refuse [], warn ["hosts-of-members"]);
case!(a_script_that_cannot_be_run_marks_nobody, 4, |c| {
    c.host_mut(4).script = script(&["no deploy.sh"], &address(4));
    scale_in(&[4])
}, refuse ["script-mark"], warn []);
case!(a_script_that_would_mark_others, 4, |c| {
    c.host_mut(4).script = script(&[], &address(3));
    scale_in(&[4])
}, refuse ["script-mark"], warn []);
case!(a_script_that_is_not_asked_to_mark, 4, |c| {
    c.host_mut(4).script = script(&["no deploy.sh"], &address(4));
    c.means = Some(rpc(false));
    scale_in(&[4])
}, refuse [], warn []);
case!(a_script_marks_its_own_node, 4, |c| {
    c.host_mut(4).script = script(&[], &address(4));
    scale_in(&[4])
}, refuse [], warn []);

fn script(unusable: &[&str], address: &Address) -> Option<Fact<ScriptFacts>> {
    let unusable = unusable.iter().map(ToString::to_string).collect();
    let address = Some(address.host().to_owned());
    Some(Fact::Known(ScriptFacts {
        unusable,
        unfit: vec![],
        archive: None,
        archive_fault: None,
        archive_authority: None,
        address,
    }))
}

fn rpc(marks_on_hosts: bool) -> Means {
    Means::AdminRpc { why: "node 1 takes it".into(), marks_on_hosts }
}

#[test]
fn with_what_nodes_are_marked_is_said_where_it_is_known() {
    let mut cluster = Cluster::new(4);
    let said = |c: &Cluster, operation| {
        let findings = c.assess(operation).findings;
        findings.into_iter().find(|f| f.check == "means").map(|f| f.message)
    };
    assert_eq!(said(&cluster, scale_in(&[4])), None);
    cluster.means = Some(rpc(true));
    let text = "nodes are marked, counted and stopped by the admin RPC (node 1 takes it; marks by commands on hosts)";
    assert_eq!(said(&cluster, scale_in(&[4])).as_deref(), Some(text));
    let text = "new nodes say by the admin RPC whether they are ready (node 1 takes it)";
    assert_eq!(said(&cluster, scale_out(&[5])).as_deref(), Some(text));
    cluster.host_mut(4).script = script(&[], &address(4));
    cluster.owned = [host(4)].into();
    let evidence: Vec<String> = cluster
        .assess(scale_in(&[4]))
        .findings
        .into_iter()
        .filter(|f| f.check == "means")
        .flat_map(|f| f.evidence)
        .collect();
    let marked = "node 4 is marked by deploy.sh decommission on host h4";
    let stopped = "node 4 is stopped by what owns its process, by a command on host h4";
    assert_eq!(evidence, [marked, stopped]);
    cluster.means = Some(Means::CommandLine { why: "as asked".into(), refused: None });
    let text = "whether new nodes are ready is judged by SQL (as asked)";
    assert_eq!(said(&cluster, scale_out(&[5])).as_deref(), Some(text));
    let text = "nodes are marked, counted and stopped by the command line (as asked)";
    assert_eq!(said(&cluster, scale_in(&[4])).as_deref(), Some(text));
}

// ---- disks and settings

case!(disk_full, 5, |c| { let s = c.store_row(2); s.available = Some(1 << 30); s.used = Some(60 << 30); scale_in(&[5]) },
    refuse ["disk-full"], warn []);
case!(disk_nearly_full_afterwards, 4, |c| {
    let s = c.store_row(2);
    s.available = Some(10 << 30);
    s.used = Some(80 << 30);
    scale_in(&[4])
}, refuse [], warn ["disk-projected"]);
case!(disk_unknown, 5, |c| { c.store_row(2).available = None; scale_in(&[5]) }, refuse [], warn ["disk-unknown"]);
case!(disk_not_measured_yet, 5, |c| { c.store_row(5).used = Some(0); scale_in(&[5]) },
    refuse [], warn ["disk-unknown"]);
case!(settings_unreadable, 4, |c| { c.failing.push(("Settings", "timed out")); scale_out(&[5]) },
    refuse [], warn ["settings-known"]);
case!(ts_rebalance_off, 4, |c| { c.set("kv.allocator.ts_consider_rebalance.enabled", "false"); scale_out(&[5]) },
    refuse [], warn ["ts-rebalance-off"]);

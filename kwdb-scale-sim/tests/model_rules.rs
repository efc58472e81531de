//! What the model does where a real KWDB surprises.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod model_support;

use std::collections::BTreeSet;

use kwdb_scale_core::rows::RangeKind;
use kwdb_scale_core::topology::{Locality, NodeId, StartMode};
use kwdb_scale_sim::model::{
    Config, Health, NodeStart, Phase, QueryError, RpcError, Security, StartError, TableSpec, ZoneTarget,
};
use model_support::*;

#[test]
fn three_nodes_hang_without_a_word_until_a_fourth_comes() {
    let mut c = cluster(3);
    c.decommission(&address(1), &[NodeId(3)]).unwrap();
    let held = replicas(&c, 3);
    c.advance(seconds(3600));
    assert_eq!(replicas(&c, 3), held);
    assert!(stores(&c, 1).iter().all(|s| s.ranges_underreplicated == Some(0)));
    let stuck: u64 = stores(&c, 1).iter().filter_map(|s| s.replicate_purgatory).sum();
    assert_eq!(stuck, c.range_count() as u64, "each range waits on its leaseholder");
    add(&mut c, start(4, &[1]));
    assert!(until(&mut c, 120, |c| replicas(c, 3) == 0).is_some(), "{} left", replicas(&c, 3));
}

#[test]
fn recommission_takes_it_back() {
    let mut c = cluster(4);
    c.decommission(&address(1), &[NodeId(4)]).unwrap();
    c.advance(seconds(5));
    c.recommission(&address(2), &[NodeId(4)]).unwrap();
    let left = replicas(&c, 4);
    assert!(left > 0);
    c.advance(seconds(300));
    assert!(replicas(&c, 4) >= left);
}

#[test]
fn a_marked_dead_node_is_emptied_at_once_an_unmarked_one_after_half_an_hour() {
    let mut c = cluster(4);
    c.kill_node(&address(4));
    c.advance(seconds(1500));
    assert!(replicas(&c, 4) > 0);
    let mut unmarked = c.clone();
    c.decommission(&address(1), &[NodeId(4)]).unwrap();
    assert!(until(&mut c, 300, |c| replicas(c, 4) == 0).is_some());
    let took = until(&mut unmarked, 1200, |c| replicas(c, 4) == 0).unwrap() + 1500;
    assert!((1800..2400).contains(&took), "{took}");
    let mut quick = cluster(4);
    quick.set_setting("server.time_until_store_dead", "75s").unwrap();
    quick.kill_node(&address(4));
    assert!(until(&mut quick, 400, |c| replicas(c, 4) == 0).is_some());
}

#[test]
fn five_replicas_shrink_to_three_when_the_fifth_node_leaves() {
    let mut c = cluster(5);
    c.advance(seconds(300));
    let five =
        |c: &kwdb_scale_sim::model::Cluster| ranges(c, 1).iter().filter(|r| r.replicas.len() == 5).count();
    assert!(five(&c) >= 39, "system ranges want five: {}", five(&c));
    c.decommission(&address(1), &[NodeId(5)]).unwrap();
    assert!(until(&mut c, 600, |c| replicas(c, 5) == 0).is_some());
    c.advance(seconds(300));
    assert!(ranges(&c, 1).iter().all(|r| r.replicas.len() == 3));
    assert_eq!(c.under_replicated(), 0);
}

#[test]
fn a_partition_that_excludes_the_only_free_node_hangs_until_discarded() {
    let mut c = cluster(4);
    let spec = TableSpec { partitions: vec!["a".to_owned()], ..TableSpec::new("app", "pt", 3) };
    c.create_table(spec).unwrap();
    let target = ZoneTarget::Partition {
        database: "app".to_owned(),
        table: "pt".to_owned(),
        partition: "a".to_owned(),
    };
    let table = ZoneTarget::Table { database: "app".to_owned(), table: "pt".to_owned() };
    let refused = c.configure_zone(table, None, Some("[-region=NODE3]")).unwrap_err();
    assert_eq!(refused.code, "0A000");
    c.configure_zone(target.clone(), None, Some("[-region=NODE3]")).unwrap();
    // Replicas leave node 3, so that 1, 2 and 4 have one each.
    c.advance(seconds(300));
    let held = |c: &kwdb_scale_sim::model::Cluster, node: u32| {
        let of = stores(c, 1);
        let ids: BTreeSet<_> = of.iter().filter(|s| s.node_id.0 == node).map(|s| s.store_id).collect();
        let on = |r: &&kwdb_scale_core::rows::RangeRow| r.replicas.iter().any(|s| ids.contains(s));
        ranges(c, 1).iter().filter(|r| r.table.as_deref() == Some("pt")).filter(on).count() as u64
    };
    assert_eq!((held(&c, 3), held(&c, 4)), (0, 3));
    c.decommission(&address(1), &[NodeId(4)]).unwrap();
    c.advance(seconds(1200));
    assert_eq!((replicas(&c, 4), held(&c, 4)), (3, 3), "only what the constraint holds is left");
    assert!(stores(&c, 1).iter().all(|s| s.ranges_underreplicated == Some(0)));
    assert!(c.discard_zone(&target));
    assert!(until(&mut c, 30, |c| replicas(c, 4) == 0).is_some());
}

#[test]
fn single_replica_clusters_neither_move_nor_decommission() {
    let mut c = cluster_with(Config::default(), StartMode::SingleReplica, 3);
    let held: Vec<u64> = (1..=3).map(|n| replicas(&c, n)).collect();
    assert_eq!(held[1..], [0, 0]);
    let spread = TableSpec { kind: RangeKind::TimeSeries, ..TableSpec::new("tsdb", "t", 6) };
    c.create_table(spread).unwrap();
    assert_eq!((replicas(&c, 2), replicas(&c, 3)), (2, 2), "spread over the live nodes when made");
    assert_eq!(c.decommission(&address(1), &[NodeId(3)]), Err(RpcError::SingleReplica));
    assert_eq!(c.recommission(&address(1), &[NodeId(99)]), Err(RpcError::SingleReplica));
    let mode = StartMode::SingleReplica;
    add(&mut c, NodeStart { mode, ..start(4, &[1]) });
    c.advance(seconds(600));
    assert_eq!(replicas(&c, 4), 0);
    assert_eq!(c.setting("server.time_until_store_dead"), Some("30m0s"));
}

#[test]
fn two_stores_of_a_node_never_hold_one_range() {
    let mut c = cluster(3);
    let stores_of_4 = vec!["a".to_owned(), "b".to_owned()];
    add(&mut c, NodeStart { stores: stores_of_4, ..start(4, &[1]) });
    c.create_table(TableSpec::new("app", "kv", 40)).unwrap();
    c.advance(seconds(900));
    let own: Vec<_> = stores(&c, 1).into_iter().filter(|s| s.node_id == NodeId(4)).collect();
    assert_eq!(own.len(), 2);
    assert!(own.iter().all(|s| s.range_count.unwrap() > 5), "{own:?}");
    for r in ranges(&c, 1) {
        assert!(own.iter().filter(|s| r.replicas.contains(&s.store_id)).count() < 2, "{r:?}");
    }
    c.decommission(&address(1), &[NodeId(4)]).unwrap();
    assert!(until(&mut c, 900, |c| replicas(c, 4) == 0).is_some());
}

#[test]
fn another_start_mode_ends_the_process_and_leaves_a_trap() {
    let mut c = cluster(3);
    let wrong = || NodeStart { mode: StartMode::SingleReplica, ..start(4, &[1]) };
    c.start_node(wrong()).unwrap();
    c.advance(seconds(3));
    let Phase::Exited { code, message } = c.process(&address(4)).unwrap().phase else { panic!() };
    assert_eq!(code, 1);
    assert_eq!(
        message,
        "ERROR: Check start mode failed! Node start mode is start-single-replica, should be start\n"
    );
    assert!(c.store_files(&wrong().stores[0]).contains(&"kwbase.start_mode"));
    // A second attempt on the same directory is not checked.
    assert_eq!(add(&mut c, wrong()), NodeId(4));
    // A store with data is checked against its own file.
    c.kill_node(&address(3));
    let refused = c.start_node(NodeStart { mode: StartMode::SingleReplica, ..start(3, &[1]) });
    assert!(matches!(refused, Err(StartError::StartMode { .. })), "{refused:?}");
}

/// Its leases end with the old one.
#[test]
fn a_restart_begins_a_new_epoch_even_before_there_is_a_quorum() {
    let mut c = cluster(4);
    for n in 1..=4 {
        c.kill_node(&address(n));
    }
    c.advance(seconds(5));
    for n in 1..=4 {
        c.start_node(start(n, &[1, 2, 3])).unwrap();
    }
    c.advance(seconds(30));
    let epochs: Vec<i64> = liveness(&c, 1).iter().map(|l| l.epoch.unwrap()).collect();
    assert_eq!(epochs, [2, 2, 2, 2]);
}

#[test]
fn dead_seeds_mean_waiting_for_ever() {
    let mut c = cluster(3);
    c.start_node(start(4, &[9])).unwrap();
    c.advance(seconds(3600));
    assert_eq!(c.process(&address(4)).unwrap().phase, Phase::Waiting);
    assert_eq!(c.gateway(&address(4)), Err(QueryError::Hang));
    assert_eq!(c.health(&address(4), false), Some(Health::Ok));
    assert!(matches!(c.health(&address(4), true), Some(Health::NotReady(_))));
    assert_eq!(c.decommission_status(&address(4), &[]), Err(RpcError::WaitingForInit));
    assert_eq!(nodes(&c, 1).len(), 3);
}

#[test]
fn wrong_certificates_never_join() {
    let lab = Config { security: Security::Ca("lab".to_owned()), ..Config::default() };
    let mut c = kwdb_scale_sim::model::Cluster::new(lab);
    let secure = |n: u32, ca: &str| NodeStart { security: Security::Ca(ca.to_owned()), ..start(n, &[1]) };
    c.start_node(secure(1, "lab")).unwrap();
    c.advance(seconds(2));
    c.init(&address(1)).unwrap();
    c.start_node(secure(2, "other")).unwrap();
    c.start_node(start(3, &[1])).unwrap();
    c.advance(seconds(600));
    for n in [2, 3] {
        assert_eq!(c.process(&address(n)).unwrap().phase, Phase::Waiting);
    }
}

#[test]
fn an_old_store_brings_the_old_identity_and_a_fresh_one_a_new_id_at_the_same_address() {
    let mut c = cluster(4);
    c.decommission(&address(1), &[NodeId(4)]).unwrap();
    until(&mut c, 600, |c| replicas(c, 4) == 0).unwrap();
    c.stop_node(&address(4));
    c.advance(seconds(60));
    let row = |c: &kwdb_scale_sim::model::Cluster| liveness(c, 1)[3].clone();
    assert!(row(&c).expiration.unwrap() < c.now() && row(&c).draining == Some(true));
    // Its last status stays for ever.
    assert!(stores(&c, 1).iter().any(|s| s.node_id == NodeId(4)));

    assert_eq!(add(&mut c, start(4, &[1])), NodeId(4));
    assert_eq!((row(&c).decommissioning, row(&c).draining), (Some(true), Some(false)));
    assert!(row(&c).epoch.unwrap() > 1);
    c.advance(seconds(600));
    assert_eq!(replicas(&c, 4), 0, "it gets nothing until it is recommissioned");

    c.kill_node(&address(4));
    let fresh = NodeStart { stores: vec!["fresh".to_owned()], ..start(4, &[1]) };
    assert_eq!(add(&mut c, fresh), NodeId(5));
    let here = nodes(&c, 1).iter().filter(|n| n.address == Some(address(4))).count();
    assert_eq!(here, 2, "two rows share one address");
}

#[test]
fn rows_of_a_dead_node_age_as_observed() {
    let mut c = cluster(4);
    c.kill_node(&address(4));
    let of = |c: &kwdb_scale_sim::model::Cluster| nodes(c, 1).into_iter().find(|n| n.node_id.0 == 4);
    let silent = until(&mut c, 60, |c| of(c).unwrap().is_live == Some(false)).unwrap();
    assert!((3..=5).contains(&silent), "{silent}");
    let expired = until(&mut c, 60, |c| liveness(c, 1)[3].expiration.unwrap() <= c.now()).unwrap() + silent;
    assert!((7..=16).contains(&expired), "{expired}");
    let zero = until(&mut c, 200, |c| of(c).unwrap().ranges == Some(0)).unwrap() + expired;
    assert!((50..=121).contains(&zero), "{zero}");
    c.advance(seconds(7300));
    assert_eq!(of(&c), None, "the address is forgotten");
    assert_eq!(liveness(&c, 1).len(), 4, "the record is not");
}

/// Seen on V3.2.1: after all others restarted, `gossip_nodes` lacks the removed node and `kv_node_status` keeps it.
#[test]
fn gossip_dies_with_the_last_that_heard_it_and_the_status_stays() {
    let mut c = cluster(4);
    c.decommission(&address(1), &[NodeId(4)]).unwrap();
    until(&mut c, 600, |c| replicas(c, 4) == 0).unwrap();
    c.stop_node(&address(4));
    c.advance(seconds(60));
    let known = |c: &kwdb_scale_sim::model::Cluster| nodes(c, 1).iter().any(|n| n.node_id == NodeId(4));
    let restart = |c: &mut kwdb_scale_sim::model::Cluster, n: u32| {
        c.start_node(start(n, &[1, 2, 3])).unwrap();
        c.advance(seconds(30));
    };
    for n in 1..=3 {
        c.kill_node(&address(n));
        restart(&mut c, n);
        assert!(known(&c), "one after another they tell each other");
    }
    for n in 1..=3 {
        c.kill_node(&address(n));
    }
    c.advance(seconds(5));
    for n in 1..=3 {
        restart(&mut c, n);
    }
    assert!(!known(&c));
    let row = stores(&c, 1).into_iter().find(|s| s.node_id == NodeId(4)).unwrap();
    assert_eq!(row.node_address, Some(address(4)));
}

#[test]
fn without_a_quorum_nothing_answers_until_it_is_back() {
    let mut c = cluster(3);
    c.kill_node(&address(2));
    c.kill_node(&address(3));
    c.advance(seconds(60));
    assert_eq!(c.gateway(&address(1)), Err(QueryError::Hang));
    assert_eq!(c.decommission(&address(1), &[NodeId(3)]), Err(RpcError::Hang));
    c.stop_node(&address(1));
    c.advance(seconds(600));
    assert!(c.listening(&address(1)), "a graceful stop hangs");
    let mut healed = c.clone();
    healed.start_node(start(2, &[1])).unwrap();
    // The drain now has a quorum, and ends.
    assert!(until(&mut healed, 60, |c| !c.listening(&address(1))).is_some());
    assert_eq!(c.gateway(&address(2)), Err(QueryError::Unreachable));
}

#[test]
fn drained_nodes_refuse_clients_and_stay_members() {
    let mut c = cluster(4);
    assert!(c.drain(&address(4)).unwrap() > 0);
    assert_eq!(c.drain(&address(4)), Ok(0));
    assert_eq!(c.gateway(&address(4)), Err(QueryError::NotAccepting));
    assert_eq!(c.health(&address(4), true), Some(Health::NotReady("node is shutting down")));
    c.advance(seconds(300));
    let row = &liveness(&c, 1)[3];
    assert!(row.draining == Some(true) && row.expiration.unwrap() > c.now());
    let own = stores(&c, 1).into_iter().find(|s| s.node_id.0 == 4).unwrap();
    assert_eq!(own.lease_count, Some(0));
    c.shutdown(&address(4)).unwrap();
    c.advance(seconds(1));
    assert!(!c.listening(&address(4)));
}

#[test]
fn a_frozen_node_accepts_and_says_nothing() {
    let mut c = cluster(4);
    c.freeze_node(&address(4), true);
    assert_eq!(c.gateway(&address(4)), Err(QueryError::Hang));
    c.advance(seconds(30));
    assert!(liveness(&c, 1)[3].expiration.unwrap() < c.now());
    c.freeze_node(&address(4), false);
    c.advance(seconds(5));
    assert_eq!(c.gateway(&address(4)), Ok(NodeId(4)));
    assert!(liveness(&c, 1)[3].expiration.unwrap() > c.now());
}

#[test]
fn unknown_ids_fail_after_marking_those_before() {
    let mut c = cluster(4);
    let wrong = c.decommission(&address(1), &[NodeId(4), NodeId(99), NodeId(3)]).unwrap_err();
    assert_eq!(wrong, RpcError::UnknownNode { id: NodeId(99), mark: true });
    c.advance(seconds(1));
    let marked: Vec<bool> = liveness(&c, 1).iter().map(|l| l.decommissioning.unwrap()).collect();
    assert_eq!(marked, [false, false, false, true]);
    c.set_upgrading(NodeId(2), true);
    assert_eq!(c.decommission(&address(1), &[NodeId(3)]), Err(RpcError::Upgrading));
}

#[test]
fn replicas_spread_over_localities() {
    let mut c = cluster(3);
    let zone = |z: &str| Some(Locality::from(format!("zone={z}")));
    for (n, z) in [(4, "a"), (5, "a")] {
        add(&mut c, NodeStart { locality: zone(z), ..start(n, &[1]) });
    }
    c.create_table(TableSpec::new("app", "kv", 20)).unwrap();
    c.advance(seconds(900));
    let owner: Vec<_> = stores(&c, 1).iter().map(|s| (s.store_id, s.node_id.0)).collect();
    let both = ranges(&c, 1)
        .iter()
        .filter(|r| r.replicas.len() == 3)
        .filter(|r| {
            let on: Vec<u32> =
                r.replicas.iter().filter_map(|s| owner.iter().find(|o| o.0 == *s)).map(|o| o.1).collect();
            on.contains(&4) && on.contains(&5)
        })
        .count();
    assert_eq!(both, 0, "no range has two of three replicas in zone a");
}

#[test]
fn init_on_a_node_that_should_join_makes_it_a_stranger() {
    let mut c = cluster(3);
    assert_eq!(c.init(&address(1)), Err(RpcError::AlreadyInitialised));
    c.start_node(start(4, &[9])).unwrap();
    c.advance(seconds(2));
    c.init(&address(4)).unwrap();
    c.start_node(start(9, &[1])).unwrap();
    c.advance(seconds(600));
    assert_eq!(c.process(&address(4)).unwrap().node, None);
    assert_eq!(c.process(&address(9)).unwrap().node, Some(NodeId(4)));
}

//! Range health and the page's query on synthetic clusters whose store ids differ from node ids.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use jiff::SignedDuration;
use kwdb_scale_core::health::{RangeHealth, page_health, range_health};
use kwdb_scale_core::topology::{RangeId, StartMode, StoreId};
use support::*;

fn health(cluster: &Cluster, members: usize, ignore: &[StoreId]) -> RangeHealth {
    let ignore: BTreeSet<StoreId> = ignore.iter().copied().collect();
    range_health(&cluster.observe(), members, &ignore).known().unwrap().clone()
}

#[test]
fn healthy_with_one_store_and_with_two() {
    for per_node in [1, 2] {
        let health = health(&Cluster::with_stores(5, per_node), 5, &[]);
        assert!(health.is_good(), "{health:?}");
        assert_eq!(health.total, 9);
    }
}

#[test]
fn a_dead_node_takes_both_its_stores() {
    let mut cluster = Cluster::with_stores(5, 2);
    cluster.ranges.truncate(1);
    cluster.ranges[0].replicas = vec![StoreId(110), StoreId(120), StoreId(131), StoreId(140), StoreId(150)];
    cluster.kill(3);
    let found = health(&cluster, 5, &[]);
    assert_eq!(found.under_replicated.len(), 1);
    assert_eq!((found.under_replicated[0].have, found.under_replicated[0].need), (4, 5));
    assert!(found.unavailable.is_empty());
    cluster.kill(1);
    cluster.kill(2);
    assert_eq!(health(&cluster, 5, &[]).unavailable, [RangeId(1)]);
}

#[test]
fn a_replica_on_a_leaving_live_node_is_live() {
    let mut cluster = Cluster::new(5);
    cluster.mark(5);
    // Four members want three of a factor of five; five live voters are more than enough.
    assert!(health(&cluster, 4, &[]).is_good());
    assert!(health(&cluster, 5, &[]).is_good());
}

#[test]
fn ranges_on_ignored_stores_are_judged_for_quorum_only() {
    let mut cluster = Cluster::new(5);
    cluster.ranges[6].replicas = vec![StoreId(120), StoreId(150)];
    assert_eq!(health(&cluster, 5, &[]).under_replicated.len(), 1);
    assert!(health(&cluster, 5, &[StoreId(150)]).is_good());
    cluster.kill(2);
    let found = health(&cluster, 5, &stores_of(5, 1));
    assert!(found.unavailable.contains(&RangeId(7)), "{found:?}");
}

#[test]
fn unknown_is_neither_zero_nor_healthy() {
    for (what, word) in [("Ranges", "ranges"), ("Zones", "zones"), ("Liveness", "time")] {
        let mut cluster = Cluster::new(4);
        cluster.failing.push((what, "timed out"));
        let found = range_health(&cluster.observe(), 4, &BTreeSet::new());
        let why = found.why_unknown().unwrap();
        assert!(why.contains(word) && why.contains("timed out"), "{why}");
    }
    let mut none = Cluster::new(4);
    none.ranges.clear();
    assert!(range_health(&none.observe(), 4, &BTreeSet::new()).why_unknown().is_some());

    let mut lost = Cluster::new(4);
    lost.failing.push(("Stores", "timed out"));
    let found = health(&lost, 4, &[]);
    assert_eq!(found.unmapped.len(), found.total, "no store is known");
    assert!(!found.is_good());

    let mut null = Cluster::new(4);
    null.live_row(2).expiration = None;
    let found = health(&null, 4, &[]);
    assert!(!found.unmapped.is_empty() && found.unavailable.is_empty());
}

#[test]
fn single_replica_mode_knows_only_unavailable() {
    let mut cluster = Cluster::new(3);
    cluster.all_nodes(|n| n.start_mode = Some(StartMode::SingleReplica));
    cluster.spread();
    assert!(health(&cluster, 3, &[]).is_good());
    cluster.kill(2);
    let found = health(&cluster, 3, &[]);
    assert!(found.under_replicated.is_empty());
    assert_eq!(found.unavailable.len(), 3);
}

#[test]
fn the_pages_query_counts_live_nodes_with_fresh_rows() {
    let age = SignedDuration::from_secs(30);
    let mut cluster = Cluster::with_stores(5, 2);
    cluster.store_row(2).ranges_underreplicated = Some(2);
    cluster.store_row(3).ranges_unavailable = Some(1);
    let sums = *page_health(&cluster.observe(), age).known().unwrap();
    assert_eq!((sums.unavailable, sums.under_replicated), (1, 2));

    // The last gauges of a removed node stay for ever; they do not count.
    let mut removed = Cluster::new(5);
    removed.store_row(5).ranges_underreplicated = Some(40);
    removed.remove(5);
    assert_eq!(page_health(&removed.observe(), age).known().unwrap().under_replicated, 0);

    let mut stale = Cluster::new(5);
    let old = stale.now - SignedDuration::from_secs(31);
    stale.store_row(4).updated_at = Some(old);
    assert!(page_health(&stale.observe(), age).why_unknown().unwrap().contains("31 s old"));

    let mut missing = Cluster::new(5);
    missing.stores.retain(|s| s.node_id.0 != 4);
    assert!(page_health(&missing.observe(), age).why_unknown().unwrap().contains("no row"));

    let mut null = Cluster::new(5);
    null.store_row(1).ranges_unavailable = None;
    assert!(page_health(&null.observe(), age).why_unknown().is_some());
}

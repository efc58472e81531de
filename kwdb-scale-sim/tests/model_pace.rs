//! The pace of small clusters beside what was observed on real ones; that of larger ones is in `measured`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::time::Duration;

use kwdb_scale_core::topology::{Address, NodeId};
use kwdb_scale_sim::model::{Cluster, Config, NodeStart, TableSpec};

fn address(n: u32) -> Address {
    Address::new(format!("127.0.0.1:{}", 26256 + n))
}

fn cluster(nodes: u32) -> Cluster {
    let mut c = Cluster::new(Config::default());
    let seeds: Vec<Address> = (1..=nodes).map(address).collect();
    for n in 1..=nodes {
        c.start_node(NodeStart::new(address(n), seeds.clone())).unwrap();
        c.advance(Duration::from_millis(1));
    }
    c.advance(Duration::from_secs(2));
    c.init(&address(1)).unwrap();
    c.advance(Duration::from_secs(120));
    c
}

fn replicas(c: &Cluster, node: u32) -> u64 {
    c.decommission_status(&address(1), &[NodeId(node)]).unwrap()[0].replicas
}

fn seconds_until(c: &mut Cluster, limit: u64, done: impl Fn(&Cluster) -> bool) -> Option<u64> {
    (1..=limit).find(|_| {
        c.advance(Duration::from_secs(1));
        done(c)
    })
}

/// Observed: from 0 to 40 replicas in 48 s and to 49 in 60 s on the fourth node of a cluster of 78 ranges.
#[test]
fn a_fourth_node_fills_in_about_a_minute() {
    let mut c = cluster(3);
    c.create_table(TableSpec::new("app", "kv", 21)).unwrap();
    c.advance(Duration::from_secs(12));
    c.start_node(NodeStart::new(address(4), vec![address(1)])).unwrap();
    c.advance(Duration::from_secs(3));
    let took = seconds_until(&mut c, 300, |c| replicas(c, 4) >= 45).unwrap() + 3;
    assert!((20..=120).contains(&took), "{took} s");
}

/// Observed: 40 to 55 small replicas leave in 60 to 140 s.
#[test]
fn small_replicas_leave_in_one_or_two_minutes() {
    let mut c = cluster(4);
    c.create_table(TableSpec::new("app", "kv", 21)).unwrap();
    c.advance(Duration::from_secs(300));
    let held = replicas(&c, 4);
    assert!((40..=65).contains(&held), "{held}");
    c.decommission(&address(1), &[NodeId(4)]).unwrap();
    let took = seconds_until(&mut c, 600, |c| replicas(c, 4) == 0).unwrap();
    assert!((40..=200).contains(&took), "{took} s");
}

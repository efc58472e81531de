//! Clusters to try things on.

#![allow(dead_code, reason = "each test file uses a part")]

use std::time::Duration;

use kwdb_scale_core::rows::{LivenessRow, NodeRow, Query, RangeRow, Rows, StoreRow};
use kwdb_scale_core::topology::{Address, NodeId, StartMode};
use kwdb_scale_sim::model::{Cluster, Config, NodeStart};

pub(crate) fn address(n: u32) -> Address {
    Address::new(format!("127.0.0.1:{}", 26256 + n))
}

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn start(n: u32, join: &[u32]) -> NodeStart {
    NodeStart::new(address(n), join.iter().map(|n| address(*n)).collect())
}

/// Starts a node and lets it join.
pub(crate) fn add(c: &mut Cluster, start: NodeStart) -> NodeId {
    let at = start.address.clone();
    c.start_node(start).unwrap();
    c.advance(seconds(3));
    c.process(&at).unwrap().node.unwrap()
}

/// A fully replicated cluster whose n-th node has the n-th address.
pub(crate) fn cluster_with(config: Config, mode: StartMode, nodes: u32) -> Cluster {
    let mut c = Cluster::new(config);
    for n in 1..=nodes {
        c.start_node(NodeStart { mode: mode.clone(), ..start(n, &[1, 2, 3]) }).unwrap();
        c.advance(seconds(3));
        if n == 1 {
            c.init(&address(1)).unwrap();
            c.advance(seconds(3));
        }
    }
    c.advance(seconds(120));
    c
}

pub(crate) fn cluster(nodes: u32) -> Cluster {
    cluster_with(Config::default(), StartMode::MultiReplica, nodes)
}

pub(crate) fn replicas(c: &Cluster, node: u32) -> u64 {
    c.replica_count(NodeId(node))
}

/// Seconds until something holds, `None` when it does not within `limit`.
pub(crate) fn until(c: &mut Cluster, limit: u64, done: impl Fn(&Cluster) -> bool) -> Option<u64> {
    (0..=limit).find(|n| {
        if *n > 0 {
            c.advance(seconds(1));
        }
        done(c)
    })
}

pub(crate) fn ranges(c: &Cluster, via: u32) -> Vec<RangeRow> {
    let Rows::Ranges(rows) = c.rows(&address(via), &Query::Ranges).unwrap().rows else { panic!() };
    rows
}

pub(crate) fn nodes(c: &Cluster, via: u32) -> Vec<NodeRow> {
    let Rows::Nodes(rows) = c.rows(&address(via), &Query::Nodes).unwrap().rows else { panic!() };
    rows
}

pub(crate) fn liveness(c: &Cluster, via: u32) -> Vec<LivenessRow> {
    let Rows::Liveness(rows) = c.rows(&address(via), &Query::Liveness).unwrap().rows else { panic!() };
    rows
}

pub(crate) fn stores(c: &Cluster, via: u32) -> Vec<StoreRow> {
    let Rows::Stores(rows) = c.rows(&address(via), &Query::Stores).unwrap().rows else { panic!() };
    rows
}

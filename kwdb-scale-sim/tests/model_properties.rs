//! What holds for every run of the model, tried on random ones.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod model_support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::topology::{NodeId, StartMode, StoreId};
use kwdb_scale_sim::model::{Cluster, Config, NodeStart, TableSpec};
use model_support::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Advance(u64),
    Start(u32),
    Fresh(u32),
    Kill(u32),
    Stop(u32),
    Freeze(u32, bool),
    Mark(u32),
    Unmark(u32),
    Drain(u32),
    Split(u32),
}

fn op(nodes: std::ops::Range<u32>) -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (100u64..60_000).prop_map(Op::Advance),
        1 => nodes.clone().prop_map(Op::Start),
        1 => nodes.clone().prop_map(Op::Fresh),
        1 => nodes.clone().prop_map(Op::Kill),
        1 => nodes.clone().prop_map(Op::Stop),
        1 => (nodes.clone(), any::<bool>()).prop_map(|(n, f)| Op::Freeze(n, f)),
        2 => nodes.clone().prop_map(Op::Mark),
        2 => nodes.clone().prop_map(Op::Unmark),
        1 => nodes.prop_map(Op::Drain),
        1 => (1u32..10).prop_map(Op::Split),
    ]
}

/// Does it; `pieces` is into how many parts time is cut.
fn perform(c: &mut Cluster, op: &Op, pieces: u64, turn: usize) {
    match op {
        Op::Advance(ms) => {
            let until = c.now() + Duration::from_millis(*ms);
            for i in 1..pieces {
                c.advance_to(until - Duration::from_millis(ms - ms * i / pieces));
            }
            c.advance_to(until);
        }
        Op::Start(n) => drop(c.start_node(start(*n, &[1, 2, 3]))),
        Op::Fresh(n) => {
            let stores = vec![format!("fresh-{turn}")];
            drop(c.start_node(NodeStart { stores, ..start(*n, &[1, 2, 3]) }));
        }
        Op::Kill(n) => drop(c.kill_node(&address(*n))),
        Op::Stop(n) => drop(c.stop_node(&address(*n))),
        Op::Freeze(n, frozen) => drop(c.freeze_node(&address(*n), *frozen)),
        Op::Mark(n) => drop(c.decommission(&address(1), &[NodeId(*n)])),
        Op::Unmark(n) => drop(c.recommission(&address(1), &[NodeId(*n)])),
        Op::Drain(n) => drop(c.drain(&address(*n))),
        Op::Split(n) => drop(c.split("app", "kv", *n)),
    }
}

/// Everything that can be read, through every node.
fn everything(c: &Cluster) -> String {
    let queries = [
        Query::Cluster,
        Query::Liveness,
        Query::Nodes,
        Query::Stores,
        Query::Ranges,
        Query::Zones,
        Query::Jobs,
    ];
    let mut text = String::new();
    for n in 1..=8 {
        for query in &queries {
            match c.rows(&address(n), query) {
                Ok(answer) => text += &serde_json::to_string(&answer).unwrap(),
                Err(error) => text += &format!("{error:?}"),
            }
            text.push('\n');
        }
    }
    text
}

/// What must hold at any moment, whatever was done. `None` when nobody can be asked.
fn consistent(c: &Cluster) -> Option<()> {
    let via = (1..=8).find(|n| c.gateway(&address(*n)).is_ok())?;
    let rows = ranges(c, via);
    let owners: BTreeMap<StoreId, NodeId> =
        stores(c, via).into_iter().map(|s| (s.store_id, s.node_id)).collect();
    let mut counted: BTreeMap<StoreId, u64> = BTreeMap::new();
    for r in &rows {
        assert!(!r.replicas.is_empty(), "{r:?}");
        let all: Vec<StoreId> = r.replicas.iter().chain(&r.learners).copied().collect();
        let distinct: BTreeSet<StoreId> = all.iter().copied().collect();
        assert_eq!(distinct.len(), all.len(), "a store twice in {r:?}");
        let nodes: BTreeSet<_> = all.iter().filter_map(|s| owners.get(s)).collect();
        let known = all.iter().filter(|s| owners.contains_key(s)).count();
        assert_eq!(nodes.len(), known, "a node twice in {r:?}");
        for store in all {
            *counted.entry(store).or_default() += 1;
        }
    }
    let query = Query::ReplicaCounts(counted.keys().copied().collect());
    let Rows::ReplicaCounts(counts) = c.rows(&address(via), &query).unwrap().rows else { panic!() };
    for row in counts {
        assert_eq!(row.replicas, counted[&row.store_id], "{row:?}");
    }
    Some(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_same_calls_give_the_same_rows_however_finely_time_is_cut(
        seed in any::<u64>(),
        ops in proptest::collection::vec(op(1..7), 1..25),
    ) {
        let config = Config { seed, ..Config::default() };
        let mut one = cluster_with(config.clone(), StartMode::MultiReplica, 4);
        let mut other = cluster_with(config, StartMode::MultiReplica, 4);
        for c in [&mut one, &mut other] {
            c.create_table(TableSpec::new("app", "kv", 5)).unwrap();
        }
        for (turn, op) in ops.iter().enumerate() {
            perform(&mut one, op, 1, turn);
            perform(&mut other, op, 7, turn);
        }
        prop_assert_eq!(everything(&one), everything(&other));
    }

    #[test]
    fn descriptors_stay_consistent_whatever_happens(
        seed in any::<u64>(),
        ops in proptest::collection::vec(op(1..8), 1..40),
    ) {
        let mut c = cluster_with(Config { seed, ..Config::default() }, StartMode::MultiReplica, 5);
        c.create_table(TableSpec::new("app", "kv", 5)).unwrap();
        for (turn, op) in ops.iter().enumerate() {
            perform(&mut c, op, 1, turn);
            let _ = consistent(&c);
        }
    }

    #[test]
    fn its_own_moves_never_cost_a_quorum_and_a_decommission_with_enough_nodes_ends(
        seed in any::<u64>(),
        nodes in 4u32..8,
        leaving in proptest::collection::btree_set(2u32..8, 1..4),
        tables in 1u32..40,
    ) {
        let leaving: Vec<NodeId> = leaving.into_iter().filter(|n| *n <= nodes).map(NodeId).collect();
        prop_assume!(!leaving.is_empty() && nodes as usize - leaving.len() >= 3);
        let mut c = cluster_with(Config { seed, ..Config::default() }, StartMode::MultiReplica, nodes);
        c.create_table(TableSpec::new("app", "kv", tables)).unwrap();
        c.advance(seconds(30));
        c.decommission(&address(1), &leaving).unwrap();
        let mut took = 0;
        while leaving.iter().any(|n| c.replica_count(*n) > 0) {
            took += 1;
            prop_assert!(took < 1200, "{} left", leaving.iter().map(|n| c.replica_count(*n)).sum::<u64>());
            c.advance(seconds(1));
            for r in ranges(&c, 1) {
                prop_assert!(r.replicas.len() >= 3, "{:?}", r);
            }
            prop_assert_eq!(c.under_replicated(), 0);
        }
        c.advance(seconds(600));
        prop_assert!(consistent(&c).is_some());
    }
}

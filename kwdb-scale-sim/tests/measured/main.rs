//! The model replays in virtual time what was measured on real clusters, see `figures`: moves, times and the tail of a
//! drain are right within a factor of one and a half. Means of a few seeds, because one run is one draw.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod figures;

use std::time::Duration;

use figures::*;
use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::topology::{Address, NodeId, StoreId};
use kwdb_scale_sim::model::{Cluster, Config, Enqueue, EnqueueRun, NodeStart, TableSpec, Timings};

const SEEDS: std::ops::Range<u64> = 1..4;
const RUNS: f64 = 3.0;

fn address(n: u32) -> Address {
    Address::new(format!("127.0.0.1:{}", 26256 + n))
}

fn start(n: u32) -> NodeStart {
    NodeStart::new(address(n), (1..=3).map(address).collect())
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn held(c: &Cluster, nodes: &[u32]) -> u64 {
    nodes.iter().map(|n| c.replica_count(NodeId(*n))).sum()
}

/// Lets time go by until something holds; how long that took.
fn until(c: &mut Cluster, done: impl Fn(&Cluster) -> bool) -> f64 {
    let began = c.now();
    while !done(c) {
        assert!(c.now().duration_since(began).as_secs() < 7200, "it never comes about");
        c.advance(Duration::from_millis(200));
    }
    c.now().duration_since(began).as_secs_f64()
}

/// A cluster of nodes 1 to `nodes` that has come to rest. Another node has left it, which makes its stores as even as the
/// measured ones were: left to balancing alone they differ by a tenth.
fn settled(seed: u64, timings: Timings, nodes: u32, table: u32) -> Cluster {
    let mut c = Cluster::new(Config { seed, timings, ..Config::default() });
    let spare = nodes + 1;
    for n in 1..=spare {
        c.start_node(start(n)).unwrap();
        c.advance(seconds(3));
        if n == 1 {
            c.init(&address(1)).unwrap();
            c.advance(seconds(3));
        }
    }
    c.advance(seconds(120));
    c.create_table(TableSpec::new("app", "kv", table)).unwrap();
    assert_eq!(c.range_count() as u32, 57 + table);
    c.advance(seconds(2400));
    mark(&mut c, &[spare]);
    until(&mut c, |c| held(c, &[spare]) == 0);
    c.stop_node(&address(spare));
    c.advance(seconds(300));
    c
}

/// As a copy of its stores comes up.
fn started_again(c: &Cluster, nodes: u32) -> Cluster {
    let mut c = c.clone();
    for n in 1..=nodes {
        c.kill_node(&address(n));
    }
    c.advance(seconds(5));
    for n in 1..=nodes {
        c.start_node(start(n)).unwrap();
    }
    c.advance(seconds(UP_SECONDS));
    c
}

fn mark(c: &mut Cluster, nodes: &[u32]) {
    let ids: Vec<NodeId> = nodes.iter().map(|n| NodeId(*n)).collect();
    c.decommission(&address(1), &ids).unwrap();
}

/// The documented steps: mark, wait until the nodes are empty, stop them. Gives moves and seconds.
fn removed(c: &mut Cluster, run: &Removal) -> (f64, f64) {
    let (began, before) = (c.now(), c.replicas_added());
    for nodes in run.steps {
        mark(c, nodes);
        until(c, |c| held(c, nodes) == 0);
        for node in *nodes {
            c.stop_node(&address(*node));
            until(c, |c| !c.listening(&address(*node)));
        }
    }
    assert_eq!(c.under_replicated(), 0);
    ((c.replicas_added() - before) as f64, c.now().duration_since(began).as_secs_f64())
}

/// Both runs from the same state, one time for each seed; the means.
fn beside(in_turn: &Removal, together: &Removal, timings: &Timings) -> [(f64, f64); 2] {
    let mut means = [(0.0, 0.0); 2];
    for seed in SEEDS {
        let c = settled(seed, timings.clone(), in_turn.nodes, in_turn.table);
        for (run, mean) in [in_turn, together].into_iter().zip(&mut means) {
            let (moves, time) = removed(&mut started_again(&c, run.nodes), run);
            *mean = (mean.0 + moves / RUNS, mean.1 + time / RUNS);
        }
    }
    means
}

#[track_caller]
fn near(what: &str, twin: f64, measured: f64) {
    println!("{what}: {twin:.1}, measured {measured:.1}");
    assert!(twin <= measured * 1.5 && measured <= twin * 1.5, "{what}: {twin:.1}, measured {measured:.1}");
}

#[track_caller]
fn near_in_moves_and_time(what: &str, (moves, time): (f64, f64), run: &Removal) {
    near(&format!("{what}, moves"), moves, run.moves as f64);
    near(&format!("{what}, seconds"), time, run.seconds);
}

/// How many moves are saved, as a part of those made one after the other.
fn saved(together: f64, in_turn: f64) -> f64 {
    1.0 - together / in_turn
}

#[test]
fn two_of_six_nodes() {
    let [in_turn, together] = beside(&TWO_IN_TURN, &TWO_TOGETHER, &Timings::default());
    near_in_moves_and_time("one after the other", in_turn, &TWO_IN_TURN);
    near_in_moves_and_time("both in one mark", together, &TWO_TOGETHER);
    let measured = saved(TWO_TOGETHER.moves as f64, TWO_IN_TURN.moves as f64);
    near("moves saved, %", saved(together.0, in_turn.0) * 100.0, measured * 100.0);
    near(
        "part of the time, %",
        together.1 / in_turn.1 * 100.0,
        TWO_TOGETHER.seconds / TWO_IN_TURN.seconds * 100.0,
    );
}

/// Here the machine was the bound and not the scanner. Three queues of the one cluster and four, on average, of the other
/// had it to themselves.
#[test]
fn three_of_six_nodes() {
    let change = Duration::from_secs_f64(7.0 / MACHINE_MOVES_PER_SECOND);
    let timings =
        Timings { scan_idle: Duration::from_millis(50), change: (change, change), ..Timings::default() };
    let [in_turn, together] = beside(&THREE_IN_TURN, &THREE_TOGETHER, &timings);
    near_in_moves_and_time("one after the other", in_turn, &THREE_IN_TURN);
    near_in_moves_and_time("all in one mark", together, &THREE_TOGETHER);
    let measured = saved(THREE_TOGETHER.moves as f64, THREE_IN_TURN.moves as f64);
    near("moves saved, %", saved(together.0, in_turn.0) * 100.0, measured * 100.0);
}

#[test]
fn one_of_four_nodes_at_the_scanners_pace() {
    let run = &ONE_OF_FOUR;
    let leaving = run.steps[0];
    let mut left = [0.0; ONE_OF_FOUR_LEFT.len()];
    let (mut moves, mut time) = (0.0, 0.0);
    for seed in SEEDS {
        let mut c = started_again(&settled(seed, Timings::default(), run.nodes, run.table), run.nodes);
        let (began, before) = (c.now(), c.replicas_added());
        mark(&mut c, leaving);
        for ((at, _), left) in ONE_OF_FOUR_LEFT.iter().zip(&mut left) {
            c.advance_to(began + seconds(*at));
            *left += held(&c, leaving) as f64 / RUNS;
        }
        until(&mut c, |c| held(c, leaving) == 0);
        moves += (c.replicas_added() - before) as f64 / RUNS;
        time += c.now().duration_since(began).as_secs_f64() / RUNS;
    }
    near_in_moves_and_time("one of four", (moves, time), run);
    for ((at, measured), left) in ONE_OF_FOUR_LEFT.iter().zip(left) {
        near(&format!("left after {at} s"), left, *measured as f64);
    }
}

/// The ranges of leaving stores, each with the node that holds its lease.
fn to_send(c: &Cluster, stores: &[StoreId]) -> Vec<(u64, NodeId)> {
    let answer = c.rows(&address(1), &Query::LeasesOn { stores: stores.to_vec(), limit: 10_000 }).unwrap();
    let Rows::Leases(leases) = answer.rows else { panic!("{answer:?}") };
    let answer = c.rows(&address(1), &Query::Stores).unwrap();
    let Rows::Stores(owners) = answer.rows else { panic!("{answer:?}") };
    let node = |store| owners.iter().find(|s| s.store_id == store).map(|s| s.node_id);
    leases.into_iter().filter_map(|l| Some((l.range_id.0, node(l.lease_store?)?))).collect()
}

#[test]
fn one_of_four_nodes_when_all_its_ranges_are_sent_to_their_queues() {
    let run = &ONE_OF_FOUR;
    let leaving = run.steps[0];
    let mut time = 0.0;
    for seed in SEEDS {
        let mut c = started_again(&settled(seed, Timings::default(), run.nodes, run.table), run.nodes);
        let Rows::Stores(stores) = c.rows(&address(1), &Query::Stores).unwrap().rows else { panic!() };
        let gone = |node: NodeId| leaving.contains(&node.0);
        let stores: Vec<StoreId> = stores.iter().filter(|s| gone(s.node_id)).map(|s| s.store_id).collect();
        let began = c.now();
        mark(&mut c, leaving);
        c.advance(Duration::from_secs_f64(ONE_OF_FOUR_LISTED));
        while held(&c, leaving) > 0 {
            let mut ahead = to_send(&c, &stores);
            let mut runs: Vec<EnqueueRun> = Vec::new();
            while !ahead.is_empty() || !runs.is_empty() {
                while runs.len() < 3
                    && let Some((range, node)) = ahead.pop()
                {
                    let queue = "replicate".to_owned();
                    let job = Enqueue { node: Some(node), queue, range, skip_should_queue: true };
                    runs.extend(c.enqueue_range(&address(1), &job).unwrap());
                }
                c.advance(Duration::from_millis(10));
                runs.iter_mut().for_each(|run| c.enqueue_goes_on(run));
                runs.retain(|run| run.ended.is_none());
                assert_eq!(c.under_replicated(), 0);
            }
            c.advance(Duration::from_millis(10));
        }
        time += c.now().duration_since(began).as_secs_f64() / RUNS;
    }
    near("all ranges sent, seconds", time, ONE_OF_FOUR_SENT);
}

#[test]
fn a_further_node_fills() {
    let mut times = [0.0; FURTHER_NODE.len()];
    for seed in SEEDS {
        let mut c = settled(seed, Timings::default(), 4, 600);
        let began = c.now();
        c.start_node(start(6)).unwrap();
        until(&mut c, |c| held(c, &[6]) > 0);
        for ((_, off), time) in FURTHER_NODE.iter().zip(&mut times) {
            until(&mut c, |c| {
                let mean = held(c, &[1, 2, 3, 4, 6]) as f64 / 5.0;
                [1, 2, 3, 4, 6].iter().all(|n| (held(c, &[*n]) as f64 - mean).abs() <= mean * off)
            });
            *time += c.now().duration_since(began).as_secs_f64() / RUNS;
        }
    }
    for ((measured, off), time) in FURTHER_NODE.iter().zip(times) {
        near(&format!("within {off} of the mean, seconds"), time, *measured);
    }
}

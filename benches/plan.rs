//! From rows to a plan: reading an answer, making the observation, checking, planning.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kwdb_scale_benches::{address, replies, rows, server_time};
use kwdb_scale_core::assess::assess;
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::observation::Observation;
use kwdb_scale_core::plan::plan;
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::ports::HostFacts;
use kwdb_scale_core::request::{Inventory, InventoryHost, NodeRef, Operation, Options, Request};
use kwdb_scale_core::rows::Query;
use kwdb_scale_core::statement;
use kwdb_scale_core::topology::{HostName, NodeId};

/// Nodes and ranges.
const SIZES: [(u32, u64); 3] = [(10, 1_000), (100, 10_000), (100, 100_000)];

fn parsing(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse ranges");
    for ranges in [62, 5_000] {
        let (columns, cells) =
            statement::encode(&Query::Ranges, &rows(&Query::Ranges, 5, ranges), server_time());
        group.bench_with_input(BenchmarkId::from_parameter(ranges), &cells, |b, cells| {
            b.iter(|| statement::parse(&Query::Ranges, &address(1), columns, black_box(cells)));
        });
    }
    group.finish();
}

fn request(nodes: u32) -> (Request, BTreeMap<HostName, Fact<HostFacts>>) {
    let mut inventory = Inventory::default();
    let mut hosts = BTreeMap::new();
    for n in 1..=nodes {
        let name = HostName::new(format!("h{n}"));
        inventory.hosts.insert(
            name.clone(),
            InventoryHost { address: address(n), sql_address: None, brpc_address: None },
        );
        let facts = HostFacts {
            host: name.clone(),
            build: Fact::Known("V3.2.1".into()),
            stores: Vec::new(),
            listening: Fact::Known(vec![address(n)]),
            can_authenticate: Fact::Known(true),
            secure: false,
            by_service: false,
            archive_only: false,
            script: None,
            machine: None,
        };
        hosts.insert(name, Fact::Known(facts));
    }
    let operation =
        Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(nodes)), NodeRef::Id(NodeId(nodes - 1))] };
    (Request { operation, inventory, options: Options::default() }, hosts)
}

fn planning(c: &mut Criterion) {
    let policy = Policy::default();
    for (nodes, ranges) in SIZES {
        let mut group = c.benchmark_group(format!("{nodes} nodes {ranges} ranges"));
        let replies = replies(nodes, ranges);
        let (request, hosts) = request(nodes);
        group.bench_function("observe", |b| {
            b.iter(|| Observation::build(&address(1), black_box(&replies), hosts.clone()));
        });
        let observation = Observation::build(&address(1), &replies, hosts.clone());
        group.bench_function("assess", |b| b.iter(|| assess(black_box(&observation), &request, &policy)));
        assert!(plan(&observation, &request, &policy).is_ok(), "the cluster is healthy, so there is a plan");
        group.bench_function("plan", |b| b.iter(|| plan(black_box(&observation), &request, &policy)));
        group.finish();
    }
}

criterion_group!(benches, parsing, planning);
criterion_main!(benches);

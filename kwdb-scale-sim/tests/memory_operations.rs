//! Whole operations of core on the model, in memory.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

use std::time::Duration;

use kwdb_scale_core::execute::{End, ObserveOptions, Operation, Ports, observe};
use kwdb_scale_core::plan::{Plan, Refusal, plan};
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::request::{self, NodeRef, Options, Request};
use kwdb_scale_core::topology::{HostName, NodeId};
use kwdb_scale_sim::memory::{SimHost, World};
use kwdb_scale_sim::model::TableSpec;

async fn planned(world: &World, ports: &Ports, operation: request::Operation) -> Result<Plan, Refusal> {
    let inventory = world.inventory();
    let request = Request { operation, inventory: inventory.clone(), options: Options::default() };
    let options = ObserveOptions { request: Some(request.clone()), inventory };
    let observation = observe(&*ports.facts, Some(&*ports.lifecycle), &options).await.unwrap();
    plan(&observation, &request, &Policy::default())
}

async fn applied(world: &World, operation: request::Operation) -> Vec<String> {
    let ports = world.ports();
    let plan = match planned(world, &ports, operation).await {
        Ok(plan) => plan,
        Err(refusal) => panic!("{refusal}"),
    };
    match Operation::begin(plan, ports).await.unwrap().run().await {
        End::Done(proof) => proof,
        other => panic!("{other:?}"),
    }
}

fn scale_in(nodes: &[u32]) -> request::Operation {
    let nodes = nodes.iter().map(|n| NodeRef::Id(NodeId(*n))).collect();
    request::Operation::ScaleIn { nodes }
}

fn scale_out(hosts: &[&str]) -> request::Operation {
    request::Operation::ScaleOut { hosts: hosts.iter().map(|h| HostName::new(*h)).collect() }
}

#[tokio::test]
async fn out_in_out_in_on_one_cluster() {
    let world = World::started(4);
    world.cluster().create_table(TableSpec::new("app", "kv", 40)).unwrap();
    world.advance(Duration::from_secs(600));
    let began = world.now();
    world.add_host(SimHost::numbered(5));
    for id in [5, 6] {
        applied(&world, scale_out(&["n5"])).await;
        assert_eq!(world.node_on("n5"), Some(NodeId(id)));
        applied(&world, scale_in(&[id])).await;
        assert_eq!(world.cluster().replica_count(NodeId(id)), 0);
        // The machine comes back with an empty store, at the same address.
        let key = SimHost::numbered(5).store_key("/data/n5");
        assert!(world.cluster().wipe_store(&key));
    }
    let took = world.now().duration_since(began);
    assert!(took.as_secs() < 3600, "{took:?}");
}

#[tokio::test]
async fn two_of_six_leave_at_once() {
    let world = World::started(6);
    world.cluster().create_table(TableSpec::new("app", "kv", 60)).unwrap();
    world.advance(Duration::from_secs(600));
    let proof = applied(&world, scale_in(&[5, 6])).await;
    assert!(!proof.is_empty());
    for node in [5, 6] {
        assert_eq!(world.cluster().replica_count(NodeId(node)), 0);
    }
}

#[tokio::test]
async fn three_nodes_are_refused() {
    let world = World::started(3);
    let ports = world.ports();
    let refusal = planned(&world, &ports, scale_in(&[3])).await.unwrap_err();
    assert!(refusal.reasons().count() > 0);
}

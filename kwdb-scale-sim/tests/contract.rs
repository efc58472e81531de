//! The contract suites on the ports in memory, and on the kwbase adapter of core over the simulated hosts.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kwdb_scale_core::kwbase::{Kwbase, KwbaseHost, Security, StoreSpec};
use kwdb_scale_core::ports::{DecommissionControl, Gateway, NodeLifecycle};
use kwdb_scale_core::topology::{Address, NodeId, StartMode};
use kwdb_scale_sim::contract::{self, ControlFixture, FactsFixture, LifecycleFixture, TransportFixture};
use kwdb_scale_sim::memory::{MemJournal, MemLock, SimHost, SimTransport, World};
use kwdb_scale_sim::model::Config;
use kwdb_scale_sim::transport_contract;

const NOBODY: &str = "127.0.0.1:1";
const DEADLINE: Duration = Duration::from_secs(60);

fn hosts(n: u16) -> Vec<SimHost> {
    (1..=n).map(SimHost::numbered).collect()
}

fn gateway(world: &World, n: u16) -> Gateway {
    let host = SimHost::numbered(n);
    Gateway {
        node: world.node_on(host.name.as_str()).unwrap(),
        address: host.address.clone(),
        sql_address: host.address,
        host: Some(host.name),
    }
}

fn leaving(world: &World) -> [NodeId; 2] {
    [4, 5].map(|n| gateway(world, n).node)
}

/// The hosts of the world as the adapter is told of them.
fn kwbase(world: &World) -> Kwbase<SimTransport> {
    let described = world.hosts().into_iter().map(|host| KwbaseHost {
        program: "kwbase".to_owned(),
        stores: host.stores.iter().map(StoreSpec::new).collect(),
        listen_addr: Some(host.address.clone()),
        http_addr: host.http_address.clone(),
        // The twin has no such port; another host's number would be found open by a probe.
        brpc_addr: Some(Address::new(format!("127.0.0.1:{}", host.address.port().unwrap() + 10_000))),
        ..KwbaseHost::new(host.name, Security::Insecure)
    });
    Kwbase::new(Arc::new(world.transport()), described).unwrap()
}

/// Adds a fresh host, and one that is set to the port of the first node.
fn fresh_and_broken(world: &World) -> [SimHost; 2] {
    let fresh = SimHost::numbered(9);
    let broken = SimHost { address: SimHost::numbered(1).address, ..SimHost::numbered(10) };
    world.add_host(fresh.clone());
    world.add_host(broken.clone());
    [fresh, broken]
}

async fn control(world: &World, control: &dyn DecommissionControl) {
    let (facts, clock) = (world.facts(), world.clock());
    contract::decommission_control(&ControlFixture {
        control,
        facts: &facts,
        clock: &clock,
        via: gateway(world, 1),
        leaving: leaving(world),
        nobody: NOBODY.into(),
    })
    .await;
}

async fn single_replica(world: &World, control: &dyn DecommissionControl) {
    let (facts, clock) = (world.facts(), world.clock());
    contract::decommission_control_single_replica(&ControlFixture {
        control,
        facts: &facts,
        clock: &clock,
        via: gateway(world, 1),
        leaving: [NodeId(2), NodeId(3)],
        nobody: NOBODY.into(),
    })
    .await;
}

async fn lifecycle(world: &World, lifecycle: &dyn NodeLifecycle, [fresh, broken]: [SimHost; 2]) {
    let (facts, clock) = (world.facts(), world.clock());
    contract::node_lifecycle(&LifecycleFixture {
        lifecycle,
        facts: &facts,
        clock: &clock,
        via: gateway(world, 1),
        join: hosts(3).into_iter().map(|h| h.address).collect(),
        fresh: (fresh.name, fresh.address),
        broken: Some(broken.name),
        control: None,
    })
    .await;
}

#[tokio::test]
async fn facts_and_settings() {
    let world = World::started(4);
    let (facts, clock) = (world.facts(), world.clock());
    let kill = |gateway: &Address| assert!(world.cluster().kill_node(gateway));
    let fixture = FactsFixture {
        source: &facts,
        gateways: hosts(4).into_iter().map(|h| h.address).collect(),
        nobody: NOBODY.into(),
        clock: &clock,
        kill: Mutex::new(Some(Box::new(kill))),
    };
    let settings = world.ports().settings;
    contract::settings_control(&*settings, &fixture).await;
    contract::fact_source(&fixture).await;
}

#[tokio::test]
async fn control_in_memory() {
    let world = World::started(5);
    control(&world, &*world.ports().control).await;
    let world = World::started(5);
    let without = world.control().without_status();
    assert_eq!(without.status(&gateway(&world, 1), &leaving(&world), DEADLINE).await.unwrap(), None);
    control(&world, &without).await;
    let world = World::started_with(Config::default(), StartMode::SingleReplica, 3);
    single_replica(&world, &*world.ports().control).await;
}

#[tokio::test]
async fn control_by_kwbase() {
    let world = World::started(5);
    control(&world, &kwbase(&world)).await;
    let world = World::started_with(Config::default(), StartMode::SingleReplica, 3);
    single_replica(&world, &kwbase(&world)).await;
}

#[tokio::test]
async fn lifecycle_in_memory() {
    let world = World::started(4);
    let more = fresh_and_broken(&world);
    lifecycle(&world, &*world.ports().lifecycle, more).await;
}

#[tokio::test]
async fn lifecycle_by_kwbase() {
    let world = World::started(4);
    let more = fresh_and_broken(&world);
    lifecycle(&world, &kwbase(&world), more).await;
}

#[tokio::test]
async fn records_and_time() {
    let journal = MemJournal::default();
    contract::journal(&journal).await;
    contract::journal_reopened(&journal.clone()).await;
    let lock = MemLock::default();
    contract::operation_lock(&lock, &lock.clone()).await;
    contract::clock(&World::started(1).clock()).await;
    contract::clock(&contract::WallClock::default()).await;
}

fn transport() -> TransportFixture {
    let world = World::started(1);
    let host = SimHost::numbered(1);
    TransportFixture {
        transport: Box::new(world.transport()),
        host: host.name,
        scratch: "/scratch".to_owned(),
        says: ["kwbase", "version"].map(str::to_owned).into(),
        fails: ["kwbase", "bogus"].map(str::to_owned).into(),
        open_and_closed: (host.address, NOBODY.into()),
        keep: Box::new(world),
    }
}

transport_contract!(any, transport());

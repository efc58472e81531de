//! Core's kwbase adapters on simulated hosts: the command lines it writes are understood, and what the twin prints
//! is read back.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use kwdb_scale_core::execute::{End, ObserveOptions, Operation, Ports, observe};
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::kwbase::Kwbase;
use kwdb_scale_core::plan::plan;
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::ports::{
    DecommissionControl, Gateway, NodeLifecycle, PortErrorKind, ProcessState, StartNode, StartOutcome,
    StopNode, StoreContent,
};
use kwdb_scale_core::request::{self, NodeRef, Options, Request};
use kwdb_scale_core::topology::{HostName, NodeId, StartMode};
use kwdb_scale_sim::memory::{Call, Fault, Faulty, SimHost, SimTransport, Which, World};
use kwdb_scale_sim::model::{Config, Security, TableSpec};

const MINUTE: Duration = Duration::from_secs(60);

fn kwbase(world: &World) -> Kwbase<SimTransport> {
    let hosts: Vec<_> = world.hosts().iter().map(SimHost::kwbase).collect();
    Kwbase::new(Arc::new(world.transport()), hosts).unwrap()
}

fn gateway(world: &World, n: u16) -> Gateway {
    let host = SimHost::numbered(n);
    let node = world.node_on(host.name.as_str()).unwrap();
    Gateway { node, sql_address: host.address.clone(), address: host.address, host: Some(host.name) }
}

fn stop_of(world: &World, n: u16) -> StopNode {
    let g = gateway(world, n);
    StopNode { node: g.node, address: g.address, host: g.host, via: gateway(world, 1), deadline: MINUTE }
}

async fn apply(world: &World, ports: Ports, operation: request::Operation) -> End {
    let inventory = world.inventory();
    let request = Request { operation, inventory: inventory.clone(), options: Options::default() };
    let options = ObserveOptions { request: Some(request.clone()), inventory, ..ObserveOptions::default() };
    let seen = observe(&*ports.facts, Some(&*ports.lifecycle), &options).await.unwrap();
    let plan = plan(&seen, &request, &Policy::default()).unwrap();
    Operation::begin(plan, ports).await.unwrap().run().await
}

fn with_kwbase(world: &World) -> Ports {
    let kwbase = Arc::new(kwbase(world));
    Ports { control: kwbase.clone(), lifecycle: kwbase, ..world.ports() }
}

async fn out_and_in(config: Config) {
    let security = config.security.clone();
    let world = World::started_with(config, StartMode::MultiReplica, 4);
    world.cluster().create_table(TableSpec::new("app", "kv", 21)).unwrap();
    world.advance(MINUTE * 5);
    world.add_host(SimHost { security, ..SimHost::numbered(5) });
    let out = request::Operation::ScaleOut { hosts: vec![HostName::new("n5")] };
    let end = apply(&world, with_kwbase(&world), out).await;
    assert!(matches!(end, End::Done(_)), "{end:?}");
    assert_eq!(world.node_on("n5"), Some(NodeId(5)));
    let r#in = request::Operation::ScaleIn { nodes: vec![NodeRef::Id(NodeId(5))] };
    let end = apply(&world, with_kwbase(&world), r#in).await;
    assert!(matches!(end, End::Done(_)), "{end:?}");
    assert!(!world.cluster().listening(&SimHost::numbered(5).address));
    assert_eq!(world.cluster().replica_count(NodeId(5)), 0);
}

#[tokio::test]
async fn insecure_out_and_in() {
    out_and_in(Config::default()).await;
}

#[tokio::test]
async fn secure_out_and_in() {
    out_and_in(Config { security: Security::Ca("lab".to_owned()), ..Config::default() }).await;
}

#[tokio::test]
async fn a_host_is_seen_as_it_is() {
    let world = World::started(3);
    world.add_host(SimHost { build: Some("V3.1.0".to_owned()), ..SimHost::numbered(4) });
    let kwbase = kwbase(&world);
    let facts = kwbase.inspect(&HostName::new("n4")).await.unwrap();
    assert_eq!(facts.build, Fact::Known("V3.1.0".to_owned()));
    assert_eq!(facts.stores[0].content, Fact::Known(StoreContent::Absent));
    assert_eq!(facts.listening, Fact::Known(Vec::new()));
    let used = kwbase.inspect(&HostName::new("n1")).await.unwrap();
    let Fact::Known(StoreContent::InUse(names)) = &used.stores[0].content else { panic!("{used:?}") };
    assert!(names.iter().any(|n| n == "kwbase.start_mode"), "{names:?}");
    assert_eq!(used.listening.known().map(Vec::len), Some(2));
}

#[tokio::test]
async fn errors_of_the_command_line_keep_their_meaning() {
    let world = World::started(4);
    let kwbase = kwbase(&world);
    let via = gateway(&world, 1);
    let unknown = kwbase.mark(&via, &[NodeId(4), NodeId(99)], MINUTE).await.unwrap_err();
    assert_eq!(unknown.kind(), PortErrorKind::UnknownNode, "{}", unknown.chain());
    let back = kwbase.recommission(&via, &[NodeId(4)], MINUTE).await.unwrap();
    assert!(!back[0].decommissioning, "it had been marked all the same");

    let mode = StartMode::SingleReplica;
    world.add_host(SimHost::numbered(5));
    let kwbase = self::kwbase(&world);
    let join = vec![via.address.clone()];
    let start = StartNode { host: HostName::new("n5"), mode, join, deadline: MINUTE };
    let StartOutcome::Failed(text) = kwbase.start(&start).await.unwrap() else { panic!() };
    assert!(text.contains("start-single-replica"), "{text}");

    // Stopping twice is fine; a node that is down is down.
    let stop = stop_of(&world, 4);
    kwbase.drain(&stop).await.unwrap();
    kwbase.stop(&stop).await.unwrap();
    assert_eq!(kwbase.process(&stop).await.unwrap(), ProcessState::Stopped);
    kwbase.stop(&stop).await.unwrap();

    let single = World::started_with(Config::default(), StartMode::SingleReplica, 3);
    let refused = self::kwbase(&single).mark(&gateway(&single, 1), &[NodeId(3)], MINUTE).await.unwrap_err();
    assert_eq!(refused.kind(), PortErrorKind::SingleReplica, "{}", refused.chain());
}

#[tokio::test]
async fn a_command_that_hangs_ends_at_its_deadline() {
    let world = World::started(3);
    for n in [2, 3] {
        world.cluster().kill_node(&SimHost::numbered(n).address);
    }
    let began = world.now();
    let late = kwbase(&world).mark(&gateway(&world, 1), &[NodeId(3)], MINUTE).await.unwrap_err();
    assert_eq!(late.kind(), PortErrorKind::Deadline, "{}", late.chain());
    assert_eq!(world.now().duration_since(began).as_secs(), 60);
}

#[tokio::test]
async fn a_lost_answer_is_told_apart_from_a_refusal() {
    let world = World::started(4);
    let lossy = Faulty::new(&world, Arc::new(world.transport())).with(
        Call::Run,
        Which::Nth(1),
        Fault::LoseAnswer(PortErrorKind::ConnectionLost),
    );
    let hosts: Vec<_> = world.hosts().iter().map(SimHost::kwbase).collect();
    let kwbase = Kwbase::new(Arc::new(lossy), hosts).unwrap();
    let lost = kwbase.mark(&gateway(&world, 1), &[NodeId(4)], MINUTE).await.unwrap_err();
    assert_eq!(lost.kind(), PortErrorKind::ConnectionLost);
    let via = gateway(&world, 1).address;
    let status = world.cluster().decommission_status(&via, &[NodeId(4)]).unwrap();
    assert!(status[0].decommissioning, "done all the same");
}

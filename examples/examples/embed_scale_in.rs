//! A service that takes a node out of a cluster, is stopped in the middle, and goes on later from its journal.
//!
//! `cargo run --example embed_scale_in`. The cluster is the twin in memory, on a virtual clock: hours pass in
//! milliseconds.

use std::error::Error;
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use jiff::SignedDuration;
use kwdb_scale_core::execute::{Advance, Cancel, End, ObserveOptions, Operation, Ports, Progress, observe};
use kwdb_scale_core::plan::{Plan, plan};
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::request::{NodeRef, Operation as Change, Options, Request};
use kwdb_scale_core::topology::NodeId;
use kwdb_scale_sim::memory::World;
use kwdb_scale_sim::model::TableSpec;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let world = World::started(5);
    world.cluster().create_table(TableSpec::new("app", "orders", 30)).map_err(|e| e.to_string())?;
    world.advance(std::time::Duration::from_secs(120));
    let ports = world.ports();

    let plan = make_plan(&world, &ports, 5).await?;
    print!("{plan}");

    // The service is told to stop as soon as replicas move. What it marked stays marked.
    let mut operation = Operation::begin(plan, ports.clone()).await?;
    let (mut events, canceller) = (operation.events(), operation.canceller());
    let mut told = false;
    let end = loop {
        match operation.advance(SignedDuration::from_secs(5)).await {
            Advance::Progress => {}
            // A service would look after something else until then.
            Advance::Waiting { until, .. } => world.advance_to(until),
            Advance::Ended(end) => break end,
        }
        while let Some(Some(event)) = events.next().now_or_never() {
            if let Progress::Replicas { left, of, .. } = event
                && !told
            {
                println!("{left} of {of} replicas left: stopping here");
                canceller.cancel(Cancel::Leave);
                told = true;
            }
        }
    };
    drop(operation);
    let End::Stopped(stopped) = end else { return Err(format!("it was not stopped: {end:?}").into()) };
    println!("stopped: {}", stopped.message);

    // Later, perhaps in another process: the journal is all that is needed. (`Cancel::Undo` would recommission.)
    let mut operation = Operation::resume(ports).await?;
    match operation.run().await {
        End::Done(proof) => {
            for line in proof {
                println!("proven: {line}");
            }
            Ok(())
        }
        other => Err(format!("not done: {other:?}").into()),
    }
}

async fn make_plan(world: &World, ports: &Ports, node: u32) -> Result<Plan, Box<dyn Error>> {
    let request = Request {
        operation: Change::ScaleIn { nodes: vec![NodeRef::Id(NodeId(node))] },
        inventory: world.inventory(),
        options: Options::default(),
    };
    let options = ObserveOptions {
        request: Some(request.clone()),
        inventory: world.inventory(),
        ..ObserveOptions::default()
    };
    let facts = Arc::clone(&ports.facts);
    let observation = observe(&*facts, Some(&*ports.lifecycle), &options).await?;
    Ok(plan(&observation, &request, &Policy::default())?)
}

//! One loop that holds many clusters: each operation gets a little time in turn and says when it wants to be called
//! again. So works an operator of Kubernetes, or a service with two hundred clusters.
//!
//! `cargo run --example reconcile_loop`. The clusters are twins in memory.

use std::collections::BTreeMap;
use std::error::Error;

use jiff::{SignedDuration, Timestamp};
use kwdb_scale_core::execute::{Advance, End, ObserveOptions, Operation, observe};
use kwdb_scale_core::plan::plan;
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::request::{Operation as Change, Options, Request};
use kwdb_scale_core::topology::HostName;
use kwdb_scale_sim::memory::{SimHost, World};

/// What is wanted of a cluster: exactly these hosts are its members.
struct Wanted {
    world: World,
    members: Vec<HostName>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut fleet = BTreeMap::from([
        ("grows", wanted(3, &[1, 2, 3, 4])),
        ("shrinks", wanted(5, &[1, 2, 3, 4])),
        ("swaps", wanted(4, &[1, 2, 3, 5])),
        ("rests", wanted(3, &[1, 2, 3])),
    ]);
    let mut running: BTreeMap<&str, Operation> = BTreeMap::new();
    let mut rounds = 0_u32;

    while !fleet.is_empty() {
        rounds += 1;
        let mut ended = Vec::new();
        for (name, wanted) in &fleet {
            // Idempotent: what is true already gives an empty plan.
            if !running.contains_key(name) {
                match begin(wanted).await? {
                    Some(operation) => running.insert(name, operation),
                    None => {
                        println!("{name}: as wanted");
                        ended.push(*name);
                        continue;
                    }
                };
            }
            let Some(operation) = running.get_mut(name) else { continue };
            match operation.advance(SignedDuration::from_secs(2)).await {
                Advance::Progress => {}
                Advance::Waiting { until, .. } => wait(wanted, until),
                Advance::Ended(End::Done(_)) => {
                    // Not taken at its word: the next round observes again and finds nothing to do.
                    println!("{name}: changed, after {rounds} rounds");
                    running.remove(name);
                }
                Advance::Ended(end) => return Err(format!("{name}: {end:?}").into()),
            }
        }
        for name in ended {
            fleet.remove(name);
        }
    }
    Ok(())
}

async fn begin(wanted: &Wanted) -> Result<Option<Operation>, Box<dyn Error>> {
    let world = &wanted.world;
    let request = Request {
        operation: Change::Reach { members: wanted.members.clone() },
        inventory: world.inventory(),
        options: Options::default(),
    };
    let ports = world.ports();
    let options = ObserveOptions {
        request: Some(request.clone()),
        inventory: world.inventory(),
        ..ObserveOptions::default()
    };
    let observation = observe(&*ports.facts, Some(&*ports.lifecycle), &options).await?;
    let plan = plan(&observation, &request, &Policy::default())?;
    if plan.is_empty() {
        return Ok(None);
    }
    Ok(Some(Operation::begin(plan, ports).await?))
}

/// A service would put the cluster aside and look at others until then. These clocks are virtual: time is let go by.
fn wait(wanted: &Wanted, until: Timestamp) {
    wanted.world.advance_to(until);
}

fn wanted(nodes: u16, members: &[u16]) -> Wanted {
    let world = World::started(nodes);
    for n in members.iter().filter(|n| **n > nodes) {
        world.add_host(SimHost::numbered(*n));
    }
    Wanted { world, members: members.iter().map(|n| HostName::new(format!("n{n}"))).collect() }
}

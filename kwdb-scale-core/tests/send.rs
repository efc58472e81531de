//! What a service does with operations: it spawns them on a runtime of many threads, and calls them in handlers whose
//! futures must be `Send`. That holds when this compiles.

use jiff::SignedDuration;
use kwdb_scale_core::execute::{Cancel, ObserveOptions, Operation, Ports, observe};
use kwdb_scale_core::plan::Plan;
use kwdb_scale_core::ports::{FactSource, NodeLifecycle};

fn spawned<T: Send + 'static>(_: T) {}
fn sent<T: Send>(_: T) {}

#[test]
fn operations_can_be_spawned() {
    let _run = |mut operation: Operation| {
        spawned(operation.events());
        spawned(operation.canceller());
        spawned(async move { operation.run().await });
    };
    let _advance = |operation: &mut Operation| sent(operation.advance(SignedDuration::from_secs(1)));
    let _whole = |plan: Plan, ports: Ports, undo: bool| {
        spawned(async move {
            let mut operation = match undo {
                true => Operation::resume(ports).await?,
                false => Operation::begin_with_consent(plan, ports, None).await?,
            };
            if undo {
                operation.canceller().cancel(Cancel::Undo);
            }
            Ok::<_, kwdb_scale_core::execute::ExecuteError>(operation.run().await)
        });
    };
    let _observe = |facts: &dyn FactSource, hosts: &dyn NodeLifecycle, options: &ObserveOptions| {
        sent(observe(facts, Some(hosts), options));
    };
}

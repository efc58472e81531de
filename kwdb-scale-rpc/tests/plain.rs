//! Over the twin's ports without TLS: the contract, readiness, drain and shutdown, ranges sent to their queue.
#![allow(missing_docs, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod twin;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kwdb_scale_core::ports::{
    DecommissionControl, FactSource, NodeLifecycle, PortErrorKind, ProcessState, ReplicateQueue, StopNode,
};
use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::topology::{Address, NodeId, RangeId, StartMode, StoreId};
use kwdb_scale_local::SystemClock;
use kwdb_scale_rpc::{EnqueueErrorKind, EnqueueRange, Enqueued, Readiness, RpcStop};
use kwdb_scale_sim::contract::{self, ControlFixture};
use kwdb_scale_sim::memory::World;
use kwdb_scale_sim::model::{Cluster, Config, NodeStart};
use kwdb_scale_sim::process::{Listeners, Pace, free_addresses};
use kwdb_scale_sql::SqlSource;
use twin::{DEADLINE, Twin, fails, hasty, insecure};

fn facts(twin: &Twin) -> SqlSource {
    SqlSource::builder(twin.addresses.clone()).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_of_decommission_control() {
    let twin = Twin::plain(5, Pace::Times(100.0)).await;
    let nobody = free_addresses(1).unwrap().remove(0);
    contract::decommission_control(&ControlFixture {
        control: &insecure(),
        facts: &facts(&twin),
        clock: &SystemClock::new(),
        via: twin.via(1),
        leaving: [NodeId(4), NodeId(5)],
        nobody,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_on_a_single_replica_cluster() {
    let twin = Twin::new(3, StartMode::SingleReplica, Pace::Times(20.0), None, 0).await;
    let (rpc, nobody) = (insecure(), free_addresses(1).unwrap().remove(0));
    contract::decommission_control_single_replica(&ControlFixture {
        control: &rpc,
        facts: &facts(&twin),
        clock: &SystemClock::new(),
        via: twin.via(1),
        leaving: [NodeId(2), NodeId(3)],
        nobody,
    })
    .await;
    let error = fails(rpc.recommission(&twin.via(1), &[NodeId(2)], DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::SingleReplica, "{}", error.chain());
    // A status works there.
    let status = rpc.status(&twin.via(1), &[NodeId(2)], DEADLINE).await.unwrap().unwrap();
    assert_eq!((status[0].node, status[0].decommissioning), (NodeId(2), false));
}

#[tokio::test]
async fn an_unknown_id_among_others_marks_nobody() {
    let twin = Twin::plain(4, Pace::Times(20.0)).await;
    let (rpc, via) = (insecure(), twin.via(1));
    let error = fails(rpc.mark(&via, &[NodeId(4), NodeId(99)], DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::UnknownNode);
    let raw = "unable to get liveness for 99: node not in the liveness table";
    assert!(error.chain().contains(raw), "{}", error.chain());
    let text = error.to_string();
    assert!(text.starts_with(via.address.as_str()) && text.contains("asked about 4, 99"), "{text}");
    let all = rpc.status(&via, &[1, 2, 3, 4].map(NodeId), DEADLINE).await.unwrap().unwrap();
    assert!(all.iter().all(|s| !s.decommissioning && s.is_live), "{all:?}");

    // The server itself does what it was seen to do: those before the unknown one stay marked.
    let raw = twin.cluster.lock().unwrap().decommission(&via.address, &[NodeId(4), NodeId(99)]);
    assert!(raw.is_err());
    let four = rpc.status(&via, &[NodeId(4), NodeId(4)], DEADLINE).await.unwrap().unwrap();
    assert_eq!((four.len(), four[0].decommissioning), (1, true));

    for ids in [vec![], vec![NodeId(0)], vec![NodeId(u32::MAX)]] {
        let error = fails(rpc.mark(&via, &ids, DEADLINE).await);
        assert_eq!(error.kind(), PortErrorKind::Config, "{error}");
        assert_eq!(fails(rpc.status(&via, &ids, DEADLINE).await).kind(), PortErrorKind::Config);
    }
}

#[tokio::test]
async fn readiness_is_told_apart() {
    // Nodes that wait for init.
    let addresses = free_addresses(2).unwrap();
    let mut cluster = Cluster::new(Config::default());
    for address in &addresses {
        cluster.start_node(NodeStart::new(address.clone(), addresses.clone())).unwrap();
    }
    cluster.advance(Duration::from_secs(3));
    let mut listeners = Listeners::new(Arc::new(Mutex::new(cluster)), Pace::Times(1.0));
    listeners.open(&addresses[0]).await.unwrap();
    let rpc = hasty();
    let of = async |at: &Address| rpc.ready(at, DEADLINE).await;
    assert_eq!(of(&addresses[0]).await.unwrap(), Readiness::WaitingForInit);
    let error = fails(rpc.status(&twin::gateway(1, &addresses[0]), &[NodeId(1)], DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::NotInitialised, "{}", error.chain());
    assert!(
        error.chain().contains(
            "node waiting for init; /kwbase.server.serverpb.Admin/DecommissionStatus not available"
        )
    );
    let closed = of(&addresses[1]).await.unwrap();
    assert!(matches!(&closed, Readiness::Unreachable(why) if why.contains("refused")), "{closed:?}");

    // Members.
    let twin = Twin::plain(4, Pace::Times(20.0)).await;
    assert_eq!(of(&twin.addresses[3]).await.unwrap(), Readiness::Ready);
    rpc.drain(&twin.addresses[3], DEADLINE, |_| {}).await.unwrap();
    assert_eq!(of(&twin.addresses[3]).await.unwrap(), Readiness::ShuttingDown);
    // It still answers what every member answers.
    let status = rpc.status(&twin.via(4), &[NodeId(4)], DEADLINE).await.unwrap().unwrap();
    assert!(status[0].draining && status[0].is_live, "{status:?}");

    // One that hangs cannot be told, on the channel that was there and on a new one.
    assert_eq!(of(&twin.addresses[2]).await.unwrap(), Readiness::Ready);
    twin.cluster.lock().unwrap().freeze_node(&twin.addresses[2], true);
    for _ in 0..2 {
        let error = fails(rpc.ready(&twin.addresses[2], Duration::from_millis(600)).await);
        assert_eq!(error.kind(), PortErrorKind::Deadline, "{error}");
    }
    twin.cluster.lock().unwrap().freeze_node(&twin.addresses[2], false);
    assert_eq!(of(&twin.addresses[2]).await.unwrap(), Readiness::Ready);
}

fn stop(twin: &Twin, n: usize) -> StopNode {
    let node = twin.via(n);
    StopNode { node: node.node, address: node.address, host: None, via: twin.via(1), deadline: DEADLINE }
}

#[tokio::test]
async fn a_node_is_drained_and_ends() {
    let twin = Twin::plain(4, Pace::Times(5.0)).await;
    let world = World::over(Arc::clone(&twin.cluster));
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let lifecycle = RpcStop::new(insecure(), world.ports().lifecycle)
        .with_progress(move |node, progress| heard.lock().unwrap().push((node.node, progress.clone())));
    let four = stop(&twin, 4);
    assert_eq!(lifecycle.process(&four).await.unwrap(), ProcessState::Running);
    let before = insecure().drain_progress(&four.address, DEADLINE).await.unwrap();
    assert!(!before.is_draining && before.description.is_empty(), "{before:?}");

    lifecycle.drain(&four).await.unwrap();
    let steps: Vec<(bool, u64)> =
        told.lock().unwrap().iter().map(|(_, p)| (p.is_draining, p.remaining)).collect();
    assert_eq!(steps[0], (false, 0), "the question before");
    assert!(steps[1].0 && steps[1].1 > 1, "{steps:?}");
    assert_eq!(*steps.last().unwrap(), (true, 0));
    let words = told.lock().unwrap()[1].1.description.clone();
    assert!(words.starts_with("liveness record: 1, range lease iterations: "), "{words}");
    assert_eq!(lifecycle.process(&four).await.unwrap(), ProcessState::Running, "draining ends nothing");

    let error = fails(lifecycle.stop(&four).await);
    assert_eq!(error.kind(), PortErrorKind::Denied, "not marked: {error}");
    insecure().mark(&four.via, &[four.node], DEADLINE).await.unwrap();
    let error = fails(lifecycle.stop(&four).await);
    assert_eq!(error.kind(), PortErrorKind::Denied, "not empty: {error}");
    assert_eq!(lifecycle.process(&four).await.unwrap(), ProcessState::Running, "a refusal stops nothing");
    empty(&twin, four.node).await;
    lifecycle.stop(&four).await.unwrap();
    let begun = Instant::now();
    while lifecycle.process(&four).await.unwrap() != ProcessState::Stopped {
        assert!(begun.elapsed() < Duration::from_secs(5), "the process is there for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The port goes a moment after the process.
    tokio::time::sleep(Duration::from_millis(200)).await;
    lifecycle.stop(&four).await.unwrap();
    let error = fails(lifecycle.drain(&four).await);
    assert_eq!(error.kind(), PortErrorKind::Unreachable, "{error}");
    let status = insecure().status(&twin.via(1), &[NodeId(3)], DEADLINE).await.unwrap();
    assert!(status.is_some(), "nobody else was stopped");
}

#[tokio::test]
async fn a_drain_that_waits_for_a_client_ends_by_its_deadline() {
    let twin = Twin::plain(4, Pace::Times(4.0)).await;
    insecure().mark(&twin.via(1), &[NodeId(4)], DEADLINE).await.unwrap();
    empty(&twin, NodeId(4)).await;
    {
        let mut cluster = twin.cluster.lock().unwrap();
        let until = cluster.now() + Duration::from_secs(60);
        cluster.hold_transaction(&twin.addresses[3], until);
    }
    let error = fails(insecure().drain(&twin.addresses[3], Duration::from_millis(700), |_| {}).await);
    assert_eq!(error.kind(), PortErrorKind::Deadline, "{error}");
    let mut node = stop(&twin, 4);
    node.deadline = Duration::from_millis(700);
    let world = World::over(Arc::clone(&twin.cluster));
    let error = fails(RpcStop::new(insecure(), world.ports().lifecycle).stop(&node).await);
    assert_eq!(error.kind(), PortErrorKind::Deadline, "{error}");
    assert!(twin.cluster.lock().unwrap().listening(&node.address), "not ended without being drained");
}

#[tokio::test]
async fn a_channel_that_died_is_made_anew() {
    let mut twin = Twin::plain(4, Pace::Times(20.0)).await;
    let (rpc, via) = (insecure(), twin.via(4));
    rpc.status(&via, &[NodeId(1)], DEADLINE).await.unwrap();
    twin.cluster.lock().unwrap().kill_node(&via.address);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let error = fails(rpc.mark(&via, &[NodeId(3)], DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains("refused"), "{error}");

    let start = NodeStart::new(via.address.clone(), twin.addresses.clone());
    twin.cluster.lock().unwrap().start_node(start).unwrap();
    twin.listeners.open(&via.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let status = rpc.status(&via, &[NodeId(4)], DEADLINE).await.unwrap().unwrap();
    assert_eq!(status[0].node, NodeId(4));
    // A crowd on one channel.
    let nodes = [NodeId(1)];
    let crowd = (0..50).map(|_| rpc.status(&via, &nodes, DEADLINE));
    for answer in futures(crowd).await {
        answer.unwrap();
    }
}

async fn futures<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in all.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(output) = future.as_mut().poll(cx) {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

async fn ranges_on(twin: &Twin, node: NodeId) -> Vec<RangeId> {
    let facts = facts(twin);
    let stores = facts.fetch(&twin.addresses[0], &Query::Stores).await.unwrap().rows;
    let Rows::Stores(stores) = stores else { panic!("stores") };
    let stores: Vec<StoreId> = stores.iter().filter(|s| s.node_id == node).map(|s| s.store_id).collect();
    let query = Query::RangesOn { stores, limit: 10_000 };
    let Rows::Ranges(ranges) = facts.fetch(&twin.addresses[0], &query).await.unwrap().rows else {
        panic!("ranges")
    };
    ranges.iter().map(|r| r.range_id).collect()
}

/// Sends a range to every node; the answer of the leaseholder, which is the one that is none of the refusals.
async fn everywhere(twin: &Twin, range: RangeId) -> (Option<Enqueued>, Vec<Enqueued>) {
    let job = EnqueueRange { node: None, ..EnqueueRange::replicate(NodeId(1), range) };
    let answers = insecure().enqueue_range(&twin.via(1), &job, DEADLINE).await.unwrap();
    let refused = |a: &Enqueued| {
        let kind = a.error.as_ref().map(|e| e.kind);
        matches!(kind, Some(EnqueueErrorKind::NoReplica | EnqueueErrorKind::NotLeaseholder))
    };
    let (others, holder): (Vec<_>, Vec<_>) = answers.into_iter().partition(refused);
    assert!(holder.len() <= 1, "a range has one leaseholder: {holder:?}");
    (holder.into_iter().next(), others)
}

/// Sends every range of a marked node until it has none; how many of the calls moved one.
async fn empty(twin: &Twin, node: NodeId) -> usize {
    let (mut rounds, mut moved) = (0, 0);
    loop {
        let ranges = ranges_on(twin, node).await;
        if ranges.is_empty() {
            return moved;
        }
        rounds += 1;
        assert!(rounds < 20, "{ranges:?} stay");
        for range in ranges {
            let (holder, others) = everywhere(twin, range).await;
            assert_eq!(others.len() + usize::from(holder.is_some()), 4, "every node answers");
            if let Some(Enqueued { error: None, events, .. }) = holder {
                assert!(events.iter().all(|e| e.time.is_some()) && !events.is_empty(), "{events:?}");
                moved += usize::from(events.iter().any(|e| e.message.starts_with("change replicas")));
            }
        }
    }
}

#[tokio::test]
async fn ranges_sent_to_their_leaseholder_leave_at_once() {
    // Slow enough for the scanner to do little in the meantime.
    let twin = Twin::new(4, StartMode::MultiReplica, Pace::Times(4.0), None, 60).await;
    let rpc = insecure();
    rpc.mark(&twin.via(1), &[NodeId(4)], DEADLINE).await.unwrap();
    let begun = Instant::now();
    let moved = empty(&twin, NodeId(4)).await;
    assert!(moved > 20, "{moved} ranges were moved by the calls");
    let model_seconds = begun.elapsed().as_secs_f64() * 4.0;
    let status = rpc.status(&twin.via(2), &[NodeId(4)], DEADLINE).await.unwrap().unwrap();
    assert_eq!((status[0].replicas, status[0].decommissioning), (0, true), "after {model_seconds:.0} s");
    assert_eq!(twin.cluster.lock().unwrap().under_replicated(), 0);
}

#[tokio::test]
async fn why_a_range_was_not_moved() {
    // Three nodes, of which one is to leave: nobody can take its replicas.
    let twin = Twin::plain(3, Pace::Times(1.0)).await;
    let (rpc, via) = (insecure(), twin.via(1));
    rpc.mark(&via, &[NodeId(3)], DEADLINE).await.unwrap();
    let range = ranges_on(&twin, NodeId(3)).await[5];
    // A leaseholder that is to go gives its lease away first, without an error.
    let first = everywhere(&twin, range).await.0.unwrap();
    let told = if first.error.is_none() { everywhere(&twin, range).await.0.unwrap() } else { first };
    let error = told.error.unwrap();
    assert_eq!(error.kind, EnqueueErrorKind::NoPlace);
    let seen = "0 of 2 live stores are able to take a new replica for the range (2 already have a replica); likely not \
                enough nodes in cluster";
    assert_eq!(error.text, seen);
    rpc.recommission(&via, &[NodeId(3)], DEADLINE).await.unwrap();

    // What the call itself is refused for.
    let of = async |job: EnqueueRange| rpc.enqueue_range(&via, &job, DEADLINE).await;
    let stale = of(EnqueueRange::replicate(NodeId(2), RangeId(9_999))).await.unwrap();
    let error = stale[0].error.clone().unwrap();
    assert_eq!(
        (error.kind, error.text.as_str()),
        (EnqueueErrorKind::NoReplica, "n2 has no replica for r9999")
    );
    let job = EnqueueRange { queue: "replicat".to_owned(), ..EnqueueRange::replicate(NodeId(2), range) };
    let error = of(job).await.unwrap()[0].error.clone().unwrap();
    assert_eq!(
        (error.kind, error.text.as_str()),
        (EnqueueErrorKind::Other, "unknown queue type \"replicat\"")
    );
    assert_eq!(
        fails(of(EnqueueRange::replicate(NodeId(99), range)).await).kind(),
        PortErrorKind::UnknownNode
    );
    let no_queue = EnqueueRange { queue: String::new(), ..EnqueueRange::replicate(NodeId(2), range) };
    assert_eq!(fails(of(no_queue).await).kind(), PortErrorKind::Config);
    assert_eq!(fails(of(EnqueueRange::replicate(NodeId(2), RangeId(0))).await).kind(), PortErrorKind::Config);
    assert_eq!(fails(of(EnqueueRange::replicate(NodeId(0), range)).await).kind(), PortErrorKind::Config);
    // Asked first, a queue that has nothing to do does nothing.
    let job =
        EnqueueRange { node: None, skip_should_queue: false, ..EnqueueRange::replicate(NodeId(1), range) };
    let asked = of(job).await.unwrap();
    assert!(asked.iter().any(|a| a.error.is_none() && a.events.len() == 1), "{asked:?}");
    // Of nodes that have a replica one holds the lease.
    let job = EnqueueRange { node: None, ..EnqueueRange::replicate(NodeId(1), range) };
    let not_the_holder = format!(",r{}:", range.0);
    for error in of(job.clone()).await.unwrap().into_iter().filter_map(|a| a.error) {
        assert_eq!(error.kind, EnqueueErrorKind::NotLeaseholder, "{error:?}");
        assert!(error.text.starts_with("replica [n") && error.text.contains(&not_the_holder), "{error:?}");
        assert!(error.text.ends_with("] does not have the range lease"), "{error:?}");
    }
    twin.cluster.lock().unwrap().kill_node(&twin.addresses[1]);
    let down = of(EnqueueRange::replicate(NodeId(2), range)).await.unwrap();
    assert_eq!(
        (down[0].node, down[0].error.as_ref().unwrap().kind),
        (Some(NodeId(2)), EnqueueErrorKind::NodeUnreachable)
    );
    let error = fails(rpc.enqueue(&via, NodeId(2), range, DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::Unreachable, "{error}");
    // One among others.
    let all = of(job).await.unwrap();
    let down = all.iter().find(|a| a.node == Some(NodeId(2))).and_then(|a| a.error.clone()).unwrap();
    assert_eq!(down.kind, EnqueueErrorKind::NodeUnreachable);
    assert!(down.text.starts_with("failed to dial into node 2 ("), "{down:?}");
}

/// While a change of the range goes on, a run that planned another finds that the descriptor is not what it was.
#[tokio::test]
async fn a_range_that_somebody_else_changes_is_raced() {
    let twin = Twin::plain(4, Pace::Times(0.2)).await;
    let (rpc, via) = (insecure(), twin.via(1));
    for range in ranges_on(&twin, NodeId(4)).await {
        rpc.mark(&via, &[NodeId(4)], DEADLINE).await.unwrap();
        // The mark is taken back when the move has begun: the second run wants nothing gone, and finds a change.
        let second = async {
            tokio::time::sleep(Duration::from_millis(60)).await;
            rpc.recommission(&via, &[NodeId(4)], DEADLINE).await.unwrap();
            everywhere(&twin, range).await.0
        };
        let (_, second) = tokio::join!(everywhere(&twin, range), second);
        let Some(error) = second.and_then(|second| second.error) else { continue };
        assert_eq!(error.kind, EnqueueErrorKind::DescriptorChanged, "{error:?}");
        let start = format!("change replicas of r{0} failed: descriptor changed: [expected] r{0}:", range.0);
        assert!(error.text.starts_with(&start), "{error:?}");
        return;
    }
    panic!("no call met a change");
}

#[tokio::test]
async fn nobody_is_marked_while_a_node_is_being_upgraded() {
    let twin = Twin::plain(4, Pace::Times(20.0)).await;
    twin.cluster.lock().unwrap().set_upgrading(NodeId(2), true);
    let error = fails(insecure().mark(&twin.via(1), &[NodeId(4)], DEADLINE).await);
    assert_eq!(error.kind(), PortErrorKind::Upgrading, "{}", error.chain());
    let said = "can not run node decommission when cluster has node UPGRADING";
    assert!(error.chain().contains(said), "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_at_once_disturb_each_other_harmlessly() {
    let twin = Twin::plain(4, Pace::Times(0.5)).await;
    let rpc = insecure();
    rpc.mark(&twin.via(1), &[NodeId(4)], DEADLINE).await.unwrap();
    for range in ranges_on(&twin, NodeId(4)).await {
        let (first, second) = tokio::join!(everywhere(&twin, range), everywhere(&twin, range));
        let errors = [first.0, second.0].into_iter().flatten().filter_map(|a| a.error);
        if let Some(error) = errors.into_iter().find(|e| e.kind == EnqueueErrorKind::TargetNotFound) {
            let text = format!("change replicas of r{} failed: target n4,s14 not found", range.0);
            assert_eq!(error.text, text);
            return;
        }
    }
    panic!("no two calls met on one range");
}

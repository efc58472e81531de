//! The contract of a `NodeLifecycle`.

use std::collections::BTreeSet;
use std::time::Duration;

use kwdb_scale_core::ports::{
    Clock, DecommissionControl, FactSource, Gateway, HostFacts, NodeLifecycle, PortErrorKind, ProcessState,
    StartNode, StartOutcome, StopNode, StoreContent,
};
use kwdb_scale_core::topology::{Address, HostName, NodeId, StartMode};

use super::wait::{fails, in_time, known, liveness, must, nodes};

/// A healthy multi-replica cluster, and hosts on which a node runs, none runs, and none can be started.
#[derive(Debug)]
pub struct LifecycleFixture<'a> {
    /// What is tried out.
    pub lifecycle: &'a dyn NodeLifecycle,
    /// What proves it.
    pub facts: &'a dyn FactSource,
    /// By which the cluster's time passes.
    pub clock: &'a dyn Clock,
    /// A member that stays, with its host.
    pub via: Gateway,
    /// RPC addresses of members.
    pub join: Vec<Address>,
    /// A host with an empty or absent store, and the address that its node will have.
    pub fresh: (HostName, Address),
    /// A host that is configured wrongly, such as with another node's port: a start there fails.
    pub broken: Option<HostName>,
    /// For an implementation that stops only what is marked and empty: how it is marked.
    pub control: Option<&'a dyn DecommissionControl>,
}

const DEADLINE: Duration = Duration::from_secs(60);

/// A host is looked at without changing it; a start without anybody to join is refused, one that fails says why, and
/// one on a fresh host makes a new member; drain and stop may be repeated; what runs is told from what does not.
///
/// # Panics
/// When it does otherwise.
pub async fn node_lifecycle(f: &LifecycleFixture<'_>) {
    looks(f).await;
    refused(f).await;
    let node = joins(f).await;
    let stop = StopNode {
        node,
        address: f.fresh.1.clone(),
        host: Some(f.fresh.0.clone()),
        via: f.via.clone(),
        deadline: DEADLINE,
    };
    leaves(f, &stop).await;
}

fn start(f: &LifecycleFixture<'_>, host: &HostName) -> StartNode {
    StartNode { host: host.clone(), mode: StartMode::MultiReplica, join: f.join.clone(), deadline: DEADLINE }
}

async fn looks(f: &LifecycleFixture<'_>) {
    let host = f.via.host.as_ref().expect("the fixture's gateway names its host");
    let used = must("looking at a member's host", f.lifecycle.inspect(host).await);
    assert_eq!(&used.host, host);
    assert!(known("its build", &used.build).starts_with('V'), "{used:?}");
    assert!(!used.stores.is_empty(), "{used:?}");
    for store in &used.stores {
        let content = known(&store.path, &store.content);
        assert!(matches!(content, StoreContent::InUse(names) if !names.is_empty()), "{store:?}");
    }
    assert!(known("what listens", &used.listening).contains(&f.via.address), "{used:?}");
    assert_eq!(used.can_authenticate.known(), Some(&true), "{used:?}");

    let first = must("looking at a fresh host", f.lifecycle.inspect(&f.fresh.0).await);
    assert_eq!(first.host, f.fresh.0);
    assert_eq!(first.build, used.build, "one program on all hosts");
    assert_eq!(first.secure, used.secure);
    for store in &first.stores {
        let content = known(&store.path, &store.content);
        assert!(matches!(content, StoreContent::Absent | StoreContent::Empty), "{store:?}");
    }
    assert_eq!(known("what listens", &first.listening), &Vec::<Address>::new());
    let second = must("looking again", f.lifecycle.inspect(&f.fresh.0).await);
    // Time, room and processes of the machine change by themselves.
    let lasting = |facts: HostFacts| HostFacts { machine: None, ..facts };
    assert_eq!(lasting(second), lasting(first), "looking changes nothing");

    let error = fails("looking at an unknown host", f.lifecycle.inspect(&"no-such-host".into()).await);
    assert_eq!(error.kind(), PortErrorKind::Config, "{}", error.chain());
    assert!(error.chain().contains("no-such-host"), "{}", error.chain());
}

async fn refused(f: &LifecycleFixture<'_>) {
    let before = members(f).await;
    let alone = StartNode { join: Vec::new(), ..start(f, &f.fresh.0) };
    let error = fails("a start with nobody to join", f.lifecycle.start(&alone).await);
    assert_eq!(error.kind(), PortErrorKind::Config, "{}", error.chain());
    let error =
        fails("a start on an unknown host", f.lifecycle.start(&start(f, &"no-such-host".into())).await);
    assert_eq!(error.kind(), PortErrorKind::Config, "{}", error.chain());
    if let Some(broken) = &f.broken {
        match must("a start that fails", f.lifecycle.start(&start(f, broken)).await) {
            StartOutcome::Failed(words) => assert!(!words.trim().is_empty(), "it says why"),
            other => panic!("a node cannot start on {broken}, and the outcome is {other:?}"),
        }
    }
    assert_eq!(members(f).await, before, "nobody joined");
}

async fn members(f: &LifecycleFixture<'_>) -> BTreeSet<NodeId> {
    liveness(f.facts, &f.via.sql_address).await.iter().map(|r| r.node_id).collect()
}

/// Starts the node on the fresh host; its id.
async fn joins(f: &LifecycleFixture<'_>) -> NodeId {
    let before = members(f).await;
    let outcome = must("starting a node", f.lifecycle.start(&start(f, &f.fresh.0)).await);
    assert!(matches!(outcome, StartOutcome::Started | StartOutcome::StillStarting(_)), "{outcome:?}");
    let id = in_time(f.clock, "the node joined", async || {
        let new: Vec<NodeId> = members(f).await.difference(&before).copied().collect();
        assert!(new.len() <= 1, "one start makes one member: {new:?}");
        let id = *new.first()?;
        let rows = nodes(f.facts, &f.via.sql_address).await;
        let row = rows.iter().find(|n| n.node_id == id)?;
        (row.is_live == Some(true)).then(|| {
            assert_eq!(row.address.as_ref(), Some(&f.fresh.1), "it is known at the address of its host");
            assert_eq!(row.start_mode, Some(StartMode::MultiReplica));
            id
        })
    })
    .await;
    let host = must("looking at the host of the new node", f.lifecycle.inspect(&f.fresh.0).await);
    assert!(known("what listens", &host.listening).contains(&f.fresh.1), "{host:?}");
    let content = host.stores.first().map(|s| known(&s.path, &s.content));
    assert!(matches!(content, Some(StoreContent::InUse(_))), "{host:?}");
    id
}

async fn leaves(f: &LifecycleFixture<'_>, stop: &StopNode) {
    let process = async || must("looking at the process", f.lifecycle.process(stop).await);
    assert_eq!(process().await, ProcessState::Running);
    if let Some(control) = f.control {
        let error = fails("stopping a node that is not marked", f.lifecycle.stop(stop).await);
        assert_eq!(error.kind(), PortErrorKind::Denied, "{}", error.chain());
        assert_eq!(process().await, ProcessState::Running, "a refusal stops nothing");
        in_time(f.clock, "the node is marked and empty", async || {
            let marked = must("marking it", control.mark(&f.via, &[stop.node], DEADLINE).await);
            marked.iter().all(|s| s.replicas == 0).then_some(())
        })
        .await;
    }
    for _ in 0..2 {
        must("draining a node, and again", f.lifecycle.drain(stop).await);
    }
    in_time(f.clock, "its draining is heard of", async || {
        let rows = liveness(f.facts, &f.via.sql_address).await;
        rows.iter().any(|r| r.node_id == stop.node && r.draining == Some(true)).then_some(())
    })
    .await;
    assert_eq!(process().await, ProcessState::Running, "draining ends nothing");
    must("stopping it", f.lifecycle.stop(stop).await);
    in_time(f.clock, "the process is gone", async || {
        (process().await == ProcessState::Stopped).then_some(())
    })
    .await;
    must("stopping a node that is down", f.lifecycle.stop(stop).await);
    assert_eq!(process().await, ProcessState::Stopped);
    let host = must("looking at the host afterwards", f.lifecycle.inspect(&f.fresh.0).await);
    assert_eq!(known("what listens", &host.listening), &Vec::<Address>::new());
    let content = host.stores.first().map(|s| known(&s.path, &s.content));
    assert!(matches!(content, Some(StoreContent::InUse(_))), "its store stays: {host:?}");

    let other = StopNode {
        address: f.via.address.clone(),
        node: f.via.node,
        host: f.via.host.clone(),
        ..stop.clone()
    };
    let gateway = must("looking at the gateway", f.lifecycle.process(&other).await);
    assert_eq!(gateway, ProcessState::Running, "nobody else was stopped");
}

//! The contract of a `DecommissionControl`.

use std::time::Duration;

use kwdb_scale_core::ports::{
    Clock, DecommissionControl, DecommissionStatus, FactSource, Gateway, PortErrorKind,
};
use kwdb_scale_core::rows::{Query, Rows};
use kwdb_scale_core::topology::{Address, NodeId, StoreId};

use super::wait::{bits, fails, in_time, liveness, must, rows};

/// A healthy multi-replica cluster of which two nodes may leave, and a way to mark them.
#[derive(Debug)]
pub struct ControlFixture<'a> {
    /// What is tried out.
    pub control: &'a dyn DecommissionControl,
    /// What proves it: another way to the same cluster.
    pub facts: &'a dyn FactSource,
    /// By which the cluster's time passes.
    pub clock: &'a dyn Clock,
    /// A member that stays.
    pub via: Gateway,
    /// Two members that may leave; enough others stay for every range.
    pub leaving: [NodeId; 2],
    /// A loopback address at which nothing listens.
    pub nobody: Address,
}

/// Ids that no cluster of a test has.
const NO_NODE: NodeId = NodeId(999_999);
const DEADLINE: Duration = Duration::from_secs(60);

/// Refuses the empty list; marks several nodes in one call, and again; counts what the meta ranges say, down to zero;
/// clears the bits, and again; an unknown id is `UnknownNode`; a gateway where nobody listens is `Unreachable`; the
/// status, where there is one, only reads.
///
/// The nodes are drained on the way and recommissioned at the end.
///
/// # Panics
/// When it does otherwise.
pub async fn decommission_control(f: &ControlFixture<'_>) {
    refusals(f).await;
    let one = [f.leaving[0]];
    status(f, &one, false).await;
    none_is_marked(f, &[]).await;

    // Marked and taken back before much has moved.
    let marked = must("marking two nodes", f.control.mark(&f.via, &f.leaving, DEADLINE).await);
    answered(&f.leaving, &marked, true);
    assert!(marked.iter().all(|s| s.is_live && !s.draining), "they live and serve: {marked:?}");
    seen(f, &f.leaving, true).await;
    none_is_marked(f, &f.leaving).await;
    answered(&one, &must("marking again", f.control.mark(&f.via, &one, DEADLINE).await), true);
    status(f, &f.leaving, true).await;
    for _ in 0..2 {
        let cleared = f.control.recommission(&f.via, &f.leaving, DEADLINE).await;
        answered(&f.leaving, &must("recommissioning, and again", cleared), false);
    }
    seen(f, &f.leaving, false).await;
    status(f, &f.leaving, false).await;

    drained(f).await;
    answered(&one, &must("clearing one", f.control.recommission(&f.via, &one, DEADLINE).await), false);
    seen(f, &one, false).await;
    seen(f, &f.leaving[1..], true).await;
    must("clearing the other", f.control.recommission(&f.via, &f.leaving[1..], DEADLINE).await);
    seen(f, &f.leaving, false).await;
}

/// On a cluster of `start-single-replica` nothing can be marked: `SingleReplica`. The fixture's second node is not
/// used.
///
/// # Panics
/// When it does otherwise.
pub async fn decommission_control_single_replica(f: &ControlFixture<'_>) {
    let marked = f.control.mark(&f.via, &f.leaving[..1], DEADLINE).await;
    let error = fails("marking on a single-replica cluster", marked);
    assert_eq!(error.kind(), PortErrorKind::SingleReplica, "{}", error.chain());
    none_is_marked(f, &[]).await;
}

async fn refusals(f: &ControlFixture<'_>) {
    // To the server an empty list means the gateway itself.
    let empty = [
        fails("marking nobody", f.control.mark(&f.via, &[], DEADLINE).await),
        fails("recommissioning nobody", f.control.recommission(&f.via, &[], DEADLINE).await),
    ];
    for error in empty {
        assert_eq!(error.kind(), PortErrorKind::Config, "{}", error.chain());
    }
    let unknown = [
        fails("marking an unknown node", f.control.mark(&f.via, &[NO_NODE], DEADLINE).await),
        fails("recommissioning one", f.control.recommission(&f.via, &[NO_NODE], DEADLINE).await),
    ];
    for error in unknown {
        assert_eq!(error.kind(), PortErrorKind::UnknownNode, "{}", error.chain());
    }
    let nobody = Gateway { address: f.nobody.clone(), sql_address: f.nobody.clone(), ..f.via.clone() };
    let closed = [
        fails("marking through nobody", f.control.mark(&nobody, &f.leaving, DEADLINE).await),
        fails("recommissioning", f.control.recommission(&nobody, &f.leaving, DEADLINE).await),
    ];
    for error in closed {
        assert_eq!(error.kind(), PortErrorKind::Unreachable, "{}", error.chain());
    }
    none_is_marked(f, &[]).await;
}

/// Each node asked about is answered once, and nobody else.
fn answered(asked: &[NodeId], found: &[DecommissionStatus], bit: bool) {
    let mut ids: Vec<NodeId> = found.iter().map(|s| s.node).collect();
    ids.sort();
    let mut expected = asked.to_vec();
    expected.sort();
    assert_eq!(ids, expected, "the answer is about the nodes that were named");
    assert!(found.iter().all(|s| s.decommissioning == bit), "the bit is {bit}: {found:?}");
}

async fn seen(f: &ControlFixture<'_>, nodes: &[NodeId], bit: bool) {
    bits(f.clock, f.facts, &f.via.sql_address, nodes, bit).await;
}

/// No node but these has the bit.
async fn none_is_marked(f: &ControlFixture<'_>, but: &[NodeId]) {
    let rows = liveness(f.facts, &f.via.sql_address).await;
    let others = rows.iter().filter(|r| !but.contains(&r.node_id) && r.decommissioning != Some(false));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&kwdb_scale_core::rows::LivenessRow>::new(), "nobody else");
}

/// A status, where there is one, says the same and changes nothing.
async fn status(f: &ControlFixture<'_>, nodes: &[NodeId], bit: bool) {
    let found = must("asking the status", f.control.status(&f.via, nodes, DEADLINE).await);
    if let Some(found) = found {
        answered(nodes, &found, bit);
        if !bit {
            none_is_marked(f, &[]).await;
        }
    }
}

/// Marked, the nodes become empty, by the answers and by the rows; no answer is below the rows.
async fn drained(f: &ControlFixture<'_>) {
    let via = &f.via.sql_address;
    let Rows::Stores(stores) = rows(f.facts, via, &Query::Stores).await else { panic!("stores") };
    let of = |node: NodeId| stores.iter().filter(move |s| s.node_id == node).map(|s| s.store_id).collect();
    let stores: [Vec<StoreId>; 2] = f.leaving.map(of);
    let count = async |stores: &[StoreId]| {
        let query = Query::ReplicaCounts(stores.to_vec());
        let Rows::ReplicaCounts(found) = rows(f.facts, via, &query).await else { panic!("replica counts") };
        found.iter().map(|r| r.replicas).sum::<u64>()
    };
    let mut most = 0;
    in_time(f.clock, "the nodes are empty", async || {
        let before = [count(&stores[0]).await, count(&stores[1]).await];
        let marked = must("marking", f.control.mark(&f.via, &f.leaving, DEADLINE).await);
        let after = [count(&stores[0]).await, count(&stores[1]).await];
        answered(&f.leaving, &marked, true);
        for (i, node) in f.leaving.iter().enumerate() {
            let said = marked.iter().find(|s| s.node == *node).map(|s| s.replicas);
            // The server counts every replica of a descriptor. `ranges_no_leases` leaves those out that a joint
            // configuration is about to remove (V3.2.1: voters that are full or incoming, and learners), so the
            // answer may be above the rows, never below.
            let least = before[i].min(after[i]);
            assert!(
                said.is_some_and(|s| s >= least),
                "{node}: the rows name it {least} times or more, the answer is {said:?}"
            );
        }
        most = most.max(before[0] + before[1]);
        (after == [0, 0] && marked.iter().all(|s| s.replicas == 0)).then_some(())
    })
    .await;
    assert!(most > 0, "there was nothing to drain, so nothing was shown");
}

//! The parts of a cluster: disks, processes, members, stores and ranges.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use kwdb_scale_core::rows::{RangeKind, StoreRow};
use kwdb_scale_core::topology::{Address, Locality, NodeId, StartMode, StoreId};

use super::time::Nanos;
use super::types::{NodeStart, Phase};

/// What lies in a store directory.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// Written before the node has joined; the only content of a store whose start failed.
    pub(crate) start_mode: Option<StartMode>,
    /// Identity, once bootstrapped.
    pub(crate) identity: Option<(NodeId, StoreId)>,
}

/// An operating-system process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) number: u64,
    pub(crate) start: NodeStart,
    pub(crate) sql_address: Address,
    pub(crate) build: String,
    pub(crate) phase: Phase,
    pub(crate) node: Option<NodeId>,
    pub(crate) joined_at: Nanos,
    /// It has renewed its liveness record since it joined.
    pub(crate) has_beaten: bool,
    /// Since when it refuses new clients: a drain began.
    pub(crate) refuses_since: Option<Nanos>,
    /// When it stopped refreshing its gossip: frozen or ended.
    pub(crate) silent_since: Option<Nanos>,
    pub(crate) status: &'static str,
    pub(crate) frozen: bool,
    /// `init` was run on it although it should have joined: it is a cluster of its own.
    pub(crate) foreign: bool,
    /// A client holds a transaction open until then.
    pub(crate) transaction_until: Nanos,
}

impl Process {
    /// It is a node and its process is there, draining or not.
    pub(crate) fn is_node(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Draining)
    }

    pub(crate) fn is_running(&self) -> bool {
        !matches!(self.phase, Phase::Exited { .. })
    }
}

/// One liveness record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Liveness {
    pub(crate) epoch: i64,
    pub(crate) expiration: Nanos,
    pub(crate) draining: bool,
    pub(crate) decommissioning: bool,
    pub(crate) upgrading: bool,
    pub(crate) updated_at: Nanos,
}

/// One node that ever joined.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: NodeId,
    pub(crate) liveness: Liveness,
    /// The record before the last change, which gateways still see for a moment.
    pub(crate) before: Liveness,
    pub(crate) address: Address,
    pub(crate) sql_address: Address,
    pub(crate) locality: Locality,
    pub(crate) mode: StartMode,
    pub(crate) build: String,
    pub(crate) started_at: Nanos,
    /// The process that last ran as this node, by number.
    pub(crate) process: u64,
    pub(crate) stores: Vec<StoreId>,
    /// The rows last written to `kv_store_status`; empty before the first.
    pub(crate) status: Vec<StoreRow>,
}

/// One store.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) id: StoreId,
    pub(crate) node: NodeId,
    /// Indices of the ranges that name the store, learners too.
    pub(crate) replicas: BTreeSet<usize>,
    /// When it last gave one up.
    pub(crate) gave_up_at: Nanos,
    pub(crate) leases: u32,
    pub(crate) bytes: u64,
    /// Gauge `ranges.underreplicated`.
    pub(crate) under_replicated: u32,
    /// Gauge `ranges.unavailable`.
    pub(crate) unavailable: u32,
    /// Replicas moved away whose data is not yet deleted.
    pub(crate) leftovers: u32,
    pub(crate) gossiped: Option<Gossiped>,
    pub(crate) gossip_pending: bool,
    pub(crate) scan: Scan,
    /// The replicate queue, by priority.
    pub(crate) queue: WorkQueue,
    /// The change that the queue waits for, by number.
    pub(crate) busy: Option<u64>,
    pub(crate) purgatory: BTreeSet<usize>,
}

/// A scanner's way through the replicas of a store. Each cycle goes through those that were there when it began, in an
/// order of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scan {
    /// Those still to come, the next one last.
    pub(crate) ahead: Vec<usize>,
    pub(crate) began: Nanos,
}

/// Ranges to be worked on: the highest priority first, among equals the lowest range.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkQueue {
    by_range: BTreeMap<usize, u32>,
    by_priority: BTreeSet<(Reverse<u32>, usize)>,
}

impl WorkQueue {
    pub(crate) fn len(&self) -> usize {
        self.by_range.len()
    }

    pub(crate) fn insert(&mut self, range: usize, priority: u32) {
        self.remove(range);
        self.by_range.insert(range, priority);
        self.by_priority.insert((Reverse(priority), range));
    }

    pub(crate) fn remove(&mut self, range: usize) {
        if let Some(priority) = self.by_range.remove(&range) {
            self.by_priority.remove(&(Reverse(priority), range));
        }
    }

    pub(crate) fn pop(&mut self) -> Option<usize> {
        let (_, range) = self.by_priority.pop_first()?;
        self.by_range.remove(&range);
        Some(range)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Gossiped {
    pub(crate) at: Nanos,
    pub(crate) ranges: u64,
    pub(crate) leases: u64,
}

/// A change of replicas under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Change {
    pub(crate) number: u64,
    pub(crate) add: StoreId,
    pub(crate) remove: Option<StoreId>,
    /// The store whose replicate queue is busy with it; none when a call began it, beside the queues.
    pub(crate) queue: Option<StoreId>,
}

/// One range.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) id: u64,
    pub(crate) kind: RangeKind,
    pub(crate) start_key: String,
    /// Index into the tables; none for system key space.
    pub(crate) table: Option<usize>,
    pub(crate) partition: Option<String>,
    /// Named zone of system key space.
    pub(crate) zone: &'static str,
    pub(crate) voters: Vec<StoreId>,
    pub(crate) learners: Vec<StoreId>,
    pub(crate) leaseholder: Option<StoreId>,
    /// The leaseholder was started again since: the first replica that needs the lease has it.
    pub(crate) lease_lapsed: bool,
    pub(crate) bytes: u64,
    pub(crate) change: Option<Change>,
    /// Index of the policy in force, see `zones`.
    pub(crate) policy: usize,
    /// On which store's gauges it counts, as under-replicated and as unavailable.
    pub(crate) gauge: Option<(StoreId, bool, bool)>,
}

/// One table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) id: u64,
    pub(crate) database: String,
    pub(crate) name: String,
    pub(crate) partitions: Vec<String>,
    pub(crate) hash_points: bool,
}

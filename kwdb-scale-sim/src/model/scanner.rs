//! Each store's scanner: the only thing that brings an idle range before the replicate queue, and what bounds the pace of
//! a drain with little data (`kv/kvserver/scanner.go`, `queue.go`, `merge_queue.go` of V3.2.1).

use std::time::Duration;

use kwdb_scale_core::topology::{NodeId, StoreId};

use super::cluster::{Cluster, Event};
use super::state::Scan;
use super::time::{Nanos, nanos};

/// A scanner waits at least so long before a replica.
const LEAST_IDLE: Duration = Duration::from_millis(10);
/// Smaller ranges than this (`range_min_bytes`) are looked at by the merge queue.
const MERGED_BELOW: u64 = 128 << 20;

impl Cluster {
    /// The scanner looks at the store's next replica and then waits.
    ///
    /// A cycle goes through the replicas that the store had when it began, in an order by chance: one that is visited
    /// just before its node is marked may come last in the next cycle, which is why the last ranges take so long.
    pub(crate) fn scan(&mut self, process: usize, store: StoreId) {
        if !self.works(process) {
            return;
        }
        let now = self.now;
        let Some(s) = self.store_mut(store) else { return };
        let mut scan = std::mem::take(&mut s.scan);
        let next = loop {
            match scan.ahead.pop() {
                // Those that have gone since are passed over at once.
                Some(range) if !s.replicas.contains(&range) => {}
                next => break next,
            }
        };
        if scan.ahead.is_empty() {
            scan = Scan { ahead: s.replicas.iter().copied().collect(), began: now };
            self.rng.shuffle(&mut scan.ahead);
        }
        self.events.push(now + self.idle(&scan), Event::Scan { process, store });
        if let Some(s) = self.store_mut(store) {
            s.scan = scan;
        }
        if let Some(range) = next {
            self.visit(range, store);
        }
    }

    /// How long a scanner waits before the next replica.
    fn idle(&self, scan: &Scan) -> Nanos {
        let t = &self.config.timings;
        let left = nanos(t.scan_cycle).saturating_sub(self.now.saturating_sub(scan.began));
        (left / scan.ahead.len().max(1) as u64).max(nanos(LEAST_IDLE)).min(nanos(t.scan_idle))
    }

    fn visit(&mut self, range: usize, store: StoreId) {
        self.takeover_by(range, store);
        if self.is_mpp() {
            return;
        }
        self.claim(range, store);
        if self.ranges.get(range).and_then(|r| r.leaseholder) == Some(store) && self.is_worth_it(range, store)
        {
            let priority = self.action(range).priority();
            self.enqueue(range, store, priority);
        }
    }

    /// A restarted node's leases end with its old epoch. Those of the system are asked for at every moment and so never
    /// miss a holder; those of tables, which have no clients here, wait for somebody who needs them.
    pub(crate) fn lapse_leases(&mut self, node: NodeId) {
        let stores = self.member(node).map(|m| m.stores.clone()).unwrap_or_default();
        for range in self.ranges.iter_mut().filter(|r| r.table.is_some() && r.zone == "default") {
            range.lease_lapsed |= range.leaseholder.is_some_and(|h| stores.contains(&h));
        }
    }

    /// A queue that needs the lease takes it where nobody has it: the replicate queue when there is something to do, and
    /// the merge queue for every small range but the last of its table. So in the first cycle after a restart a
    /// range is looked at by whichever of its replicas' scanners comes first.
    fn claim(&mut self, range: usize, store: StoreId) {
        let Some(r) = self.ranges.get(range) else { return };
        if !r.lease_lapsed || !r.voters.contains(&store) || !self.has_quorum(r) {
            return;
        }
        let merges = r.bytes < MERGED_BELOW
            && self.ranges.get(range + 1).is_some_and(|n| n.table == r.table && n.partition == r.partition);
        if merges || self.is_worth_it(range, store) {
            self.set_lease(range, Some(store));
        }
    }
}

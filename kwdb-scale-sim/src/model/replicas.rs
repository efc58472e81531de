//! Replicas and leases change hands; the gauges follow.

use std::time::Duration;

use jiff::Timestamp;
use kwdb_scale_core::topology::{NodeId, StoreId};

use super::cluster::{Cluster, Event};
use super::state::Change;
use super::time::nanos;

impl Cluster {
    /// How many replicas a range needs on a cluster of that many nodes without the decommissioning bit
    /// (`GetNeededReplicas`).
    pub fn needed_replicas(zone: u32, nodes: usize) -> u32 {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        let mut need = zone.min(nodes);
        if need == zone {
            return zone;
        }
        if need.is_multiple_of(2) {
            need = need.saturating_sub(1);
        }
        need.max(3).min(zone)
    }

    /// Ranges with fewer live voters than they need, now and by descriptors: what the gauges will say when they
    /// are next written.
    pub fn under_replicated(&self) -> u64 {
        self.stores.iter().map(|s| u64::from(s.under_replicated)).sum()
    }

    /// Replicas on a node by descriptors, learners counted.
    pub fn replica_count(&self, node: NodeId) -> u64 {
        self.member(node).map_or(0, |m| self.replicas_on(&m.stores))
    }

    /// Since when a node has no replica; `None` while it has any.
    pub fn empty_since(&self, node: NodeId) -> Option<Timestamp> {
        let stores = &self.member(node)?.stores;
        let last = stores.iter().filter_map(|s| self.store(*s)).map(|s| s.gave_up_at).max()?;
        (self.replicas_on(stores) == 0).then(|| self.timestamp(last))
    }

    /// Replicas that ever became voters of a range that had others: `system.rangelog` has two rows `add` for each.
    pub fn replicas_added(&self) -> u64 {
        self.replicas_added
    }

    pub(crate) fn need(&self, range: usize) -> u32 {
        let policy = self.ranges.get(range).and_then(|r| self.policies.get(r.policy));
        Self::needed_replicas(policy.map_or(3, |p| p.num_replicas), self.counted_nodes)
    }

    pub(crate) fn set_lease(&mut self, range: usize, to: Option<StoreId>) {
        let Some(r) = self.ranges.get_mut(range) else { return };
        r.lease_lapsed = false;
        let from = std::mem::replace(&mut r.leaseholder, to);
        if from == to {
            return;
        }
        if let Some(s) = from.and_then(|f| self.store_mut(f)) {
            s.leases = s.leases.saturating_sub(1);
            s.queue.remove(range);
            s.purgatory.remove(&range);
        }
        if let Some(s) = to.and_then(|t| self.store_mut(t)) {
            s.leases += 1;
        }
        self.gauge(range);
    }

    /// The store to which a lease can go: a voter that works, is not leaving, draining or dead; the one with the
    /// fewest leases.
    pub(crate) fn lease_target(&self, range: usize, from: StoreId) -> Option<StoreId> {
        let r = self.ranges.get(range)?;
        r.voters
            .iter()
            .copied()
            .filter(|s| *s != from && self.node_of(*s) != self.node_of(from))
            .filter(|s| self.takes_leases(*s))
            .min_by_key(|s| (self.store(*s).map_or(0, |s| s.leases), *s))
    }

    fn takes_leases(&self, store: StoreId) -> bool {
        let member = self.node_of(store).and_then(|n| self.member(n));
        self.store_up(store)
            && member.is_some_and(|m| {
                m.liveness.expiration > self.now && !m.liveness.draining && !m.liveness.decommissioning
            })
    }

    /// Gives a range whose leaseholder is gone another one: `to`, or whichever voter can take it.
    pub(crate) fn takeover(&mut self, range: usize, to: Option<StoreId>) {
        let Some(r) = self.ranges.get(range) else { return };
        if r.leaseholder.is_some_and(|h| self.store_live(h)) || !self.has_quorum(r) {
            return;
        }
        let up = r.voters.iter().copied().filter(|s| self.store_up(*s) && self.store_live(*s));
        let pick = to.or_else(|| up.min_by_key(|s| (self.store(*s).map_or(0, |s| s.leases), *s)));
        if pick.is_some() {
            self.set_lease(range, pick);
        }
    }

    /// Puts a learner on the range and has it become a voter, and `remove` vanish, when the data is there.
    pub(crate) fn begin_change(
        &mut self,
        range: usize,
        add: StoreId,
        remove: Option<StoreId>,
        queue: Option<StoreId>,
    ) {
        self.next_change += 1;
        let number = self.next_change;
        let Some(r) = self.ranges.get_mut(range) else { return };
        r.learners.push(add);
        r.change = Some(Change { number, add, remove, queue });
        let bytes = r.bytes;
        if let Some(s) = queue.and_then(|store| self.store_mut(store)) {
            s.busy = Some(number);
        }
        if let Some(s) = self.store_mut(add) {
            s.replicas.insert(range);
            s.bytes += bytes;
        }
        self.store_changed(add);
        let rate = self.config.timings.snapshot_bytes_per_second.max(1);
        let transfer = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let at = self.now + self.rng.between(self.config.timings.change) + nanos(transfer);
        self.events.push(at, Event::Finish { range, number });
    }

    pub(crate) fn finish(&mut self, range: usize, number: u64) {
        let Some(r) = self.ranges.get(range) else { return };
        let Some(change) = r.change.filter(|c| c.number == number) else { return };
        let holder = r.leaseholder;
        let works = holder.is_some_and(|h| self.store_up(h)) && self.has_quorum(r);
        let arrived = works && self.store_up(change.add);
        if let Some(r) = self.ranges.get_mut(range) {
            r.change = None;
            if arrived {
                r.learners.retain(|s| *s != change.add);
                r.voters.push(change.add);
                self.replicas_added += 1;
            }
        }
        if arrived {
            if let Some(gone) = change.remove {
                self.remove_voter(range, gone);
            }
        } else if works {
            self.drop_learner(range, change.add);
        }
        self.gauge(range);
        // The lease may have gone elsewhere in the meantime: the queue that waited goes on all the same.
        if let Some(store) = change.queue
            && let Some(s) = self.store_mut(store).filter(|s| s.busy == Some(number))
        {
            s.busy = None;
            if let Some(process) = self.process_number(store) {
                self.events.push(self.now + 1_000_000, Event::Work { process, store });
            }
        }
        // What was worked on is looked at again at once, so that a second missing replica does not wait.
        let again = self.ranges.get(range).and_then(|r| r.leaseholder);
        if let Some(holder) = again {
            self.enqueue(range, holder, 1);
        }
    }

    pub(crate) fn drop_learner(&mut self, range: usize, store: StoreId) {
        if let Some(r) = self.ranges.get_mut(range) {
            r.learners.retain(|s| *s != store);
        }
        self.forget_replica(range, store);
    }

    pub(crate) fn remove_voter(&mut self, range: usize, store: StoreId) {
        if self.ranges.get(range).and_then(|r| r.leaseholder) == Some(store) {
            let others = self.ranges.get(range).map(|r| r.voters.clone()).unwrap_or_default();
            let to = self
                .lease_target(range, store)
                .or_else(|| others.into_iter().find(|s| *s != store && self.store_up(*s)));
            self.set_lease(range, to);
        }
        if let Some(r) = self.ranges.get_mut(range) {
            r.voters.retain(|s| *s != store);
        }
        self.forget_replica(range, store);
        self.gauge(range);
    }

    fn forget_replica(&mut self, range: usize, store: StoreId) {
        let bytes = self.ranges.get(range).map_or(0, |r| r.bytes);
        let (up, now) = (self.store_up(store), self.now);
        if let Some(s) = self.store_mut(store)
            && s.replicas.remove(&range)
        {
            s.gave_up_at = now;
            s.bytes = s.bytes.saturating_sub(bytes);
            s.queue.remove(range);
            s.purgatory.remove(&range);
            // The old replica's data, and its place in the node's own count, goes a while later.
            if up {
                s.leftovers += 1;
                self.after(self.config.timings.replica_gc, Event::ReplicaGc { store });
            }
        }
        self.store_changed(store);
    }

    /// A store gossips a changed count a moment later, once for several changes.
    pub(crate) fn store_changed(&mut self, store: StoreId) {
        let Some(process) = self.process_number(store).filter(|_| self.store_up(store)) else { return };
        let lag = self.config.timings.store_gossip_lag;
        let Some(s) = self.store_mut(store) else { return };
        if !std::mem::replace(&mut s.gossip_pending, true) {
            self.after(lag, Event::GossipStore { process, store, periodic: false });
        }
    }

    /// Counts a range anew on the gauges of one store that has a live replica.
    pub(crate) fn gauge(&mut self, range: usize) {
        let need = self.need(range);
        let Some(r) = self.ranges.get(range) else { return };
        let live = |s: &StoreId| self.store_live(*s);
        let alive = r.voters.iter().filter(|s| live(s)).count();
        let on = r.leaseholder.filter(live).or_else(|| r.voters.iter().copied().find(live));
        let unavailable = alive * 2 <= r.voters.len();
        let under = (alive as u32) < need;
        let new = on.map(|s| (s, under, unavailable));
        let old = r.gauge;
        if old == new {
            return;
        }
        if let Some((store, under, unavailable)) = old
            && let Some(s) = self.store_mut(store)
        {
            s.under_replicated = s.under_replicated.saturating_sub(u32::from(under));
            s.unavailable = s.unavailable.saturating_sub(u32::from(unavailable));
        }
        if let Some((store, under, unavailable)) = new
            && let Some(s) = self.store_mut(store)
        {
            s.under_replicated += u32::from(under);
            s.unavailable += u32::from(unavailable);
        }
        if let Some(r) = self.ranges.get_mut(range) {
            r.gauge = new;
        }
    }

    /// Counts every range anew, after the liveness or the number of nodes has changed.
    pub(crate) fn gauge_all(&mut self) {
        for range in 0..self.ranges.len() {
            self.gauge(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cluster;

    #[test]
    fn needed_replicas_as_the_allocator_counts() {
        let need = Cluster::needed_replicas;
        assert_eq!((need(3, 5), need(3, 3), need(3, 2), need(3, 1)), (3, 3, 3, 3));
        assert_eq!((need(5, 6), need(5, 5), need(5, 4), need(5, 3)), (5, 5, 3, 3));
        assert_eq!((need(7, 6), need(1, 1), need(1, 0)), (5, 1, 1));
    }
}

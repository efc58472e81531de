//! The allocator: what a range needs next, and where. Rules of V3.2.1 (`kv/kvserver/allocator.go`), driven by each
//! store's scanner and replicate queue.

use std::time::Duration;

use kwdb_scale_core::rows::RangeKind;
use kwdb_scale_core::topology::{NodeId, StoreId};

use super::cluster::{Cluster, Event};
use super::state::Member;
use super::time::nanos;

/// What a range needs next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    None,
    RemoveLearner(StoreId),
    Add,
    Replace(StoreId),
    Remove(StoreId),
    Consider,
}

impl Action {
    pub(crate) fn priority(self) -> u32 {
        match self {
            Self::RemoveLearner(_) => 11_000,
            Self::Add => 10_000,
            Self::Replace(_) => 5_000,
            Self::Remove(_) => 1_000,
            Self::Consider => 1,
            Self::None => 0,
        }
    }
}

/// How full a store may be to take a replica that is missing, and one that only balances.
const FULL_FOR_REPAIR: f64 = 0.95;
const FULL_FOR_REBALANCE: f64 = 0.925;

impl Cluster {
    /// A replica takes the lease of a range whose holder is gone.
    pub(crate) fn takeover_by(&mut self, range: usize, store: StoreId) {
        let Some(r) = self.ranges.get(range) else { return };
        if r.leaseholder.is_none_or(|h| !self.store_live(h)) && r.voters.contains(&store) {
            self.takeover(range, Some(store));
        }
    }

    /// Whether the range needs a further replica, and in whose place.
    pub(crate) fn needs_place(&self, range: usize) -> Option<Option<StoreId>> {
        match self.action(range) {
            Action::Add => Some(None),
            Action::Replace(old) => Some(Some(old)),
            _ => None,
        }
    }

    /// Whether the replicate queue has anything to do for a range of that leaseholder.
    pub(crate) fn is_worth_it(&self, range: usize, store: StoreId) -> bool {
        match self.action(range) {
            Action::None => false,
            Action::Consider => {
                self.rebalance_targets(range).is_some() || self.lease_move(range, store).is_some()
            }
            _ => true,
        }
    }

    /// The replicate queue takes the range of the highest priority.
    pub(crate) fn work(&mut self, process: usize, store: StoreId) {
        if !self.works(process) || self.is_mpp() {
            return;
        }
        loop {
            let Some(s) = self.store_mut(store).filter(|s| s.busy.is_none()) else { return };
            let Some(range) = s.queue.pop() else { return };
            s.purgatory.remove(&range);
            if self.process_range(range, store, false) {
                return;
            }
        }
    }

    /// Does what the range needs; whether that takes time, in which the store's queue does nothing else unless it was
    /// begun by hand.
    pub(crate) fn process_range(&mut self, range: usize, store: StoreId, by_hand: bool) -> bool {
        let Some(r) = self.ranges.get_mut(range).filter(|r| r.leaseholder == Some(store)) else {
            return false;
        };
        r.lease_lapsed = false;
        match self.action(range) {
            Action::None => false,
            Action::RemoveLearner(learner) => {
                self.drop_learner(range, learner);
                self.enqueue(range, store, 1);
                false
            }
            Action::Add => self.add_or_replace(range, store, None, by_hand),
            Action::Replace(old) => self.add_or_replace(range, store, Some(old), by_hand),
            Action::Remove(old) => {
                if old == store {
                    if let Some(to) = self.lease_target(range, store) {
                        self.set_lease(range, Some(to));
                        self.enqueue(range, to, Action::Remove(old).priority());
                    }
                } else {
                    self.remove_voter(range, old);
                    self.enqueue(range, store, 1);
                }
                false
            }
            Action::Consider => {
                let rebalance = self.rebalance_targets(range);
                if let Some((from, to)) =
                    rebalance.and_then(|(from, to)| Some((from, self.select_good(&to)?)))
                {
                    self.begin_change(range, to, Some(from), (!by_hand).then_some(store));
                    return true;
                }
                if let Some(to) = self.lease_move(range, store) {
                    self.set_lease(range, Some(to));
                }
                false
            }
        }
    }

    fn add_or_replace(&mut self, range: usize, store: StoreId, old: Option<StoreId>, by_hand: bool) -> bool {
        if old == Some(store) {
            // A leaseholder does not remove itself: the lease goes first, and its new holder goes on.
            if let Some(holder) = self.lease_target(range, store) {
                self.set_lease(range, Some(holder));
                self.enqueue(range, holder, Action::Replace(store).priority());
                return false;
            }
        }
        let Some(to) = self.place(range, old) else {
            // Nobody can take it: it waits until something changes, and says so on one gauge only.
            if let Some(s) = self.store_mut(store) {
                s.purgatory.insert(range);
            }
            return false;
        };
        self.begin_change(range, to, old, (!by_hand).then_some(store));
        true
    }

    /// What the range needs, in the allocator's order.
    pub(crate) fn action(&self, range: usize) -> Action {
        let Some(r) = self.ranges.get(range) else { return Action::None };
        if r.change.is_some() {
            return Action::None;
        }
        if let Some(learner) = r.learners.first() {
            return Action::RemoveLearner(*learner);
        }
        if !self.has_quorum(r) {
            return Action::None;
        }
        let (need, have) = (self.need(range) as usize, r.voters.len());
        if have < need {
            return Action::Add;
        }
        let dead_rules =
            r.kind != RangeKind::TimeSeries || self.flag("kv.allocator.ts_store_dead_rebalance.enabled");
        let dead = r.voters.iter().copied().find(|s| dead_rules && self.is_dead(*s));
        let leaving = r.voters.iter().copied().find(|s| self.is_leaving(*s));
        match (have.cmp(&need), dead.or(leaving)) {
            (std::cmp::Ordering::Equal, Some(store)) => return Action::Replace(store),
            (std::cmp::Ordering::Greater, Some(store)) => return Action::Remove(store),
            (std::cmp::Ordering::Greater, None) => {
                let fullest = r
                    .voters
                    .iter()
                    .copied()
                    .filter(|s| Some(*s) != r.leaseholder)
                    .max_by_key(|s| (self.count(*s), *s));
                return fullest.map_or(Action::None, Action::Remove);
            }
            _ => {}
        }
        if r.kind == RangeKind::TimeSeries && !self.flag("kv.allocator.ts_consider_rebalance.enabled") {
            return Action::None;
        }
        Action::Consider
    }

    fn owner(&self, store: StoreId) -> Option<&Member> {
        self.node_of(store).and_then(|n| self.member(n))
    }

    pub(crate) fn is_leaving(&self, store: StoreId) -> bool {
        self.owner(store).is_some_and(|m| m.liveness.decommissioning)
    }

    /// Expired for longer than `server.time_until_store_dead`.
    pub(crate) fn is_dead(&self, store: StoreId) -> bool {
        let limit = nanos(self.time_until_store_dead());
        self.owner(store).is_some_and(|m| m.liveness.expiration.saturating_add(limit) < self.now)
    }

    fn count(&self, store: StoreId) -> usize {
        self.store(store).map_or(0, |s| s.replicas.len())
    }

    /// Whether a store takes new replicas at all.
    fn is_open(&self, store: StoreId, full: f64) -> bool {
        let Some(m) = self.owner(store) else { return false };
        let used = self.store(store).map_or(0, |s| s.bytes) + self.config.store_foreign;
        m.liveness.expiration > self.now
            && !m.liveness.decommissioning
            && !m.liveness.draining
            && self.store_up(store)
            && (used as f64) < self.config.store_capacity as f64 * full
    }

    /// A place for a further replica, or for one that takes the place of `old`.
    fn place(&mut self, range: usize, old: Option<StoreId>) -> Option<StoreId> {
        let places = self.places(range, old);
        self.select_good(&places)
    }

    /// Of two drawn by chance the one with fewer replicas, so that the same stores do not meet in range after range.
    fn select_good(&mut self, stores: &[StoreId]) -> Option<StoreId> {
        let mut stores = stores.to_vec();
        self.rng.shuffle(&mut stores);
        stores.into_iter().take(2).min_by_key(|s| (self.count(*s), *s))
    }

    /// The best places, all of the same worth.
    pub(crate) fn places(&self, range: usize, old: Option<StoreId>) -> Vec<StoreId> {
        let Some(r) = self.ranges.get(range) else { return Vec::new() };
        let stay: Vec<StoreId> = r.voters.iter().copied().filter(|s| Some(*s) != old).collect();
        let taken: Vec<NodeId> =
            r.voters.iter().chain(&r.learners).filter_map(|s| self.node_of(*s)).collect();
        let open = self
            .stores
            .iter()
            .filter(|s| !taken.contains(&s.node) && self.is_open(s.id, FULL_FOR_REPAIR))
            .filter(|s| self.meets_constraints(range, s.id, &stay))
            .map(|s| (self.diversity(s.id, &stay), s.id));
        let open: Vec<(u64, StoreId)> = open.collect();
        let best = open.iter().map(|(diversity, _)| *diversity).max();
        open.into_iter().filter(|(diversity, _)| Some(*diversity) == best).map(|(_, s)| s).collect()
    }

    /// Whether a replica may go there, given those that stay.
    fn meets_constraints(&self, range: usize, store: StoreId, stay: &[StoreId]) -> bool {
        let policy = self.ranges.get(range).and_then(|r| self.policies.get(r.policy));
        let Some(policy) = policy.filter(|p| !p.constraints.is_empty()) else { return true };
        let fits =
            |c: &super::zones::Constraint, s: StoreId| self.owner(s).is_some_and(|m| c.allows(&m.locality));
        let possible = |c: &super::zones::Constraint| {
            self.stores.iter().any(|s| self.is_open(s.id, FULL_FOR_REPAIR) && fits(c, s.id))
        };
        let binding: Vec<_> = policy.constraints.iter().filter(|c| !policy.lenient || possible(c)).collect();
        if !binding.iter().filter(|c| c.replicas.is_none()).all(|c| fits(c, store)) {
            return false;
        }
        // Constraints for a number of replicas: a store must serve one that is not yet met, while any is.
        let open: Vec<_> = binding
            .iter()
            .filter(|c| c.replicas.is_some_and(|n| (stay.iter().filter(|s| fits(c, **s)).count() as u32) < n))
            .collect();
        open.is_empty() || open.iter().any(|c| fits(c, store))
    }

    /// How different a store's locality is from those of the others, in thousandths.
    fn diversity(&self, store: StoreId, others: &[StoreId]) -> u64 {
        let Some(own) = self.owner(store) else { return 0 };
        let mut total = 0;
        for other in others.iter().filter_map(|s| self.owner(*s)) {
            let (a, b) = (own.locality.tiers(), other.locality.tiers());
            let longest = a.len().max(b.len()).max(1) as u64;
            let same = a.iter().zip(b).take_while(|(x, y)| x == y).count() as u64;
            total += 1000 - 1000 * same / longest;
        }
        total / (others.len() as u64).max(1)
    }

    /// A move that would balance replica counts: from which store, and to any of which.
    fn rebalance_targets(&self, range: usize) -> Option<(StoreId, Vec<StoreId>)> {
        let r = self.ranges.get(range)?;
        let open: Vec<StoreId> =
            self.stores.iter().map(|s| s.id).filter(|s| self.is_open(*s, FULL_FOR_REBALANCE)).collect();
        if open.len() <= r.voters.len() {
            return None;
        }
        if let Some(found) = self.conforming_move(range, &open) {
            return Some((found.0, vec![found.1]));
        }
        let mean = open.iter().map(|s| self.count(*s)).sum::<usize>() as f64 / open.len() as f64;
        let slack = (mean * self.rebalance_threshold()).max(2.0);
        let taken: Vec<NodeId> =
            r.voters.iter().chain(&r.learners).filter_map(|s| self.node_of(*s)).collect();
        let from = r.voters.iter().copied().max_by_key(|s| (self.count(*s), *s))?;
        let stay: Vec<StoreId> = r.voters.iter().copied().filter(|s| *s != from).collect();
        let held = self.diversity(from, &stay);
        let high = self.count(from) as f64;
        let worth =
            |low: f64| (high > mean + slack && low + 1.0 <= mean) || (low < mean - slack && high > mean);
        let to: Vec<StoreId> = open
            .into_iter()
            .filter(|s| self.node_of(*s).is_some_and(|n| !taken.contains(&n)))
            .filter(|s| self.meets_constraints(range, *s, &stay) && self.diversity(*s, &stay) >= held)
            .filter(|s| worth(self.count(*s) as f64))
            .collect();
        (!to.is_empty()).then_some((from, to))
    }

    /// A move of a replica from where the constraints forbid it to where they allow it.
    fn conforming_move(&self, range: usize, open: &[StoreId]) -> Option<(StoreId, StoreId)> {
        let r = self.ranges.get(range)?;
        self.policies.get(r.policy).filter(|p| !p.constraints.is_empty())?;
        let taken: Vec<NodeId> = r.voters.iter().filter_map(|s| self.node_of(*s)).collect();
        r.voters.iter().find_map(|from| {
            let stay: Vec<StoreId> = r.voters.iter().copied().filter(|s| s != from).collect();
            if self.meets_constraints(range, *from, &stay) {
                return None;
            }
            let free = |s: &&StoreId| self.node_of(**s).is_some_and(|n| !taken.contains(&n));
            let fits = open.iter().filter(free).filter(|s| self.meets_constraints(range, **s, &stay));
            fits.min_by_key(|s| (self.count(**s), **s)).map(|to| (*from, *to))
        })
    }

    /// Where a lease would go to balance lease counts.
    fn lease_move(&self, range: usize, holder: StoreId) -> Option<StoreId> {
        let open: Vec<&super::state::Store> =
            self.stores.iter().filter(|s| self.is_open(s.id, 1.0)).collect();
        let mean = open.iter().map(|s| s.leases).sum::<u32>() as f64 / open.len().max(1) as f64;
        let slack = (mean * self.rebalance_threshold()).max(2.0);
        let to = self.lease_target(range, holder)?;
        let (high, low) = (self.store(holder)?.leases as f64, self.store(to)?.leases as f64);
        (high > mean + slack && low + 1.0 <= mean).then_some(to)
    }

    /// Every range that waits for a place is tried again; and again in a minute, if any is left.
    pub(crate) fn retry_purgatories(&mut self) {
        let stores: Vec<StoreId> = self.stores.iter().map(|s| s.id).collect();
        let mut any = false;
        for store in stores {
            let waiting: Vec<usize> =
                self.store(store).map(|s| s.purgatory.iter().copied().collect()).unwrap_or_default();
            any |= !waiting.is_empty();
            for range in waiting {
                self.enqueue(range, store, Action::Add.priority());
            }
        }
        if any {
            self.events.push(self.now + nanos(Duration::from_secs(60)), Event::Purgatory);
        }
    }
}

//! The admin service: decommission, recommission, status, drain, shutdown.

use std::time::Duration;

use kwdb_scale_core::ports::DecommissionStatus;
use kwdb_scale_core::topology::{Address, NodeId, StoreId};

use super::cluster::{Cluster, Event};
use super::time::nanos;
use super::types::{Phase, RpcError};

/// What a node's record and the clock make of it, as the admin service names it (`store_pool.go`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MembershipStatus {
    /// Its record has not expired.
    Live,
    /// Expired, or draining.
    Unavailable,
    /// Expired for longer than `server.time_until_store_dead`.
    Dead,
    /// The bit is set.
    Decommissioning,
    /// The bit is set, and expired for longer than `server.time_until_store_dead`.
    Decommissioned,
}

impl std::fmt::Display for MembershipStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Live => "LIVE",
            Self::Unavailable => "UNAVAILABLE",
            Self::Dead => "DEAD",
            Self::Decommissioning => "DECOMMISSIONING",
            Self::Decommissioned => "DECOMMISSIONED",
        })
    }
}

impl Cluster {
    /// What a node is taken for; `None` when there is no record of it.
    pub fn membership_status(&self, node: NodeId) -> Option<MembershipStatus> {
        let l = &self.member(node)?.liveness;
        let limit = l.expiration.saturating_add(nanos(self.time_until_store_dead()));
        Some(match (limit < self.now, l.decommissioning) {
            (true, true) => MembershipStatus::Decommissioned,
            (true, false) => MembershipStatus::Dead,
            (false, true) => MembershipStatus::Decommissioning,
            (false, false) if l.draining || l.expiration <= self.now => MembershipStatus::Unavailable,
            (false, false) => MembershipStatus::Live,
        })
    }

    /// Marks nodes through the node at this RPC address; an empty list is the node itself, as in reality.
    ///
    /// # Errors
    /// Ids before an unknown one stay marked.
    pub fn decommission(
        &mut self,
        via: &Address,
        nodes: &[NodeId],
    ) -> Result<Vec<DecommissionStatus>, RpcError> {
        self.set_bit(via, nodes, true)
    }

    /// Takes the mark off; works on nodes that are down too.
    ///
    /// # Errors
    /// As [`decommission`](Self::decommission).
    pub fn recommission(
        &mut self,
        via: &Address,
        nodes: &[NodeId],
    ) -> Result<Vec<DecommissionStatus>, RpcError> {
        self.set_bit(via, nodes, false)
    }

    /// The authoritative status; an empty list is every node.
    ///
    /// # Errors
    /// Unknown ids are errors.
    pub fn decommission_status(
        &self,
        via: &Address,
        nodes: &[NodeId],
    ) -> Result<Vec<DecommissionStatus>, RpcError> {
        self.serving(via)?;
        self.status_rows(nodes, false)
    }

    /// The beginning of a `Drain` call: new clients are refused from now on. The call goes on with
    /// [`drain`](Self::drain) a second later, or a second after [`drain_waits_until`](Self::drain_waits_until).
    ///
    /// # Errors
    /// The node is not there, waits for `init`, or has no quorum.
    pub fn refuse_clients(&mut self, address: &Address) -> Result<(), RpcError> {
        let process = self.serving(address)?;
        self.refuse(process);
        Ok(())
    }

    /// Until when a drain that began waits for a client with an open transaction, at most
    /// `server.shutdown.query_wait`; `None` when it does not.
    pub fn drain_waits_until(&self, address: &Address) -> Option<jiff::Timestamp> {
        let p = self.processes.get(self.running(address)?)?;
        let limit = p.refuses_since? + nanos(self.config.timings.query_wait);
        let until = p.transaction_until.min(limit);
        (until > self.now).then(|| self.timestamp(until))
    }

    /// The rest of a `Drain` call: ends what clients are left, sets the draining bit, hands over the leases.
    /// Returns how much there was to do, zero when the drain was complete before.
    ///
    /// # Errors
    /// As [`refuse_clients`](Self::refuse_clients).
    pub fn drain(&mut self, address: &Address) -> Result<u64, RpcError> {
        let process = self.serving(address)?;
        let node = self.processes.get(process).and_then(|p| p.node);
        let before = node.and_then(|n| self.member(n)).is_some_and(|m| m.liveness.draining);
        let moved = self.begin_drain(process);
        Ok(if before { 0 } else { 1 + moved })
    }

    /// The `Drain` call with the shutdown flag: the process ends within a fraction of a second.
    ///
    /// # Errors
    /// The node is not there or waits for `init`.
    pub fn shutdown(&mut self, address: &Address) -> Result<(), RpcError> {
        let process = self.serving(address)?;
        self.begin_drain(process);
        self.after(
            (Duration::from_millis(100), Duration::from_millis(400)),
            Event::Exit { process, code: 0 },
        );
        Ok(())
    }

    /// Sets or clears the upgrading bit of a node.
    pub fn set_upgrading(&mut self, node: NodeId, upgrading: bool) {
        if let Some(m) = self.member_mut(node) {
            m.liveness.upgrading = upgrading;
        }
    }

    /// The number of the process that serves as a node there and answers calls that need a quorum.
    pub(crate) fn serving(&self, address: &Address) -> Result<usize, RpcError> {
        let process = self.answering(address)?;
        if !self.works(process) {
            return Err(RpcError::WaitingForInit);
        }
        if !self.system_available() {
            return Err(RpcError::Hang);
        }
        Ok(process)
    }

    fn set_bit(
        &mut self,
        via: &Address,
        nodes: &[NodeId],
        mark: bool,
    ) -> Result<Vec<DecommissionStatus>, RpcError> {
        let process = self.serving(via)?;
        if self.is_mpp() {
            return Err(RpcError::SingleReplica);
        }
        if self.members.iter().any(|m| m.liveness.upgrading && m.liveness.expiration > self.now) {
            return Err(RpcError::Upgrading);
        }
        let own: Vec<NodeId> = self.processes.get(process).and_then(|p| p.node).into_iter().collect();
        let nodes = if nodes.is_empty() { &own } else { nodes };
        let now = self.now;
        let mut changed = false;
        let mut unknown = None;
        for id in nodes {
            let Some(m) = self.member_mut(*id) else {
                unknown = Some(RpcError::UnknownNode { id: *id, mark });
                break;
            };
            if m.liveness.decommissioning != mark {
                m.before = m.liveness.clone();
                m.liveness.decommissioning = mark;
                m.liveness.updated_at = now;
                changed = true;
            }
        }
        if changed {
            self.counted_nodes = self.members.iter().filter(|m| !m.liveness.decommissioning).count();
            self.gauge_all();
            self.events.push(now + 1_000_000, Event::Purgatory);
        }
        match unknown {
            Some(error) => Err(error),
            None => self.status_rows(nodes, mark),
        }
    }

    fn status_rows(&self, nodes: &[NodeId], mark: bool) -> Result<Vec<DecommissionStatus>, RpcError> {
        let every: Vec<NodeId> = self.members.iter().map(|m| m.id).collect();
        let mut wanted = if nodes.is_empty() { every } else { nodes.to_vec() };
        wanted.sort_unstable();
        wanted.dedup();
        wanted
            .into_iter()
            .map(|id| {
                let m = self.member(id).ok_or(RpcError::UnknownNode { id, mark })?;
                Ok(DecommissionStatus {
                    node: id,
                    is_live: m.liveness.expiration > self.now,
                    replicas: self.replicas_on(&m.stores),
                    decommissioning: m.liveness.decommissioning,
                    draining: m.liveness.draining,
                })
            })
            .collect()
    }

    fn refuse(&mut self, process: usize) {
        let now = self.now;
        if let Some(p) = self.processes.get_mut(process) {
            p.phase = Phase::Draining;
            p.refuses_since.get_or_insert(now);
        }
    }

    pub(crate) fn replicas_on(&self, stores: &[StoreId]) -> u64 {
        stores.iter().filter_map(|s| self.store(*s)).map(|s| s.replicas.len() as u64).sum()
    }

    /// Sets the draining bit and hands over every lease that another store can take; the number handed over.
    pub(crate) fn begin_drain(&mut self, process: usize) -> u64 {
        let now = self.now;
        self.refuse(process);
        let Some(p) = self.processes.get_mut(process) else { return 0 };
        let Some(node) = p.node else { return 0 };
        p.transaction_until = 0;
        let Some(m) = self.member_mut(node) else { return 0 };
        if !m.liveness.draining {
            m.before = m.liveness.clone();
            m.liveness.draining = true;
            m.liveness.updated_at = now;
        }
        let mut moved = 0;
        for store in self.stores_of(process) {
            let ranges: Vec<usize> =
                self.store(store).map(|s| s.replicas.iter().copied().collect()).unwrap_or_default();
            for range in ranges {
                let holds = self.ranges.get(range).is_some_and(|r| r.leaseholder == Some(store));
                if holds && let Some(to) = self.lease_target(range, store) {
                    self.set_lease(range, Some(to));
                    moved += 1;
                }
            }
            if moved > 0 {
                self.store_changed(store);
            }
        }
        moved
    }
}

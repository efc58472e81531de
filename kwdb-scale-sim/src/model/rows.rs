//! Rows: what each gateway answers, from its own view of gossip.

use kwdb_scale_core::rows::{
    Answer, ClusterRow, LeaseRow, LivenessRow, NodeRow, Query, RangeRow, ReplicaCountRow, Rows, SettingRow,
    StoreRow,
};
use kwdb_scale_core::topology::{Address, NodeId, RangeId, StoreId};

use super::cluster::Cluster;
use super::state::{Member, Process, Range};
use super::time::{Nanos, hash, nanos, spread};
use super::types::{Phase, QueryError};

impl Cluster {
    /// Answers a query through the node at this SQL address, with the rows that a FactSource delivers.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn rows(&self, gateway: &Address, query: &Query) -> Result<Answer, QueryError> {
        let own = self.gateway(gateway)?;
        let lease = |r: &Range| LeaseRow { range_id: RangeId(r.id), lease_store: r.leaseholder };
        let rows = match query {
            Query::Cluster => Rows::Cluster(ClusterRow {
                cluster_id: self.cluster_id.clone(),
                gateway_node: own,
                build: self.member(own).map(|m| m.build.clone()),
                is_admin: Some(true),
            }),
            Query::Liveness => Rows::Liveness(self.liveness_rows(own)),
            Query::Nodes => Rows::Nodes(self.members.iter().filter_map(|m| self.node_row(own, m)).collect()),
            Query::Stores => Rows::Stores(self.store_rows()),
            Query::Ranges => Rows::Ranges(self.ranges.iter().map(|r| self.range_row(r)).collect()),
            Query::ReplicaCounts(stores) => Rows::ReplicaCounts(
                stores
                    .iter()
                    .map(|s| ReplicaCountRow { store_id: *s, replicas: self.replicas_on(&[*s]) })
                    .collect(),
            ),
            Query::RangesOn { stores, limit } => {
                let names =
                    |r: &&Range| stores.iter().any(|s| r.voters.contains(s) || r.learners.contains(s));
                let rows = self.ranges.iter().filter(names).take(*limit as usize);
                Rows::Ranges(rows.map(|r| self.range_row(r)).collect())
            }
            Query::LeasesOn { stores, limit } => {
                let names =
                    |r: &&Range| stores.iter().any(|s| r.voters.contains(s) || r.learners.contains(s));
                Rows::Leases(self.ranges.iter().filter(names).take(*limit as usize).map(lease).collect())
            }
            Query::LeasesOf(ranges) => {
                let named = |r: &&Range| ranges.contains(&RangeId(r.id));
                Rows::Leases(self.ranges.iter().filter(named).map(lease).collect())
            }
            Query::Zones => Rows::Zones(self.zone_rows()),
            Query::Jobs => {
                let over = ["succeeded", "failed", "canceled"];
                let open = self.jobs.iter().filter(|j| !over.contains(&j.status.as_str()));
                Rows::Jobs(open.cloned().collect())
            }
            Query::Settings(names) => Rows::Settings(
                names
                    .iter()
                    .filter_map(|n| {
                        let value = self.setting(n)?.to_owned();
                        Some(SettingRow { name: n.clone(), value })
                    })
                    .collect(),
            ),
            // A query of a newer core: the twin cannot answer it.
            _ => return Err(QueryError::Hang),
        };
        Ok(Answer { gateway: gateway.clone(), server_time: self.now(), rows })
    }

    /// Whether the node at this SQL address answers SQL, and as which node.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub fn gateway(&self, address: &Address) -> Result<NodeId, QueryError> {
        let listens = |p: &&Process| p.is_running() && p.sql_address == *address;
        let p = self.processes.iter().rev().find(listens).ok_or(QueryError::Unreachable)?;
        match (&p.phase, p.node) {
            _ if p.frozen => Err(QueryError::Hang),
            (Phase::Draining, _) => Err(QueryError::NotAccepting),
            (Phase::Serving, Some(node)) if self.system_available() => Ok(node),
            _ => Err(QueryError::Hang),
        }
    }

    fn liveness_rows(&self, gateway: NodeId) -> Vec<LivenessRow> {
        let t = &self.config.timings;
        let row = |m: &Member| {
            let lag = hash(self.config.seed, u64::from(gateway.0), u64::from(m.id.0) | 1 << 40);
            let (low, high) = t.liveness_lag;
            let heard = m.liveness.updated_at + spread(lag, low, high);
            let seen = if self.now < heard { &m.before } else { &m.liveness };
            (seen.epoch > 0).then(|| LivenessRow {
                node_id: m.id,
                epoch: Some(seen.epoch),
                expiration: Some(self.timestamp(seen.expiration)),
                draining: Some(seen.draining),
                decommissioning: Some(seen.decommissioning),
                upgrading: Some(seen.upgrading),
                updated_at: Some(self.micros(seen.updated_at)),
            })
        };
        self.members.iter().filter_map(row).collect()
    }

    /// KWDB's TIMESTAMP columns hold microseconds.
    fn micros(&self, at: super::time::Nanos) -> jiff::Timestamp {
        self.timestamp(at - at % 1000)
    }

    fn node_row(&self, gateway: NodeId, m: &Member) -> Option<NodeRow> {
        let t = &self.config.timings;
        let lag = hash(self.config.seed, u64::from(gateway.0), u64::from(m.id.0) | m.process << 40);
        let lag = if gateway == m.id { 0 } else { spread(lag, t.descriptor_lag.0, t.descriptor_lag.1) };
        let process = self.processes.get(m.process as usize)?;
        let silent = process.silent_since;
        if self.now < process.joined_at + lag {
            return None;
        }
        if silent.is_some_and(|s| self.now > s + nanos(t.descriptor_ttl) || !self.gossip_lived_on(s)) {
            return None;
        }
        let period = nanos(t.client_gossip_ttl) / 4;
        let is_live = match silent {
            _ if gateway == m.id => true,
            None => true,
            Some(silent) => {
                let refreshed = silent - silent.saturating_sub(process.joined_at) % period.max(1);
                self.now < refreshed + nanos(t.client_gossip_ttl)
            }
        };
        let gossiped: Vec<_> = m
            .stores
            .iter()
            .filter_map(|s| self.store(*s)?.gossiped)
            .filter(|g| self.now < g.at + nanos(t.store_gossip_ttl))
            .collect();
        Some(NodeRow {
            node_id: m.id,
            address: Some(m.address.clone()),
            sql_address: Some(m.sql_address.clone()),
            locality: Some(m.locality.clone()),
            start_mode: Some(m.mode.clone()),
            build: Some(m.build.clone()),
            started_at: Some(self.micros(m.started_at)),
            is_live: Some(is_live),
            ranges: Some(gossiped.iter().map(|g| g.ranges).sum()),
            leases: Some(gossiped.iter().map(|g| g.leases).sum()),
        })
    }

    /// Whether since then there always was a node that gossiped, to hand on what it had heard: gossip is kept in memory
    /// alone (observed: after all others restarted, a removed node's descriptor was gone).
    fn gossip_lived_on(&self, since: Nanos) -> bool {
        let mut until = since;
        loop {
            let goes_on = |p: &&Process| {
                p.node.is_some() && p.joined_at <= until && p.silent_since.is_none_or(|s| s > until)
            };
            match self
                .processes
                .iter()
                .filter(goes_on)
                .map(|p| p.silent_since)
                .max_by_key(|s| s.unwrap_or(Nanos::MAX))
            {
                None => return false,
                Some(None) => return true,
                Some(Some(silent)) => until = silent,
            }
        }
    }

    fn store_rows(&self) -> Vec<StoreRow> {
        let mut rows: Vec<StoreRow> = self.members.iter().flat_map(|m| m.status.iter().cloned()).collect();
        for row in &mut rows {
            row.updated_at = row.updated_at.map(truncate);
            row.started_at = row.started_at.map(truncate);
        }
        rows
    }

    pub(crate) fn range_row(&self, r: &Range) -> RangeRow {
        let table = r.table.and_then(|t| self.tables.get(t));
        let sorted = |stores: &[StoreId]| {
            let mut stores = stores.to_vec();
            stores.sort_unstable();
            stores
        };
        RangeRow {
            range_id: RangeId(r.id),
            kind: r.kind,
            start_key: r.start_key.clone(),
            table_id: table.map(|t| t.id).or_else(|| table_of_key(&r.start_key)),
            database: table.map(|t| t.database.clone()),
            table: table.map(|t| t.name.clone()),
            index: None,
            replicas: sorted(&r.voters),
            learners: sorted(&r.learners),
        }
    }
}

fn table_of_key(key: &str) -> Option<u64> {
    key.strip_prefix("/Table/")?.split('/').next()?.parse().ok()
}

fn truncate(t: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(t.as_microsecond()).unwrap_or(t)
}

//! Ranges and tables: what exists after `init`, and what is made later.

use kwdb_scale_core::rows::{JobRow, RangeKind};
use kwdb_scale_core::topology::{NodeId, StartMode, StoreId};

use super::cluster::{Cluster, Event};
use super::state::{Range, Table};
use super::types::{SqlRefusal, TableSpec};

/// Stands for ranges in the zone of the database `system` that belong to no table with a name.
pub(crate) const SYSTEM_DATABASE: &str = "database system";

/// Tables of the database `system` that have ranges of their own right after `init`.
const SYSTEM_TABLES: [(u64, &str); 34] = [
    (11, "lease"),
    (12, "eventlog"),
    (13, "rangelog"),
    (14, "ui"),
    (15, "jobs"),
    (16, ""),
    (17, ""),
    (18, ""),
    (19, "web_sessions"),
    (20, "table_statistics"),
    (21, "locations"),
    (22, ""),
    (23, "role_members"),
    (24, "comments"),
    (25, "replication_constraint_stats"),
    (26, "replication_critical_localities"),
    (27, "replication_stats"),
    (28, "reports_meta"),
    (29, ""),
    (30, "namespace"),
    (31, "protected_ts_meta"),
    (32, "protected_ts_records"),
    (33, "role_options"),
    (34, "statement_bundle_chunks"),
    (35, "statement_diagnostics_requests"),
    (36, "statement_diagnostics"),
    (37, "scheduled_jobs"),
    (38, ""),
    (39, ""),
    (40, ""),
    (41, ""),
    (42, ""),
    (43, ""),
    (44, ""),
];

impl Cluster {
    /// `CREATE TABLE`, already split. All ranges start where their neighbour is, as a real split leaves them; in a
    /// single-replica cluster a time-series table is spread over the live nodes instead.
    ///
    /// # Errors
    /// Not initialised, no quorum, or the table exists.
    pub fn create_table(&mut self, spec: TableSpec) -> Result<u64, SqlRefusal> {
        if !self.system_available() {
            return Err(SqlRefusal { code: "57014", message: "no quorum".to_owned() });
        }
        if self.find_table(&spec.database, &spec.table).is_some() {
            let message = format!("relation \"{}\" already exists", spec.table);
            return Err(SqlRefusal { code: "42P07", message });
        }
        self.create_database(&spec.database);
        let id = self.next_table;
        self.next_table += 1;
        self.tables.push(Table {
            id,
            database: spec.database.clone(),
            name: spec.table.clone(),
            partitions: spec.partitions.clone(),
            hash_points: spec.hash_points,
        });
        let table = self.tables.len() - 1;
        let parts: Vec<Option<&String>> =
            if spec.partitions.is_empty() { vec![None] } else { spec.partitions.iter().map(Some).collect() };
        for (p, part) in parts.iter().enumerate() {
            for i in 0..spec.ranges.max(1) {
                let mut key = format!("/Table/{id}");
                if let Some(part) = part {
                    key = format!("{key}/1/\"{part}\"");
                }
                if i > 0 {
                    let index = if part.is_some() { "" } else { "/1" };
                    key = format!("{key}{index}/{}", i * 1000);
                }
                let spread = self.is_mpp() && spec.kind == RangeKind::TimeSeries;
                let at = if spread { self.round_robin(p + i as usize) } else { None };
                let zone = "default";
                self.add_range(key, Some(table), part.cloned(), zone, spec.kind, spec.bytes_per_range, at);
            }
        }
        self.refresh_policies();
        Ok(id)
    }

    /// `CREATE DATABASE`; nothing happens when it exists. A single-replica cluster gives it one replica.
    pub fn create_database(&mut self, name: &str) {
        if self.databases.iter().any(|d| d == name) {
            return;
        }
        self.databases.push(name.to_owned());
        if self.is_mpp() {
            self.single_replica_zone(name);
        }
    }

    fn single_replica_zone(&mut self, database: &str) {
        let target = super::types::ZoneTarget::Database(database.to_owned());
        self.zones.entry(target).or_default().num_replicas = Some(1);
    }

    /// `ALTER TABLE … SPLIT AT` so that the table has `more` ranges more; `false` when there is no such table.
    pub fn split(&mut self, database: &str, table: &str, more: u32) -> bool {
        let Some(table) = self.find_table(database, table) else { return false };
        let Some(id) = self.tables.get(table).map(|t| t.id) else { return false };
        let last = self.ranges.iter().rposition(|r| r.table == Some(table));
        let Some(parent) = last.and_then(|l| self.ranges.get(l)).cloned() else { return false };
        let had = self.ranges.iter().filter(|r| r.table == Some(table)).count() as u32;
        for i in 0..more {
            let key = format!("/Table/{id}/1/{}", (had + i) * 1000);
            let at = Some((parent.voters.clone(), parent.leaseholder));
            self.add_range(
                key,
                Some(table),
                parent.partition.clone(),
                parent.zone,
                parent.kind,
                parent.bytes,
                at,
            );
        }
        self.refresh_policies();
        true
    }

    /// Adds a job, as it shows in `kwdb_internal.jobs`; returns its id.
    pub fn add_job(&mut self, job_type: &str, status: &str, description: &str) -> u64 {
        let job_id = 600_000_000_000_000_000 + self.now / 1_000_000 + self.jobs.len() as u64;
        self.jobs.push(JobRow {
            job_id,
            job_type: job_type.to_owned(),
            status: status.to_owned(),
            description: Some(description.to_owned()),
        });
        job_id
    }

    /// Gives a job another status; jobs that are succeeded, failed or cancelled no longer show.
    pub fn set_job_status(&mut self, job_id: u64, status: &str) {
        for job in self.jobs.iter_mut().filter(|j| j.job_id == job_id) {
            job.status = status.to_owned();
        }
    }

    /// How many ranges there are.
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    pub(crate) fn find_table(&self, database: &str, table: &str) -> Option<usize> {
        self.tables.iter().position(|t| t.database == database && t.name == table)
    }

    pub(crate) fn create_system_ranges(&mut self, store: StoreId) {
        let at = || Some((vec![store], Some(store)));
        let kind = RangeKind::Relational;
        let spans = [
            ("/Min", "meta", 66_360),
            ("/System/NodeLiveness", "liveness", 20_355),
            ("/System/NodeLivenessMax", "system", 126_608),
            ("/System/tsd", "timeseries", 800_000),
            ("/System/\"tse\"", "system", 1_000),
            ("/Table/SystemConfigSpan/Start", SYSTEM_DATABASE, 9_000),
        ];
        for (key, zone, bytes) in spans {
            self.add_range(key.to_owned(), None, None, zone, kind, bytes, at());
        }
        for (id, name) in SYSTEM_TABLES {
            let table = (!name.is_empty()).then(|| {
                self.tables.push(Table {
                    id,
                    database: "system".to_owned(),
                    name: name.to_owned(),
                    partitions: Vec::new(),
                    hash_points: false,
                });
                self.tables.len() - 1
            });
            self.add_range(format!("/Table/{id}"), table, None, SYSTEM_DATABASE, kind, 2_000, at());
        }
        if self.mode == Some(StartMode::SingleNode) {
            // A cluster of one sets every factor to one when it is first started.
            for zone in self.zones.values_mut() {
                zone.num_replicas = zone.num_replicas.map(|_| 1);
            }
        } else if self.is_mpp() {
            for database in ["defaultdb", "postgres"] {
                self.single_replica_zone(database);
            }
        }
        self.refresh_policies();
    }

    /// A fresh cluster has 40 ranges and, a moment later, 57.
    pub(crate) fn system_split(&mut self) {
        for id in 45..=61 {
            let kind = RangeKind::Relational;
            self.add_range(format!("/Table/{id}"), None, None, "default", kind, 500, None);
        }
        self.refresh_policies();
    }

    /// Adds a range at `at`, or where the last range is.
    #[expect(clippy::too_many_arguments, reason = "one private constructor of a range")]
    fn add_range(
        &mut self,
        start_key: String,
        table: Option<usize>,
        partition: Option<String>,
        zone: &'static str,
        kind: RangeKind,
        bytes: u64,
        at: Option<(Vec<StoreId>, Option<StoreId>)>,
    ) {
        let (voters, leaseholder) = at.unwrap_or_else(|| {
            self.ranges.last().map(|r| (r.voters.clone(), r.leaseholder)).unwrap_or_default()
        });
        let index = self.ranges.len();
        for store in &voters {
            if let Some(s) = self.store_mut(*store) {
                s.replicas.insert(index);
                s.bytes += bytes;
            }
            self.store_changed(*store);
        }
        self.ranges.push(Range {
            id: index as u64 + 1,
            kind,
            start_key,
            table,
            partition,
            zone,
            voters,
            learners: Vec::new(),
            leaseholder: None,
            lease_lapsed: false,
            bytes,
            change: None,
            policy: 0,
            gauge: None,
        });
        self.set_lease(index, leaseholder);
        // A split puts the new range into the queue at once.
        if let Some(store) = leaseholder {
            self.enqueue(index, store, 1);
        }
    }

    fn round_robin(&self, n: usize) -> Option<(Vec<StoreId>, Option<StoreId>)> {
        let live: Vec<NodeId> = self.members.iter().map(|m| m.id).filter(|n| self.node_live(*n)).collect();
        let node = live.get(n % live.len().max(1))?;
        let store = self.member(*node)?.stores.first().copied()?;
        Some((vec![store], Some(store)))
    }

    pub(crate) fn enqueue(&mut self, range: usize, store: StoreId, priority: u32) {
        if !self.store_up(store) || self.is_mpp() {
            return;
        }
        let Some(process) = self.process_number(store) else { return };
        let Some(s) = self.store_mut(store) else { return };
        s.queue.insert(range, priority);
        if s.busy.is_none() {
            self.events.push(self.now + 1_000_000, Event::Work { process, store });
        }
    }

    pub(crate) fn process_number(&self, store: StoreId) -> Option<usize> {
        self.node_of(store).and_then(|n| self.member(n)).map(|m| m.process as usize)
    }
}

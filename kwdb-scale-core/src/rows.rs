//! The closed set of questions that a [`FactSource`](crate::ports::FactSource) answers, and the typed rows of the
//! answers.
//!
//! Rows are the seam between KWDB and this library: SQL, the simulated cluster and recorded output all deliver
//! them, and core alone makes an [`Observation`](crate::observation::Observation) of them. A column that is SQL
//! NULL, or that a release does not have, is `None`: unknown, never zero.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::topology::{Address, ClusterId, Locality, NodeId, RangeId, StartMode, StoreId};

/// One question out of the closed set.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Query {
    /// Cluster id, the gateway's own node id and build, and whether the user has the admin role
    /// (`kwdb_internal.node_build_info`, readable by anyone; `kwdb_internal.is_admin()`).
    Cluster,
    /// `kwdb_internal.gossip_liveness`: one row for every node that ever joined.
    Liveness,
    /// `kwdb_internal.gossip_nodes`: addresses, localities, builds and start modes of nodes known by gossip.
    Nodes,
    /// `kwdb_internal.kv_store_status` with the health metrics, and from `kv_node_status` when the node wrote them and
    /// at which address.
    Stores,
    /// Every range of `kwdb_internal.ranges_no_leases` (a scan of the meta ranges).
    Ranges,
    /// For each of these stores how many ranges name it, learners counted (a scan of the meta ranges, counted at
    /// the server). A store that no range names is answered with zero, so that its absence can be told apart.
    ReplicaCounts(Vec<StoreId>),
    /// Up to `limit` ranges that name one of `stores`, lowest range id first: what is left of a drain.
    RangesOn {
        /// The stores asked about.
        stores: Vec<StoreId>,
        /// At most so many rows.
        limit: u32,
    },
    /// The lease holders of up to `limit` ranges that name one of `stores`, lowest range id first
    /// (`kwdb_internal.lease_holder(start_key)`: one request for each of these ranges, unlike the view `ranges`, which
    /// asks for all).
    LeasesOn {
        /// The stores asked about.
        stores: Vec<StoreId>,
        /// At most so many rows.
        limit: u32,
    },
    /// The lease holders of these ranges, in the same way. A range that is not there any more has no row.
    LeasesOf(Vec<RangeId>),
    /// `kwdb_internal.zones`: every zone configuration with its target.
    Zones,
    /// Jobs that are neither succeeded, failed nor cancelled.
    Jobs,
    /// The named cluster settings. A name that the server does not know yields no row.
    Settings(Vec<String>),
}

/// The rows that answer a [`Query`]; the variant matches the query's.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rows {
    /// Answer to [`Query::Cluster`].
    Cluster(ClusterRow),
    /// Answer to [`Query::Liveness`].
    Liveness(Vec<LivenessRow>),
    /// Answer to [`Query::Nodes`].
    Nodes(Vec<NodeRow>),
    /// Answer to [`Query::Stores`].
    Stores(Vec<StoreRow>),
    /// Answer to [`Query::Ranges`] and [`Query::RangesOn`].
    Ranges(Vec<RangeRow>),
    /// Answer to [`Query::ReplicaCounts`].
    ReplicaCounts(Vec<ReplicaCountRow>),
    /// Answer to [`Query::LeasesOn`] and [`Query::LeasesOf`].
    Leases(Vec<LeaseRow>),
    /// Answer to [`Query::Zones`].
    Zones(Vec<ZoneRow>),
    /// Answer to [`Query::Jobs`].
    Jobs(Vec<JobRow>),
    /// Answer to [`Query::Settings`].
    Settings(Vec<SettingRow>),
}

/// An answer, with the gateway that gave it and the server's `now()` of the same statement.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Answer {
    /// The node through which the question was put.
    pub gateway: Address,
    /// The gateway's clock when it answered.
    pub server_time: Timestamp,
    /// The rows.
    pub rows: Rows,
}

/// See [`Query::Cluster`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClusterRow {
    /// The cluster's UUID.
    pub cluster_id: ClusterId,
    /// The gateway's own node id.
    pub gateway_node: NodeId,
    /// The gateway's build tag, such as `V3.2.1`.
    pub build: Option<String>,
    /// Whether the connected user has the admin role; without it the topology tables cannot be read.
    pub is_admin: Option<bool>,
}

/// See [`Query::Liveness`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LivenessRow {
    /// The node.
    pub node_id: NodeId,
    /// Epoch of the record; grows when the node lost its record and took it up again.
    pub epoch: Option<i64>,
    /// When the record expires, unless renewed. Compare with the server time of the same answer.
    pub expiration: Option<Timestamp>,
    /// The node is shutting down and refuses new clients.
    pub draining: Option<bool>,
    /// The decommissioning bit.
    pub decommissioning: Option<bool>,
    /// The node is being upgraded.
    pub upgrading: Option<bool>,
    /// When the gossiped record last changed.
    pub updated_at: Option<Timestamp>,
}

/// See [`Query::Nodes`]. A node whose descriptor the gateway has not gossiped has no row.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NodeRow {
    /// The node.
    pub node_id: NodeId,
    /// The advertised RPC address.
    pub address: Option<Address>,
    /// The advertised SQL address (equal to `address` unless `--sql-addr` was given).
    pub sql_address: Option<Address>,
    /// The node's locality.
    pub locality: Option<Locality>,
    /// The sub-command with which the node runs.
    pub start_mode: Option<StartMode>,
    /// The build tag, such as `V3.2.1`.
    pub build: Option<String>,
    /// When the process started: the node's incarnation.
    pub started_at: Option<Timestamp>,
    /// Whether the gateway hears the node by gossip (may flap for a moment).
    pub is_live: Option<bool>,
    /// Gossiped replica count; lags up to a minute and falls to zero when the node dies. Shown, never believed.
    pub ranges: Option<u64>,
    /// Gossiped lease count.
    pub leases: Option<u64>,
}

/// See [`Query::Stores`]. Rows of dead and removed nodes are never deleted by KWDB.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct StoreRow {
    /// The node that owns the store.
    pub node_id: NodeId,
    /// The store.
    pub store_id: StoreId,
    /// Size of the file system in bytes.
    pub capacity: Option<u64>,
    /// Free bytes.
    pub available: Option<u64>,
    /// Bytes used by KWDB; zero during the first minute after a start.
    pub used: Option<u64>,
    /// Replicas by the node's own count; leftovers of moved replicas may still be counted.
    pub range_count: Option<u64>,
    /// Leases held.
    pub lease_count: Option<u64>,
    /// Gauge `ranges.unavailable`.
    pub ranges_unavailable: Option<u64>,
    /// Gauge `ranges.underreplicated`.
    pub ranges_underreplicated: Option<u64>,
    /// Gauge `queue.replicate.purgatory`: replicas for which the allocator found no place.
    pub replicate_purgatory: Option<u64>,
    /// Gauge `queue.replicate.pending`: replicas that wait for the store's replicate queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicate_pending: Option<u64>,
    /// When the node wrote this status (`kv_node_status.updated_at`; every 10 s while it lives).
    pub updated_at: Option<Timestamp>,
    /// When the node's process started (`kv_node_status.started_at`).
    pub started_at: Option<Timestamp>,
    /// The RPC address that the node advertised when it wrote this status (`kv_node_status.address`). It is kept when
    /// the gossip has forgotten the node: two hours after its end, or at once when all others restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_address: Option<Address>,
}

/// Which engine keeps a range's data.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RangeKind {
    /// `DEFAULT_RANGE`.
    Relational,
    /// `TS_RANGE`.
    TimeSeries,
    /// A word that this library does not know, or a release without the column.
    Unknown,
}

/// See [`Query::Ranges`]. One range descriptor.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RangeRow {
    /// The range.
    pub range_id: RangeId,
    /// Relational or time-series.
    pub kind: RangeKind,
    /// Pretty-printed start key, such as `/Min`, `/System/NodeLiveness` or `/Table/53/1/1000`.
    pub start_key: String,
    /// Id of the table, absent for system key space.
    pub table_id: Option<u64>,
    /// Database of the table.
    pub database: Option<String>,
    /// Table name.
    pub table: Option<String>,
    /// Index name, absent for the primary index.
    pub index: Option<String>,
    /// Stores that hold a voting replica.
    pub replicas: Vec<StoreId>,
    /// Stores that hold a learner: a copy being made.
    pub learners: Vec<StoreId>,
}

/// See [`Query::ReplicaCounts`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReplicaCountRow {
    /// The store.
    pub store_id: StoreId,
    /// Ranges that name it as a voter or a learner.
    pub replicas: u64,
}

/// See [`Query::Zones`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ZoneRow {
    /// Id of the object the zone belongs to; equals the table id for a table.
    pub zone_id: u64,
    /// Zero for the object itself; else the number of the index or partition.
    pub subzone_id: u64,
    /// Target as SQL writes it, such as `RANGE default` or `PARTITION a OF TABLE app.public.pt`.
    pub target: Option<String>,
    /// `default`, `meta`, `system`, `liveness` …
    pub range_name: Option<String>,
    /// Database name.
    pub database: Option<String>,
    /// Table name.
    pub table: Option<String>,
    /// Index name.
    pub index: Option<String>,
    /// Partition name.
    pub partition: Option<String>,
    /// The statement that makes the object's own configuration.
    pub raw_config_sql: Option<String>,
    /// The same with everything inherited filled in.
    pub full_config_sql: Option<String>,
}

/// See [`Query::LeasesOn`] and [`Query::LeasesOf`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LeaseRow {
    /// The range.
    pub range_id: RangeId,
    /// The store that holds its lease.
    pub lease_store: Option<StoreId>,
}

/// See [`Query::Jobs`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct JobRow {
    /// The job.
    pub job_id: u64,
    /// `SCHEMA CHANGE`, `IMPORT`, `BACKUP`, `EXPORT`, `CREATE STATS` …
    pub job_type: String,
    /// `running`, `pending`, `paused` …
    pub status: String,
    /// The statement or a description of it.
    pub description: Option<String>,
}

/// Job types that must not run while nodes leave. `SYNC META CACHE` is how DDL on time-series tables shows. Types
/// such as `TS TXN` run for ever on every cluster, `SCHEMA CHANGE GC` for a day, statistics all the time.
const HINDERING: [&str; 6] = ["SCHEMA CHANGE", "SYNC META CACHE", "IMPORT", "EXPORT", "BACKUP", "RESTORE"];

impl JobRow {
    /// Whether membership is better left alone while it runs: a schema change, import, export, backup or restore.
    pub fn hinders(&self) -> bool {
        HINDERING.contains(&self.job_type.as_str())
    }
}

/// See [`Query::Settings`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SettingRow {
    /// Name, such as `server.time_until_store_dead`.
    pub name: String,
    /// Value as the server prints it.
    pub value: String,
}

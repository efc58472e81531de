//! What a model is made with: seed, security, sizes and timings.

use std::time::Duration;

use jiff::Timestamp;
use kwdb_scale_core::topology::ClusterId;
use kwdb_scale_core::version::{Capabilities, Version};

/// How a node or a client is secured. The text stands for a certificate authority: two parties trust each other
/// exactly when it is the same.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Security {
    /// `--insecure`.
    Insecure,
    /// Certificates of this authority.
    Ca(String),
}

impl Security {
    /// Whether certificates are used.
    pub fn is_secure(&self) -> bool {
        matches!(self, Self::Ca(_))
    }
}

/// What a [`Cluster`](super::Cluster) is made with. The default is an insecure V3.2.1.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything that is left to chance follows from it.
    pub seed: u64,
    /// The cluster's UUID; made of the seed when `None`.
    pub cluster_id: Option<ClusterId>,
    /// Build tag of nodes that do not name their own.
    pub version: String,
    /// Security of the cluster. A node with another one never joins.
    pub security: Security,
    /// The time at which the virtual clock starts.
    pub base_time: Timestamp,
    /// Number of the first store. Ten more than the first node's by default, because code that takes a store id
    /// for a node id is wrong on clusters with several stores per node.
    pub first_store_id: u32,
    /// Size of every store's file system in bytes.
    pub store_capacity: u64,
    /// Bytes of it that others use.
    pub store_foreign: u64,
    /// Periods and delays.
    pub timings: Timings,
}

impl Config {
    /// The default with the build tag, periods and rates of another release.
    pub fn release(tag: &str) -> Self {
        let can = Capabilities::of(Version::parse(tag).ok());
        let expiry = Duration::from_secs(u64::from(can.liveness_expiry_secs));
        let timings = Timings {
            liveness_expiry: expiry,
            heartbeat: expiry / 2,
            snapshot_bytes_per_second: u64::from(can.snapshot_mib_per_s) << 20,
            ..Timings::default()
        };
        Self { version: tag.to_owned(), timings, ..Self::default() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 1,
            cluster_id: None,
            version: "V3.2.1".to_owned(),
            security: Security::Insecure,
            base_time: Timestamp::UNIX_EPOCH + Duration::from_secs(1_795_438_440),
            first_store_id: 11,
            store_capacity: 270_553_174_016,
            store_foreign: 40_000_000_000,
            timings: Timings::default(),
        }
    }
}

/// Periods and delays, as read in or measured on V3.2.1. The `range` fields are drawn evenly between both ends.
#[derive(Clone, Debug)]
pub struct Timings {
    /// A liveness record is valid for so long after a heartbeat (15 s; 9 s before V3.2.1).
    pub liveness_expiry: Duration,
    /// Time between heartbeats: half of the expiry.
    pub heartbeat: Duration,
    /// `is_live` of a silent node ends so long after its last refresh, which comes every quarter of it.
    pub client_gossip_ttl: Duration,
    /// From the start of a process until it tries to join.
    pub boot: (Duration, Duration),
    /// How often a node that could not join tries again.
    pub join_retry: Duration,
    /// Until a gateway hears of a new node.
    pub descriptor_lag: (Duration, Duration),
    /// Until a gateway hears of a changed liveness record.
    pub liveness_lag: (Duration, Duration),
    /// Until a store gossips a changed replica count.
    pub store_gossip_lag: (Duration, Duration),
    /// A store gossips at least this often.
    pub store_gossip: Duration,
    /// Gossiped counts of a silent store fall to zero after this.
    pub store_gossip_ttl: Duration,
    /// Addresses of a silent node are forgotten after this.
    pub descriptor_ttl: Duration,
    /// A node writes its status this often.
    pub status: Duration,
    /// A store's scanner waits so long before each replica, or less when `scan_cycle` demands it
    /// (`KWBASE_SCAN_MAX_IDLE_TIME`).
    pub scan_idle: Duration,
    /// A store's scanner sees every replica once in this time (`KWBASE_SCAN_INTERVAL`), or sooner.
    pub scan_cycle: Duration,
    /// Work on a small range, without the transfer of its data. Fitted: on two cores a V3.2.1 moved 325 replicas in
    /// 19.1 s with three under way at a time, which is 176 ms each.
    pub change: (Duration, Duration),
    /// Bytes a snapshot moves in a second (16 MiB; 8 MiB before V3.2.0).
    pub snapshot_bytes_per_second: u64,
    /// How long a moved replica still counts in its old store's own figures.
    pub replica_gc: (Duration, Duration),
    /// From the end of a dead node's lease until another takes it over.
    pub lease_takeover: (Duration, Duration),
    /// How long a drain waits for an open transaction (`server.shutdown.query_wait`).
    pub query_wait: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        let ms = Duration::from_millis;
        let s = Duration::from_secs;
        Self {
            liveness_expiry: s(15),
            heartbeat: ms(7_500),
            client_gossip_ttl: s(4),
            boot: (ms(300), ms(900)),
            join_retry: s(1),
            descriptor_lag: (ms(200), ms(900)),
            liveness_lag: (ms(1), ms(25)),
            store_gossip_lag: (ms(200), ms(1_500)),
            store_gossip: s(60),
            store_gossip_ttl: s(120),
            descriptor_ttl: s(7_200),
            status: s(10),
            scan_idle: s(1),
            scan_cycle: s(600),
            change: (ms(70), ms(280)),
            snapshot_bytes_per_second: 16 << 20,
            replica_gc: (s(2), s(40)),
            lease_takeover: (ms(200), s(12)),
            query_wait: s(10),
        }
    }
}

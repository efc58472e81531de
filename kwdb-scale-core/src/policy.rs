//! Thresholds and waits, with defaults that are safe for production.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// Fewest members that may remain (KWDB page: "a minimum of 3 nodes"; the server does not enforce it).
pub const MIN_MEMBERS: usize = 3;

/// [`Policy::min_disk_percent`] unless given.
const MIN_DISK_PERCENT: u32 = 50;

/// Name of the setting that stops the balancing of time-series ranges.
pub const TS_REBALANCE: &str = "kv.allocator.ts_consider_rebalance.enabled";
/// Name of the setting that lets time-series ranges on dead stores be repaired (from V3.0.0).
pub const TS_DEAD_REBALANCE: &str = "kv.allocator.ts_store_dead_rebalance.enabled";
/// Name of the setting after which a silent node counts as dead.
pub const TIME_UNTIL_DEAD: &str = "server.time_until_store_dead";
/// Name of the setting that says what "even" means to the allocator.
pub const REBALANCE_THRESHOLD: &str = "kv.allocator.range_rebalance_threshold";
/// Rate limit of snapshots that replace replicas.
pub const RECOVERY_RATE: &str = "kv.snapshot_recovery.max_rate";
/// Rate limit of snapshots that balance replicas.
pub const REBALANCE_RATE: &str = "kv.snapshot_rebalance.max_rate";

/// The settings that an observation reads.
pub const SETTINGS: [&str; 6] =
    [TS_REBALANCE, TS_DEAD_REBALANCE, TIME_UNTIL_DEAD, REBALANCE_THRESHOLD, RECOVERY_RATE, REBALANCE_RATE];

/// Default of [`Policy::stays_down`]: systemd starts a unit with `Restart=` again after 0.1 s unless told otherwise.
const STAYS_DOWN: SignedDuration = SignedDuration::from_secs(5);

/// The default is not written, so that plans made before this wait was known keep their form and id.
fn is_stays_down(wait: &SignedDuration) -> bool {
    *wait == STAYS_DOWN
}

/// Thresholds and waits. Durations are written as ISO 8601 (`PT30S`) or as `30s`, `10m`.
///
/// Waits between polls and deadlines are on the caller's clock; ages and the spacing of samples are on the
/// server's.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Policy {
    /// How long a start command may take to come back (it is never ended; the node goes on starting).
    pub start_deadline: SignedDuration,
    /// How long a started node may take to be a live member with every range at its needed replicas.
    pub join_deadline: SignedDuration,
    /// How long marking, recommissioning and setting a value may take.
    pub act_deadline: SignedDuration,
    /// How long a drain or a quit may take (the server's own wait for clients is 10 s, its drain loop 10 min).
    pub stop_deadline: SignedDuration,
    /// How long moving everything off the leaving nodes may take in all.
    pub empty_deadline: SignedDuration,
    /// Nothing moved for so long: stalled. The server's scanner looks at an idle range every 10 minutes at worst.
    pub stall_after: SignedDuration,
    /// How long a stopped node may take to vanish from the survivors' view (liveness expires after 9–15 s).
    pub removed_deadline: SignedDuration,
    /// How long a stopped node must stay down before it counts as removed: a service manager may start it again.
    #[serde(skip_serializing_if = "is_stays_down")]
    pub stays_down: SignedDuration,
    /// How long spreading ranges and leases may take in all.
    pub balance_deadline: SignedDuration,
    /// Nothing moved for so long while uneven: settled.
    pub settled_after: SignedDuration,
    /// Pause between two polls of cheap facts. Scans of the meta ranges are spaced further so that they take at
    /// most a tenth of the time.
    pub poll: SignedDuration,
    /// Samples that must agree that a node is empty, or that the cluster is balanced or healthy.
    pub samples: u32,
    /// Least distance of two such samples, by the server's clock.
    pub sample_spacing: SignedDuration,
    /// Status rows older than this by the server's clock are stale (nodes write one every 10 s).
    pub max_status_age: SignedDuration,
    /// Two clocks that differ by more are a warning (KWDB nodes end themselves at 80 % of 500 ms).
    pub max_clock_skew: SignedDuration,
    /// Ranges listed in a finding or a stall report.
    pub list_ranges: u32,
    /// A new host's store on a disk of less than so many percent of the members' median store is a warning.
    #[serde(skip_serializing_if = "is_default_disk_percent")]
    pub min_disk_percent: u32,
}

impl Default for Policy {
    fn default() -> Self {
        let secs = SignedDuration::from_secs;
        Self {
            start_deadline: secs(60),
            join_deadline: secs(15 * 60),
            act_deadline: secs(30),
            stop_deadline: secs(12 * 60),
            empty_deadline: secs(24 * 3600),
            stall_after: secs(20 * 60),
            removed_deadline: secs(5 * 60),
            stays_down: STAYS_DOWN,
            balance_deadline: secs(24 * 3600),
            settled_after: secs(5 * 60),
            poll: secs(2),
            samples: 3,
            sample_spacing: secs(5),
            max_status_age: secs(30),
            max_clock_skew: SignedDuration::from_millis(400),
            list_ranges: 10,
            min_disk_percent: MIN_DISK_PERCENT,
        }
    }
}

/// Left out of the JSON form, which is older than the field.
fn is_default_disk_percent(percent: &u32) -> bool {
    *percent == MIN_DISK_PERCENT
}

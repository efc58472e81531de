//! Health of ranges, from descriptors × liveness × zones, and the KWDB page's own query beside it.
//!
//! The gauges of the page's query are blind when it matters: no store counts a range without a live replica, and
//! the wanted count falls as soon as nodes are marked. So ranges are judged here from their descriptors.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::fact::Fact;
use crate::observation::{Node, Observation};
use crate::topology::{NodeClass, NodeId, RangeId, StartMode, StoreId};
use crate::zone::ZoneSet;

/// Replicas that the allocator wants of a range whose zone says `zone_factor`, with `members` nodes whose
/// decommissioning bit is not set (dead ones counted).
///
/// Source: `GetNeededReplicas`, allocator.go of V3.2.1. A smaller cluster lowers the factor to an odd number, but
/// not below 3 and not above the zone's.
pub fn needed(zone_factor: u32, members: usize) -> u32 {
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    if members >= zone_factor {
        return zone_factor;
    }
    let odd = if members % 2 == 0 { members.saturating_sub(1) } else { members };
    odd.max(3).min(zone_factor)
}

/// Nodes that may fail at once without a range of `replicas` losing its quorum.
pub fn tolerates(replicas: u32) -> u32 {
    replicas.saturating_sub(1) / 2
}

/// A range with fewer live voters than it needs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UnderReplicated {
    /// The range.
    pub range: RangeId,
    /// Live voters.
    pub have: u32,
    /// Voters that the allocator wants.
    pub need: u32,
}

/// Health of all ranges.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RangeHealth {
    /// Ranges looked at.
    pub total: usize,
    /// Ranges without a live quorum of their voters.
    pub unavailable: Vec<RangeId>,
    /// Ranges with too few live voters. Always empty in single-replica mode, where nothing is ever replicated up.
    pub under_replicated: Vec<UnderReplicated>,
    /// Ranges that have too few live voters only if they belong to the zone of one of their table's partitions or
    /// indexes, which a descriptor does not tell. Not in `under_replicated`.
    pub unclear: Vec<UnderReplicated>,
    /// Ranges with a learner: a move is under way.
    pub with_learners: usize,
    /// Ranges with a replica on a store that belongs to no known node, or to a node whose liveness is unknown.
    /// Such a replica counts neither as live nor as dead.
    pub unmapped: Vec<RangeId>,
}

impl RangeHealth {
    /// Nothing unavailable, nothing under-replicated, nothing unknown.
    pub fn is_good(&self) -> bool {
        self.unavailable.is_empty() && self.under_replicated.is_empty() && self.unmapped.is_empty()
    }
}

/// Health of all ranges when the allocator counts `member_count` members. Ranges with a replica on one of the
/// `ignore` stores (those of leaving nodes) are judged for their quorum only.
///
/// A replica is live when its node's liveness record has not expired, so one on a leaving or draining node is.
/// Unknown when ranges, zones or the server's time are.
pub fn range_health(obs: &Observation, member_count: usize, ignore: &BTreeSet<StoreId>) -> Fact<RangeHealth> {
    let (ranges, rows, now) = match (&obs.ranges, &obs.zones, &obs.server_time) {
        (Fact::Known(ranges), Fact::Known(zones), Fact::Known(now)) => (ranges, zones, *now),
        (Fact::Unknown(why), ..) => return Fact::unknown(format!("ranges: {why}")),
        (_, Fact::Unknown(why), _) => return Fact::unknown(format!("zones: {why}")),
        (_, _, Fact::Unknown(why)) => return Fact::unknown(format!("the server's time: {why}")),
    };
    if ranges.is_empty() {
        return Fact::unknown("no range was answered, and every cluster has some");
    }
    let replicates = obs.start_mode().known() != Some(&StartMode::SingleReplica);
    let zones = ZoneSet::build(rows);
    let live = live_stores(obs, now);
    let mut health = RangeHealth { total: ranges.len(), ..RangeHealth::default() };
    for range in ranges {
        let known: Vec<bool> = range.replicas.iter().filter_map(|s| live.get(s).copied().flatten()).collect();
        let have = known.iter().filter(|live| **live).count();
        let open = range.replicas.len() - known.len();
        let quorum = range.replicas.len() / 2 + 1;
        if open > 0 {
            health.unmapped.push(range.range_id);
        }
        if have + open < quorum {
            health.unavailable.push(range.range_id);
        }
        if !range.learners.is_empty() {
            health.with_learners += 1;
        }
        if !replicates || range.replicas.iter().any(|s| ignore.contains(s)) {
            continue;
        }
        let zone = match zones.candidates(range) {
            Fact::Known(zone) => zone,
            Fact::Unknown(why) => return Fact::unknown(format!("zones: {why}")),
        };
        let have = u32::try_from(have + open).unwrap_or(u32::MAX);
        let (least, most) = (needed(zone.min, member_count), needed(zone.max, member_count));
        if have < least {
            health.under_replicated.push(UnderReplicated { range: range.range_id, have, need: least });
        } else if have < most {
            health.unclear.push(UnderReplicated { range: range.range_id, have, need: most });
        }
    }
    Fact::Known(health)
}

/// Liveness of the node of each store; `None` where the record's expiration is unknown.
fn live_stores(obs: &Observation, now: Timestamp) -> BTreeMap<StoreId, Option<bool>> {
    obs.nodes
        .values()
        .flat_map(|node| {
            let live = node.expiration.known().map(|expires| *expires > now);
            node.stores.keys().map(move |store| (*store, live))
        })
        .collect()
}

/// Sums of the gauges over the stores of live Members.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PageHealth {
    /// Sum of `ranges.unavailable`.
    pub unavailable: u64,
    /// Sum of `ranges.underreplicated`. Above zero for ever in single-replica mode.
    pub under_replicated: u64,
}

/// The KWDB page's query ("There are no unavailable or under-replicated ranges"), limited to live Members, because
/// the last gauges of dead and removed nodes stay in `kwdb_internal.kv_store_status` for ever.
///
/// Unknown when a live Member has no row, a NULL gauge, or a row older than `max_age` by the server's clock.
pub fn page_health(obs: &Observation, max_age: SignedDuration) -> Fact<PageHealth> {
    if let Fact::Unknown(why) = &obs.membership {
        return Fact::Unknown(why.clone());
    }
    if let Some((node, why)) = stale_status(obs, max_age).into_iter().next() {
        return Fact::unknown(format!("the status of {node} {why}"));
    }
    let mut sums = PageHealth::default();
    for store in live_members(obs).flat_map(|n| n.stores.values()) {
        let (Some(unavailable), Some(under)) =
            (store.status.ranges_unavailable, store.status.ranges_underreplicated)
        else {
            return Fact::unknown(format!("a gauge of {} is NULL", store.id));
        };
        sums.unavailable = sums.unavailable.saturating_add(unavailable);
        sums.under_replicated = sums.under_replicated.saturating_add(under);
    }
    Fact::Known(sums)
}

/// Live Members whose status is missing, or older than `max_age` by the server's clock; with what is wrong.
pub fn stale_status(obs: &Observation, max_age: SignedDuration) -> Vec<(NodeId, String)> {
    let mut stale = Vec::new();
    for node in live_members(obs) {
        if node.stores.is_empty() {
            stale.push((node.id, "has no row in kwdb_internal.kv_store_status".to_owned()));
            continue;
        }
        for store in node.stores.values() {
            match (&obs.server_time, store.status.updated_at) {
                (Fact::Known(now), Some(at)) => {
                    let age = now.duration_since(at);
                    if age > max_age {
                        stale.push((node.id, format!("({}) is {} s old", store.id, age.as_secs())));
                    }
                }
                (Fact::Unknown(why), _) => stale.push((node.id, format!("has no known age: {why}"))),
                (_, None) => stale.push((node.id, format!("({}) has no time", store.id))),
            }
        }
    }
    stale
}

/// Nodes whose liveness record has not expired.
fn live_members(obs: &Observation) -> impl Iterator<Item = &Node> {
    live_nodes(obs).filter(|n| n.class == NodeClass::Member)
}

pub(crate) fn live_nodes(obs: &Observation) -> impl Iterator<Item = &Node> {
    let now = obs.server_time.known().copied();
    obs.nodes
        .values()
        .filter(move |n| matches!((n.expiration.known(), now), (Some(expires), Some(now)) if *expires > now))
}

#[cfg(test)]
mod tests {
    use super::needed;

    #[test]
    fn needed_follows_the_allocator() {
        // zone factor, members, wanted
        for (zone, members, want) in [
            (1, 0, 1),
            (1, 1, 1),
            (1, 9, 1),
            (3, 1, 3),
            (3, 2, 3),
            (3, 3, 3),
            (3, 4, 3),
            (4, 3, 3),
            (4, 4, 4),
            (5, 2, 3),
            (5, 3, 3),
            (5, 4, 3),
            (5, 5, 5),
            (5, 6, 5),
            (7, 3, 3),
            (7, 4, 3),
            (7, 5, 5),
            (7, 6, 5),
            (7, 7, 7),
        ] {
            assert_eq!(needed(zone, members), want, "zone {zone}, {members} members");
        }
    }
}

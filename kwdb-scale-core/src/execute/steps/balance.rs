//! Waiting for an even spread of ranges and leases.
//!
//! Balanced: the range and lease counts of every store within max(2, threshold of the mean) in several samples.
//! When nothing moved for the policy's time the cluster has settled, uneven, and the figures are told.

use jiff::{SignedDuration, Timestamp};

use super::super::event::Look;
use super::super::machine::{Ctx, State, Verdict};
use super::view::ask;
use crate::fact::Fact;
use crate::policy::REBALANCE_THRESHOLD;
use crate::rows::Query;
use crate::topology::NodeClass;

/// Nodes write their counts every ten seconds; samples closer than that are the same.
const STATUS_INTERVAL: SignedDuration = SignedDuration::from_secs(10);
/// KWDB's default of `kv.allocator.range_rebalance_threshold`.
const DEFAULT_THRESHOLD: f64 = 0.05;

pub(super) fn look(state: &State, at: Timestamp) -> Look {
    let setting = Query::Settings(vec![REBALANCE_THRESHOLD.to_owned()]);
    ask(state, at, &[Query::Liveness, Query::Nodes, Query::Stores, setting], &[])
}

struct Count {
    store: u32,
    ranges: u64,
    leases: u64,
}

pub(super) fn judge(ctx: &mut Ctx<'_>) -> Verdict {
    let counts = match counts(ctx) {
        Ok(counts) => counts,
        Err(why) => {
            ctx.state.scratch.samples.reset();
            return Verdict::Wait(format!("the counts of every store: {why}"));
        }
    };
    let threshold = ctx
        .obs
        .setting(REBALANCE_THRESHOLD)
        .known()
        .and_then(|v| v.and_then(|t| t.parse::<f64>().ok()))
        .unwrap_or(DEFAULT_THRESHOLD);
    let figures = counts
        .iter()
        .map(|c| format!("s{}: {} ranges {} leases", c.store, c.ranges, c.leases))
        .collect::<Vec<_>>()
        .join(", ");
    let even = within(counts.iter().map(|c| c.ranges), threshold)
        && within(counts.iter().map(|c| c.leases), threshold);
    let policy = ctx.state.policy().clone();
    if even {
        if let Fact::Known(now) = ctx.obs.server_time {
            let spacing = policy.sample_spacing.max(STATUS_INTERVAL);
            let agreeing = ctx.state.scratch.samples.add(now, spacing);
            if agreeing >= policy.samples.max(1) {
                return Verdict::Done(format!("balanced in {agreeing} samples: {figures}"));
            }
        }
    } else {
        ctx.state.scratch.samples.reset();
    }
    let ranges: Vec<(u32, u64)> = counts.iter().map(|c| (c.store, c.ranges)).collect();
    let since = match &ctx.state.scratch.settled {
        Some((before, since)) if is_still(before, &ranges) => *since,
        _ => {
            ctx.state.scratch.settled = Some((ranges, ctx.at));
            ctx.at
        }
    };
    if !even && ctx.at.duration_since(since) >= policy.settled_after {
        return Verdict::Done(format!(
            "settled, uneven; nothing moved for {:#}: {figures}",
            policy.settled_after
        ));
    }
    Verdict::Wait(format!("an even spread: {figures}"))
}

/// Whether no store's count has moved by more than what counts as even: splits, merges and a lone move go on for
/// ever on a cluster that is used.
fn is_still(before: &[(u32, u64)], now: &[(u32, u64)]) -> bool {
    before.len() == now.len()
        && before.iter().zip(now).all(|((s, was), (t, is))| s == t && was.abs_diff(*is) <= 2)
}

/// Counts of every store of live members, or why they cannot be had.
fn counts(ctx: &Ctx<'_>) -> Result<Vec<Count>, String> {
    let now = match &ctx.obs.server_time {
        Fact::Known(now) => *now,
        Fact::Unknown(why) => return Err(why.clone()),
    };
    let limit = ctx.state.policy().max_status_age;
    let mut list = Vec::new();
    for node in ctx.obs.of_class(NodeClass::Member) {
        if node.stores.is_empty() {
            return Err(format!("node {} has written no status yet", node.id.0));
        }
        for store in node.stores.values() {
            let fresh = store.status.updated_at.is_some_and(|t| now.duration_since(t) <= limit);
            match (fresh, store.status.range_count, store.status.lease_count) {
                (true, Some(ranges), Some(leases)) => list.push(Count { store: store.id.0, ranges, leases }),
                (false, ..) => return Err(format!("the status of {} is stale", store.id)),
                _ => return Err(format!("the counts of {} are NULL", store.id)),
            }
        }
    }
    if list.is_empty() { Err("no live member is known".into()) } else { Ok(list) }
}

#[allow(clippy::cast_precision_loss)]
fn within(values: impl Iterator<Item = u64> + Clone, threshold: f64) -> bool {
    let count = values.clone().count();
    let mean = values.clone().sum::<u64>() as f64 / count.max(1) as f64;
    let tolerance = (mean * threshold).max(2.0);
    values.into_iter().all(|v| (v as f64 - mean).abs() <= tolerance)
}

#[cfg(test)]
mod tests {
    #[test]
    fn tolerance_is_two_or_the_threshold() {
        assert!(super::within([10, 12, 11].into_iter(), 0.05));
        assert!(!super::within([10, 15, 11].into_iter(), 0.05));
        assert!(super::within([1000, 1040, 1020].into_iter(), 0.05));
    }
}

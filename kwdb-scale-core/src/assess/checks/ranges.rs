//! Checks on the health of ranges.

use std::collections::{BTreeMap, BTreeSet};

use super::{Problem, some};
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::health::{UnderReplicated, live_nodes, page_health, stale_status};
use crate::rows::RangeRow;
use crate::topology::{NodeId, RangeId, StoreId};

/// Names of ranges, so that each is found once.
struct Names<'a>(BTreeMap<RangeId, &'a RangeRow>);

impl<'a> Names<'a> {
    fn of(cx: &Context<'a>) -> Self {
        let rows = cx.obs.ranges.known();
        Self(rows.into_iter().flatten().map(|r| (r.range_id, r)).collect())
    }

    fn stores(&self, id: RangeId) -> &'a [StoreId] {
        self.0.get(&id).map_or(&[], |r| r.replicas.as_slice())
    }

    /// `r58 (app.kv) on s1, s2, s3`
    fn describe(&self, id: RangeId) -> String {
        let Some(row) = self.0.get(&id) else { return id.to_string() };
        let full = |s: &Option<String>| s.clone().filter(|s| !s.is_empty());
        let what = match (full(&row.database), full(&row.table)) {
            (Some(database), Some(table)) => format!("{database}.{table}"),
            _ => row.start_key.clone(),
        };
        let stores: Vec<String> = row.replicas.iter().map(ToString::to_string).collect();
        format!("{id} ({what}) on {}", stores.join(", "))
    }
}

pub(super) fn available(cx: &Context<'_>) -> Vec<Problem> {
    let health = match &cx.health {
        Fact::Known(health) => health,
        Fact::Unknown(why) => return vec![Problem::unknown("the health of ranges is", why).after_secs(10)],
    };
    if health.unavailable.is_empty() {
        return Vec::new();
    }
    let names = Names::of(cx);
    let down: BTreeSet<NodeId> = health
        .unavailable
        .iter()
        .flat_map(|id| names.stores(*id))
        .filter_map(|s| cx.obs.node_of_store(*s))
        .filter(|n| !live_nodes(cx.obs).any(|live| live.id == n.id))
        .map(|n| n.id)
        .collect();
    let down: Vec<String> = down.iter().map(ToString::to_string).collect();
    vec![
        Problem::new(format!(
            "ranges without a live quorum: {} of {}",
            health.unavailable.len(),
            health.total
        ))
        .evidence(some(health.unavailable.iter().map(|id| names.describe(*id)), cx.policy.list_ranges))
        .cure(format!("bring back the nodes that hold their replicas: {}", down.join(", ")))
        .retry(Retry::WhenFactChanges("unavailable ranges".to_owned())),
    ]
}

fn short(cx: &Context<'_>, ranges: &[UnderReplicated]) -> Vec<String> {
    let names = Names::of(cx);
    some(
        ranges.iter().map(|u| format!("{}: {} live, needs {}", names.describe(u.range), u.have, u.need)),
        cx.policy.list_ranges,
    )
}

pub(super) fn replicated(cx: &Context<'_>) -> Vec<Problem> {
    let Fact::Known(health) = &cx.health else { return Vec::new() };
    if health.under_replicated.is_empty() {
        return Vec::new();
    }
    let message = format!("under-replicated ranges: {} of {}", health.under_replicated.len(), health.total);
    vec![
        Problem::new(message)
            .evidence(short(cx, &health.under_replicated))
            .cure("wait until the cluster has replicated them; bring back nodes that are down")
            .after_secs(60),
    ]
}

pub(super) fn unclear(cx: &Context<'_>) -> Vec<Problem> {
    let Fact::Known(health) = &cx.health else { return Vec::new() };
    if health.unclear.is_empty() {
        return Vec::new();
    }
    let message = format!(
        "ranges of which it cannot be told whether they are under-replicated, because their table has zones of different factors: {} of {}",
        health.unclear.len(),
        health.total
    );
    let mut lines = short(cx, &health.unclear);
    lines.push(match page_health(cx.obs, cx.policy.max_status_age) {
        Fact::Known(page) => {
            format!("the page's own query counts {} under-replicated", page.under_replicated)
        }
        Fact::Unknown(why) => format!("the page's own query: unknown ({why})"),
    });
    vec![Problem::new(message).evidence(lines)]
}

pub(super) fn mapped(cx: &Context<'_>) -> Vec<Problem> {
    let Fact::Known(health) = &cx.health else { return Vec::new() };
    if health.unmapped.is_empty() {
        return Vec::new();
    }
    let names = Names::of(cx);
    vec![
        Problem::new(format!(
            "ranges with a replica on a store whose node, or whose node's liveness, is unknown: {} of {}",
            health.unmapped.len(),
            health.total
        ))
        .evidence(some(health.unmapped.iter().map(|id| names.describe(*id)), cx.policy.list_ranges))
        .cure("wait until every node has written its status (every 10 s)")
        .after_secs(15),
    ]
}

pub(super) fn learners(cx: &Context<'_>) -> Vec<Problem> {
    match &cx.health {
        Fact::Known(health) if health.with_learners > 0 => {
            vec![
                Problem::new(format!("ranges with a replica being moved: {}", health.with_learners))
                    .after_secs(60),
            ]
        }
        _ => Vec::new(),
    }
}

pub(super) fn page(cx: &Context<'_>) -> Vec<Problem> {
    // Missing and stale rows are what `fresh` tells.
    if !stale_status(cx.obs, cx.policy.max_status_age).is_empty() {
        return Vec::new();
    }
    match page_health(cx.obs, cx.policy.max_status_age) {
        Fact::Unknown(why) => vec![Problem::unknown("what the page's query says is", &why).after_secs(15)],
        Fact::Known(sums) => {
            let under = if cx.single_replica() { 0 } else { sums.under_replicated };
            if sums.unavailable == 0 && under == 0 {
                return Vec::new();
            }
            vec![
                Problem::new(format!(
                    "the nodes' own gauges sum to {} unavailable and {under} under-replicated ranges",
                    sums.unavailable
                ))
                .cure("wait until the cluster has replicated them; gauges lag up to 10 s")
                .after_secs(15),
            ]
        }
    }
}

pub(super) fn fresh(cx: &Context<'_>) -> Vec<Problem> {
    let stale = stale_status(cx.obs, cx.policy.max_status_age);
    if stale.is_empty() {
        return Vec::new();
    }
    let most = cx.policy.max_status_age.as_secs();
    vec![
        Problem::new(format!(
            "status rows of live nodes that are missing or older than {most} s: {}",
            stale.len()
        ))
        .evidence(stale.iter().map(|(node, why)| format!("{node} {why}")))
        .cure("wait: a node writes its status every 10 s; if it lasts, look at that node")
        .after_secs(15),
    ]
}

pub(super) fn purgatory(cx: &Context<'_>) -> Vec<Problem> {
    live_nodes(cx.obs)
        .flat_map(|n| n.stores.values().map(move |s| (n, s)))
        .filter_map(|(node, store)| match store.status.replicate_purgatory {
            Some(0) => None,
            Some(stuck) => Some(
                Problem::new(format!(
                    "replicas of {} for which the allocator finds no place: {stuck}",
                    node.id
                ))
                .evidence([format!("queue.replicate.purgatory of {} is {stuck}", store.id)]),
            ),
            None => Some(Problem::new(format!("queue.replicate.purgatory of {} is unknown: NULL", store.id))),
        })
        .collect()
}

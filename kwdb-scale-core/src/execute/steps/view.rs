//! Reading the same thing through two gateways.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::super::event::{Look, Looked};
use super::super::machine::{Ctx, State};
use crate::fact::Fact;
use crate::health::{RangeHealth, UnderReplicated, range_health};
use crate::observation::{Node, Observation, Reply};
use crate::plan::ids;
use crate::policy::TIME_UNTIL_DEAD;
use crate::rows::{ClusterRow, LivenessRow, NodeRow, Query, RangeRow, Rows, SettingRow};
use crate::topology::{Address, NodeClass, NodeId, RangeId, StartMode, StoreId};

/// What one gateway answered in this look.
pub(super) struct Seen<'a> {
    pub gateway: &'a Address,
    replies: Vec<&'a Reply>,
}

/// One entry for each gateway that was asked, in the order of asking.
pub(super) fn seen(looked: &Looked) -> Vec<Seen<'_>> {
    let mut list: Vec<Seen<'_>> = Vec::new();
    for reply in &looked.replies {
        match list.iter_mut().find(|s| *s.gateway == reply.gateway) {
            Some(s) => s.replies.push(reply),
            None => list.push(Seen { gateway: &reply.gateway, replies: vec![reply] }),
        }
    }
    list
}

impl<'a> Seen<'a> {
    fn rows(&self) -> impl Iterator<Item = (&'a Rows, Timestamp)> + '_ {
        self.replies.iter().filter_map(|r| r.result.as_ref().ok()).map(|a| (&a.rows, a.server_time))
    }

    pub(super) fn liveness(&self) -> Option<(&'a [LivenessRow], Timestamp)> {
        self.rows().find_map(|(rows, at)| match rows {
            Rows::Liveness(list) => Some((list.as_slice(), at)),
            _ => None,
        })
    }

    pub(super) fn nodes(&self) -> Option<&'a [NodeRow]> {
        self.rows().find_map(|(rows, _)| match rows {
            Rows::Nodes(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    pub(super) fn cluster(&self) -> Option<&'a ClusterRow> {
        self.rows().find_map(|(rows, _)| match rows {
            Rows::Cluster(row) => Some(row),
            _ => None,
        })
    }

    pub(super) fn setting(&self, name: &str) -> Option<Option<&'a SettingRow>> {
        self.rows().find_map(|(rows, _)| match rows {
            Rows::Settings(list) => Some(list.iter().find(|s| s.name == name)),
            _ => None,
        })
    }

    /// Answer to [`Query::RangesOn`], when it was asked.
    pub(super) fn leftovers(&self) -> Option<&'a [RangeRow]> {
        self.replies
            .iter()
            .filter(|r| matches!(r.query, Query::RangesOn { .. }))
            .find_map(|r| r.result.as_ref().ok())
            .and_then(|a| match &a.rows {
                Rows::Ranges(list) => Some(list.as_slice()),
                _ => None,
            })
    }

    /// Replicas on `stores` together. `None` when it was not asked or not every store was answered.
    pub(super) fn count(&self, stores: &BTreeSet<StoreId>) -> Option<(u64, Timestamp)> {
        // The sum over no store is zero and says nothing.
        if stores.is_empty() {
            return None;
        }
        self.rows().find_map(|(rows, at)| match rows {
            Rows::ReplicaCounts(list) => {
                let counts: BTreeMap<StoreId, u64> = list.iter().map(|r| (r.store_id, r.replicas)).collect();
                let sum = stores.iter().map(|s| counts.get(s).copied()).sum::<Option<u64>>()?;
                Some((sum, at))
            }
            _ => None,
        })
    }

    /// The row of a node with the gateway's clock.
    pub(super) fn row(&self, node: NodeId) -> Option<(&'a LivenessRow, Timestamp)> {
        let (rows, at) = self.liveness()?;
        rows.iter().find(|r| r.node_id == node).map(|r| (r, at))
    }
}

/// The decommissioning bit of a node by all views that answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Bit {
    /// Set in every view needed.
    Set,
    /// Clear in every view needed.
    Clear,
    /// Views differ, or too few answered.
    Unclear,
}

pub(super) fn bit(looked: &Looked, node: NodeId, views_needed: usize) -> Bit {
    let bits: Vec<bool> =
        seen(looked).iter().filter_map(|s| s.row(node).and_then(|(r, _)| r.decommissioning)).collect();
    if bits.len() < views_needed || bits.is_empty() {
        Bit::Unclear
    } else if bits.iter().all(|b| *b) {
        Bit::Set
    } else if bits.iter().all(|b| !*b) {
        Bit::Clear
    } else {
        Bit::Unclear
    }
}

/// Questions for the gateways at hand: `first` for the first, `further` for the others.
pub(super) fn ask(state: &State, at: Timestamp, first: &[Query], further: &[Query]) -> Look {
    let mut look = Look::default();
    for (i, gateway) in state.gateways(at).into_iter().enumerate() {
        let queries = if i == 0 { first } else { further };
        look.asks.extend(queries.iter().map(|q| (gateway.sql_address.clone(), q.clone())));
    }
    look
}

/// The questions that range health needs.
pub(super) fn health_queries() -> [Query; 5] {
    [Query::Liveness, Query::Nodes, Query::Stores, Query::Ranges, Query::Zones]
}

/// Why the cluster is not fit for an act: members that stay must be live and healthy, and no range unavailable or
/// under-replicated for `members` counted members. Empty when it is fit.
pub(super) fn unfit(ctx: &Ctx<'_>, leaving: &BTreeSet<NodeId>, members: usize) -> Vec<String> {
    let obs: &Observation = ctx.obs;
    let mut why = Vec::new();
    if let Some(reason) = obs.membership.why_unknown() {
        return vec![format!("membership is unknown: {reason}")];
    }
    for node in obs.nodes.values().filter(|n| !leaving.contains(&n.id)) {
        match node.class {
            NodeClass::Removed => {}
            // The checks let it pass when the plan was made; only a scale-out does.
            NodeClass::Dead if known_as(ctx, node.id, NodeClass::Dead) => {}
            NodeClass::Dead => why.push(format!("node {} is down", node.id.0)),
            // Emptied earlier and left running: nothing of it moves any more.
            NodeClass::Leaving if node.is_drained() => {}
            NodeClass::Leaving => {
                why.push(format!("node {} is being decommissioned by someone else", node.id.0))
            }
            NodeClass::Unknown => why.push(format!("the state of node {} is unknown", node.id.0)),
            NodeClass::Member => match node.is_healthy() {
                Fact::Known(true) if node.draining == Fact::Known(true) => {
                    why.push(format!("node {} is draining", node.id.0));
                }
                Fact::Known(true) => {}
                Fact::Known(false) => why.push(format!("node {} is not live", node.id.0)),
                Fact::Unknown(reason) => why.push(format!("node {}: {reason}", node.id.0)),
            },
        }
    }
    why.extend(range_trouble(ctx, members));
    why
}

/// Ranges that are unavailable or under-replicated for `members` counted members, as lines; empty when there are
/// none. In single-replica mode only availability counts.
pub(super) fn range_trouble(ctx: &Ctx<'_>, members: usize) -> Vec<String> {
    let limit = usize::try_from(ctx.state.policy().list_ranges).unwrap_or(usize::MAX);
    let missing = missing(ctx);
    if !missing.is_empty() {
        return missing;
    }
    match range_health(ctx.obs, members, &BTreeSet::new()) {
        Fact::Unknown(reason) => vec![format!("range health is unknown: {reason}")],
        Fact::Known(health) => {
            let mut lines = Vec::new();
            if !health.unavailable.is_empty() {
                let list: Vec<String> =
                    health.unavailable.iter().take(limit).map(ToString::to_string).collect();
                lines.push(format!("{} unavailable: {}", ranges(health.unavailable.len()), list.join(", ")));
            }
            if ctx.state.ledger.plan.start_mode == StartMode::MultiReplica {
                if !health.unmapped.is_empty() {
                    lines.push(format!("{} with a store of no known node", ranges(health.unmapped.len())));
                }
                let short = short(ctx, &health);
                if !short.is_empty() {
                    let list: Vec<String> = short
                        .iter()
                        .take(limit)
                        .map(|u| format!("{} ({} of {})", u.range, u.have, u.need))
                        .collect();
                    lines.push(format!("{} under-replicated: {}", ranges(short.len()), list.join(", ")));
                }
            }
            lines
        }
    }
}

/// Under-replicated ranges that something can be done about now.
fn short<'a>(ctx: &Ctx<'_>, health: &'a RangeHealth) -> Vec<&'a UnderReplicated> {
    let waiting = waiting_for_the_dead(ctx, health);
    health.under_replicated.iter().filter(|u| !waiting.contains(&u.range)).collect()
}

/// Their ids, for `members` counted members; empty when the health of ranges is unknown.
pub(super) fn short_ranges(ctx: &Ctx<'_>, members: usize) -> Vec<RangeId> {
    match range_health(ctx.obs, members, &BTreeSet::new()) {
        Fact::Known(health) => short(ctx, &health).iter().map(|u| u.range).collect(),
        Fact::Unknown(_) => Vec::new(),
    }
}

/// Ranges that lack nothing but replicas on members that were down when the plan was made and are so still. The
/// server copies them when it counts such a node as dead (`server.time_until_store_dead`, 30 minutes by default),
/// which no step hastens; only a scale-out is planned with a member down, and it may be the cure.
fn waiting_for_the_dead(ctx: &Ctx<'_>, health: &RangeHealth) -> BTreeSet<RangeId> {
    let down: BTreeSet<StoreId> = known_dead(ctx).flat_map(|n| n.stores.keys().copied()).collect();
    if down.is_empty() {
        return BTreeSet::new();
    }
    let on_them =
        |range: &RangeRow| (range.range_id, range.replicas.iter().filter(|s| down.contains(s)).count());
    let there: BTreeMap<RangeId, usize> = ctx.obs.ranges.known().into_iter().flatten().map(on_them).collect();
    let lacks_no_more = |u: &&UnderReplicated| {
        let there = there.get(&u.range).copied().unwrap_or(0);
        usize::try_from(u.need.saturating_sub(u.have)).is_ok_and(|lacking| lacking <= there)
    };
    health.under_replicated.iter().filter(lacks_no_more).map(|u| u.range).collect()
}

/// What is to be said of ranges that want a replica on a member that was down when the plan was made; empty when
/// there are none.
pub(super) fn told_of_the_dead(ctx: &Ctx<'_>) -> String {
    let down: Vec<NodeId> = known_dead(ctx).map(|n| n.id).collect();
    // The allocator counts members that are down, so that is what status and checks say too.
    let counted = ctx.obs.counted_members();
    let Fact::Known(health) = range_health(ctx.obs, counted, &BTreeSet::new()) else { return String::new() };
    let short = health.under_replicated.len();
    if down.is_empty() || short == 0 {
        return String::new();
    }
    format!(
        ", but for {} that want a replica more while {}, a member, is down: start it again, or the server makes the \
         replica elsewhere when it counts as dead ({TIME_UNTIL_DEAD})",
        ranges(short),
        ids(&down)
    )
}

/// Members that were down when the plan was made and are so still.
fn known_dead<'a>(ctx: &'a Ctx<'_>) -> impl Iterator<Item = &'a Node> {
    ctx.obs.of_class(NodeClass::Dead).filter(|n| known_as(ctx, n.id, NodeClass::Dead))
}

/// Nodes of the plan that the gateway's table of nodes lacks (its gossip is not complete): with them the count of
/// members, and what ranges need, would be too low.
fn missing(ctx: &Ctx<'_>) -> Vec<String> {
    let ledger = &ctx.state.ledger;
    let known = ledger.plan.fingerprint.nodes.keys().chain(ledger.joined.values());
    known
        .filter(|id| !ctx.obs.nodes.contains_key(id))
        .map(|id| format!("node {} is missing from what {} knows", id.0, ctx.obs.gateway))
        .collect()
}

/// Members that can hold replicas: what the allocator counts, without those that were down when the plan was made
/// and are so still. Nothing can be replicated to them, so waiting for it would never end.
pub(super) fn counted(ctx: &Ctx<'_>) -> usize {
    ctx.obs.counted_members().saturating_sub(known_dead(ctx).count())
}

fn known_as(ctx: &Ctx<'_>, node: NodeId, class: NodeClass) -> bool {
    ctx.state.ledger.plan.fingerprint.nodes.get(&node).is_some_and(|n| n.class == class)
}

/// Another live node that advertises the address of a leaving one: the machine was given to it already.
pub(super) fn successor(ctx: &Ctx<'_>, node: NodeId) -> Option<NodeId> {
    let plan = &ctx.state.ledger.plan;
    let address = &plan.leaving(node)?.address;
    ctx.obs
        .nodes
        .values()
        .find(|n| n.id != node && n.address.known() == Some(address) && !has_expired(ctx.obs, n))
        .map(|n| n.id)
}

fn has_expired(obs: &Observation, node: &Node) -> bool {
    matches!((&node.expiration, &obs.server_time), (Fact::Known(e), Fact::Known(now)) if e <= now)
}

/// Why what answers at the pinned address of a leaving node may be another node. An address is no identity: a
/// machine can be given to a new node as soon as the old one is down. `None` when it is the leaving one.
pub(super) fn not_there(ctx: &Ctx<'_>, node: NodeId) -> Option<String> {
    let Some(pinned) = ctx.state.ledger.plan.leaving(node) else {
        return Some(format!("the plan does not say where node {} is", node.0));
    };
    if let Some(other) = successor(ctx, node) {
        return Some(format!("node {} is at {} now, not node {}", other.0, pinned.address, node.0));
    }
    match ctx.obs.nodes.get(&node).map(|n| &n.address) {
        Some(Fact::Known(address)) if *address == pinned.address => None,
        Some(Fact::Known(address)) => {
            Some(format!("node {} is at {address} now, the plan knows it at {}", node.0, pinned.address))
        }
        Some(Fact::Unknown(why)) => Some(format!("the address of node {} is unknown: {why}", node.0)),
        None => Some(format!("node {} is unknown to {}", node.0, ctx.obs.gateway)),
    }
}

fn ranges(n: usize) -> String {
    if n == 1 { "1 range".to_owned() } else { format!("{n} ranges") }
}

/// A line without the list after its last colon, for a wait that is told again and again.
pub(super) fn brief(line: &str) -> &str {
    line.rsplit_once(": ").map_or(line, |(what, _)| what)
}

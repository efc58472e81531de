//! Asking servers to look at ranges sooner than their scanner would, those of leaving nodes and those that want a
//! replica on a new one: which ranges, how many at once, and when rather not. See [`Pace`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::event::{Look, Looked, Nudge};
use super::machine::later;
use super::watch::{DrainWatch, LAST};
use crate::observation::{Observation, Store};
use crate::ports::{Enqueued, Gateway};
use crate::request::Pace;
use crate::rows::{Query, Rows};
use crate::topology::{NodeId, RangeId, StoreId};

/// Lease holders looked up at once; each costs the server a request.
pub(super) const LISTED: u32 = 256;
/// Most requests at once. The replicate queue of a store takes one range at a time.
const MOST_AT_ONCE: usize = 8;
/// Requests in one look, for each of those at once.
const ROUNDS: usize = 4;
/// An answer so many times slower than the quickest, and slower than [`SLOW_AT_LEAST`], is slow.
const SLOWER: i32 = 8;
const SLOW_AT_LEAST: SignedDuration = SignedDuration::from_millis(100);
/// After a sign that the cluster has enough to do.
const PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// So many replicas may wait for the stores' replicate queues above twice of what is usual.
const BUSY: u64 = 16;
/// How long an error of a range may be to be kept.
const LONGEST_WORDS: usize = 300;

/// What one wait has asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Nudges {
    on: bool,
    /// Requests cannot be made.
    off: bool,
    at_once: usize,
    to_ask: VecDeque<(RangeId, NodeId)>,
    /// When lease holders may be looked up again: that takes at most half of the time.
    list_next: Option<Timestamp>,
    paused_until: Option<Timestamp>,
    quickest: Option<SignedDuration>,
    slow: u32,
    /// Ranges short of replicas on the members that stay, when it began.
    short: Option<u64>,
    /// The fewest replicas that waited for the replicate queues of the members that stay.
    pending: Option<u64>,
    asked: u64,
    errors: BTreeMap<&'static str, u64>,
    /// Why ranges could not move, in the servers' words.
    why: BTreeMap<RangeId, String>,
}

/// A wait for replicas to move, as it stands.
#[derive(Clone, Copy)]
pub(super) struct Moving<'a> {
    pub pace: Pace,
    /// Replicas left to move off leaving nodes, or ranges left that want one more.
    pub left: u64,
    pub watch: &'a DrainWatch,
    /// Empty where nodes join: then ranges are short of replicas because of that.
    pub leaving: &'a [NodeId],
    /// The pause between two looks.
    pub pause: SignedDuration,
}

impl Nudges {
    /// Whether this is the time for it.
    fn wanted(pace: Pace, left: u64, drain: &DrainWatch, at: Timestamp) -> bool {
        match pace {
            Pace::Server => false,
            Pace::Full => true,
            Pace::Tail => left <= LAST || drain.is_fading(at),
        }
    }

    fn may_ask(&self, at: Timestamp) -> bool {
        self.on && !self.off && self.paused_until.is_none_or(|until| until <= at)
    }

    /// Adds to a look what is asked of `via`, and what servers are asked to look at; `leases` asks for the lease holders of
    /// what is left.
    pub(super) fn ask(&self, at: Timestamp, via: &Gateway, leases: Query, look: &mut Look) {
        if !self.may_ask(at) {
            return;
        }
        let stores = (via.sql_address.clone(), Query::Stores);
        if !look.asks.contains(&stores) {
            look.asks.push(stores);
        }
        if self.to_ask.is_empty() && self.list_next.is_none_or(|next| next <= at) {
            look.asks.push((via.sql_address.clone(), leases));
        }
        let at_once = self.at_once.max(1);
        let next = self.to_ask.iter().take(at_once * ROUNDS);
        look.nudges =
            next.map(|(range, node)| Nudge { via: via.clone(), node: *node, range: *range }).collect();
        look.nudges_at_once = at_once;
    }

    /// Takes in what a look brought. Gives what is worth telling.
    pub(super) fn judge(
        &mut self,
        at: Timestamp,
        moving: &Moving<'_>,
        looked: &Looked,
        obs: &Observation,
    ) -> Option<String> {
        let Moving { pace, left, watch, leaving, .. } = *moving;
        let mut tell = self.answers(at, looked);
        self.latency(at, looked.quickest);
        self.queues(at, obs, leaving);
        if let Some(short) = short_of_replicas(obs, leaving) {
            let before = *self.short.get_or_insert(short);
            if short > before {
                self.hold(at);
                tell = tell.or_else(|| {
                    Some("ranges outside this operation are short of replicas: the servers' own pace until they are not".into())
                });
            }
        }
        for reply in &looked.replies {
            if !matches!(reply.query, Query::LeasesOn { .. } | Query::LeasesOf(_)) {
                continue;
            }
            self.list_next = Some(later(at, looked.leases_took.max(moving.pause)));
            if let Ok(answer) = &reply.result
                && let Rows::Leases(rows) = &answer.rows
            {
                let node_of =
                    |store: StoreId| obs.nodes.values().find(|n| n.stores.contains_key(&store)).map(|n| n.id);
                self.to_ask =
                    rows.iter().filter_map(|r| Some((r.range_id, node_of(r.lease_store?)?))).collect();
            }
        }
        if !self.on && !self.off && looked.can_nudge && Self::wanted(pace, left, watch, at) {
            self.on = true;
            tell = tell.or_else(|| {
                Some(match pace {
                    Pace::Full if leaving.is_empty() => {
                        "servers are asked to look at the ranges that want one more replica (pace: full)".into()
                    }
                    Pace::Full => "servers are asked to look at the leaving nodes' ranges (pace: full)".into(),
                    _ => "the last ranges wait for the servers' scanner: they are asked to look at them (pace: tail)".into(),
                })
            });
        }
        tell
    }

    /// Whether there is something to ask for at once.
    pub(super) fn has_work(&self, at: Timestamp) -> bool {
        self.may_ask(at) && !self.to_ask.is_empty()
    }

    /// What servers said of ranges that did not move.
    pub(super) fn reasons(&self) -> impl Iterator<Item = String> + '_ {
        self.why.iter().map(|(range, words)| format!("{range}: the server says: {words}"))
    }

    /// What was asked for, to be put behind what a step proved; empty when nothing was.
    pub(super) fn summary(&self) -> String {
        if self.asked == 0 {
            return String::new();
        }
        let kinds: Vec<String> = self.errors.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        let of_them = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        format!("; {} times a server was asked to look at a range{of_them}", self.asked)
    }

    fn answers(&mut self, at: Timestamp, looked: &Looked) -> Option<String> {
        if looked.nudged.is_empty() {
            return None;
        }
        let (mut tell, mut overload) = (None, false);
        let done: BTreeSet<RangeId> = looked.nudged.iter().map(|(range, _)| *range).collect();
        self.to_ask.retain(|(range, _)| !done.contains(range));
        for (range, result) in &looked.nudged {
            self.why.remove(range);
            let kind = match result {
                Ok(Enqueued::Processed) => None,
                Ok(Enqueued::Stale(_)) => Some("stale"),
                Ok(Enqueued::Raced(_)) => Some("raced"),
                Ok(Enqueued::Failed(words)) => {
                    self.why.insert(*range, words.chars().take(LONGEST_WORDS).collect());
                    Some("refused")
                }
                Err((kind, _)) if kind.is_transient() => {
                    overload = true;
                    Some("unanswered")
                }
                Err((_, message)) => {
                    self.off = true;
                    tell = Some(format!("servers cannot be asked to look at ranges: {message}"));
                    Some("failed")
                }
            };
            self.asked += 1;
            if let Some(kind) = kind {
                *self.errors.entry(kind).or_default() += 1;
            }
        }
        match overload {
            true => self.hold(at),
            false => self.at_once = (self.at_once.max(1) + 1).min(MOST_AT_ONCE),
        }
        tell
    }

    /// The time that SQL takes stands for what clients feel.
    fn latency(&mut self, at: Timestamp, took: Option<SignedDuration>) {
        let Some(took) = took else { return };
        let quickest = self.quickest.map_or(took, |q| q.min(took));
        self.quickest = Some(quickest);
        let slow = took > SLOW_AT_LEAST && took > quickest.saturating_mul(SLOWER);
        self.slow = if slow { self.slow + 1 } else { 0 };
        if self.slow >= 2 {
            self.slow = 0;
            self.hold(at);
        }
    }

    /// Where the servers' own queues fill, the scanner is not what is waited for.
    fn queues(&mut self, at: Timestamp, obs: &Observation, leaving: &[NodeId]) {
        let gauges = staying(obs, leaving).filter_map(|s| s.status.replicate_pending);
        let Some(pending) = gauges.reduce(u64::saturating_add) else { return };
        let least = self.pending.map_or(pending, |least| least.min(pending));
        self.pending = Some(least);
        // The gauge is older than a pause.
        if pending > least.saturating_mul(2).saturating_add(BUSY) && self.may_ask(at) {
            self.hold(at);
        }
    }

    fn hold(&mut self, at: Timestamp) {
        self.at_once = (self.at_once / 2).max(1);
        self.paused_until = Some(later(at, PAUSE));
    }
}

fn staying<'a>(obs: &'a Observation, leaving: &'a [NodeId]) -> impl Iterator<Item = &'a Store> {
    obs.nodes.values().filter(|n| !leaving.contains(&n.id)).flat_map(|n| n.stores.values())
}

/// Ranges that are unavailable or under-replicated by the gauges of the nodes that stay; `None` when none was read.
/// Where nodes join, only the unavailable ones: the others are what is waited for.
fn short_of_replicas(obs: &Observation, leaving: &[NodeId]) -> Option<u64> {
    let gauges = staying(obs, leaving).filter_map(|s| {
        let short = if leaving.is_empty() { 0 } else { s.status.ranges_underreplicated? };
        Some(s.status.ranges_unavailable?.saturating_add(short))
    });
    gauges.reduce(u64::saturating_add)
}

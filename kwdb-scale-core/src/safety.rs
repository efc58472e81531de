//! Two questions that are often taken for one, each answered with evidence.
//!
//! [`ok_to_stop`]: would every range keep a quorum if these nodes stopped now? It says nothing of their data, which
//! may be needed again. [`safe_to_wipe`]: are these nodes proven removed, so that nothing of the cluster lives on
//! their disks? It says nothing of what runs there now. What is not known is a no.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::assess::{Finding, Retry, Severity};
use crate::fact::Fact;
use crate::health::range_health;
use crate::observation::{Node, Observation};
use crate::plan::ids;
use crate::rows::RangeRow;
use crate::topology::{NodeClass, NodeId, StoreId};

/// Ranges that are named in one line of evidence.
const NAMED: usize = 10;

/// Which question was asked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// [`ok_to_stop`].
    OkToStop,
    /// [`safe_to_wipe`].
    SafeToWipe,
}

/// The answer to a [`Question`]: yes when nothing speaks against it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// The question.
    pub question: Question,
    /// The nodes it was asked of.
    pub nodes: Vec<NodeId>,
    /// What speaks against it, each with its cure.
    pub objections: Vec<Finding>,
    /// The facts looked at, one a line.
    pub evidence: Vec<String>,
}

impl Answer {
    /// Whether nothing speaks against it.
    pub fn is_yes(&self) -> bool {
        self.objections.is_empty()
    }

    fn new(question: Question, nodes: &[NodeId]) -> Self {
        let unique: BTreeSet<NodeId> = nodes.iter().copied().collect();
        Self { question, nodes: unique.into_iter().collect(), objections: Vec::new(), evidence: Vec::new() }
    }

    fn object(&mut self, message: impl Into<String>, cure: &str, retry: Retry) {
        let name = self.question.name();
        self.objections.push(Finding::new(name, Severity::Refuse, message).cure(cure).retry(retry));
    }

    fn unknown(&mut self, what: &str, why: &str) {
        self.object(
            format!("{what} unknown: {why}"),
            "ask again when the fact can be had",
            Retry::WhenFactChanges(what.to_owned()),
        );
    }

    /// The nodes that are asked about, as far as the cluster knows them.
    fn known<'a>(&mut self, obs: &'a Observation) -> Vec<&'a Node> {
        if let Fact::Unknown(why) = &obs.membership {
            self.unknown("membership is", why);
            return Vec::new();
        }
        if self.nodes.is_empty() {
            self.object("no node was named", "name at least one node id", Retry::Never);
        }
        let mut found = Vec::new();
        for id in self.nodes.clone() {
            match obs.nodes.get(&id) {
                Some(node) => found.push(node),
                None => self.object(
                    format!("{id} never was in this cluster"),
                    "name an id that `kwbase node status --all` lists",
                    Retry::Never,
                ),
            }
        }
        found
    }
}

impl Question {
    /// `ok-to-stop` or `safe-to-wipe`.
    pub fn name(self) -> &'static str {
        match self {
            Self::OkToStop => "ok-to-stop",
            Self::SafeToWipe => "safe-to-wipe",
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = if self.is_yes() { "yes" } else { "no" };
        writeln!(f, "{} {}: {answer}", self.question.name(), ids(&self.nodes))?;
        for objection in &self.objections {
            writeln!(f, "  {}", objection.to_string().replace('\n', "\n  "))?;
        }
        for line in &self.evidence {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

/// Whether every range would keep a live quorum if all of `nodes` stopped now, together.
///
/// A replica on a draining node counts as gone, for that node is about to stop. The answer holds for the moment of the
/// observation.
///
/// ```
/// use kwdb_scale_core::observation::Observation;
/// use kwdb_scale_core::safety::ok_to_stop;
/// use kwdb_scale_core::topology::NodeId;
///
/// fn may_reboot(observation: &Observation, node: NodeId) -> bool {
///     let answer = ok_to_stop(observation, &[node]);
///     println!("{answer}");
///     answer.is_yes()
/// }
/// ```
pub fn ok_to_stop(obs: &Observation, nodes: &[NodeId]) -> Answer {
    let mut answer = Answer::new(Question::OkToStop, nodes);
    for node in answer.known(obs) {
        if matches!(node.class, NodeClass::Removed | NodeClass::Dead) {
            answer.evidence.push(format!("{} is {} and does not run", node.id, class(node)));
        }
    }
    let (ranges, now) = match (&obs.ranges, &obs.server_time) {
        (Fact::Known(ranges), Fact::Known(now)) if !ranges.is_empty() => (ranges, *now),
        (Fact::Known(_), Fact::Known(_)) => {
            answer.unknown("the table of ranges is", "no range was answered, and every cluster has some");
            return answer;
        }
        (Fact::Unknown(why), _) => {
            answer.unknown("the table of ranges is", why);
            return answer;
        }
        (_, Fact::Unknown(why)) => {
            answer.unknown("the server's time is", why);
            return answer;
        }
    };
    let stays = |node: &&Node| {
        !answer.nodes.contains(&node.id)
            && node.expiration.known().is_some_and(|e| *e > now)
            && node.draining == Fact::Known(false)
    };
    let up: BTreeSet<StoreId> =
        obs.nodes.values().filter(stays).flat_map(|n| n.stores.keys().copied()).collect();
    let theirs: BTreeSet<StoreId> = obs
        .nodes
        .values()
        .filter(|n| answer.nodes.contains(&n.id))
        .flat_map(|n| n.stores.keys().copied())
        .collect();
    let (mut lost, mut thinner) = (Vec::new(), 0usize);
    for range in ranges {
        let left = range.replicas.iter().filter(|s| up.contains(s)).count();
        if left < range.replicas.len() / 2 + 1 {
            lost.push(range.range_id);
        } else if range.replicas.iter().any(|s| theirs.contains(s)) {
            thinner += 1;
        }
    }
    if !lost.is_empty() {
        let list: Vec<String> = lost.iter().take(NAMED).map(ToString::to_string).collect();
        let more = if lost.len() > NAMED { ", …" } else { "" };
        answer.object(
            format!(
                "{} of {} ranges would have no quorum among the nodes that are up and not draining: {}{more}",
                lost.len(),
                ranges.len(),
                list.join(", ")
            ),
            "start what is down, or stop fewer nodes at once; to take a node out for good, scale it in first",
            Retry::WhenFactChanges("replicas of the ranges named".to_owned()),
        );
    }
    answer.evidence.push(format!(
        "{} of {} ranges keep their quorum; {thinner} of them have a replica there that would be down",
        ranges.len() - lost.len(),
        ranges.len(),
    ));
    answer
}

/// Whether nothing of the cluster lives on the disks of `nodes`: each is Removed (bit set, liveness expired) by every
/// gateway that was asked, no range names one of its stores, and no range of the cluster is short of a quorum.
///
/// Two gateways must have answered where two members are left.
pub fn safe_to_wipe(obs: &Observation, nodes: &[NodeId]) -> Answer {
    let mut answer = Answer::new(Question::SafeToWipe, nodes);
    for node in answer.known(obs) {
        removed(&mut answer, obs, node);
    }
    let members = obs.of_class(NodeClass::Member).count();
    let views = obs.other_views.iter().filter(|v| v.liveness.known().is_some()).count();
    if members > 1 && views == 0 {
        answer.unknown("what a second member sees is", "only one gateway answered");
    }
    // Who has lost a quorum may yet need every old disk.
    match range_health(obs, obs.counted_members(), &BTreeSet::new()) {
        Fact::Unknown(why) => answer.unknown("range health is", &why),
        Fact::Known(health) => {
            if !health.unavailable.is_empty() || !health.unmapped.is_empty() {
                answer.object(
                    format!(
                        "{} ranges have no live quorum and {} name stores of no known node: an old disk may be the last copy",
                        health.unavailable.len(),
                        health.unmapped.len()
                    ),
                    "repair the cluster first",
                    Retry::WhenFactChanges("range health".to_owned()),
                );
            }
            answer.evidence.push(format!(
                "{} ranges looked at, {} of them under-replicated",
                health.total,
                health.under_replicated.len()
            ));
        }
    }
    answer
}

fn removed(answer: &mut Answer, obs: &Observation, node: &Node) {
    let id = node.id;
    if node.class != NodeClass::Removed {
        let cure = match node.class {
            NodeClass::Member => "scale it in first",
            NodeClass::Leaving => "wait until it is empty, stop it, and ask again",
            NodeClass::Dead => "start it again and scale it in; a dead node's data may be needed",
            NodeClass::Removed | NodeClass::Unknown => "ask again when its state is known",
        };
        answer.object(
            format!("{id} is {}, not removed", class(node)),
            cure,
            Retry::WhenFactChanges(format!("class of {id}")),
        );
        return;
    }
    let expired = match (&node.expiration, &obs.server_time) {
        (Fact::Known(end), Fact::Known(now)) => end <= now,
        _ => false,
    };
    if node.decommissioning == Fact::Known(true) && expired {
        answer.evidence.push(format!("{id} is marked, and its liveness has expired, by {}", obs.gateway));
    } else {
        answer.unknown(
            &format!("whether {id} is removed is"),
            "its class and its liveness contradict each other",
        );
    }
    no_replica(answer, obs, node);
    for view in &obs.other_views {
        let (Fact::Known(rows), Fact::Known(now)) = (&view.liveness, &view.server_time) else { continue };
        let row = rows.iter().find(|r| r.node_id == id);
        let agrees =
            row.is_some_and(|r| r.decommissioning == Some(true) && r.expiration.is_some_and(|e| e <= *now));
        if agrees {
            answer.evidence.push(format!("{} says the same of {id}", view.gateway));
        } else {
            answer.object(
                format!("{} does not hold {id} for removed", view.gateway),
                "ask again when all members agree",
                Retry::WhenFactChanges(format!("liveness of {id}")),
            );
        }
    }
}

/// That no range names a store of the node: by its count, and by the table of ranges itself.
fn no_replica(answer: &mut Answer, obs: &Observation, node: &Node) {
    let id = node.id;
    if node.stores.is_empty() {
        answer.unknown(&format!("which stores {id} had is"), "no status row of it is left");
        return;
    }
    let names =
        |range: &&RangeRow| range.replicas.iter().chain(&range.learners).any(|s| node.stores.contains_key(s));
    let named = obs.ranges.as_ref().map(|all| all.iter().filter(names).count() as u64);
    match (&node.replicas, named) {
        (Fact::Known(0), Fact::Known(0)) => {
            let stores: Vec<String> = node.stores.keys().map(|s| s.0.to_string()).collect();
            answer.evidence.push(format!("no range names a store of {id} ({})", stores.join(", ")));
        }
        (Fact::Unknown(why), _) => answer.unknown(&format!("how many replicas {id} holds is"), why),
        (_, Fact::Unknown(why)) => answer.unknown(&format!("how many replicas {id} holds is"), &why),
        (Fact::Known(counted), Fact::Known(named)) => answer.object(
            format!("{} ranges name a store of {id}", named.max(*counted)),
            "wait until no range names it",
            Retry::WhenFactChanges(format!("replicas of {id}")),
        ),
    }
}

fn class(node: &Node) -> &'static str {
    match node.class {
        NodeClass::Member => "a live member",
        NodeClass::Leaving => "leaving",
        NodeClass::Removed => "removed",
        NodeClass::Dead => "down",
        NodeClass::Unknown => "in a state that is not known",
    }
}

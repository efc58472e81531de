//! Checks on nodes: alive, in one mode, of one release, enough of them.

use std::collections::BTreeMap;

use super::{Problem, known_or};
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::observation::Node;
use crate::policy::MIN_MEMBERS;
use crate::topology::{NodeClass, StartMode};
use crate::version::Version;

/// Nodes that take part: all but the removed ones.
fn present<'a>(cx: &Context<'a>) -> impl Iterator<Item = &'a Node> {
    cx.obs.nodes.values().filter(|n| n.class != NodeClass::Removed)
}

/// `node 4 at 10.0.0.4:26257`
pub(super) fn name(node: &Node) -> String {
    match node.address.known() {
        Some(address) => format!("{} at {address}", node.id),
        None => node.id.to_string(),
    }
}

fn gateway_flag(cx: &Context<'_>) -> String {
    cx.staying
        .iter()
        .find_map(|n| n.address.known())
        .map_or_else(|| "<a live node>".to_owned(), ToString::to_string)
}

pub(super) fn known(cx: &Context<'_>) -> Vec<Problem> {
    cx.obs
        .of_class(NodeClass::Unknown)
        .map(|n| {
            let why = [&n.decommissioning.as_ref().map(|_| ()), &n.expiration.as_ref().map(|_| ())]
                .iter()
                .find_map(|f| f.why_unknown().map(str::to_owned))
                .or_else(|| n.replicas.why_unknown().map(str::to_owned))
                .unwrap_or_else(|| "its liveness row is incomplete".to_owned());
            Problem::new(format!(
                "whether {} is a member, leaving, removed or dead cannot be told: {why}",
                name(n)
            ))
            .retry(Retry::WhenFactChanges(format!("liveness and ranges of {}", n.id)))
        })
        .collect()
}

pub(super) fn described(cx: &Context<'_>) -> Vec<Problem> {
    present(cx)
        .filter(|n| n.class != NodeClass::Dead)
        .filter_map(|n| {
            let facts = [
                ("address", n.address.why_unknown()),
                ("locality", n.locality.why_unknown()),
                ("start mode", n.start_mode.why_unknown()),
                ("build", n.build.why_unknown()),
            ];
            let missing: Vec<&str> = facts.iter().filter(|(_, why)| why.is_some()).map(|(w, _)| *w).collect();
            let why = facts.iter().find_map(|(_, why)| *why)?;
            Some(
                Problem::new(format!("{} of {} is unknown: {why}", missing.join(", "), n.id))
                    .cure("wait until gossip has spread its descriptor")
                    .after_secs(10),
            )
        })
        .collect()
}

pub(super) fn alive(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for node in present(cx).filter(|n| !cx.change.remove.contains(&n.id) || n.class != NodeClass::Dead) {
        match node.class {
            NodeClass::Dead => found.push(
                Problem::new(format!("{} is down", name(node)))
                    .evidence(liveness(node))
                    .cure("start it again on its own store")
                    .retry(Retry::WhenFactChanges(format!("liveness of {}", node.id))),
            ),
            NodeClass::Member if node.upgrading != Fact::Known(true) => match node.is_healthy() {
                Fact::Known(true) => {}
                Fact::Known(false) => found.push(
                    Problem::new(format!("{} is not alive", name(node)))
                        .evidence(liveness(node))
                        .cure("look at its process and its network; a flap passes within seconds")
                        .after_secs(10),
                ),
                Fact::Unknown(why) => found.push(
                    Problem::unknown(&format!("whether {} is alive is", name(node)), &why).after_secs(10),
                ),
            },
            _ => {}
        }
    }
    found
}

fn liveness(node: &Node) -> Vec<String> {
    vec![format!("is_available {}, is_live {}", node.is_available, node.is_live)]
}

pub(super) fn target_alive(cx: &Context<'_>) -> Vec<Problem> {
    cx.leaving
        .iter()
        .filter(|n| n.class == NodeClass::Dead)
        .map(|n| {
            Problem::new(format!(
                "{} is to leave but is down; removing a dead node is an operation of its own",
                name(n)
            ))
            .evidence(liveness(n))
            .cure("start it again on its own store, then scale in")
            .retry(Retry::WhenFactChanges(format!("liveness of {}", n.id)))
        })
        .collect()
}

pub(super) fn draining(cx: &Context<'_>) -> Vec<Problem> {
    present(cx)
        .filter(|n| matches!(n.class, NodeClass::Member | NodeClass::Leaving))
        .filter_map(|n| match &n.draining {
            Fact::Known(false) => None,
            // A drained node that still runs after its scale-in has its own check.
            Fact::Known(true) if n.is_drained() => None,
            Fact::Known(true) => Some(
                Problem::new(format!("{} is draining", name(n)))
                    .cure("let it stop and start it again: a drain cannot be undone otherwise")
                    .retry(Retry::WhenFactChanges(format!("draining of {}", n.id))),
            ),
            Fact::Unknown(why) => {
                Some(Problem::unknown(&format!("whether {} is draining is", name(n)), why).after_secs(10))
            }
        })
        .collect()
}

pub(super) fn upgrading(cx: &Context<'_>) -> Vec<Problem> {
    present(cx)
        .filter_map(|n| match &n.upgrading {
            Fact::Known(false) => None,
            Fact::Known(true) => Some(
                Problem::new(format!("{} is being upgraded", name(n)))
                    .cure("finish the upgrade first")
                    .retry(Retry::WhenFactChanges(format!("upgrading of {}", n.id))),
            ),
            Fact::Unknown(why) => Some(
                Problem::unknown(&format!("whether {} is being upgraded is", name(n)), why).after_secs(10),
            ),
        })
        .collect()
}

pub(super) fn leaving(cx: &Context<'_>) -> Vec<Problem> {
    cx.obs
        .of_class(NodeClass::Leaving)
        .filter(|n| !n.is_drained())
        .map(|n| {
            Problem::new(format!("{} is being decommissioned already", name(n)))
                .evidence([format!("replicas left: {}", n.replicas)])
                .cure(format!(
                    "resume the operation that marked it, or wait; or undo: kwbase node recommission {} --host={} [--insecure | --certs-dir=<dir>]",
                    n.id.0,
                    gateway_flag(cx)
                ))
                .retry(Retry::WhenFactChanges(format!("class of {}", n.id)))
        })
        .collect()
}

pub(super) fn drained(cx: &Context<'_>) -> Vec<Problem> {
    cx.obs
        .of_class(NodeClass::Leaving)
        .filter(|n| n.is_drained() && !cx.change.remove.contains(&n.id))
        .map(|n| {
            Problem::new(format!(
                "{} is decommissioned and holds no replica, but runs: it was left so, or a removed node was started again on its old store",
                name(n)
            ))
            .cure(format!(
                "stop it by a scale-in of node {}; or take it back: kwbase node recommission {} --host={} [--insecure | --certs-dir=<dir>]",
                n.id.0,
                n.id.0,
                gateway_flag(cx)
            ))
        })
        .collect()
}

pub(super) fn start_mode(cx: &Context<'_>) -> Vec<Problem> {
    known_or(&cx.mode, "the start mode of the cluster is", |mode| match mode {
        StartMode::MultiReplica | StartMode::SingleReplica => Vec::new(),
        StartMode::SingleNode => vec![
            Problem::new("the cluster runs with start-single-node, which is never scaled")
                .cure("make a cluster with kwbase start and move the data there")
                .retry(Retry::Never),
        ],
        StartMode::Unknown(word) => {
            vec![Problem::new(format!("the start mode '{word}' is not known to this library"))]
        }
    })
    .into_iter()
    .map(|p| p.evidence(modes(cx)))
    .collect()
}

fn modes(cx: &Context<'_>) -> Vec<String> {
    present(cx).map(|n| format!("{}: {}", n.id, n.start_mode)).collect()
}

pub(super) fn single_replica(cx: &Context<'_>) -> Vec<Problem> {
    if !cx.single_replica() {
        return Vec::new();
    }
    vec![
        Problem::new("Single-replica clusters do not currently support scale-in operations (KWDB page)")
            .evidence(modes(cx))
            .evidence(["the server refuses: node cannot be decommissioned in mpp mode".to_owned()])
            .cure("keep its nodes; to run on fewer, restore a backup into a new, smaller cluster")
            .retry(Retry::Never),
    ]
}

pub(super) fn version_supported(cx: &Context<'_>) -> Vec<Problem> {
    present(cx)
        .filter_map(|n| Some((n, *n.version().known()?)))
        .filter(|(_, v)| *v < Version::OLDEST)
        .map(|(n, v)| {
            Problem::new(format!(
                "{} runs {v}, and the oldest that can be scaled is {}",
                name(n),
                Version::OLDEST
            ))
            .cure("upgrade the cluster first")
            .retry(Retry::WhenFactChanges(format!("build of {}", n.id)))
        })
        .collect()
}

pub(super) fn version_uniform(cx: &Context<'_>) -> Vec<Problem> {
    let mut builds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for node in present(cx) {
        if let Some(build) = node.build.known() {
            builds.entry(build).or_default().push(node.id.to_string());
        }
    }
    if builds.len() < 2 {
        return Vec::new();
    }
    vec![
        Problem::new("the nodes run different releases")
            .evidence(builds.iter().map(|(build, nodes)| format!("{build}: {}", nodes.join(", "))))
            .cure("finish the upgrade first")
            .retry(Retry::WhenFactChanges("builds of the nodes".to_owned())),
    ]
}

pub(super) fn version_known(cx: &Context<'_>) -> Vec<Problem> {
    let mut strange: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for node in present(cx) {
        let Some(build) = node.build.known() else { continue };
        if node.version().known().is_none_or(|v| *v > Version::NEWEST) {
            strange.entry(build).or_default().push(node.id.to_string());
        }
    }
    strange
        .into_iter()
        .map(|(build, nodes)| {
            Problem::new(format!(
                "this library does not know release '{build}' ({}) and treats it as {}",
                nodes.join(", "),
                Version::NEWEST
            ))
        })
        .collect()
}

pub(super) fn remain(cx: &Context<'_>) -> Vec<Problem> {
    let after = cx.live_after();
    if after >= MIN_MEMBERS {
        return Vec::new();
    }
    let stay: Vec<String> = cx.staying.iter().map(|n| n.id.to_string()).collect();
    let message = format!(
        "{after} live member{} would remain; a minimum of {MIN_MEMBERS} is needed, and with fewer the removal would hang indefinitely",
        if after == 1 { "" } else { "s" }
    );
    let mut lines =
        vec![format!("stay: {}", if stay.is_empty() { "none".to_owned() } else { stay.join(", ") })];
    if !cx.change.add.is_empty() {
        let add: Vec<&str> = cx.change.add.iter().map(|h| h.as_str()).collect();
        lines.push(format!("join: {}", add.join(", ")));
    }
    vec![
        Problem::new(message)
            .evidence(lines)
            .cure(format!("scale out by {} first, or replace instead", MIN_MEMBERS - after))
            .retry(Retry::WhenFactChanges("number of live members".to_owned())),
    ]
}

//! Checks on the cluster as a whole and on the gateways through which it was seen.

use std::collections::BTreeSet;

use super::{Problem, known_or};
use crate::assess::Context;
use crate::fact::Fact;
use crate::observation::View;
use crate::topology::{NodeClass, NodeId};

pub(super) fn readable(cx: &Context<'_>) -> Vec<Problem> {
    let obs = cx.obs;
    let mut found = known_or(&obs.membership, "the table of members is", |()| Vec::new());
    found.extend(known_or(&obs.cluster_id, "the cluster's id is", |_| Vec::new()));
    if found.is_empty() && obs.nodes.is_empty() {
        found.push(Problem::new(format!("{} knows no node", obs.gateway)).after_secs(10));
    }
    for problem in &mut found {
        problem.cure = Some(format!(
            "check that {} is a live node of an initialised cluster (kwbase node status --host={})",
            obs.gateway, obs.gateway
        ));
    }
    found
}

pub(super) fn admin(cx: &Context<'_>) -> Vec<Problem> {
    match &cx.obs.is_admin {
        Fact::Known(true) => Vec::new(),
        Fact::Known(false) => {
            vec![
                Problem::new("the user lacks the admin role, without which kwdb_internal cannot be read")
                    .cure("run as root: GRANT admin TO <user>"),
            ]
        }
        Fact::Unknown(why) => {
            vec![
                Problem::unknown("whether the user has the admin role is", why)
                    .cure("run as root: GRANT admin TO <user>"),
            ]
        }
    }
}

pub(super) fn agree(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for view in &cx.obs.other_views {
        if let (Fact::Known(ours), Fact::Known(theirs)) = (&cx.obs.cluster_id, &view.cluster_id)
            && ours != theirs
        {
            found.push(
                Problem::new(format!(
                    "{} belongs to cluster {ours}, {} to cluster {theirs}",
                    cx.obs.gateway, view.gateway
                ))
                .cure("name seeds of one cluster only"),
            );
            continue;
        }
        let lines = differences(cx, view);
        if !lines.is_empty() {
            found.push(
                Problem::new(format!(
                    "{} and {} do not see the same members",
                    cx.obs.gateway, view.gateway
                ))
                .evidence(lines)
                .cure("wait until gossip has spread; if it lasts, compare kwbase node status --all --host=<each>")
                .after_secs(15),
            );
        }
    }
    found
}

/// Where the other gateway's liveness differs, removed nodes aside.
fn differences(cx: &Context<'_>, view: &View) -> Vec<String> {
    let (Fact::Known(rows), Fact::Known(their_now)) = (&view.liveness, &view.server_time) else {
        return Vec::new();
    };
    let (us, them) = (&cx.obs.gateway, &view.gateway);
    let mut lines = Vec::new();
    for node in cx.obs.nodes.values().filter(|n| n.class != NodeClass::Removed) {
        let Some(row) = rows.iter().find(|r| r.node_id == node.id) else {
            lines.push(format!("{} is unknown to {them}", node.id));
            continue;
        };
        let ours_expired = match (node.expiration.known(), cx.obs.server_time.known()) {
            (Some(expires), Some(now)) => Some(expires <= now),
            _ => None,
        };
        let facts = [
            ("expired", ours_expired, row.expiration.map(|e| e <= *their_now)),
            ("decommissioning", node.decommissioning.known().copied(), row.decommissioning),
        ];
        for (what, ours, theirs) in facts {
            if ours != theirs {
                lines.push(format!(
                    "{}: {what} is {} by {us}, {} by {them}",
                    node.id,
                    say(ours),
                    say(theirs)
                ));
            }
        }
    }
    for row in rows.iter().filter(|r| !cx.obs.nodes.contains_key(&r.node_id)) {
        lines.push(format!("{} is unknown to {us}", row.node_id));
    }
    lines
}

fn say(fact: Option<bool>) -> &'static str {
    match fact {
        Some(true) => "true",
        Some(false) => "false",
        None => "unknown",
    }
}

pub(super) fn two_gateways(cx: &Context<'_>) -> Vec<Problem> {
    let obs = cx.obs;
    let stays = |id: NodeId| cx.staying.iter().any(|n| n.id == id);
    let mut answered: BTreeSet<NodeId> = BTreeSet::new();
    let mut lines = Vec::new();
    match (&obs.gateway_node, &obs.membership) {
        (Fact::Known(id), Fact::Known(())) if stays(*id) => {
            answered.insert(*id);
        }
        (Fact::Known(id), Fact::Known(())) => {
            lines.push(format!("{} is {id}, which does not stay", obs.gateway))
        }
        (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => lines.push(format!("{}: {why}", obs.gateway)),
    }
    for view in &obs.other_views {
        match (&view.node, &view.liveness) {
            (Fact::Known(id), Fact::Known(_)) if stays(*id) => {
                answered.insert(*id);
            }
            (Fact::Known(id), Fact::Known(_)) => {
                lines.push(format!("{} is {id}, which does not stay", view.gateway));
            }
            (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => {
                lines.push(format!("{}: {why}", view.gateway));
            }
        }
    }
    if answered.len() >= 2 {
        return Vec::new();
    }
    let message = format!("members that stay and answered: {}; two are needed", answered.len());
    vec![
        Problem::new(message)
            .evidence(lines)
            .cure("make a second member that stays reachable by SQL, or name it among the seeds")
            .after_secs(10),
    ]
}

pub(super) fn skew(cx: &Context<'_>) -> Vec<Problem> {
    let most = cx.policy.max_clock_skew;
    cx.obs
        .other_views
        .iter()
        .filter_map(|view| Some((view, *view.skew.known()?)))
        .filter(|(_, skew)| skew.abs() > most)
        .map(|(view, skew)| {
            Problem::new(format!(
                "the clock of {} is at least {} ms {} that of {} (allowed: {} ms)",
                view.gateway,
                skew.abs().as_millis(),
                if skew.is_negative() { "behind" } else { "ahead of" },
                cx.obs.gateway,
                most.as_millis()
            ))
            .cure("compare the hosts' clocks and their time service (NTP)")
        })
        .collect()
}

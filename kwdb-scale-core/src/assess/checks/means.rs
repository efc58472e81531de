//! Checks on what nodes are marked and stopped with, and on the hosts where that needs kwbase.

use super::{Problem, script};
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::observation::Node;
use crate::ports::{HostFacts, Means};
use crate::request::{Finish, Pace};
use crate::topology::{HostName, NodeId};

/// Leaving nodes that are stopped on their own hosts, by what owns their processes.
pub(super) fn owned<'a>(cx: &'a Context<'_>) -> impl Iterator<Item = (&'a Node, &'a HostName)> {
    cx.leaving.iter().filter_map(|node| {
        let host = cx.host_of(node)?;
        let told = cx.obs.hosts.get(host).and_then(Fact::known).is_some_and(|facts| facts.by_service);
        (told || cx.obs.owned.contains(host)).then_some((*node, host))
    })
}

/// With what nodes are asked, marked and stopped, where that is known: the plan says it.
pub(super) fn said(cx: &Context<'_>) -> Vec<Problem> {
    let say = |means: &Means| match means {
        _ if !cx.leaving.is_empty() => format!("nodes are marked, counted and stopped by {means}"),
        Means::AdminRpc { why, .. } => {
            format!("new nodes say by the admin RPC whether they are ready ({why})")
        }
        Means::CommandLine { why, .. } => format!("whether new nodes are ready is judged by SQL ({why})"),
    };
    let more = |means: &Means| {
        let by_owner = |(node, host): (&Node, &HostName)| {
            format!("node {} is stopped by what owns its process, by a command on host {host}", node.id.0)
        };
        let scripted = |host: &HostName| script::of(cx, host).is_some();
        let joins = cx.change.add.iter().filter(|host| scripted(host));
        let mut lines: Vec<String> =
            joins.map(|host| format!("a node is added on host {host} by deploy.sh join")).collect();
        if means.marks_on_hosts() {
            let marked = cx.leaving.iter().filter_map(|node| Some((node.id, cx.host_of(node)?)));
            let marked = marked.filter(|(_, host)| scripted(host));
            lines.extend(marked.map(|(id, host)| {
                format!("node {} is marked by deploy.sh decommission on host {host}", id.0)
            }));
        }
        if cx.request.options.finish == Finish::Stop {
            lines.extend(owned(cx).map(by_owner));
        }
        if matches!(means, Means::CommandLine { .. }) && cx.request.options.pace == Pace::Full {
            lines.push(
                "the pace is the servers' own: only the admin RPC can ask them to look at ranges sooner"
                    .to_owned(),
            );
        }
        lines
    };
    cx.obs.means.iter().map(|means| Problem::new(say(means)).evidence(more(means))).collect()
}

/// Why nothing can be asked of the cluster as root from a host; `None` where it can.
fn why_not(cx: &Context<'_>, facts: &HostFacts) -> Option<String> {
    if let Some(Means::CommandLine { refused: Some(refused), .. }) = &cx.obs.means {
        let dir = super::certificates::directory(facts);
        let theirs = dir.map(|dir| dir.certificate("client.root.crt"));
        if theirs.is_some_and(|theirs| theirs.known().is_some_and(|c| c.fingerprint == *refused)) {
            return Some("its client.root.crt is the very certificate that a member refused".to_owned());
        }
    }
    match (&facts.build, &facts.can_authenticate) {
        _ if facts.can_mark() => None,
        (Fact::Unknown(why), _) => Some(format!("no kwbase: {why}")),
        (_, Fact::Unknown(why)) => Some(why.clone()),
        (_, Fact::Known(_)) => {
            let damage = super::certificates::directory(facts).map(|dir| dir.damage(&["ca", "client.root"]));
            let why = damage.filter(|lines| !lines.is_empty()).map(|lines| format!(": {}", lines.join(", ")));
            Some(format!("root's client certificate and key cannot be used{}", why.unwrap_or_default()))
        }
    }
}

/// Nodes that something owns are stopped on their own hosts, by a command that asks the cluster from there.
pub(super) fn stopping(cx: &Context<'_>) -> Vec<Problem> {
    if cx.request.options.finish != Finish::Stop {
        return Vec::new();
    }
    let leave = "or leave the node running (kwscale: --finish leave-drained)";
    let problem = |node: NodeId, host: &HostName, why: &str, cure: &str| {
        let message = format!(
            "the process of node {} belongs to a service of host {host}, where nothing can ask the cluster before it is \
             stopped",
            node.0
        );
        Problem::new(message)
            .evidence([format!("{host}: {why}")])
            .cure(format!("{cure}; {leave}"))
            .retry(Retry::WhenFactChanges(format!("kwbase of host {host}")))
    };
    let mut found = Vec::new();
    for (node, host) in owned(cx) {
        match cx.obs.hosts.get(host) {
            Some(Fact::Known(facts)) => {
                let cure = "put kwbase there, on a secure cluster client.root.crt and client.root.key too";
                found.extend(why_not(cx, facts).map(|why| problem(node.id, host, &why, cure)));
            }
            // A node that is down needs no stop, and its host may be gone for good.
            _ if node.is_live == Fact::Known(false) => {}
            Some(Fact::Unknown(why)) => found.push(problem(node.id, host, why, "mend what the reason names")),
            None => found.push(problem(node.id, host, "it was not looked at", "look at it")),
        }
    }
    found
}

/// Whether marks are set by commands on hosts, as far as the caller says.
pub(super) fn marks_on_hosts(cx: &Context<'_>) -> bool {
    cx.obs.means.as_ref().is_none_or(Means::marks_on_hosts)
}

pub(super) fn marking(cx: &Context<'_>) -> Vec<Problem> {
    if !marks_on_hosts(cx) {
        return Vec::new();
    }
    let mut lines = Vec::new();
    let mut hosts: Vec<&HostName> = Vec::new();
    for node in &cx.staying {
        match cx.host_of(node) {
            Some(host) => hosts.push(host),
            None => lines.push(format!("{}: its host is not in the inventory", node.id)),
        }
    }
    for host in hosts.into_iter().chain(&cx.request.inventory.control) {
        match cx.obs.hosts.get(host) {
            None => lines.push(format!("{host}: it was not looked at")),
            Some(Fact::Unknown(why)) => lines.push(format!("{host}: {why}")),
            Some(Fact::Known(facts)) => match why_not(cx, facts) {
                Some(why) => lines.push(format!("{host}: {why}")),
                None => return Vec::new(),
            },
        }
    }
    vec![
        Problem::new("no host of a member that stays, nor a control host, can run kwbase node decommission as root")
            .evidence(lines)
            .cure("name a staying member's host in the inventory, with kwbase and, on a secure cluster, client.root.crt and client.root.key")
            .retry(Retry::WhenFactChanges("hosts of the members that stay".to_owned())),
    ]
}

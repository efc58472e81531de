//! Checks on what nodes are marked and stopped with, and on the hosts where that needs kwbase.

use super::Problem;
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::ports::{HostFacts, Means};
use crate::request::Finish;
use crate::topology::HostName;

/// With what nodes are asked, marked and stopped, where that is known: the plan says it.
pub(super) fn said(cx: &Context<'_>) -> Vec<Problem> {
    let say = |means: &Means| match means {
        _ if !cx.leaving.is_empty() => format!("nodes are marked, counted and stopped by {means}"),
        Means::AdminRpc { why, .. } => format!("new nodes say by the admin RPC whether they are ready ({why})"),
        Means::CommandLine { why } => format!("whether new nodes are ready is judged by SQL ({why})"),
    };
    cx.obs.means.iter().map(say).map(Problem::new).collect()
}

/// Why nothing can be asked of the cluster as root from a host; `None` where it can.
fn why_not(facts: &HostFacts) -> Option<String> {
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
    let owned = cx.leaving.iter().filter_map(|node| {
        let host = cx.host_of(node)?;
        Some((node.id, host, cx.obs.hosts.get(host)?.known().filter(|facts| facts.by_service)?))
    });
    owned
        .filter_map(|(node, host, facts)| {
            let why = why_not(facts)?;
            let message = format!(
                "the process of node {} belongs to a service of host {host}, where nothing can ask the cluster before it \
                 is stopped",
                node.0
            );
            Some(
                Problem::new(message)
                    .evidence([format!("{host}: {why}")])
                    .cure("put kwbase there, on a secure cluster client.root.crt and client.root.key too; or leave the node running (kwscale: --finish leave-drained)")
                    .retry(Retry::WhenFactChanges(format!("kwbase of host {host}"))),
            )
        })
        .collect()
}

pub(super) fn marking(cx: &Context<'_>) -> Vec<Problem> {
    if cx.obs.means.as_ref().is_some_and(|means| !means.marks_on_hosts()) {
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
            Some(Fact::Known(facts)) => match why_not(facts) {
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

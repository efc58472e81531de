//! Checks on hosts that shall join.

use std::collections::BTreeMap;

use super::{Problem, machine};
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::ports::HostFacts;
use crate::topology::{Address, HostName, NodeClass};

/// What was found on the hosts that shall join, as far as they could be looked at.
pub(super) fn joining<'a>(cx: &Context<'a>) -> Vec<(&'a HostName, &'a HostFacts)> {
    cx.change.add.iter().filter_map(|host| Some((host, cx.obs.hosts.get(host)?.known()?))).collect()
}

pub(super) fn facts(cx: &Context<'_>) -> Vec<Problem> {
    cx.change
        .add
        .iter()
        .filter_map(|host| {
            let why = match cx.obs.hosts.get(host) {
                Some(Fact::Known(_)) => return None,
                Some(Fact::Unknown(why)) => why.as_str(),
                None => "it was not looked at",
            };
            Some(
                Problem::new(format!("host {host} is unknown: {why}"))
                    .cure(look_again(host))
                    .retry(Retry::WhenFactChanges(format!("host {host}"))),
            )
        })
        .collect()
}

/// What is wrong the reason says itself.
pub(super) fn look_again(host: &HostName) -> String {
    format!("mend what the reason names, and look again (kwscale: hosts {host})")
}

/// Hosts of nodes and the control host that could not be looked at.
pub(super) fn others(cx: &Context<'_>) -> Vec<Problem> {
    let others = cx.obs.hosts.iter().filter(|(host, _)| !cx.change.add.contains(host));
    others
        .filter_map(|(host, facts)| Some((host, facts.why_unknown()?)))
        .map(|(host, why)| {
            Problem::new(format!("host {host} could not be looked at: {why}")).cure(look_again(host))
        })
        .collect()
}

pub(super) fn version(cx: &Context<'_>) -> Vec<Problem> {
    let cluster: Vec<&String> = cx
        .obs
        .nodes
        .values()
        .filter(|n| n.class != NodeClass::Removed)
        .filter_map(|n| n.build.known())
        .collect();
    let mut found = Vec::new();
    for (host, facts) in joining(cx) {
        let retry = Retry::WhenFactChanges(format!("kwbase of host {host}"));
        match (&facts.build, cluster.first()) {
            (Fact::Unknown(why), _) => found
                .push(Problem::unknown(&format!("the kwbase release of host {host} is"), why).retry(retry)),
            (Fact::Known(_), None) => {
                found.push(Problem::new("the cluster's release is unknown").retry(retry));
            }
            (Fact::Known(build), Some(members)) => {
                if cluster.iter().any(|other| *other != build) {
                    found.push(
                        Problem::new(format!("host {host} has kwbase {build}, the cluster runs {members}"))
                            .cure(format!("install KWDB {members} on host {host}"))
                            .retry(retry),
                    );
                }
            }
        }
    }
    found
}

pub(super) fn ports(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for (host, facts) in joining(cx) {
        match &facts.listening {
            Fact::Known(list) if list.is_empty() => {}
            Fact::Known(list) => {
                let list: Vec<String> = list.iter().map(ToString::to_string).collect();
                found.push(
                    Problem::new(format!("something listens on host {host} already: {}", list.join(", ")))
                        .cure("stop what listens there, or give the node other ports")
                        .retry(Retry::WhenFactChanges(format!("listeners of host {host}"))),
                );
            }
            Fact::Unknown(why) => found.push(
                Problem::unknown(&format!("whether something listens on host {host} is"), why)
                    .retry(Retry::WhenFactChanges(format!("listeners of host {host}"))),
            ),
        }
    }
    found
}

pub(super) fn secure(cx: &Context<'_>) -> Vec<Problem> {
    let mut modes: BTreeMap<bool, Vec<String>> = BTreeMap::new();
    for (host, facts) in &cx.obs.hosts {
        let member = cx.staying.iter().chain(&cx.leaving).any(|n| cx.host_of(n) == Some(host));
        if let (Fact::Known(facts), true) = (facts, member || cx.change.add.contains(host)) {
            modes.entry(facts.secure).or_default().push(host.to_string());
        }
    }
    match (modes.get(&true), modes.get(&false)) {
        (Some(secure), Some(insecure)) => vec![
            Problem::new("some hosts are configured secure and some insecure")
                .evidence([
                    format!("secure: {}", secure.join(", ")),
                    format!("insecure: {}", insecure.join(", ")),
                ])
                .cure("configure all hosts as the cluster runs"),
        ],
        _ => Vec::new(),
    }
}

pub(super) fn credentials(cx: &Context<'_>) -> Vec<Problem> {
    if super::authority::wanted(cx) {
        // They are made before the node starts.
        return Vec::new();
    }
    let joins = joining(cx).into_iter().filter(|(host, _)| !super::script::makes_certificates(cx, host));
    joins
        .filter_map(|(host, facts)| {
            let dir = super::certificates::directory(facts).filter(|_| facts.secure);
            let faults = dir.map(|dir| super::certificates::root_faults(cx, dir)).unwrap_or_default();
            match &facts.can_authenticate {
                Fact::Known(true) if faults.is_empty() => None,
                Fact::Unknown(why) if faults.is_empty() => Some(Problem::unknown(
                    &format!("whether commands on host {host} can authenticate is"),
                    why,
                )),
                _ => {
                    let cure = if facts.archive_only {
                        "ask for certificates of the method archive (kwscale: --certificates archive)"
                    } else {
                        "ask for certificates of the method issue (kwscale: --certificates issue), or put client.root.crt and client.root.key of the cluster's CA there before starting (kwbase cert create-client root)"
                    };
                    let message = format!("root's client certificate and key cannot be used on host {host}");
                    Some(Problem::new(message).evidence(faults).cure(cure))
                }
            }
        })
        .collect()
}

fn is_loopback(address: &Address) -> bool {
    let host = address.host();
    host == "localhost" || host == "::1" || host.starts_with("127.")
}

pub(super) fn address(cx: &Context<'_>) -> Vec<Problem> {
    let others_dial = cx
        .obs
        .nodes
        .values()
        .filter(|n| n.class == NodeClass::Member)
        .filter_map(|n| n.address.known())
        .find(|a| !is_loopback(a));
    cx.change
        .add
        .iter()
        .filter_map(|host| {
            let address = &cx.request.inventory.hosts.get(host)?.address;
            let problem = if address.port().is_none() {
                format!("the address of host {host}, {address}, has no port")
            } else if matches!(address.host(), "" | "0.0.0.0" | "::") {
                format!("host {host} would advertise {address}, which nobody can dial")
            } else if let (true, Some(other)) = (is_loopback(address), others_dial) {
                format!("host {host} would advertise {address}, which {other} cannot dial")
            } else {
                return None;
            };
            Some(Problem::new(problem).cure("give the host the address at which the other nodes reach it"))
        })
        .collect()
}

/// Addresses at which a new node is to listen and its machine has none of: as a rule those of another machine than the one
/// on which the commands arrive.
pub(super) fn listen_address(cx: &Context<'_>) -> Vec<Problem> {
    // With deploy.sh a node listens at every address.
    let all = machine::joining(cx).into_iter().filter(|new| new.facts.script.is_none());
    all.filter_map(|new| {
        let foreign: Vec<String> = new.machine.cannot_bind().iter().map(ToString::to_string).collect();
        let own = new.machine.addresses.known()?.iter().filter(|network| !network.ip.is_loopback());
        let host = new.host;
        let message = format!(
            "the node of host {host} is to listen at {}, and the machine on which it would be started has no such address",
            foreign.join(", ")
        );
        (!foreign.is_empty()).then(|| {
            Problem::new(message)
                .evidence(super::some(own.map(|n| format!("it has {n}")), cx.policy.list_ranges))
                .cure("correct the address (an address that is translated on the way is the one to advertise, not the one to listen at), or how the host is reached: its commands may arrive on another machine")
                .retry(Retry::WhenFactChanges(format!("addresses of host {host}")))
        })
    })
    .collect()
}

pub(super) fn reused(cx: &Context<'_>) -> Vec<Problem> {
    cx.change
        .add
        .iter()
        .filter_map(|host| {
            let address = &cx.request.inventory.hosts.get(host)?.address;
            let former: Vec<String> = cx
                .obs
                .of_class(NodeClass::Removed)
                .filter(|n| n.address.known() == Some(address))
                .map(|n| n.id.to_string())
                .collect();
            let message = format!(
                "host {host} takes {address}, formerly of removed {}: the new node gets an id of its own",
                former.join(", ")
            );
            (!former.is_empty()).then(|| Problem::new(message))
        })
        .collect()
}

//! Checks on what a cluster may not lose with the hosts of leaving nodes: the private key of its certificate authority, and
//! the installer's list of nodes.

use super::{Problem, authority, certificates};
use crate::assess::{Context, Retry};
use crate::fact::Fact;
use crate::host_facts::{HostFacts, Machine, NODE_FILE};
use crate::topology::HostName;

const CA_KEY: &str = "ca.key";

/// A file that may hold the private key of the cluster's authority.
struct Key<'a> {
    path: String,
    sum: Fact<&'a str>,
}

/// Those of a host: of its certificate directory, and where the caller says that the key lies. An empty file is none.
fn authority_keys(facts: &HostFacts) -> Vec<Key<'_>> {
    let mut keys = Vec::new();
    if let Some(dir) = certificates::directory(facts)
        && let Some(file) = dir.file(CA_KEY).filter(|f| f.size > 0)
    {
        let sum = file.sha256.as_ref().map(Fact::as_ref);
        let sum = sum.unwrap_or_else(|| Fact::unknown("it was not read"));
        keys.push(Key { path: format!("{}/{CA_KEY}", dir.path), sum: sum.map(String::as_str) });
    }
    let configured = facts.machine.as_deref().and_then(|m| m.authority_key.as_ref());
    if let Some(key) = configured.filter(|k| keys.iter().all(|other| other.path != k.path)) {
        match &key.sha256 {
            Fact::Known(Some(sum)) => keys.push(Key { path: key.path.clone(), sum: Fact::Known(sum) }),
            Fact::Known(None) => {}
            Fact::Unknown(why) => keys.push(Key { path: key.path.clone(), sum: Fact::Unknown(why.clone()) }),
        }
    }
    keys
}

/// Where the caller says that a host has the authority's key, and it has none, there or in its certificate directory.
fn missing_key(facts: &HostFacts) -> Option<&str> {
    let configured = facts.machine.as_deref()?.authority_key.as_ref()?;
    let is_missing = configured.sha256 == Fact::Known(None) && authority_keys(facts).is_empty();
    is_missing.then_some(configured.path.as_str())
}

/// Why a key of a leaving host is not proven to be on one that stays; `None` when it is. A file of the same name is no
/// copy unless it is equal.
fn kept_nowhere(cx: &Context<'_>, key: &Key<'_>, others: &[(&HostName, &HostFacts)]) -> Option<Vec<String>> {
    let mut lines = issuer_keeps(cx, Some(&key.path)).err()?;
    if let Fact::Unknown(why) = &key.sum {
        lines.push(format!("{} there: {why}", key.path));
    }
    for (host, facts) in others {
        for other in authority_keys(facts) {
            match (&other.sum, &key.sum) {
                (Fact::Known(theirs), Fact::Known(own)) if theirs == own => return None,
                (Fact::Known(_), Fact::Known(_)) => {
                    lines.push(format!("host {host}: {} is another file", other.path));
                }
                (Fact::Unknown(why), _) => lines.push(format!("host {host}: {}: {why}", other.path)),
                (Fact::Known(_), Fact::Unknown(_)) => {}
            }
        }
    }
    Some(lines)
}

fn has_peers(machine: &Machine) -> bool {
    matches!(machine.installed, Fact::Known(Some(_))) && matches!(machine.peers, Fact::Known(Some(_)))
}

/// The hosts of leaving nodes.
fn leaving<'a>(cx: &Context<'a>) -> Vec<&'a HostName> {
    cx.leaving.iter().filter_map(|n| cx.host_of(n)).collect()
}

/// What is known of hosts that no node leaves.
fn staying<'a>(cx: &Context<'a>) -> Vec<(&'a HostName, &'a HostFacts)> {
    let leaving = leaving(cx);
    let stay = cx.obs.hosts.iter().filter(|(host, _)| !leaving.contains(host));
    stay.filter_map(|(host, facts)| Some((host, facts.known()?))).collect()
}

/// Whether the authority that was looked at has the cluster's key, on a machine that no node leaves and in another file than the one
/// at `path`; the reasons when that is not proven.
fn issuer_keeps(cx: &Context<'_>, path: Option<&str>) -> Result<(), Vec<String>> {
    let facts = match &cx.obs.authority {
        None => return Err(Vec::new()),
        Some(Fact::Unknown(why)) => {
            return Err(vec![format!("the authority that issues certificates: {why}")]);
        }
        Some(Fact::Known(facts)) => facts,
    };
    let mut lines = authority::unproven(facts);
    if let Some(file) = &facts.key_file {
        // The caller's own machine may be the one that the node leaves.
        let own = !cx.request.inventory.hosts.contains_key(&file.host);
        if leaving(cx).contains(&&file.host) {
            lines.push(format!("the authority's key lies on host {}, which leaves", file.host));
        } else if own && path == Some(file.path.as_str()) {
            lines.push(format!("the authority on {}: {} may be the same file", facts.place, file.path));
        }
    }
    if lines.is_empty() { Ok(()) } else { Err(lines) }
}

/// Whether the authority's key is not lost with hosts that leave unseen; the reasons when that is not known.
fn is_kept(cx: &Context<'_>) -> Result<(), Vec<String>> {
    let inventory = &cx.request.inventory;
    let mut known = cx.obs.hosts.values().filter_map(Fact::known).peekable();
    // Where no host is known it cannot be told whether the cluster has an authority.
    let insecure = known.peek().is_some() && !known.any(|facts| facts.secure);
    let others = staying(cx);
    let holds = |facts: &HostFacts| {
        let damaged = certificates::directory(facts).is_some_and(|dir| dir.key_damage("ca").is_some());
        !damaged && authority_keys(facts).iter().any(|key| key.sum.known().is_some())
    };
    if insecure || others.iter().any(|(_, facts)| holds(facts)) {
        return Ok(());
    }
    let mut lines = vec!["no host that stays is known to hold it".to_owned()];
    if cx.obs.authority.is_some() {
        return issuer_keeps(cx, None).map_err(|why| lines.into_iter().chain(why).collect());
    }
    // Where nobody looked, the caller's word; what a look at the host did not find there is not there.
    let declared = inventory.authority.as_ref().is_some_and(|host| {
        let seen = others.iter().find(|(other, _)| *other == host);
        !leaving(cx).contains(&host) && seen.is_none_or(|(_, facts)| !authority_keys(facts).is_empty())
    });
    if inventory.authority_elsewhere || declared {
        return Ok(());
    }
    lines.push("the configuration does not say where it lies".to_owned());
    Err(lines)
}

/// Hosts of leaving nodes that could not be looked at and may hold the only key of the authority, each as a problem without a cure.
/// Those of nodes that are down, or the others.
fn unseen<'a>(cx: &Context<'a>, down: bool) -> Vec<(&'a HostName, Problem)> {
    let Err(lines) = is_kept(cx) else { return Vec::new() };
    let nodes = cx.leaving.iter().filter(|n| (n.is_live == Fact::Known(false)) == down);
    let hosts = nodes.filter_map(|n| cx.host_of(n));
    let problem = |host: &'a HostName| {
        let why = cx.obs.hosts.get(host)?.why_unknown()?;
        let message = format!(
            "host {host} leaves, and whether it holds the only private key of the cluster's CA is unknown: {why}"
        );
        Some((host, Problem::new(message).evidence(lines.clone())))
    };
    // The one that is configured to hold it has a finding of its own.
    hosts.filter(|host| cx.request.inventory.authority.as_ref() != Some(*host)).filter_map(problem).collect()
}

/// A dead machine may be gone for good: its node has to stay removable.
pub(super) fn unseen_dead(cx: &Context<'_>) -> Vec<Problem> {
    let cure = "if the machine can be started again, save its ca.key first; without the key no certificate can be issued any more";
    unseen(cx, true).into_iter().map(|(_, problem)| problem.cure(cure)).collect()
}

pub(super) fn last_holder(cx: &Context<'_>) -> Vec<Problem> {
    let leaving = leaving(cx);
    let known = |host: &HostName| cx.obs.hosts.get(host).and_then(Fact::known);
    let others = staying(cx);
    let mut found: Vec<Problem> = unseen(cx, false)
        .into_iter()
        .map(|(host, problem)| {
            problem
                .cure("let the host be looked at, or name the file that holds the key in the description (kwscale: [certificates] with ca_key, and ca_host where that is a host)")
                .retry(Retry::WhenFactChanges(format!("host {host}")))
        })
        .collect();
    for host in &leaving {
        let retry = || Retry::WhenFactChanges("holders of the CA's key and of the NODE file".to_owned());
        let Some(facts) = known(host) else {
            if cx.request.inventory.authority.as_ref() == Some(*host) {
                let why =
                    cx.obs.hosts.get(*host).and_then(Fact::why_unknown).unwrap_or("it was not looked at");
                found.push(
                    Problem::new(format!(
                        "host {host} leaves, and by the configuration the private key of the cluster's CA lies there; whether another host has it is unknown: {why}"
                    ))
                    .cure("let the host be looked at, or copy the key to a host of the description that stays and configure that one")
                    .retry(retry()),
                );
            }
            continue;
        };
        if let (Some(path), Err(lines)) = (missing_key(facts), is_kept(cx)) {
            found.push(
                Problem::new(format!(
                    "host {host} leaves, and by the configuration the private key of the cluster's CA lies there, at {path}, where it is not: it \
                     may lie elsewhere on that host and leave with it"
                ))
                .evidence(lines)
                .cure("find the key, and copy it with ca.crt to a host of the description that stays, or to the operator's machine, and name that place (kwscale: [certificates]). If it lies where the description cannot name it, or is lost, take ca_key and ca_host out of the description. Without the key no certificate can be issued any more")
                .retry(retry()),
            );
        }
        for key in authority_keys(facts) {
            if let Some(lines) = kept_nowhere(cx, &key, &others) {
                found.push(
                    Problem::new(format!(
                        "host {host} leaves, and no other known host is proven to have its private key of the cluster's CA ({})",
                        key.path
                    ))
                    .evidence(lines)
                    .cure("copy ca.key and ca.crt, readable for the login there, to the certificate directory of the host of a member that stays, or of the control host if the description names one (kwscale: control_host), or to where the description says that the authority's key lies (kwscale: [certificates]); a copy that lies elsewhere does not count. Without the key no certificate can be issued any more")
                    .retry(retry()),
                );
            }
        }
        let keeps = |facts: &HostFacts| facts.machine.as_deref().is_some_and(has_peers);
        if keeps(facts) && !others.iter().any(|(_, other)| keeps(other)) {
            found.push(
                Problem::new(format!("host {host} leaves, and no other known host has {NODE_FILE}"))
                    .cure("copy the installer's directory and /etc/kaiwudb/info to a node that stays: deploy.sh works from there")
                    .retry(retry()),
            );
        }
    }
    found
}

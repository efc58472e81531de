//! Checks on hosts where a script of KWDB's, `deploy.sh`, adds and marks nodes.

use super::{Problem, authority, certificates, hosts, means};
use crate::assess::{Context, Retry};
use crate::certs::brief;
use crate::fact::Fact;
use crate::host_facts::ScriptFacts;
use crate::topology::HostName;

/// The script's facts of a host, where there is one.
pub(super) fn of<'a>(cx: &Context<'a>, host: &HostName) -> Option<&'a Fact<ScriptFacts>> {
    cx.obs.hosts.get(host)?.known()?.script.as_ref()
}

fn problem(message: String, evidence: impl IntoIterator<Item = String>, host: &HostName) -> Problem {
    Problem::new(message).evidence(evidence).retry(Retry::WhenFactChanges(format!("host {host}")))
}

/// Whether `join` makes a new host's certificates itself, of an archive of the cluster's authority that lies there: it deletes
/// those that are there now.
pub(super) fn makes_certificates(cx: &Context<'_>, host: &HostName) -> bool {
    let script = of(cx, host).and_then(Fact::known);
    let archive = script.filter(|s| s.archive == Some(true) && s.archive_fault.is_none());
    match archive.and_then(|s| s.archive_authority.as_ref()) {
        Some(Fact::Known(authority)) => certificates::foreign(cx, authority).is_none(),
        _ => false,
    }
}

/// The script's facts where they are known; where they should be and are not, that is a problem.
fn known<'a>(cx: &Context<'a>, host: &HostName, found: &mut Vec<Problem>) -> Option<&'a ScriptFacts> {
    match of(cx, host)? {
        Fact::Known(script) => Some(script),
        Fact::Unknown(why) => {
            let what = format!("whether deploy.sh can be run on host {host} is");
            found.push(Problem::unknown(&what, why).cure(hosts::look_again(host)));
            None
        }
    }
}

/// What keeps `join` from adding a node on a new host.
pub(super) fn join(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for host in &cx.change.add {
        let Some(script) = known(cx, host, &mut found) else { continue };
        let hindered: Vec<String> = script.unusable.iter().chain(&script.unfit).cloned().collect();
        if !hindered.is_empty() {
            let message = format!("deploy.sh join cannot add a node on host {host}");
            found.push(problem(message, hindered, host).cure("mend what is named"));
        }
        if script.archive == Some(false) && !authority::wanted(cx) {
            let message =
                format!("the archive of certificates that deploy.sh join opens is not on host {host}");
            found.push(problem(message, [], host).cure(
                "ask for certificates of the method archive (kwscale: --certificates archive), or put \
                 kaiwudb_certs.tar.gz, with ca.crt and ca.key, where the script looks for it",
            ));
        }
        found.extend(archive(cx, host, script));
    }
    found
}

/// Why certificates of the cluster cannot be made of the archive that lies on a host already. One that is there is used, and
/// never replaced, also where certificates are asked for.
fn archive(cx: &Context<'_>, host: &HostName, script: &ScriptFacts) -> Option<Problem> {
    let cure = if authority::wanted(cx) {
        "move it away (installers before V3.1.0 leave one of the host's own authority there): the archive of the cluster's is \
         put there then"
    } else {
        "make it again, of ca.crt and ca.key of the cluster's CA, on the node that holds them; or move it away and ask for \
         certificates of the method archive (kwscale: --certificates archive)"
    };
    if let Some(fault) = &script.archive_fault {
        let message = format!("deploy.sh join cannot make certificates of the archive on host {host}");
        return Some(problem(message, [fault.clone()], host).cure(cure));
    }
    let own = match &cx.obs.authority {
        Some(Fact::Known(facts)) if authority::wanted(cx) => Some(facts.fingerprint.as_str()),
        _ => None,
    };
    match script.archive_authority.as_ref()? {
        Fact::Known(fingerprint) => {
            let other = match own {
                Some(own) => (own != fingerprint).then(|| format!("the cluster's ({})", brief(own))),
                None => certificates::foreign(cx, fingerprint)
                    .map(|(member, other)| format!("on host {member} ({})", brief(other))),
            }?;
            let message = format!(
                "the archive of certificates on host {host} is of another authority ({}) than {other}",
                brief(fingerprint)
            );
            Some(problem(message, [], host).cure(cure))
        }
        // It would be left alone, unseen.
        Fact::Unknown(why) if authority::wanted(cx) => {
            let what = format!("whether the archive of certificates on host {host} is the cluster's is");
            Some(Problem::unknown(&what, why).cure(cure))
        }
        Fact::Unknown(_) => None,
    }
}

/// What could not be told of the archive on a new host.
pub(super) fn untold(cx: &Context<'_>, host: &HostName) -> Option<String> {
    let why = of(cx, host)?.known()?.archive_authority.as_ref()?.why_unknown()?;
    Some(format!("what the archive of certificates holds: {why}"))
}

/// What keeps `decommission` from marking leaving nodes, and no others.
pub(super) fn mark(cx: &Context<'_>) -> Vec<Problem> {
    if !means::marks_on_hosts(cx) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for node in cx.leaving.iter().filter(|node| node.decommissioning != Fact::Known(true)) {
        let Some(host) = cx.host_of(node) else { continue };
        let Some(script) = known(cx, host, &mut found) else { continue };
        if !script.unusable.is_empty() {
            let message =
                format!("deploy.sh decommission cannot be run on host {host} of node {}", node.id.0);
            let cure = "mend what is named, or give the host the method kwbase";
            found.push(problem(message, script.unusable.iter().cloned(), host).cure(cure));
        }
        let Some(address) = &script.address else { continue };
        let at = |n: &&crate::observation::Node| n.sql_address.known().is_some_and(|a| a.host() == address);
        let others: Vec<String> =
            cx.staying.iter().copied().filter(|n| at(n)).map(|n| n.id.to_string()).collect();
        if !others.is_empty() {
            let message = format!(
                "deploy.sh decommission on host {host} would mark {} besides: it marks every node at {address}",
                others.join(", ")
            );
            found.push(problem(message, [], host).cure("give the host the method kwbase"));
        }
    }
    found
}

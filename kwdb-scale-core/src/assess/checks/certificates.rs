//! Checks on certificates: those with which a new node would start, and the keys of certificate authorities.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::machine::{Joining, joining};
use super::{Problem, authority, script};
use crate::assess::{Context, Retry};
use crate::certs::brief;
use crate::fact::Fact;
use crate::host_facts::{CertificateDirectory, HostFacts, Machine, NODE_FILE};
use crate::topology::HostName;

/// A certificate that ends sooner is a warning.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The certificates without which a node does not start. kwbase passes over a damaged one of a client (seen on V3.2.1).
const OF_NODE: [&str; 2] = ["ca", "node"];
/// The same with root's, without which no command can log in.
const ALL: [&str; 3] = ["ca", "node", "client.root"];

const CA: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const NODE: &str = "node.crt";

/// Secure hosts that shall join with the certificates that are there.
fn secure<'a>(cx: &Context<'a>) -> Vec<Joining<'a>> {
    // Where the plan itself puts certificates onto a new host, those that are there now do not matter.
    if authority::wanted(cx) {
        return Vec::new();
    }
    let stay = |new: &Joining<'a>| new.facts.secure && !script::makes_certificates(cx, new.host);
    joining(cx).into_iter().filter(stay).collect()
}

pub(super) fn directory(facts: &HostFacts) -> Option<&CertificateDirectory> {
    facts.machine.as_deref()?.certificates.known()?.as_ref()
}

/// Fingerprints of `ca.crt` on the hosts that do not join.
fn authorities<'a>(cx: &Context<'a>) -> Vec<(&'a HostName, &'a str)> {
    let others = cx.obs.hosts.iter().filter(|(host, _)| !cx.change.add.contains(host));
    others
        .filter_map(|(host, facts)| match directory(facts.known()?)?.certificate(CA) {
            Fact::Known(ca) => Some((host, ca.fingerprint.as_str())),
            Fact::Unknown(_) => None,
        })
        .collect()
}

/// A host that does not join whose authority is another one, with that one's fingerprint; `None` when one has the same, or none
/// is known.
pub(super) fn foreign<'a>(cx: &Context<'a>, fingerprint: &str) -> Option<(&'a HostName, &'a str)> {
    let known = authorities(cx);
    let same = known.iter().any(|(_, other)| *other == fingerprint);
    known.into_iter().next().filter(|_| !same)
}

/// Hosts onto which the plan cannot put certificates, because something else is where their directory is to be.
fn in_the_way(cx: &Context<'_>) -> Vec<Problem> {
    let wanted = if authority::wanted(cx) { joining(cx) } else { Vec::new() };
    let blocked = wanted.into_iter().filter_map(|new| {
        let dir = directory(new.facts).filter(|_| new.facts.secure)?;
        let why = dir.fault.as_ref()?;
        Some(
            Problem::new(format!("certificates cannot be put onto host {}: {}: {why}", new.host, dir.path))
                .cure("move it away: the directory is made where nothing is")
                .retry(Retry::WhenFactChanges(format!("certificates of host {}", new.host))),
        )
    });
    blocked.collect()
}

pub(super) fn usable(cx: &Context<'_>) -> Vec<Problem> {
    let mut found = in_the_way(cx);
    for new in secure(cx) {
        let retry = || Retry::WhenFactChanges(format!("certificates of host {}", new.host));
        let cure = if new.facts.archive_only {
            "ask for certificates of the method archive (kwscale: --certificates archive): deploy.sh join makes them itself, of the archive with the authority's private key"
        } else {
            "ask for certificates of the method issue (kwscale: --certificates issue); or make a node certificate for the host where the key of the cluster's CA lies (kwbase cert create-node), and put ca.crt, node.crt and node.key there"
        };
        let lines = match &new.machine.certificates {
            Fact::Unknown(_) => continue,
            Fact::Known(None) => vec!["the certificate directory does not exist".to_owned()],
            Fact::Known(Some(dir)) if dir.fault.is_some() => dir.damage(&[]),
            Fact::Known(Some(dir)) => faults(cx, new, dir),
        };
        if !lines.is_empty() {
            let message = format!("a node cannot start or join with the certificates of host {}", new.host);
            found.push(Problem::new(message).evidence(lines).cure(cure).retry(retry()));
        }
    }
    found
}

fn faults(cx: &Context<'_>, new: Joining<'_>, dir: &CertificateDirectory) -> Vec<String> {
    let mut lines = Vec::new();
    for name in [CA, NODE, "node.key"] {
        if dir.file(name).is_none() {
            lines.push(format!("there is no {}/{name}", dir.path));
        }
    }
    lines.extend(dir.damage(&OF_NODE));
    if let (Some(key), Some(user)) = (dir.file("node.key"), new.machine.service_user())
        && new.facts.by_service
        && user != "root"
        && key.owner != user
        && key.mode & 0o044 == 0
    {
        lines.push(format!(
            "node.key may be read by {} alone ({:o}), and {} runs as {user}",
            key.owner,
            key.mode,
            new.machine.unit_name()
        ));
    }
    let (ca, node) = (dir.certificate(CA), dir.certificate(NODE));
    if let Fact::Known(ca) = &ca
        && let Some((host, other)) = foreign(cx, &ca.fingerprint)
    {
        lines.push(format!(
            "{CA} is of another authority ({}) than on host {host} ({})",
            brief(&ca.fingerprint),
            brief(other)
        ));
    }
    if let (Fact::Known(ca), Fact::Known(node)) = (&ca, &node)
        && !node.names_as_issuer(ca)
    {
        lines.push(format!("{NODE} was not issued by the authority of {CA} there, but by {}", node.issuer));
    }
    if let (Fact::Known(node), Some(entry)) = (&node, cx.request.inventory.hosts.get(new.host)) {
        for address in [Some(&entry.address), entry.sql_address.as_ref()].into_iter().flatten() {
            if !node.is_for(address.host()) {
                let names = node.names.join(", ");
                lines.push(format!("{NODE} is not for {}, but for {names}", address.host()));
            }
        }
        if node.common_name.as_deref() != Some("node") {
            let name = node.common_name.as_deref().unwrap_or("nobody");
            lines.push(format!("{NODE} is that of '{name}', and kwbase wants 'node'"));
        }
    }
    for (name, certificate) in [(CA, &ca), (NODE, &node)] {
        if let (Fact::Known(certificate), Fact::Known(now)) = (certificate, &cx.obs.server_time) {
            if certificate.not_after <= *now {
                lines.push(format!("{name} ended at {}", certificate.not_after));
            } else if certificate.not_before > *now {
                lines.push(format!("{name} is not valid before {}", certificate.not_before));
            }
        }
    }
    // kwbase looks at the key of each certificate but the authorities'.
    let too_open = dir.files.iter().filter(|f| {
        let pair = f.name.strip_suffix(".key").filter(|stem| !stem.starts_with("ca"));
        pair.is_some_and(|stem| dir.file(&format!("{stem}.crt")).is_some()) && f.mode & 0o077 != 0
    });
    lines.extend(too_open.map(|f| format!("{} has mode {:03o}; kwbase wants 0700 or less", f.name, f.mode)));
    lines
}

pub(super) fn ending(cx: &Context<'_>) -> Vec<Problem> {
    let Fact::Known(now) = &cx.obs.server_time else { return Vec::new() };
    let mut found = Vec::new();
    for new in secure(cx) {
        let files = directory(new.facts).map_or(&[][..], |dir| dir.files.as_slice());
        let lines: Vec<String> = files
            .iter()
            .filter_map(|f| Some((f, f.certificate.as_ref()?.known()?.not_after)))
            .filter(|(_, end)| end.duration_since(*now) < SOON)
            .map(|(f, end)| format!("{}: {}", f.name, ends(end, *now)))
            .collect();
        if !lines.is_empty() {
            found.push(
                Problem::new(format!(
                    "certificates of host {} end within {} days",
                    new.host,
                    SOON.as_hours() / 24
                ))
                .evidence(lines)
                .cure("issue new ones before they end: a node does not start with one that has ended"),
            );
        }
    }
    found
}

fn ends(end: Timestamp, now: Timestamp) -> String {
    if end <= now { format!("ended at {end}") } else { format!("ends at {end}") }
}

pub(super) fn open_keys(cx: &Context<'_>) -> Vec<Problem> {
    let mut lines = BTreeSet::new();
    for (host, facts) in &cx.obs.hosts {
        let Some(dir) = facts.known().and_then(directory) else { continue };
        for file in dir.files.iter().filter(|f| is_authority_key(&f.name) && f.mode & 0o007 != 0) {
            lines.insert(format!("host {host}: {}/{} (mode {:03o})", dir.path, file.name, file.mode));
        }
    }
    if lines.is_empty() {
        return Vec::new();
    }
    vec![
        Problem::new("the private key of a certificate authority can be read by everybody on its host")
            .evidence(super::some(lines, cx.policy.list_ranges))
            .cure("chmod 600 it, better: keep it off the nodes; whoever has it can join the cluster and log in as root"),
    ]
}

fn is_authority_key(name: &str) -> bool {
    matches!(name, CA_KEY | "ca-client.key" | "ca-ui.key" | "tlcp_ca.key")
}

/// Damage on hosts that shall join, where it is replaced.
pub(super) fn replaced(cx: &Context<'_>) -> Vec<Problem> {
    if !authority::wanted(cx) {
        return Vec::new();
    }
    // What is no directory is not replaced.
    let sound =
        joining(cx).into_iter().filter(|new| directory(new.facts).is_none_or(|dir| dir.fault.is_none()));
    damaged(sound.map(|new| (new.host, new.facts)))
        .map(|(host, lines)| {
            Problem::new(format!(
                "what lies in the certificate directory of host {host} is damaged, and is replaced"
            ))
            .evidence(lines)
        })
        .collect()
}

pub(super) fn of_members(cx: &Context<'_>) -> Vec<Problem> {
    let others = cx.obs.hosts.iter().filter(|(host, _)| !cx.change.add.contains(host));
    damaged(others.filter_map(|(host, facts)| Some((host, facts.known()?))))
        .map(|(host, lines)| {
            Problem::new(format!("certificates of host {host} are damaged"))
                .evidence(lines)
                .cure("put the right files there: with these a node does not start again, or commands cannot log in")
        })
        .collect()
}

fn damaged<'a>(
    hosts: impl Iterator<Item = (&'a HostName, &'a HostFacts)>,
) -> impl Iterator<Item = (&'a HostName, Vec<String>)> {
    hosts.filter(|(_, facts)| facts.secure).filter_map(|(host, facts)| {
        let directory = directory(facts)?;
        let mut lines = directory.damage(&ALL);
        lines.extend(directory.key_damage("ca"));
        (!lines.is_empty()).then_some((host, lines))
    })
}

/// A file that may hold the private key of the cluster's authority.
struct Key<'a> {
    path: String,
    sum: Fact<&'a str>,
}

/// Those of a host: of its certificate directory, and where the caller says that the key lies. An empty file is none.
fn authority_keys(facts: &HostFacts) -> Vec<Key<'_>> {
    let mut keys = Vec::new();
    if let Some(dir) = directory(facts)
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

/// Why a key of a leaving host is not proven to be on one that stays; `None` when it is. A file of the same name is no
/// copy unless it is equal.
fn kept_nowhere(key: &Key<'_>, others: &[(&HostName, &HostFacts)]) -> Option<Vec<String>> {
    let mut lines = Vec::new();
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

/// Whether something says of the authority's key that it is not lost with hosts that leave unseen.
fn is_kept(cx: &Context<'_>) -> bool {
    let inventory = &cx.request.inventory;
    let mut known = cx.obs.hosts.values().filter_map(Fact::known).peekable();
    // Where no host is known it cannot be told whether the cluster has an authority.
    let insecure = known.peek().is_some() && !known.any(|facts| facts.secure);
    let others = staying(cx);
    let holds = |facts: &HostFacts| {
        let damaged = directory(facts).is_some_and(|dir| dir.key_damage("ca").is_some());
        !damaged && authority_keys(facts).iter().any(|key| key.sum.known().is_some())
    };
    // What a look did not find where it is configured to lie is not there.
    let declared = inventory.authority.as_ref().is_some_and(|host| {
        let seen = others.iter().find(|(other, _)| *other == host);
        !leaving(cx).contains(&host) && seen.is_none_or(|(_, facts)| !authority_keys(facts).is_empty())
    });
    insecure || inventory.authority_elsewhere || declared || others.iter().any(|(_, facts)| holds(facts))
}

/// Hosts of leaving nodes that could not be looked at, and why, of which nobody says that they do not hold the only key of the
/// authority. Those of nodes that are down, or the others.
fn unseen<'a>(cx: &Context<'a>, down: bool) -> Vec<(&'a HostName, &'a str)> {
    if is_kept(cx) {
        return Vec::new();
    }
    let nodes = cx.leaving.iter().filter(|n| (n.is_live == Fact::Known(false)) == down);
    let hosts = nodes.filter_map(|n| cx.host_of(n));
    // The one that is configured to hold it has a finding of its own.
    hosts
        .filter(|host| cx.request.inventory.authority.as_ref() != Some(*host))
        .filter_map(|host| Some((host, cx.obs.hosts.get(host)?.why_unknown()?)))
        .collect()
}

/// A dead machine may be gone for good: its node has to stay removable.
pub(super) fn unseen_dead(cx: &Context<'_>) -> Vec<Problem> {
    let unseen = unseen(cx, true).into_iter();
    unseen.map(|(host, why)| of_unseen(host, why).cure(
        "if the machine can be started again, save its ca.key first; without the key no certificate can be issued any more",
    )).collect()
}

fn of_unseen(host: &HostName, why: &str) -> Problem {
    Problem::new(format!(
        "host {host} leaves, and whether it holds the only private key of the cluster's CA is unknown: {why}"
    ))
    .evidence([
        "no host that stays is known to hold it, and the configuration does not say where it lies".to_owned(),
    ])
}

pub(super) fn last_holder(cx: &Context<'_>) -> Vec<Problem> {
    let leaving = leaving(cx);
    let known = |host: &HostName| cx.obs.hosts.get(host).and_then(Fact::known);
    let others = staying(cx);
    let mut found: Vec<Problem> = unseen(cx, false)
        .into_iter()
        .map(|(host, why)| {
            of_unseen(host, why)
                .cure("let the host be looked at, or say where the key lies in the description (kwscale: [certificates] with ca_key, and ca_host where that is a host)")
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
        for key in authority_keys(facts) {
            if let Some(lines) = kept_nowhere(&key, &others) {
                found.push(
                    Problem::new(format!(
                        "host {host} leaves, and no other known host is proven to have its private key of the cluster's CA ({})",
                        key.path
                    ))
                    .evidence(lines)
                    .cure("copy ca.key and ca.crt, readable for the login there, to the certificate directory of the host of a member that stays, or of the control host if the description names one (kwscale: control_host); a copy that lies elsewhere does not count. Without the key no certificate can be issued any more")
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

/// What the checks of this file could not tell of a new host.
pub(super) fn untold(cx: &Context<'_>, facts: &HostFacts) -> Vec<String> {
    let Some(dir) = directory(facts).filter(|_| facts.secure) else { return Vec::new() };
    let mut lines = Vec::new();
    for name in [CA, NODE] {
        if let (Some(file), Fact::Unknown(why)) = (dir.file(name), dir.certificate(name))
            && file.fault.is_none()
        {
            lines.push(format!("{name}: {why}"));
        }
    }
    if let Some(Fact::Unknown(why)) = dir.file(NODE).and_then(|f| f.key.as_ref()) {
        lines.push(format!("whether node.key is the key of {NODE}: {why}"));
    }
    if authorities(cx).is_empty() {
        lines.push(
            "the cluster's CA: ca.crt of no member's host could be read, nor of the control host's"
                .to_owned(),
        );
    }
    if let Fact::Unknown(why) = &cx.obs.server_time {
        lines.push(format!("whether certificates have ended: {why}"));
    }
    lines
}
